//! The loop against a scripted server: how bytes move, when time counts, and what a dropped future leaves behind.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod support;

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use changestream_driver::{ErrorKind, Update};
use futures_util::StreamExt;
use support::server::{Server, number};
use support::{AWAIT_TIME, Connecting, World};

/// The numbers of the next events.
fn take(world: &World, stream: &mut changestream_driver::ChangeStream<World>, count: usize) -> Vec<usize> {
    (0..count)
        .map(|_| number(world.run(stream.next()).unwrap().unwrap().resume_token()))
        .collect()
}

fn up_to(last: usize) -> Vec<usize> {
    (1..=last).collect()
}

#[test]
fn events_come_in_order_and_once() {
    let world = World::new(Server::new(250));
    let mut stream = world.open();
    assert_eq!(take(&world, &mut stream, 250), up_to(250));
    assert_eq!(number(stream.resume_token().unwrap()), 250);
}

#[test]
fn reads_cut_anywhere_give_the_same_events() {
    for size in [1, 2, 3, 7, 15, 16, 17, 100, 4096] {
        let world = World::new(Server::new(20));
        world.state().read_at_most = size;
        let mut stream = world.open();
        assert_eq!(take(&world, &mut stream, 20), up_to(20), "reads of {size}");
    }
}

#[test]
fn partial_writes_keep_their_offset() {
    for size in [1, 2, 3, 15, 16, 17, 100] {
        let world = World::new(Server::new(20));
        world.state().write_at_most = size;
        let mut stream = world.open();
        assert_eq!(take(&world, &mut stream, 20), up_to(20), "writes of {size}");
    }
}

#[test]
fn a_future_dropped_after_each_pending_poll_loses_nothing() {
    let world = World::new(Server::new(150));
    {
        let mut state = world.state();
        state.server.batch = 7;
        state.read_at_most = 300;
        state.read_waits = true;
        state.write_at_most = 100;
    }
    let mut stream = world.stream();
    let mut seen = Vec::new();
    let mut dropped = 0;
    while seen.len() < 150 {
        match world.poll_and_drop(stream.next()) {
            Poll::Ready(event) => seen.push(number(event.unwrap().unwrap().resume_token())),
            Poll::Pending => dropped += 1,
        }
        // Callable at any time, and never ahead of what was handed over.
        let token = stream.resume_token().map_or(0, number);
        assert_eq!(token, seen.len());
        assert!(stream.is_alive());
        let _ = stream.stats();
    }
    assert_eq!(seen, up_to(150));
    assert!(dropped > 50, "only {dropped} futures were dropped");
}

#[test]
fn methods_may_alternate_and_be_dropped_in_any_order() {
    let world = World::new(Server::new(60));
    world.state().server.batch = 5;
    world.state().read_at_most = 200;
    let mut stream = world.stream();
    let mut seen = Vec::new();
    for turn in 0..100_000 {
        match turn % 4 {
            0 => {
                if let Poll::Ready(event) = world.poll_and_drop(stream.next()) {
                    seen.push(event.unwrap().unwrap());
                }
            }
            1 => {
                if let Poll::Ready(event) = world.poll_and_drop(stream.try_next()) {
                    seen.extend(event.unwrap());
                }
            }
            2 => {
                if let Poll::Ready(batch) = world.poll_and_drop(stream.next_batch()) {
                    seen.extend(batch.unwrap().unwrap());
                }
            }
            _ => {
                if let Poll::Ready(Some(Ok(Update::Change(event)))) =
                    world.poll_and_drop(stream.next_update())
                {
                    seen.push(event);
                }
            }
        }
        if seen.len() == 60 {
            break;
        }
    }
    let seen: Vec<_> = seen.iter().map(|event| number(event.resume_token())).collect();
    assert_eq!(seen, up_to(60));
}

#[test]
fn a_deadline_is_judged_after_what_the_socket_holds_was_read() {
    let world = World::new(Server::new(0));
    let mut stream = world.open();
    assert!(world.poll_and_drop(stream.next()).is_pending());
    // An event comes, and nobody polls for an hour.
    world.state().server.changes = 1;
    world.pass(Duration::from_secs(3_600));
    let opened = world.state().opened;
    match world.run(stream.next_update()).unwrap().unwrap() {
        Update::Change(event) => assert_eq!(number(event.resume_token()), 1),
        Update::Idle(_) => assert_eq!(take(&world, &mut stream, 1), [1]),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        world.state().opened,
        opened,
        "nothing was wrong with the connection"
    );
}

#[test]
fn a_deadline_is_judged_after_the_runtime_has_looked_at_its_sockets_again() {
    let world = World::new(Server::new(0));
    let mut stream = world.open();
    assert!(world.poll_and_drop(stream.next()).is_pending());
    // An event comes while the task does something else for an hour, and the runtime has no turn in between.
    world.state().server.changes = 1;
    world.pass(Duration::from_secs(3_600));
    world.state().doze();
    let opened = world.state().opened;
    assert_eq!(take(&world, &mut stream, 1), [1]);
    assert_eq!(
        world.state().opened,
        opened,
        "nothing was wrong with the connection"
    );
}

#[test]
fn a_silent_server_is_found_by_the_deadline_and_the_stream_resumes() {
    let world = World::new(Server::new(3));
    let mut stream = world.open();
    assert_eq!(take(&world, &mut stream, 3), up_to(3));
    assert!(world.poll_and_drop(stream.next()).is_pending());
    let silent = world.state().now;
    world.state().mute = true;
    let resuming = loop {
        match world.run(stream.next_update()).unwrap().unwrap() {
            Update::Resuming(resuming) => break resuming,
            Update::Idle(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(resuming.cause.is_resumable() || matches!(resuming.cause.kind(), ErrorKind::Network { .. }));
    let waited = world.state().now - silent;
    assert!(
        waited >= AWAIT_TIME && waited < Duration::from_secs(60),
        "{waited:?}"
    );
    world.state().mute = false;
    world.state().server.changes = 5;
    assert_eq!(take(&world, &mut stream, 2), [4, 5]);
}

#[test]
fn a_peer_that_never_stops_sending_cannot_put_a_deadline_off_for_ever() {
    let world = World::new(Server::new(0));
    let mut stream = world.open();
    assert!(world.poll_and_drop(stream.next()).is_pending());
    // The server answers hello, and not the killCursors that comes next.
    assert!(
        world
            .poll_and_drop(stream.close_within(Duration::from_secs(2)))
            .is_pending()
    );
    world.state().mute = true;
    assert!(world.poll_and_drop(stream.close()).is_pending());
    world.pass(Duration::from_secs(3));
    let before = world.state().reads;
    world.state().flood = true;
    world.run(stream.close()).unwrap();
    let reads = world.state().reads - before;
    assert!((1_000..200_000).contains(&reads), "{reads}");
}

#[test]
fn a_server_that_cannot_be_reached_is_an_error_in_time() {
    for connecting in [Connecting::Refuse, Connecting::Hang] {
        let world = World::new(Server::new(0));
        world.state().connecting = connecting;
        let before = world.state().now;
        let opening = world.client().watch().open();
        assert!(world.run(opening).is_err());
        let waited = world.state().now - before;
        assert!(waited <= Duration::from_secs(60), "{waited:?}");
    }
}

#[test]
fn a_lost_connection_loses_no_event() {
    let world = World::new(Server::new(50));
    world.state().server.batch = 4;
    let mut stream = world.open();
    let mut seen = Vec::new();
    while seen.len() < 50 {
        seen.extend(take(&world, &mut stream, 1));
        if seen.len() % 10 == 0 {
            world.state().cut();
        }
    }
    assert_eq!(seen, up_to(50));
}

#[test]
fn one_poll_does_a_bounded_amount_of_work_and_wakes_itself() {
    let world = World::new(Server::new(100));
    {
        let mut state = world.state();
        state.server.payload = 1_000;
        state.read_at_most = 1;
    }
    let mut stream = world.open();
    world.pass(Duration::from_millis(1));
    let mut polls = 0;
    loop {
        let before = world.state().reads;
        let polled = stream.poll_event(&mut Context::from_waker(Waker::noop()));
        assert!(world.state().reads - before <= 200, "too much for one poll");
        if polled.is_ready() {
            break;
        }
        polls += 1;
        world.step();
        assert!(polls < 1_000_000);
    }
    assert_eq!(number(stream.resume_token().unwrap()), 1);
}

#[test]
fn a_batch_is_all_that_is_there_without_the_server() {
    let world = World::new(Server::new(250));
    let mut stream = world.open();
    let mut seen = Vec::new();
    while seen.len() < 250 {
        let batch = world.run(stream.next_batch()).unwrap().unwrap();
        assert!(!batch.is_empty());
        assert!(!stream.has_buffered());
        seen.extend(batch.iter().map(|event| number(event.resume_token())));
        assert_eq!(stream.resume_token().map(number), seen.last().copied());
    }
    assert_eq!(seen, up_to(250));
}

#[test]
fn try_next_returns_when_one_round_trip_brought_nothing() {
    let world = World::new(Server::new(1));
    let mut stream = world.open();
    assert!(world.run(stream.try_next()).unwrap().is_some());
    let before = world.state().now;
    assert!(world.run(stream.try_next()).unwrap().is_none());
    assert!(world.state().now - before <= 2 * AWAIT_TIME);
    assert!(stream.is_alive());
    world.state().server.changes = 2;
    assert_eq!(take(&world, &mut stream, 1), [2]);
}

#[test]
fn without_prefetch_one_try_next_is_one_get_more_however_often_it_is_dropped() {
    let world = World::new(Server::new(0));
    let watch = world.client().watch().prefetch_batches(0);
    let mut stream = world.run(watch.open()).unwrap();
    let get_mores = || {
        world
            .state()
            .server
            .heard()
            .iter()
            .filter(|name| **name == "getMore")
            .count()
    };
    assert_eq!(get_mores(), 0);
    for round in 1..=3 {
        assert!(world.run(stream.try_next()).unwrap().is_none());
        assert_eq!(get_mores(), round);
    }
    let mut dropped = 0;
    while world.poll_and_drop(stream.try_next()).is_pending() {
        dropped += 1;
    }
    assert!(dropped >= 2, "{dropped}");
    assert_eq!(get_mores(), 4);
}

#[test]
fn an_idle_stream_says_so_and_moves_its_token_on() {
    let world = World::new(Server::new(0));
    let mut stream = world.open();
    for _ in 0..3 {
        match world.run(stream.next_update()).unwrap().unwrap() {
            Update::Idle(idle) => assert_eq!(idle.token.as_ref(), stream.resume_token()),
            other => panic!("{other:?}"),
        }
    }
    assert!(stream.resume_token().is_some());
}

#[test]
fn an_invalidated_stream_ends_once_and_stays_ended() {
    let world = World::new(Server::new(2));
    world.state().server.invalidate = true;
    let mut stream = world.open();
    let mut events = 0;
    while let Some(event) = world.run(StreamExt::next(&mut stream)) {
        event.unwrap();
        events += 1;
    }
    assert_eq!(events, 3, "the invalidate event is an event");
    assert!(!stream.is_alive());
    assert!(world.run(stream.next()).is_none());
    let error = world.run(stream.try_next()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed));
    assert_eq!(world.run(stream.close()).unwrap().as_ref().map(number), Some(3));
}

#[test]
fn a_loop_of_try_next_ends_with_the_stream() {
    let world = World::new(Server::new(2));
    world.state().server.invalidate = true;
    let mut stream = world.open();
    let mut events = 0;
    while stream.is_alive() {
        events += usize::from(world.run(stream.try_next()).unwrap().is_some());
    }
    assert_eq!(events, 3);
}

#[test]
fn what_the_server_refuses_is_the_error_of_opening() {
    let world = World::new(Server::new(1));
    world.state().server.fail_aggregate = Some(40_573);
    let opening = world.client().collection("shop", "orders").watch().open();
    let error = world.run(opening).unwrap_err();
    assert_eq!(error.code(), Some(40_573), "{error}");
    assert_eq!(world.state().connections(), 0);
}

#[test]
fn an_error_is_told_once_and_kept_for_try_next() {
    let world = World::new(Server::new(1));
    world.state().server.fail_aggregate = Some(286);
    let mut stream = world.stream();
    let error = world.run(stream.next()).unwrap().unwrap_err();
    assert_eq!(error.code(), Some(286));
    assert!(world.run(stream.next()).is_none());
    assert!(!stream.is_alive());
    assert_eq!(world.run(stream.try_next()).unwrap_err().code(), Some(286));
    assert!(world.run(stream.close()).is_ok(), "it was told");
}

#[test]
fn closing_kills_the_cursor_and_drops_every_connection() {
    let world = World::new(Server::new(5));
    let mut stream = world.open();
    assert_eq!(take(&world, &mut stream, 5), up_to(5));
    let token = world.run(stream.close()).unwrap();
    assert_eq!(token.as_ref().map(number), Some(5));
    assert!(world.state().server.heard().contains(&"killCursors"));
    assert_eq!(world.state().connections(), 0);
    assert!(!stream.is_alive());
    assert!(world.run(stream.next()).is_none());
}

#[test]
fn closing_a_stream_whose_server_is_silent_takes_no_longer_than_its_limit() {
    let world = World::new(Server::new(5));
    let mut stream = world.open();
    assert_eq!(take(&world, &mut stream, 5), up_to(5));
    world.state().mute = true;
    let before = world.state().now;
    let token = world.run(stream.close_within(Duration::from_secs(2))).unwrap();
    assert_eq!(token.as_ref().map(number), Some(5));
    assert!(world.state().now - before <= Duration::from_secs(2));
    assert_eq!(world.state().connections(), 0);
}

#[test]
fn a_dropped_close_goes_on_with_the_next_one() {
    let world = World::new(Server::new(5));
    let mut stream = world.open();
    world.state().write_at_most = 10;
    let token = loop {
        if let Poll::Ready(token) = world.poll_and_drop(stream.close()) {
            break token.unwrap();
        }
    };
    assert_eq!(token, stream.resume_token().cloned());
    assert_eq!(world.state().connections(), 0);
}

#[test]
fn dropping_a_stream_closes_its_sockets() {
    let world = World::new(Server::new(5));
    let stream = world.open();
    assert!(world.state().connections() > 0);
    drop(stream);
    assert_eq!(world.state().connections(), 0);
}

#[test]
fn a_second_stream_starts_with_what_the_first_has_learned() {
    let world = World::new(Server::new(5));
    let client = world.client();
    let first = world.run(client.watch().open()).unwrap();
    let mut second = world
        .run(client.collection("shop", "orders").watch().open())
        .unwrap();
    drop(first);
    assert_eq!(take(&world, &mut second, 5), up_to(5));
}

#[test]
fn equal_seeds_give_equal_commands() {
    let commands = || {
        let world = World::new(Server::new(30));
        let mut stream = world.open();
        take(&world, &mut stream, 30);
        world.run(stream.close()).unwrap();
        std::mem::take(&mut world.state().server.commands)
    };
    let first = commands();
    assert!(first.len() >= 3);
    assert_eq!(first, commands());
}

#[test]
#[cfg(not(feature = "tls"))]
fn a_client_that_asks_for_tls_is_refused() {
    let options = "mongodb://db1/?tls=true"
        .parse::<changestream_driver::ConnectionString>()
        .unwrap()
        .options;
    let error = changestream_driver::Client::with_mode(World::new(Server::new(0)), options).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidArgument { .. }));
    assert!(
        error
            .to_string()
            .contains("TLS is not built in: enable the feature"),
        "{error}"
    );
}

#[test]
#[cfg(not(feature = "dns"))]
fn a_client_that_leaves_its_servers_to_dns_is_refused() {
    let options = "mongodb+srv://cluster.example.com/?tls=false"
        .parse::<changestream_driver::ConnectionString>()
        .unwrap()
        .options;
    let error = changestream_driver::Client::with_mode(World::new(Server::new(0)), options).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidArgument { .. }));
    assert!(error.to_string().contains("enable the feature `dns`"), "{error}");
}

#[test]
fn options_that_contradict_each_other_make_no_client() {
    let mut options = "mongodb://db1"
        .parse::<changestream_driver::ConnectionString>()
        .unwrap()
        .options;
    options.load_balanced = true;
    options.replica_set = Some("rs0".to_owned());
    let error = changestream_driver::Client::with_mode(World::new(Server::new(0)), options).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidArgument { .. }));
}

#[test]
fn a_client_knows_the_database_that_its_connection_string_names() {
    let options = "mongodb://db1/shop"
        .parse::<changestream_driver::ConnectionString>()
        .unwrap()
        .options;
    let client = changestream_driver::Client::with_mode(World::new(Server::new(0)), options).unwrap();
    assert_eq!(client.default_database().unwrap().name(), "shop");
    assert!(World::new(Server::new(0)).client().default_database().is_none());
}

#[test]
fn a_stream_and_a_client_can_cross_threads() {
    fn is_send<T: Send>(_: &T) {}
    let world = World::new(Server::new(0));
    let mut stream = world.stream();
    is_send(&stream);
    is_send(&world.client());
    is_send(&stream.next());
    is_send(&world.client().watch().open());
}

#[test]
fn a_consumer_who_was_prompt_and_then_pauses_for_long_loses_no_connection() {
    let longest = AWAIT_TIME + Duration::from_secs(10);
    for pause in [longest, longest + Duration::from_millis(700), longest * 100] {
        let world = World::new(Server::new(0));
        let mut stream = world.open();
        for change in 1..=3 {
            world.state().server.changes = change;
            assert_eq!(take(&world, &mut stream, 1), [change]);
        }
        world.pass(pause);
        world.state().server.changes = 4;
        assert_eq!(take(&world, &mut stream, 1), [4], "after {pause:?}");
        assert_eq!(stream.stats().resumes, 0, "after {pause:?}");
        let state = world.state();
        let heard = state.server.heard();
        let opened = heard.iter().filter(|name| **name == "aggregate").count();
        assert_eq!(opened, 1, "after {pause:?}");
    }
}

#[test]
fn the_get_more_that_fetches_ahead_waits_for_a_prompt_consumer_and_for_no_other() {
    let world = World::new(Server::new(0));
    let mut stream = world.open();
    let mut heard = Vec::new();
    for (change, pause) in [
        (1, Duration::ZERO),
        (2, Duration::ZERO),
        (3, Duration::from_millis(1)),
        (4, Duration::ZERO),
    ] {
        world.pass(pause);
        world.state().server.changes = change;
        assert_eq!(take(&world, &mut stream, 1), [change]);
        // The server hears what was written by now.
        world.step();
        let state = world.state();
        heard.push(
            state
                .server
                .heard()
                .iter()
                .filter(|name| **name == "getMore")
                .count(),
        );
    }
    let [first, prompt, late, again] = heard[..] else {
        panic!("{heard:?}");
    };
    assert_eq!(first, 2, "nobody knows the consumer yet");
    assert_eq!(prompt, first, "he is back at once");
    assert_eq!(
        late,
        prompt + 2,
        "he took his time: what waited, and the next one before the event"
    );
    assert_eq!(again, late, "he is back at once again");
}
