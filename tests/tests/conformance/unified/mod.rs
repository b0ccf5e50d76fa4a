//! The unified test format, of the schema's versions 1.x: a general runner of its files.

mod adapters;
mod beyond;
mod carriers;
mod entities;
mod environment;
mod errors;
mod fault;
mod internal;
mod logged;
mod matcher;
mod observed;
mod operations;
mod published;
mod rewriting;
mod rig;
mod schema;
mod shape;
mod simulated;
mod slower;
mod sockets;
mod special;
mod strict;
mod watching;

use std::panic::catch_unwind;
use std::sync::{PoisonError, RwLock, mpsc};
use std::thread;
use std::time::Duration;

use adapters::Adapter;
use environment::{Environment, Topology, Users};
use fault::{Fault, failed, unsupported};
use observed::Observed;
use operations::Runner;
use rig::Rig;
use schema::{ExpectedEvents, Test, TestFile};
use serde_json::Value;
use simulated::Simulated;
pub(crate) use slower::repeated;
use sockets::Sockets;

use crate::judgement::Verdict;

/// Runs the test at that position of a file, in every deployment that it admits: in the simulated world first, and over
/// sockets if that goes well.
pub(crate) fn run(name: &str, content: &Value, index: usize) -> Verdict {
    let outcome = run_everywhere(content, index).and_then(|()| {
        match rewriting::with_change_stream(name, content, index) {
            Some(rewritten) => run_everywhere(&rewritten, 0)
                .map_err(|fault| fault.at("with a change stream in place of find")),
            None => Ok(()),
        }
    });
    if !is_to_fail(name) {
        return match outcome {
            Ok(()) => Verdict::Passed,
            Err(fault) => fault.into(),
        };
    }
    match outcome {
        Ok(()) if is_in(name, "invalid") => {
            Verdict::Skipped("the runner checks of the schema what it uses".to_owned())
        }
        Ok(()) => Verdict::Failed("passes, but is there to fail".to_owned()),
        Err(Fault::Failed(_) | Fault::Beyond(..)) => Verdict::Passed,
        Err(Fault::Unsupported(reason)) if reason.starts_with(fault::UNKNOWN) => Verdict::Passed,
        Err(Fault::Unsupported(reason)) => Verdict::Skipped(reason),
    }
}

/// Whether the file is one of those that check the runner by having to fail, or to be refused.
fn is_to_fail(name: &str) -> bool {
    is_in(name, "valid-fail") || is_in(name, "invalid")
}

fn is_in(name: &str, folder: &str) -> bool {
    name.split('/').any(|part| part == folder)
}

fn run_everywhere(content: &Value, index: usize) -> Result<(), Fault> {
    let beside_others = BUSY.read().unwrap_or_else(PoisonError::into_inner);
    let (file, test) = TestFile::parse(content, index)?;
    if let Some(reason) = &test.skip_reason {
        return Err(unsupported(reason.clone()));
    }
    if test.expect_tracing_messages.is_some() {
        return Err(unsupported("spans of OpenTelemetry are not built"));
    }
    let admitted = environment::admitted(&file.run_on_requirements, &test.run_on_requirements)?;
    for environment in &admitted {
        let mut rig = Simulated::new(*environment);
        run_on(&mut rig, environment, &file, &test).map_err(|fault| fault.at(&rig.name()))?;
    }
    if closes_client(&test) {
        // Connections that commands have left behind are dropped with the client; only the simulated world closes them.
        return Ok(());
    }
    drop(beside_others);
    let is_timed = slower::is_about_time(&file, &test);
    // The real clock is spared what virtual time has shown for each version: the newest of each topology.
    for (number, environment) in admitted.iter().enumerate() {
        let is_newest = admitted
            .get(number + 1)
            .is_none_or(|next| next.topology != environment.topology);
        // Callbacks that hand out tokens are the adapters' own tests.
        if is_newest && environment.users != Users::Token {
            match is_timed {
                true => slower::over_sockets_alone(*environment, content, index)?,
                false => {
                    let _beside_others = BUSY.read().unwrap_or_else(PoisonError::into_inner);
                    over_sockets(*environment, &file, &test)?;
                }
            }
        }
    }
    Ok(())
}

fn closes_client(test: &Test) -> bool {
    let names = |operation: &schema::Operation| (operation.name.clone(), operation.object.clone());
    let mut operations = test.operations.iter().map(names);
    operations.any(|(name, object)| name == "close" && object.starts_with("client"))
}

/// Runs a test on every adapter, all at once.
fn over_sockets(environment: Environment, file: &TestFile, test: &Test) -> Result<(), Fault> {
    let running = [
        start_on::<adapters::OnTokio>("tokio", environment, file, test),
        start_on::<adapters::OnSmol>("smol", environment, file, test),
        start_on::<adapters::OnAsyncStd>("async-std", environment, file, test),
        start_on::<adapters::Blocking>("blocking", environment, file, test),
    ];
    for (name, outcome) in running {
        let late = || failed(format!("{name}: is not done within {LIMIT:?}"));
        outcome.recv_timeout(LIMIT).map_err(|_| late())??;
    }
    Ok(())
}

/// Starts a test on an adapter, on a thread of its own; one that never ends is left behind.
fn start_on<A: Adapter>(
    name: &'static str,
    environment: Environment,
    file: &TestFile,
    test: &Test,
) -> (&'static str, mpsc::Receiver<Result<(), Fault>>) {
    let (done, outcome) = mpsc::channel();
    let (file, test) = (file.clone(), test.clone());
    thread::spawn(move || {
        let run = || {
            let mut rig = Sockets::<A>::new(name, environment);
            run_on(&mut rig, &environment, &file, &test).map_err(|fault| fault.at(&rig.name()))
        };
        let outcome = catch_unwind(run).unwrap_or_else(|_| Err(failed(format!("{name}: panics"))));
        // Nobody may be waiting any more.
        let _told = done.send(outcome);
    });
    (name, outcome)
}

/// Tests run beside each other, but those that measure time over sockets: each of them has the program for itself.
static BUSY: RwLock<()> = RwLock::new(());

/// Many times what a test takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test on a rig ("Executing a Test").
fn run_on(rig: &mut dyn Rig, environment: &Environment, file: &TestFile, test: &Test) -> Result<(), Fault> {
    let mut runner = Runner {
        rig,
        entities: entities::EntityMap::default(),
        unnamed: Vec::new(),
        is_sharded: matches!(environment.topology, Topology::Sharded | Topology::LoadBalanced),
        users: environment.users,
        version: environment.version,
        sessions: 0,
        follows_cursors: false,
        runs_beside: false,
        strikes_retryable: false,
    };
    let _listening = test.expect_log_messages.is_some().then(logged::listen);
    for data in &file.initial_data {
        runner.fill(data).map_err(|fault| fault.at("initialData"))?;
    }
    runner.create_entities(&file.create_entities)?;
    for (number, operation) in test.operations.iter().enumerate() {
        let place = format!("operation {number}, {}", operation.name);
        runner.run(operation).map_err(|fault| fault.at(&place))?;
    }
    runner.publish()?;
    for expected in test.expect_events.iter().flatten() {
        compare_events(&runner, expected)?;
    }
    for expected in test.expect_log_messages.iter().flatten() {
        let client = runner.entities.client(&expected.client)?;
        logged::compare(expected, &client.log_components, &client.logged, &runner.entities)
            .map_err(|fault| beyond::of_messages(expected, fault))?;
    }
    for data in test.outcome.iter().flatten() {
        runner.compare(data)?;
    }
    let streams = runner.entities.streams();
    for stream in streams.into_iter().chain(runner.unnamed.clone()) {
        runner.rig.close_stream(stream);
    }
    Ok(())
}

fn compare_events(runner: &Runner<'_>, expected: &ExpectedEvents) -> Result<(), Fault> {
    let client = runner.entities.client(&expected.client)?;
    let kind = expected.event_type.unwrap_or_default();
    let published: Vec<&Observed> = client
        .published
        .iter()
        .filter(|event| event.kind == kind && client.observing.wants(event))
        .collect();
    let told = |number, fault| beyond::of_events(expected, fault, number, runner.follows_cursors);
    for (number, event) in expected.events.iter().enumerate() {
        let place = format!("event {number} of {}", expected.client);
        let Some(found) = published.get(number) else {
            let none = failed(format!("{place}: expected {event:?}, but there is none"));
            return Err(told(number, none));
        };
        observed::matches(event, found, &runner.entities).map_err(|fault| told(number, fault.at(&place)))?;
    }
    match published.get(expected.events.len()) {
        Some(extra) if !expected.ignore_extra_events => Err(told(
            expected.events.len(),
            failed(format!(
                "{} has published an event that is not expected: {extra:?}; before it {:?}",
                expected.client,
                published.iter().map(|event| event.shown()).collect::<Vec<_>>()
            )),
        )),
        Some(_) | None => Ok(()),
    }
}
