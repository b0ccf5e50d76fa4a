//! Commands of the user's own: one sent, one reply.

use std::time::Duration;

use bson::{Document, Timestamp, doc};
use changestream_core::client::{Demand, Input};
use changestream_core::monitoring::{CommandStage, EventKind, HeartbeatEvent};
use changestream_core::random::Random;
use changestream_core::{
    CommandOptions, ErrorKind, ReadPreference, ReadPreferenceMode, RunCommand, ServerApi, ServerApiVersion,
    Session,
};

use super::network::{Network, Request, failure, mongos, next_batch, ok, primary, secondary, standalone};

const SET: &str = "mongodb://a:1,b:1/?replicaSet=rs";
const OVERLOADED: &[&str] = &["RetryableError", "SystemOverloadedError"];

fn ping() -> Document {
    doc! { "ping": 1 }
}

fn plain() -> CommandOptions {
    CommandOptions::default()
}

/// A machine with a ready connection to `a:1`, the primary of a set, over which one ping was answered.
fn warm() -> Network {
    warm_with(SET)
}

fn warm_with(uri: &str) -> Network {
    let mut network = Network::for_commands(uri, |_| {});
    network.run(ping(), plain());
    network.answer_hello("a:1", &primary("a:1", 1));
    let request = network.expect("a:1", "ping");
    network.answer(&request, &ok());
    assert!(matches!(network.replies[..], [Ok(_)]));
    network.replies.clear();
    network.events.clear();
    // A server is not asked again sooner.
    network.pass(600);
    network
}

/// The one reply that came since the last was taken.
#[track_caller]
fn reply(network: &mut Network) -> Result<Document, changestream_core::Error> {
    assert_eq!(network.replies.len(), 1, "{:?}", network.replies);
    network.replies.remove(0)
}

fn ran(network: &mut Network, address: &str, hello: &Document, options: CommandOptions) -> Request {
    network.run(ping(), options);
    network.answer_hello(address, hello);
    network.expect(address, "ping")
}

/// The first request of that name that the primary gets because of a ping.
fn ran_to(network: &mut Network, hello: &Document, name: &str) -> Request {
    network.run(ping(), plain());
    network.answer_hello("a:1", hello);
    network.expect("a:1", name)
}

#[test]
fn a_machine_without_commands_does_nothing() {
    let network = Network::for_commands(SET, |_| {});
    assert!(network.links.is_empty() && network.transcript.is_empty());
    assert_eq!(network.deadline, None);
}

#[test]
fn a_command_goes_out_as_it_is_with_a_database_and_a_session() {
    let mut network = Network::for_commands(
        "mongodb://a:1/?readConcernLevel=majority&readPreference=nearest",
        |_| {},
    );
    let request = ran(&mut network, "a:1", &primary("a:1", 1), plain());
    let mut command = request.command.clone();
    assert!(command.remove("lsid").is_some());
    assert_eq!(command, doc! { "ping": 1, "$db": "shop" });
    network.answer(&request, &doc! { "ok": 1, "mine": true });
    assert_eq!(reply(&mut network).unwrap(), doc! { "ok": 1, "mine": true });
}

#[test]
fn commands_in_a_row_share_a_connection_and_an_implicit_session() {
    let mut network = Network::for_commands(SET, |_| {});
    network.run(ping(), plain());
    network.run(doc! { "hostInfo": 1 }, plain());
    network.answer_hello("a:1", &primary("a:1", 1));
    let first = network.expect("a:1", "ping");
    network.expect_no_request();
    network.answer(&first, &ok());
    let second = network.expect("a:1", "hostInfo");
    network.answer(&second, &ok());
    assert_eq!(first.connection, second.connection);
    assert_eq!(first.command.get("lsid"), second.command.get("lsid"));
    assert_eq!(network.replies.len(), 2);
    assert_eq!(network.addresses(), ["a:1"]);
}

#[test]
fn a_session_that_the_server_is_about_to_forget_is_not_used_again() {
    let mut network = warm();
    network.run(ping(), plain());
    let before = network.expect("a:1", "ping");
    network.answer(&before, &ok());
    // The server remembers it for thirty minutes.
    network.sleep(29 * 60 * 1000);
    let after = ran(&mut network, "a:1", &primary("a:1", 1), plain());
    assert_ne!(before.command.get("lsid"), after.command.get("lsid"));
}

#[test]
fn a_session_in_which_the_network_failed_is_not_used_again() {
    let mut network = warm();
    network.run(ping(), plain());
    let before = network.expect("a:1", "ping");
    network.disconnect("a:1");
    assert!(reply(&mut network).is_err());
    let after = ran(&mut network, "a:1", &primary("a:1", 1), plain());
    assert_ne!(before.command.get("lsid"), after.command.get("lsid"));
}

#[test]
fn a_read_is_tried_again_in_the_session_in_which_the_network_failed() {
    let mut network = warm();
    network.run(ping(), plain().retryable_read(true));
    let before = network.expect("a:1", "ping");
    network.disconnect("a:1");
    network.answer_hello("a:1", &primary("a:1", 1));
    let again = network.expect("a:1", "ping");
    assert_eq!(before.command.get("lsid"), again.command.get("lsid"));
    network.answer(&again, &ok());
    assert!(reply(&mut network).is_ok());
    network.run(ping(), plain());
    let after = network.expect("a:1", "ping");
    assert_ne!(before.command.get("lsid"), after.command.get("lsid"));
}

#[test]
fn a_session_of_the_users_goes_along_and_is_not_ended() {
    let session = Session::new(&mut Random::new([1; 32]));
    let mut network = Network::for_commands(SET, |_| {});
    let options = plain().session(session.clone());
    let request = ran(&mut network, "a:1", &primary("a:1", 1), options);
    let id = bson::Binary {
        subtype: bson::spec::BinarySubtype::Uuid,
        bytes: session.id().to_vec(),
    };
    assert_eq!(request.command.get_document("lsid").unwrap(), &doc! { "id": id });
    network.answer(&request, &ok());
    network.close(1000);
    network.expect_no_request();
    assert!(matches!(network.closed, Some(Ok(()))));
}

#[test]
fn a_session_of_the_users_needs_servers_that_know_sessions() {
    let session = Session::new(&mut Random::new([1; 32]));
    let mut hello = standalone();
    hello.remove("logicalSessionTimeoutMinutes");
    let mut network = Network::for_commands("mongodb://a:1/?directConnection=true", |_| {});
    network.run(ping(), plain().session(session));
    network.answer_hello("a:1", &hello);
    network.expect_no_request();
    let error = reply(&mut network).unwrap_err();
    assert!(error.to_string().contains("sessions"), "{error}");
    // And without one, none is sent there.
    network.run(ping(), plain());
    let request = network.expect("a:1", "ping");
    assert!(!request.command.contains_key("lsid"));
}

#[test]
fn the_cluster_time_of_one_reply_goes_out_with_the_next_command() {
    let mut network = warm();
    let time = doc! { "clusterTime": Timestamp { time: 9, increment: 1 } };
    network.run(ping(), plain());
    let request = network.expect("a:1", "ping");
    network.answer(&request, &doc! { "ok": 1, "$clusterTime": time.clone() });
    network.run(ping(), plain());
    let request = network.expect("a:1", "ping");
    assert_eq!(request.command.get_document("$clusterTime").unwrap(), &time);
}

#[test]
fn the_cluster_time_that_a_stream_has_seen_goes_out_with_a_command() {
    let time = doc! { "clusterTime": Timestamp { time: 9, increment: 1 } };
    let mut stream = Network::new(SET);
    let mut hello = primary("a:1", 1);
    hello.insert("$clusterTime", time.clone());
    stream.answer_hello("a:1", &hello);
    let mut network = warm();
    network.machine.learn(stream.machine.snapshot());
    network.run(ping(), plain());
    let request = network.expect("a:1", "ping");
    assert_eq!(request.command.get_document("$clusterTime").unwrap(), &time);
}

#[test]
fn the_cluster_time_of_a_handshake_counts_once_the_server_has_let_the_client_in() {
    let time = doc! { "clusterTime": Timestamp { time: 9, increment: 1 } };
    let mut hello = primary("a:1", 1);
    hello.insert("$clusterTime", time.clone());
    let uri = "mongodb://user:pencil@a:1,b:1/?replicaSet=rs&authMechanism=PLAIN";
    for lets_in in [false, true] {
        let mut network = Network::for_commands(uri, |_| {});
        let mut sasl = ran_to(&mut network, &hello, "saslStart");
        if !lets_in {
            network.disconnect("a:1");
            assert!(reply(&mut network).is_err());
            network.pass(600);
            sasl = ran_to(&mut network, &primary("a:1", 1), "saslStart");
        }
        network.answer(
            &sasl,
            &doc! { "ok": 1, "conversationId": 1, "done": true, "payload": "" },
        );
        let request = network.expect("a:1", "ping");
        let told = request.command.get_document("$clusterTime").ok();
        assert_eq!(told, lets_in.then_some(&time));
    }
}

/// "Drivers do not gossip $clusterTime on SDAM commands" is prose test 20 of the Driver Sessions specification.
#[test]
fn the_cluster_time_of_a_check_is_not_learned() {
    let mut network = warm_with("mongodb://a:1,b:1/?replicaSet=rs&heartbeatFrequencyMS=500");
    network.run(ping(), plain());
    let mut hello = primary("a:1", 1);
    hello.insert(
        "$clusterTime",
        doc! { "clusterTime": Timestamp { time: 9, increment: 1 } },
    );
    network.answer_hello("a:1", &hello);
    assert!(!network.expect("a:1", "ping").command.contains_key("$clusterTime"));
}

#[test]
fn a_check_that_an_overloaded_server_refuses_takes_neither_its_connection_nor_what_is_known_of_it() {
    let mut network = warm_with("mongodb://a:1,b:1/?replicaSet=rs&heartbeatFrequencyMS=500");
    let connection = network.link("a:1");
    network.run(ping(), plain());
    network.answer_hello("a:1", &failure(462, OVERLOADED));
    let request = network.expect("a:1", "ping");
    assert_eq!(request.connection, connection);
    let refused = network.events.iter().filter(|event| match &event.kind {
        EventKind::Heartbeat(HeartbeatEvent::Failed { server, failure, .. }) => {
            server.to_string() == "a:1" && failure.as_ref().unwrap().code() == Some(462)
        }
        _ => false,
    });
    assert_eq!(refused.count(), 1);
}

#[test]
fn a_check_that_breaks_off_after_authentication_is_over() {
    let uri = "mongodb://user:pencil@a:1,b:1/?replicaSet=rs&authMechanism=PLAIN&heartbeatFrequencyMS=500";
    let mut network = Network::for_commands(uri, |_| {});
    network.run(ping(), plain().timeout(Duration::from_millis(250)));
    network.answer_hello("b:1", &secondary("b:1"));
    network.answer_hello("a:1", &primary("a:1", 1));
    let sasl = network.expect("a:1", "saslStart");
    network.pass(250);
    assert!(reply(&mut network).unwrap_err().is_timeout());
    network.pass(600);
    // The connection still authenticates, and is to be checked then.
    network.run(ping(), plain());
    network.answer(
        &sasl,
        &doc! { "ok": 1, "conversationId": 1, "done": true, "payload": "" },
    );
    network.disconnect("a:1");
    network.answer_hello("a:1", &primary("a:1", 1));
    network.expect("a:1", "saslStart");
}

#[test]
fn a_read_preference_chooses_the_server_and_is_told_where_that_is_of_use() {
    let nearest = || plain().read_preference(ReadPreference::new(ReadPreferenceMode::Nearest));
    let told = |uri: &str, hello: &Document, options| {
        let mut network = Network::for_commands(uri, |_| {});
        let request = ran(&mut network, "a:1", hello, options);
        request.command.get_document("$readPreference").ok().cloned()
    };
    let direct = "mongodb://a:1/?directConnection=true";
    assert_eq!(
        told("mongodb://a:1/", &mongos(), nearest()),
        Some(doc! { "mode": "nearest" })
    );
    assert_eq!(told(direct, &standalone(), nearest()), None);
    assert_eq!(
        told(direct, &secondary("a:1"), plain()),
        Some(doc! { "mode": "primaryPreferred" })
    );
    let primary_only = plain().read_preference(ReadPreference::default());
    assert_eq!(told("mongodb://a:1/", &mongos(), primary_only), None);

    let mut network = warm();
    let before = network.link("a:1");
    let secondaries = plain().read_preference(ReadPreference::new(ReadPreferenceMode::Secondary));
    network.run(ping(), secondaries);
    network.answer_hello("b:1", &secondary("b:1"));
    network.answer_hello("a:1", &primary("a:1", 1));
    let request = network.expect("b:1", "ping");
    network.answer(&request, &ok());
    // The connection to the other server is kept for the next command.
    network.run(ping(), plain());
    assert_eq!(network.expect("a:1", "ping").connection, before);
}

#[test]
fn what_the_client_says_itself_is_not_to_be_said_twice() {
    let refused = |command: Document, options: CommandOptions| {
        let error = RunCommand::new("shop", &command, options).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::InvalidArgument { .. }),
            "{error}"
        );
    };
    let session = || Session::new(&mut Random::new([1; 32]));
    refused(doc! {}, plain());
    refused(doc! { "ping": 1, "$db": "other" }, plain());
    refused(doc! { "ping": 1, "lsid": {} }, plain().session(session()));
    refused(
        doc! { "ping": 1, "$readPreference": {} },
        plain().read_preference(ReadPreference::default()),
    );
    refused(doc! { "pi\0ng": 1 }, plain());
    assert!(RunCommand::new("", &ping(), plain()).is_err());
    assert!(RunCommand::new("a.b", &ping(), plain()).is_err());

    // Said once, it is sent as it is.
    let own = doc! { "ping": 1, "lsid": { "id": 1 }, "$readPreference": { "mode": "nearest" } };
    let mut network = warm();
    network.run(own.clone(), plain());
    let mut sent = network.expect("a:1", "ping").command;
    sent.remove("$db");
    assert_eq!(sent, own);
}

#[test]
fn a_refusal_is_the_servers_error_and_the_next_command_runs() {
    let mut network = warm();
    network.run(ping(), plain());
    let request = network.expect("a:1", "ping");
    network.answer(&request, &failure(59, &[]));
    let error = reply(&mut network).unwrap_err();
    assert_eq!(error.code(), Some(59));
    assert_eq!(error.server().unwrap().to_string(), "a:1");
    network.run(ping(), plain());
    let request = network.expect("a:1", "ping");
    network.answer(&request, &ok());
    assert!(reply(&mut network).is_ok());
}

#[test]
fn a_command_is_not_sent_again_when_the_network_fails_it_unless_it_is_a_read_that_may_be() {
    let mut network = warm();
    network.run(ping(), plain());
    network.expect("a:1", "ping");
    network.disconnect("a:1");
    assert!(matches!(
        reply(&mut network).unwrap_err().kind(),
        ErrorKind::Network { .. }
    ));

    for (uri, tries) in [(SET.to_owned(), 2), (format!("{SET}&retryReads=false"), 1)] {
        let mut network = warm_with(&uri);
        network.run(ping(), plain().retryable_read(true));
        let first = network.expect("a:1", "ping");
        network.disconnect("a:1");
        if tries == 2 {
            network.answer_hello("a:1", &primary("a:1", 1));
            let second = network.expect("a:1", "ping");
            assert_ne!(first.connection, second.connection);
            network.answer(&second, &failure(91, &[]));
        }
        assert!(reply(&mut network).is_err());
        let started: Vec<_> = network
            .events
            .iter()
            .filter_map(|event| match &event.kind {
                EventKind::Command(command) => match command.stage {
                    CommandStage::Started { .. } => Some(command.operation_id),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        assert_eq!(started.len(), tries);
        assert!(started.iter().all(|id| *id == started[0]), "{started:?}");
    }
}

#[test]
fn what_an_overloaded_server_refused_is_sent_again_twice_after_pauses() {
    let mut network = warm();
    network.run(ping(), plain());
    for _ in 0..2 {
        let request = network.expect("a:1", "ping");
        network.answer(&request, &failure(462, OVERLOADED));
        network.expect_no_request();
        network.pass(1000);
    }
    let request = network.expect("a:1", "ping");
    network.answer(&request, &failure(462, OVERLOADED));
    assert_eq!(reply(&mut network).unwrap_err().code(), Some(462));

    for off in ["retryReads=false", "retryWrites=false"] {
        let mut network = warm_with(&format!("{SET}&{off}"));
        network.run(ping(), plain());
        let request = network.expect("a:1", "ping");
        network.answer(&request, &failure(462, OVERLOADED));
        assert!(reply(&mut network).is_err(), "{off}");
    }
}

#[test]
fn a_command_may_take_as_long_as_it_takes_unless_the_client_says_otherwise() {
    let mut network = warm();
    network.run(doc! { "ping": 1 }, plain());
    assert_eq!(network.deadline, None);
    let mut network = warm_with(&format!("{SET}&socketTimeoutMS=500"));
    network.run(ping(), plain());
    let deadline = network.deadline.unwrap();
    assert_eq!(
        deadline.at.duration_since(network.now),
        Duration::from_millis(500)
    );
    network.wake();
    assert!(matches!(
        reply(&mut network).unwrap_err().kind(),
        ErrorKind::Network { timed_out: true, .. }
    ));
}

#[test]
fn closing_ends_the_implicit_session() {
    let mut network = warm();
    network.run(ping(), plain());
    let request = network.expect("a:1", "ping");
    network.answer(&request, &ok());
    network.close(1000);
    let end = network.expect("a:1", "endSessions");
    let sessions = end.command.get_array("endSessions").unwrap();
    assert_eq!(sessions[..], [request.command.get("lsid").unwrap().clone()]);
    network.answer(&end, &ok());
    assert!(matches!(network.closed, Some(Ok(()))));
}

#[test]
fn a_server_that_cannot_be_found_is_an_error_and_the_next_command_looks_anew() {
    let mut network = Network::for_commands(
        "mongodb://a:1/?directConnection=true&serverSelectionTimeoutMS=100",
        |_| {},
    );
    network.run(ping(), plain());
    network.disconnect("a:1");
    network.pass(200);
    assert!(matches!(
        reply(&mut network).unwrap_err().kind(),
        ErrorKind::ServerSelection { .. }
    ));
    network.pass(6000);
    let request = ran(&mut network, "a:1", &standalone(), plain());
    network.answer(&request, &ok());
    assert!(reply(&mut network).is_ok());
}

#[test]
fn a_connection_lost_between_commands_is_replaced() {
    let mut network = warm();
    network.disconnect("a:1");
    assert!(network.replies.is_empty());
    let request = ran(&mut network, "a:1", &primary("a:1", 1), plain());
    network.answer(&request, &ok());
    assert!(reply(&mut network).is_ok());
}

#[test]
fn a_declared_api_version_goes_with_hello_and_every_command() {
    let api = ServerApi::new(ServerApiVersion::V1)
        .strict(true)
        .deprecation_errors(false);
    let mut network = Network::for_commands(SET, |options| options.server_api = Some(api));
    network.run(ping(), plain());
    network.connect("a:1");
    let hello = network.expect("a:1", "hello");
    network.answer(&hello, &primary("a:1", 1));
    let request = network.expect("a:1", "ping");
    for command in [&hello.command, &request.command] {
        assert_eq!(command.get_str("apiVersion").unwrap(), "1");
        assert!(command.get_bool("apiStrict").unwrap());
        assert!(!command.get_bool("apiDeprecationErrors").unwrap());
    }
    network.answer(&request, &ok());
    assert!(reply(&mut network).is_ok());
    network.run(doc! { "ping": 1, "apiVersion": "1" }, plain());
    assert!(
        reply(&mut network)
            .unwrap_err()
            .to_string()
            .contains("apiVersion")
    );
}

#[test]
fn a_declared_api_version_goes_with_all_that_a_stream_says() {
    let api = ServerApi::new(ServerApiVersion::V1);
    let mut network = Network::declaring("mongodb://user:pencil@a:1,b:1/?replicaSet=rs", api);
    network.connect("a:1");
    let hello = network.expect("a:1", "hello");
    network.answer(&hello, &primary("a:1", 1));
    let sasl = network.expect("a:1", "saslStart");
    for command in [&hello.command, &sasl.command] {
        assert_eq!(command.get_str("apiVersion").unwrap(), "1");
        assert!(!command.contains_key("apiStrict"));
    }

    let mut network = Network::declaring(SET, ServerApi::new(ServerApiVersion::V1));
    network.answer_hello("a:1", &primary("a:1", 1));
    let aggregate = network.open_at("a:1");
    network.demand(Demand::Next);
    let get_more = network.expect("a:1", "getMore");
    network.answer(&get_more, &next_batch(7, &["e1"]));
    network.close(1000);
    let kill = network.expect("a:1", "killCursors");
    let end = network.expect("a:1", "endSessions");
    for request in [aggregate, get_more, kill, end] {
        assert_eq!(
            request.command.get_str("apiVersion").unwrap(),
            "1",
            "{}",
            request.command
        );
    }
}

#[test]
fn commands_that_carry_secrets_are_told_of_without_them() {
    let mut network = warm();
    let secret = doc! { "createUser": "alice", "pwd": "pencil" };
    network.run(secret, plain());
    let request = network.expect("a:1", "createUser");
    let mut refusal = failure(51003, &["Label"]);
    refusal.insert("errmsg", "the password pencil is too short");
    network.answer(&request, &refusal);
    for name in ["hello", "isMaster"] {
        network.run(
            doc! { name: 1, "speculativeAuthenticate": { "payload": "pencil" } },
            plain(),
        );
        let request = network.expect("a:1", name);
        network.answer(&request, &doc! { "ok": 1, "speculativeAuthenticate": "pencil" });
    }
    assert_eq!(network.replies.len(), 3);
    let commands: Vec<_> = network
        .events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Command(command) => Some(command),
            _ => None,
        })
        .collect();
    assert_eq!(commands.len(), 6);
    assert!(!format!("{commands:?}").contains("pencil"), "{commands:?}");
    let CommandStage::Failed { failure, .. } = &commands[1].stage else {
        panic!("{commands:?}")
    };
    assert_eq!(failure.code(), Some(51003));
    assert!(failure.server_error().unwrap().has_label("Label"));

    network.events.clear();
    network.run(doc! { "hello": 1 }, plain());
    let request = network.expect("a:1", "hello");
    network.answer(&request, &primary("a:1", 1));
    assert!(
        format!("{:?}", network.events).contains("electionId"),
        "a plain hello is told of"
    );
}

#[test]
fn the_connection_is_checked_out_while_a_command_runs() {
    let mut network = warm();
    network.run(ping(), plain());
    let request = network.expect("a:1", "ping");
    let connections = |network: &mut Network| -> Vec<String> {
        let events = network.events.drain(..).filter_map(|event| match event.kind {
            EventKind::Connection(event) => Some(format!("{event:?}")),
            _ => None,
        });
        events
            .map(|words| words.split(' ').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(connections(&mut network), ["CheckOutStarted", "CheckedOut"]);
    network.answer(&request, &ok());
    assert_eq!(connections(&mut network), ["CheckedIn"]);
}

#[test]
fn a_stream_ignores_commands() {
    let mut network = Network::attached();
    network.run(ping(), plain());
    network.expect_no_request();
    assert!(network.replies.is_empty());
    network.input(Input::Timeout);
    network.expect_alive();
}

/// Client Side Operations Timeout specification, "Error Transformations" (error-transformations.json).
#[test]
fn what_the_server_gave_up_is_a_timeout_where_timeout_is_set() {
    for (more, is_timeout) in [("", false), ("&timeoutMS=250", true), ("&timeoutMS=0", true)] {
        let mut network = warm_with(&format!("{SET}{more}"));
        network.run(ping(), plain());
        let request = network.expect("a:1", "ping");
        network.answer(&request, &failure(50, &[]));
        let error = reply(&mut network).unwrap_err();
        assert_eq!(error.is_timeout(), is_timeout, "{error}");
        assert_eq!(error.code(), Some(50));
    }
}

#[test]
fn what_is_about_a_cursor_goes_to_its_server_and_to_no_other() {
    let mut network = Network::for_commands("mongodb://a:1,b:1/", |_| {});
    network.run(doc! { "find": "orders" }, plain());
    network.answer_hello("b:1", &mongos());
    network.answer_hello("a:1", &mongos());
    let opened = doc! { "ok": 1, "cursor": { "id": 7_i64, "ns": "shop.orders", "firstBatch": [] } };
    let find = network.take_request().unwrap();
    network.answer(&find, &opened);
    assert!(reply(&mut network).is_ok());
    for _ in 0..8 {
        network.run(doc! { "getMore": 7_i64, "collection": "orders" }, plain());
        let more = network.expect(&find.address, "getMore");
        network.answer(&more, &opened);
        assert!(reply(&mut network).is_ok());
    }
    network.run(doc! { "killCursors": "orders", "cursors": [7_i64] }, plain());
    network.expect(&find.address, "killCursors");
}
