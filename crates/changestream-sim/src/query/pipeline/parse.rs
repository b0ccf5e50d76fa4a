//! From stage documents to stages, with the server's words for what is wrong.

use bson::{Bson, Document};

use super::group::Group;
use super::{AllStage, EachStage, Pipeline, Stage, Unwind};
use crate::error::CommandError;
use crate::query::expression::{Expression, truthy};
use crate::query::filter::Filter;
use crate::query::number::Number;
use crate::query::path::{self, Path};
use crate::query::projection::{AddFields, Projection};
use crate::query::show;
use crate::query::sort::SortPattern;

/// What a pipeline is for, which decides what it may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Use {
    ChangeStream,
    Aggregate,
    Update,
}

/// The stages of a command's `pipeline` field.
///
/// # Errors
/// 14 if it is no array, or if one of its elements is no document.
pub fn stages_of(pipeline: &Bson) -> Result<Vec<Document>, CommandError> {
    let Bson::Array(items) = pipeline else {
        return Err(CommandError::type_mismatch(
            "'pipeline' option must be specified as an array",
        ));
    };
    let stage = |item: &Bson| {
        let document = item.as_document().cloned();
        document.ok_or_else(|| {
            CommandError::type_mismatch("Each element of the 'pipeline' array must be an object")
        })
    };
    items.iter().map(stage).collect()
}

pub(super) fn pipeline(stages: &[Document], purpose: Use) -> Result<Pipeline, CommandError> {
    if stages.len() > MAX_STAGES {
        return Err(CommandError::new(
            5_054_701,
            format!("Pipeline length must be no longer than {MAX_STAGES} stages"),
        ));
    }
    let mut parsed = Pipeline::default();
    for stage in stages {
        if !path::within_depth(stage, path::MAX_DEPTH) {
            return Err(CommandError::new(15, "the pipeline is nested too deeply"));
        }
        let mut fields = stage.iter();
        let (Some((name, spec)), None) = (fields.next(), fields.next()) else {
            return Err(CommandError::new(
                40323,
                "A pipeline stage specification object must contain exactly one field.",
            ));
        };
        if parsed.splits_large_events {
            return Err(CommandError::new(
                7_182_802,
                "$changeStreamSplitLargeEvent must be the last stage in the pipeline",
            ));
        }
        if name == SPLIT_LARGE_EVENT {
            check_split(spec, purpose)?;
            parsed.splits_large_events = true;
            continue;
        }
        permit(name, purpose)?;
        parsed.stages.push(stage_named(name, spec)?);
    }
    Ok(parsed)
}

/// The server's own limit (`internalPipelineLengthLimit`).
const MAX_STAGES: usize = 1000;

const SPLIT_LARGE_EVENT: &str = "$changeStreamSplitLargeEvent";

fn check_split(spec: &Bson, purpose: Use) -> Result<(), CommandError> {
    let empty = spec.as_document().is_some_and(Document::is_empty);
    match purpose {
        Use::ChangeStream if empty => Ok(()),
        Use::ChangeStream => Err(CommandError::new(
            7_182_800,
            format!("{SPLIT_LARGE_EVENT} spec should be an empty object"),
        )),
        Use::Aggregate | Use::Update => Err(CommandError::illegal_operation(format!(
            "{SPLIT_LARGE_EVENT} can only be used in a $changeStream pipeline"
        ))),
    }
}

/// Whether a pipeline of that purpose may hold the stage.
fn permit(name: &str, purpose: Use) -> Result<(), CommandError> {
    if !KNOWN.contains(&name) {
        return Err(CommandError::new(
            40324,
            format!("Unrecognized pipeline stage name: '{name}'"),
        ));
    }
    if name == "$changeStream" {
        return Err(CommandError::new(
            40602,
            "$changeStream is only valid as the first stage in a pipeline.",
        ));
    }
    match purpose {
        Use::ChangeStream if PERMITTED_IN_CHANGE_STREAM.contains(&name) => Ok(()),
        Use::ChangeStream => Err(CommandError::illegal_operation(format!(
            "{name} is not permitted in a $changeStream pipeline"
        ))),
        Use::Update if PERMITTED_IN_UPDATE.contains(&name) => Ok(()),
        Use::Update => Err(CommandError::invalid_options(format!(
            "{name} is not allowed to be used within an update"
        ))),
        Use::Aggregate => Ok(()),
    }
}

const PERMITTED_IN_CHANGE_STREAM: &[&str] = &[
    "$match",
    "$project",
    "$addFields",
    "$set",
    "$unset",
    "$replaceRoot",
    "$replaceWith",
    "$redact",
];

const PERMITTED_IN_UPDATE: &[&str] = &[
    "$project",
    "$addFields",
    "$set",
    "$unset",
    "$replaceRoot",
    "$replaceWith",
];

/// The stages that a server knows, whether or not this one runs them.
const KNOWN: &[&str] = &[
    "$addFields",
    "$bucket",
    "$bucketAuto",
    "$changeStream",
    "$collStats",
    "$count",
    "$currentOp",
    "$densify",
    "$documents",
    "$facet",
    "$fill",
    "$geoNear",
    "$graphLookup",
    "$group",
    "$indexStats",
    "$limit",
    "$listLocalSessions",
    "$listSessions",
    "$lookup",
    "$match",
    "$merge",
    "$out",
    "$planCacheStats",
    "$project",
    "$redact",
    "$replaceRoot",
    "$replaceWith",
    "$sample",
    "$search",
    "$set",
    "$setWindowFields",
    "$skip",
    "$sort",
    "$sortByCount",
    "$unionWith",
    "$unset",
    "$unwind",
];

fn stage_named(name: &str, spec: &Bson) -> Result<Stage, CommandError> {
    Ok(match name {
        "$match" => Stage::Each(EachStage::Match(match_stage(spec)?)),
        "$project" => {
            let spec = object(spec, 15969, "$project specification must be an object")?;
            Stage::Each(EachStage::Project(
                Projection::parse(spec).map_err(|error| error.caused("Invalid $project"))?,
            ))
        }
        "$addFields" | "$set" => {
            let spec = object(
                spec,
                40272,
                &format!("{name} specification stage must be an object"),
            )?;
            let invalid = format!("Invalid {name}");
            Stage::Each(EachStage::AddFields(
                AddFields::parse(spec).map_err(|error| error.caused(&invalid))?,
            ))
        }
        "$unset" => Stage::Each(EachStage::Unset(unset(spec)?)),
        "$replaceRoot" => Stage::Each(EachStage::ReplaceRoot(replace_root(spec)?)),
        "$replaceWith" => Stage::Each(EachStage::ReplaceRoot(Expression::parse(spec)?)),
        "$redact" => Stage::Each(EachStage::Redact(Expression::parse(spec)?)),
        "$sort" => {
            let spec = object(spec, 15973, "the $sort key specification must be an object")?;
            Stage::All(AllStage::Sort(SortPattern::parse(spec)?))
        }
        "$limit" => Stage::All(AllStage::Limit(count_of(name, spec, 1)?)),
        "$skip" => Stage::All(AllStage::Skip(count_of(name, spec, 0)?)),
        "$count" => Stage::All(AllStage::Count(count_field(spec)?)),
        "$group" => Stage::All(AllStage::Group(Box::new(Group::parse(spec)?))),
        "$unwind" => Stage::All(AllStage::Unwind(unwind(spec)?)),
        _ => {
            return Err(CommandError::command_not_supported(format!(
                "the simulated server has no {name} stage"
            )));
        }
    })
}

fn object<'a>(spec: &'a Bson, code: i32, message: &str) -> Result<&'a Document, CommandError> {
    spec.as_document().ok_or_else(|| CommandError::new(code, message))
}

fn match_stage(spec: &Bson) -> Result<Filter, CommandError> {
    Filter::parse(object(
        spec,
        15959,
        "the match filter must be an expression in an object",
    )?)
}

fn unset(spec: &Bson) -> Result<Projection, CommandError> {
    const SHAPE: &str = "$unset specification must be a string or an array";
    let invalid = |error: CommandError| error.caused("Invalid $unset");
    if let Bson::String(path) = spec {
        return Projection::excluding([path.as_str()]).map_err(invalid);
    }
    let Bson::Array(items) = spec else {
        return Err(CommandError::new(31002, SHAPE));
    };
    if items.is_empty() {
        return Err(CommandError::new(
            31119,
            "$unset specification must be a string or an array with at least one field",
        ));
    }
    let path = |item| match item {
        Some(path) => Ok(path),
        None => Err(CommandError::new(
            31120,
            "$unset specification must be a string or an array containing only string values",
        )),
    };
    let paths: Result<Vec<&str>, _> = items.iter().map(Bson::as_str).map(path).collect();
    Projection::excluding(paths?).map_err(invalid)
}

fn replace_root(spec: &Bson) -> Result<Expression, CommandError> {
    let spec = object(
        spec,
        40229,
        &format!(
            "expected an object as specification for $replaceRoot stage, got {}",
            show::type_name(spec)
        ),
    )?;
    if let Some(unknown) = spec.keys().find(|name| *name != "newRoot") {
        return Err(CommandError::new(
            40415,
            format!("BSON field '$replaceRoot.{unknown}' is an unknown field."),
        ));
    }
    match spec.get("newRoot") {
        Some(root) => Expression::parse(root),
        None => Err(CommandError::new(
            40231,
            "no newRoot specified for the $replaceRoot stage",
        )),
    }
}

fn count_of(name: &str, spec: &Bson, least: i64) -> Result<usize, CommandError> {
    let number = Number::of(spec)
        .and_then(Number::to_exact_i64)
        .filter(|number| *number >= least);
    number
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| {
            let what = if least == 0 {
                "a non-negative"
            } else {
                "a positive"
            };
            let code = if least == 0 { 5_107_200 } else { 5_107_201 };
            CommandError::new(
                code,
                format!(
                    "invalid argument to {name} stage: Expected {what} number in: {}",
                    show::element(name, spec)
                ),
            )
        })
}

fn count_field(spec: &Bson) -> Result<String, CommandError> {
    let Bson::String(name) = spec else {
        return Err(CommandError::new(
            40156,
            "the count field must be a non-empty string",
        ));
    };
    match name {
        _ if name.is_empty() => Err(CommandError::new(
            40157,
            "the count field must be a non-empty string",
        )),
        _ if name.starts_with('$') => Err(CommandError::new(
            40158,
            "the count field cannot be a $-prefixed path",
        )),
        _ if name.contains('.') => Err(CommandError::new(40160, "the count field cannot contain '.'")),
        _ => Ok(name.clone()),
    }
}

fn unwind(spec: &Bson) -> Result<Unwind, CommandError> {
    let empty = Document::new();
    let options = spec.as_document().unwrap_or(&empty);
    let path = spec
        .as_str()
        .or_else(|| options.get("path").and_then(Bson::as_str));
    let Some(path) = path else {
        return Err(CommandError::new(28812, "no path specified to $unwind stage"));
    };
    let Some(path) = path.strip_prefix('$') else {
        return Err(CommandError::new(
            28818,
            format!("path option to $unwind stage should be prefixed with a '$': {path}"),
        ));
    };
    if let Some(unknown) = options.keys().find(|name| {
        !matches!(
            name.as_str(),
            "path" | "includeArrayIndex" | "preserveNullAndEmptyArrays"
        )
    }) {
        return Err(CommandError::new(
            28811,
            format!("unrecognized option to $unwind stage: {unknown}"),
        ));
    }
    Ok(Unwind {
        path: Path::checked(path)?.parts().to_vec(),
        index_field: options
            .get("includeArrayIndex")
            .and_then(Bson::as_str)
            .map(str::to_owned),
        keep_empty: truthy(options.get("preserveNullAndEmptyArrays")),
    })
}
