//! Exhaust cursors: one getMore, and one batch after the other.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]
#![allow(clippy::wildcard_enum_match_arm, reason = "tests panic on all else")]

use std::time::{Duration, Instant};

use bson::RawDocumentBuf;
use changestream_core::client::Demand;
use changestream_core::event::OperationType;
use changestream_core::random::Random;
use changestream_core::stream::{
    CommandReply, Patience, Retries, Role, Server, StreamInput, StreamMachine, StreamOutput,
};
use changestream_core::{Update, WatchOptions};
use changestream_sim::Deployment;
use changestream_tests::capture::Scenario;
use changestream_tests::recorded_stream::{Outcome, streams};
use changestream_tests::world::{World, collection, key_of};

fn exhaust() -> WatchOptions {
    let mut options = WatchOptions::default();
    options.exhaust = true;
    options.batch_size = Some(3);
    options
}

#[test]
fn one_get_more_brings_batch_after_batch() {
    let (mut world, stream) = World::watching_orders(exhaust());
    for round in 0..5 {
        world.insert_orders(round * 10..round * 10 + 10);
        for id in round * 10..round * 10 + 10 {
            assert_eq!(key_of(&world.event(stream)), id);
        }
    }
    assert_eq!(world.commands_named("getMore").len(), 1);
}

#[test]
fn empty_replies_of_an_exhaust_cursor_move_the_position() {
    let (mut world, stream) = World::watching_orders(exhaust());
    for _ in 0..3 {
        let before = world.now;
        let update = world.next_update(stream).unwrap().unwrap();
        assert!(matches!(update, Update::Idle(_)), "{update:?}");
        assert!(world.now - before < Duration::from_millis(1500));
        world.try_nothing(stream);
    }
    assert_eq!(world.commands_named("getMore").len(), 1);
}

#[test]
fn empty_replies_that_nobody_took_are_told_as_the_latest_of_them() {
    let (mut world, stream) = World::watching_orders(exhaust());
    world.next_update(stream).unwrap().unwrap();
    for number in 0..10 {
        world.insert("shop", "others", [bson::doc! { "_id": number }]);
        world.advance(Duration::from_millis(1100));
    }
    let latest = world.machine(stream).resume_token().cloned();
    let Update::Idle(idle) = world.next_update(stream).unwrap().unwrap() else {
        panic!("there was nothing else");
    };
    assert_eq!(idle.token, latest);
    assert_eq!(world.machine(stream).resume_token().cloned(), latest);
    let before = world.now;
    world.next_update(stream).unwrap().unwrap();
    assert!(world.now > before, "another one waited");
}

#[test]
fn a_mongos_that_knows_no_exhaust_is_asked_each_time() {
    let mut world = World::new(Deployment::sharded(2, 1), [3; 32]);
    let orders = collection("shop", "orders");
    let stream = world.watching(&orders, exhaust());
    world.insert_orders(0..7);
    for id in 0..7 {
        assert_eq!(key_of(&world.event(stream)), id);
    }
    assert!(world.commands_named("getMore").len() > 2);
}

#[test]
fn an_exhaust_cursor_that_is_cut_off_is_resumed_without_loss() {
    let (mut world, stream) = World::watching_orders(exhaust());
    world.insert_orders(0..10);
    for id in 0..5 {
        assert_eq!(key_of(&world.event(stream)), id);
    }
    let now = world.now;
    for member in 0..3 {
        world.network.reset(now, member);
    }
    world.insert_orders(10..12);
    for id in 5..12 {
        let (_, event) = world.resumes_until_event(stream);
        assert_eq!(key_of(&event), id);
    }
}

#[test]
fn a_stream_that_closes_amid_exhaust_replies_kills_its_cursor() {
    let (mut world, stream) = World::watching_orders(exhaust());
    world.insert_orders(0..1);
    world.event(stream);
    world.close(stream);
    world.advance(Duration::from_secs(5));
    assert_eq!(world.commands_named("killCursors").len(), 1);
}

/// What a real server sent to a raw client that allowed it.
#[test]
fn capture_exhaust_is_read_with_one_get_more_to_its_end() {
    let Some(folder) = changestream_tests::captures() else {
        println!("capture exhaust: SKIPPED, there are no captures");
        return;
    };
    let scenario = Scenario::load(&folder, "exhaust").unwrap();
    let [recorded] = &streams(&scenario)[..] else {
        panic!()
    };
    #[allow(clippy::disallowed_methods, reason = "the epoch of a fake clock")]
    let now = Instant::now();
    let mut machine = machine(now);
    let Some(StreamOutput::SelectServer { .. }) = machine.poll_output(now) else {
        panic!()
    };
    machine.handle_input(now, StreamInput::Ready(server()));
    let Some(StreamOutput::Send(_)) = machine.poll_output(now) else {
        panic!()
    };
    machine.handle_input(
        now,
        StreamInput::Reply(reply(recorded.aggregates[0].reply().unwrap())),
    );
    let Outcome::Reply { body, more, .. } = &recorded.get_mores[0].outcome else {
        panic!()
    };
    let mut replies: Vec<CommandReply> = std::iter::once(body).chain(more).map(reply).collect();
    let last = replies.len() - 1;
    for (index, reply) in replies.iter_mut().enumerate() {
        *reply = reply.clone().more_to_come(index < last);
    }
    let (mut events, mut idle, mut asked) = (Vec::new(), 0, 0);
    let mut replies = replies.into_iter();
    loop {
        machine.handle_input(now, StreamInput::Demand(Demand::Next));
        match machine.poll_output(now) {
            Some(StreamOutput::Update(Update::Change(event))) => events.push(event.operation_type().unwrap()),
            Some(StreamOutput::Update(Update::Idle(_))) => idle += 1,
            Some(StreamOutput::Update(Update::Invalidated { .. })) => {}
            Some(StreamOutput::Send(command)) => {
                assert!(command.exhaust_allowed);
                asked += 1;
            }
            Some(StreamOutput::End(result, _)) => break result.unwrap(),
            None => machine.handle_input(now, StreamInput::Reply(replies.next().unwrap())),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((asked, idle, events.len()), (1, 3, 10 + 490 + 1 + 2));
    assert_eq!(events[501..], [OperationType::Drop, OperationType::Invalidate]);
}

fn machine(now: Instant) -> StreamMachine {
    let retries = Retries {
        reads: true,
        overloads: 2,
        retargets: false,
    };
    let patience = Patience {
        open: Duration::from_secs(30),
        scan: Duration::from_secs(30),
        get_more: Duration::from_secs(10),
    };
    let scope = collection("capdb", "c");
    StreamMachine::new(&scope, &exhaust(), retries, patience, Random::new([1; 32]), now).unwrap()
}

fn server() -> Server {
    Server {
        address: "a:1".parse().unwrap(),
        max_wire_version: 9,
        supports_sessions: true,
        role: Role::Member,
        min_round_trip: Duration::ZERO,
    }
}

fn reply(body: &bson::Document) -> CommandReply {
    let body = RawDocumentBuf::try_from(body).unwrap().into_bytes();
    CommandReply::parse(body.into()).unwrap()
}
