//! What clients publish, and whether it is what a test expects.

use bson::{Bson, Document};
use serde_json::Value;

use super::fault::{Fault, failed};
use super::matcher::{self, Entities};
use super::schema::EventType;

/// An event that a client has published.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) kind: EventType,
    /// Such as `commandStartedEvent`.
    pub(super) name: &'static str,
    /// What tests can ask of it, by the names that they use.
    pub(super) fields: Document,
    /// Whether it is of a command that may hold secrets.
    pub(super) is_sensitive: bool,
}

impl Observed {
    /// The event in short.
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.name, self.text("commandName"))
    }

    fn text(&self, field: &str) -> &str {
        self.fields.get_str(field).unwrap_or_default()
    }
}

/// What a test wants to see of a client's events.
#[derive(Clone, Debug, Default)]
pub(super) struct Observing {
    pub(super) names: Vec<String>,
    pub(super) ignored_commands: Vec<String>,
    pub(super) sensitive_too: bool,
}

impl Observing {
    pub(super) fn wants(&self, event: &Observed) -> bool {
        if !self.names.iter().any(|name| name == event.name) {
            return false;
        }
        if event.kind != EventType::Command {
            return true;
        }
        let command = event.text("commandName");
        let is_ignored = |ignored: &String| ignored.eq_ignore_ascii_case(command);
        command != "configureFailPoint"
            // A stream has a session of its own, which ends with it; of a pool it would end with the client, after the test.
            && command != "endSessions"
            && !self.ignored_commands.iter().any(is_ignored)
            && (self.sensitive_too || !event.is_sensitive)
    }
}

/// Whether an event is the expected one: a document with one field, named as the event.
pub(super) fn matches(
    expected: &serde_json::Map<String, Value>,
    actual: &Observed,
    entities: &dyn Entities,
) -> Result<(), Fault> {
    let mut fields = expected.iter();
    let (Some((name, wanted)), None) = (fields.next(), fields.next()) else {
        return Err(failed("an expected event has one name"));
    };
    if name != actual.name {
        return Err(failed(format!("expected a {name}, not {actual:?}")));
    }
    let wanted = wanted
        .as_object()
        .ok_or_else(|| failed("an expected event is a document"))?;
    for (field, wanted) in wanted {
        check_field(name, field)?;
        let wanted = matcher::to_bson(wanted).map_err(failed)?;
        matcher::matches_root(&wanted, actual.fields.get(field), entities)
            .map_err(|reason| failed(format!("{name}.{field}{reason}; it is {}", actual.fields)))?;
    }
    Ok(())
}

/// Whether there is an event of that name.
pub(super) fn is_known(event: &str) -> bool {
    FIELDS.iter().any(|(name, _)| *name == event)
}

/// The number of an expected field's event; none of an unknown one.
fn check_field(event: &str, field: &str) -> Result<(), Fault> {
    let known = FIELDS
        .iter()
        .find(|(name, _)| *name == event)
        .ok_or_else(|| failed(format!("the runner does not know the event {event}")))?;
    if known.1.contains(&field) {
        return Ok(());
    }
    Err(failed(format!("a {event} has no {field}")))
}

/// Each event with what tests can ask of it.
const FIELDS: [(&str, &[&str]); 23] = [
    (
        "commandStartedEvent",
        &[
            "command",
            "commandName",
            "databaseName",
            "hasServiceId",
            "hasServerConnectionId",
        ],
    ),
    (
        "commandSucceededEvent",
        &[
            "reply",
            "commandName",
            "databaseName",
            "hasServiceId",
            "hasServerConnectionId",
        ],
    ),
    (
        "commandFailedEvent",
        &[
            "commandName",
            "databaseName",
            "hasServiceId",
            "hasServerConnectionId",
        ],
    ),
    ("poolCreatedEvent", &[]),
    ("poolReadyEvent", &[]),
    ("poolClearedEvent", &["hasServiceId", "interruptInUseConnections"]),
    ("poolClosedEvent", &[]),
    ("connectionCreatedEvent", &[]),
    ("connectionReadyEvent", &[]),
    ("connectionClosedEvent", &["reason"]),
    ("connectionCheckOutStartedEvent", &[]),
    ("connectionCheckOutFailedEvent", &["reason"]),
    ("connectionCheckedOutEvent", &[]),
    ("connectionCheckedInEvent", &[]),
    (
        "serverDescriptionChangedEvent",
        &["previousDescription", "newDescription"],
    ),
    (
        "topologyDescriptionChangedEvent",
        &["previousDescription", "newDescription"],
    ),
    ("serverHeartbeatStartedEvent", &["awaited"]),
    ("serverHeartbeatSucceededEvent", &["awaited"]),
    ("serverHeartbeatFailedEvent", &["awaited"]),
    ("topologyOpeningEvent", &[]),
    ("topologyClosedEvent", &[]),
    ("serverOpeningEvent", &[]),
    ("serverClosedEvent", &[]),
];

/// The lsids of the last two commands that started.
pub(super) fn last_two_lsids(published: &[Observed]) -> Result<[Bson; 2], Fault> {
    let mut started = published
        .iter()
        .filter(|event| {
            event.name == "commandStartedEvent" && event.text("commandName") != "configureFailPoint"
        })
        .rev()
        .map(|event| {
            let command = event.fields.get_document("command").ok();
            command
                .and_then(|command| command.get("lsid").cloned())
                .ok_or_else(|| failed(format!("a command without an lsid: {}", event.fields)))
        });
    match (started.next(), started.next()) {
        (Some(last), Some(before)) => Ok([before?, last?]),
        _ => Err(failed("fewer than two commands have started")),
    }
}
