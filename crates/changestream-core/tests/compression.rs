//! OP_COMPRESSED: the codec, and connections that agree upon a compressor.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod support;

use bson::{Document, RawDocumentBuf, doc, rawdoc};
use bytes::Bytes;
use changestream_core::auth::Credential;
use changestream_core::random::Random;
use changestream_core::wire::{
    Compressor, Flags, Message, WireError, compress, compressor_of, decompress, encode_op_msg, may_compress,
};
use changestream_core::{ConnectionString, ErrorKind};

use support::{Event, World, hello_reply, raw, settings};

#[test]
fn what_is_compressed_inflates_to_the_same_bytes() {
    for compressor in Compressor::ALL {
        for len in [0, 1, 100, 70_000, 1_000_000] {
            for flags in [Flags::NONE, Flags::CHECKSUM_PRESENT, Flags::MORE_TO_COME] {
                let message = message(len, flags);
                let compressed = compress(&message, compressor, None).unwrap();
                assert_eq!(compressor_of(&compressed), Some(compressor.id()));
                assert_eq!(compressed[4..12], message[4..12], "the numbers are in the header");
                assert!(len < 1000 || compressed.len() < message.len() / 10);
                assert_eq!(decompress(&compressed, message.len()).unwrap(), message);
            }
        }
        assert!(compress(&Bytes::from_static(&[1; 15]), compressor, None).is_none());
    }
    assert_eq!(compressor_of(&message(1, Flags::NONE)), None);
    assert_eq!(Compressor::from_name("ZLIB"), None);
}

#[test]
fn every_level_of_zlib_is_understood_and_the_highest_is_the_smallest() {
    let text: Vec<i32> = (0..2000).map(|n| n * n % 977).collect();
    let message = encode_op_msg(1, 0, Flags::NONE, &raw(&doc! { "text": text }), &[]);
    let size = |level| {
        let compressed = compress(&message, Compressor::Zlib, level).unwrap();
        assert_eq!(decompress(&compressed, message.len()).unwrap(), message);
        compressed.len()
    };
    let sizes: Vec<usize> = (0..=9).map(|level| size(Some(level))).collect();
    assert!(sizes[0] > message.len() && sizes[1] > sizes[9], "{sizes:?}");
    assert_eq!(size(None), size(Some(-1)));
    assert_eq!(size(None), sizes[6]);
}

#[test]
fn an_event_is_a_slice_of_the_inflated_message() {
    let message = message(5000, Flags::NONE);
    let inflated = decompress(&compress(&message, Compressor::Zstd, None).unwrap(), 1 << 20).unwrap();
    let Message::Msg(decoded) = Message::decode(&inflated).unwrap() else {
        panic!();
    };
    assert!(inflated.as_ptr_range().contains(&decoded.body.as_ptr()));
}

#[test]
fn the_compressor_that_does_nothing_is_understood() {
    let message = message(100, Flags::NONE);
    let wrapped = wrap(&message, 2013, length_of(&message), 0, &message[16..]);
    assert_eq!(decompress(&wrapped, 1 << 20).unwrap(), message);
    for wrong in [-1, 1] {
        let wrapped = wrap(&message, 2013, length_of(&message) + wrong, 0, &message[16..]);
        assert_eq!(decompress(&wrapped, 1 << 20).unwrap_err(), broken("noop"));
    }
}

#[test]
fn a_size_beyond_the_longest_message_is_refused_whatever_the_content() {
    let message = message(100, Flags::NONE);
    for declared in [0, -1, i32::MIN, i32::MAX, 1000 - 15] {
        for id in 0..=3 {
            let frame = wrap(&message, 2013, declared, id, &[1, 2, 3]);
            let error = decompress(&frame, 1000).unwrap_err();
            let expected =
                format!("a compressed message claims to inflate to {declared} bytes, legal are 1 to 984");
            assert_eq!(error.to_string(), expected);
        }
    }
    let longest = self::message(1000 - 34, Flags::NONE);
    assert_eq!(longest.len(), 1000);
    let compressed = compress(&longest, Compressor::Snappy, None).unwrap();
    assert_eq!(decompress(&compressed, 1000).unwrap(), longest);
    assert!(decompress(&compressed, 999).is_err());
}

#[test]
fn a_bomb_ends_at_its_declared_size_and_a_boaster_fails() {
    let bomb = message(4_000_000, Flags::NONE);
    for compressor in Compressor::ALL {
        let compressed = compress(&bomb, compressor, None).unwrap();
        for declared in [1, 100, length_of(&bomb) - 1, length_of(&bomb) + 1, 47_999_984] {
            let lying = with_size(&compressed, declared);
            assert_eq!(
                decompress(&lying, 48_000_000).unwrap_err(),
                broken(compressor.as_str())
            );
        }
    }
}

#[test]
fn content_cut_at_any_byte_or_followed_by_more_is_an_error() {
    let message = encode_op_msg(
        1,
        2,
        Flags::NONE,
        &rawdoc! { "ok": 1.0, "text": "abcabcabcabcabcabcabc" },
        &[],
    );
    for compressor in Compressor::ALL {
        let whole = compress(&message, compressor, None).unwrap();
        for len in 0..whole.len() {
            let cut = whole.slice(..len);
            assert!(
                decompress(&cut, 1 << 20).is_err(),
                "{compressor:?} cut at {len}, as it is"
            );
            if len >= 25 {
                let cut = with_length(&cut);
                assert_eq!(
                    decompress(&cut, 1 << 20).unwrap_err(),
                    broken(compressor.as_str()),
                    "{len}"
                );
            }
        }
        let mut more = whole.to_vec();
        more.push(0);
        let more = with_length(&more.into());
        assert_eq!(
            decompress(&more, 1 << 20).unwrap_err(),
            broken(compressor.as_str())
        );
    }
}

#[test]
fn what_is_no_compressed_op_msg_is_named() {
    let message = message(10, Flags::NONE);
    let content = &compress(&message, Compressor::Zlib, None).unwrap()[25..];
    let size = length_of(&message);
    for op_code in [1, 2004, 2012, 0, -1] {
        let error = decompress(&wrap(&message, op_code, size, 2, content), 1 << 20).unwrap_err();
        assert_eq!(error, WireError::CompressedOpCode(op_code));
        assert_eq!(
            error.to_string(),
            format!("unexpected operation code {op_code} in a compressed message")
        );
    }
    for id in [4, 255] {
        let error = decompress(&wrap(&message, 2013, size, id, content), 1 << 20).unwrap_err();
        assert_eq!(error, WireError::Compressor(id));
        assert_eq!(
            error.to_string(),
            format!("a message is compressed by unknown compressor {id}")
        );
    }
    assert_eq!(
        decompress(&message, 1 << 20).unwrap_err(),
        WireError::OpCode(2013)
    );
    let other = wrap(&message, 2013, size, 3, content);
    assert_eq!(
        decompress(&other, 1 << 20).unwrap_err(),
        broken("zstd"),
        "zlib's is not zstd's"
    );
}

#[test]
fn mangled_compressed_messages_never_panic_and_are_never_longer_than_allowed() {
    let mut random = Random::new([17; 32]);
    let frames: Vec<Bytes> = Compressor::ALL
        .into_iter()
        .map(|compressor| compress(&message(300, Flags::CHECKSUM_PRESENT), compressor, None).unwrap())
        .collect();
    for round in 0..10_000 {
        let mut bytes = frames[round % frames.len()].to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.next_u64() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, random.next_u64() as u8),
            }
        }
        let mut bytes = Bytes::from(bytes);
        if bytes.len() >= 25 {
            bytes = with_length(&bytes);
        }
        if let Ok(inflated) = decompress(&bytes, 1000) {
            assert!(inflated.len() <= 1000);
            let _ = Message::decode(&inflated);
        }
    }
}

#[test]
fn commands_of_the_handshake_and_with_secrets_are_never_compressed() {
    for name in [
        "hello",
        "isMaster",
        "ismaster",
        "saslStart",
        "saslContinue",
        "createUser",
        "copydb",
        "getnonce",
    ] {
        assert!(!may_compress(name), "{name}");
    }
    for name in ["aggregate", "getMore", "killCursors", "endSessions", "ping", ""] {
        assert!(may_compress(name), "{name}");
    }
}

#[test]
fn a_handshake_offers_what_was_asked_for_and_takes_the_first_that_the_server_lists() {
    use Compressor::{Snappy, Zlib, Zstd};
    for (ours, theirs, agreed) in [
        (vec![Zlib, Zstd], vec!["zstd", "zlib"], Some(Zlib)),
        (
            vec![Zstd, Zlib, Snappy],
            vec!["lz4", "snappy", "zlib"],
            Some(Zlib),
        ),
        (vec![Snappy], vec!["zlib"], None),
        (vec![], vec!["zlib"], None),
        (vec![Zstd], vec![], None),
    ] {
        let mut world = compressing(&ours);
        let hello = world.connect();
        let names: Vec<&str> = ours.iter().map(|compressor| compressor.as_str()).collect();
        assert_eq!(hello.command.get("compression"), Some(&names.into()));
        assert_eq!(hello.compressor, None);
        world.answer(&hello, &listing(&theirs));
        world.authenticate();
        assert_eq!(world.connection.compressor(), agreed);
        world.send(&doc! { "ping": 1, "$db": "admin" }, false, None);
        assert_eq!(world.request().compressor, agreed.map(Compressor::id));
    }
    let mut world = compressing(&[Zlib]);
    world.greet(&hello_reply());
    assert_eq!(world.connection.compressor(), None, "an old server lists nothing");
    let mut world = compressing(&[Zlib]);
    let mut reply = hello_reply();
    reply.insert("compression", "zlib");
    world.greet(&reply);
    assert_eq!(
        world.connection.compressor(),
        None,
        "nor does one that lists nonsense"
    );
}

#[test]
fn requests_and_replies_are_compressed_and_hello_is_not() {
    for compressor in Compressor::ALL {
        let mut world = compressing(&[compressor]);
        let held = doc! { "getMore": 1_i64, "$db": "shop" };
        world.send(&held, false, None);
        world.greet(&listing(&[compressor.as_str()]));
        world.authenticate();
        world.events.clear();
        let request = world.request();
        assert_eq!(request.compressor, Some(compressor.id()), "one that waited too");
        assert_eq!(request.command, held);
        let reply = encode_op_msg(1, request.id, Flags::NONE, &rawdoc! { "ok": 1.0 }, &[]);
        world.receive(&compress(&reply, compressor, None).unwrap());
        assert_eq!(world.replies()[0].body, reply[21..]);

        world.connection.check(world.now);
        let hello = world.request();
        assert_eq!(hello.compressor, None);
        assert!(!hello.command.contains_key("compression"));
        world.answer(&hello, &hello_reply());
        assert_eq!(
            world.connection.compressor(),
            Some(compressor),
            "agreed upon once"
        );
        world.events.clear();

        let secret = doc! { "createUser": "alice", "pwd": "secret", "$db": "admin" };
        world.send(&secret, false, None);
        assert_eq!(world.request().compressor, None);
        let id = world.send(&held, false, None);
        assert!(world.request().compressor.is_some());
        world.reply(id, Flags::NONE, &doc! { "ok": 1.0 });
        assert_eq!(
            world.replies().len(),
            1,
            "a server may leave a reply uncompressed"
        );
    }
}

#[test]
fn the_memory_of_a_large_inflated_reply_is_used_again_once_nobody_holds_it() {
    let mut world = compressing(&[Compressor::Snappy]);
    world.greet(&listing(&["snappy"]));
    world.authenticate();
    world.events.clear();
    let mut receive = |len: usize, fill: &str| {
        let id = world.send(&doc! { "ping": 1 }, false, None);
        world.request();
        let body = rawdoc! { "ok": 1.0, "t": fill.repeat(len) };
        let reply = encode_op_msg(1, id, Flags::NONE, &body, &[]);
        world.receive(&compress(&reply, Compressor::Snappy, None).unwrap());
        let reply = world.replies().remove(0).body;
        assert_eq!(reply[..], *body.as_bytes());
        reply
    };
    let first = receive(100_000, "a");
    let place = first.as_ptr();
    let second = receive(100_000, "b");
    assert_ne!(second.as_ptr(), place, "the first is still held");
    let place = second.as_ptr();
    drop((first, second));
    // What is free takes other memory's place here, so that an allocator cannot give the same twice.
    let others: Vec<Vec<u8>> = (0..4).map(|_| vec![1; 100_000]).collect();
    assert_eq!(receive(100_000, "c").as_ptr(), place);
    assert_eq!(receive(90_000, "d").as_ptr(), place, "a shorter one fits");
    drop(others);
}

#[test]
fn authentication_is_not_compressed() {
    let mut settings = settings(Some(Credential::new("user", "pencil", "admin", None)));
    settings.compressors = vec![Compressor::Zlib];
    let mut world = World::new(settings);
    world.greet(&listing(&["zlib"]));
    world.authenticate();
    let start = world.request();
    assert!(start.command.contains_key("saslStart"));
    assert_eq!(
        (start.compressor, world.connection.compressor()),
        (None, Some(Compressor::Zlib))
    );
}

#[test]
fn a_compressed_reply_that_nobody_agreed_upon_fails_the_connection() {
    let mut world = World::ready();
    let id = world.send(&doc! { "ping": 1 }, false, None);
    let reply = encode_op_msg(1, id, Flags::NONE, &rawdoc! { "ok": 1.0 }, &[]);
    world.receive(&compress(&reply, Compressor::Zlib, None).unwrap());
    let error = world.failure();
    assert!(matches!(error.kind(), ErrorKind::Protocol { .. }));
    assert!(
        error.to_string().contains("no compressor was agreed upon"),
        "{error}"
    );
}

#[test]
fn a_broken_compressed_reply_fails_the_connection() {
    for (declared, text) in [
        (5, "broken"),
        (-1, "legal are 1 to"),
        (i32::MAX, "legal are 1 to"),
    ] {
        let mut world = compressing(&[Compressor::Zstd]);
        let mut hello = listing(&["zstd"]);
        hello.insert("maxMessageSizeBytes", 100_000);
        world.greet(&hello);
        world.authenticate();
        let id = world.send(&doc! { "ping": 1 }, false, None);
        let reply = encode_op_msg(1, id, Flags::NONE, &rawdoc! { "ok": 1.0 }, &[]);
        let compressed = compress(&reply, Compressor::Zstd, None).unwrap();
        world.receive(&with_size(&compressed, declared));
        let error = world.failure();
        assert!(matches!(error.kind(), ErrorKind::Protocol { .. }));
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_compressed_answer_to_hello_fails_the_handshake() {
    let mut world = compressing(&[Compressor::Snappy]);
    let hello = world.connect();
    let reply = encode_op_msg(1, hello.id, Flags::NONE, &raw(&listing(&["snappy"])), &[]);
    world.receive(&compress(&reply, Compressor::Snappy, None).unwrap());
    assert!(
        world
            .failure()
            .to_string()
            .contains("no compressor was agreed upon")
    );
    assert!(!world.events.iter().any(|event| matches!(event, Event::Hello(..))));
}

#[test]
fn compressors_that_are_built_in_give_no_warning() {
    let uri: ConnectionString = "mongodb://h/?compressors=zstd,zlib,snappy".parse().unwrap();
    assert_eq!(uri.warnings, []);
    assert!(Compressor::ALL.into_iter().all(Compressor::is_built_in));
}

fn compressing(compressors: &[Compressor]) -> World {
    let mut settings = settings(None);
    settings.compressors = compressors.to_vec();
    World::new(settings)
}

fn listing(names: &[&str]) -> Document {
    let mut reply = hello_reply();
    reply.insert("compression", names);
    reply
}

/// An OP_MSG with a document of so much text.
fn message(len: usize, flags: Flags) -> Bytes {
    let mut body = RawDocumentBuf::new();
    body.append(bson::raw::cstr!("t"), "x".repeat(len));
    encode_op_msg(-7, 9, flags, &body, &[])
}

fn length_of(message: &Bytes) -> i32 {
    i32::try_from(message.len() - 16).unwrap()
}

fn wrap(message: &Bytes, op_code: i32, size: i32, compressor: u8, content: &[u8]) -> Bytes {
    let mut frame = message[..16].to_vec();
    frame[12..16].copy_from_slice(&2012_i32.to_le_bytes());
    frame.extend(op_code.to_le_bytes());
    frame.extend(size.to_le_bytes());
    frame.push(compressor);
    frame.extend(content);
    with_length(&frame.into())
}

fn with_length(frame: &Bytes) -> Bytes {
    let mut frame = frame.to_vec();
    let length = i32::try_from(frame.len()).unwrap();
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame.into()
}

fn with_size(frame: &Bytes, size: i32) -> Bytes {
    let mut frame = frame.to_vec();
    frame[20..24].copy_from_slice(&size.to_le_bytes());
    frame.into()
}

fn broken(compressor: &str) -> WireError {
    match compressor {
        "noop" => decompress_broken(0),
        name => decompress_broken(Compressor::from_name(name).unwrap().id()),
    }
}

/// The error of content that is nothing at all.
fn decompress_broken(id: u8) -> WireError {
    let error = decompress(&wrap(&message(1, Flags::NONE), 2013, 5, id, &[]), 1000).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not inflate to the size it declares")
    );
    error
}
