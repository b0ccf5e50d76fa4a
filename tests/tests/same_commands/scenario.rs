//! The scenarios as they stand in `commands.json`.

use std::path::Path;

use serde_json::Value;

/// A scenario.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// The server versions that it is lived through with.
    pub(crate) versions: Vec<String>,
    pub(crate) is_sharded: bool,
    pub(crate) steps: Vec<Step>,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The client opens a stream with these options, and tries to read from it once.
    Open(Value),
    /// One more try.
    TryNext,
    /// It waits for the next event.
    Next,
    /// It closes the stream.
    Close,
    /// Documents with the ids from the first to before the last are inserted.
    Insert(i32, i32),
    /// The collection is dropped.
    Drop,
    /// The next command of the client's at its server fails so.
    Fail(Value),
    /// Its cursor is killed.
    KillCursor,
    /// The primary steps down.
    PrimaryLeaves,
}

/// Every scenario there is.
pub(crate) fn all(path: &Path) -> Vec<Scenario> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let scenarios: Vec<Value> =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    scenarios.iter().map(scenario).collect()
}

fn scenario(value: &Value) -> Scenario {
    let name = value["name"].as_str().expect("a scenario has a name");
    let versions = value["versions"].as_array().map(|versions| {
        let versions = versions
            .iter()
            .map(|version| version.as_str().unwrap().to_owned());
        versions.collect()
    });
    let steps = value["steps"].as_array().expect("a scenario has steps");
    Scenario {
        name: name.to_owned(),
        versions: versions.unwrap_or_else(|| vec!["7.0".to_owned()]),
        is_sharded: value["sharded"] == true,
        steps: steps.iter().map(step).collect(),
    }
}

fn step(value: &Value) -> Step {
    let (name, given) = value
        .as_object()
        .and_then(|fields| fields.iter().next())
        .unwrap_or_else(|| panic!("no step: {value}"));
    let id = |index: usize| i32::try_from(given[index].as_i64().unwrap()).unwrap();
    match name.as_str() {
        "open" => Step::Open(given.clone()),
        "tryNext" => Step::TryNext,
        "next" => Step::Next,
        "close" => Step::Close,
        "insert" => Step::Insert(id(0), id(1)),
        "drop" => Step::Drop,
        "fail" => Step::Fail(given.clone()),
        "killCursor" => Step::KillCursor,
        "stepDown" => Step::PrimaryLeaves,
        other => panic!("no step is called {other}"),
    }
}
