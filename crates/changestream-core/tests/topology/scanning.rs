//! When which server is checked.

use std::time::Duration;

use changestream_core::topology::ServerType;

use crate::world::{World, address, mongos, primary, refusal, secondary, settings, standalone};

#[test]
fn the_first_scan_checks_each_seed_once() {
    let mut world = World::new(&["a", "b"]);
    assert!(world.topology.is_stale(world.now));
    assert_eq!(world.checks(), ["a:27017", "b:27017"]);
    assert_eq!(world.checks(), [""; 0]);
    assert_eq!(world.next_check_in(), None);
    assert!(world.topology.is_scanning());
}

#[test]
fn a_scan_ends_with_its_last_check_and_holds_for_the_heartbeat_frequency() {
    let mut world = World::new(&["a", "b"]);
    world.checks();
    world.hello("a", &mongos());
    assert!(world.topology.is_scanning());
    world.pass(100);
    world.hello("b", &mongos());
    assert!(!world.topology.is_scanning());
    world.pass(59_999);
    assert!(!world.topology.is_stale(world.now));
    assert_eq!(world.checks(), [""; 0]);
    world.pass(1);
    assert!(world.topology.is_stale(world.now));
    assert_eq!(world.checks(), ["a:27017", "b:27017"]);
}

#[test]
fn a_heartbeat_frequency_below_the_minimum_is_raised_to_it() {
    let mut settings = settings(&["a"]);
    settings.heartbeat_frequency = Duration::from_millis(1);
    let world = World::with(settings);
    assert_eq!(
        world.topology.settings().heartbeat_frequency,
        Duration::from_millis(500)
    );
}

#[test]
fn a_stale_topology_waits_for_the_minimum_pause_before_it_scans_again() {
    let mut world = World::new(&["a"]);
    world.checks();
    world.hello("a", &secondary("a:27017", &["a:27017"], None));
    world.topology.mark_stale();
    assert!(world.topology.is_stale(world.now));
    assert_eq!(world.checks(), [""; 0]);
    assert_eq!(world.next_check_in(), Some(500));
    world.pass(499);
    assert_eq!(world.checks(), [""; 0]);
    world.pass(1);
    assert_eq!(world.checks(), ["a:27017"]);
}

#[test]
fn marking_stale_during_a_scan_does_not_ask_for_another_one() {
    let mut world = World::new(&["a"]);
    world.checks();
    world.topology.mark_stale();
    world.hello("a", &standalone());
    assert!(!world.topology.is_stale(world.now));
}

#[test]
fn a_scan_begins_anew_for_those_that_have_answered_while_another_one_is_silent() {
    let mut world = World::new(&["a", "b"]);
    world.checks();
    assert_eq!(world.topology.scans_anew_at(), None, "nobody has answered");
    world.pass(200);
    world.hello("b", &mongos());
    let at = world.topology.scans_anew_at().expect("b has answered");
    assert_eq!(at - world.now, Duration::from_millis(300));
    world.pass(299);
    world.topology.scan_anew(world.now);
    assert_eq!(world.next_check_in(), None);
    world.pass(1);
    world.topology.scan_anew(world.now);
    assert_eq!(world.next_check_in(), Some(200), "each has its pause");
    world.pass(200);
    assert_eq!(world.checks(), ["b:27017"], "a is still being checked");
    world.hello("b", &mongos());
    world.refuse("a");
    assert!(!world.topology.is_scanning());
    assert_eq!(world.topology.scans_anew_at(), None);
}

#[test]
fn a_server_that_cannot_be_reached_is_left_alone_for_the_cooldown() {
    let mut world = World::new(&["a", "b"]);
    world.checks();
    world.refuse("a");
    world.hello("b", &mongos());
    world.topology.mark_stale();
    assert_eq!(world.next_check_in(), Some(500));
    world.pass(500);
    assert_eq!(world.checks(), ["b:27017"]);
    world.hello("b", &mongos());
    assert!(!world.topology.is_scanning());
    world.topology.mark_stale();
    world.pass(4_500);
    assert_eq!(world.checks(), ["b:27017", "a:27017"]);
}

#[test]
fn a_server_that_refuses_hello_is_asked_again_after_the_minimum_pause() {
    let mut world = World::new(&["a"]);
    world.checks();
    let changes = world.hello("a", &refusal(1234, &[]));
    assert!(changes.pool_cleared);
    world.topology.mark_stale();
    assert_eq!(world.next_check_in(), Some(500));
}

#[test]
fn a_known_server_that_cannot_be_reached_is_tried_once_more_at_once() {
    let mut world = World::new(&["a"]);
    world.checks();
    world.hello("a", &primary("a:27017", &["a:27017"]));
    world.pass(60_000);
    assert_eq!(world.checks(), ["a:27017"]);
    world.refuse("a");
    assert_eq!(world.server_type("a"), ServerType::Unknown);
    assert_eq!(world.checks(), ["a:27017"]);
    world.refuse("a");
    assert_eq!(world.checks(), [""; 0]);
    world.topology.mark_stale();
    assert_eq!(world.next_check_in(), Some(5_000));
}

#[test]
fn members_found_during_a_scan_are_checked_before_it_ends_the_possible_primary_first() {
    let mut world = World::new(&["b"]);
    assert_eq!(world.checks(), ["b:27017"]);
    let hosts = ["a:27017", "b:27017", "c:27017"];
    world.hello("b", &secondary("b:27017", &hosts, Some("c:27017")));
    assert_eq!(world.server_type("c"), ServerType::PossiblePrimary);
    assert_eq!(world.checks(), ["c:27017", "a:27017"]);
    world.hello("c", &primary("c:27017", &hosts));
    assert!(world.topology.is_scanning());
    world.hello("a", &secondary("a:27017", &hosts, Some("c:27017")));
    assert!(!world.topology.is_scanning());
}

#[test]
fn a_possible_primary_is_tried_before_its_cooldown_is_over() {
    let mut world = World::new(&["a", "b"]);
    world.checks();
    world.refuse("a");
    world.hello(
        "b",
        &secondary("b:27017", &["a:27017", "b:27017"], Some("a:27017")),
    );
    world.topology.mark_stale();
    world.pass(500);
    assert_eq!(world.checks(), ["a:27017", "b:27017"]);
}

#[test]
fn the_server_checked_longest_ago_is_checked_first() {
    let mut world = World::new(&["a", "b", "c"]);
    world.checks();
    world.hello("c", &mongos());
    world.pass(1);
    world.hello("a", &mongos());
    world.pass(1);
    world.hello("b", &mongos());
    world.pass(60_000);
    assert_eq!(world.checks(), ["c:27017", "a:27017", "b:27017"]);
}

#[test]
fn a_cancelled_check_counts_as_made_and_does_not_keep_the_scan_open() {
    let mut world = World::new(&["a"]);
    world.checks();
    world.topology.cancel_check(world.now, &address("a"));
    assert!(!world.topology.is_scanning());
    assert_eq!(world.checks(), [""; 0]);
    assert_eq!(world.server_type("a"), ServerType::Unknown);
}

#[test]
fn a_server_taken_out_while_it_is_checked_does_not_keep_the_scan_open() {
    let mut world = World::new(&["a", "b"]);
    world.checks();
    let changes = world.hello("a", &primary("a:27017", &["a:27017"]));
    assert_eq!(changes.removed, [address("b")]);
    assert!(!world.topology.is_scanning());
    assert_eq!(world.refuse("b"), Default::default());
    assert_eq!(world.servers(), ["a:27017"]);
}

#[test]
fn a_load_balancer_is_never_checked() {
    let mut settings = settings(&["a"]);
    settings.load_balanced = true;
    let mut world = World::with(settings);
    assert_eq!(world.server_type("a"), ServerType::LoadBalancer);
    world.topology.mark_stale();
    assert!(!world.topology.is_stale(world.now));
    assert_eq!(world.checks(), [""; 0]);
    assert_eq!(world.next_check_in(), None);
}

#[test]
fn at_the_promised_time_there_is_a_server_to_check_whatever_happened() {
    let mut random = changestream_core::random::Random::new([3; 32]);
    for _ in 0..200 {
        let mut world = World::new(&["a", "b", "c"]);
        let hosts = ["a:27017", "b:27017", "c:27017"];
        for _ in 0..100 {
            let names = world.checks();
            for name in &names {
                world.pass(random.below(700) as u64);
                match random.below(6) {
                    0 => world.refuse(name),
                    1 => world.hello(name, &primary(name, &hosts)),
                    2 => world.hello(name, &secondary(name, &hosts, Some("b:27017"))),
                    3 => world.hello(name, &refusal(91, &[])),
                    4 => world.hello(name, &refusal(462, &["SystemOverloadedError"])),
                    _ => {
                        world.topology.cancel_check(world.now, &address(name));
                        Default::default()
                    }
                };
            }
            world.topology.mark_stale();
            let Some(at) = world.topology.next_check_at(world.now) else {
                panic!("no check is under way and none is promised: {:?}", world.topology);
            };
            world.now = at;
            assert!(!world.topology.servers_to_check(at).is_empty());
        }
    }
}
