//! Opening and resuming.

use std::time::{Duration, Instant};

use super::{Goal, State, StreamMachine};
use crate::client::{Resuming, Update};
use crate::options::ResumePolicy;
use crate::stream::CommandReply;
use crate::stream::inbox::Item;
use crate::stream::resumable::{BACKOFF_BASE, BACKOFF_MAX, is_overload, is_retryable_read, overload_delay};
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
                if cursor.batch.is_empty() {
                    self.position.advanced(cursor.post_batch_resume_token.clone());
                }
            }
            Start::Resume => {
                self.stats.resumes += 1;
                self.inbox.push(Item::Update(Update::Resumed {
                    server: server.address.clone(),
                }));
            }
        }
        self.opened = true;
        if goal.start == Start::Resume || !cursor.batch.is_empty() {
            self.arrived(&cursor, reply);
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
        let retries = self.rules.retries;
        let refused = error.server_error().is_some_and(is_overload);
        goal.overloaded |= refused;
        let most = if goal.overloaded { retries.overloads } else { 1 };
        if !retries.reads || goal.retries >= most || !(refused || is_retryable_read(&error)) {
            return self.try_later(now, goal, error);
        }
        goal.retries += 1;
        if !refused {
            goal.avoided = error.server().cloned();
            return self.select(goal);
        }
        goal.avoided = error.server().filter(|_| retries.retargets).cloned();
        let delay = self.overload_delay(goal.retries, base_backoff);
        self.state = State::BackingOff(goal, now + delay);
    }

    pub(super) fn overload_delay(&mut self, attempt: u32, base: Option<Duration>) -> Duration {
        overload_delay(attempt, base, &mut self.random)
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
        self.end(Err(error));
    }

    pub(super) fn resume(&mut self, now: Instant, since: Instant, cause: Error) {
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
        ceiling.mul_f64(self.random.fraction())
    }
}
