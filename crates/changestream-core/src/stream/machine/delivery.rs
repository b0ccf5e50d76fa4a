//! Handing over, and the end.

use std::time::{Duration, Instant};

use super::{Flight, State, StreamMachine};
use crate::client::{Demand, Idle, Update};
use crate::event::{ChangeEvent, OperationType};
use crate::faults::Fault;
use crate::stream::inbox::{Arrived, Ended, Item};
use crate::stream::{Farewell, StreamOutput};
use crate::token::ResumeToken;
use crate::{Error, ErrorKind};

/// What became of an attempt to hand something over.
pub(super) enum Delivery {
    Update(Update),
    /// Something changed that is no update.
    Again,
    Nothing,
}

impl StreamMachine {
    pub(super) fn deliver(&mut self, now: Instant) -> Delivery {
        match self.inbox.pop() {
            Some(Item::Batch(arrived)) => self.deliver_event(arrived),
            Some(Item::Idle {
                token,
                operation_time,
            }) => {
                self.position.advanced(token);
                self.satisfied();
                Delivery::Update(Update::Idle(Idle {
                    token: self.position.token().cloned(),
                    operation_time,
                }))
            }
            Some(Item::Ended(ended)) => self.deliver_end(ended),
            Some(Item::Invalidated(token)) => {
                self.position.advanced(Some(token.clone()));
                self.satisfied();
                Delivery::Update(Update::Invalidated { token })
            }
            Some(Item::Update(update)) => {
                let satisfies = matches!(update, Update::TimedOut(_));
                if self.demand == Demand::Next || satisfies {
                    self.satisfied();
                }
                Delivery::Update(update)
            }
            Some(Item::Fault(error)) => {
                self.face(now, error);
                Delivery::Again
            }
            None => Delivery::Nothing,
        }
    }

    /// The next event, where handing it over has no consequence but that the position moves: it is there, well-formed
    /// and not the last of its batch, and no command is due. What consumers do a thousand times for each reply.
    #[inline]
    pub(crate) fn take_ready(&mut self) -> Option<ChangeEvent> {
        if self.demand != Demand::None || !self.outbox.is_empty() || self.fetches_ahead() {
            return None;
        }
        let arrived = self.inbox.current()?;
        let place = arrived.batch.peek_but_last()?;
        let (event, token) = ChangeEvent::in_array(arrived.batch.array(), &place)?;
        arrived.batch.pass(&place);
        if !(Fault::EarlyForgotten.is_on() && arrived.is_part) {
            self.position.delivered_within(arrived.batch.array(), &token);
        }
        self.stats.events += 1;
        self.stats.bytes += place.len() as u64;
        Some(event)
    }

    /// The event that is demanded, if it is the only thing that has arrived, before anything is asked for in its place.
    pub(crate) fn take_awaited(&mut self, now: Instant) -> Option<ChangeEvent> {
        if self.demand == Demand::None || !self.outbox.is_empty() || !self.inbox.is_down_to_one() {
            return None;
        }
        match self.deliver(now) {
            Delivery::Update(Update::Change(event)) => Some(event),
            Delivery::Update(_) | Delivery::Again | Delivery::Nothing => None,
        }
    }

    /// What was watched is gone although this reply has no event of that: it ended the batch before, or a pipeline drops it.
    /// The token is past it all the same.
    fn deliver_end(&mut self, ended: Ended) -> Delivery {
        self.position.advanced(ended.token);
        self.satisfied();
        let token = self.position.token().cloned();
        let invalidated =
            ended.invalidated || self.stands_at_invalidate || token.as_ref().is_some_and(is_of_invalidate);
        Delivery::Update(match token {
            Some(token) if invalidated => Update::Invalidated { token },
            token => Update::Idle(Idle {
                token,
                operation_time: ended.operation_time,
            }),
        })
    }

    /// Whether nothing is left to resume for: behind an invalidate event a cursor only ends, and no server resumes after its
    /// token. Then the end is in line. A stream that starts after such a token has everything before it.
    pub(super) fn has_come_to_its_end(&mut self) -> bool {
        let token = self.position.token().filter(|token| is_of_invalidate(token));
        let Some(token) = token.cloned().filter(|_| self.position.has_delivered()) else {
            return false;
        };
        self.inbox.push(Item::Invalidated(token));
        let server = match std::mem::replace(&mut self.state, State::Ended) {
            State::Faulted(server) => server,
            State::Selecting(_)
            | State::Opening(..)
            | State::Live(_)
            | State::Postponed(..)
            | State::Interrupted
            | State::BackingOff(..)
            | State::Exhausted(_)
            | State::Ending(..)
            | State::Ended => None,
        };
        self.state = State::Exhausted(server);
        true
    }

    pub(super) fn deliver_event(&mut self, mut arrived: Arrived) -> Delivery {
        let event = match arrived.batch.next() {
            Ok(Some(place)) => ChangeEvent::from_reply(arrived.batch.array().slice(place))
                .map_err(|_| Error::new(ErrorKind::MissingResumeToken)),
            Ok(None) => return Delivery::Again,
            Err(error) => Err(error),
        };
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.end(Err(error));
                return Delivery::Again;
            }
        };
        self.stats.events += 1;
        self.stats.bytes += event.as_raw().as_bytes().len() as u64;
        self.satisfied();
        if !arrived.batch.is_empty() {
            let forgotten = Fault::EarlyForgotten.is_on() && arrived.is_part
                || Fault::FragmentForgotten.is_on() && is_first_fragment(&event);
            if !forgotten {
                self.position.delivered_event(&event);
            }
            self.inbox.push_front(Item::Batch(arrived));
            return Delivery::Update(Update::Change(event));
        }
        self.stands_at_invalidate = event.operation_type() == Some(OperationType::Invalidate);
        let token = arrived.post_batch_resume_token;
        if arrived.is_final {
            let past_it = token
                .clone()
                .filter(|token| arrived.invalidated || is_of_invalidate(token));
            let invalidate = self.stands_at_invalidate.then(|| event.resume_token().clone());
            if let Some(token) = invalidate.or(past_it) {
                self.inbox.push_front(Item::Invalidated(token));
            }
        }
        if Fault::EarlyForgotten.is_on() && arrived.is_part {
            return Delivery::Update(Update::Change(event));
        }
        if Fault::LastOfBatchDropped.is_on() {
            self.position
                .delivered(token.unwrap_or_else(|| event.resume_token().clone()));
            self.demand = Demand::Next;
            return Delivery::Again;
        }
        self.position
            .delivered(token.unwrap_or_else(|| event.resume_token().clone()));
        Delivery::Update(Update::Change(event))
    }
}

/// The end.
impl StreamMachine {
    pub(super) fn end(&mut self, result: Result<(), Error>) {
        let farewell = self.farewell(None);
        let token = self.position.token().cloned();
        let server = farewell.as_ref().map(|farewell| farewell.server.clone());
        let result = result.map_err(|error| {
            let error = error.with_resume_token(token);
            server.into_iter().fold(error, Error::at)
        });
        self.inbox.clear();
        self.state = State::Ending(result, farewell);
    }

    /// Reports the end, once everything before it is delivered.
    pub(super) fn finish(&mut self) -> Option<StreamOutput> {
        if matches!(self.state, State::Exhausted(_)) && self.inbox.is_empty() {
            self.end(Ok(()));
        }
        if !matches!(self.state, State::Ending(..)) {
            return None;
        }
        let State::Ending(result, farewell) = std::mem::replace(&mut self.state, State::Ended) else {
            return None;
        };
        Some(StreamOutput::End(result, farewell))
    }

    pub(super) fn farewell(&self, max_time: Option<Duration>) -> Option<Farewell> {
        let (server, cursor, busy) = match &self.state {
            State::Live(live) | State::Postponed(live, _) => {
                (&live.server, Some(&live.cursor), live.flight != Flight::Landed)
            }
            State::Exhausted(Some(server)) | State::Faulted(Some(server)) => (server, None, false),
            State::Opening(_, server) => (server, None, true),
            State::Selecting(_)
            | State::Faulted(None)
            | State::Exhausted(None)
            | State::BackingOff(..)
            | State::Interrupted
            | State::Ending(..)
            | State::Ended => return None,
        };
        let mut commands = Vec::new();
        if let Some(cursor) = cursor {
            commands.push(self.commands.kill_cursors(
                cursor.id,
                cursor.namespace.as_deref(),
                server,
                max_time,
            ));
        }
        if self.rules.ends_session && server.supports_sessions {
            commands.push(self.commands.end_sessions());
        }
        Some(Farewell {
            server: server.address.clone(),
            commands,
            busy,
        })
    }
}

/// Whether the token looks like that of an invalidate event. Servers before 5.0 have no other way to say that a pipeline
/// dropped it.
fn is_of_invalidate(token: &ResumeToken) -> bool {
    token.explain().is_ok_and(|info| info.from_invalidate)
}

/// For [`Fault::FragmentForgotten`].
fn is_first_fragment(event: &ChangeEvent) -> bool {
    event.split_event().is_some_and(|split| split.fragment == 1)
}
