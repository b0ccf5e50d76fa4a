//! Users of `$external` in the simulated world: MONGODB-X509, PLAIN and MONGODB-AWS.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bson::{Document, doc};
use changestream_core::auth::{AwsCredentials, CredentialAnswer, CredentialRequest};
use changestream_core::client::ClientSettings;
use changestream_core::connection::ClientMetadata;
use changestream_core::{ClientOptions, ConnectionString, Credential, Error, ErrorKind, WatchOptions};
use changestream_sim::{Config, Deployment};
use changestream_tests::world::{StreamId, World, collection};

fn world(guard: impl FnOnce(Config) -> Config) -> World {
    World::new(guard(Deployment::replica_set(3)), [6; 32])
}

fn by(world: &mut World, userinfo: &str, more: &str) -> Result<StreamId, Error> {
    let uri = world.deployment.uri();
    let uri = uri.replace("mongodb://", &format!("mongodb://{userinfo}"));
    let orders = collection("shop", "orders");
    let stream = world.watch_by(&format!("{uri}{more}"), None, &orders, WatchOptions::default())?;
    world.open(stream)?;
    Ok(stream)
}

#[track_caller]
fn refused(result: Result<StreamId, Error>, code: Option<i32>, words: &str) {
    let error = result.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Authentication { .. }),
        "{error:?}"
    );
    assert_eq!(error.code(), code, "{error}");
    assert!(!error.is_resumable());
    let text = format!("{error} {error:?}");
    assert!(text.contains(words), "{words} is not in: {text}");
    for secret in SECRETS {
        assert!(!text.contains(secret), "{text}");
    }
}

/// What no error may say.
const SECRETS: [&str; 3] = ["hunter2", "wJalrXUtnFEMI", "FwoGZXIvYXdzE"];

fn named(world: &World, name: &str) -> Vec<Document> {
    let records = world.all_records().filter(|record| record.name == name);
    records.map(|record| record.body.clone()).collect()
}

const SUBJECT: &str = "CN=ada,OU=Drivers,O=Example,C=IS";

#[test]
fn a_certificate_is_who_a_client_is() {
    for userinfo in ["", "CN%3Dada,OU%3DDrivers,O%3DExample,C%3DIS@"] {
        let mut world = world(|config| config.x509_user(SUBJECT));
        world.identity.certificate = Some(SUBJECT.to_owned());
        let stream = by(&mut world, userinfo, "&authMechanism=MONGODB-X509").unwrap();
        world.insert_orders([7]);
        assert_eq!(world.keys(stream, 1), [7]);
        assert!(
            named(&world, "authenticate").is_empty(),
            "the speculation in the handshake is enough"
        );
    }
}

#[test]
fn without_an_answer_to_the_speculation_the_certificate_is_pointed_at_by_a_command() {
    for (userinfo, user) in [
        ("", None),
        ("CN%3Dada,OU%3DDrivers,O%3DExample,C%3DIS@", Some(SUBJECT)),
    ] {
        let mut world = world(|config| config.x509_user(SUBJECT));
        world.identity.certificate = Some(SUBJECT.to_owned());
        world.rewrite_replies(|reply| {
            reply.remove("speculativeAuthenticate");
        });
        by(&mut world, userinfo, "&authMechanism=MONGODB-X509").unwrap();
        let commands = named(&world, "authenticate");
        assert!(!commands.is_empty());
        for command in commands {
            assert_eq!(command.get_str("mechanism").unwrap(), "MONGODB-X509");
            assert_eq!(command.get_str("$db").unwrap(), "$external");
            assert_eq!(command.get_str("user").ok(), user, "sent only if it is given");
        }
    }
}

#[test]
fn a_certificate_that_the_server_does_not_know_or_another_users_is_refused() {
    let guarded = || world(|config| config.x509_user(SUBJECT));
    let mut without = guarded();
    refused(
        by(&mut without, "", "&authMechanism=MONGODB-X509"),
        Some(18),
        "MONGODB-X509",
    );
    let mut strange = guarded();
    strange.identity.certificate = Some("CN=ben".to_owned());
    refused(
        by(&mut strange, "", "&authMechanism=MONGODB-X509"),
        Some(18),
        "MONGODB-X509",
    );
    let mut other = guarded();
    other.identity.certificate = Some(SUBJECT.to_owned());
    refused(
        by(&mut other, "CN%3Dben@", "&authMechanism=MONGODB-X509"),
        Some(18),
        "CN=ben",
    );
}

#[test]
fn a_password_for_ldap_goes_as_it_is_and_never_within_the_handshake() {
    let mut world = world(|config| config.plain_user("ada", "hunter2=,\u{2168}"));
    let stream = by(
        &mut world,
        "ada:hunter2%3D%2C%E2%85%A8@",
        "&authMechanism=PLAIN&authSource=$external",
    );
    world.insert_orders([7]);
    assert_eq!(world.keys(stream.unwrap(), 1), [7]);
    for start in named(&world, "saslStart") {
        assert_eq!(start.get_str("mechanism").unwrap(), "PLAIN");
        assert_eq!(start.get_str("$db").unwrap(), "$external");
    }
    assert!(named(&world, "saslContinue").is_empty(), "one message");
}

#[test]
fn a_wrong_password_for_ldap_is_refused_and_not_told() {
    let mut world = world(|config| config.plain_user("ada", "right"));
    let plain = "&authMechanism=PLAIN&authSource=$external";
    refused(
        by(&mut world, "ada:hunter2@", plain),
        Some(18),
        "PLAIN as user \"ada\"",
    );
    refused(by(&mut world, "ada:hunter2%00@", plain), None, "NUL");
}

#[test]
fn a_server_that_does_not_end_plain_is_refused() {
    let mut world = world(|config| config.plain_user("ada", "hunter2"));
    world.rewrite_replies(|reply| {
        if reply.contains_key("done") {
            reply.insert("done", false);
        }
    });
    let plain = "&authMechanism=PLAIN&authSource=$external";
    refused(by(&mut world, "ada:hunter2@", plain), None, "does not end PLAIN");
}

const ARN: &str = "arn:aws:iam::123456789012:user/ada";
const KEY_ID: &str = "AKIDEXAMPLE";
const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "FwoGZXIvYXdzE//token==";

fn aws(token: Option<&str>) -> World {
    world(|config| config.aws_user(ARN, KEY_ID, KEY, token))
}

#[test]
fn keys_in_the_connection_string_sign() {
    let userinfo = "AKIDEXAMPLE:wJalrXUtnFEMI%2FK7MDENG%2BbPxRfiCYEXAMPLEKEY@";
    let mut lasting = aws(None);
    let stream = by(&mut lasting, userinfo, "&authMechanism=MONGODB-AWS").unwrap();
    lasting.insert_orders([7]);
    assert_eq!(lasting.keys(stream, 1), [7]);

    let mut temporary = aws(Some(TOKEN));
    let properties =
        "&authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN:FwoGZXIvYXdzE%2F%2Ftoken%3D%3D";
    by(&mut temporary, userinfo, properties).unwrap();
    refused(
        by(&mut temporary, userinfo, "&authMechanism=MONGODB-AWS"),
        Some(18),
        "MONGODB-AWS",
    );
}

#[test]
fn keys_that_somebody_hands_out_sign_each_connection_anew() {
    let mut world = aws(Some(TOKEN));
    let asked = Rc::new(RefCell::new(0));
    let (count, time) = (Rc::clone(&asked), world.identity.wall(world.now));
    world.identity.provide(move |request| {
        assert!(matches!(request, CredentialRequest::Aws { given: None, .. }));
        *count.borrow_mut() += 1;
        let keys = AwsCredentials::new(KEY_ID, KEY).with_session_token(TOKEN);
        Some(Ok(CredentialAnswer::aws(keys, time)))
    });
    let stream = by(&mut world, "", "&authMechanism=MONGODB-AWS").unwrap();
    assert_eq!(*asked.borrow(), 1, "once for each connection that authenticates");
    let (now, primary) = (world.now, world.primary());
    world.deployment.drop_connections(now, primary);
    world.insert_orders([7]);
    assert_eq!(world.keys(stream, 1), [7]);
    assert_eq!(*asked.borrow(), 2);
}

#[test]
fn wrong_keys_and_a_wrong_clock_are_refused() {
    let right = || AwsCredentials::new(KEY_ID, KEY);
    for (keys, off, code, words) in [
        (AwsCredentials::new(KEY_ID, "hunter2"), 0, Some(18), "MONGODB-AWS"),
        (AwsCredentials::new("AKIDOTHER", KEY), 0, Some(18), "MONGODB-AWS"),
        (right().with_session_token(TOKEN), 0, Some(18), "MONGODB-AWS"),
        (right(), 3600, Some(18), "MONGODB-AWS"),
        (AwsCredentials::new("AKID\nX: y", KEY), 0, None, "access key id"),
        (AwsCredentials::new("", KEY), 0, None, "access key id"),
        (
            right().with_session_token("FwoGZXIvYXdzE\n"),
            0,
            None,
            "session token",
        ),
    ] {
        let mut world = aws(None);
        let time = world.identity.wall(world.now).timestamp_millis() + off * 1000;
        let time = bson::DateTime::from_millis(time);
        world
            .identity
            .provide(move |_| Some(Ok(CredentialAnswer::aws(keys.clone(), time))));
        refused(by(&mut world, "", "&authMechanism=MONGODB-AWS"), code, words);
    }
}

#[test]
fn no_keys_is_an_error_that_says_why() {
    let mut world = aws(None);
    refused(
        by(&mut world, "", "&authMechanism=MONGODB-AWS"),
        None,
        "nobody has credentials",
    );
}

#[test]
fn keys_that_never_come_end_in_an_error_after_the_connect_timeout() {
    let mut world = aws(None);
    world.identity.provide(|_| None);
    let start = world.now;
    refused(
        by(&mut world, "", "&authMechanism=MONGODB-AWS&connectTimeoutMS=3000"),
        None,
        "connectTimeoutMS, 3s",
    );
    assert!(world.now - start < Duration::from_secs(4));
}

/// Authentication specification, "Region Calculation", and what is said of nonce and host.
#[test]
fn hosts_and_nonces_of_the_server_are_checked() {
    for (host, legal) in [
        ("sts.us-west-2.amazonaws.com", true),
        ("localhost", true),
        ("sts..com", false),
        (".amazonaws.com", false),
        ("sts.amazonaws.", false),
        ("", false),
        ("a\r\nx-evil: 1", false),
        (&"x".repeat(256), false),
    ] {
        let host = host.to_owned();
        let mut world = aws(None);
        world.rewrite_replies(move |reply| {
            rewrite_payload(reply, |payload| {
                payload.insert("h", host.clone());
            })
        });
        let time = world.identity.wall(world.now);
        world
            .identity
            .provide(move |_| Some(Ok(CredentialAnswer::aws(AwsCredentials::new(KEY_ID, KEY), time))));
        let result = by(&mut world, "", "&authMechanism=MONGODB-AWS");
        match legal {
            // The server has said another host than the one that it verifies for.
            true => refused(result, Some(18), "MONGODB-AWS"),
            false => refused(result, None, "Security Token Service"),
        }
    }
    let mut world = aws(None);
    world.rewrite_replies(|reply| {
        rewrite_payload(reply, |payload| {
            let bytes = vec![1; 64];
            let subtype = bson::spec::BinarySubtype::Generic;
            payload.insert("s", bson::Binary { subtype, bytes });
        })
    });
    refused(by(&mut world, "", "&authMechanism=MONGODB-AWS"), None, "nonce");
}

fn rewrite_payload(reply: &mut Document, change: impl FnOnce(&mut Document)) {
    let Some(bson::Bson::Binary(binary)) = reply.get_mut("payload") else {
        return;
    };
    let Ok(mut payload) = bson::deserialize_from_slice::<Document>(&binary.bytes) else {
        return;
    };
    change(&mut payload);
    binary.bytes = payload.to_vec().unwrap();
}

#[test]
fn a_mechanism_that_is_not_supported_says_what_is() {
    let uri: ConnectionString = "mongodb://ada@localhost/?authMechanism=GSSAPI".parse().unwrap();
    let error = ClientSettings::new(uri.options, ClientMetadata::new()).unwrap_err();
    assert!(
        error.to_string().contains("GSSAPI (Kerberos) is not supported"),
        "{error}"
    );
}

#[test]
fn half_a_pair_of_keys_is_refused() {
    let mut options = ClientOptions::default();
    let mut credential = Credential::with_mechanism(changestream_core::AuthMechanism::MongoDbAws);
    credential.username = Some(KEY_ID.to_owned());
    options.credential = Some(credential);
    let error = ClientSettings::new(options, ClientMetadata::new()).unwrap_err();
    assert!(error.to_string().contains("secret access key"), "{error}");
}

/// Any command is sent again once its connection has authenticated anew, by each mechanism.
#[test]
fn a_server_that_wants_it_again_gets_it_and_then_the_command() {
    type Guard = fn(Config) -> Config;
    let cases: [(Guard, &str, &str); 5] = [
        (|c| c.user("ada", "hunter2"), "ada:hunter2@", ""),
        (
            |c| c.user("ada", "hunter2"),
            "ada:hunter2@",
            "&authMechanism=SCRAM-SHA-1",
        ),
        (
            |c| c.plain_user("ada", "hunter2"),
            "ada:hunter2@",
            "&authMechanism=PLAIN&authSource=$external",
        ),
        (|c| c.x509_user(SUBJECT), "", "&authMechanism=MONGODB-X509"),
        (
            |c| c.aws_user(ARN, KEY_ID, "hunter2", None),
            "AKIDEXAMPLE:hunter2@",
            "&authMechanism=MONGODB-AWS",
        ),
    ];
    for (guard, userinfo, more) in cases {
        let mut world = world(guard);
        world.identity.certificate = Some(SUBJECT.to_owned());
        world.fail(&["aggregate"], 1, doc! { "errorCode": 391 });
        let stream = by(&mut world, userinfo, more).unwrap();
        assert_eq!(world.commands_named("aggregate").len(), 2, "{more}");
        world.forget_commands();
        world.fail_get_more(391);
        world.insert_orders([7]);
        let (resumes, event) = world.resumes_until_event(stream);
        assert_eq!(resumes, 0, "{more}: the cursor lives on");
        assert_eq!(changestream_tests::world::key_of(&event), 7);
        assert!(world.commands_named("aggregate").is_empty(), "{more}");
        let hellos = world
            .all_records()
            .filter(|record| record.name == "hello" || record.name == "isMaster");
        assert_eq!(hellos.count(), 0, "{more}: no hello is sent again");
    }
}

#[test]
fn a_command_is_sent_again_once_and_no_more() {
    let mut world = world(|config| config.user("ada", "hunter2"));
    world.fail(&["aggregate"], 2, doc! { "errorCode": 391 });
    let error = by(&mut world, "ada:hunter2@", "").unwrap_err();
    assert_eq!(error.code(), Some(391), "{error}");
    assert_eq!(world.commands_named("aggregate").len(), 2);
}

#[test]
fn who_cannot_authenticate_again_is_told_so() {
    let mut world = world(|config| config.user("ada", "hunter2"));
    let stream = by(&mut world, "ada:hunter2@", "").unwrap();
    world.fail(&["getMore", "saslStart"], 2, doc! { "errorCode": 391 });
    let error = world.failure(stream);
    assert!(
        matches!(error.kind(), ErrorKind::Authentication { .. }),
        "{error:?}"
    );
    assert_eq!(error.code(), Some(391));
    assert!(error.resume_token().is_some());
}
