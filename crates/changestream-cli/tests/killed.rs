//! `changestream tail --checkpoint`, killed again and again at any moment, while a writer works and elections go on.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../src/demo/connection.rs"]
mod connection;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use bson::{Document, doc};
use changestream_core::random::Random;
use changestream_sim::{Deployment, RunningDeployment};
use connection::Connection;
use serde_json::Value;

/// How many documents are written.
const WRITES: i32 = 400;

/// `--checkpoint`'s promise: each event is printed at least once, and whoever skips what is not past the last event
/// that he has kept gets each exactly once.
#[test]
fn every_event_is_printed_and_none_twice_by_the_rule_of_the_checkpoint() {
    let deployment = Arc::new(
        Deployment::replica_set(3)
            .election_timeout(Duration::from_millis(50))
            .handoff(Duration::from_millis(20))
            .start()
            .unwrap(),
    );
    let checkpoint = Folder::new();
    let file = checkpoint.0.join("orders.json");
    let mut random = Random::new([11; 32]);
    let (mut consumer, mut kills) = (Consumer::default(), 0);

    // The first run stores where the writer begins: before it prints a second position the first one is stored.
    let first = Tail::start(&deployment, &file);
    first.lines.recv().unwrap();
    first.lines.recv().unwrap();
    consumer.read(first.kill());
    let writing = Writing::start(&deployment);
    while consumer.last != Some(WRITES - 1) {
        let tail = Tail::start(&deployment, &file);
        let patience = random.below(60);
        for line in tail.lines.iter().take(patience) {
            writing.pace(consumer.read([line]));
            if consumer.last == Some(WRITES - 1) {
                break;
            }
        }
        // What it had printed until then is in the pipe.
        writing.pace(consumer.read(tail.kill()));
        kills += 1;
        if kills % 5 == 0 {
            // Not by a step-down: who has done that does not stand again for a minute.
            deployment.elect(kills / 5 % 3);
        }
    }
    assert_eq!(
        consumer.kept,
        (0..WRITES).collect::<Vec<_>>(),
        "after {kills} kills"
    );
    assert!(kills > 10, "{kills} kills are too few to say anything");
}

/// Somebody who keeps what `tail` prints, and applies the rule.
#[derive(Default)]
struct Consumer {
    kept: Vec<i32>,
    last: Option<i32>,
    token: String,
}

impl Consumer {
    /// How many events were new.
    fn read(&mut self, lines: impl IntoIterator<Item = Value>) -> usize {
        let before = self.kept.len();
        for line in lines {
            let Some(token) = line["_id"]["_data"].as_str() else {
                continue;
            };
            // Tokens are ordered as their texts are.
            if token > self.token.as_str() {
                token.clone_into(&mut self.token);
                let id = line["documentKey"]["_id"].as_i64().unwrap();
                self.last = i32::try_from(id).ok();
                self.kept.extend(self.last);
            }
        }
        self.kept.len() - before
    }
}

/// A `tail`, and the lines that it has printed in full.
struct Tail {
    process: Child,
    lines: Receiver<Value>,
}

impl Tail {
    fn start(deployment: &RunningDeployment, checkpoint: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_changestream"))
            .args(["tail", &deployment.uri(), "--db", "d", "--coll", "c"])
            .args(["--max-await-ms", "100", "--updates", "--checkpoint"])
            .arg(checkpoint)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            // A line that was cut off by the end was never printed, as far as its reader can know.
            while out.read_line(&mut line).is_ok() && line.ends_with('\n') {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
                line.clear();
            }
        });
        Self { process, lines }
    }

    /// SIGKILL; what was still printed before it.
    fn kill(mut self) -> Vec<Value> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.lines.iter().collect()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A writer that is never far ahead of the consumer, so that each kill falls into its work.
struct Writing {
    pace: SyncSender<()>,
}

impl Writing {
    fn start(deployment: &Arc<RunningDeployment>) -> Self {
        let deployment = Arc::clone(deployment);
        let (pace, paced) = mpsc::sync_channel(AHEAD);
        for _ in 0..AHEAD {
            pace.send(()).unwrap();
        }
        thread::spawn(move || {
            for (id, ()) in (0..WRITES).zip(&paced) {
                insert(&deployment, id);
            }
            // The consumer may still tell how far it is.
            paced.iter().for_each(drop);
        });
        Self { pace }
    }

    fn pace(&self, events: usize) {
        for _ in 0..events {
            self.pace.send(()).unwrap();
        }
    }
}

/// Writes that the consumer has not seen yet.
const AHEAD: usize = 40;

/// Until a majority has it. An insert whose fate a step-down leaves open is repeated: its `_id` keeps it from being done
/// twice.
fn insert(deployment: &RunningDeployment, id: i32) {
    let command = doc! {
        "insert": "c", "documents": [{ "_id": id }], "writeConcern": { "w": "majority" }, "$db": "d",
    };
    let inserted = |reply: Document| {
        let twice = reply.get_array("writeErrors").is_ok();
        reply.get_f64("ok").is_ok_and(|ok| ok > 0.0)
            && (twice
                || (reply.get_i32("n").is_ok_and(|n| n == 1) && !reply.contains_key("writeConcernError")))
    };
    loop {
        let primary = deployment.primary().and_then(|member| deployment.address(member));
        let reply = primary.and_then(|address| Connection::open(&address).ok()?.run(&command).ok());
        if reply.is_some_and(inserted) {
            return;
        }
        thread::yield_now();
    }
}

/// A folder, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("killed-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
