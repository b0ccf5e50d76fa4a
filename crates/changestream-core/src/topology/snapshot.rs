//! What several streams of one client share of what they learned.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Instant;

use super::scan::{Check, Next, Scan};
use super::{
    Changes, InvalidTopologySettings, ServerDescription, ServerType, Topology, TopologyDescription,
    TopologySettings, TopologyType, TopologyVersion,
};

/// What was known of a deployment at some time: its description, with the servers' round trip times. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshot {
    description: Arc<TopologyDescription>,
    last_scan: Option<Instant>,
}

impl Snapshot {
    /// What was known.
    pub fn description(&self) -> &Arc<TopologyDescription> {
        &self.description
    }

    /// Takes over what the other snapshot knows better. What is known never becomes older: of each server the newer
    /// description stays, by the server's own count (`topologyVersion`) or else by time, and a primary of an older
    /// election does not replace that of a newer one.
    pub fn merge(&mut self, other: &Self) {
        let mut description = TopologyDescription::clone(&self.description);
        if description.absorb(&other.description) {
            self.description = Arc::new(description);
        }
        self.last_scan = self.last_scan.max(other.last_scan);
    }
}

impl Topology {
    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        let last_scan = match self.scan {
            Scan::Idle { ended, .. } => ended,
            Scan::Running { .. } => None,
        };
        Snapshot {
            description: Arc::clone(&self.description),
            last_scan,
        }
    }

    /// A topology that knows what another one with the same settings knew.
    ///
    /// # Errors
    /// As [`Topology::new`].
    pub fn with_snapshot(
        settings: impl Into<Arc<TopologySettings>>,
        snapshot: &Snapshot,
    ) -> Result<Self, InvalidTopologySettings> {
        let mut topology = Self::new(settings)?;
        topology.merge(snapshot);
        Ok(topology)
    }

    /// Takes over what the snapshot knows better, as [`Snapshot::merge`] does.
    pub fn merge(&mut self, snapshot: &Snapshot) -> Changes {
        if self.settings.load_balanced {
            return Changes::default();
        }
        let mut description = TopologyDescription::clone(&self.description);
        let mut changes = Changes::default();
        if description.absorb(&snapshot.description) {
            changes = self.replace(description, None);
            self.take_over_checks();
        }
        if let Scan::Idle { ended, .. } = &mut self.scan {
            *ended = (*ended).max(snapshot.last_scan);
        }
        changes
    }

    /// A check by someone else is a check, too.
    fn take_over_checks(&mut self) {
        for (address, server) in self.servers.iter_mut() {
            let updated = self
                .description
                .servers
                .get(address)
                .and_then(|description| description.last_update_time);
            if let Some(at) = updated
                && !server.check.is_running()
                && server.check.ended().is_none_or(|ended| ended < at)
            {
                server.check = Check::Ended {
                    at,
                    next: Next::Pause,
                };
            }
        }
    }
}

impl TopologyDescription {
    /// Takes over what the other description knows better; whether it was anything.
    fn absorb(&mut self, other: &Self) -> bool {
        if self.is_superseded_by(other) {
            let single_seed = self.single_seed;
            *self = Self {
                single_seed,
                ..other.clone()
            };
            return true;
        }
        let mut changed = self.raise_election(other);
        // One server's news may bring in another one, so look again after each. Each is taken once at most.
        let mut candidates: Vec<_> = other.servers.values().collect();
        candidates.sort_by_key(|server| server.last_update_time);
        while let Some(at) = candidates.iter().position(|server| self.is_news(server)) {
            let server = candidates.remove(at);
            changed |= self.apply(Arc::clone(server));
        }
        changed
    }

    /// Whether the other one is to be taken as a whole: nothing was learned here; or it is newer and has no server in
    /// common with this one, because the seeds are not the names by which the members know each other, or all members
    /// have been replaced.
    fn is_superseded_by(&self, other: &Self) -> bool {
        let Some(theirs) = other.newest_update() else {
            return false;
        };
        if self.set_name.is_some() && other.set_name.is_some() && self.set_name != other.set_name {
            return false;
        }
        let Some(ours) = self.newest_update() else {
            return self.max_election_id.is_none();
        };
        let disjoint = !other
            .servers
            .keys()
            .any(|address| self.servers.contains_key(address));
        disjoint
            && ours < theirs
            && other.servers.values().any(|server| server.server_type.is_known())
            && self.election() <= other.election()
    }

    fn newest_update(&self) -> Option<Instant> {
        self.servers
            .values()
            .filter_map(|server| server.last_update_time)
            .max()
    }

    fn election(&self) -> (Option<bson::oid::ObjectId>, Option<i64>) {
        (self.max_election_id, self.max_set_version)
    }

    /// Takes over the highest election seen, if it is not lower by either order of comparison, and that the deployment
    /// is a replica set, if nothing is known of that yet.
    fn raise_election(&mut self, other: &Self) -> bool {
        let discovered = self.topology_type == TopologyType::Unknown && other.topology_type.is_replica_set();
        if discovered {
            self.topology_type = TopologyType::ReplicaSetNoPrimary;
            self.set_name.clone_from(&other.set_name);
        }
        let raised = self.set_name == other.set_name
            && self.election() != other.election()
            && self.max_election_id <= other.max_election_id
            && self.max_set_version <= other.max_set_version;
        if raised {
            (self.max_election_id, self.max_set_version) = other.election();
        }
        discovered || raised
    }

    fn is_news(&self, server: &ServerDescription) -> bool {
        let Some(current) = self.servers.get(&server.address) else {
            return false;
        };
        if server.server_type == ServerType::RsPrimary && self.has_newer_primary_than(server) {
            return false;
        }
        let later = server.last_update_time > current.last_update_time;
        match (current.topology_version, server.topology_version) {
            (Some(ours), Some(theirs)) if ours.process_id == theirs.process_id => {
                match TopologyVersion::compare(Some(ours), Some(theirs)) {
                    Ordering::Less => true,
                    Ordering::Equal => later,
                    Ordering::Greater => false,
                }
            }
            (_, _) => later,
        }
    }

    fn has_newer_primary_than(&self, server: &ServerDescription) -> bool {
        self.primary().is_some_and(|primary| {
            primary.address != server.address
                && primary.last_update_time > server.last_update_time
                && (primary.election_id, primary.set_version) >= (server.election_id, server.set_version)
        })
    }
}
