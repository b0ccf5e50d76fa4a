//! The machine that an adapter drives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::closing::Closing;
use super::selecting::Selection;
use super::{ClientSettings, ConnectionId, Deadline, DeadlineReason, Input, Output, Snapshot};
use crate::connection::{Connection, ConnectionOutput, Reply, Request};
use crate::options::{Scope, WatchOptions};
use crate::random::Random;
use crate::stream::{
    self, ClusterTime, CommandReply, Expects, Patience, Retries, Role, Server, StreamInput, StreamMachine,
    StreamOutput, StreamStats,
};
use crate::token::ResumeToken;
use crate::topology::{HelloReply, ServerDescription, ServerType, Topology, TopologyType};
use crate::{Error, ErrorKind, ServerAddress};

/// One change stream with everything that it needs: topology, connections, stream.
#[derive(Debug)]
pub struct ClientMachine {
    pub(super) settings: Arc<ClientSettings>,
    pub(super) topology: Topology,
    /// Servers that have said that they know `hello` by that name.
    knows_hello: BTreeSet<ServerAddress>,
    pub(super) stream: StreamMachine,
    pub(super) links: BTreeMap<ConnectionId, Link>,
    pub(super) phase: Phase,
    pub(super) cluster_time: Option<ClusterTime>,
    pub(super) outputs: VecDeque<Output>,
    pub(super) random: Random,
    pub(super) now: Instant,
    /// When it wanted to be called, as it said last.
    due: Option<Instant>,
    next_connection: u64,
}

/// A connection and what it is for the machine.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) address: ServerAddress,
    /// The server's pool generation when the connection was made: an error of an older one says nothing.
    pub(super) generation: u64,
    pub(super) stage: Stage,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not open, or its hello is not answered.
    Opening,
    /// The server has said hello.
    Greeted,
    /// The server is asked for another hello, over a connection that it has greeted before.
    Checking,
    /// Authenticated: ready for commands.
    Ready,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// The stream needs no server.
    Parked,
    /// A server is looked for.
    Selecting(Selection),
    /// A server was found; its connection authenticates.
    Authenticating(ConnectionId, Selection),
    /// The stream's commands go over this connection; the request whose reply it waits for.
    Attached(ConnectionId, Option<i32>),
    /// The stream is over; the server is told.
    Closing(Closing),
    /// Over.
    Closed(Result<(), Error>),
}

impl ClientMachine {
    /// A machine that starts to look for a server as soon as it is polled.
    ///
    /// Equal arguments and equal inputs give equal outputs: `seed` decides every random choice. It has to be
    /// unpredictable where the server is authenticated.
    ///
    /// # Errors
    /// An option cannot be encoded, or makes no sense.
    pub fn new(
        settings: Arc<ClientSettings>,
        snapshot: Option<Snapshot>,
        scope: &Scope,
        mut watch: WatchOptions,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, Error> {
        let options = &settings.options;
        watch
            .read_preference
            .get_or_insert_with(|| options.read_preference.clone());
        watch.read_concern = watch.read_concern.or_else(|| options.read_concern.clone());
        let mut random = Random::new(seed);
        let socket_timeout = options.socket_timeout.filter(|timeout| !timeout.is_zero());
        let patience = Patience {
            open: socket_timeout.unwrap_or(OPEN_PATIENCE),
            get_more: socket_timeout.unwrap_or(GET_MORE_SLACK),
        };
        let retries = Retries {
            reads: options.retry_reads,
            overloads: options.max_adaptive_retries.unwrap_or(MAX_ADAPTIVE_RETRIES),
            retargets: options.enable_overload_retargeting.unwrap_or(false),
        };
        let stream = StreamMachine::new(scope, &watch, retries, patience, random.fork(), now)?;
        let snapshot = snapshot.unwrap_or_default();
        let mut topology = Topology::new(settings.topology.clone())
            .map_err(|error| Error::invalid_argument(error.to_string()))?;
        if let Some(known) = &snapshot.topology {
            topology.merge(known);
        }
        Ok(Self {
            topology,
            knows_hello: BTreeSet::new(),
            stream,
            links: BTreeMap::new(),
            phase: Phase::Parked,
            cluster_time: snapshot.cluster_time,
            outputs: VecDeque::new(),
            random,
            now,
            due: None,
            next_connection: 0,
            settings,
        })
    }

    /// Takes an input in.
    ///
    /// `now` never goes back; an earlier one counts as the latest seen.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        let before = self.now;
        self.now = before.max(now);
        let now = self.now;
        if matches!(self.phase, Phase::Closed(_)) {
            return;
        }
        if self
            .due
            .take()
            .is_some_and(|due| now.saturating_duration_since(due) > PUNCTUAL)
        {
            self.postpone(now.saturating_duration_since(before));
        }
        match input {
            Input::Connected { connection } => {
                self.on_link(connection, |link| link.connection.handle_connected(now));
            }
            Input::Received { connection, len } => {
                self.on_link(connection, |link| link.connection.handle_received(now, len));
            }
            Input::Disconnected { connection, reason } => {
                self.on_link(connection, |link| {
                    link.connection.handle_disconnected(now, reason)
                });
            }
            Input::Timeout => self.on_timeout(),
            Input::Demand(demand) => self.stream.handle_input(now, StreamInput::Demand(demand)),
            Input::Close { deadline } => self.close(deadline),
        }
    }

    /// What the machine wants next. To be called until it says [`Output::Wait`] or [`Output::Closed`].
    pub fn poll_output(&mut self) -> Output {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return output;
            }
            if let Phase::Closed(result) = &self.phase {
                return Output::Closed(result.clone());
            }
            match self.stream.poll_output(self.now) {
                Some(StreamOutput::Update(update)) => return Output::Update(update),
                Some(StreamOutput::Send(command)) => self.send(command),
                Some(StreamOutput::SelectServer { deprioritized }) => self.start_selection(deprioritized),
                Some(StreamOutput::End(result, farewell)) => self.end(result, farewell),
                None => {
                    let deadline = self.deadline();
                    self.due = deadline.map(|deadline| deadline.at);
                    return Output::Wait(deadline);
                }
            }
        }
    }

    /// The buffer that the connection's socket is to be read into; never empty. None if the machine has given the
    /// connection up: then there is nothing to read.
    pub fn read_buffer(&mut self, connection: ConnectionId) -> Option<&mut [u8]> {
        self.links
            .get_mut(&connection)
            .map(|link| link.connection.read_buffer())
    }

    /// The token to resume from: that of the last event handed over, or of the last empty batch. May be asked for at
    /// any time.
    pub fn resume_token(&self) -> Option<&ResumeToken> {
        self.stream.resume_token()
    }

    /// Whether the first aggregate has succeeded.
    pub fn is_open(&self) -> bool {
        self.stream.is_open()
    }

    /// Whether more may come: false once an invalidate event is handed over, the stream has failed or was closed.
    pub fn is_alive(&self) -> bool {
        !matches!(self.phase, Phase::Closing(_) | Phase::Closed(_)) && self.stream.is_alive()
    }

    /// Whether an event can be handed over without further input.
    pub fn has_buffered(&self) -> bool {
        self.stream.has_buffered()
    }

    /// What the stream has done so far, and how far behind it is.
    pub fn stats(&self) -> StreamStats {
        self.stream.stats()
    }

    /// What this machine knows of the deployment, for other streams of the same client.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            topology: Some(self.topology.snapshot()),
            cluster_time: self.cluster_time.clone(),
        }
    }
}

/// Connections.
impl ClientMachine {
    /// Orders a connection to that server.
    pub(super) fn open_link(&mut self, address: ServerAddress) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let connection = Connection::new(
            Arc::clone(&self.settings.connection),
            address.clone(),
            self.knows_hello.contains(&address),
            self.random.fork(),
            self.now,
        );
        let link = Link {
            connection,
            generation: self.topology.generation(&address, None),
            address: address.clone(),
            stage: Stage::Opening,
        };
        self.links.insert(id, link);
        self.outputs.push_back(Output::Connect {
            connection: id,
            address,
        });
        id
    }

    /// Gives a connection up. What it has to say still goes out before.
    pub(super) fn drop_link(&mut self, id: ConnectionId) {
        let Some(mut link) = self.links.remove(&id) else {
            return;
        };
        if matches!(link.stage, Stage::Opening | Stage::Checking) {
            self.topology.cancel_check(self.now, &link.address);
        }
        while let Some(output) = link.connection.poll_output() {
            if let ConnectionOutput::Transmit(bytes) = output {
                self.outputs.push_back(Output::Transmit {
                    connection: id,
                    bytes,
                });
            }
        }
        self.outputs.push_back(Output::Disconnect { connection: id });
    }

    pub(super) fn drop_links_but(&mut self, kept: Option<ConnectionId>) {
        let others: Vec<_> = self
            .links
            .keys()
            .copied()
            .filter(|id| Some(*id) != kept)
            .collect();
        for id in others {
            self.drop_link(id);
        }
    }

    /// Servers that are not part of the deployment any more are left, unless a stream still reads there, or takes leave
    /// there: its cursor is as good as before.
    fn drop_links_to(&mut self, removed: &[ServerAddress]) {
        let attached = match &self.phase {
            Phase::Attached(id, _) => Some(*id),
            Phase::Closing(closing) => Some(closing.connection),
            Phase::Parked | Phase::Selecting(_) | Phase::Authenticating(..) | Phase::Closed(_) => None,
        };
        let gone: Vec<_> = self
            .links
            .iter()
            .filter(|(id, link)| removed.contains(&link.address) && Some(**id) != attached)
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.drop_link(id);
            if let Phase::Authenticating(chosen, selection) = &self.phase
                && *chosen == id
            {
                self.phase = Phase::Selecting(selection.clone());
            }
        }
    }

    pub(super) fn on_link(&mut self, id: ConnectionId, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.links.get_mut(&id) {
            change(link);
            self.drain_link(id);
        }
    }

    /// Takes over everything that a connection has to say.
    pub(super) fn drain_link(&mut self, id: ConnectionId) {
        while let Some(output) = self
            .links
            .get_mut(&id)
            .and_then(|link| link.connection.poll_output())
        {
            match output {
                ConnectionOutput::Transmit(bytes) => {
                    self.outputs.push_back(Output::Transmit {
                        connection: id,
                        bytes,
                    });
                }
                ConnectionOutput::Hello { body, round_trip } => self.on_hello(id, &body, round_trip),
                ConnectionOutput::Ready => self.on_ready(id),
                ConnectionOutput::Reply(reply) => self.on_reply(id, reply),
                ConnectionOutput::Failed(error) => self.on_link_failed(id, error),
            }
        }
    }

    fn on_hello(&mut self, id: ConnectionId, body: &bytes::Bytes, round_trip: Duration) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let hello = match bson::RawDocument::from_bytes(body).map(HelloReply::parse) {
            Ok(Ok(hello)) => hello,
            Ok(Err(error)) => return self.on_link_failed(id, bad_hello(&error.to_string())),
            Err(error) => return self.on_link_failed(id, bad_hello(&error.to_string())),
        };
        if self.settings.options.load_balanced && hello.service_id.is_none() {
            return self.on_link_failed(id, no_load_balancer());
        }
        link.stage = if link.connection.is_ready() {
            Stage::Ready
        } else {
            Stage::Greeted
        };
        let address = link.address.clone();
        if hello.hello_ok {
            self.knows_hello.insert(address.clone());
        }
        ClusterTime::advance(&mut self.cluster_time, ClusterTime::of_reply(body));
        let changes = self
            .topology
            .handle_hello(self.now, &address, hello, Some(round_trip));
        self.drop_links_to(&changes.removed);
        if matches!(self.phase, Phase::Closing(_)) {
            return self.continue_closing(id);
        }
        if self.topology.server(&address).is_none() {
            self.drop_link(id);
        }
        self.advance_selection();
    }

    fn on_ready(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.stage = Stage::Ready;
        match self.phase {
            Phase::Authenticating(chosen, _) if chosen == id => self.attach(id),
            Phase::Closing(_) => self.continue_closing(id),
            Phase::Authenticating(..)
            | Phase::Parked
            | Phase::Selecting(_)
            | Phase::Attached(..)
            | Phase::Closed(_) => {}
        }
    }

    fn on_reply(&mut self, id: ConnectionId, reply: Reply) {
        if matches!(self.phase, Phase::Closing(_)) {
            return self.on_farewell_reply(reply.request_id);
        }
        let parsed = match CommandReply::parse(reply.body) {
            Ok(parsed) => parsed,
            Err(error) => return self.on_link_failed(id, error),
        };
        ClusterTime::advance(&mut self.cluster_time, parsed.cluster_time.clone());
        if parsed.error.is_some() {
            self.blame(id, &parsed);
        }
        match &mut self.phase {
            Phase::Attached(attached, awaited) if *attached == id && *awaited == Some(reply.request_id) => {
                *awaited = None;
                self.stream.handle_input(self.now, StreamInput::Reply(parsed));
            }
            // The answer to a killCursors.
            Phase::Attached(..)
            | Phase::Parked
            | Phase::Selecting(_)
            | Phase::Authenticating(..)
            | Phase::Closing(_)
            | Phase::Closed(_) => {}
        }
    }

    fn on_link_failed(&mut self, id: ConnectionId, error: Error) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        self.outputs.push_back(Output::Disconnect { connection: id });
        let error = error.at(link.address.clone());
        tracing::debug!(server = %link.address, %error, "connection lost");
        self.blame_connection(&link, &error);
        if link.stage == Stage::Opening {
            // It may not know hello by that name any more.
            self.knows_hello.remove(&link.address);
        }
        // Behind a load balancer there is no other server to find.
        let looks_on =
            matches!(error.kind(), ErrorKind::Network { .. }) && !self.settings.options.load_balanced;
        match &self.phase {
            Phase::Attached(attached, _) if *attached == id => {
                self.phase = Phase::Parked;
                self.stream.handle_input(self.now, StreamInput::Failed(error));
            }
            Phase::Authenticating(chosen, selection) if *chosen == id => {
                if looks_on {
                    self.phase = Phase::Selecting(selection.clone());
                    self.advance_selection();
                } else {
                    self.fail_selection(error);
                }
            }
            Phase::Selecting(_) if self.settings.options.load_balanced => self.fail_selection(error),
            Phase::Selecting(_) => self.advance_selection(),
            Phase::Closing(closing) if closing.connection == id => self.finish_closing(),
            Phase::Closing(_)
            | Phase::Parked
            | Phase::Authenticating(..)
            | Phase::Attached(..)
            | Phase::Closed(_) => {}
        }
    }
}

/// The stream's commands.
impl ClientMachine {
    /// Hands the stream its server.
    pub(super) fn attach(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get(&id) else { return };
        let described = self.topology.server(&link.address);
        let server = Server {
            address: link.address.clone(),
            max_wire_version: link.connection.max_wire_version().unwrap_or(0),
            supports_sessions: self.settings.options.load_balanced
                || described.is_some_and(|server| server.logical_session_timeout_minutes.is_some()),
            role: role(self.topology.description().topology_type, described),
        };
        tracing::info!(server = %server.address, "attached");
        self.phase = Phase::Attached(id, None);
        self.drop_links_but(Some(id));
        self.stream.handle_input(self.now, StreamInput::Ready(server));
    }

    fn send(&mut self, command: stream::Command) {
        let Phase::Attached(id, _) = self.phase else {
            return;
        };
        let Some(link) = self.links.get(&id) else { return };
        let described = self.topology.server(&link.address);
        let round_trip = described
            .and_then(|server| server.round_trip.average())
            .unwrap_or_default();
        let reply_timeout = match command.expects {
            Expects::Reply { within } => Some(within.saturating_add(round_trip)),
            Expects::Nothing => None,
        };
        let request = self.send_on(id, command.body, reply_timeout);
        if let (Phase::Attached(_, awaited), Expects::Reply { .. }) = (&mut self.phase, command.expects) {
            *awaited = request;
        }
    }

    /// Sends a command, with the cluster time.
    pub(super) fn send_on(
        &mut self,
        id: ConnectionId,
        mut body: bson::RawDocumentBuf,
        reply_timeout: Option<Duration>,
    ) -> Option<i32> {
        if let Some(cluster_time) = &self.cluster_time {
            stream::gossip(&mut body, cluster_time.document());
        }
        let link = self.links.get_mut(&id)?;
        let request = link.connection.send(
            self.now,
            Request {
                body,
                exhaust_allowed: false,
                reply_timeout,
            },
        );
        self.drain_link(id);
        Some(request)
    }
}

/// Time.
impl ClientMachine {
    fn on_timeout(&mut self) {
        let now = self.now;
        let ids: Vec<_> = self.links.keys().copied().collect();
        for id in ids {
            self.on_link(id, |link| link.connection.handle_timeout(now));
        }
        self.stream.handle_input(now, StreamInput::Timeout);
        match &self.phase {
            Phase::Selecting(_) => self.advance_selection(),
            Phase::Closing(closing) if closing.deadline <= now => self.finish_closing(),
            Phase::Closing(_)
            | Phase::Parked
            | Phase::Authenticating(..)
            | Phase::Attached(..)
            | Phase::Closed(_) => {}
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        let links = self.links.values().filter_map(|link| link.connection.deadline());
        let stream = self.stream.deadline().map(|at| Deadline {
            at,
            reason: DeadlineReason::ResumeBackoff,
        });
        let phase = match &self.phase {
            Phase::Selecting(_) => self.selection_deadline(),
            Phase::Closing(closing) => Some(Deadline {
                at: closing.deadline,
                reason: DeadlineReason::Close,
            }),
            Phase::Parked | Phase::Authenticating(..) | Phase::Attached(..) | Phase::Closed(_) => None,
        };
        links
            .chain(stream)
            .chain(phase)
            .min_by_key(|deadline| deadline.at)
    }
}

fn bad_hello(message: &str) -> Error {
    Error::protocol(format!(
        "the hello reply is malformed: {message}; is this a MongoDB server?"
    ))
}

fn no_load_balancer() -> Error {
    Error::protocol(
        "the server is no service behind a load balancer: leave loadBalanced=true out to connect to it",
    )
}

fn role(topology_type: TopologyType, server: Option<&ServerDescription>) -> Role {
    match (topology_type, server.map(|server| server.server_type)) {
        (TopologyType::LoadBalanced, _) => Role::LoadBalanced,
        (TopologyType::Single, Some(ServerType::Standalone)) => Role::Standalone,
        (TopologyType::Single, Some(server_type)) if server_type != ServerType::Mongos => Role::Direct,
        (_, _) => Role::Member,
    }
}

/// How long an aggregate may stay unanswered where socketTimeoutMS says nothing. The server reads its log from the
/// starting point on before it answers, which takes minutes where the log is long and little of it matches.
const OPEN_PATIENCE: Duration = Duration::from_secs(300);

/// `maxAdaptiveRetries` where it is not set (Client Backpressure specification).
const MAX_ADAPTIVE_RETRIES: u32 = 2;

/// Whoever calls later than this after the deadline did not look in between.
const PUNCTUAL: Duration = Duration::from_secs(1);

/// How long a getMore may stay unanswered beyond its await time and the round-trip time before the peer counts as
/// dead. Doubled each time that it was too short.
const GET_MORE_SLACK: Duration = Duration::from_secs(10);
