//! `operationType`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What happened: `operationType` of an event.
///
/// From server 6.0 on, the kinds from [`CreateIndexes`](Self::CreateIndexes) on come only with
/// `show_expanded_events`. A kind that this version does not know is [`Other`](Self::Other), never an error.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum OperationType {
    /// A document was inserted.
    Insert,
    /// Fields of a document were changed.
    Update,
    /// A document was replaced by another.
    Replace,
    /// A document was deleted.
    Delete,
    /// What the stream watches is gone; the stream ends.
    Invalidate,
    /// A collection was dropped.
    Drop,
    /// A database was dropped.
    DropDatabase,
    /// A collection was renamed.
    Rename,
    /// Indexes were built.
    CreateIndexes,
    /// Indexes were dropped.
    DropIndexes,
    /// Options of a collection or an index were changed.
    Modify,
    /// A collection or a view was created.
    Create,
    /// A collection was sharded.
    ShardCollection,
    /// A collection got another shard key.
    ReshardCollection,
    /// Fields were appended to a shard key.
    RefineCollectionShardKey,
    /// Any other kind, by the server's name for it.
    Other(String),
}

impl OperationType {
    /// The server's name for it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Delete => "delete",
            Self::Invalidate => "invalidate",
            Self::Drop => "drop",
            Self::DropDatabase => "dropDatabase",
            Self::Rename => "rename",
            Self::CreateIndexes => "createIndexes",
            Self::DropIndexes => "dropIndexes",
            Self::Modify => "modify",
            Self::Create => "create",
            Self::ShardCollection => "shardCollection",
            Self::ReshardCollection => "reshardCollection",
            Self::RefineCollectionShardKey => "refineCollectionShardKey",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for OperationType {
    fn from(name: &str) -> Self {
        match name {
            "insert" => Self::Insert,
            "update" => Self::Update,
            "replace" => Self::Replace,
            "delete" => Self::Delete,
            "invalidate" => Self::Invalidate,
            "drop" => Self::Drop,
            "dropDatabase" => Self::DropDatabase,
            "rename" => Self::Rename,
            "createIndexes" => Self::CreateIndexes,
            "dropIndexes" => Self::DropIndexes,
            "modify" => Self::Modify,
            "create" => Self::Create,
            "shardCollection" => Self::ShardCollection,
            "reshardCollection" => Self::ReshardCollection,
            "refineCollectionShardKey" => Self::RefineCollectionShardKey,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for OperationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for OperationType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for OperationType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| Self::from(name.as_str()))
    }
}
