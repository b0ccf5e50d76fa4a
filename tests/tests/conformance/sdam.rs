//! Runs the JSON files of the specifications "Server Discovery And Monitoring" (all folders but `unified`, whose files
//! need a server).

use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Bson, Document, RawDocumentBuf};
use changestream_core::topology::{
    ApplicationError, ApplicationErrorKind, ConnectionPhase, HelloReply, ServerDescription, ServerType,
    Topology, TopologyDescription, TopologyEvent, TopologySettings, TopologyVersion,
};
use changestream_core::{ConnectionString, ServerAddress, ServerError};
use serde_json::{Value, json};

use crate::expected::Expected;

/// Runs a file.
pub(crate) fn run(file: &Value) -> Result<(), String> {
    let uri = file["uri"].as_str().ok_or("the file has no uri")?;
    let mut world = World {
        now: Instant::now(),
        topology: Topology::new(settings_of(uri)?).map_err(|error| error.to_string())?,
    };
    for (number, phase) in file["phases"].as_array().unwrap().iter().enumerate() {
        world
            .run_phase(phase)
            .map_err(|reason| format!("phase {number}: {reason}"))?;
    }
    Ok(())
}

/// What a client makes of the connection string. Options that say nothing of the topology may be there as well.
fn settings_of(uri: &str) -> Result<TopologySettings, String> {
    let parsed: ConnectionString = uri.parse().map_err(|error| format!("{uri}: {error}"))?;
    let options = parsed.options;
    let mut settings = TopologySettings::new(options.hosts);
    settings.record_events = true;
    settings.replica_set = options.replica_set;
    settings.direct_connection = options.direct_connection == Some(true);
    settings.load_balanced = options.load_balanced;
    if let Some(frequency) = options.heartbeat_frequency {
        settings.heartbeat_frequency = frequency;
    }
    settings.local_threshold = options.local_threshold;
    Ok(settings)
}

struct World {
    now: Instant,
    topology: Topology,
}

impl World {
    fn run_phase(&mut self, phase: &Value) -> Result<(), String> {
        for response in phase["responses"].as_array().into_iter().flatten() {
            self.respond(&response[0], &response[1]);
        }
        for error in phase["applicationErrors"].as_array().into_iter().flatten() {
            self.fail(error);
        }
        let outcome = &phase["outcome"];
        if let Some(expected) = outcome["events"].as_array() {
            return self.expect_events(expected);
        }
        self.expect_topology(outcome)
    }

    fn respond(&mut self, address: &Value, response: &Value) {
        self.now += Duration::from_millis(1);
        let address = address_of(address);
        if response == &json!({}) {
            self.topology
                .handle_check_failure(self.now, &address, "connection refused", true);
            return;
        }
        let reply = HelloReply::parse(&raw(response)).unwrap();
        let round_trip = Some(Duration::from_millis(5));
        self.topology.handle_hello(self.now, &address, reply, round_trip);
    }

    fn fail(&mut self, error: &Value) {
        self.now += Duration::from_millis(1);
        let address = address_of(&error["address"]);
        let Some(kind) = error_kind(error) else {
            return;
        };
        let error = ApplicationError {
            kind,
            phase: match error["when"].as_str().unwrap() {
                "beforeHandshakeCompletes" => ConnectionPhase::Establishing,
                "afterHandshakeCompletes" => ConnectionPhase::Ready,
                other => panic!("the test does not know when {other} is"),
            },
            generation: error["generation"]
                .as_u64()
                .unwrap_or_else(|| self.topology.generation(&address, None)),
            service_id: None,
            max_wire_version: Some(error["maxWireVersion"].as_i64().unwrap() as i32),
        };
        self.topology.handle_application_error(self.now, &address, &error);
    }

    fn expect_topology(&self, outcome: &Value) -> Result<(), String> {
        let description = self.topology.description();
        let mut expected = Expected::new(outcome);
        expected.value("topologyType", json!(description.topology_type.as_str()));
        expected.value("setName", json!(description.set_name));
        expected.value("maxSetVersion", json!(description.max_set_version));
        expected.value("maxElectionId", object_id(description.max_election_id));
        expected.value(
            "logicalSessionTimeoutMinutes",
            json!(description.logical_session_timeout_minutes),
        );
        expected.value("compatible", json!(description.is_compatible()));
        let servers = expected.take("servers").as_object().unwrap().clone();
        expected.finish()?;
        let listed: Vec<ServerAddress> = servers.keys().map(|a| a.parse().unwrap()).collect();
        let known: Vec<ServerAddress> = description.servers.keys().cloned().collect();
        if listed.iter().collect::<std::collections::BTreeSet<_>>() != known.iter().collect() {
            return Err(format!("expected servers {listed:?}, not {known:?}"));
        }
        for (address, expected) in &servers {
            self.expect_server(&address.parse().unwrap(), expected)
                .map_err(|reason| format!("{address}: {reason}"))?;
        }
        Ok(())
    }

    fn expect_server(&self, address: &ServerAddress, server: &Value) -> Result<(), String> {
        let description = self.topology.server(address).unwrap();
        let checked =
            description.server_type.is_known() && description.server_type != ServerType::LoadBalancer;
        let mut expected = Expected::new(server);
        expected.value("type", json!(description.server_type.as_str()));
        expected.value("setName", json!(description.set_name));
        expected.value("setVersion", json!(description.set_version));
        expected.value("electionId", object_id(description.election_id));
        expected.value(
            "logicalSessionTimeoutMinutes",
            json!(description.logical_session_timeout_minutes),
        );
        // The files say null where no server was asked.
        let wire = |version: i32| if checked { json!(version) } else { json!(null) };
        expected.value("minWireVersion", wire(description.min_wire_version));
        expected.value("maxWireVersion", wire(description.max_wire_version));
        expected.value("topologyVersion", topology_version(description));
        let error = expected.take("error");
        let found = description.error.clone().unwrap_or_default();
        if !error.is_null() && !found.contains(error.as_str().unwrap()) {
            return Err(format!("expected the error {error}, not {found:?}"));
        }
        let pool = expected.take("pool");
        let generation = self.topology.generation(address, None);
        if !pool.is_null() && pool != json!({ "generation": generation }) {
            return Err(format!("expected pool {pool}, not generation {generation}"));
        }
        expected.finish()
    }

    fn expect_events(&mut self, expected: &[Value]) -> Result<(), String> {
        let events: Vec<_> = std::iter::from_fn(|| self.topology.poll_event())
            .map(|event| show_event(&event))
            .collect();
        if events == expected {
            return Ok(());
        }
        Err(format!("expected {expected:#?}, not {events:#?}"))
    }
}

/// What an application error is; none if the reply is no error.
fn error_kind(error: &Value) -> Option<ApplicationErrorKind> {
    let network = |timed_out| ApplicationErrorKind::Network {
        message: "connection reset".to_owned(),
        timed_out,
    };
    match error["type"].as_str().unwrap() {
        "network" => return Some(network(false)),
        "timeout" => return Some(network(true)),
        "command" => {}
        other => panic!("the test does not know the error type {other}"),
    }
    let response = &error["response"];
    let said = if response["ok"] != json!(1) {
        response
    } else if response["writeConcernError"].is_object() {
        &response["writeConcernError"]
    } else {
        return None;
    };
    let code = said["code"].as_i64().unwrap_or(0) as i32;
    let message = said["errmsg"].as_str().unwrap_or_default();
    let document: Document = document(response);
    let topology_version = document.get_document("topologyVersion").ok();
    Some(ApplicationErrorKind::Command {
        error: ServerError::new(code, "", message),
        topology_version: topology_version
            .map(|version| TopologyVersion::parse(&RawDocumentBuf::try_from(version).unwrap()).unwrap()),
    })
}

fn show_event(event: &TopologyEvent) -> Value {
    match event {
        TopologyEvent::Opening => json!({ "topology_opening_event": { "topologyId": "42" } }),
        TopologyEvent::Closed => json!({ "topology_closed_event": { "topologyId": "42" } }),
        TopologyEvent::ServerOpening { address, .. } => json!({
            "server_opening_event": { "topologyId": "42", "address": address.to_string() }
        }),
        TopologyEvent::ServerClosed { address, .. } => json!({
            "server_closed_event": { "topologyId": "42", "address": address.to_string() }
        }),
        TopologyEvent::ServerDescriptionChanged { previous, new, .. } => json!({
            "server_description_changed_event": {
                "topologyId": "42",
                "address": new.address.to_string(),
                "previousDescription": show_server(previous),
                "newDescription": show_server(new),
            }
        }),
        TopologyEvent::DescriptionChanged { previous, new, .. } => json!({
            "topology_description_changed_event": {
                "topologyId": "42",
                "previousDescription": show_topology(previous),
                "newDescription": show_topology(new),
            }
        }),
        other => panic!("the test does not know {other:?}"),
    }
}

fn show_topology(description: &TopologyDescription) -> Value {
    let servers: Vec<_> = description
        .servers
        .values()
        .map(|server| show_server(server))
        .collect();
    let mut shown = json!({
        "topologyType": description.topology_type.as_str(),
        "servers": servers,
    });
    if let Some(name) = &description.set_name {
        shown["setName"] = json!(name);
    }
    shown
}

fn show_server(server: &ServerDescription) -> Value {
    let show =
        |addresses: &[ServerAddress]| -> Vec<String> { addresses.iter().map(ToString::to_string).collect() };
    let mut shown = json!({
        "address": server.address.to_string(),
        "type": server.server_type.as_str(),
        "hosts": show(&server.hosts),
        "passives": show(&server.passives),
        "arbiters": show(&server.arbiters),
    });
    if let Some(name) = &server.set_name {
        shown["setName"] = json!(name);
    }
    if let Some(primary) = &server.primary {
        shown["primary"] = json!(primary.to_string());
    }
    shown
}

fn object_id(id: Option<ObjectId>) -> Value {
    id.map_or(Value::Null, |id| json!({ "$oid": id.to_hex() }))
}

fn topology_version(server: &ServerDescription) -> Value {
    server.topology_version.map_or(Value::Null, |version| {
        json!({
            "processId": { "$oid": version.process_id.to_hex() },
            "counter": { "$numberLong": version.counter.to_string() },
        })
    })
}

fn address_of(value: &Value) -> ServerAddress {
    value.as_str().unwrap().parse().unwrap()
}

fn document(value: &Value) -> Document {
    let value = Bson::try_from(value.clone()).unwrap();
    value.as_document().unwrap().clone()
}

fn raw(value: &Value) -> RawDocumentBuf {
    RawDocumentBuf::try_from(&document(value)).unwrap()
}
