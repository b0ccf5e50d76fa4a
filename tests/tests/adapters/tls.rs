//! The scenarios with TLS. Each is one function over any adapter.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use changestream_driver::{Client, Error, ErrorKind};
use changestream_sim::{Deployment, RunningDeployment, Tls};
use changestream_tests::writer::insert;
use rustls::version::{TLS12, TLS13};
use rustls::{ProtocolVersion, SupportedProtocolVersion};

use crate::adapter::{Adapter, Follow};
use crate::certificates::{Authority, File, Folder};
use crate::scenarios::{follow_through_an_election, quick_to_elect, take};
use crate::tls_proxy::{Seen, TlsProxy, TlsServer};

pub async fn tls_loses_and_repeats_nothing<A: Adapter>() {
    let (deployment, authority) = (deployment(), Authority::new());
    let certificate = authority.issue(&["127.0.0.1"]);
    let server = start(&deployment, TlsServer::new(&certificate));
    let ca = authority.file();
    let trusted = format!("tlsCAFile={}", ca.path());
    let mut stream = open::<A>(&server, &trusted).await.unwrap();
    insert(&deployment, "shop", "orders", 0..300);
    assert_eq!(take(&mut stream, 200).await, (0..200).collect::<Vec<_>>());
    deployment.drop_connections(0);
    insert(&deployment, "shop", "orders", 300..400);
    assert_eq!(take(&mut stream, 200).await, (200..400).collect::<Vec<_>>());
    assert_eq!(stream.stats().resumes, 1);
    stream.close().await.unwrap();
    let modern = Seen::Handshake {
        version: ProtocolVersion::TLSv1_3,
        // An IP address is none.
        server_name: None,
    };
    let handshakes = server.seen().into_iter().filter(|seen| *seen == modern);
    assert!(handshakes.count() >= 2, "{:?}", server.seen());
}

/// The members themselves speak TLS here, under the addresses that they tell. The test writes in the clear.
pub async fn an_election_is_followed_through_tls<A: Adapter>() {
    let folder = Folder::new();
    let tls = Tls::write_to(folder.path()).unwrap().allow_plaintext(true);
    let deployment = quick_to_elect().tls(tls).start().unwrap();
    assert!(deployment.uri().contains("&tls=true&tlsCAFile="));
    follow_through_an_election::<A>(deployment).await;
}

/// The certificate that the deployment has made for clients is a user's.
#[test]
fn a_simulated_member_reads_the_certificate_that_a_client_shows() {
    let folder = Folder::new();
    let tls = Tls::write_to(folder.path())
        .unwrap()
        .require_client_certificates(true);
    let config = Deployment::replica_set(1).x509_user(tls.client_subject());
    let deployment = config.tls(tls).start().unwrap();
    let open = |options: &str| {
        let uri = format!("{}{options}", deployment.uri());
        let client = changestream_blocking::Client::new(uri).unwrap();
        client.watch().open()
    };
    drop(open("&authMechanism=MONGODB-X509").unwrap());
    let error = open("").unwrap_err();
    assert!(error.to_string().contains("requires authentication"), "{error}");
}

pub async fn a_closed_stream_takes_leave_of_tls_too<A: Adapter>() {
    let (deployment, authority) = (deployment(), Authority::new());
    let certificate = authority.issue(&["127.0.0.1"]);
    let server = start(&deployment, TlsServer::new(&certificate));
    let ca = authority.file();
    let trusted = format!("tlsCAFile={}", ca.path());
    let mut stream = open::<A>(&server, &trusted).await.unwrap();
    stream.close().await.unwrap();
    // Nobody waits for the farewell; some runtimes write it when they get to run.
    while server.farewells() == 0 {
        open::<A>(&server, &trusted).await.unwrap();
    }
}

pub async fn each_tls_version_is_spoken_and_the_host_is_named<A: Adapter>() {
    let (deployment, authority) = (deployment(), Authority::new());
    let certificate = authority.issue(&["localhost"]);
    let ca = authority.file();
    for (id, versions) in (0..).zip([ONLY_TLS12, ONLY_TLS13]) {
        let mut server = TlsServer::new(&certificate);
        server.versions = versions;
        let server = start(&deployment, server);
        let uri = uri(&server, &format!("tlsCAFile={}", ca.path())).replace("127.0.0.1", "localhost");
        let mut stream = open_uri::<A>(&uri).await.unwrap();
        insert(&deployment, "shop", "orders", [id]);
        assert_eq!(take(&mut stream, 1).await, [id]);
        let expected = Seen::Handshake {
            version: versions[0].version,
            server_name: Some("localhost".to_owned()),
        };
        assert!(server.seen().contains(&expected), "{:?}", server.seen());
    }
}

pub async fn an_expired_certificate_is_told<A: Adapter>() {
    let (deployment, authority) = (deployment(), Authority::new());
    let certificate = authority.issue_expired(&["127.0.0.1"]);
    let server = start(&deployment, TlsServer::new(&certificate));
    let ca = authority.file();
    let error = refusal::<A>(&server, &format!("tlsCAFile={}", ca.path())).await;
    assert_told(&error, "the server's certificate expired on 2020-01-01");
    assert!(server.seen().is_empty(), "{:?}", server.seen());
}

pub async fn a_certificate_of_another_host_is_told_and_can_be_allowed<A: Adapter>() {
    let (deployment, authority) = (deployment(), Authority::new());
    let certificate = authority.issue(&["db1.example.com"]);
    let server = start(&deployment, TlsServer::new(&certificate));
    let ca = authority.file();
    let trusted = format!("tlsCAFile={}", ca.path());
    let error = refusal::<A>(&server, &trusted).await;
    assert_told(&error, "not valid for 127.0.0.1, but for ");
    assert_told(&error, "db1.example.com");
    let lenient = format!("{trusted}&tlsAllowInvalidHostnames=true");
    open::<A>(&server, &lenient).await.unwrap();

    // That allows no other authority, nor an expired certificate.
    let stranger = Authority::new().file();
    let lenient = format!("tlsCAFile={}&tlsAllowInvalidHostnames=true", stranger.path());
    let error = refusal::<A>(&server, &lenient).await;
    assert_told(&error, "an authority that is not trusted");
}

pub async fn an_unknown_authority_is_told_and_can_be_allowed<A: Adapter>() {
    let (deployment, authority) = (deployment(), Authority::new());
    let certificate = authority.issue(&["127.0.0.1"]);
    let server = start(&deployment, TlsServer::new(&certificate));
    let other = Authority::new().file();
    let error = refusal::<A>(&server, &format!("tlsCAFile={}", other.path())).await;
    assert_told(&error, "an authority that is not trusted");
    assert_told(&error, "tlsCAFile");
    open::<A>(&server, "tlsAllowInvalidCertificates=true")
        .await
        .unwrap();
    open::<A>(&server, "tlsInsecure=true").await.unwrap();
}

pub async fn a_client_certificate_is_shown_and_its_refusal_told<A: Adapter>() {
    let (deployment, authority, other) = (deployment(), Authority::new(), Authority::new());
    let certificate = authority.issue(&["127.0.0.1"]);
    let ca = authority.file();
    for versions in [ONLY_TLS12, ONLY_TLS13] {
        let mut server = TlsServer::new(&certificate);
        server.clients_of = Some(&authority);
        server.versions = versions;
        let server = start(&deployment, server);
        let trusted = format!("tlsCAFile={}", ca.path());
        let with = |file: &File| format!("{trusted}&tlsCertificateKeyFile={}", file.path());

        let good = authority.issue(&["ada"]).file();
        open::<A>(&server, &with(&good)).await.unwrap();

        let error = refusal::<A>(&server, &trusted).await;
        assert_told(&error, "the server wants a client certificate");
        let stranger = other.issue(&["ada"]).file();
        let error = refusal::<A>(&server, &with(&stranger)).await;
        assert_told(&error, "refuses the client certificate (tlsCertificateKeyFile)");
        let expired = authority.issue_expired(&["ada"]).file();
        let error = refusal::<A>(&server, &with(&expired)).await;
        assert_told(&error, "(tlsCertificateKeyFile): it has expired");
    }
}

pub async fn a_server_without_tls_is_told<A: Adapter>() {
    let hello = b"HTTP/1.0 400 Bad Request\r\n\r\n";
    for (answer, told) in [
        (
            &b""[..],
            "the server closed the connection in the TLS handshake; does the server expect TLS?",
        ),
        (hello, "does the server expect TLS? it answered in plain text"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let _ = client.read(&mut [0; 4096]);
                let _ = client.write_all(answer);
            }
        });
        let uri = format!("mongodb://{address}/?directConnection=true&tls=true");
        let error = refusal_of::<A>(&uri).await;
        assert_told(&error, told);
    }
}

pub async fn a_client_without_tls_is_told<A: Adapter>() {
    let (deployment, authority) = (deployment(), Authority::new());
    let certificate = authority.issue(&["127.0.0.1"]);
    let server = start(&deployment, TlsServer::new(&certificate));
    let error = refusal::<A>(&server, "tls=false").await;
    assert_told(&error, "tls=true");
}

/// Somebody in between may have cut the connection: it is resumed from, as any network error.
pub async fn an_end_without_farewell_is_resumed_from<A: Adapter>() {
    let (deployment, authority) = (deployment(), Authority::new());
    let certificate = authority.issue(&["127.0.0.1"]);
    let mut server = TlsServer::new(&certificate);
    server.polite = false;
    let server = start(&deployment, server);
    let ca = authority.file();
    let mut stream = open::<A>(&server, &format!("tlsCAFile={}", ca.path()))
        .await
        .unwrap();
    deployment.drop_connections(0);
    insert(&deployment, "shop", "orders", 0..1);
    let mut causes = Vec::new();
    loop {
        match stream.next_update().await.unwrap().unwrap() {
            changestream_driver::Update::Resuming(resuming) => causes.push(resuming.cause.to_string()),
            changestream_driver::Update::Change(_) => break,
            _ => {}
        }
    }
    assert!(
        causes.len() == 1 && causes[0].contains("close_notify"),
        "{causes:?}"
    );
}

/// A server that never answers the handshake.
pub async fn the_handshake_counts_as_connecting<A: Adapter>() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let uri = format!("mongodb://{address}/?tls=true&connectTimeoutMS=50");
    let error = refusal_of::<A>(&uri).await;
    assert_told(
        &error,
        "not connected, with the TLS handshake, within 50ms (connectTimeoutMS)",
    );
}

/// Files are read when a client is made, whatever the adapter.
#[test]
fn files_that_cannot_be_used_are_named_with_their_option() {
    let authority = Authority::new();
    let (one, another) = (authority.issue(&["ada"]), authority.issue(&["ben"]));
    let secret = one.encrypted_key_pem("hunter2");
    let with_key = |key: &str| File::new(&(one.pem() + key));
    let legacy = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                  -----END EC PRIVATE KEY-----\n";
    let cut_off = one.key_pem().replace("-----END", "");
    let cases = [
        ("tlsCAFile", File::new(""), "there is no certificate in it"),
        (
            "tlsCAFile",
            File::new("-----BEGIN CERTIFICATE-----\nAAAA\n"),
            "cut off",
        ),
        (
            "tlsCertificateKeyFile",
            File::new(&one.key_pem()),
            "there is no certificate in it",
        ),
        (
            "tlsCertificateKeyFile",
            with_key(""),
            "there is no private key in it",
        ),
        (
            "tlsCertificateKeyFile",
            with_key(&another.key_pem()),
            "the key is not that of",
        ),
        ("tlsCertificateKeyFile", with_key(&cut_off), "cut off"),
        ("tlsCertificateKeyFile", with_key(legacy), "openssl pkcs8 -topk8"),
        (
            "tlsCertificateKeyFile",
            with_key(&secret),
            "give tlsCertificateKeyFilePassword",
        ),
    ];
    for (option, file, reason) in cases {
        let error = make(&format!("{option}={}", file.path())).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::InvalidArgument { .. }),
            "{error}"
        );
        for told in [option, file.path(), reason] {
            assert!(error.to_string().contains(told), "{told} is not in: {error}");
        }
        let body = one.key_pem().lines().nth(1).unwrap().to_owned();
        assert!(!format!("{error} {error:?}").contains(&body), "{error}");
    }
    let error = make("tlsCAFile=/nowhere/ca.pem").unwrap_err();
    assert!(
        error.to_string().contains("tlsCAFile \"/nowhere/ca.pem\""),
        "{error}"
    );
}

#[test]
fn options_that_give_tls_up_are_a_warning() {
    for option in [
        "tlsInsecure",
        "tlsAllowInvalidCertificates",
        "tlsAllowInvalidHostnames",
    ] {
        let ca = Authority::new().file();
        let client = Client::<changestream_blocking::Blocking>::new(format!(
            "mongodb://localhost/?tlsCAFile={}&{option}=true",
            ca.path()
        ));
        let client = client.unwrap();
        let warned: Vec<_> = client.warnings().iter().map(|w| w.option.as_str()).collect();
        assert_eq!(warned, [option]);
    }
}

#[test]
fn an_encrypted_key_is_read_with_its_password_alone() {
    let certificate = Authority::new().issue(&["ada"]);
    let file = File::new(&(certificate.pem() + &certificate.encrypted_key_pem("hunter2")));
    let with = |password: &str| {
        let path = file.path();
        make(&format!(
            "tlsCertificateKeyFile={path}&tlsCertificateKeyFilePassword={password}"
        ))
    };
    let client = with("hunter2").unwrap();
    assert!(!format!("{client:?}").contains("hunter2"));
    let error = with("hunter3").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is tlsCertificateKeyFilePassword right?"),
        "{error}"
    );
    assert!(!format!("{error} {error:?}").contains("hunter3"), "{error}");
}

/// The mode does not matter here. Nothing is verified, so that the system's authorities are not asked for.
fn make(options: &str) -> Result<Client<changestream_blocking::Blocking>, Error> {
    let lenient = if options.contains("tlsCAFile") {
        ""
    } else {
        "&tlsAllowInvalidCertificates=true"
    };
    Client::new(format!("mongodb://localhost/?{options}{lenient}"))
}

fn deployment() -> RunningDeployment {
    Deployment::replica_set(1).start().unwrap()
}

fn start(deployment: &RunningDeployment, server: TlsServer<'_>) -> TlsProxy {
    server.start(deployment.address(0).unwrap())
}

fn uri(server: &TlsProxy, options: &str) -> String {
    format!("mongodb://{}/?directConnection=true&{options}", server.address)
}

async fn open<A: Adapter>(server: &TlsProxy, options: &str) -> Result<A::Stream, Error> {
    open_uri::<A>(&uri(server, options)).await
}

async fn open_uri<A: Adapter>(uri: &str) -> Result<A::Stream, Error> {
    let client = Client::<A::Mode>::new(uri).unwrap();
    A::open(client.collection("shop", "orders").watch()).await
}

async fn refusal<A: Adapter>(server: &TlsProxy, options: &str) -> Error {
    refusal_of::<A>(&uri(server, options)).await
}

async fn refusal_of<A: Adapter>(uri: &str) -> Error {
    open_uri::<A>(&format!("{uri}&serverSelectionTryOnce=true"))
        .await
        .err()
        .unwrap()
}

fn assert_told(error: &Error, told: &str) {
    assert!(
        matches!(error.kind(), ErrorKind::ServerSelection { .. }),
        "{error}"
    );
    assert!(error.to_string().contains(told), "{told} is not in: {error}");
}

const ONLY_TLS12: &[&SupportedProtocolVersion] = &[&TLS12];
const ONLY_TLS13: &[&SupportedProtocolVersion] = &[&TLS13];
