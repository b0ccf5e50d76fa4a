//! How fast one bare reader gets the change events of a prepared log over the loopback: `throughput [MEGABYTES]`.
//!
//! The log holds so many megabytes of events (128 by default) for each size of document. The reader opens a change
//! stream at the log's start, plain or with a pipeline, expanded events or images, and sends getMore after getMore;
//! replies are framed and thrown away. Of several passes the best and the median are told; a first pass, in which
//! events with wishes are encoded, is not among them.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "an example talks to its user, is a client, and measures time"
)]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bson::raw::RawDocumentBuf;
use bson::{Document, RawDocument, Timestamp, doc};
use bytes::Bytes;
use changestream_core::wire::{Flags, FrameReader, Message, encode_op_msg};
use changestream_sim::Deployment;

fn main() -> io::Result<()> {
    let megabytes = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(128);
    for size in [313, 1_400, 16 << 10] {
        for kind in [
            Kind::Plain,
            Kind::Match,
            Kind::Project,
            Kind::Expanded,
            Kind::Images,
        ] {
            measure(kind, size, megabytes << 20)?;
        }
    }
    Ok(())
}

/// What is asked of the stream.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Plain,
    /// A `$match` that all events pass.
    Match,
    /// A `$project` of a few fields, the document among them.
    Project,
    /// Expanded events.
    Expanded,
    /// Updates with their post-images.
    Images,
}

impl Kind {
    fn pipeline(self, start: Timestamp) -> Vec<Document> {
        let mut options = doc! { "startAtOperationTime": start };
        let mut pipeline = Vec::new();
        match self {
            Self::Plain => {}
            Self::Match => {
                pipeline.push(
                    doc! { "$match": { "operationType": "insert", "fullDocument.amount": { "$gte": 0 } } },
                );
            }
            Self::Project => pipeline.push(doc! { "$project": { "operationType": 1, "fullDocument": 1 } }),
            Self::Expanded => drop(options.insert("showExpandedEvents", true)),
            Self::Images => drop(options.insert("fullDocument", "required")),
        }
        pipeline.insert(0, doc! { "$changeStream": options });
        pipeline
    }
}

fn measure(kind: Kind, size: usize, total: usize) -> io::Result<()> {
    let count = total / (size + EVENT_OVERHEAD);
    let deployment = Deployment::replica_set(1).server_version("8.0").start()?;
    let mut client = Client::connect(&deployment.address(0).unwrap_or_default())?;
    let start = client.prepare(kind, size, count)?;
    let mut passes = Vec::new();
    let mut get_mores = None;
    for _ in 0..=PASSES {
        let cursor = client.watch(&kind.pipeline(start))?;
        match get_mores {
            // The first pass counts, for the others to know when they are through.
            None => get_mores = Some(client.count(cursor, count)?),
            Some(get_mores) => passes.push(client.discard(cursor, get_mores)?),
        }
    }
    passes.sort_by_key(|pass| pass.time);
    let tell = |pass: &Pass| {
        let seconds = pass.time.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (megabytes, events) = (pass.bytes as f64 / 1e6 / seconds, count as f64 / seconds);
        format!("{megabytes:6.0} MB/s, {events:9.0} events/s")
    };
    let (Some(best), Some(median)) = (passes.first(), passes.get(passes.len() / 2)) else {
        return Ok(());
    };
    println!(
        "{size:6} bytes a document, {count:7} events, {:9} best {}; median {}",
        format!("{kind:?}:"),
        tell(best),
        tell(median)
    );
    Ok(())
}

/// One reading of the log.
struct Pass {
    time: Duration,
    bytes: usize,
}

struct Client {
    stream: TcpStream,
    /// What came of replies.
    reader: FrameReader,
}

impl Client {
    fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            reader: FrameReader::new(),
        })
    }

    /// Inserts documents of this many bytes, or updates one; the moment of the first.
    fn prepare(&mut self, kind: Kind, size: usize, count: usize) -> io::Result<Timestamp> {
        let images = doc! { "enabled": kind == Kind::Images };
        let mut created =
            self.run(doc! { "create": "c", "changeStreamPreAndPostImages": images, "$db": "db" })?;
        if kind == Kind::Images {
            created = self.run(doc! { "insert": "c", "documents": [document(0, size)], "$db": "db" })?;
        }
        // After what has been written so far.
        let next = |last: Timestamp| Timestamp {
            increment: last.increment + 1,
            ..last
        };
        let start = next(created.get_timestamp("operationTime").map_err(io::Error::other)?);
        let ids: Vec<i32> = (0..i32::try_from(count).unwrap_or(i32::MAX)).collect();
        for ids in ids.chunks(500) {
            if kind == Kind::Images {
                let update = |id: &i32| doc! { "q": { "_id": 0 }, "u": { "$set": { "n": id } } };
                let updates: Vec<Document> = ids.iter().map(update).collect();
                self.run(doc! { "update": "c", "updates": updates, "$db": "db" })?;
                continue;
            }
            let documents: Vec<Document> = ids.iter().map(|id| document(*id, size)).collect();
            self.run(doc! { "insert": "c", "documents": documents, "$db": "db" })?;
        }
        Ok(start)
    }

    fn watch(&mut self, pipeline: &[Document]) -> io::Result<i64> {
        let reply = self.run(doc! {
            "aggregate": "c",
            "pipeline": pipeline,
            "cursor": { "batchSize": 0 },
            "$db": "db",
        })?;
        let cursor = reply.get_document("cursor").map_err(io::Error::other)?;
        cursor.get_i64("id").map_err(io::Error::other)
    }

    /// Reads all events, and tells how many getMores that takes.
    fn count(&mut self, cursor: i64, expected: usize) -> io::Result<usize> {
        let (mut events, mut get_mores) = (0, 0);
        while events < expected {
            let bytes = self.reply(&get_more(cursor))?;
            let Ok(Message::Msg(reply)) = Message::decode(&bytes) else {
                return Err(io::Error::other("no OP_MSG"));
            };
            let body = RawDocument::from_bytes(&reply.body).map_err(io::Error::other)?;
            let cursor = body.get_document("cursor").map_err(io::Error::other)?;
            let batch = cursor.get_array("nextBatch").map_err(io::Error::other)?;
            events += batch.into_iter().count();
            get_mores += 1;
        }
        if events > expected {
            return Err(io::Error::other("more events than documents"));
        }
        Ok(get_mores)
    }

    /// Reads all events and looks at none.
    fn discard(&mut self, cursor: i64, get_mores: usize) -> io::Result<Pass> {
        let request = get_more(cursor);
        let mut buffer = vec![0; 1 << 20];
        let (begun, mut bytes) = (Instant::now(), 0);
        for _ in 0..get_mores {
            self.stream.write_all(&request)?;
            let mut length = [0; 4];
            self.stream.read_exact(&mut length)?;
            let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
            bytes += length;
            let mut left = length - 4;
            while left > 0 {
                let wanted = left.min(buffer.len());
                let space = buffer.get_mut(..wanted).unwrap_or_default();
                match self.stream.read(space)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => left -= n,
                }
            }
        }
        Ok(Pass {
            time: begun.elapsed(),
            bytes,
        })
    }

    fn run(&mut self, command: Document) -> io::Result<Document> {
        let bytes = self.reply(&encode(&command))?;
        let Ok(Message::Msg(reply)) = Message::decode(&bytes) else {
            return Err(io::Error::other("no OP_MSG"));
        };
        let reply = Document::from_reader(&mut &reply.body[..]).map_err(io::Error::other)?;
        if reply.get_f64("ok").is_ok_and(|ok| ok == 1.0) {
            return Ok(reply);
        }
        Err(io::Error::other(reply.to_string()))
    }

    fn reply(&mut self, request: &[u8]) -> io::Result<Bytes> {
        self.stream.write_all(request)?;
        loop {
            if let Some(frame) = self.reader.next_frame().map_err(io::Error::other)? {
                return Ok(frame);
            }
            let n = self.stream.read(self.reader.buffer())?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.reader.filled(n);
        }
    }
}

fn get_more(cursor: i64) -> Bytes {
    encode(&doc! { "getMore": cursor, "collection": "c", "$db": "db" })
}

fn encode(command: &Document) -> Bytes {
    let body = RawDocumentBuf::try_from(command).unwrap_or_default();
    encode_op_msg(1, 0, Flags::NONE, &body, &[])
}

/// A document of this many bytes, with numbers and texts as orders have them.
fn document(id: i32, size: usize) -> Document {
    let mut document =
        doc! { "_id": id, "amount": 12.5 * f64::from(id), "open": id % 2 == 0, "tags": ["a", "b"] };
    let mut line = 0;
    loop {
        let used = document.to_vec().map_or(size, |bytes| bytes.len());
        // A text takes its type, its key with a NUL, its length and a NUL.
        let name = format!("line{line}");
        let room = size.saturating_sub(used + name.len() + 7);
        if room == 0 {
            return document;
        }
        let length = if room < 200 { room } else { 100 };
        document.insert(name, "x".repeat(length));
        line += 1;
    }
}

const PASSES: usize = 9;
/// What an event has besides its document, about.
const EVENT_OVERHEAD: usize = 330;
