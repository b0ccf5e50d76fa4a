//! A TLS server in front of a member, whose own listener speaks in the clear.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{
    DEFAULT_VERSIONS, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

use crate::certificates::{Authority, Certificate};

/// What the server wants and does.
pub struct TlsServer<'a> {
    pub certificate: &'a Certificate,
    /// Whose certificates a client must have.
    pub clients_of: Option<&'a Authority>,
    pub versions: &'static [&'static SupportedProtocolVersion],
    /// Whether it takes leave before it closes a connection.
    pub polite: bool,
    /// Is told the certificate that a client shows, and where its bytes come from at the member.
    pub identify: Option<Identify>,
}

pub type Identify = Arc<dyn Fn(SocketAddr, &CertificateDer<'_>) + Send + Sync>;

impl<'a> TlsServer<'a> {
    pub fn new(certificate: &'a Certificate) -> Self {
        Self {
            certificate,
            clients_of: None,
            versions: DEFAULT_VERSIONS,
            polite: true,
            identify: None,
        }
    }

    /// Listens until the test's process ends.
    pub fn start(self, member: String) -> TlsProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = self.config();
        let (polite, identify) = (self.polite, self.identify.clone());
        let proxy = TlsProxy {
            address,
            seen: Arc::default(),
        };
        let seen = Arc::clone(&proxy.seen);
        thread::spawn(move || {
            for client in listener.incoming() {
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                let link = Arc::new(Link {
                    client: client.unwrap(),
                    member: TcpStream::connect(&member).unwrap(),
                    tls: Mutex::new(tls),
                    seen: Arc::clone(&seen),
                    polite,
                    identify: identify.clone(),
                });
                let other_way = Arc::clone(&link);
                thread::spawn(move || link.decrypt());
                thread::spawn(move || other_way.encrypt());
            }
        });
        proxy
    }

    fn config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.versions)
            .unwrap();
        let builder = match self.clients_of {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (certificate, key) = self.certificate.der();
        Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
    }
}

pub struct TlsProxy {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl TlsProxy {
    /// The handshakes that were done.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The connections that ended with the client's leave (close_notify).
    pub fn farewells(&self) -> usize {
        self.seen().iter().filter(|seen| **seen == Seen::Farewell).count()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Handshake {
        version: ProtocolVersion,
        server_name: Option<String>,
    },
    Farewell,
}

struct Link {
    client: TcpStream,
    member: TcpStream,
    tls: Mutex<ServerConnection>,
    seen: Arc<Mutex<Vec<Seen>>>,
    polite: bool,
    identify: Option<Identify>,
}

impl Link {
    fn decrypt(&self) {
        let mut buffer = [0; 4096];
        let mut handshaken = false;
        while let Ok(len @ 1..) = (&self.client).read(&mut buffer) {
            let mut plaintext = Vec::new();
            if !self.process(&buffer[..len], &mut plaintext) {
                // So that the client reads why, and the system does not cut it off.
                let _ = self.client.shutdown(Shutdown::Write);
                let _ = io::copy(&mut &self.client, &mut io::sink());
                break;
            };
            if !handshaken && !self.tls.lock().unwrap().is_handshaking() {
                handshaken = true;
                self.note_handshake();
            }
            if (&self.member).write_all(&plaintext).is_err() {
                break;
            }
        }
        let _ = self.member.shutdown(Shutdown::Both);
    }

    /// Whether TLS goes on.
    fn process(&self, mut bytes: &[u8], plaintext: &mut Vec<u8>) -> bool {
        let mut tls = self.tls.lock().unwrap();
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes).unwrap();
            let state = tls.process_new_packets();
            self.send(&mut tls);
            let Ok(state) = state else { return false };
            if state.peer_has_closed() {
                self.seen.lock().unwrap().push(Seen::Farewell);
            }
            // It says that there is no more for now.
            let _ = tls.reader().read_to_end(plaintext);
        }
        true
    }

    fn note_handshake(&self) {
        let tls = self.tls.lock().unwrap();
        self.seen.lock().unwrap().push(Seen::Handshake {
            version: tls.protocol_version().unwrap(),
            server_name: tls.server_name().map(str::to_owned),
        });
        if let (Some(identify), Some([certificate, ..])) = (&self.identify, tls.peer_certificates()) {
            identify(self.member.local_addr().unwrap(), certificate);
        }
    }

    fn encrypt(&self) {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = (&self.member).read(&mut buffer) {
            let mut tls = self.tls.lock().unwrap();
            tls.writer().write_all(&buffer[..len]).unwrap();
            self.send(&mut tls);
        }
        if self.polite {
            let mut tls = self.tls.lock().unwrap();
            tls.send_close_notify();
            self.send(&mut tls);
        }
        let _ = self.client.shutdown(Shutdown::Both);
    }

    /// The client may be gone, which the next read tells.
    fn send(&self, tls: &mut ServerConnection) {
        while tls.wants_write() && tls.write_tls(&mut &self.client).is_ok() {}
    }
}
