//! Commands to one server, one after the other, over a socket of their own.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bson::{Document, RawDocument, RawDocumentBuf};
use changestream_core::wire::{Flags, FrameReader, Message, WireError, encode_op_msg};

/// A connection that waits for each reply.
pub(super) struct Connection {
    socket: TcpStream,
    reader: FrameReader,
    requests: i32,
}

impl Connection {
    pub(super) fn open(address: &str) -> io::Result<Self> {
        let resolved = address
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address"))?;
        let socket = TcpStream::connect_timeout(&resolved, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            reader: FrameReader::new(),
            requests: 0,
        })
    }

    /// Sends a command, and gives what the server answers, error or not.
    pub(super) fn run(&mut self, command: &Document) -> io::Result<Document> {
        let body = RawDocumentBuf::try_from(command).map_err(io::Error::other)?;
        self.requests = self.requests.wrapping_add(1);
        let message = encode_op_msg(self.requests, 0, Flags::NONE, &body, &[]);
        self.socket.write_all(&message)?;
        loop {
            let frame = self.reader.next_frame().map_err(broken)?;
            let Some(frame) = frame else {
                let read = self.socket.read(self.reader.buffer())?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.reader.filled(read);
                continue;
            };
            let message = Message::decode(&frame).map_err(broken)?;
            if let Message::Msg(reply) = message {
                let body = RawDocument::from_bytes(&reply.body).map_err(io::Error::other)?;
                return Document::try_from(body).map_err(io::Error::other);
            }
        }
    }
}

fn broken(error: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

const PATIENCE: Duration = Duration::from_secs(10);
