//! The machine itself: states and transitions.

mod delivery;
mod opening;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use delivery::Delivery;

use super::command::Commands;
use super::inbox::{Arrived, Inbox, Item};
use super::position::Position;
use super::reply::CursorReply;
use super::resumable::{cursor_is_gone, is_overload, is_resumable};
use super::{
    Command, CommandReply, Expects, Farewell, Role, Server, Start, StreamInput, StreamOutput, StreamStats,
};
use crate::client::Demand;
use crate::faults::Fault;
use crate::options::{ResumePolicy, Scope, WatchOptions};
use crate::random::Random;
use crate::token::ResumeToken;
use crate::{Error, ErrorKind, ReadPreference, ServerAddress, ServerError, Session};

/// One change stream, from its first aggregate to its end.
#[derive(Debug)]
pub struct StreamMachine {
    commands: Commands,
    rules: Rules,
    position: Position,
    state: State,
    inbox: Inbox,
    outbox: VecDeque<StreamOutput>,
    demand: Demand,
    /// Whether the getMore that a [`Demand::TryNext`] is worth was sent.
    tried: bool,
    opened: bool,
    /// Resumes since the last successful getMore.
    attempts: u32,
    /// getMores in a row that were not answered in time: each doubles the patience, so that a server that needs long
    /// to scan its log is not asked the same in vain for ever.
    overdue: u32,
    /// A cursor that a network error left behind, to be killed if its server is the one selected next.
    left_behind: Option<(ServerAddress, Cursor)>,
    stats: StreamStats,
    random: Random,
}

/// What the user decided.
#[derive(Debug)]
struct Rules {
    prefetch_batches: usize,
    prefetch_bytes: usize,
    resume_policy: ResumePolicy,
    retries: Retries,
    ends_session: bool,
    read_preference: ReadPreference,
    max_await: Duration,
    patience: Patience,
}

/// How long replies may take beyond what the server was told to wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For an aggregate that starts now: the server has nothing to read before it answers.
    pub open: Duration,
    /// For an aggregate that starts in the past: the server may have much of its log to read.
    pub scan: Duration,
    /// For a getMore, on top of its await time.
    pub get_more: Duration,
}

/// Which failures of a command are answered by sending it again, before anything is said of them.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// Whether aggregates are retryable reads, and commands are tried again at all (`retryReads`).
    pub reads: bool,
    /// How often a command is tried again that an overloaded server refused (`maxAdaptiveRetries`).
    pub overloads: u32,
    /// Whether another server is preferred for that (`enableOverloadRetargeting`).
    pub retargets: bool,
}

#[derive(Debug)]
enum State {
    /// A server was asked for.
    Selecting(Goal),
    /// The aggregate is in flight.
    Opening(Goal, Server),
    /// There is a cursor.
    Live(Live),
    /// An overloaded server refused the getMore: it is sent again at that time.
    Postponed(Live, Instant),
    /// A getMore failed; its fault waits in the inbox behind what arrived before. The server is kept for the farewell,
    /// if its connection stands.
    Faulted(Option<Server>),
    /// The next attempt to open or to resume waits for its time.
    BackingOff(Goal, Instant),
    /// The cursor is exhausted; the inbox holds its last events. The server is kept for the farewell.
    Exhausted(Server),
    /// To be reported.
    Ending(Result<(), Error>, Option<Farewell>),
    Ended,
}

#[derive(Debug)]
struct Live {
    server: Server,
    cursor: Cursor,
    in_flight: bool,
    /// The last reply was empty: the next getMore waits for the consumer.
    idle: bool,
    /// How often the getMore was sent again because the server was overloaded.
    overloads: u32,
}

#[derive(Clone, Debug)]
struct Cursor {
    id: i64,
    namespace: Option<String>,
}

/// What an aggregate is to achieve.
#[derive(Clone, Debug)]
struct Goal {
    start: Start,
    /// How often it was tried again, as retryable reads are.
    retries: u32,
    /// Whether an overloaded server refused it: it may then be tried again more often.
    overloaded: bool,
    /// A server to avoid where there is another.
    avoided: Option<ServerAddress>,
    /// When what made it necessary happened.
    since: Instant,
}

impl Goal {
    fn new(start: Start, since: Instant) -> Self {
        Self {
            start,
            retries: 0,
            overloaded: false,
            avoided: None,
            since,
        }
    }
}

impl Retries {
    /// Whether a getMore that was refused so, and was sent again this often, is sent once more.
    fn allow(self, error: &ServerError, retries: u32) -> bool {
        self.reads && retries < self.overloads && is_overload(error)
    }
}

impl StreamMachine {
    /// A stream that asks for a server at once.
    ///
    /// # Errors
    /// An option cannot be encoded.
    pub fn new(
        scope: &Scope,
        options: &WatchOptions,
        retries: Retries,
        patience: Patience,
        mut random: Random,
        now: Instant,
    ) -> Result<Self, Error> {
        let session = options
            .session
            .clone()
            .unwrap_or_else(|| Session::new(&mut random));
        let goal = Goal::new(Start::Open, now);
        let mut machine = Self {
            commands: Commands::new(scope, options, session)?,
            rules: Rules {
                prefetch_batches: options.prefetch_batches,
                prefetch_bytes: options.prefetch_bytes,
                resume_policy: options.resume_policy.clone(),
                retries,
                ends_session: options.session.is_none(),
                read_preference: options.read_preference.clone().unwrap_or_default(),
                max_await: options
                    .max_await_time
                    .unwrap_or(SERVER_DEFAULT_AWAIT)
                    .min(FOREVER),
                patience: Patience {
                    open: patience.open.min(FOREVER),
                    scan: patience.scan.min(FOREVER),
                    get_more: patience.get_more.min(FOREVER),
                },
            },
            position: Position::new(options),
            state: State::Ended,
            inbox: Inbox::default(),
            outbox: VecDeque::new(),
            demand: Demand::None,
            tried: false,
            opened: false,
            attempts: 0,
            overdue: 0,
            left_behind: None,
            stats: StreamStats::default(),
            random,
        };
        machine.select(goal);
        Ok(machine)
    }

    /// Takes an input in. What does not fit the state is ignored.
    pub fn handle_input(&mut self, now: Instant, input: StreamInput) {
        match input {
            StreamInput::Ready(server) => self.on_ready(server),
            StreamInput::Reply(reply) => self.on_reply(now, reply),
            StreamInput::Failed(error) => self.on_failed(now, error),
            StreamInput::Timeout => self.on_timeout(now),
            StreamInput::Demand(demand) => self.on_demand(demand),
        }
    }

    /// The next thing that the stream wants; none until an input comes.
    pub fn poll_output(&mut self, now: Instant) -> Option<StreamOutput> {
        loop {
            self.fetch();
            if let Some(output) = self.outbox.pop_front() {
                return Some(output);
            }
            if self.demand != Demand::None {
                match self.deliver(now) {
                    Delivery::Update(update) => return Some(StreamOutput::Update(update)),
                    Delivery::Again => continue,
                    Delivery::Nothing => {}
                }
            }
            return self.finish();
        }
    }

    /// When time alone moves the stream on.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::BackingOff(_, until) | State::Postponed(_, until) => Some(*until),
            State::Selecting(_)
            | State::Opening(..)
            | State::Live(_)
            | State::Faulted(_)
            | State::Exhausted(_)
            | State::Ending(..)
            | State::Ended => None,
        }
    }

    /// Ends the stream from outside. What is left to be told to a server is returned; no output comes any more.
    pub fn close(&mut self) -> Option<Farewell> {
        let farewell = self.farewell();
        self.inbox.clear();
        self.outbox.clear();
        self.state = State::Ended;
        farewell
    }

    /// The token to resume from: that of the last event handed over, or of the last empty batch.
    pub fn resume_token(&self) -> Option<&ResumeToken> {
        self.position.token()
    }

    /// The read preference that servers are to be selected by.
    pub fn read_preference(&self) -> &ReadPreference {
        &self.rules.read_preference
    }

    /// Whether the first aggregate has succeeded.
    pub fn is_open(&self) -> bool {
        self.opened
    }

    /// Whether an event can be handed over without a further reply.
    pub fn has_buffered(&self) -> bool {
        self.inbox.batches().next().is_some()
    }

    /// Whether more can come: false once the last event of an exhausted cursor is handed over, or the stream ended.
    pub fn is_alive(&self) -> bool {
        match self.state {
            State::Selecting(_)
            | State::Opening(..)
            | State::Live(_)
            | State::Postponed(..)
            | State::Faulted(_)
            | State::BackingOff(..) => true,
            State::Exhausted(_) => self.has_buffered(),
            State::Ending(..) | State::Ended => false,
        }
    }

    /// What the stream has done so far.
    pub fn stats(&self) -> StreamStats {
        StreamStats {
            position_time: self.position.token().and_then(ResumeToken::cluster_time),
            ..self.stats.clone()
        }
    }
}

/// Inputs.
impl StreamMachine {
    fn on_ready(&mut self, server: Server) {
        let State::Selecting(goal) = &self.state else {
            return;
        };
        let goal = goal.clone();
        if let Some((owner, cursor)) = self.left_behind.take()
            && (owner == server.address || Fault::KilledElsewhere.is_on())
            && server.role != Role::LoadBalanced
        {
            self.kill(&cursor, &server);
        }
        if Fault::SessionChanged.is_on() && goal.start == Start::Resume {
            self.commands.change_session(Session::new(&mut self.random));
        }
        let body = self.commands.aggregate(goal.start, &self.position, &server);
        let within = if self.position.starts_in_the_past(goal.start) {
            self.rules.patience.scan
        } else {
            self.rules.patience.open
        };
        self.send(body, within);
        self.state = State::Opening(goal, server);
    }

    fn on_reply(&mut self, now: Instant, reply: CommandReply) {
        if reply.operation_time > self.stats.operation_time {
            self.stats.operation_time = reply.operation_time;
        }
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Opening(goal, server) => match &reply.error {
                Some(error) => {
                    let error = Error::new(ErrorKind::from_server(error.clone())).at(server.address.clone());
                    self.state = State::Faulted(Some(server));
                    self.open_failed(now, goal, error, reply.base_backoff());
                }
                None => self.opened(goal, server, &reply),
            },
            State::Live(live) if live.in_flight => match &reply.error {
                Some(error) if self.rules.retries.allow(error, live.overloads) => {
                    let overloads = live.overloads + 1;
                    let delay = self.overload_delay(overloads, reply.base_backoff());
                    let (in_flight, idle) = (false, live.idle);
                    let live = Live {
                        in_flight,
                        idle,
                        overloads,
                        ..live
                    };
                    self.state = State::Postponed(live, now + delay);
                }
                Some(error) => {
                    if live.cursor.id != 0 && !cursor_is_gone(error) {
                        self.kill(&live.cursor, &live.server);
                    }
                    let error = Error::new(ErrorKind::from_server(error.clone()));
                    self.faulted(&live.server, error);
                    self.state = State::Faulted(Some(live.server));
                }
                None => self.fetched(live, &reply),
            },
            unmoved @ (State::Selecting(_)
            | State::Live(_)
            | State::Postponed(..)
            | State::Faulted(_)
            | State::BackingOff(..)
            | State::Exhausted(_)
            | State::Ending(..)
            | State::Ended) => self.state = unmoved,
        }
    }

    fn on_failed(&mut self, now: Instant, error: Error) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Selecting(goal) => self.open_failed(now, goal, error, None),
            State::Opening(goal, server) => self.open_failed(now, goal, error.at(server.address), None),
            State::Live(live) | State::Postponed(live, _) => {
                if matches!(error.kind(), ErrorKind::Network { timed_out: true, .. }) {
                    self.overdue = self.overdue.saturating_add(1);
                }
                self.left_behind = Some((live.server.address.clone(), live.cursor));
                self.faulted(&live.server, error);
            }
            // The connection is gone: nothing is left to be told to its server.
            State::Faulted(_) => self.state = State::Faulted(None),
            unmoved @ (State::BackingOff(..) | State::Exhausted(_) | State::Ending(..) | State::Ended) => {
                self.state = unmoved;
            }
        }
    }

    fn on_timeout(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::BackingOff(goal, until) if until <= now => self.select(goal),
            State::Postponed(live, until) if until <= now => self.ask(live),
            unmoved @ (State::Selecting(_)
            | State::Opening(..)
            | State::Live(_)
            | State::Postponed(..)
            | State::Faulted(_)
            | State::BackingOff(..)
            | State::Exhausted(_)
            | State::Ending(..)
            | State::Ended) => self.state = unmoved,
        }
    }

    fn on_demand(&mut self, demand: Demand) {
        if demand == Demand::TryNext && self.demand != Demand::TryNext {
            self.tried = false;
        }
        self.demand = demand;
    }
}

/// Reading on.
impl StreamMachine {
    /// Asks for the next batch if there is reason to.
    fn fetch(&mut self) {
        let wanted = self.inbox.is_empty() && self.is_waited_for();
        let State::Live(live) = &self.state else { return };
        if live.in_flight {
            return;
        }
        let ahead = !live.idle && {
            let held: usize = self.inbox.batches().map(super::batch::Batch::len).sum();
            let batches = self.inbox.batches().count();
            batches > 0 && batches <= self.rules.prefetch_batches && held <= self.rules.prefetch_bytes
        };
        if !wanted && !ahead {
            return;
        }
        if let State::Live(live) = std::mem::replace(&mut self.state, State::Ended) {
            self.ask(live);
        }
    }

    /// Sends a getMore.
    fn ask(&mut self, mut live: Live) {
        live.in_flight = true;
        let body = self
            .commands
            .get_more(live.cursor.id, live.cursor.namespace.as_deref(), &live.server);
        let patience = self
            .rules
            .patience
            .get_more
            .saturating_mul(1 << self.overdue.min(6));
        let within = self.rules.max_await.saturating_add(patience);
        self.tried = true;
        self.state = State::Live(live);
        self.send(body, within);
    }

    fn is_waited_for(&self) -> bool {
        match self.demand {
            Demand::None => false,
            Demand::Next => true,
            Demand::TryNext => !self.tried,
        }
    }

    fn fetched(&mut self, live: Live, reply: &CommandReply) {
        self.attempts = 0;
        self.overdue = 0;
        let cursor = match reply.cursor() {
            Ok(cursor) => cursor,
            Err(error) => {
                self.faulted(&live.server, error);
                self.state = State::Faulted(Some(live.server));
                return;
            }
        };
        self.arrived(&cursor, reply);
        self.go_on(live.server, cursor);
    }

    fn arrived(&mut self, cursor: &CursorReply, reply: &CommandReply) {
        let token = cursor.post_batch_resume_token.clone();
        if cursor.batch.is_empty() {
            self.stats.empty_batches += 1;
            if self.inbox.batches().next().is_none() {
                self.position.advanced(token.clone());
            }
            self.inbox.push(Item::Idle {
                token,
                operation_time: reply.operation_time,
            });
        } else {
            self.stats.batches += 1;
            if Fault::TokenOnReceipt.is_on() {
                self.position.advanced(token.clone());
            }
            for _ in 0..if Fault::BatchTwice.is_on() { 2 } else { 1 } {
                self.inbox.push(Item::Batch(Arrived {
                    batch: cursor.batch.clone(),
                    post_batch_resume_token: token.clone(),
                    is_final: cursor.id == 0,
                }));
            }
        }
    }

    fn go_on(&mut self, server: Server, cursor: CursorReply) {
        self.state = if cursor.id == 0 {
            State::Exhausted(server)
        } else {
            State::Live(Live {
                server,
                idle: cursor.batch.is_empty(),
                in_flight: false,
                overloads: 0,
                cursor: Cursor {
                    id: cursor.id,
                    namespace: cursor.namespace,
                },
            })
        };
    }

    fn faulted(&mut self, server: &Server, error: Error) {
        let resumable = is_resumable(&error, server.max_wire_version);
        let error = error.resumable(resumable).at(server.address.clone());
        if Fault::ResumedAhead.is_on() && resumable {
            self.position.advanced(self.inbox.last_token());
            self.inbox.clear();
        }
        self.inbox.push(Item::Fault(error));
        self.state = State::Faulted(None);
    }

    fn send(&mut self, body: bson::raw::RawDocumentBuf, within: Duration) {
        self.outbox.push_back(StreamOutput::Send(Command {
            body,
            expects: Expects::Reply { within },
        }));
    }

    fn kill(&mut self, cursor: &Cursor, server: &Server) {
        let body = self
            .commands
            .kill_cursors(cursor.id, cursor.namespace.as_deref(), server);
        self.outbox.push_back(StreamOutput::Send(Command {
            body,
            expects: Expects::Nothing,
        }));
    }
}

/// How long a server waits for a change where maxAwaitTimeMS says nothing.
const SERVER_DEFAULT_AWAIT: Duration = Duration::from_secs(1);

/// Longer times are cut to this, so that adding them to an instant cannot overflow.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
