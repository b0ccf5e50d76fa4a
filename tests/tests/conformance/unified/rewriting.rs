//! Cases that are about what reads have in common, with `find` as their carrier: they are run as they are written, and
//! once more with a change stream in its place.

use serde_json::{Map, Value, json};

/// The test of that file at that position with a change stream instead of its `find`; none if it is not one of those.
pub(super) fn with_change_stream(name: &str, content: &Value, index: usize) -> Option<Value> {
    if !FILES.iter().any(|file| name.ends_with(file)) {
        return None;
    }
    let mut test = content["tests"].get(index)?.clone();
    // Change streams take no read concern but majority.
    if test["description"]
        .as_str()?
        .contains("when readConcern level is ")
    {
        return None;
    }
    let reads_on = test["expectEvents"].to_string().contains("getMore");
    let mut operations = Vec::new();
    for operation in test["operations"].as_array()? {
        operations.extend(rewritten_operation(operation, reads_on));
    }
    test["operations"] = operations.into();
    for expected in test["expectEvents"].as_array_mut().into_iter().flatten() {
        // A stream that takes leave does not wait to hear that its cursor is killed.
        expected["ignoreExtraEvents"] = true.into();
        let events = expected["events"].as_array_mut()?;
        events.retain(|event| event["commandSucceededEvent"]["commandName"] != "killCursors");
        for event in events {
            for fields in event.as_object_mut()?.values_mut() {
                rewrite_event(fields);
            }
        }
    }
    // Where there is no log there are no change streams.
    test["runOnRequirements"] = json!([{ "topologies": ["replicaset", "sharded", "load-balanced"] }]);
    let mut content = content.clone();
    content["tests"] = json!([test]);
    Some(content)
}

fn rewritten_operation(operation: &Value, reads_on: bool) -> Vec<Value> {
    let mut operation = operation.clone();
    if operation["name"] == "failPoint" {
        let names = operation["arguments"]["failPoint"]["data"]["failCommands"].as_array_mut();
        for name in names.into_iter().flatten().filter(|name| **name == "find") {
            *name = json!("aggregate");
        }
        return vec![operation];
    }
    if operation["name"] != "find" {
        return vec![operation];
    }
    let mut watch = json!({
        "name": "createChangeStream",
        "object": operation["object"],
        "arguments": { "pipeline": [] },
    });
    let error = operation.get("expectError").cloned();
    if !reads_on {
        if let Some(error) = error {
            watch["expectError"] = error;
        }
        return vec![watch];
    }
    watch["saveResultAsEntity"] = json!(STREAM);
    let mut iterate = json!({ "name": "iterateOnce", "object": STREAM });
    if let Some(error) = error {
        iterate["expectError"] = error;
    }
    vec![watch, iterate]
}

fn rewrite_event(fields: &mut Value) {
    if fields["commandName"] == "find" {
        fields["commandName"] = json!("aggregate");
    }
    let Some(command) = fields.get_mut("command").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(collection) = command.remove("find") {
        command.remove("filter");
        let mut aggregate = Map::new();
        aggregate.insert("aggregate".to_owned(), collection);
        aggregate.append(command);
        *command = aggregate;
    }
}

const FILES: [&str; 4] = [
    "client-backpressure/tests/backpressure-connection-checkin.json",
    "client-backpressure/tests/getMore-retried.json",
    "retryable-reads/tests/unified/readConcernMajorityNotAvailableYet.json",
    "sessions/tests/implicit-sessions-default-causal-consistency.json",
];

const STREAM: &str = "the stream in the place of find";
