//! This client.

use std::time::Duration;

use bson::{Bson, Document, doc};
use changestream_blocking::{ChangeEvent, ChangeStream, Client, Error, ReadConcern, ReadPreference};
use changestream_core::command::CommandOptions;
use changestream_core::{ReadPreferenceMode, ResumeToken, Scope, WatchOptions};
use serde_json::Value;

use crate::living::{self, Answer, document};

/// A blocking client that fetches nothing ahead, as the drivers do.
pub(crate) struct Ours {
    client: Client,
    stream: Option<ChangeStream>,
}

impl Ours {
    pub(crate) fn new(uri: &str) -> Self {
        let joint = if uri.contains('?') { '&' } else { '?' };
        Self {
            client: Client::new(format!("{uri}{joint}appName={NAME}")).unwrap(),
            stream: None,
        }
    }

    fn opened(&self, given: &Value) -> Result<ChangeStream, Error> {
        let (scope, options) = self.options(given);
        let watch = match scope {
            Scope::Collection { database, collection } => {
                self.client.collection(database, collection).watch()
            }
            Scope::Database { database } => self.client.database(database).watch(),
            Scope::Cluster => self.client.watch(),
        };
        watch.options(options).open()
    }

    fn options(&self, given: &Value) -> (Scope, WatchOptions) {
        let mut options = WatchOptions::default();
        options.prefetch_batches = 0;
        let mut scope = Scope::Cluster;
        for (name, value) in given.as_object().unwrap() {
            let text = || value.as_str().unwrap();
            match name.as_str() {
                "scope" => scope = scope_named(text()),
                "pipeline" => options.pipeline = value.as_array().unwrap().iter().map(document).collect(),
                "fullDocument" => options.full_document = Some(text().into()),
                "fullDocumentBeforeChange" => options.full_document_before_change = Some(text().into()),
                "showExpandedEvents" => options.show_expanded_events = value.as_bool(),
                "batchSize" => options.batch_size = Some(value.as_u64().unwrap().try_into().unwrap()),
                "maxAwaitTimeMS" => {
                    options.max_await_time = Some(Duration::from_millis(value.as_u64().unwrap()));
                }
                "collation" => options.collation = Some(document(value)),
                "comment" => options.comment = Some(Bson::try_from(value.clone()).unwrap()),
                "readConcern" => options.read_concern = Some(ReadConcern::new(text())),
                "readPreference" => {
                    let mode = ReadPreferenceMode::from_name(text()).unwrap();
                    options.read_preference = Some(ReadPreference::new(mode));
                }
                "resumeAfter" => options.resume_after = Some(token(value)),
                "startAfter" => options.start_after = Some(token(value)),
                "startAtOperationTime" => {
                    options.start_at_operation_time = Bson::try_from(value.clone()).unwrap().as_timestamp();
                }
                "session" => {
                    let session = self.client.start_session().unwrap();
                    if value == "used" {
                        let mut with = CommandOptions::default();
                        with.session = Some(session.clone());
                        let admin = self.client.database("admin");
                        admin.run_command_with(doc! { "ping": 1 }, with).unwrap();
                    }
                    options.session = Some(session);
                }
                other => panic!("no option is called {other}"),
            }
        }
        (scope, options)
    }

    fn stream(&mut self) -> &mut ChangeStream {
        self.stream.as_mut().expect("a stream has been opened")
    }
}

impl living::Client for Ours {
    fn name(&self) -> &'static str {
        NAME
    }

    fn open(&mut self, options: &Value) -> Answer {
        match self.opened(options) {
            Ok(stream) => {
                self.stream = Some(stream);
                self.try_next()
            }
            Err(error) => failed(&error),
        }
    }

    fn try_next(&mut self) -> Answer {
        match self.stream().try_next() {
            Ok(Some(event)) => happened(&event),
            Ok(None) => Answer::Nothing,
            Err(error) => failed(&error),
        }
    }

    fn next(&mut self) -> Answer {
        match Iterator::next(self.stream()) {
            Some(Ok(event)) => happened(&event),
            Some(Err(error)) => failed(&error),
            None => Answer::End,
        }
    }

    fn close(&mut self) -> Answer {
        // A stream that has failed says so once more.
        let _ended = self.stream().close();
        Answer::Closed
    }

    fn end(&mut self) {
        self.stream = None;
    }
}

fn scope_named(name: &str) -> Scope {
    let database = "shop".to_owned();
    match name {
        "collection" => Scope::Collection {
            database,
            collection: "orders".to_owned(),
        },
        "database" => Scope::Database { database },
        _ => Scope::Cluster,
    }
}

fn token(value: &Value) -> ResumeToken {
    document(value).try_into().unwrap()
}

fn happened(event: &ChangeEvent) -> Answer {
    let event: Document = event.decode().unwrap();
    Answer::Event(Bson::Document(event).into_canonical_extjson())
}

fn failed(error: &Error) -> Answer {
    Answer::Error(error.code().map(i64::from))
}

const NAME: &str = "ours";
