//! What a deployment is built from.

use std::time::{Duration, Instant};

use changestream_core::random::Random;
use changestream_core::wire::Compressor;

use super::{BuildError, Deployment};
use crate::auth::{Credentials, External};
use crate::profile::Profile;

/// Describes a deployment; [`build`](Self::build) makes the pure machine, `start` a running one on the loopback.
#[derive(Clone, Debug)]
#[must_use]
pub struct Config {
    pub(crate) set_name: Option<String>,
    pub(crate) members: usize,
    /// How many shards there are; the members are then mongos.
    pub(crate) shards: Option<usize>,
    pub(crate) shard_members: usize,
    /// Whether the mongos are behind a load balancer.
    pub(crate) load_balanced: bool,
    pub(crate) addresses: Vec<String>,
    pub(crate) version: String,
    pub(crate) users: Vec<(String, String, Vec<Mechanism>)>,
    pub(crate) external: External,
    pub(crate) epoch_millis: i64,
    pub(crate) seed: Option<[u8; 32]>,
    pub(crate) election_timeout: Duration,
    pub(crate) handoff: Duration,
    pub(crate) noop_interval: Duration,
    pub(crate) oplog_entries: usize,
    pub(crate) largest_event: usize,
    pub(crate) compressors: Vec<Compressor>,
    pub(crate) accepts_api_version_2: bool,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::Tls>,
}

/// A way to prove a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mechanism {
    /// SCRAM-SHA-1.
    ScramSha1,
    /// SCRAM-SHA-256.
    ScramSha256,
}

impl Config {
    pub(super) fn new(set_name: Option<&str>, members: usize) -> Self {
        Self {
            set_name: set_name.map(str::to_owned),
            members,
            shards: None,
            shard_members: 1,
            load_balanced: false,
            addresses: Vec::new(),
            version: "4.4".to_owned(),
            users: Vec::new(),
            external: External::default(),
            epoch_millis: DEFAULT_EPOCH_MILLIS,
            seed: None,
            election_timeout: Duration::from_secs(10),
            handoff: Duration::from_millis(200),
            noop_interval: Duration::from_secs(10),
            oplog_entries: 1_000_000,
            largest_event: 16 << 20,
            compressors: DEFAULT_COMPRESSORS
                .into_iter()
                .filter(|compressor| compressor.is_built_in())
                .collect(),
            accepts_api_version_2: false,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// The server version to behave as: 4.0, 4.2, 4.4 (the default), 5.0, 6.0, 6.1, 6.2, 6.3, 7.0, 8.0, 8.1 or 8.2, or
    /// one of their patch releases, such as 6.0.8; see [`Profile::for_version`].
    pub fn server_version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// The replica set's name; `rs0` by default. Without effect on a standalone.
    pub fn set_name(mut self, name: impl Into<String>) -> Self {
        if self.set_name.is_some() {
            self.set_name = Some(name.into());
        }
        self
    }

    /// How many members each shard has, 1 by default. Without effect but on a sharded cluster.
    pub fn shard_members(mut self, members: usize) -> Self {
        self.shard_members = members;
        self
    }

    /// Puts the mongos behind a load balancer: each is a service with an id of its own, which it names to clients that say
    /// `loadBalanced: true`, and refuses those that do not. The connection string is that of the balancer: of the first
    /// mongos, for whoever connects spreads connections over all of them himself. Without effect but on a sharded cluster.
    pub fn load_balanced(mut self) -> Self {
        self.load_balanced = true;
        self
    }

    /// Adds a user of the database admin who may prove the password by either mechanism. With any user,
    /// authentication is required.
    pub fn user(self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.user_with(name, password, &[Mechanism::ScramSha1, Mechanism::ScramSha256])
    }

    /// Adds a user who may prove the password by these mechanisms only.
    pub fn user_with(
        mut self,
        name: impl Into<String>,
        password: impl Into<String>,
        mechanisms: &[Mechanism],
    ) -> Self {
        self.users
            .push((name.into(), password.into(), mechanisms.to_vec()));
        self
    }

    /// The members' addresses as clients see them, `host:port`; 127.0.0.1:27017 and the following ports by default.
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.addresses = addresses.into_iter().map(Into::into).collect();
        self
    }

    /// The wall clock at the start, in milliseconds since the Unix epoch.
    pub fn epoch_millis(mut self, millis: i64) -> Self {
        self.epoch_millis = millis;
        self
    }

    /// The seed of every random choice; zeroes by default, drawn by the operating system where `start` is used.
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How long secondaries wait for a lost primary before they elect another, and a primary for its lost majority
    /// before it steps down; 10 seconds by default.
    pub fn election_timeout(mut self, timeout: Duration) -> Self {
        self.election_timeout = timeout;
        self
    }

    /// How long an election takes after a primary stepped down by itself; 200 ms by default.
    pub fn handoff(mut self, duration: Duration) -> Self {
        self.handoff = duration;
        self
    }

    /// How often an idle primary writes a no-op, which moves the resume tokens of idle streams; 10 s by default.
    ///
    /// In a sharded cluster this is how late events can be: a shard without writes holds back the events of all others
    /// until its next no-op. Ten seconds is the server's own default.
    pub fn noop_interval(mut self, interval: Duration) -> Self {
        self.noop_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// How many entries the oplog holds before the oldest are lost, at least two; a million by default.
    pub fn oplog_entries(mut self, entries: usize) -> Self {
        self.oplog_entries = entries.max(2);
        self
    }

    /// The bytes of the largest event that a stream is sent, at least 2,048; 16 MiB by default, as every server has it. What
    /// is larger is an error, or is split (`$changeStreamSplitLargeEvent`): so tests of that do without large documents.
    pub fn largest_event(mut self, bytes: usize) -> Self {
        self.largest_event = bytes.max(2_048);
        self
    }

    /// The compressors that members agree to; by default snappy, zstd and zlib as a server's, each if its feature is on.
    pub fn compressors(mut self, compressors: impl IntoIterator<Item = Compressor>) -> Self {
        self.compressors = compressors.into_iter().collect();
        self
    }

    /// Lets commands declare the version 2 of the API, as the server parameter `acceptApiVersion2` does; off by default. There
    /// is nothing in that version but commands that test it, such as `testVersion2`.
    pub fn accept_api_version_2(mut self) -> Self {
        self.accepts_api_version_2 = true;
        self
    }

    /// TLS, and nothing else, on every port; in the clear by default. It is the listener's: the machine does not know.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: crate::Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The pure machine, at this moment; its primary is elected, its members are to listen.
    ///
    /// # Errors
    /// The version is not modelled, there is no member or more than fifty, the number of addresses is not the number
    /// of members, a password cannot be prepared, or a compressor is not built in.
    pub fn build(self, now: Instant) -> Result<Deployment, BuildError> {
        let profile =
            Profile::for_version(&self.version).ok_or_else(|| BuildError::Version(self.version.clone()))?;
        if !(1..=MAX_MEMBERS).contains(&self.members) {
            return Err(BuildError::Members(self.members));
        }
        if let Some(absent) = self
            .compressors
            .iter()
            .find(|compressor| !compressor.is_built_in())
        {
            return Err(BuildError::Compressor(*absent));
        }
        let addresses = if self.addresses.is_empty() {
            (0..self.members)
                .map(|i| format!("127.0.0.1:{}", 27017 + i))
                .collect()
        } else {
            self.addresses.clone()
        };
        if addresses.len() != self.members {
            return Err(BuildError::Addresses {
                members: self.members,
                addresses: addresses.len(),
            });
        }
        let mut random = Random::new(self.seed.unwrap_or_default());
        let shards = self.build_shards(&mut random, now)?;
        let credentials = self
            .users
            .iter()
            .map(|(name, password, mechanisms)| {
                Credentials::new(name, password, mechanisms, &mut random)
                    .ok_or_else(|| BuildError::Password(name.clone()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Deployment::assemble(
            self,
            profile,
            addresses,
            credentials,
            random,
            shards,
            now,
        ))
    }

    fn build_shards(&self, random: &mut Random, now: Instant) -> Result<Vec<Deployment>, BuildError> {
        let Some(shards) = self.shards else {
            return Ok(Vec::new());
        };
        if !(1..=MAX_MEMBERS).contains(&shards) {
            return Err(BuildError::Shards(shards));
        }
        (0..shards)
            .map(|shard| {
                let mut seed = [0; 32];
                random.fill(&mut seed);
                let addresses = (0..self.shard_members).map(|member| format!("sh{shard}-{member}:27018"));
                Self {
                    set_name: Some(format!("sh{shard}")),
                    members: self.shard_members,
                    shards: None,
                    addresses: addresses.collect(),
                    users: Vec::new(),
                    external: External::default(),
                    seed: Some(seed),
                    ..self.clone()
                }
                .build(now)
            })
            .collect()
    }
}

/// A replica set has at most this many members.
const MAX_MEMBERS: usize = 50;
/// `net.compression.compressors` of a server.
const DEFAULT_COMPRESSORS: [Compressor; 3] = [Compressor::Snappy, Compressor::Zstd, Compressor::Zlib];
/// 2024-01-01, an epoch for tests that do not care.
const DEFAULT_EPOCH_MILLIS: i64 = 1_704_067_200_000;
