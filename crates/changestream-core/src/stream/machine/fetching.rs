//! Reading on: which getMore comes when, and what its reply makes of the stream.

use std::time::{Duration, Instant};

use super::super::batch::Batch;
use super::super::inbox::{Arrived, Ended, Item};
use super::super::reply::CursorReply;
use super::super::resumable::is_resumable;
use super::super::{Command, CommandReply, Expects, Server, Start, StreamOutput};
use super::{Cursor, Flight, Goal, Live, Rest, State, StreamMachine};
use crate::Error;
use crate::client::Demand;
use crate::faults::Fault;

impl StreamMachine {
    /// Asks for the next batch if there is reason to.
    pub(super) fn fetch(&mut self, now: Instant) {
        let landed = match &self.state {
            State::Live(live) if live.rest == Rest::Some => false,
            State::Live(live) if live.flight == Flight::Landed => true,
            State::Live(_) => return,
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
        let wanted = landed && self.inbox.is_empty() && self.is_waited_for();
        if !(wanted || self.fetches_ahead()) {
            return;
        }
        if let State::Live(live) = std::mem::replace(&mut self.state, State::Ended) {
            self.ask(now, live);
        }
    }

    /// Whether the window has room for a batch that nobody waits for yet, and none is on its way but the rest of one that
    /// has begun to arrive. The server answers one request after the other, so that it can be asked for the next reply
    /// while it still sends this one.
    #[inline]
    pub(super) fn fetches_ahead(&self) -> bool {
        let State::Live(live) = &self.state else {
            return false;
        };
        let begun = match (live.flight, live.rest) {
            (Flight::Landed, _) => 0,
            (Flight::Awaited, Rest::Some) if !self.rules.exhaust => 1,
            (Flight::Awaited | Flight::Late, _) => return false,
        };
        if live.idle || self.rules.prefetch_batches == 0 {
            return false;
        }
        let held: usize = self.inbox.batches().map(Batch::len).sum();
        let replies = self.inbox.replies() + begun;
        held > 0 && replies <= self.rules.prefetch_batches && held <= self.rules.prefetch_bytes
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
        live.rest = match live.rest {
            Rest::All => Rest::All,
            Rest::Some | Rest::Followed => Rest::Followed,
        };
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
            // Whether a call's answer is late is judged by whole replies.
            in_parts: !self.calls.are_timed(),
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
        let follows = reply.more_to_come || live.rest == Rest::Followed;
        self.go_on(live.server, cursor, follows);
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
                    is_part: false,
                    post_batch_resume_token: token.clone(),
                    is_final: cursor.id == 0,
                    invalidated: cursor.invalidated,
                }));
            }
        }
    }

    /// A cursor that is exhausted has nothing to follow, whatever its last reply says.
    pub(super) fn go_on(&mut self, server: Server, cursor: CursorReply, another_comes: bool) {
        self.state = if cursor.id == 0 {
            State::Exhausted(Some(server))
        } else {
            State::Live(Live {
                server,
                idle: cursor.batch.is_empty(),
                flight: if another_comes {
                    Flight::Awaited
                } else {
                    Flight::Landed
                },
                rest: Rest::All,
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
            in_parts: false,
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
            in_parts: false,
        }));
    }
}
