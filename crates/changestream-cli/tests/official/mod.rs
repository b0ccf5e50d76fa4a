//! Scenarios that an official driver and `changestream tail` both live through: they must see the same.
//!
//! What a scenario consists of, and how the driver's script is talked to, stands in `tests/drivers/README.md`.

mod child;
mod scenario;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use child::Running;
use scenario::{Scenario, exit_code_of};
use serde_json::{Value, json};

/// A simulated deployment, and how clients log in to it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Server {
    pub(crate) version: &'static str,
    /// The mechanism by which clients prove the password; empty: they negotiate; none: no authentication.
    pub(crate) mechanism: Option<&'static str>,
    /// Whether all of it goes through TLS, trusted by the authority's file.
    pub(crate) tls: bool,
    /// What clients compress by.
    pub(crate) compressors: Option<&'static str>,
    /// Only the scenarios whose names contain one of these; all, if empty.
    pub(crate) only: &'static [&'static str],
    /// Without the scenarios that take long, which are much the same on all versions.
    pub(crate) quick: bool,
    /// A sharded cluster, which alone knows the scenarios about shards.
    pub(crate) sharded: bool,
    /// Scenarios that the driver does not live through as they are written, by name, each with the reason.
    pub(crate) without: &'static [(&'static str, &'static str)],
}

impl Server {
    /// All scenarios.
    pub(crate) fn of(version: &'static str) -> Self {
        Self {
            version,
            ..Self::default()
        }
    }

    /// All that do not take long.
    pub(crate) fn quick(version: &'static str) -> Self {
        Self {
            quick: true,
            ..Self::of(version)
        }
    }

    /// A cluster of two shards, with the scenarios about transactions and about shards.
    pub(crate) fn sharded(version: &'static str) -> Self {
        Self {
            sharded: true,
            only: &["transaction", "shard"],
            ..Self::quick(version)
        }
    }

    /// Each scope, and a step-down, with a password: by either mechanism, and by the negotiated one.
    pub(crate) fn with_passwords() -> [Self; 3] {
        ["SCRAM-SHA-256", "SCRAM-SHA-1", ""].map(|mechanism| Self {
            mechanism: Some(mechanism),
            only: SOME,
            ..Self::quick("7.0")
        })
    }

    /// The same through TLS, compressed if compressors are named.
    pub(crate) fn with_tls(compressors: Option<&'static str>) -> Self {
        Self {
            tls: true,
            compressors,
            only: SOME,
            ..Self::quick("7.0")
        }
    }
}

/// Each scope, and a step-down.
const SOME: &[&str] = &[
    "every kind of write",
    "a database stream tells",
    "a cluster stream",
    "step-down",
];

/// Runs the scenarios that this server version knows; every one that differs is told of.
pub(crate) fn compare(driver: impl Fn() -> Command, server: Server) {
    let (_deployment, uri) = deployment(server);
    let uri = with_options(&uri, server);
    let start_script = || {
        let mut command = driver();
        command.arg(&uri);
        Running::start("the driver's script", command)
    };
    let mut script = start_script();
    let (mut same, mut failures) = (0, Vec::new());
    let scenarios = scenario::all();
    for (name, _) in server.without {
        assert!(
            scenarios.iter().any(|s| s.name() == *name),
            "no scenario is called {name:?}"
        );
    }
    for (number, scenario) in scenarios.iter().enumerate() {
        let wanted = server.only.is_empty() || server.only.iter().any(|part| scenario.name().contains(part));
        let here = server.sharded || !scenario.is_sharded();
        if !wanted || !here || !scenario.is_known_to(server.version) || (scenario.is_slow() && server.quick) {
            continue;
        }
        if let Some((name, reason)) = server.without.iter().find(|(name, _)| *name == scenario.name()) {
            say(&format!("left out: {name}: {reason}"));
            continue;
        }
        let begun = Instant::now();
        let outcome = Comparison {
            scenario,
            uri: format!("{uri}&appName=tail"),
            database: &format!("s{number}"),
            script: &mut script,
        }
        .run();
        println!("{}: {} ({:?})", server.version, scenario.name(), begun.elapsed());
        match outcome {
            Ok(()) => same += 1,
            Err(what) => {
                failures.push(format!("{}: {}: {what}", server.version, scenario.name()));
                script = start_script();
            }
        }
    }
    println!("server {}: {same} scenarios with the same events", server.version);
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    assert!(same > 0, "no scenario was run");
}

/// Tells people, also of a test that passes: the test harness keeps what is printed by macros to itself.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The folder of the drivers' scripts, `tests/drivers`.
pub(crate) fn drivers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/drivers")
}

fn changestream() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_changestream"));
    command.env_remove("CHANGESTREAM_URI");
    command
}

fn deployment(server: Server) -> (Running, String) {
    let mut command = changestream();
    command.args(["sim", "--server-version", server.version]);
    if server.sharded {
        command.args(["--sharded", "--noop-interval-ms", "50"]);
    }
    if server.mechanism.is_some() {
        command
            .args(["--user", USER])
            .env("CHANGESTREAM_SIM_PASSWORD", PASSWORD);
    }
    if server.tls {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the target folder can be written to");
        command.args(["--tls", "--tls-folder"]).arg(folder);
    }
    let running = Running::start("the deployment", command);
    let mut uri = running.text().expect("the deployment names its address");
    if server.mechanism.is_some() {
        uri = uri.replacen("mongodb://", &format!("mongodb://{USER}:{PASSWORD}@"), 1);
    }
    (running, uri)
}

fn with_options(uri: &str, server: Server) -> String {
    let joint = if uri.contains('?') { '&' } else { '?' };
    let mut uri = format!("{uri}{joint}retryWrites=true");
    if let Some(mechanism) = server.mechanism.filter(|name| !name.is_empty()) {
        uri = format!("{uri}&authMechanism={mechanism}");
    }
    if let Some(compressors) = server.compressors {
        uri = format!("{uri}&compressors={compressors}");
    }
    uri
}

/// One scenario, lived through by both.
struct Comparison<'a> {
    scenario: &'a Scenario,
    uri: String,
    database: &'a str,
    script: &'a mut Running,
}

impl Comparison<'_> {
    fn run(&mut self) -> Result<(), String> {
        self.script
            .say(&json!({ "scenario": self.scenario.json(), "database": self.database }));
        let ready = self.hear()?;
        let Some(start) = ready.get("ready") else {
            return Err(failure(&ready));
        };
        let mut tail = Tail::start(self.tail(start));
        self.script.say(&json!({ "go": true }));
        let mut events = Vec::new();
        let done = loop {
            let line = self.hear()?;
            if let Some(event) = line.get("event") {
                events.push(event.clone());
            } else if line.get("catchUp").is_some() {
                tail.read_until_events(events.len());
                self.script.say(&json!({ "go": true }));
            } else if line.get("wait").is_some() {
                tail.read_until_resumed();
                self.script.say(&json!({ "go": true }));
            } else if let Some(done) = line.get("done") {
                break done.clone();
            } else {
                return Err(failure(&line));
            }
        };
        let code = tail.read_to_end();
        same_events(&events, &tail.events)
            .map_err(|what| format!("{what}\nthe driver ended with {done}, tail with {code:?}"))?;
        self.judge(&events, &done, tail.resumes, code)
    }

    /// Whether what both saw is what was to be seen.
    fn judge(&self, events: &[Value], done: &Value, resumes: u64, code: Option<i32>) -> Result<(), String> {
        let kinds: Vec<Value> = events
            .iter()
            .map(|event| event["operationType"].clone())
            .collect();
        if !self.scenario.events().is_met_by(&kinds) {
            return Err(format!("these events were not expected: {}", Value::from(kinds)));
        }
        let expected = self.scenario.error();
        let error = done["error"].get("$numberInt").and_then(Value::as_str);
        if error != expected.map(|code| code.to_string()).as_deref() {
            return Err(format!(
                "error {expected:?} was expected; the driver says {}",
                done["error"]
            ));
        }
        if code != Some(expected.map_or(0, exit_code_of)) {
            return Err(format!(
                "error {expected:?} was expected; tail ended with {code:?}"
            ));
        }
        let driver = done["resumes"]["$numberInt"]
            .as_str()
            .and_then(|n| n.parse().ok());
        let expected = self.scenario.resumes();
        if (driver, resumes) != (Some(expected.0), expected.1) {
            return Err(format!(
                "the driver resumed {driver:?} times, tail {resumes} times; expected {expected:?}"
            ));
        }
        if self.scenario.ends() && done["alive"] != false {
            return Err("the driver's stream is still alive".to_owned());
        }
        Ok(())
    }

    fn hear(&self) -> Result<Value, String> {
        let line = self.script.line();
        line.ok_or_else(|| "the driver's script ended, see standard error".to_owned())
    }

    /// `tail` with the scenario's options.
    fn tail(&self, start: &Value) -> Command {
        let watch = self.scenario.watch();
        let mut command = changestream();
        command.args(["tail", &self.uri, "--format", "canonical", "--updates"]);
        command.args([
            "--max-await-ms",
            &watch
                .get("maxAwaitTimeMS")
                .map_or_else(|| "50".to_owned(), Value::to_string),
        ]);
        let scope = watch["scope"].as_str().unwrap_or_default();
        if scope != "cluster" {
            command.args(["--db", self.database]);
        }
        if scope == "collection" {
            command.args([
                "--coll",
                watch.get("collection").and_then(Value::as_str).unwrap_or("c"),
            ]);
        }
        let texts = [
            ("fullDocument", "--full-document"),
            ("fullDocumentBeforeChange", "--full-document-before-change"),
            ("batchSize", "--batch-size"),
            ("readPreference", "--read-preference"),
            ("pipeline", "--pipeline"),
        ];
        for (name, flag) in texts {
            if let Some(value) = watch.get(name) {
                command.args([
                    flag,
                    &value.as_str().map_or_else(|| value.to_string(), str::to_owned),
                ]);
            }
        }
        if watch.get("showExpandedEvents").is_some() {
            command.arg("--show-expanded-events");
        }
        for (name, flag) in [("resumeAfter", "--resume-after"), ("startAfter", "--start-after")] {
            if let Some(token) = start.get(name) {
                command.args([flag, &token.to_string()]);
            }
        }
        if let Some(time) = start.get("startAtOperationTime") {
            let time = &time["$timestamp"];
            command.args(["--start-at", &format!("{},{}", time["t"], time["i"])]);
        }
        // A stream that does not end by itself ends after its events.
        if !self.scenario.ends() && !self.scenario.events().is_empty() && self.scenario.error().is_none() {
            command.args(["--max-events", &self.scenario.events().len().to_string()]);
        }
        command
    }
}

/// `changestream tail`, watching.
struct Tail {
    running: Running,
    events: Vec<Value>,
    resumes: u64,
}

impl Tail {
    /// Comes back when the stream is open, or has failed.
    fn start(mut command: Command) -> Self {
        command.stderr(Stdio::null());
        let mut tail = Self {
            running: Running::start("tail", command),
            events: Vec::new(),
            resumes: 0,
        };
        tail.read();
        tail
    }

    /// Takes a line in; false at the end.
    fn read(&mut self) -> bool {
        let Some(line) = self.running.line() else {
            return false;
        };
        match line["update"].as_str() {
            None => self.events.push(line),
            Some("resumed") => self.resumes += 1,
            Some(_) => {}
        }
        true
    }

    fn read_until_events(&mut self, count: usize) {
        while self.events.len() < count && self.read() {}
    }

    fn read_until_resumed(&mut self) {
        let before = self.resumes;
        while self.resumes == before && self.read() {}
    }

    fn read_to_end(&mut self) -> Option<i32> {
        while self.read() {}
        self.running.exit_code()
    }
}

fn same_events(theirs: &[Value], ours: &[Value]) -> Result<(), String> {
    for (number, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
        // As text: the order of the keys is part of an event.
        let (theirs, ours) = (theirs.to_string(), ours.to_string());
        if theirs != ours {
            return Err(format!(
                "event {number} differs:\ndriver {theirs:.2000}\ntail   {ours:.2000}"
            ));
        }
    }
    if theirs.len() == ours.len() {
        return Ok(());
    }
    let more = theirs.get(ours.len()).or_else(|| ours.get(theirs.len()));
    Err(format!(
        "the driver saw {} events, tail {}; the first that one of them lacks is {:.2000}",
        theirs.len(),
        ours.len(),
        more.map(Value::to_string).unwrap_or_default(),
    ))
}

fn failure(line: &Value) -> String {
    line["failed"]
        .as_str()
        .map_or_else(|| format!("unexpected: {line}"), str::to_owned)
}

const USER: &str = "alice";
const PASSWORD: &str = "pencil";
