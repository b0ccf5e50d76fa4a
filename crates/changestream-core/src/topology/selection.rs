//! Which servers suit an operation, and which one of them to use: Server Selection.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{ServerDescription, ServerType, TopologyDescription, TopologyType, staleness};
use crate::random::Random;
use crate::read_preference::TagSet;
use crate::{ReadPreference, ReadPreferenceMode, ServerAddress};

/// What a server is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectionCriteria {
    /// Read or write. A change stream reads.
    pub operation: Operation,
    /// Which members may be read from.
    pub read_preference: ReadPreference,
    /// Servers that are used only if no other one suits: an attempt there has just failed.
    pub deprioritized: BTreeSet<ServerAddress>,
}

impl SelectionCriteria {
    /// For reading with that read preference.
    pub fn read(read_preference: ReadPreference) -> Self {
        Self {
            read_preference,
            ..Self::default()
        }
    }

    /// Whether the read preference makes sense in itself.
    ///
    /// # Errors
    /// It says that only the primary is wanted, and which secondaries.
    pub fn validate(&self) -> Result<(), SelectionError> {
        let preference = &self.read_preference;
        if self.operation == Operation::Write || preference.mode != ReadPreferenceMode::Primary {
            return Ok(());
        }
        let option = if preference.max_staleness.is_some() {
            "maxStalenessSeconds"
        } else if preference.tag_sets.iter().any(|tags| !tags.is_empty()) {
            "tag sets"
        } else {
            return Ok(());
        };
        Err(SelectionError::InvalidReadPreference(format!(
            "{option} cannot be combined with read preference mode primary: choose another mode"
        )))
    }
}

/// Whether a server is to be read from or written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operation {
    /// Read: the read preference decides.
    #[default]
    Read,
    /// Write: only a server that accepts writes will do.
    Write,
}

/// Why no selection can succeed until something else changes than the servers' state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SelectionError {
    /// A server and this client share no wire version.
    Incompatible(String),
    /// The read preference contradicts itself, or its staleness limit is too short.
    InvalidReadPreference(String),
}

impl fmt::Display for SelectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incompatible(message) | Self::InvalidReadPreference(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for SelectionError {}

/// All servers that suit, before the latency window.
///
/// # Errors
/// The deployment is incompatible, or the read preference is invalid for it.
pub fn suitable_servers<'a>(
    description: &'a TopologyDescription,
    criteria: &SelectionCriteria,
    heartbeat_frequency: Duration,
) -> Result<Vec<&'a ServerDescription>, SelectionError> {
    if let Some(message) = &description.compatibility_error {
        return Err(SelectionError::Incompatible(message.clone()));
    }
    criteria.validate()?;
    if let Some(max_staleness) = criteria.read_preference.max_staleness
        && criteria.operation == Operation::Read
        && description.topology_type.is_replica_set()
    {
        staleness::validate(max_staleness, heartbeat_frequency)?;
    }
    let query = Query {
        description,
        criteria,
        heartbeat_frequency,
    };
    let all: Vec<_> = description.servers.values().map(Arc::as_ref).collect();
    let preferred = all
        .iter()
        .copied()
        .filter(|server| !criteria.deprioritized.contains(&server.address))
        .collect();
    let found = query.among(preferred);
    if found.is_empty() {
        return Ok(query.among(all));
    }
    Ok(found)
}

/// Those of the suitable servers whose average round trip time is at most `local_threshold` above the shortest one. A
/// server of unknown round trip time is among them.
pub fn in_latency_window(
    mut servers: Vec<&ServerDescription>,
    local_threshold: Duration,
) -> Vec<&ServerDescription> {
    let shortest = servers
        .iter()
        .filter_map(|server| server.round_trip.average())
        .min();
    if let Some(shortest) = shortest {
        let longest = shortest.saturating_add(local_threshold);
        servers.retain(|server| server.round_trip.average().is_none_or(|time| time <= longest));
    }
    servers
}

/// One of the servers: of two that are drawn at random, the one that executes fewer operations ("operationCount-based
/// selection within the latency window"). None of none.
///
/// For clients that run several operations at once.
pub fn less_loaded<'a>(
    servers: &[&'a ServerDescription],
    operation_count: impl Fn(&ServerAddress) -> usize,
    random: &mut Random,
) -> Option<&'a ServerDescription> {
    let first_at = random.below(servers.len());
    let first = *servers.get(first_at)?;
    if servers.len() == 1 {
        return Some(first);
    }
    let second_at = random.below(servers.len() - 1);
    // One of the others: those after the first one are one place further.
    let second = *servers.get(second_at + usize::from(second_at >= first_at))?;
    if operation_count(&second.address) < operation_count(&first.address) {
        return Some(second);
    }
    Some(first)
}

/// One of the servers at random. None of none.
pub(super) fn any<'a>(
    servers: &[&'a ServerDescription],
    random: &mut Random,
) -> Option<&'a ServerDescription> {
    // A choice of one draws nothing, so that later draws do not depend on it.
    let at = if servers.len() > 1 {
        random.below(servers.len())
    } else {
        0
    };
    servers.get(at).copied()
}

struct Query<'a, 'c> {
    description: &'a TopologyDescription,
    criteria: &'c SelectionCriteria,
    heartbeat_frequency: Duration,
}

impl<'a> Query<'a, '_> {
    fn among(&self, candidates: Vec<&'a ServerDescription>) -> Vec<&'a ServerDescription> {
        match self.description.topology_type {
            TopologyType::Unknown => Vec::new(),
            TopologyType::Single => of(&candidates, |server| server.is_known()),
            TopologyType::LoadBalanced => of(&candidates, |server| server == ServerType::LoadBalancer),
            TopologyType::Sharded => of(&candidates, |server| server == ServerType::Mongos),
            TopologyType::ReplicaSetNoPrimary | TopologyType::ReplicaSetWithPrimary => {
                match self.criteria.operation {
                    Operation::Write => of(&candidates, is_primary),
                    Operation::Read => self.to_read(&candidates),
                }
            }
        }
    }

    fn to_read(&self, candidates: &[&'a ServerDescription]) -> Vec<&'a ServerDescription> {
        let primary = || of(candidates, is_primary);
        let secondaries = || self.eligible(of(candidates, is_secondary));
        match self.criteria.read_preference.mode {
            ReadPreferenceMode::Primary => primary(),
            ReadPreferenceMode::PrimaryPreferred => first_of(primary(), secondaries),
            ReadPreferenceMode::Secondary => secondaries(),
            ReadPreferenceMode::SecondaryPreferred => first_of(secondaries(), primary),
            ReadPreferenceMode::Nearest => self.eligible(of(candidates, |server| {
                is_primary(server) || is_secondary(server)
            })),
        }
    }

    /// Filters by staleness, then by tag sets.
    fn eligible(&self, mut candidates: Vec<&'a ServerDescription>) -> Vec<&'a ServerDescription> {
        let preference = &self.criteria.read_preference;
        if let Some(limit) = preference.max_staleness {
            candidates.retain(|server| {
                staleness::is_fresh(self.description, server, limit, self.heartbeat_frequency)
            });
        }
        if preference.tag_sets.is_empty() {
            return candidates;
        }
        preference
            .tag_sets
            .iter()
            .map(|tags| with_tags(&candidates, tags))
            .find(|matching| !matching.is_empty())
            .unwrap_or_default()
    }
}

fn of<'a>(
    candidates: &[&'a ServerDescription],
    suits: impl Fn(ServerType) -> bool,
) -> Vec<&'a ServerDescription> {
    candidates
        .iter()
        .copied()
        .filter(|server| suits(server.server_type))
        .collect()
}

fn first_of<'a>(
    found: Vec<&'a ServerDescription>,
    otherwise: impl FnOnce() -> Vec<&'a ServerDescription>,
) -> Vec<&'a ServerDescription> {
    if found.is_empty() { otherwise() } else { found }
}

fn with_tags<'a>(candidates: &[&'a ServerDescription], tags: &TagSet) -> Vec<&'a ServerDescription> {
    candidates
        .iter()
        .copied()
        .filter(|server| {
            tags.iter()
                .all(|(name, value)| server.tags.get(name) == Some(value))
        })
        .collect()
}

fn is_primary(server_type: ServerType) -> bool {
    server_type == ServerType::RsPrimary
}

fn is_secondary(server_type: ServerType) -> bool {
    server_type == ServerType::RsSecondary
}
