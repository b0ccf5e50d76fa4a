//! Streams with `timeoutMS` (Client Side Operations Timeout specification): what each call has time for.

use std::time::Duration;

use bson::doc;
use bson::oid::ObjectId;
use changestream_core::client::{DeadlineReason, Demand, Input};
use changestream_core::{Error, Update};

use super::network::{Network, Request, failure, first_batch, mongos, next_batch, ok, primary};

const SET: &str = "mongodb://a:1,b:1/?replicaSet=rs&timeoutMS=1000";

/// A stream whose calls have a second, open and not asked for anything.
fn open() -> Network {
    let mut network = Network::new(SET);
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
    network
}

/// As [`open`], with a call that waits for a getMore.
fn waiting() -> (Network, Request) {
    let mut network = open();
    network.demand(Demand::Next);
    let get_more = network.expect("a:1", "getMore");
    (network, get_more)
}

/// In how many milliseconds the call ends that is going on; none without one.
fn left(network: &Network) -> Option<u128> {
    let deadline = network.deadline?;
    let left = deadline.at.saturating_duration_since(network.now);
    (deadline.reason == DeadlineReason::Call).then_some(left.as_millis())
}

#[track_caller]
fn timed_out(network: &Network) -> &Error {
    match network.updates.last() {
        Some(Update::TimedOut(error)) => error,
        other => panic!("not timed out: {other:?}"),
    }
}

#[test]
fn opening_has_one_limit_from_its_first_step_to_its_last() {
    let mut network = Network::new(SET);
    assert_eq!(left(&network), Some(1000));
    network.sleep(400);
    network.answer_hello("a:1", &primary("a:1", 1));
    let aggregate = network.expect("a:1", "aggregate");
    assert_eq!(aggregate.command.get_i64("maxTimeMS").unwrap(), 600);
    assert_eq!(left(&network), Some(600));
    network.pass(600);
    let error = network.expect_error();
    assert!(error.is_timeout(), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("the aggregate was not answered within 1000 ms (timeoutMS)"),
        "{message}"
    );
}

#[test]
fn a_call_that_is_announced_while_the_stream_opens_does_not_prolong_opening() {
    let mut network = Network::new(SET);
    network.sleep(400);
    network.input(Input::Begin);
    assert_eq!(left(&network), Some(600));
}

#[test]
fn a_call_that_is_announced_while_the_stream_opens_has_what_opening_leaves() {
    let mut network = Network::new(SET);
    network.sleep(400);
    network.input(Input::Begin);
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
    network.sleep(100);
    network.demand(Demand::Next);
    assert_eq!(left(&network), Some(500));
    let get_more = network.expect("a:1", "getMore");
    network.answer(&get_more, &next_batch(7, &[]));
    network.sleep(100);
    network.demand(Demand::Next);
    assert_eq!(left(&network), Some(400));
}

#[test]
fn each_demand_is_a_call_where_none_is_announced() {
    let mut network = open();
    assert_eq!(left(&network), None, "nobody waits");
    for _ in 0..3 {
        network.sleep(5_000);
        network.demand(Demand::Next);
        assert_eq!(left(&network), Some(1000), "opening was a call, too");
        network.sleep(700);
        let get_more = network.expect("a:1", "getMore");
        network.answer(&get_more, &next_batch(7, &[]));
        assert!(matches!(network.updates.last(), Some(Update::Idle(_))));
        assert_eq!(left(&network), None);
    }
}

#[test]
fn the_demands_of_an_announced_call_share_its_time() {
    let mut network = open();
    network.input(Input::Begin);
    for passed in [0, 300, 600] {
        network.demand(Demand::Next);
        assert_eq!(left(&network), Some(1000 - passed));
        network.sleep(300);
        let get_more = network.expect("a:1", "getMore");
        network.answer(&get_more, &next_batch(7, &[]));
    }
    network.input(Input::Begin);
    network.demand(Demand::Next);
    assert_eq!(left(&network), Some(1000), "another call has time of its own");
}

#[test]
fn a_call_without_an_answer_ends_at_its_limit_and_not_before() {
    let (mut network, _) = waiting();
    network.pass(999);
    assert!(network.updates.is_empty());
    network.pass(1);
    let error = timed_out(&network);
    let message = error.to_string();
    assert!(
        message.contains("no change came within 1000 ms (timeoutMS)"),
        "{message}"
    );
    assert_eq!(
        error.resume_token(),
        Some(&doc! { "_data": "t0" }.try_into().unwrap())
    );
    assert_eq!(network.updates.len(), 1, "it is told once");
    network.pass(5_000);
    assert_eq!(network.updates.len(), 1);
    network.expect_no_request();
    network.expect_alive();
}

#[test]
fn an_answer_that_comes_between_two_calls_is_the_seconds() {
    let (mut network, get_more) = waiting();
    network.pass(1000);
    timed_out(&network);
    network.pass(200);
    network.answer(&get_more, &next_batch(7, &["e1"]));
    network.pass(5_000);
    network.demand(Demand::Next);
    assert!(matches!(network.updates.last(), Some(Update::Change(_))));
    network.expect_no_request();
}

#[test]
fn an_answer_that_has_not_come_when_the_next_call_begins_is_given_up_and_the_cursor_killed() {
    let (mut network, _) = waiting();
    let link = network.link("a:1");
    network.pass(1000);
    timed_out(&network);
    network.demand(Demand::Next);
    assert_eq!(left(&network), Some(0), "it is looked at as soon as it has begun");
    network.pass(0);
    let Some(Update::Resuming(resuming)) = network.updates.last() else {
        panic!("not resuming: {:?}", network.updates)
    };
    assert!(
        resuming
            .cause
            .to_string()
            .contains("had no answer to its getMore in time")
    );
    network.demand(Demand::Next);
    assert!(!network.links.contains_key(&link));
    network.answer_hello("a:1", &primary("a:1", 1));
    let kill = network.expect("a:1", "killCursors");
    assert_eq!(kill.command.get_array("cursors").unwrap(), &[7_i64.into()]);
    assert_eq!(kill.command.get_i64("maxTimeMS").unwrap(), 1000);
    let aggregate = network.expect("a:1", "aggregate");
    network.answer(&kill, &ok());
    network.answer(&aggregate, &first_batch(8));
    assert!(matches!(network.updates.last(), Some(Update::Resumed { .. })));
}

#[test]
fn a_resume_that_ran_out_of_time_is_begun_anew_by_the_next_call() {
    let mut network = open();
    network.input(Input::Begin);
    network.demand(Demand::Next);
    let get_more = network.expect("a:1", "getMore");
    network.pass(600);
    network.answer(&get_more, &failure(43, &[]));
    network.demand(Demand::Next);
    let again = network.expect("a:1", "aggregate");
    assert_eq!(again.command.get_i64("maxTimeMS").unwrap(), 400);
    network.pass(400);
    let message = timed_out(&network).to_string();
    assert!(message.contains("the aggregate was not answered"), "{message}");
    network.input(Input::Begin);
    network.demand(Demand::Next);
    network.pass(0);
    network.answer_hello("a:1", &primary("a:1", 1));
    let again = network.expect("a:1", "aggregate");
    assert_eq!(again.command.get_i64("maxTimeMS").unwrap(), 1000);
    network.answer(&again, &first_batch(8));
    assert!(matches!(network.updates.last(), Some(Update::Resumed { .. })));
}

#[test]
fn a_get_more_that_the_server_gave_up_ends_the_call_and_the_next_one_resumes() {
    let (mut network, get_more) = waiting();
    network.answer(&get_more, &failure(50, &[]));
    let kill = network.expect("a:1", "killCursors");
    network.answer(&kill, &ok());
    let error = timed_out(&network);
    assert_eq!(error.code(), Some(50));
    assert!(
        error.to_string().contains("the server gave the getMore up"),
        "{error}"
    );
    network.expect_no_request();
    network.expect_alive();
    network.demand(Demand::Next);
    network.expect("a:1", "aggregate");
}

#[test]
fn what_the_server_gave_up_between_two_calls_is_not_told_again() {
    let (mut network, get_more) = waiting();
    network.pass(1000);
    timed_out(&network);
    network.answer(&get_more, &failure(50, &[]));
    let kill = network.expect("a:1", "killCursors");
    network.answer(&kill, &ok());
    assert_eq!(network.updates.len(), 1);
    network.demand(Demand::Next);
    network.expect("a:1", "aggregate");
    assert_eq!(network.updates.len(), 1);
}

#[test]
fn a_limit_of_zero_is_no_limit() {
    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs&timeoutMS=0");
    network.answer_hello("a:1", &primary("a:1", 1));
    let aggregate = network.open_at("a:1");
    assert!(!aggregate.command.contains_key("maxTimeMS"));
    network.demand(Demand::Next);
    assert_eq!(left(&network), None);
    assert_eq!(network.machine.close_limit(), Duration::from_secs(5));
}

#[test]
fn without_a_limit_each_silence_of_a_server_doubles_how_long_the_next_may_last_and_no_other_failure_does() {
    let mut network = Network::new("mongodb://a:1/?loadBalanced=true&timeoutMS=0");
    let mut hello = mongos();
    hello.insert("serviceId", ObjectId::from_bytes([1; 12]));
    for _ in 0..3 {
        network.answer_hello("a:1", &hello);
        network.expect("a:1", "aggregate");
        network.disconnect("a:1");
        network.pass(5_000);
    }
    for minutes in [5, 10, 20] {
        network.answer_hello("a:1", &hello);
        network.expect("a:1", "aggregate");
        let left = network
            .deadline
            .unwrap()
            .at
            .saturating_duration_since(network.now);
        assert_eq!(left, Duration::from_secs(minutes * 60));
        network.wake();
        network.pass(5_000);
    }
}

#[test]
fn taking_leave_has_the_limit_of_a_call() {
    let mut network = open();
    assert_eq!(network.machine.close_limit(), Duration::from_secs(1));
    network.close(700);
    let kill = network.expect("a:1", "killCursors");
    assert_eq!(kill.command.get_i64("maxTimeMS").unwrap(), 700);
}

#[test]
fn an_aggregate_that_the_server_gave_up_is_a_timeout_of_opening() {
    let mut network = Network::new(SET);
    network.answer_hello("a:1", &primary("a:1", 1));
    let aggregate = network.expect("a:1", "aggregate");
    network.answer(&aggregate, &failure(50, &[]));
    let error = network.expect_error();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(error.code(), Some(50));
    let message = error.to_string();
    assert!(
        message.contains("the aggregate was not answered within"),
        "{message}"
    );
    network.expect_no_request();
}

#[test]
fn without_a_limit_what_the_server_gave_up_is_its_error_and_no_timeout() {
    let (mut network, get_more) = Network::waiting();
    network.answer(&get_more, &failure(50, &[]));
    let error = network.expect_error();
    assert_eq!(error.code(), Some(50));
    assert!(!error.is_timeout(), "{error}");
}

#[test]
fn without_a_limit_an_aggregate_that_the_server_gave_up_is_no_timeout_either() {
    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs");
    network.answer_hello("a:1", &primary("a:1", 1));
    let aggregate = network.expect("a:1", "aggregate");
    network.answer(&aggregate, &failure(50, &[]));
    let error = network.expect_error();
    assert_eq!(error.code(), Some(50));
    assert!(!error.is_timeout(), "{error}");
}

#[test]
fn what_fails_when_the_time_is_over_is_the_cause_of_a_timeout() {
    let mut network = Network::new(SET);
    network.answer_hello("a:1", &primary("a:1", 1));
    network.expect("a:1", "aggregate");
    network.sleep(1000);
    network.disconnect("a:1");
    let error = network.expect_error();
    assert!(error.is_timeout(), "{error}");
    assert!(error.to_string().contains("a:1 is gone"), "{error}");
}

#[test]
fn an_aggregate_that_fails_in_time_is_tried_again_as_often_as_there_is_time() {
    let mut network = Network::new(SET);
    network.answer_hello("a:1", &primary("a:1", 1));
    for _ in 0..4 {
        let aggregate = network.expect("a:1", "aggregate");
        network.answer(&aggregate, &failure(134, &[]));
    }
    let aggregate = network.expect("a:1", "aggregate");
    network.answer(&aggregate, &failure(134, &[]));
    network.expect_no_request();
    assert_eq!(network.deadline.unwrap().reason, DeadlineReason::ResumeBackoff);
    network.pass(0);
    network.expect_no_request();
    network.pass(1000);
    let error = network.expect_error();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(error.code(), Some(134), "why it was tried again");
}

const OVERLOADED: &[&str] = &["RetryableError", "SystemOverloadedError"];

#[test]
fn a_stream_that_opens_does_not_wait_for_an_overloaded_server_beyond_its_time() {
    let mut network = Network::new(SET);
    network.answer_hello("a:1", &primary("a:1", 1));
    let aggregate = network.expect("a:1", "aggregate");
    network.sleep(999);
    network.answer(&aggregate, &failure(462, OVERLOADED));
    let error = network.expect_error();
    assert_eq!(error.code(), Some(462));
    assert!(
        !error.is_timeout(),
        "there was still time when the server refused: {error}"
    );
}

#[test]
fn a_call_that_resumes_does_not_wait_for_an_overloaded_server_beyond_its_time() {
    let mut network = open();
    network.input(Input::Begin);
    network.demand(Demand::Next);
    let get_more = network.expect("a:1", "getMore");
    network.answer(&get_more, &failure(43, &[]));
    network.demand(Demand::Next);
    let aggregate = network.expect("a:1", "aggregate");
    network.sleep(999);
    network.answer(&aggregate, &failure(462, OVERLOADED));
    let error = timed_out(&network);
    assert!(error.to_string().contains("the server is overloaded"), "{error}");
    assert_eq!(error.code(), Some(462));
    network.pass(0);
    network.expect_no_request();
    network.input(Input::Begin);
    network.demand(Demand::Next);
    network.pass(1000);
    network.expect("a:1", "aggregate");
    network.expect_alive();
}

#[test]
fn a_get_more_that_an_overloaded_server_refuses_is_not_sent_again_beyond_its_time() {
    let (mut network, get_more) = waiting();
    network.sleep(999);
    network.answer(&get_more, &failure(462, OVERLOADED));
    let error = timed_out(&network);
    assert!(error.to_string().contains("the server is overloaded"), "{error}");
    network.demand(Demand::Next);
    network.pass(999);
    let again = network.expect("a:1", "getMore");
    assert_eq!(again.command.get_i64("getMore").unwrap(), 7);
    network.expect_alive();
}

#[test]
fn a_try_that_runs_out_of_time_is_over() {
    let mut network = open();
    network.demand(Demand::TryNext);
    network.expect("a:1", "getMore");
    network.pass(1000);
    timed_out(&network);
}

#[test]
fn a_wait_for_changes_has_to_be_shorter_than_the_limit() {
    use changestream_core::stream::{Patience, Retries, StreamMachine};
    use changestream_core::{Scope, WatchOptions, random::Random};
    let made = |timeout: Option<u64>, wait: u64| {
        let mut options = WatchOptions::default();
        options.timeout = timeout.map(Duration::from_millis);
        options.max_await_time = Some(Duration::from_millis(wait));
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
        let random = Random::new([0; 32]);
        let now = super::network::epoch();
        StreamMachine::new(&Scope::Cluster, &options, retries, patience, random, now)
            .map(|stream| (stream.call_limit(), stream.is_timed()))
            .map_err(|error| error.to_string())
    };
    let limit = Some(Duration::from_millis(100));
    assert_eq!(made(Some(100), 99), Ok((limit, true)));
    assert_eq!(made(Some(0), 5_000), Ok((None, true)));
    assert_eq!(made(None, 5_000), Ok((None, false)));
    for wait in [100, 101] {
        let message = made(Some(100), wait).unwrap_err();
        assert!(
            message.contains(&format!("{wait} ms")) && message.contains("100 ms"),
            "{message}"
        );
    }
}

#[test]
fn a_get_more_that_is_refused_while_nobody_waits_ends_no_call() {
    let mut network = Network::with(SET, None, changestream_core::WatchOptions::default());
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
    network.input(Input::Begin);
    network.demand(Demand::Next);
    let get_more = network.expect("a:1", "getMore");
    network.answer(&get_more, &next_batch(7, &["e1"]));
    let ahead = network.expect("a:1", "getMore");
    network.sleep(999);
    network.answer(&ahead, &failure(462, OVERLOADED));
    network.pass(300);
    let again = network.expect("a:1", "getMore");
    network.answer(&again, &next_batch(7, &["e2"]));
    network.input(Input::Begin);
    network.demand(Demand::Next);
    assert!(matches!(
        network.updates[..],
        [Update::Change(_), Update::Change(_)]
    ));
}

#[test]
fn looking_for_a_server_ends_with_the_shorter_of_its_own_time_and_the_calls() {
    for (options, after) in [
        ("timeoutMS=500&serverSelectionTimeoutMS=2000", 500),
        ("timeoutMS=2000&serverSelectionTimeoutMS=500", 500),
        ("timeoutMS=500&serverSelectionTimeoutMS=500", 500),
        ("timeoutMS=0&serverSelectionTimeoutMS=500", 500),
        ("serverSelectionTimeoutMS=500", 500),
    ] {
        let mut network = Network::new(&format!("mongodb://a:1,b:1/?replicaSet=rs&{options}"));
        network.pass(after - 1);
        network.expect_alive();
        network.pass(1);
        let error = network.expect_error();
        assert!(error.to_string().matches("timed out").count() <= 1, "{error}");
        assert!(
            error.to_string().contains("a:1 is Unknown"),
            "{options}: with what is known of each: {error}"
        );
        assert_eq!(
            error.is_timeout(),
            options.contains("timeoutMS=") && options.starts_with('t'),
            "{error}"
        );
    }
}

#[test]
fn authentication_is_told_how_long_it_may_take_and_hello_is_not() {
    let uri = "mongodb://user:pencil@a:1,b:1/?replicaSet=rs&authMechanism=PLAIN&timeoutMS=250";
    let mut network = Network::new(uri);
    network.connect("a:1");
    let hello = network.expect("a:1", "isMaster");
    assert!(!hello.command.contains_key("maxTimeMS"));
    network.pass(40);
    network.answer(&hello, &primary("a:1", 1));
    let sasl = network.expect("a:1", "saslStart");
    assert_eq!(sasl.command.get_i64("maxTimeMS").unwrap(), 210);
    network.pass(10);
    let done = doc! { "ok": 1, "conversationId": 1, "done": true, "payload": "" };
    network.answer(&sasl, &done);
    let aggregate = network.expect("a:1", "aggregate");
    assert_eq!(aggregate.command.get_i64("maxTimeMS").unwrap(), 200);

    let mut network = Network::new(&uri.replace("=250", "=0"));
    network.answer_hello("a:1", &primary("a:1", 1));
    let sasl = network.expect("a:1", "saslStart");
    assert!(!sasl.command.contains_key("maxTimeMS"));
}
