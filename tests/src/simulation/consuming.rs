//! What consumers do with what they are given, and how they go on when a stream ends.

use std::sync::Arc;

use changestream_core::client::{ClientSettings, Demand};
use changestream_core::connection::{ClientMetadata, PART_SIZE};
use changestream_core::wire::Compressor;
use changestream_core::{ConnectionString, Error, ErrorKind, Update, WatchOptions};

use super::Simulation;
use super::consumer::{Consumer, Start, State};
use super::model::{self, View};
use super::place::{NO_IMAGE, Place, TOO_LARGE, Taken};
use super::report;
use super::shadow::{Peer, Shadow};
use crate::world::{Heard, StreamId};

impl Simulation {
    pub(super) fn watch(
        &mut self,
        view: &View,
        compressor: Option<Compressor>,
        options: WatchOptions,
    ) -> StreamId {
        let mut uri = self.world.deployment.uri();
        if let Some(compressor) = compressor {
            let join = if uri.contains('?') { '&' } else { '?' };
            uri = format!("{uri}{join}compressors={}", compressor.as_str());
        }
        let uri: ConnectionString = uri.parse().expect("the deployment's own");
        let settings = ClientSettings::new(uri.options, ClientMetadata::new());
        let settings = settings.expect("the options make sense");
        // As large as one reply, as several, and as some of its events.
        let part_size = [PART_SIZE, 200, 3_000, 900][self.watched % 4];
        self.watched += 1;
        self.world
            .watch_with(
                &Arc::new(settings.with_part_size(part_size)),
                None,
                &view.scope,
                options,
            )
            .expect("the options make sense")
    }

    /// The consumer takes a new stream.
    pub(super) fn begin(&mut self, consumer: &mut Consumer, start: Start) {
        match &start {
            Start::Now => consumer.place = None,
            Start::At(time) => consumer.place = Some(Place::new(&self.log, *time)),
            Start::Elsewhere(_, place) => consumer.place = Some(place.clone()),
            Start::Behind(_) | Start::BehindInvalidate(_) => {}
        }
        consumer.foreign = match &start {
            Start::Elsewhere(..) => true,
            Start::Now | Start::At(_) => false,
            Start::Behind(_) | Start::BehindInvalidate(_) => {
                consumer.foreign && !consumer.shadow.has_delivered()
            }
        };
        let options = consumer.options_from(start);
        self.report.resumes += consumer.shadow.resumes;
        consumer.shadow = Shadow::new(&options, &self.servers);
        consumer.closing = false;
        consumer.last_kind = None;
        self.world.abandon(consumer.id);
        consumer.id = self.watch(&consumer.view, consumer.compressor, options);
        if consumer.state == State::Asleep {
            self.world.put_to_sleep(consumer.id);
        }
    }

    /// Consumers ask, take, and look at what they get, until nobody gets anything more at this moment.
    pub(super) fn pump(&mut self) {
        // Once: two that drop and ask in turn would never come to rest.
        for index in 0..self.consumers.len() {
            self.drop_demand(index);
        }
        loop {
            self.world.settle();
            self.log.refresh(&self.world.deployment);
            let mut ended = Vec::new();
            while let Some((id, heard)) = self.world.heard() {
                let Some(index) = self.consumers.iter().position(|consumer| consumer.id == id) else {
                    continue;
                };
                if let Some(end) = self.hear(index, heard) {
                    ended.push((index, end));
                }
            }
            let mut again = !ended.is_empty();
            for (index, end) in ended {
                self.go_on_after(index, end);
            }
            for index in 0..self.consumers.len() {
                self.look_at_token(index);
                again |= self.ask(index);
            }
            if !again {
                return;
            }
        }
    }

    /// A fickle consumer drops what it waits for, now and then.
    fn drop_demand(&mut self, index: usize) {
        let consumer = &mut self.consumers[index];
        consumer.looked_at += 1;
        if let Some(often) = consumer.fickle
            && consumer.looked_at.is_multiple_of(often)
            && self.world.demand_of(consumer.id) != Demand::None
        {
            self.world.demand(consumer.id, Demand::None);
            self.report.meet(report::DROPPED);
        }
    }

    fn ask(&mut self, index: usize) -> bool {
        let consumer = &mut self.consumers[index];
        let id = consumer.id;
        while self.world.take_update(id).is_some() {}
        if consumer.state != State::Reading
            || self.world.is_closed(id)
            || self.world.demand_of(id) != Demand::None
        {
            return false;
        }
        let demand = if consumer.tries {
            Demand::TryNext
        } else {
            Demand::Next
        };
        self.world.demand(id, demand);
        true
    }

    fn look_at_token(&self, index: usize) {
        let consumer = &self.consumers[index];
        if !self.world.is_closed(consumer.id) {
            let token = self.world.machine(consumer.id).resume_token();
            well(index, consumer, consumer.shadow.has_token(token));
        }
    }

    fn hear(&mut self, index: usize, heard: Heard) -> Option<Result<(), Error>> {
        let consumer = &mut self.consumers[index];
        let shadow = &mut consumer.shadow;
        let outcome = match heard {
            Heard::Asked {
                member,
                connection,
                name,
                command,
            } => shadow.asked(&name, Peer { member, connection }, &command),
            Heard::Began { events } => {
                shadow.began(events);
                Ok(())
            }
            // Behind a load balancer leave is taken over the connection on which a getMore may still be answered.
            Heard::Answered { .. } if consumer.closing => Ok(()),
            Heard::Answered {
                member,
                connection,
                name,
                reply,
                more_to_come,
            } => {
                if more_to_come {
                    self.report.meet(report::UNASKED);
                }
                match shadow.answered(&name, Peer { member, connection }, &reply, more_to_come) {
                    Ok(Some(time)) if consumer.place.is_none() => {
                        consumer.place = Some(Place::new(&self.log, model::after(time)));
                        Ok(())
                    }
                    other => other.map(drop),
                }
            }
            Heard::Told(update) => self.told(index, &update),
            Heard::Ended(result) => return Some(result),
        };
        well(index, &self.consumers[index], outcome);
        None
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else it is, it comes at the wrong time"
    )]
    fn told(&mut self, index: usize, update: &Update) -> Result<(), String> {
        let consumer = &mut self.consumers[index];
        match update {
            Update::Change(event) => {
                consumer.shadow.delivered(event)?;
                if consumer.shadow.is_early() {
                    self.report.meet(report::EARLY);
                }
                consumer.delivered += 1;
                consumer.last_kind = event
                    .get("operationType")
                    .ok()
                    .flatten()
                    .and_then(|kind| Some(kind.as_str()?.to_owned()));
                let place = consumer
                    .place
                    .as_mut()
                    .ok_or("an event before the stream was open")?;
                if let Taken::Whole { shard, change } = place.take(&self.log, &consumer.view, event)? {
                    self.tokens.keep(event.resume_token(), shard, change);
                }
                if event.split_event().is_some() {
                    self.report.meet(report::PIECES);
                }
                Ok(())
            }
            Update::Idle(idle) => {
                if let Some(token) = &idle.token {
                    self.tokens.keep_mark(token);
                }
                consumer.shadow.idle(idle)
            }
            Update::TimedOut(error) => {
                self.report.meet(report::OUT_OF_TIME);
                consumer.shadow.timed_out(error)
            }
            Update::Resuming(_) | Update::Resumed { .. } if consumer.shadow.opened => Ok(()),
            Update::Invalidated { token } => consumer.shadow.invalidated(token),
            _ => Err(format!("told {update:?}")),
        }
    }

    /// The stream has ended: the consumer takes another one that goes on there.
    fn go_on_after(&mut self, index: usize, end: Result<(), Error>) {
        if self.servers.are_too_old() {
            return self.refused(index, &end);
        }
        let start = self.start_after_end(index, &end);
        self.report.reopened += 1;
        assert!(
            self.report.reopened < TOO_OFTEN,
            "one stream after the other ends, the last with {end:?}"
        );
        let mut consumer = self.consumers.remove(index);
        self.begin(&mut consumer, start);
        self.consumers.insert(index, consumer);
    }

    fn start_after_end(&mut self, index: usize, end: &Result<(), Error>) -> Start {
        let consumer = &mut self.consumers[index];
        let token = self.world.machine(consumer.id).resume_token().cloned();
        let error = match end {
            Ok(()) => {
                if !consumer.closing {
                    let place = consumer.place.as_mut().expect("what has ended was open");
                    let kind = consumer.last_kind.as_deref();
                    let right = place.may_end(&self.log, &consumer.view, kind);
                    let outcome = if right && consumer.shadow.is_told_of_invalidation() {
                        Ok(())
                    } else {
                        Err("ends before its time".to_owned())
                    };
                    well(index, consumer, outcome);
                }
                return match token {
                    Some(token) if consumer.shadow.may_be_at_invalidate() => Start::BehindInvalidate(token),
                    Some(token) => Start::Behind(token),
                    None => self.start_anew(index),
                };
            }
            Err(error) => error,
        };
        let outcome = consumer.shadow.failed(error);
        well(index, consumer, outcome.map_err(|why| format!("{why}: {error}")));
        *self.report.ends.entry(name(error)).or_default() += 1;
        if let Some(code @ (NO_IMAGE | TOO_LARGE)) = error.code() {
            return self.start_around_obstacle(index, code, error);
        }
        let place = consumer.place.as_ref();
        let is_whole = place.is_some_and(Place::may_be_whole_again);
        let not_there = error.code() == Some(280) && (consumer.foreign || is_whole);
        let lost = not_there || (matches!(error.code(), Some(136 | 280 | 286)) && self.wrongs.lost_history);
        match error.resume_token().cloned() {
            Some(token) if !lost => {
                // An invalidate event's token cannot be known from its looks: the stream that ended knew.
                if consumer.shadow.may_be_at_invalidate() {
                    Start::BehindInvalidate(token)
                } else {
                    Start::Behind(token)
                }
            }
            _ => self.start_anew(index),
        }
    }

    /// There is an event that cannot be made. What comes before it in the same batch can be had one by one; then nothing is
    /// left but to go on behind it.
    fn start_around_obstacle(&mut self, index: usize, code: i32, error: &Error) -> Start {
        let consumer = &mut self.consumers[index];
        let place = consumer.place.as_ref();
        let found = place.and_then(|place| place.obstacle(&self.log, &consumer.view, code));
        let named = match code {
            // What comes when the call's time is over is the cause of its timeout.
            _ if error.is_timeout() => true,
            NO_IMAGE => matches!(error.kind(), ErrorKind::PreImageMissing(_)),
            _ => matches!(error.kind(), ErrorKind::EventTooLarge(_)),
        };
        let outcome = match found {
            Some(obstacle) if named && !(obstacle.is_behind_others && consumer.careful) => Ok(()),
            _ => Err(format!("the log has no reason for it now: {found:?}, {error}")),
        };
        well(index, consumer, outcome);
        let (Some(place), Some(obstacle)) = (place, found) else {
            return Start::Now;
        };
        self.report.meet(report::OBSTACLES);
        let from = place.from;
        consumer.careful = obstacle.is_behind_others;
        if !obstacle.is_behind_others {
            return Start::At(model::after(obstacle.time));
        }
        match error.resume_token().cloned() {
            Some(token) if consumer.shadow.may_be_at_invalidate() => Start::BehindInvalidate(token),
            Some(token) => Start::Behind(token),
            None => Start::At(from),
        }
    }

    /// Servers that are too old are named so, and nothing was delivered before.
    fn refused(&mut self, index: usize, end: &Result<(), Error>) {
        let consumer = &mut self.consumers[index];
        consumer.state = State::Refused;
        let outcome = match end {
            Err(error) if error.to_string().contains(TOO_OLD_FOR_THIS) => {
                self.report.meet(report::TOO_OLD);
                Ok(())
            }
            Err(error) if !consumer.shadow.opened => consumer.shadow.failed(error),
            Ok(()) if consumer.closing => Ok(()),
            _ => Err(format!("a server that is too old was used: {end:?}")),
        };
        well(index, consumer, outcome);
    }

    /// Without a token, or because what follows it is lost.
    fn start_anew(&mut self, index: usize) -> Start {
        let consumer = &self.consumers[index];
        if !self.servers.sharded && (!consumer.shadow.opened || self.wrongs.lost_history) {
            return Start::Now;
        }
        self.start_in_the_log(false)
    }

    /// A consumer pauses, goes on, closes, or drops what it waits for.
    pub(super) fn change_mind(&mut self) {
        let index = self.chance.below(self.consumers.len());
        match self.chance.below(8) {
            0 | 1 => {
                if self.consumers[index].state == State::Reading {
                    self.consumers[index].state = State::Pausing;
                }
            }
            2..=4 => self.wake(index),
            5 => self.world.demand(self.consumers[index].id, Demand::None),
            6 => self.take_anothers_place(index),
            _ => self.take_another(index),
        }
    }

    pub(super) fn wake(&mut self, index: usize) {
        let consumer = &mut self.consumers[index];
        match consumer.state {
            State::Asleep => self.world.wake(consumer.id),
            State::Refused => return self.try_again(index),
            State::Reading | State::Pausing => {}
        }
        consumer.state = State::Reading;
        self.pump();
    }

    /// The consumer stops in the middle of things, as a process does, and another goes on from its token.
    fn take_another(&mut self, index: usize) {
        self.pump();
        let consumer = &mut self.consumers[index];
        if consumer.state == State::Asleep || self.world.is_closed(consumer.id) {
            return;
        }
        if self.chance.below(2) == 0 {
            consumer.closing = true;
            self.world.begin_to_close(consumer.id);
            return;
        }
        self.go_on_after_drop(index);
    }

    /// The consumer goes on from a token that some stream had, whatever that one watched.
    fn take_anothers_place(&mut self, index: usize) {
        self.pump();
        if self.consumers[index].state == State::Asleep {
            return;
        }
        let view = &self.consumers[index].view;
        let Some(start) = self.tokens.any(&mut self.chance, &self.log, view) else {
            return;
        };
        self.report.reopened += 1;
        self.report.meet(report::OF_OTHERS);
        let mut consumer = self.consumers.remove(index);
        self.begin(&mut consumer, start);
        self.consumers.insert(index, consumer);
    }

    /// The servers are as old as they were.
    fn try_again(&mut self, index: usize) {
        let mut consumer = self.consumers.remove(index);
        consumer.state = State::Reading;
        self.report.reopened += 1;
        self.begin(&mut consumer, Start::Now);
        self.consumers.insert(index, consumer);
        self.pump();
    }

    fn go_on_after_drop(&mut self, index: usize) {
        self.consumers[index].closing = true;
        self.go_on_after(index, Ok(()));
    }
}

/// Far more streams than any seed needs.
const TOO_OFTEN: u64 = 3_000;

/// What an error says of a server that is too old.
const TOO_OLD_FOR_THIS: &str = "requires at least";

/// What an end is called in the report.
fn name(error: &Error) -> String {
    match error.code() {
        Some(code) => format!("code-{code}"),
        None if matches!(error.kind(), ErrorKind::ServerSelection { .. }) => "no-server".to_owned(),
        None => "network".to_owned(),
    }
}

#[track_caller]
fn well(index: usize, consumer: &Consumer, outcome: Result<(), String>) {
    if let Err(why) = outcome {
        panic!(
            "consumer {index}: {why}\nwatching {:?} with {:?}",
            consumer.view, consumer.options
        );
    }
}
