//! What a client tells a server about itself.

use std::sync::{Arc, PoisonError, RwLock};

use bson::raw::cstr;
use bson::{RawDocumentBuf, rawdoc};

use super::Environment;
use crate::Error;

/// The `client` document of the handshake: driver, operating system, platform and environment. Servers log it.
///
/// ```
/// use changestream_core::connection::ClientMetadata;
///
/// let metadata = ClientMetadata::new().append("my-connector", Some("2.1"), None)?;
/// let document = metadata.to_document(Some("billing"));
/// assert_eq!(document.get_document("driver")?.get_str("name")?, "changestream|my-connector");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientMetadata {
    os: OperatingSystem,
    platform: Option<String>,
    environment: Environment,
    wrappers: Vec<DriverInfo>,
}

/// The operating system, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatingSystem {
    /// The kind, as `uname -s` says it: `Linux`, `Darwin`, `Windows`. `unknown` if empty.
    pub kind: String,
    /// The distribution's full name.
    pub name: Option<String>,
    /// The hardware, as `uname -m` says it.
    pub architecture: Option<String>,
    /// The version.
    pub version: Option<String>,
}

/// A library that wraps this one, as it tells servers of itself.
///
/// ```
/// use changestream_core::connection::DriverInfo;
///
/// let info = DriverInfo::new("my-framework").version("2.0");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// What it runs on.
    pub platform: Option<String>,
}

impl DriverInfo {
    /// A library of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: None,
            platform: None,
        }
    }

    /// Sets [`version`](Self::version).
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Sets [`platform`](Self::platform).
    #[must_use]
    pub fn platform(mut self, platform: impl Into<String>) -> Self {
        self.platform = Some(platform.into());
        self
    }
}

/// Metadata that several connections share, and to which more can be added while they go on (Handshake specification,
/// "Metadata updates after MongoClient initialization"): connections that are made from then on tell it, those that stand
/// are left as they are. A clone shares it too.
#[derive(Clone, Debug, Default)]
pub struct SharedMetadata(Arc<RwLock<ClientMetadata>>);

impl SharedMetadata {
    /// As it is now.
    pub fn get(&self) -> ClientMetadata {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a library that wraps this one.
    ///
    /// # Errors
    /// As [`ClientMetadata::append`].
    pub fn append(&self, info: &DriverInfo) -> Result<(), Error> {
        let mut metadata = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *metadata = metadata
            .clone()
            .append(&info.name, info.version.as_deref(), info.platform.as_deref())?;
        Ok(())
    }
}

impl From<ClientMetadata> for SharedMetadata {
    fn from(metadata: ClientMetadata) -> Self {
        Self(Arc::new(RwLock::new(metadata)))
    }
}

impl ClientMetadata {
    /// This library on the operating system that it was built for, no platform, no environment.
    pub fn new() -> Self {
        Self {
            os: OperatingSystem::default(),
            platform: None,
            environment: Environment::default(),
            wrappers: Vec::new(),
        }
    }

    /// The same, on this operating system.
    #[must_use]
    pub fn with_os(mut self, os: OperatingSystem) -> Self {
        self.os = os;
        self
    }

    /// The same, on this platform, such as the executor's name. What matters most should come first.
    #[must_use]
    pub fn with_platform(mut self, platform: impl Into<String>) -> Self {
        self.platform = Some(platform.into());
        self
    }

    /// The same, in this environment.
    #[must_use]
    pub fn with_environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// The same, with the name, version and platform of a library that wraps this one appended. What was appended
    /// before is not appended again.
    ///
    /// # Errors
    /// A text contains `|`, which separates the names of wrapping libraries.
    pub fn append(
        mut self,
        name: &str,
        version: Option<&str>,
        platform: Option<&str>,
    ) -> Result<Self, Error> {
        let texts = [Some(name), version, platform];
        if texts.iter().flatten().any(|text| text.contains(SEPARATOR)) {
            return Err(Error::invalid_argument(format!(
                "the driver information {texts:?} must not contain {SEPARATOR:?}"
            )));
        }
        let wrapper = DriverInfo {
            name: name.to_owned(),
            version: version.map(str::to_owned),
            platform: platform.map(str::to_owned),
        };
        if !self.wrappers.contains(&wrapper) {
            self.wrappers.push(wrapper);
        }
        Ok(self)
    }

    /// The document, of at most 512 bytes. An application name is cut after 128 bytes.
    ///
    /// What does not fit is left out in the order of the Handshake specification ("Limitations"): `env` but its
    /// name, `os` but its type, all of `env`, the end of `platform`; and then the wrapping libraries.
    pub fn to_document(&self, app_name: Option<&str>) -> RawDocumentBuf {
        let full = Parts {
            app_name: app_name.map(|name| cut(name, MAX_APP_NAME)),
            driver_name: self.joined(DRIVER_NAME, |w| Some(&w.name)),
            driver_version: self.joined(DRIVER_VERSION, |w| w.version.as_deref()),
            os: self.os.to_document(),
            platform: self.platform(),
            env: self.environment.to_document(),
        };
        full.fitted(&self.os, &self.environment)
    }

    fn platform(&self) -> Option<String> {
        let own = self.platform.as_deref();
        let wrappers = self.wrappers.iter().filter_map(|w| w.platform.as_deref());
        let parts: Vec<&str> = own.into_iter().chain(wrappers).collect();
        (!parts.is_empty()).then(|| parts.join("|"))
    }

    fn joined<'a>(&'a self, own: &'a str, of: impl Fn(&'a DriverInfo) -> Option<&'a str>) -> String {
        let mut parts = vec![own];
        parts.extend(self.wrappers.iter().filter_map(of));
        parts.join("|")
    }
}

impl Default for ClientMetadata {
    fn default() -> Self {
        Self::new()
    }
}

impl OperatingSystem {
    fn to_document(&self) -> RawDocumentBuf {
        let mut document = self.kind_only();
        if let Some(name) = &self.name {
            document.append(cstr!("name"), name.as_str());
        }
        if let Some(architecture) = &self.architecture {
            document.append(cstr!("architecture"), architecture.as_str());
        }
        if let Some(version) = &self.version {
            document.append(cstr!("version"), version.as_str());
        }
        document
    }

    fn kind_only(&self) -> RawDocumentBuf {
        let kind = if self.kind.is_empty() {
            "unknown"
        } else {
            &self.kind
        };
        rawdoc! { "type": cut(kind, MAX_OS_KIND) }
    }
}

/// The operating system and hardware that this library was built for.
impl Default for OperatingSystem {
    fn default() -> Self {
        let kind = match std::env::consts::OS {
            "linux" => "Linux",
            "macos" => "Darwin",
            "windows" => "Windows",
            other => other,
        };
        Self {
            kind: kind.to_owned(),
            name: None,
            architecture: Some(std::env::consts::ARCH.to_owned()),
            version: None,
        }
    }
}

/// The document in the making.
struct Parts<'a> {
    app_name: Option<&'a str>,
    driver_name: String,
    driver_version: String,
    os: RawDocumentBuf,
    platform: Option<String>,
    env: Option<RawDocumentBuf>,
}

impl Parts<'_> {
    fn fitted(mut self, os: &OperatingSystem, environment: &Environment) -> RawDocumentBuf {
        if self.excess() > 0 {
            self.env = environment.name_only();
        }
        if self.excess() > 0 {
            self.os = os.kind_only();
        }
        if self.excess() > 0 {
            self.env = None;
        }
        let excess = self.excess();
        if excess > 0 {
            self.platform = self
                .platform
                .map(|platform| cut(&platform, platform.len().saturating_sub(excess)).to_owned())
                .filter(|platform| !platform.is_empty());
        }
        if self.excess() > 0 {
            self.driver_name = DRIVER_NAME.to_owned();
            self.driver_version = DRIVER_VERSION.to_owned();
        }
        self.to_document()
    }

    fn excess(&self) -> usize {
        self.to_document().as_bytes().len().saturating_sub(MAX_DOCUMENT)
    }

    fn to_document(&self) -> RawDocumentBuf {
        let mut document = RawDocumentBuf::new();
        if let Some(name) = self.app_name {
            document.append(cstr!("application"), rawdoc! { "name": name });
        }
        let driver = rawdoc! { "name": self.driver_name.as_str(), "version": self.driver_version.as_str() };
        document.append(cstr!("driver"), driver);
        document.append(cstr!("os"), self.os.clone());
        if let Some(platform) = &self.platform {
            document.append(cstr!("platform"), platform.as_str());
        }
        if let Some(env) = &self.env {
            document.append(cstr!("env"), env.clone());
        }
        document
    }
}

/// The text's first `bytes` bytes, or fewer where that would cut a character.
fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

const DRIVER_NAME: &str = "changestream";
const DRIVER_VERSION: &str = env!("CARGO_PKG_VERSION");
const SEPARATOR: char = '|';
/// Both from the Handshake specification, "Limitations".
const MAX_DOCUMENT: usize = 512;
const MAX_APP_NAME: usize = 128;
/// No name of a system is longer; so that nothing but the platform and wrapping libraries can be too long.
const MAX_OS_KIND: usize = 64;
