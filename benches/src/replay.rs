//! A server that replays prepared batches.
//!
//! It says hello as the primary of a replica set, opens a cursor for each aggregate, and answers each getMore with the
//! one batch that it has prepared: two numbers are patched, and the bytes are sent as they are.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bson::{RawDocument, RawDocumentBuf, Timestamp, rawdoc};

use crate::clock;
use crate::events::{Prepared, Shape};
use crate::wire::{self, BODY, HEADER};

/// What the server does with a getMore.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What events look like.
    pub shape: Shape,
    /// Events in a batch. With none a getMore is answered, without events, when its await time is over.
    pub batch: u32,
    /// How long the server takes before it sends a batch.
    pub think: Duration,
    /// How many members the replica set has. All but the server itself are nowhere.
    pub members: u16,
    /// Whether the server goes on by itself where a getMore allows it. Without a codec only.
    pub exhaust: bool,
    /// What lies between its messages and the socket.
    pub layer: Layer,
}

/// What lies between the server's messages and the socket.
#[derive(Clone, Debug)]
pub enum Layer {
    /// Nothing.
    Plain,
    /// TLS.
    #[cfg(feature = "layers")]
    Tls(Arc<rustls::ServerConfig>),
    /// Batches are compressed, whether the client understands that or not.
    #[cfg(feature = "layers")]
    Codec(crate::codec::Codec),
}

/// Serves on that socket until the process ends. Each connection has a thread.
///
/// # Errors
/// The socket cannot be listened on.
pub fn serve(listener: &TcpListener, settings: Settings) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let prepared = Prepared::batch(settings.shape, settings.batch);
    #[cfg(feature = "layers")]
    let prepared = match &settings.layer {
        Layer::Codec(codec) => prepared.compressed(*codec, CURSOR)?,
        Layer::Plain | Layer::Tls(_) => prepared,
    };
    let shared = Arc::new((settings, prepared, port));
    for socket in listener.incoming() {
        let shared = shared.clone();
        let socket = socket?;
        thread::Builder::new().stack_size(STACK).spawn(move || {
            let (settings, prepared, port) = &*shared;
            // A client that is gone is the usual end.
            let _ = converse(socket, settings, prepared, *port);
        })?;
    }
    Ok(())
}

fn converse(socket: TcpStream, settings: &Settings, prepared: &Prepared, port: u16) -> io::Result<()> {
    socket.set_nodelay(true)?;
    #[cfg(feature = "layers")]
    if let Layer::Tls(config) = &settings.layer {
        let socket = crate::tls::accept(config, socket)?;
        return Conversation::new(socket, settings, prepared, port).hold();
    }
    Conversation::new(socket, settings, prepared, port).hold()
}

struct Conversation<'s, S> {
    socket: S,
    settings: &'s Settings,
    frame: Vec<u8>,
    prepared: &'s Prepared,
    port: u16,
    request: Vec<u8>,
}

impl<'s, S: Read + Write> Conversation<'s, S> {
    fn new(socket: S, settings: &'s Settings, prepared: &'s Prepared, port: u16) -> Self {
        Self {
            socket,
            settings,
            frame: Vec::new(),
            prepared,
            port,
            request: Vec::new(),
        }
    }

    fn hold(mut self) -> io::Result<()> {
        loop {
            self.receive()?;
            let request_id = wire::int(&self.request, 4);
            if wire::int(&self.request, 12) == wire::OP_QUERY {
                let reply = wire::op_reply(request_id, &self.hello());
                self.socket.write_all(&reply)?;
                continue;
            }
            let flags = wire::int(&self.request, HEADER);
            let Ok(command) = RawDocument::from_bytes(self.request.get(BODY..).unwrap_or_default()) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            let name = command.iter_elements().next().and_then(Result::ok);
            let reply = match name.map_or("", |element| element.key().as_str()) {
                "hello" | "isMaster" | "ismaster" => self.hello(),
                "aggregate" => cursor_reply(rawdoc! { "firstBatch": [], "id": CURSOR, "ns": "bench.events" }),
                "getMore" => {
                    let cursor = command.get_i64("getMore").unwrap_or(CURSOR);
                    let patience = command.get_i64("maxTimeMS").map_or(1000, i64::unsigned_abs);
                    self.get_more(request_id, cursor, patience, flags & EXHAUST_ALLOWED != 0)?;
                    continue;
                }
                _ => rawdoc! { "ok": 1.0 },
            };
            self.socket.write_all(&wire::op_msg(0, request_id, &reply))?;
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        self.request.resize(HEADER, 0);
        self.socket.read_exact(&mut self.request)?;
        let len = wire::len(&self.request, 0).clamp(HEADER, MOST_REQUEST);
        self.request.resize(len, 0);
        self.socket
            .read_exact(self.request.get_mut(HEADER..).unwrap_or_default())?;
        #[cfg(feature = "layers")]
        if let Layer::Codec(codec) = &self.settings.layer
            && wire::int(&self.request, 12) == wire::OP_COMPRESSED
        {
            let numbers = self.request.get(..HEADER).unwrap_or_default().to_vec();
            let mut inflated = Vec::new();
            codec.inflater()?.inflate(&self.request, &mut inflated)?;
            inflated[..HEADER].copy_from_slice(&numbers);
            patch(&mut inflated, 12, &wire::OP_MSG.to_le_bytes());
            self.request = inflated;
        }
        Ok(())
    }

    fn get_more(&mut self, request_id: i32, cursor: i64, patience: u64, exhaust: bool) -> io::Result<()> {
        if self.settings.batch == 0 {
            thread::sleep(Duration::from_millis(patience));
            let token = rawdoc! { "_data": "826B4A270000000000" };
            let cursor = rawdoc! { "nextBatch": [], "postBatchResumeToken": token, "id": cursor, "ns": "bench.events" };
            let reply = wire::op_msg(0, request_id, &cursor_reply(cursor));
            return self.socket.write_all(&reply);
        }
        if self.frame.is_empty() {
            self.frame.clone_from(&self.prepared.frame);
        }
        let more = exhaust && self.settings.exhaust && self.prepared.is_plain;
        let mut answers = request_id;
        let mut number = 1_i32;
        loop {
            if !self.settings.think.is_zero() {
                thread::sleep(self.settings.think);
            }
            patch(&mut self.frame, 4, &number.to_le_bytes());
            patch(&mut self.frame, 8, &answers.to_le_bytes());
            if self.prepared.is_plain {
                let flags = if more { MORE_TO_COME } else { 0 };
                patch(&mut self.frame, HEADER, &flags.to_le_bytes());
                patch(&mut self.frame, self.prepared.cursor_id, &cursor.to_le_bytes());
            }
            if let Some(at) = self.prepared.sent_ns {
                patch(&mut self.frame, at, &clock::monotonic_ns().to_le_bytes());
            }
            self.socket.write_all(&self.frame)?;
            if !more {
                return Ok(());
            }
            answers = number;
            number = number.wrapping_add(1);
        }
    }

    fn hello(&self) -> RawDocumentBuf {
        let me = format!("127.0.0.1:{}", self.port);
        let mut hosts = bson::raw::RawArrayBuf::new();
        hosts.push(me.as_str());
        for other in 1..self.settings.members {
            hosts.push(format!("127.0.0.1:{other}"));
        }
        let codec: Option<&str> = match &self.settings.layer {
            Layer::Plain => None,
            #[cfg(feature = "layers")]
            Layer::Tls(_) => None,
            #[cfg(feature = "layers")]
            Layer::Codec(codec) => Some(codec.name()),
        };
        let compression: bson::raw::RawArrayBuf = codec.into_iter().collect();
        rawdoc! {
            "compression": compression,
            "helloOk": true,
            "ismaster": true,
            "isWritablePrimary": true,
            "secondary": false,
            "setName": "rs0",
            "setVersion": 1,
            "hosts": hosts,
            "primary": me.as_str(),
            "me": me.as_str(),
            "maxBsonObjectSize": 16_777_216,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
            "logicalSessionTimeoutMinutes": 30,
            "minWireVersion": 0,
            "maxWireVersion": 21,
            "readOnly": false,
            "ok": 1.0,
        }
    }
}

fn cursor_reply(cursor: RawDocumentBuf) -> RawDocumentBuf {
    let time = Timestamp {
        time: 1_800_000_000,
        increment: 0,
    };
    rawdoc! { "cursor": cursor, "ok": 1.0, "operationTime": time }
}

fn patch(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

const CURSOR: i64 = 7_000_000_007;
const EXHAUST_ALLOWED: i32 = 1 << 16;
const MORE_TO_COME: i32 = 1 << 1;
const MOST_REQUEST: usize = 1 << 20;
/// A thousand connections are a thousand stacks.
const STACK: usize = 128 << 10;
