//! One client's connection: bytes to requests, replies to bytes, and what it waits for.

use std::collections::VecDeque;

use bson::raw::RawDocumentBuf;
use bson::{Document, RawDocument};
use bytes::Bytes;
use changestream_core::wire::{
    Compressor, Flags, FrameReader, LegacyQuery, Message, OpMsg, WireError, compress, compressor_of,
    decompress, encode_op_msg, encode_op_reply,
};

use crate::auth::{Conversation, Login};
use crate::wait::Wait;

/// The server's side of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) member: usize,
    /// The number that hello reports as `connectionId`.
    pub(crate) number: i32,
    reader: FrameReader,
    /// Requests, each with the number of its arrival.
    queue: VecDeque<(u64, Request)>,
    broken: bool,
    pub(crate) activity: Activity,
    pub(crate) app_name: Option<String>,
    pub(crate) handshaken: bool,
    /// A fail point ends it in the place of a reply.
    pub(crate) hangs_up: bool,
    login: Option<Login>,
    /// The subject of the certificate that the client has shown.
    pub(crate) subject: Option<String>,
    pub(crate) conversation: Option<Conversation>,
    /// What hello has agreed upon, in the order of the client.
    pub(crate) compressors: Vec<Compressor>,
}

/// What the connection is doing.
#[derive(Debug)]
pub(crate) enum Activity {
    /// It takes the next request.
    Idle,
    /// Its request is not answered yet.
    Waiting(Box<(Request, Wait)>),
}

/// A request, decoded.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) id: i32,
    pub(crate) form: Form,
    pub(crate) body: Document,
    /// By what it was compressed, hence its reply is.
    pub(crate) compressor: Option<Compressor>,
}

/// How a request came, hence how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// OP_QUERY, answered by OP_REPLY.
    Query,
    /// OP_MSG.
    Msg {
        /// Several replies may follow.
        exhaust: bool,
        /// No reply is wanted.
        more_to_come: bool,
    },
}

impl Request {
    /// The command's name: the first key.
    pub(crate) fn name(&self) -> &str {
        self.body.keys().next().map_or("", String::as_str)
    }

    pub(crate) fn db(&self) -> &str {
        self.body.get_str("$db").unwrap_or("")
    }
}

impl Connection {
    pub(crate) fn new(member: usize, number: i32) -> Self {
        Self {
            member,
            number,
            reader: FrameReader::new(),
            queue: VecDeque::new(),
            broken: false,
            activity: Activity::Idle,
            app_name: None,
            handshaken: false,
            hangs_up: false,
            login: None,
            subject: None,
            conversation: None,
            compressors: Vec::new(),
        }
    }

    /// Whose it is.
    pub(crate) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// The user's name.
    pub(crate) fn user(&self) -> Option<&str> {
        self.login.as_ref().map(|login| login.user.as_str())
    }

    pub(crate) fn log_in(&mut self, login: Login) {
        self.conversation = None;
        self.login = Some(login);
    }

    pub(crate) fn log_out(&mut self) {
        self.login = None;
    }

    /// Takes bytes from the socket, and counts the requests that they bring. False where the server would close it.
    pub(crate) fn receive(&mut self, mut bytes: &[u8], arrivals: &mut u64) -> bool {
        while !bytes.is_empty() && !self.broken {
            let space = self.reader.buffer();
            let n = space.len().min(bytes.len());
            let (now, later) = bytes.split_at(n);
            if let Some(space) = space.get_mut(..n) {
                space.copy_from_slice(now);
            }
            self.reader.filled(n);
            bytes = later;
            self.broken = self.take_frames(arrivals).is_err();
        }
        !self.broken
    }

    fn take_frames(&mut self, arrivals: &mut u64) -> Result<(), WireError> {
        while let Some(frame) = self.reader.next_frame()? {
            let request = self.decode(&frame)?;
            if self.queue.len() >= MAX_QUEUED {
                return Err(WireError::Malformed("too many requests ahead of their replies"));
            }
            *arrivals += 1;
            self.queue.push_back((*arrivals, request));
        }
        Ok(())
    }

    /// A request. One that is compressed by what was not agreed upon ends the connection: a server only looks whether
    /// it knows the compressor at all, but no client should rely on that.
    fn decode(&self, frame: &Bytes) -> Result<Request, WireError> {
        let Some(id) = compressor_of(frame) else {
            return decode(frame);
        };
        let agreed = Compressor::from_id(id).filter(|compressor| self.compressors.contains(compressor));
        let compressor = agreed.ok_or(WireError::Compressor(id))?;
        let mut request = decode(&decompress(frame, self.reader.max_message_size())?)?;
        request.compressor = Some(compressor);
        Ok(request)
    }

    /// Nothing more is read; the connection ends when what was read is answered.
    pub(crate) fn finish_then_close(&mut self) {
        self.broken = true;
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.broken && self.is_idle()
    }

    /// Whether it has nothing to do before more bytes come.
    pub(crate) fn is_at_rest(&self) -> bool {
        !self.broken && self.is_idle()
    }

    /// Whether all that came is answered.
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && matches!(self.activity, Activity::Idle)
    }

    /// When the request arrived that it can begin now.
    pub(crate) fn next_arrival(&self) -> Option<u64> {
        match self.activity {
            Activity::Idle => self.queue.front().map(|(arrival, _)| *arrival),
            Activity::Waiting(_) => None,
        }
    }

    pub(crate) fn next_request(&mut self) -> Option<Request> {
        self.queue.pop_front().map(|(_, request)| request)
    }
}

fn decode(frame: &Bytes) -> Result<Request, WireError> {
    let message = Message::decode(frame)?;
    if let Message::Msg(m) = &message {
        return decode_msg(m);
    }
    if let Message::Query(q) = &message {
        return decode_query(q);
    }
    Err(WireError::Malformed("not a request"))
}

fn decode_msg(message: &OpMsg) -> Result<Request, WireError> {
    let mut body = document(&message.body)?;
    for sequence in &message.sequences {
        let documents = sequence
            .documents
            .iter()
            .map(document)
            .collect::<Result<Vec<_>, _>>()?;
        if body.insert(sequence.identifier.clone(), documents).is_some() {
            return Err(WireError::Malformed(
                "a field is both in the body and in a sequence",
            ));
        }
    }
    let form = Form::Msg {
        exhaust: message.flags.contains(Flags::EXHAUST_ALLOWED),
        more_to_come: message.flags.contains(Flags::MORE_TO_COME),
    };
    Ok(Request {
        id: message.request_id,
        form,
        body,
        compressor: None,
    })
}

fn decode_query(query: &LegacyQuery) -> Result<Request, WireError> {
    let mut body = document(&query.query)?;
    let db = query
        .namespace
        .strip_suffix(".$cmd")
        .ok_or(WireError::Malformed("an OP_QUERY that is no command"))?;
    body.insert("$db", db);
    Ok(Request {
        id: query.request_id,
        form: Form::Query,
        body,
        compressor: None,
    })
}

fn document(bytes: &Bytes) -> Result<Document, WireError> {
    const BAD: WireError = WireError::Malformed("a document is no BSON");
    let raw = RawDocument::from_bytes(bytes).map_err(|_| BAD)?;
    if !depth_is_legal(raw) {
        return Err(BAD);
    }
    Document::try_from(raw).map_err(|_| BAD)
}

/// Walks without recursion: the decoder that follows recurses.
fn depth_is_legal(document: &RawDocument) -> bool {
    let mut stack = vec![document.iter_elements()];
    while let Some(top) = stack.last_mut() {
        match top.next() {
            None => {
                stack.pop();
            }
            Some(Err(_)) => return false,
            Some(Ok(element)) => {
                let inner = match element.value() {
                    Ok(bson::RawBsonRef::Document(d)) => d,
                    Ok(bson::RawBsonRef::Array(a)) => {
                        let Ok(d) = RawDocument::from_bytes(a.as_bytes()) else {
                            return false;
                        };
                        d
                    }
                    Ok(_) => continue,
                    Err(_) => return false,
                };
                if stack.len() >= MAX_DEPTH {
                    return false;
                }
                stack.push(inner.iter_elements());
            }
        }
    }
    true
}

/// Encodes a reply in the form that the request asks for, compressed as the request was: `message` has room for a
/// header before its document.
pub(crate) fn encode_reply(id: i32, request: &Request, more_to_come: bool, mut message: Vec<u8>) -> Bytes {
    let to = request.id;
    let message = match request.form {
        Form::Query => {
            let body = message.split_off(HEADROOM);
            encode_op_reply(id, to, &RawDocumentBuf::from_bytes(body).unwrap_or_default())
        }
        // A batch is large, and lies where it belongs already.
        Form::Msg { .. } => {
            let flags = if more_to_come {
                Flags::MORE_TO_COME
            } else {
                Flags::NONE
            };
            let header = encode_op_msg(id, to, flags, &RawDocumentBuf::new(), &[]);
            let length = i32::try_from(message.len()).unwrap_or(i32::MAX).to_le_bytes();
            let bytes = length.iter().chain(header.iter().skip(length.len()));
            for (space, byte) in message.iter_mut().take(HEADROOM).zip(bytes) {
                *space = *byte;
            }
            Bytes::from(message)
        }
    };
    let compressed = request
        .compressor
        .and_then(|compressor| compress(&message, compressor, None));
    compressed.unwrap_or(message)
}

/// Before the document of an OP_MSG: the header, the flags, and the kind of the section (OP_MSG specification).
pub(crate) const HEADROOM: usize = 16 + 4 + 1;
/// The nesting that the server accepts in a document (`BSONDepth::kDefaultMaxAllowableDepth`).
const MAX_DEPTH: usize = 200;
/// Requests that may lie decoded before the first of them is answered.
const MAX_QUEUED: usize = 1000;
