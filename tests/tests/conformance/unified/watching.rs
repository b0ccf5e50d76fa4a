//! The options of streams and commands, as tests give them.

use std::time::Duration;

use bson::{Bson, Document};
use changestream_core::connection::DriverInfo;
use changestream_core::{ReadConcern, ReadPreference, ReadPreferenceMode, ResumeToken, WatchOptions};
use serde_json::Value;

use super::entities::EntityMap;
use super::fault::{Fault, UNKNOWN, failed, unsupported};
use super::matcher::to_bson;
use super::schema::{Inherited, Operation};

/// The options of a `createChangeStream`.
pub(super) fn options(
    operation: &Operation,
    inherited: &Inherited,
    entities: &EntityMap,
) -> Result<WatchOptions, Fault> {
    let mut options = WatchOptions::default();
    // The commands on the wire are then exactly those of the specification's examples.
    options.prefetch_batches = 0;
    inherit(&mut options, inherited)?;
    for (name, value) in &operation.arguments {
        set(&mut options, name, value, entities).map_err(|fault| fault.at(name))?;
    }
    Ok(options)
}

fn inherit(options: &mut WatchOptions, inherited: &Inherited) -> Result<(), Fault> {
    if let Some(concern) = &inherited.read_concern {
        options.read_concern = concern["level"].as_str().map(ReadConcern::new);
    }
    if let Some(preference) = &inherited.read_preference {
        options.read_preference = Some(read_preference(preference)?);
    }
    if let Some(timeout) = &inherited.timeout_ms {
        set_timeout(options, timeout)?;
    }
    Ok(())
}

fn set(options: &mut WatchOptions, name: &str, value: &Value, entities: &EntityMap) -> Result<(), Fault> {
    match name {
        "pipeline" => {
            let stages = value.as_array().ok_or_else(|| failed("no array"))?;
            options.pipeline = stages.iter().map(document).collect::<Result<_, _>>()?;
        }
        "fullDocument" => options.full_document = Some(text(value)?.into()),
        "fullDocumentBeforeChange" => options.full_document_before_change = Some(text(value)?.into()),
        "resumeAfter" => options.resume_after = Some(token(value)?),
        "startAfter" => options.start_after = Some(token(value)?),
        "startAtOperationTime" => {
            let time = to_bson(value).map_err(failed)?;
            options.start_at_operation_time =
                Some(time.as_timestamp().ok_or_else(|| failed("no timestamp"))?);
        }
        "maxAwaitTimeMS" => options.max_await_time = Some(milliseconds(value)?),
        "batchSize" => {
            let size = value.as_u64().and_then(|size| size.try_into().ok());
            options.batch_size = Some(size.ok_or_else(|| failed("no batch size"))?);
        }
        "collation" => options.collation = Some(document(value)?),
        "comment" => options.comment = Some(to_bson(value).map_err(failed)?),
        "showExpandedEvents" => {
            options.show_expanded_events = Some(value.as_bool().ok_or_else(|| failed("no boolean"))?);
        }
        "session" => options.session = Some(entities.session(text(value)?)?.session.clone()),
        "timeoutMS" => set_timeout(options, value)?,
        "readConcern" => options.read_concern = value["level"].as_str().map(ReadConcern::new),
        "readPreference" => options.read_preference = Some(read_preference(value)?),
        other => {
            return Err(unsupported(format!(
                "{UNKNOWN} the argument {other} of createChangeStream"
            )));
        }
    }
    Ok(())
}

fn set_timeout(options: &mut WatchOptions, value: &Value) -> Result<(), Fault> {
    options.timeout = Some(milliseconds(value)?);
    Ok(())
}

pub(super) fn read_preference(value: &Value) -> Result<ReadPreference, Fault> {
    let mode = value["mode"].as_str().unwrap_or("primary");
    let mode = ReadPreferenceMode::from_name(mode).ok_or_else(|| failed("no read preference's mode"))?;
    let mut preference = ReadPreference::new(mode);
    let sets = value["tagSets"].as_array().into_iter().flatten();
    preference.tag_sets = sets
        .map(|set| {
            let tags = set.as_object().into_iter().flatten();
            tags.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect()
        })
        .collect();
    preference.max_staleness = value["maxStalenessSeconds"].as_u64().map(Duration::from_secs);
    Ok(preference)
}

fn token(value: &Value) -> Result<ResumeToken, Fault> {
    document(value)?
        .try_into()
        .map_err(|error| failed(format!("no resume token: {error:?}")))
}

pub(super) fn milliseconds(value: &Value) -> Result<Duration, Fault> {
    let milliseconds = value.as_u64().ok_or_else(|| failed("no milliseconds"))?;
    Ok(Duration::from_millis(milliseconds))
}

pub(super) fn text(value: &Value) -> Result<&str, Fault> {
    value.as_str().ok_or_else(|| failed("no string"))
}

pub(super) fn document(value: &Value) -> Result<Document, Fault> {
    match to_bson(value).map_err(failed)? {
        Bson::Document(document) => Ok(document),
        other => Err(failed(format!("no document: {other}"))),
    }
}

/// A wrapping library, as `appendMetadata` names it.
pub(super) fn driver_info(value: &Value) -> Result<DriverInfo, Fault> {
    let field = |name: &str| value.get(name).and_then(Value::as_str);
    let name = field("name").ok_or_else(|| failed("a wrapping library has a name"))?;
    let mut info = DriverInfo::new(name);
    info.version = field("version").map(str::to_owned);
    info.platform = field("platform").map(str::to_owned);
    Ok(info)
}
