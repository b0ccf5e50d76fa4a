//! Commands with `timeoutMS` (Client Side Operations Timeout specification): one limit for all that is done for one.

use std::time::Duration;

use bson::{Document, doc};
use changestream_core::client::DeadlineReason;
use changestream_core::monitoring::{ConnectionEvent, EventKind};
use changestream_core::{CommandOptions, Error, ErrorKind, ReadPreference, ReadPreferenceMode};

use super::network::{Network, Request, failure, ok, primary};

const SET: &str = "mongodb://a:1,b:1/?replicaSet=rs";

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn plain() -> CommandOptions {
    CommandOptions::default()
}

fn ping() -> Document {
    doc! { "ping": 1 }
}

fn commands(more: &str) -> Network {
    Network::for_commands(&format!("{SET}{more}"), |_| {})
}

/// A ping that is sent, to a server that has taken 20 ms to answer hello, once.
fn sent(more: &str, options: CommandOptions) -> (Network, Request) {
    let mut network = commands(more);
    network.run(ping(), options);
    network.connect("a:1");
    network.pass(20);
    network.answer_hello("a:1", &primary("a:1", 1));
    let request = network.expect("a:1", "ping");
    (network, request)
}

#[track_caller]
fn reply(network: &mut Network) -> Result<Document, Error> {
    assert_eq!(network.replies.len(), 1, "{:?}", network.replies);
    network.replies.remove(0)
}

#[track_caller]
fn timeout(network: &mut Network) -> Error {
    let error = reply(network).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    error
}

#[test]
fn the_server_is_told_what_is_left_of_the_time() {
    let told = |more: &str, options: CommandOptions| {
        let (_, request) = sent(more, options);
        request.command.get_i64("maxTimeMS").ok()
    };
    assert_eq!(told("", plain()), None);
    assert_eq!(told("&timeoutMS=0", plain()), None);
    assert_eq!(told("&timeoutMS=250", plain()), Some(230));
    assert_eq!(told("&timeoutMS=250", plain().timeout(ms(1000))), Some(980));
    assert_eq!(told("&timeoutMS=250", plain().timeout(Duration::ZERO)), None);
    assert_eq!(told("", plain().timeout(ms(90))), Some(70));
    // Only a cursor that waits takes it.
    let mut network = commands("&timeoutMS=250");
    network.run(doc! { "getMore": 7_i64, "collection": "orders" }, plain());
    network.answer_hello("a:1", &primary("a:1", 1));
    let request = network.expect("a:1", "getMore");
    assert!(!request.command.contains_key("maxTimeMS"));
    assert_eq!(network.deadline.unwrap().reason, DeadlineReason::Call);
}

#[test]
fn the_shortest_round_trip_counts_from_the_second_on_and_what_would_come_too_late_is_not_sent() {
    let (mut network, first) = sent("&heartbeatFrequencyMS=500", plain());
    network.answer(&first, &ok());
    reply(&mut network).unwrap();
    network.pass(600);
    network.run(ping(), plain().timeout(ms(100)));
    network.pass(30);
    network.answer_hello("a:1", &primary("a:1", 1));
    // 100 ms, less the 30 that hello has taken, less 20 for a round trip.
    let second = network.expect("a:1", "ping");
    assert_eq!(second.command.get_i64("maxTimeMS").unwrap(), 50);
    network.answer(&second, &ok());
    reply(&mut network).unwrap();
    network.run(ping(), plain().timeout(ms(20)));
    let error = timeout(&mut network);
    assert!(error.to_string().contains("20 ms"), "{error}");
    network.expect_no_request();
    // The connection is as good as before.
    network.run(ping(), plain().timeout(ms(21)));
    assert_eq!(network.expect("a:1", "ping").connection, second.connection);
}

#[test]
fn a_command_that_is_not_answered_in_time_fails_and_its_connection_is_closed() {
    let (mut network, request) = sent("&timeoutMS=250&socketTimeoutMS=1", plain());
    let begun = network.now;
    network.wake();
    assert_eq!(network.now - begun, ms(230));
    let error = timeout(&mut network);
    assert!(error.to_string().contains("250 ms"), "{error}");
    assert!(network.links.is_empty());
    network.run(ping(), plain());
    network.answer_hello("a:1", &primary("a:1", 1));
    let next = network.expect("a:1", "ping");
    assert_ne!(next.command.get("lsid"), request.command.get("lsid"));
    network.answer(&next, &ok());
    reply(&mut network).unwrap();
}

#[test]
fn bytes_that_trickle_in_do_not_prolong_the_time() {
    let (mut network, request) = sent("&timeoutMS=250", plain());
    for byte in [100, 0, 0, 0] {
        network.pass(50);
        network.receive(request.connection, &[byte]);
    }
    network.pass(50);
    timeout(&mut network);
}

#[test]
fn looking_for_a_server_takes_of_the_time_and_goes_on_for_the_next_command() {
    let mut network = commands("&timeoutMS=250");
    network.run(ping(), plain());
    network.connect("a:1");
    network.pass(250);
    let error = timeout(&mut network);
    let ErrorKind::Timeout {
        cause: Some(cause), ..
    } = error.kind()
    else {
        panic!("{error:?}")
    };
    assert!(
        matches!(cause.kind(), ErrorKind::ServerSelection { .. }),
        "{cause}"
    );
    assert!(error.to_string().contains(&cause.to_string()));
    // It is told what this command wanted, and not the next one.
    network.run(
        ping(),
        plain().read_preference(ReadPreference::new(ReadPreferenceMode::Secondary)),
    );
    network.run(ping(), plain().timeout(ms(1000)));
    network.pass(250);
    assert!(timeout(&mut network).to_string().contains("secondary"));
    network.pass(750);
    timeout(&mut network);
    let connection = network.link("a:1");
    network.run(ping(), plain());
    network.answer_hello("a:1", &primary("a:1", 1));
    let request = network.expect("a:1", "ping");
    assert_eq!(request.connection, connection);
    network.answer(&request, &ok());
    reply(&mut network).unwrap();
}

#[test]
fn a_server_that_is_found_between_commands_is_known_to_the_next() {
    let mut network = commands("&timeoutMS=250");
    network.run(ping(), plain());
    network.connect("a:1");
    network.pass(250);
    timeout(&mut network);
    network.answer_hello("a:1", &primary("a:1", 1));
    network.expect_no_request();
    network.run(ping(), plain());
    network.expect("a:1", "ping");
}

#[test]
fn server_selection_timeout_holds_for_connecting_too_and_its_end_is_a_timeout() {
    let mut network = commands("&timeoutMS=10000&serverSelectionTimeoutMS=300");
    network.run(ping(), plain());
    network.pass(300);
    let error = timeout(&mut network);
    assert!(error.to_string().contains("serverSelectionTimeoutMS"), "{error}");

    // A server is known, and the connection to it is lost.
    let (mut network, request) = sent("&timeoutMS=10000&serverSelectionTimeoutMS=300", plain());
    network.answer(&request, &ok());
    reply(&mut network).unwrap();
    network.disconnect("a:1");
    network.run(ping(), plain());
    let begun = network.now;
    network.pass(300);
    assert_eq!(network.now - begun, ms(300));
    timeout(&mut network);
}

#[test]
fn authentication_is_told_how_long_it_may_take_and_hello_is_not() {
    let uri = "mongodb://user:pencil@a:1,b:1/?replicaSet=rs&authMechanism=PLAIN&timeoutMS=250";
    let mut network = Network::for_commands(uri, |_| {});
    network.run(ping(), plain());
    network.connect("a:1");
    let hello = network.expect("a:1", "isMaster");
    assert!(!hello.command.contains_key("maxTimeMS"));
    network.pass(40);
    network.answer(&hello, &primary("a:1", 1));
    let sasl = network.expect("a:1", "saslStart");
    assert_eq!(sasl.command.get_i64("maxTimeMS").unwrap(), 210);
    network.pass(10);
    network.answer(
        &sasl,
        &doc! { "ok": 1, "conversationId": 1, "done": true, "payload": "" },
    );
    let request = network.expect("a:1", "ping");
    assert_eq!(request.command.get_i64("maxTimeMS").unwrap(), 200);

    // What the server gave up there is a timeout too.
    let mut network = Network::for_commands(uri, |_| {});
    network.run(ping(), plain());
    network.answer_hello("a:1", &primary("a:1", 1));
    let sasl = network.expect("a:1", "saslStart");
    network.answer(&sasl, &failure(50, &[]));
    assert_eq!(timeout(&mut network).code(), Some(50));

    // Without a limit, nothing is said.
    let mut network = Network::for_commands(&uri.replace("=250", "=0"), |_| {});
    network.run(ping(), plain());
    network.answer_hello("a:1", &primary("a:1", 1));
    assert!(
        !network
            .expect("a:1", "saslStart")
            .command
            .contains_key("maxTimeMS")
    );
}

#[test]
fn a_retryable_read_is_tried_until_the_time_is_over() {
    let (mut network, mut request) = sent("&timeoutMS=5000", plain().retryable_read(true));
    let mut left = i64::MAX;
    for _ in 0..3 {
        let now = request.command.get_i64("maxTimeMS").unwrap();
        assert!(now < left);
        left = now;
        network.pass(20);
        network.answer(&request, &failure(7, &[]));
        request = network.expect("a:1", "ping");
    }
    network.answer(&request, &failure(7, &[]));
    // What fails at once for long enough is tried at a slower pace.
    let mut tries = 0;
    while network.replies.is_empty() {
        if let Some(request) = network.take_request() {
            tries += 1;
            network.answer(&request, &failure(7, &[]));
        } else {
            network.wake();
        }
    }
    assert!((5..50).contains(&tries), "{tries}");
    let error = timeout(&mut network);
    assert_eq!(error.code(), Some(7), "{error}");
}

#[test]
fn where_no_server_is_found_for_a_retry_the_first_error_is_told() {
    let (mut network, request) = sent("&serverSelectionTimeoutMS=300", plain().retryable_read(true));
    network.answer(&request, &failure(11600, &[]));
    network.pass(1000);
    assert_eq!(reply(&mut network).unwrap_err().code(), Some(11600));
}

#[test]
fn no_pause_is_made_that_outlasts_the_time() {
    let mut overloaded = failure(462, &["RetryableError", "SystemOverloadedError"]);
    overloaded.insert("baseBackoffMS", 1_000_000);
    let (mut network, request) = sent("&timeoutMS=250", plain());
    network.answer(&request, &overloaded);
    let error = reply(&mut network).unwrap_err();
    assert_eq!((error.code(), error.is_timeout()), (Some(462), false));
}

/// "This error can be present in a top-level response document [...], as part of an error in the `writeErrors` array, or in
/// a nested `writeConcernError` document" (Client Side Operations Timeout specification, "Error Transformations").
#[test]
fn a_write_that_the_server_gave_up_is_a_timeout_where_timeout_is_set() {
    let given_up = doc! { "code": 50, "errmsg": "operation time limit exceeded" };
    let replies = [
        doc! { "ok": 1, "writeErrors": [{ "code": 1 }, given_up.clone()] },
        doc! { "ok": 1, "writeConcernError": given_up },
    ];
    for answer in replies {
        let (mut network, request) = sent("&timeoutMS=250", plain());
        network.answer(&request, &answer);
        assert_eq!(timeout(&mut network).code(), Some(50));
        let (mut network, request) = sent("", plain());
        network.answer(&request, &answer);
        assert_eq!(reply(&mut network).unwrap(), answer);
    }
    let (mut network, request) = sent("&timeoutMS=250", plain());
    let answer = doc! { "ok": 1, "writeErrors": [{ "code": 11000 }, 7], "writeConcernError": 50 };
    network.answer(&request, &answer);
    assert_eq!(reply(&mut network).unwrap(), answer);
}

#[test]
fn a_command_that_waits_for_others_waits_in_its_own_time() {
    let (mut network, request) = sent("", plain());
    network.run(ping(), plain().timeout(ms(100)));
    network.pass(100);
    assert!(network.replies.is_empty());
    network.answer(&request, &ok());
    assert_eq!(network.replies.len(), 2);
    assert!(network.replies[0].is_ok());
    assert!(network.replies[1].as_ref().unwrap_err().is_timeout());
    network.expect_no_request();
}

#[test]
fn a_connection_that_is_not_waited_for_any_longer_counts_as_not_had() {
    let (mut network, request) = sent("", plain());
    network.answer(&request, &ok());
    reply(&mut network).unwrap();
    network.disconnect("a:1");
    network.events.clear();
    network.run(ping(), plain().timeout(ms(100)));
    network.pass(100);
    timeout(&mut network);
    let failed = network.events.iter().any(|event| {
        matches!(&event.kind, EventKind::Connection(ConnectionEvent::CheckOutFailed { error, .. }) if error.is_timeout())
    });
    let started = network.events.iter().any(|event| {
        matches!(
            &event.kind,
            EventKind::Connection(ConnectionEvent::CheckOutStarted { .. })
        )
    });
    assert_eq!(failed, started, "{:?}", network.events);
}
