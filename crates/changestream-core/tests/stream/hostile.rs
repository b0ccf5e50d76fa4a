//! Batches that are not what they say.

use bson::raw::RawDocumentBuf;
use bson::{Document, doc};
use changestream_core::client::Demand;
use changestream_core::stream::{CommandReply, StreamInput};
use changestream_core::{ErrorKind, WatchOptions};

use super::{World, next_batch, token_of};

/// The bytes of a reply with the events `e1` and `e2`, and where in it the first starts and ends.
fn reply_and_first_event() -> (Vec<u8>, usize, usize) {
    let bytes = |document: &Document| RawDocumentBuf::try_from(document).unwrap().into_bytes();
    let event = bytes(&doc! { "_id": { "_data": "e1" }, "operationType": "insert" });
    let reply = bytes(&next_batch(&["e1", "e2"], Some("t2")));
    let start = reply
        .windows(event.len())
        .position(|place| place == event)
        .unwrap();
    (reply, start, start + event.len())
}

fn waiting_for(reply: Vec<u8>) -> World {
    let mut world = World::opened(WatchOptions::default());
    world.demand(Demand::Next);
    world.expect_get_more();
    world.input(StreamInput::Reply(CommandReply::parse(reply.into()).unwrap()));
    world
}

#[track_caller]
fn assert_is_refused(reply: Vec<u8>, what: &str) {
    let mut world = waiting_for(reply);
    let error = world.expect_end().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Protocol { .. }),
        "{what}: {error}"
    );
    assert_eq!(error.resume_token(), Some(&token_of("t0")), "{what}");
}

#[test]
fn an_event_whose_length_cannot_be_ends_the_stream() {
    let (honest, start, end) = reply_and_first_event();
    let room = i32::try_from(honest.len() - start).unwrap();
    for lie in [i32::MIN, -1, 0, 1, 4, room + 1, i32::MAX] {
        let mut lying = honest.clone();
        lying[start..start + 4].copy_from_slice(&lie.to_le_bytes());
        assert_is_refused(lying, &format!("a length of {lie}"));
    }
    let mut lying = honest;
    lying[end - 1] = 1;
    assert_is_refused(lying, "no zero byte at the end");
}

#[test]
fn an_element_of_a_batch_that_is_no_document_ends_the_stream() {
    let (honest, start, _) = reply_and_first_event();
    // Its type stands before its key, "0", and a zero byte.
    for kind in [0x02, 0x04, 0x08, 0x10, 0x7f, 0xff] {
        let mut lying = honest.clone();
        lying[start - 3] = kind;
        assert_is_refused(lying, &format!("type {kind:#x}"));
    }
}

#[test]
fn what_came_before_a_broken_event_is_handed_over_first() {
    let (honest, _, end) = reply_and_first_event();
    let mut lying = honest;
    // The second event follows the first: its type, its key, a zero byte, its length.
    lying[end + 3..end + 7].copy_from_slice(&4i32.to_le_bytes());
    let mut world = waiting_for(lying);
    world.expect_event("e1");
    world.demand(Demand::Next);
    let error = world.expect_end().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Protocol { .. }), "{error}");
    assert_eq!(error.resume_token(), Some(&token_of("e1")));
}

#[test]
fn nothing_follows_a_broken_event() {
    let (honest, start, _) = reply_and_first_event();
    let mut lying = honest;
    lying[start..start + 4].copy_from_slice(&4i32.to_le_bytes());
    let mut world = World::new(WatchOptions::default());
    world.open(super::cursor(1, "firstBatch", &["e0"], Some("t0")));
    world.expect_get_more();
    world.input(StreamInput::Reply(CommandReply::parse(lying.into()).unwrap()));
    world.expect_event("e0");
    world.expect_get_more();
    world.reply(next_batch(&["e3"], Some("t3")));
    world.demand(Demand::Next);
    assert!(world.expect_end().is_err());
    world.demand(Demand::Next);
    world.expect_nothing();
    assert!(!world.stream.has_buffered());
    assert_eq!(world.token(), Some(token_of("t0")));
}

#[test]
fn the_key_of_an_element_is_not_longer_than_a_place_in_an_array_can_be() {
    let reply = |key: &str| {
        let mut reply = next_batch(&[], Some("t1"));
        let event = doc! { "_id": { "_data": "e1" }, "operationType": "insert" };
        let cursor = reply.get_document_mut("cursor").unwrap();
        cursor.insert("nextBatch", doc! { key: event });
        let mut bytes = RawDocumentBuf::try_from(&reply).unwrap().into_bytes();
        // An array is a document of another type.
        let field = b"\x03nextBatch\0";
        let at = bytes
            .windows(field.len())
            .position(|place| place == field)
            .unwrap();
        bytes[at] = 0x04;
        bytes
    };
    for key in ["0", "2147483647", "000000000000000"] {
        waiting_for(reply(key)).expect_event("e1");
    }
    for key in ["0000000000000000", "00000000000000000000"] {
        assert_is_refused(reply(key), key);
    }
}
