//! Who a connection authenticates as.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use bson::{RawBsonRef, RawDocument};
use md5::{Digest, Md5};

use super::refused;
use super::scram::{Hash, ScramKeys};
use crate::Error;

/// A user, their password, and where and how they are known.
///
/// Clones share what was derived from the password (the Authentication specification, "Caching credentials in
/// SCRAM"), so that only the first of many connections pays for the key derivation.
#[derive(Clone)]
pub struct Credential {
    username: String,
    password: String,
    source: String,
    mechanism: Option<Mechanism>,
    keys: Arc<Mutex<Vec<CachedKeys>>>,
}

impl Credential {
    /// A user with a password, known to the database `source` (usually `admin`). Without a mechanism the server is
    /// asked which it has for this user, and SCRAM-SHA-256 is preferred.
    pub fn new(
        username: impl Into<String>,
        password: impl Into<String>,
        source: impl Into<String>,
        mechanism: Option<Mechanism>,
    ) -> Self {
        Self {
            username: username.into(),
            password: password.into(),
            source: source.into(),
            mechanism,
            keys: Arc::default(),
        }
    }

    /// The user's name, as it was given: never normalised.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The database that knows the user.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The mechanism that was asked for.
    pub fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    /// The mechanism to use after this hello reply: the one that was asked for, else SCRAM-SHA-256 if
    /// `saslSupportedMechs` lists it, else SCRAM-SHA-1 ("Default Authentication Methods"). Names that are not known
    /// are ignored.
    pub fn negotiate(&self, hello_reply: &RawDocument) -> Mechanism {
        if let Some(mechanism) = self.mechanism {
            return mechanism;
        }
        let Ok(offered) = hello_reply.get_array("saslSupportedMechs") else {
            return Mechanism::ScramSha1;
        };
        let sha256 = RawBsonRef::String(Mechanism::ScramSha256.as_str());
        if offered
            .into_iter()
            .any(|name| name.is_ok_and(|name| name == sha256))
        {
            Mechanism::ScramSha256
        } else {
            Mechanism::ScramSha1
        }
    }

    /// The SCRAM keys for what the server said, derived once for each salt and iteration count.
    ///
    /// # Errors
    /// SCRAM-SHA-256 prepares the password by SASLprep (RFC 4013), which forbids some characters.
    pub fn scram_keys(&self, hash: Hash, salt: &[u8], iterations: u32) -> Result<ScramKeys, Error> {
        if let Some(keys) = self.cached_keys(hash, salt, iterations) {
            return Ok(keys);
        }
        // The lock is not held while keys are derived: that can take long, and at worst it is done twice.
        let keys = ScramKeys::derive(hash, &self.prepared_password(hash)?, salt, iterations);
        let mut cache = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        cache.truncate(MAX_CACHED_KEYS - 1);
        cache.insert(
            0,
            CachedKeys {
                hash,
                salt: salt.to_vec(),
                iterations,
                keys: keys.clone(),
            },
        );
        Ok(keys)
    }

    fn cached_keys(&self, hash: Hash, salt: &[u8], iterations: u32) -> Option<ScramKeys> {
        let cache = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        cache
            .iter()
            .find(|c| c.hash == hash && c.salt == salt && c.iterations == iterations)
            .map(|c| c.keys.clone())
    }

    /// What the keys are derived from. SCRAM-SHA-1 in MongoDB digests user name and password, neither prepared;
    /// SCRAM-SHA-256 prepares the password.
    fn prepared_password(&self, hash: Hash) -> Result<Vec<u8>, Error> {
        match hash {
            Hash::Sha1 => {
                let digest = Md5::new()
                    .chain_update(&self.username)
                    .chain_update(":mongo:")
                    .chain_update(&self.password)
                    .finalize();
                Ok(digest.iter().flat_map(|byte| hex(*byte)).collect())
            }
            Hash::Sha256 => stringprep::saslprep(&self.password)
                .map(|prepared| prepared.into_owned().into_bytes())
                .map_err(|_| refused("the password contains characters that SASLprep (RFC 4013) prohibits")),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("username", &self.username)
            .field("source", &self.source)
            .field("mechanism", &self.mechanism)
            .finish_non_exhaustive()
    }
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mechanism {
    /// SCRAM-SHA-1, of every server.
    ScramSha1,
    /// SCRAM-SHA-256, since server 4.0.
    ScramSha256,
    /// MONGODB-X509: a client certificate. Not supported yet.
    MongodbX509,
    /// PLAIN: LDAP. Not supported yet.
    Plain,
    /// MONGODB-AWS: an AWS IAM identity. Not supported yet.
    MongodbAws,
    /// MONGODB-OIDC: a token of an identity provider. Not supported yet.
    MongodbOidc,
    /// GSSAPI: Kerberos. Not supported yet.
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
    /// The mechanism is not a SCRAM, hence not supported yet.
    pub fn scram_hash(self) -> Result<Hash, Error> {
        match self {
            Self::ScramSha1 => Ok(Hash::Sha1),
            Self::ScramSha256 => Ok(Hash::Sha256),
            Self::MongodbX509 | Self::Plain | Self::MongodbAws | Self::MongodbOidc | Self::Gssapi => {
                Err(refused(format!(
                    "the mechanism {self} is not supported yet; use SCRAM-SHA-256 or SCRAM-SHA-1"
                )))
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

/// What was derived for one salt and iteration count.
struct CachedKeys {
    hash: Hash,
    salt: Vec<u8>,
    iterations: u32,
    keys: ScramKeys,
}

fn hex(byte: u8) -> [u8; 2] {
    let digit = |value: u8| {
        if value < 10 {
            b'0' + value
        } else {
            b'a' + value - 10
        }
    };
    [digit(byte >> 4), digit(byte & 15)]
}

/// A deployment shares its users, so one entry would do; a few serve members that are restored one after the other.
const MAX_CACHED_KEYS: usize = 4;
