//! The topology under any answers to hello.

use std::time::{Duration, Instant};

use bson::RawDocument;
use bson::oid::ObjectId;
use changestream_core::random::Random;
use changestream_core::topology::{
    ApplicationError, ApplicationErrorKind, ConnectionPhase, HelloReply, MAX_SERVERS, SelectionCriteria,
    ServerType, Topology, TopologySettings, TopologyType, TopologyVersion,
};
use changestream_core::{ReadPreference, ReadPreferenceMode, ServerAddress, ServerError};

use super::{Choices, epoch, words};

/// Whatever servers answer, the topology stays what the specification allows, and names a server only if it knows it.
///
/// # Panics
/// It does not hold.
pub fn hello(data: &[u8]) {
    let mut choices = Choices::new(data);
    let Ok(topology) = Topology::new(settings(&mut choices)) else {
        return;
    };
    let mut world = World {
        topology,
        now: epoch(),
        random: Random::new([3; 32]),
    };
    world.check();
    for _ in 0..MOST_STEPS {
        if choices.is_over() {
            return;
        }
        world.step(&mut choices);
        world.check();
    }
}

const MOST_STEPS: usize = 200;
const SEEDS: [&str; 4] = ["a:1", "b:2", "c:3", "d:4"];
const SETS: [&str; 2] = ["rs", "other"];

fn settings(choices: &mut Choices<'_>) -> TopologySettings {
    let seeds = 1 + choices.below(3);
    let mut settings = TopologySettings::new(SEEDS.iter().take(seeds).map(|seed| address(seed)));
    settings.replica_set = choices.flag().then(|| "rs".to_owned());
    settings.direct_connection = choices.below(4) == 1;
    settings.load_balanced = choices.below(8) == 1;
    settings.record_events = choices.flag();
    settings
}

fn address(text: &str) -> ServerAddress {
    text.parse().expect("an address of the target's own")
}

struct World {
    topology: Topology,
    now: Instant,
    random: Random,
}

impl World {
    fn step(&mut self, choices: &mut Choices<'_>) {
        let server = self.any_server(choices);
        match choices.below(10) {
            0 => self.now += Duration::from_millis(choices.below(1 << 16) as u64),
            1 => drop(self.topology.poll_check(self.now)),
            2 => drop(
                self.topology
                    .handle_check_failure(self.now, &server, "refused", choices.flag()),
            ),
            3 => {
                let error = application_error(choices);
                self.topology.handle_application_error(self.now, &server, &error);
            }
            4 => self.select(choices),
            5 => {
                let snapshot = self.topology.snapshot();
                let mut other = Topology::with_snapshot(self.topology.settings().clone(), &snapshot)
                    .expect("settings that were good before");
                other.handle_check_failure(self.now, &server, "refused", true);
                self.topology.merge(&other.snapshot());
            }
            6 => {
                self.topology.cancel_check(self.now, &server);
                self.topology.mark_stale();
                while self.topology.poll_event().is_some() {}
            }
            7 => self.answer(&server, &choices.encoded_document(words::HELLO), choices),
            _ => {
                let reply = member(choices);
                self.answer(&server, reply.as_bytes(), choices);
            }
        }
    }

    fn any_server(&self, choices: &mut Choices<'_>) -> ServerAddress {
        let known: Vec<_> = self.topology.description().servers.keys().cloned().collect();
        match choices.below(8) {
            0 => address("stranger:9"),
            _ if known.is_empty() => address("a:1"),
            number => known[number % known.len()].clone(),
        }
    }

    fn answer(&mut self, server: &ServerAddress, reply: &[u8], choices: &mut Choices<'_>) {
        let Ok(document) = RawDocument::from_bytes(reply) else {
            return;
        };
        let Ok(reply) = HelloReply::parse(document) else {
            return;
        };
        let round_trip = choices.any(&[
            None,
            Some(Duration::ZERO),
            Some(Duration::from_millis(20)),
            Some(Duration::MAX),
        ]);
        self.topology.handle_hello(self.now, server, reply, round_trip);
    }

    fn select(&mut self, choices: &mut Choices<'_>) {
        let mut preference = ReadPreference::new(choices.any(&[
            ReadPreferenceMode::Primary,
            ReadPreferenceMode::PrimaryPreferred,
            ReadPreferenceMode::Secondary,
            ReadPreferenceMode::SecondaryPreferred,
            ReadPreferenceMode::Nearest,
        ]));
        preference.max_staleness = choices.any(&[None, Some(Duration::from_secs(90)), Some(Duration::MAX)]);
        let mut criteria = SelectionCriteria::read(preference);
        criteria.deprioritized = choices.flag().then(|| address("a:1")).into_iter().collect();
        if let Ok(Some(chosen)) = self.topology.select(&criteria, &mut self.random) {
            let server = self.topology.server(&chosen).expect("what is chosen is known");
            let usable =
                server.server_type.is_data_bearing() || server.server_type == ServerType::LoadBalancer;
            let is_single = self.topology.description().topology_type == TopologyType::Single;
            assert!(usable || is_single, "{server:?} was chosen");
        }
        let message = self.topology.selection_error_message(&criteria);
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }

    /// What the specification says of each type of topology, after any step.
    fn check(&self) {
        let description = self.topology.description();
        let types: Vec<ServerType> = description
            .servers
            .values()
            .map(|server| server.server_type)
            .collect();
        let primaries = types
            .iter()
            .filter(|kind| **kind == ServerType::RsPrimary)
            .count();
        let only = |kinds: &[ServerType]| types.iter().all(|kind| kinds.contains(kind));
        let member = |kind: &ServerType| {
            !matches!(
                kind,
                ServerType::Mongos | ServerType::Standalone | ServerType::LoadBalancer
            )
        };
        let holds = match description.topology_type {
            TopologyType::Single => types.len() <= 1,
            TopologyType::ReplicaSetWithPrimary => primaries == 1 && types.iter().all(member),
            TopologyType::ReplicaSetNoPrimary => primaries == 0 && types.iter().all(member),
            // A ghost that was seen before the first mongos stays until it is checked again.
            TopologyType::Sharded => only(&[ServerType::Mongos, ServerType::Unknown, ServerType::RsGhost]),
            TopologyType::LoadBalanced => only(&[ServerType::LoadBalancer]) && types.len() == 1,
            TopologyType::Unknown => only(&[ServerType::Unknown, ServerType::RsGhost]),
        };
        assert!(holds && types.len() <= MAX_SERVERS, "{description:?}");
        if let Some(at) = self.topology.next_check_at(self.now) {
            assert!(at >= self.now, "a check was due {:?} ago", self.now - at);
        }
    }
}

/// What a member of a replica set, a mongos or a standalone could answer.
fn member(choices: &mut Choices<'_>) -> bson::RawDocumentBuf {
    let mut reply = bson::doc! { "ok": 1, "maxWireVersion": choices.any(&[25, 9, 3, 100]) };
    match choices.below(6) {
        0 => drop(reply.insert("isWritablePrimary", true)),
        1 => drop(reply.insert("msg", "isdbgrid")),
        2 => drop(reply.insert("isreplicaset", true)),
        kind => {
            reply.insert("setName", choices.any(&SETS));
            reply.insert(["isWritablePrimary", "secondary", "arbiterOnly"][kind - 3], true);
            let hosts = choices.byte();
            let hosts = SEEDS.iter().enumerate().filter(|(bit, _)| hosts >> bit & 1 == 1);
            reply.insert(
                "hosts",
                hosts.map(|(_, host)| (*host).to_owned()).collect::<Vec<_>>(),
            );
            if choices.flag() {
                reply.insert("me", choices.any(&SEEDS));
            }
            if choices.flag() {
                reply.insert("primary", choices.any(&SEEDS));
            }
            if choices.flag() {
                reply.insert("setVersion", i32::from(choices.byte()));
                reply.insert("electionId", ObjectId::from_bytes([choices.byte(); 12]));
            }
            if choices.flag() {
                let process = ObjectId::from_bytes([choices.byte() & 1; 12]);
                let version = bson::doc! { "processId": process, "counter": i64::from(choices.byte()) };
                reply.insert("topologyVersion", version);
            }
        }
    }
    bson::RawDocumentBuf::try_from(&reply).expect("BSON")
}

fn application_error(choices: &mut Choices<'_>) -> ApplicationError {
    let message = "broken".to_owned();
    let kind = match choices.below(3) {
        0 => ApplicationErrorKind::Network {
            message,
            timed_out: choices.flag(),
        },
        1 => ApplicationErrorKind::Command {
            error: ServerError::new(choices.any(&[10107, 189, 91, 11600, 13436, 1]), "Name", message),
            topology_version: choices.flag().then(|| TopologyVersion {
                process_id: ObjectId::from_bytes([choices.byte() & 1; 12]),
                counter: i64::from(choices.byte()),
            }),
        },
        _ => ApplicationErrorKind::Other { message },
    };
    ApplicationError {
        kind,
        phase: choices.any(&[
            ConnectionPhase::Establishing,
            ConnectionPhase::Authenticating,
            ConnectionPhase::Ready,
        ]),
        generation: u64::from(choices.byte() & 3),
        service_id: choices.flag().then(|| ObjectId::from_bytes([7; 12])),
        max_wire_version: choices.any(&[None, Some(7), Some(25)]),
    }
}
