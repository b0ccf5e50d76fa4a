//! Reading on: which getMore comes when, and what its reply makes of the stream.

use std::time::{Duration, Instant};

use super::super::batch::Batch;
use super::super::inbox::{Arrived, Ended, Item};
use super::super::reply::CursorReply;
use super::super::resumable::is_resumable;
use super::super::{Command, CommandReply, Expects, Server, Start, StreamOutput};
use super::{Cursor, Flight, Goal, Live, State, StreamMachine};
use crate::Error;
use crate::client::Demand;
use crate::faults::Fault;

impl StreamMachine {
    /// Asks for the next batch if there is reason to.
    pub(super) fn fetch(&mut self, now: Instant) {
        let wanted = self.inbox.is_empty() && self.is_waited_for();
        let landed = match &self.state {
            State::Live(live) => live.flight == Flight::Landed,
            State::Interrupted if self.inbox.is_empty() && self.demand != Demand::None => {
                if !self.has_come_to_its_end() {
                    self.select(Goal::new(Start::Resume, now));
                }
                return;
            }
            State::Interrupted
            | State::Selecting(_)
            | State::Opening(..)
            | State::Postponed(..)
            | State::Faulted(_)
            | State::BackingOff(..)
            | State::Exhausted(_)
            | State::Ending(..)
            | State::Ended => return,
        };
        if !landed || !(wanted || self.fetches_ahead()) {
            return;
        }
        if let State::Live(live) = std::mem::replace(&mut self.state, State::Ended) {
            self.ask(now, live);
        }
    }

    /// Whether the window has room for a batch that nobody waits for yet, and none is on its way.
    #[inline]
    pub(super) fn fetches_ahead(&self) -> bool {
        let State::Live(live) = &self.state else {
            return false;
        };
        if live.flight != Flight::Landed || live.idle || self.rules.prefetch_batches == 0 {
            return false;
        }
        let held: usize = self.inbox.batches().map(Batch::len).sum();
        let batches = self.inbox.batches().count();
        batches > 0 && batches <= self.rules.prefetch_batches && held <= self.rules.prefetch_bytes
    }

    /// Sends a getMore. What is fetched ahead has all the time of a call to come.
    pub(super) fn ask(&mut self, now: Instant, mut live: Live) {
        let mut wait = Duration::MAX;
        if self.inbox.is_empty() && self.demand != Demand::None {
            match self.time_for_get_more(now, &live.server) {
                Some(time) => wait = time,
                None => {
                    self.state = State::Live(live);
                    return;
                }
            }
        }
        live.flight = Flight::Awaited;
        let namespace = live.cursor.namespace.as_deref();
        let body = self
            .commands
            .get_more(live.cursor.id, namespace, &live.server, wait);
        let patience = self
            .rules
            .patience
            .get_more
            .saturating_mul(1 << self.overdue.min(6));
        let within = self.rules.max_await.saturating_add(patience);
        self.tried = true;
        self.state = State::Live(live);
        self.outbox.push_back(StreamOutput::Send(Command {
            body,
            expects: Expects::Reply { within },
            exhaust_allowed: self.rules.exhaust,
        }));
    }

    pub(super) fn is_waited_for(&self) -> bool {
        match self.demand {
            Demand::None => false,
            Demand::Next => true,
            Demand::TryNext => !self.tried,
        }
    }

    pub(super) fn fetched(&mut self, live: Live, reply: &CommandReply) {
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
        if !(Fault::LateAnswerLost.is_on() && live.flight == Flight::Late) {
            self.arrived(&cursor, reply);
        }
        self.go_on(live.server, cursor, reply.more_to_come);
    }

    pub(super) fn arrived(&mut self, cursor: &CursorReply, reply: &CommandReply) {
        let token = cursor.post_batch_resume_token.clone();
        if cursor.batch.is_empty() {
            self.stats.empty_batches += 1;
            if self.inbox.batches().next().is_none() {
                self.position.advanced(token.clone());
                self.inbox.shrink();
            }
            if cursor.id == 0 {
                return self.inbox.push_ended(Ended {
                    token,
                    operation_time: reply.operation_time,
                    invalidated: cursor.invalidated,
                });
            }
            self.inbox.push_idle(token, reply.operation_time);
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
                    invalidated: cursor.invalidated,
                }));
            }
        }
    }

    /// A cursor that is exhausted has nothing to follow, whatever its last reply says.
    pub(super) fn go_on(&mut self, server: Server, cursor: CursorReply, more_to_come: bool) {
        self.state = if cursor.id == 0 {
            State::Exhausted(Some(server))
        } else {
            State::Live(Live {
                server,
                idle: cursor.batch.is_empty(),
                flight: if more_to_come {
                    Flight::Awaited
                } else {
                    Flight::Landed
                },
                overloads: 0,
                cursor: Cursor {
                    id: cursor.id,
                    namespace: cursor.namespace,
                },
            })
        };
    }

    pub(super) fn faulted(&mut self, server: &Server, error: Error) {
        let resumable = is_resumable(&error, server.max_wire_version);
        let error = error.resumable(resumable).at(server.address.clone());
        if Fault::ResumedAhead.is_on() && resumable {
            self.position.advanced(self.inbox.last_token());
            self.inbox.clear();
        }
        self.inbox.push(Item::Fault(error));
        self.state = State::Faulted(None);
    }

    pub(super) fn send(&mut self, body: bson::raw::RawDocumentBuf, within: Duration) {
        self.outbox.push_back(StreamOutput::Send(Command {
            body,
            expects: Expects::Reply { within },
            exhaust_allowed: false,
        }));
    }

    /// Kills a cursor on the way. `max_time` is what is left of the call for it, if its time is limited.
    pub(super) fn kill(&mut self, cursor: &Cursor, server: &Server, max_time: Option<Duration>) {
        let body = self
            .commands
            .kill_cursors(cursor.id, cursor.namespace.as_deref(), server, max_time);
        self.outbox.push_back(StreamOutput::Send(Command {
            body,
            expects: Expects::Nothing,
            exhaust_allowed: false,
        }));
    }
}
