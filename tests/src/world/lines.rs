//! Connections straight into the deployment, without a network between: for a test's own client.

use std::collections::VecDeque;

use bytes::Bytes;
use changestream_sim as sim;

use super::World;

/// Names a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineId(pub(super) sim::ConnectionId);

/// What has come over a line and was not heard yet.
#[derive(Debug, Default)]
pub(super) struct Line {
    received: VecDeque<Bytes>,
    closed: bool,
}

impl Line {
    pub(super) fn receive(&mut self, bytes: Bytes) {
        self.received.push_back(bytes);
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }
}

impl World {
    /// A connection to that member. What is sent over it is none of the streams' commands.
    pub fn open_line(&mut self, member: usize) -> LineId {
        let connection = self.deployment.new_connection();
        let accepted = sim::Input::Accepted { member, connection };
        self.deployment.handle_input(self.now, accepted);
        self.writers.insert(connection);
        self.lines.insert(connection, Line::default());
        LineId(connection)
    }

    /// Sends bytes; they are there at once.
    pub fn say(&mut self, line: LineId, bytes: &[u8]) {
        let received = sim::Input::Received {
            connection: line.0,
            bytes,
        };
        self.deployment.handle_input(self.now, received);
    }

    /// The next bytes of the deployment's, for which the world is stepped if it must; none where it has closed the line.
    pub fn hear(&mut self, line: LineId) -> Option<Bytes> {
        loop {
            self.settle();
            let state = self.lines.get_mut(&line.0)?;
            if let Some(bytes) = state.received.pop_front() {
                return Some(bytes);
            }
            if state.closed {
                return None;
            }
            self.step();
        }
    }

    /// A member that takes writes: the primary, once there is one, or the first mongos.
    pub fn writable_member(&mut self) -> usize {
        loop {
            if self.deployment.shard_count() > 0 {
                return 0;
            }
            match self.deployment.primary() {
                Some(member) => return member,
                None => self.step(),
            }
        }
    }

    /// Takes what is for a line.
    pub(super) fn is_for_a_line(&mut self, output: &sim::Output) -> bool {
        let line = match output {
            sim::Output::Transmit { connection, .. } | sim::Output::Disconnect { connection } => {
                self.lines.get_mut(connection)
            }
            sim::Output::Listen { .. } | sim::Output::Close { .. } | sim::Output::Deadline(_) => None,
        };
        match (line, output) {
            (Some(line), sim::Output::Transmit { bytes, .. }) => line.receive(bytes.clone()),
            (Some(line), _) => line.close(),
            (None, _) => return false,
        }
        true
    }
}
