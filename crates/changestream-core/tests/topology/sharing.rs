//! What several streams of one client tell each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{RawDocumentBuf, rawdoc};
use changestream_core::ServerAddress;
use changestream_core::random::Random;
use changestream_core::topology::{ServerDescription, ServerType, Snapshot, TopologyType};

use crate::world::{World, address, elected, mongos, primary, refusal, secondary, settings};

const HOSTS: [&str; 3] = ["a:27017", "b:27017", "c:27017"];

#[test]
fn a_snapshot_can_be_sent_to_and_used_by_several_threads() {
    fn check<T: Send + Sync + Clone>() {}
    check::<Snapshot>();
}

#[test]
fn a_second_stream_knows_what_the_first_one_learned_and_need_not_scan() {
    let mut first = World::new(&["a"]);
    first.checks();
    first.hello("a", &primary("a:27017", &["a:27017"]));
    let mut second = World::from_snapshot(first.now, &["a"], &first.topology.snapshot());
    assert_eq!(second.topology.description(), first.topology.description());
    assert!(!second.topology.is_stale(second.now));
    second.pass(60_000);
    assert_eq!(second.checks(), ["a:27017"]);
}

#[test]
fn members_known_by_other_names_than_the_seeds_are_taken_over() {
    let mut shared = World::new(&["localhost"]).topology.snapshot();
    let mut stream = World::new(&["localhost"]);
    stream.checks();
    stream.hello("localhost", &primary("db1:27017", &["db1:27017"]));
    stream.checks();
    stream.hello("db1", &primary("db1:27017", &["db1:27017"]));
    shared.merge(&stream.topology.snapshot());
    assert_eq!(
        shared.description().topology_type,
        TopologyType::ReplicaSetWithPrimary
    );

    let mut failed = World::new(&["localhost"]);
    failed.now = stream.now;
    failed.checks();
    failed.refuse("localhost");
    failed.pass(1);
    stream.pass(2);
    stream.hello("db1", &primary("db1:27017", &["db1:27017"]));
    let changes = failed.topology.merge(&stream.topology.snapshot());
    assert_eq!(changes.added, [address("db1")]);
    assert_eq!(changes.removed, [address("localhost")]);
    assert_eq!(failed.server_type("db1"), ServerType::RsPrimary);
}

#[test]
fn what_is_known_of_the_wanted_replica_set_is_taken_over_and_of_another_is_not() {
    let mut known = World::new(&["localhost"]);
    known.checks();
    known.hello("localhost", &primary("db1:27017", &["db1:27017"]));
    known.checks();
    known.hello("db1", &primary("db1:27017", &["db1:27017"]));
    let merged = |set_name: &str| {
        let mut settings = settings(&["localhost"]);
        settings.replica_set = Some(set_name.to_owned());
        let mut world = World::with(settings);
        let changes = world.topology.merge(&known.topology.snapshot());
        (changes.description, world.servers())
    };
    assert_eq!(merged("rs"), (true, vec!["db1:27017".to_owned()]));
    assert_eq!(merged("other"), (false, vec!["localhost:27017".to_owned()]));
}

#[test]
fn nothing_is_taken_over_behind_a_load_balancer_or_from_who_knows_nothing() {
    let mut known = World::new(&["a"]);
    known.checks();
    known.hello("a", &primary("a:27017", &["a:27017"]));
    let mut settings = settings(&["a"]);
    settings.load_balanced = true;
    let mut world = World::with(settings);
    assert_eq!(
        world.topology.merge(&known.topology.snapshot()),
        Default::default()
    );
    assert_eq!(world.server_type("a"), ServerType::LoadBalancer);
    let ignorant = World::new(&["b"]).topology.snapshot();
    assert_eq!(known.topology.merge(&ignorant), Default::default());
    assert_eq!(known.servers(), ["a:27017"]);
}

#[test]
fn older_news_of_a_failure_do_not_undo_a_recovery() {
    let mut first = World::new(&["a"]);
    first.checks();
    first.refuse("a");
    let older = first.topology.snapshot();
    first.pass(10);
    first.hello("a", &primary("a:27017", &["a:27017"]));
    let mut known = first.topology.snapshot();
    known.merge(&older);
    assert_eq!(known.description(), first.topology.description());
    let mut merged = older.clone();
    merged.merge(&first.topology.snapshot());
    assert_eq!(merged.description(), first.topology.description());
}

#[test]
fn a_primary_of_an_older_election_does_not_come_back() {
    let mut old = World::new(&["a"]);
    let mut new = World::new(&["a"]);
    new.now = old.now;
    for (world, elected_one, election) in [(&mut old, "a", 1), (&mut new, "b", 2)] {
        world.checks();
        world.hello("a", &secondary("a:27017", &HOSTS, None));
        let me = format!("{elected_one}:27017");
        world.hello(elected_one, &elected(&me, &HOSTS, election));
    }
    // The stale primary answered after the new one did.
    old.pass(50);
    old.hello("a", &elected("a:27017", &HOSTS, 1));
    let mut merged = new.topology.snapshot();
    merged.merge(&old.topology.snapshot());
    let merged = merged.description();
    assert_eq!(merged.primary().unwrap().address, address("b"));
    assert_eq!(merged.max_election_id, new.topology.description().max_election_id);
}

#[test]
fn of_two_primaries_without_elections_the_one_seen_last_stays() {
    let without_election = |me: &str| {
        rawdoc! { "ok": 1, "isWritablePrimary": true, "setName": "rs", "hosts": HOSTS.iter().copied().collect::<bson::RawArrayBuf>(),
        "me": me, "maxWireVersion": 25 }
    };
    let mut old = World::new(&["a"]);
    let mut new = World::new(&["a"]);
    new.now = old.now;
    new.hello("a", &secondary("a:27017", &HOSTS, None));
    old.pass(5);
    old.hello("a", &without_election("a:27017"));
    new.pass(10);
    new.hello("b", &without_election("b:27017"));
    new.topology.merge(&old.topology.snapshot());
    assert_eq!(new.server_type("b"), ServerType::RsPrimary);
}

#[test]
fn a_server_that_another_stream_has_just_checked_is_not_checked_at_once() {
    let mut first = World::new(&["a", "b"]);
    first.checks();
    first.hello("a", &primary("a:27017", &["a:27017", "b:27017"]));
    assert!(first.topology.is_scanning());
    let mut second = World::from_snapshot(first.now, &["a", "b"], &first.topology.snapshot());
    assert!(second.topology.is_stale(second.now));
    assert_eq!(second.checks(), ["b:27017"]);
}

/// The description of `a` that stays where one stream knows the first and is told the second: the milliseconds at which
/// each was had, and the process and the count of its topologyVersion.
fn stays(ours: (u64, Option<(u8, i64)>), theirs: (u64, Option<(u8, i64)>)) -> u64 {
    let start = World::new(&["a"]).now;
    let knowing = |(at, version): (u64, Option<(u8, i64)>)| {
        let mut world = World::new(&["a"]);
        world.now = start;
        world.pass(at);
        world.checks();
        let mut reply = primary("a:27017", &["a:27017"]);
        if let Some((process, counter)) = version {
            let process = ObjectId::from_bytes([process; 12]);
            reply.append(
                bson::cstr!("topologyVersion"),
                rawdoc! { "processId": process, "counter": counter },
            );
        }
        world.hello("a", &reply);
        world
    };
    let mut world = knowing(ours);
    world.topology.merge(&knowing(theirs).topology.snapshot());
    let server = world.topology.server(&address("a")).unwrap();
    let at = server.last_update_time.unwrap() - start;
    u64::try_from(at.as_millis()).unwrap()
}

#[test]
fn the_servers_own_count_decides_which_news_are_newer_and_the_time_where_there_is_none() {
    let counted = |process, counter| Some((process, counter));
    assert_eq!(stays((10, None), (20, None)), 20);
    assert_eq!(stays((20, None), (10, None)), 20);
    assert_eq!(
        stays((20, counted(1, 5)), (10, counted(1, 6))),
        10,
        "a higher count"
    );
    assert_eq!(
        stays((10, counted(1, 6)), (20, counted(1, 5))),
        10,
        "a lower count"
    );
    assert_eq!(
        stays((10, counted(1, 5)), (20, counted(1, 5))),
        20,
        "an equal count"
    );
    assert_eq!(
        stays((20, counted(1, 5)), (10, counted(1, 5))),
        20,
        "an equal count"
    );
    assert_eq!(
        stays((10, counted(1, 9)), (20, counted(2, 1))),
        20,
        "a restarted server"
    );
    assert_eq!(
        stays((20, counted(1, 9)), (10, counted(2, 1))),
        20,
        "before it was restarted"
    );
    assert_eq!(stays((10, counted(1, 9)), (20, None)), 20);
}

#[test]
fn what_another_stream_has_checked_since_is_not_checked_again_before_the_minimum_pause() {
    let mut first = World::new(&["a"]);
    let mut second = World::new(&["a"]);
    second.now = first.now;
    for world in [&mut first, &mut second] {
        world.checks();
        world.hello("a", &primary("a:27017", &["a:27017"]));
    }
    for world in [&mut first, &mut second] {
        world.pass(60_000);
    }
    first.checks();
    first.hello("a", &primary("a:27017", &["a:27017"]));
    second.pass(100);
    second.topology.merge(&first.topology.snapshot());
    second.topology.mark_stale();
    assert_eq!(second.next_check_in(), Some(400));
}

#[test]
fn what_others_know_of_one_server_does_not_shorten_the_cooldown_of_another() {
    let mut first = World::new(&["a", "b"]);
    let mut second = World::new(&["a", "b"]);
    second.now = first.now;
    first.checks();
    first.refuse("a");
    second.checks();
    second.refuse("a");
    second.hello("b", &mongos());
    assert!(first.topology.merge(&second.topology.snapshot()).description);
    assert_eq!(first.server_type("b"), ServerType::Mongos);
    first.topology.cancel_check(first.now, &address("b"));
    let at = |millis| first.now + std::time::Duration::from_millis(millis);
    assert_eq!(first.topology.servers_to_check(at(500)), [address("b")]);
    assert_eq!(
        first.topology.servers_to_check(at(5_000)),
        [address("b"), address("a")]
    );
}

#[test]
fn merging_never_goes_back_in_time() {
    let mut random = Random::new([11; 32]);
    let start = World::new(&["a"]).now;
    for _ in 0..300 {
        let mut streams: Vec<World> = (0..3).map(|_| World::new(&HOSTS)).collect();
        let mut now = start;
        let mut counters = [0i64; 3];
        for _ in 0..40 {
            now += std::time::Duration::from_millis(random.below(900) as u64);
            let stream = &mut streams[random.below(3)];
            stream.now = now;
            act(stream, &mut random, &mut counters);
            let (from, to) = (random.below(3), random.below(3));
            let news = streams[from].topology.snapshot();
            let before = streams[to].topology.snapshot();
            streams[to].topology.merge(&news);
            expect_not_older(&before, &streams[to].topology.snapshot(), &news);
            let mut again = streams[to].topology.snapshot();
            again.merge(&news);
            assert_eq!(again.description(), streams[to].topology.description());
        }
    }
}

fn act(stream: &mut World, random: &mut Random, counters: &mut [i64; 3]) {
    let at = random.below(3);
    let name = HOSTS[at];
    if random.below(2) == 0 {
        counters[at] += 1;
    }
    let reply = match random.below(5) {
        0 => {
            stream.refuse(name);
            return;
        }
        1 => refusal(11602, &[]),
        2 => elected(name, &HOSTS, random.below(5) as u8),
        _ => secondary(name, &HOSTS, Some(HOSTS[random.below(3)])),
    };
    stream.hello(name, &versioned(reply, counters[at]));
}

fn versioned(mut reply: RawDocumentBuf, counter: i64) -> RawDocumentBuf {
    let process = ObjectId::from_bytes([1; 12]);
    let version = rawdoc! { "processId": process, "counter": counter };
    reply.append(bson::cstr!("topologyVersion"), version);
    reply
}

/// Of each server the newer one of two views stays, unless a newer election makes it stale.
fn expect_not_older(before: &Snapshot, after: &Snapshot, news: &Snapshot) {
    let election = |snapshot: &Snapshot| {
        let description = snapshot.description();
        (description.max_election_id, description.max_set_version)
    };
    assert!(election(after) >= election(before));
    assert!(election(after) >= election(news));
    let servers = |snapshot: &Snapshot| -> BTreeMap<ServerAddress, Arc<ServerDescription>> {
        snapshot.description().servers.clone()
    };
    let earlier = servers(before);
    for (address, server) in servers(after) {
        let Some(earlier) = earlier.get(&address) else {
            continue;
        };
        let marked_stale = server.error.as_ref().is_some_and(|error| error.contains("stale"));
        let counted = earlier
            .topology_version
            .zip(server.topology_version)
            .map(|(earlier, later)| (earlier.counter, later.counter));
        let in_order = match counted {
            Some((earlier, later)) => earlier <= later,
            None => earlier.last_update_time <= server.last_update_time,
        };
        assert!(in_order || marked_stale, "{earlier:?} became {server:?}");
    }
}
