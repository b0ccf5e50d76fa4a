//! Taking leave: the cursor is killed, the session ended, the sockets closed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bson::RawDocumentBuf;

use super::links::Stage;
use super::machine::Phase;
use super::{ClientMachine, ConnectionId};
use crate::Error;
use crate::connection::Request;
use crate::monitoring::ClosedReason;
use crate::stream::Farewell;

/// A leave that is being taken.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) deadline: Instant,
    /// The connection that the last commands go over.
    pub(super) connection: ConnectionId,
    /// What is to be sent once the connection is ready.
    commands: Vec<RawDocumentBuf>,
    /// The requests that are not answered yet.
    unanswered: BTreeSet<i32>,
}

impl ClientMachine {
    /// The consumer is done; or in more of a hurry than before.
    pub(super) fn close(&mut self, deadline: Instant) {
        if let Phase::Closing(closing) = &mut self.phase {
            closing.deadline = closing.deadline.min(deadline);
            return;
        }
        let max_time = deadline
            .saturating_duration_since(self.now)
            .max(Duration::from_millis(1));
        let Some(farewell) = self.work.close(Some(max_time)) else {
            return self.closed(Ok(()));
        };
        let Phase::Attached(attached, _) = self.phase else {
            return self.closed(Ok(()));
        };
        if farewell.commands.is_empty() {
            return self.closed(Ok(()));
        }
        // A server works off one connection's requests in order: behind a getMore that waits for changes, a
        // killCursors would wait as well. Behind a load balancer it has to: another connection may lead elsewhere.
        let connection = if farewell.busy && !self.settings.options.load_balanced {
            self.drop_links_but(None, &ClosedReason::Closed);
            self.open_link(farewell.server)
        } else {
            attached
        };
        self.phase = Phase::Closing(Closing {
            deadline,
            connection,
            commands: farewell.commands,
            unanswered: BTreeSet::new(),
        });
        if connection == attached {
            self.send_farewell(connection);
        }
    }

    /// The connection for the farewell has come one step further.
    pub(super) fn continue_closing(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        match link.stage {
            Stage::Opening | Stage::Checking => {}
            Stage::Greeted => self.on_link(id, |link| link.connection.authenticate(now)),
            Stage::Ready => self.send_farewell(id),
        }
    }

    fn send_farewell(&mut self, id: ConnectionId) {
        let Phase::Closing(closing) = &mut self.phase else {
            return;
        };
        let commands = std::mem::take(&mut closing.commands);
        let requests: Vec<_> = commands
            .into_iter()
            .filter_map(|command| self.send_on(id, Request::new(command)))
            .collect();
        if let Phase::Closing(closing) = &mut self.phase {
            closing.unanswered.extend(requests);
            if closing.unanswered.is_empty() {
                self.finish_closing();
            }
        }
    }

    pub(super) fn on_farewell_reply(&mut self, request: i32) {
        let Phase::Closing(closing) = &mut self.phase else {
            return;
        };
        closing.unanswered.remove(&request);
        if closing.unanswered.is_empty() && closing.commands.is_empty() {
            self.finish_closing();
        }
    }

    pub(super) fn finish_closing(&mut self) {
        self.closed(Ok(()));
    }

    /// The stream has ended by itself. The server is told without waiting for what it says to that: the consumer
    /// wants to know the end now.
    pub(super) fn end(&mut self, result: Result<(), Error>, farewell: Option<Farewell>) {
        if let (Phase::Attached(attached, _), Some(farewell)) = (&self.phase, farewell)
            && !farewell.busy
        {
            let attached = *attached;
            for command in farewell.commands {
                self.send_on(attached, Request::new(command));
            }
        }
        self.closed(result);
    }

    fn closed(&mut self, result: Result<(), Error>) {
        self.drop_links_but(None, &ClosedReason::Closed);
        self.close_journal();
        self.phase = Phase::Closed(result);
    }
}
