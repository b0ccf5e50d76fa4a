//! What is told to whoever watches, and what has to be remembered for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::RawDocumentBuf;
use bson::oid::ObjectId;
use bytes::Bytes;

use super::{ClientMachine, ConnectionId};
use crate::monitoring::{
    ClosedReason, CommandEvent, CommandStage, ConnectionEvent, Event, EventKind, HeartbeatEvent, MAX_EVENTS,
    MonitoredDocument, SelectionEvent, SelectionStage, is_sensitive, redacted, without_authentication,
};
use crate::topology::{HelloReply, TopologyEvent};
use crate::{Error, ErrorKind, ServerAddress, ServerError};

/// Everything that monitoring takes. A machine that nobody watches has none.
#[derive(Debug, Default)]
pub(super) struct Journal {
    source: u64,
    events: VecDeque<Event>,
    connections: BTreeMap<ConnectionId, Known>,
    commands: BTreeMap<(ConnectionId, i32), Sent>,
    operation: Operation,
    usage: Use,
    search: Search,
    /// Servers, and services behind them, whose connections were said to be of no use any more, and that have not answered
    /// hello since.
    cleared: BTreeSet<(ServerAddress, Option<ObjectId>)>,
}

/// A connection.
#[derive(Debug)]
struct Known {
    server: ServerAddress,
    since: Instant,
    server_connection_id: Option<i64>,
    service_id: Option<ObjectId>,
    /// When the check began that is under way over it.
    check: Option<Instant>,
}

/// A command that is not answered.
#[derive(Debug)]
struct Sent {
    since: Instant,
    sensitive: bool,
    /// The event that it started with, but for what it said.
    event: CommandEvent,
}

/// What commands belong to.
#[derive(Debug, Default)]
enum Operation {
    /// The next command is the first of one.
    #[default]
    New,
    /// Named by its first command's number.
    Known(i64),
}

/// What was told last of the search for a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Search {
    /// That there is an end of it, if anything.
    #[default]
    Over,
    Started,
    Waiting,
}

/// Whether the stream or the command has a connection.
#[derive(Debug, Default)]
enum Use {
    #[default]
    None,
    /// A connection to that server is wanted, since then.
    Wanted(ServerAddress, Instant),
    Out(ConnectionId, ServerAddress),
}

impl Journal {
    fn record(&mut self, kind: EventKind) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Event::new(self.source, kind));
    }

    fn connection(&mut self, event: ConnectionEvent) {
        self.record(EventKind::Connection(event));
    }

    pub(super) fn created(&mut self, now: Instant, connection: ConnectionId, server: &ServerAddress) {
        let server = server.clone();
        let known = Known {
            server: server.clone(),
            since: now,
            server_connection_id: None,
            service_id: None,
            check: None,
        };
        self.connections.insert(connection, known);
        self.connection(ConnectionEvent::Created { connection, server });
    }

    pub(super) fn ready(&mut self, now: Instant, connection: ConnectionId) {
        let Some(known) = self.connections.get(&connection) else {
            return;
        };
        let (server, duration) = (known.server.clone(), now.saturating_duration_since(known.since));
        self.connection(ConnectionEvent::Ready {
            connection,
            server,
            duration,
        });
    }

    /// The end of all that is under way over a connection; without an error if it is given up.
    pub(super) fn broke(&mut self, now: Instant, connection: ConnectionId, error: Option<&Error>) {
        self.checked(now, connection, Err(error.cloned()));
        let given_up = || Error::network("the connection was closed before the reply came", false);
        let failure = error.cloned().unwrap_or_else(given_up);
        let unanswered: Vec<_> = self
            .commands
            .range((connection, i32::MIN)..=(connection, i32::MAX))
            .map(|((_, request), _)| *request)
            .collect();
        for request in unanswered {
            self.failed(now, connection, request, &failure);
        }
    }

    /// The end of a connection.
    pub(super) fn closed(&mut self, now: Instant, connection: ConnectionId, reason: ClosedReason) {
        self.broke(now, connection, None);
        if let Use::Out(used, server) = &self.usage
            && *used == connection
        {
            let server = server.clone();
            self.usage = Use::None;
            self.connection(ConnectionEvent::CheckedIn { connection, server });
        }
        if let Some(known) = self.connections.remove(&connection) {
            let server = known.server;
            self.connection(ConnectionEvent::Closed {
                connection,
                server,
                reason,
            });
        }
    }

    pub(super) fn check_began(&mut self, now: Instant, connection: ConnectionId) {
        let Some(known) = self.connections.get_mut(&connection) else {
            return;
        };
        known.check = Some(now);
        let server = known.server.clone();
        self.record(EventKind::Heartbeat(HeartbeatEvent::Started {
            server,
            connection,
        }));
    }

    /// A server has answered hello, be it a check or not.
    pub(super) fn greeted(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        hello: &HelloReply,
        body: &Bytes,
        round_trip: Duration,
    ) {
        let Some(known) = self.connections.get_mut(&connection) else {
            return;
        };
        self.cleared.remove(&(known.server.clone(), None));
        if hello.service_id.is_some() {
            self.cleared.remove(&(known.server.clone(), hello.service_id));
        }
        known.server_connection_id = hello.connection_id;
        known.service_id = hello.service_id;
        self.checked(now, connection, Ok((body, round_trip)));
    }

    /// A server has refused a check, and that is all.
    pub(super) fn check_refused(&mut self, now: Instant, connection: ConnectionId, error: Error) {
        self.checked(now, connection, Err(Some(error)));
    }

    fn checked(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        result: Result<(&Bytes, Duration), Option<Error>>,
    ) {
        let Some(known) = self.connections.get_mut(&connection) else {
            return;
        };
        let Some(began) = known.check.take() else { return };
        let server = known.server.clone();
        let event = match result {
            Ok((body, duration)) => HeartbeatEvent::Succeeded {
                server,
                connection,
                duration,
                reply: without_authentication(body),
            },
            Err(failure) => HeartbeatEvent::Failed {
                server,
                connection,
                duration: now.saturating_duration_since(began),
                failure,
            },
        };
        self.record(EventKind::Heartbeat(event));
    }

    /// The next command belongs to another operation than the last one.
    pub(super) fn new_operation(&mut self) {
        self.operation = Operation::New;
    }

    pub(super) fn started(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        request_id: i32,
        body: RawDocumentBuf,
    ) {
        let Some(known) = self.connections.get(&connection) else {
            return;
        };
        let operation_id = match self.operation {
            Operation::Known(id) => id,
            Operation::New => i64::from(request_id),
        };
        self.operation = Operation::Known(operation_id);
        let name = body.iter_elements().next().and_then(Result::ok);
        let command_name = name.map_or_else(String::new, |element| element.key().as_str().to_owned());
        let sensitive = is_sensitive(&command_name, &body);
        let database_name = body.get_str("$db").unwrap_or_default().to_owned();
        let command = if sensitive {
            MonitoredDocument::empty()
        } else {
            MonitoredDocument::new(body.into_bytes().into())
        };
        let event = CommandEvent {
            command_name,
            database_name,
            request_id,
            operation_id,
            connection,
            server_connection_id: known.server_connection_id,
            server: known.server.clone(),
            service_id: known.service_id,
            stage: CommandStage::Started { command },
        };
        self.record(EventKind::Command(event.clone()));
        let sent = Sent {
            since: now,
            sensitive,
            event,
        };
        self.commands.insert((connection, request_id), sent);
    }

    /// The server has answered a command; `error` is what it says if it refuses.
    pub(super) fn replied(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        request: i32,
        body: &Bytes,
        error: Option<&ServerError>,
    ) {
        if let Some(error) = error {
            let failure = Error::new(ErrorKind::Server(error.clone()));
            return self.failed(now, connection, request, &failure);
        }
        let Some(sent) = self.commands.remove(&(connection, request)) else {
            return;
        };
        let reply = if sent.sensitive {
            MonitoredDocument::empty()
        } else {
            MonitoredDocument::new(body.clone())
        };
        self.record(EventKind::Command(CommandEvent {
            stage: CommandStage::Succeeded {
                duration: now.saturating_duration_since(sent.since),
                reply,
            },
            ..sent.event
        }));
    }

    /// The server has refused a command until the connection authenticates anew. It will be sent again: that counts from
    /// here.
    pub(super) fn refused(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        request: i32,
        error: &ServerError,
    ) {
        let Some(sent) = self.commands.get(&(connection, request)) else {
            return;
        };
        let again = Sent {
            since: now,
            sensitive: sent.sensitive,
            event: sent.event.clone(),
        };
        let failure = Error::new(ErrorKind::Server(error.clone()));
        self.failed(now, connection, request, &failure);
        self.record(EventKind::Command(again.event.clone()));
        self.commands.insert((connection, request), again);
    }

    pub(super) fn failed(&mut self, now: Instant, connection: ConnectionId, request: i32, failure: &Error) {
        let Some(sent) = self.commands.remove(&(connection, request)) else {
            return;
        };
        let failure = if sent.sensitive {
            redacted(failure)
        } else {
            failure.clone()
        };
        self.record(EventKind::Command(CommandEvent {
            stage: CommandStage::Failed {
                duration: now.saturating_duration_since(sent.since),
                failure: failure.at(sent.event.server.clone()),
            },
            ..sent.event
        }));
    }

    /// How far the search for a server has come. What does not follow from what was told last is not told: that it waits,
    /// a second time, or that it has ended when it has not begun.
    pub(super) fn search(&mut self, search: SelectionEvent) {
        let next = match (self.search, &search.stage) {
            (_, SelectionStage::Started) => Search::Started,
            (Search::Started, SelectionStage::Waiting { .. }) => Search::Waiting,
            (
                Search::Started | Search::Waiting,
                SelectionStage::Succeeded { .. } | SelectionStage::Failed { .. },
            )
            | (Search::Over, SelectionStage::Succeeded { .. }) => Search::Over,
            (Search::Waiting | Search::Over, SelectionStage::Waiting { .. })
            | (Search::Over, SelectionStage::Failed { .. }) => return,
        };
        self.search = next;
        let operation_id = match self.operation {
            Operation::New => None,
            Operation::Known(id) => Some(id),
        };
        self.record(EventKind::Selection(SelectionEvent {
            operation_id,
            ..search
        }));
    }

    /// Whether a connection to that server is wanted already.
    pub(super) fn wants(&self, server: &ServerAddress) -> bool {
        matches!(&self.usage, Use::Wanted(other, _) if other == server)
    }

    /// A server was chosen: a connection to it is wanted, unless it has been all along.
    pub(super) fn wanted(&mut self, now: Instant, server: &ServerAddress) {
        if let Use::Wanted(other, _) = &self.usage {
            if other == server {
                return;
            }
            let (other, error) = (other.clone(), "its server does not suit any more");
            self.not_had(now, &other, &Error::network(error, false));
        }
        self.usage = Use::Wanted(server.clone(), now);
        let server = server.clone();
        self.connection(ConnectionEvent::CheckOutStarted { server });
    }

    /// It cannot be had.
    pub(super) fn not_had(&mut self, now: Instant, failed: &ServerAddress, error: &Error) {
        let Use::Wanted(server, since) = &self.usage else {
            return;
        };
        if server != failed {
            return;
        }
        let event = ConnectionEvent::CheckOutFailed {
            server: server.clone(),
            duration: now.saturating_duration_since(*since),
            error: error.clone(),
        };
        self.usage = Use::None;
        self.connection(event);
    }

    /// Whoever wanted one does not wait any longer.
    pub(super) fn gave_up(&mut self, now: Instant, error: &Error) {
        match &self.usage {
            Use::Wanted(server, _) => {
                let server = server.clone();
                self.not_had(now, &server, error);
            }
            Use::Out(..) | Use::None => self.given_back(),
        }
    }

    pub(super) fn taken(&mut self, now: Instant, connection: ConnectionId, server: &ServerAddress) {
        let since = match &self.usage {
            Use::Wanted(_, since) => *since,
            Use::None | Use::Out(..) => now,
        };
        self.usage = Use::Out(connection, server.clone());
        self.connection(ConnectionEvent::CheckedOut {
            connection,
            server: server.clone(),
            duration: now.saturating_duration_since(since),
        });
    }

    /// The stream or the command needs its connection no more.
    pub(super) fn given_back(&mut self) {
        if let Use::Out(connection, server) = std::mem::take(&mut self.usage) {
            self.connection(ConnectionEvent::CheckedIn { connection, server });
        }
    }

    /// "If the pool is already paused" there is nothing to tell (Connection Monitoring and Pooling specification, "Clearing a
    /// Connection Pool").
    pub(super) fn cleared(&mut self, server: &ServerAddress, service_id: Option<ObjectId>) {
        if !self.cleared.insert((server.clone(), service_id)) {
            return;
        }
        let server = server.clone();
        self.connection(ConnectionEvent::PoolCleared { server, service_id });
    }

    fn topology(&mut self, event: TopologyEvent) {
        if let TopologyEvent::ServerClosed { address } = &event {
            self.cleared.retain(|(server, _)| server != address);
        }
        self.record(EventKind::Topology(event));
    }
}

/// Being watched.
impl ClientMachine {
    /// The next thing that happened, if the [settings](super::ClientSettings::with_monitoring) have it told.
    ///
    /// To be polled after outputs and inputs alike; of events that nobody polls the last
    /// [`MAX_EVENTS`] are kept.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.journal()?.events.pop_front()
    }

    /// The number that this machine's [events](Event) bear, to tell them from those of a client's others. Default: 0.
    pub fn set_event_source(&mut self, source: u64) {
        if let Some(journal) = &mut self.journal {
            journal.source = source;
            for event in &mut journal.events {
                event.source = source;
            }
        }
    }

    /// The journal, with all in it that has happened to the topology.
    pub(super) fn journal(&mut self) -> Option<&mut Journal> {
        let journal = self.journal.as_deref_mut()?;
        while let Some(event) = self.topology.poll_event() {
            journal.topology(event);
        }
        Some(journal)
    }

    /// Tells how far the search for a server has come, if anybody listens.
    pub(super) fn tell_search(&mut self, stage: SelectionStage) {
        if self.journal().is_none() {
            return;
        }
        let search = SelectionEvent {
            operation: self.work.operation().to_owned(),
            operation_id: None,
            selector: self.work.read_preference().clone(),
            topology: Arc::clone(self.topology.description()),
            stage,
        };
        if let Some(journal) = &mut self.journal {
            journal.search(search);
        }
    }

    /// The topology ends with its machine; what is known of it stays, for other streams.
    pub(super) fn close_journal(&mut self) {
        if self.journal().is_none() {
            return;
        }
        let mut topology = self.topology.clone();
        topology.close();
        if let Some(journal) = &mut self.journal {
            while let Some(event) = topology.poll_event() {
                journal.topology(event);
            }
        }
    }
}
