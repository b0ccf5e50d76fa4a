//! What all streams of one client have in common.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Credential, Mechanism};
use crate::connection::{ClientMetadata, ConnectionSettings, DriverInfo, PART_SIZE};
use crate::dns::DnsFault;
use crate::topology::{Topology, TopologySettings};
use crate::uri::{self, AuthMechanism, ClientOptions};
use crate::{Error, ServerAddress};

/// What all streams of one client have in common: checked options, and what a handshake says.
///
/// Streams of the same settings share the keys that SCRAM derives from the password, so that only the first one pays
/// for the derivation.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    pub(super) options: ClientOptions,
    pub(super) connection: Arc<ConnectionSettings>,
    pub(super) topology: Arc<TopologySettings>,
}

impl ClientSettings {
    /// Checks the options against each other.
    ///
    /// `metadata` is what every handshake tells the server of this program.
    ///
    /// # Errors
    /// Options contradict each other, or ask for what is not built in.
    pub fn new(mut options: ClientOptions, metadata: ClientMetadata) -> Result<Self, Error> {
        if options.srv_host.is_some() {
            options.hosts.clear();
        }
        options.validate()?;
        let credential = options.credential.as_ref().map(credential).transpose()?;
        let connection = ConnectionSettings {
            app_name: options.app_name.clone(),
            credential,
            load_balanced: options.load_balanced,
            tls: options.tls_enabled(),
            connect_timeout: options.connect_timeout.unwrap_or(Duration::ZERO),
            metadata: metadata.into(),
            server_api: options.server_api.clone(),
            compressors: options.compressors.clone(),
            zlib_level: options.zlib_compression_level,
            part_size: PART_SIZE,
        };
        let topology = Arc::new(topology(&options));
        // The settings are the same for each stream: what is wrong with them is said once, here.
        if options.srv_host.is_none() {
            Topology::new(Arc::clone(&topology))
                .map_err(|error| Error::invalid_argument(error.to_string()))?;
        }
        Ok(Self {
            options,
            connection: Arc::new(connection),
            topology,
        })
    }

    /// The settings with the servers, and the defaults of a TXT record, that DNS gives.
    pub(super) fn resolved(
        &self,
        hosts: Vec<ServerAddress>,
        defaults: Option<&str>,
    ) -> Result<Self, DnsFault> {
        let contradiction = |message: String| DnsFault::Contradiction { message };
        let mut resolved = self.clone();
        let options = &mut resolved.options;
        options.hosts = hosts;
        if let Some(defaults) = defaults {
            options
                .add_defaults(defaults)
                .map_err(|error| DnsFault::TxtOptions {
                    message: error.to_string(),
                })?;
        }
        options
            .validate()
            .map_err(|error| contradiction(error.to_string()))?;
        let mut connection = ConnectionSettings::clone(&self.connection);
        connection.load_balanced = options.load_balanced;
        connection.credential = options
            .credential
            .as_ref()
            .map(credential)
            .transpose()
            .map_err(|error| contradiction(error.to_string()))?;
        resolved.connection = Arc::new(connection);
        let topology = Arc::make_mut(&mut resolved.topology);
        topology.seeds.clone_from(&options.hosts);
        topology.replica_set.clone_from(&options.replica_set);
        topology.load_balanced = options.load_balanced;
        Ok(resolved)
    }

    /// The same settings, with [events](crate::monitoring) of all that happens. Default: none, and no cost.
    #[must_use]
    pub fn with_monitoring(mut self) -> Self {
        Arc::make_mut(&mut self.topology).record_events = true;
        self
    }

    /// How much of a large reply is held at once, in bytes, if its events can be handed over while the rest is on its way;
    /// [`PART_SIZE`] by default. An event that is larger is held whole.
    ///
    /// Replies that are compressed, and those to calls with `timeoutMS`, come whole whatever this says; so do all where
    /// [events](crate::monitoring) are recorded, which tell of whole replies.
    #[must_use]
    pub fn with_part_size(mut self, bytes: usize) -> Self {
        Arc::make_mut(&mut self.connection).part_size = bytes;
        self
    }

    /// Adds a library that wraps this one to what servers are told, of all streams and commands of these settings: in the
    /// handshakes to come. Connections that stand are left as they are.
    ///
    /// # Errors
    /// A text contains `|`, which separates the names of wrapping libraries.
    pub fn append_metadata(&self, info: &DriverInfo) -> Result<(), Error> {
        self.connection.metadata.append(info)
    }

    /// The options.
    pub fn options(&self) -> &ClientOptions {
        &self.options
    }
}

fn topology(options: &ClientOptions) -> TopologySettings {
    let mut settings = TopologySettings::new(options.hosts.iter().cloned());
    settings.replica_set.clone_from(&options.replica_set);
    settings.direct_connection = options.direct_connection.unwrap_or(false);
    settings.load_balanced = options.load_balanced;
    settings.heartbeat_frequency = options.heartbeat_frequency();
    settings.local_threshold = options.local_threshold;
    settings
}

fn credential(given: &uri::Credential) -> Result<Credential, Error> {
    let mechanism = given.mechanism.map(mechanism).transpose()?;
    let needs_password = match mechanism {
        None | Some(Mechanism::ScramSha1 | Mechanism::ScramSha256 | Mechanism::Plain) => true,
        Some(Mechanism::MongodbX509 | Mechanism::MongodbAws | Mechanism::MongodbOidc) => false,
        Some(Mechanism::Gssapi) => {
            return Err(Error::invalid_argument(
                "GSSAPI (Kerberos) is not supported: use SCRAM-SHA-256, MONGODB-X509, PLAIN, MONGODB-AWS or MONGODB-OIDC",
            ));
        }
    };
    if needs_password && (given.username.is_none() || given.password.is_none()) {
        return Err(Error::invalid_argument(
            "authentication needs a user name and a password: mongodb://user:password@host",
        ));
    }
    let username = given.username.as_deref().unwrap_or_default();
    let password = given.password.clone().unwrap_or_default();
    let mut credential = Credential::new(username, password, &given.source, mechanism);
    if let Some(token) = given.mechanism_properties.get("AWS_SESSION_TOKEN") {
        credential = credential.with_session_token(token);
    }
    if let Some(flow) = given.oidc_callback {
        credential = credential.with_oidc_flow(flow);
    }
    if let Some(hosts) = &given.allowed_hosts {
        credential = credential.with_allowed_hosts(hosts);
    }
    Ok(credential)
}

fn mechanism(mechanism: AuthMechanism) -> Result<Mechanism, Error> {
    Ok(match mechanism {
        AuthMechanism::ScramSha1 => Mechanism::ScramSha1,
        AuthMechanism::ScramSha256 => Mechanism::ScramSha256,
        AuthMechanism::MongoDbX509 => Mechanism::MongodbX509,
        AuthMechanism::Plain => Mechanism::Plain,
        AuthMechanism::MongoDbAws => Mechanism::MongodbAws,
        AuthMechanism::MongoDbOidc => Mechanism::MongodbOidc,
        AuthMechanism::Gssapi => Mechanism::Gssapi,
        AuthMechanism::MongoDbCr => {
            return Err(Error::invalid_argument(
                "MONGODB-CR is gone from servers since 4.0: use SCRAM-SHA-256 or SCRAM-SHA-1",
            ));
        }
    })
}
