//! Opening and resuming.

use std::time::{Duration, Instant};

use super::{Flight, Goal, Live, State, StreamMachine};
use crate::client::{Demand, Resuming, Update};
use crate::options::ResumePolicy;
use crate::random::Random;
use crate::stream::CommandReply;
use crate::stream::inbox::Item;
use crate::stream::resumable::{BACKOFF_BASE, BACKOFF_MAX, is_retryable_read, overload_delay, retry_pause};
use crate::stream::{Server, Start, StreamOutput};
use crate::{Error, ErrorKind};

impl StreamMachine {
    pub(super) fn select(&mut self, goal: Goal) {
        let deprioritized = goal.avoided.clone();
        self.outbox
            .push_back(StreamOutput::SelectServer { deprioritized });
        self.state = State::Selecting(goal);
    }

    pub(super) fn opened(&mut self, goal: Goal, server: Server, reply: &CommandReply) {
        let cursor = match reply.cursor() {
            Ok(cursor) => cursor,
            Err(error) => {
                let error = error.at(server.address.clone());
                self.state = State::Faulted(Some(server));
                return self.end(Err(error));
            }
        };
        match goal.start {
            Start::Open => {
                let brought_any = !cursor.batch.is_empty() || cursor.post_batch_resume_token.is_some();
                self.position
                    .opened(reply.operation_time, brought_any, server.max_wire_version);
            }
            Start::Resume => {
                self.stats.resumes += 1;
                self.inbox.push(Item::Update(Update::Resumed {
                    server: server.address.clone(),
                }));
            }
        }
        self.opened = true;
        if self.demand == Demand::None {
            // Whoever waited for it to open has what he wanted.
            self.calls.satisfied();
        }
        // A try that began with a resume still has its getMore.
        let unspent_try = self.demand == Demand::TryNext && !self.tried;
        let says_something = !cursor.batch.is_empty() || cursor.id == 0;
        if says_something || (goal.start == Start::Resume && !unspent_try) {
            self.arrived(&cursor, reply);
        } else {
            self.position.advanced(cursor.post_batch_resume_token.clone());
        }
        self.go_on(server, cursor, false);
    }

    /// An aggregate failed: once more if it is a retryable read, some times more if a server was overloaded, and else
    /// that is that, unless a policy says otherwise.
    pub(super) fn open_failed(
        &mut self,
        now: Instant,
        mut goal: Goal,
        error: Error,
        base_backoff: Option<Duration>,
    ) {
        if goal.late {
            // The call that it was for has been told.
            self.state = State::Interrupted;
            return;
        }
        if error.is_timeout() {
            return self.interrupted(goal, error);
        }
        let retries = self.rules.retries;
        let refused = error.is_overload();
        goal.overloaded |= refused;
        // "Drivers MUST retry operations as many times as possible before the timeout expires" (Client Side Operations
        // Timeout specification, "Retryability").
        let most = match (goal.overloaded, self.calls.are_timed()) {
            (true, _) => retries.overloads,
            (false, true) => u32::MAX,
            (false, false) => 1,
        };
        // "If the driver cannot select a server for a retry attempt [...] drivers MUST raise the previous retryable error"
        // (Retryable Reads specification, "Selecting the server for retry").
        if let (ErrorKind::ServerSelection { .. }, Some(previous)) = (error.kind(), goal.failure.take()) {
            return self.try_later(now, goal, previous);
        }
        if !retries.reads || goal.retries >= most || !(refused || is_retryable_read(&error)) {
            return self.try_later(now, goal, error);
        }
        goal.retries = goal.retries.saturating_add(1);
        if let Some(server) = error.server() {
            goal.avoided.insert(server.clone(), retries.avoid(refused));
        }
        goal.failure = Some(error.clone());
        if !refused {
            let pause = self.random.draw(|random| retry_pause(goal.retries, random));
            let Some(pause) = pause else {
                return self.select(goal);
            };
            self.state = State::BackingOff(goal, now + pause);
            return;
        }
        let delay = self.overload_delay(goal.retries, base_backoff);
        if !self.calls.ends_before(now + delay) {
            self.state = State::BackingOff(goal, now + delay);
        } else if goal.start == Start::Open {
            self.end(Err(error));
        } else {
            self.state = State::BackingOff(goal, now + delay);
            self.run_out(NO_TIME_TO_WAIT.to_owned(), Some(error));
        }
    }

    /// An overloaded server refused the getMore: it is sent again later. If the call has no time for that, it ends now.
    pub(super) fn postpone(&mut self, now: Instant, live: Live, error: Error, base: Option<Duration>) {
        let overloads = live.overloads + 1;
        let delay = self.overload_delay(overloads, base);
        let live = Live {
            flight: Flight::Landed,
            overloads,
            ..live
        };
        self.state = State::Postponed(live, now + delay);
        if self.calls.ends_before(now + delay) && self.inbox.is_empty() && self.demand != Demand::None {
            self.run_out(NO_TIME_TO_WAIT.to_owned(), Some(error));
        }
    }

    pub(super) fn overload_delay(&mut self, attempt: u32, base: Option<Duration>) -> Duration {
        self.random.draw(|random| overload_delay(attempt, base, random))
    }

    /// Opening or resuming has failed for good by the specification. A policy may let it be tried again later.
    pub(super) fn try_later(&mut self, now: Instant, goal: Goal, error: Error) {
        let limit = match self.rules.resume_policy {
            ResumePolicy::Specification => Duration::ZERO,
            ResumePolicy::For(limit) => limit,
            ResumePolicy::Forever => Duration::MAX,
        };
        let transient =
            is_retryable_read(&error) || matches!(error.kind(), ErrorKind::ServerSelection { .. });
        let elapsed = now.saturating_duration_since(goal.since);
        if goal.start == Start::Open || !transient || elapsed >= limit {
            return self.end(Err(error));
        }
        self.resume(now, goal.since, error);
    }

    /// The fault is next in line: resume, or end.
    pub(super) fn face(&mut self, now: Instant, error: Error) {
        if error.is_resumable() {
            return self.resume(now, now, error);
        }
        if error.is_timeout() {
            return self.interrupted(Goal::new(Start::Resume, now), error);
        }
        self.end(Err(error));
    }

    pub(super) fn resume(&mut self, now: Instant, since: Instant, cause: Error) {
        if self.has_come_to_its_end() {
            return;
        }
        self.attempts = self.attempts.saturating_add(1);
        let delay = self.backoff();
        // Of attempts that nobody asked about the last one is enough.
        self.inbox.drop_last_resuming();
        self.inbox.push(Item::Update(Update::Resuming(Resuming {
            attempt: self.attempts,
            cause: cause.with_resume_token(self.position.token().cloned()),
            delay,
        })));
        let goal = Goal::new(Start::Resume, since);
        if delay.is_zero() {
            self.select(goal);
        } else {
            self.state = State::BackingOff(goal, now + delay);
        }
    }

    /// None for the first attempt, then exponential with full jitter.
    pub(super) fn backoff(&mut self) -> Duration {
        let Some(exponent) = self.attempts.checked_sub(2) else {
            return Duration::ZERO;
        };
        let ceiling = BACKOFF_BASE
            .saturating_mul(1 << exponent.min(16))
            .min(BACKOFF_MAX);
        ceiling.mul_f64(self.random.draw(Random::fraction))
    }
}

const NO_TIME_TO_WAIT: &str =
    "the server is overloaded, and what is left of timeoutMS is less than the pause before the next attempt";
