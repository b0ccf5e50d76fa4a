//! Where streams come from: a client, its databases and collections.

use std::fmt;
use std::sync::{Arc, PoisonError};

use changestream_core::client::{ClientMachine, ClientSettings};
use changestream_core::connection::{ClientMetadata, Environment};
use changestream_core::random::Random;
use changestream_core::uri::{ClientOptions, Warning};
use changestream_core::{Error, Scope, Session, WatchOptions};

use crate::credentials::{ClientBuilder, Given, Providers};
use crate::security::Security;
use crate::stream::Knowledge;
use crate::{ChangeStream, Mode, Watch};

/// A MongoDB deployment, to open change streams on.
///
/// Making one talks to nobody, and it holds no connection: each stream has its own. The certificates of TLS are read from
/// their files then, and never again: for new ones, make a new client. What one stream learns of the
/// deployment, the next one starts with. Cloning it is cheap and gives the same client.
pub struct Client<M> {
    inner: Arc<Inner<M>>,
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

    /// Watches the whole deployment, but for its internal databases (server 4.0 and later).
    pub fn watch(&self) -> Watch<M> {
        Watch::new(self.clone(), Scope::Cluster)
    }

    /// A database of that name.
    pub fn database(&self, name: impl Into<String>) -> Database<M> {
        Database {
            client: self.clone(),
            name: name.into(),
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

    /// A session, for several streams to run in. Nothing is sent: the server learns of it with the first command.
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
        let runtime = inner
            .mode
            .runtime()
            .map_err(|error| Error::system(format!("no runtime for the stream: {error}")))?;
        let snapshot = inner
            .knowledge
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let machine = ClientMachine::new(
            inner.settings.clone(),
            Some(snapshot),
            &scope,
            watch,
            seed,
            crate::Runtime::now(&runtime),
        )?;
        let stream = ChangeStream::new(
            runtime,
            machine,
            inner.security.clone(),
            inner.providers.clone(),
            inner.knowledge.clone(),
        );
        Ok(M::stream(stream))
    }
}

struct Inner<M> {
    mode: M,
    settings: Arc<ClientSettings>,
    security: Security,
    providers: Providers,
    warnings: Vec<Warning>,
    knowledge: Knowledge,
}

impl<M: Mode> Inner<M> {
    fn new(mode: M, settings: ClientSettings, given: Given) -> Result<Self, Error> {
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
            providers,
            settings: Arc::new(settings),
            warnings,
            knowledge: Knowledge::default(),
        })
    }
}

impl<M> From<Inner<M>> for Client<M> {
    fn from(inner: Inner<M>) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }
}

impl<M> Clone for Client<M> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<M> fmt::Debug for Client<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("options", self.inner.settings.options())
            .finish_non_exhaustive()
    }
}

/// A database, to open change streams on. See [`Client::database`].
pub struct Database<M> {
    client: Client<M>,
    name: String,
}

impl<M: Mode> Database<M> {
    /// Watches all collections of the database (server 4.0 and later).
    pub fn watch(&self) -> Watch<M> {
        let scope = Scope::Database {
            database: self.name.clone(),
        };
        Watch::new(self.client.clone(), scope)
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

impl<M> Clone for Database<M> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            name: self.name.clone(),
        }
    }
}

impl<M> fmt::Debug for Database<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.name).finish()
    }
}

/// A collection, to open change streams on. See [`Client::collection`].
pub struct Collection<M> {
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
        Watch::new(self.database.client.clone(), scope)
    }

    /// The collection's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<M> Clone for Collection<M> {
    fn clone(&self) -> Self {
        Self {
            database: self.database.clone(),
            name: self.name.clone(),
        }
    }
}

impl<M> fmt::Debug for Collection<M> {
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
