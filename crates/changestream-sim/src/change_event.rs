//! Oplog entries to change events, as each server version lays them out.

use std::sync::Arc;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, Timestamp, doc};

use crate::catalog::{Catalog, id_of};
use crate::disambiguation::disambiguated_paths;
use crate::error::CommandError;
use crate::keys;
use crate::oplog::{Change, Entry, Op};
use crate::plain_event::{self, PlainEvent, Telling};
use crate::profile::Profile;
use crate::token::{EncodedToken, ResumeTokenData, TokenType, TokenVersion};

/// What a stream watches, and what its events are to carry.
#[derive(Clone, Debug)]
pub(crate) struct EventOptions {
    pub(crate) scope: Scope,
    pub(crate) full_document: Image,
    pub(crate) before_change: Image,
    pub(crate) expanded: bool,
    /// The bytes of the largest document that clients are sent.
    pub(crate) largest: usize,
}

/// What a stream watches.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scope {
    Cluster,
    Database(String),
    Collection(String, String),
}

/// How an image of a document is come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Image {
    /// Not at all, but for what the event has by itself.
    Default,
    /// Looked up as it is now.
    UpdateLookup,
    /// From the stored images, null where there is none.
    WhenAvailable,
    /// From the stored images, or an error.
    Required,
    /// From the stored images, where there is one.
    Kept,
}

/// What a member makes events of, besides its log.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'a> {
    /// Where documents are looked up.
    pub(crate) committed: &'a Catalog,
    /// Images of changes before this moment are gone.
    pub(crate) images_from: Timestamp,
}

impl Stored<'_> {
    /// Whether there are images of that change: its collection kept them when it was made, and nobody has removed them.
    pub(crate) fn has_images_of(&self, entry: &Entry, op: &Op) -> bool {
        op.images && entry.optime.ts >= self.images_from
    }
}

/// An event that is not built yet.
pub(crate) struct Candidate<'a> {
    pub(crate) token: Arc<EncodedToken>,
    pub(crate) invalidates: bool,
    /// The whole event, where the stream has no wishes that concern it.
    pub(crate) plain: Option<&'a PlainEvent>,
    index: usize,
    entry: &'a Entry,
    op: &'a Op,
    kind: &'static str,
}

/// The events of an entry, in order.
pub(crate) fn candidates<'a>(
    entry: &'a Entry,
    options: &EventOptions,
    stored: Stored<'_>,
    profile: &Profile,
) -> Vec<Candidate<'a>> {
    let mut found = Vec::new();
    for (index, op) in entry.ops.iter().enumerate() {
        let Some(kind) = kind(op, options.expanded) else {
            continue;
        };
        if !options.scope.contains(op) {
            continue;
        }
        let telling = Telling::of(entry, op, options, stored);
        let told = telling.map(|telling| plain_event::of(entry, telling, profile));
        let candidate = match told.and_then(|told| told.get(index)?.as_ref()) {
            Some(plain) => Candidate {
                token: Arc::clone(&plain.token),
                invalidates: false,
                plain: Some(plain),
                index,
                entry,
                op,
                kind,
            },
            None => Candidate::new(entry, index, op, kind, profile),
        };
        found.push(candidate);
        if options.scope.is_invalidated_by(op) {
            found.push(Candidate::new(entry, index, op, "invalidate", profile));
        }
    }
    found
}

/// The event of an entry that has but one, if that is the same for all streams with these wishes.
pub(crate) fn only_plain<'a>(
    entry: &'a Entry,
    options: &EventOptions,
    stored: Stored<'_>,
    profile: &Profile,
) -> Option<&'a PlainEvent> {
    let [op] = entry.ops.as_slice() else {
        return None;
    };
    if !options.scope.contains(op) || options.scope.is_invalidated_by(op) {
        return None;
    }
    let telling = Telling::of(entry, op, options, stored)?;
    plain_event::of(entry, telling, profile).first()?.as_ref()
}

/// The event of one of an entry's operations; none if nothing is told of it.
pub(crate) fn plain<'a>(
    entry: &'a Entry,
    index: usize,
    op: &'a Op,
    expanded: bool,
    profile: &Profile,
) -> Option<Candidate<'a>> {
    Some(Candidate::new(entry, index, op, kind(op, expanded)?, profile))
}

impl<'a> Candidate<'a> {
    fn new(entry: &'a Entry, index: usize, op: &'a Op, kind: &'static str, profile: &Profile) -> Self {
        let invalidates = kind == "invalidate";
        let mut candidate = Self {
            token: Arc::default(),
            invalidates,
            plain: None,
            index,
            entry,
            op,
            kind,
        };
        candidate.token = Arc::new(candidate.token_data(profile).encode());
        candidate
    }

    /// What its token says.
    pub(crate) fn token_data(&self, profile: &Profile) -> ResumeTokenData {
        let Self { entry, op, kind, .. } = *self;
        // An invalidate event is named after the event that it follows.
        let of = if self.invalidates {
            self::kind(op, true).unwrap_or(kind)
        } else {
            kind
        };
        ResumeTokenData {
            cluster_time: entry.optime.ts,
            version: profile.token_version,
            token_type: TokenType::Event,
            txn_op_index: u32::try_from(self.index).unwrap_or(u32::MAX),
            from_invalidate: self.invalidates,
            uuid: op.uuid,
            identifier: identifier(op, of, profile),
            fragment: None,
        }
    }
}

/// Builds the event's document.
pub(crate) fn build(
    candidate: &Candidate<'_>,
    options: &EventOptions,
    stored: Stored<'_>,
    profile: &Profile,
) -> Result<Document, CommandError> {
    let Candidate { entry, op, kind, .. } = candidate;
    let mut event = Document::new();
    // The profile 4.4 puts `to` first, and so do those before it.
    if let (Change::Rename { .. }, false, false) = (&op.change, profile.images, candidate.invalidates) {
        event.insert("to", rename_target(op));
    }
    event.insert("_id", candidate.token.to_document());
    event.insert("operationType", *kind);
    event.insert("clusterTime", entry.optime.ts);
    if let (true, Some(uuid)) = (options.expanded, op.uuid) {
        event.insert("collectionUUID", binary(uuid));
    }
    if profile.images {
        event.insert("wallTime", DateTime::from_millis(entry.wall));
    }
    if let (true, Some(statement)) = (entry.transaction, &entry.statement) {
        event.insert("txnNumber", statement.txn_number);
        event.insert("lsid", statement.lsid.clone());
    }
    if candidate.invalidates {
        return Ok(event);
    }
    if let Some(full) = full_document(entry, op, options, stored)? {
        event.insert("fullDocument", full);
    }
    let mut ns = doc! { "db": op.db.as_str() };
    if !op.coll.is_empty() {
        ns.insert("coll", op.coll.as_str());
    }
    event.insert("ns", ns);
    if let (Change::Rename { .. }, true) = (&op.change, profile.images) {
        event.insert("to", rename_target(op));
    }
    if let Some(key) = document_key(op) {
        event.insert("documentKey", key);
    }
    if let Some(description) = update_description(op, options, profile) {
        event.insert("updateDescription", description);
    }
    if let (true, Some(description)) = (options.expanded, operation_description(op)) {
        event.insert("operationDescription", description);
    }
    if let (true, Some(state)) = (options.expanded, state_before_change(op)) {
        event.insert("stateBeforeChange", state);
    }
    if let (true, Some(kind)) = (options.expanded && profile.ns_type, ns_type(op)) {
        event.insert("nsType", kind);
    }
    if let Some(before) = before_change(entry, op, options, stored)? {
        event.insert("fullDocumentBeforeChange", before);
    }
    Ok(event)
}

impl Scope {
    fn contains(&self, op: &Op) -> bool {
        let target = match &op.change {
            Change::Rename { to_db, to_coll, .. } => Some((to_db.as_str(), to_coll.as_str())),
            Change::Noop
            | Change::Insert { .. }
            | Change::Update { .. }
            | Change::Replace { .. }
            | Change::Delete { .. }
            | Change::Create { .. }
            | Change::Drop
            | Change::DropDatabase
            | Change::CreateIndexes { .. }
            | Change::DropIndexes { .. }
            | Change::Modify { .. }
            | Change::Shard { .. } => None,
        };
        if op.coll.starts_with("system.") {
            return false;
        }
        match self {
            Self::Cluster => !matches!(op.db.as_str(), "admin" | "config" | "local"),
            Self::Database(db) => op.db == *db || target.is_some_and(|(t, _)| t == db),
            Self::Collection(db, coll) => {
                (op.db == *db && op.coll == *coll) || target.is_some_and(|(d, c)| d == db && c == coll)
            }
        }
    }

    fn is_invalidated_by(&self, op: &Op) -> bool {
        match (self, &op.change) {
            (Self::Collection(..), Change::Drop | Change::Rename { .. })
            | (Self::Database(_), Change::DropDatabase) => true,
            (Self::Cluster | Self::Database(_) | Self::Collection(..), _) => false,
        }
    }
}

fn kind(op: &Op, expanded: bool) -> Option<&'static str> {
    if op.from_migrate {
        return None;
    }
    let expanded = |kind| expanded.then_some(kind);
    match &op.change {
        Change::Noop => None,
        Change::Insert { .. } => Some("insert"),
        Change::Update { .. } => Some("update"),
        Change::Replace { .. } => Some("replace"),
        Change::Delete { .. } => Some("delete"),
        Change::Drop => Some("drop"),
        Change::Rename { .. } => Some("rename"),
        Change::DropDatabase => Some("dropDatabase"),
        Change::Create { .. } => expanded("create"),
        Change::CreateIndexes { .. } => expanded("createIndexes"),
        Change::DropIndexes { .. } => expanded("dropIndexes"),
        Change::Modify { .. } => expanded("modify"),
        Change::Shard { .. } => expanded("shardCollection"),
    }
}

fn document_key(op: &Op) -> Option<Document> {
    let key = |d: &Arc<Document>| Some(keys::document_key(d, op.shard_key.as_deref()));
    match &op.change {
        Change::Insert { document } => key(document),
        Change::Update { after, .. } | Change::Replace { after, .. } => key(after),
        Change::Delete { before } => key(before),
        Change::Noop
        | Change::Create { .. }
        | Change::Drop
        | Change::Rename { .. }
        | Change::DropDatabase
        | Change::CreateIndexes { .. }
        | Change::DropIndexes { .. }
        | Change::Modify { .. }
        | Change::Shard { .. } => None,
    }
}

fn identifier(op: &Op, kind: &'static str, profile: &Profile) -> Option<Document> {
    let key = document_key(op);
    if profile.token_version == TokenVersion::V1 {
        return key;
    }
    let mut identifier = doc! { "operationType": kind };
    if let Some(key) = key {
        identifier.insert("documentKey", key);
    } else if let Some(description) = operation_description(op) {
        identifier.insert("operationDescription", description);
    }
    Some(identifier)
}

fn operation_description(op: &Op) -> Option<Document> {
    match &op.change {
        Change::Create { options } => {
            let mut description = options.clone();
            description.insert("idIndex", doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" });
            Some(description)
        }
        Change::Rename { dropped, .. } => {
            let mut description = doc! { "to": rename_target(op) };
            if let Some(uuid) = dropped {
                description.insert("dropTarget", binary(*uuid));
            }
            Some(description)
        }
        Change::CreateIndexes { indexes } | Change::DropIndexes { indexes } => {
            Some(doc! { "indexes": indexes.clone() })
        }
        Change::Modify { options, .. } => Some(options.clone()),
        Change::Shard { description } => Some(description.clone()),
        Change::Noop
        | Change::Insert { .. }
        | Change::Update { .. }
        | Change::Replace { .. }
        | Change::Delete { .. }
        | Change::Drop
        | Change::DropDatabase => None,
    }
}

fn update_description(op: &Op, options: &EventOptions, profile: &Profile) -> Option<Document> {
    let Change::Update {
        description,
        before,
        after,
    } = &op.change
    else {
        return None;
    };
    let mut told = description.to_document(profile.dialect());
    if options.expanded && profile.disambiguated_paths {
        let paths = disambiguated_paths(&told, before, after);
        told.insert("disambiguatedPaths", paths);
    }
    Some(told)
}

fn state_before_change(op: &Op) -> Option<Document> {
    let Change::Modify { before, .. } = &op.change else {
        return None;
    };
    let mut options = Document::new();
    if let Some(uuid) = op.uuid {
        options.insert("uuid", binary(uuid));
    }
    options.extend(before.clone());
    Some(doc! { "collectionOptions": options })
}

/// What kind of namespace was created.
fn ns_type(op: &Op) -> Option<&'static str> {
    let Change::Create { options } = &op.change else {
        return None;
    };
    Some(if options.contains_key("viewOn") {
        "view"
    } else if options.contains_key("timeseries") {
        "timeseries"
    } else {
        "collection"
    })
}

fn rename_target(op: &Op) -> Document {
    if let Change::Rename { to_db, to_coll, .. } = &op.change {
        return doc! { "db": to_db.as_str(), "coll": to_coll.as_str() };
    }
    Document::new()
}

fn full_document(
    entry: &Entry,
    op: &Op,
    options: &EventOptions,
    stored: Stored<'_>,
) -> Result<Option<Bson>, CommandError> {
    let after = match &op.change {
        Change::Insert { document } => return Ok(Some(Bson::Document(document.as_ref().clone()))),
        Change::Replace { after, .. } => return Ok(Some(Bson::Document(after.as_ref().clone()))),
        Change::Update { after, .. } => after,
        Change::Noop
        | Change::Delete { .. }
        | Change::Create { .. }
        | Change::Drop
        | Change::Rename { .. }
        | Change::DropDatabase
        | Change::CreateIndexes { .. }
        | Change::DropIndexes { .. }
        | Change::Modify { .. }
        | Change::Shard { .. } => return Ok(None),
    };
    match options.full_document {
        Image::Default => Ok(None),
        Image::UpdateLookup => {
            let now = stored
                .committed
                .collection(&op.db, &op.coll)
                .filter(|c| Some(c.uuid) == op.uuid)
                .and_then(|c| c.by_id(&id_of(after)));
            Ok(Some(
                now.map_or(Bson::Null, |d| Bson::Document(d.as_ref().clone())),
            ))
        }
        Image::WhenAvailable | Image::Required | Image::Kept => {
            let kept = stored.has_images_of(entry, op);
            image(kept, after, options.full_document, "post-image")
        }
    }
}

fn before_change(
    entry: &Entry,
    op: &Op,
    options: &EventOptions,
    stored: Stored<'_>,
) -> Result<Option<Bson>, CommandError> {
    let before = match &op.change {
        Change::Update { before, .. } | Change::Replace { before, .. } | Change::Delete { before } => before,
        Change::Noop
        | Change::Insert { .. }
        | Change::Create { .. }
        | Change::Drop
        | Change::Rename { .. }
        | Change::DropDatabase
        | Change::CreateIndexes { .. }
        | Change::DropIndexes { .. }
        | Change::Modify { .. }
        | Change::Shard { .. } => return Ok(None),
    };
    match options.before_change {
        Image::Default | Image::UpdateLookup => Ok(None),
        mode @ (Image::WhenAvailable | Image::Required | Image::Kept) => {
            image(stored.has_images_of(entry, op), before, mode, "pre-image")
        }
    }
}

/// A stored image, if it was kept.
fn image(
    kept: bool,
    document: &Arc<Document>,
    mode: Image,
    what: &str,
) -> Result<Option<Bson>, CommandError> {
    match (kept, mode) {
        (true, _) | (false, Image::Kept) => Ok(Some(Bson::Document(document.as_ref().clone()))),
        (false, Image::Required) => Err(CommandError::new(
            47,
            format!(
                "Change stream was configured to require a {what} for all update, delete and replace events, but \
                 the {what} was not found for event with document key {}",
                crate::query::show::spaced(&keys::document_key(document, None))
            ),
        )),
        (false, Image::Default | Image::UpdateLookup | Image::WhenAvailable) => Ok(Some(Bson::Null)),
    }
}

fn binary(uuid: [u8; 16]) -> Binary {
    Binary {
        subtype: BinarySubtype::Uuid,
        bytes: uuid.to_vec(),
    }
}
