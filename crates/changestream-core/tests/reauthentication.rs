//! A server that wants a connection to authenticate anew, and mechanisms that ask for something outside.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod support;

use std::time::Duration;

use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};
use changestream_core::auth::{
    AwsCredentials, Credential, CredentialAnswer, CredentialRequest, Mechanism, OidcFlow, OidcToken,
};
use changestream_core::client::DeadlineReason;
use changestream_core::connection::{PART_SIZE, Request};
use changestream_core::wire::Flags;
use changestream_core::{Error, ErrorKind};

use support::{CONNECT_TIMEOUT, Event, Sent, World, hello_reply, settings};

/// A connection that has authenticated by PLAIN.
fn ready() -> World {
    holding(PART_SIZE)
}

/// The same, holding so much at once of a reply that comes in parts.
fn holding(part_size: usize) -> World {
    let credential = Credential::new("ada", "hunter2", "$external", Some(Mechanism::Plain));
    let mut settings = settings(Some(credential));
    settings.part_size = part_size;
    let mut world = World::new(settings);
    world.greet(&hello_reply());
    world.authenticate();
    let start = world.request();
    world.answer(&start, &done());
    assert!(world.connection.is_ready());
    world.events.clear();
    world
}

fn done() -> Document {
    sasl(Vec::new(), true)
}

fn sasl(payload: Vec<u8>, done: bool) -> Document {
    let payload = Binary {
        subtype: BinarySubtype::Generic,
        bytes: payload,
    };
    doc! { "conversationId": 1, "done": done, "payload": payload, "ok": 1 }
}

fn payload(sent: &Sent) -> Document {
    bson::deserialize_from_slice(sent.command.get_binary_generic("payload").unwrap()).unwrap()
}

fn refusal() -> Document {
    doc! { "ok": 0, "code": 391, "codeName": "ReauthenticationRequired", "errmsg": "again" }
}

/// The examples of the Authentication specification: the bytes of a token, and of a user's name.
#[test]
fn the_payloads_of_oidc_are_those_of_the_specification() {
    use base64::Engine as _;
    let base64 = |sent: &Sent| {
        let payload = sent.command.get_binary_generic("payload").unwrap();
        base64::engine::general_purpose::STANDARD.encode(payload)
    };
    let mut world = oidc(OidcFlow::Machine, "");
    world
        .connection
        .answer(world.now, Ok(CredentialAnswer::Oidc(OidcToken::new("abcd1234"))));
    let start = world.request();
    assert_eq!(base64(&start), "FwAAAAJqd3QACQAAAGFiY2QxMjM0AAA=");
    let keys: Vec<&str> = start.command.keys().map(String::as_str).collect();
    assert_eq!(keys, ["saslStart", "mechanism", "payload", "$db"]);

    let mut world = oidc(OidcFlow::Human, "myidp");
    let start = world.request();
    assert_eq!(base64(&start), "EgAAAAJuAAYAAABteWlkcAAA");
    let idp = doc! { "issuer": "https://issuer", "clientId": "abcd", "requestScopes": ["a", "b"] };
    world.answer(&start, &sasl(idp.to_vec().unwrap(), false));
    let Some(Event::Asked(CredentialRequest::Oidc(request))) = world.events.last() else {
        panic!("{:?}", world.events);
    };
    let idp = request.idp_info.as_ref().unwrap();
    assert_eq!(idp.request_scopes, ["a", "b"]);
    assert_eq!(
        world.connection.deadline().unwrap().at,
        world.now + Duration::from_secs(300)
    );
}

/// A connection that has asked for its first token, or for the provider.
fn oidc(flow: OidcFlow, username: &str) -> World {
    let mechanism = Some(Mechanism::MongodbOidc);
    let credential = Credential::new(username, "", "$external", mechanism)
        .with_oidc_flow(flow)
        .with_allowed_hosts(["*.example.com"]);
    let mut world = World::new(settings(Some(credential)));
    world.greet(&hello_reply());
    world.authenticate();
    world
}

#[test]
fn what_a_server_says_of_its_provider_is_checked() {
    for (idp, words) in [
        (doc! {}, "malformed"),
        (doc! { "issuer": 7 }, "malformed"),
        (doc! { "issuer": "i", "requestScopes": "a" }, "malformed"),
        (doc! { "issuer": "i", "requestScopes": [7] }, "malformed"),
    ] {
        let mut world = oidc(OidcFlow::Human, "");
        let start = world.request();
        world.answer(&start, &sasl(idp.to_vec().unwrap(), false));
        let error = world.failure();
        assert!(error.to_string().contains(words), "{error}");
    }
    for payload in [&b""[..], b"\x05", b"\xff\xff\xff\x7f\0"] {
        let mut world = oidc(OidcFlow::Human, "");
        let start = world.request();
        world.answer(&start, &sasl(payload.to_vec(), false));
        assert!(world.failure().to_string().contains("malformed"));
    }
}

#[test]
fn a_speculation_needs_a_token_that_is_there() {
    let mechanism = Some(Mechanism::MongodbOidc);
    let credential = Credential::new("", "", "$external", mechanism);
    let mut world = World::new(settings(Some(credential.clone())));
    let hello = world.connect();
    assert!(!hello.command.contains_key("speculativeAuthenticate"));
    world.answer(&hello, &hello_reply());
    world.authenticate();
    world
        .connection
        .answer(world.now, Ok(CredentialAnswer::Oidc(OidcToken::new("abcd"))));
    let start = world.request();
    world.answer(&start, &done());
    assert!(world.connection.is_ready());

    let mut next = World::new(settings(Some(credential)));
    let hello = next.connect();
    let speculation = hello.command.get_document("speculativeAuthenticate").unwrap();
    assert_eq!(speculation.get_str("db").unwrap(), "$external");
    let mut answer = hello_reply();
    answer.insert("speculativeAuthenticate", done());
    next.answer(&hello, &answer);
    next.authenticate();
    assert!(next.connection.is_ready() && next.sent.is_empty());
}

#[test]
fn the_first_message_of_aws_is_that_of_the_specification() {
    let credential = Credential::new("AKID", "hunter2", "$external", Some(Mechanism::MongodbAws));
    let mut world = World::new(settings(Some(credential)));
    let hello = world.connect();
    assert!(!hello.command.contains_key("speculativeAuthenticate"));
    world.answer(&hello, &hello_reply());
    world.authenticate();
    let start = world.request();
    let first = payload(&start);
    assert_eq!(first.get_i32("p").unwrap(), 110);
    let nonce = first.get_binary_generic("r").unwrap().clone();
    assert_eq!(nonce.len(), 32);
    let server = Binary {
        subtype: BinarySubtype::Generic,
        bytes: [nonce, vec![9; 32]].concat(),
    };
    let answer = doc! { "s": server, "h": "sts.us-west-2.amazonaws.com" };
    world.answer(&start, &sasl(answer.to_vec().unwrap(), false));
    let Some(Event::Asked(CredentialRequest::Aws {
        given: Some(keys), ..
    })) = world.events.last()
    else {
        panic!("{:?}", world.events);
    };
    assert!(!format!("{keys:?}").contains("hunter2"));
    let keys: AwsCredentials = keys.clone();
    // 2019-11-07T00:26:07Z.
    let time = bson::DateTime::from_millis(1_573_086_367_999);
    world
        .connection
        .answer(world.now, Ok(CredentialAnswer::aws(keys, time)));
    let second = payload(&world.request());
    assert_eq!(second.get_str("d").unwrap(), "20191107T002607Z");
    assert!(!second.contains_key("t"));
    let authorization = second.get_str("a").unwrap();
    let beginning = "AWS4-HMAC-SHA256 Credential=AKID/20191107/us-west-2/sts/aws4_request, SignedHeaders=content-length;\
                     content-type;host;x-amz-date;x-mongodb-gs2-cb-flag;x-mongodb-server-nonce, Signature=";
    assert!(authorization.starts_with(beginning), "{authorization}");
}

#[test]
fn a_command_that_is_refused_goes_again_under_its_number() {
    let mut world = ready();
    let id = world.send(&doc! { "ping": 1, "$db": "admin" }, false, Some(500));
    let ping = world.request();
    world.answer(&ping, &refusal());
    let start = world.request();
    assert_eq!(start.command.keys().next().unwrap(), "saslStart");
    assert!(!world.connection.is_ready());
    let deadline = world.connection.deadline().unwrap();
    assert_eq!(
        (deadline.at, deadline.reason),
        (world.now + CONNECT_TIMEOUT, DeadlineReason::Handshake)
    );
    world.answer(&start, &done());
    let again = world.request();
    assert_eq!((again.id, &again.command), (id, &ping.command));
    assert_eq!(again.bytes, ping.bytes);
    assert_eq!(
        world.connection.deadline().unwrap().at,
        world.now + Duration::from_millis(500),
        "its time starts anew"
    );
    world.answer(&again, &doc! { "ok": 1 });
    assert!(
        matches!(&world.events[..], [Event::Refused(refused), Event::Ready, Event::Reply(reply)]
            if refused.request_id == id && reply.request_id == id),
        "{:?}",
        world.events
    );
    assert!(world.connection.is_idle());
}

#[test]
fn the_second_refusal_is_the_answer() {
    let mut world = ready();
    world.send(&doc! { "ping": 1, "$db": "admin" }, false, None);
    let ping = world.request();
    world.answer(&ping, &refusal());
    let start = world.request();
    world.answer(&start, &done());
    let again = world.request();
    world.answer(&again, &refusal());
    assert!(
        matches!(world.events.last(), Some(Event::Reply(_))),
        "{:?}",
        world.events
    );
    assert!(world.connection.is_ready());
}

#[test]
fn commands_that_are_refused_together_wait_for_one_authentication() {
    let mut world = ready();
    for number in 1..=3 {
        world.send(&doc! { "ping": number, "$db": "admin" }, false, None);
    }
    let sent: Vec<Sent> = world.sent.drain(..).collect();
    world.answer(&sent[0], &refusal());
    let start = world.request();
    world.answer(&sent[1], &doc! { "ok": 1 });
    world.answer(&sent[2], &refusal());
    world.send(&doc! { "ping": 4, "$db": "admin" }, false, None);
    assert!(world.sent.is_empty(), "nothing is sent by who is nobody");
    world.answer(&start, &done());
    let pings: Vec<i32> = world
        .sent
        .iter()
        .map(|sent| sent.command.get_i32("ping").unwrap())
        .collect();
    assert_eq!(pings, [1, 3, 4]);
}

#[test]
fn a_command_that_nobody_waits_for_is_not_sent_again() {
    let mut world = ready();
    let id = world.send(&doc! { "ping": 1, "$db": "admin" }, false, None);
    let ping = world.request();
    world.connection.forget(id);
    world.answer(&ping, &refusal());
    assert!(world.sent.is_empty() && world.connection.is_idle());
}

#[test]
fn without_a_credential_a_refusal_is_an_answer() {
    let mut world = World::ready();
    world.send(&doc! { "ping": 1, "$db": "admin" }, false, None);
    let ping = world.request();
    world.answer(&ping, &refusal());
    assert!(
        matches!(&world.events[..], [Event::Reply(_)]),
        "{:?}",
        world.events
    );
}

#[test]
fn a_connection_that_cannot_authenticate_anew_fails() {
    let mut world = ready();
    world.send(&doc! { "ping": 1, "$db": "admin" }, false, None);
    let ping = world.request();
    world.answer(&ping, &refusal());
    let start = world.request();
    world.answer(
        &start,
        &doc! { "ok": 0, "code": 18, "errmsg": "Authentication failed." },
    );
    let error = world.failure();
    assert!(
        matches!(error.kind(), ErrorKind::Authentication { .. }),
        "{error:?}"
    );
    assert_eq!(error.code(), Some(18));
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn an_answer_that_nobody_asked_for_is_passed_over() {
    let mut world = ready();
    let answer = || Ok(CredentialAnswer::Oidc(OidcToken::new("abcd")));
    world.connection.answer(world.now, answer());
    world
        .connection
        .answer(world.now, Err(Error::authentication("late")));
    assert!(world.connection.is_ready());
    let mut world = oidc(OidcFlow::Machine, "");
    world.connection.answer(
        world.now,
        Ok(CredentialAnswer::aws(
            AwsCredentials::new("AKID", "hunter2"),
            bson::DateTime::from_millis(0),
        )),
    );
    world.drain();
    assert!(world.failure().to_string().contains("answered with keys"));
}

#[test]
fn a_reply_that_has_brought_events_is_no_refusal_whatever_it_says() {
    for ballast in [10, 1000] {
        let mut world = holding(500);
        let request = Request {
            in_parts: true,
            ..Request::new(bson::rawdoc! { "getMore": 1_i64 })
        };
        let request = world.connection.send(world.now, request);
        world.request();
        let event = doc! { "_id": { "_data": "82" }, "ballast": "x".repeat(ballast) };
        let mut reply = doc! { "cursor": { "nextBatch": [event.clone(), event], "id": 1_i64, "ns": "d.c" } };
        reply.extend(refusal());
        world.reply(request, Flags::NONE, &reply);
        let is_whole = ballast == 10;
        let events = world
            .events
            .iter()
            .filter(|event| matches!(event, Event::Events(..)))
            .count();
        assert_eq!(events, usize::from(!is_whole));
        let last = world.events.last().unwrap();
        assert_eq!(matches!(last, Event::Refused(_)), is_whole, "{last:?}");
        assert_eq!(matches!(last, Event::Reply(_)), !is_whole, "{last:?}");
    }
}
