//! The consumer's calls, and the time that each has: `timeoutMS` (Client Side Operations Timeout specification).
//!
//! A call that runs out of time is over; what was being done for it is not. The server's answer is still taken if it comes
//! before the next call, so that nothing that was fetched is lost.

use std::time::{Duration, Instant};

use super::{Flight, Goal, Live, State, StreamMachine};
use crate::client::{DeadlineReason, Demand, Update};
use crate::stream::inbox::Item;
use crate::stream::resumable::{is_max_time_expired, server_share, too_short};
use crate::stream::{Server, Start, StreamOutput};
use crate::{Error, ErrorKind, ServerError};

/// The call that is going on, if its time is limited.
#[derive(Debug)]
pub(super) struct Calls {
    /// `timeoutMS`; zero is no limit.
    timeout: Option<Duration>,
    current: Option<Call>,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    begun: Instant,
    until: Instant,
    /// Whether the consumer says where calls begin. Else each demand is one.
    announced: bool,
}

impl Calls {
    /// None are going on yet.
    ///
    /// # Errors
    /// "Drivers MUST error if `maxAwaitTimeMS` is set, `timeoutMS` is set to a non-zero value, and `maxAwaitTimeMS` is
    /// greater than or equal to `timeoutMS`" (Client Side Operations Timeout specification, "Change Streams").
    pub(super) fn new(timeout: Option<Duration>, max_await: Option<Duration>) -> Result<Self, Error> {
        let calls = Self {
            timeout: timeout.map(|timeout| timeout.min(super::FOREVER)),
            current: None,
        };
        if let (Some(limit), Some(wait)) = (calls.limit(), max_await)
            && wait >= limit
        {
            return Err(Error::invalid_argument(format!(
                "max_await_time ({} ms) has to be shorter than timeoutMS ({} ms)",
                wait.as_millis(),
                limit.as_millis()
            )));
        }
        Ok(calls)
    }

    /// Whether `timeoutMS` is set, be it to no limit.
    pub(super) fn are_timed(&self) -> bool {
        self.timeout.is_some()
    }

    /// The limit of each call.
    pub(super) fn limit(&self) -> Option<Duration> {
        self.timeout.filter(|timeout| !timeout.is_zero())
    }

    pub(super) fn begin(&mut self, now: Instant, announced: bool) {
        self.current = self.limit().map(|limit| Call {
            begun: now,
            until: now + limit,
            announced,
        });
    }

    /// The consumer says where calls begin, in the middle of one that was not announced.
    fn announce(&mut self) {
        if let Some(call) = &mut self.current {
            call.announced = true;
        }
    }

    /// What was demanded has come.
    pub(super) fn satisfied(&mut self) {
        self.current = self.current.filter(|call| call.announced);
    }

    /// When the call ends that is going on.
    pub(super) fn until(&self) -> Option<Instant> {
        self.current.map(|call| call.until)
    }

    pub(super) fn is_going_on(&self) -> bool {
        self.current.is_some()
    }

    fn is_over(&self, now: Instant) -> bool {
        self.current.is_some_and(|call| call.until <= now)
    }

    /// Whether the call does not last that long any more.
    pub(super) fn ends_before(&self, at: Instant) -> bool {
        self.current.is_some_and(|call| call.until < at)
    }

    /// What a server may take of the time that is left. `Ok(None)` is any time.
    pub(super) fn share(&self, now: Instant, server: &Server) -> Result<Option<Duration>, ()> {
        let Some(limit) = self.limit() else {
            return Ok(None);
        };
        let left = self
            .current
            .map_or(limit, |call| call.until.saturating_duration_since(now));
        server_share(left, server.min_round_trip).map(Some).ok_or(())
    }
}

impl StreamMachine {
    /// How long each call may take; none is without limit.
    pub fn call_limit(&self) -> Option<Duration> {
        self.calls.limit()
    }

    /// Whether `timeoutMS` is set, be it to no limit.
    pub fn is_timed(&self) -> bool {
        self.calls.are_timed()
    }

    /// When the call ends that is going on; none without a limit.
    pub(crate) fn call_end(&self) -> Option<Instant> {
        self.calls.until()
    }

    pub(super) fn on_begin(&mut self, now: Instant) {
        if self.opened || !self.calls.is_going_on() {
            self.calls.begin(now, true);
        } else {
            self.calls.announce();
        }
    }

    /// Opening counts from the first thing that it does.
    pub(super) fn begin_opening(&mut self, now: Instant) {
        if !self.opened && !self.calls.is_going_on() {
            self.calls.begin(now, false);
        }
    }

    /// What was demanded has come, or something that ends the demand.
    pub(super) fn satisfied(&mut self) {
        self.demand = Demand::None;
        self.calls.satisfied();
    }

    /// When the call is to be judged. What the last one left unanswered is judged as soon as the next one has begun, but
    /// after what has arrived meanwhile.
    pub(super) fn call_deadline(&self) -> Option<(Instant, DeadlineReason)> {
        let call = self.calls.current.filter(|_| self.is_called())?;
        let at = if self.is_late() { call.begun } else { call.until };
        Some((at, DeadlineReason::Call))
    }

    pub(super) fn judge_call(&mut self, now: Instant) {
        if !self.is_called() {
            return;
        }
        if self.is_late() {
            self.start_anew(now);
        }
        if self.calls.is_over(now) && self.inbox.is_empty() {
            let doing = self.doing();
            self.run_out(doing, None);
        }
    }

    /// What the server may take for an aggregate; none if there is too little time for it, which is said then.
    pub(super) fn time_for_aggregate(
        &mut self,
        now: Instant,
        goal: &Goal,
        server: &Server,
    ) -> Option<Option<Duration>> {
        match self.calls.share(now, server) {
            Ok(share) => Some(share),
            Err(()) => {
                let error = too_short("the aggregate", self.calls.limit(), server);
                self.interrupted(goal.clone(), error);
                None
            }
        }
    }

    /// How long a getMore that is waited for may wait; none if there is too little time for it, which is said then.
    pub(super) fn time_for_get_more(&mut self, now: Instant, server: &Server) -> Option<Duration> {
        match self.calls.share(now, server) {
            Ok(share) => Some(share.unwrap_or(Duration::MAX)),
            Err(()) => {
                let error = too_short("a getMore", self.calls.limit(), server);
                self.calls.current = None;
                self.inbox.push(Item::Update(Update::TimedOut(error)));
                None
            }
        }
    }

    /// The server gave up in the middle of opening or resuming, or no server was found in time: that is the end of the
    /// stream that opens, and of the call that resumes.
    pub(super) fn interrupted(&mut self, goal: Goal, error: Error) {
        if goal.start == Start::Open {
            return self.end(Err(error));
        }
        self.calls.current = None;
        self.state = State::Interrupted;
        if self.demand != Demand::None {
            self.inbox.push(Item::Update(Update::TimedOut(error)));
        }
    }

    /// The failure of what opens or resumes, as it is to be told. To be asked for while the state still says what was being
    /// done; of any other state the failure is what it is.
    pub(super) fn told_of_opening(&self, now: Instant, error: Error) -> Error {
        match &self.state {
            State::Selecting(_) => self.told(now, error),
            State::Opening(_, server) => self.told(now, error.at(server.address.clone())),
            State::Live(_)
            | State::Postponed(..)
            | State::Faulted(_)
            | State::BackingOff(..)
            | State::Interrupted
            | State::Exhausted(_)
            | State::Ending(..)
            | State::Ended => error,
        }
    }

    /// The error as it is to be told where `timeoutMS` is set: what ran out of time is a timeout, whoever said so.
    fn told(&self, now: Instant, error: Error) -> Error {
        let given_up = error.server_error().is_some_and(is_max_time_expired);
        let over = self.is_called() && self.calls.is_over(now);
        if !self.calls.are_timed() || error.is_timeout() || !(given_up || over) {
            return error;
        }
        Error::timeout(self.doing(), Some(error))
    }

    /// A getMore's error reply, as it is to be told.
    pub(super) fn told_by_server(&self, error: ServerError) -> Error {
        let given_up = self.calls.are_timed() && is_max_time_expired(&error);
        let error = Error::new(ErrorKind::from_server(error));
        if given_up {
            return Error::timeout("the server gave the getMore up", Some(error));
        }
        error
    }

    /// The call is over, and the stream goes on as it is.
    pub(super) fn run_out(&mut self, doing: String, cause: Option<Error>) {
        let cause = cause.or_else(|| self.last_failure());
        let error = Error::timeout(doing, cause).with_resume_token(self.position.token().cloned());
        if !self.opened {
            return self.end(Err(error));
        }
        match &mut self.state {
            State::Live(live) if live.flight == Flight::Awaited => live.flight = Flight::Late,
            State::Opening(goal, _) => goal.late = true,
            State::Live(_)
            | State::Selecting(_)
            | State::Postponed(..)
            | State::BackingOff(..)
            | State::Interrupted
            | State::Faulted(_) => {}
            // What is left to be said is said by itself.
            State::Exhausted(_) | State::Ending(..) | State::Ended => return,
        }
        self.calls.current = None;
        self.inbox.push(Item::Update(Update::TimedOut(error)));
    }

    /// Why opening or resuming is being tried again.
    fn last_failure(&self) -> Option<Error> {
        match &self.state {
            State::Selecting(goal) | State::Opening(goal, _) | State::BackingOff(goal, _) => {
                goal.failure.clone()
            }
            State::Live(_)
            | State::Postponed(..)
            | State::Faulted(_)
            | State::Interrupted
            | State::Exhausted(_)
            | State::Ending(..)
            | State::Ended => None,
        }
    }

    /// Somebody waits for the stream.
    fn is_called(&self) -> bool {
        let over = matches!(self.state, State::Ending(..) | State::Ended);
        !over && (self.demand != Demand::None || !self.opened)
    }

    /// Whether the answer is overdue that an earlier call waited for.
    fn is_late(&self) -> bool {
        match &self.state {
            State::Live(live) => live.flight == Flight::Late,
            State::Opening(goal, _) => goal.late,
            State::Selecting(_)
            | State::Postponed(..)
            | State::Faulted(_)
            | State::BackingOff(..)
            | State::Interrupted
            | State::Exhausted(_)
            | State::Ending(..)
            | State::Ended => false,
        }
    }

    /// "The subsequent `next` call MUST perform a resume attempt" (Client Side Operations Timeout specification, "Change
    /// Streams").
    fn start_anew(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Live(Live { server, cursor, .. }) => {
                let cause = Error::network("an earlier call had no answer to its getMore in time", true)
                    .resumable(true)
                    .at(server.address.clone());
                self.left_behind = Some((server.address, cursor));
                self.outbox.push_back(StreamOutput::Abandon);
                self.resume(now, now, cause);
            }
            State::Opening(goal, _) => {
                self.outbox.push_back(StreamOutput::Abandon);
                self.select(Goal::new(goal.start, now));
            }
            unmoved @ (State::Selecting(_)
            | State::Postponed(..)
            | State::Faulted(_)
            | State::BackingOff(..)
            | State::Interrupted
            | State::Exhausted(_)
            | State::Ending(..)
            | State::Ended) => self.state = unmoved,
        }
    }

    /// What the call waits for, in words.
    fn doing(&self) -> String {
        let limit = self.calls.limit().unwrap_or_default().as_millis();
        let doing = match &self.state {
            State::Selecting(_) => "no server was found",
            State::Opening(..) => "the aggregate was not answered",
            State::Live(_) | State::Postponed(..) => "no change came",
            State::BackingOff(..) | State::Interrupted | State::Faulted(_) => "the stream had not resumed",
            State::Exhausted(_) | State::Ending(..) | State::Ended => "the stream had not ended",
        };
        format!("{doing} within {limit} ms (timeoutMS)")
    }
}
