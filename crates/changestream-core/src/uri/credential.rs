//! Who the client is, and how it proves it (Authentication specification).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::error::UriError;
use super::secret::Secret;
use crate::auth::OidcFlow;

/// Who the client says it is, and by which mechanism it proves it.
///
/// ```
/// use changestream_core::uri::{AuthMechanism, Credential};
///
/// let credential = Credential::new("alice", "secret");
/// assert_eq!((credential.source.as_str(), credential.mechanism), ("admin", None));
/// let credential = Credential::with_mechanism(AuthMechanism::MongoDbX509);
/// assert_eq!(credential.source, "$external");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credential {
    /// User name, percent-decoded. Some mechanisms take it from elsewhere, from a certificate for instance.
    pub username: Option<String>,
    /// Password. `None` and an empty password differ.
    pub password: Option<Secret>,
    /// The database that knows the user: `authSource`, else the connection string's database, else `admin`; always
    /// `$external` for the mechanisms that ask somebody else.
    pub source: String,
    /// Mechanism; `None` lets the server choose between SCRAM-SHA-256 and SCRAM-SHA-1.
    pub mechanism: Option<AuthMechanism>,
    /// What the mechanism wants to know besides.
    pub mechanism_properties: MechanismProperties,
    /// The callback that will hand out the tokens of MONGODB-OIDC (`OIDC_CALLBACK` or `OIDC_HUMAN_CALLBACK`), if one
    /// will. Set by code only.
    pub oidc_callback: Option<OidcFlow>,
    /// The hosts that a human's token may be shown to (`ALLOWED_HOSTS`), instead of
    /// [the default ones](crate::auth::DEFAULT_ALLOWED_HOSTS). Set by code only.
    pub allowed_hosts: Option<Vec<String>>,
}

impl Credential {
    /// A user of the `admin` database, who proves a password by the mechanism that the server negotiates.
    pub fn new(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self {
            username: Some(username.into()),
            password: Some(password.into()),
            source: DEFAULT_SOURCE.to_owned(),
            mechanism: None,
            mechanism_properties: MechanismProperties::default(),
            oidc_callback: None,
            allowed_hosts: None,
        }
    }

    /// A credential of that mechanism with its default source, still without user name and password.
    pub fn with_mechanism(mechanism: AuthMechanism) -> Self {
        Self {
            username: None,
            password: None,
            source: mechanism.default_source(None).to_owned(),
            mechanism: Some(mechanism),
            mechanism_properties: MechanismProperties::default(),
            oidc_callback: None,
            allowed_hosts: None,
        }
    }

    /// Checks what the Authentication specification demands of the mechanism: which of user name, password, source
    /// and properties must be there, and which must not.
    ///
    /// One lack passes here, as the Connection String specification demands: a user without a password and without a
    /// mechanism. It fails when the client authenticates.
    pub fn validate(&self) -> Result<(), UriError> {
        if self.source.is_empty() {
            return Err(UriError::option("authSource", "must not be empty"));
        }
        let Some(mechanism) = self.mechanism else {
            self.require_username("a user name is needed to authenticate")?;
            return self.forbid_properties("SCRAM");
        };
        if mechanism.is_external() && self.source != EXTERNAL {
            return Err(UriError::option(
                "authSource",
                format!("must be {EXTERNAL} with {mechanism}"),
            ));
        }
        match mechanism {
            AuthMechanism::ScramSha1
            | AuthMechanism::ScramSha256
            | AuthMechanism::MongoDbCr
            | AuthMechanism::Plain => {
                self.require_username("needs a user name")?;
                if self.password.is_none() {
                    return Err(mechanism_error(mechanism, "needs a password"));
                }
                self.forbid_properties(mechanism.as_str())
            }
            AuthMechanism::MongoDbX509 => {
                self.forbid_password(mechanism)?;
                self.forbid_properties(mechanism.as_str())
            }
            AuthMechanism::Gssapi => self.validate_gssapi(),
            AuthMechanism::MongoDbAws => self.validate_aws(),
            AuthMechanism::MongoDbOidc => self.validate_oidc(),
        }
    }

    /// Whether nothing but a default has set the source, and another one would do too.
    pub(super) fn has_default_source(&self, database: Option<&str>) -> bool {
        let default = match self.mechanism {
            Some(mechanism) if mechanism.is_external() => return false,
            Some(mechanism) => mechanism.default_source(database),
            None => database.unwrap_or(DEFAULT_SOURCE),
        };
        self.source == default || self.source == DEFAULT_SOURCE
    }

    fn validate_gssapi(&self) -> Result<(), UriError> {
        self.require_username("needs a user name")?;
        self.mechanism_properties.allow(&[
            "SERVICE_NAME",
            "CANONICALIZE_HOST_NAME",
            "SERVICE_REALM",
            "SERVICE_HOST",
        ])?;
        match self.mechanism_properties.get("CANONICALIZE_HOST_NAME") {
            None | Some("none" | "forward" | "forwardAndReverse" | "true" | "false") => Ok(()),
            Some(_) => Err(properties_error(
                "CANONICALIZE_HOST_NAME must be none, forward or forwardAndReverse",
            )),
        }
    }

    fn validate_aws(&self) -> Result<(), UriError> {
        let mechanism = AuthMechanism::MongoDbAws;
        self.mechanism_properties.allow(&["AWS_SESSION_TOKEN"])?;
        match (&self.username, &self.password) {
            (Some(_), None) => Err(mechanism_error(
                mechanism,
                "needs a secret access key with the access key id",
            )),
            (None, Some(_)) => Err(mechanism_error(
                mechanism,
                "needs an access key id with the secret access key",
            )),
            (None, None) if self.mechanism_properties.get("AWS_SESSION_TOKEN").is_some() => {
                Err(mechanism_error(
                    mechanism,
                    "needs access key id and secret access key with AWS_SESSION_TOKEN",
                ))
            }
            (None, None) | (Some(_), Some(_)) => Ok(()),
        }
    }

    fn validate_oidc(&self) -> Result<(), UriError> {
        self.forbid_password(AuthMechanism::MongoDbOidc)?;
        self.mechanism_properties
            .allow(&["ENVIRONMENT", "TOKEN_RESOURCE"])?;
        let resource = self.mechanism_properties.get("TOKEN_RESOURCE");
        let (takes_username, takes_resource) = match self.mechanism_properties.get("ENVIRONMENT") {
            None if self.oidc_callback.is_some() => (true, false),
            Some(_) if self.oidc_callback.is_some() => {
                return Err(properties_error(
                    "ENVIRONMENT contradicts the callback that is given",
                ));
            }
            Some("azure") => (true, true),
            Some("gcp") => (false, true),
            Some("k8s" | "test") => (false, false),
            Some(_) => return Err(properties_error("ENVIRONMENT must be azure, gcp, k8s or test")),
            None => {
                return Err(properties_error(
                    "MONGODB-OIDC needs ENVIRONMENT (k8s), or a callback given by code",
                ));
            }
        };
        if self.username.is_some() && !takes_username {
            return Err(mechanism_error(
                AuthMechanism::MongoDbOidc,
                "takes no user name in this ENVIRONMENT",
            ));
        }
        if takes_resource && resource.is_none() {
            return Err(properties_error("this ENVIRONMENT needs TOKEN_RESOURCE"));
        }
        if !takes_resource && resource.is_some() {
            return Err(properties_error("this ENVIRONMENT takes no TOKEN_RESOURCE"));
        }
        Ok(())
    }

    fn require_username(&self, reason: &str) -> Result<(), UriError> {
        match &self.username {
            Some(name) if !name.is_empty() => Ok(()),
            Some(_) | None => Err(match self.mechanism {
                Some(mechanism) => mechanism_error(mechanism, reason),
                None => UriError::new(super::UriPlace::UserInfo, reason),
            }),
        }
    }

    fn forbid_password(&self, mechanism: AuthMechanism) -> Result<(), UriError> {
        match self.password {
            Some(_) => Err(mechanism_error(mechanism, "takes no password")),
            None => Ok(()),
        }
    }

    fn forbid_properties(&self, mechanism: &str) -> Result<(), UriError> {
        if self.mechanism_properties.is_empty() {
            return Ok(());
        }
        Err(properties_error(format!("{mechanism} takes no properties")))
    }
}

/// How a client proves who it is. All are recognised and checked here; which of them the client can carry out, its
/// connections say when they authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AuthMechanism {
    /// `SCRAM-SHA-1` (RFC 5802).
    ScramSha1,
    /// `SCRAM-SHA-256` (RFC 7677).
    ScramSha256,
    /// `MONGODB-X509`: the client's TLS certificate.
    MongoDbX509,
    /// `PLAIN`: the password as it is, for LDAP.
    Plain,
    /// `MONGODB-AWS`: an AWS IAM identity.
    MongoDbAws,
    /// `GSSAPI`: Kerberos.
    Gssapi,
    /// `MONGODB-OIDC`: an OpenID Connect token.
    MongoDbOidc,
    /// `MONGODB-CR`, gone from servers since 4.0.
    MongoDbCr,
}

impl AuthMechanism {
    const ALL: [Self; 8] = [
        Self::ScramSha1,
        Self::ScramSha256,
        Self::MongoDbX509,
        Self::Plain,
        Self::MongoDbAws,
        Self::Gssapi,
        Self::MongoDbOidc,
        Self::MongoDbCr,
    ];

    /// The mechanism's name in commands and connection strings, such as `SCRAM-SHA-256`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::MongoDbX509 => "MONGODB-X509",
            Self::Plain => "PLAIN",
            Self::MongoDbAws => "MONGODB-AWS",
            Self::Gssapi => "GSSAPI",
            Self::MongoDbOidc => "MONGODB-OIDC",
            Self::MongoDbCr => "MONGODB-CR",
        }
    }

    /// Whether the users live outside MongoDB, in `$external`, and nowhere else.
    pub fn is_external(self) -> bool {
        match self {
            Self::MongoDbX509 | Self::MongoDbAws | Self::Gssapi | Self::MongoDbOidc => true,
            Self::ScramSha1 | Self::ScramSha256 | Self::MongoDbCr | Self::Plain => false,
        }
    }

    /// The source of a credential that names none, given the connection string's database.
    pub(crate) fn default_source(self, database: Option<&str>) -> &str {
        match self {
            Self::MongoDbX509 | Self::MongoDbAws | Self::Gssapi | Self::MongoDbOidc => EXTERNAL,
            Self::Plain => database.unwrap_or(EXTERNAL),
            Self::ScramSha1 | Self::ScramSha256 | Self::MongoDbCr => database.unwrap_or(DEFAULT_SOURCE),
        }
    }
}

impl fmt::Display for AuthMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AuthMechanism {
    type Err = UriError;

    /// The mechanism of that name, exactly as the specification writes it.
    fn from_str(name: &str) -> Result<Self, UriError> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.as_str() == name)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::as_str).join(", ");
                UriError::option(
                    "authMechanism",
                    format!("no such mechanism; the known ones are {known}"),
                )
            })
    }
}

/// `authMechanismProperties`. Names compare without case. Values may be secret (`AWS_SESSION_TOKEN`), so `Debug`
/// prints none of them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MechanismProperties(BTreeMap<String, String>);

impl MechanismProperties {
    /// The value of a property.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(&name.to_ascii_uppercase()).map(String::as_str)
    }

    /// Sets a property; returns the value that it had.
    pub fn insert(&mut self, name: &str, value: impl Into<String>) -> Option<String> {
        self.0.insert(name.to_ascii_uppercase(), value.into())
    }

    /// Names, in upper case, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn allow(&self, names: &[&str]) -> Result<(), UriError> {
        if self.0.keys().all(|name| names.contains(&name.as_str())) {
            return Ok(());
        }
        Err(properties_error(format!(
            "this mechanism knows only {}",
            names.join(", ")
        )))
    }
}

impl fmt::Debug for MechanismProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.keys().map(|name| (name, Secret::default())))
            .finish()
    }
}

/// The source of users who live outside MongoDB.
pub(crate) const EXTERNAL: &str = "$external";
/// Where users are sought by default.
pub(crate) const DEFAULT_SOURCE: &str = "admin";

fn mechanism_error(mechanism: AuthMechanism, reason: &str) -> UriError {
    UriError::option("authMechanism", format!("{mechanism} {reason}"))
}

fn properties_error(reason: impl Into<String>) -> UriError {
    UriError::option("authMechanismProperties", reason)
}
