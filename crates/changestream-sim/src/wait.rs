//! What a request can wait for. It is tried again whenever the deployment has moved, and at its deadline.

use std::time::Instant;

use bson::Timestamp;
use bson::oid::ObjectId;

use crate::failpoints::Fault;
use crate::oplog::OpTime;
use crate::reply::Reply;
use crate::sharding::Point;

/// Why a request is not answered yet.
#[derive(Clone, Debug)]
pub(crate) enum Wait {
    /// A fail point holds the command back until then.
    Blocked { until: Instant, fault: Box<Fault> },
    /// A getMore of an awaitData cursor.
    GetMore { deadline: Instant },
    /// A hello that is answered when the topology version is no longer this one.
    Hello {
        deadline: Instant,
        seen: (ObjectId, i64),
    },
    /// A write that is not replicated far enough yet.
    WriteConcern {
        reply: Reply,
        optime: OpTime,
        deadline: Option<Instant>,
    },
    /// A write through a mongos that is not replicated far enough on its shards yet.
    ShardWriteConcern {
        reply: Reply,
        points: Vec<Point>,
        deadline: Option<Instant>,
    },
    /// A mongos looks for primaries of shards.
    Shards { deadline: Instant },
    /// A read that must not precede a point in time.
    ClusterTime { ts: Timestamp },
    /// A read as of a moment that the majority has not reached.
    Snapshot,
}

impl Wait {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Blocked { until, .. } => Some(*until),
            Self::GetMore { deadline } | Self::Hello { deadline, .. } | Self::Shards { deadline } => {
                Some(*deadline)
            }
            Self::WriteConcern { deadline, .. } | Self::ShardWriteConcern { deadline, .. } => *deadline,
            Self::ClusterTime { .. } | Self::Snapshot => None,
        }
    }
}
