//! How a new description of one server changes the description of the deployment.
//!
//! Server Discovery And Monitoring, "Updating the TopologyDescription". The functions have the specification's names.

use std::sync::Arc;

use bson::oid::ObjectId;

use super::description::MAX_SERVERS;
use super::{ServerDescription, ServerType, TopologyDescription, TopologyType};
use crate::ServerAddress;

impl TopologyDescription {
    /// Takes a new description of a server into account. Ignored, with `false`, if the server is not, or no longer,
    /// in the topology, or if the server itself counts it as older than the one that is known.
    pub(super) fn apply(&mut self, server: Arc<ServerDescription>) -> bool {
        let Some(current) = self.servers.get_mut(&server.address) else {
            return false;
        };
        if server.is_older_than(current) {
            return false;
        }
        *current = Arc::clone(&server);
        match self.topology_type {
            TopologyType::Single => self.verify_set_name(&server),
            TopologyType::LoadBalanced => {}
            TopologyType::Unknown => self.apply_to_unknown(&server),
            TopologyType::Sharded => self.apply_to_sharded(&server),
            TopologyType::ReplicaSetNoPrimary => self.apply_without_primary(&server),
            TopologyType::ReplicaSetWithPrimary => self.apply_with_primary(&server),
        }
        self.refresh();
        true
    }

    /// Keeps the servers that are listed and adds those that are new; false if that changes nothing, or lists of DNS do
    /// not concern such a topology.
    pub(super) fn take_list(&mut self, listed: &[ServerAddress]) -> bool {
        if !self.topology_type.follows_dns() {
            return false;
        }
        let gone: Vec<_> = self
            .servers
            .keys()
            .filter(|address| !listed.contains(address))
            .cloned()
            .collect();
        let mut changed = !gone.is_empty();
        for address in gone {
            self.remove(&address, "DNS does not list it any more".to_owned());
        }
        for address in listed {
            self.servers.entry(address.clone()).or_insert_with(|| {
                changed = true;
                Arc::new(ServerDescription::unknown(address.clone()))
            });
        }
        self.refresh();
        changed
    }

    /// "Verifying setName with TopologyType Single".
    fn verify_set_name(&mut self, server: &ServerDescription) {
        if self.set_name.is_none() || !server.server_type.is_known() || self.set_name == server.set_name {
            return;
        }
        let reason = wrong_set_name(server, self.set_name.as_deref());
        self.reset(&server.address, reason);
    }

    fn apply_to_unknown(&mut self, server: &ServerDescription) {
        match server.server_type {
            ServerType::Unknown
            | ServerType::PossiblePrimary
            | ServerType::RsGhost
            | ServerType::LoadBalancer => {}
            ServerType::Standalone => self.update_unknown_with_standalone(server),
            ServerType::Mongos => self.topology_type = TopologyType::Sharded,
            ServerType::RsPrimary => {
                self.topology_type = TopologyType::ReplicaSetWithPrimary;
                self.update_rs_from_primary(server);
            }
            ServerType::RsSecondary | ServerType::RsArbiter | ServerType::RsOther => {
                self.topology_type = TopologyType::ReplicaSetNoPrimary;
                self.update_rs_without_primary(server);
            }
        }
    }

    fn apply_to_sharded(&mut self, server: &ServerDescription) {
        match server.server_type {
            ServerType::Unknown | ServerType::PossiblePrimary | ServerType::Mongos => {}
            ServerType::Standalone
            | ServerType::RsPrimary
            | ServerType::RsSecondary
            | ServerType::RsArbiter
            | ServerType::RsOther
            | ServerType::RsGhost
            | ServerType::LoadBalancer => self.remove(
                &server.address,
                format!("it is {}, not a mongos", server.server_type),
            ),
        }
    }

    fn apply_without_primary(&mut self, server: &ServerDescription) {
        match server.server_type {
            ServerType::Unknown | ServerType::PossiblePrimary | ServerType::RsGhost => {}
            ServerType::Standalone | ServerType::Mongos | ServerType::LoadBalancer => {
                self.remove(&server.address, not_a_member(server));
            }
            ServerType::RsPrimary => {
                self.topology_type = TopologyType::ReplicaSetWithPrimary;
                self.update_rs_from_primary(server);
            }
            ServerType::RsSecondary | ServerType::RsArbiter | ServerType::RsOther => {
                self.update_rs_without_primary(server);
            }
        }
    }

    fn apply_with_primary(&mut self, server: &ServerDescription) {
        match server.server_type {
            ServerType::Unknown | ServerType::PossiblePrimary | ServerType::RsGhost => {
                self.check_if_has_primary();
            }
            ServerType::Standalone | ServerType::Mongos | ServerType::LoadBalancer => {
                self.remove(&server.address, not_a_member(server));
                self.check_if_has_primary();
            }
            ServerType::RsPrimary => self.update_rs_from_primary(server),
            ServerType::RsSecondary | ServerType::RsArbiter | ServerType::RsOther => {
                self.update_rs_with_primary_from_member(server);
            }
        }
    }

    fn update_unknown_with_standalone(&mut self, server: &ServerDescription) {
        if self.single_seed {
            self.topology_type = TopologyType::Single;
        } else {
            let reason = "it is a standalone, and there are several seeds".to_owned();
            self.remove(&server.address, reason);
        }
    }

    fn update_rs_without_primary(&mut self, server: &ServerDescription) {
        if self.set_name.is_none() {
            self.set_name.clone_from(&server.set_name);
        } else if self.set_name != server.set_name {
            let reason = wrong_set_name(server, self.set_name.as_deref());
            self.remove(&server.address, reason);
            return;
        }
        self.add_members(server);
        self.mark_possible_primary(server);
        if let Some(reason) = mismatched_me(server) {
            self.remove(&server.address, reason);
        }
    }

    fn update_rs_with_primary_from_member(&mut self, server: &ServerDescription) {
        let wrong = if self.set_name == server.set_name {
            mismatched_me(server)
        } else {
            Some(wrong_set_name(server, self.set_name.as_deref()))
        };
        if let Some(reason) = wrong {
            self.remove(&server.address, reason);
            self.check_if_has_primary();
            return;
        }
        if self.primary().is_none() {
            self.topology_type = TopologyType::ReplicaSetNoPrimary;
            self.mark_possible_primary(server);
        }
    }

    fn update_rs_from_primary(&mut self, server: &ServerDescription) {
        if self.set_name.is_none() {
            self.set_name.clone_from(&server.set_name);
        } else if self.set_name != server.set_name {
            let reason = wrong_set_name(server, self.set_name.as_deref());
            self.remove(&server.address, reason);
            self.check_if_has_primary();
            return;
        }
        if let Err(reason) = self.take_election(server) {
            self.reset(&server.address, reason);
            self.check_if_has_primary();
            return;
        }
        let old_primary = self
            .servers
            .values()
            .find(|other| other.server_type == ServerType::RsPrimary && other.address != server.address)
            .map(|other| other.address.clone());
        if let Some(address) = old_primary {
            let reason = format!(
                "primary marked stale due to discovery of newer primary {}",
                server.address
            );
            self.reset(&address, reason);
        }
        self.add_members(server);
        self.remove_all_but_members_of(server);
        self.check_if_has_primary();
    }

    /// Compares a primary's election tuple with the highest one seen, and takes it if it is not lower.
    fn take_election(&mut self, server: &ServerDescription) -> Result<(), String> {
        let ours = (self.max_election_id, self.max_set_version);
        let theirs = (server.election_id, server.set_version);
        if server.max_wire_version >= ELECTION_ID_FIRST {
            // None is less than any value.
            if theirs < ours {
                return Err(stale_election(theirs, ours));
            }
            (self.max_election_id, self.max_set_version) = theirs;
            return Ok(());
        }
        if let (Some(election_id), Some(set_version)) = theirs {
            if let (Some(max_election_id), Some(max_set_version)) = ours
                && (max_set_version, max_election_id) > (set_version, election_id)
            {
                return Err(stale_election(theirs, ours));
            }
            self.max_election_id = Some(election_id);
        }
        self.max_set_version = self.max_set_version.max(server.set_version);
        Ok(())
    }

    fn check_if_has_primary(&mut self) {
        self.topology_type = match self.primary() {
            Some(_) => TopologyType::ReplicaSetWithPrimary,
            None => TopologyType::ReplicaSetNoPrimary,
        };
    }

    fn add_members(&mut self, server: &ServerDescription) {
        for address in server.members() {
            // A set of servers that each report others must not grow without end.
            if self.servers.len() >= MAX_SERVERS {
                return;
            }
            self.servers
                .entry(address.clone())
                .or_insert_with(|| Arc::new(ServerDescription::unknown(address.clone())));
        }
    }

    fn remove_all_but_members_of(&mut self, server: &ServerDescription) {
        let members: std::collections::BTreeSet<_> = server.members().collect();
        let gone: Vec<ServerAddress> = self
            .servers
            .keys()
            .filter(|address| !members.contains(address))
            .cloned()
            .collect();
        for address in gone {
            let reason = format!(
                "the primary {} does not list it as a member of the replica set",
                server.address
            );
            self.remove(&address, reason);
        }
    }

    fn mark_possible_primary(&mut self, server: &ServerDescription) {
        if let Some(primary) = &server.primary
            && let Some(primary) = self.servers.get_mut(primary)
            && primary.server_type == ServerType::Unknown
        {
            Arc::make_mut(primary).server_type = ServerType::PossiblePrimary;
        }
    }

    /// Replaces a server's description with a default one of type Unknown that says why.
    fn reset(&mut self, address: &ServerAddress, reason: String) {
        if let Some(server) = self.servers.get_mut(address) {
            *server = Arc::new(ServerDescription {
                error: Some(reason),
                last_update_time: server.last_update_time,
                ..ServerDescription::unknown(address.clone())
            });
        }
    }

    fn remove(&mut self, address: &ServerAddress, reason: String) {
        self.servers.remove(address);
        self.last_removal = Some(format!("{address} was taken out: {reason}"));
    }
}

/// From wire version 17 (server 6.0) on, electionId is compared before setVersion.
const ELECTION_ID_FIRST: i32 = 17;

type ElectionTuple = (Option<ObjectId>, Option<i64>);

/// The words are the specification's.
fn stale_election(theirs: ElectionTuple, ours: ElectionTuple) -> String {
    format!(
        "primary marked stale due to electionId/setVersion mismatch, {} is stale compared to {}",
        show_election(theirs),
        show_election(ours)
    )
}

fn show_election((election_id, set_version): ElectionTuple) -> String {
    let election_id = election_id.map_or_else(|| "null".to_owned(), |id| id.to_hex());
    let set_version = set_version.map_or_else(|| "null".to_owned(), |version| version.to_string());
    format!("({election_id}, {set_version})")
}

fn wrong_set_name(server: &ServerDescription, wanted: Option<&str>) -> String {
    let wanted = wanted.unwrap_or_default();
    match &server.set_name {
        Some(name) => format!("its replica set is named {name:?}, not {wanted:?}"),
        None => format!("it is no member of the replica set {wanted:?}"),
    }
}

fn not_a_member(server: &ServerDescription) -> String {
    format!("it is {}, not a member of a replica set", server.server_type)
}

fn mismatched_me(server: &ServerDescription) -> Option<String> {
    let me = server.me.as_ref()?;
    (*me != server.address).then(|| format!("the replica set knows it as {me}"))
}
