//! SCRAM (RFC 5802), the client's side, without channel binding.
//!
//! Three messages deep: [`Scram`] makes the first, answers the server's first, and the [`ServerProof`] that comes with
//! the answer judges the server's last. Whoever skips the last has not authenticated the server.
//!
//! ```
//! use changestream_core::auth::scram::{Hash, Scram, ScramKeys};
//!
//! // RFC 7677, section 3.
//! let scram = Scram::new(Hash::Sha256, "user", "rOprNGfwEbeRWgbNEkqO");
//! assert_eq!(scram.client_first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
//! let server_first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
//! let (_client_final, proof) = scram.answer(server_first.as_bytes(), |hash, salt, iterations| {
//!     Ok(ScramKeys::derive(hash, b"pencil", salt, iterations))
//! })?;
//! proof.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")?;
//! # Ok::<(), changestream_core::Error>(())
//! ```

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ctutils::CtEq;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::refused;
use crate::Error;
use crate::random::Random;

/// The fewest iterations that a server may ask for: fewer would let an attacker in the middle guess the password
/// cheaply (the Authentication specification, RFC 7677 section 4).
pub const MIN_ITERATIONS: u32 = 4096;

/// The most iterations that a server may ask for.
///
/// The count comes from a server that has proved nothing yet, and the derivation blocks the thread: a million is
/// less than a second on today's machines. Servers default to 10,000 (SHA-1) and 15,000 (SHA-256).
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// The hash function of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hash {
    /// SCRAM-SHA-1.
    Sha1,
    /// SCRAM-SHA-256.
    Sha256,
}

/// A conversation whose first message is made.
#[derive(Clone, Debug)]
pub struct Scram {
    hash: Hash,
    nonce: String,
    /// `client-first-message-bare`, a part of what is signed.
    client_first_bare: String,
}

impl Scram {
    /// A conversation with this nonce, which must be fresh, unpredictable and printable without a comma: take
    /// [`nonce`]'s.
    pub fn new(hash: Hash, username: &str, nonce: impl Into<String>) -> Self {
        let nonce = nonce.into();
        let username = username.replace('=', "=3D").replace(',', "=2C");
        Self {
            hash,
            client_first_bare: format!("n={username},r={nonce}"),
            nonce,
        }
    }

    /// The client's first message.
    pub fn client_first(&self) -> String {
        format!("{GS2_HEADER}{}", self.client_first_bare)
    }

    /// The client's final message for the server's first, and what to judge the server's final message by.
    ///
    /// `keys` turns salt and iteration count, which are within bounds by then, into keys.
    ///
    /// # Errors
    /// The server's message is malformed, an `e=` error, does not continue this nonce, or asks for fewer than
    /// [`MIN_ITERATIONS`] or more than [`MAX_ITERATIONS`]; or `keys` failed.
    pub fn answer(
        &self,
        server_first: &[u8],
        keys: impl FnOnce(Hash, &[u8], u32) -> Result<ScramKeys, Error>,
    ) -> Result<(String, ServerProof), Error> {
        let server_first = ServerFirst::parse(server_first)?;
        if !server_first.nonce.starts_with(&self.nonce) || server_first.nonce.len() == self.nonce.len() {
            return Err(refused("the server's SCRAM nonce does not extend the client's"));
        }
        let ScramKeys(keys) = keys(self.hash, &server_first.salt, server_first.iterations)?;
        let without_proof = format!("c={},r={}", BASE64.encode(GS2_HEADER), server_first.nonce);
        let signed = format!(
            "{},{},{without_proof}",
            self.client_first_bare, server_first.message
        );
        let stored_key = self.hash.digest(&keys.client_key);
        let signature = self.hash.hmac(&stored_key, signed.as_bytes());
        let proof: Vec<u8> = keys
            .client_key
            .iter()
            .zip(&signature)
            .map(|(key, signature)| key ^ signature)
            .collect();
        let client_final = format!("{without_proof},p={}", BASE64.encode(proof));
        let server_signature = self.hash.hmac(&keys.server_key, signed.as_bytes());
        Ok((client_final, ServerProof { server_signature }))
    }
}

/// What the server must say last if it knows the password too.
pub struct ServerProof {
    server_signature: Vec<u8>,
}

impl ServerProof {
    /// Judges the server's final message, in constant time.
    ///
    /// # Errors
    /// The message is malformed, an `e=` error, or its signature is not the one that the password gives: the peer is
    /// not the server that it claims to be.
    pub fn verify(&self, server_final: &[u8]) -> Result<(), Error> {
        let message = text(server_final)?;
        let first = message.split(',').next().unwrap_or_default();
        let signature = attribute(first, 'v')?;
        let signature = BASE64
            .decode(signature)
            .map_err(|_| refused("the server's SCRAM signature is not base64"))?;
        if signature
            .as_slice()
            .ct_eq(self.server_signature.as_slice())
            .to_bool()
        {
            return Ok(());
        }
        Err(refused(
            "the server's SCRAM signature is wrong: it does not know the password, so it is not who it claims to be",
        ))
    }
}

impl fmt::Debug for ServerProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerProof").finish_non_exhaustive()
    }
}

/// What a password gives with one salt and iteration count. Clones share it.
#[derive(Clone)]
pub struct ScramKeys(Arc<Keys>);

struct Keys {
    client_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl ScramKeys {
    /// Derives the keys from a password that is already prepared. Takes time in proportion to the iterations.
    pub fn derive(hash: Hash, password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let salted = hash.pbkdf2(password, salt, iterations);
        Self(Arc::new(Keys {
            client_key: hash.hmac(&salted, b"Client Key"),
            server_key: hash.hmac(&salted, b"Server Key"),
        }))
    }

    /// Whether both come from one derivation.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys").finish_non_exhaustive()
    }
}

/// A fresh nonce: 192 random bits, printable.
pub fn nonce(random: &mut Random) -> String {
    let mut bytes = [0; 24];
    random.fill(&mut bytes);
    BASE64.encode(bytes)
}

/// The server's first message, its bounds checked.
struct ServerFirst<'a> {
    message: &'a str,
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> ServerFirst<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, Error> {
        let message = text(message)?;
        let mut attributes = message.split(',');
        // Extensions may follow; a mandatory one (`m=`) would come first and is refused there.
        let nonce = attribute(attributes.next().unwrap_or_default(), 'r')?;
        let salt = attribute(attributes.next().unwrap_or_default(), 's')?;
        let iterations = attribute(attributes.next().unwrap_or_default(), 'i')?;
        let salt = BASE64
            .decode(salt)
            .ok()
            .filter(|salt| !salt.is_empty())
            .ok_or_else(|| refused("the server's SCRAM salt is not base64"))?;
        Ok(Self {
            message,
            nonce,
            salt,
            iterations: checked_iterations(iterations)?,
        })
    }
}

fn checked_iterations(count: &str) -> Result<u32, Error> {
    if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refused("the server's SCRAM iteration count is not a number"));
    }
    match count.parse() {
        Ok(count) if count < MIN_ITERATIONS => Err(refused(format!(
            "the server asks for {count} SCRAM iterations; fewer than {MIN_ITERATIONS} are not safe"
        ))),
        Ok(count) if count <= MAX_ITERATIONS => Ok(count),
        _ => Err(refused(format!(
            "the server asks for more than {MAX_ITERATIONS} SCRAM iterations"
        ))),
    }
}

fn text(message: &[u8]) -> Result<&str, Error> {
    str::from_utf8(message).map_err(|_| refused("the server's SCRAM message is not UTF-8"))
}

/// The value of an attribute that must have this name; the server's own words if it is an error in its place.
fn attribute(attribute: &str, name: char) -> Result<&str, Error> {
    if let Some(error) = attribute.strip_prefix("e=") {
        let error: String = error.chars().take(MAX_SERVER_WORDS).collect();
        return Err(refused(format!("the server ended SCRAM with {error:?}")));
    }
    if attribute.starts_with("m=") {
        return Err(refused("the server demands a SCRAM extension that is not known"));
    }
    attribute
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('='))
        .ok_or_else(|| {
            refused(format!(
                "the server's SCRAM message has no attribute {name:?} where it must stand"
            ))
        })
}

impl Hash {
    fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(message).to_vec(),
            Self::Sha256 => Sha256::digest(message).to_vec(),
        }
    }

    fn hmac(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        const ANY_KEY: &str = "HMAC takes a key of any length";
        match self {
            Self::Sha1 => {
                let mut mac = Hmac::<Sha1>::new_from_slice(key).expect(ANY_KEY);
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }
            Self::Sha256 => {
                let mut mac = Hmac::<Sha256>::new_from_slice(key).expect(ANY_KEY);
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }
        }
    }

    fn pbkdf2(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        match self {
            Self::Sha1 => pbkdf2::pbkdf2_hmac_array::<Sha1, 20>(password, salt, iterations).to_vec(),
            Self::Sha256 => pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations).to_vec(),
        }
    }
}

/// No channel binding, no authorization identity: servers offer neither.
const GS2_HEADER: &str = "n,,";

/// How many characters of a server's `e=` error are repeated.
const MAX_SERVER_WORDS: usize = 200;
