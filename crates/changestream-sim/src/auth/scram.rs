//! The server's side of SCRAM (RFC 5802, RFC 7677; the driver specification "Authentication").

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use changestream_core::random::Random;
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

use super::{Login, Step, failed};
use crate::deployment::Mechanism;
use crate::error::CommandError;

/// A user, and what the server keeps to check the password.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) name: String,
    stored: Vec<Stored>,
}

#[derive(Clone)]
struct Stored {
    mechanism: Mechanism,
    salt: Vec<u8>,
    iterations: u32,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// None if SASLprep forbids the password.
    pub(crate) fn new(
        name: &str,
        password: &str,
        mechanisms: &[Mechanism],
        random: &mut Random,
    ) -> Option<Self> {
        let stored = mechanisms
            .iter()
            .map(|mechanism| Stored::new(*mechanism, name, password, random))
            .collect::<Option<_>>()?;
        Some(Self {
            name: name.to_owned(),
            stored,
        })
    }

    /// The mechanisms that the user may use, in the server's order.
    pub(crate) fn mechanisms(&self) -> Vec<Mechanism> {
        let mut mechanisms: Vec<Mechanism> = self.stored.iter().map(|s| s.mechanism).collect();
        mechanisms.sort();
        mechanisms.dedup();
        mechanisms
    }

    fn stored(&self, mechanism: Mechanism) -> Option<&Stored> {
        self.stored.iter().find(|s| s.mechanism == mechanism)
    }
}

impl Stored {
    fn new(mechanism: Mechanism, name: &str, password: &str, random: &mut Random) -> Option<Self> {
        let prepared = match mechanism {
            // The driver specification "Authentication", SCRAM-SHA-1: the password is its MONGODB-CR digest.
            Mechanism::ScramSha1 => {
                let digest = Md5::digest(format!("{name}:mongo:{password}").as_bytes());
                digest.iter().map(|b| format!("{b:02x}")).collect()
            }
            Mechanism::ScramSha256 => stringprep::saslprep(password).ok()?.into_owned(),
        };
        let mut salt = vec![0; mechanism.hash(b"").len() - 4];
        random.fill(&mut salt);
        let iterations = mechanism.iterations();
        let salted = mechanism.salted(prepared.as_bytes(), &salt, iterations);
        let client_key = mechanism.hmac(&salted, b"Client Key");
        Some(Self {
            mechanism,
            iterations,
            stored_key: mechanism.hash(&client_key),
            server_key: mechanism.hmac(&salted, b"Server Key"),
            salt,
        })
    }
}

impl Mechanism {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::ScramSha256 => "SCRAM-SHA-256",
        }
    }

    fn parse(name: &str) -> Result<Self, CommandError> {
        match name {
            "SCRAM-SHA-1" => Ok(Self::ScramSha1),
            "SCRAM-SHA-256" => Ok(Self::ScramSha256),
            other => Err(CommandError::new(
                334,
                format!("Received authentication for mechanism {other} which is not enabled"),
            )),
        }
    }

    fn iterations(self) -> u32 {
        match self {
            Self::ScramSha1 => 10_000,
            Self::ScramSha256 => 15_000,
        }
    }

    fn hash(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::ScramSha1 => Sha1::digest(data).to_vec(),
            Self::ScramSha256 => Sha256::digest(data).to_vec(),
        }
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        const ANY_KEY: &str = "HMAC takes keys of any length";
        match self {
            Self::ScramSha1 => {
                let mut mac = Hmac::<Sha1>::new_from_slice(key).expect(ANY_KEY);
                mac.update(data);
                mac.finalize().into_bytes().to_vec()
            }
            Self::ScramSha256 => {
                let mut mac = Hmac::<Sha256>::new_from_slice(key).expect(ANY_KEY);
                mac.update(data);
                mac.finalize().into_bytes().to_vec()
            }
        }
    }

    fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        match self {
            Self::ScramSha1 => pbkdf2::pbkdf2_hmac_array::<Sha1, 20>(password, salt, iterations).to_vec(),
            Self::ScramSha256 => pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations).to_vec(),
        }
    }
}

/// An authentication under way on a connection.
pub(crate) struct Conversation {
    user: String,
    stored: Stored,
    client_first_bare: String,
    server_first: String,
    nonce: String,
    skip_empty_exchange: bool,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Proof,
    EmptyExchange,
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Conversation {
    /// Answers `saslStart`.
    pub(crate) fn start(
        users: &[Credentials],
        mechanism: &str,
        payload: &[u8],
        skip_empty_exchange: bool,
        random: &mut Random,
    ) -> Result<(Self, Step), CommandError> {
        let mechanism = Mechanism::parse(mechanism)?;
        let text = str::from_utf8(payload).map_err(|_| failed())?;
        let bare = text.strip_prefix("n,,").ok_or_else(failed)?;
        let mut user = None;
        let mut client_nonce = None;
        for attribute in bare.split(',') {
            match attribute.split_once('=') {
                Some(("n", name)) => user = Some(name.replace("=2C", ",").replace("=3D", "=")),
                Some(("r", nonce)) => client_nonce = Some(nonce),
                Some(_) | None => return Err(failed()),
            }
        }
        let user = user.ok_or_else(failed)?;
        let stored = users
            .iter()
            .find(|u| u.name == user)
            .and_then(|u| u.stored(mechanism))
            .ok_or_else(failed)?
            .clone();
        let mut bytes = [0; 24];
        random.fill(&mut bytes);
        let nonce = format!("{}{}", client_nonce.ok_or_else(failed)?, BASE64.encode(bytes));
        let salt = BASE64.encode(&stored.salt);
        let server_first = format!("r={nonce},s={salt},i={}", stored.iterations);
        let step = Step {
            payload: server_first.clone().into_bytes(),
            login: None,
        };
        let conversation = Self {
            user,
            stored,
            client_first_bare: bare.to_owned(),
            server_first,
            nonce,
            skip_empty_exchange,
            stage: Stage::Proof,
        };
        Ok((conversation, step))
    }

    /// Answers `saslContinue`.
    pub(crate) fn next(&mut self, payload: &[u8]) -> Result<Step, CommandError> {
        if self.stage == Stage::EmptyExchange {
            return Ok(Step {
                payload: Vec::new(),
                login: Some(Login::internal(&self.user)),
            });
        }
        let text = str::from_utf8(payload).map_err(|_| failed())?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or_else(failed)?;
        if without_proof != format!("c=biws,r={}", self.nonce) {
            return Err(failed());
        }
        let proof = BASE64.decode(proof).map_err(|_| failed())?;
        let message = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let mechanism = self.stored.mechanism;
        let signature = mechanism.hmac(&self.stored.stored_key, message.as_bytes());
        if proof.len() != signature.len() {
            return Err(failed());
        }
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        if mechanism.hash(&client_key) != self.stored.stored_key {
            return Err(failed());
        }
        let server = mechanism.hmac(&self.stored.server_key, message.as_bytes());
        self.stage = Stage::EmptyExchange;
        Ok(Step {
            payload: format!("v={}", BASE64.encode(server)).into_bytes(),
            login: self.skip_empty_exchange.then(|| Login::internal(&self.user)),
        })
    }
}
