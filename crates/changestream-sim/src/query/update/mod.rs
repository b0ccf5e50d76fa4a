//! Updates: replacements, operators and pipelines, and what a change stream says of them.

mod array;
mod delta;
mod modifier;
mod parse;
mod tree;

use std::collections::BTreeMap;

use bson::{Bson, DateTime, Document, Timestamp, doc};

use super::compare;
use super::filter::Filter;
use super::path::{self, Path};
use super::pipeline::Pipeline;
use super::show;
use crate::error::CommandError;
use modifier::Modifier;

/// A parsed update, as of `update` and `findAndModify`.
///
/// ```
/// use bson::{Bson, DateTime, Timestamp, doc};
/// use changestream_sim::query::update::{Change, Dialect, Update, UpdateContext};
///
/// let update = Update::parse(&Bson::Document(doc! { "$inc": { "a": 1 }, "$unset": { "s": "" } }), &[])?;
/// let context = UpdateContext::new(Dialect::Legacy, DateTime::from_millis(0), Timestamp { time: 1, increment: 1 });
/// let updated = update.apply(&doc! { "_id": 1, "a": 1, "s": "x" }, &context)?;
/// assert_eq!(updated.document, doc! { "_id": 1, "a": 2 });
/// let Change::Update(description) = updated.change else { panic!("not an update") };
/// assert_eq!(description.to_document(Dialect::Legacy), doc! { "updatedFields": { "a": 2 }, "removedFields": ["s"] });
/// # Ok::<(), changestream_sim::error::CommandError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Update(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Replacement(Document),
    Operators(Operators),
    Pipeline(Pipeline),
}

#[derive(Clone, Debug)]
struct Operators {
    /// In the order of the command.
    modifiers: Vec<(Path, Modifier)>,
    /// The filters of `$[identifier]`, by identifier; each matches `{ identifier: element }`.
    array_filters: BTreeMap<String, Filter>,
}

/// How a server of some version logs an update, hence what a change stream makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Up to 4.4: a pipeline update is logged as a replacement; a created path is named to its end; no
    /// `truncatedArrays`.
    Legacy,
    /// 5.0 and later: a pipeline update is logged as what it changed; a created path is named up to its first new
    /// field, with the whole of it as the value.
    Delta,
}

/// What an update depends on besides the document.
#[derive(Clone, Copy, Debug)]
pub struct UpdateContext {
    /// The server's version, as far as it matters here.
    pub dialect: Dialect,
    /// The time, for `$currentDate` and `$$NOW`.
    pub now: DateTime,
    /// The cluster time, for `$currentDate` of type timestamp.
    pub timestamp: Timestamp,
    /// The array index that the query matched by, for the positional operator ([`Filter::match_position`]).
    pub position: Option<usize>,
    inserting: bool,
}

impl UpdateContext {
    /// A context in which the query matched by no array.
    pub fn new(dialect: Dialect, now: DateTime, timestamp: Timestamp) -> Self {
        Self {
            dialect,
            now,
            timestamp,
            position: None,
            inserting: false,
        }
    }

    /// The same, where the query matched by that array index.
    #[must_use]
    pub fn at_position(mut self, position: Option<usize>) -> Self {
        self.position = position;
        self
    }
}

/// A document after an update.
#[derive(Clone, Debug, PartialEq)]
pub struct Updated {
    /// The whole document.
    pub document: Document,
    /// What a change stream says.
    pub change: Change,
}

/// What an update was to the oplog.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Nothing changed, nothing is logged: `nModified` does not count it.
    None,
    /// A `replace` event.
    Replace,
    /// An `update` event.
    Update(UpdateDescription),
}

/// The `updateDescription` of an `update` event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateDescription {
    /// New values by dotted path.
    pub updated_fields: Document,
    /// The dotted paths of what is gone.
    pub removed_fields: Vec<String>,
    /// Arrays that were cut: dotted path and new length.
    pub truncated_arrays: Vec<(String, usize)>,
}

impl UpdateDescription {
    /// The event's `updateDescription`; with `truncatedArrays` where the server has that field.
    pub fn to_document(&self, dialect: Dialect) -> Document {
        let mut out = doc! {
            "updatedFields": self.updated_fields.clone(),
            "removedFields": self.removed_fields.clone(),
        };
        match dialect {
            Dialect::Legacy => {}
            Dialect::Delta => {
                let entry = |(field, size): &(String, usize)| {
                    Bson::Document(
                        doc! { "field": field, "newSize": i32::try_from(*size).unwrap_or(i32::MAX) },
                    )
                };
                out.insert(
                    "truncatedArrays",
                    self.truncated_arrays.iter().map(entry).collect::<Vec<_>>(),
                );
            }
        }
        out
    }
}

impl Update {
    /// The update that a statement's `u` (or `update`) and `arrayFilters` write.
    ///
    /// # Errors
    /// 9 for unknown modifiers and bad shapes, 40 for conflicting paths, 52 and 56 for bad field names, 72 for a
    /// stage that an update does not permit, and each operator's own.
    pub fn parse(update: &Bson, array_filters: &[Document]) -> Result<Self, CommandError> {
        if !path::value_within_depth(update, path::MAX_DEPTH) {
            return Err(CommandError::new(15, "the update is nested too deeply"));
        }
        if update.as_array().is_some() {
            if !array_filters.is_empty() {
                return Err(CommandError::failed_to_parse(
                    "arrayFilters may not be specified for pipeline-syle updates",
                ));
            }
            return Ok(Self(Kind::Pipeline(Pipeline::parse_update(
                &super::pipeline::stages_of(update)?,
            )?)));
        }
        let Some(document) = update.as_document() else {
            return Err(CommandError::failed_to_parse(
                "Update argument must be either an object or an array",
            ));
        };
        if document.keys().next().is_some_and(|first| first.starts_with('$')) {
            return Ok(Self(Kind::Operators(parse::operators(document, array_filters)?)));
        }
        parse::check_replacement(document)?;
        if !array_filters.is_empty() {
            return Err(CommandError::failed_to_parse(
                "arrayFilters may not be specified for replacement-style updates",
            ));
        }
        Ok(Self(Kind::Replacement(document.clone())))
    }

    /// Whether it replaces the whole document: such an update takes no `multi`.
    pub fn is_replacement(&self) -> bool {
        matches!(self.0, Kind::Replacement(_))
    }

    /// The document after the update.
    ///
    /// # Errors
    /// 66 if `_id` would change, 28 where a path leads through a value that is no document, 14 and 2 where an
    /// operator meets a value of the wrong type.
    pub fn apply(&self, document: &Document, context: &UpdateContext) -> Result<Updated, CommandError> {
        let updated = match &self.0 {
            Kind::Replacement(replacement) => replaced(document, replacement.clone())?,
            Kind::Operators(operators) => tree::apply(operators, document, context)?,
            Kind::Pipeline(pipeline) => {
                let result = pipeline.clone().at(context.now).apply(document.clone())?;
                let updated = replaced(document, result.unwrap_or_default())?;
                match (context.dialect, updated.change == Change::Replace) {
                    (Dialect::Delta, true) => described(document, updated),
                    (Dialect::Delta, false) | (Dialect::Legacy, _) => updated,
                }
            }
        };
        if !path::within_depth(&updated.document, path::MAX_DEPTH) {
            return Err(CommandError::new(15, "the document would be nested too deeply"));
        }
        Ok(updated)
    }

    /// The document that an upsert inserts when nothing matched: what the query says by equality, updated. It has an
    /// `_id`, which is its first field, only if the query or the update gives one; the caller makes one otherwise.
    ///
    /// # Errors
    /// 54 where the query names a path twice, and those of [`apply`](Self::apply).
    pub fn upsert(&self, query: &Filter, context: &UpdateContext) -> Result<Document, CommandError> {
        let equalities = query.equalities();
        let base = match &self.0 {
            Kind::Replacement(_) => id_only(equalities)?,
            Kind::Operators(_) | Kind::Pipeline(_) => from_equalities(equalities)?,
        };
        let context = UpdateContext {
            inserting: true,
            ..*context
        };
        let document = self.apply(&base, &context)?.document;
        Ok(match document.get("_id") {
            Some(id) => {
                let mut out = doc! { "_id": id.clone() };
                out.extend(document.into_iter().filter(|(name, _)| name != "_id"));
                out
            }
            None => document,
        })
    }
}

/// The replaced document: the new fields behind the old `_id`, which may not change.
fn replaced(old: &Document, mut new: Document) -> Result<Updated, CommandError> {
    if let Some(id) = old.get("_id") {
        if let Some(given) = new.remove("_id")
            && !compare::equal(id, &given)
        {
            return Err(CommandError::immutable_field(format!(
                "After applying the update, the (immutable) field '_id' was found to have been altered to {}",
                show::element("_id", &given)
            )));
        }
        let mut with_id = doc! { "_id": id.clone() };
        with_id.extend(new);
        new = with_id;
    }
    let same = compare::identical_documents(old, &new);
    Ok(Updated {
        document: new,
        change: if same { Change::None } else { Change::Replace },
    })
}

/// The same update as a description, where that is smaller than the document itself.
fn described(old: &Document, updated: Updated) -> Updated {
    match delta::between(old, &updated.document) {
        Some(description) => Updated {
            change: Change::Update(description),
            ..updated
        },
        None => updated,
    }
}

fn id_only(equalities: Vec<(String, Bson)>) -> Result<Document, CommandError> {
    from_equalities(equalities.into_iter().filter(|(path, _)| path == "_id").collect())
}

fn from_equalities(equalities: Vec<(String, Bson)>) -> Result<Document, CommandError> {
    let mut document = Document::new();
    for (path, value) in equalities {
        let twice = || {
            CommandError::new(
                54,
                format!("cannot infer query fields to set, path '{path}' is matched twice"),
            )
        };
        if !place(&mut document, Path::new(&path).parts(), value) {
            return Err(twice());
        }
    }
    Ok(document)
}

/// Puts a value at a path that is still free; whether it was.
fn place(document: &mut Document, parts: &[String], value: Bson) -> bool {
    let Some((first, rest)) = parts.split_first() else {
        return false;
    };
    if rest.is_empty() {
        return document.insert(first, value).is_none();
    }
    let below = document
        .entry(first.clone())
        .or_insert_with(|| Bson::Document(Document::new()));
    below
        .as_document_mut()
        .is_some_and(|below| place(below, rest, value))
}
