//! What an update makes of a document.

use bson::{Bson, DateTime, Document};

use crate::error::CommandError;
use crate::oplog::Description;
use crate::query::filter::Filter;
use crate::query::pipeline::{Pipeline, stages_of};

/// A parsed update.
#[derive(Clone, Debug)]
pub(crate) enum Update {
    Replacement(Document),
    Set(Document),
    Pipeline(Pipeline),
}

/// What a document became.
pub(crate) struct Updated {
    pub(crate) document: Document,
    /// Field by field; none for a replacement.
    pub(crate) description: Option<Description>,
}

impl Update {
    pub(crate) fn parse(
        update: &Bson,
        _array_filters: &[Document],
        _now: DateTime,
    ) -> Result<Self, CommandError> {
        match update {
            Bson::Document(d) if d.keys().next().is_some_and(|k| k.starts_with('$')) => {
                Ok(Self::Set(d.get_document("$set").cloned().unwrap_or_default()))
            }
            Bson::Document(d) => Ok(Self::Replacement(d.clone())),
            other => Ok(Self::Pipeline(Pipeline::parse_update(&stages_of(other)?)?)),
        }
    }

    pub(crate) fn is_replacement(&self) -> bool {
        matches!(self, Self::Replacement(_))
    }

    pub(crate) fn is_pipeline(&self) -> bool {
        matches!(self, Self::Pipeline(_))
    }

    pub(crate) fn apply(&self, old: &Document, _filter: &Filter) -> Result<Updated, CommandError> {
        match self {
            Self::Replacement(new) => {
                let mut document = Document::new();
                if let Some(id) = old.get("_id") {
                    document.insert("_id", id.clone());
                }
                document.extend(new.clone());
                Ok(Updated {
                    document,
                    description: None,
                })
            }
            Self::Set(set) => {
                let mut document = old.clone();
                document.extend(set.clone());
                let updated_fields = set.clone();
                Ok(Updated {
                    document,
                    description: Some(Description {
                        updated_fields,
                        ..Description::default()
                    }),
                })
            }
            Self::Pipeline(p) => Ok(Updated {
                document: p.apply(old.clone())?.unwrap_or_default(),
                description: None,
            }),
        }
    }

    pub(crate) fn upsert(&self, filter: &Filter) -> Result<Document, CommandError> {
        let mut base = Document::new();
        for (k, v) in filter.equalities() {
            base.insert(k, v);
        }
        Ok(self.apply(&base, filter)?.document)
    }
}
