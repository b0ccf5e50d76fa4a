//! Finding a server.

use std::time::Duration;

use bson::doc;
use changestream_core::client::{DeadlineReason, Demand};
use changestream_core::{CommandOptions, ErrorKind, ReadPreference, ReadPreferenceMode};

use super::network::{
    Network, failure, first_batch, mongos, ok, primary, secondary, standalone, without_prefetch,
};

const SET: &str = "mongodb://a:1,b:1/?replicaSet=rs";

#[test]
fn all_seeds_are_asked_at_once_and_the_primary_is_taken() {
    let mut network = Network::new(SET);
    assert_eq!(network.addresses(), ["a:1", "b:1"]);
    network.answer_hello("b:1", &secondary("b:1"));
    network.expect_no_request();
    network.answer_hello("a:1", &primary("a:1", 1));
    assert_eq!(network.addresses(), ["a:1"], "the others are let go");
    let aggregate = network.open_at("a:1");
    assert_eq!(aggregate.command.get_str("aggregate").unwrap(), "orders");
    assert!(!aggregate.command.contains_key("$readPreference"));
    assert!(network.machine.is_open() && network.machine.is_alive());
    assert_eq!(
        network.deadline, None,
        "an open stream that nobody reads wants nothing"
    );
}

#[test]
fn a_member_that_no_seed_named_is_found_through_one() {
    let mut network = Network::new("mongodb://b:1/?replicaSet=rs");
    network.answer_hello("b:1", &secondary("b:1"));
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
}

#[test]
fn the_primary_is_taken_at_once_while_another_member_hangs() {
    let mut network = Network::new(SET);
    network.connect("b:1");
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
    assert_eq!(network.addresses(), ["a:1"]);
}

#[test]
fn secondary_preferred_waits_for_the_members_that_are_still_asked() {
    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs&readPreference=secondaryPreferred");
    network.answer_hello("a:1", &primary("a:1", 1));
    network.pass(1000);
    network.expect_no_request();
    network.answer_hello("b:1", &secondary("b:1"));
    let aggregate = network.open_at("b:1");
    assert_eq!(
        aggregate.command.get_document("$readPreference").unwrap(),
        &doc! { "mode": "secondaryPreferred" }
    );
}

#[test]
fn secondary_preferred_takes_the_primary_once_the_others_have_failed() {
    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs&readPreference=secondaryPreferred");
    network.answer_hello("a:1", &primary("a:1", 1));
    network.disconnect("b:1");
    network.open_at("a:1");
}

#[test]
fn a_member_that_hangs_longer_than_the_selection_may_take_is_not_waited_for() {
    for mode in ["secondaryPreferred", "primaryPreferred"] {
        let uri = format!(
            "mongodb://a:1,b:1/?replicaSet=rs&readPreference={mode}&serverSelectionTimeoutMS=2000&connectTimeoutMS=0"
        );
        let mut network = Network::new(&uri);
        let reply = if mode == "primaryPreferred" {
            secondary("a:1")
        } else {
            primary("a:1", 1)
        };
        network.answer_hello("a:1", &reply);
        network.connect("b:1");
        network.pass(2000);
        network.open_at("a:1");
    }
}

#[test]
fn nearest_waits_twice_the_latency_window_and_chooses_within_it() {
    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs&readPreference=nearest");
    network.connect("a:1");
    network.connect("b:1");
    network.sleep(2);
    network.answer_hello("a:1", &primary("a:1", 1));
    assert_eq!(network.deadline.unwrap().reason, DeadlineReason::Scan);
    network.pass(29);
    assert_eq!(network.addresses(), ["a:1", "b:1"]);
    network.answer_hello("b:1", &secondary("b:1"));
    network.open_at("a:1");

    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs&readPreference=nearest");
    network.answer_hello("a:1", &primary("a:1", 1));
    network.pass(30);
    network.open_at("a:1");
}

#[test]
fn without_a_server_in_time_the_error_lists_each_one_and_what_failed_there() {
    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs&serverSelectionTimeoutMS=7000");
    network.disconnect("a:1");
    network.answer_hello("b:1", &secondary("b:1"));
    for _ in 0..100 {
        if network.closed.is_some() {
            break;
        }
        if network.addresses().contains(&"a:1") {
            network.disconnect("a:1");
        } else if network.links.len() == 1 && network.deadline.unwrap().reason == DeadlineReason::Handshake {
            network.answer_hello("b:1", &secondary("b:1"));
        } else {
            network.wake();
        }
    }
    let error = network.expect_error();
    assert!(matches!(error.kind(), ErrorKind::ServerSelection { .. }));
    let message = error.to_string();
    for part in [
        "7000 ms",
        "a:1 is Unknown",
        "a:1 is gone",
        "b:1 is RSSecondary",
        "mode primary",
    ] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn servers_that_refuse_are_asked_again_after_a_pause_and_not_in_a_loop() {
    let mut network = Network::new("mongodb://a:1/?replicaSet=rs&serverSelectionTimeoutMS=30000");
    let mut asked = 0;
    while network.closed.is_none() {
        if network.links.is_empty() {
            network.wake();
        } else {
            asked += 1;
            network.disconnect("a:1");
        }
    }
    assert!(
        (4..=8).contains(&asked),
        "{asked}: each five seconds (cooldownMS)"
    );
}

#[test]
fn a_selection_timeout_of_zero_looks_once() {
    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs&serverSelectionTimeoutMS=0");
    network.connect("a:1");
    network.wake();
    network.expect_error();

    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs&serverSelectionTimeoutMS=0");
    network.disconnect("b:1");
    network.pass(100);
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
    network.expect_alive();
}

#[test]
fn a_primary_elected_while_another_member_is_silent_is_found_soon() {
    let mut network = Network::new(SET);
    network.connect("a:1");
    network.answer_hello("b:1", &secondary("b:1"));
    let begun = network.now;
    for _ in 0..2 {
        network.pass(500);
        network.answer_hello("b:1", &secondary("b:1"));
    }
    network.pass(500);
    network.answer_hello("b:1", &primary("b:1", 2));
    network.open_at("b:1");
    assert_eq!(network.now - begun, Duration::from_millis(1500));
}

#[test]
fn try_once_asks_nobody_twice_while_another_member_is_silent() {
    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs&serverSelectionTryOnce=true");
    network.connect("a:1");
    network.answer_hello("b:1", &secondary("b:1"));
    network.pass(5000);
    assert_eq!(network.take_request().unwrap().address, "a:1");
    network.expect_no_request();
    network.disconnect("a:1");
    network.expect_error();
}

#[test]
fn try_once_asks_a_server_whose_connection_broke() {
    let mut network = Network::new("mongodb://a:1/?directConnection=true&serverSelectionTryOnce=true");
    network.answer_hello("a:1", &standalone());
    network.expect("a:1", "aggregate");
    network.pass(1000);
    network.disconnect("a:1");
    network.answer_hello("a:1", &standalone());
    network.open_at("a:1");
}

#[test]
fn try_once_asks_nobody_twice_who_is_overloaded() {
    let uri = "mongodb://a:1,b:1/?replicaSet=rs&serverSelectionTryOnce=true&heartbeatFrequencyMS=500";
    let mut network = Network::for_commands(uri, |_| {});
    let ping = || doc! { "ping": 1 };
    let elsewhere = ReadPreference::new(ReadPreferenceMode::Secondary);
    network.run(ping(), CommandOptions::default().read_preference(elsewhere));
    network.answer_hello("a:1", &primary("a:1", 1));
    network.answer_hello("b:1", &secondary("b:1"));
    let request = network.expect("b:1", "ping");
    network.answer(&request, &ok());
    network.replies.clear();
    network.pass(600);
    network.run(ping(), CommandOptions::default());
    network.answer_hello("b:1", &failure(462, &["SystemOverloadedError"]));
    network.disconnect("a:1");
    network.disconnect("a:1");
    let error = network.replies.remove(0).unwrap_err();
    assert!(error.to_string().contains("serverSelectionTryOnce"), "{error}");
}

#[test]
fn try_once_fails_after_one_scan_instead_of_after_the_timeout() {
    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs&serverSelectionTryOnce=true");
    network.disconnect("a:1");
    network.expect_alive();
    network.answer_hello("b:1", &secondary("b:1"));
    assert!(
        network
            .expect_error()
            .to_string()
            .contains("serverSelectionTryOnce")
    );
}

#[test]
fn a_wrong_password_fails_at_once() {
    let mut network = Network::new("mongodb://u:pw@a:1,b:1/?replicaSet=rs&authMechanism=SCRAM-SHA-256");
    network.answer_hello("a:1", &primary("a:1", 1));
    let start = network.expect("a:1", "saslStart");
    network.answer(&start, &failure(18, &[]));
    let error = network.expect_error();
    assert!(
        matches!(error.kind(), ErrorKind::Authentication { .. }),
        "{error}"
    );
    assert_eq!(error.code(), Some(18));
    assert_eq!(error.server().unwrap().to_string(), "a:1");
    assert!(!error.to_string().contains("pw"));
}

#[test]
fn a_server_that_shuts_down_while_it_authenticates_is_a_reason_to_try_again() {
    let mut network = Network::new("mongodb://u:pw@a:1,b:1/?replicaSet=rs&authMechanism=SCRAM-SHA-256");
    network.answer_hello("a:1", &primary("a:1", 1));
    let start = network.expect("a:1", "saslStart");
    network.answer(&start, &failure(91, &[]));
    network.expect_alive();
    network.pass(600);
    network.answer_hello("b:1", &primary("b:1", 2));
    network.expect("b:1", "saslStart");
}

#[test]
fn a_connection_that_breaks_while_it_authenticates_is_a_reason_to_look_again() {
    let mut network = Network::new("mongodb://u:pw@a:1,b:1/?replicaSet=rs&authMechanism=SCRAM-SHA-256");
    network.answer_hello("a:1", &primary("a:1", 1));
    network.disconnect("a:1");
    network.expect_alive();
    network.answer_hello("b:1", &primary("b:1", 2));
    network.expect("b:1", "saslStart");
}

#[test]
fn a_server_that_leaves_the_set_while_it_authenticates_is_given_up_for_another() {
    let mut network = Network::new("mongodb://u:pw@a:1,b:1/?replicaSet=rs&authMechanism=SCRAM-SHA-256");
    network.answer_hello("a:1", &primary("a:1", 1));
    network.expect("a:1", "saslStart");
    let mut hello = primary("b:1", 2);
    hello.insert("hosts", ["b:1"]);
    network.answer_hello("b:1", &hello);
    assert_eq!(network.addresses(), ["b:1"]);
    network.expect("b:1", "saslStart");
}

#[test]
fn a_primary_that_is_deposed_while_it_authenticates_is_given_up_for_the_new_one() {
    let mut network = Network::new("mongodb://u:pw@a:1,b:1/?replicaSet=rs&authMechanism=PLAIN");
    network.answer_hello("a:1", &primary("a:1", 1));
    let start = network.expect("a:1", "saslStart");
    network.answer_hello("b:1", &primary("b:1", 2));
    let payload = bson::Binary {
        subtype: bson::spec::BinarySubtype::Generic,
        bytes: Vec::new(),
    };
    let done = doc! { "conversationId": 1, "done": true, "payload": payload, "ok": 1 };
    network.answer(&start, &done);
    network.expect("b:1", "saslStart");
}

#[test]
fn what_another_stream_has_learned_saves_the_scan() {
    let known = Network::attached();
    let snapshot = known.machine.snapshot();
    let mut network = Network::at(known.now, SET, Some(snapshot), without_prefetch());
    assert_eq!(network.addresses(), ["a:1"]);
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
}

#[test]
fn what_another_stream_has_learned_may_be_out_of_date() {
    let known = Network::attached();
    let snapshot = known.machine.snapshot();
    let mut network = Network::at(known.now, SET, Some(snapshot), without_prefetch());
    network.answer_hello("a:1", &secondary("a:1"));
    network.pass(600);
    network.answer_hello("b:1", &primary("b:1", 2));
    network.open_at("b:1");
}

#[test]
fn a_known_server_that_hangs_is_given_up_and_no_deadline_repeats_meanwhile() {
    let known = Network::attached();
    let snapshot = known.machine.snapshot();
    let uri = "mongodb://a:1,b:1/?replicaSet=rs&serverSelectionTimeoutMS=2000&connectTimeoutMS=5000";
    let mut network = Network::at(known.now, uri, Some(snapshot), without_prefetch());
    network.connect("a:1");
    network.pass(20_000);
    assert!(network.expect_error().to_string().contains("a:1 is"));
}

#[test]
fn a_direct_connection_to_a_member_says_that_a_secondary_may_answer() {
    let mut network = Network::new("mongodb://b:1/?directConnection=true");
    network.answer_hello("b:1", &secondary("b:1"));
    let aggregate = network.open_at("b:1");
    assert_eq!(
        aggregate.command.get_document("$readPreference").unwrap(),
        &doc! { "mode": "primaryPreferred" }
    );
}

#[test]
fn neither_a_mongos_nor_a_standalone_is_sent_what_it_need_not_know() {
    let mut network = Network::new("mongodb://b:1/?directConnection=true");
    network.answer_hello("b:1", &mongos());
    let aggregate = network.open_at("b:1");
    assert!(!aggregate.command.contains_key("$readPreference"));
    let mut network = Network::new("mongodb://b:1/?directConnection=true&readPreference=nearest");
    network.answer_hello("b:1", &standalone());
    let aggregate = network.open_at("b:1");
    assert!(!aggregate.command.contains_key("$readPreference"));
}

#[test]
fn the_first_aggregate_that_fails_is_tried_again_at_another_mongos() {
    for server in ["a:1", "b:1"] {
        let mut network = Network::new("mongodb://a:1,b:1/");
        network.answer_hello("a:1", &mongos());
        network.answer_hello("b:1", &mongos());
        let chosen = network.addresses()[0].to_owned();
        let other = if chosen == "a:1" { "b:1" } else { "a:1" };
        let aggregate = network.expect(&chosen, "aggregate");
        network.answer(&aggregate, &failure(if server == "a:1" { 6 } else { 189 }, &[]));
        network.answer_hello(other, &mongos());
        network.open_at(other);
    }
}

#[test]
fn without_another_mongos_the_aggregate_is_tried_again_at_the_same() {
    let mut network = Network::new("mongodb://a:1/?directConnection=true");
    network.answer_hello("a:1", &mongos());
    let aggregate = network.expect("a:1", "aggregate");
    network.answer(&aggregate, &failure(6, &[]));
    network.open_at("a:1");
}

#[test]
fn behind_a_load_balancer_nothing_is_scanned() {
    let mut network = Network::new("mongodb://a:1/?loadBalanced=true");
    assert_eq!(network.addresses(), ["a:1"]);
    let mut hello = mongos();
    hello.insert("serviceId", bson::oid::ObjectId::from_bytes([1; 12]));
    network.answer_hello("a:1", &hello);
    let aggregate = network.open_at("a:1");
    assert!(aggregate.command.contains_key("lsid"));
}

#[test]
fn a_load_balancer_that_refuses_is_tried_twice_and_no_more() {
    let mut network = Network::new("mongodb://a:1/?loadBalanced=true");
    network.disconnect("a:1");
    network.expect_alive();
    network.disconnect("a:1");
    assert!(matches!(network.expect_error().kind(), ErrorKind::Network { .. }));
}

#[test]
fn a_server_that_is_no_service_behind_a_load_balancer_is_refused() {
    let mut network = Network::new("mongodb://a:1/?loadBalanced=true");
    network.answer_hello("a:1", &mongos());
    assert!(network.expect_error().to_string().contains("load balanc"));
}

#[test]
fn a_server_that_forgot_hello_is_greeted_the_old_way_again() {
    let mut network = Network::new("mongodb://a:1,b:1/?replicaSet=rs&readPreference=secondary");
    network.answer_hello("a:1", &primary("a:1", 1));
    network.disconnect("a:1");
    network.disconnect("b:1");
    network.pass(600);
    network.connect("a:1");
    let hello = network.expect("a:1", "hello");
    network.answer(&hello, &failure(59, &[]));
    network.pass(600);
    network.connect("a:1");
    network.expect("a:1", "isMaster");
}

#[test]
fn an_aggregate_that_starts_in_the_past_may_take_its_time_whatever_the_selection_may_take() {
    let mut options = without_prefetch();
    options.start_at_operation_time = Some(bson::Timestamp {
        time: 1,
        increment: 1,
    });
    let uri = "mongodb://a:1/?directConnection=true&serverSelectionTimeoutMS=0";
    let mut network = Network::with(uri, None, options);
    network.answer_hello("a:1", &primary("a:1", 1));
    let aggregate = network.expect("a:1", "aggregate");
    network.pass(60_000);
    network.answer(&aggregate, &first_batch(7));
    network.demand(Demand::Next);
    let get_more = network.expect("a:1", "getMore");
    network.answer(&get_more, &ok());
    network.expect_error();
}

#[test]
fn an_aggregate_that_starts_now_is_answered_in_the_time_of_a_selection_or_fails() {
    let mut network =
        Network::new("mongodb://a:1/?directConnection=true&serverSelectionTimeoutMS=3000&retryReads=false");
    network.answer_hello("a:1", &primary("a:1", 1));
    network.expect("a:1", "aggregate");
    network.pass(3_500);
    network.expect_error();
}

#[test]
fn the_slowest_limits_there_are_overflow_nothing() {
    let millis = u64::MAX / 1_000_000_000;
    let uri = format!(
        "mongodb://a:1/?directConnection=true&connectTimeoutMS={m}&serverSelectionTimeoutMS={m}&localThresholdMS={m}\
         &heartbeatFrequencyMS={m}&socketTimeoutMS={m}",
        m = i32::MAX
    );
    let mut options = without_prefetch();
    options.max_await_time = Some(Duration::from_millis(millis));
    let mut network = Network::with(&uri, None, options);
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
    network.demand(Demand::Next);
    network.expect("a:1", "getMore");
    network.expect_alive();
}
