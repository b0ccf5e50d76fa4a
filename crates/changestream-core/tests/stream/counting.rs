//! What a stream has done so far, and how far behind it is.

use std::time::Duration;

use bson::{Timestamp, doc};
use changestream_core::WatchOptions;
use changestream_core::client::Demand;
use changestream_core::stream::StreamStats;

use super::{Failure, World, cursor, next_batch, without_prefetch};

fn at(time: u32) -> Option<Timestamp> {
    Some(Timestamp { time, increment: 1 })
}

/// The token of a place in the log at that second of cluster time.
fn token_at(time: u32) -> String {
    format!("82{time:08X}00000001")
}

#[test]
fn batches_with_and_without_events_and_resumes_are_counted() {
    let mut world = World::new(without_prefetch(WatchOptions::default()));
    world.open(cursor(1, "firstBatch", &["e1"], Some("t1")));
    world.expect_event("e1");
    world.demand(Demand::Next);
    world.expect_get_more();
    world.reply(next_batch(&["e2", "e3"], Some("t3")));
    let counts = |stats: StreamStats| (stats.events, stats.batches, stats.empty_batches, stats.resumes);
    assert_eq!(counts(world.stream.stats()), (1, 2, 0, 0));
    world.expect_event("e2");
    world.expect_event("e3");
    for empty in 1..3 {
        world.demand(Demand::Next);
        world.expect_get_more();
        world.reply(next_batch(&[], Some("t4")));
        world.expect_update();
        assert_eq!(counts(world.stream.stats()), (3, 2, empty, 0));
    }
    world.resume_after(Failure::Network);
    world.reply(cursor(2, "firstBatch", &[], Some("t4")));
    assert_eq!(counts(world.stream.stats()), (3, 2, 3, 1));
}

#[test]
fn the_lag_is_how_far_the_newest_end_of_the_log_is_ahead_of_the_token() {
    let mut world = World::new(without_prefetch(WatchOptions::default()));
    assert_eq!(world.stream.stats().lag(), None);
    world.open(cursor(1, "firstBatch", &[], Some(&token_at(95))));
    let stats = world.stream.stats();
    assert_eq!((stats.operation_time, stats.position_time), (at(100), at(95)));
    assert_eq!(stats.lag(), Some(Duration::from_secs(5)));
    for (operation_time, newest, lag) in [(90, 100, 4), (130, 130, 34), (120, 130, 34)] {
        world.demand(Demand::Next);
        world.expect_get_more();
        let mut reply = next_batch(&[], Some(&token_at(96)));
        reply.insert("operationTime", at(operation_time));
        world.reply(reply);
        world.expect_update();
        let stats = world.stream.stats();
        assert_eq!(stats.operation_time, at(newest), "it never goes back");
        assert_eq!(stats.lag(), Some(Duration::from_secs(lag)));
    }
    world.demand(Demand::Next);
    world.expect_get_more();
    let mut reply = next_batch(&[], None);
    reply.insert(
        "cursor",
        doc! { "id": 1_i64, "nextBatch": [], "postBatchResumeToken": { "_data": "82" } },
    );
    world.reply(reply);
    assert_eq!(world.stream.stats().lag(), None, "a token of another form");
}
