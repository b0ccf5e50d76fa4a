//! Taking leave.

use changestream_core::client::{DeadlineReason, Demand};

use super::network::{Network, Request, failure, first_batch, mongos, next_batch, ok, primary};

/// Takes the two commands of a farewell.
#[track_caller]
fn farewell(network: &mut Network) -> [Request; 2] {
    let kill = network.expect("a:1", "killCursors");
    assert_eq!(kill.command.get_array("cursors").unwrap(), &[7_i64.into()]);
    assert_eq!(kill.command.get_str("killCursors").unwrap(), "orders");
    let end = network.expect("a:1", "endSessions");
    assert_eq!(end.command.get_str("$db").unwrap(), "admin");
    let session = end.command.get_array("endSessions").unwrap()[0]
        .as_document()
        .unwrap();
    assert_eq!(Some(session), kill.command.get_document("lsid").ok());
    [kill, end]
}

#[test]
fn an_idle_stream_takes_leave_over_its_connection() {
    let mut network = Network::attached();
    let link = network.link("a:1");
    network.close(5000);
    assert!(!network.machine.is_alive());
    let [kill, end] = farewell(&mut network);
    assert_eq!((kill.connection, end.connection), (link, link));
    network.answer(&kill, &failure(1, &[]));
    assert!(network.closed.is_none());
    network.answer(&end, &ok());
    assert!(matches!(network.closed, Some(Ok(()))));
}

#[test]
fn while_a_get_more_is_awaited_leave_is_taken_over_another_connection_to_the_same_server() {
    let (mut network, get_more) = Network::waiting();
    network.close(5000);
    assert_eq!(network.addresses(), ["a:1"]);
    assert_ne!(network.link("a:1"), get_more.connection);
    network.answer_hello("a:1", &primary("a:1", 1));
    for request in farewell(&mut network) {
        network.answer(&request, &ok());
    }
    assert!(matches!(network.closed, Some(Ok(()))));
}

#[test]
fn leave_is_taken_of_a_server_that_has_left_the_set() {
    let (mut network, _) = Network::waiting();
    network.close(5000);
    let mut hello = primary("a:1", 1);
    hello.insert("setName", "another");
    network.answer_hello("a:1", &hello);
    for request in farewell(&mut network) {
        network.answer(&request, &ok());
    }
    assert!(matches!(network.closed, Some(Ok(()))));
}

#[test]
fn behind_a_load_balancer_leave_is_taken_over_the_same_connection_whatever_it_waits_for() {
    let mut hello = mongos();
    hello.insert("serviceId", bson::oid::ObjectId::from_bytes([1; 12]));
    let mut network = Network::new("mongodb://a:1/?loadBalanced=true");
    network.answer_hello("a:1", &hello);
    network.open_at("a:1");
    network.demand(Demand::Next);
    let get_more = network.expect("a:1", "getMore");
    network.close(5000);
    let requests = farewell(&mut network);
    network.answer(&get_more, &next_batch(7, &[]));
    for request in requests {
        assert!(network.closed.is_none());
        assert_eq!(request.connection, get_more.connection);
        network.answer(&request, &ok());
    }
    assert!(matches!(network.closed, Some(Ok(()))));
}

#[test]
fn while_a_server_is_looked_for_there_is_nobody_to_take_leave_of() {
    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs");
    network.close(5000);
    assert!(matches!(network.closed, Some(Ok(()))));
    let mut network = Network::new("mongodb://u:p@a:1/?replicaSet=rs&authMechanism=SCRAM-SHA-256");
    network.answer_hello("a:1", &primary("a:1", 1));
    network.expect("a:1", "saslStart");
    network.close(5000);
    assert!(matches!(network.closed, Some(Ok(()))));
}

#[test]
fn a_session_is_ended_whose_aggregate_is_not_answered_yet() {
    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs");
    network.answer_hello("a:1", &primary("a:1", 1));
    let aggregate = network.expect("a:1", "aggregate");
    network.close(5000);
    network.answer_hello("a:1", &primary("a:1", 1));
    let end = network.expect("a:1", "endSessions");
    assert_ne!(end.connection, aggregate.connection);
    network.answer(&end, &ok());
    assert!(matches!(network.closed, Some(Ok(()))));
}

#[test]
fn a_server_that_does_not_answer_delays_the_end_until_the_deadline() {
    let mut network = Network::attached();
    network.close(5000);
    assert_eq!(network.deadline.unwrap().reason, DeadlineReason::Close);
    network.pass(4999);
    assert!(network.closed.is_none());
    network.pass(1);
    assert!(matches!(network.closed, Some(Ok(()))));
}

#[test]
fn a_second_close_may_shorten_the_time_and_never_lengthens_it() {
    let mut network = Network::attached();
    network.close(5000);
    network.close(9000);
    network.close(1000);
    network.pass(1000);
    assert!(matches!(network.closed, Some(Ok(()))));
}

#[test]
fn a_server_that_is_gone_does_not_delay_the_end() {
    let (mut network, _) = Network::waiting();
    network.close(5000);
    network.disconnect("a:1");
    assert!(matches!(network.closed, Some(Ok(()))));
}

#[test]
fn a_stream_that_ends_by_itself_ends_its_session() {
    let (mut network, get_more) = Network::waiting();
    network.answer(&get_more, &next_batch(0, &["e1"]));
    network.demand(Demand::Next);
    assert!(matches!(network.closed, Some(Ok(()))));
    assert!(network.transcript.iter().any(|line| line.contains("endSessions")));
    assert!(!network.transcript.iter().any(|line| line.contains("killCursors")));
}

#[test]
fn a_stream_that_a_server_ends_by_an_error_ends_its_session() {
    let (mut network, get_more) = Network::waiting();
    network.answer(&get_more, &failure(280, &[]));
    network.expect_error();
    assert!(network.transcript.iter().any(|line| line.contains("endSessions")));
    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs");
    network.answer_hello("a:1", &primary("a:1", 1));
    let aggregate = network.expect("a:1", "aggregate");
    network.answer(&aggregate, &failure(40324, &[]));
    network.expect_error();
    assert!(network.transcript.iter().any(|line| line.contains("endSessions")));
}

#[test]
fn an_error_that_waits_behind_events_does_not_keep_a_stream_from_leaving() {
    let mut options = changestream_core::WatchOptions::default();
    options.prefetch_batches = 1;
    let mut network = Network::with("mongodb://a:1,b:1/?replicaSet=rs", None, options);
    network.answer_hello("a:1", &primary("a:1", 1));
    let aggregate = network.expect("a:1", "aggregate");
    let mut reply = first_batch(7);
    let events = vec![bson::doc! { "_id": { "_data": "e1" } }];
    reply
        .get_document_mut("cursor")
        .unwrap()
        .insert("firstBatch", events);
    network.answer(&aggregate, &reply);
    let get_more = network.expect("a:1", "getMore");
    network.answer(&get_more, &failure(43, &[]));
    network.close(5000);
    let end = network.expect("a:1", "endSessions");
    network.answer(&end, &ok());
    assert!(matches!(network.closed, Some(Ok(()))));
}
