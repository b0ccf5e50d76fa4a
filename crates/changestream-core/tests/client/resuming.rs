//! Resuming, as far as it concerns servers and connections.

use bson::{Document, Timestamp, doc};
use changestream_core::client::{DeadlineReason, Demand, Input};
use changestream_core::{ErrorKind, ResumePolicy, Update};

use super::network::{
    Network, RESUMABLE, Request, failure, first_batch, mongos, next_batch, ok, primary, secondary,
    without_prefetch,
};

#[track_caller]
fn assert_resumes(first: &Request, again: &Request) {
    let stage = |request: &Request| -> Document {
        let stages = request.command.get_array("pipeline").unwrap();
        let stage = stages[0].as_document().unwrap();
        stage.get_document("$changeStream").unwrap().clone()
    };
    assert_eq!(stage(again), doc! { "resumeAfter": { "_data": "t0" } });
    assert_eq!(first.command.get("lsid"), again.command.get("lsid"));
}

/// The cause of the last update, which has to announce a resume.
#[track_caller]
fn cause(network: &Network) -> String {
    match network.updates.last() {
        Some(Update::Resuming(resuming)) => resuming.cause.to_string(),
        other => panic!("not resuming: {other:?}"),
    }
}

#[test]
fn after_a_network_error_the_new_primary_is_found_and_the_stream_goes_on_there() {
    let (mut network, get_more) = Network::waiting();
    network.pass(600);
    network.disconnect("a:1");
    assert!(cause(&network).contains("a:1 is gone"));
    assert_eq!(
        network.addresses(),
        ["a:1", "b:1"],
        "both are asked: a network error says that all may have changed"
    );
    network.disconnect("a:1");
    network.answer_hello("b:1", &primary("b:1", 2));
    let again = network.expect("b:1", "aggregate");
    assert_resumes(&get_more, &again);
    network.answer(&again, &first_batch(8));
    network.demand(Demand::Next);
    assert!(
        matches!(network.updates.last(), Some(Update::Resumed { server }) if server.to_string() == "b:1")
    );
    network.demand(Demand::Next);
    network.demand(Demand::Next);
    let get_more = network.expect("b:1", "getMore");
    assert_eq!(get_more.command.get_i64("getMore").unwrap(), 8);
    network.expect_no_request();
}

#[test]
fn after_a_step_down_the_same_connection_is_asked_again_and_kept() {
    let (mut network, get_more) = Network::waiting();
    let link = network.link("a:1");
    network.pass(600);
    network.answer(&get_more, &failure(10107, RESUMABLE));
    assert_eq!(
        network
            .expect("a:1", "killCursors")
            .command
            .get_array("cursors")
            .unwrap(),
        &[7_i64.into()]
    );
    assert_eq!(network.addresses(), ["a:1", "b:1"]);
    assert_eq!(network.link("a:1"), link);
    network.answer_hello("b:1", &secondary("b:1"));
    let hello = network.expect("a:1", "hello");
    network.answer(&hello, &primary("a:1", 3));
    network.open_at("a:1");
    assert_eq!(network.link("a:1"), link);
}

#[test]
fn a_step_down_that_the_server_has_told_of_before_is_no_reason_to_ask_it_what_it_is() {
    let process = bson::oid::ObjectId::from_bytes([1; 12]);
    let counted = |mut reply: Document, counter: i64| {
        reply.insert(
            "topologyVersion",
            doc! { "processId": process, "counter": counter },
        );
        reply
    };
    for (counter, asked) in [(5, "aggregate"), (6, "hello")] {
        let mut network = Network::new("mongodb://a:1/?replicaSet=rs");
        network.answer_hello("a:1", &counted(primary("a:1", 1), 5));
        network.open_at("a:1");
        network.demand(Demand::Next);
        let get_more = network.expect("a:1", "getMore");
        network.pass(600);
        network.answer(&get_more, &counted(failure(10107, RESUMABLE), counter));
        network.expect("a:1", "killCursors");
        network.expect("a:1", asked);
    }
}

#[test]
fn after_a_step_down_the_other_member_is_read_from_if_it_is_elected() {
    let (mut network, get_more) = Network::waiting();
    network.pass(600);
    network.answer(&get_more, &failure(10107, RESUMABLE));
    network.expect("a:1", "killCursors");
    network.answer_hello("a:1", &secondary("a:1"));
    network.answer_hello("b:1", &primary("b:1", 2));
    assert_resumes(&get_more, &network.expect("b:1", "aggregate"));
    assert_eq!(network.addresses(), ["b:1"]);
}

#[test]
fn a_server_that_shuts_down_is_not_asked_over_the_old_connection() {
    let (mut network, get_more) = Network::waiting();
    let link = network.link("a:1");
    network.pass(600);
    network.answer(&get_more, &failure(91, RESUMABLE));
    assert_ne!(network.link("a:1"), link, "its pool was cleared");
}

#[test]
fn an_overdue_reply_is_a_reason_to_resume_and_none_to_forget_the_server() {
    let (mut network, _) = Network::waiting();
    assert_eq!(network.deadline.unwrap().reason, DeadlineReason::Reply);
    network.pass(10_999);
    assert!(network.updates.is_empty());
    network.pass(1);
    assert!(cause(&network).contains("silent"), "{}", cause(&network));
    assert_eq!(network.addresses(), ["a:1"], "the primary is still known");
    network.answer_hello("a:1", &primary("a:1", 1));
    let kill = network.expect("a:1", "killCursors");
    assert_eq!(kill.command.get_array("cursors").unwrap(), &[7_i64.into()]);
    network.open_at("a:1");
    network.answer(&kill, &ok());
    network.expect_alive();
}

#[test]
fn a_reply_that_lay_in_the_socket_during_a_pause_is_in_time() {
    let (mut network, get_more) = Network::waiting();
    network.sleep(3_600_000);
    network.answer(&get_more, &next_batch(7, &["e1"]));
    network.input(Input::Timeout);
    assert!(matches!(network.updates[..], [Update::Change(_)]));
    network.demand(Demand::Next);
    network.expect("a:1", "getMore");
}

#[test]
fn a_pause_in_the_middle_of_a_resume_costs_nothing_but_time() {
    let (mut network, _) = Network::waiting();
    network.pass(600);
    network.disconnect("a:1");
    network.sleep(120_000);
    network.connect("b:1");
    network.input(Input::Timeout);
    network.expect_alive();
    network.sleep(120_000);
    network.answer_hello("b:1", &primary("b:1", 2));
    network.input(Input::Timeout);
    network.open_at("b:1");
    network.expect_alive();
}

#[test]
fn a_connection_that_breaks_while_nobody_reads_is_resumed_when_somebody_does() {
    let mut network = Network::attached();
    network.pass(600);
    network.disconnect("a:1");
    assert!(network.links.is_empty() && network.updates.is_empty() && network.deadline.is_none());
    network.demand(Demand::Next);
    assert_eq!(network.addresses(), ["a:1", "b:1"]);
    network.answer_hello("b:1", &primary("b:1", 2));
    network.open_at("b:1");
}

#[test]
fn an_aggregate_that_resumes_and_is_refused_ends_the_stream_with_all_that_is_known() {
    let (mut network, get_more) = Network::waiting();
    network.answer(&get_more, &failure(43, &[]));
    let again = network.expect("a:1", "aggregate");
    network.answer(&again, &failure(286, &["NonResumableChangeStreamError"]));
    let error = network.expect_error();
    assert!(matches!(error.kind(), ErrorKind::HistoryLost(_)));
    assert_eq!(error.code(), Some(286));
    assert!(
        error
            .server_error()
            .unwrap()
            .has_label("NonResumableChangeStreamError")
    );
    assert_eq!(error.server().unwrap().to_string(), "a:1");
    assert!(!error.is_resumable());
    assert_eq!(
        error.resume_token(),
        Some(&doc! { "_data": "t0" }.try_into().unwrap())
    );
}

#[test]
fn the_aggregate_is_tried_again_once_after_a_network_error() {
    let (mut network, get_more) = Network::waiting();
    network.pass(600);
    network.answer(&get_more, &failure(43, &[]));
    network.expect("a:1", "aggregate");
    network.disconnect("a:1");
    network.expect_alive();
    network.answer_hello("b:1", &primary("b:1", 2));
    network.expect("b:1", "aggregate");
    network.disconnect("b:1");
    assert!(matches!(
        network.expect_error().kind(),
        ErrorKind::Network { timed_out: false, .. }
    ));
}

#[test]
fn a_get_more_that_cannot_be_read_ends_the_stream() {
    let (mut network, get_more) = Network::waiting();
    network.receive(get_more.connection, &[255; 64]);
    let error = network.expect_error();
    assert!(matches!(error.kind(), ErrorKind::Protocol { .. }));
    assert_eq!(error.server().unwrap().to_string(), "a:1");
    assert!(!error.is_resumable() && error.resume_token().is_some());
}

#[test]
fn behind_a_load_balancer_a_lost_cursor_is_left_alone() {
    let mut hello = mongos();
    hello.insert("serviceId", bson::oid::ObjectId::from_bytes([1; 12]));
    let mut network = Network::new("mongodb://a:1/?loadBalanced=true");
    network.answer_hello("a:1", &hello);
    network.open_at("a:1");
    network.demand(Demand::Next);
    network.expect("a:1", "getMore");
    network.disconnect("a:1");
    network.answer_hello("a:1", &hello);
    network.expect("a:1", "aggregate");
}

#[test]
fn a_policy_goes_on_after_a_selection_that_found_nothing() {
    let mut options = without_prefetch();
    options.resume_policy = ResumePolicy::Forever;
    let uri = "mongodb://a:1/?directConnection=true&serverSelectionTimeoutMS=1000";
    let mut network = Network::with(uri, None, options);
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
    network.demand(Demand::Next);
    network.expect("a:1", "getMore");
    network.disconnect("a:1");
    for _ in 0..200 {
        network.expect_alive();
        if network.links.is_empty() {
            network.wake();
        } else {
            network.disconnect("a:1");
        }
    }
    while network.links.is_empty() {
        network.wake();
    }
    network.answer_hello("a:1", &primary("a:1", 1));
    network.expect("a:1", "killCursors");
    network.open_at("a:1");
}

#[test]
fn the_newest_cluster_time_goes_with_each_command_and_into_the_snapshot() {
    let mut network = Network::attached();
    let time =
        |time| doc! { "clusterTime": Timestamp { time, increment: 1 }, "signature": { "keyId": 5_i64 } };
    for (seen, sent) in [
        (None, None),
        (Some(9), Some(9)),
        (Some(8), Some(9)),
        (None, Some(9)),
        (Some(11), Some(11)),
    ] {
        network.demand(Demand::Next);
        let get_more = network.expect("a:1", "getMore");
        let mut reply = next_batch(7, &[]);
        if let Some(seen) = seen {
            reply.insert("$clusterTime", time(seen));
        }
        network.answer(&get_more, &reply);
        network.demand(Demand::Next);
        let get_more = network.expect("a:1", "getMore");
        let gossip = get_more.command.get_document("$clusterTime").ok().cloned();
        assert_eq!(gossip, sent.map(time));
        network.answer(&get_more, &next_batch(7, &[]));
    }
    let mut other = Network::at(
        network.now,
        "mongodb://a:1/",
        Some(network.machine.snapshot()),
        without_prefetch(),
    );
    other.answer_hello("a:1", &primary("a:1", 1));
    let aggregate = other.expect("a:1", "aggregate");
    assert_eq!(*aggregate.command.get_document("$clusterTime").unwrap(), time(11));
}
