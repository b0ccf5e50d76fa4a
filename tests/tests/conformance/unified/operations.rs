//! What a test's operations do.

use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use changestream_core::{Error, Scope};

use super::carriers::{self, Carrier};
use super::entities::{CollectionEntity, Entity, EntityMap};
use super::environment::Users;
use super::fault::{Fault, UNKNOWN, failed, unsupported};
use super::matcher::{matches_root, to_bson};
use super::rig::{ClientCommand, ClientId, CommandId, Rig, StreamId};
use super::schema::{Inherited, Operation};
use super::shape::{self, Shape};
use super::watching;
use super::{beyond, errors};

/// A test under way.
pub(super) struct Runner<'a> {
    pub(super) rig: &'a mut dyn Rig,
    pub(super) entities: EntityMap,
    /// Streams that the test has not named.
    pub(super) unnamed: Vec<StreamId>,
    /// Whether clients of several mongos are given all of them.
    pub(super) is_sharded: bool,
    /// How clients have to authenticate.
    pub(super) users: Users,
    /// The servers' version.
    pub(super) version: &'static str,
    pub(super) sessions: u8,
    /// Whether a cursor that a command opened was asked for more.
    pub(super) follows_cursors: bool,
    /// Whether commands were under way at the same time.
    pub(super) runs_beside: bool,
    /// Whether a fail point strikes writes that can be retried only.
    pub(super) strikes_retryable: bool,
}

/// What an operation came to.
pub(super) enum Outcome {
    /// The result; none where there is none.
    Done(Option<Bson>),
    /// Something that can only be saved.
    Made(Entity),
    /// The client's error.
    Error(Error),
}

/// A command that is under way on a thread, and the operation that it carries.
#[derive(Debug)]
pub(super) struct Pending {
    id: CommandId,
    client: ClientId,
    carrier: Carrier,
    operation: Operation,
    begun: Instant,
    /// `timeoutMS` for all of it, if it is set.
    limit: Option<Duration>,
}

impl Runner<'_> {
    /// Runs an operation and holds it to what is expected of it.
    pub(super) fn run(&mut self, operation: &Operation) -> Result<(), Fault> {
        let outcome = self.execute(operation)?;
        self.judge(operation, outcome)
    }

    fn judge(&mut self, operation: &Operation, outcome: Outcome) -> Result<(), Fault> {
        if operation.ignore_result_and_error {
            return Ok(());
        }
        if let Some(expected) = &operation.expect_error {
            return match outcome {
                Outcome::Error(error) => {
                    errors::check(expected, &error).map_err(|fault| match is_not_simulated(&error) {
                        true => not_expected(&error),
                        false => fault.beyond(beyond::of_error(operation, &error)),
                    })
                }
                Outcome::Done(_) | Outcome::Made(_) => {
                    let client = self.entities.client_of(&operation.object);
                    let beyond = beyond::of_no_error(operation, client, self.strikes_retryable);
                    Err(failed("expected an error, but there is none").beyond(beyond))
                }
            };
        }
        let result = match outcome {
            Outcome::Error(error) => {
                return Err(not_expected(&error).beyond(beyond::of_error(operation, &error)));
            }
            Outcome::Made(entity) => {
                return match (&operation.save_result_as_entity, entity) {
                    (Some(name), entity) => self.entities.insert(name, entity),
                    (None, Entity::Stream(stream)) => {
                        self.unnamed.push(stream);
                        Ok(())
                    }
                    (None, _) => Ok(()),
                };
            }
            Outcome::Done(result) => result,
        };
        if let Some(expected) = &operation.expect_result {
            let expected = to_bson(expected).map_err(failed)?;
            matches_root(&expected, result.as_ref(), &self.entities)
                .map_err(|reason| failed(format!("the result{reason}")))?;
        }
        match (&operation.save_result_as_entity, result) {
            (Some(name), Some(value)) => self.entities.insert(name, Entity::Value(value)),
            (Some(name), None) => Err(failed(format!("there is no result to be saved as {name}"))),
            (None, _) => Ok(()),
        }
    }

    fn execute(&mut self, operation: &Operation) -> Result<Outcome, Fault> {
        if operation.object == "testRunner" {
            return self.run_special(operation).map(|()| Outcome::Done(None));
        }
        match (self.entities.get(&operation.object)?, operation.name.as_str()) {
            (Entity::Stream(stream), name) => {
                let stream = *stream;
                self.use_stream(stream, name)
            }
            (_, "createChangeStream") => self.watch(operation),
            (Entity::Client(client), "close") => {
                let id = client.id;
                self.publish()?;
                self.rig.close_client(id);
                Ok(Outcome::Done(None))
            }
            (Entity::Client(client), "appendMetadata") => {
                let id = client.id;
                let info = operation.arguments.get("driverInfoOptions");
                let info = watching::driver_info(info.unwrap_or_default())?;
                match self.rig.append_metadata(id, &info) {
                    Ok(()) => Ok(Outcome::Done(None)),
                    Err(error) => Ok(Outcome::Error(error)),
                }
            }
            (Entity::Session(_), "endSession") => Err(unsupported("a client keeps no pool of sessions")),
            _ => {
                let pending = self.start(operation)?;
                let outcome = self.finish(&pending)?;
                Ok(match (outcome, self.created(operation)) {
                    (Outcome::Done(None), Some(collection)) => Outcome::Made(collection),
                    (outcome, _) => outcome,
                })
            }
        }
    }

    /// Runs an operation beside the test, if it is a command; another one is run at once.
    pub(super) fn run_beside(&mut self, thread: &str, operation: &Operation) -> Result<(), Fault> {
        // One after another.
        self.wait_for_thread(thread)?;
        if operation.object == "testRunner" || operation.name == "createChangeStream" {
            return self.run(operation);
        }
        if let Entity::Stream(_) = self.entities.get(&operation.object)? {
            return self.run(operation);
        }
        let pending = self.start(operation)?;
        self.runs_beside |= self.entities.are_threads_busy();
        self.entities.thread_mut(thread)?.running.push(pending);
        Ok(())
    }

    /// Waits for all that runs on a thread.
    pub(super) fn wait_for_thread(&mut self, thread: &str) -> Result<(), Fault> {
        for pending in std::mem::take(&mut self.entities.thread_mut(thread)?.running) {
            let outcome = self.finish(&pending)?;
            self.judge(&pending.operation, outcome)?;
        }
        Ok(())
    }

    /// The collection that an operation creates.
    fn created(&self, operation: &Operation) -> Option<Entity> {
        let name = operation
            .arguments
            .get("collection")
            .and_then(|name| name.as_str());
        let Ok(Entity::Database(database)) = self.entities.get(&operation.object) else {
            return None;
        };
        let collection = CollectionEntity {
            database: (**database).clone(),
            name: name?.to_owned(),
            options: database.options.clone(),
        };
        (operation.name == "createCollection").then(|| Entity::Collection(Box::new(collection)))
    }

    fn start(&mut self, operation: &Operation) -> Result<Pending, Fault> {
        let (client, carrier) = self.carrier(operation)?;
        let of_client = self.entities.client_of(&operation.object);
        let of_client = of_client.and_then(|client| client.uri_options.get("timeoutMS"));
        let of_client = of_client.map(watching::milliseconds).transpose()?;
        Ok(Pending {
            begun: self.rig.now(),
            id: self.rig.start(client, carrier.command.clone()),
            client,
            limit: carrier.command.timeout.or(of_client),
            carrier,
            operation: operation.clone(),
        })
    }

    fn carrier(&self, operation: &Operation) -> Result<(ClientId, Carrier), Fault> {
        let entities = &self.entities;
        let (client, carrier) = match entities.get(&operation.object)? {
            Entity::Client(client) => (client.id, carriers::on_client(operation, entities)?),
            Entity::Database(database) => (
                entities.client(&database.client)?.id,
                carriers::on_database(operation, database, entities)?,
            ),
            Entity::Collection(collection) => (
                entities.client(&collection.database.client)?.id,
                carriers::on_collection(operation, collection, entities)?,
            ),
            Entity::Bucket => return Err(unsupported("GridFS is not built")),
            _ => return Err(no_operation(&operation.name)),
        };
        let carrier = carrier.ok_or_else(|| no_operation(&operation.name))?;
        Ok((client, carrier))
    }

    fn finish(&mut self, pending: &Pending) -> Result<Outcome, Fault> {
        let Pending {
            id,
            client,
            begun,
            limit,
            ref carrier,
            ..
        } = *pending;
        let reply = match self.finish_command(id) {
            Ok(reply) => reply,
            Err(error)
                if matches!(carrier.result, Shape::Dropped) && error.code() == Some(NAMESPACE_NOT_FOUND) =>
            {
                return Ok(Outcome::Done(None));
            }
            Err(error) => return Ok(Outcome::Error(error)),
        };
        let Shape::Cursor(batches) = &carrier.result else {
            return Ok(match carrier.result.read(&reply) {
                Ok(result) => Outcome::Done(result),
                Err(error) => Outcome::Error(error),
            });
        };
        let mut documents = shape::batch(&reply);
        let mut cursor = cursor_of(&reply);
        while let Some(open) = &cursor {
            self.follows_cursors = true;
            let mut command = doc! { "getMore": open.0, "collection": open.1.as_str() };
            if let Some(size) = batches.next_size(documents.len()) {
                command.insert("batchSize", size);
            }
            let Some(timeout) = left(limit, begun, self.rig.now()) else {
                self.kill_cursor(client, carrier, open);
                return Ok(Outcome::Error(Error::timeout(
                    "the cursor was read for too long",
                    None,
                )));
            };
            let command = ClientCommand {
                command,
                is_retryable_read: false,
                timeout,
                ..carrier.command.clone()
            };
            let id = self.rig.start(client, command);
            let reply = match self.finish_command(id) {
                Ok(reply) => reply,
                Err(error) => {
                    self.kill_cursor(client, carrier, open);
                    return Ok(Outcome::Error(error));
                }
            };
            documents.extend(shape::batch(&reply));
            cursor = cursor_of(&reply);
        }
        Ok(Outcome::Done(Some(Bson::Array(documents))))
    }

    /// Kills a cursor that is of no use any more; it does not matter what comes of it.
    fn kill_cursor(&mut self, client: ClientId, carrier: &Carrier, (id, collection): &(i64, String)) {
        let command = ClientCommand {
            command: doc! { "killCursors": collection.as_str(), "cursors": [*id] },
            is_retryable_read: false,
            ..carrier.command.clone()
        };
        let id = self.rig.start(client, command);
        let _killed = self.finish_command(id);
    }

    fn finish_command(&mut self, id: CommandId) -> Result<Document, Error> {
        self.rig.finish(id)
    }

    fn watch(&mut self, operation: &Operation) -> Result<Outcome, Fault> {
        let nothing = Inherited::default();
        let (client, scope, inherited) = match self.entities.get(&operation.object)? {
            Entity::Client(client) => (client.id, Scope::Cluster, &nothing),
            Entity::Database(database) => (
                self.entities.client(&database.client)?.id,
                Scope::Database {
                    database: database.name.clone(),
                },
                &database.options,
            ),
            Entity::Collection(collection) => (
                self.entities.client(&collection.database.client)?.id,
                Scope::Collection {
                    database: collection.database.name.clone(),
                    collection: collection.name.clone(),
                },
                &collection.options,
            ),
            _ => return Err(failed("nothing that can be watched")),
        };
        let options = watching::options(operation, inherited, &self.entities)?;
        match self.rig.watch(client, &scope, options) {
            Ok(stream) => Ok(Outcome::Made(Entity::Stream(stream))),
            Err(error) => Ok(Outcome::Error(error)),
        }
    }

    fn use_stream(&mut self, stream: StreamId, name: &str) -> Result<Outcome, Fault> {
        let event = match name {
            "iterateUntilDocumentOrError" => match self.rig.next(stream) {
                Ok(None) => return Err(failed("the stream has ended")),
                Ok(event) => event,
                Err(error) => return Ok(Outcome::Error(error)),
            },
            "iterateOnce" => match self.rig.try_next(stream) {
                Ok(event) => event,
                Err(error) => return Ok(Outcome::Error(error)),
            },
            "close" => {
                self.rig.close_stream(stream);
                None
            }
            other => return Err(no_operation(other)),
        };
        let document: Option<Document> = match event {
            Some(event) => Some(
                event
                    .decode()
                    .map_err(|error| failed(format!("the event cannot be decoded: {error}")))?,
            ),
            None => None,
        };
        Ok(Outcome::Done(document.map(Bson::Document)))
    }

    /// Takes what the clients have published into their entities.
    pub(super) fn publish(&mut self) -> Result<(), Fault> {
        for client in self.entities.clients_mut() {
            let events = self.rig.events(client.id);
            client.published.extend(events);
            client.logged.extend(self.rig.logs(client.id));
        }
        Ok(())
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.rig.wait(time);
    }
}

/// What is left of the time for another command of an operation; none if it is over. Zero is no limit.
fn left(limit: Option<Duration>, begun: Instant, now: Instant) -> Option<Option<Duration>> {
    let Some(limit) = limit.filter(|limit| !limit.is_zero()) else {
        return Some(limit);
    };
    let left = limit.saturating_sub(now.saturating_duration_since(begun));
    (!left.is_zero()).then_some(Some(left))
}

fn cursor_of(reply: &Document) -> Option<(i64, String)> {
    let cursor = reply.get_document("cursor").ok()?;
    let id = cursor.get_i64("id").ok().filter(|id| *id != 0)?;
    let (_, collection) = cursor.get_str("ns").ok()?.split_once('.')?;
    Some((id, collection.to_owned()))
}

fn not_expected(error: &Error) -> Fault {
    if is_not_simulated(error) {
        return unsupported(error.to_string());
    }
    failed(format!("fails: {error:?}"))
}

/// Whether the simulated deployment says that it does not have what a real one has.
fn is_not_simulated(error: &Error) -> bool {
    let said = error.server_error();
    said.is_some_and(|said| said.message.starts_with("the simulated server has no"))
}

fn no_operation(name: &str) -> Fault {
    if NOT_BUILT.contains(&name) {
        return unsupported(format!("{name} is no operation of a change-stream client"));
    }
    unsupported(format!("{UNKNOWN} the operation {name}"))
}

const NAMESPACE_NOT_FOUND: i32 = 26;

/// Operations of the test format that neither a change-stream client has nor a command carries.
const NOT_BUILT: &[&str] = &[
    "abortTransaction",
    "addKeyAltName",
    "assertSessionPinned",
    "assertSessionTransactionState",
    "assertSessionUnpinned",
    "bulkWrite",
    "clientBulkWrite",
    "commitTransaction",
    "createCommandCursor",
    "createDataKey",
    "createFindCursor",
    "createSearchIndex",
    "createSearchIndexes",
    "decrypt",
    "delete",
    "deleteByName",
    "deleteKey",
    "download",
    "downloadByName",
    "dropSearchIndex",
    "encrypt",
    "getKey",
    "getKeyByAltName",
    "getKeys",
    "getSnapshotTime",
    "iterateOnce",
    "iterateUntilDocumentOrError",
    "listSearchIndexes",
    "loop",
    "mapReduce",
    "removeKeyAltName",
    "renameByName",
    "rewrapManyDataKey",
    "runCursorCommand",
    "startTransaction",
    "targetedFailPoint",
    "updateSearchIndex",
    "upload",
    "withTransaction",
];
