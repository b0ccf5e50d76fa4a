//! Where streams come from: a client, its databases and collections.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bson::Document;
use changestream_core::client::{ClientMachine, ClientSettings, Snapshot};
use changestream_core::connection::{ClientMetadata, DriverInfo, Environment};
use changestream_core::monitoring::Event;
use changestream_core::random::Random;
use changestream_core::uri::{ClientOptions, Warning};
use changestream_core::{CommandOptions, Error, RunCommand, Scope, Session, WatchOptions};

use crate::credentials::{ClientBuilder, Given, Providers};
use crate::dns::DnsServers;
use crate::driver::Driver;
use crate::monitor::Monitor;
use crate::run::{Pool, Running};
use crate::security::Security;
use crate::stream::Knowledge;
use crate::{ChangeStream, Mode, Watch};

/// A MongoDB deployment, to open change streams on.
///
/// Making one talks to nobody, and it holds no connection: each stream has its own. The certificates of TLS are read from
/// their files then, and never again: for new ones, make a new client. What one stream learns of the
/// deployment, the next one starts with. Cloning it is cheap and gives the same client.
pub struct Client<M: Mode> {
    inner: Arc<Inner<M>>,
    monitor: Monitor,
    /// What runs commands, and tells the same monitor.
    commands: Arc<Pool<M::Runtime>>,
}

impl<M: Mode + Default> Client<M> {
    /// A client for this connection string, such as `mongodb://db1.example.com,db2.example.com/?replicaSet=rs0`.
    ///
    /// # Errors
    /// The string is wrong; the error says where. Or it asks for what is not built in, or names a file for TLS that
    /// cannot be used.
    pub fn new(connection_string: impl AsRef<str>) -> Result<Self, Error> {
        Self::builder().build(connection_string)
    }

    /// A client whose credentials come from code: by callbacks that hand out tokens or keys.
    ///
    /// ```no_run
    /// use changestream_driver::{Client, OidcToken, Runtime};
    ///
    /// # async fn fetch_token() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// fn client<R: Runtime + Clone + Default>() -> Result<Client<R>, changestream_driver::Error> {
    ///     Client::builder()
    ///         .oidc_callback(|_request| async { fetch_token().await.map(OidcToken::new) })
    ///         .build("mongodb://db.example.com/?tls=true&authMechanism=MONGODB-OIDC")
    /// }
    /// ```
    pub fn builder() -> ClientBuilder<M> {
        ClientBuilder::new(M::default())
    }

    /// A client with these options.
    ///
    /// # Errors
    /// The options contradict each other, ask for what is not built in, or name a file for TLS that cannot be used.
    pub fn with_options(options: ClientOptions) -> Result<Self, Error> {
        Self::with_mode(M::default(), options)
    }
}

impl<M: Mode> Client<M> {
    /// A client on this runtime.
    ///
    /// # Errors
    /// As [`with_options`](Self::with_options).
    pub fn with_mode(mode: M, options: ClientOptions) -> Result<Self, Error> {
        Self::with_given(mode, options, Given::default(), Vec::new())
    }

    /// As [`builder`](Client::builder), on this runtime.
    pub fn builder_with_mode(mode: M) -> ClientBuilder<M> {
        ClientBuilder::new(mode)
    }

    pub(crate) fn with_given(
        mode: M,
        options: ClientOptions,
        given: Given,
        warnings: Vec<Warning>,
    ) -> Result<Self, Error> {
        let metadata = metadata(mode.platform());
        let settings = ClientSettings::new(options, metadata)?;
        let mut client = Inner::new(mode, settings, given)?;
        client.warnings.splice(0..0, warnings);
        Ok(client.into())
    }

    /// A client on this runtime with settings made by hand, for a library that adds itself to what servers are told of
    /// their clients.
    ///
    /// # Errors
    /// As [`with_options`](Self::with_options).
    pub fn with_settings(mode: M, settings: ClientSettings) -> Result<Self, Error> {
        Inner::new(mode, settings, Given::default()).map(Self::from)
    }

    /// The same client, that asks these DNS servers for the records of a `mongodb+srv://` connection string, in this order,
    /// in place of the system's. It has learned nothing of the deployment yet. Without effect on how hosts' addresses
    /// are looked up, and on `mongodb://`.
    #[cfg(feature = "dns")]
    #[must_use]
    pub fn with_dns_servers(&self, servers: impl IntoIterator<Item = std::net::SocketAddr>) -> Self
    where
        M: Clone,
    {
        let inner = &*self.inner;
        let client = Self::from(Inner {
            mode: inner.mode.clone(),
            settings: inner.settings.clone(),
            security: inner.security.clone(),
            servers: DnsServers::Given(servers.into_iter().collect()),
            providers: inner.providers.clone(),
            warnings: inner.warnings.clone(),
            knowledge: Knowledge::default(),
        });
        Self {
            monitor: self.monitor.clone(),
            ..client
        }
    }

    /// The same client, with a handler that is told of what its streams and commands do: commands, connections,
    /// checks of servers, and what becomes known of the deployment. Called once more, it adds another handler.
    ///
    /// The handler runs while a stream is polled, and had better be quick. What it is told holds no secrets of
    /// authentication. With or without a handler the same goes to `tracing`, in the words of the
    /// [Logging specification](crate::logging), with the targets `changestream::command`, `changestream::connection`,
    /// `changestream::topology` and `changestream::server_selection`, at level `DEBUG` but for what `INFO` is for: that a
    /// server is waited for. They have to be enabled when a stream is opened, or when what runs a command is made. Documents
    /// are cut there after [`log_max_document_length`](ClientOptions::log_max_document_length) characters (default 1000).
    /// Where neither listens, monitoring costs nothing. Resumes are told at level `INFO` by `changestream::stream`.
    ///
    /// ```no_run
    /// # fn example<M: changestream_driver::Mode + Default>() -> Result<(), changestream_driver::Error> {
    /// use changestream_driver::Client;
    /// use changestream_driver::monitoring::{CommandStage, EventKind};
    ///
    /// let client = Client::<M>::new("mongodb://localhost/?replicaSet=rs0")?.monitor(|event| {
    ///     if let EventKind::Command(command) = &event.kind
    ///         && let CommandStage::Failed { failure, .. } = &command.stage
    ///     {
    ///         eprintln!("{} at {}: {failure}", command.command_name, command.server);
    ///     }
    /// });
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "the client that is told of is the one returned"]
    pub fn monitor(mut self, handler: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.monitor = self.monitor.and(handler);
        self.commands = Arc::new(Pool::new());
        self
    }

    /// Adds a library that wraps this one to what servers are told of the client: its name, version and platform, after those
    /// that are told already. Connections that are made from now on tell it, of streams that are open too; those that stand
    /// are left as they are. What was added before is not added again.
    ///
    /// ```no_run
    /// # fn example<M: changestream_driver::Mode + Default>() -> Result<(), changestream_driver::Error> {
    /// use changestream_driver::{Client, DriverInfo};
    ///
    /// let client = Client::<M>::new("mongodb://localhost/?replicaSet=rs0")?;
    /// client.append_metadata(&DriverInfo::new("my-framework").version("2.0"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A text contains `|`, which separates the names.
    pub fn append_metadata(&self, info: &DriverInfo) -> Result<(), Error> {
        self.inner.settings.append_metadata(info)
    }

    /// Watches the whole deployment, but for its internal databases (server 4.0 and later).
    pub fn watch(&self) -> Watch<M> {
        Watch::new(self.clone(), Scope::Cluster, None)
    }

    /// A database of that name.
    pub fn database(&self, name: impl Into<String>) -> Database<M> {
        Database {
            client: self.clone(),
            name: name.into(),
            timeout: None,
        }
    }

    /// The database that the connection string names, if it names one.
    pub fn default_database(&self) -> Option<Database<M>> {
        let name = self.inner.settings.options().default_database.as_deref()?;
        Some(self.database(name))
    }

    /// A collection of that name in the database of that name.
    pub fn collection(&self, database: impl Into<String>, name: impl Into<String>) -> Collection<M> {
        self.database(database).collection(name)
    }

    /// A session, for several streams and commands to run in. Nothing is sent: the server learns of it with the first
    /// command. It is causally consistent ([`Session::causally_consistent`]).
    ///
    /// # Errors
    /// The operating system has no randomness.
    pub fn start_session(&self) -> Result<Session, Error> {
        Ok(Session::new(&mut Random::new(random_seed()?)))
    }

    /// The options in use.
    pub fn options(&self) -> &ClientOptions {
        self.inner.settings.options()
    }

    /// What is odd about the connection string, or dangerous: options that give up what TLS is for. Each was logged when
    /// the client was made.
    pub fn warnings(&self) -> &[Warning] {
        &self.inner.warnings
    }

    /// Makes a stream, without I/O.
    pub(crate) fn stream(
        &self,
        scope: Scope,
        watch: WatchOptions,
        seed: Option<[u8; 32]>,
    ) -> Result<M::Stream, Error> {
        let inner = &*self.inner;
        let seed = seed.map_or_else(random_seed, Ok)?;
        let runtime = self.runtime()?;
        let snapshot = self.snapshot();
        let mut machine = ClientMachine::new(
            self.settings(),
            Some(snapshot),
            &scope,
            watch,
            seed,
            crate::Runtime::now(&runtime),
        )?;
        machine.set_event_source(SOURCES.fetch_add(1, Ordering::Relaxed));
        let stream = ChangeStream::new(
            runtime,
            machine,
            inner.security.clone(),
            inner.servers.clone(),
            inner.providers.clone(),
            self.monitor.clone(),
            inner.knowledge.clone(),
        );
        Ok(M::stream(stream))
    }

    /// Makes what runs a command, without I/O.
    fn run(&self, database: &str, command: &Document, options: CommandOptions) -> Running<M::Runtime> {
        let command = match RunCommand::new(database, command, options) {
            Ok(command) => command,
            Err(error) => return Running::refused(error),
        };
        let idle = self.commands.take();
        match idle.map_or_else(|| self.commands_driver(), Ok) {
            Ok(driver) => Running::new(
                command,
                driver,
                self.commands.clone(),
                self.inner.knowledge.clone(),
            ),
            Err(error) => Running::refused(error),
        }
    }

    fn commands_driver(&self) -> Result<Driver<M::Runtime>, Error> {
        let runtime = self.runtime()?;
        let (snapshot, now) = (self.snapshot(), crate::Runtime::now(&runtime));
        let mut machine = ClientMachine::for_commands(self.settings(), Some(snapshot), random_seed()?, now)?;
        machine.set_event_source(SOURCES.fetch_add(1, Ordering::Relaxed));
        let (security, monitor) = (self.inner.security.clone(), self.monitor.clone());
        let (servers, providers) = (self.inner.servers.clone(), self.inner.providers.clone());
        Ok(Driver::new(
            runtime, machine, security, servers, providers, monitor,
        ))
    }

    fn runtime(&self) -> Result<M::Runtime, Error> {
        let runtime = self.inner.mode.runtime();
        runtime.map_err(|error| Error::system(format!("no runtime for sockets and timers: {error}")))
    }

    /// What is known of the deployment.
    fn snapshot(&self) -> Snapshot {
        let knowledge = self.inner.knowledge.lock();
        knowledge.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The settings of a machine: with monitoring, if anybody listens.
    fn settings(&self) -> Arc<ClientSettings> {
        let settings = &self.inner.settings;
        if !self.monitor.is_wanted() {
            return settings.clone();
        }
        Arc::new(ClientSettings::clone(settings).with_monitoring())
    }
}

struct Inner<M> {
    mode: M,
    settings: Arc<ClientSettings>,
    security: Security,
    servers: DnsServers,
    providers: Providers,
    warnings: Vec<Warning>,
    knowledge: Knowledge,
}

/// The number of the next machine of the process, by which its events are told from those of others.
static SOURCES: AtomicU64 = AtomicU64::new(1);

impl<M: Mode> Inner<M> {
    fn new(mode: M, settings: ClientSettings, given: Given) -> Result<Self, Error> {
        crate::dns::check(settings.options())?;
        let providers = Providers::new(settings.options(), given)?;
        let security = Security::new(settings.options())?;
        let mut warnings = security.warnings(settings.options());
        warnings.extend(settings.options().dangers());
        for warning in &warnings {
            tracing::warn!("connection string: {warning}");
        }
        Ok(Self {
            mode,
            security,
            servers: DnsServers::default(),
            providers,
            settings: Arc::new(settings),
            warnings,
            knowledge: Knowledge::default(),
        })
    }
}

impl<M: Mode> From<Inner<M>> for Client<M> {
    fn from(inner: Inner<M>) -> Self {
        let longest = inner.settings.options().log_max_document_length;
        Self {
            inner: Arc::new(inner),
            monitor: Monitor::new(longest),
            commands: Arc::new(Pool::new()),
        }
    }
}

impl<M: Mode> Clone for Client<M> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            monitor: self.monitor.clone(),
            commands: self.commands.clone(),
        }
    }
}

impl<M: Mode> fmt::Debug for Client<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("options", self.inner.settings.options())
            .finish_non_exhaustive()
    }
}

/// A database, to open change streams on. See [`Client::database`].
pub struct Database<M: Mode> {
    client: Client<M>,
    name: String,
    timeout: Option<Duration>,
}

impl<M: Mode> Database<M> {
    /// Watches all collections of the database (server 4.0 and later).
    pub fn watch(&self) -> Watch<M> {
        let scope = Scope::Database {
            database: self.name.clone(),
        };
        Watch::new(self.client.clone(), scope, self.timeout)
    }

    /// The same database with another `timeoutMS` for its commands, its streams and those of its collections, see
    /// [`Watch::timeout`]. Zero is no limit.
    #[must_use]
    pub fn with_timeout(mut self, time: Duration) -> Self {
        self.timeout = Some(time);
        self
    }

    /// Runs a command on the database, such as `ping`, or `create` with `changeStreamPreAndPostImages`, and gives its
    /// reply. Awaited; a result in blocking use.
    ///
    /// It is sent as it is, to the primary, in an implicit session, and never sent again but to an overloaded server: see
    /// [`run_command_with`](Self::run_command_with) for what else there is. Connections are kept for the next command, of
    /// this and any other database of the client's. A `getMore` or `killCursors` goes to the server of its cursor, as long as
    /// one command runs at a time: of several at once each has a connection of its own, and sees only its own cursors.
    ///
    /// It takes as long as it takes, unless there is a `timeoutMS` (of the client, of the database, or in the options), or
    /// a `socketTimeoutMS`. With `timeoutMS` the server is told what is left of the time, as the command's `maxTimeMS`: do
    /// not write one into the command then, it would be there twice, and the server would refuse it.
    ///
    /// ```no_run
    /// # async fn example<R: changestream_driver::Runtime + Clone + Default>() -> Result<(), changestream_driver::Error> {
    /// use changestream_driver::bson::doc;
    /// use changestream_driver::Client;
    ///
    /// let client = Client::<R>::new("mongodb://localhost/?replicaSet=rs0")?;
    /// let images = doc! { "create": "orders", "changeStreamPreAndPostImages": { "enabled": true } };
    /// client.database("shop").run_command(images).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The server refused, the network failed (whether the command ran is not known then), no server was found, the command
    /// says what is for the client to say (`$db`), or its time was over
    /// ([`is_timeout`](Error::is_timeout); whether the command ran is not known then either).
    pub fn run_command(&self, command: Document) -> M::Running {
        self.run_command_with(command, CommandOptions::default())
    }

    /// As [`run_command`](Self::run_command): on a server that the options choose, in the session that they name.
    ///
    /// # Errors
    /// As [`run_command`](Self::run_command); and where the command says what the options say too.
    pub fn run_command_with(&self, command: Document, options: CommandOptions) -> M::Running {
        let mut options = options;
        options.timeout = options.timeout.or(self.timeout);
        M::run(self.client.run(&self.name, &command, options))
    }

    /// A collection of that name.
    pub fn collection(&self, name: impl Into<String>) -> Collection<M> {
        Collection {
            database: self.clone(),
            name: name.into(),
        }
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<M: Mode> Clone for Database<M> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            name: self.name.clone(),
            timeout: self.timeout,
        }
    }
}

impl<M: Mode> fmt::Debug for Database<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.name).finish()
    }
}

/// A collection, to open change streams on. See [`Client::collection`].
pub struct Collection<M: Mode> {
    database: Database<M>,
    name: String,
}

impl<M: Mode> Collection<M> {
    /// Watches the collection. It need not exist yet.
    pub fn watch(&self) -> Watch<M> {
        let scope = Scope::Collection {
            database: self.database.name.clone(),
            collection: self.name.clone(),
        };
        Watch::new(self.database.client.clone(), scope, self.database.timeout)
    }

    /// The same collection with another `timeoutMS` for its streams, see [`Watch::timeout`]. Zero is no limit.
    #[must_use]
    pub fn with_timeout(mut self, time: Duration) -> Self {
        self.database.timeout = Some(time);
        self
    }

    /// The collection's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<M: Mode> Clone for Collection<M> {
    fn clone(&self) -> Self {
        Self {
            database: self.database.clone(),
            name: self.name.clone(),
        }
    }
}

impl<M: Mode> fmt::Debug for Collection<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Collection")
            .field(&self.database.name)
            .field(&self.name)
            .finish()
    }
}

/// What servers are told of this client: its executor, and the environment that it runs in.
fn metadata(platform: &str) -> ClientMetadata {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let in_docker = std::path::Path::new("/.dockerenv").exists();
    ClientMetadata::new()
        .with_platform(platform)
        .with_environment(Environment::detect(&variables, in_docker))
}

fn random_seed() -> Result<[u8; 32], Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Error::system(format!("the operating system gives no randomness: {error}")))?;
    Ok(seed)
}
