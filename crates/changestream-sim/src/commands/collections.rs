//! Collections, databases and indexes.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};

use super::writer::{create_if_missing, op};
use super::{Answer, Context, Result, documents, read, sessions};
use crate::catalog::Collection;
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::failpoints::number;
use crate::oplog::{Change, Op};
use crate::query::filter::Filter;
use crate::reply::{Reply, raw};
use crate::transactions;

pub(super) fn create(d: &mut Deployment, context: &Context<'_>) -> Result {
    let coll = documents::collection(context)?;
    if collection(d, context, coll).is_ok() {
        let ns = format!("{}.{coll}", context.db());
        return Err(CommandError::namespace_exists(format!(
            "Collection already exists. NS: {ns}"
        )));
    }
    let mut options = options_of(context.body());
    check_images(d, &options)?;
    normalize_capped(&mut options);
    let uuid = sessions::uuid(d);
    write(
        d,
        context,
        op(context, coll, uuid, Change::Create { options }),
        &Document::new(),
    )
}

pub(super) fn drop(d: &mut Deployment, context: &Context<'_>) -> Result {
    let coll = documents::collection(context)?;
    let found =
        collection(d, context, coll).map_err(|_| CommandError::namespace_not_found("ns not found"))?;
    let (uuid, indexes) = (found.uuid, found.indexes.len());
    let fields = doc! {
        "nIndexesWas": i32::try_from(indexes).unwrap_or(i32::MAX),
        "ns": format!("{}.{coll}", context.db()),
    };
    write(d, context, op(context, coll, uuid, Change::Drop), &fields)
}

pub(super) fn drop_database(d: &mut Deployment, context: &Context<'_>) -> Result {
    let collections: Vec<(String, [u8; 16])> = d
        .view(context)
        .map(|c| {
            c.database(context.db())
                .map(|(name, c)| (name.to_owned(), c.uuid))
                .collect()
        })
        .unwrap_or_default();
    if collections.is_empty() {
        return Ok(Answer::Reply(Reply::ok()));
    }
    for (coll, uuid) in collections {
        d.write(context, vec![op(context, &coll, uuid, Change::Drop)], None)?;
    }
    let db = context.db().to_owned();
    let change = Op::new(&db, "", None, Change::DropDatabase);
    write(d, context, change, &doc! { "dropped": context.db() })
}

pub(super) fn rename(d: &mut Deployment, context: &Context<'_>) -> Result {
    if context.db() != "admin" {
        return Err(CommandError::unauthorized(
            "renameCollection may only be run against the admin database.",
        ));
    }
    let body = context.body();
    let split = |field: &str| {
        let name = body.get_str(field).unwrap_or("");
        name.split_once('.')
            .filter(|(_, c)| !c.is_empty())
            .map(|(d, c)| (d.to_owned(), c.to_owned()))
            .ok_or_else(|| CommandError::invalid_namespace(format!("Invalid namespace specified '{name}'")))
    };
    let ((db, coll), (to_db, to_coll)) = (split("renameCollection")?, split("to")?);
    let catalog = d.view_of(context, &db);
    let uuid = catalog
        .and_then(|c| c.collection(&db, &coll))
        .map(|c| c.uuid)
        .ok_or_else(|| {
            CommandError::namespace_not_found(format!("Source collection {db}.{coll} does not exist"))
        })?;
    if (&db, &coll) == (&to_db, &to_coll) {
        return Err(CommandError::illegal_operation(
            "Can't rename a collection to itself",
        ));
    }
    let dropped = catalog
        .and_then(|c| c.collection(&to_db, &to_coll))
        .map(|c| c.uuid);
    if dropped.is_some() && !documents::flag(body, "dropTarget") {
        return Err(CommandError::namespace_exists("target namespace exists"));
    }
    let change = Change::Rename {
        to_db,
        to_coll,
        dropped,
    };
    write(
        d,
        context,
        Op::new(&db, &coll, Some(uuid), change),
        &Document::new(),
    )
}

pub(super) fn coll_mod(d: &mut Deployment, context: &Context<'_>) -> Result {
    let coll = documents::collection(context)?;
    let found =
        collection(d, context, coll).map_err(|_| CommandError::namespace_not_found("ns does not exist"))?;
    let (uuid, before) = (found.uuid, found.options.clone());
    let options = options_of(context.body());
    check_images(d, &options)?;
    write(
        d,
        context,
        op(context, coll, uuid, Change::Modify { options, before }),
        &Document::new(),
    )
}

pub(super) fn create_indexes(d: &mut Deployment, context: &Context<'_>) -> Result {
    let coll = documents::collection(context)?;
    let wanted = documents::documents(context.body(), "indexes")?;
    if wanted.is_empty() {
        return Err(CommandError::bad_value(
            "Must specify at least one index to create",
        ));
    }
    let before_it = d.members.get(context.member).map(|m| &m.catalog);
    if transactions::is_member(context)
        && before_it.is_some_and(|catalog| catalog.collection(context.db(), coll).is_some())
    {
        return Err(CommandError::new(
            263,
            format!(
                "Cannot create new indexes on existing collection {}.{coll} in a multi-document transaction.",
                context.db()
            ),
        ));
    }
    let created = collection(d, context, coll).is_err();
    create_if_missing(d, context, coll)?;
    let found = collection(d, context, coll)?;
    let (uuid, before) = (found.uuid, found.indexes.len());
    let mut new = Vec::new();
    for index in wanted {
        let (Ok(_), Ok(name)) = (
            index.get_document("key"),
            index.get_str("name").map(str::to_owned),
        ) else {
            return Err(CommandError::failed_to_parse(
                "an index needs the fields 'key' and 'name'",
            ));
        };
        match found.indexes.iter().find(|i| i.get("name") == index.get("name")) {
            Some(same) if same.get("key") == index.get("key") => {}
            Some(_) => {
                return Err(CommandError::new(
                    86,
                    format!("An existing index has the same name as the requested index: {name}"),
                ));
            }
            None => {
                new.push(stored_index(index));
            }
        }
    }
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let mut fields = doc! {
        "createdCollectionAutomatically": created,
        "numIndexesBefore": count(before),
        "numIndexesAfter": count(before + new.len()),
    };
    if new.is_empty() {
        fields.insert("note", "all indexes already exist");
        return Ok(Answer::Reply(Reply::fields(&fields)));
    }
    write(
        d,
        context,
        op(context, coll, uuid, Change::CreateIndexes { indexes: new }),
        &fields,
    )
}

/// As the catalogue and the log have it.
fn stored_index(mut given: Document) -> Document {
    let mut stored = doc! { "v": 2 };
    given.remove("v");
    if documents::flag(&given, "unique") {
        stored.insert("unique", true);
    }
    given.remove("unique");
    for field in ["key", "name"] {
        if let Some(value) = given.remove(field) {
            stored.insert(field, value);
        }
    }
    stored.extend(given);
    stored
}

pub(super) fn drop_indexes(d: &mut Deployment, context: &Context<'_>) -> Result {
    let coll = documents::collection(context)?;
    let found =
        collection(d, context, coll).map_err(|_| CommandError::namespace_not_found("ns not found"))?;
    let (uuid, before) = (found.uuid, found.indexes.len());
    let droppable = || {
        found
            .indexes
            .iter()
            .filter(|i| !i.get_str("name").is_ok_and(|n| n == "_id_"))
    };
    let indexes: Vec<Document> = match context.body().get("index") {
        Some(Bson::String(all)) if all == "*" => droppable().cloned().collect(),
        Some(Bson::String(name)) => droppable()
            .filter(|i| i.get_str("name").is_ok_and(|n| n == name))
            .cloned()
            .collect(),
        Some(key @ Bson::Document(_)) => droppable()
            .filter(|i| i.get("key") == Some(key))
            .cloned()
            .collect(),
        _ => {
            return Err(CommandError::type_mismatch(
                "the field 'index' must be a name or a key",
            ));
        }
    };
    let all = context.body().get_str("index").is_ok_and(|name| name == "*");
    if indexes.is_empty() && !all {
        return Err(CommandError::index_not_found("index not found"));
    }
    let fields = doc! { "nIndexesWas": i32::try_from(before).unwrap_or(i32::MAX) };
    write(
        d,
        context,
        op(context, coll, uuid, Change::DropIndexes { indexes }),
        &fields,
    )
}

pub(super) fn list_indexes(d: &mut Deployment, context: &Context<'_>) -> Result {
    let coll = documents::collection(context)?;
    let indexes = collection(d, context, coll)?.indexes.iter().map(raw).collect();
    let size = cursor_size(context)?;
    let namespace = format!("{}.{coll}", context.db());
    Ok(Answer::Reply(read::first_batch(
        d, context, indexes, size, false, &namespace,
    )))
}

pub(super) fn list_collections(d: &mut Deployment, context: &Context<'_>) -> Result {
    let body = context.body();
    let filter = Filter::parse(&documents::document(body, "filter")?)?;
    let name_only = documents::flag(body, "nameOnly");
    let found = d.view(context).map(|catalog| {
        catalog
            .database(context.db())
            .map(|(name, c)| describe(name, c, name_only))
            .filter(|description| filter.matches(description))
            .map(|description| raw(&description))
            .collect()
    });
    let size = cursor_size(context)?;
    let namespace = format!("{}.$cmd.listCollections", context.db());
    Ok(Answer::Reply(read::first_batch(
        d,
        context,
        found.unwrap_or_default(),
        size,
        false,
        &namespace,
    )))
}

pub(super) fn list_databases(d: &mut Deployment, context: &Context<'_>) -> Result {
    if context.db() != "admin" {
        return Err(CommandError::unauthorized(
            "listDatabases may only be run against the admin database.",
        ));
    }
    let body = context.body();
    let filter = Filter::parse(&documents::document(body, "filter")?)?;
    let name_only = documents::flag(body, "nameOnly");
    let names = d.databases(context);
    let databases: Vec<Document> = names
        .into_iter()
        .map(|name| {
            if name_only {
                doc! { "name": name }
            } else {
                doc! { "name": name, "sizeOnDisk": 8192.0, "empty": false }
            }
        })
        .filter(|description| filter.matches(description))
        .collect();
    let mut fields = doc! {};
    let size = 8192.0 * f64::from(u32::try_from(databases.len()).unwrap_or(u32::MAX));
    fields.insert("databases", databases);
    if !name_only {
        fields.insert("totalSize", size);
    }
    Ok(Answer::Reply(Reply::fields(&fields)))
}

fn describe(name: &str, collection: &Collection, name_only: bool) -> Document {
    let mut description = doc! { "name": name, "type": "collection" };
    if !name_only {
        let uuid = Binary {
            subtype: BinarySubtype::Uuid,
            bytes: collection.uuid.to_vec(),
        };
        description.insert("options", collection.options.clone());
        description.insert("info", doc! { "readOnly": false, "uuid": uuid });
        description.insert("idIndex", doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" });
    }
    description
}

/// The arguments that are the collection's own, rather than every command's.
fn options_of(body: &Document) -> Document {
    const GENERIC: [&str; 10] = [
        "lsid",
        "txnNumber",
        "autocommit",
        "startTransaction",
        "writeConcern",
        "readConcern",
        "maxTimeMS",
        "comment",
        "apiVersion",
        "stmtId",
    ];
    body.iter()
        .skip(1)
        .filter(|(key, _)| !key.starts_with('$') && !GENERIC.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Sizes are whole numbers; that in bytes is a multiple of 256.
fn normalize_capped(options: &mut Document) {
    for (field, unit) in [("size", 256), ("max", 1)] {
        if let Some(given) = options.get(field).and_then(number) {
            let whole = given.max(0).saturating_add(unit - 1) / unit;
            options.insert(field, whole * unit);
        }
    }
}

fn check_images(d: &Deployment, options: &Document) -> Result<()> {
    if options.contains_key("changeStreamPreAndPostImages") && !d.profile.images {
        return Err(CommandError::new(
            40415,
            "BSON field 'create.changeStreamPreAndPostImages' is an unknown field.",
        ));
    }
    Ok(())
}

fn collection<'a>(d: &'a Deployment, context: &Context<'_>, coll: &str) -> Result<&'a Collection> {
    d.view(context)
        .and_then(|c| c.collection(context.db(), coll))
        .ok_or_else(|| {
            CommandError::namespace_not_found(format!("ns does not exist: {}.{coll}", context.db()))
        })
}

fn write(d: &mut Deployment, context: &Context<'_>, op: Op, fields: &Document) -> Result {
    let optime = d.write(context, vec![op], None)?;
    Ok(Answer::Written(Reply::fields(fields), optime))
}

fn cursor_size(context: &Context<'_>) -> Result<Option<u64>> {
    documents::count(&documents::document(context.body(), "cursor")?, "batchSize")
}
