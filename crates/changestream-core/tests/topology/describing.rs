//! What descriptions say, and when two say the same.

use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{DateTime, rawdoc};
use changestream_core::topology::{
    ServerDescription, ServerType, TopologyDescription, TopologyType, TopologyVersion,
};

use crate::world::{World, address, primary, secondary, settings};

const HOSTS: [&str; 2] = ["a:27017", "b:27017"];

fn replica_set() -> World {
    let mut world = World::new(&["a"]);
    world.checks();
    world.hello("a", &primary("a:27017", &HOSTS));
    world.hello("b", &secondary("b:27017", &HOSTS, Some("a:27017")));
    world
}

type Change = fn(&mut TopologyDescription);

fn server(description: &mut TopologyDescription) -> &mut ServerDescription {
    Arc::make_mut(description.servers.get_mut(&address("b")).unwrap())
}

#[test]
fn descriptions_that_differ_in_anything_but_times_do_not_say_the_same() {
    let world = replica_set();
    let one = world.topology.description();
    let differences: [(&str, Change); 18] = [
        ("type", |d| d.topology_type = TopologyType::ReplicaSetNoPrimary),
        ("set name", |d| d.set_name = Some("other".to_owned())),
        ("election", |d| d.max_election_id = None),
        ("set version", |d| d.max_set_version = Some(2)),
        ("compatibility", |d| d.compatibility_error = Some("no".to_owned())),
        ("sessions", |d| d.logical_session_timeout_minutes = Some(1)),
        ("a server less", |d| {
            d.servers.remove(&address("b"));
        }),
        ("a server more", |d| {
            d.servers
                .insert(address("c"), ServerDescription::unknown(address("c")).into());
        }),
        ("address", |d| server(d).address = address("c")),
        ("server type", |d| server(d).server_type = ServerType::RsOther),
        ("error", |d| server(d).error = Some("no".to_owned())),
        ("wire versions", |d| server(d).max_wire_version = 21),
        ("me", |d| server(d).me = None),
        ("hosts", |d| server(d).hosts.clear()),
        ("tags", |d| {
            server(d).tags.insert("dc".to_owned(), "ny".to_owned());
        }),
        ("the server's set name", |d| server(d).set_name = None),
        ("primary", |d| server(d).primary = None),
        ("topology version", |d| {
            server(d).topology_version = Some(TopologyVersion {
                process_id: ObjectId::from_bytes([1; 12]),
                counter: 1,
            });
        }),
    ];
    assert!(one.says_the_same_as(one));
    for (what, change) in differences {
        let mut other = TopologyDescription::clone(one);
        change(&mut other);
        assert!(!one.says_the_same_as(&other), "{what}");
        assert!(!other.says_the_same_as(one), "{what}");
    }
    let mut other = TopologyDescription::clone(one);
    server(&mut other).round_trip.add(Duration::from_secs(1));
    server(&mut other).last_write_date = Some(DateTime::from_millis(5));
    server(&mut other).last_update_time = None;
    assert!(one.says_the_same_as(&other), "times do not count");
}

#[test]
fn a_hello_that_says_nothing_new_changes_nothing_that_a_selection_could_see() {
    let mut world = replica_set();
    world.pass(10);
    let again = world.hello("a", &primary("a:27017", &HOSTS));
    assert!(!again.description);
    let mut moved = secondary("b:27017", &HOSTS, Some("a:27017"));
    moved.append(bson::cstr!("tags"), rawdoc! { "dc": "ny" });
    assert!(world.hello("b", &moved).description);
}

#[test]
fn a_direct_connection_to_a_member_of_another_set_is_not_used_and_says_why() {
    let direct = |set_name: Option<&str>| {
        let mut settings = settings(&["a"]);
        settings.direct_connection = true;
        settings.replica_set = set_name.map(str::to_owned);
        let mut world = World::with(settings);
        world.checks();
        world.hello("a", &secondary("a:27017", &["a:27017"], None));
        let server = world.topology.server(&address("a")).unwrap().clone();
        (server.server_type, server.error)
    };
    assert_eq!(direct(None), (ServerType::RsSecondary, None));
    assert_eq!(direct(Some("rs")), (ServerType::RsSecondary, None));
    let why = "its replica set is named \"rs\", not \"other\"".to_owned();
    assert_eq!(direct(Some("other")), (ServerType::Unknown, Some(why)));
}

#[test]
fn a_direct_connection_that_fails_is_unknown_for_what_failed_whatever_set_is_wanted() {
    let mut settings = settings(&["a"]);
    settings.direct_connection = true;
    settings.replica_set = Some("rs".to_owned());
    let mut world = World::with(settings);
    world.checks();
    world.refuse("a");
    let server = world.topology.server(&address("a")).unwrap();
    assert_eq!(server.error.as_deref(), Some("connection refused"));
}

#[test]
fn what_a_server_is_follows_from_its_hello() {
    let of = |reply: bson::RawDocumentBuf| {
        changestream_core::topology::HelloReply::parse(&reply)
            .unwrap()
            .server_type()
    };
    assert_eq!(of(rawdoc! { "ok": 0, "msg": "isdbgrid" }), ServerType::Unknown);
    assert_eq!(of(rawdoc! { "ok": 1 }), ServerType::Standalone);
    assert_eq!(of(rawdoc! { "ok": 1, "msg": "hello" }), ServerType::Standalone);
    assert_eq!(of(rawdoc! { "ok": 1, "msg": "isdbgrid" }), ServerType::Mongos);
    assert_eq!(of(rawdoc! { "ok": 1, "isreplicaset": true }), ServerType::RsGhost);
    let member = |role: &str| {
        let mut reply = rawdoc! { "ok": 1, "setName": "rs" };
        reply.append(bson::raw::CString::try_from(role).unwrap(), true);
        of(reply)
    };
    assert_eq!(member("isWritablePrimary"), ServerType::RsPrimary);
    assert_eq!(member("secondary"), ServerType::RsSecondary);
    assert_eq!(member("arbiterOnly"), ServerType::RsArbiter);
    assert_eq!(member("hidden"), ServerType::RsOther);
    assert_eq!(member("passive"), ServerType::RsOther);
    assert_eq!(
        of(rawdoc! { "ok": 1, "setName": "rs", "hidden": true, "secondary": true }),
        ServerType::RsOther
    );
}
