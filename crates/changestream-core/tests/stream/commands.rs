//! What a stream's commands hold, field by field.

use std::time::Duration;

use bson::{Bson, Document, Timestamp, doc};
use changestream_core::client::Demand;
use changestream_core::stream::{Expects, Role, Server, StreamInput, StreamOutput};
use changestream_core::{ReadConcern, ResumeToken, Session, Update, WatchOptions};

use super::{Failure, World, cursor, next_batch, options, stage, token_of, without_prefetch};

fn server(max_wire_version: i32, supports_sessions: bool) -> Server {
    Server {
        address: "a:1".parse().unwrap(),
        max_wire_version,
        supports_sessions,
        role: Role::Member,
        min_round_trip: Duration::ZERO,
    }
}

/// Opens with that reply, at that server. Returns the aggregate.
fn open_at(world: &mut World, server: Server, reply: Document) -> Document {
    world.expect_selection();
    world.input(StreamInput::Ready(server));
    let aggregate = world.expect_command();
    world.reply(reply);
    aggregate
}

fn get_more(world: &mut World) -> Document {
    world.demand(Demand::Next);
    world.expect_get_more()
}

/// Loses the connection, and opens anew at that server.
fn resume_at(world: &mut World, server: Server, reply: Document) {
    world.input(StreamInput::Failed(super::network_error()));
    world.expect_selection();
    world.input(StreamInput::Ready(server));
    assert!(world.expect_command().contains_key("killCursors"));
    assert!(world.expect_command().contains_key("aggregate"));
    world.reply(reply);
    while !matches!(world.expect_update(), Update::Idle(_)) {
        world.demand(Demand::Next);
    }
    world.demand(Demand::Next);
}

#[test]
fn each_option_has_its_place_in_the_aggregate() {
    let pipeline = vec![doc! { "$match": { "a": 1 } }, doc! { "$project": { "b": 0 } }];
    let mut world = World::new(options(|o| {
        o.pipeline.clone_from(&pipeline);
        o.collation = Some(doc! { "locale": "de", "strength": 2 });
        o.read_concern = Some(ReadConcern::new("majority"));
        o.show_expanded_events = Some(true);
        o.extra_stage_options = doc! { "showSystemEvents": true, "x": { "y": [1] } };
    }));
    let mut aggregate = world.open(cursor(1, "firstBatch", &[], Some("t0")));
    aggregate.remove("lsid");
    let mut stages = vec![doc! {
        "$changeStream": { "showExpandedEvents": true, "showSystemEvents": true, "x": { "y": [1] } },
    }];
    stages.extend(pipeline);
    assert_eq!(
        aggregate,
        doc! {
            "aggregate": "orders", "pipeline": stages, "collation": { "locale": "de", "strength": 2 }, "cursor": {},
            "readConcern": { "level": "majority" }, "$db": "shop",
        }
    );
}

#[test]
fn a_read_concern_is_sent_where_there_is_something_to_say() {
    let read_concern = |level: Option<&str>, after: Option<u32>| {
        let session = Session::with_id([1; 16]);
        if let Some(time) = after {
            session.advance_operation_time(Timestamp { time, increment: 1 });
        }
        let mut world = World::new(options(|o| {
            o.session = Some(session);
            o.read_concern = level.map(ReadConcern::new);
        }));
        let aggregate = world.open(cursor(1, "firstBatch", &[], Some("t0")));
        aggregate.get_document("readConcern").ok().cloned()
    };
    let after = Timestamp {
        time: 7,
        increment: 1,
    };
    assert_eq!(read_concern(None, None), None);
    assert_eq!(read_concern(Some("local"), None), Some(doc! { "level": "local" }));
    assert_eq!(
        read_concern(None, Some(7)),
        Some(doc! { "afterClusterTime": after })
    );
    assert_eq!(
        read_concern(Some("majority"), Some(7)),
        Some(doc! { "level": "majority", "afterClusterTime": after })
    );
}

#[test]
fn a_get_more_goes_to_the_namespace_that_the_server_named() {
    let mut world = World::new(without_prefetch(WatchOptions::default()));
    let mut reply = cursor(9, "firstBatch", &[], Some("t0"));
    let body = reply.get_document_mut("cursor").unwrap();
    body.insert("ns", "other.some.things");
    world.open(reply);
    let command = get_more(&mut world);
    assert_eq!(command.get_str("collection").unwrap(), "some.things");
    assert_eq!(command.get_str("$db").unwrap(), "other");
}

#[test]
fn a_get_more_is_as_the_server_that_it_goes_to_wants_it_whatever_the_last_one_was() {
    let opened = |reply: Document| {
        let mut world = World::new(without_prefetch(options(|o| o.comment = Some(Bson::Int32(5)))));
        open_at(&mut world, server(9, true), reply);
        let first = get_more(&mut world);
        assert!(
            first.contains_key("comment") && first.contains_key("lsid"),
            "{first}"
        );
        (world, first)
    };
    let same = || cursor(1, "firstBatch", &[], Some("t0"));

    let (mut world, first) = opened(same());
    resume_at(&mut world, server(9, true), same());
    assert_eq!(world.expect_get_more(), first);

    let (mut world, _) = opened(same());
    resume_at(&mut world, server(8, true), same());
    assert!(!world.expect_get_more().contains_key("comment"));

    let (mut world, _) = opened(same());
    resume_at(&mut world, server(9, false), same());
    assert!(!world.expect_get_more().contains_key("lsid"));

    let (mut world, _) = opened(same());
    let mut elsewhere = same();
    elsewhere
        .get_document_mut("cursor")
        .unwrap()
        .insert("ns", "shop.moved");
    resume_at(&mut world, server(9, true), elsewhere);
    assert_eq!(world.expect_get_more().get_str("collection").unwrap(), "moved");

    let (mut world, _) = opened(same());
    resume_at(
        &mut world,
        server(9, true),
        cursor(2, "firstBatch", &[], Some("t0")),
    );
    assert_eq!(world.expect_get_more().get_i64("getMore").unwrap(), 2);
}

#[test]
fn a_get_more_waits_no_longer_than_its_call_has_time() {
    let mut world = World::new(without_prefetch(options(|o| {
        o.timeout = Some(Duration::from_secs(1));
        o.max_await_time = Some(Duration::from_millis(500));
    })));
    world.open(cursor(1, "firstBatch", &[], Some("t0")));
    world.input(StreamInput::Begin);
    for (passed, wait) in [(0, 500), (300, 500), (500, 200), (100, 100)] {
        world.now += Duration::from_millis(passed);
        assert_eq!(get_more(&mut world).get_i64("maxTimeMS").unwrap(), wait);
        world.reply(next_batch(&[], Some("t0")));
        world.expect_update();
    }
}

#[test]
fn a_get_more_that_fetches_ahead_may_wait_as_long_as_the_user_said() {
    let mut world = World::new(options(|o| {
        o.timeout = Some(Duration::from_secs(1));
        o.max_await_time = Some(Duration::from_millis(500));
        o.prefetch_batches = 1;
    }));
    world.open(cursor(1, "firstBatch", &[], Some("t0")));
    world.input(StreamInput::Begin);
    get_more(&mut world);
    world.now += Duration::from_millis(900);
    world.reply(next_batch(&["e1"], Some("t1")));
    assert_eq!(world.expect_get_more().get_i64("maxTimeMS").unwrap(), 500);
    world.expect_event("e1");
}

#[test]
fn a_call_that_ends_before_its_get_more_was_sent_leaves_the_cursor_as_it_is() {
    let mut world = World::new(without_prefetch(options(|o| {
        o.timeout = Some(Duration::from_secs(1));
    })));
    world.open(cursor(1, "firstBatch", &[], Some("t0")));
    world.demand(Demand::Next);
    world.now += Duration::from_secs(1);
    world.input(StreamInput::Timeout);
    assert!(matches!(world.expect_update(), Update::TimedOut(_)));
    world.demand(Demand::Next);
    world.input(StreamInput::Timeout);
    assert_eq!(world.expect_get_more().get_i64("getMore").unwrap(), 1);
}

/// A server that is further away than a call has time.
#[test]
fn nothing_is_sent_that_would_be_answered_too_late() {
    let far = || Server {
        min_round_trip: Duration::from_millis(150),
        ..server(9, true)
    };
    let in_time = |timeout: u64| {
        World::new(without_prefetch(options(|o| {
            o.timeout = Some(Duration::from_millis(timeout))
        })))
    };
    let mut world = in_time(150);
    world.expect_selection();
    world.input(StreamInput::Ready(far()));
    let error = world.expect_end().unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(
        error.to_string().contains(
            "the aggregate was not sent: what is left of 150 ms (timeoutMS) is no longer than a round trip (150 ms)"
        ),
        "{error}"
    );
    assert_eq!(error.server(), Some(&"a:1".parse().unwrap()));

    let mut world = in_time(200);
    let aggregate = open_at(&mut world, far(), cursor(1, "firstBatch", &[], Some("t0")));
    assert_eq!(aggregate.get_i64("maxTimeMS").unwrap(), 50);
    world.input(StreamInput::Begin);
    get_more(&mut world);
    world.reply(next_batch(&[], Some("t0")));
    world.expect_update();
    world.now += Duration::from_millis(50);
    world.demand(Demand::Next);
    let Update::TimedOut(error) = world.expect_update() else {
        panic!("there is no time for a getMore")
    };
    assert!(error.to_string().contains("a getMore was not sent"), "{error}");
    world.input(StreamInput::Begin);
    get_more(&mut world);
    world.reply(super::failure(43, &[]));
    world.now += Duration::from_millis(50);
    world.expect_selection();
    world.expect_update();
    world.demand(Demand::Next);
    world.input(StreamInput::Ready(far()));
    let Update::TimedOut(error) = world.expect_update() else {
        panic!("there is no time for an aggregate")
    };
    assert!(
        error.to_string().contains("the aggregate was not sent"),
        "{error}"
    );
    world.input(StreamInput::Begin);
    world.demand(Demand::Next);
    world.expect_selection();
}

#[test]
fn where_sessions_are_not_known_none_is_sent_and_none_is_ended() {
    let mut world = World::new(without_prefetch(WatchOptions::default()));
    let reply = cursor(1, "firstBatch", &[], Some("t0"));
    let aggregate = open_at(&mut world, server(9, false), reply);
    assert!(!aggregate.contains_key("lsid"), "{aggregate}");
    assert!(!get_more(&mut world).contains_key("lsid"));
    let farewell = world.stream.close(None).unwrap();
    assert_eq!(farewell.commands.len(), 1);
    assert!(farewell.commands[0].get("killCursors").unwrap().is_some());
}

#[test]
fn a_session_that_was_given_is_an_error_where_sessions_are_not_known() {
    let mut world = World::new(options(|o| o.session = Some(Session::with_id([1; 16]))));
    world.expect_selection();
    world.input(StreamInput::Ready(server(9, false)));
    let error = world.expect_end().unwrap_err();
    assert!(error.to_string().contains("does not support sessions"), "{error}");
}

#[test]
fn a_session_that_was_given_learns_what_replies_say() {
    let session = Session::with_id([1; 16]);
    let mut world = World::new(options(|o| o.session = Some(session.clone())));
    assert_eq!(session.operation_time(), None);
    let mut reply = cursor(1, "firstBatch", &[], Some("t0"));
    let time = Timestamp {
        time: 100,
        increment: 1,
    };
    reply.insert("$clusterTime", doc! { "clusterTime": time });
    world.open(reply);
    assert_eq!(session.operation_time(), Some(time));
    assert_eq!(session.cluster_time().unwrap().time(), time);
}

#[test]
fn an_aggregate_that_starts_in_the_past_is_waited_for_as_long_as_a_scan_may_take() {
    let time = Timestamp {
        time: 5,
        increment: 1,
    };
    let within = |world: &mut World| loop {
        match world.poll() {
            Some(StreamOutput::Send(command)) if command.body.get("aggregate").unwrap().is_some() => {
                let Expects::Reply { within } = command.expects else {
                    panic!("an aggregate without reply")
                };
                return within.as_secs();
            }
            Some(StreamOutput::SelectServer { .. }) => world.ready(),
            Some(StreamOutput::Send(_)) => {}
            other => panic!("unexpected {other:?}"),
        }
    };
    let opening = |change: fn(&mut WatchOptions, ResumeToken, Timestamp)| {
        let mut world = World::new(without_prefetch(options(|o| change(o, token_of("s"), time))));
        let opening = within(&mut world);
        world.reply(cursor(1, "firstBatch", &[], None));
        get_more(&mut world);
        world.input(StreamInput::Failed(super::network_error()));
        (opening, within(&mut world))
    };
    assert_eq!(opening(|_, _, _| {}), (30, 300), "the first operationTime");
    assert_eq!(opening(|o, token, _| o.resume_after = Some(token)), (300, 300));
    assert_eq!(opening(|o, token, _| o.start_after = Some(token)), (300, 300));
    assert_eq!(
        opening(|o, _, time| o.start_at_operation_time = Some(time)),
        (300, 300)
    );
}

#[test]
fn with_a_limit_the_call_is_judged_and_without_any_a_silent_server_is_asked_again_more_patiently() {
    let within = |timeout: u64, tries: usize| {
        let mut world = World::new(without_prefetch(options(|o| {
            o.timeout = Some(Duration::from_secs(timeout));
        })));
        let mut patience = Vec::new();
        while patience.len() < tries {
            match world.poll() {
                Some(StreamOutput::SelectServer { .. }) => world.ready(),
                Some(StreamOutput::Send(command)) => {
                    let Expects::Reply { within } = command.expects else {
                        panic!("an aggregate without reply")
                    };
                    patience.push(within.as_secs());
                    world.input(StreamInput::Failed(changestream_core::Error::network(
                        "silent", true,
                    )));
                }
                None => {
                    world.now += Duration::from_secs(1);
                    world.input(StreamInput::Timeout);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        patience
    };
    assert_eq!(
        within(0, 9),
        [300, 600, 1200, 2400, 4800, 9600, 19_200, 19_200, 19_200]
    );
    assert!(within(100, 1)[0] > 365 * 24 * 3600);
}

#[test]
fn a_server_that_may_wait_for_years_is_waited_for_as_long() {
    let years = Duration::from_secs(5 * 365 * 24 * 3600);
    let mut world = World::opened(options(|o| o.max_await_time = Some(years)));
    world.demand(Demand::Next);
    let Some(StreamOutput::Send(command)) = world.poll() else {
        panic!("a getMore is due")
    };
    let within = years + Duration::from_secs(10);
    assert_eq!(command.expects, Expects::Reply { within });
}

#[test]
fn the_users_starting_point_is_kept_where_nothing_newer_is_known() {
    let mut world = World::new(without_prefetch(options(|o| {
        o.start_at_operation_time = Some(Timestamp {
            time: 5,
            increment: 6,
        });
    })));
    world.open(cursor(1, "firstBatch", &[], None));
    let again = world.resume_after(Failure::Network);
    assert_eq!(
        *stage(&again),
        doc! { "startAtOperationTime": Timestamp { time: 5, increment: 6 } },
        "not the operationTime of the reply, which is later"
    );
}

#[test]
fn events_of_the_first_batch_that_were_not_handed_over_are_not_passed_over_by_a_resume() {
    let mut world = World::new(without_prefetch(WatchOptions::default()));
    world.open(cursor(1, "firstBatch", &["e1"], None));
    world.expect_event("e1");
    let again = world.resume_after(Failure::Network);
    assert_eq!(*stage(&again), doc! { "resumeAfter": { "_data": "e1" } });

    let mut world = World::new(without_prefetch(WatchOptions::default()));
    world.open(cursor(1, "firstBatch", &[], Some("t0")));
    let again = world.resume_after(Failure::Network);
    assert_eq!(*stage(&again), doc! { "resumeAfter": { "_data": "t0" } });
}
