//! Tests in the simulated world: clients and a deployment in one process, on one fake clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::Document;
use bytes::Bytes;
use changestream_core::auth::{CredentialAnswer, OidcFlow, OidcToken};
use changestream_core::client::{ClientSettings, Snapshot};
use changestream_core::connection::{ClientMetadata, DriverInfo};
use changestream_core::{ChangeEvent, ConnectionString, Error, Scope, WatchOptions};
use changestream_tests::world::{LineId, StreamId as MachineId, Tried, World};

use super::environment::{Environment, TOKEN, Users};
use super::internal::{InternalConnection, Wire};
use super::logged::{self, LogMessage};
use super::observed::Observed;
use super::published::Publisher;
use super::rig::{ClientCommand, ClientId, CommandId, Rig, StreamId, server_api};
use super::schema::ServerApiDefinition;

/// A world, and the clients in it.
pub(super) struct Simulated {
    world: World,
    environment: Environment,
    clients: Vec<SimulatedClient>,
    /// The streams and what runs commands, with the client that each belongs to.
    machines: BTreeMap<MachineId, ClientId>,
    streams: Vec<MachineId>,
    /// What runs each command.
    commands: Vec<Result<MachineId, Error>>,
    internal: BTreeMap<usize, (LineId, InternalConnection)>,
}

struct SimulatedClient {
    settings: Arc<ClientSettings>,
    /// What its streams and commands have learned.
    knowledge: Snapshot,
    /// What runs its commands, and does not at the moment.
    idle: Vec<MachineId>,
    publisher: Publisher,
    published: Vec<Observed>,
    logged: Vec<LogMessage>,
}

impl Simulated {
    pub(super) fn new(environment: Environment) -> Self {
        let mut world = World::new(environment.config(), [1; 32]);
        if environment.users == Users::Token {
            world
                .identity
                .provide(|_| Some(Ok(CredentialAnswer::Oidc(OidcToken::new(TOKEN)))));
        }
        Self {
            world,
            environment,
            clients: Vec::new(),
            machines: BTreeMap::new(),
            streams: Vec::new(),
            commands: Vec::new(),
            internal: BTreeMap::new(),
        }
    }

    /// What one machine has learned, the client's next one starts with.
    fn learn(&mut self, machine: MachineId) {
        let snapshot = self.world.machine(machine).snapshot();
        if let Some(client) = self.machines.get(&machine) {
            self.clients[client.0].knowledge.merge(snapshot);
        }
    }

    fn runner_of_commands(&mut self, client: ClientId) -> Result<MachineId, Error> {
        let state = &mut self.clients[client.0];
        if let Some(idle) = state.idle.pop() {
            return Ok(idle);
        }
        let machine = self
            .world
            .commands_with(state.settings.clone(), Some(state.knowledge.clone()))?;
        self.machines.insert(machine, client);
        Ok(machine)
    }

    fn start_command(&mut self, client: ClientId, command: ClientCommand) -> Result<MachineId, Error> {
        let command = command.run_command()?;
        let machine = self.runner_of_commands(client)?;
        self.world.start_command(machine, command);
        Ok(machine)
    }

    fn sort_events(&mut self) {
        for (machine, event) in self.world.take_events() {
            let Some(client) = self.machines.get(&machine) else {
                continue;
            };
            let client = &mut self.clients[client.0];
            client.published.extend(client.publisher.observe(&event));
            if logged::is_listening() {
                changestream_driver::logging::log(&event, logged::LONGEST);
                client.logged.extend(logged::take());
            }
        }
    }
}

impl Rig for Simulated {
    fn uri(&self) -> String {
        self.world.deployment.uri()
    }

    fn name(&self) -> String {
        format!("simulated {}", self.environment.name())
    }

    fn internal(
        &mut self,
        member: Option<usize>,
        database: &str,
        command: Document,
    ) -> Result<Document, String> {
        let member = match member {
            Some(member) => member,
            None => self.world.writable_member(),
        };
        let world = &mut self.world;
        let environment = self.environment;
        let (line, connection) = self.internal.entry(member).or_insert_with(|| {
            let address = world.deployment.address(member).expect("the member is there");
            let address = address.parse().expect("the member has an address");
            (
                world.open_line(member),
                InternalConnection::new(address, &environment, world.now),
            )
        });
        connection.run(&mut OnLine { world, line: *line }, database, command)
    }

    fn client(&mut self, uri: &str, api: Option<&ServerApiDefinition>) -> Result<ClientId, Error> {
        let mut parsed = match uri.contains("authMechanism=MONGODB-OIDC") {
            true => ConnectionString::parse_with_oidc_callback(uri, OidcFlow::Machine)?,
            false => uri.parse()?,
        };
        parsed.options.server_api = api.map(server_api);
        let publisher = Publisher::new(&parsed.options);
        let settings = ClientSettings::new(parsed.options, ClientMetadata::new())?.with_monitoring();
        self.clients.push(SimulatedClient {
            settings: Arc::new(settings),
            knowledge: Snapshot::default(),
            idle: Vec::new(),
            publisher,
            published: Vec::new(),
            logged: Vec::new(),
        });
        Ok(ClientId(self.clients.len() - 1))
    }

    fn watch(&mut self, client: ClientId, scope: &Scope, options: WatchOptions) -> Result<StreamId, Error> {
        let state = &self.clients[client.0];
        let (settings, knowledge) = (state.settings.clone(), state.knowledge.clone());
        let machine = self
            .world
            .watch_with(&settings, Some(knowledge), scope, options)?;
        self.machines.insert(machine, client);
        self.streams.push(machine);
        let opened = self.world.open(machine);
        self.learn(machine);
        opened?;
        Ok(StreamId(self.streams.len() - 1))
    }

    fn next(&mut self, stream: StreamId) -> Result<Option<ChangeEvent>, Error> {
        let machine = self.streams[stream.0];
        self.world.next_soon(machine, PATIENCE).transpose()
    }

    fn try_next(&mut self, stream: StreamId) -> Result<Option<ChangeEvent>, Error> {
        let machine = self.streams[stream.0];
        match self.world.try_next(machine) {
            Tried::Event(event) => Ok(Some(event)),
            Tried::Nothing(_) | Tried::End(Ok(())) => Ok(None),
            Tried::End(Err(error)) | Tried::TimedOut(error) => Err(error),
        }
    }

    fn close_stream(&mut self, stream: StreamId) {
        self.world.close(self.streams[stream.0]);
    }

    fn close_client(&mut self, client: ClientId) {
        let own: Vec<_> = self.machines.iter().filter(|(_, of)| **of == client).collect();
        for machine in own.into_iter().map(|(machine, _)| *machine).collect::<Vec<_>>() {
            self.world.close(machine);
        }
        self.clients[client.0].idle.clear();
    }

    fn start(&mut self, client: ClientId, command: ClientCommand) -> CommandId {
        let started = self.start_command(client, command);
        self.commands.push(started);
        CommandId(self.commands.len() - 1)
    }

    fn finish(&mut self, command: CommandId) -> Result<Document, Error> {
        let machine = self.commands[command.0].clone()?;
        let reply = self.world.reply(machine);
        self.learn(machine);
        if let Some(client) = self.machines.get(&machine) {
            self.clients[client.0].idle.push(machine);
        }
        reply?.to_document()
    }

    fn wait(&mut self, time: Duration) {
        self.world.advance(time);
    }

    fn now(&self) -> Instant {
        self.world.now
    }

    fn append_metadata(&mut self, client: ClientId, info: &DriverInfo) -> Result<(), Error> {
        self.clients[client.0].settings.append_metadata(info)
    }

    fn events(&mut self, client: ClientId) -> Vec<Observed> {
        self.sort_events();
        std::mem::take(&mut self.clients[client.0].published)
    }

    fn logs(&mut self, client: ClientId) -> Vec<LogMessage> {
        std::mem::take(&mut self.clients[client.0].logged)
    }
}

/// How long an event is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

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
