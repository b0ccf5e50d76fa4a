//! Selection, and what is said when there is none.
#![allow(clippy::disallowed_methods, reason = "one epoch for the fake clock")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bson::{DateTime, rawdoc};
use changestream_core::random::Random;
use changestream_core::topology::{
    HelloReply, Operation, RoundTripTimes, SelectionCriteria, SelectionError, ServerDescription, ServerType,
    Topology, TopologyDescription, TopologyEvent, TopologyType, in_latency_window, less_loaded,
    suitable_servers,
};
use changestream_core::{ReadPreference, ReadPreferenceMode, ServerAddress};

use crate::world::{World, address, mongos, primary, secondary, settings, standalone};

fn criteria(mode: ReadPreferenceMode) -> SelectionCriteria {
    SelectionCriteria::read(ReadPreference::new(mode))
}

fn sharded() -> World {
    let mut world = World::new(&["a", "b", "c", "d"]);
    world.checks();
    for name in ["a", "b", "c", "d"] {
        world.hello(name, &mongos());
    }
    world
}

#[test]
fn a_choice_is_a_function_of_the_seed_and_reaches_each_server() {
    let world = sharded();
    let choices = |seed: u8| {
        let mut random = Random::new([seed; 32]);
        let criteria = criteria(ReadPreferenceMode::Primary);
        let choose = || world.topology.select(&criteria, &mut random).unwrap().unwrap();
        std::iter::repeat_with(choose).take(64).collect::<Vec<_>>()
    };
    assert_eq!(choices(1), choices(1));
    assert_ne!(choices(1), choices(2));
    assert_eq!(choices(1).into_iter().collect::<BTreeSet<_>>().len(), 4);
}

#[test]
fn only_servers_near_the_fastest_one_are_chosen() {
    let mut world = sharded();
    let reply = HelloReply::parse(&mongos()).unwrap();
    for _ in 0..20 {
        let slow = Some(Duration::from_millis(200));
        world
            .topology
            .handle_hello(world.now, &address("b"), reply.clone(), slow);
    }
    let mut random = Random::new([0; 32]);
    for _ in 0..100 {
        let chosen = world
            .topology
            .select(&criteria(ReadPreferenceMode::Primary), &mut random)
            .unwrap();
        assert_ne!(chosen, Some(address("b")));
    }
}

#[test]
fn of_two_servers_the_less_loaded_one_is_always_chosen_whichever_is_drawn_first() {
    let world = sharded();
    let servers = world.topology.description().servers.values().take(2);
    let servers: Vec<&ServerDescription> = servers.map(AsRef::as_ref).collect();
    let mut random = Random::new([0; 32]);
    for idle in [address("a"), address("b")] {
        for _ in 0..100 {
            let load = |address: &ServerAddress| usize::from(*address != idle);
            let chosen = less_loaded(&servers, load, &mut random).unwrap();
            assert_eq!(chosen.address, idle);
        }
    }
    assert_eq!(less_loaded(&[], |_| 0, &mut random), None);
}

/// `(S.lastUpdateTime - S.lastWriteDate) - (P.lastUpdateTime - P.lastWriteDate) + heartbeatFrequencyMS`
#[test]
fn a_lag_behind_the_primary_takes_into_account_when_each_was_asked() {
    let start = Instant::now();
    let server = |name: &str, server_type, updated: u64, written: i64| {
        let mut server = ServerDescription::unknown(address(name));
        server.server_type = server_type;
        server.max_wire_version = 25;
        server.last_update_time = Some(start + Duration::from_secs(updated));
        server.last_write_date = Some(DateTime::from_millis(written * 1000));
        server
    };
    // Seconds: when each was asked, and what it had written.
    let is_fresh = |asked: (u64, u64), written: (i64, i64)| {
        let servers = [
            server("a", ServerType::RsPrimary, asked.0, written.0),
            server("b", ServerType::RsSecondary, asked.1, written.1),
        ];
        let description = TopologyDescription::new(TopologyType::ReplicaSetWithPrimary, servers);
        let mut criteria = criteria(ReadPreferenceMode::Secondary);
        criteria.read_preference.max_staleness = Some(Duration::from_secs(100));
        let heartbeat = Duration::from_secs(10);
        !suitable_servers(&description, &criteria, heartbeat)
            .unwrap()
            .is_empty()
    };
    assert!(is_fresh((0, 0), (90, 0)));
    assert!(!is_fresh((0, 0), (91, 0)));
    assert!(is_fresh((20, 0), (110, 0)));
    assert!(!is_fresh((20, 0), (111, 0)));
    assert!(is_fresh((0, 20), (70, 0)));
    assert!(!is_fresh((0, 20), (71, 0)));
    assert!(!is_fresh((0, 0), (i64::MAX / 1000, i64::MIN / 1000)));
}

/// `SMax.lastWriteDate - S.lastWriteDate + heartbeatFrequencyMS`
#[test]
fn without_a_primary_a_lag_is_that_behind_the_secondary_that_has_written_last() {
    let server = |name: &str, server_type, written: Option<i64>| {
        let mut server = ServerDescription::unknown(address(name));
        server.server_type = server_type;
        server.max_wire_version = 25;
        server.last_write_date = written.map(|seconds| DateTime::from_millis(seconds * 1000));
        server
    };
    let fresh = |written: [Option<i64>; 3]| {
        let [a, b, other] = written;
        let servers = [
            server("a", ServerType::RsSecondary, a),
            server("b", ServerType::RsSecondary, b),
            server("c", ServerType::RsOther, other),
        ];
        let description = TopologyDescription::new(TopologyType::ReplicaSetNoPrimary, servers);
        let mut criteria = criteria(ReadPreferenceMode::Secondary);
        criteria.read_preference.max_staleness = Some(Duration::from_secs(100));
        let found = suitable_servers(&description, &criteria, Duration::from_secs(10)).unwrap();
        let names: Vec<_> = found.iter().map(|server| server.address.to_string()).collect();
        names.join(" ")
    };
    assert_eq!(fresh([Some(0), Some(90), None]), "a:27017 b:27017");
    assert_eq!(fresh([Some(0), Some(91), None]), "b:27017");
    assert_eq!(fresh([Some(91), Some(0), None]), "a:27017");
    assert_eq!(
        fresh([Some(0), Some(0), Some(1000)]),
        "a:27017 b:27017",
        "no secondary"
    );
    assert_eq!(
        fresh([Some(0), None, None]),
        "a:27017",
        "a lag that cannot be told"
    );
}

#[test]
fn a_staleness_that_no_replica_set_could_keep_is_refused_for_reads_of_one() {
    let suits = |topology_type, operation, limit: u64, heartbeat: u64| {
        let mut server = ServerDescription::unknown(address("a"));
        server.server_type = if topology_type == TopologyType::Sharded {
            ServerType::Mongos
        } else {
            ServerType::RsPrimary
        };
        server.max_wire_version = 25;
        let description = TopologyDescription::new(topology_type, [server]);
        let mut criteria = criteria(ReadPreferenceMode::Nearest);
        criteria.operation = operation;
        criteria.read_preference.max_staleness = Some(Duration::from_secs(limit));
        let found = suitable_servers(&description, &criteria, Duration::from_secs(heartbeat));
        found.map(|servers| servers.len())
    };
    let (set, sharded) = (TopologyType::ReplicaSetWithPrimary, TopologyType::Sharded);
    assert_eq!(suits(set, Operation::Read, 90, 10), Ok(1));
    assert_eq!(suits(set, Operation::Read, 110, 100), Ok(1));
    for (limit, heartbeat, smallest) in [(89, 10, "90"), (109, 100, "110")] {
        let error = suits(set, Operation::Read, limit, heartbeat)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("must be at least {smallest} ")),
            "{error}"
        );
    }
    assert_eq!(
        suits(sharded, Operation::Read, 1, 10),
        Ok(1),
        "a mongos judges for itself"
    );
    assert_eq!(suits(set, Operation::Write, 1, 10), Ok(1));
}

#[test]
fn of_tag_sets_the_first_that_any_server_has_decides() {
    let server = |name: &str, tags: &[(&str, &str)]| {
        let mut server = ServerDescription::unknown(address(name));
        server.server_type = ServerType::RsSecondary;
        server.max_wire_version = 25;
        let tags = tags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        server.tags = tags.collect();
        server
    };
    let servers = [
        server("a", &[("dc", "ny"), ("rack", "1")]),
        server("b", &[("dc", "ny"), ("rack", "2")]),
        server("c", &[]),
    ];
    let description = TopologyDescription::new(TopologyType::ReplicaSetNoPrimary, servers);
    let found = |sets: &[&[(&str, &str)]]| {
        let mut criteria = criteria(ReadPreferenceMode::Secondary);
        criteria.read_preference.tag_sets = sets
            .iter()
            .map(|set| {
                let tags = set
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
                tags.collect()
            })
            .collect();
        let found = suitable_servers(&description, &criteria, Duration::from_secs(10)).unwrap();
        let names: Vec<_> = found.iter().map(|server| server.address.to_string()).collect();
        names.join(" ")
    };
    assert_eq!(found(&[]), "a:27017 b:27017 c:27017");
    assert_eq!(found(&[&[("dc", "ny")]]), "a:27017 b:27017");
    assert_eq!(found(&[&[("dc", "ny"), ("rack", "2")]]), "b:27017");
    assert_eq!(found(&[&[("dc", "la")]]), "");
    assert_eq!(found(&[&[("dc", "la")], &[("rack", "1")], &[]]), "a:27017");
    assert_eq!(found(&[&[("dc", "la")], &[]]), "a:27017 b:27017 c:27017");
}

#[test]
fn a_choice_of_one_draws_nothing() {
    let mut world = World::new(&["a"]);
    world.checks();
    world.hello("a", &standalone());
    let mut random = Random::new([0; 32]);
    let chosen = world
        .topology
        .select(&criteria(ReadPreferenceMode::Primary), &mut random);
    assert_eq!(chosen, Ok(Some(address("a"))));
    assert_eq!(random.next_u64(), Random::new([0; 32]).next_u64());
}

#[test]
fn a_failed_selection_tells_a_server_that_was_not_asked_from_one_that_has_not_answered() {
    let mut world = World::new(&["a", "b"]);
    assert_eq!(world.topology.poll_check(world.now), Some(address("a")));
    let message = world
        .topology
        .selection_error_message(&criteria(ReadPreferenceMode::Primary));
    assert!(
        message.ends_with("a:27017 is Unknown (has not answered yet), b:27017 is Unknown (not checked yet)"),
        "{message}"
    );
}

#[test]
fn a_server_of_which_only_the_average_is_known_is_near_or_far_by_it() {
    let server = |name: &str, millis| {
        let mut server = ServerDescription::unknown(address(name));
        server.round_trip = RoundTripTimes::from_average(Duration::from_millis(millis));
        server
    };
    assert_eq!(
        RoundTripTimes::from_average(Duration::from_millis(7)).average(),
        Some(Duration::from_millis(7))
    );
    let servers = [server("a", 10), server("b", 25), server("c", 26)];
    let near = in_latency_window(servers.iter().collect(), Duration::from_millis(15));
    let names: Vec<_> = near.iter().map(|server| server.address.to_string()).collect();
    assert_eq!(names, ["a:27017", "b:27017"]);
}

#[test]
fn an_unreliable_round_trip_is_not_counted_and_an_unknown_server_has_none() {
    let mut world = World::new(&["a"]);
    world.checks();
    let average = |world: &World| world.topology.server(&address("a")).unwrap().round_trip.average();
    world.hello("a", &standalone());
    assert_eq!(average(&world), Some(Duration::from_millis(5)));
    let reply = HelloReply::parse(&standalone()).unwrap();
    world.topology.handle_hello(world.now, &address("a"), reply, None);
    assert_eq!(average(&world), Some(Duration::from_millis(5)));
    world.refuse("a");
    assert_eq!(average(&world), None);
}

#[test]
fn a_deployment_that_is_too_old_or_too_new_is_refused_in_the_words_of_the_specification() {
    let refused = |min: i32, max: i32| {
        let mut world = World::new(&["a"]);
        world.checks();
        world.hello(
            "a",
            &rawdoc! { "ok": 1, "minWireVersion": min, "maxWireVersion": max },
        );
        world
            .topology
            .select(&criteria(ReadPreferenceMode::Primary), &mut Random::new([0; 32]))
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        refused(0, 7).unwrap_err(),
        "Server at a:27017 reports wire version 7, but this version of changestream requires at least 8 (MongoDB 4.2)."
    );
    assert_eq!(
        refused(99, 100).unwrap_err(),
        "Server at a:27017 requires wire version 99, but this version of changestream only supports up to 29."
    );
    let mut world = World::new(&["a"]);
    world.hello("a", &rawdoc! { "ok": 1, "maxWireVersion": 7 });
    assert!(!world.topology.description().is_compatible());
    world.hello("a", &standalone());
    assert!(world.topology.description().is_compatible());
    assert_eq!(refused(0, 8), Ok(Some(address("a"))));
    assert_eq!(refused(29, 99), Ok(Some(address("a"))));
}

#[test]
fn a_read_preference_that_contradicts_itself_is_refused() {
    let world = sharded();
    let mut wrong = criteria(ReadPreferenceMode::Primary);
    wrong.read_preference.tag_sets = vec![[("dc".to_owned(), "ny".to_owned())].into()];
    let refused = world.topology.select(&wrong, &mut Random::new([0; 32]));
    assert!(matches!(refused, Err(SelectionError::InvalidReadPreference(_))));
}

#[test]
fn a_failed_selection_says_what_was_looked_for_and_what_each_server_said_last() {
    let mut world = World::new(&["a", "b", "c"]);
    world.checks();
    world.refuse("a");
    let hosts = ["a:27017", "b:27017", "c:27017"];
    world.hello("b", &secondary("b:27017", &hosts, None));
    assert_eq!(
        world
            .topology
            .selection_error_message(&criteria(ReadPreferenceMode::Primary)),
        "looked for a server to read from with mode primary; the topology is ReplicaSetNoPrimary (replica set \"rs\"): \
         a:27017 is Unknown (connection refused), b:27017 is RSSecondary, c:27017 is Unknown (has not answered yet)"
    );
}

#[test]
fn a_failed_selection_says_why_the_last_server_is_gone() {
    let mut settings = settings(&["a"]);
    settings.replica_set = Some("other".to_owned());
    let mut world = World::with(settings);
    world.checks();
    world.hello("a", &primary("a:27017", &["a:27017"]));
    let message = world
        .topology
        .selection_error_message(&criteria(ReadPreferenceMode::Primary));
    assert!(
        message.ends_with(
            "it has no servers; a:27017 was taken out: its replica set is named \"rs\", not \"other\""
        ),
        "{message}"
    );
}

#[test]
fn a_failed_selection_takes_one_short_line_whatever_the_servers_say() {
    let names: Vec<String> = (0..100).map(|number| format!("db{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(&names);
    for name in world.checks() {
        let message = "line one\nline two\r\u{1b}[31m ä".repeat(1000);
        world
            .topology
            .handle_check_failure(world.now, &address(&name), &message, true);
    }
    let message = world
        .topology
        .selection_error_message(&criteria(ReadPreferenceMode::Nearest));
    assert!(!message.chars().any(char::is_control));
    assert!(message.len() < 10_000, "{}", message.len());
    assert!(message.ends_with(" and 84 more"));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let refused = |change: fn(&mut changestream_core::topology::TopologySettings)| {
        let mut settings = settings(&["a", "b"]);
        change(&mut settings);
        let refused = Topology::new(settings).map_err(|error| error.to_string());
        refused.is_err_and(|reason| {
            reason.contains("hosts") || reason.contains("host is") || reason.contains("with")
        })
    };
    assert!(!refused(|_| {}));
    assert!(refused(|settings| settings.seeds.clear()));
    assert!(refused(|settings| settings.direct_connection = true));
    assert!(refused(|settings| settings.load_balanced = true));
    assert!(refused(|settings| {
        settings.seeds.pop();
        settings.load_balanced = true;
        settings.replica_set = Some("rs".to_owned());
    }));
    assert!(refused(|settings| {
        settings.seeds.pop();
        settings.load_balanced = true;
        settings.direct_connection = true;
    }));
    assert!(!refused(|settings| {
        settings.seeds.pop();
        settings.direct_connection = true;
    }));
    assert!(!refused(|settings| {
        settings.seeds.pop();
        settings.load_balanced = true;
    }));
}

#[test]
fn closing_takes_all_servers_out_and_is_the_last_event() {
    let mut settings = settings(&["a", "b"]);
    settings.record_events = true;
    let mut world = World::with(settings);
    while world.topology.poll_event().is_some() {}
    world.topology.close();
    world.topology.close();
    let events: Vec<_> = std::iter::from_fn(|| world.topology.poll_event()).collect();
    assert!(
        matches!(
            events.as_slice(),
            [
                TopologyEvent::ServerClosed { .. },
                TopologyEvent::ServerClosed { .. },
                TopologyEvent::DescriptionChanged { .. },
                TopologyEvent::Closed
            ]
        ),
        "{events:?}"
    );
    assert_eq!(world.checks(), [""; 0]);
}

#[test]
fn events_that_nobody_polls_do_not_pile_up_without_end() {
    let mut settings = settings(&["a"]);
    settings.record_events = true;
    let mut world = World::with(settings);
    for _ in 0..3_000 {
        world.hello("a", &mongos());
        world.refuse("a");
    }
    assert_eq!(std::iter::from_fn(|| world.topology.poll_event()).count(), 1024);
}
