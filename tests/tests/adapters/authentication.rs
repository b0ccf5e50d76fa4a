//! The scenarios with users of `$external`. Each is one function over any adapter.

use std::future::{poll_fn, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use changestream_driver::{AwsCredentials, Client, ClientBuilder, Error, ErrorKind, OidcRequest, OidcToken};
use changestream_sim::{Config, Deployment, RunningDeployment};
use changestream_tests::writer::insert;
use rcgen::DnType;

use crate::adapter::{Adapter, Follow};
use crate::certificates::{Authority, File};
use crate::scenarios::take;
use crate::tls_proxy::TlsServer;

/// As RFC 2253 writes it: the last part first.
const SUBJECT: &str = "CN=ada,OU=Drivers,O=Example,C=IS";

pub async fn a_client_certificate_is_who_a_client_is<A: Adapter>() {
    let deployment = Arc::new(Deployment::replica_set(1).x509_user(SUBJECT).start().unwrap());
    let authority = Authority::new();
    let certificate = authority.issue(&["127.0.0.1"]);
    let ada = authority.issue_to(&[
        (DnType::CountryName, "IS"),
        (DnType::OrganizationName, "Example"),
        (DnType::OrganizationalUnitName, "Drivers"),
        (DnType::CommonName, "ada"),
    ]);
    let (of_ada, told) = (ada.der().0, Arc::clone(&deployment));
    let mut server = TlsServer::new(&certificate);
    server.clients_of = Some(&authority);
    server.identify = Some(Arc::new(move |from, shown| {
        let subject = if *shown == of_ada { SUBJECT } else { "CN=somebody" };
        told.show_certificate(from, subject);
    }));
    let server = server.start(deployment.address(0).unwrap());
    let (ca, ada, ben) = (authority.file(), ada.file(), authority.issue(&["ben"]).file());
    let with = |userinfo: &str, file: &File| {
        format!(
            "mongodb://{userinfo}{}/?directConnection=true&authMechanism=MONGODB-X509&tlsCAFile={}&tlsCertificateKeyFile={}",
            server.address,
            ca.path(),
            file.path()
        )
    };
    let mut stream = open::<A>(Client::<A::Mode>::builder(), &with("", &ada))
        .await
        .unwrap();
    insert(&deployment, "shop", "orders", [7]);
    assert_eq!(take(&mut stream, 1).await, [7]);
    let named = with("CN%3Dada,OU%3DDrivers,O%3DExample,C%3DIS@", &ada);
    open::<A>(Client::<A::Mode>::builder(), &named).await.unwrap();
    let refusal = open::<A>(Client::<A::Mode>::builder(), &with("", &ben)).await;
    assert_refused(&refusal.err().unwrap(), "MONGODB-X509");
}

pub async fn users_of_ldap_show_their_password<A: Adapter>() {
    let deployment = start(|config| config.plain_user("ada", "hunter2"));
    let with = |password: &str| {
        uri(
            &deployment,
            &format!("ada:{password}@"),
            "&authMechanism=PLAIN&authSource=$external",
        )
    };
    follows::<A>(&deployment, Client::<A::Mode>::builder(), &with("hunter2")).await;
    let refusal = open::<A>(Client::<A::Mode>::builder(), &with("wrong-hunter")).await;
    assert_refused(&refusal.err().unwrap(), "PLAIN as user \"ada\"");
}

pub async fn keys_of_aws_come_from_a_provider<A: Adapter>() {
    let deployment =
        start(|config| config.aws_user("arn:aws:iam::1:user/ada", "AKID", "hunter2", Some("session")));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let builder = Client::<A::Mode>::builder().aws_credentials(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        later(|| Ok::<_, Error>(AwsCredentials::new("AKID", "hunter2").with_session_token("session")))
    });
    let uri = uri(&deployment, "", "&authMechanism=MONGODB-AWS");
    follows::<A>(&deployment, builder, &uri).await;
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let builder = Client::<A::Mode>::builder()
        .aws_credentials(|| ready(Ok::<_, Error>(AwsCredentials::new("AKID", "wrong-hunter"))));
    assert_refused(&open::<A>(builder, &uri).await.err().unwrap(), "MONGODB-AWS");
}

pub async fn keys_of_aws_stand_in_the_connection_string<A: Adapter>() {
    let deployment = start(|config| config.aws_user("arn:aws:iam::1:user/ada", "AKID", "hunter2", None));
    let uri = uri(&deployment, "AKID:hunter2@", "&authMechanism=MONGODB-AWS");
    follows::<A>(&deployment, Client::<A::Mode>::builder(), &uri).await;
}

/// The server wants the connection to authenticate anew, and the getMore goes on without a resume.
pub async fn a_stream_outlives_its_tokens<A: Adapter>() {
    let deployment = start(|config| config.oidc_token("token-1", "ada").oidc_token("token-2", "ada"));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let builder = Client::<A::Mode>::builder().oidc_callback(move |request: OidcRequest| {
        assert!(request.timeout.unwrap() <= Duration::from_secs(10));
        let number = counted.fetch_add(1, Ordering::Relaxed) + 1;
        later(move || Ok::<_, Error>(OidcToken::new(format!("token-{number}"))))
    });
    let uri = uri(&deployment, "", "&authMechanism=MONGODB-OIDC");
    let mut stream = open::<A>(builder, &uri).await.unwrap();
    insert(&deployment, "shop", "orders", 0..100);
    assert_eq!(take(&mut stream, 50).await, (0..50).collect::<Vec<_>>());
    deployment.revoke_oidc_token("token-1");
    insert(&deployment, "shop", "orders", 100..200);
    assert_eq!(take(&mut stream, 150).await, (50..200).collect::<Vec<_>>());
    assert_eq!(stream.stats().resumes, 0);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

/// Streams of one client, opened at once in tasks of their own, wait for one call.
pub async fn one_call_is_under_way_at_a_time<A: Adapter>()
where
    Client<A::Mode>: Send + Sync,
{
    let deployment = Arc::new(start(|config| config.oidc_token("token", "ada")));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let client = Client::<A::Mode>::builder()
        .oidc_callback(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            later(|| Ok::<_, Error>(OidcToken::new("token")))
        })
        .build(uri(&deployment, "", "&authMechanism=MONGODB-OIDC"))
        .unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                A::block_on(async {
                    A::open(client.collection("shop", "orders").watch())
                        .await
                        .unwrap();
                });
            });
        }
    });
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

pub async fn a_human_is_told_of_the_provider<A: Adapter>() {
    let deployment = start(|config| {
        config
            .oidc_provider("https://issuer", "changestream", "")
            .oidc_token("token", "ada")
    });
    let builder = || {
        Client::<A::Mode>::builder().oidc_human_callback(|request: OidcRequest| {
            let idp = request.idp_info.unwrap();
            assert_eq!(idp.issuer, "https://issuer");
            assert_eq!(request.timeout, Some(Duration::from_secs(300)));
            ready(Ok::<_, Error>(OidcToken::new("token")))
        })
    };
    let uri = uri(&deployment, "", "&authMechanism=MONGODB-OIDC");
    follows::<A>(&deployment, builder(), &uri).await;
    let refusal = open::<A>(builder().oidc_allowed_hosts(["*.example.com"]), &uri).await;
    assert_refused(&refusal.err().unwrap(), "none of the allowed hosts");
}

pub async fn a_callback_that_fails_is_told_without_a_token<A: Adapter>() {
    let deployment = start(|config| config.oidc_token("token", "ada"));
    let uri = uri(&deployment, "", "&authMechanism=MONGODB-OIDC");
    let down = Client::<A::Mode>::builder()
        .oidc_callback(|_| later(|| Err::<OidcToken, _>("the metadata service is down")));
    assert_refused(
        &open::<A>(down, &uri).await.err().unwrap(),
        "the metadata service is down",
    );
    let wrong =
        Client::<A::Mode>::builder().oidc_callback(|_| ready(Ok::<_, Error>(OidcToken::new("wrong-hunter"))));
    assert_refused(&open::<A>(wrong, &uri).await.err().unwrap(), "MONGODB-OIDC");
    let silent =
        Client::<A::Mode>::builder().oidc_callback(|_| std::future::pending::<Result<OidcToken, Error>>());
    let uri = format!("{uri}&connectTimeoutMS=200");
    assert_refused(&open::<A>(silent, &uri).await.err().unwrap(), "connectTimeoutMS");
}

/// A file for the callback, read anew for each token.
pub async fn a_token_lies_in_a_file<A: Adapter>() {
    let deployment = start(|config| config.oidc_token("token", "ada"));
    let file = File::new("token\n");
    let path = file.path().to_owned();
    let builder = Client::<A::Mode>::builder().oidc_callback(move |_| {
        let text = std::fs::read_to_string(&path);
        ready(text.map(|text| OidcToken::new(text.trim())))
    });
    follows::<A>(
        &deployment,
        builder,
        &uri(&deployment, "", "&authMechanism=MONGODB-OIDC"),
    )
    .await;
}

/// What is handed in has to be what the mechanism takes, whatever the adapter.
#[test]
fn what_does_not_fit_the_mechanism_is_refused_when_the_client_is_made() {
    type Mode = changestream_blocking::Blocking;
    let token = || ready(Ok::<_, Error>(OidcToken::new("token")));
    let builder = Client::<Mode>::builder;
    let oidc = "mongodb://localhost/?authMechanism=MONGODB-OIDC";
    let cases = [
        (builder().build(oidc), "or a callback"),
        (
            builder()
                .oidc_callback(move |_| token())
                .build("mongodb://localhost/"),
            "authMechanism=MONGODB-OIDC",
        ),
        (
            builder()
                .oidc_callback(move |_| token())
                .build(format!("{oidc}&authMechanismProperties=ENVIRONMENT:k8s")),
            "contradicts the callback",
        ),
        (
            builder().build(format!(
                "{oidc}&authMechanismProperties=ENVIRONMENT:azure,TOKEN_RESOURCE:a"
            )),
            "hand in a callback",
        ),
        (
            builder().build(format!(
                "{oidc}&authMechanismProperties=ENVIRONMENT:gcp,TOKEN_RESOURCE:a"
            )),
            "hand in a callback",
        ),
        (
            builder()
                .oidc_callback(move |_| token())
                .oidc_allowed_hosts(["a"])
                .build(oidc),
            "oidc_human_callback",
        ),
        (
            builder()
                .aws_credentials(|| ready(Ok::<_, Error>(AwsCredentials::new("a", "b"))))
                .build("mongodb://localhost/"),
            "authMechanism=MONGODB-AWS",
        ),
        (
            builder().build("mongodb://localhost/?authMechanism=MONGODB-X509"),
            "tlsCertificateKeyFile",
        ),
        (
            builder().build("mongodb://localhost/?authMechanism=MONGODB-X509&tls=true"),
            "tlsCertificateKeyFile",
        ),
        (
            builder().build("mongodb://ada@localhost/?authMechanism=GSSAPI"),
            "not supported",
        ),
    ];
    for (result, told) in cases {
        let error = result.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::InvalidArgument { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(told), "{told} is not in: {error}");
    }
}

#[test]
fn a_secret_in_the_clear_is_a_warning() {
    let plain = "authMechanism=PLAIN&authSource=$external";
    for (uri, warns) in [
        (format!("mongodb://a:b@db.example.com/?{plain}"), true),
        (format!("mongodb://a:b@localhost,10.0.0.1/?{plain}"), true),
        (format!("mongodb://a:b@localhost,127.0.0.1,[::1]/?{plain}"), false),
        (format!("mongodb://a:b@%2Ftmp%2Fm.sock/?{plain}"), false),
        ("mongodb://a:b@db.example.com/".to_owned(), false),
    ] {
        let client = Client::<changestream_blocking::Blocking>::new(&uri).unwrap();
        let warned: Vec<_> = client.warnings().iter().map(|w| w.option.as_str()).collect();
        let expected: &[&str] = if warns { &["authMechanism"] } else { &[] };
        assert_eq!(warned, expected, "{uri}");
    }
}

fn start(guard: impl FnOnce(Config) -> Config) -> RunningDeployment {
    guard(Deployment::replica_set(1)).start().unwrap()
}

fn uri(deployment: &RunningDeployment, userinfo: &str, more: &str) -> String {
    let uri = deployment.uri();
    uri.replace("mongodb://", &format!("mongodb://{userinfo}")) + more
}

async fn open<A: Adapter>(builder: ClientBuilder<A::Mode>, uri: &str) -> Result<A::Stream, Error> {
    let client = builder.build(uri).unwrap();
    A::open(client.collection("shop", "orders").watch()).await
}

/// Opens a stream, which an event comes over.
async fn follows<A: Adapter>(deployment: &RunningDeployment, builder: ClientBuilder<A::Mode>, uri: &str) {
    let mut stream = open::<A>(builder, uri).await.unwrap();
    insert(deployment, "shop", "orders", [7]);
    assert_eq!(take(&mut stream, 1).await, [7]);
}

/// Gives what `make` gives, from another thread, which wakes whoever waits.
fn later<T: Send + 'static>(
    make: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> + Send + 'static {
    let mut make = Some(make);
    let mut waited = false;
    poll_fn(move |cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(make.take().unwrap()());
        }
        let waker = cx.waker().clone();
        thread::spawn(move || waker.wake());
        Poll::Pending
    })
}

#[track_caller]
fn assert_refused(error: &Error, told: &str) {
    let text = format!("{error} {error:?}");
    assert!(matches!(error.kind(), ErrorKind::Authentication { .. }), "{text}");
    assert!(text.contains(told), "{told} is not in: {text}");
    assert!(!text.contains("hunter"), "{text}");
}
