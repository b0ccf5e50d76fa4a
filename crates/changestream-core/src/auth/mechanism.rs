//! The mechanisms.

use std::fmt;
use std::str::FromStr;

use super::refused;
use super::scram::Hash;
use crate::Error;

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mechanism {
    /// SCRAM-SHA-1, of every server.
    ScramSha1,
    /// SCRAM-SHA-256, since server 4.0.
    ScramSha256,
    /// MONGODB-X509: a client certificate.
    MongodbX509,
    /// PLAIN: LDAP.
    Plain,
    /// MONGODB-AWS: an AWS IAM identity.
    MongodbAws,
    /// MONGODB-OIDC: a token of an identity provider.
    MongodbOidc,
    /// GSSAPI: Kerberos. Not supported.
    Gssapi,
}

impl Mechanism {
    /// The name in commands and connection strings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::MongodbX509 => "MONGODB-X509",
            Self::Plain => "PLAIN",
            Self::MongodbAws => "MONGODB-AWS",
            Self::MongodbOidc => "MONGODB-OIDC",
            Self::Gssapi => "GSSAPI",
        }
    }

    /// The hash that this mechanism runs SCRAM with.
    ///
    /// # Errors
    /// The mechanism is not a SCRAM.
    pub fn scram_hash(self) -> Result<Hash, Error> {
        match self {
            Self::ScramSha1 => Ok(Hash::Sha1),
            Self::ScramSha256 => Ok(Hash::Sha256),
            Self::MongodbX509 | Self::Plain | Self::MongodbAws | Self::MongodbOidc | Self::Gssapi => {
                Err(refused(format!("{self} is no SCRAM")))
            }
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Parses the name in upper case, as connection strings have it.
impl FromStr for Mechanism {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        [
            Self::ScramSha1,
            Self::ScramSha256,
            Self::MongodbX509,
            Self::Plain,
            Self::MongodbAws,
            Self::MongodbOidc,
            Self::Gssapi,
        ]
        .into_iter()
        .find(|mechanism| mechanism.as_str() == name)
        .ok_or_else(|| Error::invalid_argument(format!("unknown authentication mechanism {name:?}")))
    }
}
