//! One scenario.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use mongodb::bson::{Bson, Document, Timestamp, doc};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::session::SessionChangeStream;
use mongodb::error::{Error, ErrorKind};
use mongodb::event::command::CommandEvent;
use mongodb::options::{ChangeStreamOptions, ReadPreference, SelectionCriteria};
use mongodb::{Client, ClientSession, Database};

use crate::operations::{self, Operations};
use crate::{Failure, PATIENCE, heard, say};

/// Counts what streams send, and what of it fails; notes the latest cursor.
#[derive(Clone, Default)]
pub(crate) struct Commands(Arc<Counts>);

#[derive(Default)]
struct Counts {
    streams: AtomicI32,
    failed_get_mores: AtomicI32,
    cursor: AtomicI64,
}

impl Commands {
    pub(crate) fn note(&self, event: &CommandEvent) {
        match event {
            CommandEvent::Started(started) => {
                let first = started
                    .command
                    .get_array("pipeline")
                    .ok()
                    .and_then(|stages| stages.first());
                if first
                    .and_then(Bson::as_document)
                    .is_some_and(|stage| stage.contains_key("$changeStream"))
                {
                    self.0.streams.fetch_add(1, Ordering::Relaxed);
                }
                if let Ok(cursor) = started.command.get_i64("getMore") {
                    self.0.cursor.store(cursor, Ordering::Relaxed);
                }
            }
            CommandEvent::Failed(failed) if failed.command_name == "getMore" => {
                self.0.failed_get_mores.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    fn failed_get_mores(&self) -> i32 {
        self.0.failed_get_mores.load(Ordering::Relaxed)
    }
}

/// A stream, with its session where one was given.
enum Stream {
    Plain(Box<ChangeStream<Document>>),
    InSession(Box<SessionChangeStream<Document>>, Box<ClientSession>),
}

impl Stream {
    async fn try_next(&mut self) -> mongodb::error::Result<Option<Document>> {
        match self {
            Self::Plain(stream) => stream.next_if_any().await,
            Self::InSession(stream, session) => stream.next_if_any(session).await,
        }
    }

    fn is_alive(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_alive(),
            Self::InSession(stream, _) => stream.is_alive(),
        }
    }
}

/// One scenario, and how far it is.
pub(crate) struct Run<'a> {
    client: &'a Client,
    commands: &'a Commands,
    database: Database,
    scenario: &'a Document,
    stream: Option<Stream>,
    seen: usize,
    error: Option<i32>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        client: &'a Client,
        commands: &'a Commands,
        database: &str,
        scenario: &'a Document,
    ) -> Self {
        Self {
            client,
            commands,
            database: client.database(database),
            scenario,
            stream: None,
            seen: 0,
            error: None,
        }
    }

    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        let start = self.find_start().await?;
        self.change(&operations::list(self.scenario, "missed")).await?;
        self.commands.0.streams.store(0, Ordering::Relaxed);
        let opened = self.open(&start).await;
        self.stream = self.attempt(opened)?;
        say(doc! { "ready": start })?;
        heard()?;
        for operation in operations::list(self.scenario, "operations") {
            self.happen(&operation).await?;
        }
        let count = expected(self.scenario);
        self.read_while(|run| run.seen < count).await?;
        let resumes = self.commands.0.streams.load(Ordering::Relaxed) - 1;
        say(doc! { "done": { "error": self.error, "resumes": resumes, "alive": self.is_alive() } })
    }

    async fn change(&self, operations: &[Document]) -> Result<(), Failure> {
        let mut to = Operations {
            client: self.client,
            database: &self.database,
            session: None,
        };
        to.run(operations).await
    }

    /// What happens to the data, or to the stream.
    async fn happen(&mut self, operation: &Document) -> Result<(), Failure> {
        if let Ok(read) = operation.get_document("read") {
            let count = operations::number(read, "events")?;
            return self.read_while(|run| run.seen < count).await;
        }
        if let Ok(given) = operation.get_document("failGetMore") {
            return self.fail_get_more(given.get_document("data")?).await;
        }
        if operation.contains_key("killCursor") {
            return self.kill_cursor().await;
        }
        self.change(std::slice::from_ref(operation)).await
    }

    /// Where the stream begins, as an option of watch; `before` has happened by then.
    async fn find_start(&self) -> Result<Document, Failure> {
        let before = operations::list(self.scenario, "before");
        let Ok(wanted) = self.scenario.get_document("start") else {
            self.change(&before).await?;
            return Ok(doc! {});
        };
        let (option, index) = wanted.iter().next().ok_or("an empty start")?;
        if option == "startAtOperationTime" {
            self.change(&before).await?;
            let now = self
                .client
                .database("admin")
                .run_command(doc! { "ping": 1 })
                .await?;
            let now = now.get_timestamp("operationTime")?;
            let after = Timestamp {
                time: now.time,
                increment: now.increment + 1,
            };
            return Ok(doc! { "startAtOperationTime": after });
        }
        let index = operations::whole(index).ok_or("an event's number")?;
        let mut stream = self.watch(&doc! { "maxAwaitTimeMS": 100 }, None).await?;
        self.change(&before).await?;
        let (end, mut events) = (Instant::now() + PATIENCE, Vec::new());
        while events.len() <= index {
            events.extend(stream.try_next().await?);
            if Instant::now() > end {
                return Err("the events to start after do not come".into());
            }
        }
        Ok(doc! { option: events.swap_remove(index).get_document("_id")?.clone() })
    }

    async fn open(&self, start: &Document) -> mongodb::error::Result<Stream> {
        let mut options = self.watched();
        options.extend(start.clone());
        if !options.contains_key("maxAwaitTimeMS") {
            options.insert("maxAwaitTimeMS", 50);
        }
        let session = match self.watched().get_bool("session") {
            Ok(true) => Some(self.client.start_session().await?),
            _ => None,
        };
        self.watch(&options, session).await
    }

    /// What is watched, and the options.
    fn watched(&self) -> Document {
        self.scenario.get_document("watch").cloned().unwrap_or_default()
    }

    async fn watch(
        &self,
        options: &Document,
        session: Option<ClientSession>,
    ) -> mongodb::error::Result<Stream> {
        let watched = self.watched();
        let collection = watched.get_str("collection").unwrap_or("c");
        let collection = self.database.collection::<Document>(collection);
        let watch = match watched.get_str("scope") {
            Ok("collection") => collection.watch(),
            Ok("database") => self.database.watch(),
            _ => self.client.watch(),
        };
        let pipeline: Vec<Document> = operations::list(options, "pipeline");
        let watch = watch.pipeline(pipeline).with_options(stream_options(options)?);
        match session {
            None => Ok(Stream::Plain(Box::new(watch.await?.with_type()))),
            Some(mut session) => {
                let stream = watch.session(&mut session).await?.with_type();
                Ok(Stream::InSession(Box::new(stream), Box::new(session)))
            }
        }
    }

    /// Reads while that holds and the stream lives.
    async fn read_while(&mut self, goes_on: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let end = Instant::now() + PATIENCE;
        while goes_on(self) && self.error.is_none() {
            let Some(stream) = &mut self.stream else {
                return Ok(());
            };
            let next = stream.try_next().await;
            match self.attempt(next)?.flatten() {
                Some(event) => {
                    self.seen += 1;
                    say(doc! { "event": event })?;
                }
                // One that has ended may still hold events of its last batch.
                None if !self.is_alive() => return Ok(()),
                None if Instant::now() > end => return Err(format!("{} events only", self.seen).into()),
                None => {}
            }
        }
        Ok(())
    }

    fn is_alive(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::is_alive)
    }

    /// A server's error is a result; anything else, a failure.
    fn attempt<T>(&mut self, result: Result<T, Error>) -> Result<Option<T>, Failure> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => match *error.kind {
                ErrorKind::Command(ref refusal) => {
                    self.error = Some(refusal.code);
                    Ok(None)
                }
                _ => Err(error.into()),
            },
        }
    }

    /// Makes one getMore of each client fail, and lets both resume.
    async fn fail_get_more(&mut self, data: &Document) -> Result<(), Failure> {
        let failures = self.commands.failed_get_mores() + 1;
        self.fail_point(data, "driver").await?;
        self.read_while(|run| run.commands.failed_get_mores() < failures)
            .await?;
        say(doc! { "catchUp": "tail has the same events" })?;
        heard()?;
        self.fail_point(data, "tail").await?;
        say(doc! { "wait": "tail resumes" })?;
        heard()?;
        Ok(())
    }

    async fn fail_point(&self, data: &Document, app_name: &str) -> Result<(), Failure> {
        let mut given = doc! { "failCommands": ["getMore"], "appName": app_name };
        given.extend(data.clone());
        let command = doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": given };
        self.client.database("admin").run_command(command).await?;
        Ok(())
    }

    /// Kills the stream's cursor behind its back.
    async fn kill_cursor(&mut self) -> Result<(), Failure> {
        let failures = self.commands.failed_get_mores() + 1;
        let cursor = self.commands.0.cursor.load(Ordering::Relaxed);
        let watched = self.watched();
        let collection = watched.get_str("collection").unwrap_or("c");
        self.database
            .run_command(doc! { "killCursors": collection, "cursors": [cursor] })
            .await?;
        self.read_while(|run| run.commands.failed_get_mores() < failures)
            .await
    }
}

fn stream_options(given: &Document) -> mongodb::error::Result<ChangeStreamOptions> {
    let mut options = given.clone();
    for ours in [
        "scope",
        "collection",
        "pipeline",
        "session",
        "maxAwaitTimeMS",
        "readPreference",
    ] {
        options.remove(ours);
    }
    let mut options: ChangeStreamOptions = mongodb::bson::deserialize_from_document(options)?;
    let millis = given.get("maxAwaitTimeMS").and_then(operations::whole);
    options.max_await_time = millis.map(|millis| Duration::from_millis(millis as u64));
    if given
        .get_str("readPreference")
        .is_ok_and(|mode| mode == "secondary")
    {
        let preference = ReadPreference::Secondary { options: None };
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(preference));
    }
    Ok(options)
}

/// How many events to read; where an error is to follow, one more.
fn expected(scenario: &Document) -> usize {
    let count = match scenario.get("events") {
        Some(Bson::Document(counts)) => counts.values().filter_map(operations::whole).sum(),
        Some(Bson::Array(kinds)) => kinds.len(),
        _ => 0,
    };
    count + usize::from(scenario.contains_key("error"))
}
