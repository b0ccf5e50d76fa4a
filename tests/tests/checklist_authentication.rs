//! The behaviour checklist: SCRAM, with five users as its prose tests have them.
//!
//! Not here: nothing. That wrong signatures and impossible replies of a server are refused is tested more deeply in
//! changestream-core's `scram` and `authentication` tests.
#![allow(clippy::unwrap_used, reason = "tests")]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use changestream_core::{Error, ErrorKind, WatchOptions};
use changestream_sim::{Deployment, Mechanism};
use changestream_tests::world::{StreamId, World, collection};

/// The users of the specification's tests: two with one mechanism each, one with both, two whose names and passwords
/// SASLprep changes.
fn guarded() -> World {
    let config = Deployment::replica_set(3)
        .user_with("sha1", "sha1", &[Mechanism::ScramSha1])
        .user_with("sha256", "sha256", &[Mechanism::ScramSha256])
        .user("both", "both")
        .user_with("IX", "IX", &[Mechanism::ScramSha256])
        .user_with("\u{2168}", "\u{2163}", &[Mechanism::ScramSha256]);
    World::new(config, [4; 32])
}

fn by(world: &mut World, userinfo: &str, more: &str) -> Result<StreamId, Error> {
    let uri = world
        .deployment
        .uri()
        .replace("mongodb://", &format!("mongodb://{userinfo}@"));
    let stream = world.watch_by(
        &format!("{uri}{more}"),
        None,
        &collection("shop", "orders"),
        WatchOptions::default(),
    )?;
    world.open(stream)?;
    Ok(stream)
}

/// How the newest conversations were begun: by the hello that speculates, else by saslStart.
fn mechanisms(world: &World) -> Vec<String> {
    let starts = world.all_records().filter(|record| record.name == "saslStart");
    starts
        .map(|record| record.body.get_str("mechanism").unwrap().to_owned())
        .collect()
}

#[track_caller]
fn refused(result: Result<StreamId, Error>, code: Option<i32>) {
    let error = result.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Authentication { .. }),
        "{error:?}"
    );
    assert_eq!(error.code(), code, "{error}");
    assert!(!error.is_resumable());
}

/// SCRAM: each mechanism, explicitly and negotiated.
#[test]
fn users_authenticate_by_each_of_their_mechanisms() {
    let mut world = guarded();
    for (user, mechanism) in [
        ("sha1", ""),
        ("sha1", "&authMechanism=SCRAM-SHA-1"),
        ("sha256", ""),
        ("sha256", "&authMechanism=SCRAM-SHA-256"),
        ("both", ""),
        ("both", "&authMechanism=SCRAM-SHA-1"),
        ("both", "&authMechanism=SCRAM-SHA-256"),
    ] {
        let stream = by(&mut world, &format!("{user}:{user}"), mechanism).unwrap();
        world.try_nothing(stream);
        assert!(world.machine(stream).is_alive());
    }
}

/// SCRAM: an explicit mechanism is not negotiated, and without one the user's mechanisms are asked for.
#[test]
fn mechanisms_are_asked_for_only_if_none_is_given() {
    for (more, asks) in [("", true), ("&authMechanism=SCRAM-SHA-1", false)] {
        let mut world = guarded();
        by(&mut world, "both:both", more).unwrap();
        let asked = world
            .all_records()
            .any(|record| record.body.contains_key("saslSupportedMechs"));
        assert_eq!(asked, asks);
    }
}

/// SCRAM: negotiation prefers SHA-256, also where the speculation is not answered.
#[test]
fn negotiation_prefers_sha_256() {
    for (user, expected) in [
        ("both", "SCRAM-SHA-256"),
        ("sha1", "SCRAM-SHA-1"),
        ("sha256", "SCRAM-SHA-256"),
    ] {
        let mut world = guarded();
        world.rewrite_replies(|reply| {
            reply.remove("speculativeAuthenticate");
        });
        by(&mut world, &format!("{user}:{user}"), "").unwrap();
        let used = mechanisms(&world);
        assert!(!used.is_empty());
        assert!(
            used.iter().all(|mechanism| mechanism == expected),
            "{user}: {used:?}"
        );
    }
}

/// SCRAM: the wrong mechanism fails.
#[test]
fn a_mechanism_that_the_user_does_not_have_fails() {
    let mut world = guarded();
    refused(
        by(&mut world, "sha1:sha1", "&authMechanism=SCRAM-SHA-256"),
        Some(18),
    );
    refused(
        by(&mut world, "sha256:sha256", "&authMechanism=SCRAM-SHA-1"),
        Some(18),
    );
}

/// SCRAM: an unknown user, a wrong password.
#[test]
fn an_unknown_user_and_a_wrong_password_are_authentication_errors() {
    let mut world = guarded();
    for more in ["", "&authMechanism=SCRAM-SHA-256", "&authMechanism=SCRAM-SHA-1"] {
        refused(by(&mut world, "nobody:nothing", more), Some(18));
        refused(by(&mut world, "both:wrong", more), Some(18));
    }
}

/// SCRAM: a failed authentication is neither tried again nor repeated in its own words.
#[test]
fn a_refusal_comes_at_once_and_tells_no_password() {
    let mut world = guarded();
    let start = world.now;
    let error = by(&mut world, "both:top%20secret", "").unwrap_err();
    assert!(world.now - start < std::time::Duration::from_secs(1));
    assert!(!format!("{error} {error:?}").contains("top secret"));
    assert!(world.commands().is_empty());
}

/// SCRAM: passwords are prepared by SASLprep, user names are not.
#[test]
fn passwords_are_prepared_and_user_names_are_not() {
    let mut world = guarded();
    let nine = "%E2%85%A8";
    let four = "%E2%85%A3";
    let soft_hyphen = "%C2%AD";
    for userinfo in [
        "IX:IX".to_owned(),
        format!("IX:I{soft_hyphen}X"),
        format!("IX:{nine}"),
        format!("{nine}:IV"),
        format!("{nine}:I{soft_hyphen}V"),
        format!("{nine}:{four}"),
    ] {
        by(&mut world, &userinfo, "").unwrap_or_else(|error| panic!("{userinfo}: {error}"));
    }
    // The user IX has another password: names that SASLprep makes equal are different users.
    refused(by(&mut world, "IX:IV", ""), Some(18));
    refused(by(&mut world, &format!("{nine}:IX"), ""), Some(18));
}

/// Changes the payload of every SASL reply that `change` has something for.
fn rewrite_payloads(world: &mut World, change: fn(&str) -> Option<String>) {
    fn payload_of(reply: &mut Document) -> Option<&mut Bson> {
        if reply.contains_key("speculativeAuthenticate") {
            return reply
                .get_document_mut("speculativeAuthenticate")
                .ok()?
                .get_mut("payload");
        }
        reply.get_mut("payload")
    }
    world.rewrite_replies(move |reply| {
        let Some(payload) = payload_of(reply) else { return };
        let Bson::Binary(binary) = &*payload else { return };
        let text = String::from_utf8(binary.bytes.clone()).unwrap();
        if let Some(text) = change(&text) {
            *payload = Binary {
                subtype: BinarySubtype::Generic,
                bytes: text.into_bytes(),
            }
            .into();
        }
    });
}

/// SCRAM: an iteration count below 4096 is refused.
#[test]
fn a_server_that_asks_for_too_few_iterations_is_refused() {
    for more in ["&authMechanism=SCRAM-SHA-256", "&authMechanism=SCRAM-SHA-1"] {
        let mut world = guarded();
        rewrite_payloads(&mut world, |text| {
            let (rest, count) = text.rsplit_once(",i=")?;
            assert!(count.parse::<u32>().unwrap() >= 4096);
            Some(format!("{rest},i=4095"))
        });
        refused(by(&mut world, "both:both", more), None);
        // The proof was not sent.
        assert!(!world.all_records().any(|record| record.name == "saslContinue"));
    }
}

/// SCRAM: the server has to prove that it knows the password too.
#[test]
fn a_server_with_a_wrong_signature_is_refused() {
    for more in ["&authMechanism=SCRAM-SHA-256", "&authMechanism=SCRAM-SHA-1"] {
        let mut world = guarded();
        rewrite_payloads(&mut world, |text| {
            let mut signature = BASE64_STANDARD.decode(text.strip_prefix("v=")?).unwrap();
            signature[3] ^= 1;
            Some(format!("v={}", BASE64_STANDARD.encode(signature)))
        });
        refused(by(&mut world, "both:both", more), None);
        assert!(world.commands().is_empty());
    }
}

/// Handshake: unknown entries of `saslSupportedMechs` are passed over.
#[test]
fn unknown_mechanisms_of_a_server_are_passed_over() {
    let mut world = guarded();
    world.rewrite_replies(|reply| {
        if let Ok(mechanisms) = reply.get_array_mut("saslSupportedMechs") {
            mechanisms.insert(0, "SCRAM-SHA-4096".into());
            mechanisms.push(7.into());
            mechanisms.push(doc! {}.into());
        }
    });
    by(&mut world, "both:both", "").unwrap();
}

/// Every connection authenticates anew, the resume's too.
#[test]
fn a_resume_authenticates_its_connection() {
    let mut world = guarded();
    let stream = by(&mut world, "both:both", "").unwrap();
    let (now, primary) = (world.now, world.primary());
    world.deployment.crash(now, primary);
    world.try_nothing(stream);
    assert_eq!(world.commands_named("aggregate").len(), 2);
    assert_ne!(world.member_of_last("aggregate"), primary);
}

/// Without credentials a guarded server refuses the aggregate.
#[test]
fn a_stream_without_credentials_is_refused_by_the_server() {
    let mut world = guarded();
    let stream = world.watch(&collection("shop", "orders"), WatchOptions::default());
    assert_eq!(world.open(stream).unwrap_err().code(), Some(13));
}
