//! Events that have arrived, taken one by one without a demand.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use changestream_core::client::{Demand, Input};
use changestream_core::{ErrorKind, ResumeToken, Update, WatchOptions};

use super::network::{Network, failure, next_batch, primary};

fn token(name: &str) -> ResumeToken {
    doc! { "_data": name }.try_into().unwrap()
}

/// A batch of these events that ends at the token `end`.
fn batch(events: &[&str]) -> Document {
    let mut reply = next_batch(7, events);
    let cursor = reply.get_document_mut("cursor").unwrap();
    cursor.insert("postBatchResumeToken", doc! { "_data": "end" });
    reply
}

/// A stream that was given the first of these events and holds the others.
fn holding(events: &[&str]) -> Network {
    let (mut network, get_more) = Network::waiting();
    network.answer(&get_more, &batch(events));
    assert!(matches!(network.updates[..], [Update::Change(_)]));
    network
}

fn take(network: &mut Network) -> Option<ResumeToken> {
    let event = network.machine.take_ready()?;
    Some(event.resume_token().clone())
}

#[test]
fn all_but_the_last_of_a_batch_are_taken_in_order_and_each_is_where_the_stream_stands() {
    let mut network = holding(&["e1", "e2", "e3", "e4"]);
    for name in ["e2", "e3"] {
        assert_eq!(take(&mut network), Some(token(name)));
        assert_eq!(network.machine.resume_token(), Some(&token(name)));
    }
    assert_eq!(
        take(&mut network),
        None,
        "with the last the batch's token is reached"
    );
    network.demand(Demand::Next);
    let Some(Update::Change(last)) = network.updates.last() else {
        panic!("no event: {:?}", network.updates)
    };
    assert_eq!(*last.resume_token(), token("e4"));
    assert_eq!(network.machine.resume_token(), Some(&token("end")));
    assert_eq!(take(&mut network), None);
}

#[test]
fn what_is_handed_over_is_counted_whichever_way_it_goes() {
    let size = |name: &str| {
        let event = doc! { "_id": { "_data": name }, "operationType": "insert" };
        RawDocumentBuf::try_from(&event).unwrap().as_bytes().len() as u64
    };
    let mut network = holding(&["e1", "e22", "e333", "e4444"]);
    let mut bytes = size("e1");
    let counted = |network: &Network| (network.machine.stats().events, network.machine.stats().bytes);
    assert_eq!(counted(&network), (1, bytes));
    for (number, name) in [(2, "e22"), (3, "e333")] {
        assert_eq!(take(&mut network), Some(token(name)));
        bytes += size(name);
        assert_eq!(counted(&network), (number, bytes));
    }
    network.demand(Demand::Next);
    bytes += size("e4444");
    assert_eq!(counted(&network), (4, bytes));
    let stats = network.machine.stats();
    assert_eq!((stats.batches, stats.empty_batches, stats.resumes), (1, 0, 0));
}

#[test]
fn after_an_event_was_taken_a_stream_that_began_with_start_after_resumes_with_resume_after() {
    let mut options = WatchOptions::default();
    options.prefetch_batches = 0;
    options.start_after = Some(token("s"));
    let mut network = Network::with("mongodb://a:1,b:1/?replicaSet=rs", None, options);
    network.answer_hello("a:1", &primary("a:1", 1));
    let aggregate = network.expect("a:1", "aggregate");
    let mut first = batch(&["e1", "e2"]);
    let cursor = first.get_document_mut("cursor").unwrap();
    let events = cursor.remove("nextBatch").unwrap();
    cursor.insert("firstBatch", events);
    network.answer(&aggregate, &first);
    assert_eq!(take(&mut network), Some(token("e1")));
    network.pass(600);
    network.disconnect("a:1");
    network.demand(Demand::Next);
    network.demand(Demand::Next);
    network.answer_hello("a:1", &primary("a:1", 1));
    network.expect("a:1", "killCursors");
    let again = network.expect("a:1", "aggregate");
    let stage = again.command.get_array("pipeline").unwrap()[0].clone();
    assert_eq!(
        stage
            .as_document()
            .unwrap()
            .get_document("$changeStream")
            .unwrap(),
        &doc! { "resumeAfter": { "_data": "end" } },
        "what had arrived was handed over first"
    );
}

#[test]
fn an_event_that_was_demanded_is_not_taken_as_well() {
    let mut network = holding(&["e1", "e2", "e3"]);
    network
        .machine
        .handle_input(network.now, Input::Demand(Demand::Next));
    assert_eq!(take(&mut network), None);
    network.demand(Demand::Next);
    assert!(matches!(
        network.updates[..],
        [Update::Change(_), Update::Change(_)]
    ));
}

#[test]
fn nothing_is_taken_before_the_get_more_that_is_due_has_left() {
    let mut options = WatchOptions::default();
    options.prefetch_batches = 1;
    let mut network = Network::with("mongodb://a:1,b:1/?replicaSet=rs", None, options);
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
    network.demand(Demand::Next);
    let get_more = network.expect("a:1", "getMore");
    network.demand(Demand::None);
    network.answer_unpolled(&get_more, &batch(&["e1", "e2"]));
    assert_eq!(
        take(&mut network),
        None,
        "the next batch is to be asked for first"
    );
    network.settle();
    network.expect("a:1", "getMore");
    assert_eq!(take(&mut network), Some(token("e1")));
}

fn take_awaited(network: &mut Network) -> Option<ResumeToken> {
    let event = network.machine.take_awaited()?;
    Some(event.resume_token().clone())
}

/// A stream that waits for an event, fetching ahead, and what its getMore is answered with and nobody has looked at yet.
fn arrived(reply: &Document) -> Network {
    let mut network = Network::with("mongodb://a:1,b:1/?replicaSet=rs", None, WatchOptions::default());
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
    network.demand(Demand::Next);
    let get_more = network.expect("a:1", "getMore");
    network.answer_unpolled(&get_more, reply);
    network
}

#[test]
fn a_lone_event_is_had_before_the_next_get_more_is_made() {
    let mut network = arrived(&batch(&["e1"]));
    assert_eq!(take_awaited(&mut network), Some(token("e1")));
    assert_eq!(network.machine.resume_token(), Some(&token("end")));
    assert_eq!(network.machine.stats().events, 1);
    assert_eq!(take_awaited(&mut network), None);
    // However late the consumer is back: the reply has its time from then on.
    network.now += Duration::from_secs(3600);
    network.demand(Demand::Next);
    let get_more = network.expect("a:1", "getMore");
    network.pass(10_500);
    network.answer(&get_more, &batch(&["e2"]));
    assert!(
        matches!(network.updates[..], [Update::Change(_)]),
        "{:?}",
        network.updates
    );
    network.expect_alive();
}

#[test]
fn an_event_with_others_behind_it_is_had_after_the_get_more_that_fetches_ahead() {
    let mut network = arrived(&batch(&["e1", "e2"]));
    assert_eq!(take_awaited(&mut network), None);
    network.settle();
    network.expect("a:1", "getMore");
    assert!(matches!(network.updates[..], [Update::Change(_)]));
    assert_eq!(take_awaited(&mut network), None, "nobody waits for the other one");
}

#[test]
fn what_is_no_lone_event_is_not_had_ahead_of_everything_else() {
    for reply in [
        batch(&[]),
        failure(43, &["ResumableChangeStreamError"]),
        doc! { "ok": 1, "cursor": 3 },
    ] {
        let mut network = arrived(&reply);
        assert_eq!(take_awaited(&mut network), None, "{reply}");
        network.settle();
        assert!(
            network
                .updates
                .iter()
                .all(|update| !matches!(update, Update::Change(_)))
        );
    }
    let mut network = arrived(&batch(&["e1"]));
    network
        .machine
        .handle_input(network.now, Input::Demand(Demand::None));
    assert_eq!(take_awaited(&mut network), None, "the demand was taken back");
    network.demand(Demand::TryNext);
    assert!(matches!(network.updates[..], [Update::Change(_)]));
}

#[test]
fn an_event_without_a_token_ends_the_stream_whichever_way_it_is_asked_for() {
    let mut reply = batch(&["e1"]);
    let events = reply
        .get_document_mut("cursor")
        .unwrap()
        .get_array_mut("nextBatch")
        .unwrap();
    events[0].as_document_mut().unwrap().remove("_id");
    let mut network = arrived(&reply);
    assert_eq!(take_awaited(&mut network), None);
    network.settle();
    assert!(matches!(
        network.expect_error().kind(),
        ErrorKind::MissingResumeToken
    ));
}

#[test]
fn the_last_event_of_a_cursor_is_followed_by_its_end() {
    let mut reply = batch(&["e1"]);
    reply.get_document_mut("cursor").unwrap().insert("id", 0_i64);
    let mut network = arrived(&reply);
    assert_eq!(take_awaited(&mut network), Some(token("e1")));
    network.demand(Demand::Next);
    assert!(!network.machine.is_alive());
}
