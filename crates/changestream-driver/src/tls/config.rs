//! What the connection string says about TLS, made ready for use.

use std::io;
use std::sync::Arc;

use changestream_core::uri::{TlsOptions, Warning};
use changestream_core::{Error, ServerAddress};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::Channel;
use super::identity::Identity;
use super::message::{Peer, read_file, without_secrets};
use super::verifier::LenientVerifier;

/// The same for all connections of a client, which so resume each other's sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    rustls: Arc<ClientConfig>,
    /// Whether there is a client certificate to show.
    identified: bool,
}

impl Config {
    /// Reads what the options name. TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it should be; the error names it, and the option.
    pub(crate) fn new(options: &TlsOptions) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier = verifier(options, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::system(format!("TLS cannot be set up: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let identity = Identity::read(options)?;
        let identified = identity.is_some();
        let rustls = match identity {
            Some(identity) => {
                let Identity { chain, key, path } = identity;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| super::message::unusable_identity(&path, &error))?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self {
            rustls: Arc::new(rustls),
            identified,
        })
    }

    /// Wraps a socket that was connected to this address, whose host is what the server's certificate must name.
    pub(crate) fn channel<C>(&self, socket: C, address: &ServerAddress) -> io::Result<Channel<C>> {
        let host = match address.port() {
            Some(_) => address.host(),
            // The other end of a Unix domain socket is on this machine.
            None => LOCAL_HOST,
        };
        let unusable = |reason: String| {
            let message = format!("no TLS with the host name {host:?}: {reason}");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| unusable(error.to_string()))?;
        let tls = ClientConnection::new(Arc::clone(&self.rustls), name)
            .map_err(|error| unusable(error.to_string()))?;
        let peer = Peer {
            host: host.to_owned(),
            identified: self.identified,
        };
        Ok(Channel::new(socket, tls, peer))
    }
}

fn verifier(
    options: &TlsOptions,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    if options.accepts_invalid_certificates() {
        // A file that cannot be read is an error all the same: it tells of another intention.
        options.ca_file.as_deref().map(authorities_in).transpose()?;
        return Ok(Arc::new(LenientVerifier::of_nothing(provider)));
    }
    let roots = Arc::new(match &options.ca_file {
        Some(path) => authorities_in(path)?,
        None => authorities_of_the_system()?,
    });
    if options.accepts_invalid_hostnames() {
        return Ok(Arc::new(LenientVerifier::of_the_issuer(roots, provider)));
    }
    let strict = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
    Ok(strict.map_err(|error| Error::system(format!("TLS cannot be set up: {error}")))?)
}

fn authorities_in(path: &str) -> Result<RootCertStore, Error> {
    let unusable = |reason: &str| Error::invalid_argument(format!("{CA_FILE} {path:?}: {reason}"));
    let text = read_file(CA_FILE, path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| unusable(without_secrets(&error)))?;
        roots
            .add(certificate)
            .map_err(|_| unusable("a certificate in it cannot be read"))?;
    }
    if roots.is_empty() {
        return Err(unusable("there is no certificate in it (PEM, BEGIN CERTIFICATE)"));
    }
    Ok(roots)
}

/// Some certificates of a system may be odd; those that can be read count.
fn authorities_of_the_system() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let why = match found.errors.first() {
        Some(error) => format!(" ({error})"),
        None => String::new(),
    };
    Err(Error::invalid_argument(format!(
        "TLS: this system has no certificates of authorities{why}: name a file of them with {CA_FILE}"
    )))
}

/// What of the options gives up what TLS is for.
pub(crate) fn dangers(options: &TlsOptions) -> Option<Warning> {
    const ANYONE: &str =
        "the server's certificate is not verified: whoever is on the way can read and change everything";
    const ANY_HOST: &str = "the host name is not verified: whoever is on the way and has any certificate of a trusted \
                            authority can read and change everything";
    if options.insecure == Some(true) {
        Some(Warning::new("tlsInsecure", ANYONE))
    } else if options.accepts_invalid_certificates() {
        Some(Warning::new("tlsAllowInvalidCertificates", ANYONE))
    } else if options.accepts_invalid_hostnames() {
        Some(Warning::new("tlsAllowInvalidHostnames", ANY_HOST))
    } else {
        None
    }
}

const CA_FILE: &str = "tlsCAFile";
const LOCAL_HOST: &str = "localhost";
