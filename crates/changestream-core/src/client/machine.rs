//! The machine that an adapter drives.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::awaited::Awaited;
use super::closing::Closing;
use super::journal::Journal;
use super::links::Link;
use super::resolving::{Resolving, Seeds};
use super::selecting::Selection;
use super::work::{Work, WorkOutput};
use super::{ClientSettings, ConnectionId, Deadline, DeadlineReason, Input, Output, Snapshot};
use crate::command::{CommandMachine, CommandOutput, CommandRules};
use crate::connection::Request;
use crate::event::ChangeEvent;
use crate::monitoring::SelectionStage;
use crate::options::{Scope, WatchOptions};
use crate::random::{Random, Seldom};
use crate::small_map::SmallMap;
use crate::stream::{
    self, ClusterTime, Expects, Patience, Retries, Role, Server, StreamInput, StreamMachine, StreamOutput,
    StreamStats,
};
use crate::token::ResumeToken;
use crate::topology::{ServerDescription, ServerType, Topology, TopologyDescription, TopologyType};
use crate::uri::ClientOptions;
use crate::{Error, ServerAddress, walk};

/// One change stream with everything that it needs: topology, connections, stream. Or commands instead of the stream.
#[derive(Debug)]
pub struct ClientMachine {
    pub(super) settings: Arc<ClientSettings>,
    pub(super) topology: Topology,
    pub(super) seeds: Seeds,
    /// Servers that have said that they know `hello` by that name.
    pub(super) knows_hello: SmallMap<ServerAddress, ()>,
    pub(super) work: Work,
    pub(super) links: SmallMap<ConnectionId, Link>,
    pub(super) phase: Phase,
    pub(super) cluster_time: Option<ClusterTime>,
    pub(super) outputs: VecDeque<Output>,
    pub(super) random: Seldom,
    pub(super) now: Instant,
    /// When it wanted to be called, as it said last.
    due: Option<Instant>,
    pub(super) next_connection: u64,
    pub(super) next_lookup: u64,
    /// What is told to whoever watches, if anybody does.
    pub(super) journal: Option<Box<Journal>>,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// The stream needs no server.
    Parked,
    /// The seeds are looked up in DNS, to select a server then.
    Resolving(Resolving),
    /// A server is looked for.
    Selecting(Selection),
    /// A server was found; its connection authenticates.
    Authenticating(ConnectionId, Selection),
    /// The stream's commands go over this connection; the requests whose replies it waits for.
    Attached(ConnectionId, Awaited),
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
        watch.timeout = watch.timeout.or(options.timeout);
        watch.read_concern = watch.read_concern.or_else(|| options.read_concern.clone());
        let mut random = Random::new(seed);
        // "Drivers MUST ignore any deprecated timeout options if `timeoutMS` is set" (Client Side Operations Timeout
        // specification, "Validation and Overrides").
        let socket_timeout = options
            .socket_timeout
            .filter(|timeout| !timeout.is_zero() && watch.timeout.is_none());
        let patience = Patience {
            open: socket_timeout.unwrap_or_else(|| options.server_selection_timeout.max(LEAST_OPEN_PATIENCE)),
            scan: socket_timeout.unwrap_or(SCAN_PATIENCE),
            get_more: socket_timeout.unwrap_or(GET_MORE_SLACK),
        };
        let stream = StreamMachine::new(scope, &watch, retries(options), patience, random.fork(), now)?;
        Self::around(settings, snapshot, Work::Stream(Box::new(stream)), random, now)
    }

    /// A machine that runs commands: each [`Input::Command`] is answered by one [`Output::Reply`], in order. Between them it
    /// keeps its connections, and without a command it does nothing.
    ///
    /// What is said of a stream, such as [`resume_token`](Self::resume_token), is empty.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_commands(
        settings: Arc<ClientSettings>,
        snapshot: Option<Snapshot>,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, Error> {
        let options = &settings.options;
        let mut random = Random::new(seed);
        let rules = CommandRules {
            retries: retries(options),
            retries_writes: options.retry_writes,
            patience: options.socket_timeout.filter(|timeout| !timeout.is_zero()),
            declares_api: options.server_api.is_some(),
            timeout: options.timeout,
        };
        let commands = CommandMachine::new(rules, random.fork());
        Self::around(
            settings,
            snapshot,
            Work::Commands(Box::new(commands)),
            random,
            now,
        )
    }

    fn around(
        settings: Arc<ClientSettings>,
        snapshot: Option<Snapshot>,
        work: Work,
        random: Random,
        now: Instant,
    ) -> Result<Self, Error> {
        let snapshot = snapshot.unwrap_or_default();
        let seeds = Seeds::new(&settings, snapshot.resolution);
        let (settings, mut topology) = seeds.start(settings)?;
        if let Some(known) = &snapshot.topology {
            topology.merge(known);
        }
        let mut machine = Self {
            topology,
            seeds,
            knows_hello: SmallMap::new(),
            work,
            links: SmallMap::new(),
            phase: Phase::Parked,
            cluster_time: snapshot.cluster_time,
            outputs: VecDeque::with_capacity(1),
            random: Seldom::new(&random),
            now,
            due: None,
            next_connection: 0,
            next_lookup: 0,
            journal: settings.topology.record_events.then(Box::default),
            settings,
        };
        machine.take_known_list();
        Ok(machine)
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
            Input::Resolved { lookup, result } => self.on_resolved(lookup, result),
            Input::Credentials { connection, answer } => {
                self.on_link(connection, |link| link.connection.answer(now, answer));
            }
            Input::Timeout => self.on_timeout(),
            Input::Command(command) => {
                if let Work::Commands(commands) = &mut self.work {
                    commands.run(now, *command);
                }
            }
            Input::Demand(demand) => self.work.handle_input(now, StreamInput::Demand(demand)),
            Input::Begin => {
                self.work.handle_input(now, StreamInput::Begin);
                self.renew_selection();
            }
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
            match self.work.poll_output(self.now) {
                Some(WorkOutput::Stream(output)) => match output {
                    StreamOutput::Update(update) => return Output::Update(self.explained(update)),
                    StreamOutput::Abandon => self.abandon(),
                    StreamOutput::Send(command) => self.send(command),
                    StreamOutput::SelectServer { deprioritized } => self.start_selection(deprioritized),
                    StreamOutput::End(result, farewell) => {
                        let result = result.map_err(|error| self.explain(error));
                        self.end(result, farewell);
                    }
                },
                Some(WorkOutput::Command(output)) => match output {
                    CommandOutput::Replied(result) => {
                        if let Some(journal) = self.journal() {
                            journal.given_back();
                        }
                        return Output::Reply(result);
                    }
                    CommandOutput::Abandoned(error) => {
                        let error = self.explain(error);
                        self.give_up(&error);
                        self.work.given_up(self.now);
                        return Output::Reply(Err(error));
                    }
                    CommandOutput::Send(command) => self.send(command),
                    CommandOutput::SelectServer { deprioritized, again } => {
                        if let Some(journal) = self.journal()
                            && !again
                        {
                            journal.new_operation();
                        }
                        self.start_selection(deprioritized);
                    }
                },
                None => {
                    // In the steady state there is one at a time.
                    self.outputs.shrink_to(1);
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

    /// The next event, if it can be had without a [`Demand`](super::Demand): it has arrived, and handing it over asks for
    /// nothing else to be done. A short cut for whoever consumes events one by one; where it gives none,
    /// demand an update, whatever the reason.
    #[inline]
    pub fn take_ready(&mut self) -> Option<ChangeEvent> {
        if !self.outputs.is_empty() {
            return None;
        }
        self.work.take_ready()
    }

    /// The event that a [`Demand`](super::Demand) waits for, if it has arrived and is the only one. What else there is to do
    /// since it arrived, as to ask for the next batch, is left to [`poll_output`](Self::poll_output), and takes its time from
    /// when that is called.
    ///
    /// For drivers with a consumer who is back at once, and who shall not wait until a getMore is made that nothing is fetched
    /// ahead by. Where it gives none, poll for outputs.
    pub fn take_awaited(&mut self) -> Option<ChangeEvent> {
        if !self.outputs.is_empty() {
            return None;
        }
        self.work.take_awaited(self.now)
    }

    /// The token to resume from: that of the last event handed over, or of the last empty batch. May be asked for at
    /// any time.
    pub fn resume_token(&self) -> Option<&ResumeToken> {
        self.work.resume_token()
    }

    /// Whether the first aggregate has succeeded; true for a machine that runs commands.
    pub fn is_open(&self) -> bool {
        self.work.is_open()
    }

    /// Whether more may come: false once the cursor has ended, as it does behind an invalidate event, and its last event is
    /// handed over; or once the stream has failed or was closed.
    pub fn is_alive(&self) -> bool {
        !matches!(self.phase, Phase::Closing(_) | Phase::Closed(_)) && self.work.is_alive()
    }

    /// Whether an event can be handed over without further input.
    pub fn has_buffered(&self) -> bool {
        self.work.has_buffered()
    }

    /// How long taking leave may take where its caller says nothing: `timeoutMS`, which counts anew, or else five seconds.
    pub fn close_limit(&self) -> Duration {
        self.work.call_limit().unwrap_or(CLOSE_LIMIT)
    }

    /// What the stream has done so far, and how far behind it is.
    pub fn stats(&self) -> StreamStats {
        self.work.stats()
    }

    /// Takes in the cluster time that another machine of the same client has seen, to be gossiped with the next command
    /// (Driver Sessions specification, "Gossipping the Cluster Time"). Its topology stays what its own checks say.
    pub fn learn(&mut self, snapshot: Snapshot) {
        ClusterTime::advance(&mut self.cluster_time, snapshot.cluster_time);
    }

    /// The options in force: once they are found, with the servers and the defaults that DNS gives to a `mongodb+srv://`
    /// connection string.
    pub fn options(&self) -> &ClientOptions {
        self.settings.options()
    }

    /// What is known of the deployment.
    pub fn topology(&self) -> &TopologyDescription {
        self.topology.description()
    }

    /// What this machine knows of the deployment, for other streams of the same client.
    pub fn snapshot(&self) -> Snapshot {
        let is_seeded = !matches!(self.seeds, Seeds::Unresolved { .. });
        Snapshot {
            topology: is_seeded.then(|| self.topology.snapshot()),
            cluster_time: self.cluster_time.clone(),
            resolution: self.seeds.resolution().cloned(),
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
            min_round_trip: described
                .map(|server| server.round_trip.minimum())
                .unwrap_or_default(),
        };
        self.phase = Phase::Attached(id, Awaited::default());
        let now = self.now;
        if let Some(journal) = self.journal() {
            journal.taken(now, id, &server.address);
        }
        self.drop_unneeded_links(id);
        let minutes = self.topology.description().logical_session_timeout_minutes;
        let session_timeout = minutes.and_then(|minutes| u64::try_from(minutes).ok());
        let session_timeout = session_timeout.map(|minutes| Duration::from_secs(minutes.saturating_mul(60)));
        self.work.handle_ready(self.now, server, session_timeout);
    }

    /// The stream's connection is busy with what nobody waits for.
    fn abandon(&mut self) {
        if let Phase::Attached(id, _) = self.phase {
            self.phase = Phase::Parked;
            self.drop_link(id, crate::monitoring::ClosedReason::Unused);
        }
    }

    /// A command ran out of time. What goes on to find a server is of use for the next one: too short a time would else find
    /// none, however often.
    fn give_up(&mut self, error: &Error) {
        self.abandon();
        self.tell_search(SelectionStage::Failed {
            failure: error.clone(),
        });
        let now = self.now;
        if let Some(journal) = self.journal() {
            journal.gave_up(now, error);
        }
        match self.phase {
            Phase::Resolving(_) | Phase::Selecting(_) | Phase::Authenticating(..) => {
                self.phase = Phase::Parked;
            }
            Phase::Parked | Phase::Attached(..) | Phase::Closing(_) | Phase::Closed(_) => {}
        }
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
        let request = Request {
            body: command.body,
            exhaust_allowed: command.exhaust_allowed,
            // Whoever watches is told of whole replies.
            in_parts: command.in_parts && self.journal.is_none(),
            reply_timeout,
        };
        let request = self.send_on(id, request);
        if let (Phase::Attached(_, awaited), Expects::Reply { .. }) = (&mut self.phase, command.expects) {
            awaited.ask(request);
        }
    }

    /// Adds the newest cluster time that is known. What only a session knows is not the client's.
    fn gossip(&self, body: &mut bson::RawDocumentBuf) {
        let of_session = self.work.session_time();
        let newest = match (&self.cluster_time, &of_session) {
            (Some(own), Some(other)) if own.time() < other.time() => Some(other),
            (Some(own), _) => Some(own),
            (None, other) => other.as_ref(),
        };
        if let Some(time) = newest {
            stream::gossip(body, time.document());
        }
    }

    /// Sends a command, with the cluster time.
    pub(super) fn send_on(&mut self, id: ConnectionId, mut request: Request) -> Option<i32> {
        let body = &mut request.body;
        if walk::find(body.as_bytes(), "$clusterTime").is_none() {
            self.gossip(body);
        }
        if let Some(api) = &self.settings.options.server_api {
            api.declare(body);
        }
        let watched = self.journal.is_some().then(|| body.clone());
        let link = self.links.get_mut(&id)?;
        let request = link.connection.send(self.now, request);
        let now = self.now;
        if let (Some(body), Some(journal)) = (watched, self.journal()) {
            journal.started(now, id, request, body);
        }
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
        match &self.phase {
            Phase::Selecting(_) => self.advance_selection(),
            Phase::Resolving(_) => self.check_resolving(),
            Phase::Closing(closing) if closing.deadline <= now => self.finish_closing(),
            Phase::Authenticating(..) => self.check_authenticating(),
            Phase::Closing(_) | Phase::Parked | Phase::Attached(..) | Phase::Closed(_) => {}
        }
        // Last: where both times are over at once, what fails above says more.
        self.work.handle_input(now, StreamInput::Timeout);
    }

    fn deadline(&self) -> Option<Deadline> {
        let links = self.links.values().filter_map(|link| link.connection.deadline());
        let stream = self.work.deadline().map(|(at, reason)| Deadline { at, reason });
        let phase = match &self.phase {
            Phase::Selecting(_) | Phase::Authenticating(..) => self.selection_deadline(),
            Phase::Resolving(resolving) => Some(Deadline {
                at: resolving.deadline,
                reason: DeadlineReason::Resolve,
            }),
            Phase::Closing(closing) => Some(Deadline {
                at: closing.deadline,
                reason: DeadlineReason::Close,
            }),
            Phase::Parked | Phase::Attached(..) | Phase::Closed(_) => None,
        };
        links
            .chain(stream)
            .chain(phase)
            .min_by_key(|deadline| deadline.at)
    }
}

fn retries(options: &ClientOptions) -> Retries {
    Retries {
        reads: options.retry_reads,
        overloads: options.max_adaptive_retries.unwrap_or(MAX_ADAPTIVE_RETRIES),
        retargets: options.enable_overload_retargeting.unwrap_or(false),
    }
}

fn role(topology_type: TopologyType, server: Option<&ServerDescription>) -> Role {
    match (topology_type, server.map(|server| server.server_type)) {
        (TopologyType::LoadBalanced, _) => Role::LoadBalanced,
        (TopologyType::Single, Some(ServerType::Standalone)) => Role::Standalone,
        (TopologyType::Single, Some(server_type)) if server_type != ServerType::Mongos => Role::Direct,
        (_, _) => Role::Member,
    }
}

/// Where `timeoutMS` is not set. The server forgets a cursor by itself in time.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// An aggregate that starts now is answered within `serverSelectionTimeoutMS`, but has at least this long.
const LEAST_OPEN_PATIENCE: Duration = Duration::from_secs(2);

/// An aggregate that starts in the past may have to read much of the log before it is answered: a limit that is too
/// short would fail each time anew.
const SCAN_PATIENCE: Duration = Duration::from_secs(300);

/// `maxAdaptiveRetries` where it is not set (Client Backpressure specification).
const MAX_ADAPTIVE_RETRIES: u32 = 2;

/// Whoever calls later than this after the deadline did not look in between.
const PUNCTUAL: Duration = Duration::from_secs(1);

/// How long a getMore may stay unanswered beyond its await time and the round-trip time before the peer counts as
/// dead. Doubled each time that it was too short.
const GET_MORE_SLACK: Duration = Duration::from_secs(10);
