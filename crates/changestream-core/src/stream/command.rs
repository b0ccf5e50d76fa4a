//! The commands of a stream, field by field.

use std::time::Duration;

use bson::raw::{CString, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, cstr};
use bson::{RawBson, rawdoc};

use super::position::Position;
use super::{Role, Server, Start};
use crate::faults::Fault;
use crate::options::{Scope, WatchOptions};
use crate::{Error, ReadConcern, ReadPreference, ReadPreferenceMode, Session};

/// What every command of one stream has in common, encoded once.
#[derive(Debug)]
pub(crate) struct Commands {
    database: String,
    /// `aggregate`: a collection's name, or 1.
    target: RawBson,
    /// The fields of the `$changeStream` stage but for where to start.
    stage: RawDocumentBuf,
    /// The stages after it.
    pipeline: Vec<RawDocumentBuf>,
    collation: Option<RawDocumentBuf>,
    comment: Option<RawBson>,
    batch_size: Option<u32>,
    max_await_time: Option<Duration>,
    read_concern: Option<ReadConcern>,
    read_preference: ReadPreference,
    session: Session,
    /// The last getMore: the next one is the same, as a rule.
    asked: Option<Asked>,
}

/// A getMore, and all that it depends on but the stream's options.
#[derive(Debug)]
struct Asked {
    id: i64,
    namespace: Option<String>,
    max_wire_version: i32,
    supports_sessions: bool,
    wait: Duration,
    body: RawDocumentBuf,
}

impl Asked {
    fn is_for(&self, id: i64, namespace: Option<&str>, server: &Server, wait: Duration) -> bool {
        self.id == id
            && self.namespace.as_deref() == namespace
            && self.max_wire_version == server.max_wire_version
            && self.supports_sessions == server.supports_sessions
            && self.wait == wait
    }
}

impl Commands {
    /// Encodes what is common.
    ///
    /// # Errors
    /// A document of the user's cannot be encoded as BSON, for instance because a key holds a zero byte.
    pub(crate) fn new(scope: &Scope, options: &WatchOptions, session: Session) -> Result<Self, Error> {
        let (database, target) = match scope {
            Scope::Collection { database, collection } => {
                (database.clone(), RawBson::String(collection.clone()))
            }
            Scope::Database { database } => (database.clone(), RawBson::Int32(1)),
            Scope::Cluster => ("admin".to_owned(), RawBson::Int32(1)),
        };
        for (what, name) in [
            ("database", Some(database.as_str())),
            ("collection", collection_name(scope)),
        ] {
            if name.is_some_and(|name| name.is_empty() || name.contains('\0')) {
                return Err(Error::invalid_argument(format!(
                    "the name of the {what} is empty or holds a zero byte"
                )));
            }
        }
        Ok(Self {
            database,
            target,
            stage: stage(scope, options)?,
            pipeline: options
                .pipeline
                .iter()
                .map(|stage| encode("pipeline", stage))
                .collect::<Result<_, _>>()?,
            collation: options
                .collation
                .as_ref()
                .map(|collation| encode("collation", collation))
                .transpose()?,
            comment: options
                .comment
                .clone()
                .map(|comment| RawBson::try_from(comment).map_err(|e| not_encodable("comment", &e)))
                .transpose()?,
            batch_size: options.batch_size,
            max_await_time: options.max_await_time,
            read_concern: options.read_concern.clone(),
            read_preference: options.read_preference.clone().unwrap_or_default(),
            session,
            asked: None,
        })
    }

    /// The aggregate that opens a cursor, from the user's starting point or from where the stream stands. `max_time` is how
    /// long the server may take for it.
    pub(crate) fn aggregate(
        &self,
        start: Start,
        position: &Position,
        server: &Server,
        max_time: Option<Duration>,
    ) -> RawDocumentBuf {
        let mut stage = self.stage.clone();
        match start {
            Start::Open => position.append_start(&mut stage),
            Start::Resume => {
                if Fault::FullDocumentLost.is_on() {
                    stage = without_full_document(&stage);
                }
                position.append_resume(&mut stage);
            }
        }
        let mut pipeline = RawArrayBuf::new();
        pipeline.push(rawdoc! { "$changeStream": stage });
        for stage in &self.pipeline {
            pipeline.push(stage.as_ref());
        }
        let mut cursor = RawDocumentBuf::new();
        if let Some(size) = self.batch_size {
            append_size(&mut cursor, size);
        }
        let mut command = RawDocumentBuf::new();
        command.append(cstr!("aggregate"), self.target.as_raw_bson_ref());
        command.append(cstr!("pipeline"), pipeline);
        if let Some(collation) = &self.collation {
            command.append(cstr!("collation"), collation.as_ref());
        }
        if let Some(comment) = &self.comment {
            command.append(cstr!("comment"), comment.as_raw_bson_ref());
        }
        command.append(cstr!("cursor"), cursor);
        if let Some(time) = max_time {
            append_max_time(&mut command, time);
        }
        if let Some(concern) = self.read_concern(server) {
            command.append(cstr!("readConcern"), concern);
        }
        self.append_session(&mut command, server);
        command.append(cstr!("$db"), self.database.as_str());
        if let Some(preference) = read_preference(&self.read_preference, server) {
            command.append(cstr!("$readPreference"), preference);
        }
        command
    }

    /// The next batch. `namespace` is what the server called the cursor's, `db.collection`; `wait` is the longest that the
    /// server may wait for a change, where the user has said how long.
    pub(crate) fn get_more(
        &mut self,
        id: i64,
        namespace: Option<&str>,
        server: &Server,
        wait: Duration,
    ) -> RawDocumentBuf {
        if let Some(asked) = &self.asked
            && asked.is_for(id, namespace, server, wait)
        {
            return asked.body.clone();
        }
        let body = self.encode_get_more(id, namespace, server, wait);
        self.asked = Some(Asked {
            id,
            namespace: namespace.map(str::to_owned),
            max_wire_version: server.max_wire_version,
            supports_sessions: server.supports_sessions,
            wait,
            body: body.clone(),
        });
        body
    }

    fn encode_get_more(
        &self,
        id: i64,
        namespace: Option<&str>,
        server: &Server,
        wait: Duration,
    ) -> RawDocumentBuf {
        let (database, collection) = self.split(namespace);
        let mut command = rawdoc! { "getMore": id, "collection": collection };
        if let Some(size) = self.batch_size.filter(|size| *size > 0) {
            append_size(&mut command, size);
        }
        if let Some(time) = self.max_await_time {
            append_max_time(&mut command, time.min(wait));
        }
        if let Some(comment) = &self.comment
            && server.max_wire_version >= WIRE_VERSION_OF_COMMENT_ON_GET_MORE
        {
            command.append(cstr!("comment"), comment.as_raw_bson_ref());
        }
        self.append_session(&mut command, server);
        command.append(cstr!("$db"), database);
        command
    }

    /// Kills a cursor; to be sent to the server that owns it, and to no other.
    pub(crate) fn kill_cursors(
        &self,
        id: i64,
        namespace: Option<&str>,
        server: &Server,
        max_time: Option<Duration>,
    ) -> RawDocumentBuf {
        let (database, collection) = self.split(namespace);
        let mut cursors = RawArrayBuf::new();
        cursors.push(id);
        let mut command = rawdoc! { "killCursors": collection, "cursors": cursors };
        if let Some(time) = max_time {
            append_max_time(&mut command, time);
        }
        self.append_session(&mut command, server);
        command.append(cstr!("$db"), database);
        command
    }

    /// Ends the stream's own session.
    pub(crate) fn end_sessions(&self) -> RawDocumentBuf {
        let mut sessions = RawArrayBuf::new();
        sessions.push(self.session.lsid());
        rawdoc! { "endSessions": sessions, "$db": "admin" }
    }

    /// Another session from now on.
    pub(crate) fn change_session(&mut self, session: Session) {
        self.session = session;
        self.asked = None;
    }

    /// The user's read concern, and how far the server has to be (Causal Consistency, "Causally Consistent Read Commands").
    fn read_concern(&self, server: &Server) -> Option<RawDocumentBuf> {
        let after = self
            .session
            .after_cluster_time()
            .filter(|_| server.supports_sessions);
        if self.read_concern.is_none() && after.is_none() {
            return None;
        }
        let mut document = RawDocumentBuf::new();
        if let Some(concern) = &self.read_concern {
            document.append(cstr!("level"), concern.level.as_str());
        }
        if let Some(time) = after {
            document.append(cstr!("afterClusterTime"), time);
        }
        Some(document)
    }

    /// The session that the commands are of.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    fn append_session(&self, command: &mut RawDocumentBuf, server: &Server) {
        if server.supports_sessions {
            command.append(cstr!("lsid"), self.session.lsid());
        }
    }

    /// The parts of a cursor's namespace; the database of the aggregate and its target where the server named none.
    fn split<'a>(&'a self, namespace: Option<&'a str>) -> (&'a str, &'a str) {
        namespace.and_then(|ns| ns.split_once('.')).unwrap_or_else(|| {
            let target = self.target.as_raw_bson_ref().as_str();
            (&self.database, target.unwrap_or("$cmd.aggregate"))
        })
    }
}

/// The `$readPreference` of a command (OP_MSG specification, "Global Command Arguments"; Server Selection
/// specification, "Passing read preference to mongos and load balancers" and "Topology type: Single").
pub(crate) fn read_preference(preference: &ReadPreference, server: &Server) -> Option<RawDocumentBuf> {
    let mode = match (server.role, preference.mode) {
        (Role::Standalone, _) | (Role::Member | Role::LoadBalanced, ReadPreferenceMode::Primary) => {
            return None;
        }
        (Role::Direct, ReadPreferenceMode::Primary) => ReadPreferenceMode::PrimaryPreferred,
        (Role::Member | Role::LoadBalanced | Role::Direct, mode) => mode,
    };
    let mut document = rawdoc! { "mode": mode.as_str() };
    if !preference.tag_sets.is_empty() {
        let mut sets = RawArrayBuf::new();
        for set in &preference.tag_sets {
            let mut tags = RawDocumentBuf::new();
            for (name, value) in set {
                // A name with a zero byte was refused when the client was made.
                if let Ok(name) = CString::try_from(name.as_str()) {
                    tags.append(&name, value.as_str());
                }
            }
            sets.push(tags);
        }
        document.append(cstr!("tags"), sets);
    }
    if let Some(staleness) = preference.max_staleness {
        document.append(
            cstr!("maxStalenessSeconds"),
            i64::try_from(staleness.as_secs()).unwrap_or(i64::MAX),
        );
    }
    Some(document)
}

fn collection_name(scope: &Scope) -> Option<&str> {
    match scope {
        Scope::Collection { collection, .. } => Some(collection),
        Scope::Database { .. } | Scope::Cluster => None,
    }
}

fn stage(scope: &Scope, options: &WatchOptions) -> Result<RawDocumentBuf, Error> {
    let mut stage = RawDocumentBuf::new();
    if *scope == Scope::Cluster {
        stage.append(cstr!("allChangesForCluster"), true);
    }
    if let Some(value) = &options.full_document {
        stage.append(cstr!("fullDocument"), value.as_str());
    }
    if let Some(value) = &options.full_document_before_change {
        stage.append(cstr!("fullDocumentBeforeChange"), value.as_str());
    }
    if let Some(value) = options.show_expanded_events {
        stage.append(cstr!("showExpandedEvents"), value);
    }
    let extra = encode("extra stage options", &options.extra_stage_options)?;
    for element in extra.iter_elements().flatten() {
        if let Ok(value) = element.value() {
            stage.append(element.key(), value);
        }
    }
    Ok(stage)
}

/// For [`Fault::FullDocumentLost`].
fn without_full_document(stage: &RawDocument) -> RawDocumentBuf {
    let mut rest = RawDocumentBuf::new();
    for element in stage.iter_elements().flatten() {
        if let (false, Ok(value)) = (element.key() == "fullDocument", element.value()) {
            rest.append(element.key(), value);
        }
    }
    rest
}

fn encode(what: &str, document: &bson::Document) -> Result<RawDocumentBuf, Error> {
    RawDocumentBuf::try_from(document).map_err(|e| not_encodable(what, &e))
}

fn not_encodable(what: &str, error: &bson::error::Error) -> Error {
    Error::invalid_argument(format!("{what}: cannot be encoded as BSON: {error}"))
}

fn append_size(document: &mut RawDocumentBuf, size: u32) {
    let value = match i32::try_from(size) {
        Ok(size) => RawBsonRef::Int32(size),
        Err(_) => RawBsonRef::Int64(i64::from(size)),
    };
    document.append(cstr!("batchSize"), value);
}

/// Whole milliseconds, rounded up so that a short time never becomes none.
/// Says how long a server may take for a command, in whole milliseconds.
pub(crate) fn append_max_time(command: &mut RawDocumentBuf, time: Duration) {
    let milliseconds = i64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX);
    command.append(cstr!("maxTimeMS"), milliseconds);
}

/// Servers before 4.4 refuse a comment on getMore.
const WIRE_VERSION_OF_COMMENT_ON_GET_MORE: i32 = 9;

/// Appends `$clusterTime` to a command that is about to be sent.
pub(crate) fn gossip(command: &mut RawDocumentBuf, cluster_time: &RawDocument) {
    command.append(cstr!("$clusterTime"), cluster_time);
}
