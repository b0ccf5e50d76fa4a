//! The topology: what is known, what was tried, and what changed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::oid::ObjectId;

use super::application_error::StateChange;
use super::scan::{Check, Next, Scan};
use super::{
    ApplicationError, HelloReply, InvalidTopologySettings, SelectionCriteria, SelectionError,
    ServerDescription, ServerType, TopologyDescription, TopologyEvent, TopologySettings, TopologyType,
    selection,
};
use crate::ServerAddress;
use crate::random::Random;
use crate::small_map::SmallMap;

/// What is known of a deployment by one user of it, and what is to be checked when.
///
/// ```
/// use std::time::{Duration, Instant};
/// use bson::rawdoc;
/// use changestream_core::random::Random;
/// use changestream_core::topology::{HelloReply, SelectionCriteria, Topology, TopologySettings};
///
/// let now = Instant::now();
/// let mut topology = Topology::new(TopologySettings::new(["db1:27017".parse()?]))?;
///
/// let address = topology.poll_check(now).expect("nothing was checked yet");
/// let reply = rawdoc! { "ok": 1, "isWritablePrimary": true, "setName": "rs", "hosts": ["db1:27017"],
///     "maxWireVersion": 25 };
/// topology.handle_hello(now, &address, HelloReply::parse(&reply)?, Some(Duration::from_millis(3)));
///
/// let chosen = topology.select(&SelectionCriteria::default(), &mut Random::new([0; 32]))?;
/// assert_eq!(chosen, Some(address));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Topology {
    pub(super) settings: Arc<TopologySettings>,
    pub(super) description: Arc<TopologyDescription>,
    pub(super) servers: SmallMap<ServerAddress, Server>,
    pub(super) scan: Scan,
    events: VecDeque<TopologyEvent>,
}

/// What is remembered of a server besides its description.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) check: Check,
    generation: u64,
    /// What each service behind a load balancer adds to `generation`.
    services: BTreeMap<ObjectId, u64>,
}

/// What a call changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// Whether the topology's description says something else than before: a selection may now end otherwise.
    pub description: bool,
    /// Whether the pool's generation of the server, or of its service, was raised: connections of a lower generation
    /// are to be closed.
    pub pool_cleared: bool,
    /// Servers that were added.
    pub added: Vec<ServerAddress>,
    /// Servers that were taken out: their connections are to be closed.
    pub removed: Vec<ServerAddress>,
}

impl Topology {
    /// A topology of which nothing is known but its seeds.
    ///
    /// # Errors
    /// There are no seeds, or the settings contradict each other.
    pub fn new(settings: impl Into<Arc<TopologySettings>>) -> Result<Self, InvalidTopologySettings> {
        let settings = settings.into();
        settings.validate()?;
        let mut topology = Self::without_servers(settings);
        topology.record(TopologyEvent::Opening);
        let description = topology.initial_description();
        topology.replace(description, None);
        if topology.settings.load_balanced {
            topology.discover_load_balancer();
        }
        Ok(topology)
    }

    /// A topology whose seeds are not known yet: one without servers, to be replaced.
    pub(crate) fn without_seeds(settings: Arc<TopologySettings>) -> Self {
        Self::without_servers(settings)
    }

    fn without_servers(settings: Arc<TopologySettings>) -> Self {
        Self {
            settings: TopologySettings::clamped(settings),
            description: Arc::default(),
            servers: SmallMap::new(),
            scan: Scan::Idle {
                ended: None,
                stale: false,
            },
            events: VecDeque::new(),
        }
    }

    fn initial_description(&self) -> TopologyDescription {
        let seeds = &self.settings.seeds;
        let servers = seeds.iter().cloned().map(ServerDescription::unknown);
        let mut description = TopologyDescription::new(self.settings.initial_type(), servers);
        description.set_name.clone_from(&self.settings.replica_set);
        description
    }

    /// "When loadBalanced=true the server is a LoadBalancer, without a check".
    fn discover_load_balancer(&mut self) {
        let mut description = TopologyDescription::clone(&self.description);
        for server in description.servers.values_mut() {
            Arc::make_mut(server).server_type = ServerType::LoadBalancer;
        }
        description.refresh();
        self.replace(description, None);
    }

    /// The settings, within their limits.
    pub fn settings(&self) -> &TopologySettings {
        &self.settings
    }

    /// What is known of the deployment.
    pub fn description(&self) -> &Arc<TopologyDescription> {
        &self.description
    }

    /// What is known of that server; none if it is not part of the deployment.
    pub fn server(&self, address: &ServerAddress) -> Option<&ServerDescription> {
        self.description.servers.get(address).map(Arc::as_ref)
    }

    /// The pool's generation of that server, and of that service behind it: a new connection belongs to it, and one of
    /// a lower generation is not to be used any more. 0 for a server that is not part of the deployment.
    pub fn generation(&self, address: &ServerAddress, service_id: Option<ObjectId>) -> u64 {
        let server = self.servers.get(address);
        server.map_or(0, |server| server.generation_of(service_id))
    }

    /// Takes a server's answer to hello into account: a check's, or that of a new connection's handshake.
    ///
    /// `round_trip` is how long the answer took; `None` if that is not reliable, because nobody looked when it came or
    /// the server was asked to wait.
    pub fn handle_hello(
        &mut self,
        now: Instant,
        address: &ServerAddress,
        reply: HelloReply,
        round_trip: Option<Duration>,
    ) -> Changes {
        let Some(current) = self.description.servers.get(address) else {
            return Changes::default();
        };
        let server_known = current.server_type.is_known();
        let round_trip_before = current.round_trip.clone();
        self.end_check(address, now, Next::Pause);
        // "The driver MUST not close the connection when this label is encountered": it says nothing of the server but,
        // where nothing else is known, why that is so.
        let overloaded = reply.is_overloaded();
        if self.settings.load_balanced || (overloaded && server_known) {
            self.finish_scan(now);
            return Changes::default();
        }
        let mut server = ServerDescription::from_hello(address.clone(), now, reply);
        let failed = !server.server_type.is_known();
        if !failed {
            server.round_trip = round_trip_before;
            if let Some(sample) = round_trip {
                server.round_trip.add(sample);
            }
        }
        let mut changes = self.update(server);
        if failed && !overloaded {
            changes.pool_cleared = self.clear_pool(address, None);
        }
        self.finish_scan(now);
        changes
    }

    /// Takes into account that a server could not be checked: no connection, or none that answers hello.
    ///
    /// `network` tells an error of the network, or a timeout, from any other: the server is then left alone for the
    /// cooldown, unless it was known before; then it is to be checked again at once.
    pub fn handle_check_failure(
        &mut self,
        now: Instant,
        address: &ServerAddress,
        message: &str,
        network: bool,
    ) -> Changes {
        let Some(current) = self.description.servers.get(address) else {
            return Changes::default();
        };
        let next = match (network, current.server_type.is_known()) {
            (true, true) => Next::Retry,
            (true, false) => Next::Cooldown,
            (false, _) => Next::Pause,
        };
        self.end_check(address, now, next);
        let mut changes = Changes::default();
        if !self.settings.load_balanced {
            let error = super::hello::cut(message);
            changes = self.update(ServerDescription::failed(address.clone(), now, error));
            changes.pool_cleared = self.clear_pool(address, None);
        }
        self.finish_scan(now);
        changes
    }

    /// Takes an error into account that was met other than in a check ("Application errors").
    pub fn handle_application_error(
        &mut self,
        now: Instant,
        address: &ServerAddress,
        error: &ApplicationError,
    ) -> Changes {
        let Some(server) = self.description.servers.get(address) else {
            return Changes::default();
        };
        let topology_version = error.topology_version();
        if error.generation < self.generation(address, error.service_id)
            || super::TopologyVersion::compare(server.topology_version, topology_version).is_ge()
        {
            return Changes::default();
        }
        let unknown = ServerDescription {
            topology_version,
            ..ServerDescription::failed(address.clone(), now, error.message())
        };
        let mut changes = Changes::default();
        if let Some(change) = error.state_change() {
            if !self.settings.load_balanced {
                changes = self.update(unknown);
            }
            let old_server = error
                .max_wire_version
                .is_some_and(|version| version < CLOSES_NO_MORE);
            if change == StateChange::ShuttingDown || old_server {
                changes.pool_cleared = self.clear_pool(address, error.service_id);
            }
            if change != StateChange::Recovering {
                self.scan.mark_stale();
            }
        } else if error.is_fatal_to_server() {
            if !self.settings.load_balanced {
                changes = self.update(unknown);
            }
            changes.pool_cleared = self.clear_pool(address, error.service_id);
        }
        self.finish_scan(now);
        changes
    }

    /// A server for these criteria, at random among those that suit and are near enough. None where there is none yet:
    /// scan ([`mark_stale`](Self::mark_stale), [`poll_check`](Self::poll_check)), then ask again.
    ///
    /// # Errors
    /// The deployment is incompatible, or the read preference is invalid for it.
    pub fn select(
        &self,
        criteria: &SelectionCriteria,
        random: &mut Random,
    ) -> Result<Option<ServerAddress>, SelectionError> {
        let heartbeat_frequency = self.settings.heartbeat_frequency;
        let suitable = selection::suitable_servers(&self.description, criteria, heartbeat_frequency)?;
        let near = selection::in_latency_window(suitable, self.settings.local_threshold);
        Ok(selection::any(&near, random).map(|server| server.address.clone()))
    }

    /// The next change for whoever watches, if [`TopologySettings::record_events`] is set. Of changes that nobody
    /// polls the last 1024 are kept.
    pub fn poll_event(&mut self) -> Option<TopologyEvent> {
        self.events.pop_front()
    }

    /// Replaces the list of mongos by what DNS lists now; without effect if the topology is neither sharded nor unknown
    /// (Polling SRV Records for mongos Discovery).
    pub fn update_mongos(&mut self, now: Instant, listed: &[ServerAddress]) -> Changes {
        let mut description = TopologyDescription::clone(&self.description);
        if !description.take_list(listed) {
            return Changes::default();
        }
        let changes = self.replace(description, None);
        self.finish_scan(now);
        changes
    }

    /// Ends the topology: takes all servers out.
    pub fn close(&mut self) {
        if self.servers.is_empty() && self.description.topology_type == TopologyType::Unknown {
            return;
        }
        self.replace(TopologyDescription::default(), None);
        self.record(TopologyEvent::Closed);
    }

    /// Puts a server's new description in place, with all that follows from it.
    fn update(&mut self, server: ServerDescription) -> Changes {
        let server = Arc::new(server);
        let mut description = TopologyDescription::clone(&self.description);
        if !description.apply(Arc::clone(&server)) {
            return Changes::default();
        }
        self.replace(description, Some(server))
    }

    /// Puts a new description in place; `checked` is the server's that was its cause.
    pub(super) fn replace(
        &mut self,
        description: TopologyDescription,
        checked: Option<Arc<ServerDescription>>,
    ) -> Changes {
        let new = Arc::new(description);
        let previous = std::mem::replace(&mut self.description, Arc::clone(&new));
        let mut changes = Changes {
            description: !previous.says_the_same_as(&new),
            ..Changes::default()
        };
        let initial = previous.servers.is_empty();
        if !initial {
            self.record_server_changes(&previous, &new, checked);
        } else if changes.description {
            self.record_description_change(&previous, &new);
        }
        for address in new
            .servers
            .keys()
            .filter(|address| !previous.servers.contains_key(address))
        {
            self.servers.insert(address.clone(), Server::new());
            self.record(TopologyEvent::ServerOpening {
                address: address.clone(),
            });
            changes.added.push(address.clone());
        }
        for address in previous
            .servers
            .keys()
            .filter(|address| !new.servers.contains_key(address))
        {
            self.servers.remove(address);
            self.record(TopologyEvent::ServerClosed {
                address: address.clone(),
            });
            changes.removed.push(address.clone());
        }
        if !initial && changes.description {
            self.record_description_change(&previous, &new);
        }
        changes
    }

    fn record_description_change(
        &mut self,
        previous: &Arc<TopologyDescription>,
        new: &Arc<TopologyDescription>,
    ) {
        let (previous, new) = (Arc::clone(previous), Arc::clone(new));
        self.record(TopologyEvent::DescriptionChanged { previous, new });
    }

    /// First the server that was checked, then others that changed with it. To become a possible primary is not yet a change,
    /// nor is it one to be none after all: the type is "synonymous with Unknown" but for the order of checks.
    fn record_server_changes(
        &mut self,
        previous: &TopologyDescription,
        new: &TopologyDescription,
        checked: Option<Arc<ServerDescription>>,
    ) {
        if !self.settings.record_events {
            return;
        }
        let checked_address = checked.as_ref().map(|server| server.address.clone());
        let checked = checked.map(|server| new.servers.get(&server.address).cloned().unwrap_or(server));
        let others = new
            .servers
            .values()
            .filter(|server| Some(&server.address) != checked_address.as_ref())
            .filter(|server| server.server_type != ServerType::PossiblePrimary)
            .cloned();
        for new in checked.into_iter().chain(others) {
            let Some(mut previous) = previous.servers.get(&new.address).cloned() else {
                continue;
            };
            if previous.server_type == ServerType::PossiblePrimary {
                Arc::make_mut(&mut previous).server_type = ServerType::Unknown;
            }
            if !previous.says_the_same_as(&new) {
                self.record(TopologyEvent::ServerDescriptionChanged { previous, new });
            }
        }
    }

    fn record(&mut self, event: TopologyEvent) {
        if !self.settings.record_events {
            return;
        }
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Raises the generation; of a service only, behind a load balancer, where an error without one is not an error of
    /// any service.
    fn clear_pool(&mut self, address: &ServerAddress, service_id: Option<ObjectId>) -> bool {
        let Some(server) = self.servers.get_mut(address) else {
            return false;
        };
        match (self.settings.load_balanced, service_id) {
            (false, _) => server.generation += 1,
            (true, None) => return false,
            (true, Some(service_id)) => server.clear_service(service_id),
        }
        true
    }
}

const MAX_EVENTS: usize = 1024;

const MAX_SERVICES: usize = 256;

/// From wire version 8 (server 4.2) on, a member that steps down keeps its connections.
const CLOSES_NO_MORE: i32 = 8;

impl Server {
    pub(super) fn new() -> Self {
        Self {
            check: Check::Never,
            generation: 0,
            services: BTreeMap::new(),
        }
    }

    fn generation_of(&self, service_id: Option<ObjectId>) -> u64 {
        let service = service_id.and_then(|id| self.services.get(&id));
        self.generation + service.copied().unwrap_or(0)
    }

    fn clear_service(&mut self, service_id: ObjectId) {
        *self.services.entry(service_id).or_insert(0) += 1;
        // Services come and go, and a peer may make them up. To forget them all, clear them all.
        if self.services.len() > MAX_SERVICES {
            self.generation += self.services.values().max().copied().unwrap_or(0) + 1;
            self.services.clear();
        }
    }
}
