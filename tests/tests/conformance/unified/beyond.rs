//! What failing tests ask for that a change-stream client does not have: told where they fail, by what fails there.
//!
//! Only what fails is looked at: what passes passes. Where the data lists which tests apply, one that does and fails is a
//! failure all the same.

use changestream_core::{Error, ErrorKind};
use serde_json::Value;

use super::entities::ClientEntity;
use super::fault::Fault;
use super::schema::{EventType, ExpectedEvents, ExpectedMessages, Operation};

/// Why an operation fails with that error.
pub(super) fn of_error(operation: &Operation, error: &Error) -> Option<&'static str> {
    // "RetryableWriteError" is what has a driver send a write once more (Retryable Writes specification).
    let said = error.server_error();
    let is_retryable = matches!(error.kind(), ErrorKind::Network { .. })
        || said.is_some_and(|said| said.has_label("RetryableWriteError"));
    (is_write(operation) && is_retryable).then_some(WRITES_NOT_RETRIED)
}

/// Why an operation does not fail.
pub(super) fn of_no_error(
    operation: &Operation,
    client: Option<&ClientEntity>,
    strikes_retryable: bool,
) -> Option<&'static str> {
    let expected = operation.expect_error.as_ref()?;
    if is_write(operation) && strikes_retryable {
        return Some(WRITES_NOT_RETRIED);
    }
    if is_write(operation) && expected.is_client_error == Some(true) {
        return Some(WRITES_NOT_CHECKED);
    }
    // A command that comes at once does not wait for one that is under way.
    let is_limited = client?.uri_options.contains_key("maxPoolSize");
    (expected.is_timeout_error == Some(true) && is_limited).then_some(NO_POOL)
}

/// Why there are more events than are expected.
pub(super) fn of_count(of_commands_at_once: bool) -> Option<&'static str> {
    of_commands_at_once.then_some(TOPOLOGIES_APART)
}

/// Why a client does not publish an event that is waited for.
pub(super) fn of_waiting(event: &Value, client: &ClientEntity, version: &str) -> Option<&'static str> {
    let name = event.as_object()?.keys().next()?.as_str();
    if is_of_a_pool(name) {
        return Some(NO_POOL);
    }
    if name.starts_with("connection") && fills_a_pool(client) {
        return Some(NO_POOL);
    }
    let mode = client.uri_options.get("serverMonitoringMode");
    let polls = mode.is_some_and(|mode| mode == "poll");
    (name.starts_with("serverHeartbeat") && !polls && streams_hello(version)).then_some(NO_STREAMING)
}

/// Why a client does not see that the primary is another one.
pub(super) fn of_primary(client: &ClientEntity, waited: std::time::Duration) -> Option<&'static str> {
    let frequency = client
        .uri_options
        .get("heartbeatFrequencyMS")
        .and_then(Value::as_u64);
    let frequency = frequency.map_or(HEARTBEAT_FREQUENCY, std::time::Duration::from_millis);
    (frequency >= waited).then_some(NO_MONITORS)
}

/// Why the events are not those that are expected.
pub(super) fn of_events(
    expected: &ExpectedEvents,
    fault: Fault,
    number: usize,
    follows_cursors: bool,
) -> Fault {
    let wanted = expected.events.get(number);
    let Fault::Failed(reason) = fault else {
        return fault;
    };
    let names = || {
        let events = expected.events.iter();
        events.flat_map(|event| event.keys().map(String::as_str))
    };
    let beyond = match expected.event_type.unwrap_or_default() {
        EventType::Command => wanted.and_then(|event| of_command(event, &reason)),
        EventType::Cmap if names().any(is_of_a_pool) => Some(NO_POOL),
        EventType::Cmap if interrupts(expected) => Some(NO_POOL),
        EventType::Cmap if clears_late(&names().collect::<Vec<_>>()) => Some(CLEARED_BEFORE),
        EventType::Cmap if follows_cursors => Some(CURSORS_NOT_PINNED),
        EventType::Sdam if awaits(expected) => Some(NO_STREAMING),
        EventType::Cmap | EventType::Sdam => None,
    };
    match beyond {
        Some(beyond) => Fault::Beyond(beyond, reason),
        None => Fault::Failed(reason),
    }
}

/// Why the messages are not those that are expected.
pub(super) fn of_messages(expected: &ExpectedMessages, fault: Fault) -> Fault {
    let Fault::Failed(reason) = fault else {
        return fault;
    };
    let of = |text: &'static str| {
        let mut messages = expected.messages.iter();
        messages.find(move |message| message.data["message"].as_str() == Some(text))
    };
    let is_of_pool = ["created", "ready", "closed"].iter().any(|what| {
        let text = format!("Connection pool {what}");
        let mut messages = expected.messages.iter();
        messages.any(|message| message.data["message"] == text.as_str())
    });
    let waiting = of("Waiting for suitable server to become available");
    let beyond = if is_of_pool {
        NO_POOL
    } else if waiting.is_some_and(|waiting| waiting.level != "info") {
        WAITING_IS_INFO
    } else {
        return Fault::Failed(reason);
    };
    Fault::Beyond(beyond, reason)
}

fn of_command(event: &serde_json::Map<String, Value>, reason: &str) -> Option<&'static str> {
    let fields = event.values().next()?;
    let named = fields["commandName"].as_str();
    let first = || fields["command"].as_object()?.keys().next().map(String::as_str);
    let command = named.or_else(first)?;
    if !WRITING_COMMANDS.contains(&command) {
        return None;
    }
    if reason.ends_with("there is none") {
        return Some(WRITES_NOT_RETRIED);
    }
    reason
        .contains(".command.readConcern")
        .then_some(WRITES_NOT_CAUSAL)
}

fn is_write(operation: &Operation) -> bool {
    WRITES.contains(&operation.name.as_str())
}

/// Events of a pool as a whole. Of its connections, and of what clears it, there are others.
fn is_of_a_pool(event: &str) -> bool {
    ["poolCreatedEvent", "poolReadyEvent", "poolClosedEvent"].contains(&event)
}

fn fills_a_pool(client: &ClientEntity) -> bool {
    let least = client.uri_options.get("minPoolSize").and_then(Value::as_u64);
    least.is_some_and(|least| least > 0)
}

fn interrupts(expected: &ExpectedEvents) -> bool {
    let mut events = expected.events.iter().flat_map(|event| event.values());
    events.any(|fields| fields["interruptInUseConnections"] == true)
}

fn awaits(expected: &ExpectedEvents) -> bool {
    let mut events = expected.events.iter().flat_map(|event| event.values());
    events.any(|fields| fields["awaited"] == true)
}

fn clears_late(names: &[&str]) -> bool {
    names
        .windows(2)
        .any(|two| *two == ["connectionCheckOutFailedEvent", "poolClearedEvent"])
}

/// Since 4.4 a server can be asked to say by itself what has changed ("Streaming protocol").
fn streams_hello(version: &str) -> bool {
    !version.starts_with("4.2")
}

/// `heartbeatFrequencyMS` where it is not set, of clients with monitors.
const HEARTBEAT_FREQUENCY: std::time::Duration = std::time::Duration::from_secs(10);

const NO_POOL: &str = "there is no pool of connections: a stream owns its sockets";
const NO_MONITORS: &str =
    "there are no background monitors: a server is checked when one is needed, not while the client is idle";
const NO_STREAMING: &str = "there are no background monitors: no server streams its hello to a client, nor tells one that is idle that it has stepped down";
const TOPOLOGIES_APART: &str = "streams and running commands of a client do not share one topology: two that are refused by a server at the same time both say so";
const WRITES_NOT_RETRIED: &str =
    "writes are no operations of a change-stream client: the commands that carry them are not retried";
const WRITES_NOT_CHECKED: &str =
    "writes are no operations of a change-stream client: the commands that carry them are not checked";
const WRITES_NOT_CAUSAL: &str = "writes are no operations of a change-stream client: the commands that carry them are given no read concern";
const CURSORS_NOT_PINNED: &str =
    "reads other than change streams are carried by commands, whose cursors are not pinned to a connection";
const CLEARED_BEFORE: &str = "the file is of an older version: pools are cleared before a connection that failed is closed (Server Discovery And Monitoring, \"Authentication errors\")";
const WAITING_IS_INFO: &str = "the file has another level than the specification, where the message that no server suits yet has the level info";

/// Operations that write.
const WRITES: [&str; 23] = [
    "bulkWrite",
    "clientBulkWrite",
    "createCollection",
    "createIndex",
    "deleteMany",
    "deleteOne",
    "drop",
    "dropCollection",
    "dropDatabase",
    "dropIndex",
    "dropIndexes",
    "findOneAndDelete",
    "findOneAndReplace",
    "findOneAndUpdate",
    "insertMany",
    "insertOne",
    "modifyCollection",
    "rename",
    "replaceOne",
    "updateMany",
    "updateOne",
    "upload",
    "withTransaction",
];

/// The commands that carry them.
const WRITING_COMMANDS: [&str; 10] = [
    "collMod",
    "create",
    "createIndexes",
    "delete",
    "drop",
    "dropDatabase",
    "dropIndexes",
    "findAndModify",
    "insert",
    "update",
];
