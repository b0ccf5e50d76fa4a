//! The operations of the test runner itself.

use std::time::Duration;

use bson::{Bson, Document, doc};
use changestream_core::{ReadPreference, ReadPreferenceMode};
use serde::Deserialize;
use serde_json::Value;

use super::entities::{
    ClientEntity, CollectionEntity, DatabaseEntity, Entity, SessionEntity, ThreadEntity, TopologyRecord,
};
use super::fault::{Fault, UNKNOWN, failed, unsupported};
use super::observed::{self, Observed, Observing};
use super::operations::Runner;
use super::rig::{ClientCommand, ClientId};
use super::schema::{ClientDefinition, EntityDefinition, EventType, Inherited, Operation};
use super::watching::{document, milliseconds, text};
use super::{beyond, environment, errors};

impl Runner<'_> {
    pub(super) fn run_special(&mut self, operation: &Operation) -> Result<(), Fault> {
        let argument = |name: &str| -> Result<&Value, Fault> {
            operation
                .arguments
                .get(name)
                .ok_or_else(|| failed(format!("{} needs {name}", operation.name)))
        };
        let name = |field: &str| argument(field).and_then(text);
        match operation.name.as_str() {
            "createEntities" => {
                let entities = Vec::<EntityDefinition>::deserialize(argument("entities")?)
                    .map_err(|error| failed(format!("breaks the schema: {error}")))?;
                self.create_entities(&entities)
            }
            "failPoint" => {
                let client = self.entities.client(name("client")?)?.id;
                let fail_point = document(argument("failPoint")?)?;
                self.strikes_retryable |=
                    fail_point.get_str("configureFailPoint").ok() == Some("onPrimaryTransactionalWrite");
                self.set_fail_point(client, fail_point)
            }
            "wait" => {
                let time = milliseconds(argument("ms")?)?;
                if time > LONGEST_WAIT {
                    return Err(unsupported(format!("the runner does not wait for {time:?}")));
                }
                self.wait(time);
                Ok(())
            }
            "waitForEvent" => {
                self.wait_for_event(name("client")?, argument("event")?, count(argument("count")?)?)
            }
            "assertEventCount" => {
                let wanted = count(argument("count")?)?;
                let found = self.count(name("client")?, argument("event")?)?;
                if found == wanted {
                    return Ok(());
                }
                let differs = failed(format!("there are {found} such events, not {wanted}"));
                Err(differs.beyond(beyond::of_count(found > wanted && self.runs_beside)))
            }
            "assertNumberConnectionsCheckedOut" => {
                let wanted = count(argument("connections")?)?;
                self.assert_checked_out(name("client")?, wanted)
            }
            "assertSameLsidOnLastTwoCommands" => self.assert_lsids(name("client")?, true),
            "assertDifferentLsidOnLastTwoCommands" => self.assert_lsids(name("client")?, false),
            "assertSessionNotDirty" => self.entities.session(name("session")?).map(drop),
            "assertCollectionExists" => {
                self.assert_collection(name("databaseName")?, name("collectionName")?, true)
            }
            "assertCollectionNotExists" => {
                self.assert_collection(name("databaseName")?, name("collectionName")?, false)
            }
            "runOnThread" => {
                let inner = Operation::deserialize(argument("operation")?)
                    .map_err(|error| failed(format!("breaks the schema: {error}")))?;
                self.run_beside(name("thread")?, &inner)
            }
            "waitForThread" => self.wait_for_thread(name("thread")?),
            "recordTopologyDescription" => {
                let record = self.topology(name("client")?)?;
                self.entities.insert(name("id")?, Entity::Topology(record))
            }
            "assertTopologyType" => {
                let record = self.entities.topology(name("topologyDescription")?)?;
                let wanted = name("topologyType")?;
                if record.topology_type == wanted {
                    return Ok(());
                }
                Err(failed(format!(
                    "the topology is {}, not {wanted}",
                    record.topology_type
                )))
            }
            "waitForPrimaryChange" => {
                let before = self.entities.topology(name("priorTopologyDescription")?)?.clone();
                let limit = operation
                    .arguments
                    .get("timeoutMS")
                    .map(milliseconds)
                    .transpose()?;
                self.wait_for_primary(name("client")?, &before, limit.unwrap_or(WAIT_LIMIT))
            }
            other if NOT_BUILT.contains(&other) => {
                Err(unsupported(format!("{other} is about what is not built")))
            }
            other => Err(unsupported(format!("{UNKNOWN} the operation {other}"))),
        }
    }

    /// Sets a fail point by the client's own connections: it has at least one from then on.
    fn set_fail_point(&mut self, client: ClientId, command: Document) -> Result<(), Fault> {
        let command = ClientCommand {
            database: "admin".to_owned(),
            command,
            read_preference: None,
            session: None,
            is_retryable_read: false,
            timeout: None,
        };
        let id = self.rig.start(client, command);
        let set = self.rig.finish(id);
        set.map(drop)
            .map_err(|error| failed(format!("cannot be set: {error}")))
    }

    /// Runs a command by the internal client, which must succeed.
    pub(super) fn internal(&mut self, database: &str, command: Document) -> Result<Document, Fault> {
        let shown = command.to_string();
        let reply = self.rig.internal(None, database, command).map_err(failed)?;
        match errors::refusal(&reply) {
            None => Ok(reply),
            Some(refusal) => Err(failed(format!("{shown}: {refusal}"))),
        }
    }

    pub(super) fn create_entities(&mut self, definitions: &[EntityDefinition]) -> Result<(), Fault> {
        for definition in definitions {
            let (name, entity) = match definition {
                EntityDefinition::Client(client) => {
                    (&client.id, Entity::Client(Box::new(self.create_client(client)?)))
                }
                EntityDefinition::Database(database) => {
                    self.entities.client(&database.client)?;
                    let entity = DatabaseEntity {
                        client: database.client.clone(),
                        name: database.database_name.clone(),
                        options: database.database_options.clone(),
                    };
                    (&database.id, Entity::Database(Box::new(entity)))
                }
                EntityDefinition::Collection(collection) => {
                    let database = self.entities.database(&collection.database)?.clone();
                    let options = inherited(&collection.collection_options, &database.options);
                    let entity = CollectionEntity {
                        name: collection.collection_name.clone(),
                        database,
                        options,
                    };
                    (&collection.id, Entity::Collection(Box::new(entity)))
                }
                EntityDefinition::Session(session) if session.is_snapshot() => {
                    return Err(unsupported(
                        "snapshot sessions are not built: no change stream reads a snapshot",
                    ));
                }
                EntityDefinition::Session(session) => {
                    self.entities.client(&session.client)?;
                    self.sessions += 1;
                    let own = changestream_core::Session::with_id([self.sessions; 16]);
                    let entity = SessionEntity {
                        session: own.causally_consistent(session.is_causal()),
                    };
                    (&session.id, Entity::Session(entity))
                }
                EntityDefinition::Bucket(bucket) => {
                    self.entities.database(&bucket.database)?;
                    (&bucket.id, Entity::Bucket)
                }
                EntityDefinition::Thread(thread) => (&thread.id, Entity::Thread(ThreadEntity::default())),
                EntityDefinition::ClientEncryption(_) => {
                    return Err(unsupported("client-side encryption is not built"));
                }
            };
            self.entities.insert(name, entity)?;
        }
        Ok(())
    }

    fn create_client(&mut self, definition: &ClientDefinition) -> Result<ClientEntity, Fault> {
        if definition.auto_encrypt_opts.is_some() {
            return Err(unsupported("client-side encryption is not built"));
        }
        if definition.store_events_as_entities.is_some() {
            return Err(unsupported("events are not stored as entities"));
        }
        if let Some(api) = &definition.server_api
            && api.version != "1"
        {
            return Err(failed(format!("there is no server API {}", api.version)));
        }
        let uri = self.uri_of(definition);
        let id = match self.rig.client(&uri, definition.server_api.as_ref()) {
            Ok(id) => id,
            Err(error) => return Err(failed(format!("no client of {uri}: {error}"))),
        };
        Ok(ClientEntity {
            id,
            observing: Observing {
                names: definition.observe_events.clone(),
                ignored_commands: definition.ignore_command_monitoring_events.clone(),
                sensitive_too: definition.observe_sensitive_commands,
            },
            uri_options: definition.uri_options.clone(),
            write_concern: write_concern(definition)?,
            published: Vec::new(),
            log_components: definition.observe_log_messages.clone(),
            logged: Vec::new(),
        })
    }

    /// The connection string of a client: that of the deployment, of one mongos only unless several are asked for.
    fn uri_of(&self, definition: &ClientDefinition) -> String {
        let uri = self.rig.uri();
        let (hosts, own) = uri
            .strip_prefix("mongodb://")
            .and_then(|rest| rest.split_once('/'))
            .expect("a connection string has hosts and a slash");
        let hosts = match hosts.split_once(',') {
            Some((first, _)) if self.is_sharded && definition.use_multiple_mongoses != Some(true) => first,
            _ => hosts,
        };
        let mut options: Vec<String> = own
            .trim_start_matches('?')
            .split('&')
            .filter(|option| !option.is_empty())
            .map(str::to_owned)
            .collect();
        // A set's name would be at odds with a client that asks one member only.
        if definition.uri_options.get("directConnection") == Some(&Value::Bool(true)) {
            options.retain(|option| !option.starts_with("replicaSet="));
        }
        let hosts = if definition.uri_options.get("directConnection") == Some(&Value::Bool(true)) {
            hosts.split(',').next().unwrap_or(hosts)
        } else {
            hosts
        };
        // Where properties are left to the runner, it hands the token out itself.
        let given = definition
            .uri_options
            .iter()
            .filter(|(_, value)| value.get("$$placeholder").is_none());
        options.extend(given.map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), percent_encoded);
            format!("{name}={value}")
        }));
        let mut user = String::new();
        if self.users.are_there() && !definition.uri_options.contains_key("authMechanism") {
            user = format!("{}:{}@", environment::USER, environment::PASSWORD);
            options.push("authSource=admin".to_owned());
        }
        format!("mongodb://{user}{hosts}/?{}", options.join("&"))
    }

    fn count(&mut self, client: &str, event: &Value) -> Result<usize, Fault> {
        self.publish()?;
        let client = self.entities.client(client)?;
        let event = event.as_object().ok_or_else(|| failed("no event"))?;
        let wanted = |published: &&Observed| client.observing.wants(published);
        let matching = client.published.iter().filter(wanted);
        Ok(matching
            .filter(|published| observed::matches(event, published, &self.entities).is_ok())
            .count())
    }

    fn wait_for_event(&mut self, client: &str, event: &Value, count: usize) -> Result<(), Fault> {
        let mut waited = Duration::ZERO;
        loop {
            let found = self.count(client, event)?;
            if found >= count {
                return Ok(());
            }
            if waited >= WAIT_LIMIT {
                let late = failed(format!("waits for {count} events {event}, there are {found}"));
                let client = self.entities.client(client)?;
                return Err(late.beyond(beyond::of_waiting(event, client, self.version)));
            }
            if waited.as_millis().is_multiple_of(PROD_EVERY)
                && let Some(mode) = monitored(event)
            {
                self.prod(client, mode)?;
            } else {
                self.wait(WAIT_STEP);
            }
            waited += WAIT_STEP;
        }
    }

    /// Lets a client look for a server, as it does when one is needed: it has no monitors that would do so while it is idle.
    /// Of what it publishes and logs then, only what a monitor would have is kept.
    fn prod(&mut self, client: &str, mode: ReadPreferenceMode) -> Result<(), Fault> {
        self.publish()?;
        let id = self.entities.client(client)?.id;
        let command = ClientCommand {
            database: "admin".to_owned(),
            command: doc! { "ping": 1 },
            read_preference: Some(ReadPreference::new(mode)),
            session: None,
            is_retryable_read: false,
            timeout: Some(PROD_LIMIT),
        };
        let running = self.rig.start(id, command);
        // Servers that cannot be found are what some tests are about.
        let _answered = self.rig.finish(running);
        let mut events = self.rig.events(id);
        events.retain(|event| event.kind == EventType::Sdam || event.name == "poolClearedEvent");
        let mut logged = self.rig.logs(id);
        logged.retain(|message| message.component == "topology");
        let client = self.entities.clients_mut().find(|client| client.id == id);
        if let Some(client) = client {
            client.published.extend(events);
            client.logged.extend(logged);
        }
        Ok(())
    }

    fn assert_checked_out(&mut self, client: &str, wanted: usize) -> Result<(), Fault> {
        self.publish()?;
        let published = &self.entities.client(client)?.published;
        let of = |name: &str| published.iter().filter(|event| event.name == name).count();
        let out = of("connectionCheckedOutEvent").saturating_sub(of("connectionCheckedInEvent"));
        if out == wanted {
            return Ok(());
        }
        Err(failed(format!("{out} connections are checked out, not {wanted}")))
    }

    fn assert_lsids(&mut self, client: &str, same: bool) -> Result<(), Fault> {
        self.publish()?;
        let [before, last] = observed::last_two_lsids(&self.entities.client(client)?.published)?;
        if (before == last) == same {
            return Ok(());
        }
        Err(failed(format!(
            "the last two commands have the lsids {before} and {last}"
        )))
    }

    fn assert_collection(&mut self, database: &str, collection: &str, exists: bool) -> Result<(), Fault> {
        let command = doc! { "listCollections": 1, "filter": { "name": collection } };
        let reply = self.internal(database, command)?;
        if super::shape::batch(&reply).is_empty() != exists {
            return Ok(());
        }
        Err(failed(format!("{database}.{collection} exists: {}", !exists)))
    }

    /// What the client last published of its topology.
    fn topology(&mut self, client: &str) -> Result<TopologyRecord, Fault> {
        self.publish()?;
        let published = &self.entities.client(client)?.published;
        let last = published
            .iter()
            .rev()
            .find(|event| event.name == "topologyDescriptionChangedEvent");
        let description = last.and_then(|event| event.fields.get_document("newDescription").ok());
        let of = |name: &str| description.and_then(|d| d.get_str(name).ok().map(str::to_owned));
        Ok(TopologyRecord {
            topology_type: of("type").unwrap_or_else(|| "Unknown".to_owned()),
            primary: of("primary"),
        })
    }

    fn wait_for_primary(
        &mut self,
        client: &str,
        before: &TopologyRecord,
        limit: Duration,
    ) -> Result<(), Fault> {
        let mut waited = Duration::ZERO;
        while waited < limit {
            let now = self.topology(client)?;
            if now.primary.is_some() && now.primary != before.primary {
                return Ok(());
            }
            if waited.as_millis().is_multiple_of(PROD_EVERY) {
                self.prod(client, ReadPreferenceMode::Primary)?;
            }
            self.wait(WAIT_STEP);
            waited += WAIT_STEP;
        }
        let unchanged = failed(format!("the primary is still {:?}", before.primary));
        Err(unchanged.beyond(beyond::of_primary(self.entities.client(client)?, limit)))
    }

    /// Fills a collection as a test wants to find it.
    pub(super) fn fill(&mut self, data: &super::schema::CollectionData) -> Result<(), Fault> {
        let majority = doc! { "w": "majority" };
        let (database, collection) = (data.database_name.as_str(), data.collection_name.as_str());
        let drop = doc! { "drop": collection, "writeConcern": majority.clone() };
        // There may be none.
        self.rig.internal(None, database, drop).map_err(failed)?;
        let mut create = doc! { "create": collection };
        for (name, value) in &data.create_options {
            create.insert(name, super::matcher::to_bson(value).map_err(failed)?);
        }
        create.insert("writeConcern", majority.clone());
        self.internal(database, create)?;
        if data.documents.is_empty() {
            return Ok(());
        }
        let documents: Vec<Document> = data.documents.iter().map(document).collect::<Result<_, _>>()?;
        let insert = doc! { "insert": collection, "documents": documents, "writeConcern": majority };
        self.internal(database, insert).map(|_| ())
    }

    /// Holds a collection to what a test wants to leave behind.
    pub(super) fn compare(&mut self, data: &super::schema::CollectionData) -> Result<(), Fault> {
        let find = doc! {
            "find": data.collection_name.as_str(),
            "sort": { "_id": 1 },
            "batchSize": 1000,
            "readConcern": { "level": "local" },
        };
        let reply = self.internal(&data.database_name, find)?;
        let found = Bson::Array(super::shape::batch(&reply));
        let expected = super::matcher::to_bson(&Value::Array(data.documents.clone())).map_err(failed)?;
        super::matcher::matches_nested(&expected, &found, &self.entities)
            .map_err(|reason| failed(format!("the outcome{reason}")))
    }
}

fn write_concern(definition: &ClientDefinition) -> Result<Document, Fault> {
    let mut concern = Document::new();
    for (option, field) in [("w", "w"), ("wTimeoutMS", "wtimeout"), ("journal", "j")] {
        if let Some(value) = definition.uri_options.get(option) {
            concern.insert(field, super::matcher::to_bson(value).map_err(failed)?);
        }
    }
    Ok(concern)
}

fn inherited(own: &Inherited, database: &Inherited) -> Inherited {
    let or = |own: &Option<Value>, database: &Option<Value>| own.clone().or_else(|| database.clone());
    Inherited {
        read_concern: or(&own.read_concern, &database.read_concern),
        read_preference: or(&own.read_preference, &database.read_preference),
        write_concern: or(&own.write_concern, &database.write_concern),
        timeout_ms: or(&own.timeout_ms, &database.timeout_ms),
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~,:".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

fn count(value: &Value) -> Result<usize, Fault> {
    let count = value.as_u64().and_then(|count| count.try_into().ok());
    count.ok_or_else(|| failed(format!("no number: {value}")))
}

/// Which server has to be looked for, for an event to come that monitors would bring about: all where it is about the whole
/// deployment, and else the primary. None for other events.
fn monitored(event: &Value) -> Option<ReadPreferenceMode> {
    let name = event.as_object()?.keys().next()?;
    if name.starts_with("topology") || name.starts_with("serverHeartbeat") {
        return Some(ReadPreferenceMode::Nearest);
    }
    (name.starts_with("server") || name == "poolClearedEvent").then_some(ReadPreferenceMode::Primary)
}

/// How often a client without monitors is made to look, in milliseconds: as often as it would look by itself.
const PROD_EVERY: u128 = 500;
/// How long it may look.
const PROD_LIMIT: Duration = Duration::from_secs(1);

/// As long as the test format lets a runner wait for an event.
const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// Longer than any test waits on purpose.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const WAIT_STEP: Duration = Duration::from_millis(10);

/// Operations of the test runner that are about transactions, indexes and loops.
const NOT_BUILT: [&str; 8] = [
    "targetedFailPoint",
    "assertSessionDirty",
    "assertSessionPinned",
    "assertSessionUnpinned",
    "assertSessionTransactionState",
    "assertIndexExists",
    "assertIndexNotExists",
    "loop",
];
