//! The versioned API, as clients declare it in each command.

use bson::Document;

use super::{Answer, Context, Result, documents};
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::query::pipeline::stages_of;
use crate::reply::Reply;

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
    let version = match version.as_str() {
        Some("1") => "1",
        Some("2") if d.config.accepts_api_version_2 => "2",
        Some("2") => return Err(CommandError::new(322, "Cannot accept API version 2")),
        _ => return Err(CommandError::new(322, "API version must be \"1\"")),
    };
    let name = context.request.name();
    let is_strict = documents::flag(body, "apiStrict");
    if is_strict && !is_in(name, version) {
        return Err(strict(format!(
            "the command {name} is not in API Version {version}. Information on supported commands and migrations in \
             API Version {version} can be found at https://dochub.mongodb.org/core/manual-versioned-api"
        )));
    }
    if documents::flag(body, "apiDeprecationErrors") && is_deprecated(name, version) {
        return Err(CommandError::new(
            324,
            format!(
                "Provided apiDeprecationErrors:true, but the command {name} is deprecated in API Version {version}"
            ),
        ));
    }
    if !is_strict || name != "aggregate" {
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

/// What each of the commands answers that are there to test versions of the API: what was declared.
pub(super) fn test(_: &mut Deployment, context: &Context<'_>) -> Result {
    let mut said = Document::new();
    for field in ["apiVersion", "apiStrict", "apiDeprecationErrors"] {
        if let Some(value) = context.body().get(field) {
            said.insert(field, value.clone());
        }
    }
    Ok(Answer::Reply(Reply::fields(&said)))
}

/// Whether the command is one of those.
pub(super) fn is_test(command: &str) -> bool {
    TEST_COMMANDS.iter().any(|test| test.name == command)
}

fn is_in(command: &str, version: &str) -> bool {
    match TEST_COMMANDS.iter().find(|test| test.name == command) {
        Some(test) => test.versions.contains(&version),
        None => version == "1" && VERSION_1.contains(&command),
    }
}

fn is_deprecated(command: &str, version: &str) -> bool {
    let test = TEST_COMMANDS.iter().find(|test| test.name == command);
    test.is_some_and(|test| test.deprecated.contains(&version))
}

fn strict(what: String) -> CommandError {
    CommandError::new(323, format!("Provided apiStrict:true, but {what}"))
}

/// A command that a server with `enableTestCommands` has to test versions of the API.
struct TestCommand {
    name: &'static str,
    versions: &'static [&'static str],
    deprecated: &'static [&'static str],
}

const TEST_COMMANDS: [TestCommand; 5] = [
    TestCommand {
        name: "testDeprecation",
        versions: &["1"],
        deprecated: &["1"],
    },
    TestCommand {
        name: "testDeprecationInVersion2",
        versions: &["1", "2"],
        deprecated: &["2"],
    },
    TestCommand {
        name: "testRemoval",
        versions: &["1"],
        deprecated: &[],
    },
    TestCommand {
        name: "testVersion2",
        versions: &["2"],
        deprecated: &[],
    },
    TestCommand {
        name: "testVersions1And2",
        versions: &["1", "2"],
        deprecated: &[],
    },
];

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
