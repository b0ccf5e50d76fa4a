//! No password, key or token of authentication is in anything that a client prints, in any form.
//!
//! One test, in a program of its own: it listens to the whole log.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::error::Error as _;
use std::fmt::Debug;
use std::future::ready;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use changestream_blocking::{AwsCredentials, ClientBuilder, Error, OidcToken};
use changestream_core::ConnectionString;
use changestream_sim::{Config, Deployment, Tls};
use tracing::field::{Field, Visit};
use tracing::span;

/// What must never be seen. The second one has characters that a connection string encodes.
const SECRETS: [&str; 4] = [
    "correct-horse-battery",
    "p@ss:wörd/7",
    "AwsSecretKey/9",
    "oidc.token.abc",
];

#[test]
fn no_secret_is_in_anything_that_is_printed() {
    let seen = Seen::default();
    tracing::subscriber::set_global_default(seen.clone()).unwrap();
    for right in [true, false] {
        for case in cases(right) {
            live(&case, right, &seen);
        }
    }
    certificates(&seen);
    let texts = seen.0.lock().unwrap();
    assert!(texts.len() > 500, "only {} texts were printed", texts.len());
    let sensitive: Vec<String> = SECRETS.iter().flat_map(|secret| forms(secret)).collect();
    for text in texts.iter() {
        for form in &sensitive {
            assert!(!text.contains(form.as_str()), "{form:?} is in {text}");
        }
    }
}

/// A way to authenticate, and a deployment that takes it or does not.
struct Case {
    config: Config,
    userinfo: String,
    options: &'static str,
    builder: Box<dyn Fn() -> ClientBuilder>,
}

fn cases(right: bool) -> Vec<Case> {
    let [password, odd, aws, token] = SECRETS;
    let known = |secret: &str| {
        if right {
            secret.to_owned()
        } else {
            "other".to_owned()
        }
    };
    let replica_set = || Deployment::replica_set(1);
    let builder = || Box::new(changestream_blocking::Client::builder) as Box<dyn Fn() -> ClientBuilder>;
    let encoded = percent_encoded(odd);
    let mut cases = Vec::new();
    for (options, given, stored) in [
        ("&authMechanism=SCRAM-SHA-256", password, password),
        ("&authMechanism=SCRAM-SHA-1", password, password),
        ("", encoded.as_str(), odd),
    ] {
        cases.push(Case {
            config: replica_set().user("ada", known(stored)),
            userinfo: format!("ada:{given}@"),
            options,
            builder: builder(),
        });
    }
    cases.push(Case {
        config: replica_set().plain_user("ada", known(odd)),
        userinfo: format!("ada:{encoded}@"),
        options: "&authMechanism=PLAIN&authSource=$external",
        builder: builder(),
    });
    cases.push(Case {
        config: replica_set().aws_user("arn:aws:iam::1:user/ada", "AKID", known(aws), None),
        userinfo: format!("AKID:{}@", percent_encoded(aws)),
        options: "&authMechanism=MONGODB-AWS",
        builder: builder(),
    });
    cases.push(Case {
        config: replica_set().aws_user("arn:aws:iam::1:user/ada", "AKID", known(aws), Some(token)),
        userinfo: String::new(),
        options: "&authMechanism=MONGODB-AWS",
        builder: Box::new(move || {
            changestream_blocking::Client::builder().aws_credentials(move || {
                ready(Ok::<_, Error>(
                    AwsCredentials::new("AKID", aws).with_session_token(token),
                ))
            })
        }),
    });
    cases.push(Case {
        config: replica_set().oidc_token(known(token), "ada"),
        userinfo: String::new(),
        options: "&authMechanism=MONGODB-OIDC",
        builder: Box::new(move || {
            changestream_blocking::Client::builder()
                .oidc_callback(move |_| ready(Ok::<_, Error>(OidcToken::new(token))))
        }),
    });
    cases
}

/// Opens a stream, or fails to, and prints all there is on the way.
fn live(case: &Case, right: bool, seen: &Seen) {
    let deployment = case.config.clone().start().unwrap();
    let uri = deployment
        .uri()
        .replace("mongodb://", &format!("mongodb://{}", case.userinfo));
    let uri = format!("{uri}{}", case.options);
    if let Ok(parsed) = uri.parse::<ConnectionString>() {
        seen.print(&parsed);
        seen.note(parsed.to_string());
    }
    seen.print(&(case.builder)());
    let client = (case.builder)().build(&uri).unwrap();
    let told = seen.clone();
    let client = client.monitor(move |event| told.print(event));
    seen.print(&client);
    let watch = client.collection("shop", "orders").watch();
    seen.print(&watch);
    let opened = watch.open();
    assert_eq!(opened.is_ok(), right, "{uri}: {:?}", opened.as_ref().err());
    match opened {
        Ok(stream) => seen.print(&stream),
        Err(error) => seen.fail(&error),
    }
    // A connection that breaks in the middle of authentication has its words too.
    let point = bson::doc! {
        "configureFailPoint": "failCommand", "mode": "alwaysOn",
        "data": { "failCommands": ["saslStart", "saslContinue", "hello", "isMaster"], "closeConnection": true },
    };
    deployment.fail_command(0, &point).unwrap();
    let client = (case.builder)()
        .build(format!("{uri}&serverSelectionTimeoutMS=50"))
        .unwrap();
    seen.fail(&client.watch().open().unwrap_err());
}

/// Keys of certificates, and the passwords of keys.
fn certificates(seen: &Seen) {
    let folder = Folder::new();
    let tls = Tls::write_to(&folder.0)
        .unwrap()
        .require_client_certificates(true);
    let key = std::fs::read_to_string(tls.client_file()).unwrap();
    let body = key.lines().nth(1).unwrap().to_owned();
    let start = seen.0.lock().unwrap().len();
    let deployment = Deployment::replica_set(1).tls(tls).start().unwrap();
    for password in ["", "&tlsCertificateKeyFilePassword=correct-horse-battery"] {
        let uri = format!("{}{password}", deployment.uri());
        seen.print(&uri.parse::<ConnectionString>().unwrap());
        match changestream_blocking::Client::new(&uri) {
            Ok(client) => {
                seen.print(&client);
                match client.watch().open() {
                    Ok(stream) => seen.print(&stream),
                    Err(error) => seen.fail(&error),
                }
            }
            Err(error) => seen.fail(&error),
        }
    }
    let texts = seen.0.lock().unwrap();
    assert!(texts[start..].iter().all(|text| !text.contains(&body)));
}

/// A secret as it is, as bytes are printed, and as the protocols encode it.
fn forms(secret: &str) -> Vec<String> {
    let bytes = format!("{:?}", secret.as_bytes());
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        secret.to_owned(),
        percent_encoded(secret),
        bytes.trim_matches(['[', ']']).to_owned(),
        hex.to_uppercase(),
        hex,
    ];
    // In base64 what comes before shifts it: the part that does not depend on that.
    for before in ["", "a", "ab"] {
        let encoded = BASE64.encode(format!("{before}{secret}"));
        let inner = encoded.get(4..encoded.len() - 4).unwrap_or_default();
        forms.push(inner.to_owned());
    }
    forms.retain(|form| form.len() > 6);
    forms
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// All that was printed.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, text: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn print(&self, value: &impl Debug) {
        self.note(format!("{value:?}"));
        self.note(format!("{value:#?}"));
    }

    /// An error and all that it stems from.
    fn fail(&self, error: &Error) {
        self.print(error);
        self.note(error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            self.print(&cause);
            self.note(cause.to_string());
            source = cause.source();
        }
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.note(format!("{}={value:?}", field.name()));
    }
}

impl tracing::Subscriber for Seen {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// A folder, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("changestream-secrets-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
