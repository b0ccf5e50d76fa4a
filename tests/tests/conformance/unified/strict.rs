//! Rules of the unified test format's schema that types do not hold: lists and documents that must not be empty, and texts
//! of which only some are legal.

use serde_json::{Map, Value};

use super::logged;
use super::observed;

/// The first rule that a file breaks, or that test of it.
pub(super) fn broken_rule(content: &Value, test: &Value) -> Result<(), String> {
    not_empty(
        content,
        &["runOnRequirements", "createEntities", "initialData", "tests"],
    )?;
    not_empty(
        test,
        &[
            "runOnRequirements",
            "expectEvents",
            "expectLogMessages",
            "outcome",
        ],
    )?;
    for requirement in list(content, "runOnRequirements").chain(list(test, "runOnRequirements")) {
        check_requirement(requirement)?;
    }
    for entity in list(content, "createEntities") {
        check_client(&entity["client"])?;
        check_options(&entity["database"]["databaseOptions"])?;
        check_options(&entity["collection"]["collectionOptions"])?;
    }
    Ok(())
}

fn check_requirement(requirement: &Value) -> Result<(), String> {
    if requirement.as_object().is_some_and(Map::is_empty) {
        return Err("a requirement that requires nothing".to_owned());
    }
    not_empty(requirement, &["topologies"])?;
    for bound in ["minServerVersion", "maxServerVersion"] {
        if let Some(version) = requirement[bound].as_str()
            && !is_version(version)
        {
            return Err(format!("{bound}: {version} is no version"));
        }
    }
    for topology in list(requirement, "topologies").filter_map(Value::as_str) {
        one_of("topologies", topology, &TOPOLOGIES)?;
    }
    match requirement["serverless"].as_str() {
        Some(serverless) => one_of("serverless", serverless, &["require", "forbid", "allow"]),
        None => Ok(()),
    }
}

fn check_client(client: &Value) -> Result<(), String> {
    not_empty(client, &["observeEvents", "ignoreCommandMonitoringEvents"])?;
    for name in list(client, "observeEvents").filter_map(Value::as_str) {
        if !observed::is_known(name) {
            return Err(format!("observeEvents: there is no event {name}"));
        }
    }
    let Some(components) = client["observeLogMessages"].as_object() else {
        return Ok(());
    };
    if components.is_empty() {
        return Err("observeLogMessages: is empty".to_owned());
    }
    let mut levels = components.values().filter_map(Value::as_str);
    match levels.find(|level| !logged::is_level(level)) {
        Some(level) => Err(format!("observeLogMessages: there is no level {level}")),
        None => Ok(()),
    }
}

fn check_options(options: &Value) -> Result<(), String> {
    for name in ["readConcern", "readPreference", "writeConcern"] {
        let option = &options[name];
        if !option.is_null() && !option.is_object() {
            return Err(format!("{name}: is no document"));
        }
    }
    let timeout = &options["timeoutMS"];
    if timeout.is_null() || timeout.is_i64() || timeout.is_u64() {
        return Ok(());
    }
    Err("timeoutMS: is no integer".to_owned())
}

fn not_empty(of: &Value, names: &[&str]) -> Result<(), String> {
    let is_empty = |name: &&&str| of[**name].as_array().is_some_and(Vec::is_empty);
    match names.iter().find(is_empty) {
        Some(name) => Err(format!("{name}: is empty")),
        None => Ok(()),
    }
}

fn list<'a>(of: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    of[name].as_array().into_iter().flatten()
}

fn one_of(what: &str, found: &str, legal: &[&str]) -> Result<(), String> {
    if legal.contains(&found) {
        return Ok(());
    }
    Err(format!("{what}: there is no {found}"))
}

/// Two or three numbers.
fn is_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = text.split('.').collect();
    (2..=3).contains(&parts.len()) && parts.into_iter().all(is_number)
}

const TOPOLOGIES: [&str; 5] = [
    "single",
    "replicaset",
    "sharded",
    "sharded-replicaset",
    "load-balanced",
];
