//! The Stable API (Stable API specification, which the files call "versioned API").

use bson::RawDocumentBuf;
use bson::raw::cstr;

/// A version of the server's API that a client keeps to: declared with every command, hello included.
///
/// Servers know it since 5.0. `$changeStream` is part of version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerApi {
    /// `apiVersion`.
    pub version: ServerApiVersion,
    /// `apiStrict`: whether the server refuses what is not part of that version. Not sent if it is not set.
    pub strict: Option<bool>,
    /// `apiDeprecationErrors`: whether the server refuses what is deprecated in that version. Not sent if it is not set.
    pub deprecation_errors: Option<bool>,
}

/// The versions that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerApiVersion {
    /// Version `1`.
    V1,
}

impl ServerApi {
    /// That version, and nothing refused that a server does not refuse by itself.
    pub fn new(version: ServerApiVersion) -> Self {
        Self {
            version,
            strict: None,
            deprecation_errors: None,
        }
    }

    /// Sets [`strict`](Self::strict).
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = Some(strict);
        self
    }

    /// Sets [`deprecation_errors`](Self::deprecation_errors).
    #[must_use]
    pub fn deprecation_errors(mut self, errors: bool) -> Self {
        self.deprecation_errors = Some(errors);
        self
    }

    /// Declares it in a command.
    pub(crate) fn declare(&self, command: &mut RawDocumentBuf) {
        command.append(cstr!("apiVersion"), self.version.as_str());
        if let Some(strict) = self.strict {
            command.append(cstr!("apiStrict"), strict);
        }
        if let Some(errors) = self.deprecation_errors {
            command.append(cstr!("apiDeprecationErrors"), errors);
        }
    }
}

impl ServerApiVersion {
    /// As commands say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1",
        }
    }
}
