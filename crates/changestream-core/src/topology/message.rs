//! Why no server could be selected, said on one line.

use std::fmt::Write;
use std::sync::Arc;

use super::{Operation, SelectionCriteria, ServerDescription, Topology};
use crate::ReadPreference;

impl Topology {
    /// What was looked for, and what is known of each server, with its last failure. On one line; of many servers the
    /// first 16.
    ///
    /// For instance: `looked for a server to read from with mode primary; the topology is ReplicaSetNoPrimary
    /// (replica set "rs0"): db1:27017 is Unknown (connection refused), db2:27017 is RSSecondary`.
    pub fn selection_error_message(&self, criteria: &SelectionCriteria) -> String {
        let description = &self.description;
        let mut message = "looked for a server to ".to_owned();
        match criteria.operation {
            Operation::Write => message.push_str("write to"),
            Operation::Read => {
                message.push_str("read from with ");
                push_read_preference(&mut message, &criteria.read_preference);
            }
        }
        push(
            &mut message,
            format_args!("; the topology is {}", description.topology_type),
        );
        if let Some(set_name) = &description.set_name {
            push(&mut message, format_args!(" (replica set {set_name:?})"));
        }
        message.push_str(": ");
        push_servers(
            &mut message,
            description.servers.values().map(Arc::as_ref),
            |server: &ServerDescription| self.is_being_checked(&server.address),
        );
        if description.servers.is_empty() {
            message.push_str("it has no servers");
        }
        let lost = !description
            .servers
            .values()
            .any(|server| server.server_type.is_known());
        if let (true, Some(removal)) = (lost, &description.last_removal) {
            push(&mut message, format_args!("; {}", shortened(removal)));
        }
        message
    }
}

const SHOWN_SERVERS: usize = 16;

const SHOWN_CHARACTERS: usize = 300;

fn push_servers<'a>(
    message: &mut String,
    servers: impl ExactSizeIterator<Item = &'a ServerDescription>,
    is_being_checked: impl Fn(&ServerDescription) -> bool,
) {
    let hidden = servers.len().saturating_sub(SHOWN_SERVERS);
    for (number, server) in servers.take(SHOWN_SERVERS).enumerate() {
        if number > 0 {
            message.push_str(", ");
        }
        push(
            message,
            format_args!("{} is {}", server.address, server.server_type),
        );
        match (&server.error, server.last_update_time) {
            (Some(error), _) => push(message, format_args!(" ({})", shortened(error))),
            (None, None) if is_being_checked(server) => message.push_str(" (has not answered yet)"),
            (None, None) => message.push_str(" (not checked yet)"),
            (None, Some(_)) => {}
        }
    }
    if hidden > 0 {
        push(message, format_args!(" and {hidden} more"));
    }
}

fn push_read_preference(message: &mut String, preference: &ReadPreference) {
    push(message, format_args!("mode {}", preference.mode.as_str()));
    if !preference.tag_sets.is_empty() {
        push(message, format_args!(", tag sets {:?}", preference.tag_sets));
    }
    if let Some(limit) = preference.max_staleness {
        push(message, format_args!(", at most {} s stale", limit.as_secs_f64()));
    }
}

/// A peer's words must not flood a log.
fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(SHOWN_CHARACTERS);
    end.and_then(|(at, _)| text.get(..at)).unwrap_or(text)
}

fn push(message: &mut String, text: std::fmt::Arguments<'_>) {
    message.write_fmt(text).expect("writing to a string cannot fail");
}
