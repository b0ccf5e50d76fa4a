//! What is known of the deployment.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bson::oid::ObjectId;

use super::{ServerDescription, ServerType};
use crate::ServerAddress;

/// The client's view of the deployment (Server Discovery And Monitoring, "TopologyDescription").
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TopologyDescription {
    /// What kind of deployment it is.
    pub topology_type: TopologyType,
    /// Name of the replica set, given by the user or found.
    pub set_name: Option<String>,
    /// The electionId of the newest primary seen.
    pub max_election_id: Option<ObjectId>,
    /// The setVersion of the newest primary seen.
    pub max_set_version: Option<i64>,
    /// Each server, by its address. Streams of one client share what the one has learned from the other.
    pub servers: BTreeMap<ServerAddress, Arc<ServerDescription>>,
    /// Why the deployment cannot be used at all: a server and this client share no wire version.
    pub compatibility_error: Option<String>,
    /// The shortest of its data-bearing servers' session timeouts; none if one of them knows no sessions.
    pub logical_session_timeout_minutes: Option<i64>,
    /// Whether the user gave exactly one seed: a standalone is then accepted.
    pub(super) single_seed: bool,
    /// Which server was taken out last, and why: it explains a topology without servers.
    pub(super) last_removal: Option<String>,
}

impl TopologyDescription {
    /// A deployment of that type with these servers, for selecting from.
    pub fn new(topology_type: TopologyType, servers: impl IntoIterator<Item = ServerDescription>) -> Self {
        let servers: BTreeMap<_, _> = servers
            .into_iter()
            .map(|server| (server.address.clone(), Arc::new(server)))
            .collect();
        let mut description = Self {
            topology_type,
            single_seed: servers.len() == 1,
            servers,
            ..Self::default()
        };
        description.refresh();
        description
    }

    /// Whether each server shares a wire version with this client.
    pub fn is_compatible(&self) -> bool {
        self.compatibility_error.is_none()
    }

    /// The primary, if one is known.
    pub fn primary(&self) -> Option<&ServerDescription> {
        self.servers
            .values()
            .find(|server| server.server_type == ServerType::RsPrimary)
            .map(Arc::as_ref)
    }

    /// Whether both say the same: times do not count.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        self.topology_type == other.topology_type
            && self.set_name == other.set_name
            && self.max_election_id == other.max_election_id
            && self.max_set_version == other.max_set_version
            && self.compatibility_error == other.compatibility_error
            && self.logical_session_timeout_minutes == other.logical_session_timeout_minutes
            && self.servers.len() == other.servers.len()
            && self
                .servers
                .values()
                .zip(other.servers.values())
                .all(|(ours, theirs)| Arc::ptr_eq(ours, theirs) || ours.says_the_same_as(theirs))
    }

    /// Computes what follows from the servers.
    pub(super) fn refresh(&mut self) {
        self.compatibility_error = self.servers.values().find_map(|server| incompatibility(server));
        self.logical_session_timeout_minutes = self
            .servers
            .values()
            .filter(|server| server.server_type.is_data_bearing())
            .map(|server| server.logical_session_timeout_minutes)
            // None is the smallest.
            .min()
            .flatten();
    }
}

/// The kinds of deployment (Server Discovery And Monitoring, "TopologyType").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopologyType {
    /// One server, connected to directly, whatever it is.
    Single,
    /// A replica set whose primary is not known.
    ReplicaSetNoPrimary,
    /// A replica set with its primary.
    ReplicaSetWithPrimary,
    /// A sharded cluster.
    Sharded,
    /// Behind a load balancer.
    LoadBalanced,
    /// Not yet known.
    #[default]
    Unknown,
}

impl TopologyType {
    /// The name in the specification, such as `ReplicaSetWithPrimary`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Single => "Single",
            Self::ReplicaSetNoPrimary => "ReplicaSetNoPrimary",
            Self::ReplicaSetWithPrimary => "ReplicaSetWithPrimary",
            Self::Sharded => "Sharded",
            Self::LoadBalanced => "LoadBalanced",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether the SRV records that the seeds came from are looked up again: "only if the topology is Sharded or
    /// Unknown".
    pub(crate) fn follows_dns(self) -> bool {
        self == Self::Sharded || self == Self::Unknown
    }

    /// Whether it is a replica set.
    pub fn is_replica_set(self) -> bool {
        self == Self::ReplicaSetNoPrimary || self == Self::ReplicaSetWithPrimary
    }
}

impl fmt::Display for TopologyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The lowest wire version that this client speaks: that of server 4.2.
pub const MIN_WIRE_VERSION: i32 = 8;

/// The highest wire version that this client speaks. Servers announce a range, so a newer server is refused only when
/// its lowest version is above this.
pub const MAX_WIRE_VERSION: i32 = 29;

/// The most servers that a topology grows to by what servers report. Seeds are all kept.
pub const MAX_SERVERS: usize = 256;

const MIN_SERVER_VERSION: &str = "4.2";

/// "Checking wire protocol compatibility"; the specification gives the words.
fn incompatibility(server: &ServerDescription) -> Option<String> {
    if !server.server_type.is_known() || server.server_type == ServerType::LoadBalancer {
        return None;
    }
    let address = &server.address;
    if server.min_wire_version > MAX_WIRE_VERSION {
        let theirs = server.min_wire_version;
        return Some(format!(
            "Server at {address} requires wire version {theirs}, but this version of changestream only supports up to {MAX_WIRE_VERSION}."
        ));
    }
    if server.max_wire_version < MIN_WIRE_VERSION {
        let theirs = server.max_wire_version;
        return Some(format!(
            "Server at {address} reports wire version {theirs}, but this version of changestream requires at least {MIN_WIRE_VERSION} (MongoDB {MIN_SERVER_VERSION})."
        ));
    }
    None
}
