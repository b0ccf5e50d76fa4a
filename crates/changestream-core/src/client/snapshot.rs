//! What the streams of one client tell each other.

use std::sync::Arc;

use super::resolving::Resolution;
use crate::stream::ClusterTime;
use crate::topology;

/// What a stream has learned of the deployment: its topology, its cluster time, and the servers that DNS lists.
///
/// Cheap to clone. Given to a new stream of the same client, it saves that stream from scanning the deployment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) topology: Option<topology::Snapshot>,
    pub(crate) cluster_time: Option<ClusterTime>,
    pub(super) resolution: Option<Arc<Resolution>>,
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
        self.resolution = Resolution::newer(self.resolution.take(), other.resolution);
    }
}
