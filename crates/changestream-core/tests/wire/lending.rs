//! How much memory a reader lends, and when it is used again.

use bytes::Bytes;
use changestream_core::wire::{Flags, FrameReader, encode_op_msg};

use super::{document_of, feed};

/// A message of that many bytes.
fn frame_of(len: usize) -> Bytes {
    let frame = encode_op_msg(1, 0, Flags::NONE, &document_of(len - 21), &[]);
    assert_eq!(frame.len(), len);
    frame
}

#[test]
fn small_frames_that_come_together_are_read_together() {
    let mut reader = FrameReader::new();
    let frame = frame_of(100);
    feed(&mut reader, &frame[..16]);
    assert!(reader.buffer().len() > 100 - 16, "there is room for what follows");
    let three = [&frame[16..], &frame, &frame].concat();
    assert!(reader.buffer().len() >= three.len());
    assert_eq!(feed(&mut reader, &three).len(), 3);
}

#[test]
fn a_large_frame_is_read_to_its_end_and_no_further_though_the_memory_is_that_of_a_larger_one() {
    let mut reader = FrameReader::new();
    drop(feed(&mut reader, &frame_of(300_000)));
    feed(&mut reader, &frame_of(200_000)[..16]);
    assert_eq!(reader.buffer().len(), 200_000 - 16);
}

#[test]
fn a_new_buffer_has_room_for_as_much_as_came_last() {
    let mut reader = FrameReader::new();
    let mut held = Vec::new();
    for (len, least, most) in [
        (3_000, 3_000, 16_384),
        (100, 100, 512),
        (9_000, 9_000, 32_768),
        (60, 60, 512),
    ] {
        held.extend(feed(&mut reader, &frame_of(len)));
        let lent = reader.buffer().len();
        assert!((least..=most).contains(&lent), "{lent} after {len}");
    }
}

#[test]
fn a_buffer_that_was_filled_to_its_end_is_followed_by_a_larger_one() {
    let mut reader = FrameReader::new();
    let first = reader.buffer().len();
    let held = feed(&mut reader, &frame_of(first));
    assert!(reader.buffer().len() > first);
    drop(held);
}

#[test]
fn the_memory_of_small_frames_is_used_again_once_nobody_holds_them() {
    for len in [40, 300, 5_000] {
        let frame = frame_of(len);
        let mut reader = FrameReader::new();
        let first = feed(&mut reader, &frame);
        let place = first[0].as_ptr();
        drop(first);
        // What is free takes other memory's place here, so that an allocator cannot give the same twice.
        let others: Vec<Vec<u8>> = [512, 1024, 5_000, 8192, 16_384]
            .into_iter()
            .flat_map(|size| [vec![1; size], vec![1; size]])
            .collect();
        for round in 0..3 {
            let frames = feed(&mut reader, &frame);
            assert_eq!(frames[0].as_ptr(), place, "{len} bytes, round {round}");
        }
        drop(others);
    }
}

#[test]
fn a_reader_says_how_long_a_message_may_be() {
    let mut reader = FrameReader::new();
    assert_eq!(reader.max_message_size(), 48_000_000);
    reader.set_max_message_size(100_000);
    assert_eq!(reader.max_message_size(), 100_000);
}

#[test]
fn what_was_received_of_a_frame_is_counted_until_it_leaves() {
    let mut reader = FrameReader::new();
    assert_eq!(reader.pending(), 0);
    let frame = frame_of(700);
    feed(&mut reader, &frame[..600]);
    assert_eq!(reader.pending(), 600);
    let rest = [&frame[600..], &frame[..50]].concat();
    assert_eq!(feed(&mut reader, &rest).len(), 1);
    assert_eq!(reader.pending(), 50);
}
