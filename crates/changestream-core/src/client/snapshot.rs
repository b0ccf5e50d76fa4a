//! What the streams of one client tell each other.

use crate::stream::ClusterTime;
use crate::topology;

/// What a stream has learned of the deployment: its topology and its cluster time.
///
/// Cheap to clone. Given to a new stream of the same client, it saves that stream from scanning the deployment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) topology: Option<topology::Snapshot>,
    pub(crate) cluster_time: Option<ClusterTime>,
}

impl Snapshot {
    /// Takes in what another stream has learned; never goes back in time.
    pub fn merge(&mut self, other: Self) {
        match (&mut self.topology, other.topology) {
            (Some(known), Some(seen)) => known.merge(&seen),
            (known @ None, seen) => *known = seen,
            (Some(_), None) => {}
        }
        ClusterTime::advance(&mut self.cluster_time, other.cluster_time);
    }
}
