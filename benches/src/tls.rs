//! TLS by bare rustls: for the server, and for the loop that marks the limit.

use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// The server's side of a connection.
pub type Server = StreamOwned<ServerConnection, TcpStream>;

/// The client's.
pub type Client = StreamOwned<ClientConnection, TcpStream>;

/// Makes an authority, writes its certificate to that file, and makes what a server on the loopback shows.
///
/// # Errors
/// The file cannot be written.
pub fn server_config(authority_file: &Path) -> io::Result<Arc<ServerConfig>> {
    let made = certificates(authority_file).map_err(io::Error::other)?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let (chain, key) = made;
    let config = builder
        .with_no_client_auth()
        .with_single_cert(vec![chain], key.into());
    Ok(Arc::new(config.map_err(io::Error::other)?))
}

type Made = (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>);

fn certificates(authority_file: &Path) -> Result<Made, Box<dyn std::error::Error + Send + Sync>> {
    let authority_key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key)?;
    std::fs::write(authority_file, authority.pem())?;
    let issuer = Issuer::new(parameters, authority_key);
    let key = KeyPair::generate()?;
    let parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    let certificate = parameters.signed_by(&key, &issuer)?;
    Ok((certificate.der().clone(), key.serialize_der().into()))
}

/// Wraps a connection that was accepted.
///
/// # Errors
/// rustls refuses.
pub fn accept(config: &Arc<ServerConfig>, socket: TcpStream) -> io::Result<Server> {
    let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, socket))
}

/// Wraps a connection to the loopback that was made, trusting that authority alone.
///
/// # Errors
/// The file cannot be read, or rustls refuses.
pub fn connect(authority_file: &Path, socket: TcpStream) -> io::Result<Client> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(authority_file).map_err(io::Error::other)?;
    roots.add(authority).map_err(io::Error::other)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, socket))
}
