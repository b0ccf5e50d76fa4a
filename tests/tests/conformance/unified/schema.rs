//! The unified test format's files, as far as their schema goes. What no version of the schema knows is an error.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::fault::{Fault, UNKNOWN, failed, unsupported};
use super::strict;

type Map = serde_json::Map<String, Value>;

/// A file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct TestFile {
    #[serde(rename = "description")]
    _description: String,
    #[serde(rename = "schemaVersion")]
    _schema_version: String,
    #[serde(default)]
    pub(super) run_on_requirements: Vec<Requirement>,
    #[serde(default)]
    pub(super) create_entities: Vec<EntityDefinition>,
    #[serde(default)]
    pub(super) initial_data: Vec<CollectionData>,
    /// Read one by one: what only one of them uses keeps no other from being run.
    tests: Vec<Value>,
    #[serde(rename = "_yamlAnchors")]
    _yaml_anchors: Option<Value>,
}

impl TestFile {
    /// Reads a file and one of its tests.
    ///
    /// # Errors
    /// The file does not keep to the schema, or is of a version of it that is newer than what is known here. A newer minor
    /// version only adds to it: what uses nothing of that runs.
    pub(super) fn parse(content: &Value, index: usize) -> Result<(Self, Test), Fault> {
        let text = content["schemaVersion"].as_str().unwrap_or_default();
        let unknown = || unsupported(format!("{UNKNOWN} the version {text} of the schema"));
        let (major, minor) = version(text).ok_or_else(|| failed(format!("{text:?} is no schema version")))?;
        if major != MAJOR {
            return Err(unknown());
        }
        let broken = |error: String| match minor > NEWEST_MINOR {
            true => unknown(),
            false => failed(format!("breaks the schema: {error}")),
        };
        let fault = |error: serde_json::Error| broken(error.to_string());
        let file = Self::deserialize(content).map_err(fault)?;
        let test = file.tests.get(index).ok_or_else(|| failed("it has no tests"))?;
        strict::broken_rule(content, test).map_err(broken)?;
        let test = Test::deserialize(test).map_err(fault)?;
        Ok((file, test))
    }
}

/// One of a file's tests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Test {
    #[serde(rename = "description")]
    _description: String,
    #[serde(default)]
    pub(super) run_on_requirements: Vec<Requirement>,
    pub(super) skip_reason: Option<String>,
    pub(super) operations: Vec<Operation>,
    pub(super) expect_events: Option<Vec<ExpectedEvents>>,
    pub(super) expect_log_messages: Option<Vec<ExpectedMessages>>,
    pub(super) expect_tracing_messages: Option<Value>,
    pub(super) outcome: Option<Vec<CollectionData>>,
}

/// What a deployment must be like, one of several alternatives.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Requirement {
    pub(super) min_server_version: Option<String>,
    pub(super) max_server_version: Option<String>,
    pub(super) topologies: Option<Vec<String>>,
    pub(super) server_parameters: Option<Map>,
    pub(super) auth: Option<bool>,
    pub(super) auth_mechanism: Option<String>,
    pub(super) serverless: Option<String>,
    pub(super) csfle: Option<Value>,
}

/// What a collection holds before or after a test.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct CollectionData {
    pub(super) collection_name: String,
    pub(super) database_name: String,
    pub(super) documents: Vec<Value>,
    #[serde(default)]
    pub(super) create_options: Map,
}

/// An entity to be made.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum EntityDefinition {
    Client(Box<ClientDefinition>),
    Database(DatabaseDefinition),
    Collection(CollectionDefinition),
    Session(SessionDefinition),
    Bucket(BucketDefinition),
    Thread(ThreadDefinition),
    ClientEncryption(serde::de::IgnoredAny),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ClientDefinition {
    pub(super) id: String,
    #[serde(default)]
    pub(super) uri_options: Map,
    pub(super) use_multiple_mongoses: Option<bool>,
    #[serde(default)]
    pub(super) observe_events: Vec<String>,
    #[serde(default)]
    pub(super) ignore_command_monitoring_events: Vec<String>,
    #[serde(default)]
    pub(super) observe_sensitive_commands: bool,
    #[serde(default)]
    pub(super) observe_log_messages: BTreeMap<String, String>,
    #[serde(rename = "observeTracingMessages")]
    _observe_tracing_messages: Option<Value>,
    pub(super) server_api: Option<ServerApiDefinition>,
    pub(super) store_events_as_entities: Option<Value>,
    pub(super) auto_encrypt_opts: Option<Value>,
    /// How long to wait for a pool to be filled: there is none.
    #[serde(rename = "awaitMinPoolSizeMS")]
    _await_min_pool_size_ms: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ServerApiDefinition {
    pub(super) version: String,
    pub(super) strict: Option<bool>,
    pub(super) deprecation_errors: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DatabaseDefinition {
    pub(super) id: String,
    pub(super) client: String,
    pub(super) database_name: String,
    #[serde(default)]
    pub(super) database_options: Inherited,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct CollectionDefinition {
    pub(super) id: String,
    pub(super) database: String,
    pub(super) collection_name: String,
    #[serde(default)]
    pub(super) collection_options: Inherited,
}

/// What operations on a database or a collection inherit from it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Inherited {
    pub(super) read_concern: Option<Value>,
    pub(super) read_preference: Option<Value>,
    pub(super) write_concern: Option<Value>,
    #[serde(rename = "timeoutMS")]
    pub(super) timeout_ms: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct SessionDefinition {
    pub(super) id: String,
    pub(super) client: String,
    #[serde(default)]
    session_options: Map,
}

impl SessionDefinition {
    pub(super) fn is_snapshot(&self) -> bool {
        self.session_options.get("snapshot") == Some(&Value::Bool(true))
    }

    pub(super) fn is_causal(&self) -> bool {
        self.session_options.get("causalConsistency") != Some(&Value::Bool(false))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct BucketDefinition {
    pub(super) id: String,
    pub(super) database: String,
    #[serde(rename = "bucketOptions")]
    _bucket_options: Option<Map>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ThreadDefinition {
    pub(super) id: String,
}

/// Something to be done.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Operation {
    pub(super) name: String,
    pub(super) object: String,
    #[serde(default)]
    pub(super) arguments: Map,
    pub(super) expect_error: Option<ExpectedError>,
    #[serde(default, deserialize_with = "even_null")]
    pub(super) expect_result: Option<Value>,
    pub(super) save_result_as_entity: Option<String>,
    #[serde(default)]
    pub(super) ignore_result_and_error: bool,
}

/// How an operation has to fail.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ExpectedError {
    /// Any error will do.
    #[serde(rename = "isError")]
    _is_error: Option<bool>,
    pub(super) is_client_error: Option<bool>,
    pub(super) is_timeout_error: Option<bool>,
    pub(super) error_contains: Option<String>,
    pub(super) error_code: Option<i64>,
    pub(super) error_code_name: Option<String>,
    #[serde(default)]
    pub(super) error_labels_contain: Vec<String>,
    #[serde(default)]
    pub(super) error_labels_omit: Vec<String>,
    pub(super) error_response: Option<Value>,
    pub(super) write_errors: Option<Value>,
    pub(super) write_concern_errors: Option<Value>,
    pub(super) expect_result: Option<Value>,
}

/// What a client has to have published.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ExpectedEvents {
    pub(super) client: String,
    pub(super) event_type: Option<EventType>,
    pub(super) events: Vec<Map>,
    #[serde(default)]
    pub(super) ignore_extra_events: bool,
}

/// What a client has to have logged.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ExpectedMessages {
    pub(super) client: String,
    pub(super) messages: Vec<ExpectedMessage>,
    #[serde(default)]
    pub(super) ignore_messages: Vec<ExpectedMessage>,
    #[serde(default)]
    pub(super) ignore_extra_messages: bool,
}

/// A log message.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ExpectedMessage {
    pub(super) level: String,
    pub(super) component: String,
    pub(super) failure_is_redacted: Option<bool>,
    pub(super) data: Value,
}

/// A kind of events.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) enum EventType {
    #[default]
    Command,
    Cmap,
    Sdam,
}

fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Major and minor version; there may be a patch.
fn version(text: &str) -> Option<(u32, u32)> {
    let numbers: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
    match numbers.ok()?.as_slice() {
        [major, minor] | [major, minor, _] => Some((*major, *minor)),
        _ => None,
    }
}

const MAJOR: u32 = 1;
/// The newest version of the schema when this was written is 1.28.
const NEWEST_MINOR: u32 = 28;
