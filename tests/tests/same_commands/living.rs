//! A scenario lived through by one client, at a deployment of its own.

use bson::{Bson, Document, doc};
use changestream_sim::{CommandRecord, Config, Deployment, RunningDeployment};
use changestream_tests::writer;
use serde_json::{Value, json};

use crate::scenario::{Scenario, Step};
use crate::shown::{Shower, Shown};

/// A driver with one stream at a time.
pub(crate) trait Client {
    /// The application's name in its handshakes.
    fn name(&self) -> &'static str;
    /// Opens a stream and tries to read from it once.
    fn open(&mut self, options: &Value) -> Answer;
    fn try_next(&mut self) -> Answer;
    fn next(&mut self) -> Answer;
    fn close(&mut self) -> Answer;
    /// Ends the client, after which it sends nothing any more.
    fn end(&mut self);
}

/// What comes of a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// An event, as canonical Extended JSON.
    Event(Value),
    Nothing,
    /// The stream is over.
    End,
    Closed,
    /// The server's code, if it is a server's error.
    Error(Option<i64>),
    /// The client's side of the test does not work.
    Broken(String),
}

/// What a client saw, and what its deployment saw of it.
#[derive(Debug)]
pub(crate) struct Lived {
    /// In short.
    pub(crate) answers: Vec<String>,
    pub(crate) commands: Vec<Shown>,
}

/// Lives through a scenario.
pub(crate) fn live(
    scenario: &Scenario,
    version: &str,
    client: impl FnOnce(&str) -> Box<dyn Client>,
) -> Result<Lived, String> {
    let deployment = config(scenario.is_sharded, version)
        .start()
        .map_err(|error| error.to_string())?;
    writer::run(&deployment, &doc! { "create": "orders", "$db": "shop" });
    let first_primary = deployment.primary().filter(|_| !scenario.is_sharded);
    let mut life = Life {
        client: client(&deployment.uri()),
        deployment,
        tokens: Vec::new(),
        answers: Vec::new(),
    };
    for step in &scenario.steps {
        life.take(step)?;
    }
    life.client.end();
    let records = life.records();
    let mut shower = Shower::new(&life.tokens, first_primary);
    Ok(Lived {
        commands: records.iter().map(|record| shower.show(record)).collect(),
        answers: life.answers,
    })
}

fn config(is_sharded: bool, version: &str) -> Config {
    let config = if is_sharded {
        // An idle shard holds the others' events back until it writes something.
        Deployment::sharded(2, 1).noop_interval(std::time::Duration::from_millis(20))
    } else {
        Deployment::replica_set(3)
    };
    config.server_version(version)
}

struct Life {
    client: Box<dyn Client>,
    deployment: RunningDeployment,
    /// The tokens of the events that were seen, in order.
    tokens: Vec<Value>,
    answers: Vec<String>,
}

impl Life {
    fn take(&mut self, step: &Step) -> Result<(), String> {
        let answer = match step {
            Step::Open(options) => {
                let options = self.resolved(options);
                self.client.open(&options)
            }
            Step::TryNext => self.client.try_next(),
            Step::Next => self.client.next(),
            Step::Close => self.client.close(),
            Step::Insert(first, end) => {
                writer::insert(&self.deployment, "shop", "orders", *first..*end);
                return Ok(());
            }
            Step::Drop => {
                writer::run(&self.deployment, &doc! { "drop": "orders", "$db": "shop" });
                return Ok(());
            }
            Step::Fail(data) => return self.fail(data),
            Step::KillCursor => {
                let last = self.last("getMore").ok_or("there is no cursor yet")?;
                let id = last.body.get_i64("getMore").map_err(|error| error.to_string())?;
                self.deployment.kill_cursor(last.member, id);
                return Ok(());
            }
            Step::PrimaryLeaves => {
                self.deployment.step_down();
                return Ok(());
            }
        };
        let shown = match answer {
            Answer::Event(event) => {
                self.tokens.push(event["_id"].clone());
                format!("{} {}", event["operationType"], event["documentKey"])
            }
            Answer::Nothing => "nothing".to_owned(),
            Answer::End => "the end".to_owned(),
            Answer::Closed => "closed".to_owned(),
            Answer::Error(code) => format!("error {code:?}"),
            Answer::Broken(reason) => return Err(reason),
        };
        self.answers.push(shown);
        Ok(())
    }

    /// The options with tokens and times in the place of what stands for them.
    fn resolved(&self, options: &Value) -> Value {
        let mut options = options.clone();
        for name in ["resumeAfter", "startAfter"] {
            if let Some(number) = options[name].as_u64() {
                options[name] = self.tokens[usize::try_from(number).unwrap() - 1].clone();
            }
        }
        if options["startAtOperationTime"] == true {
            let now = writer::run(&self.deployment, &doc! { "ping": 1, "$db": "admin" });
            let now = now.get_timestamp("operationTime").unwrap();
            options["startAtOperationTime"] =
                json!({ "$timestamp": { "t": now.time, "i": now.increment + 1 } });
        }
        options
    }

    /// Makes the client's next command fail: at the server that it used last, or at the one that takes writes.
    fn fail(&self, data: &Value) -> Result<(), String> {
        let member = self
            .records()
            .last()
            .map(|record| record.member)
            .or_else(|| self.deployment.primary())
            .unwrap_or(0);
        let Ok(Bson::Document(mut data)) = Bson::try_from(data.clone()) else {
            return Err("a failure is a document".to_owned());
        };
        let times = data.remove("times").unwrap_or(Bson::Int32(1));
        data.insert("appName", self.client.name());
        if !data.contains_key("failCommands") {
            data.insert("failCommands", ["getMore"]);
        }
        let command = doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data };
        self.deployment
            .fail_command(member, &command)
            .map_err(|error| error.to_string())
    }

    /// The commands of the client's streams.
    fn records(&self) -> Vec<CommandRecord> {
        let is_of_a_stream = |record: &CommandRecord| {
            record.app_name.as_deref() == Some(self.client.name())
                && ["aggregate", "getMore", "killCursors"].contains(&record.name.as_str())
        };
        let mut records = self.deployment.commands();
        records.retain(is_of_a_stream);
        records
    }

    fn last(&self, name: &str) -> Option<CommandRecord> {
        self.records()
            .into_iter()
            .rev()
            .find(|record| record.name == name)
    }
}

/// A document of Extended JSON.
pub(crate) fn document(value: &Value) -> Document {
    match Bson::try_from(value.clone()) {
        Ok(Bson::Document(document)) => document,
        other => panic!("no document: {other:?}"),
    }
}
