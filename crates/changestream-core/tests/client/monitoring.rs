//! What is told to whoever watches.

use std::time::Duration;

use bson::{Document, doc};
use changestream_core::client::Demand;
use changestream_core::monitoring::{
    ClosedReason, CommandEvent, CommandStage, ConnectionEvent, Event, EventKind, HeartbeatEvent, MAX_EVENTS,
    MonitoredDocument, SelectionEvent, SelectionStage,
};
use changestream_core::topology::TopologyEvent;
use changestream_core::{CommandOptions, ErrorKind, ReadPreference, ReadPreferenceMode};

use super::network::{Network, RESUMABLE, failure, first_batch, next_batch, ok, primary, secondary};

const SET: &str = "mongodb://a:1,b:1/?replicaSet=rs";

/// An event in a few words, to compare the order of things.
fn words(event: &Event) -> String {
    match &event.kind {
        EventKind::Command(command) => {
            let stage = match &command.stage {
                CommandStage::Started { .. } => "starts",
                CommandStage::Succeeded { .. } => "succeeds",
                CommandStage::Failed { .. } => "fails",
                other => panic!("{other:?}"),
            };
            format!("{} {stage} at {}", command.command_name, command.server)
        }
        EventKind::Connection(connection) => match connection {
            ConnectionEvent::Created { server, .. } => format!("created {server}"),
            ConnectionEvent::Ready { server, .. } => format!("ready {server}"),
            ConnectionEvent::Closed { server, reason, .. } => {
                let why = match reason {
                    ClosedReason::Error(_) => "error",
                    ClosedReason::Stale => "stale",
                    ClosedReason::Unused => "unused",
                    ClosedReason::Closed => "closed",
                    other => panic!("{other:?}"),
                };
                format!("closed {server}: {why}")
            }
            ConnectionEvent::CheckOutStarted { server, .. } => format!("check out starts {server}"),
            ConnectionEvent::CheckOutFailed { server, .. } => format!("check out fails {server}"),
            ConnectionEvent::CheckedOut { server, .. } => format!("checked out {server}"),
            ConnectionEvent::CheckedIn { server, .. } => format!("checked in {server}"),
            ConnectionEvent::PoolCleared { server, .. } => format!("pool cleared {server}"),
            other => panic!("{other:?}"),
        },
        EventKind::Heartbeat(heartbeat) => match heartbeat {
            HeartbeatEvent::Started { server, .. } => format!("check starts {server}"),
            HeartbeatEvent::Succeeded { server, .. } => format!("check succeeds {server}"),
            HeartbeatEvent::Failed { server, failure, .. } => {
                format!(
                    "check fails {server}{}",
                    failure.as_ref().map_or(": given up", |_| "")
                )
            }
            other => panic!("{other:?}"),
        },
        EventKind::Topology(topology) => match topology {
            TopologyEvent::Opening => "topology opens".into(),
            TopologyEvent::DescriptionChanged { new, .. } => format!("topology is {}", new.topology_type),
            TopologyEvent::ServerOpening { address, .. } => format!("server opens {address}"),
            TopologyEvent::ServerDescriptionChanged { new, .. } => {
                format!("server {} is {}", new.address, new.server_type)
            }
            TopologyEvent::ServerClosed { address, .. } => format!("server closes {address}"),
            TopologyEvent::Closed => "topology closes".into(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

impl Network {
    fn told(&mut self) -> Vec<String> {
        let told = self.events.drain(..);
        told.filter(|event| !matches!(event.kind, EventKind::Selection(_)))
            .map(|event| words(&event))
            .collect()
    }

    fn commands(&mut self) -> Vec<CommandEvent> {
        let commands = self.events.drain(..).filter_map(|event| match event.kind {
            EventKind::Command(command) => Some(command),
            _ => None,
        });
        commands.collect()
    }
}

fn document(document: &MonitoredDocument) -> Document {
    bson::deserialize_from_slice(document.as_bytes()).unwrap()
}

/// A monitored stream that is open at `a:1`.
fn attached() -> Network {
    let mut network = Network::monitored(SET);
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
    network
}

#[test]
fn nothing_is_told_unless_it_was_asked_for() {
    let mut network = Network::attached();
    network.close(1000);
    assert!(network.events.is_empty(), "{:?}", network.events);
}

#[test]
fn what_happens_is_told_in_its_order() {
    let mut network = attached();
    let expected = [
        "topology opens",
        "topology is ReplicaSetNoPrimary",
        "server opens a:1",
        "server opens b:1",
        "created a:1",
        "check starts a:1",
        "created b:1",
        "check starts b:1",
        "check succeeds a:1",
        "server a:1 is RSPrimary",
        "topology is ReplicaSetWithPrimary",
        "check out starts a:1",
        "ready a:1",
        "checked out a:1",
        "check fails b:1: given up",
        "closed b:1: unused",
        "aggregate starts at a:1",
        "aggregate succeeds at a:1",
    ];
    assert_eq!(network.told(), expected);
}

#[test]
fn a_lost_connection_is_told_from_the_command_to_the_server() {
    let mut network = attached();
    network.demand(Demand::Next);
    network.events.clear();
    network.disconnect("a:1");
    assert_eq!(
        network.told()[..6],
        [
            "getMore fails at a:1",
            "server a:1 is Unknown",
            "topology is ReplicaSetNoPrimary",
            "pool cleared a:1",
            "checked in a:1",
            "closed a:1: error",
        ]
    );
}

#[test]
fn the_end_of_a_stream_is_told_to_the_last() {
    let mut network = attached();
    network.events.clear();
    network.close(1000);
    for name in ["killCursors", "endSessions"] {
        let request = network.expect("a:1", name);
        network.answer(&request, &ok());
    }
    assert_eq!(
        network.told(),
        [
            "killCursors starts at a:1",
            "endSessions starts at a:1",
            "killCursors succeeds at a:1",
            "endSessions succeeds at a:1",
            "checked in a:1",
            "closed a:1: closed",
            "server closes a:1",
            "server closes b:1",
            "topology is Unknown",
            "topology closes",
        ]
    );
}

#[test]
fn a_command_is_told_with_all_that_the_specification_names() {
    let mut network = Network::monitored(SET);
    let mut hello = primary("a:1", 1);
    hello.insert("connectionId", 4711);
    network.answer_hello("a:1", &hello);
    network.sleep(30);
    let aggregate = network.expect("a:1", "aggregate");
    network.answer(&aggregate, &first_batch(7));
    let commands = network.commands();
    let [started, succeeded] = &commands[..] else {
        panic!("{commands:?}")
    };
    for event in [started, succeeded] {
        assert_eq!(event.command_name, "aggregate");
        assert_eq!(event.database_name, "shop");
        assert_eq!(event.connection, aggregate.connection);
        assert_eq!(event.server_connection_id, Some(4711));
        assert_eq!(event.server.to_string(), "a:1");
        assert_eq!(event.service_id, None);
        assert_eq!(event.request_id, started.request_id);
    }
    let CommandStage::Started { command, .. } = &started.stage else {
        panic!("{started:?}")
    };
    assert_eq!(document(command), aggregate.command);
    let CommandStage::Succeeded { reply, duration, .. } = &succeeded.stage else {
        panic!("{succeeded:?}")
    };
    assert_eq!(document(reply), first_batch(7));
    assert_eq!(*duration, Duration::from_millis(30));
}

#[test]
fn a_refusal_is_a_failure_with_what_the_server_said() {
    let mut network = attached();
    network.demand(Demand::Next);
    network.events.clear();
    let get_more = network.expect("a:1", "getMore");
    network.answer(&get_more, &failure(43, RESUMABLE));
    let commands = network.commands();
    let CommandStage::Failed { failure, .. } = &commands[0].stage else {
        panic!("{commands:?}")
    };
    assert_eq!(
        (failure.code(), commands[0].command_name.as_str()),
        (Some(43), "getMore")
    );
    assert_eq!(failure.server().unwrap().to_string(), "a:1");
    assert!(failure.server_error().unwrap().has_label(RESUMABLE[0]));
}

#[test]
fn the_commands_of_a_stream_are_one_operation_also_on_another_server() {
    let mut network = attached();
    network.demand(Demand::Next);
    network.demand(Demand::Next);
    network.pass(700);
    let get_more = network.expect("a:1", "getMore");
    network.answer(&get_more, &failure(10107, RESUMABLE));
    let kill = network.expect("a:1", "killCursors");
    network.answer(&kill, &ok());
    network.answer_hello("a:1", &secondary("a:1"));
    network.answer_hello("b:1", &primary("b:1", 2));
    network.open_at("b:1");
    let commands = network.commands();
    assert_eq!(commands.len(), 8);
    for event in &commands {
        assert_eq!(event.operation_id, commands[0].operation_id);
    }
}

#[test]
fn an_answer_to_hello_is_told_without_what_it_says_of_authentication() {
    let mut network = Network::monitored("mongodb://user:pencil@a:1/?directConnection=true");
    let mut hello = primary("a:1", 1);
    let secret = bson::Binary {
        subtype: bson::spec::BinarySubtype::Generic,
        bytes: b"r=nonce,s=salt,i=4096".to_vec(),
    };
    hello.insert("speculativeAuthenticate", doc! { "payload": secret });
    network.answer_hello("a:1", &hello);
    let replies: Vec<_> = network
        .events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Heartbeat(HeartbeatEvent::Succeeded { reply, .. }) => Some(document(reply)),
            _ => None,
        })
        .collect();
    assert_eq!(replies, [primary("a:1", 1)]);
    assert!(!format!("{:?}", network.events).contains("pencil"));
}

#[test]
fn a_server_that_cannot_be_reached_is_a_failed_check() {
    let mut network = Network::monitored("mongodb://a:1/?directConnection=true");
    network.events.clear();
    network.disconnect("a:1");
    let told = network.told();
    assert_eq!(
        told[..2],
        ["check fails a:1", "server a:1 is Unknown"],
        "{told:?}"
    );
    assert!(told.contains(&"closed a:1: error".into()), "{told:?}");
}

#[test]
fn events_that_nobody_takes_are_kept_up_to_a_bound() {
    let mut network = Network::monitored(SET);
    network.deaf = true;
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
    for _ in 0..MAX_EVENTS {
        network.demand(Demand::Next);
        let get_more = network.expect("a:1", "getMore");
        network.answer(&get_more, &next_batch(7, &["e"]));
    }
    network.events.clear();
    network.deaf = false;
    network.demand(Demand::None);
    assert_eq!(network.events.len(), MAX_EVENTS);
    let last = network.events.last().unwrap();
    assert_eq!(words(last), "getMore succeeds at a:1");
}

#[test]
fn a_failure_of_authentication_is_no_event_of_a_command() {
    let mut network = Network::monitored("mongodb://user:pencil@a:1/?directConnection=true");
    network.answer_hello("a:1", &primary("a:1", 1));
    let sasl = network.expect("a:1", "saslStart");
    network.answer(&sasl, &failure(18, &[]));
    assert!(matches!(
        network.expect_error().kind(),
        ErrorKind::Authentication { .. }
    ));
    assert!(network.commands().is_empty());
}

/// The searches for servers that were told of.
fn searches(network: &mut Network) -> Vec<SelectionEvent> {
    let told = network.events.drain(..);
    told.filter_map(|event| match event.kind {
        EventKind::Selection(search) => Some(search),
        _ => None,
    })
    .collect()
}

fn stages(searches: &[SelectionEvent]) -> Vec<String> {
    let stage = |search: &SelectionEvent| match &search.stage {
        SelectionStage::Started => "started".to_owned(),
        SelectionStage::Waiting { remaining, .. } => format!("waiting {} ms", remaining.as_millis()),
        SelectionStage::Succeeded { server, .. } => format!("succeeded {server}"),
        SelectionStage::Failed { failure, .. } => format!("failed {}", failure.is_timeout()),
        other => panic!("{other:?}"),
    };
    searches
        .iter()
        .map(|search| format!("{} {}", search.operation, stage(search)))
        .collect()
}

#[test]
fn the_search_for_a_server_is_told_of_from_its_beginning_to_its_end() {
    let mut network = Network::monitored(SET);
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
    let told = searches(&mut network);
    assert_eq!(stages(&told), ["aggregate started", "aggregate succeeded a:1"]);
    assert_eq!(told[0].operation_id, None);
    assert_eq!(told[0].selector, ReadPreference::default());
    assert!(told[1].topology.primary().is_some());

    // What is looked for again belongs to the same operation.
    network.demand(Demand::Next);
    let get_more = network.expect("a:1", "getMore");
    network.answer(&get_more, &failure(6, RESUMABLE));
    let told = searches(&mut network);
    assert_eq!(stages(&told), ["aggregate started", "aggregate succeeded a:1"]);
    assert!(told[0].operation_id.is_some());
}

#[test]
fn that_no_server_suits_is_told_once_all_were_asked_and_once_only() {
    let uri = format!("{SET}&serverSelectionTimeoutMS=2000");
    let mut network = Network::for_commands(&uri, |_| {});
    let secondaries = ReadPreference::new(ReadPreferenceMode::Secondary);
    network.run(
        doc! { "find": "orders" },
        CommandOptions::default().read_preference(secondaries.clone()),
    );
    network.answer_hello("a:1", &primary("a:1", 1));
    assert_eq!(stages(&searches(&mut network)), ["find started"]);
    network.pass(100);
    network.disconnect("b:1");
    let told = searches(&mut network);
    assert_eq!(stages(&told), ["find waiting 1900 ms"]);
    assert_eq!(told[0].selector, secondaries);
    for _ in 0..3 {
        network.pass(600);
        while let Some(hello) = network.take_request() {
            network.answer(&hello, &primary("a:1", 1));
        }
        if network.addresses().contains(&"b:1") {
            network.disconnect("b:1");
        }
    }
    network.pass(1000);
    assert_eq!(stages(&searches(&mut network)), ["find failed false"]);
    assert!(network.replies[0].is_err());
}

#[test]
fn a_search_that_its_command_has_no_time_for_has_failed() {
    let mut network = Network::for_commands(&format!("{SET}&timeoutMS=100"), |_| {});
    network.run(doc! { "ping": 1 }, CommandOptions::default());
    network.pass(100);
    assert_eq!(
        stages(&searches(&mut network)),
        ["ping started", "ping failed true"]
    );
}

#[test]
fn to_be_a_possible_primary_and_none_after_all_is_no_change_of_a_server() {
    let mut network = Network::monitored(SET);
    network.answer_hello("a:1", &failure(91, &[]));
    assert!(network.told().contains(&"server a:1 is Unknown".to_owned()));
    let mut hello = secondary("b:1");
    hello.insert("primary", "a:1");
    network.answer_hello("b:1", &hello);
    network.pass(600);
    network.answer_hello("a:1", &failure(91, &[]));
    let of_a = network
        .told()
        .into_iter()
        .filter(|told| told.starts_with("server a:1"));
    assert_eq!(of_a.collect::<Vec<_>>(), [""; 0]);
}
