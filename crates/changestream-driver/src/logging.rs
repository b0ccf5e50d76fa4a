//! What a client does, as `tracing` events: the messages, names and levels of the Logging specification's components, each
//! under a target of its own.
//!
//! | component | target |
//! | --- | --- |
//! | command | `changestream::command` |
//! | connection | `changestream::connection` |
//! | serverSelection | `changestream::server_selection` |
//! | topology | `changestream::topology` |
//!
//! Values have the types of the specifications, and documents are relaxed Extended JSON. What there is none of, such as the
//! number of a connection at a server that does not tell it, is left out. All messages bear the `topologyId`, a number that
//! no other stream in the process has, and what runs commands neither.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use changestream_core::monitoring::{
    ClosedReason, CommandEvent, CommandStage, ConnectionEvent, Event, EventKind, HeartbeatEvent,
    SelectionEvent, SelectionStage,
};
use changestream_core::topology::{TopologyDescription, TopologyEvent};
use changestream_core::{Error, ErrorKind, ReadPreference, ServerAddress, Update};
use tracing::{Level, debug, enabled, info};

/// Whether anybody reads any of it.
pub(crate) fn is_enabled() -> bool {
    enabled!(target: COMMAND, Level::DEBUG)
        || enabled!(target: CONNECTION, Level::DEBUG)
        || enabled!(target: SELECTION, Level::INFO)
        || enabled!(target: TOPOLOGY, Level::DEBUG)
}

/// Logs what a machine has told, as every client's streams and commands do by themselves: for whoever drives a
/// [`ClientMachine`](changestream_core::client::ClientMachine) without this crate's help. Documents are cut after `longest`
/// characters.
pub fn log(event: &Event, longest: usize) {
    let source = event.source;
    match &event.kind {
        EventKind::Command(command) => log_command(source, command, longest),
        EventKind::Connection(connection) => log_connection(source, connection),
        EventKind::Heartbeat(heartbeat) => log_heartbeat(source, heartbeat, longest),
        EventKind::Topology(topology) => log_topology(source, topology, longest),
        EventKind::Selection(selection) => log_selection(source, selection, longest),
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
    ($source:expr, $event:expr, $($rest:tt)*) => {
        debug!(
            target: COMMAND,
            topologyId = $source,
            commandName = $event.command_name,
            databaseName = $event.database_name,
            requestId = $event.request_id,
            operationId = $event.operation_id,
            driverConnectionId = $event.connection.number(),
            serverConnectionId = $event.server_connection_id,
            serverHost = $event.server.host(),
            serverPort = $event.server.port(),
            serviceId = $event.service_id.map(|id| id.to_hex()),
            $($rest)*
        )
    };
}

fn log_command(source: u64, event: &CommandEvent, longest: usize) {
    match &event.stage {
        CommandStage::Started { command, .. } => {
            command!(
                source,
                event,
                command = command.to_extended_json(longest),
                "Command started"
            );
        }
        CommandStage::Succeeded { duration, reply, .. } => {
            command!(
                source,
                event,
                durationMS = milliseconds(*duration),
                reply = reply.to_extended_json(longest),
                "Command succeeded"
            );
        }
        CommandStage::Failed {
            duration, failure, ..
        } => {
            command!(source, event, durationMS = milliseconds(*duration), %failure, "Command failed");
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
        } => of_server!(
            CONNECTION,
            source,
            server,
            driverConnectionId = connection.number(),
            "Connection created"
        ),
        ConnectionEvent::Ready {
            connection,
            server,
            duration,
            ..
        } => of_server!(
            CONNECTION,
            source,
            server,
            driverConnectionId = connection.number(),
            durationMS = milliseconds(*duration),
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
                CONNECTION,
                source,
                server,
                driverConnectionId = connection.number(),
                reason = reason_of(reason),
                error = error,
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
            CONNECTION,
            source,
            server,
            driverConnectionId = connection.number(),
            durationMS = milliseconds(*duration),
            "Connection checked out"
        ),
        ConnectionEvent::CheckedIn {
            connection, server, ..
        } => {
            of_server!(
                CONNECTION,
                source,
                server,
                driverConnectionId = connection.number(),
                "Connection checked in"
            )
        }
        ConnectionEvent::PoolCleared { server, .. } => {
            of_server!(CONNECTION, source, server, "Connection pool cleared");
        }
        _ => {}
    }
}

fn log_heartbeat(source: u64, event: &HeartbeatEvent, longest: usize) {
    match event {
        HeartbeatEvent::Started {
            server, connection, ..
        } => of_server!(
            TOPOLOGY,
            source,
            server,
            driverConnectionId = connection.number(),
            awaited = false,
            "Server heartbeat started"
        ),
        HeartbeatEvent::Succeeded {
            server,
            connection,
            duration,
            reply,
            ..
        } => of_server!(
            TOPOLOGY,
            source,
            server,
            driverConnectionId = connection.number(),
            awaited = false,
            durationMS = milliseconds(*duration),
            serverConnectionId = server_connection_id(reply),
            reply = reply.to_extended_json(longest),
            "Server heartbeat succeeded"
        ),
        HeartbeatEvent::Failed {
            server,
            connection,
            duration,
            failure,
            ..
        } => of_server!(
            TOPOLOGY,
            source,
            server,
            driverConnectionId = connection.number(),
            awaited = false,
            durationMS = milliseconds(*duration),
            failure = failure
                .as_ref()
                .map_or_else(|| "given up".to_owned(), Error::to_string),
            "Server heartbeat failed"
        ),
        _ => {}
    }
}

fn log_topology(source: u64, event: &TopologyEvent, longest: usize) {
    match event {
        TopologyEvent::Opening => {
            debug!(target: TOPOLOGY, topologyId = source, "Starting topology monitoring");
        }
        TopologyEvent::DescriptionChanged { previous, new, .. } => debug!(
            target: TOPOLOGY,
            topologyId = source,
            previousDescription = described(previous, longest),
            newDescription = described(new, longest),
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

/// An event of a search for a server.
macro_rules! search {
    ($level:ident, $source:expr, $event:expr, $longest:expr, $($rest:tt)*) => {
        $level!(
            target: SELECTION,
            topologyId = $source,
            selector = selector(&$event.selector),
            operation = $event.operation,
            operationId = $event.operation_id,
            topologyDescription = described(&$event.topology, $longest),
            $($rest)*
        )
    };
}

fn log_selection(source: u64, event: &SelectionEvent, longest: usize) {
    match &event.stage {
        SelectionStage::Started => {
            search!(debug, source, event, longest, "Server selection started");
        }
        SelectionStage::Waiting { remaining, .. } => {
            let remaining = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
            search!(
                info,
                source,
                event,
                longest,
                remainingTimeMS = remaining,
                "Waiting for suitable server to become available"
            );
        }
        SelectionStage::Succeeded { server, .. } => {
            search!(
                debug,
                source,
                event,
                longest,
                serverHost = server.host(),
                serverPort = server.port(),
                "Server selection succeeded"
            );
        }
        SelectionStage::Failed { failure, .. } => {
            search!(
                debug,
                source,
                event,
                longest,
                failure = bare(failure),
                "Server selection failed"
            );
        }
        _ => {}
    }
}

/// A failed search without what is known of the deployment, which the message says already.
fn bare(failure: &Error) -> String {
    if let ErrorKind::ServerSelection { .. } = failure.kind() {
        return "no suitable server was found in time".to_owned();
    }
    if let ErrorKind::Timeout { message, .. } = failure.kind() {
        return format!("timed out: {message}");
    }
    failure.to_string()
}

/// All that a server is looked for by.
fn selector(preference: &ReadPreference) -> String {
    let mut text = format!("ReadPreference {{ mode: {}", preference.mode.as_str());
    if !preference.tag_sets.is_empty() {
        let _ = write!(text, ", tagSets: {:?}", preference.tag_sets);
    }
    if let Some(staleness) = preference.max_staleness {
        let _ = write!(text, ", maxStalenessSeconds: {}", staleness.as_secs());
    }
    text + " }"
}

fn server_connection_id(hello: &changestream_core::monitoring::MonitoredDocument) -> Option<i64> {
    let id = hello.as_raw().get("connectionId").ok()??;
    id.as_i64().or_else(|| id.as_i32().map(i64::from))
}

/// What is known of a deployment, in so many characters.
fn described(topology: &TopologyDescription, longest: usize) -> String {
    cut(format!("{topology:?}"), longest)
}

/// Cuts a text at so many characters, and says that it did.
fn cut(mut text: String, longest: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(longest) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// How many characters of a document are logged where the client's options do not say it:
/// `MONGODB_LOG_MAX_DOCUMENT_LENGTH`, a number or `unlimited` (Logging specification, "Configurable Max Document Length").
pub(crate) fn longest_by_environment() -> usize {
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
const SELECTION: &str = "changestream::server_selection";
const TOPOLOGY: &str = "changestream::topology";
/// Of resumes, at level `INFO`.
const STREAM: &str = "changestream::stream";

const DEFAULT_LONGEST: usize = 1000;
