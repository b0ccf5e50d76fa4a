//! What goes between streams and deployment, in the order in which streams learn of it and speak: for models of a
//! stream that are to be held against it.

use std::collections::{BTreeMap, VecDeque};

use bson::RawDocumentBuf;
use bytes::Bytes;
use changestream_core::client::ConnectionId;
use changestream_core::wire::{self, Compressor, Flags, FrameReader, Message};
use changestream_core::{Error, Update};

use super::StreamId;
use super::network::Client;

/// Something that a stream said or learned.
#[derive(Debug)]
pub enum Heard {
    /// It sent this command to that member.
    Asked {
        /// Which one.
        member: Option<usize>,
        /// Over which connection.
        connection: ConnectionId,
        /// The command's name.
        name: String,
        /// The whole of it.
        command: RawDocumentBuf,
    },
    /// It received the start of a getMore's reply, with these events; it has been told of the same reply before, perhaps,
    /// with fewer.
    Began {
        /// The events of which every byte is there.
        events: Vec<RawDocumentBuf>,
    },
    /// It received the reply to a command of that name, to its last byte.
    Answered {
        /// From which member.
        member: Option<usize>,
        /// Over which connection.
        connection: ConnectionId,
        /// The command's name.
        name: String,
        /// The whole reply.
        reply: RawDocumentBuf,
        /// Whether another follows unasked, as an exhaust cursor's do.
        more_to_come: bool,
    },
    /// It told its consumer this.
    Told(Update),
    /// It ended.
    Ended(Result<(), Error>),
}

/// Listens, once it is switched on.
#[derive(Debug, Default)]
pub(super) struct Tap {
    is_on: bool,
    wires: BTreeMap<Client, Wire>,
    heard: VecDeque<(StreamId, Heard)>,
}

#[derive(Debug)]
struct Wire {
    member: Option<usize>,
    to_server: FrameReader,
    to_client: FrameReader,
    /// What it has received of the message that comes next.
    begun: Vec<u8>,
    /// The names of the commands that were sent, by request.
    asked: BTreeMap<i32, String>,
}

impl Tap {
    pub(super) fn switch_on(&mut self) {
        self.is_on = true;
    }

    pub(super) fn next(&mut self) -> Option<(StreamId, Heard)> {
        self.heard.pop_front()
    }

    pub(super) fn connected(&mut self, client: Client, member: Option<usize>) {
        if self.is_on {
            let wire = Wire {
                member,
                to_server: FrameReader::new(),
                to_client: FrameReader::new(),
                begun: Vec::new(),
                asked: BTreeMap::new(),
            };
            self.wires.insert(client, wire);
        }
    }

    pub(super) fn disconnected(&mut self, client: Client) {
        self.wires.remove(&client);
    }

    pub(super) fn sent(&mut self, client: Client, bytes: &[u8]) {
        let Some(wire) = self.wires.get_mut(&client) else {
            return;
        };
        for message in messages(&mut wire.to_server, bytes) {
            let Message::Msg(message) = message else { continue };
            let command = document(&message.body);
            let Some(name) = command
                .iter_elements()
                .next()
                .and_then(|element| Some(element.ok()?.key().to_string()))
            else {
                continue;
            };
            if !INTERESTING.contains(&name.as_str()) {
                continue;
            }
            wire.asked.insert(message.request_id, name.clone());
            let asked = Heard::Asked {
                member: wire.member,
                connection: client.1,
                name,
                command,
            };
            self.heard.push_back((StreamId(client.0), asked));
        }
    }

    pub(super) fn received(&mut self, client: Client, bytes: &[u8]) {
        let Some(wire) = self.wires.get_mut(&client) else {
            return;
        };
        for message in messages(&mut wire.to_client, bytes) {
            let Message::Msg(message) = message else { continue };
            let Some(name) = wire.asked.remove(&message.response_to) else {
                continue;
            };
            // The next reply of an exhaust cursor answers this one.
            let more_to_come = message.flags.contains(Flags::MORE_TO_COME);
            if more_to_come {
                wire.asked.insert(message.request_id, name.clone());
            }
            let answered = Heard::Answered {
                member: wire.member,
                connection: client.1,
                name,
                reply: document(&message.body),
                more_to_come,
            };
            self.heard.push_back((StreamId(client.0), answered));
        }
        wire.begun.extend_from_slice(bytes);
        let done = wire.begun.len() - wire.to_client.pending();
        wire.begun.drain(..done);
        let events = whole_events(&wire.begun);
        if !events.is_empty() {
            let began = Heard::Began { events };
            self.heard.push_back((StreamId(client.0), began));
        }
    }

    pub(super) fn told(&mut self, stream: usize, update: &Update) {
        if self.is_on {
            self.heard
                .push_back((StreamId(stream), Heard::Told(update.clone())));
        }
    }

    pub(super) fn ended(&mut self, stream: usize, result: &Result<(), Error>) {
        if self.is_on {
            self.heard
                .push_back((StreamId(stream), Heard::Ended(result.clone())));
        }
    }
}

/// The events of a getMore's reply that are there, found by the name of their array.
fn whole_events(message: &[u8]) -> Vec<RawDocumentBuf> {
    const ARRAY: &[u8] = b"\x04nextBatch\0";
    const UNCOMPRESSED: [u8; 4] = 2013_i32.to_le_bytes();
    let mut events = Vec::new();
    if message.get(12..16) != Some(&UNCOMPRESSED) {
        return events;
    }
    let Some(array) = message.windows(ARRAY.len()).position(|bytes| bytes == ARRAY) else {
        return events;
    };
    let mut rest = message.get(array + ARRAY.len() + 4..).unwrap_or_default();
    while let [3, element @ ..] = rest
        && let Some(key) = element.iter().position(|byte| *byte == 0)
        && let Some(length) = element[key + 1..].first_chunk().copied().map(u32::from_le_bytes)
        && let Some((event, behind)) = element[key + 1..].split_at_checked(length as usize)
    {
        events.push(RawDocumentBuf::from_bytes(event.to_vec()).expect("servers send documents"));
        rest = behind;
    }
    events
}

fn messages(reader: &mut FrameReader, mut bytes: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let buffer = reader.buffer();
        let len = buffer.len().min(bytes.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        reader.filled(len);
        bytes = &bytes[len..];
        while let Some(frame) = reader.next_frame().expect("both sides speak the protocol") {
            let compressed = wire::compressor_of(&frame).and_then(Compressor::from_id);
            let frame = match compressed {
                Some(_) => wire::decompress(&frame, wire::DEFAULT_MAX_MESSAGE_SIZE)
                    .expect("both sides compress well"),
                None => frame,
            };
            found.push(Message::decode(&frame).expect("both sides speak the protocol"));
        }
    }
    found
}

fn document(body: &Bytes) -> RawDocumentBuf {
    RawDocumentBuf::from_bytes(body.to_vec()).expect("a document")
}

const INTERESTING: [&str; 3] = ["aggregate", "getMore", "killCursors"];
