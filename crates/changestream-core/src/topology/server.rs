//! What is known of one server.

use std::cmp::Ordering;
use std::fmt;
use std::time::Instant;

use bson::DateTime;
use bson::oid::ObjectId;

use super::{HelloReply, RoundTripTimes};
use crate::ServerAddress;
use crate::printable::Printable;
use crate::read_preference::TagSet;

/// The client's view of one server, made from its last hello reply, or from a failure.
///
/// Server Discovery And Monitoring, "ServerDescription".
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServerDescription {
    /// The address by which it is connected to; not its `me`.
    pub address: ServerAddress,
    /// What kind of server it is.
    pub server_type: ServerType,
    /// What went wrong last, if that is why it is Unknown.
    pub error: Option<String>,
    /// How long its hello commands took. Empty while it is Unknown.
    pub round_trip: RoundTripTimes,
    /// `lastWrite.lastWriteDate`: the primary's clock at the last write that this member has.
    pub last_write_date: Option<DateTime>,
    /// The lowest wire version that the server speaks.
    pub min_wire_version: i32,
    /// The highest wire version that the server speaks.
    pub max_wire_version: i32,
    /// Its own name for itself, in the replica set's configuration.
    pub me: Option<ServerAddress>,
    /// Members that hold data and may become primary.
    pub hosts: Vec<ServerAddress>,
    /// Members of priority 0.
    pub passives: Vec<ServerAddress>,
    /// Arbiters.
    pub arbiters: Vec<ServerAddress>,
    /// Its tags.
    pub tags: TagSet,
    /// Name of its replica set.
    pub set_name: Option<String>,
    /// Election that made it primary.
    pub election_id: Option<ObjectId>,
    /// Version of the replica set's configuration.
    pub set_version: Option<i64>,
    /// The member that it thinks is the primary.
    pub primary: Option<ServerAddress>,
    /// When something was learned of it last; `None` is "infinity ago".
    pub last_update_time: Option<Instant>,
    /// How long a session lives unused; none if the server does not know sessions.
    pub logical_session_timeout_minutes: Option<i64>,
    /// How new this view is, by the server's own count.
    pub topology_version: Option<TopologyVersion>,
}

impl ServerDescription {
    /// The default description: nothing is known.
    pub fn unknown(address: ServerAddress) -> Self {
        Self {
            address,
            server_type: ServerType::Unknown,
            error: None,
            round_trip: RoundTripTimes::default(),
            last_write_date: None,
            min_wire_version: 0,
            max_wire_version: 0,
            me: None,
            hosts: Vec::new(),
            passives: Vec::new(),
            arbiters: Vec::new(),
            tags: TagSet::new(),
            set_name: None,
            election_id: None,
            set_version: None,
            primary: None,
            last_update_time: None,
            logical_session_timeout_minutes: None,
            topology_version: None,
        }
    }

    /// An Unknown server, and why.
    pub fn failed(address: ServerAddress, now: Instant, error: impl Into<String>) -> Self {
        Self {
            error: Some(error.into()),
            last_update_time: Some(now),
            ..Self::unknown(address)
        }
    }

    /// What this reply says. Its round trip times are empty.
    pub fn from_hello(address: ServerAddress, now: Instant, reply: HelloReply) -> Self {
        let server_type = reply.server_type();
        if server_type == ServerType::Unknown {
            let message = Printable(reply.error_message.as_deref().unwrap_or("no message"));
            let error = match reply.code {
                Some(code) => format!("hello was refused: {message} (code {code})"),
                None => format!("hello was refused: {message}"),
            };
            return Self {
                topology_version: reply.topology_version,
                ..Self::failed(address, now, error)
            };
        }
        Self {
            address,
            server_type,
            error: None,
            round_trip: RoundTripTimes::default(),
            last_write_date: reply.last_write_date,
            min_wire_version: reply.min_wire_version,
            max_wire_version: reply.max_wire_version,
            me: reply.me,
            hosts: reply.hosts,
            passives: reply.passives,
            arbiters: reply.arbiters,
            tags: reply.tags,
            set_name: reply.set_name,
            election_id: reply.election_id,
            set_version: reply.set_version,
            primary: reply.primary,
            last_update_time: Some(now),
            logical_session_timeout_minutes: reply.logical_session_timeout_minutes,
            topology_version: reply.topology_version,
        }
    }

    /// Whether both say the same, by the specification's "Server Description Equality": times do not count.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let times_aside = |description: &Self| Self {
            round_trip: RoundTripTimes::default(),
            last_write_date: None,
            last_update_time: None,
            ..description.clone()
        };
        times_aside(self) == times_aside(other)
    }

    /// All members that it lists.
    pub fn members(&self) -> impl Iterator<Item = &ServerAddress> {
        self.hosts.iter().chain(&self.passives).chain(&self.arbiters)
    }

    /// Whether this view replaces that one: not if the server itself counts it as older.
    pub(super) fn is_older_than(&self, current: &Self) -> bool {
        TopologyVersion::compare(current.topology_version, self.topology_version) == Ordering::Greater
    }
}

/// The kinds of server (Server Discovery And Monitoring, "ServerType").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerType {
    /// Not a member of a replica set.
    Standalone,
    /// A router of a sharded cluster.
    Mongos,
    /// Not yet checked, but a member thinks that it is the primary. Otherwise as Unknown.
    PossiblePrimary,
    /// The primary of a replica set.
    RsPrimary,
    /// A secondary.
    RsSecondary,
    /// An arbiter: it holds no data.
    RsArbiter,
    /// A member that is hidden, starting up or recovering.
    RsOther,
    /// Started as a member, but in no replica set (not initiated, or removed).
    RsGhost,
    /// A load balancer, with a service behind it.
    LoadBalancer,
    /// Not checked yet, or the last check failed.
    #[default]
    Unknown,
}

impl ServerType {
    /// The name in the specification, such as `RSPrimary`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standalone => "Standalone",
            Self::Mongos => "Mongos",
            Self::PossiblePrimary => "PossiblePrimary",
            Self::RsPrimary => "RSPrimary",
            Self::RsSecondary => "RSSecondary",
            Self::RsArbiter => "RSArbiter",
            Self::RsOther => "RSOther",
            Self::RsGhost => "RSGhost",
            Self::LoadBalancer => "LoadBalancer",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether it holds data that a client can read.
    pub fn is_data_bearing(self) -> bool {
        match self {
            Self::Standalone | Self::Mongos | Self::RsPrimary | Self::RsSecondary | Self::LoadBalancer => {
                true
            }
            Self::PossiblePrimary | Self::RsArbiter | Self::RsOther | Self::RsGhost | Self::Unknown => false,
        }
    }

    /// Whether its last check said what it is. A possible primary has not been checked.
    pub fn is_known(self) -> bool {
        self != Self::Unknown && self != Self::PossiblePrimary
    }
}

impl fmt::Display for ServerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A server's count of its own state changes (server 4.4 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopologyVersion {
    /// Which process counts: another one after each restart.
    pub process_id: ObjectId,
    /// How many changes it has counted.
    pub counter: i64,
}

impl TopologyVersion {
    /// Compares what is known with what came, as "topologyVersion Comparison" says: where one is missing or the
    /// process is another, what came is newer.
    pub fn compare(current: Option<Self>, incoming: Option<Self>) -> Ordering {
        match (current, incoming) {
            (Some(current), Some(incoming)) if current.process_id == incoming.process_id => {
                current.counter.cmp(&incoming.counter)
            }
            (_, _) => Ordering::Less,
        }
    }
}
