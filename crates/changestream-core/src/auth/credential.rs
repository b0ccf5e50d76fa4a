//! Who a connection authenticates as.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bson::{RawBsonRef, RawDocument};
use md5::{Digest, Md5};

use super::oidc::{Cache, OidcFlow};
use super::scram::{Hash, ScramKeys};
use super::{DEFAULT_ALLOWED_HOSTS, Mechanism, refused};
use crate::Error;
use crate::uri::Secret;

/// A user, their password, and where and how they are known.
///
/// Clones share what was derived from the password (the Authentication specification, "Caching credentials in
/// SCRAM"), so that only the first of many connections pays for the key derivation, and the token of MONGODB-OIDC.
#[derive(Clone)]
pub struct Credential {
    username: String,
    password: Secret,
    source: String,
    mechanism: Option<Mechanism>,
    session_token: Option<Secret>,
    oidc_flow: OidcFlow,
    allowed_hosts: Vec<String>,
    keys: Arc<Mutex<Vec<CachedKeys>>>,
    oidc: Cache,
}

impl Credential {
    /// A user with a password, known to the database `source` (usually `admin`). Without a mechanism the server is
    /// asked which it has for this user, and SCRAM-SHA-256 is preferred.
    ///
    /// For MONGODB-AWS they are access key id and secret access key. What a mechanism does not take, or takes from
    /// elsewhere, is empty.
    pub fn new(
        username: impl Into<String>,
        password: impl Into<Secret>,
        source: impl Into<String>,
        mechanism: Option<Mechanism>,
    ) -> Self {
        Self {
            username: username.into(),
            password: password.into(),
            source: source.into(),
            mechanism,
            session_token: None,
            oidc_flow: OidcFlow::Machine,
            allowed_hosts: DEFAULT_ALLOWED_HOSTS.map(str::to_owned).to_vec(),
            keys: Arc::default(),
            oidc: Cache::default(),
        }
    }

    /// The same, with the session token of temporary AWS keys.
    #[must_use]
    pub fn with_session_token(mut self, token: impl Into<Secret>) -> Self {
        self.session_token = Some(token.into());
        self
    }

    /// The same, with another way to come by tokens of MONGODB-OIDC than the default, [`OidcFlow::Machine`].
    #[must_use]
    pub fn with_oidc_flow(mut self, flow: OidcFlow) -> Self {
        self.oidc_flow = flow;
        self
    }

    /// The same, with other hosts than [`DEFAULT_ALLOWED_HOSTS`] that a human's token may be shown to. A leading `*.`
    /// stands for any subdomain.
    #[must_use]
    pub fn with_allowed_hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.allowed_hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// The user's name, as it was given: never normalised.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The database that knows the user.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn password(&self) -> &str {
        self.password.reveal()
    }

    pub(super) fn session_token(&self) -> Option<&Secret> {
        self.session_token.as_ref()
    }

    pub(super) fn oidc_flow(&self) -> OidcFlow {
        self.oidc_flow
    }

    pub(super) fn allowed_hosts(&self) -> &[String] {
        &self.allowed_hosts
    }

    /// The client's tokens.
    pub(super) fn oidc(&self) -> &Cache {
        &self.oidc
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
                    .chain_update(self.password.reveal())
                    .finalize();
                Ok(digest.iter().flat_map(|byte| hex(*byte)).collect())
            }
            Hash::Sha256 => stringprep::saslprep(self.password.reveal())
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
