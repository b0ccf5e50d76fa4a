//! Authentication over a connection, against a server that knows SCRAM, keeps the rules or breaks them.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use changestream_core::ErrorKind;
use changestream_core::auth::{Credential, Mechanism};
use changestream_core::client::DeadlineReason;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use support::{CONNECT_TIMEOUT, Event, Sent, World, hello_reply, settings};

#[test]
fn speculation_saves_the_first_step() {
    let mut world = world("pencil", None);
    let hello = world.connect();
    let mut server = Server::new("SCRAM-SHA-256", "pencil");
    let answer = server.start(hello.command.get_document("speculativeAuthenticate").unwrap());
    world.answer(
        &hello,
        &with_mechanisms(&["SCRAM-SHA-1", "SCRAM-SHA-256"], Some(answer)),
    );
    assert!(world.sent.is_empty(), "nobody has asked to authenticate");
    world.authenticate();
    assert_eq!(
        world.connection.deadline().unwrap().reason,
        DeadlineReason::Handshake
    );
    assert_eq!(
        world.connection.deadline().unwrap().at,
        world.now + CONNECT_TIMEOUT
    );

    let proof = world.request();
    let keys: Vec<&str> = proof.command.keys().map(String::as_str).collect();
    assert_eq!(keys, ["saslContinue", "conversationId", "payload", "$db"]);
    assert_eq!(proof.command.get_i32("conversationId").unwrap(), 7);
    assert_eq!(proof.command.get_str("$db").unwrap(), "users");
    let done = server.finish(&proof.command, true);
    world.answer(&proof, &done);
    assert!(world.connection.is_ready() && world.connection.is_idle());
    assert!(
        matches!(world.events[..], [Event::Hello(..), Event::Ready]),
        "{:?}",
        world.events
    );
    assert_eq!(world.connection.deadline(), None);
}

#[test]
fn without_an_answer_to_the_speculation_it_starts_anew() {
    for (mechanisms, asked, used) in [
        (&["SCRAM-SHA-256"][..], None, "SCRAM-SHA-256"),
        (&["SCRAM-SHA-1"], None, "SCRAM-SHA-1"),
        (&["FUTURE", "SCRAM-SHA-1"], None, "SCRAM-SHA-1"),
        (
            &["SCRAM-SHA-1", "SCRAM-SHA-256"],
            Some(Mechanism::ScramSha1),
            "SCRAM-SHA-1",
        ),
        (&[], Some(Mechanism::ScramSha256), "SCRAM-SHA-256"),
    ] {
        let mut world = world("pencil", asked);
        let hello = world.connect();
        world.answer(&hello, &with_mechanisms(mechanisms, None));
        world.authenticate();
        let start = world.request();
        assert!(!start.is_legacy);
        let keys: Vec<&str> = start.command.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "saslStart",
                "mechanism",
                "payload",
                "autoAuthorize",
                "options",
                "$db"
            ]
        );
        assert_eq!(start.command.get_str("mechanism").unwrap(), used);
        let speculated = hello.command.get_document("speculativeAuthenticate").unwrap();
        assert_ne!(
            payload(speculated),
            payload(&start.command),
            "a nonce is used once"
        );
        let mut server = Server::new(used, "pencil");
        let answer = server.start(&start.command);
        world.answer(&start, &answer);
        let proof = world.request();
        let done = server.finish(&proof.command, true);
        world.answer(&proof, &done);
        assert!(world.connection.is_ready(), "{mechanisms:?} {asked:?}");
    }
}

#[test]
fn a_speculation_with_another_mechanism_than_the_negotiated_is_dropped() {
    let mut world = world("pencil", None);
    let hello = world.connect();
    let mut server = Server::new("SCRAM-SHA-256", "pencil");
    let answer = server.start(hello.command.get_document("speculativeAuthenticate").unwrap());
    world.answer(&hello, &with_mechanisms(&["SCRAM-SHA-1"], Some(answer)));
    world.authenticate();
    assert_eq!(
        world.request().command.get_str("mechanism").unwrap(),
        "SCRAM-SHA-1"
    );
}

#[test]
fn a_hello_in_between_does_not_lose_the_speculation() {
    let mut world = world("pencil", None);
    let hello = world.connect();
    let mut server = Server::new("SCRAM-SHA-256", "pencil");
    let answer = server.start(hello.command.get_document("speculativeAuthenticate").unwrap());
    world.answer(&hello, &with_mechanisms(&["SCRAM-SHA-256"], Some(answer)));
    world.connection.check(world.now);
    let check = world.request();
    world.answer(&check, &hello_reply());
    world.authenticate();
    let proof = world.request();
    world.connection.check(world.now);
    let check = world.request();
    let done = server.finish(&proof.command, true);
    world.answer(&proof, &done);
    assert!(world.connection.is_ready() && !world.connection.is_idle());
    world.answer(&check, &hello_reply());
    assert!(world.connection.is_idle());
}

#[test]
fn a_server_that_does_not_skip_the_empty_exchange_gets_one() {
    let (mut world, mut server, proof) = until_proof("pencil", "pencil");
    let not_done = server.finish(&proof.command, false);
    world.answer(&proof, &not_done);
    assert!(!world.connection.is_ready());
    let empty = world.request();
    assert_eq!(payload(&empty.command), "");
    assert_eq!(empty.command.get_i32("conversationId").unwrap(), 7);
    world.answer(&empty, &reply("", true));
    assert!(world.connection.is_ready());
}

#[test]
fn a_server_that_never_ends_is_refused() {
    let (mut world, mut server, proof) = until_proof("pencil", "pencil");
    let not_done = server.finish(&proof.command, false);
    world.answer(&proof, &not_done);
    let empty = world.request();
    world.answer(&empty, &reply("", false));
    assert_refused(&mut world, "does not end");
}

#[test]
fn a_wrong_password_is_the_servers_error() {
    let (mut world, mut server, proof) = until_proof("pencil", "crayon");
    let refusal = server.finish(&proof.command, true);
    assert_eq!(
        refusal.get_i32("code").unwrap(),
        18,
        "the server knows a wrong proof"
    );
    world.answer(&proof, &refusal);
    let error = world.failure();
    assert!(matches!(error.kind(), ErrorKind::Authentication { .. }));
    assert_eq!(error.code(), Some(18));
    assert_eq!(error.server(), Some(&support::address()));
    let text = format!("{error} {error:?}");
    for words in ["SCRAM-SHA-256", "\"user\"", "\"users\"", "Authentication failed."] {
        assert!(text.contains(words), "{text}");
    }
    assert!(!text.contains("pencil"), "{text}");
}

#[test]
fn a_server_that_cannot_prove_itself_is_refused() {
    let (_, mut server, proof) = until_proof("pencil", "pencil");
    let genuine = server.finish(&proof.command, true);
    let signature = payload(&genuine);
    for (done, payload, words) in [
        (true, signature.replace("v=", "v=A"), "signature"),
        (
            true,
            format!("v={}", BASE64.encode([0; 32])),
            "signature is wrong",
        ),
        (true, String::new(), "'v'"),
        (
            false,
            format!("v={}", BASE64.encode([0; 32])),
            "signature is wrong",
        ),
        (true, "e=other-error".to_owned(), "other-error"),
    ] {
        let (mut world, _, proof) = until_proof("pencil", "pencil");
        world.answer(&proof, &reply(&payload, done));
        assert_refused(&mut world, words);
    }
}

#[test]
fn a_server_that_ends_before_its_proof_is_refused() {
    for done_in in ["speculation", "start"] {
        let mut world = world("pencil", None);
        let hello = world.connect();
        let speculation = (done_in == "speculation").then(|| reply("", true));
        world.answer(&hello, &with_mechanisms(&["SCRAM-SHA-256"], speculation));
        world.authenticate();
        if done_in == "start" {
            let start = world.request();
            world.answer(&start, &reply("", true));
        }
        assert_refused(&mut world, "before it had proved itself");
    }
}

#[test]
fn malformed_sasl_replies_are_refused() {
    let good = reply("r=1", false);
    let mut cases = Vec::new();
    for field in ["conversationId", "done", "payload"] {
        let mut missing = good.clone();
        missing.remove(field);
        cases.push((missing, format!("no {field}")));
        let mut mistyped = good.clone();
        mistyped.insert(field, "text");
        cases.push((mistyped, format!("{field} of")));
    }
    for (answer, words) in cases {
        let mut world = world("pencil", None);
        let hello = world.connect();
        world.answer(&hello, &with_mechanisms(&["SCRAM-SHA-256"], Some(answer.clone())));
        world.authenticate();
        assert_refused(&mut world, &words);
    }
}

#[test]
fn a_conversation_id_is_returned_as_it_came() {
    let mut world = world("pencil", None);
    let hello = world.connect();
    let mut server = Server::new("SCRAM-SHA-256", "pencil");
    let mut answer = server.start(hello.command.get_document("speculativeAuthenticate").unwrap());
    answer.insert("conversationId", i64::MAX);
    world.answer(&hello, &with_mechanisms(&["SCRAM-SHA-256"], Some(answer)));
    world.authenticate();
    assert_eq!(
        world.request().command.get("conversationId"),
        Some(&Bson::Int64(i64::MAX))
    );
}

#[test]
fn a_mechanism_that_is_not_supported_says_so_and_sends_nothing() {
    let mut world = world("pencil", Some(Mechanism::Gssapi));
    world.greet(&hello_reply());
    world.authenticate();
    assert!(world.sent.is_empty());
    assert_refused(&mut world, "GSSAPI (Kerberos) is not supported");
}

#[test]
fn a_user_without_name_is_refused_before_anything_is_said() {
    let credential = Credential::new("", "pencil", "admin", Some(Mechanism::ScramSha256));
    let mut world = World::new(settings(Some(credential)));
    world.greet(&hello_reply());
    world.authenticate();
    assert_refused(&mut world, "user name");
}

#[test]
fn an_arbiter_has_no_users() {
    let mut world = world("pencil", None);
    world.greet(&doc! { "arbiterOnly": true, "maxWireVersion": 21, "ok": 1 });
    world.authenticate();
    assert!(world.connection.is_ready() && world.sent.is_empty());
}

#[test]
fn authentication_has_the_connect_timeout_to_itself() {
    let (mut world, _, _) = until_proof("pencil", "pencil");
    world.pass(9_999);
    assert!(matches!(world.events[..], [Event::Hello(..)]));
    world.pass(1);
    assert!(matches!(
        world.failure().kind(),
        ErrorKind::Network { timed_out: true, .. }
    ));
}

#[test]
fn a_connection_lost_during_authentication_says_so() {
    let (mut world, _, _) = until_proof("pencil", "pencil");
    world.disconnect("reset by peer", false);
    let error = world.failure();
    assert!(
        error.to_string().contains("during authentication: reset by peer"),
        "{error}"
    );
    assert!(matches!(
        error.kind(),
        ErrorKind::Network { timed_out: false, .. }
    ));
}

#[test]
fn connections_of_one_client_derive_the_keys_once() {
    let credential = Credential::new("user", "pencil", "users", None);
    for _ in 0..2 {
        let mut world = World::new(settings(Some(credential.clone())));
        let hello = world.connect();
        let mut server = Server::new("SCRAM-SHA-256", "pencil");
        let answer = server.start(hello.command.get_document("speculativeAuthenticate").unwrap());
        world.answer(&hello, &with_mechanisms(&["SCRAM-SHA-256"], Some(answer)));
        world.authenticate();
        let proof = world.request();
        let done = server.finish(&proof.command, true);
        world.answer(&proof, &done);
        assert!(world.connection.is_ready(), "cached keys prove as well");
    }
}

/// A connection of user `user` of database `users`.
fn world(password: &str, mechanism: Option<Mechanism>) -> World {
    let credential = Credential::new("user", password, "users", mechanism);
    World::new(settings(Some(credential)))
}

/// A conversation up to the client's proof, which the server has not seen.
fn until_proof(client: &str, server: &str) -> (World, Server, Sent) {
    let mut world = world(client, None);
    let hello = world.connect();
    let mut server = Server::new("SCRAM-SHA-256", server);
    let answer = server.start(hello.command.get_document("speculativeAuthenticate").unwrap());
    world.answer(&hello, &with_mechanisms(&["SCRAM-SHA-256"], Some(answer)));
    world.authenticate();
    let proof = world.request();
    (world, server, proof)
}

fn assert_refused(world: &mut World, words: &str) {
    let error = world.failure();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::Authentication {
                server_error: None,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains(words), "{words}: {error}");
    assert!(!world.events.iter().any(|event| matches!(event, Event::Ready)));
}

fn with_mechanisms(mechanisms: &[&str], speculative: Option<Document>) -> Document {
    let mut hello = hello_reply();
    if !mechanisms.is_empty() {
        hello.insert("saslSupportedMechs", mechanisms.to_vec());
    }
    if let Some(mut answer) = speculative {
        answer.remove("ok");
        hello.insert("speculativeAuthenticate", answer);
    }
    hello
}

/// The server's side of SCRAM, written from RFC 5802 on its own.
struct Server {
    mechanism: &'static str,
    salted: Vec<u8>,
    auth_message: String,
}

impl Server {
    fn new(mechanism: &'static str, password: &str) -> Self {
        let salted = if mechanism == "SCRAM-SHA-1" {
            // HEX(MD5("user:mongo:pencil")).
            assert_eq!(password, "pencil");
            let digest = b"1c33006ec1ffd90f9cadcbcc0e118200";
            pbkdf2::pbkdf2_hmac_array::<Sha1, 20>(digest, b"salt", 4096).to_vec()
        } else {
            pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), b"salt", 4096).to_vec()
        };
        Self {
            mechanism,
            salted,
            auth_message: String::new(),
        }
    }

    fn start(&mut self, command: &Document) -> Document {
        assert_eq!(command.get_str("mechanism").unwrap(), self.mechanism);
        let first = payload(command);
        let bare = first.strip_prefix("n,,").unwrap();
        let nonce = bare.strip_prefix("n=user,r=").unwrap();
        let answer = format!("r={nonce}server,s={},i=4096", BASE64.encode("salt"));
        self.auth_message = format!("{bare},{answer}");
        reply(&answer, false)
    }

    fn finish(&mut self, command: &Document, done: bool) -> Document {
        let client_final = payload(command);
        let (without_proof, proof) = client_final.rsplit_once(",p=").unwrap();
        assert!(without_proof.starts_with("c=biws,r="));
        self.auth_message = format!("{},{without_proof}", self.auth_message);
        let client_key = self.hmac(&self.salted, b"Client Key");
        let signature = self.hmac(&self.digest(&client_key), self.auth_message.as_bytes());
        let expected: Vec<u8> = client_key.iter().zip(signature).map(|(k, s)| k ^ s).collect();
        if BASE64.decode(proof).unwrap() != expected {
            return doc! { "ok": 0.0, "errmsg": "Authentication failed.", "code": 18, "codeName": "AuthenticationFailed" };
        }
        let server_key = self.hmac(&self.salted, b"Server Key");
        let signature = self.hmac(&server_key, self.auth_message.as_bytes());
        reply(&format!("v={}", BASE64.encode(signature)), done)
    }

    fn hmac(&self, key: &[u8], message: &[u8]) -> Vec<u8> {
        if self.mechanism == "SCRAM-SHA-1" {
            let mac = Hmac::<Sha1>::new_from_slice(key).unwrap();
            return mac.chain_update(message).finalize().into_bytes().to_vec();
        }
        let mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.chain_update(message).finalize().into_bytes().to_vec()
    }

    fn digest(&self, message: &[u8]) -> Vec<u8> {
        if self.mechanism == "SCRAM-SHA-1" {
            return Sha1::digest(message).to_vec();
        }
        Sha256::digest(message).to_vec()
    }
}

fn reply(payload: &str, done: bool) -> Document {
    let payload = Binary {
        subtype: BinarySubtype::Generic,
        bytes: payload.as_bytes().to_vec(),
    };
    doc! { "conversationId": 7, "done": done, "payload": payload, "ok": 1.0 }
}

fn payload(document: &Document) -> String {
    String::from_utf8(document.get_binary_generic("payload").unwrap().clone()).unwrap()
}
