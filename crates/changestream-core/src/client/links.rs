//! The connections of a machine, and what comes in over them.

use std::sync::Arc;
use std::time::Duration;

use super::machine::Phase;
use super::{ClientMachine, ConnectionId, Output};
use crate::connection::{Connection, ConnectionOutput, Reply, reply};
use crate::monitoring::ClosedReason;
use crate::random::Random;
use crate::stream::{ClusterTime, CommandReply, StreamInput};
use crate::topology::{HelloReply, ServerType};
use crate::{Error, ErrorKind, ServerAddress};
use bson::oid::ObjectId;

/// A connection and what it is for the machine.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) address: ServerAddress,
    /// The server's pool generation when the connection was made: an error of an older one says nothing.
    pub(super) generation: u64,
    /// Which service behind a load balancer answers.
    pub(super) service_id: Option<ObjectId>,
    /// The cluster time of the handshake: whoever answers at that address may be anyone, until it has authenticated.
    heard: Option<ClusterTime>,
    pub(super) stage: Stage,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not open, or its hello is not answered.
    Opening,
    /// The server has said hello.
    Greeted,
    /// The server is asked for another hello, over a connection that it has greeted before.
    Checking,
    /// Authenticated: ready for commands.
    Ready,
}
/// Connections.
impl ClientMachine {
    /// Orders a connection to that server.
    pub(super) fn open_link(&mut self, address: ServerAddress) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let connection = Connection::new(
            Arc::clone(&self.settings.connection),
            address.clone(),
            self.knows_hello.get(&address).is_some(),
            self.random.draw(Random::fork),
            self.now,
        );
        let link = Link {
            connection,
            generation: self.topology.generation(&address, None),
            service_id: None,
            heard: None,
            address: address.clone(),
            stage: Stage::Opening,
        };
        self.links.insert(id, link);
        let now = self.now;
        if let Some(journal) = self.journal() {
            journal.created(now, id, &address);
        }
        self.outputs.push_back(Output::Connect {
            connection: id,
            address,
        });
        id
    }

    /// Gives a connection up. What it has to say still goes out before.
    pub(super) fn drop_link(&mut self, id: ConnectionId, reason: ClosedReason) {
        let Some(mut link) = self.links.remove(&id) else {
            return;
        };
        if matches!(link.stage, Stage::Opening | Stage::Checking) {
            self.topology.cancel_check(self.now, &link.address);
        }
        while let Some(output) = link.connection.poll_output() {
            if let ConnectionOutput::Transmit(bytes) = output {
                self.outputs.push_back(Output::Transmit {
                    connection: id,
                    bytes,
                });
            }
        }
        let now = self.now;
        if let Some(journal) = self.journal() {
            journal.closed(now, id, reason);
        }
        self.outputs.push_back(Output::Disconnect { connection: id });
    }

    pub(super) fn drop_links_but(&mut self, kept: Option<ConnectionId>, reason: &ClosedReason) {
        let others: Vec<_> = self
            .links
            .keys()
            .copied()
            .filter(|id| Some(*id) != kept)
            .collect();
        for id in others {
            self.drop_link(id, reason.clone());
        }
    }

    /// A server is attached to: what else was opened to find it is of no use any more.
    pub(super) fn drop_unneeded_links(&mut self, attached: ConnectionId) {
        if self.work.has_one_server() {
            return self.drop_links_but(Some(attached), &ClosedReason::Unused);
        }
        let unready: Vec<_> = self
            .links
            .iter()
            .filter(|(id, link)| **id != attached && link.stage != Stage::Ready)
            .map(|(id, _)| *id)
            .collect();
        for id in unready {
            self.drop_link(id, ClosedReason::Unused);
        }
    }

    /// Servers that are not part of the deployment any more are left, unless a stream still reads there, or takes leave
    /// there: its cursor is as good as before.
    pub(super) fn drop_links_to(&mut self, removed: &[ServerAddress]) {
        for address in removed {
            self.knows_hello.remove(address);
        }
        let attached = match &self.phase {
            Phase::Attached(id, _) => Some(*id),
            Phase::Closing(closing) => Some(closing.connection),
            Phase::Parked
            | Phase::Resolving(_)
            | Phase::Selecting(_)
            | Phase::Authenticating(..)
            | Phase::Closed(_) => None,
        };
        let gone: Vec<_> = self
            .links
            .iter()
            .filter(|(id, link)| removed.contains(&link.address) && Some(**id) != attached)
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.drop_link(id, ClosedReason::Unused);
            if let Phase::Authenticating(chosen, selection) = &self.phase
                && *chosen == id
            {
                self.phase = Phase::Selecting(selection.clone());
            }
        }
    }

    pub(super) fn on_link(&mut self, id: ConnectionId, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.links.get_mut(&id) {
            change(link);
            self.drain_link(id);
        }
    }

    /// Takes over everything that a connection has to say.
    pub(super) fn drain_link(&mut self, id: ConnectionId) {
        while let Some(output) = self
            .links
            .get_mut(&id)
            .and_then(|link| link.connection.poll_output())
        {
            match output {
                ConnectionOutput::Transmit(bytes) => {
                    self.outputs.push_back(Output::Transmit {
                        connection: id,
                        bytes,
                    });
                }
                ConnectionOutput::Hello { body, round_trip } => self.on_hello(id, &body, round_trip),
                ConnectionOutput::Ready => self.on_ready(id),
                ConnectionOutput::Credentials(request) => {
                    self.outputs.push_back(Output::Credentials {
                        connection: id,
                        request,
                    });
                }
                ConnectionOutput::Events { request_id, events } => self.on_events(id, request_id, events),
                ConnectionOutput::Reply(reply) => self.on_reply(id, reply),
                ConnectionOutput::Refused(reply) => self.on_refused(id, &reply),
                ConnectionOutput::Failed(error) => self.on_link_failed(id, error),
            }
        }
    }

    fn on_hello(&mut self, id: ConnectionId, body: &bytes::Bytes, round_trip: Duration) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let document = match bson::RawDocument::from_bytes(body) {
            Ok(document) => document,
            Err(error) => return self.on_link_failed(id, bad_hello(&error.to_string())),
        };
        let hello = match HelloReply::parse(document) {
            Ok(hello) => hello,
            Err(error) => return self.on_link_failed(id, bad_hello(&error.to_string())),
        };
        if self.settings.options.load_balanced && hello.service_id.is_none() {
            return self.on_link_failed(id, no_load_balancer());
        }
        if let Some(service) = hello.service_id.filter(|_| self.settings.options.load_balanced) {
            link.service_id = Some(service);
            link.generation = self.topology.generation(&link.address, Some(service));
        }
        if link.stage == Stage::Opening {
            link.heard = ClusterTime::of_reply(body);
        }
        link.stage = if link.connection.is_ready() {
            Stage::Ready
        } else {
            Stage::Greeted
        };
        let address = link.address.clone();
        if hello.hello_ok {
            self.knows_hello.insert(address.clone(), ());
        }
        let now = self.now;
        if let Some(journal) = self.journal() {
            if hello.is_overloaded() {
                let error = ErrorKind::from_server(reply::server_error(document));
                journal.check_refused(now, id, Error::new(error).at(address.clone()));
            } else {
                journal.greeted(now, id, &hello, body, round_trip);
            }
        }
        let changes = self
            .topology
            .handle_hello(self.now, &address, hello, Some(round_trip));
        self.note_changes(&changes, &address, None);
        self.drop_links_to(&changes.removed);
        if matches!(self.phase, Phase::Closing(_)) {
            return self.continue_closing(id);
        }
        if self.topology.server(&address).is_none() {
            self.drop_link(id, ClosedReason::Unused);
        }
        self.advance_selection();
    }

    fn on_ready(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.stage == Stage::Ready {
            // It has authenticated anew.
            return;
        }
        // A check that is under way ends by itself.
        if link.stage != Stage::Checking {
            link.stage = Stage::Ready;
        }
        ClusterTime::advance(&mut self.cluster_time, link.heard.take());
        let now = self.now;
        if let Some(journal) = self.journal() {
            journal.ready(now, id);
        }
        match &self.phase {
            // Another member may have told meanwhile that this one was deposed.
            Phase::Authenticating(chosen, selection) if *chosen == id && !self.is_known(id) => {
                self.phase = Phase::Selecting(selection.clone());
                self.advance_selection();
            }
            Phase::Authenticating(chosen, _) if *chosen == id => self.attach(id),
            Phase::Closing(_) => self.continue_closing(id),
            Phase::Authenticating(..)
            | Phase::Parked
            | Phase::Resolving(_)
            | Phase::Selecting(_)
            | Phase::Attached(..)
            | Phase::Closed(_) => {}
        }
    }

    fn on_events(&mut self, id: ConnectionId, request_id: i32, events: bytes::Bytes) {
        if let Phase::Attached(attached, awaited) = &self.phase
            && *attached == id
            && awaited.first == Some(request_id)
        {
            self.work.handle_input(self.now, StreamInput::Events(events));
        }
    }

    /// Whether the topology knows what the server is that the connection leads to.
    fn is_known(&self, id: ConnectionId) -> bool {
        let address = self.links.get(&id).map(|link| &link.address);
        let described = address.and_then(|address| self.topology.server(address));
        described.is_some_and(|server| server.server_type != ServerType::Unknown)
    }

    fn on_reply(&mut self, id: ConnectionId, reply: Reply) {
        let now = self.now;
        let parsed = match CommandReply::parse(reply.body) {
            Ok(parsed) => parsed.more_to_come(reply.more_to_come),
            Err(error) => return self.on_link_failed(id, error),
        };
        if let Some(journal) = self.journal() {
            let (body, error) = (&parsed.body, parsed.error.as_ref());
            journal.replied(now, id, reply.request_id, body, error);
        }
        if matches!(self.phase, Phase::Closing(_)) {
            return self.on_farewell_reply(reply.request_id);
        }
        ClusterTime::advance(&mut self.cluster_time, parsed.cluster_time.clone());
        if parsed.error.is_some() {
            self.blame(id, &parsed);
        }
        match &mut self.phase {
            Phase::Attached(attached, awaited)
                if *attached == id && awaited.first == Some(reply.request_id) =>
            {
                if !reply.more_to_come {
                    awaited.answered();
                }
                self.work.handle_input(self.now, StreamInput::Reply(parsed));
            }
            // The answer to a killCursors.
            Phase::Attached(..)
            | Phase::Parked
            | Phase::Resolving(_)
            | Phase::Selecting(_)
            | Phase::Authenticating(..)
            | Phase::Closing(_)
            | Phase::Closed(_) => {}
        }
    }

    /// The connection authenticates anew, and sends the command again by itself.
    fn on_refused(&mut self, id: ConnectionId, reply: &Reply) {
        let now = self.now;
        if let (Some(journal), Ok(body)) = (self.journal(), bson::RawDocument::from_bytes(&reply.body)) {
            let error = reply::server_error(body);
            journal.refused(now, id, reply.request_id, &error);
        }
    }

    fn on_link_failed(&mut self, id: ConnectionId, error: Error) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        self.outputs.push_back(Output::Disconnect { connection: id });
        let error = error.at(link.address.clone());
        let now = self.now;
        if let Some(journal) = self.journal() {
            journal.broke(now, id, Some(&error));
        }
        self.blame_connection(&link, &error);
        if let Some(journal) = self.journal() {
            journal.closed(now, id, ClosedReason::Error(error.clone()));
            journal.not_had(now, &link.address, &error);
        }
        if link.stage == Stage::Opening {
            // It may not know hello by that name any more.
            self.knows_hello.remove(&link.address);
        }
        // Behind a load balancer there is no other server to find. A command's user decides what is tried again.
        let looks_on = matches!(error.kind(), ErrorKind::Network { .. })
            && !self.settings.options.load_balanced
            && self.work.has_one_server();
        match &self.phase {
            Phase::Attached(attached, _) if *attached == id => {
                self.phase = Phase::Parked;
                self.work.handle_input(self.now, StreamInput::Failed(error));
            }
            Phase::Authenticating(chosen, selection) if *chosen == id => {
                if looks_on {
                    self.phase = Phase::Selecting(selection.clone());
                    self.advance_selection();
                } else {
                    self.fail_selection(error);
                }
            }
            Phase::Selecting(_) if self.settings.options.load_balanced => self.fail_selection(error),
            Phase::Selecting(_) => self.advance_selection(),
            Phase::Closing(closing) if closing.connection == id => self.finish_closing(),
            Phase::Closing(_)
            | Phase::Parked
            | Phase::Resolving(_)
            | Phase::Authenticating(..)
            | Phase::Attached(..)
            | Phase::Closed(_) => {}
        }
    }
}

fn bad_hello(message: &str) -> Error {
    Error::protocol(format!(
        "the hello reply is malformed: {message}; is this a MongoDB server?"
    ))
}

fn no_load_balancer() -> Error {
    Error::protocol(
        "Driver attempted to initialize in load balancing mode, but the server does not support this mode: leave \
         loadBalanced=true out to connect to it",
    )
}
