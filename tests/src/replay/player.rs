//! Runs a client machine through a recorded stream and compares what it delivers with what the recorded client
//! delivered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Bson, Document};
use changestream_core::client::{ClientMachine, ClientSettings, Demand, Input};
use changestream_core::connection::ClientMetadata;
use changestream_core::random::Random;
use changestream_core::{ConnectionString, Error, Update};

use super::Peer;
use super::world::{Progress, World};
use crate::capture::{Entry, ExpectedError, Scenario};
use crate::recorded_stream::{RecordedStream, exchanges, streams};

/// Plays every stream of a scenario with a client machine of its own; the seed decides where bytes are cut, and all
/// that the machines choose at random. Empty if all is as recorded, else what is not, a line each.
pub fn play(scenario: &Scenario, seed: [u8; 32], epoch: Instant) -> Vec<String> {
    let mut random = Random::new(seed);
    let mut failures = Vec::new();
    for (index, stream) in streams(scenario).iter().enumerate() {
        let mut fail = |why: String| failures.push(format!("stream {index}: {why}"));
        let mut machine_seed = [0; 32];
        random.fill(&mut machine_seed);
        match machine(scenario, stream, machine_seed, epoch) {
            Ok(machine) => {
                let world = World::new(machine, Peer::new(scenario, stream), random.fork(), epoch);
                let mut player = Player {
                    world,
                    failures: Vec::new(),
                    place: "opening".to_owned(),
                };
                player.run(stream);
                player.failures.into_iter().for_each(fail);
            }
            Err(error) => fail(format!("cannot be set up: {error}")),
        }
    }
    failures
}

fn machine(
    scenario: &Scenario,
    stream: &RecordedStream,
    seed: [u8; 32],
    epoch: Instant,
) -> Result<ClientMachine, Error> {
    let parsed: ConnectionString = uri(scenario).parse()?;
    let settings = ClientSettings::new(parsed.options, ClientMetadata::default())?;
    ClientMachine::new(
        Arc::new(settings),
        None,
        &stream.scope(),
        stream.options(),
        seed,
        epoch,
    )
}

/// Why a scenario cannot be played against a client machine yet; none if it can.
pub fn waits_for(scenario: &Scenario) -> Option<&'static str> {
    let raw = streams(scenario).iter().any(RecordedStream::is_exhaust);
    raw.then_some("a raw connection: its client reads by exhaust")
}

/// The connection string by which a client reaches the recorded deployment as the recorded client did: directly,
/// unless the members' own addresses are what was dialled. User and password come from the first mark.
pub fn uri(scenario: &Scenario) -> String {
    let mut members: Vec<u16> = scenario.records.iter().map(|record| record.member).collect();
    members.sort_unstable();
    members.dedup();
    let hosts: Vec<String> = members.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let hello = exchanges(scenario).into_iter().find_map(|exchange| {
        let reply = exchange.reply()?;
        Some((
            reply.get_str("setName").ok()?.to_owned(),
            reply.get_array("hosts").ok()?.clone(),
        ))
    });
    let set = hello.filter(|(_, known)| {
        hosts
            .iter()
            .all(|host| known.contains(&Bson::from(host.as_str())))
    });
    let reached = match set {
        Some((name, _)) => format!("replicaSet={name}"),
        None => "directConnection=true".to_owned(),
    };
    let mark = scenario.log.iter().find_map(|entry| match entry {
        Entry::Mark(mark) => mark.as_document(),
        Entry::Event { .. } | Entry::Idle { .. } | Entry::Error(_) => None,
    });
    let text = |key: &str| mark.and_then(|mark| mark.get_str(key).ok()).unwrap_or_default();
    let credential = match text("user") {
        "" => String::new(),
        user => format!("{}:{}@", percent_encoded(user), percent_encoded(text("password"))),
    };
    let compressors: Vec<&str> = scenario.compressors().iter().map(|c| c.as_str()).collect();
    let compression = match &compressors[..] {
        [] => String::new(),
        names => format!("&compressors={}", names.join(",")),
    };
    format!(
        "mongodb://{credential}{}/?{reached}{compression}{}",
        hosts.join(","),
        text("options")
    )
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

struct Player<'a> {
    world: World<'a>,
    failures: Vec<String>,
    /// Where in the log it is.
    place: String,
}

/// How waiting for an update ended.
enum Got {
    Update(Update),
    Closed(Result<(), Error>),
    Nothing,
}

impl Player<'_> {
    fn run(&mut self, stream: &RecordedStream) {
        let mut end = self.open();
        for (index, entry) in stream.log.iter().enumerate() {
            self.place = format!("log entry {index}");
            match (entry, end.take()) {
                (Entry::Mark(mark), ended) => {
                    self.check_mark(mark);
                    end = ended;
                }
                (Entry::Error(expected), Some(Err(error))) => self.check_error(expected, &error),
                (_, Some(ended)) => {
                    self.fail(format!("ended with {ended:?} before"));
                    end = Some(ended);
                    break;
                }
                (Entry::Event { event, token }, None) => end = self.event(event, token.as_ref()),
                (Entry::Idle { token }, None) => end = self.idle(token.as_ref()),
                (Entry::Error(expected), None) => self.error(expected),
            }
        }
        let ended_by_error = stream.log.iter().any(|entry| matches!(entry, Entry::Error(_)));
        if end.is_none() && !ended_by_error {
            self.place = "closing".to_owned();
            self.close(stream);
        }
        let differences = self
            .world
            .peer
            .differences()
            .iter()
            .chain(self.world.peer.session_changes());
        self.failures
            .extend(differences.map(|difference| format!("our client {difference}")));
        if self.failures.is_empty() {
            let left = self.world.peer.left_over();
            self.failures
                .extend(left.into_iter().map(|left| format!("our client {left}")));
        }
    }

    /// Until the stream is open, as the recorded client opened it before anything was read.
    fn open(&mut self) -> Option<Result<(), Error>> {
        for _ in 0..MAX_STEPS {
            if self.world.machine.is_open() {
                return None;
            }
            match self.world.step() {
                Progress::Moved => {}
                Progress::Closed(end) => return Some(end),
                Progress::Update(update) => self.fail(format!("delivers without demand: {update:?}")),
                Progress::Stuck => break,
            }
        }
        self.fail("does not open".to_owned());
        Some(Ok(()))
    }

    fn event(&mut self, event: &Document, token: Option<&Bson>) -> Option<Result<(), Error>> {
        loop {
            match self.next(Demand::Next) {
                Got::Update(Update::Change(change)) => {
                    match Document::try_from(change.as_raw()) {
                        Ok(ours) if ours == *event => {}
                        ours => self.fail(format!("delivers {ours:?}, recorded is {event}")),
                    }
                    self.check_token(token);
                    return None;
                }
                // The recorded client may have waited over empty batches.
                Got::Update(Update::Idle(_)) if self.world.peer.last_batch() == Some(0) => {}
                Got::Update(Update::Resuming(_) | Update::Resumed { .. }) => {}
                Got::Update(other) => {
                    self.fail(format!("delivers {other:?} instead of an event"));
                    return Some(Ok(()));
                }
                Got::Closed(end) => {
                    self.fail(format!("ends with {end:?} instead of an event"));
                    return Some(end);
                }
                Got::Nothing => return Some(Ok(())),
            }
        }
    }

    fn idle(&mut self, token: Option<&Bson>) -> Option<Result<(), Error>> {
        if self.world.peer.is_exhausted() {
            // The recorded client returned nothing without asking the server.
            self.check_token(token);
            return None;
        }
        self.world.input(Input::Demand(Demand::TryNext));
        loop {
            match self.wait() {
                Got::Update(Update::Idle(idle)) => {
                    let told = idle
                        .token
                        .as_ref()
                        .and_then(|told| Bson::try_from(told.as_raw_bson()).ok());
                    if told.as_ref() != token {
                        self.fail(format!("idles at {told:?}, recorded is {token:?}"));
                    }
                    self.check_token(token);
                    return None;
                }
                Got::Update(Update::Resuming(_) | Update::Resumed { .. }) => {}
                Got::Update(other) => {
                    self.fail(format!("delivers {other:?}, recorded is nothing"));
                    return Some(Ok(()));
                }
                Got::Closed(end) => {
                    self.fail(format!("ends with {end:?}, recorded is nothing"));
                    return Some(end);
                }
                Got::Nothing => return Some(Ok(())),
            }
        }
    }

    fn error(&mut self, expected: &ExpectedError) {
        loop {
            match self.next(Demand::Next) {
                Got::Closed(Err(error)) => return self.check_error(expected, &error),
                Got::Update(Update::Idle(_)) if self.world.peer.last_batch() == Some(0) => {}
                Got::Update(Update::Resuming(_) | Update::Resumed { .. }) => {}
                Got::Update(other) => {
                    return self.fail(format!("delivers {other:?}, not an error"));
                }
                Got::Closed(Ok(())) => return self.fail("ends without an error".to_owned()),
                Got::Nothing => return,
            }
        }
    }

    /// After an invalidate event the stream ends by itself; else it is closed.
    fn close(&mut self, stream: &RecordedStream) {
        let invalidated = stream.log.iter().any(|entry| match entry {
            Entry::Event { event, .. } => event.get_str("operationType").ok() == Some("invalidate"),
            Entry::Idle { .. } | Entry::Error(_) | Entry::Mark(_) => false,
        });
        if invalidated {
            match self.next(Demand::Next) {
                Got::Update(Update::Invalidated { .. }) => {}
                Got::Update(other) => self.fail(format!("delivers {other:?} after an invalidate event")),
                Got::Closed(end) => {
                    return self.fail(format!("ends with {end:?} without saying that it is invalidated"));
                }
                Got::Nothing => return,
            }
        } else {
            let deadline = self.world.now() + Duration::from_secs(5);
            self.world.input(Input::Close { deadline });
        }
        match self.wait() {
            Got::Closed(Ok(())) => {}
            Got::Closed(Err(error)) => self.fail(format!("ends with {error} instead of in order")),
            Got::Update(update) => self.fail(format!("delivers {update:?} after its end")),
            Got::Nothing => {}
        }
    }

    fn next(&mut self, demand: Demand) -> Got {
        self.world.input(Input::Demand(demand));
        self.wait()
    }

    fn wait(&mut self) -> Got {
        for _ in 0..MAX_STEPS {
            match self.world.step() {
                Progress::Moved => {}
                Progress::Update(update) => return Got::Update(update),
                Progress::Closed(end) => return Got::Closed(end),
                Progress::Stuck => {
                    self.fail("waits for ever".to_owned());
                    return Got::Nothing;
                }
            }
        }
        self.fail(format!("has brought nothing after {MAX_STEPS} steps"));
        Got::Nothing
    }

    fn check_token(&mut self, expected: Option<&Bson>) {
        let token = self.world.machine.resume_token();
        let ours = token.and_then(|token| Bson::try_from(token.as_raw_bson()).ok());
        if ours.as_ref() != expected {
            self.fail(format!("resume token is {ours:?}, recorded is {expected:?}"));
        }
    }

    /// A mark that notes a token notes the stream's own at that moment.
    fn check_mark(&mut self, mark: &Bson) {
        let fields = mark.as_document().into_iter().flatten();
        for (_, value) in fields.filter(|(key, _)| key.starts_with("token")) {
            self.check_token(Some(value));
        }
    }

    fn check_error(&mut self, expected: &ExpectedError, error: &Error) {
        if error.code() != expected.code {
            return self.fail(format!("fails with {error}, recorded is {}", expected.message));
        }
        let Some(ours) = error.server_error() else {
            return;
        };
        if Some(&ours.code_name) != expected.code_name.as_ref() {
            self.fail(format!(
                "names the error {:?}, recorded is {:?}",
                ours.code_name, expected.code_name
            ));
        }
        if ours.labels != expected.labels {
            self.fail(format!(
                "labels the error {:?}, recorded is {:?}",
                ours.labels, expected.labels
            ));
        }
        let shorter = ours.message.len().min(expected.message.len());
        if ours.message.as_bytes()[..shorter] != expected.message.as_bytes()[..shorter] {
            self.fail(format!(
                "says {:?}, recorded is {:?}",
                ours.message, expected.message
            ));
        }
    }

    fn fail(&mut self, why: String) {
        self.failures.push(format!("{}: {why}", self.place));
    }
}

/// Far more than any recording needs: a machine that spins is found.
const MAX_STEPS: usize = 100_000;
