//! What administers a sharded cluster.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};

use super::{Answer, Context, Result, documents, sessions};
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::failpoints::number;
use crate::oplog::{Change, Op};
use crate::reply::Reply;
use crate::sharding::check_key;

pub(super) fn enable_sharding(d: &mut Deployment, context: &Context<'_>) -> Result {
    through_mongos(d, context)?;
    let db = text(context, "enableSharding")?;
    if matches!(db, "admin" | "local") || db.is_empty() {
        return Err(CommandError::invalid_options(format!(
            "Enabling sharding on the {db} database is not allowed"
        )));
    }
    d.enable_sharding(db);
    Ok(Answer::Reply(Reply::ok()))
}

pub(super) fn shard_collection(d: &mut Deployment, context: &Context<'_>) -> Result {
    through_mongos(d, context)?;
    let (db, coll) = namespace(context, "shardCollection")?;
    let key = documents::document(context.body(), "key")?;
    check_key(&key)?;
    if !d.sharding_enabled(db) {
        return Err(CommandError::illegal_operation(format!(
            "sharding not enabled for db {db}"
        )));
    }
    if let Some(known) = d.shard_key(db, coll) {
        if *known == key {
            return sharded(d, context, db, coll);
        }
        return Err(CommandError::new(
            23,
            format!("sharding already enabled for collection {db}.{coll}"),
        ));
    }
    let found = |d: &Deployment| {
        d.view_of(context, db)
            .and_then(|c| c.collection(db, coll))
            .map(|c| {
                (
                    c.uuid,
                    c.documents().next().is_none(),
                    has_index(&c.indexes, &key),
                )
            })
    };
    if found(d).is_none() {
        let (uuid, options) = (sessions::uuid(d), Document::new());
        let create = Op::new(db, coll, Some(uuid), Change::Create { options });
        d.write(context, vec![create], None)?;
    }
    let Some((uuid, empty, indexed)) = found(d) else {
        return Err(CommandError::namespace_not_found("the collection is gone"));
    };
    if !indexed && !empty {
        return Err(CommandError::invalid_options(
            "Please create an index that starts with the proposed shard key before sharding the collection",
        ));
    }
    if !indexed {
        let indexes = vec![doc! { "v": 2, "key": key.clone(), "name": index_name(&key) }];
        let create = Op::new(db, coll, Some(uuid), Change::CreateIndexes { indexes });
        d.write(context, vec![create], None)?;
    }
    d.shard_collection(context, db, coll, &key, empty)?;
    let description = doc! {
        "shardKey": key,
        "unique": documents::flag(context.body(), "unique"),
        "numInitialChunks": context.body().get("numInitialChunks").and_then(number).unwrap_or(0),
        "presplitHashedZones": documents::flag(context.body(), "presplitHashedZones"),
    };
    d.write(
        context,
        vec![Op::new(db, coll, Some(uuid), Change::Shard { description })],
        None,
    )?;
    sharded(d, context, db, coll)
}

pub(super) fn split(d: &mut Deployment, context: &Context<'_>) -> Result {
    through_mongos(d, context)?;
    let (db, coll) = namespace(context, "split")?;
    let middle = documents::document(context.body(), "middle")?;
    d.split_chunk(db, coll, &middle)?;
    Ok(Answer::Reply(Reply::ok()))
}

pub(super) fn move_chunk(d: &mut Deployment, context: &Context<'_>) -> Result {
    through_mongos(d, context)?;
    let name = namespace(context, "moveChunk")?;
    let find = documents::document(context.body(), "find")?;
    d.move_chunk(context, name, &find, text(context, "to")?)?;
    Ok(Answer::Reply(Reply::ok()))
}

pub(super) fn list_shards(d: &mut Deployment, context: &Context<'_>) -> Result {
    through_mongos(d, context)?;
    let shards: Vec<Bson> = d
        .shard_names()
        .into_iter()
        .map(|(name, host)| doc! { "_id": name, "host": host, "state": 1 }.into())
        .collect();
    Ok(Answer::Reply(Reply::fields(&doc! { "shards": shards })))
}

fn sharded(d: &Deployment, context: &Context<'_>, db: &str, coll: &str) -> Result {
    let mut fields = doc! { "collectionsharded": format!("{db}.{coll}") };
    if let Some(collection) = d.view_of(context, db).and_then(|c| c.collection(db, coll)) {
        let uuid = Binary {
            subtype: BinarySubtype::Uuid,
            bytes: collection.uuid.to_vec(),
        };
        fields.insert("collectionUUID", uuid);
    }
    Ok(Answer::Reply(Reply::fields(&fields)))
}

fn through_mongos(d: &Deployment, context: &Context<'_>) -> Result<()> {
    if d.cluster.is_some() {
        return Ok(());
    }
    let name = context.request.name();
    Err(CommandError::command_not_found(format!(
        "no such command: '{name}'"
    )))
}

fn text<'a>(context: &Context<'a>, field: &str) -> Result<&'a str> {
    let text = context.body().get_str(field);
    text.map_err(|_| CommandError::type_mismatch(format!("the field '{field}' must be a string")))
}

fn namespace<'a>(context: &Context<'a>, field: &str) -> Result<(&'a str, &'a str)> {
    let name = text(context, field)?;
    name.split_once('.')
        .filter(|(db, coll)| !db.is_empty() && !coll.is_empty())
        .ok_or_else(|| CommandError::invalid_namespace(format!("Invalid namespace specified '{name}'")))
}

/// Whether one of the indexes begins with the key.
fn has_index(indexes: &[Document], key: &Document) -> bool {
    let begins = |index: &Document| {
        let fields = index.get_document("key").map(|k| k.iter());
        fields.is_ok_and(|mut fields| {
            key.iter().all(|(name, kind)| {
                fields
                    .next()
                    .is_some_and(|(n, k)| n == name && crate::query::compare::equal(k, kind))
            })
        })
    };
    indexes.iter().any(begins)
}

fn index_name(key: &Document) -> String {
    let parts: Vec<String> = key
        .iter()
        .map(|(field, kind)| match kind.as_str() {
            Some(kind) => format!("{field}_{kind}"),
            None => format!("{field}_{}", number(kind).unwrap_or(1)),
        })
        .collect();
    parts.join("_")
}
