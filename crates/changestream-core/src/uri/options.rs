//! Everything that a client can be told, by a connection string or by code.

use std::time::Duration;

use super::credential::{AuthMechanism, Credential};
use super::error::Warning;
use super::secret::Secret;
use crate::address::ServerAddress;
use crate::read_preference::{ReadConcern, ReadPreference};
use crate::server_api::ServerApi;
use crate::wire::Compressor;

/// How a client reaches a deployment, and how it behaves there (URI Options specification).
///
/// [`ConnectionString`](super::ConnectionString) makes one from text. By code, start from the defaults and change
/// what differs; [`validate`](Self::validate) says whether the whole makes sense.
///
/// ```
/// use changestream_core::{ClientOptions, Credential, ServerAddress};
///
/// let mut options = ClientOptions::default();
/// options.hosts = vec![ServerAddress::tcp("db1.example.com", 27017)];
/// options.replica_set = Some("rs0".into());
/// options.credential = Some(Credential::new("alice", "secret"));
/// options.validate()?;
/// # Ok::<(), changestream_core::uri::UriError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The seed list, as given. Default: `localhost:27017`. Not used with [`srv_host`](Self::srv_host).
    pub hosts: Vec<ServerAddress>,
    /// `mongodb+srv://`: the host whose SRV records list the servers, and whose TXT record may set `authSource`,
    /// `replicaSet` and `loadBalanced` where nothing else does. Default: none.
    pub srv_host: Option<String>,
    /// The database that the connection string names; a period in it is kept.
    pub default_database: Option<String>,
    /// `appName`: named in the server's logs. At most 128 bytes.
    pub app_name: Option<String>,
    /// User name, password and how they are proved. Default: no authentication.
    pub credential: Option<Credential>,
    /// `replicaSet`: the set that the members must belong to.
    pub replica_set: Option<String>,
    /// `directConnection`: `true` talks to the one host alone, whatever it is; `false` and `None` discover the
    /// deployment behind it.
    pub direct_connection: Option<bool>,
    /// `loadBalanced`: the host is a load balancer in front of mongos. Default: false.
    pub load_balanced: bool,
    /// `connectTimeoutMS`: limit of making a connection and its handshake. `None` (0 in the string) is no limit.
    /// Default: 10 seconds.
    pub connect_timeout: Option<Duration>,
    /// `socketTimeoutMS`, deprecated: limit of one send or receive. `None` (0 in the string) is no limit, the default.
    pub socket_timeout: Option<Duration>,
    /// `timeoutMS`: limit of a whole operation. `None` is not set, zero is no limit.
    pub timeout: Option<Duration>,
    /// `serverSelectionTimeoutMS`: how long a suitable server is sought. Zero looks once. Default: 30 seconds.
    pub server_selection_timeout: Duration,
    /// `serverSelectionTryOnce`: whether selection gives up after one scan instead of after the timeout. `None` leaves
    /// it to the client.
    pub server_selection_try_once: Option<bool>,
    /// `localThresholdMS`: how much slower than the nearest server a server may answer and still be selected.
    /// Default: 15 milliseconds.
    pub local_threshold: Duration,
    /// `heartbeatFrequencyMS`: the age at which what is known of a server must be looked at again; at least 500
    /// milliseconds. `None` is 60 seconds, the default of single-threaded monitoring:
    /// see [`heartbeat_frequency`](Self::heartbeat_frequency).
    pub heartbeat_frequency: Option<Duration>,
    /// `serverMonitoringMode`. Kept as data: this client monitors nothing in the background.
    pub server_monitoring_mode: Option<ServerMonitoringMode>,
    /// `readPreference`, `readPreferenceTags`, `maxStalenessSeconds`. Default: primary.
    ///
    /// A maximum staleness under 90 seconds, or under the heartbeat frequency and 10 seconds, is refused when a member
    /// of a replica set is selected, as the Server Selection specification says, since other deployments allow it.
    pub read_preference: ReadPreference,
    /// `readConcernLevel`.
    pub read_concern: Option<ReadConcern>,
    /// `w`, `wTimeoutMS`, `journal`. Kept as data: a change stream writes nothing.
    pub write_concern: WriteConcern,
    /// `retryReads`: whether a failed read is tried once more. Default: true.
    pub retry_reads: bool,
    /// `retryWrites`. Kept as data. Default: true.
    pub retry_writes: bool,
    /// `maxAdaptiveRetries`: how often a request that an overloaded server refused is tried again. `None` is the
    /// default of the Client Backpressure specification.
    pub max_adaptive_retries: Option<u32>,
    /// `enableOverloadRetargeting`: whether such a retry seeks another server. `None` is the specification's default.
    pub enable_overload_retargeting: Option<bool>,
    /// The version of the server's API to keep to. By code only: a connection string cannot say it. Default: none.
    pub server_api: Option<ServerApi>,
    /// `compressors`, in order of preference. Default: none. One that is not [built in](Compressor::is_built_in) is not
    /// offered to servers.
    pub compressors: Vec<Compressor>,
    /// `zlibCompressionLevel`, -1 to 9. `None` and -1 are zlib's default, 0 is none, 9 the densest.
    pub zlib_compression_level: Option<i32>,
    /// `tls` or `ssl`. See [`tls_enabled`](Self::tls_enabled).
    pub tls: Option<bool>,
    /// All `tls*` options.
    pub tls_options: TlsOptions,
    /// Connection pool options. Kept as data: a stream has a connection of its own.
    pub pool: PoolOptions,
    /// SOCKS5 proxy.
    pub proxy: ProxyOptions,
    /// `srvMaxHosts`: how many of the servers in DNS are used, chosen at random; 0 and `None` are all. Only with
    /// `mongodb+srv://`.
    pub srv_max_hosts: Option<u32>,
    /// `srvAllowedHostsSuffix`: the domain that the servers named by SRV records have to be below, in the place of the
    /// domain of the connection string's host. It has two parts at least: a top-level domain is anybody's. `None`: the
    /// host's own domain. Only with `mongodb+srv://`.
    pub srv_allowed_hosts_suffix: Option<String>,
    /// `srvServiceName`: the service whose SRV records are looked up. `None` is `mongodb`. Only with `mongodb+srv://`.
    pub srv_service_name: Option<String>,
    /// How many characters of a document are logged before it is cut. Not for connection strings. Default: what the
    /// environment variable `MONGODB_LOG_MAX_DOCUMENT_LENGTH` says, a number or `unlimited`, and 1000 without it (Logging
    /// specification, "Configurable Max Document Length").
    pub log_max_document_length: Option<usize>,
    /// What a connection string has stated though it is also the default: DNS does not change it.
    pub(super) stated: Stated,
}

/// Options that DNS may set, and whether the connection string has set them, to their default maybe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stated {
    pub(super) auth_source: bool,
    pub(super) load_balanced: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            hosts: vec![ServerAddress::tcp("localhost", ServerAddress::DEFAULT_PORT)],
            srv_host: None,
            default_database: None,
            app_name: None,
            credential: None,
            replica_set: None,
            direct_connection: None,
            load_balanced: false,
            connect_timeout: Some(DEFAULT_CONNECT_TIMEOUT),
            socket_timeout: None,
            timeout: None,
            server_selection_timeout: DEFAULT_SERVER_SELECTION_TIMEOUT,
            server_selection_try_once: None,
            local_threshold: DEFAULT_LOCAL_THRESHOLD,
            heartbeat_frequency: None,
            server_monitoring_mode: None,
            read_preference: ReadPreference::default(),
            read_concern: None,
            write_concern: WriteConcern::default(),
            retry_reads: true,
            retry_writes: true,
            max_adaptive_retries: None,
            enable_overload_retargeting: None,
            server_api: None,
            compressors: Vec::new(),
            zlib_compression_level: None,
            tls: None,
            tls_options: TlsOptions::default(),
            pool: PoolOptions::default(),
            proxy: ProxyOptions::default(),
            srv_max_hosts: None,
            srv_allowed_hosts_suffix: None,
            srv_service_name: None,
            log_max_document_length: None,
            stated: Stated::default(),
        }
    }
}

impl ClientOptions {
    /// The least `heartbeatFrequencyMS` (SDAM specification, "heartbeatFrequencyMS").
    pub const MIN_HEARTBEAT_FREQUENCY: Duration = Duration::from_millis(500);

    /// The longest `appName` in bytes (MongoDB Handshake specification).
    pub const MAX_APP_NAME_BYTES: usize = 128;

    /// Whether connections use TLS: what [`tls`](Self::tls) says; where it says nothing, whether the servers are found
    /// by DNS (`mongodb+srv://`), or any of [`tls_options`](Self::tls_options) is set, so that who names a certificate
    /// never talks in the clear.
    pub fn tls_enabled(&self) -> bool {
        self.tls
            .unwrap_or_else(|| self.srv_host.is_some() || self.tls_options != TlsOptions::default())
    }

    /// What is dangerous about them: a password or a token that goes to another machine in the clear.
    pub fn dangers(&self) -> Vec<Warning> {
        let mechanism = self
            .credential
            .as_ref()
            .and_then(|credential| credential.mechanism);
        let tells_secret = matches!(mechanism, Some(AuthMechanism::Plain | AuthMechanism::MongoDbOidc));
        if !tells_secret || self.tls_enabled() || self.hosts.iter().all(is_here) {
            return Vec::new();
        }
        let text = "sends a secret as it is, and without tls=true everybody on the way can read it";
        vec![Warning::new("authMechanism", text)]
    }

    /// The heartbeat frequency in force.
    pub fn heartbeat_frequency(&self) -> Duration {
        self.heartbeat_frequency.unwrap_or(DEFAULT_HEARTBEAT_FREQUENCY)
    }
}

/// Options of TLS. That one is `None` and that it is `Some(false)` differ for the check of contradictions alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsOptions {
    /// `tlsCAFile`: a PEM file of the authorities to trust, instead of the platform's.
    pub ca_file: Option<String>,
    /// `tlsCertificateKeyFile`: a PEM file of the client's certificate and private key.
    pub certificate_key_file: Option<String>,
    /// `tlsCertificateKeyFilePassword`: decrypts that private key.
    pub certificate_key_file_password: Option<Secret>,
    /// `tlsAllowInvalidCertificates`: accept any certificate. Dangerous.
    pub allow_invalid_certificates: Option<bool>,
    /// `tlsAllowInvalidHostnames`: accept a certificate of another host. Dangerous.
    pub allow_invalid_hostnames: Option<bool>,
    /// `tlsInsecure`: both of these. Dangerous.
    pub insecure: Option<bool>,
    /// `tlsDisableOCSPEndpointCheck`.
    pub disable_ocsp_endpoint_check: Option<bool>,
    /// `tlsDisableCertificateRevocationCheck`.
    pub disable_certificate_revocation_check: Option<bool>,
}

impl TlsOptions {
    /// Whether certificates are not to be verified.
    pub fn accepts_invalid_certificates(&self) -> bool {
        self.insecure == Some(true) || self.allow_invalid_certificates == Some(true)
    }

    /// Whether host names in certificates are not to be verified.
    pub fn accepts_invalid_hostnames(&self) -> bool {
        self.accepts_invalid_certificates() || self.allow_invalid_hostnames == Some(true)
    }
}

/// Options of a connection pool (Connection Monitoring and Pooling specification).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolOptions {
    /// `maxPoolSize`; zero is no limit.
    pub max_size: Option<u32>,
    /// `minPoolSize`.
    pub min_size: Option<u32>,
    /// `maxIdleTimeMS`; zero is no limit.
    pub max_idle_time: Option<Duration>,
    /// `waitQueueTimeoutMS`, deprecated.
    pub wait_queue_timeout: Option<Duration>,
    /// `maxConnecting`, at least one.
    pub max_connecting: Option<u32>,
}

/// A SOCKS5 proxy (SOCKS5 Support specification).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyOptions {
    /// `proxyHost`: a host name or an IP address.
    pub host: Option<String>,
    /// `proxyPort`; `None` is 1080.
    pub port: Option<u16>,
    /// `proxyUsername`.
    pub username: Option<String>,
    /// `proxyPassword`.
    pub password: Option<Secret>,
}

/// A write concern (Read and Write Concern specification).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteConcern {
    /// `w`: whose acknowledgment is awaited.
    pub w: Option<Acknowledgment>,
    /// `wTimeoutMS`, deprecated: how long. Zero is no limit.
    pub w_timeout: Option<Duration>,
    /// `journal`: whether the journal must hold the write.
    pub journal: Option<bool>,
}

/// `w`: whose acknowledgment of a write is awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acknowledgment {
    /// That of so many members; zero awaits none.
    Nodes(u32),
    /// That of `majority`, or of the members that a tag of the replica set's configuration names.
    Named(String),
}

/// `serverMonitoringMode`: which protocol watches servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ServerMonitoringMode {
    /// `auto`.
    Auto,
    /// `poll`.
    Poll,
    /// `stream`.
    Stream,
}

impl ServerMonitoringMode {
    /// The name in connection strings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Poll => "poll",
            Self::Stream => "stream",
        }
    }

    /// The mode of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Auto, Self::Poll, Self::Stream]
            .into_iter()
            .find(|mode| mode.as_str() == name)
    }
}

/// URI Options specification, "connectTimeoutMS".
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Server Selection specification, "serverSelectionTimeoutMS".
const DEFAULT_SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Server Selection specification, "localThresholdMS".
const DEFAULT_LOCAL_THRESHOLD: Duration = Duration::from_millis(15);
/// SDAM specification, "heartbeatFrequencyMS", for single-threaded clients.
const DEFAULT_HEARTBEAT_FREQUENCY: Duration = Duration::from_secs(60);

/// Whether what is sent there does not leave the machine.
fn is_here(address: &ServerAddress) -> bool {
    let host = address.host().trim_matches(['[', ']']);
    let is_loopback = |ip: std::net::IpAddr| ip.is_loopback();
    address.port().is_none() || host == "localhost" || host.parse().is_ok_and(is_loopback)
}
