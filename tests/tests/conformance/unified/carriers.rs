//! Operations that a change-stream client has no methods for: the commands that carry them, and what their replies say.

use bson::{Bson, Document, doc};
use serde_json::Value;

use super::entities::{CollectionEntity, DatabaseEntity, EntityMap};
use super::fault::{Fault, UNKNOWN, failed, unsupported};
use super::matcher::to_bson;
use super::rig::ClientCommand;
use super::schema::{Inherited, Operation};
use super::shape::{Batches, Shape, whole};
use super::watching::{document, milliseconds, read_preference, text};

/// A command in an operation's place.
#[derive(Clone, Debug)]
pub(super) struct Carrier {
    pub(super) command: ClientCommand,
    pub(super) result: Shape,
}

/// The carrier of an operation on a database; none if it is not carried by a command.
pub(super) fn on_database(
    operation: &Operation,
    database: &DatabaseEntity,
    entities: &EntityMap,
) -> Result<Option<Carrier>, Fault> {
    let mut arguments = Arguments::new(operation);
    let (command, result) = match operation.name.as_str() {
        "runCommand" => {
            arguments.take("commandName")?;
            (document(&arguments.needed("command")?)?, Shape::Reply)
        }
        "createCollection" => {
            let mut command = doc! { "create": text(&arguments.needed("collection")?)? };
            arguments.add(&mut command, CREATE_OPTIONS)?;
            (command, Shape::Nothing)
        }
        "modifyCollection" => {
            let mut command = doc! { "collMod": text(&arguments.needed("collection")?)? };
            arguments.add(&mut command, CREATE_OPTIONS)?;
            (command, Shape::Nothing)
        }
        "dropCollection" => (
            doc! { "drop": text(&arguments.needed("collection")?)? },
            Shape::Dropped,
        ),
        "aggregate" => aggregate(&mut arguments, Bson::Int32(1))?,
        "dropDatabase" => (doc! { "dropDatabase": 1 }, Shape::Nothing),
        "listCollections" | "listCollectionNames" | "listCollectionObjects" => {
            let mut command = doc! { "listCollections": 1 };
            arguments.add(&mut command, &["filter"])?;
            let batch = cursor(&mut arguments, &mut command)?;
            (command, batch)
        }
        _ => return Ok(None),
    };
    let is_read = matches!(
        operation.name.as_str(),
        "aggregate" | "listCollections" | "listCollectionNames" | "listCollectionObjects"
    ) && !writes_its_result(&command);
    let mut carrier = arguments.finish(command, result, &database.name, is_read, entities)?;
    inherit_timeout(&mut carrier, &database.options)?;
    Ok(Some(carrier))
}

fn inherit_timeout(carrier: &mut Carrier, inherited: &Inherited) -> Result<(), Fault> {
    if carrier.command.timeout.is_none()
        && let Some(timeout) = &inherited.timeout_ms
    {
        carrier.command.timeout = Some(milliseconds(timeout)?);
    }
    Ok(())
}

/// The carrier of an operation on a client.
pub(super) fn on_client(operation: &Operation, entities: &EntityMap) -> Result<Option<Carrier>, Fault> {
    let mut arguments = Arguments::new(operation);
    if operation.name == "dropDatabase" {
        let database = arguments.needed("database")?;
        let command = doc! { "dropDatabase": 1 };
        let carrier = arguments.finish(command, Shape::Nothing, text(&database)?, false, entities);
        return carrier.map(Some);
    }
    let is_known =
        ["listDatabases", "listDatabaseNames", "listDatabaseObjects"].contains(&operation.name.as_str());
    if !is_known {
        return Ok(None);
    }
    let mut command = doc! { "listDatabases": 1 };
    arguments.add(&mut command, &["filter", "nameOnly", "authorizedDatabases"])?;
    if operation.name == "listDatabaseNames" {
        command.insert("nameOnly", true);
    }
    arguments
        .finish(command, Shape::Reply, "admin", true, entities)
        .map(Some)
}

/// The carrier of an operation on a collection.
pub(super) fn on_collection(
    operation: &Operation,
    collection: &CollectionEntity,
    entities: &EntityMap,
) -> Result<Option<Carrier>, Fault> {
    let name = collection.name.as_str();
    let namespace = format!("{}.{name}", collection.database.name);
    let mut arguments = Arguments::new(operation);
    let mut database = collection.database.name.as_str();
    let (command, result) = match operation.name.as_str() {
        "insertOne" => insert(&mut arguments, name, true)?,
        "insertMany" => insert(&mut arguments, name, false)?,
        "updateOne" => update(&mut arguments, name, "update", false)?,
        "updateMany" => update(&mut arguments, name, "update", true)?,
        "replaceOne" => update(&mut arguments, name, "replacement", false)?,
        "deleteOne" => delete(&mut arguments, name, 1)?,
        "deleteMany" => delete(&mut arguments, name, 0)?,
        "find" => find(&mut arguments, name)?,
        "findOne" => {
            let (mut command, _) = find(&mut arguments, name)?;
            command.extend(doc! { "limit": 1, "singleBatch": true });
            (command, Shape::First)
        }
        "findOneAndDelete" | "findOneAndReplace" | "findOneAndUpdate" => modify(&mut arguments, name)?,
        "count" => {
            let mut command = doc! { "count": name };
            if let Some(filter) = arguments.take("filter")? {
                command.insert("query", document(&filter)?);
            }
            arguments.add(&mut command, &["limit", "skip", "hint", "collation"])?;
            (command, Shape::CountIn("n"))
        }
        "aggregate" => aggregate(&mut arguments, Bson::from(name))?,
        "countDocuments" => count_documents(&mut arguments, name)?,
        "estimatedDocumentCount" => (doc! { "count": name }, Shape::CountIn("n")),
        "distinct" => {
            let key = text(&arguments.needed("fieldName")?)?.to_owned();
            let mut command = doc! { "distinct": name, "key": key };
            if let Some(filter) = arguments.take("filter")? {
                command.insert("query", document(&filter)?);
            }
            (command, Shape::Values)
        }
        "createIndex" => create_index(&mut arguments, name)?,
        "dropIndex" => (
            doc! { "dropIndexes": name, "index": text(&arguments.needed("name")?)? },
            Shape::Nothing,
        ),
        "dropIndexes" => (doc! { "dropIndexes": name, "index": "*" }, Shape::Nothing),
        "listIndexes" | "listIndexNames" => {
            let mut command = doc! { "listIndexes": name };
            let batch = cursor(&mut arguments, &mut command)?;
            (command, batch)
        }
        "drop" => (doc! { "drop": name }, Shape::Dropped),
        "rename" => {
            let to = format!("{}.{}", collection.database.name, text(&arguments.needed("to")?)?);
            let mut command = doc! { "renameCollection": namespace, "to": to };
            arguments.add(&mut command, &["dropTarget"])?;
            database = "admin";
            (command, Shape::Nothing)
        }
        _ => return Ok(None),
    };
    let is_read = READS.contains(&operation.name.as_str()) && !writes_its_result(&command);
    let mut carrier = arguments.finish(command, result, database, is_read, entities)?;
    inherit_timeout(&mut carrier, &collection.options)?;
    if !is_read {
        let own = collection
            .options
            .write_concern
            .as_ref()
            .map(document)
            .transpose()?;
        let of_client = &entities.client(&collection.database.client)?.write_concern;
        let mut concern = own.unwrap_or_else(|| of_client.clone());
        // "Drivers MUST ignore any deprecated timeout options if `timeoutMS` is set" (Client Side Operations Timeout
        // specification, "Validation and Overrides").
        let client = entities.client(&collection.database.client)?;
        if carrier.command.timeout.is_some() || client.uri_options.contains_key("timeoutMS") {
            concern.remove("wtimeout");
        }
        if concern.get("w").and_then(whole) == Some(0) {
            return Err(unsupported("commands that carry writes are acknowledged"));
        }
        if !concern.is_empty() {
            carrier.command.command.insert("writeConcern", concern);
        }
    }
    if let Some(concern) = &collection.options.read_concern
        && is_read
    {
        carrier.command.command.insert("readConcern", document(concern)?);
    }
    if carrier.command.read_preference.is_none()
        && let Some(preference) = &collection.options.read_preference
        && is_read
    {
        carrier.command.read_preference = Some(read_preference(preference)?);
    }
    Ok(Some(carrier))
}

/// Whether it is an aggregate that ends in a collection, which is no read that may be retried.
fn writes_its_result(command: &Document) -> bool {
    let stages = command
        .get_array("pipeline")
        .map(Vec::as_slice)
        .unwrap_or_default();
    let last = stages.last().and_then(Bson::as_document);
    last.is_some_and(|stage| stage.contains_key("$out") || stage.contains_key("$merge"))
}

type Parts = Result<(Document, Shape), Fault>;

fn insert(arguments: &mut Arguments<'_>, name: &str, one: bool) -> Parts {
    let documents = if one {
        vec![arguments.needed("document")?]
    } else {
        let documents = arguments.needed("documents")?;
        documents.as_array().cloned().unwrap_or_default()
    };
    let mut ids = Document::new();
    let mut filled = Vec::new();
    for (index, value) in documents.iter().enumerate() {
        let mut with_id = Document::new();
        let given = document(value)?;
        let id = given
            .get("_id")
            .cloned()
            .unwrap_or_else(|| bson::oid::ObjectId::new().into());
        with_id.insert("_id", id.clone());
        with_id.extend(given);
        ids.insert(index.to_string(), id);
        filled.push(with_id);
    }
    let result = match (one, ids.get("0")) {
        (true, Some(id)) => doc! { "insertedId": id.clone() },
        _ => doc! { "insertedIds": ids, "insertedCount": i32::try_from(filled.len()).unwrap_or(i32::MAX) },
    };
    let mut command = doc! { "insert": name, "documents": filled };
    command.insert("ordered", true);
    arguments.add(&mut command, &["ordered", "bypassDocumentValidation"])?;
    Ok((command, Shape::Inserted(result)))
}

fn update(arguments: &mut Arguments<'_>, name: &str, argument: &str, multi: bool) -> Parts {
    let filter = document(&arguments.needed("filter")?)?;
    let change = to_bson(&arguments.needed(argument)?).map_err(failed)?;
    let mut statement = doc! { "q": filter, "u": change };
    if multi {
        statement.insert("multi", true);
    }
    arguments.add(&mut statement, &["upsert", "arrayFilters", "hint", "collation"])?;
    let mut command = doc! { "update": name, "updates": [statement], "ordered": true };
    arguments.add(&mut command, &["bypassDocumentValidation", "let"])?;
    Ok((command, Shape::Updated))
}

fn delete(arguments: &mut Arguments<'_>, name: &str, limit: i32) -> Parts {
    let filter = document(&arguments.needed("filter")?)?;
    let mut statement = doc! { "q": filter, "limit": limit };
    arguments.add(&mut statement, &["hint", "collation"])?;
    let mut command = doc! { "delete": name, "deletes": [statement], "ordered": true };
    arguments.add(&mut command, &["let"])?;
    Ok((command, Shape::Deleted))
}

fn find(arguments: &mut Arguments<'_>, name: &str) -> Parts {
    let mut command = doc! { "find": name, "filter": document(&arguments.needed("filter")?)? };
    let size = arguments.bson("batchSize")?;
    if let Some(size) = &size {
        command.insert("batchSize", size.clone());
    }
    arguments.add(&mut command, FIND_OPTIONS)?;
    let limit = command.get("limit").and_then(whole).filter(|limit| *limit > 0);
    Ok((command, Shape::Cursor(Batches { size, limit })))
}

fn aggregate(arguments: &mut Arguments<'_>, target: Bson) -> Parts {
    let pipeline = to_bson(&arguments.needed("pipeline")?).map_err(failed)?;
    let mut command = doc! { "aggregate": target, "pipeline": pipeline };
    let batch = cursor(arguments, &mut command)?;
    arguments.add(
        &mut command,
        &[
            "allowDiskUse",
            "collation",
            "hint",
            "let",
            "bypassDocumentValidation",
        ],
    )?;
    Ok((command, batch))
}

fn count_documents(arguments: &mut Arguments<'_>, name: &str) -> Parts {
    let mut pipeline = vec![doc! { "$match": document(&arguments.needed("filter")?)? }];
    for (argument, stage) in [("skip", "$skip"), ("limit", "$limit")] {
        if let Some(value) = arguments.bson(argument)? {
            pipeline.push(doc! { stage: value });
        }
    }
    pipeline.push(doc! { "$group": { "_id": 1, "n": { "$sum": 1 } } });
    let mut command = doc! { "aggregate": name, "pipeline": pipeline, "cursor": {} };
    arguments.add(&mut command, &["collation", "hint"])?;
    Ok((command, Shape::CountIn("cursor.firstBatch.0.n")))
}

fn modify(arguments: &mut Arguments<'_>, name: &str) -> Parts {
    let mut command = doc! { "findAndModify": name, "query": document(&arguments.needed("filter")?)? };
    match arguments.operation.name.as_str() {
        "findOneAndDelete" => drop(command.insert("remove", true)),
        operation => {
            let argument = if operation == "findOneAndUpdate" {
                "update"
            } else {
                "replacement"
            };
            let change = to_bson(&arguments.needed(argument)?).map_err(failed)?;
            command.insert("update", change);
            match arguments.take("returnDocument")?.as_ref().map(Value::as_str) {
                None | Some(Some("Before")) => {}
                Some(Some("After")) => drop(command.insert("new", true)),
                Some(other) => return Err(failed(format!("returnDocument is not {other:?}"))),
            }
        }
    }
    if let Some(projection) = arguments.bson("projection")? {
        command.insert("fields", projection);
    }
    arguments.add(&mut command, MODIFY_OPTIONS)?;
    Ok((command, Shape::Value))
}

fn create_index(arguments: &mut Arguments<'_>, name: &str) -> Parts {
    let keys = document(&arguments.needed("keys")?)?;
    let default: Vec<String> = keys
        .iter()
        .map(|(key, order)| {
            format!(
                "{key}_{}",
                order.as_str().map_or_else(|| order.to_string(), str::to_owned)
            )
        })
        .collect();
    let index_name = arguments
        .bson("name")?
        .unwrap_or_else(|| default.join("_").into());
    let mut index = doc! { "key": keys, "name": index_name };
    arguments.add(&mut index, &["unique", "sparse", "expireAfterSeconds", "hidden"])?;
    Ok((doc! { "createIndexes": name, "indexes": [index] }, Shape::Nothing))
}

fn cursor(arguments: &mut Arguments<'_>, command: &mut Document) -> Result<Shape, Fault> {
    let size = arguments.bson("batchSize")?;
    let mut cursor = Document::new();
    if let Some(size) = &size {
        cursor.insert("batchSize", size.clone());
    }
    command.insert("cursor", cursor);
    Ok(Shape::Cursor(Batches { size, limit: None }))
}

/// An operation's arguments, each of which has to be used.
struct Arguments<'a> {
    operation: &'a Operation,
    left: serde_json::Map<String, Value>,
}

impl<'a> Arguments<'a> {
    fn new(operation: &'a Operation) -> Self {
        Self {
            operation,
            left: operation.arguments.clone(),
        }
    }

    fn take(&mut self, name: &str) -> Result<Option<Value>, Fault> {
        Ok(self.left.remove(name))
    }

    fn needed(&mut self, name: &str) -> Result<Value, Fault> {
        self.left
            .remove(name)
            .ok_or_else(|| failed(format!("{} needs {name}", self.operation.name)))
    }

    fn bson(&mut self, name: &str) -> Result<Option<Bson>, Fault> {
        let value = self.left.remove(name);
        value.map(|value| to_bson(&value).map_err(failed)).transpose()
    }

    /// Moves these arguments into the command, as they are.
    fn add(&mut self, command: &mut Document, names: &[&str]) -> Result<(), Fault> {
        for name in names {
            if let Some(value) = self.bson(name)? {
                command.insert(*name, value);
            }
        }
        Ok(())
    }

    /// The carrier, with the arguments that every operation has.
    fn finish(
        mut self,
        mut command: Document,
        result: Shape,
        database: &str,
        is_retryable_read: bool,
        entities: &EntityMap,
    ) -> Result<Carrier, Fault> {
        self.add(&mut command, &["comment", "maxTimeMS"])?;
        let session = match self.take("session")? {
            Some(name) => Some(entities.session(text(&name)?)?.session.clone()),
            None => None,
        };
        let preference = self.take("readPreference")?;
        let timeout = self.take("timeoutMS")?;
        if let Some(name) = self.left.keys().next() {
            return Err(if KNOWN_ARGUMENTS.contains(&name.as_str()) {
                unsupported(format!(
                    "the argument {name} of {} is not carried",
                    self.operation.name
                ))
            } else {
                unsupported(format!(
                    "{UNKNOWN} the argument {name} of {}",
                    self.operation.name
                ))
            });
        }
        Ok(Carrier {
            command: ClientCommand {
                database: database.to_owned(),
                command,
                read_preference: preference.as_ref().map(read_preference).transpose()?,
                session,
                is_retryable_read,
                timeout: timeout.as_ref().map(milliseconds).transpose()?,
            },
            result,
        })
    }
}

const READS: [&str; 9] = [
    "find",
    "findOne",
    "aggregate",
    "count",
    "countDocuments",
    "estimatedDocumentCount",
    "distinct",
    "listIndexes",
    "listIndexNames",
];

const CREATE_OPTIONS: &[&str] = &[
    "viewOn",
    "pipeline",
    "capped",
    "size",
    "max",
    "collation",
    "validator",
    "validationLevel",
    "validationAction",
    "timeseries",
    "expireAfterSeconds",
    "clusteredIndex",
    "changeStreamPreAndPostImages",
    "index",
];

const MODIFY_OPTIONS: &[&str] = &[
    "sort",
    "upsert",
    "arrayFilters",
    "bypassDocumentValidation",
    "collation",
    "hint",
    "let",
];

const FIND_OPTIONS: &[&str] = &[
    "sort",
    "limit",
    "skip",
    "projection",
    "hint",
    "collation",
    "allowDiskUse",
    "allowPartialResults",
    "max",
    "min",
    "returnKey",
    "showRecordId",
    "noCursorTimeout",
    "let",
    "tailable",
    "awaitData",
    "maxAwaitTimeMS",
];

/// Arguments that operations have, of a kind that no command of ours carries.
const KNOWN_ARGUMENTS: [&str; 5] = [
    "cursorType",
    "timeoutMode",
    "cursorTimeout",
    "maxCommitTimeMS",
    "writeConcern",
];
