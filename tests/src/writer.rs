//! Writes to a running deployment, over a connection of its own.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use bson::{Document, RawDocumentBuf, doc};
use changestream_core::wire::{Flags, FrameReader, Message, encode_op_msg};
use changestream_sim::RunningDeployment;

/// Inserts `{_id: n}` for each number, one by one, at whichever member is primary, until a majority has each. An
/// insert whose fate an election leaves open is repeated: its `_id` keeps it from being done twice.
pub fn insert(
    deployment: &RunningDeployment,
    db: &str,
    collection: &str,
    ids: impl IntoIterator<Item = i32>,
) {
    let mut wire = None;
    for id in ids {
        let command = doc! {
            "insert": collection,
            "documents": [{ "_id": id }],
            "writeConcern": { "w": "majority" },
            "$db": db,
        };
        while !is_done(&run_at_primary(deployment, &mut wire, &command)) {
            wire = None;
            // Until there is a primary again: the deployment elects one by itself.
            thread::yield_now();
        }
    }
}

/// Runs a command at the primary, which must succeed.
///
/// # Panics
/// When it fails.
pub fn run(deployment: &RunningDeployment, command: &Document) -> Document {
    let reply = run_at_primary(deployment, &mut None, command).expect("the primary answers");
    assert!(is_ok(&reply), "{command}: {reply}");
    reply
}

/// A guarded deployment knows its writer without a proof.
fn log_in(deployment: &RunningDeployment, socket: &TcpStream) -> io::Result<()> {
    if !deployment.with(|d, _| d.is_guarded()) {
        return Ok(());
    }
    let from = socket.local_addr()?;
    let connection = loop {
        match deployment.connection_from(from) {
            Some(connection) => break connection,
            None => thread::yield_now(),
        }
    };
    deployment.with(|d, _| d.log_in(connection, "writer"));
    Ok(())
}

fn is_done(reply: &io::Result<Document>) -> bool {
    let Ok(reply) = reply else { return false };
    let inserted = reply.get_i32("n").is_ok_and(|n| n == 1) && !reply.contains_key("writeConcernError");
    is_ok(reply) && (inserted || is_duplicate(reply))
}

fn is_ok(reply: &Document) -> bool {
    reply.get_f64("ok").is_ok_and(|ok| ok > 0.0)
}

fn is_duplicate(reply: &Document) -> bool {
    let errors = reply
        .get_array("writeErrors")
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut codes = errors
        .iter()
        .filter_map(|error| error.as_document()?.get_i32("code").ok());
    codes.any(|code| code == DUPLICATE_KEY)
}

fn run_at_primary(
    deployment: &RunningDeployment,
    wire: &mut Option<TcpStream>,
    command: &Document,
) -> io::Result<Document> {
    let socket = match wire {
        Some(socket) => socket,
        None => {
            let address = deployment
                .primary()
                .and_then(|primary| deployment.address(primary));
            let address = address.ok_or_else(|| io::Error::other("there is no primary"))?;
            let socket = TcpStream::connect(address)?;
            log_in(deployment, &socket)?;
            wire.insert(socket)
        }
    };
    let body = RawDocumentBuf::try_from(command).map_err(io::Error::other)?;
    let id = NEXT_REQUEST.fetch_add(1, Ordering::Relaxed);
    socket.set_nodelay(true)?;
    socket.write_all(&encode_op_msg(id, 0, Flags::NONE, &body, &[]))?;
    read_reply(socket)
}

fn read_reply(socket: &mut TcpStream) -> io::Result<Document> {
    let mut frames = FrameReader::new();
    loop {
        if let Some(frame) = frames.next_frame().map_err(io::Error::other)? {
            let Message::Msg(message) = Message::decode(&frame).map_err(io::Error::other)? else {
                return Err(io::Error::other("the reply is no OP_MSG"));
            };
            return Document::from_reader(&*message.body).map_err(io::Error::other);
        }
        let len = socket.read(frames.buffer())?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        frames.filled(len);
    }
}

static NEXT_REQUEST: AtomicI32 = AtomicI32::new(1);

/// `DuplicateKey` of MongoDB's error codes.
const DUPLICATE_KEY: i32 = 11000;
