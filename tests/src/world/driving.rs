//! The world driven step by step, by a consumer that does not wait: what the storm is made of.

use std::hash::Hasher;
use std::time::{Duration, Instant};

use changestream_core::Update;
use changestream_core::client::{ClientMachine, Demand, Input};

use super::{Heard, StreamId, World, sim};

impl World {
    /// Says what the consumer wants, without stepping the world. Every other stream looks first whether it can be had at once,
    /// as drivers do.
    pub fn demand(&mut self, id: StreamId, demand: Demand) {
        self.streams[id.0].demand = demand;
        if demand != Demand::None && self.hand_over(id.0, ClientMachine::take_ready) {
            return;
        }
        self.input(id, Input::Demand(demand));
    }

    /// From now on [`heard`](Self::heard) tells what streams say and learn.
    pub fn listen(&mut self) {
        self.tap.switch_on();
    }

    /// The next thing that a stream said or learned, oldest first.
    pub fn heard(&mut self) -> Option<(StreamId, Heard)> {
        self.tap.next()
    }

    /// Nobody drives this stream any more, until [`wake`](Self::wake): bytes wait in its sockets, deadlines pass.
    pub fn put_to_sleep(&mut self, id: StreamId) {
        self.network.put_to_sleep(id.0);
    }

    /// The stream is driven again: first with what its sockets hold, then with the time.
    pub fn wake(&mut self, id: StreamId) {
        self.network.wake(id.0);
    }

    /// The stream is dropped as it is: its sockets close, and nobody takes leave.
    pub fn abandon(&mut self, id: StreamId) {
        self.network.put_to_sleep(id.0);
        self.network.abandon(self.now, id.0);
        self.live.retain(|live| *live != id.0);
    }

    /// Asks the stream to close, and does not wait until it has.
    pub fn begin_to_close(&mut self, id: StreamId) {
        let deadline = self.now + Duration::from_secs(5);
        self.input(id, Input::Close { deadline });
    }

    /// Whether the stream has ended.
    pub fn is_closed(&self, id: StreamId) -> bool {
        self.streams[id.0].closed.is_some()
    }

    /// The demand that is not satisfied yet.
    pub fn demand_of(&self, id: StreamId) -> Demand {
        self.streams[id.0].demand
    }

    /// Steps to the next moment at which something happens, if that is not after `end`; else it is `end` then. Whether
    /// there was such a moment.
    pub fn step_before(&mut self, end: Instant) -> bool {
        if let Some(at) = self.next_time().filter(|at| *at <= end) {
            self.step_to(at);
            return true;
        }
        self.now = self.now.max(end);
        self.settle();
        false
    }

    /// Moves on to that moment.
    pub(super) fn step_to(&mut self, at: Instant) {
        self.steps += 1;
        self.now = self.now.max(at);
        self.deliver();
        self.deployment.handle_input(self.now, sim::Input::Timeout);
        for at in 0..self.live.len() {
            let id = StreamId(self.live[at]);
            if self.network.is_asleep(id.0) {
                continue;
            }
            if self.streams[id.0]
                .deadline
                .is_some_and(|deadline| deadline.at <= self.now)
            {
                // A call that begins with a late answer is judged after what that led to has been told.
                let mut again = None;
                for _ in 0..2 {
                    self.input(id, Input::Timeout);
                    self.poll_stream(id.0);
                    let deadline = self.streams[id.0].deadline;
                    again = deadline.filter(|deadline| deadline.at <= self.now);
                    if again.is_none() {
                        break;
                    }
                }
                assert!(
                    again.is_none(),
                    "a loop without end: {again:?} in {:?}",
                    self.streams[id.0]
                );
            }
        }
        self.settle();
    }

    /// What has come of earlier demands and was not taken yet; demands nothing.
    pub fn take_update(&mut self, id: StreamId) -> Option<Update> {
        self.streams[id.0].updates.pop_front()
    }

    /// A number of everything that streams have sent so far: equal for equal worlds.
    pub fn fingerprint(&self) -> u64 {
        self.sent.finish()
    }
}
