//! The client's events in the form of the tests.

use std::collections::BTreeSet;

use bson::{Document, RawDocument, doc};
use changestream_core::client::ConnectionId;
use changestream_core::monitoring::{
    ClosedReason, CommandEvent, CommandStage, ConnectionEvent, Event, EventKind, HeartbeatEvent,
};
use changestream_core::topology::{TopologyDescription, TopologyEvent};
use changestream_core::{ClientOptions, Error, ErrorKind};

use super::observed::Observed;
use super::schema::EventType;

/// Turns a client's events into those of the tests.
#[derive(Debug)]
pub(super) struct Publisher {
    /// Whether the client is behind a load balancer, where nothing is checked.
    is_load_balanced: bool,
    /// Connections that have done nothing yet but check their servers: of those of monitors pools do not tell.
    checking: BTreeSet<(u64, ConnectionId)>,
}

impl Publisher {
    pub(super) fn new(options: &ClientOptions) -> Self {
        Self {
            is_load_balanced: options.load_balanced,
            checking: BTreeSet::new(),
        }
    }

    /// The event as tests see it; none of one that they have no name for. That a connection was made is told once it is to be
    /// used.
    pub(super) fn observe(&mut self, event: &Event) -> Vec<Observed> {
        let mut told = Vec::new();
        if let EventKind::Connection(connection) = &event.kind {
            match connection {
                ConnectionEvent::Created { .. } if self.is_load_balanced => told.push(created()),
                ConnectionEvent::Created { connection, .. } => {
                    self.checking.insert((event.source, *connection));
                }
                ConnectionEvent::Ready { connection, .. }
                | ConnectionEvent::CheckedOut { connection, .. }
                | ConnectionEvent::Closed { connection, .. }
                    if self.checking.remove(&(event.source, *connection)) =>
                {
                    told.extend(observed(event).map(|_| created()));
                }
                _ => {}
            }
        }
        told.extend(observed(event));
        told
    }
}

fn created() -> Observed {
    Observed {
        kind: EventType::Cmap,
        name: "connectionCreatedEvent",
        fields: Document::new(),
        is_sensitive: false,
    }
}

fn observed(event: &Event) -> Option<Observed> {
    let observed = |kind, name, fields| {
        Some(Observed {
            kind,
            name,
            fields,
            is_sensitive: false,
        })
    };
    match &event.kind {
        EventKind::Command(command) => Some(command_event(command)),
        EventKind::Connection(event) => {
            let (name, fields) = connection_event(event)?;
            observed(EventType::Cmap, name, fields)
        }
        EventKind::Heartbeat(event) => {
            let name = match event {
                HeartbeatEvent::Started { .. } => "serverHeartbeatStartedEvent",
                HeartbeatEvent::Succeeded { .. } => "serverHeartbeatSucceededEvent",
                HeartbeatEvent::Failed { .. } => "serverHeartbeatFailedEvent",
                _ => return None,
            };
            // Without monitors no hello is awaited.
            observed(EventType::Sdam, name, doc! { "awaited": false })
        }
        EventKind::Topology(event) => {
            let (name, fields) = topology_event(event)?;
            observed(EventType::Sdam, name, fields)
        }
        _ => None,
    }
}

fn command_event(event: &CommandEvent) -> Observed {
    let mut fields = doc! {
        "commandName": event.command_name.as_str(),
        "hasServiceId": event.service_id.is_some(),
        "hasServerConnectionId": event.server_connection_id.is_some(),
        "databaseName": event.database_name.as_str(),
    };
    let (name, is_empty) = match &event.stage {
        CommandStage::Started { command, .. } => {
            fields.insert("command", document(command.as_raw()));
            ("commandStartedEvent", command.as_raw().is_empty())
        }
        CommandStage::Succeeded { reply, .. } => {
            fields.insert("reply", document(reply.as_raw()));
            ("commandSucceededEvent", reply.as_raw().is_empty())
        }
        _ => ("commandFailedEvent", is_sensitive(&event.command_name)),
    };
    Observed {
        kind: EventType::Command,
        name,
        fields,
        // What may hold secrets is told without its contents.
        is_sensitive: is_empty,
    }
}

/// Whether a command of that name may hold secrets (Command Logging And Monitoring, "Security").
fn is_sensitive(command: &str) -> bool {
    [
        "authenticate",
        "saslStart",
        "saslContinue",
        "getnonce",
        "createUser",
        "updateUser",
        "copydbgetnonce",
        "copydbsaslstart",
        "copydb",
    ]
    .iter()
    .any(|sensitive| sensitive.eq_ignore_ascii_case(command))
}

fn connection_event(event: &ConnectionEvent) -> Option<(&'static str, Document)> {
    let nothing = Document::new();
    Some(match event {
        // Told later.
        ConnectionEvent::Created { .. } => return None,
        ConnectionEvent::Ready { .. } => ("connectionReadyEvent", nothing),
        ConnectionEvent::Closed { reason, .. } => {
            let reason = match reason {
                ClosedReason::Error(_) => "error",
                ClosedReason::Stale => "stale",
                // It only checked its server, as a monitor's would, of which pools do not tell; or its stream has
                // ended, after which a pool would keep it.
                ClosedReason::Unused | ClosedReason::Closed => return None,
                _ => return None,
            };
            ("connectionClosedEvent", doc! { "reason": reason })
        }
        ConnectionEvent::CheckOutStarted { .. } => ("connectionCheckOutStartedEvent", nothing),
        ConnectionEvent::CheckOutFailed { error, .. } => (
            "connectionCheckOutFailedEvent",
            doc! { "reason": if is_timeout(error) { "timeout" } else { "connectionError" } },
        ),
        ConnectionEvent::CheckedOut { .. } => ("connectionCheckedOutEvent", nothing),
        ConnectionEvent::CheckedIn { .. } => ("connectionCheckedInEvent", nothing),
        ConnectionEvent::PoolCleared { service_id, .. } => (
            "poolClearedEvent",
            doc! { "hasServiceId": service_id.is_some(), "interruptInUseConnections": false },
        ),
        _ => return None,
    })
}

fn is_timeout(error: &Error) -> bool {
    // A wait for a pool would be a timeout; there is none.
    matches!(error.kind(), ErrorKind::ServerSelection { .. })
}

fn topology_event(event: &TopologyEvent) -> Option<(&'static str, Document)> {
    Some(match event {
        TopologyEvent::Opening => ("topologyOpeningEvent", Document::new()),
        TopologyEvent::Closed => ("topologyClosedEvent", Document::new()),
        TopologyEvent::ServerOpening { .. } => ("serverOpeningEvent", Document::new()),
        TopologyEvent::ServerClosed { .. } => ("serverClosedEvent", Document::new()),
        TopologyEvent::ServerDescriptionChanged { previous, new, .. } => (
            "serverDescriptionChangedEvent",
            doc! {
                "previousDescription": { "type": previous.server_type.as_str() },
                "newDescription": { "type": new.server_type.as_str() },
            },
        ),
        TopologyEvent::DescriptionChanged { previous, new, .. } => (
            "topologyDescriptionChangedEvent",
            doc! { "previousDescription": description(previous), "newDescription": description(new) },
        ),
        _ => return None,
    })
}

fn description(topology: &TopologyDescription) -> Document {
    let mut shown = doc! { "type": topology.topology_type.as_str() };
    if let Some(primary) = topology.primary() {
        shown.insert("primary", primary.address.to_string());
    }
    shown
}

fn document(raw: &RawDocument) -> Document {
    raw.try_into().unwrap_or_default()
}
