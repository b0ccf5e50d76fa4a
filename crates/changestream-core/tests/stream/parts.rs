//! Replies of which some events come before the rest.

use bson::doc;
use bson::raw::RawDocumentBuf;
use changestream_core::client::Demand;
use changestream_core::stream::{StreamInput, StreamOutput};
use changestream_core::{Error, ErrorKind, Update, WatchOptions};

use super::{World, cursor, failure, next_batch, options, stage, token_of};

/// Elements of a batch, as they stand in it.
fn elements(tokens: &[&str]) -> Vec<u8> {
    let reply = RawDocumentBuf::try_from(&next_batch(tokens, None)).unwrap();
    let batch = reply
        .get_document("cursor")
        .unwrap()
        .get_array("nextBatch")
        .unwrap();
    let bytes = batch.as_bytes();
    bytes[4..bytes.len() - 1].to_vec()
}

impl World {
    /// A stream whose first getMore is on its way, and whose consumer waits.
    fn waiting(options: WatchOptions) -> Self {
        let mut world = Self::new(options);
        world.open(cursor(1, "firstBatch", &[], Some("t0")));
        world.demand(Demand::Next);
        assert!(world.asks_in_parts());
        world
    }

    fn begins(&mut self, tokens: &[&str]) {
        self.input(StreamInput::Events(elements(tokens).into()));
    }

    fn asks_in_parts(&mut self) -> bool {
        match self.poll() {
            Some(StreamOutput::Send(command)) => {
                assert!(command.body.get_i64("getMore").is_ok(), "{:?}", command.body);
                command.in_parts
            }
            other => panic!("expected a getMore, got {other:?}"),
        }
    }
}

#[test]
fn events_are_handed_over_while_the_rest_of_their_reply_is_on_its_way() {
    let mut world = World::waiting(options(|o| o.prefetch_batches = 0));
    world.begins(&["e1", "e2"]);
    world.expect_event("e1");
    assert_eq!(world.token(), Some(token_of("e1")));
    world.demand(Demand::Next);
    world.expect_event("e2");
    assert_eq!(
        world.token(),
        Some(token_of("e2")),
        "more follows: no other token is known"
    );
    world.demand(Demand::Next);
    world.expect_nothing();
    world.reply(next_batch(&["e3", "e4"], Some("t4")));
    world.expect_event("e3");
    world.demand(Demand::Next);
    world.expect_event("e4");
    assert_eq!(world.token(), Some(token_of("t4")));
    assert_eq!(world.stream.stats().events, 4);
    assert_eq!(world.stream.stats().batches, 1, "it was one reply");
}

#[test]
fn the_next_batch_is_asked_for_when_the_first_events_of_one_are_there() {
    let mut world = World::waiting(WatchOptions::default());
    world.begins(&["e1", "e2"]);
    assert!(world.asks_in_parts());
    world.expect_event("e1");
    world.begins(&["e3"]);
    world.demand(Demand::None);
    world.expect_nothing();
    world.reply(next_batch(&["e4"], Some("t4")));
    world.expect_nothing();
    world.begins(&["e5"]);
    world.expect_nothing();
    for token in ["e2", "e3", "e4"] {
        world.demand(Demand::Next);
        world.expect_event(token);
    }
    assert_eq!(world.token(), Some(token_of("t4")));
    world.demand(Demand::Next);
    assert!(
        world.asks_in_parts(),
        "now the one that arrives is the only one held"
    );
    world.expect_event("e5");
    world.reply(next_batch(&["e6"], None));
    world.demand(Demand::Next);
    world.expect_event("e6");
}

#[test]
fn nothing_is_asked_for_ahead_that_does_not_fit_into_the_window() {
    let mut world = World::waiting(options(|o| o.prefetch_bytes = 10));
    world.begins(&["e1", "e2"]);
    world.expect_event("e1");
    world.demand(Demand::None);
    world.expect_nothing();
    let mut exhausting = World::waiting(options(|o| o.exhaust = true));
    exhausting.begins(&["e1", "e2"]);
    exhausting.expect_event("e1");
    exhausting.demand(Demand::None);
    exhausting.expect_nothing();
}

#[test]
fn a_stream_that_lost_its_peer_in_the_middle_of_a_reply_resumes_behind_the_last_event_that_came() {
    for prefetch in [0, 1] {
        let mut world = World::waiting(options(|o| o.prefetch_batches = prefetch));
        world.begins(&["e1", "e2"]);
        if prefetch > 0 {
            assert!(world.asks_in_parts());
        }
        world.expect_event("e1");
        world.input(StreamInput::Failed(Error::network("cut", false)));
        world.demand(Demand::Next);
        world.expect_event("e2");
        world.demand(Demand::Next);
        world.expect_selection();
        assert!(matches!(world.expect_update(), Update::Resuming(_)));
        world.ready();
        assert!(world.expect_command().contains_key("killCursors"));
        let aggregate = world.expect_command();
        assert_eq!(
            stage(&aggregate).get_document("resumeAfter").unwrap(),
            &doc! { "_data": "e2" }
        );
    }
}

#[test]
fn a_reply_with_events_that_says_that_it_failed_ends_the_stream_behind_them() {
    let mut world = World::waiting(WatchOptions::default());
    world.begins(&["e1"]);
    assert!(world.asks_in_parts());
    world.reply(failure(189, &["ResumableChangeStreamError"]));
    world.expect_event("e1");
    world.demand(Demand::Next);
    let error = world.expect_end().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Protocol { .. }), "{error}");
    assert!(error.resume_token().is_some());
}

#[test]
fn a_cursor_may_end_with_a_reply_behind_which_the_next_batch_was_asked_for() {
    let mut world = World::waiting(WatchOptions::default());
    world.begins(&["e1"]);
    assert!(world.asks_in_parts());
    world.reply(cursor(0, "nextBatch", &["e2"], Some("t2")));
    world.reply(failure(43, &[]));
    world.expect_event("e1");
    world.demand(Demand::Next);
    world.expect_event("e2");
    world.demand(Demand::Next);
    assert!(world.expect_end().is_ok());
}

#[test]
fn the_answer_to_what_was_asked_for_ahead_is_judged_by_itself() {
    let mut world = World::waiting(WatchOptions::default());
    world.begins(&["e1"]);
    assert!(world.asks_in_parts());
    world.reply(next_batch(&["e2"], Some("t2")));
    world.reply(failure(43, &[]));
    world.expect_event("e1");
    world.demand(Demand::Next);
    world.expect_event("e2");
    world.demand(Demand::Next);
    world.expect_selection();
    let Update::Resuming(_) = world.expect_update() else {
        panic!("the cursor is gone")
    };
}

#[test]
fn calls_with_a_time_limit_get_whole_replies() {
    let mut world = World::new(options(|o| {
        o.prefetch_batches = 0;
        o.timeout = Some(std::time::Duration::from_secs(1));
    }));
    world.open(cursor(1, "firstBatch", &[], Some("t0")));
    world.demand(Demand::Next);
    assert!(!world.asks_in_parts());
}

#[test]
fn what_is_no_event_among_those_that_have_come_is_told_in_its_place() {
    let mut world = World::waiting(options(|o| o.prefetch_batches = 0));
    let mut broken = elements(&["e1", "e2"]);
    let at = elements(&["e1"]).len();
    broken[at] = 2;
    world.input(StreamInput::Events(broken.into()));
    world.expect_event("e1");
    world.demand(Demand::Next);
    let error = world.expect_end().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Protocol { .. }), "{error}");
}
