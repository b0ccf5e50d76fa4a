//! The unified test format, of the schema's versions 1.x: a general runner of its files.

mod carriers;
mod entities;
mod environment;
mod errors;
mod fault;
mod internal;
mod matcher;
mod observed;
mod operations;
mod rig;
mod schema;
mod simulated;
mod special;
mod watching;

use environment::{Environment, Topology};
use fault::{Fault, failed, unsupported};
use observed::Observed;
use operations::Runner;
use rig::Rig;
use schema::{ExpectedEvents, Test, TestFile};
use serde_json::Value;
use simulated::Simulated;

use crate::judgement::Verdict;

/// Runs the test at that position of a file, in every deployment that it admits.
pub(crate) fn run(name: &str, content: &Value, index: usize) -> Verdict {
    let outcome = run_everywhere(content, index);
    if !is_to_fail(name) {
        return match outcome {
            Ok(()) => Verdict::Passed,
            Err(fault) => fault.into(),
        };
    }
    match outcome {
        Ok(()) => Verdict::Failed("passes, but is there to fail".to_owned()),
        Err(Fault::Failed(_)) => Verdict::Passed,
        Err(Fault::Unsupported(reason)) => Verdict::Skipped(reason),
    }
}

/// Whether the file is one of those that check the runner by having to fail.
fn is_to_fail(name: &str) -> bool {
    name.split('/').any(|part| part == "valid-fail")
}

fn run_everywhere(content: &Value, index: usize) -> Result<(), Fault> {
    let file = TestFile::parse(content)?;
    let test = file.tests.get(index).ok_or_else(|| failed("there is no such test"))?;
    if let Some(reason) = &test.skip_reason {
        return Err(unsupported(reason.clone()));
    }
    if test.expect_log_messages.is_some() || test.expect_tracing_messages.is_some() {
        return Err(unsupported("log messages are for people, in no form that a test compares"));
    }
    for environment in environment::admitted(&file.run_on_requirements, &test.run_on_requirements)? {
        let mut rig = Simulated::new(environment);
        run_on(&mut rig, &environment, &file, test).map_err(|fault| fault.at(&rig.name()))?;
    }
    Ok(())
}

/// Runs a test on a rig ("Executing a Test").
fn run_on(rig: &mut dyn Rig, environment: &Environment, file: &TestFile, test: &Test) -> Result<(), Fault> {
    let mut runner = Runner {
        rig,
        entities: entities::EntityMap::default(),
        unnamed: Vec::new(),
        is_sharded: matches!(environment.topology, Topology::Sharded | Topology::LoadBalanced),
        auth: environment.auth,
        sessions: 0,
    };
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
    for (number, event) in expected.events.iter().enumerate() {
        let place = format!("event {number} of {}", expected.client);
        let Some(found) = published.get(number) else {
            return Err(failed(format!("{place}: expected {event:?}, but there is none")));
        };
        observed::matches(event, found, &runner.entities).map_err(|fault| fault.at(&place))?;
    }
    match published.get(expected.events.len()) {
        Some(extra) if !expected.ignore_extra_events => Err(failed(format!(
            "{} has published an event that is not expected: {extra:?}",
            expected.client
        ))),
        Some(_) | None => Ok(()),
    }
}
