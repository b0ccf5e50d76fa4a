//! Tests over loopback sockets: clients of an adapter, a running deployment, and the real clock.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bson::Document;
use bytes::Bytes;
use changestream_core::connection::DriverInfo;
use changestream_core::monitoring::Event;
use changestream_core::{ChangeEvent, ConnectionString, Error, Scope, WatchOptions};
use changestream_driver::{Client, Mode};
use changestream_sim::RunningDeployment;

use super::adapters::Adapter;
use super::environment::{Environment, Topology};
use super::internal::{InternalConnection, Wire};
use super::logged::{self, LogMessage};
use super::observed::Observed;
use super::published::Publisher;
use super::rig::{ClientCommand, ClientId, CommandId, Rig, StreamId, server_api};
use super::schema::ServerApiDefinition;

/// A running deployment, and an adapter's clients.
pub(super) struct Sockets<A: Adapter> {
    adapter: A,
    name: &'static str,
    deployment: RunningDeployment,
    environment: Environment,
    clients: Vec<SocketClient<A>>,
    streams: Vec<(ClientId, <A::Mode as Mode>::Stream)>,
    commands: Vec<Option<Result<Document, Error>>>,
    internal: BTreeMap<usize, (Socket, InternalConnection)>,
    /// What clients have logged, and is not taken yet.
    logged: Vec<LogMessage>,
}

struct SocketClient<A: Adapter> {
    client: Client<A::Mode>,
    published: Arc<Mutex<Vec<Event>>>,
    publisher: Publisher,
    /// The numbers of its machines.
    sources: BTreeSet<u64>,
}

impl<A: Adapter> Sockets<A> {
    pub(super) fn new(name: &'static str, environment: Environment) -> Self {
        // An idle shard holds the others' events back until it writes something.
        let config = environment.config().noop_interval(Duration::from_millis(20));
        Self {
            adapter: A::new(),
            name,
            deployment: config.start().expect("there are free ports on the loopback"),
            environment,
            clients: Vec::new(),
            streams: Vec::new(),
            commands: Vec::new(),
            internal: BTreeMap::new(),
            logged: Vec::new(),
        }
    }

    fn writable_member(&self) -> usize {
        if matches!(
            self.environment.topology,
            Topology::Sharded | Topology::LoadBalanced
        ) {
            return 0;
        }
        loop {
            match self.deployment.primary() {
                Some(member) => return member,
                None => thread::yield_now(),
            }
        }
    }
}

impl<A: Adapter> Rig for Sockets<A> {
    fn uri(&self) -> String {
        self.deployment.uri()
    }

    fn name(&self) -> String {
        format!("{} over TCP, {}", self.name, self.environment.name())
    }

    fn internal(
        &mut self,
        member: Option<usize>,
        database: &str,
        command: Document,
    ) -> Result<Document, String> {
        let member = member.unwrap_or_else(|| self.writable_member());
        let deployment = &self.deployment;
        let environment = self.environment;
        let (socket, connection) = self.internal.entry(member).or_insert_with(|| {
            let address = deployment.address(member).expect("the member is there");
            let socket = TcpStream::connect(&address).expect("the member listens");
            let address = address.parse().expect("the member has an address");
            (
                Socket(socket),
                InternalConnection::new(address, &environment, Instant::now()),
            )
        });
        connection.run(socket, database, command)
    }

    fn client(&mut self, uri: &str, api: Option<&ServerApiDefinition>) -> Result<ClientId, Error> {
        let mut parsed: ConnectionString = uri.parse()?;
        parsed.options.server_api = api.map(server_api);
        parsed.options.log_max_document_length = Some(logged::LONGEST);
        let publisher = Publisher::new(&parsed.options);
        let published = Arc::new(Mutex::new(Vec::new()));
        let told = published.clone();
        let client = Client::<A::Mode>::with_options(parsed.options)?.monitor(move |event: &Event| {
            told.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(event.clone());
        });
        self.clients.push(SocketClient {
            client,
            published,
            publisher,
            sources: BTreeSet::new(),
        });
        Ok(ClientId(self.clients.len() - 1))
    }

    fn watch(&mut self, client: ClientId, scope: &Scope, options: WatchOptions) -> Result<StreamId, Error> {
        let own = &self.clients[client.0].client;
        let watch = match scope {
            Scope::Collection { database, collection } => own.collection(database, collection).watch(),
            Scope::Database { database } => own.database(database).watch(),
            Scope::Cluster => own.watch(),
        };
        let stream = self.adapter.open(watch.options(options))?;
        self.streams.push((client, stream));
        Ok(StreamId(self.streams.len() - 1))
    }

    fn next(&mut self, stream: StreamId) -> Result<Option<ChangeEvent>, Error> {
        let (_, stream) = &mut self.streams[stream.0];
        self.adapter.next(stream).transpose()
    }

    fn try_next(&mut self, stream: StreamId) -> Result<Option<ChangeEvent>, Error> {
        let (_, stream) = &mut self.streams[stream.0];
        self.adapter.try_next(stream)
    }

    fn close_stream(&mut self, stream: StreamId) {
        let (_, stream) = &mut self.streams[stream.0];
        self.adapter.close(stream);
    }

    fn close_client(&mut self, client: ClientId) {
        for (_, stream) in self.streams.iter_mut().filter(|(of, _)| *of == client) {
            self.adapter.close(stream);
        }
    }

    /// Runs it to its end: commands beside others are a matter of the simulated world.
    fn start(&mut self, client: ClientId, command: ClientCommand) -> CommandId {
        let database = self.clients[client.0].client.database(&command.database);
        let running = database.run_command_with(command.command.clone(), command.options());
        let reply = self.adapter.run(running);
        self.commands.push(Some(reply));
        CommandId(self.commands.len() - 1)
    }

    fn finish(&mut self, command: CommandId) -> Result<Document, Error> {
        let reply = self.commands[command.0].take();
        reply.expect("a command is finished once")
    }

    fn wait(&mut self, time: Duration) {
        thread::sleep(time);
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn events(&mut self, client: ClientId) -> Vec<Observed> {
        let client = &mut self.clients[client.0];
        let mut told = client.published.lock().unwrap_or_else(PoisonError::into_inner);
        let events = std::mem::take(&mut *told);
        client.sources.extend(events.iter().map(|event| event.source));
        let publisher = &mut client.publisher;
        events.iter().flat_map(|event| publisher.observe(event)).collect()
    }

    fn append_metadata(&mut self, client: ClientId, info: &DriverInfo) -> Result<(), Error> {
        self.clients[client.0].client.append_metadata(info)
    }

    fn logs(&mut self, client: ClientId) -> Vec<LogMessage> {
        self.logged.extend(logged::take());
        let sources = &self.clients[client.0].sources;
        let is_own = |message: &LogMessage| sources.contains(&message.source);
        let (own, others) = std::mem::take(&mut self.logged).into_iter().partition(is_own);
        self.logged = others;
        own
    }
}

/// A connection of the internal client's.
struct Socket(TcpStream);

impl Wire for Socket {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn send(&mut self, bytes: Bytes) {
        // A connection that is broken says so when it is read.
        let _sent = self.0.write_all(&bytes);
    }

    fn receive(&mut self) -> Option<Bytes> {
        let mut buffer = vec![0; 16 << 10];
        let len = self.0.read(&mut buffer).ok().filter(|len| *len > 0)?;
        buffer.truncate(len);
        Some(buffer.into())
    }
}
