//! One socket's life: hello, requests and replies, exhaust, deadlines, failure.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "one epoch for the fake clock")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{doc, rawdoc};
use changestream_core::ErrorKind;
use changestream_core::auth::{Credential, Mechanism};
use changestream_core::client::{Deadline, DeadlineReason};
use changestream_core::connection::{Connection, ConnectionOutput, Request, reply};
use changestream_core::random::Random;
use changestream_core::wire::{Flags, encode_op_msg, encode_op_query, encode_op_reply};

use support::{CONNECT_TIMEOUT, Event, World, address, document, hello_reply, raw, receive, settings};

#[test]
fn the_first_message_is_an_op_query_with_the_legacy_hello() {
    let mut world = World::new(settings(None));
    assert!(
        world.connection.poll_output().is_none(),
        "nothing before the socket is open"
    );
    let hello = world.connect();
    assert!(hello.is_legacy);
    let client = hello.command.get_document("client").unwrap().clone();
    assert_eq!(
        hello.command,
        doc! { "isMaster": 1, "helloOk": true, "backpressure": "2", "client": client, "compression": [] }
    );
    world.connection.handle_connected(world.now);
    world.drain();
    assert!(world.sent.is_empty(), "connected twice is connected once");
}

#[test]
fn a_server_known_to_understand_hello_and_a_load_balancer_get_hello() {
    let mut world = World::with_hello_ok(settings(None), true);
    let hello = world.connect();
    assert!(!hello.is_legacy);
    assert_eq!(hello.command.keys().next().unwrap(), "hello");
    assert_eq!(hello.command.get_str("$db").unwrap(), "admin");
    assert!(!hello.command.contains_key("loadBalanced"));

    let mut balanced = settings(None);
    balanced.load_balanced = true;
    let hello = World::new(balanced).connect();
    assert!(!hello.is_legacy);
    assert_eq!(hello.command.get_i32("hello").unwrap(), 1);
    assert!(hello.command.get_bool("loadBalanced").unwrap());
}

#[test]
fn a_credential_without_mechanism_asks_for_the_users_mechanisms_and_tries_sha_256() {
    let mut world = World::new(settings(Some(Credential::new(
        "J\u{fc}rgen=,",
        "pencil",
        "admin",
        None,
    ))));
    let hello = world.connect().command;
    assert_eq!(
        hello.get_str("saslSupportedMechs").unwrap(),
        "admin.J\u{fc}rgen=,"
    );
    let start = hello.get_document("speculativeAuthenticate").unwrap();
    let keys: Vec<&str> = start.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "saslStart",
            "mechanism",
            "payload",
            "autoAuthorize",
            "options",
            "db"
        ]
    );
    assert_eq!(start.get_str("mechanism").unwrap(), "SCRAM-SHA-256");
    assert_eq!(start.get_str("db").unwrap(), "admin");
    assert_eq!(
        start.get_document("options").unwrap(),
        &doc! { "skipEmptyExchange": true }
    );
    let payload = start.get_binary_generic("payload").unwrap();
    assert!(payload.starts_with("n,,n=J\u{fc}rgen=3D=2C,r=".as_bytes()));
}

#[test]
fn a_credential_with_mechanism_does_not_ask() {
    let hello = |mechanism| {
        let credential = Credential::new("u", "p", "db", Some(mechanism));
        World::new(settings(Some(credential))).connect().command
    };
    let sha1 = hello(Mechanism::ScramSha1);
    assert!(!sha1.contains_key("saslSupportedMechs"));
    let start = sha1.get_document("speculativeAuthenticate").unwrap();
    assert_eq!(
        [start.get_str("mechanism"), start.get_str("db")].map(Result::unwrap),
        ["SCRAM-SHA-1", "db"]
    );
    assert!(!hello(Mechanism::Plain).contains_key("speculativeAuthenticate"));
}

#[test]
fn hello_may_be_answered_by_either_operation() {
    for legacy in [true, false] {
        let mut world = World::new(settings(None));
        let mut hello = world.connect();
        hello.is_legacy = legacy;
        world.now += Duration::from_millis(30);
        world.answer(&hello, &hello_reply());
        let Some(Event::Hello(body, round_trip)) = world.events.pop() else {
            panic!("{:?}", world.events);
        };
        assert_eq!(
            (document(&body), round_trip),
            (hello_reply(), Duration::from_millis(30))
        );
        assert_eq!(world.connection.max_wire_version(), Some(21));
        assert!(world.connection.is_idle() && !world.connection.is_ready());
        assert_eq!(world.connection.deadline(), None);
    }
}

#[test]
fn a_hello_that_the_server_refuses_is_its_error() {
    let mut world = World::new(settings(None));
    world.greet(&doc! { "ok": 0.0, "errmsg": "shutting down", "code": 91, "codeName": "ShutdownInProgress", "errorLabels": ["A", "B"] });
    let error = world.failure();
    assert_eq!(error.server(), Some(&address()));
    let server = error.server_error().unwrap();
    assert_eq!(
        (server.code, server.code_name.as_str(), server.message.as_str()),
        (91, "ShutdownInProgress", "shutting down")
    );
    assert!(server.has_label("B"));
    let mut world = World::new(settings(None));
    world.greet(&doc! { "ismaster": true });
    assert!(world.failure().server_error().is_some(), "no ok is not ok");
}

#[test]
fn without_credential_authentication_is_ready_at_once() {
    let mut world = World::new(settings(None));
    world.authenticate();
    assert!(world.events.is_empty(), "not before hello");
    world.greet(&hello_reply());
    world.authenticate();
    world.authenticate();
    assert!(
        matches!(world.events[..], [Event::Hello(..), Event::Ready]),
        "{:?}",
        world.events
    );
    assert!(world.sent.is_empty() && world.connection.is_idle() && world.connection.is_ready());
}

#[test]
fn peers_that_are_no_mongodb_server_are_named_so() {
    let mysql = b"\x4a\x00\x00\x00\x0a8.0.36\0............................................................................";
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        mysql,
        &[0; 40],
        &[0xff; 40],
    ] {
        let mut world = World::new(settings(None));
        world.connect();
        world.receive(bytes);
        let error = world.failure();
        assert!(matches!(error.kind(), ErrorKind::Protocol { .. }), "{error:?}");
        assert!(error.to_string().contains("is this a MongoDB server?"), "{error}");
        assert_eq!(error.server(), Some(&address()));
    }
}

#[test]
fn a_peer_that_speaks_http_or_tls_is_told_from_others_however_its_answer_is_cut() {
    let alert = [0x15, 3, 3, 0, 2, 2, 70];
    for (bytes, told) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "HTTP"),
        (&alert[..], "tls=true"),
    ] {
        for piece in 1..bytes.len() {
            let mut world = World::new(settings(None));
            world.connect();
            for part in bytes.chunks(piece) {
                world.receive(part);
            }
            let error = world.failure().to_string();
            assert!(error.contains(told), "in pieces of {piece}: {error}");
        }
    }
}

#[test]
fn replies_find_their_requests_in_any_order() {
    let mut world = World::ready();
    let first = world.send(&doc! { "ping": 1 }, false, None);
    let second = world.send(&doc! { "ping": 2 }, false, None);
    assert_eq!(
        world.sent.iter().map(|s| s.id).collect::<Vec<_>>(),
        [first, second]
    );
    assert_eq!(world.sent[0].command, doc! { "ping": 1 });
    assert!(!world.connection.is_idle());
    world.now += Duration::from_millis(20);
    world.reply(second, Flags::NONE, &doc! { "ok": 1, "n": 2 });
    world.now += Duration::from_millis(20);
    world.reply(first, Flags::CHECKSUM_PRESENT, &doc! { "ok": 0, "n": 1 });
    assert!(world.connection.is_idle());
    let replies = world.replies();
    assert_eq!(replies.len(), 2, "an error reply is a reply");
    assert_eq!((replies[0].request_id, replies[1].request_id), (second, first));
    assert_eq!(document(&replies[1].body), doc! { "ok": 0, "n": 1 });
    assert_eq!(replies[0].round_trip, Duration::from_millis(20));
    assert_eq!(replies[1].round_trip, Duration::from_millis(40));
    assert_eq!(replies[1].received, world.now);
    assert!(!replies[0].more_to_come);
}

#[test]
fn requests_before_readiness_wait_for_it() {
    let mut world = World::new(settings(None));
    let id = world.send(&doc! { "ping": 1 }, true, Some(100));
    world.greet(&hello_reply());
    assert!(world.sent.is_empty() && !world.connection.is_idle());
    world.now += Duration::from_secs(5);
    world.authenticate();
    let sent = world.request();
    assert_eq!((sent.id, sent.flags), (id, Flags::EXHAUST_ALLOWED));
    world.pass(99);
    world.reply(id, Flags::NONE, &doc! { "ok": 1 });
    assert!(
        matches!(world.events.last(), Some(Event::Reply(_))),
        "its time starts when it is sent"
    );
}

#[test]
fn a_request_that_waits_can_be_changed_and_forgotten() {
    let mut world = World::new(settings(None));
    let dropped = world.send(&doc! { "ping": 1 }, false, None);
    let kept = world.send(&doc! { "ping": 2 }, false, None);
    world.connection.forget(dropped);
    world
        .connection
        .set_reply_timeout(world.now, kept, Some(Duration::from_millis(250)));
    world.greet(&hello_reply());
    world.now += Duration::from_secs(1);
    world.authenticate();
    assert_eq!(world.request().id, kept);
    let deadline = world.connection.deadline().unwrap();
    assert_eq!(deadline.at, world.now + Duration::from_millis(250));
}

#[test]
fn what_is_printed_shows_no_bytes_that_are_written() {
    let credential = Credential::new("user", "pencil", "admin", None);
    let mut world = World::new(settings(Some(credential)));
    world.connection.handle_connected(world.now);
    let output = world.connection.poll_output().unwrap();
    let text = format!("{output:?} {:?}", world.connection);
    assert!(text.contains("bytes)") && text.contains("greeting"), "{text}");
    assert!(!text.contains("pencil") && !text.contains("n=user"), "{text}");
}

#[test]
fn replies_that_contradict_their_requests_fail_the_connection() {
    let body = rawdoc! { "ok": 1 };
    type Answer<'a> = &'a dyn Fn(i32) -> bytes::Bytes;
    let cases: [(&str, Answer<'_>); 5] = [
        ("never sent", &|id| {
            encode_op_msg(1, id.wrapping_add(1), Flags::NONE, &body, &[])
        }),
        ("moreToCome", &|id| {
            encode_op_msg(1, id, Flags::MORE_TO_COME, &body, &[])
        }),
        ("OP_REPLY", &|id| encode_op_reply(1, id, &body)),
        ("sent a request", &|id| encode_op_query(id, "admin.$cmd", &body)),
        ("sequences", &|id| {
            encode_op_msg(1, id, Flags::NONE, &body, &[("docs", &[&body])])
        }),
    ];
    for (words, bytes) in cases {
        let mut world = World::ready();
        let id = world.send(&doc! { "ping": 1 }, false, None);
        world.receive(&bytes(id));
        let error = world.failure();
        assert!(matches!(error.kind(), ErrorKind::Protocol { .. }));
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}

#[test]
fn a_second_reply_to_the_same_request_fails_the_connection() {
    let mut world = World::ready();
    let id = world.send(&doc! { "ping": 1 }, false, None);
    world.reply(id, Flags::NONE, &doc! { "ok": 1 });
    world.reply(id, Flags::NONE, &doc! { "ok": 1 });
    world.failure();
    assert_eq!(world.replies().len(), 1);
}

#[test]
fn exhaust_replies_answer_the_reply_before_them() {
    let mut world = World::ready();
    let id = world.send(&doc! { "getMore": 1 }, true, Some(1000));
    assert_eq!(world.request().flags, Flags::EXHAUST_ALLOWED);
    let mut answers = id;
    for n in 0..5 {
        world.now += Duration::from_millis(900);
        answers = world.reply(answers, Flags::MORE_TO_COME, &doc! { "n": n });
        assert!(!world.connection.is_idle());
    }
    world.now += Duration::from_millis(900);
    world.reply(answers, Flags::NONE, &doc! { "n": 5 });
    let replies = world.replies();
    assert_eq!(replies.len(), 6);
    for (n, reply) in replies.iter().enumerate() {
        assert_eq!(document(&reply.body), doc! { "n": n as i32 });
        assert_eq!((reply.request_id, reply.more_to_come), (id, n < 5));
        assert_eq!(reply.round_trip, Duration::from_millis(900));
    }
    assert!(world.connection.is_idle());
    assert_eq!(world.connection.deadline(), None);
}

#[test]
fn an_exhaust_that_falls_silent_times_out() {
    let mut world = World::ready();
    let id = world.send(&doc! { "getMore": 1 }, true, Some(1000));
    world.reply(id, Flags::MORE_TO_COME, &doc! { "ok": 1 });
    world.events.clear();
    world.pass(999);
    assert!(world.events.is_empty());
    world.pass(1);
    assert!(matches!(
        world.failure().kind(),
        ErrorKind::Network { timed_out: true, .. }
    ));
}

#[test]
fn connecting_and_the_handshake_share_the_connect_timeout() {
    for connected in [false, true] {
        let mut world = World::new(settings(None));
        let end = world.now + CONNECT_TIMEOUT;
        world.pass(6000);
        let mut reason = DeadlineReason::Connect;
        if connected {
            world.connect();
            reason = DeadlineReason::Handshake;
        }
        assert_eq!(world.connection.deadline(), Some(Deadline { at: end, reason }));
        world.pass(3999);
        assert!(world.events.is_empty(), "early is harmless");
        world.pass(1);
        let error = world.failure();
        assert!(matches!(error.kind(), ErrorKind::Network { timed_out: true, .. }));
        assert!(error.to_string().contains("10s (connectTimeoutMS)"), "{error}");
        assert_eq!(error.server(), Some(&address()));
    }
}

#[test]
fn a_handshake_that_dribbles_is_not_given_more_time() {
    let mut world = World::new(settings(None));
    let hello = world.connect();
    let reply = encode_op_reply(1, hello.id, &raw(&hello_reply()));
    for byte in &reply[..9] {
        world.now += Duration::from_secs(1);
        world.receive(&[*byte]);
    }
    world.pass(1000);
    assert!(matches!(
        world.failure().kind(),
        ErrorKind::Network { timed_out: true, .. }
    ));
}

#[test]
fn a_timeout_of_zero_is_none_and_one_without_end_does_no_harm() {
    for timeout in [Duration::ZERO, Duration::MAX] {
        let mut settings = settings(None);
        settings.connect_timeout = timeout;
        let mut world = World::new(settings);
        assert_eq!(world.connection.deadline(), None);
        world.pass(1_000_000_000);
        world.greet(&hello_reply());
        world.authenticate();
        world.connection.check(world.now);
        world.send(&doc! { "ping": 1 }, false, Some(u64::MAX));
        world.pass(1_000_000_000);
        assert!(world.connection.is_ready());
    }
}

#[test]
fn a_reply_deadline_moves_on_with_every_byte() {
    let mut world = World::ready();
    let id = world.send(&doc! { "getMore": 1 }, false, Some(1000));
    let deadline = |world: &World| world.connection.deadline().unwrap();
    assert_eq!(deadline(&world).reason, DeadlineReason::Reply);
    assert_eq!(deadline(&world).at, world.now + Duration::from_secs(1));
    let bytes = encode_op_msg(1, id, Flags::NONE, &rawdoc! { "ok": 1 }, &[]);
    for byte in &bytes[..20] {
        world.now += Duration::from_millis(999);
        world.receive(&[*byte]);
        assert_eq!(deadline(&world).at, world.now + Duration::from_secs(1));
    }
    world.pass(999);
    assert!(world.events.is_empty());
    world.pass(1);
    let error = world.failure();
    assert!(error.to_string().contains("silent for 1000 ms"), "{error}");
    assert!(matches!(error.kind(), ErrorKind::Network { timed_out: true, .. }));
}

#[test]
fn what_arrived_is_read_before_a_late_timeout_judges() {
    let mut world = World::ready();
    let id = world.send(&doc! { "getMore": 1 }, false, Some(1000));
    world.now += Duration::from_secs(3600);
    world.reply(id, Flags::NONE, &doc! { "ok": 1 });
    world.pass(0);
    assert_eq!(world.replies().len(), 1);
    assert!(world.connection.is_ready());
}

#[test]
fn the_earliest_of_several_deadlines_counts() {
    let mut world = World::ready();
    world.send(&doc! { "getMore": 1 }, false, None);
    assert_eq!(world.connection.deadline(), None);
    let slow = world.send(&doc! { "getMore": 1 }, false, Some(3000));
    let fast = world.send(&doc! { "getMore": 1 }, false, Some(1000));
    let start = world.now;
    let at = |world: &World| world.connection.deadline().unwrap().at - start;
    assert_eq!(at(&world), Duration::from_secs(1));
    world
        .connection
        .set_reply_timeout(world.now, fast, Some(Duration::from_secs(5)));
    assert_eq!(at(&world), Duration::from_secs(3));
    world.connection.set_reply_timeout(world.now, slow, None);
    assert_eq!(at(&world), Duration::from_secs(5));
    world.connection.forget(fast);
    assert_eq!(world.connection.deadline(), None);
}

#[test]
fn a_forgotten_request_is_answered_unnoticed() {
    let mut world = World::ready();
    let id = world.send(&doc! { "getMore": 1 }, true, Some(1000));
    world.connection.forget(id);
    world.pass(5000);
    let next = world.reply(id, Flags::MORE_TO_COME, &doc! { "ok": 1 });
    assert!(!world.connection.is_idle());
    world.reply(next, Flags::NONE, &doc! { "ok": 0 });
    assert!(world.events.is_empty() && world.connection.is_idle());
}

#[test]
fn a_later_hello_has_no_handshake_arguments_and_the_servers_dialect() {
    let old = doc! { "ismaster": true, "maxWireVersion": 5, "ok": 1 };
    let without_hello = doc! { "ismaster": true, "maxWireVersion": 9, "ok": 1 };
    for (reply, legacy, name) in [
        (hello_reply(), false, "hello"),
        (without_hello, false, "isMaster"),
        (old, true, "isMaster"),
    ] {
        let mut world = World::new(settings(Some(Credential::new("u", "p", "admin", None))));
        world.greet(&reply);
        world.events.clear();
        world.connection.check(world.now);
        let check = world.request();
        assert_eq!(check.is_legacy, legacy);
        let mut expected = doc! { name: 1, "helloOk": true, "backpressure": "2" };
        if !legacy {
            expected.insert("$db", "admin");
        }
        assert_eq!(check.command, expected);
        assert_eq!(
            world.connection.deadline().unwrap().at,
            world.now + CONNECT_TIMEOUT
        );
        let mut changed = reply.clone();
        changed.insert("maxWireVersion", 25);
        world.now += Duration::from_millis(7);
        world.answer(&check, &changed);
        assert!(
            matches!(&world.events[..], [Event::Hello(body, rtt)] if document(body) == changed && rtt.as_millis() == 7)
        );
        assert_eq!(world.connection.max_wire_version(), Some(25));
    }
}

#[test]
fn a_later_hello_that_is_refused_or_unanswered_fails_the_connection() {
    let mut world = World::ready();
    world.connection.check(world.now);
    let check = world.request();
    world.answer(&check, &doc! { "ok": 0, "code": 11600, "errmsg": "interrupted" });
    assert_eq!(world.failure().code(), Some(11600));

    let mut world = World::ready();
    world.connection.check(world.now);
    world.pass(10_000);
    assert!(matches!(
        world.failure().kind(),
        ErrorKind::Network { timed_out: true, .. }
    ));
}

#[test]
fn a_hello_while_the_handshake_is_under_way_is_that_of_the_handshake() {
    let mut world = World::new(settings(None));
    world.connection.check(world.now);
    world.connect();
    world.connection.check(world.now);
    world.drain();
    assert!(world.sent.is_empty());
}

#[test]
fn a_lost_connection_says_where_it_was_lost() {
    type Prepare = fn() -> World;
    let connecting: Prepare = || World::new(settings(None));
    let greeting: Prepare = || {
        let mut world = World::new(settings(None));
        world.connect();
        world
    };
    let ready: Prepare = World::ready;
    for (prepare, words) in [
        (connecting, "could not connect: refused by peer"),
        (greeting, "during the handshake: refused by peer"),
        (ready, "the connection was closed: refused by peer"),
    ] {
        for timed_out in [false, true] {
            let mut world = prepare();
            world.disconnect("refused by peer", timed_out);
            let error = world.failure();
            assert!(error.to_string().contains(words), "{error}");
            assert!(matches!(error.kind(), ErrorKind::Network { timed_out: t, .. } if *t == timed_out));
            assert_eq!(error.server(), Some(&address()));
        }
    }
}

#[test]
fn what_was_received_before_a_failure_is_still_handed_over() {
    let mut world = World::ready();
    let id = world.send(&doc! { "ping": 1 }, false, None);
    let good = encode_op_msg(1, id, Flags::NONE, &rawdoc! { "ok": 1 }, &[]);
    receive(
        &mut world.connection,
        world.now,
        &[&good[..], b"garbage that is no header"].concat(),
    );
    world.send(&doc! { "ping": 2 }, false, None);
    assert_eq!(world.sent.len(), 1, "nothing is sent after the failure");
    world.failure();
    assert_eq!(world.replies().len(), 1);
}

#[test]
fn what_was_to_be_written_before_a_failure_is_not_written() {
    let mut world = World::ready();
    let request = Request {
        body: raw(&doc! { "ping": 1 }),
        exhaust_allowed: false,
        in_parts: false,
        reply_timeout: None,
    };
    world.connection.send(world.now, request);
    world.disconnect("reset by peer", false);
    assert!(world.sent.is_empty());
    world.failure();
}

#[test]
fn a_server_that_understood_hello_is_asked_by_hello_again() {
    let mut world = World::with_hello_ok(settings(None), true);
    world.greet(&doc! { "isWritablePrimary": true, "maxWireVersion": 21, "ok": 1 });
    world.connection.check(world.now);
    assert_eq!(world.request().command.get_i32("hello").unwrap(), 1);
}

#[test]
fn before_the_handshake_is_done_no_large_message_is_accepted() {
    for ready in [false, true] {
        let mut world = World::new(settings(None));
        let hello = world.connect();
        let mut id = hello.id;
        if ready {
            world.answer(&hello, &hello_reply());
            world.authenticate();
            id = world.send(&doc! { "aggregate": 1 }, false, None);
        }
        let large = doc! { "ok": 1, "large": "x".repeat(1 << 20) };
        let bytes = encode_op_msg(1, id, Flags::NONE, &raw(&large), &[]);
        world.receive(&bytes[..16]);
        if ready {
            assert_eq!(world.connection.read_buffer().len(), bytes.len() - 16);
            world.receive(&bytes[16..]);
            assert!(matches!(world.events.last(), Some(Event::Reply(_))));
        } else {
            assert!(matches!(world.failure().kind(), ErrorKind::Protocol { .. }));
        }
    }
}

#[test]
fn the_servers_message_limit_holds_within_reason() {
    for (limit, accepted) in [
        (bson::Bson::Int32(100_000), false),
        (bson::Bson::Int32(2_000_000), true),
        (bson::Bson::Int32(-1), true),
        (bson::Bson::Null, true),
        (bson::Bson::Double(2e6), true),
    ] {
        let mut world = World::new(settings(None));
        let mut hello = hello_reply();
        hello.insert("maxMessageSizeBytes", limit.clone());
        world.greet(&hello);
        world.authenticate();
        let id = world.send(&doc! { "aggregate": 1 }, false, None);
        world.reply(id, Flags::NONE, &doc! { "large": "x".repeat(200_000) });
        assert_eq!(
            matches!(world.events.last(), Some(Event::Reply(_))),
            accepted,
            "{limit}"
        );
    }
}

#[test]
fn a_conversation_cut_at_any_byte_is_the_same_conversation() {
    let conversation = |cut: usize| {
        let mut world = World::new(settings(None));
        world.connect();
        world.answer_cut(cut);
        world
    };
    let whole = conversation(usize::MAX).summary();
    assert_eq!(whole.len(), 6, "{whole:?}");
    for cut in 0..700 {
        assert_eq!(conversation(cut).summary(), whole, "cut at {cut}");
    }
}

#[test]
fn equal_seeds_give_equal_bytes() {
    let bytes = |seed: u8| {
        let now = Instant::now();
        let credential = Credential::new("u", "p", "admin", None);
        let random = Random::new([seed; 32]);
        let mut connection = Connection::new(
            Arc::new(settings(Some(credential))),
            address(),
            false,
            random,
            now,
        );
        connection.handle_connected(now);
        let Some(ConnectionOutput::Transmit(hello)) = connection.poll_output() else {
            panic!()
        };
        hello
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

#[test]
fn hostile_bytes_never_panic_and_end_in_one_error() {
    let mut random = Random::new([11; 32]);
    for _ in 0..4000 {
        let credential = Credential::new("u", "p", "admin", None);
        let mut world = World::new(settings(Some(credential)));
        let hello = world.connect();
        let reply = doc! {
            "ok": 1, "maxWireVersion": 9, "saslSupportedMechs": ["SCRAM-SHA-256"], "maxMessageSizeBytes": 1,
            "speculativeAuthenticate": { "conversationId": 1, "done": false, "payload": "r=" },
        };
        let mut bytes = encode_op_reply(1, hello.id, &raw(&reply)).to_vec();
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = random.next_u64() as u8;
        }
        world.receive(&bytes);
        world.authenticate();
        if let Some(start) = world.sent.pop() {
            let mut bytes = encode_op_msg(1, start.id, Flags::NONE, &raw(&reply), &[]).to_vec();
            let at = random.below(bytes.len());
            bytes[at] = random.next_u64() as u8;
            world.receive(&bytes);
        }
        world.pass(20_000);
        let failures = world
            .events
            .iter()
            .filter(|e| matches!(e, Event::Failed(_)))
            .count();
        assert_eq!(failures, 1, "{:?}", world.events);
        world.failure();
    }
}

#[test]
fn ok_and_errors_are_read_whatever_their_types() {
    for (reply, ok) in [
        (doc! { "ok": 1 }, true),
        (doc! { "ok": 1.0 }, true),
        (doc! { "ok": 1_i64 }, true),
        (doc! { "ok": true }, true),
        (doc! { "ok": 0.0 }, false),
        (doc! { "ok": false }, false),
        (doc! { "ok": f64::NAN }, false),
        (doc! { "ok": "1" }, false),
        (doc! {}, false),
    ] {
        assert_eq!(reply::is_ok(&raw(&reply)), ok, "{reply}");
    }
    let error = reply::server_error(&raw(
        &doc! { "$err": "old", "code": 13435.0, "errorLabels": [1, "L"] },
    ));
    assert_eq!((error.code, error.message.as_str()), (13435, "old"));
    assert_eq!(error.labels, ["L"]);
    let error = reply::server_error(&raw(&doc! { "code": i64::MAX, "errmsg": 5, "errorLabels": "L" }));
    assert_eq!(
        (error.code, error.message.as_str(), error.labels.len()),
        (0, "", 0)
    );
}

impl World {
    /// Hello, a request and its exhaust, every server message cut at the same byte of the stream.
    fn answer_cut(&mut self, cut: usize) {
        let request = Request {
            body: raw(&doc! { "getMore": 1 }),
            exhaust_allowed: true,
            in_parts: false,
            reply_timeout: None,
        };
        self.connection.authenticate(self.now);
        let hello_id = {
            // The ids are the seed's: hello's was the first.
            self.connection.send(self.now, request) - 1
        };
        let request_id = hello_id + 1;
        let large = doc! { "ok": 1, "text": "x".repeat(300) };
        let hello = encode_op_reply(1, hello_id, &raw(&hello_reply()));
        let replies = [
            encode_op_msg(2, request_id, Flags::MORE_TO_COME, &rawdoc! { "ok": 1 }, &[]),
            encode_op_msg(
                3,
                2,
                Flags::MORE_TO_COME.with(Flags::CHECKSUM_PRESENT),
                &raw(&large),
                &[],
            ),
            encode_op_msg(4, 3, Flags::NONE, &rawdoc! { "ok": 0 }, &[]),
            encode_op_msg(5, 4, Flags::NONE, &rawdoc! { "nobody": "asked" }, &[]),
        ];
        let (head, tail) = hello.split_at(cut.min(hello.len()));
        self.receive(head);
        self.receive(tail);
        self.authenticate();
        let stream = replies.concat();
        let (head, tail) = stream.split_at(cut.min(stream.len()));
        self.receive(head);
        self.receive(tail);
    }

    fn summary(&self) -> Vec<String> {
        let events = self.events.iter().map(|event| match event {
            Event::Hello(body, _) => format!("hello {}", document(body)),
            Event::Ready => "ready".to_owned(),
            Event::Events(id, events) => format!("{id} {} bytes of events", events.len()),
            Event::Asked(request) => format!("{request:?}"),
            Event::Refused(r) | Event::Reply(r) => {
                format!("{} {} {}", r.request_id, document(&r.body), r.more_to_come)
            }
            Event::Failed(error) => error.to_string(),
        });
        events.collect()
    }
}
