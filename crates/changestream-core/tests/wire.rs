//! The wire codec: whole messages, cut messages, lying messages, mangled messages.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

#[path = "wire/lending.rs"]
mod lending;

use bson::{RawDocumentBuf, rawdoc};
use bytes::Bytes;
use changestream_core::random::Random;
use changestream_core::wire::{
    DEFAULT_MAX_MESSAGE_SIZE, Flags, FrameReader, HEADER_LEN, Message, OpMsg, WireError, encode_op_msg,
    encode_op_query, encode_op_reply,
};

#[test]
fn an_op_msg_survives_the_round_trip() {
    let body = rawdoc! { "ping": 1, "$db": "admin" };
    let frame = encode_op_msg(7, 3, Flags::EXHAUST_ALLOWED, &body, &[]);
    let message = op_msg(&frame);
    assert_eq!((message.request_id, message.response_to), (7, 3));
    assert_eq!(message.flags, Flags::EXHAUST_ALLOWED);
    assert_eq!(&message.body[..], body.as_bytes());
    assert!(message.sequences.is_empty());
}

#[test]
fn document_sequences_survive_the_round_trip_with_and_without_checksum() {
    let (a, b) = (rawdoc! { "_id": 1 }, rawdoc! { "_id": 2, "text": "two" });
    for flags in [Flags::NONE, Flags::CHECKSUM_PRESENT] {
        let frame = encode_op_msg(
            1,
            0,
            flags,
            &rawdoc! { "bulkWrite": 1 },
            &[("ops", &[&a, &b]), ("nsInfo", &[]), ("more", &[&b])],
        );
        let message = op_msg(&frame);
        let sequences: Vec<(&str, Vec<&[u8]>)> = message
            .sequences
            .iter()
            .map(|s| {
                (
                    s.identifier.as_str(),
                    s.documents.iter().map(|d| &d[..]).collect(),
                )
            })
            .collect();
        let (a, b) = (a.as_bytes(), b.as_bytes());
        assert_eq!(
            sequences,
            [("ops", vec![a, b]), ("nsInfo", vec![]), ("more", vec![b])]
        );
    }
}

#[test]
fn the_body_may_follow_a_document_sequence() {
    let body = rawdoc! { "insert": "c" };
    let document = rawdoc! { "_id": 1 };
    let sequence = section(1, &sequence("documents", &[&document]));
    let frame = raw_op_msg(0, &[&sequence, &section(0, body.as_bytes())]);
    let message = op_msg(&frame);
    assert_eq!(&message.body[..], body.as_bytes());
    assert_eq!(message.sequences.len(), 1);
}

#[test]
fn legacy_messages_survive_the_round_trip() {
    let body = rawdoc! { "isMaster": 1, "helloOk": true };
    let Message::Query(query) = Message::decode(&encode_op_query(9, "admin.$cmd", &body)).unwrap() else {
        panic!("not an OP_QUERY");
    };
    assert_eq!((query.request_id, query.namespace.as_str()), (9, "admin.$cmd"));
    assert_eq!(&query.query[..], body.as_bytes());

    let Message::Reply(reply) = Message::decode(&encode_op_reply(10, 9, &body)).unwrap() else {
        panic!("not an OP_REPLY");
    };
    assert_eq!((reply.request_id, reply.response_to), (10, 9));
    assert_eq!(&reply.document[..], body.as_bytes());
}

#[test]
fn legacy_messages_are_laid_out_as_servers_expect() {
    let body = rawdoc! { "isMaster": 1 };
    let query = encode_op_query(9, "admin.$cmd", &body);
    let slave_ok = 4u32.to_le_bytes();
    let one_document = [0i32.to_le_bytes(), (-1i32).to_le_bytes()].concat();
    let expected = [&slave_ok[..], b"admin.$cmd\0", &one_document, body.as_bytes()].concat();
    assert_eq!(&query[HEADER_LEN..], expected);

    let reply = encode_op_reply(10, 9, &body);
    let await_capable = 8u32.to_le_bytes();
    let cursor_and_start = [0; 12];
    let count = 1i32.to_le_bytes();
    let expected = [&await_capable[..], &cursor_and_start, &count, body.as_bytes()].concat();
    assert_eq!(&reply[HEADER_LEN..], expected);
}

#[test]
fn flags_are_a_set_of_bits() {
    assert_eq!(Flags::NONE.bits(), 0);
    assert_eq!(Flags::CHECKSUM_PRESENT.bits(), 1);
    assert_eq!(Flags::MORE_TO_COME.bits(), 2);
    assert_eq!(Flags::EXHAUST_ALLOWED.bits(), 0x1_0000);
    let both = Flags::MORE_TO_COME.with(Flags::EXHAUST_ALLOWED);
    assert_eq!(both.bits(), 0x1_0002);
    assert_eq!(both.with(Flags::MORE_TO_COME), both);
    assert!(both.contains(Flags::MORE_TO_COME) && both.contains(Flags::NONE));
    assert!(!both.contains(Flags::CHECKSUM_PRESENT));
    assert!(!Flags::MORE_TO_COME.contains(both));
    assert_eq!(Flags::from_bits(0x1_0002), both);
}

#[test]
fn each_error_says_what_it_found() {
    for (error, words) in [
        (WireError::Truncated("body"), "ends inside its body"),
        (
            WireError::Malformed("two bodies"),
            "malformed message: two bodies",
        ),
        (WireError::OpCode(2004), "operation code 2004"),
        (WireError::SectionKind(7), "section kind 7"),
        (WireError::Checksum, "CRC-32C"),
        (
            WireError::CompressedOpCode(1),
            "operation code 1 in a compressed message",
        ),
        (WireError::Compressor(9), "unknown compressor 9"),
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_message_tells_its_numbers_whatever_it_is() {
    let body = rawdoc! { "ok": 1 };
    for (frame, numbers) in [
        (encode_op_msg(-5, 6, Flags::NONE, &body, &[]), (-5, 6)),
        (encode_op_query(i32::MAX, "admin.$cmd", &body), (i32::MAX, 0)),
        (encode_op_reply(i32::MIN, -1, &body), (i32::MIN, -1)),
    ] {
        let message = Message::decode(&frame).unwrap();
        assert_eq!((message.request_id(), message.response_to()), numbers);
    }
}

#[test]
fn a_frame_leaves_the_reader_as_a_slice_of_what_was_read() {
    let body = rawdoc! { "ping": 1 };
    let frame = encode_op_msg(1, 0, Flags::NONE, &body, &[]);
    let mut reader = FrameReader::new();
    reader.buffer()[..frame.len()].copy_from_slice(&frame);
    let address = reader.buffer().as_ptr();
    reader.filled(frame.len());
    assert_eq!(reader.next_frame().unwrap().unwrap().as_ptr(), address);
}

#[test]
fn messages_cut_at_any_byte_are_the_same_messages() {
    let (stream, frames) = three_messages();
    for cut in 0..=stream.len() {
        let mut reader = FrameReader::new();
        let mut got = feed(&mut reader, &stream[..cut]);
        got.extend(feed(&mut reader, &stream[cut..]));
        assert_eq!(got, frames, "cut at {cut}");
        assert_eq!(reader.pending(), 0);
    }
}

#[test]
fn messages_that_arrive_byte_by_byte_are_the_same_messages() {
    let (stream, frames) = three_messages();
    let mut reader = FrameReader::new();
    let got: Vec<Bytes> = stream
        .iter()
        .flat_map(|byte| feed(&mut reader, &[*byte]))
        .collect();
    assert_eq!(got, frames);
}

#[test]
fn a_large_frame_gets_a_buffer_of_its_own_length() {
    let large = encode_op_msg(1, 0, Flags::NONE, &document_of(300_000), &[]);
    let mut reader = FrameReader::new();
    assert!(reader.buffer().len() <= 4096);
    assert!(feed(&mut reader, &large[..4]).is_empty());
    assert_eq!(reader.buffer().len(), large.len() - 4);
    assert_eq!(feed(&mut reader, &large[4..]), [large]);
}

#[test]
fn the_memory_of_a_large_frame_is_used_again_once_nobody_holds_it() {
    let large = encode_op_msg(1, 0, Flags::NONE, &document_of(300_000), &[]);
    let mut reader = FrameReader::new();
    let first = feed(&mut reader, &large);
    let place = first[0].as_ptr();
    let second = feed(&mut reader, &large);
    assert_ne!(second[0].as_ptr(), place, "the first is still held");
    let place = second[0].as_ptr();
    drop((first, second));
    for round in 0..3 {
        let frames = feed(&mut reader, &large);
        assert_eq!(frames, std::slice::from_ref(&large));
        assert_eq!(frames[0].as_ptr(), place, "round {round}");
    }
}

#[test]
fn a_large_buffer_is_given_up_when_a_small_frame_was_in_it() {
    let large = encode_op_msg(1, 0, Flags::NONE, &document_of(300_000), &[]);
    let small = encode_op_msg(1, 0, Flags::NONE, &document_of(300), &[]);
    let mut reader = FrameReader::new();
    feed(&mut reader, &large);
    assert!(reader.buffer().len() > 4096, "the next may be as large");
    feed(&mut reader, &small);
    assert!(reader.buffer().len() <= 4096, "an idle stream keeps little");
}

#[test]
fn what_follows_a_large_frame_is_not_read_with_it() {
    let large = encode_op_msg(1, 0, Flags::NONE, &document_of(300_000), &[]);
    let mut reader = FrameReader::new();
    feed(&mut reader, &large);
    let lent = reader.buffer().len();
    assert!(lent <= 64 << 10, "{lent}: its length is not known yet");
    feed(&mut reader, &large[..16]);
    assert_eq!(reader.buffer().len(), large.len() - 16);
}

#[test]
fn impossible_lengths_are_refused_before_memory_is_taken() {
    let max = 1 << 20;
    for declared in [i32::MIN, -1, 0, 1, HEADER_LEN as i32 - 1, max + 1, i32::MAX] {
        let mut reader = FrameReader::new();
        reader.set_max_message_size(max as usize);
        reader.buffer()[..4].copy_from_slice(&declared.to_le_bytes());
        reader.filled(4);
        assert_eq!(
            reader.next_frame(),
            Err(length_error(declared, max as usize)),
            "{declared}"
        );
        assert!(reader.buffer().len() <= 4096, "{declared}");
        assert!(reader.next_frame().is_err(), "the error stays");
    }
}

#[test]
fn the_longest_legal_frame_is_accepted_and_one_byte_more_is_not() {
    let mut reader = FrameReader::new();
    reader.set_max_message_size(100_000);
    let frame = encode_op_msg(1, 0, Flags::NONE, &document_of(100_000 - 21), &[]);
    assert_eq!(frame.len(), 100_000);
    assert_eq!(feed(&mut reader, &frame), [frame]);

    let longer = encode_op_msg(1, 0, Flags::NONE, &document_of(100_000 - 20), &[]);
    reader.buffer()[..16].copy_from_slice(&longer[..16]);
    reader.filled(16);
    assert!(reader.next_frame().is_err());
}

#[test]
fn the_message_limit_stays_within_reason() {
    for (wanted, got) in [(0, 64 << 10), (usize::MAX, 128 << 20), (1 << 20, 1 << 20)] {
        let mut reader = FrameReader::new();
        reader.set_max_message_size(wanted);
        reader.buffer()[..4].copy_from_slice(&i32::MAX.to_le_bytes());
        reader.filled(4);
        assert_eq!(reader.next_frame(), Err(length_error(i32::MAX, got)));
    }
    assert_eq!(DEFAULT_MAX_MESSAGE_SIZE, 48_000_000);
}

#[test]
fn a_reader_told_of_more_than_it_lent_believes_only_what_it_lent() {
    let mut reader = FrameReader::new();
    let lent = reader.buffer().len();
    reader.filled(usize::MAX);
    assert_eq!(reader.pending(), lent);
    assert!(reader.next_frame().is_err(), "zeros are no message");
    assert!(!reader.buffer().is_empty());
}

#[test]
fn a_wrong_checksum_is_refused_and_so_is_a_missing_one() {
    let frame = encode_op_msg(1, 0, Flags::CHECKSUM_PRESENT, &rawdoc! { "ok": 1 }, &[]);
    assert!(Message::decode(&frame).is_ok());
    for position in HEADER_LEN + 4..frame.len() {
        let mut wrong = frame.to_vec();
        wrong[position] ^= 1;
        assert_eq!(
            Message::decode(&wrong.into()),
            Err(WireError::Checksum),
            "{position}"
        );
    }
    for length in HEADER_LEN..HEADER_LEN + 8 {
        let mut short = frame[..length].to_vec();
        set_length(&mut short);
        assert!(
            matches!(Message::decode(&short.into()), Err(WireError::Truncated(_))),
            "{length}"
        );
    }
}

#[test]
fn a_frame_shorter_than_its_parts_is_refused_wherever_it_ends() {
    let document = rawdoc! { "_id": 1 };
    for frame in [
        encode_op_msg(1, 0, Flags::NONE, &rawdoc! { "a": 1 }, &[("docs", &[&document])]),
        encode_op_msg(
            1,
            0,
            Flags::CHECKSUM_PRESENT,
            &rawdoc! { "a": 1 },
            &[("docs", &[&document])],
        ),
        encode_op_query(1, "admin.$cmd", &rawdoc! { "isMaster": 1 }),
        encode_op_reply(1, 2, &rawdoc! { "ok": 1 }),
    ] {
        for length in 0..frame.len() {
            let truncated = frame.slice(..length);
            assert!(Message::decode(&truncated).is_err(), "as it is, {length} bytes");
            let mut honest = truncated.to_vec();
            if length >= 4 {
                set_length(&mut honest);
            }
            // The end of a section is a legal end, if the checksum is none.
            if let Ok(Message::Msg(message)) = Message::decode(&honest.into()) {
                assert!(message.sequences.is_empty());
            }
        }
    }
}

#[test]
fn a_length_that_is_not_the_frames_is_refused() {
    let frame = encode_op_msg(1, 0, Flags::NONE, &rawdoc! { "ok": 1 }, &[]);
    for lie in [0, frame.len() as i32 - 1, frame.len() as i32 + 1, -1] {
        let mut lying = frame.to_vec();
        lying[..4].copy_from_slice(&lie.to_le_bytes());
        assert!(matches!(
            Message::decode(&lying.into()),
            Err(WireError::Malformed(_))
        ));
    }
}

#[test]
fn section_sizes_that_lie_are_refused() {
    let document = rawdoc! { "_id": 1 };
    let honest = sequence("docs", &[&document, &document]);
    let size = honest.len() as i32;
    let body = section(0, rawdoc! { "insert": "c" }.as_bytes());
    for lie in [
        i32::MIN,
        -1,
        0,
        3,
        4,
        8,
        9,
        size - 1,
        size + 1,
        size + 100,
        i32::MAX,
    ] {
        let mut lying = honest.clone();
        lying[..4].copy_from_slice(&lie.to_le_bytes());
        for sections in [[&body, &section(1, &lying)], [&section(1, &lying), &body]] {
            let sections: Vec<&[u8]> = sections.iter().map(|s| &s[..]).collect();
            assert!(Message::decode(&raw_op_msg(0, &sections)).is_err(), "{lie}");
        }
    }
    assert!(Message::decode(&raw_op_msg(0, &[&body, &section(1, &honest)])).is_ok());
}

#[test]
fn document_lengths_that_lie_are_refused() {
    let document = rawdoc! { "ok": 1 };
    let size = document.as_bytes().len() as i32;
    for lie in [i32::MIN, -1, 0, 4, size - 1, size + 1, i32::MAX] {
        let mut lying = document.as_bytes().to_vec();
        lying[..4].copy_from_slice(&lie.to_le_bytes());
        assert!(
            Message::decode(&raw_op_msg(0, &[&section(0, &lying)])).is_err(),
            "{lie}"
        );
    }
    let mut open_ended = document.as_bytes().to_vec();
    *open_ended.last_mut().unwrap() = 1;
    assert!(matches!(
        Message::decode(&raw_op_msg(0, &[&section(0, &open_ended)])),
        Err(WireError::Malformed(_))
    ));
}

#[test]
fn an_op_msg_has_exactly_one_body_and_known_sections() {
    let body = section(0, rawdoc! { "ok": 1 }.as_bytes());
    let sequence = section(1, &sequence("docs", &[]));
    for (sections, reason) in [
        (vec![], "none"),
        (vec![&sequence], "only a sequence"),
        (vec![&body, &body], "two"),
    ] {
        let sections: Vec<&[u8]> = sections.iter().map(|s| &s[..]).collect();
        assert!(
            matches!(
                Message::decode(&raw_op_msg(0, &sections)),
                Err(WireError::Malformed(_))
            ),
            "{reason}"
        );
    }
    for kind in [2, 3, 255] {
        let frame = raw_op_msg(0, &[&body, &section(kind, &[0; 8])]);
        assert_eq!(Message::decode(&frame), Err(WireError::SectionKind(kind)));
    }
}

#[test]
fn unknown_flags_are_refused_below_and_ignored_above_bit_sixteen() {
    let body = section(0, rawdoc! { "ok": 1 }.as_bytes());
    for bit in 0..32 {
        let flags = 1u32 << bit;
        let decoded = Message::decode(&raw_op_msg(flags, &[&body]));
        match bit {
            0 => assert_eq!(decoded, Err(WireError::Checksum)),
            1 | 16.. => assert!(decoded.is_ok(), "bit {bit}"),
            _ => assert_eq!(decoded, Err(WireError::Flags(flags))),
        }
    }
}

#[test]
fn names_that_are_not_utf8_or_never_end_are_refused() {
    let body = section(0, rawdoc! { "ok": 1 }.as_bytes());
    let invalid = section(1, &[&7i32.to_le_bytes()[..], &[0xff, 0xfe, 0]].concat());
    assert!(matches!(
        Message::decode(&raw_op_msg(0, &[&body, &invalid])),
        Err(WireError::Malformed(_))
    ));
    let endless = section(1, &[&7i32.to_le_bytes()[..], b"abc"].concat());
    assert!(matches!(
        Message::decode(&raw_op_msg(0, &[&body, &endless])),
        Err(WireError::Truncated(_))
    ));
}

#[test]
fn a_message_of_countless_tiny_parts_is_refused() {
    let body = section(0, rawdoc! { "ok": 1 }.as_bytes());
    let empty_section = section(1, &sequence("", &[]));
    let sections = empty_section.repeat((1 << 18) + 1);
    assert!(Message::decode(&raw_op_msg(0, &[&body, &sections])).is_err());
    let empty = RawDocumentBuf::new();
    let documents = vec![&empty; 1 << 18];
    let sections = section(1, &sequence("d", &documents));
    assert!(Message::decode(&raw_op_msg(0, &[&body, &sections])).is_err());
    let sections = section(1, &sequence("d", &documents[..100_000]));
    assert!(Message::decode(&raw_op_msg(0, &[&body, &sections])).is_ok());
}

#[test]
fn operations_that_are_not_spoken_are_refused_by_number() {
    let mut frame = encode_op_msg(1, 0, Flags::NONE, &rawdoc! { "ok": 1 }, &[]).to_vec();
    for code in [0, 2, 2001, 2010, 2012, -1] {
        frame[12..16].copy_from_slice(&i32::to_le_bytes(code));
        assert_eq!(
            Message::decode(&frame.clone().into()),
            Err(WireError::OpCode(code))
        );
    }
}

#[test]
fn an_op_reply_without_documents_is_refused() {
    let frame = encode_op_reply(1, 2, &rawdoc! { "ok": 1 });
    for count in [0, -1, i32::MIN] {
        let mut lying = frame.to_vec();
        lying[32..36].copy_from_slice(&i32::to_le_bytes(count));
        assert!(matches!(
            Message::decode(&lying.into()),
            Err(WireError::Malformed(_))
        ));
    }
}

#[test]
fn mangled_messages_never_panic_and_never_grow() {
    let mut random = Random::new([42; 32]);
    let (_, frames) = three_messages();
    for round in 0..60_000 {
        let mut bytes = frames[round % frames.len()].to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.next_u64() as u8,
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, random.next_u64() as u8),
                _ => {
                    let value = [0, 1, -1, i32::MAX, i32::MIN, 5][random.below(6)];
                    for (to, from) in bytes[at..].iter_mut().zip(value.to_le_bytes()) {
                        *to = from;
                    }
                }
            }
        }
        if random.below(2) == 0 && bytes.len() >= 4 {
            set_length(&mut bytes);
        }
        let bytes = Bytes::from(bytes);
        if let Ok(Message::Msg(message)) = Message::decode(&bytes) {
            let held: usize = message
                .sequences
                .iter()
                .flat_map(|s| &s.documents)
                .map(Bytes::len)
                .sum();
            assert!(message.body.len() + held < bytes.len());
        }
        let mut reader = FrameReader::new();
        reader.set_max_message_size(1 << 16);
        let lent = reader.buffer();
        let len = bytes.len().min(lent.len());
        lent[..len].copy_from_slice(&bytes[..len]);
        reader.filled(len);
        while let Ok(Some(frame)) = reader.next_frame() {
            let _ = Message::decode(&frame);
        }
        assert!(reader.buffer().len() <= 1 << 16);
    }
}

#[test]
fn wire_errors_say_what_is_wrong() {
    let http = Bytes::from_static(b"HTTP/1.1 400 Bad Request");
    let mut reader = FrameReader::new();
    reader.buffer()[..http.len()].copy_from_slice(&http);
    reader.filled(http.len());
    let error = reader.next_frame().unwrap_err().to_string();
    assert!(error.contains("is this a MongoDB server?"), "{error}");
    assert!(WireError::Flags(4).to_string().contains("0x4"));
}

fn op_msg(frame: &Bytes) -> OpMsg {
    match Message::decode(frame).unwrap() {
        Message::Msg(message) => message,
        other => panic!("not an OP_MSG: {other:?}"),
    }
}

fn feed(reader: &mut FrameReader, mut bytes: &[u8]) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let lent = reader.buffer();
        let len = bytes.len().min(lent.len());
        lent[..len].copy_from_slice(&bytes[..len]);
        bytes = &bytes[len..];
        reader.filled(len);
        while let Some(frame) = reader.next_frame().unwrap() {
            frames.push(frame);
        }
    }
    frames
}

fn three_messages() -> (Vec<u8>, Vec<Bytes>) {
    let documents = [rawdoc! { "_id": 1 }, rawdoc! { "_id": 2 }];
    let documents = documents.each_ref().map(|d| &**d);
    let frames = vec![
        encode_op_reply(1, 2, &rawdoc! { "ok": 1, "helloOk": true }),
        encode_op_msg(
            3,
            4,
            Flags::CHECKSUM_PRESENT,
            &rawdoc! { "ok": 1 },
            &[("docs", &documents)],
        ),
        encode_op_msg(5, 6, Flags::MORE_TO_COME, &document_of(5000), &[]),
    ];
    (frames.concat(), frames)
}

/// A document of exactly that many bytes.
fn document_of(len: usize) -> RawDocumentBuf {
    let text = "x".repeat(len - rawdoc! { "t": "" }.as_bytes().len());
    let document = rawdoc! { "t": text };
    assert_eq!(document.as_bytes().len(), len);
    document
}

fn raw_op_msg(flags: u32, sections: &[&[u8]]) -> Bytes {
    let mut frame = vec![0; 12];
    frame.extend(2013i32.to_le_bytes());
    frame.extend(flags.to_le_bytes());
    frame.extend(sections.concat());
    set_length(&mut frame);
    frame.into()
}

fn section(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind], payload].concat()
}

fn sequence(name: &str, documents: &[&RawDocumentBuf]) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend(name.as_bytes());
    out.push(0);
    for document in documents {
        out.extend(document.as_bytes());
    }
    set_length(&mut out);
    out
}

fn set_length(bytes: &mut [u8]) {
    let len = bytes.len() as i32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
}

fn length_error(declared: i32, max: usize) -> WireError {
    let mut reader = FrameReader::new();
    reader.set_max_message_size(max);
    reader.buffer()[..4].copy_from_slice(&declared.to_le_bytes());
    reader.filled(4);
    let error = reader.next_frame().unwrap_err();
    let WireError::Length {
        declared: d, max: m, ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((d, m), (declared, max));
    error
}
