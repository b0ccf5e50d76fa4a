//! Tests in the simulated world: clients and a deployment in one process, on one fake clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bson::Document;
use bytes::Bytes;
use changestream_core::client::{ClientSettings, Snapshot};
use changestream_core::connection::ClientMetadata;
use changestream_core::{ChangeEvent, ConnectionString, Error, Scope, WatchOptions};
use changestream_tests::world::{LineId, Tried, World};

use super::environment::{Environment, PASSWORD, USER};
use super::internal::{InternalConnection, Wire};
use super::observed::Observed;
use super::rig::{ClientCommand, ClientId, CommandId, Failure, Rig, StreamId};
use super::schema::ServerApiDefinition;

/// A world, and the clients in it.
pub(super) struct Simulated {
    world: World,
    environment: Environment,
    clients: Vec<SimulatedClient>,
    streams: Vec<SimulatedStream>,
    commands: BTreeMap<usize, Result<Document, String>>,
    internal: BTreeMap<usize, (LineId, InternalConnection)>,
    next_command: usize,
}

struct SimulatedClient {
    uri: String,
    /// What its streams have learned.
    snapshot: Option<Snapshot>,
}

struct SimulatedStream {
    client: ClientId,
    id: changestream_tests::world::StreamId,
}

impl Simulated {
    pub(super) fn new(environment: Environment) -> Self {
        Self {
            world: World::new(environment.config(), [1; 32]),
            environment,
            clients: Vec::new(),
            streams: Vec::new(),
            commands: BTreeMap::new(),
            internal: BTreeMap::new(),
            next_command: 0,
        }
    }

    fn learn(&mut self, stream: StreamId) {
        let stream = &self.streams[stream.0];
        let snapshot = self.world.machine(stream.id).snapshot();
        self.clients[stream.client.0].snapshot = Some(snapshot);
    }
}

impl Rig for Simulated {
    fn uri(&self) -> String {
        self.world.deployment.uri()
    }

    fn name(&self) -> String {
        format!("simulated {}", self.environment.name())
    }

    fn internal(&mut self, member: Option<usize>, database: &str, command: Document) -> Result<Document, String> {
        let member = match member {
            Some(member) => member,
            None => self.world.writable_member(),
        };
        let world = &mut self.world;
        let user = self.environment.auth.then_some((USER, PASSWORD));
        let (line, connection) = self.internal.entry(member).or_insert_with(|| {
            let address = world.deployment.address(member).expect("the member is there");
            let address = address.parse().expect("the member has an address");
            (
                world.open_line(member),
                InternalConnection::new(address, user, world.now),
            )
        });
        connection.run(&mut OnLine { world, line: *line }, database, command)
    }

    fn client(&mut self, uri: &str, api: Option<&ServerApiDefinition>) -> Result<ClientId, Failure> {
        if api.is_some() {
            return Err(Failure::Unsupported("no server API can be declared".to_owned()));
        }
        let parsed: ConnectionString = uri.parse().map_err(Error::from)?;
        ClientSettings::new(parsed.options, ClientMetadata::new())?;
        self.clients.push(SimulatedClient {
            uri: uri.to_owned(),
            snapshot: None,
        });
        Ok(ClientId(self.clients.len() - 1))
    }

    fn watch(&mut self, client: ClientId, scope: &Scope, options: WatchOptions) -> Result<StreamId, Failure> {
        let SimulatedClient { uri, snapshot } = &self.clients[client.0];
        let id = self.world.watch_by(uri, snapshot.clone(), scope, options)?;
        self.streams.push(SimulatedStream { client, id });
        let stream = StreamId(self.streams.len() - 1);
        let opened = self.world.open(id);
        self.learn(stream);
        opened?;
        Ok(stream)
    }

    fn next(&mut self, stream: StreamId) -> Result<Option<ChangeEvent>, Error> {
        let id = self.streams[stream.0].id;
        self.world.next(id).transpose()
    }

    fn try_next(&mut self, stream: StreamId) -> Result<Option<ChangeEvent>, Error> {
        let id = self.streams[stream.0].id;
        match self.world.try_next(id) {
            Tried::Event(event) => Ok(Some(event)),
            Tried::Nothing(_) | Tried::End(Ok(())) => Ok(None),
            Tried::End(Err(error)) => Err(error),
        }
    }

    fn close_stream(&mut self, stream: StreamId) {
        let id = self.streams[stream.0].id;
        self.world.close(id);
    }

    fn close_client(&mut self, client: ClientId) {
        let streams: Vec<_> = self
            .streams
            .iter()
            .filter(|stream| stream.client == client)
            .map(|stream| stream.id)
            .collect();
        for stream in streams {
            self.world.close(stream);
        }
    }

    fn start(&mut self, _client: ClientId, command: ClientCommand) -> CommandId {
        let reply = self.internal(None, &command.database, command.command);
        self.next_command += 1;
        self.commands.insert(self.next_command, reply);
        CommandId(self.next_command)
    }

    fn finish(&mut self, command: CommandId) -> Result<Document, Failure> {
        let reply = self
            .commands
            .remove(&command.0)
            .expect("a command is finished once");
        reply.map_err(|reason| Failure::Error(Error::network(reason, false)))
    }

    fn wait(&mut self, time: Duration) {
        self.world.advance(time);
    }

    fn events(&mut self, _client: ClientId) -> Vec<Observed> {
        Vec::new()
    }
}

/// A connection of the internal client's in the world.
struct OnLine<'a> {
    world: &'a mut World,
    line: LineId,
}

impl Wire for OnLine<'_> {
    fn now(&self) -> Instant {
        self.world.now
    }

    fn send(&mut self, bytes: Bytes) {
        self.world.say(self.line, &bytes);
    }

    fn receive(&mut self) -> Option<Bytes> {
        self.world.hear(self.line)
    }
}
