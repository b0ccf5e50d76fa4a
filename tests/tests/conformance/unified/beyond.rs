//! What failing tests ask for that a change-stream client does not have, told by what they use.
//!
//! Only a test that fails is looked at: what passes passes. Where the data lists which tests apply, one that does and
//! fails is a failure all the same.

use serde_json::Value;

/// What the test at that position needs that there is not.
pub(super) fn reason(content: &Value, index: usize) -> Option<&'static str> {
    let test = content["tests"].get(index)?;
    let used = Used::of(test);
    if used.events.iter().any(|name| is_of_a_pool(name)) {
        return Some(NO_POOL);
    }
    if used.events.iter().any(|name| is_of_a_monitor(name)) {
        return Some(NO_MONITORS);
    }
    if used.operations.iter().any(|name| WRITES.contains(&name.as_str())) {
        return Some(CARRIED_WRITES);
    }
    // What reads have in common is tested by what goes wrong.
    let is_about_faults = used.operations.iter().any(|name| name == "failPoint");
    let watches = used.operations.iter().any(|name| name == "createChangeStream");
    (!is_about_faults && !watches && !used.operations.is_empty()).then_some(CARRIED_READS)
}

/// The names of all that a test does and expects.
#[derive(Default)]
struct Used {
    operations: Vec<String>,
    events: Vec<String>,
}

impl Used {
    fn of(test: &Value) -> Self {
        let mut used = Self::default();
        for operation in test["operations"].as_array().into_iter().flatten() {
            used.add(operation);
        }
        for expected in test["expectEvents"].as_array().into_iter().flatten() {
            for event in expected["events"].as_array().into_iter().flatten() {
                used.events.extend(first_name(event));
            }
        }
        used
    }

    fn add(&mut self, operation: &Value) {
        self.operations
            .extend(operation["name"].as_str().map(str::to_owned));
        let arguments = &operation["arguments"];
        self.events.extend(first_name(&arguments["event"]));
        if operation["name"] == "waitForPrimaryChange" {
            self.events.push("topologyDescriptionChangedEvent".to_owned());
        }
        if operation["name"] == "assertNumberConnectionsCheckedOut" {
            self.events.push("connectionCheckedOutEvent".to_owned());
        }
        // Of a thread.
        if arguments["operation"].is_object() {
            self.add(&arguments["operation"]);
        }
    }
}

fn first_name(event: &Value) -> Option<String> {
    event.as_object()?.keys().next().cloned()
}

fn is_of_a_pool(event: &str) -> bool {
    event.starts_with("pool") || event.starts_with("connection")
}

fn is_of_a_monitor(event: &str) -> bool {
    event.starts_with("server") || event.starts_with("topology")
}

const NO_POOL: &str = "there is no pool of connections: a stream owns its sockets";
const NO_MONITORS: &str =
    "there are no background monitors: a server is checked when one is needed, not while the client is idle";
const CARRIED_WRITES: &str = "writes are no operations of a change-stream client: commands carry them, which are neither checked nor retried";
const CARRIED_READS: &str = "reads other than change streams are carried by commands, to simulated servers that know what change streams need";

/// Operations that write.
const WRITES: [&str; 22] = [
    "bulkWrite",
    "clientBulkWrite",
    "createCollection",
    "createIndex",
    "deleteMany",
    "deleteOne",
    "drop",
    "dropCollection",
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
