//! Aggregation pipelines: those behind `$changeStream`, a document at a time, and ordinary ones, over all documents.

mod group;
mod parse;
mod redact;

use bson::{Bson, DateTime, Document};

use super::expression::{Expression, Scope};
use super::filter::Filter;
use super::needs::Needs;
use super::projection::{AddFields, Projection};
use super::show;
use super::sort::SortPattern;
use crate::error::CommandError;
use group::Group;

pub use parse::stages_of;

/// A parsed pipeline.
///
/// ```
/// use bson::doc;
/// use changestream_sim::query::pipeline::Pipeline;
///
/// let stages = [doc! { "$match": { "operationType": "insert" } }, doc! { "$project": { "fullDocument": 1 } }];
/// let pipeline = Pipeline::parse_change_stream(&stages)?;
/// let event = doc! { "_id": 1, "operationType": "insert", "fullDocument": { "a": 1 }, "ns": {} };
/// assert_eq!(pipeline.apply(event)?, Some(doc! { "_id": 1, "fullDocument": { "a": 1 } }));
/// # Ok::<(), changestream_sim::error::CommandError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    stages: Vec<Stage>,
    splits_large_events: bool,
    now: Option<DateTime>,
}

/// One stage.
#[derive(Clone, Debug)]
enum Stage {
    Each(EachStage),
    All(AllStage),
}

/// A stage that looks at one document at a time.
#[derive(Clone, Debug)]
enum EachStage {
    Match(Filter),
    Project(Projection),
    Unset(Projection),
    AddFields(AddFields),
    ReplaceRoot(Expression),
    Redact(Expression),
}

/// A stage that needs all documents.
#[derive(Clone, Debug)]
enum AllStage {
    Sort(SortPattern),
    Limit(usize),
    Skip(usize),
    Count(String),
    Group(Box<Group>),
    Unwind(Unwind),
}

#[derive(Clone, Debug)]
struct Unwind {
    path: Vec<String>,
    index_field: Option<String>,
    keep_empty: bool,
}

impl Pipeline {
    /// The stages that follow `$changeStream` in a change stream's pipeline.
    ///
    /// # Errors
    /// 40323 for a stage that is not one field, 40324 for an unknown one, 20 for one that a change stream does not
    /// permit, 40602 for another `$changeStream`, and each stage's own.
    pub fn parse_change_stream(stages: &[Document]) -> Result<Self, CommandError> {
        parse::pipeline(stages, parse::Use::ChangeStream)
    }

    /// The stages of an ordinary aggregate.
    ///
    /// # Errors
    /// 40323, 40324, and each stage's own; 115 for a stage that a real server has and this one has not.
    pub fn parse_aggregate(stages: &[Document]) -> Result<Self, CommandError> {
        parse::pipeline(stages, parse::Use::Aggregate)
    }

    /// The stages of a pipeline update.
    ///
    /// # Errors
    /// As for an aggregate; 72 for a stage that an update does not permit.
    pub fn parse_update(stages: &[Document]) -> Result<Self, CommandError> {
        parse::pipeline(stages, parse::Use::Update)
    }

    /// The same pipeline, in which `$$NOW` is that time.
    #[must_use]
    pub fn at(mut self, now: DateTime) -> Self {
        self.now = Some(now);
        self
    }

    /// Whether the last stage is `$changeStreamSplitLargeEvent`, which is the caller's to carry out.
    pub fn splits_large_events(&self) -> bool {
        self.splits_large_events
    }

    /// Whether there is no stage to run.
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// What the pipeline looks at, if all it does is to let documents through or not, and then to keep or drop whole
    /// fields of them.
    pub(crate) fn needs(&self) -> Option<Needs> {
        let mut needs = Needs::default();
        let (stages, _) = self.split_projection();
        let only_matches = stages.iter().all(|stage| match stage {
            Stage::Each(EachStage::Match(filter)) => filter.collect_needs(&mut needs),
            Stage::Each(
                EachStage::Project(_)
                | EachStage::Unset(_)
                | EachStage::AddFields(_)
                | EachStage::ReplaceRoot(_)
                | EachStage::Redact(_),
            )
            | Stage::All(_) => false,
        });
        (only_matches && !self.splits_large_events).then_some(needs)
    }

    /// Whether such a pipeline lets the document with these fields through.
    pub(crate) fn lets_through(&self, document: &Document) -> bool {
        self.stages.iter().all(|stage| match stage {
            Stage::Each(EachStage::Match(filter)) => filter.matches(document),
            Stage::Each(_) | Stage::All(_) => true,
        })
    }

    /// Which fields such a pipeline leaves.
    pub(crate) fn projection(&self) -> Option<&Projection> {
        self.split_projection().1
    }

    /// The stages before a last one that keeps or drops whole fields, and that one.
    fn split_projection(&self) -> (&[Stage], Option<&Projection>) {
        match self.stages.split_last() {
            Some((Stage::Each(EachStage::Project(last) | EachStage::Unset(last)), before))
                if last.is_plain() =>
            {
                (before, Some(last))
            }
            Some(_) | None => (&self.stages, None),
        }
    }

    /// What becomes of one document; none if a stage drops it.
    ///
    /// # Errors
    /// What the stages say of the document.
    pub fn apply(&self, document: Document) -> Result<Option<Document>, CommandError> {
        Ok(self.run(vec![document])?.pop())
    }

    /// What becomes of all documents.
    ///
    /// # Errors
    /// What the stages say of the documents.
    pub fn run(&self, mut documents: Vec<Document>) -> Result<Vec<Document>, CommandError> {
        for stage in &self.stages {
            documents = match stage {
                Stage::Each(stage) => {
                    let mut out = Vec::with_capacity(documents.len());
                    for document in documents {
                        out.extend(stage.apply(document, self.now)?);
                    }
                    out
                }
                Stage::All(stage) => stage.apply(documents)?,
            };
        }
        Ok(documents)
    }
}

impl EachStage {
    fn apply(&self, document: Document, now: Option<DateTime>) -> Result<Option<Document>, CommandError> {
        let scope = Scope {
            root: &document,
            current: &document,
            now,
        };
        match self {
            Self::Match(filter) => {
                let keep = filter.matches(&document);
                Ok(keep.then_some(document))
            }
            Self::Project(projection) | Self::Unset(projection) => {
                projection.apply(&document, scope).map(Some)
            }
            Self::AddFields(fields) => fields.apply(&document, scope).map(Some),
            Self::ReplaceRoot(expression) => replace_root(expression, scope).map(Some),
            Self::Redact(expression) => redact::apply(expression, scope),
        }
    }
}

fn replace_root(expression: &Expression, scope: Scope<'_>) -> Result<Document, CommandError> {
    match expression.evaluate(scope)? {
        Some(Bson::Document(document)) => Ok(document),
        other => Err(CommandError::new(
            40228,
            format!(
                "'newRoot' expression must evaluate to an object, but resulting value was: {}. Type of resulting \
                 value: '{}'. Input document: {}",
                other.as_ref().map_or_else(|| "MISSING".to_owned(), show::value),
                other.as_ref().map_or("missing", show::type_name),
                show::document(scope.root),
            ),
        )),
    }
}

impl AllStage {
    fn apply(&self, mut documents: Vec<Document>) -> Result<Vec<Document>, CommandError> {
        Ok(match self {
            Self::Sort(pattern) => {
                documents.sort_by(|left, right| pattern.compare(left, right));
                documents
            }
            Self::Limit(limit) => {
                documents.truncate(*limit);
                documents
            }
            Self::Skip(skip) => documents.into_iter().skip(*skip).collect(),
            Self::Count(_) if documents.is_empty() => documents,
            Self::Count(name) => {
                let mut count = Document::new();
                count.insert(name, i32::try_from(documents.len()).unwrap_or(i32::MAX));
                vec![count]
            }
            Self::Group(group) => group.apply(&documents)?,
            Self::Unwind(unwind) => documents
                .iter()
                .flat_map(|document| unwind.apply(document))
                .collect(),
        })
    }
}

impl Unwind {
    fn apply(&self, document: &Document) -> Vec<Document> {
        let value = super::path::get(document, &self.path);
        if let Some(Bson::Array(items)) = value
            && !items.is_empty()
        {
            return (0_i64..)
                .zip(items)
                .map(|(at, item)| self.one(document, Some(item), Some(at)))
                .collect();
        }
        let single = value.filter(|value| !matches!(value, Bson::Array(_) | Bson::Null | Bson::Undefined));
        match (single, self.keep_empty) {
            (Some(_), _) => vec![self.one(document, single, None)],
            (None, true) if matches!(value, Some(Bson::Array(_))) => {
                vec![self.one(document, None, None)]
            }
            (None, true) => vec![self.one(document, value, None)],
            (None, false) => Vec::new(),
        }
    }

    fn one(&self, document: &Document, item: Option<&Bson>, at: Option<i64>) -> Document {
        let mut out = document.clone();
        put(&mut out, &self.path, item);
        if let Some(name) = &self.index_field {
            out.insert(name, at.map_or(Bson::Null, Bson::Int64));
        }
        out
    }
}

/// Sets or removes what stands at a path that leads through documents.
fn put(document: &mut Document, path: &[String], value: Option<&Bson>) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if !rest.is_empty() {
        if let Some(Bson::Document(inner)) = document.get_mut(first) {
            put(inner, rest, value);
        }
        return;
    }
    match value {
        Some(value) => document.insert(first, value.clone()),
        None => document.remove(first),
    };
}
