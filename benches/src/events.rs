//! Prepared events and batches.

use bson::oid::ObjectId;
use bson::raw::{RawArrayBuf, RawDocumentBuf, cstr};
use bson::{Timestamp, rawdoc};

use crate::wire;

/// What every event of a run looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An insert whose event has that many bytes, or as few as are possible.
    Insert(usize),
    /// An update of two fields, without the document.
    Update,
}

impl Shape {
    /// From `insert:BYTES` or `update`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            Some(("insert", size)) => size.parse().ok().map(Self::Insert),
            None if text == "update" => Some(Self::Update),
            _ => None,
        }
    }

    /// The event of that number.
    pub fn event(self, number: u32) -> RawDocumentBuf {
        match self {
            Self::Insert(size) => {
                let least = insert(number, 0, 0).as_bytes().len();
                let room = size.saturating_sub(least);
                // Fields of a usual size, and a rest that makes it fit.
                let fields = room / FIELD;
                let rest = room - fields * FIELD;
                insert(number, u32::try_from(fields).unwrap_or(0), rest)
            }
            Self::Update => update(number),
        }
    }
}

/// Bytes that one further field of a document takes: type, name of eight bytes, a string of 86 with its length.
const FIELD: usize = 1 + 9 + 4 + 87;

/// Letters as compressible as words are: some of few words, one after the other.
fn text(seed: u32, len: usize) -> String {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut text = String::with_capacity(len + 12);
    while text.len() < len {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        text += WORDS[(state >> 8) as usize % WORDS.len()];
        text.push_str(&(state % 100).to_string());
        text.push(' ');
    }
    text.truncate(len);
    text
}

const WORDS: [&str; 16] = [
    "order",
    "shipped",
    "street",
    "customer",
    "amount",
    "warehouse",
    "north",
    "pending",
    "total",
    "item",
    "blue",
    "return",
    "invoice",
    "number",
    "carrier",
    "paid",
];

fn insert(number: u32, fields: u32, rest: usize) -> RawDocumentBuf {
    let mut document = rawdoc! { "_id": key(number), "sentNs": 0_i64 };
    for index in 0..fields {
        let name = format!("field{index:03}");
        if let Ok(name) = bson::raw::CString::try_from(name.as_str()) {
            document.append(&name, text(number.wrapping_mul(1 << 10) | index, 86));
        }
    }
    document.append(cstr!("pad"), text(number, rest));
    rawdoc! {
        "_id": { "_data": token(number) },
        "operationType": "insert",
        "clusterTime": time(number),
        "fullDocument": document,
        "ns": { "db": "bench", "coll": "events" },
        "documentKey": { "_id": key(number) },
    }
}

fn update(number: u32) -> RawDocumentBuf {
    rawdoc! {
        "_id": { "_data": token(number) },
        "operationType": "update",
        "clusterTime": time(number),
        "ns": { "db": "bench", "coll": "events" },
        "documentKey": { "_id": key(number) },
        "updateDescription": {
            "updatedFields": { "status": "shipped", "total": 12_i32, "when": bson::DateTime::from_millis(i64::from(number)) },
            "removedFields": ["cart"],
            "truncatedArrays": [],
        },
    }
}

fn key(number: u32) -> ObjectId {
    let mut bytes = [0x6b; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

fn time(number: u32) -> Timestamp {
    Timestamp {
        time: 1_800_000_000,
        increment: number,
    }
}

/// Of the length that a replica set's tokens have.
fn token(number: u32) -> String {
    format!("826B4A2700{number:08X}2B022C0100296E5A1004B718C387BFEF4941A52B864C44A77628461E5F696400")
}

/// A whole reply to a getMore, and where in it what differs each time stands.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The message.
    pub frame: Vec<u8>,
    /// Where its cursor id stands.
    pub cursor_id: usize,
    /// Where the first event's `sentNs` stands, if it has one.
    pub sent_ns: Option<usize>,
    /// Whether it can be patched beyond the header.
    pub is_plain: bool,
}

impl Prepared {
    /// A reply with that many events.
    pub fn batch(shape: Shape, events: u32) -> Self {
        let mut array = RawArrayBuf::new();
        for number in 0..events {
            array.push(shape.event(number));
        }
        let last = events.saturating_sub(1);
        let mut cursor = RawDocumentBuf::new();
        cursor.append(cstr!("nextBatch"), array);
        cursor.append(cstr!("postBatchResumeToken"), rawdoc! { "_data": token(last) });
        cursor.append(cstr!("id"), CURSOR_MARK);
        cursor.append(cstr!("ns"), "bench.events");
        let body = rawdoc! {
            "cursor": cursor,
            "ok": 1.0,
            "$clusterTime": { "clusterTime": time(last), "signature": { "keyId": 0_i64 } },
            "operationTime": time(last),
        };
        let frame = wire::op_msg(0, 0, &body);
        let cursor_id = rfind(&frame, &CURSOR_MARK.to_le_bytes()).unwrap_or(0);
        let sent_ns = find(&frame, b"\x12sentNs\0").map(|at| at + 8);
        Self {
            frame,
            cursor_id,
            sent_ns,
            is_plain: true,
        }
    }

    /// The same reply, compressed, of that cursor.
    ///
    /// # Errors
    /// The codec fails.
    #[cfg(feature = "layers")]
    pub fn compressed(mut self, codec: crate::codec::Codec, cursor: i64) -> std::io::Result<Self> {
        if let Some(place) = self.frame.get_mut(self.cursor_id..self.cursor_id + 8) {
            place.copy_from_slice(&cursor.to_le_bytes());
        }
        Ok(Self {
            frame: codec.compress(&self.frame)?,
            cursor_id: 0,
            sent_ns: None,
            is_plain: false,
        })
    }
}

/// What stands for the cursor's id in a prepared reply.
const CURSOR_MARK: i64 = 0x0123_4567_89ab_cdef;

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn rfind(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .rposition(|window| window == needle)
}
