//! What a storm is over: which servers, and how many.

use std::time::Duration;

use changestream_sim::{Config, Deployment, Profile};

use super::chance::Chance;

/// What the servers of a storm can do, and how they stand.
#[derive(Clone, Debug)]
pub(super) struct Servers {
    pub(super) version: &'static str,
    pub(super) profile: Profile,
    pub(super) sharded: bool,
    pub(super) balanced: bool,
    /// The bytes of the largest event, where that is less than in a real server.
    pub(super) largest: Option<usize>,
}

impl Servers {
    pub(super) fn any(chance: &mut Chance) -> (Self, Config) {
        let version = match chance.below(40) {
            39 => TOO_OLD,
            number => VERSIONS[number % VERSIONS.len()],
        };
        let profile = Profile::for_version(version).expect("the version is modelled");
        let (config, sharded, balanced) = match chance.below(9) {
            0 => (Deployment::replica_set(1), false, false),
            1 => (Deployment::replica_set(5), false, false),
            2 => (Deployment::sharded(2, 2), true, false),
            3 => (Deployment::sharded(2, 2).shard_members(3), true, false),
            // Load balancers came with 5.0.
            4 if profile.versioned_api => (Deployment::sharded(2, 2).load_balanced(), true, true),
            _ => (Deployment::replica_set(3), false, false),
        };
        let config = config
            .server_version(version)
            .election_timeout(Duration::from_millis(500));
        let config = if sharded {
            config.noop_interval(Duration::from_secs(1))
        } else {
            config
        };
        // A mongos says that an event cannot be made before it has given all that comes earlier, so a consumer does not know
        // where to go on: there, events are too large only for those who have them split.
        let small = profile.images && (!sharded || profile.split_large_event) && chance.below(3) == 1;
        let (config, largest) = if small {
            (config.largest_event(LARGEST), Some(LARGEST))
        } else {
            (config, None)
        };
        let servers = Self {
            version,
            profile,
            sharded,
            balanced,
            largest,
        };
        (servers, config)
    }

    /// Whether no stream can be opened.
    pub(super) fn are_too_old(&self) -> bool {
        self.version == TOO_OLD
    }
}

const VERSIONS: [&str; 9] = ["4.4", "4.2", "5.0", "6.0", "7.0", "8.0", "6.0.8", "6.3", "4.4.29"];
const TOO_OLD: &str = "4.0";
/// A document fits into it, two of the larger ones do not.
const LARGEST: usize = 3_000;
