//! Bare loops that mark what nothing can be faster than.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use bson::{RawDocumentBuf, rawdoc};

use crate::report::Report;
use crate::wire::{self, BODY, HEADER};

/// What a loop does with the events of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Steps over them.
    Step,
    /// Reads each one's `documentKey._id`.
    Touch,
    /// Steps over them as they arrive, through a buffer that never holds a whole reply.
    Stream,
}

/// Reads that many events from a replaying server, and reports.
///
/// # Errors
/// The connection fails.
pub fn run(address: &str, kind: Kind, events: u64, latency: bool) -> io::Result<String> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    read(socket, None, kind, events, latency)
}

/// What makes a message of one that is compressed, in that memory; its length.
pub(crate) type Inflate<'a> = &'a mut dyn FnMut(&[u8], &mut Vec<u8>) -> io::Result<usize>;

/// The same over that socket.
pub(crate) fn read<S: Read + Write>(
    mut socket: S,
    mut inflate: Option<Inflate<'_>>,
    kind: Kind,
    events: u64,
    latency: bool,
) -> io::Result<String> {
    let mut reply = Vec::new();
    let request = open(&mut socket, &mut reply)?;
    let mut report = Report::new(match kind {
        Kind::Step => "limit",
        Kind::Touch => "limit-touch",
        Kind::Stream => "limit-stream",
    });
    if kind == Kind::Stream {
        stream(&mut socket, &request, events, &mut report)?;
        return Ok(report.finish());
    }
    let mut inflated = Vec::new();
    while report.events() < events {
        socket.write_all(&request)?;
        let len = read_reply(&mut socket, &mut reply)?;
        let message = match &mut inflate {
            None => &reply[..len],
            Some(inflate) => {
                let len = inflate(&reply[..len], &mut inflated)?;
                &inflated[..len]
            }
        };
        walk(message, kind, events, latency, &mut report);
    }
    Ok(report.finish())
}

/// Opens a cursor; the request for its batches.
pub(crate) fn open(socket: &mut (impl Read + Write), reply: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    ask(socket, &rawdoc! { "hello": 1, "$db": "admin" })?;
    read_reply(socket, reply)?;
    let stage = rawdoc! { "$changeStream": {} };
    ask(
        socket,
        &rawdoc! { "aggregate": "events", "pipeline": [stage], "cursor": {}, "$db": "bench" },
    )?;
    read_reply(socket, reply)?;
    let body = rawdoc! { "getMore": 7_000_000_007_i64, "collection": "events", "$db": "bench" };
    Ok(wire::op_msg(1, 0, &body))
}

fn ask(socket: &mut impl Write, body: &RawDocumentBuf) -> io::Result<()> {
    socket.write_all(&wire::op_msg(1, 0, body))
}

/// The reply's length; the buffer never shrinks.
pub(crate) fn read_reply(socket: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut header = [0; HEADER];
    socket.read_exact(&mut header)?;
    let len = wire::len(&header, 0);
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    buffer[..HEADER].copy_from_slice(&header);
    socket.read_exact(&mut buffer[HEADER..len])?;
    Ok(len)
}

/// The prepared replies have `cursor.nextBatch` first.
pub(crate) fn walk(reply: &[u8], kind: Kind, most: u64, latency: bool, report: &mut Report) {
    let mut at = FIRST_EVENT;
    while reply.get(at) == Some(&3) && report.events() < most {
        at += 1;
        while reply[at] != 0 {
            at += 1;
        }
        at += 1;
        let len = wire::len(reply, at);
        let event = &reply[at..at + len];
        let tail = (kind == Kind::Touch).then(|| key_tail(event)).flatten();
        report.event(len, tail);
        if latency && let Some(sent) = sent_ns(event) {
            report.sent(sent);
        }
        at += len;
    }
}

fn key_tail(event: &[u8]) -> Option<[u8; 4]> {
    let key = field(event, b"documentKey")?;
    let id = field(key, b"_id")?;
    id.get(8..12)?.try_into().ok()
}

fn sent_ns(event: &[u8]) -> Option<i64> {
    let document = field(event, b"fullDocument")?;
    Some(i64::from_le_bytes(
        field(document, b"sentNs")?.get(..8)?.try_into().ok()?,
    ))
}

/// The bytes from the value of that field on.
fn field<'a>(document: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut at = 4;
    loop {
        let kind = *document.get(at)?;
        let key = at + 1;
        let mut end = key;
        while *document.get(end)? != 0 {
            end += 1;
        }
        let value = end + 1;
        if &document[key..end] == name {
            return document.get(value..);
        }
        at = value
            + match kind {
                1 | 9 | 17 | 18 => 8,
                2 => 4 + wire::len(document, value),
                3 | 4 => wire::len(document, value),
                7 => 12,
                8 => 1,
                10 => 0,
                16 => 4,
                _ => return None,
            };
    }
}

/// Length of the body, `cursor` and its length, `nextBatch` and its length.
const FIRST_EVENT: usize = BODY + 4 + 8 + 4 + 11 + 4;

/// Reads through a buffer, one request after the other, and steps over events as they come.
fn stream<S: Read + Write>(socket: &mut S, request: &[u8], most: u64, report: &mut Report) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    while report.events() < most {
        socket.write_all(request)?;
        let (mut from, mut to) = (0, socket.read(&mut buffer)?);
        while to < FIRST_EVENT {
            to += socket.read(&mut buffer[to..])?;
        }
        let total = wire::len(&buffer, 0);
        let mut passed = FIRST_EVENT;
        from += FIRST_EVENT;
        let mut in_batch = true;
        while passed < total {
            while in_batch {
                let Some(len) = complete(&buffer[from..to]) else {
                    break;
                };
                if len == 0 {
                    in_batch = false;
                    break;
                }
                report.event(len - 4, None);
                from += len;
                passed += len;
            }
            if !in_batch {
                let rest = (to - from).min(total - passed);
                from += rest;
                passed += rest;
            }
            if passed < total {
                buffer.copy_within(from..to, 0);
                (from, to) = (0, to - from);
                let read = socket.read(&mut buffer[to..])?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                to += read;
            }
        }
    }
    Ok(())
}

/// How long the element is that starts here: 0 at the array's end, none if it is not all there.
fn complete(bytes: &[u8]) -> Option<usize> {
    if *bytes.first()? != 3 {
        return Some(0);
    }
    let key = bytes.iter().position(|b| *b == 0)?;
    let start = key + 1;
    bytes.get(start..start + 4)?;
    let end = start + wire::len(bytes, start);
    (end <= bytes.len()).then_some(end)
}
