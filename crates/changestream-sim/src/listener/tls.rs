//! TLS on the loopback: an authority of the deployment's own, and the encryption between a socket and the machine.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

/// TLS for a deployment that listens: an authority made for it alone, which has signed what the members show and a
/// certificate that a client can show.
///
/// The members' certificate is for `localhost`, `127.0.0.1` and `::1`. TLS 1.2 and 1.3 are spoken.
///
/// ```no_run
/// use changestream_sim::{Deployment, Tls};
///
/// let folder = std::env::temp_dir();
/// let deployment = Deployment::replica_set(3).tls(Tls::write_to(&folder)?).start()?;
/// assert!(deployment.uri().contains("tls=true&tlsCAFile="));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Tls {
    without: Arc<ServerConfig>,
    with: Arc<ServerConfig>,
    client_certificates: bool,
    plaintext: bool,
    authority_file: PathBuf,
    client_file: PathBuf,
}

impl Tls {
    /// Makes the authority and the certificates, and writes two files into the folder: `changestream-sim-ca.pem`, for
    /// `tlsCAFile`, and `changestream-sim-client.pem`, a client's certificate and key, for `tlsCertificateKeyFile`.
    /// Files of these names are replaced. The authority's own key is kept nowhere.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_to(folder: impl AsRef<Path>) -> io::Result<Self> {
        let folder = std::path::absolute(folder)?;
        let authority_file = folder.join(AUTHORITY_FILE);
        let client_file = folder.join(CLIENT_FILE);
        let authority = Authority::new().map_err(io::Error::other)?;
        let client = authority.issue(CLIENT_NAME, &[]).map_err(io::Error::other)?;
        let server = authority
            .issue(SERVER_NAME, &SERVER_NAMES)
            .map_err(io::Error::other)?;
        std::fs::write(&authority_file, authority.certificate.pem())?;
        write_secret(
            &client_file,
            &(client.key.serialize_pem() + &client.certificate.pem()),
        )?;
        Ok(Self {
            without: server.config(None).map_err(io::Error::other)?,
            with: server.config(Some(&authority)).map_err(io::Error::other)?,
            client_certificates: false,
            plaintext: false,
            authority_file,
            client_file,
        })
    }

    /// Whether a client that shows no certificate of the authority is turned away; it is not, by default.
    pub fn require_client_certificates(mut self, required: bool) -> Self {
        self.client_certificates = required;
        self
    }

    /// Whether a client may speak in the clear, too, as with the server's mode `preferTLS`; it may not, by default.
    pub fn allow_plaintext(mut self, allowed: bool) -> Self {
        self.plaintext = allowed;
        self
    }

    /// Where the authority's certificate is, for `tlsCAFile`.
    pub fn authority_file(&self) -> &Path {
        &self.authority_file
    }

    /// Where a client's certificate and key are, for `tlsCertificateKeyFile`.
    pub fn client_file(&self) -> &Path {
        &self.client_file
    }

    /// For one connection.
    pub(super) fn accept(&self) -> io::Result<Session> {
        let config = if self.client_certificates {
            &self.with
        } else {
            &self.without
        };
        let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        Ok(Session {
            tls: Mutex::new(connection),
            encrypted: if self.plaintext {
                OnceLock::new()
            } else {
                OnceLock::from(true)
            },
        })
    }

    /// A connection string with what a client needs to trust the deployment.
    pub(super) fn with_options(&self, uri: &str) -> String {
        let separator = if uri.ends_with('/') { '?' } else { '&' };
        let mut uri = format!("{uri}{separator}tls=true&tlsCAFile=");
        push_encoded(&mut uri, &self.authority_file);
        if self.client_certificates {
            uri.push_str("&tlsCertificateKeyFile=");
            push_encoded(&mut uri, &self.client_file);
        }
        uri
    }
}

/// Where the files are; never a key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authority_file", &self.authority_file)
            .field("client_file", &self.client_file)
            .field("client_certificates", &self.client_certificates)
            .field("plaintext", &self.plaintext)
            .finish_non_exhaustive()
    }
}

/// Signs certificates, and is forgotten when they are made.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    fn new() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = name("changestream sim authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    fn issue(&self, common_name: &str, names: &[&str]) -> Result<Certificate, rcgen::Error> {
        let mut params =
            CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name = name(common_name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Certificate { certificate, key })
    }
}

fn name(common_name: &str) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::OrganizationName, "changestream");
    name.push(DnType::CommonName, common_name);
    name
}

struct Certificate {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Certificate {
    /// What a member is to do with connections: with an authority, clients must show a certificate of it.
    fn config(&self, clients_of: Option<&Authority>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match clients_of {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.certificate.der().clone())?;
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .build()
                    .map_err(|error| rustls::Error::General(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain: Vec<CertificateDer<'static>> = vec![self.certificate.der().clone()];
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        Ok(Arc::new(builder.with_single_cert(chain, key.into())?))
    }
}

/// One connection's encryption, shared by the thread that reads and the one that writes. Only the latter touches the
/// socket with what comes out, so that records leave in the order in which they were made.
#[derive(Debug)]
pub(super) struct Session {
    tls: Mutex<ServerConnection>,
    /// Unknown until the client's first byte, where it may choose.
    encrypted: OnceLock<bool>,
}

impl Session {
    /// Whether the client, whose first bytes these are if it has said nothing yet, speaks TLS.
    pub(super) fn is_encrypted(&self, bytes: &[u8]) -> bool {
        *self
            .encrypted
            .get_or_init(|| bytes.first() == Some(&TLS_HANDSHAKE))
    }

    /// Whether it is settled that the client speaks TLS.
    pub(super) fn is_known_to_be_encrypted(&self) -> bool {
        self.encrypted.get() == Some(&true)
    }

    fn lock(&self) -> MutexGuard<'_, ServerConnection> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What these bytes from the socket say. An error ends the connection once [`encrypt`](Self::encrypt) has told
    /// the client why.
    pub(super) fn decrypt(&self, mut bytes: &[u8], plaintext: &mut Vec<u8>) -> io::Result<()> {
        let mut tls = self.lock();
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let mut readable = state.plaintext_bytes_to_read();
            while readable > 0 {
                let start = plaintext.len();
                plaintext.resize(start + readable, 0);
                let read = tls
                    .reader()
                    .read(plaintext.get_mut(start..).unwrap_or_default())?;
                plaintext.truncate(start + read);
                readable = readable.saturating_sub(read.max(1));
            }
        }
        Ok(())
    }

    /// Whether [`encrypt`](Self::encrypt) has something to write by itself: the handshake's messages, an alert.
    pub(super) fn wants_write(&self) -> bool {
        self.lock().wants_write()
    }

    /// What is to be written to the socket so that the client reads these bytes.
    pub(super) fn encrypt(&self, mut bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut tls = self.lock();
        loop {
            let written = tls.writer().write(bytes)?;
            bytes = bytes.get(written..).unwrap_or_default();
            while tls.wants_write() {
                tls.write_tls(out)?;
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// The leave that TLS wants taken.
    pub(super) fn farewell(&self, out: &mut Vec<u8>) -> io::Result<()> {
        self.lock().send_close_notify();
        self.encrypt(&[], out)
    }
}

/// A path as the value of an option in a connection string.
fn push_encoded(uri: &mut String, path: &Path) {
    for byte in path.to_string_lossy().bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:\\".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// Only its owner may read it.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

/// The type of a TLS record that holds a handshake message (RFC 8446, section 5.1). As the first byte of a wire message
/// it would be a length that no hello has.
const TLS_HANDSHAKE: u8 = 22;
const AUTHORITY_FILE: &str = "changestream-sim-ca.pem";
const CLIENT_FILE: &str = "changestream-sim-client.pem";
const SERVER_NAME: &str = "changestream sim member";
const CLIENT_NAME: &str = "changestream sim client";
const SERVER_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
