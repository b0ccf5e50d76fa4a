//! [`Connection`].

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::RawDocument;
use bytes::Bytes;

use super::arriving::Parts;
use super::authenticating::AuthenticationLimit;
use super::exchange::{Exchanges, Purpose, after};
use super::foreign;
use super::hello::{self, Dialect};
use super::incoming::Incoming;
use super::server::{Server, readable};
use super::state::{Awaits, State};
use super::{ConnectionOutput, ConnectionSettings, Reply, Request, reply};
use crate::auth::Proved;
use crate::client::{Deadline, DeadlineReason, Disconnected};
use crate::error::{Error, ErrorKind};
use crate::random::{Random, Seldom};
use crate::topology::SYSTEM_OVERLOADED_ERROR;
use crate::wire::{self, Compressor, Flags, FrameReader, Message, Spare, WireError};
use crate::{ServerAddress, walk};

/// One connection to one server, from the moment that it is opened.
///
/// Inputs are the `handle_*` methods and the orders [`authenticate`](Self::authenticate), [`check`](Self::check) and
/// [`send`](Self::send); each may be called at any time, and one that makes no sense is ignored. After each, take the
/// outputs with [`poll_output`](Self::poll_output) until there is none. After [`ConnectionOutput::Failed`] nothing
/// comes any more.
pub struct Connection {
    pub(super) settings: Arc<ConnectionSettings>,
    pub(super) address: ServerAddress,
    pub(super) random: Seldom,
    pub(super) reader: FrameReader,
    /// Of the message that is being received.
    pub(super) parts: Parts,
    /// What compressed messages are inflated into.
    inflated: Spare,
    pub(super) outputs: VecDeque<ConnectionOutput>,
    last_request_id: i32,
    pub(super) exchanges: Exchanges,
    /// Requests that wait for the connection to be ready.
    pub(super) held: Vec<Held>,
    /// Of the first authentication.
    pub(super) limit: Option<AuthenticationLimit>,
    pub(super) state: State,
}

pub(super) struct Held {
    pub(super) request_id: i32,
    /// Uncompressed: whether to compress is known after the handshake.
    pub(super) bytes: Bytes,
    pub(super) may_be_compressed: bool,
    pub(super) purpose: Purpose,
    pub(super) timeout: Option<Duration>,
    /// Whether it would be sent once more if the connection had to authenticate anew.
    pub(super) repeatable: bool,
}

impl Connection {
    /// A connection that is being opened. The connect timeout starts.
    ///
    /// `hello_ok` is what an earlier hello of this server said: whether it said `helloOk`. A server that has
    /// changed its mind since fails the handshake; forget what it said then.
    pub fn new(
        settings: Arc<ConnectionSettings>,
        address: ServerAddress,
        hello_ok: bool,
        mut random: Random,
        now: Instant,
    ) -> Self {
        let mut reader = FrameReader::new();
        reader.set_max_message_size(MAX_HANDSHAKE_MESSAGE);
        let state = State::Connecting {
            give_up: after(now, connect_timeout(&settings)),
            dialect: Dialect::of_handshake(&settings, hello_ok),
        };
        Self {
            last_request_id: random.next_u64() as i32,
            settings,
            address,
            random: Seldom::new(&random),
            reader,
            parts: Parts::default(),
            inflated: Spare::default(),
            outputs: VecDeque::with_capacity(1),
            exchanges: Exchanges::default(),
            held: Vec::new(),
            limit: None,
            state,
        }
    }

    /// The server that it leads to.
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// Whether requests are sent.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    /// Whether hello is answered, nothing is under way and nothing is awaited.
    pub fn is_idle(&self) -> bool {
        match self.state {
            State::Greeted { .. } | State::Ready { .. } => {
                self.exchanges.is_empty() && self.held.is_empty() && self.reader.pending() == 0
            }
            State::Connecting { .. }
            | State::Greeting { .. }
            | State::Authenticating { .. }
            | State::Failed => false,
        }
    }

    /// What requests are compressed by, once the handshake has agreed upon it.
    pub fn compressor(&self) -> Option<Compressor> {
        self.state.server()?.compressor
    }

    /// `maxWireVersion` of the server's last answer to hello.
    pub fn max_wire_version(&self) -> Option<i32> {
        self.state.server()?.max_wire_version
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and why.
    pub fn deadline(&self) -> Option<Deadline> {
        let own = match &self.state {
            State::Connecting { give_up, .. } => give_up.map(|at| (at, DeadlineReason::Connect)),
            State::Authenticating {
                awaits: Awaits::Time(at),
                give_up,
                ..
            } => Some((give_up.map_or(*at, |end| end.min(*at)), DeadlineReason::Handshake)),
            State::Greeting { give_up, .. } | State::Authenticating { give_up, .. } => {
                give_up.map(|at| (at, DeadlineReason::Handshake))
            }
            State::Greeted { .. } | State::Ready { .. } | State::Failed => None,
        };
        let reply = self
            .exchanges
            .deadline()
            .map(|(at, _)| (at, DeadlineReason::Reply));
        own.into_iter()
            .chain(reply)
            .min_by_key(|(at, _)| *at)
            .map(|(at, reason)| Deadline { at, reason })
    }

    /// What it wants next.
    pub fn poll_output(&mut self) -> Option<ConnectionOutput> {
        self.outputs.pop_front()
    }

    /// Where the next bytes from the socket go. Never empty.
    pub fn read_buffer(&mut self) -> &mut [u8] {
        match self.most_of_reply() {
            Some(most) => self.reader.buffer_up_to(most),
            None => self.reader.buffer(),
        }
    }

    /// The socket is open, TLS and all: hello goes out.
    pub fn handle_connected(&mut self, now: Instant) {
        let State::Connecting { give_up, dialect } = self.state else {
            return;
        };
        let (settings, address) = (&self.settings, &self.address);
        let (command, speculative) = self
            .random
            .draw(|random| hello::handshake(settings, address, dialect, random));
        self.state = State::Greeting {
            give_up,
            dialect,
            speculative,
        };
        let request_id = self.next_request_id();
        self.exchanges.open(now, request_id, Purpose::Handshake, None);
        self.transmit(dialect.encode(request_id, command));
    }

    /// That many bytes were read into [`read_buffer`](Self::read_buffer).
    pub fn handle_received(&mut self, now: Instant, len: usize) {
        if self.has_failed() || len == 0 {
            return;
        }
        self.reader.filled(len);
        self.exchanges.heard(now);
        if matches!(self.state, State::Greeting { .. })
            && let Some(complaint) = foreign::complaint(self.reader.received())
        {
            return self.fail_protocol(complaint.to_owned());
        }
        while !self.has_failed() {
            match self.reader.next_frame() {
                Ok(Some(frame)) => {
                    let had_parts = mem::take(&mut self.parts).were_taken();
                    self.handle_frame(now, &frame, had_parts);
                }
                Ok(None) => return self.take_events(),
                Err(error) => self.fail_protocol(error.to_string()),
            }
        }
    }

    /// The socket could not be opened, or is closed.
    pub fn handle_disconnected(&mut self, _now: Instant, reason: Disconnected) {
        let Disconnected { message, timed_out } = reason;
        let message = match &self.state {
            State::Connecting { .. } => format!("could not connect: {message}"),
            State::Greeting { .. } if self.settings.tls => {
                format!("the connection was closed during the handshake: {message}")
            }
            State::Greeting { .. } => format!(
                "the connection was closed during the handshake: {message}; does the server expect TLS (tls=true)?"
            ),
            State::Authenticating { .. } => {
                format!("the connection was closed during authentication: {message}")
            }
            State::Greeted { .. } | State::Ready { .. } => {
                format!("the connection was closed: {message}")
            }
            State::Failed => return,
        };
        self.fail_network(message, timed_out);
    }

    /// Time has passed. Harmless before the [`deadline`](Self::deadline).
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(Deadline { at, reason }) = self.deadline() else {
            return;
        };
        if now < at {
            return;
        }
        if reason == DeadlineReason::Handshake && self.handle_authentication_timeout(now) {
            return;
        }
        let limit = self.settings.connect_timeout;
        let message = match (reason, self.exchanges.deadline()) {
            (DeadlineReason::Connect, _) if self.settings.tls => {
                format!("not connected, with the TLS handshake, within {limit:?} (connectTimeoutMS)")
            }
            (DeadlineReason::Connect, _) => {
                format!("not connected within {limit:?} (connectTimeoutMS)")
            }
            (DeadlineReason::Reply, Some((_, silence))) => {
                let silence = silence.as_millis();
                format!("the server was silent for {silence} ms while its reply was awaited")
            }
            (_, _) => format!("the handshake was not done within {limit:?} (connectTimeoutMS)"),
        };
        self.fail_network(message, true);
    }

    fn fail_network(&mut self, message: String, timed_out: bool) {
        let before_hello = match &self.state {
            State::Greeting { .. } => true,
            // Of one that was never open it is not told whether a server was talked to at all: its name may have no address.
            State::Connecting { .. } => timed_out,
            State::Greeted { .. } | State::Authenticating { .. } | State::Ready { .. } | State::Failed => {
                false
            }
        };
        let error = Error::new(ErrorKind::Network { message, timed_out });
        self.fail(match before_hello {
            true => error.before_hello(),
            false => error,
        });
    }

    /// Puts the limits of connecting, of the handshake and of a later hello off: nobody has looked for that long, so that
    /// what has arrived meanwhile is not read, and what it asks for is not sent. A command's reply is different: once it
    /// is on its way, nothing but its reading is left to be done.
    pub fn postpone(&mut self, by: Duration) {
        match &mut self.state {
            State::Connecting { give_up, .. }
            | State::Greeting { give_up, .. }
            | State::Authenticating { give_up, .. } => *give_up = give_up.and_then(|at| at.checked_add(by)),
            State::Greeted { .. } | State::Ready { .. } | State::Failed => {}
        }
        self.exchanges.postpone_checks(by);
    }

    /// Sends another hello, without the handshake's arguments. [`ConnectionOutput::Hello`] follows; that of the
    /// handshake, if it is still under way.
    pub fn check(&mut self, now: Instant) {
        let Some(server) = self.state.server() else {
            return;
        };
        let dialect = server.dialect;
        let request_id = self.next_request_id();
        let timeout = connect_timeout(&self.settings);
        self.exchanges.open(now, request_id, Purpose::Check, timeout);
        self.transmit(dialect.encode(request_id, hello::check(&self.settings, dialect)));
    }

    /// Sends a command; [`ConnectionOutput::Reply`] follows. One that comes before the connection is ready is sent
    /// when it is.
    ///
    /// Returns the number by which the reply names its request.
    pub fn send(&mut self, now: Instant, request: Request) -> i32 {
        let request_id = self.next_request_id();
        let flags = if request.exhaust_allowed {
            Flags::EXHAUST_ALLOWED
        } else {
            Flags::NONE
        };
        let held = Held {
            request_id,
            bytes: wire::encode_op_msg(request_id, 0, flags, &request.body, &[]),
            may_be_compressed: command_name(&request.body).is_some_and(wire::may_compress),
            purpose: Purpose::Command {
                exhaust_allowed: request.exhaust_allowed,
                wanted: true,
                in_parts: request.in_parts,
            },
            timeout: request.reply_timeout,
            repeatable: self.settings.credential.is_some(),
        };
        match self.state {
            State::Ready { .. } => self.release(now, held),
            State::Failed => {}
            State::Connecting { .. }
            | State::Greeting { .. }
            | State::Greeted { .. }
            | State::Authenticating { .. } => self.held.push(held),
        }
        request_id
    }

    /// Gives the reply to a request that is under way this long from now, instead of what the request said. One that
    /// is not sent yet gets it from its sending.
    pub fn set_reply_timeout(&mut self, now: Instant, request_id: i32, timeout: Option<Duration>) {
        for held in self.held.iter_mut().filter(|h| h.request_id == request_id) {
            held.timeout = timeout;
        }
        self.exchanges.set_timeout(now, request_id, timeout);
    }

    /// Lets the replies to a request that is under way come unnoticed, without a deadline. The connection is not idle
    /// before they have come. A request that is not sent yet is not sent.
    pub fn forget(&mut self, request_id: i32) {
        self.held.retain(|held| held.request_id != request_id);
        self.exchanges.forget(request_id);
    }

    fn handle_frame(&mut self, now: Instant, frame: &Bytes, had_parts: bool) {
        let incoming = match self.read(frame) {
            Ok(incoming) => incoming,
            Err(message) => return self.fail_protocol(message),
        };
        let Some(exchange) = self.exchanges.take(incoming.response_to) else {
            return self.fail_protocol(format!(
                "a reply to request {}, which was never sent or is answered",
                incoming.response_to
            ));
        };
        if let Some(message) = incoming.contradicts(&exchange) {
            return self.fail_protocol(message.to_owned());
        }
        let round_trip = now.saturating_duration_since(exchange.since);
        // What has brought events is no refusal, whatever it says.
        let (exchange, incoming) = if had_parts {
            (exchange, incoming)
        } else {
            let Some(other) = self.sift_refused(now, exchange, incoming) else {
                return;
            };
            other
        };
        match exchange.purpose {
            Purpose::Handshake | Purpose::Check => self.handle_hello(incoming.body, round_trip),
            Purpose::Authentication => self.handle_authentication(now, &incoming.body),
            Purpose::Command { wanted, .. } => {
                if wanted {
                    self.outputs.push_back(ConnectionOutput::Reply(Reply {
                        request_id: exchange.request_id,
                        body: incoming.body,
                        more_to_come: incoming.more_to_come,
                        round_trip,
                        received: now,
                    }));
                }
                if incoming.more_to_come {
                    self.exchanges.reopen(now, exchange, incoming.request_id);
                }
            }
        }
    }

    fn read(&mut self, frame: &Bytes) -> Result<Incoming, String> {
        let text = |error: WireError| error.to_string();
        if wire::compressor_of(frame).is_none() {
            return Incoming::from_message(Message::decode(frame).map_err(text)?);
        }
        if self.compressor().is_none() {
            return Err("the server compressed a reply, and no compressor was agreed upon".to_owned());
        }
        let most = self.reader.max_message_size();
        let inflated = wire::decompress_into(&mut self.inflated, frame, most).map_err(text)?;
        Incoming::from_message(Message::decode(&inflated).map_err(text)?)
    }

    fn handle_hello(&mut self, body: Bytes, round_trip: Duration) {
        let Some(hello) = readable(&body) else {
            return self.fail_protocol("the answer to hello is not a readable document".to_owned());
        };
        if !reply::is_ok(hello) {
            let error = reply::server_error(hello);
            let is_check = !matches!(self.state, State::Greeting { .. });
            // "The driver MUST not close the connection when this label is encountered" (Server Monitoring).
            if is_check && error.has_label(SYSTEM_OVERLOADED_ERROR) {
                self.outputs
                    .push_back(ConnectionOutput::Hello { body, round_trip });
                return;
            }
            return self.fail(Error::new(ErrorKind::from_server(error)));
        }
        if let State::Greeting {
            dialect, speculative, ..
        } = &mut self.state
        {
            self.state = State::Greeted {
                server: Server::new(*dialect, hello::agreed_compressor(&self.settings, hello), hello),
                handshake: body.clone(),
                speculative: speculative.take(),
            };
        } else if let Some(server) = self.state.server_mut() {
            *server = Server::new(server.dialect, server.compressor, hello);
        }
        self.outputs
            .push_back(ConnectionOutput::Hello { body, round_trip });
    }

    pub(super) fn become_ready(&mut self, now: Instant, server: Server, proved: Option<Proved>) {
        self.reader.set_max_message_size(server.max_message_size);
        self.state = State::Ready { server, proved };
        self.limit = None;
        self.outputs.push_back(ConnectionOutput::Ready);
        for held in mem::take(&mut self.held) {
            self.release(now, held);
        }
    }

    fn release(&mut self, now: Instant, held: Held) {
        self.exchanges
            .open(now, held.request_id, held.purpose, held.timeout);
        if held.repeatable {
            self.exchanges
                .keep(held.request_id, &held.bytes, held.may_be_compressed);
        }
        let compressed = self
            .compressor()
            .filter(|_| held.may_be_compressed)
            .and_then(|compressor| wire::compress(&held.bytes, compressor, self.settings.zlib_level));
        self.transmit(compressed.unwrap_or(held.bytes));
    }

    pub(super) fn transmit(&mut self, bytes: Bytes) {
        self.outputs.push_back(ConnectionOutput::Transmit(bytes));
    }

    pub(super) fn next_request_id(&mut self) -> i32 {
        self.last_request_id = self.last_request_id.wrapping_add(1);
        if self.last_request_id == 0 {
            // `responseTo: 0` is what a message has that answers nothing.
            self.last_request_id = 1;
        }
        self.last_request_id
    }

    pub(super) fn fail_protocol(&mut self, message: String) {
        let greeting = matches!(self.state, State::Greeting { .. });
        let message = if greeting && !message.ends_with('?') {
            format!("{message}; is this a MongoDB server?")
        } else {
            message
        };
        self.fail(Error::new(ErrorKind::Protocol { message }));
    }

    /// Ends it. What was received before is still handed over; what was to be sent is not sent.
    pub(super) fn fail(&mut self, error: Error) {
        self.state = State::Failed;
        self.reader = FrameReader::new();
        self.exchanges.clear();
        self.held = Vec::new();
        self.outputs.retain(|output| match output {
            ConnectionOutput::Transmit(_) | ConnectionOutput::Credentials(_) => false,
            ConnectionOutput::Hello { .. }
            | ConnectionOutput::Ready
            | ConnectionOutput::Events { .. }
            | ConnectionOutput::Reply(_)
            | ConnectionOutput::Refused(_)
            | ConnectionOutput::Failed(_) => true,
        });
        let error = error.at(self.address.clone());
        self.outputs.push_back(ConnectionOutput::Failed(error));
    }

    fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed)
    }
}

/// Without the buffers: what is written while authenticating belongs in no log.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("address", &self.address)
            .field("state", &self.state.name())
            .field("exchanges", &self.exchanges)
            .finish_non_exhaustive()
    }
}

fn command_name(command: &RawDocument) -> Option<&str> {
    let first = walk::elements(command.as_bytes()).next()?;
    str::from_utf8(first.key()).ok()
}

pub(super) fn connect_timeout(settings: &ConnectionSettings) -> Option<Duration> {
    Some(settings.connect_timeout).filter(|timeout| !timeout.is_zero())
}

/// The longest message that is accepted from a server before it is authenticated, in bytes. A hello reply is a few
/// hundred bytes; one of a very large deployment some thousands.
const MAX_HANDSHAKE_MESSAGE: usize = 1 << 20;
