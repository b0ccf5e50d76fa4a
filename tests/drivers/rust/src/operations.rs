//! What happens to the data in a scenario, by the driver's own methods.

use std::future::Future;
use std::pin::Pin;

use mongodb::bson::{Bson, Document, doc};
use mongodb::options::UpdateModifications;
use mongodb::{Client, ClientSession, Collection, Database, IndexModel};

use crate::Failure;

/// Where operations happen, and in which transaction.
pub(crate) struct Operations<'a> {
    pub(crate) client: &'a Client,
    pub(crate) database: &'a Database,
    pub(crate) session: Option<ClientSession>,
}

/// Sends a call in the transaction, if there is one.
macro_rules! send {
    ($self:ident, $call:expr) => {{
        let call = $call;
        match &mut $self.session {
            Some(session) => call.session(session).await?,
            None => call.await?,
        }
    }};
}

impl Operations<'_> {
    pub(crate) async fn run(&mut self, operations: &[Document]) -> Result<(), Failure> {
        for operation in operations {
            let (name, given) = operation.iter().next().ok_or("an empty operation")?;
            let given = given.as_document().ok_or("an operation without arguments")?;
            match name.as_str() {
                "transaction" => self.transaction(given).await?,
                "insertOne" | "insertMany" | "insertNumbered" | "bulkWrite" => {
                    self.insert(name, given).await?
                }
                "updateOne" | "updateMany" | "replaceOne" | "findOneAndUpdate" => {
                    self.update(name, given).await?
                }
                "deleteOne" | "deleteMany" => self.delete(name, given).await?,
                _ => self.define(name, given).await?,
            }
        }
        Ok(())
    }

    fn collection(&self, given: &Document) -> Collection<Document> {
        let name = format!(
            "{}{}",
            self.database.name(),
            given.get_str("database").unwrap_or_default()
        );
        self.client
            .database(&name)
            .collection(given.get_str("coll").unwrap_or("c"))
    }

    async fn insert(&mut self, name: &str, given: &Document) -> Result<(), Failure> {
        let collection = self.collection(given);
        match name {
            "insertOne" => {
                send!(self, collection.insert_one(given.get_document("document")?));
            }
            "insertMany" => {
                send!(self, collection.insert_many(list(given, "documents")));
            }
            "insertNumbered" => {
                let ids = given.get_array("ids")?;
                let bound = |at: usize| ids.get(at).and_then(whole).ok_or("two bounds");
                let text = "x".repeat(number(given, "size").unwrap_or(0));
                let documents = (bound(0)?..bound(1)?).map(|n| doc! { "_id": n as i32, "text": &text });
                send!(self, collection.insert_many(documents));
            }
            // One write of each kind, each in a call: the driver's bulkWrite is a command of server 8.0.
            _ => {
                let filter = doc! { "_id": "bulk" };
                collection.insert_one(doc! { "_id": "bulk", "n": 1 }).await?;
                collection
                    .update_one(filter.clone(), doc! { "$inc": { "n": 1 } })
                    .await?;
                collection
                    .replace_one(filter.clone(), doc! { "n": "replaced" })
                    .await?;
                collection.delete_one(filter).await?;
            }
        }
        Ok(())
    }

    async fn update(&mut self, name: &str, given: &Document) -> Result<(), Failure> {
        let collection = self.collection(given);
        let filter = given.get_document("filter")?.clone();
        if name == "replaceOne" {
            send!(
                self,
                collection.replace_one(filter, given.get_document("replacement")?)
            );
            return Ok(());
        }
        let update = match given.get("update") {
            Some(Bson::Array(_)) => UpdateModifications::Pipeline(list(given, "update")),
            _ => UpdateModifications::Document(given.get_document("update")?.clone()),
        };
        match name {
            "updateOne" => {
                let upsert = given.get_bool("upsert").unwrap_or(false);
                send!(self, collection.update_one(filter, update).upsert(upsert));
            }
            "updateMany" => {
                send!(self, collection.update_many(filter, update));
            }
            _ => {
                send!(self, collection.find_one_and_update(filter, update));
            }
        }
        Ok(())
    }

    async fn delete(&mut self, name: &str, given: &Document) -> Result<(), Failure> {
        let collection = self.collection(given);
        let filter = given.get_document("filter")?.clone();
        match name {
            "deleteOne" => send!(self, collection.delete_one(filter)),
            _ => send!(self, collection.delete_many(filter)),
        };
        Ok(())
    }

    /// What concerns collections, indexes, databases and members.
    async fn define(&mut self, name: &str, given: &Document) -> Result<(), Failure> {
        let collection = self.collection(given);
        let text = |field: &str| given.get_str(field);
        match name {
            "createCollection" => {
                let options = given.get_document("options").cloned().unwrap_or_default();
                let options = mongodb::bson::deserialize_from_document(options)?;
                self.database
                    .create_collection(text("name").unwrap_or("c"))
                    .with_options(Some(options))
                    .await?;
            }
            "drop" => collection.drop().await?,
            "rename" => {
                let name = |coll: &str| format!("{}.{coll}", self.database.name());
                let drop_target = given.get_bool("dropTarget").unwrap_or(false);
                let command = doc! {
                    "renameCollection": name(collection.name()), "to": name(text("to")?), "dropTarget": drop_target,
                };
                self.client.database("admin").run_command(command).await?;
            }
            "dropDatabase" => self.database.drop().await?,
            "createIndex" => {
                let options = given.get_document("options").cloned().unwrap_or_default();
                let mut index = IndexModel::default();
                index.keys = given.get_document("keys")?.clone();
                index.options = Some(mongodb::bson::deserialize_from_document(options)?);
                collection.create_index(index).await?;
            }
            "dropIndex" => collection.drop_index(text("name")?).await?,
            "command" => {
                self.database
                    .run_command(given.get_document("command")?.clone())
                    .await?;
            }
            "shardCollection" => {
                let admin = self.client.database("admin");
                let namespace = collection.namespace();
                admin.run_command(doc! { "enableSharding": &namespace.db }).await?;
                let key = given.get_document("key")?.clone();
                let command = doc! { "shardCollection": namespace.to_string(), "key": key };
                admin.run_command(command).await?;
            }
            "stepDown" => {
                let command = doc! { "replSetStepDown": 1, "force": true };
                self.client.database("admin").run_command(command).await?;
            }
            _ => return Err(format!("{name} is no operation").into()),
        }
        Ok(())
    }

    fn transaction<'b>(
        &'b mut self,
        given: &'b Document,
    ) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + 'b>> {
        Box::pin(async move {
            let session = self.session.insert(self.client.start_session().await?);
            session.start_transaction().await?;
            self.run(&list(given, "operations")).await?;
            let mut session = self.session.take().ok_or("the session is gone")?;
            if given.get_bool("abort").unwrap_or(false) {
                session.abort_transaction().await?;
            } else {
                session.commit_transaction().await?;
            }
            Ok(())
        })
    }
}

/// The documents of an array.
pub(crate) fn list(holder: &Document, field: &str) -> Vec<Document> {
    let items = holder.get_array(field).into_iter().flatten();
    items.filter_map(Bson::as_document).cloned().collect()
}

pub(crate) fn number(holder: &Document, field: &str) -> Result<usize, Failure> {
    holder
        .get(field)
        .and_then(whole)
        .ok_or_else(|| format!("{field} is no number").into())
}

pub(crate) fn whole(value: &Bson) -> Option<usize> {
    let number = value.as_i64().or_else(|| value.as_i32().map(i64::from))?;
    usize::try_from(number).ok()
}
