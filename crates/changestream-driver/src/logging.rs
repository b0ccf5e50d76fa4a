//! What a client does, as `tracing` events of level `DEBUG`: the messages and the names of the Logging specification's
//! components "command", "connection" and "topology", under targets of our own.

use std::sync::OnceLock;
use std::time::Duration;

use bson::Document;
use changestream_core::monitoring::{
    ClosedReason, CommandEvent, CommandStage, ConnectionEvent, Event, EventKind, HeartbeatEvent,
    MonitoredDocument,
};
use changestream_core::topology::TopologyEvent;
use changestream_core::{Error, ServerAddress, Update};
use tracing::{Level, debug, enabled, info};

/// Whether anybody reads any of it.
pub(crate) fn is_enabled() -> bool {
    enabled!(target: COMMAND, Level::DEBUG)
        || enabled!(target: CONNECTION, Level::DEBUG)
        || enabled!(target: TOPOLOGY, Level::DEBUG)
}

pub(crate) fn log(event: &Event) {
    match &event.kind {
        EventKind::Command(command) => log_command(command),
        EventKind::Connection(connection) => log_connection(event.source, connection),
        EventKind::Heartbeat(heartbeat) => log_heartbeat(event.source, heartbeat),
        EventKind::Topology(topology) => log_topology(event.source, topology),
        _ => {}
    }
}

/// What nobody who operates a stream wants to miss. Idle positions and events are not told of.
pub(crate) fn log_update(update: &Update) {
    match update {
        Update::Resuming(resuming) => info!(
            target: STREAM,
            attempt = resuming.attempt,
            delayMS = milliseconds(resuming.delay),
            cause = %resuming.cause,
            "Resuming"
        ),
        Update::Resumed { server, .. } => {
            info!(target: STREAM, serverHost = server.host(), serverPort = server.port(), "Resumed");
        }
        Update::Change(_) | Update::Idle(_) | Update::Invalidated { .. } | _ => {}
    }
}

/// An event with what all of commands have in common.
macro_rules! command {
    ($event:expr, $($rest:tt)*) => {
        debug!(
            target: COMMAND,
            commandName = $event.command_name,
            databaseName = $event.database_name,
            requestId = $event.request_id,
            operationId = $event.operation_id,
            driverConnectionId = %$event.connection,
            serverConnectionId = $event.server_connection_id,
            serverHost = $event.server.host(),
            serverPort = $event.server.port(),
            serviceId = $event.service_id.map(|id| id.to_hex()),
            $($rest)*
        )
    };
}

fn log_command(event: &CommandEvent) {
    match &event.stage {
        CommandStage::Started { command, .. } => {
            command!(event, command = shown(command), "Command started");
        }
        CommandStage::Succeeded { duration, reply, .. } => {
            command!(
                event,
                durationMS = milliseconds(*duration),
                reply = shown(reply),
                "Command succeeded"
            );
        }
        CommandStage::Failed {
            duration, failure, ..
        } => {
            command!(event, durationMS = milliseconds(*duration), %failure, "Command failed");
        }
        _ => {}
    }
}

/// An event of a server's.
macro_rules! of_server {
    ($target:expr, $source:expr, $server:expr, $($rest:tt)*) => {
        debug!(
            target: $target,
            topologyId = $source,
            serverHost = ServerAddress::host($server),
            serverPort = ServerAddress::port($server),
            $($rest)*
        )
    };
}

fn log_connection(source: u64, event: &ConnectionEvent) {
    match event {
        ConnectionEvent::Created {
            connection, server, ..
        } => of_server!(CONNECTION, source, server, driverConnectionId = %connection, "Connection created"),
        ConnectionEvent::Ready {
            connection,
            server,
            duration,
            ..
        } => of_server!(
            CONNECTION, source, server,
            driverConnectionId = %connection, durationMS = milliseconds(*duration),
            "Connection ready"
        ),
        ConnectionEvent::Closed {
            connection,
            server,
            reason,
            ..
        } => {
            let error = error_of(reason).map(tracing::field::display);
            of_server!(
                CONNECTION, source, server,
                driverConnectionId = %connection, reason = reason_of(reason), error = error,
                "Connection closed"
            );
        }
        ConnectionEvent::CheckOutStarted { server, .. } => {
            of_server!(CONNECTION, source, server, "Connection checkout started");
        }
        ConnectionEvent::CheckOutFailed {
            server,
            duration,
            error,
            ..
        } => of_server!(
            CONNECTION, source, server,
            durationMS = milliseconds(*duration), %error,
            "Connection checkout failed"
        ),
        ConnectionEvent::CheckedOut {
            connection,
            server,
            duration,
            ..
        } => of_server!(
            CONNECTION, source, server,
            driverConnectionId = %connection, durationMS = milliseconds(*duration),
            "Connection checked out"
        ),
        ConnectionEvent::CheckedIn {
            connection, server, ..
        } => {
            of_server!(CONNECTION, source, server, driverConnectionId = %connection, "Connection checked in")
        }
        ConnectionEvent::PoolCleared { server, .. } => {
            of_server!(CONNECTION, source, server, "Connection pool cleared");
        }
        _ => {}
    }
}

fn log_heartbeat(source: u64, event: &HeartbeatEvent) {
    match event {
        HeartbeatEvent::Started {
            server, connection, ..
        } => of_server!(
            TOPOLOGY, source, server,
            driverConnectionId = %connection, awaited = false,
            "Server heartbeat started"
        ),
        HeartbeatEvent::Succeeded {
            server,
            connection,
            duration,
            reply,
            ..
        } => of_server!(
            TOPOLOGY, source, server,
            driverConnectionId = %connection, awaited = false, durationMS = milliseconds(*duration),
            reply = shown(reply),
            "Server heartbeat succeeded"
        ),
        HeartbeatEvent::Failed {
            server,
            connection,
            duration,
            failure,
            ..
        } => of_server!(
            TOPOLOGY, source, server,
            driverConnectionId = %connection, awaited = false, durationMS = milliseconds(*duration),
            failure = failure.as_ref().map_or_else(|| "given up".to_owned(), Error::to_string),
            "Server heartbeat failed"
        ),
        _ => {}
    }
}

fn log_topology(source: u64, event: &TopologyEvent) {
    match event {
        TopologyEvent::Opening => {
            debug!(target: TOPOLOGY, topologyId = source, "Starting topology monitoring");
        }
        TopologyEvent::DescriptionChanged { previous, new, .. } => debug!(
            target: TOPOLOGY,
            topologyId = source,
            previousDescription = cut(format!("{previous:?}")),
            newDescription = cut(format!("{new:?}")),
            "Topology description changed"
        ),
        TopologyEvent::ServerOpening { address, .. } => {
            of_server!(TOPOLOGY, source, address, "Starting server monitoring");
        }
        TopologyEvent::ServerClosed { address, .. } => {
            of_server!(TOPOLOGY, source, address, "Stopped server monitoring");
        }
        TopologyEvent::Closed => {
            debug!(target: TOPOLOGY, topologyId = source, "Stopped topology monitoring");
        }
        // The specification logs the whole description instead, which says the same.
        TopologyEvent::ServerDescriptionChanged { .. } => {}
        _ => {}
    }
}

fn reason_of(reason: &ClosedReason) -> &'static str {
    match reason {
        ClosedReason::Error(_) => "An error occurred while using the connection",
        ClosedReason::Stale => "Connection became stale because the pool was cleared",
        ClosedReason::Closed => "Connection pool was closed",
        ClosedReason::Unused => "Connection was not needed: another server was chosen",
        _ => "unknown",
    }
}

fn error_of(reason: &ClosedReason) -> Option<&Error> {
    match reason {
        ClosedReason::Error(error) => Some(error),
        ClosedReason::Stale | ClosedReason::Unused | ClosedReason::Closed | _ => None,
    }
}

fn shown(document: &MonitoredDocument) -> String {
    let text = Document::try_from(document.as_raw()).map(|document| document.to_string());
    cut(text.unwrap_or_else(|error| format!("not readable: {error}")))
}

/// Cuts a text at so many characters, and says that it did.
fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(longest()) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// How many characters of a document are logged: `MONGODB_LOG_MAX_DOCUMENT_LENGTH`, a number or `unlimited` (Logging
/// specification, "Truncation of large documents").
fn longest() -> usize {
    static LONGEST: OnceLock<usize> = OnceLock::new();
    *LONGEST.get_or_init(|| {
        let set = std::env::var("MONGODB_LOG_MAX_DOCUMENT_LENGTH").unwrap_or_default();
        if set.eq_ignore_ascii_case("unlimited") {
            return usize::MAX;
        }
        set.parse().unwrap_or(DEFAULT_LONGEST)
    })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

const COMMAND: &str = "changestream::command";
const CONNECTION: &str = "changestream::connection";
const TOPOLOGY: &str = "changestream::topology";
/// Of resumes, at level `INFO`.
const STREAM: &str = "changestream::stream";

const DEFAULT_LONGEST: usize = 1000;
