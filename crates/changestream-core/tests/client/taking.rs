//! Events that have arrived, taken one by one without a demand.

use bson::{Document, RawDocumentBuf, doc};
use changestream_core::client::Demand;
use changestream_core::{ResumeToken, Update, WatchOptions};

use super::network::{Network, next_batch, primary};

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
    let demand = changestream_core::client::Input::Demand(Demand::Next);
    network.machine.handle_input(network.now, demand);
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
