//! A world whose streams are all driven at once, step by step, by somebody who listens.

use std::time::{Duration, Instant};

use changestream_core::client::{Demand, Input};

use super::{Heard, StreamId, World};

impl World {
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
        if self.next_time().is_some_and(|at| at <= end) {
            self.step();
            return true;
        }
        self.now = self.now.max(end);
        self.settle();
        false
    }
}
