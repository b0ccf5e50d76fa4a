//! How to test a consumer of change streams: take it through an election, and ask what it sent.
//!
//! The consumer is a small mirror of a collection, written as an application would write it. The test does not know
//! its inside: it has a connection string, and a deployment that does what it is told.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "an example talks to its user, writes by a client of its own, and measures time"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};
use changestream_blocking::{ChangeStream, Client};
use changestream_core::event::{FieldState, OperationType};
use changestream_core::wire::{Flags, FrameReader, Message, encode_op_msg};
use changestream_sim::{Deployment, RunningDeployment};

/// What is tested: it keeps a copy of a collection up to date.
struct Mirror {
    stream: ChangeStream,
    copy: BTreeMap<String, Document>,
}

impl Mirror {
    fn open(uri: &str) -> Result<Self, Box<dyn Error>> {
        let client = Client::new(uri)?;
        Ok(Self {
            stream: client.collection("shop", "orders").watch().open()?,
            copy: BTreeMap::new(),
        })
    }

    /// Waits so long while nothing is to happen.
    fn idle(&mut self, duration: Duration) -> Result<(), Box<dyn Error>> {
        match self.stream.next_timeout(duration)? {
            None => Ok(()),
            Some(event) => Err(format!("unexpected: {event:?}").into()),
        }
    }

    /// Waits for the next change and repeats it.
    fn follow(&mut self) -> Result<(), Box<dyn Error>> {
        let event = self
            .stream
            .next_timeout(Duration::from_secs(10))?
            .ok_or("nothing has happened")?;
        let key = event.document_key().ok_or("an event without a key")?;
        let key = format!("{key:?}");
        if event.operation_type() == Some(OperationType::Delete) {
            self.copy.remove(&key);
        } else if let FieldState::Present(document) = event.full_document() {
            self.copy.insert(key, Document::try_from(document)?);
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (crash, step_down) = elections()?;
    println!("next event {crash:?} after the primary's crash, {step_down:?} after a step-down");
    Ok(())
}

/// How long the mirror goes without the next event in either kind of election.
fn elections() -> Result<(Duration, Duration), Box<dyn Error>> {
    let deployment = Deployment::replica_set(3)
        .server_version("6.0")
        .election_timeout(Duration::from_millis(5))
        .handoff(Duration::from_millis(5))
        .start()?;
    let mut mirror = Mirror::open(&deployment.uri())?;
    write(&deployment, 1)?;
    mirror.follow()?;

    // A client looks at a deployment twice a second at most: one that has just looked would find the new primary late.
    mirror.idle(Duration::from_millis(600))?;
    let primary = deployment.primary().ok_or("no primary")?;
    let crash = survives(&deployment, &mut mirror, 2, |d| d.crash(primary))?;
    deployment.restart(primary);
    mirror.idle(Duration::from_millis(600))?;
    let step_down = survives(&deployment, &mut mirror, 3, RunningDeployment::step_down)?;
    assert_eq!(mirror.copy.len(), 3, "nothing is lost, and nothing comes twice");

    // What arrived tells how it got there. The crash took the cursor with it; a step-down leaves cursors alone.
    let commands = deployment.commands();
    let opened: Vec<Document> = commands
        .iter()
        .filter_map(|command| stage(&command.body))
        .collect();
    let [first, resumed] = opened.as_slice() else {
        return Err(format!("one stream, resumed once: {opened:?}").into());
    };
    assert_eq!(first, &doc! {}, "from now on");
    assert!(
        resumed.contains_key("resumeAfter"),
        "from where it was: {resumed}"
    );
    let readers: BTreeSet<usize> = commands
        .iter()
        .filter(|c| c.name == "getMore")
        .map(|c| c.member)
        .collect();
    assert_eq!(
        readers.len(),
        2,
        "it read from the first primary and the second: {readers:?}"
    );
    Ok((crash, step_down))
}

/// How long after the failure the mirror has the next change.
fn survives(
    deployment: &RunningDeployment,
    mirror: &mut Mirror,
    id: i32,
    fail: impl Fn(&RunningDeployment),
) -> Result<Duration, Box<dyn Error>> {
    let old = deployment.primary();
    let begun = Instant::now();
    fail(deployment);
    // Written as soon as there is a primary again.
    while deployment.primary().is_none_or(|new| Some(new) == old) {
        if begun.elapsed() > Duration::from_secs(10) {
            return Err("no election".into());
        }
        std::thread::yield_now();
    }
    write(deployment, id)?;
    mirror.follow()?;
    Ok(begun.elapsed())
}

/// The options of the change stream that a command opens.
fn stage(command: &Document) -> Option<Document> {
    let stage = command
        .get_array("pipeline")
        .ok()?
        .first()
        .and_then(Bson::as_document)?;
    stage.get_document("$changeStream").ok().cloned()
}

/// Inserts an order, as another application would.
fn write(deployment: &RunningDeployment, id: i32) -> Result<(), Box<dyn Error>> {
    let primary = deployment
        .primary()
        .and_then(|primary| deployment.address(primary))
        .ok_or("no primary")?;
    let mut stream = TcpStream::connect(primary)?;
    let insert = doc! {
        "insert": "orders",
        "documents": [{ "_id": id, "amount": 12.5 }],
        "writeConcern": { "w": "majority" },
        "$db": "shop",
    };
    stream.write_all(&encode_op_msg(
        1,
        0,
        Flags::NONE,
        &RawDocumentBuf::try_from(&insert)?,
        &[],
    ))?;
    let mut reader = FrameReader::new();
    loop {
        if let Some(frame) = reader.next_frame()? {
            let Message::Msg(reply) = Message::decode(&frame)? else {
                return Err("no OP_MSG".into());
            };
            let reply = Document::from_reader(&mut &reply.body[..])?;
            return if reply.get_i32("n")? == 1 {
                Ok(())
            } else {
                Err(reply.to_string().into())
            };
        }
        let n = stream.read(reader.buffer())?;
        if n == 0 {
            return Err("the connection ended".into());
        }
        reader.filled(n);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[test]
    fn a_consumer_goes_on_fifty_milliseconds_after_an_election() {
        // The machine may be busy with something else, but not always.
        let mut best = (Duration::MAX, Duration::MAX);
        for _ in 0..10 {
            let (crash, step_down) = super::elections().unwrap_or_else(|error| panic!("{error}"));
            best = (best.0.min(crash), best.1.min(step_down));
            if best.0.max(best.1) < Duration::from_millis(50) {
                return;
            }
        }
        panic!("{best:?}");
    }
}
