//! What a test calls by name.

use std::collections::BTreeMap;

use bson::{Bson, Document};
use changestream_core::Session;

use super::fault::{Fault, failed};
use super::logged::{LogMessage, ObservedComponents};
use super::matcher;
use super::observed::{Observed, Observing};
use super::operations::Pending;
use super::rig::{ClientId, StreamId};
use super::schema::Inherited;

/// An entity.
#[derive(Debug)]
pub(super) enum Entity {
    Client(Box<ClientEntity>),
    Database(Box<DatabaseEntity>),
    Collection(Box<CollectionEntity>),
    Session(SessionEntity),
    Stream(StreamId),
    Thread(ThreadEntity),
    /// Of a kind that no operation is supported on.
    Bucket,
    /// The type of a topology, as it was at some moment.
    Topology(TopologyRecord),
    Value(Bson),
}

impl Entity {
    fn kind(&self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::Database(_) => "database",
            Self::Collection(_) => "collection",
            Self::Session(_) => "session",
            Self::Stream(_) => "change stream",
            Self::Thread(_) => "thread",
            Self::Bucket => "bucket",
            Self::Topology(_) => "topology description",
            Self::Value(_) => "value",
        }
    }
}

#[derive(Debug)]
pub(super) struct ClientEntity {
    pub(super) id: ClientId,
    pub(super) observing: Observing,
    /// The options that the test adds to the connection string.
    pub(super) uri_options: serde_json::Map<String, serde_json::Value>,
    /// What the connection string says of writes.
    pub(super) write_concern: Document,
    /// Everything that it has published so far.
    pub(super) published: Vec<Observed>,
    /// What the test wants to see of its log.
    pub(super) log_components: ObservedComponents,
    /// Everything that it has logged so far, if the test is about that.
    pub(super) logged: Vec<LogMessage>,
}

#[derive(Clone, Debug)]
pub(super) struct DatabaseEntity {
    /// The client's name.
    pub(super) client: String,
    pub(super) name: String,
    pub(super) options: Inherited,
}

#[derive(Clone, Debug)]
pub(super) struct CollectionEntity {
    pub(super) database: DatabaseEntity,
    pub(super) name: String,
    /// What it inherits from the database, where it says nothing of its own.
    pub(super) options: Inherited,
}

#[derive(Clone, Debug)]
pub(super) struct SessionEntity {
    pub(super) session: Session,
}

/// Runs operations one after another, beside the test.
#[derive(Debug, Default)]
pub(super) struct ThreadEntity {
    pub(super) running: Vec<Pending>,
}

/// What was known of a topology.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TopologyRecord {
    pub(super) topology_type: String,
    /// The primary's address.
    pub(super) primary: Option<String>,
}

/// All entities of a test.
#[derive(Debug, Default)]
pub(super) struct EntityMap(BTreeMap<String, Entity>);

impl EntityMap {
    pub(super) fn insert(&mut self, name: &str, entity: Entity) -> Result<(), Fault> {
        if self.0.contains_key(name) {
            return Err(failed(format!("there are two entities named {name}")));
        }
        self.0.insert(name.to_owned(), entity);
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Result<&Entity, Fault> {
        self.0
            .get(name)
            .ok_or_else(|| failed(format!("there is no entity named {name}")))
    }

    pub(super) fn client(&self, name: &str) -> Result<&ClientEntity, Fault> {
        match self.get(name)? {
            Entity::Client(client) => Ok(client),
            other => Err(is_no(name, "client", other)),
        }
    }

    /// The client that an entity belongs to.
    pub(super) fn client_of(&self, name: &str) -> Option<&ClientEntity> {
        let client = match self.0.get(name)? {
            Entity::Client(client) => return Some(client),
            Entity::Database(database) => &database.client,
            Entity::Collection(collection) => &collection.database.client,
            _ => return None,
        };
        self.client(client).ok()
    }

    pub(super) fn thread_mut(&mut self, name: &str) -> Result<&mut ThreadEntity, Fault> {
        match self.0.get_mut(name) {
            Some(Entity::Thread(thread)) => Ok(thread),
            Some(other) => Err(is_no(name, "thread", other)),
            None => Err(failed(format!("there is no entity named {name}"))),
        }
    }

    /// Whether anything is under way on a thread.
    pub(super) fn are_threads_busy(&self) -> bool {
        let mut entities = self.0.values();
        entities.any(|entity| matches!(entity, Entity::Thread(thread) if !thread.running.is_empty()))
    }

    pub(super) fn database(&self, name: &str) -> Result<&DatabaseEntity, Fault> {
        match self.get(name)? {
            Entity::Database(database) => Ok(database),
            other => Err(is_no(name, "database", other)),
        }
    }

    pub(super) fn session(&self, name: &str) -> Result<&SessionEntity, Fault> {
        match self.get(name)? {
            Entity::Session(session) => Ok(session),
            other => Err(is_no(name, "session", other)),
        }
    }

    pub(super) fn topology(&self, name: &str) -> Result<&TopologyRecord, Fault> {
        match self.get(name)? {
            Entity::Topology(record) => Ok(record),
            other => Err(is_no(name, "topology description", other)),
        }
    }

    pub(super) fn clients_mut(&mut self) -> impl Iterator<Item = &mut ClientEntity> {
        self.0.values_mut().filter_map(|entity| match entity {
            Entity::Client(client) => Some(&mut **client),
            _ => None,
        })
    }

    pub(super) fn streams(&self) -> Vec<StreamId> {
        let streams = self.0.values().filter_map(|entity| match entity {
            Entity::Stream(stream) => Some(*stream),
            _ => None,
        });
        streams.collect()
    }
}

impl matcher::Entities for EntityMap {
    fn value(&self, name: &str) -> Option<Bson> {
        match self.0.get(name)? {
            Entity::Value(value) => Some(value.clone()),
            _ => None,
        }
    }

    fn lsid(&self, name: &str) -> Option<Document> {
        match self.0.get(name)? {
            Entity::Session(session) => session.session.lsid().try_into().ok(),
            _ => None,
        }
    }
}

fn is_no(name: &str, wanted: &str, found: &Entity) -> Fault {
    failed(format!("{name} is a {}, not a {wanted}", found.kind()))
}
