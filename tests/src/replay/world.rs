//! A machine and a scripted server on one fake clock, with a network that cuts bytes where it likes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use changestream_core::client::{ClientMachine, ConnectionId, Disconnected, Input, Output};
use changestream_core::random::Random;
use changestream_core::{Error, Update};

use super::{Answer, Peer};

/// What a step brought.
#[derive(Debug)]
pub(super) enum Progress {
    /// Something moved.
    Moved,
    /// Something for the consumer.
    Update(Update),
    /// The end.
    Closed(Result<(), Error>),
    /// Nothing will ever happen any more.
    Stuck,
}

/// One machine, one server, the bytes between them, and the time.
pub(super) struct World<'a> {
    pub(super) machine: ClientMachine,
    pub(super) peer: Peer<'a>,
    now: Instant,
    random: Random,
    /// The names by which the server knows connections.
    names: BTreeMap<ConnectionId, u64>,
    /// What arrives when; the number keeps the order of what arrives at once.
    calendar: BTreeMap<(Instant, u64), (ConnectionId, Arrival)>,
    /// Nothing on a connection arrives before what was sent earlier.
    latest: BTreeMap<ConnectionId, Instant>,
    sequence: u64,
}

#[derive(Debug)]
enum Arrival {
    Connected,
    Refused,
    Bytes(Bytes),
    Gone,
}

impl<'a> World<'a> {
    pub(super) fn new(machine: ClientMachine, peer: Peer<'a>, random: Random, now: Instant) -> Self {
        Self {
            machine,
            peer,
            now,
            random,
            names: BTreeMap::new(),
            calendar: BTreeMap::new(),
            latest: BTreeMap::new(),
            sequence: 0,
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    pub(super) fn input(&mut self, input: Input) {
        self.machine.handle_input(self.now, input);
    }

    /// Carries out one order of the machine, or lets the time pass to what comes next.
    pub(super) fn step(&mut self) -> Progress {
        match self.machine.poll_output() {
            Output::Resolve { question, .. } => unreachable!("recorded servers are named: {question}"),
            Output::Connect { connection, address } => {
                let name = self.names.len() as u64;
                self.names.insert(connection, name);
                let accepted = address.port().is_some_and(|port| self.peer.connect(name, port));
                let arrival = if accepted {
                    Arrival::Connected
                } else {
                    Arrival::Refused
                };
                self.schedule(connection, ROUND_TRIP, arrival);
            }
            Output::Transmit { connection, bytes } => {
                let Some(name) = self.names.get(&connection) else {
                    return Progress::Moved;
                };
                for answer in self.peer.receive(*name, &bytes) {
                    match answer {
                        Answer::Send { bytes, after } => self.schedule_pieces(connection, after, bytes),
                        Answer::Close { after } => self.schedule(connection, after, Arrival::Gone),
                    }
                }
            }
            Output::Disconnect { connection } => {
                self.calendar.retain(|_, (other, _)| *other != connection);
                if let Some(name) = self.names.get(&connection) {
                    self.peer.disconnected(*name);
                }
            }
            Output::Credentials { request, .. } => panic!("no recording needs {request:?}"),
            Output::Update(update) => return Progress::Update(update),
            Output::Reply(_) => unreachable!("a stream runs no commands"),
            Output::Closed(end) => return Progress::Closed(end),
            Output::Wait(deadline) => return self.pass_time(deadline.map(|deadline| deadline.at)),
        }
        Progress::Moved
    }

    fn pass_time(&mut self, deadline: Option<Instant>) -> Progress {
        let arrival = self.calendar.first_key_value().map(|((at, _), _)| *at);
        match (arrival, deadline) {
            (None, None) => Progress::Stuck,
            (Some(at), deadline) if deadline.is_none_or(|deadline| at <= deadline) => {
                self.now = self.now.max(at);
                if let Some((_, (connection, arrival))) = self.calendar.pop_first() {
                    self.arrive(connection, arrival);
                }
                Progress::Moved
            }
            (_, Some(deadline)) => {
                self.now = self.now.max(deadline);
                self.input(Input::Timeout);
                Progress::Moved
            }
            (Some(_), None) => Progress::Stuck,
        }
    }

    fn arrive(&mut self, connection: ConnectionId, arrival: Arrival) {
        let gone = |message: &str| Input::Disconnected {
            connection,
            reason: Disconnected {
                message: message.to_owned(),
                timed_out: false,
            },
        };
        match arrival {
            Arrival::Connected => self.input(Input::Connected { connection }),
            Arrival::Refused => self.input(gone("connection refused")),
            Arrival::Gone => self.input(gone("closed by the server")),
            Arrival::Bytes(mut bytes) => {
                while !bytes.is_empty() {
                    let Some(buffer) = self.machine.read_buffer(connection) else {
                        return;
                    };
                    let len = buffer.len().min(bytes.len());
                    buffer[..len].copy_from_slice(&bytes.split_to(len));
                    self.input(Input::Received { connection, len });
                }
            }
        }
    }

    /// A message comes in pieces, cut anywhere.
    fn schedule_pieces(&mut self, connection: ConnectionId, after: Duration, mut bytes: Bytes) {
        for _ in 0..self.random.below(MAX_CUTS) {
            let piece = bytes.split_to(self.random.below(bytes.len()));
            if !piece.is_empty() {
                self.schedule(connection, after, Arrival::Bytes(piece));
            }
        }
        self.schedule(connection, after, Arrival::Bytes(bytes));
    }

    fn schedule(&mut self, connection: ConnectionId, after: Duration, arrival: Arrival) {
        let earliest = self.latest.get(&connection).copied().unwrap_or(self.now);
        let at = earliest.max(self.now + after);
        self.latest.insert(connection, at);
        self.sequence += 1;
        self.calendar.insert((at, self.sequence), (connection, arrival));
    }
}

const ROUND_TRIP: Duration = Duration::from_millis(1);
const MAX_CUTS: usize = 6;
