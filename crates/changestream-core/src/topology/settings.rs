//! How a topology starts, and how it behaves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::TopologyType;
use crate::ServerAddress;

/// How a topology starts, and how it behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopologySettings {
    /// The servers to start with; at least one.
    pub seeds: Vec<ServerAddress>,
    /// `replicaSet`: the deployment must be the replica set of this name.
    pub replica_set: Option<String>,
    /// `directConnection`: use the one seed, whatever it is.
    pub direct_connection: bool,
    /// `loadBalanced`: the one seed is a load balancer.
    pub load_balanced: bool,
    /// `heartbeatFrequencyMS`: how old a scan may be before a selection scans anew. Default 60 s, at least 500 ms.
    pub heartbeat_frequency: Duration,
    /// `localThresholdMS`: how much slower than the fastest suitable server another one may be. Default 15 ms.
    pub local_threshold: Duration,
    /// `cooldownMS`: the pause after a check that failed with a network error. 5 s, as the specification fixes it;
    /// anything else is for simulations. At most an hour.
    pub cooldown: Duration,
    /// Whether [`Topology::poll_event`](super::Topology::poll_event) has anything to say. Default false.
    pub record_events: bool,
}

impl TopologySettings {
    /// The defaults, with these seeds.
    pub fn new(seeds: impl IntoIterator<Item = ServerAddress>) -> Self {
        Self {
            seeds: seeds.into_iter().collect(),
            replica_set: None,
            direct_connection: false,
            load_balanced: false,
            heartbeat_frequency: Duration::from_secs(60),
            local_threshold: Duration::from_millis(15),
            cooldown: super::COOLDOWN,
            record_events: false,
        }
    }

    pub(super) fn validate(&self) -> Result<(), InvalidTopologySettings> {
        let reason = if self.seeds.is_empty() {
            "at least one host is needed"
        } else if self.direct_connection && self.seeds.len() > 1 {
            "directConnection=true cannot be used with several hosts"
        } else if self.load_balanced && self.seeds.len() > 1 {
            "loadBalanced=true cannot be used with several hosts"
        } else if self.load_balanced && self.direct_connection {
            "loadBalanced=true cannot be used with directConnection=true"
        } else if self.load_balanced && self.replica_set.is_some() {
            "loadBalanced=true cannot be used with replicaSet"
        } else {
            return Ok(());
        };
        Err(InvalidTopologySettings(reason))
    }

    /// Brings what is out of its limits to the nearest value that is not.
    pub(super) fn clamped(mut settings: Arc<Self>) -> Arc<Self> {
        let heartbeat_frequency = settings.heartbeat_frequency.max(super::MIN_HEARTBEAT_FREQUENCY);
        let cooldown = settings.cooldown.min(MAX_COOLDOWN);
        if (heartbeat_frequency, cooldown) != (settings.heartbeat_frequency, settings.cooldown) {
            let settings = Arc::make_mut(&mut settings);
            (settings.heartbeat_frequency, settings.cooldown) = (heartbeat_frequency, cooldown);
        }
        settings
    }

    pub(super) fn initial_type(&self) -> TopologyType {
        if self.load_balanced {
            TopologyType::LoadBalanced
        } else if self.direct_connection {
            TopologyType::Single
        } else if self.replica_set.is_some() {
            TopologyType::ReplicaSetNoPrimary
        } else {
            TopologyType::Unknown
        }
    }
}

const MAX_COOLDOWN: Duration = Duration::from_secs(3600);

/// Settings that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTopologySettings(&'static str);

impl fmt::Display for InvalidTopologySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidTopologySettings {}
