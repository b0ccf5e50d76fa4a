//! The versioned API, as clients declare it in each command.

use super::{Context, Result, documents};
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::query::pipeline::stages_of;

/// Whether the server supports what the command declares, and the command is part of it.
pub(super) fn check(d: &Deployment, context: &Context<'_>) -> Result<()> {
    let body = context.body();
    if !d.profile.versioned_api {
        return Ok(());
    }
    let Some(version) = body.get("apiVersion") else {
        let orphan = ["apiStrict", "apiDeprecationErrors"]
            .iter()
            .find(|f| body.contains_key(**f));
        return match orphan {
            None => Ok(()),
            Some(_) => Err(CommandError::new(
                4_886_600,
                "Provided apiStrict and/or apiDeprecationErrors without passing apiVersion",
            )),
        };
    };
    if version.as_str() != Some("1") {
        return Err(CommandError::new(322, "API version must be \"1\""));
    }
    if !documents::flag(body, "apiStrict") {
        return Ok(());
    }
    let name = context.request.name();
    if !VERSION_1.contains(&name) {
        return Err(strict(format!("the command {name} is not in API Version 1")));
    }
    if name != "aggregate" {
        return Ok(());
    }
    let stages = body
        .get("pipeline")
        .map(stages_of)
        .transpose()?
        .unwrap_or_default();
    let foreign = stages
        .iter()
        .filter_map(|stage| stage.keys().next())
        .find(|stage| NOT_IN_VERSION_1.contains(&stage.as_str()));
    foreign.map_or(Ok(()), |stage| {
        Err(strict(format!(
            "stage {stage} is not allowed with 'apiStrict: true' in API Version 1"
        )))
    })
}

fn strict(what: String) -> CommandError {
    CommandError::new(323, format!("Provided apiStrict:true, but {what}"))
}

/// The commands of the manual's list, of those that there are here.
const VERSION_1: [&str; 27] = [
    "abortTransaction",
    "aggregate",
    "collMod",
    "commitTransaction",
    "count",
    "create",
    "createIndexes",
    "delete",
    "drop",
    "dropDatabase",
    "dropIndexes",
    "endSessions",
    "find",
    "findAndModify",
    "findandmodify",
    "getMore",
    "hello",
    "insert",
    "killCursors",
    "listCollections",
    "listDatabases",
    "listIndexes",
    "ping",
    "refreshSessions",
    "saslContinue",
    "saslStart",
    "update",
];
/// The manual's list of stages that are left out.
const NOT_IN_VERSION_1: [&str; 7] = [
    "$collStats",
    "$currentOp",
    "$indexStats",
    "$listLocalSessions",
    "$listSessions",
    "$planCacheStats",
    "$search",
];
