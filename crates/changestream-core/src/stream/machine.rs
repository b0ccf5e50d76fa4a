//! The machine itself: states and transitions.

mod calls;
mod delivery;
mod fetching;
mod opening;
mod rules;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use calls::Calls;
use delivery::Delivery;
use rules::Rules;
pub use rules::{Patience, Retries};

use super::batch::Batch;
use super::command::Commands;
use super::inbox::{Arrived, Inbox, Item};
use super::position::Position;
use super::resumable::cursor_is_gone;
use super::{Avoid, CommandReply, Farewell, Role, Server, Start, StreamInput, StreamOutput, StreamStats};
use crate::client::{DeadlineReason, Demand};
use crate::faults::Fault;
use crate::options::{Scope, WatchOptions};
use crate::random::{Random, Seldom};
use crate::token::ResumeToken;
use crate::{Error, ErrorKind, ReadPreference, ServerAddress, Session};

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
    calls: Calls,
    /// Whether the getMore that a [`Demand::TryNext`] is worth was sent.
    tried: bool,
    opened: bool,
    /// Resumes since the last successful getMore.
    attempts: u32,
    /// getMores in a row that were not answered in time: each doubles the patience, so that a server that needs long
    /// to scan its log is not asked the same in vain for ever.
    overdue: u32,
    /// Whether the last event that was handed over is an invalidate event.
    stands_at_invalidate: bool,
    /// A cursor that a network error left behind, to be killed if its server is the one selected next.
    left_behind: Option<(ServerAddress, Cursor)>,
    stats: StreamStats,
    random: Seldom,
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
    /// The call that was to resume ran out of time: the next one starts anew.
    Interrupted,
    /// The cursor is exhausted, or was lost behind an invalidate event; the inbox holds its last events. The server is kept
    /// for the farewell, if there is still a way to it.
    Exhausted(Option<Server>),
    /// To be reported.
    Ending(Result<(), Error>, Option<Farewell>),
    Ended,
}

#[derive(Debug)]
struct Live {
    server: Server,
    cursor: Cursor,
    flight: Flight,
    rest: Rest,
    /// The last reply was empty: the next getMore waits for the consumer.
    idle: bool,
    /// How often the getMore was sent again because the server was overloaded.
    overloads: u32,
}

/// Of a getMore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    /// None is in flight.
    Landed,
    /// One is.
    Awaited,
    /// One is, and the call that it was for has ended.
    Late,
}

/// Of the reply that is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing of it has come.
    All,
    /// Some of its events have come: it is no error, so that the next getMore may follow.
    Some,
    /// Some have come, and the next getMore was sent.
    Followed,
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
    /// How often a server let it wait until it counted as gone.
    silences: u32,
    /// Whether an overloaded server refused it: it may then be tried again more often.
    overloaded: bool,
    /// Servers to avoid where there are others.
    avoided: BTreeMap<ServerAddress, Avoid>,
    /// When what made it necessary happened.
    since: Instant,
    /// Whether the call that it is for has ended.
    late: bool,
    /// Why it was tried again.
    failure: Option<Error>,
}

impl Goal {
    fn new(start: Start, since: Instant) -> Self {
        Self {
            start,
            retries: 0,
            silences: 0,
            overloaded: false,
            avoided: BTreeMap::new(),
            since,
            late: false,
            failure: None,
        }
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
            .unwrap_or_else(|| Session::new(&mut random).causally_consistent(false));
        let goal = Goal::new(Start::Open, now);
        let mut machine = Self {
            commands: Commands::new(scope, options, session)?,
            rules: Rules {
                prefetch_batches: options.prefetch_batches,
                prefetch_bytes: options.prefetch_bytes,
                exhaust: options.exhaust,
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
            outbox: VecDeque::with_capacity(1),
            demand: Demand::None,
            calls: Calls::new(options.timeout, options.max_await_time)?,
            tried: false,
            opened: false,
            attempts: 0,
            overdue: 0,
            stands_at_invalidate: false,
            left_behind: None,
            stats: StreamStats::default(),
            random: Seldom::new(&random),
        };
        machine.select(goal);
        Ok(machine)
    }

    /// Takes an input in. What does not fit the state is ignored.
    pub fn handle_input(&mut self, now: Instant, input: StreamInput) {
        match input {
            StreamInput::Ready(server) => self.on_ready(now, server),
            StreamInput::Events(events) => self.on_events(events),
            StreamInput::Reply(reply) => self.on_reply(now, reply),
            StreamInput::Failed(error) => self.on_failed(now, error),
            StreamInput::Timeout => self.on_timeout(now),
            StreamInput::Demand(demand) => self.on_demand(now, demand),
            StreamInput::Begin => self.on_begin(now),
        }
    }

    /// The next thing that the stream wants; none until an input comes.
    pub fn poll_output(&mut self, now: Instant) -> Option<StreamOutput> {
        self.begin_opening(now);
        loop {
            self.fetch(now);
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
    pub(crate) fn deadline(&self) -> Option<(Instant, DeadlineReason)> {
        let pause = match &self.state {
            State::BackingOff(_, until) | State::Postponed(_, until) => {
                Some((*until, DeadlineReason::ResumeBackoff))
            }
            State::Selecting(_)
            | State::Opening(..)
            | State::Live(_)
            | State::Faulted(_)
            | State::Interrupted
            | State::Exhausted(_)
            | State::Ending(..)
            | State::Ended => None,
        };
        pause
            .into_iter()
            .chain(self.call_deadline())
            .min_by_key(|(at, _)| *at)
    }

    /// Ends the stream from outside. What is left to be told to a server is returned; no output comes any more.
    ///
    /// `max_time` is how long a server may take for it, where `timeoutMS` is set.
    pub fn close(&mut self, max_time: Option<Duration>) -> Option<Farewell> {
        let farewell = self.farewell(max_time.filter(|_| self.calls.limit().is_some()));
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

    /// The session of the user's that it works in.
    pub(crate) fn explicit_session(&self) -> Option<&Session> {
        (!self.rules.ends_session).then(|| self.commands.session())
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
            | State::Interrupted
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
    fn on_ready(&mut self, now: Instant, server: Server) {
        let State::Selecting(goal) = &self.state else {
            return;
        };
        let goal = goal.clone();
        if self.explicit_session().is_some() && !server.supports_sessions {
            let error = "the stream was given a session, and the deployment does not support sessions";
            return self.end(Err(Error::invalid_argument(error)));
        }
        let Some(max_time) = self.time_for_aggregate(now, &goal, &server) else {
            return;
        };
        if let Some((owner, cursor)) = self.left_behind.take()
            && (owner == server.address || Fault::KilledElsewhere.is_on())
            && server.role != Role::LoadBalanced
        {
            self.kill(&cursor, &server, max_time);
        }
        if Fault::SessionChanged.is_on() && goal.start == Start::Resume {
            self.commands.change_session(self.random.draw(Session::new));
        }
        let body = self
            .commands
            .aggregate(goal.start, &self.position, &server, max_time);
        let within = self.patience_with(&goal);
        self.send(body, within);
        self.state = State::Opening(goal, server);
    }

    /// How long an aggregate may stay unanswered before the peer counts as dead.
    fn patience_with(&self, goal: &Goal) -> Duration {
        if self.calls.limit().is_some() {
            // The call is judged.
            return FOREVER;
        }
        if self.calls.are_timed() {
            // `timeoutMS=0` lets a server take any time, but nobody waits for a peer that is gone: it is asked again, and
            // after each silence has twice as long.
            return self.rules.patience.scan.saturating_mul(1 << goal.silences.min(6));
        }
        if self.position.starts_in_the_past(goal.start) {
            self.rules.patience.scan
        } else {
            self.rules.patience.open
        }
    }

    fn on_events(&mut self, events: Bytes) {
        let State::Live(live) = &mut self.state else {
            return;
        };
        if live.flight == Flight::Landed || events.is_empty() {
            return;
        }
        if live.rest == Rest::All {
            live.rest = Rest::Some;
        }
        live.idle = false;
        self.inbox.push(Item::Batch(Arrived {
            batch: Batch::part(events),
            is_part: true,
            post_batch_resume_token: None,
            is_final: false,
            invalidated: false,
        }));
    }

    fn on_reply(&mut self, now: Instant, reply: CommandReply) {
        if reply.operation_time > self.stats.operation_time {
            self.stats.operation_time = reply.operation_time;
        }
        // Nobody asks a session that is the stream's own.
        if let Some(session) = self.explicit_session() {
            session.learn(reply.operation_time, reply.cluster_time.as_ref());
        }
        let refused = reply.error.clone().map(ErrorKind::from_server).map(Error::new);
        let refused = refused.map(|error| self.told_of_opening(now, error));
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Opening(goal, server) => match refused {
                Some(error) => {
                    self.state = State::Faulted(Some(server));
                    self.open_failed(now, goal, error, reply.base_backoff());
                }
                None => self.opened(goal, server, &reply),
            },
            State::Live(live) if live.flight != Flight::Landed => match &reply.error {
                Some(_) if live.rest != Rest::All => {
                    self.faulted(
                        &live.server,
                        Error::protocol("a reply with events says that it failed"),
                    );
                    self.state = State::Faulted(Some(live.server));
                }
                Some(error) if self.rules.retries.allow(error, live.overloads) => {
                    let error = self.told_by_server(error.clone()).at(live.server.address.clone());
                    self.postpone(now, live, error, reply.base_backoff());
                }
                Some(error) => {
                    if live.cursor.id != 0 && !cursor_is_gone(error) {
                        // With too little time left to say how much, the cursor is still better killed than left.
                        let max_time = self.calls.share(now, &live.server).unwrap_or_default();
                        self.kill(&live.cursor, &live.server, max_time);
                    }
                    let error = self.told_by_server(error.clone());
                    if error.is_timeout() && live.flight == Flight::Late {
                        // The call has been told.
                        self.state = State::Interrupted;
                        return;
                    }
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
            | State::Interrupted
            | State::Exhausted(_)
            | State::Ending(..)
            | State::Ended) => self.state = unmoved,
        }
    }

    fn on_failed(&mut self, now: Instant, error: Error) {
        let error = self.told_of_opening(now, error);
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Selecting(goal) => self.open_failed(now, goal, error, None),
            State::Opening(mut goal, _) => {
                goal.silences = goal.silences.saturating_add(u32::from(is_silence(&error)));
                self.open_failed(now, goal, error, None);
            }
            State::Live(live) | State::Postponed(live, _) => {
                self.overdue = self.overdue.saturating_add(u32::from(is_silence(&error)));
                self.left_behind = Some((live.server.address.clone(), live.cursor));
                self.faulted(&live.server, error);
            }
            // The connection is gone: nothing is left to be told to its server.
            State::Faulted(_) => self.state = State::Faulted(None),
            unmoved @ (State::BackingOff(..)
            | State::Interrupted
            | State::Exhausted(_)
            | State::Ending(..)
            | State::Ended) => self.state = unmoved,
        }
    }

    fn on_timeout(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::BackingOff(goal, until) if until <= now => self.select(goal),
            State::Postponed(live, until) if until <= now => self.ask(now, live),
            unmoved @ (State::Selecting(_)
            | State::Opening(..)
            | State::Live(_)
            | State::Postponed(..)
            | State::Faulted(_)
            | State::BackingOff(..)
            | State::Interrupted
            | State::Exhausted(_)
            | State::Ending(..)
            | State::Ended) => self.state = unmoved,
        }
        self.judge_call(now);
    }

    fn on_demand(&mut self, now: Instant, demand: Demand) {
        if demand != Demand::None && !self.calls.is_going_on() {
            self.calls.begin(now, false);
        }
        if demand == Demand::TryNext && self.demand != Demand::TryNext {
            self.tried = false;
        }
        self.demand = demand;
    }
}

/// Whether a server let a command wait until it counted as gone.
fn is_silence(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Network { timed_out: true, .. })
}

/// How long a server waits for a change where maxAwaitTimeMS says nothing.
const SERVER_DEFAULT_AWAIT: Duration = Duration::from_secs(1);

/// Longer times are cut to this, so that adding them to an instant cannot overflow.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
