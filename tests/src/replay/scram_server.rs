//! The server's side of a recorded SCRAM conversation, made to fit a client whose nonce is not the recorded one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Digest as _;
use sha1::Sha1;
use sha2::Sha256;

/// One conversation: the recorded salt, iteration count and server nonce, with this client's nonce before it.
#[derive(Debug)]
pub struct ScramServer {
    mechanism: String,
    client_first_bare: String,
    server_first: String,
}

impl ScramServer {
    /// Answers `client_first` as the recorded server answered `recorded_first` with `recorded_reply`. None if one of
    /// the three is no SCRAM message.
    pub fn new(
        mechanism: &str,
        client_first: &str,
        recorded_first: &str,
        recorded_reply: &str,
    ) -> Option<Self> {
        let bare = client_first.strip_prefix("n,,")?;
        let server_nonce = attribute(recorded_reply, 'r')?.strip_prefix(attribute(recorded_first, 'r')?)?;
        let server_first = format!(
            "r={}{server_nonce},s={},i={}",
            attribute(bare, 'r')?,
            attribute(recorded_reply, 's')?,
            attribute(recorded_reply, 'i')?
        );
        Some(Self {
            mechanism: mechanism.to_owned(),
            client_first_bare: bare.to_owned(),
            server_first,
        })
    }

    /// The first message.
    pub fn server_first(&self) -> &str {
        &self.server_first
    }

    /// The last message, `v=…`; none if the client's proof does not show that it knows the password.
    pub fn server_final(&self, client_final: &str, user: &str, password: &str) -> Option<String> {
        let (without_proof, proof) = client_final.rsplit_once(",p=")?;
        if attribute(without_proof, 'r') != attribute(&self.server_first, 'r') {
            return None;
        }
        let message = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let salt = STANDARD.decode(attribute(&self.server_first, 's')?).ok()?;
        let rounds = attribute(&self.server_first, 'i')?.parse().ok()?;
        let salted = self.salted(user, password, &salt, rounds);
        let client_key = self.hmac(&salted, b"Client Key")?;
        let signature = self.hmac(&self.hash(&client_key), message.as_bytes())?;
        let expected: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(key, mask)| key ^ mask)
            .collect();
        if STANDARD.decode(proof).ok()? != expected {
            return None;
        }
        let server_key = self.hmac(&salted, b"Server Key")?;
        Some(format!(
            "v={}",
            STANDARD.encode(self.hmac(&server_key, message.as_bytes())?)
        ))
    }

    /// SCRAM-SHA-1 derives from a digest of user and password (Authentication specification).
    fn salted(&self, user: &str, password: &str, salt: &[u8], rounds: u32) -> Vec<u8> {
        if self.is_sha1() {
            let digest = md5::Md5::digest(format!("{user}:mongo:{password}"));
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            return pbkdf2::pbkdf2_hmac_array::<Sha1, 20>(digest.as_bytes(), salt, rounds).to_vec();
        }
        pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), salt, rounds).to_vec()
    }

    fn hmac(&self, key: &[u8], message: &[u8]) -> Option<Vec<u8>> {
        if self.is_sha1() {
            let mac = Hmac::<Sha1>::new_from_slice(key).ok()?;
            return Some(mac.chain_update(message).finalize().into_bytes().to_vec());
        }
        let mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
        Some(mac.chain_update(message).finalize().into_bytes().to_vec())
    }

    fn hash(&self, bytes: &[u8]) -> Vec<u8> {
        if self.is_sha1() {
            Sha1::digest(bytes).to_vec()
        } else {
            Sha256::digest(bytes).to_vec()
        }
    }

    fn is_sha1(&self) -> bool {
        self.mechanism == "SCRAM-SHA-1"
    }
}

fn attribute(message: &str, name: char) -> Option<&str> {
    message
        .split(',')
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}
