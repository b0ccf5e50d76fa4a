//! Exhaust cursors: replies that nobody asks for.

use bson::Document;
use bson::raw::RawDocumentBuf;
use changestream_core::client::Demand;
use changestream_core::stream::{CommandReply, StreamInput, StreamOutput};
use changestream_core::{Update, WatchOptions};

use super::{World, cursor, next_batch, options, token_of, without_prefetch};

fn pushed(world: &mut World, reply: &Document, more_to_come: bool) {
    let body = RawDocumentBuf::try_from(reply).unwrap().into_bytes();
    let reply = CommandReply::parse(body.into())
        .unwrap()
        .more_to_come(more_to_come);
    world.input(StreamInput::Reply(reply));
}

fn asks_for_exhaust(world: &mut World) -> bool {
    world.demand(Demand::Next);
    match world.poll() {
        Some(StreamOutput::Send(command)) => command.exhaust_allowed,
        other => panic!("expected a getMore, got {other:?}"),
    }
}

#[test]
fn while_more_is_to_come_nothing_is_asked_for() {
    let mut world = World::opened(options(|o| o.exhaust = true));
    assert!(asks_for_exhaust(&mut world));
    pushed(&mut world, &next_batch(&["e1"], Some("t1")), true);
    world.expect_event("e1");
    world.demand(Demand::Next);
    world.expect_nothing();
    pushed(&mut world, &next_batch(&["e2"], Some("t2")), false);
    world.expect_event("e2");
    assert_eq!(world.token(), Some(token_of("t2")));
    assert!(asks_for_exhaust(&mut world), "the server pushes no more");
}

#[test]
fn a_get_more_allows_no_exhaust_unless_that_is_wanted() {
    let mut world = World::opened(WatchOptions::default());
    assert!(!asks_for_exhaust(&mut world));
}

#[test]
fn a_cursor_that_ends_has_nothing_to_follow_whatever_its_last_reply_says() {
    let mut world = World::opened(options(|o| o.exhaust = true));
    assert!(asks_for_exhaust(&mut world));
    pushed(&mut world, &cursor(0, "nextBatch", &["inv"], Some("inv")), true);
    world.expect_event("inv");
    world.demand(Demand::Next);
    world.expect_update();
    assert!(world.expect_end().is_ok());
}

#[test]
fn of_idle_replies_that_nobody_takes_the_last_says_all() {
    let mut world = World::opened(options(|o| o.exhaust = true));
    assert!(asks_for_exhaust(&mut world));
    world.demand(Demand::None);
    for token in ["t1", "t2", "t3"] {
        pushed(&mut world, &next_batch(&[], Some(token)), true);
    }
    assert_eq!(world.token(), Some(token_of("t3")), "nothing waits before them");
    world.demand(Demand::Next);
    let Update::Idle(idle) = world.expect_update() else {
        panic!("nothing came but idle replies")
    };
    assert_eq!(idle.token, Some(token_of("t3")));
    world.demand(Demand::Next);
    world.expect_nothing();
}

#[test]
fn an_idle_reply_moves_the_token_only_when_what_came_before_it_is_handed_over() {
    let mut world = World::opened(options(|o| o.exhaust = true));
    assert!(asks_for_exhaust(&mut world));
    world.demand(Demand::None);
    pushed(&mut world, &next_batch(&["e1"], Some("t1")), true);
    pushed(&mut world, &next_batch(&[], Some("t2")), true);
    assert_eq!(world.token(), Some(token_of("t0")));
    world.expect_event("e1");
    assert_eq!(world.token(), Some(token_of("t1")));
    world.demand(Demand::Next);
    world.expect_update();
    assert_eq!(world.token(), Some(token_of("t2")));
}

#[test]
fn a_reply_that_was_not_asked_for_is_ignored() {
    let mut world = World::opened(without_prefetch(WatchOptions::default()));
    pushed(&mut world, &next_batch(&["e1"], Some("t1")), false);
    assert!(!world.stream.has_buffered());
    assert_eq!(world.token(), Some(token_of("t0")));
}
