//! Which of a server's addresses a stream is connected to.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use support::server::Server;
use support::{Connecting, World};

/// A world whose servers' names have these addresses; what becomes of each.
fn world(addresses: &[(&str, Connecting)]) -> World {
    let world = World::new(Server::new(1));
    let mut state = world.state();
    state.addresses = addresses
        .iter()
        .map(|(address, _)| address.parse().unwrap())
        .collect();
    state.of_endpoint = addresses
        .iter()
        .map(|(address, fate)| ((*address).to_owned(), *fate))
        .collect();
    drop(state);
    world
}

/// The addresses that were tried, and how many milliseconds after the first.
fn attempts(world: &World) -> Vec<(u128, String)> {
    let state = world.state();
    let first = state.attempts.first().map(|(at, _)| *at).unwrap();
    let attempts = state.attempts.iter();
    attempts
        .map(|(at, endpoint)| ((*at - first).as_millis(), endpoint.clone()))
        .collect()
}

#[test]
fn families_take_turns_ipv6_first_and_each_attempt_a_quarter_of_a_second_after_the_last() {
    let world = world(&[
        ("10.0.0.1:1", Connecting::Hang),
        ("10.0.0.2:1", Connecting::Open),
        ("10.0.0.3:1", Connecting::Hang),
        ("[fe80::1]:1", Connecting::Hang),
    ]);
    let stream = world.open();
    let expected = [(0, "[fe80::1]:1"), (250, "10.0.0.1:1"), (500, "10.0.0.2:1")];
    assert_eq!(
        attempts(&world),
        expected.map(|(at, endpoint)| (at, endpoint.to_owned()))
    );
    assert_eq!(
        world.state().abandoned.load(Ordering::Relaxed),
        2,
        "the losers are dropped"
    );
    drop(stream);
}

#[test]
fn an_address_that_fails_gives_way_at_once() {
    let world = world(&[
        ("[::1]:1", Connecting::Refuse),
        ("127.0.0.1:1", Connecting::Refuse),
        ("127.0.0.2:1", Connecting::Open),
    ]);
    let _stream = world.open();
    assert!(
        attempts(&world).iter().all(|(at, _)| *at == 0),
        "{:?}",
        attempts(&world)
    );
    assert_eq!(attempts(&world).len(), 3);
}

#[test]
fn an_earlier_attempt_may_still_win() {
    let world = world(&[
        ("[::1]:1", Connecting::OpenAfter(Duration::from_millis(300))),
        ("127.0.0.1:1", Connecting::Hang),
    ]);
    let begun = world.state().now;
    let _stream = world.open();
    assert_eq!(attempts(&world).len(), 2);
    assert!(world.state().now - begun < Duration::from_millis(400));
}

#[test]
fn where_none_can_be_connected_to_the_error_names_each() {
    let world = world(&[
        ("[::1]:1", Connecting::Refuse),
        ("127.0.0.1:1", Connecting::Refuse),
    ]);
    let mut stream = world.stream();
    let error = world.run(stream.opened()).unwrap_err().to_string();
    let each = "[::1]:1: connection refused; 127.0.0.1:1: connection refused";
    assert!(error.contains(each), "{error}");
}

#[test]
fn the_connect_timeout_holds_for_look_up_and_all_attempts_together() {
    for addresses in [
        vec![],
        vec![("[::1]:1", Connecting::Hang), ("127.0.0.1:1", Connecting::Hang)],
    ] {
        let world = world(&addresses);
        let mut stream = world.stream();
        let begun = world.state().now;
        let error = world.run(stream.opened()).unwrap_err().to_string();
        assert!(error.contains("connectTimeoutMS"), "{error}");
        assert!(world.state().now - begun >= Duration::from_secs(10));
    }
}

#[test]
fn an_address_that_the_name_has_twice_is_tried_once() {
    let twice: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let world = world(&[("127.0.0.1:1", Connecting::Refuse)]);
    world.state().addresses = vec![twice, twice];
    let mut stream = world.stream();
    let error = world.run(stream.opened()).unwrap_err().to_string();
    assert_eq!(
        error.matches("127.0.0.1:1: connection refused").count(),
        1,
        "{error}"
    );
}
