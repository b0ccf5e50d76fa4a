//! Which servers belong to the deployment: the rules in short, each with what is said of a server that it takes out.

use bson::oid::ObjectId;
use bson::{RawDocumentBuf, rawdoc};
use changestream_core::topology::{SelectionCriteria, ServerType, TopologyType};

use crate::world::{World, address, elected, mongos, primary, refusal, secondary, standalone};

const HOSTS: [&str; 2] = ["a:27017", "b:27017"];

/// A set of `a`, its primary, and `b`.
fn with_primary() -> World {
    let mut world = World::new(&["a", "b"]);
    world.checks();
    world.hello("a", &primary("a:27017", &HOSTS));
    world
}

/// Has all servers but these vanish, so that the reason of the last that was taken out is told.
fn last_removal(world: &mut World) -> String {
    for name in world.servers() {
        world.refuse(&name);
    }
    world
        .topology
        .selection_error_message(&SelectionCriteria::default())
}

fn in_another_set(mut reply: RawDocumentBuf) -> RawDocumentBuf {
    reply.append(bson::cstr!("setName"), "other");
    reply
}

#[test]
fn a_sharded_cluster_has_no_other_servers_than_mongos() {
    for other in [
        standalone(),
        primary("b:27017", &HOSTS),
        secondary("b:27017", &HOSTS, None),
    ] {
        let mut world = World::new(&["a", "b"]);
        world.checks();
        world.hello("a", &mongos());
        assert_eq!(world.hello("b", &other).removed, [address("b")]);
        assert_eq!(world.topology.description().topology_type, TopologyType::Sharded);
        let message = last_removal(&mut world);
        assert!(message.contains("b:27017 was taken out: it is "), "{message}");
        assert!(message.ends_with(", not a mongos"), "{message}");
    }
}

#[test]
fn a_replica_set_has_no_other_servers_than_its_members() {
    for known in [primary("a:27017", &HOSTS), secondary("a:27017", &HOSTS, None)] {
        for (other, why) in [
            (mongos(), "it is Mongos, not a member of a replica set"),
            (standalone(), "it is Standalone, not a member of a replica set"),
            (
                in_another_set(secondary("b:27017", &HOSTS, None)),
                "its replica set is named \"other\", not \"rs\"",
            ),
            (
                in_another_set(primary("b:27017", &HOSTS)),
                "its replica set is named \"other\", not \"rs\"",
            ),
            (
                secondary("z:27017", &HOSTS, None),
                "the replica set knows it as z:27017",
            ),
        ] {
            let mut world = World::new(&["a", "b"]);
            world.checks();
            world.hello("a", &known);
            let changes = world.hello("b", &other);
            assert_eq!(changes.removed, [address("b")], "{why}");
            let message = last_removal(&mut world);
            assert!(
                message.ends_with(&format!("b:27017 was taken out: {why}")),
                "{message}"
            );
        }
    }
}

#[test]
fn a_member_of_its_set_by_its_own_name_stays() {
    let mut world = with_primary();
    assert_eq!(
        world
            .hello("b", &secondary("b:27017", &HOSTS, Some("a:27017")))
            .removed,
        []
    );
    assert_eq!(world.server_type("b"), ServerType::RsSecondary);
    assert_eq!(
        world.topology.description().topology_type,
        TopologyType::ReplicaSetWithPrimary
    );
}

#[test]
fn a_primary_that_turns_secondary_leaves_the_set_without_one() {
    let mut world = with_primary();
    world.hello("a", &secondary("a:27017", &HOSTS, Some("b:27017")));
    assert_eq!(
        world.topology.description().topology_type,
        TopologyType::ReplicaSetNoPrimary
    );
    assert_eq!(world.server_type("b"), ServerType::PossiblePrimary);
}

#[test]
fn a_primary_whose_own_name_is_another_is_what_the_members_take_it_for() {
    let mut world = World::new(&["a"]);
    world.checks();
    let changes = world.hello("a", &primary("b:27017", &["b:27017"]));
    assert_eq!(
        (changes.added, changes.removed),
        (vec![address("b")], vec![address("a")])
    );
    let message = last_removal(&mut world);
    assert!(
        message.contains("the primary a:27017 does not list it as a member"),
        "{message}"
    );
}

/// What a server says, with its own count of its changes.
fn counted(mut reply: RawDocumentBuf, counter: i64) -> RawDocumentBuf {
    let process = ObjectId::from_bytes([1; 12]);
    let version = rawdoc! { "processId": process, "counter": counter };
    reply.append(bson::cstr!("topologyVersion"), version);
    reply
}

#[test]
fn what_a_server_counts_when_it_refuses_is_held_against_what_comes_next() {
    let mut world = World::new(&["a"]);
    world.checks();
    world.hello("a", &counted(refusal(91, &[]), 6));
    assert!(
        !world
            .hello("a", &counted(primary("a:27017", &["a:27017"]), 5))
            .description
    );
    assert_eq!(world.server_type("a"), ServerType::Unknown);
    assert!(
        world
            .hello("a", &counted(primary("a:27017", &["a:27017"]), 7))
            .description
    );
    assert_eq!(world.server_type("a"), ServerType::RsPrimary);
}

#[test]
fn a_view_that_the_server_counts_as_older_changes_nothing() {
    let mut world = World::new(&["a"]);
    world.checks();
    world.hello("a", &counted(primary("a:27017", &["a:27017"]), 5));
    let older = counted(secondary("a:27017", &["a:27017"], None), 4);
    assert!(!world.hello("a", &older).description);
    assert_eq!(world.server_type("a"), ServerType::RsPrimary);
    let newer = counted(secondary("a:27017", &["a:27017"], None), 6);
    assert!(world.hello("a", &newer).description);
    assert_eq!(world.server_type("a"), ServerType::RsSecondary);
}

/// Whether `b`, which claims to be the primary by that electionId and setVersion, is believed where `a` was it by the first.
fn believed(wire_version: i32, first: (Option<u8>, Option<i64>), second: (Option<u8>, Option<i64>)) -> bool {
    let claim = |me: &str, (election, set_version): (Option<u8>, Option<i64>)| {
        let hosts: bson::RawArrayBuf = HOSTS.iter().copied().collect();
        let mut reply = rawdoc! { "ok": 1, "isWritablePrimary": true, "setName": "rs", "hosts": hosts, "me": me,
        "maxWireVersion": wire_version };
        if let Some(election) = election {
            reply.append(bson::cstr!("electionId"), ObjectId::from_bytes([election; 12]));
        }
        if let Some(version) = set_version {
            reply.append(bson::cstr!("setVersion"), version);
        }
        reply
    };
    let mut world = World::new(&["a", "b"]);
    world.checks();
    world.hello("a", &claim("a:27017", first));
    world.hello("b", &claim("b:27017", second));
    let believed = world.server_type("b") == ServerType::RsPrimary;
    let other = if believed { "a" } else { "b" };
    let server = world.topology.server(&address(other)).unwrap();
    assert_eq!(
        server.server_type,
        ServerType::Unknown,
        "one of them is the primary"
    );
    let why = server.error.clone().unwrap();
    if believed {
        assert_eq!(
            why,
            "primary marked stale due to discovery of newer primary b:27017"
        );
    } else {
        assert!(
            why.starts_with("primary marked stale due to electionId/setVersion mismatch, ("),
            "{why}"
        );
    }
    believed
}

#[test]
fn from_6_0_on_of_two_primaries_that_of_the_later_election_is_believed() {
    for wire_version in [17, 25] {
        let first = (Some(2), Some(2));
        assert!(!believed(wire_version, first, (Some(1), Some(3))));
        assert!(!believed(wire_version, first, (Some(2), Some(1))));
        assert!(!believed(wire_version, first, (None, Some(9))));
        assert!(believed(wire_version, first, (Some(2), Some(2))));
        assert!(believed(wire_version, first, (Some(2), Some(3))));
        assert!(believed(wire_version, first, (Some(3), Some(1))));
    }
}

#[test]
fn before_6_0_of_two_primaries_that_of_the_later_configuration_is_believed() {
    for wire_version in [8, 16] {
        let first = (Some(2), Some(2));
        assert!(!believed(wire_version, first, (Some(3), Some(1))));
        assert!(!believed(wire_version, first, (Some(1), Some(2))));
        assert!(believed(wire_version, first, (Some(2), Some(2))));
        assert!(believed(wire_version, first, (Some(1), Some(3))));
        assert!(believed(wire_version, first, (Some(3), Some(2))));
        assert!(
            believed(wire_version, first, (None, Some(1))),
            "one of the two is missing"
        );
    }
}

#[test]
fn a_stale_primary_is_told_with_both_elections() {
    let mut world = World::new(&["a", "b"]);
    world.checks();
    world.hello("a", &elected("a:27017", &HOSTS, 2));
    world.hello("b", &elected("b:27017", &HOSTS, 1));
    let server = world.topology.server(&address("b")).unwrap();
    assert_eq!(
        server.error.as_deref().unwrap(),
        "primary marked stale due to electionId/setVersion mismatch, (000000000000000000000001, 1) is stale compared \
         to (000000000000000000000002, 1)"
    );
    let mut reply = rawdoc! { "ok": 1, "isWritablePrimary": true, "setName": "rs", "me": "b:27017", "maxWireVersion": 25 };
    reply.append(
        bson::cstr!("hosts"),
        HOSTS.iter().copied().collect::<bson::RawArrayBuf>(),
    );
    world.hello("b", &reply);
    let server = world.topology.server(&address("b")).unwrap();
    assert!(
        server
            .error
            .as_deref()
            .unwrap()
            .contains("mismatch, (null, null) is stale")
    );
}
