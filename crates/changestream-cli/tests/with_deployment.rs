//! The program against its own simulated deployment, over real sockets.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../src/demo/connection.rs"]
mod connection;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use bson::{Document, doc};
use changestream_tests::name_service::{NameServer, Zone};
use connection::Connection;
use serde_json::Value;

fn changestream(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_changestream"));
    command
        .args(arguments)
        .env_remove("CHANGESTREAM_URI")
        .stdin(Stdio::null());
    command
}

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A deployment in a process of its own, which ends with its standard input.
struct Deployment {
    _process: Running,
    uri: String,
}

impl Deployment {
    fn start(arguments: &[&str]) -> Self {
        let mut process = changestream(&[&["sim"], arguments].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut uri = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut uri)
            .unwrap();
        Self {
            _process: Running(process),
            uri: uri.trim().to_owned(),
        }
    }

    /// Runs a command on the primary.
    fn run(&self, command: &Document) {
        let hosts = self.uri.strip_prefix("mongodb://").unwrap();
        let hosts = hosts.split('/').next().unwrap().split(',');
        for host in hosts {
            let mut connection = Connection::open(host).unwrap();
            let hello = connection.run(&doc! { "isMaster": 1, "$db": "admin" }).unwrap();
            if hello.get_bool("ismaster").unwrap_or(false) {
                let reply = connection.run(command).unwrap();
                assert!(
                    !reply.contains_key("writeErrors") && !reply.contains_key("errmsg"),
                    "{reply}"
                );
                return;
            }
        }
        panic!("no primary");
    }

    fn insert(&self, ids: std::ops::Range<i32>) {
        for id in ids {
            let documents = [doc! { "_id": id }];
            self.run(&doc! {
                "insert": "c", "documents": documents, "writeConcern": { "w": "majority" }, "$db": "d",
            });
        }
    }

    /// Follows the test's collection.
    fn tail(&self, arguments: &[&str]) -> Command {
        let common = [
            "tail",
            &self.uri,
            "--db",
            "d",
            "--coll",
            "c",
            "--max-await-ms",
            "100",
        ];
        changestream(&[&common, arguments].concat())
    }
}

/// A `tail` that has started to watch.
struct Tail {
    process: Running,
    out: BufReader<ChildStdout>,
}

impl Tail {
    fn start(mut command: Command) -> Self {
        let mut process = command
            .arg("--updates")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        let mut tail = Self {
            process: Running(process),
            out,
        };
        let first = tail.line().unwrap();
        assert_eq!(first["update"], "idle", "{first}");
        tail
    }

    /// The next line; none at the end.
    fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    /// The next line that tells of something.
    fn news(&mut self) -> Option<Value> {
        loop {
            match self.line() {
                Some(line) if line["update"] == "idle" => {}
                line => return line,
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.process.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.process.0.wait().unwrap().code()
    }
}

fn ids(output: &Output) -> Vec<i64> {
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    lines
        .map(|event| event["documentKey"]["_id"].as_i64().unwrap())
        .collect()
}

fn failure(output: &Output) -> (Option<i32>, String) {
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn path(name: &str) -> (PathBuf, String) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_file(&path);
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

#[test]
fn the_demonstration_loses_and_repeats_nothing() {
    let output = changestream(&["demo", "--writes", "30"]).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let summary = text.lines().last().unwrap_or_default();
    assert!(
        summary.contains("written 30, delivered 30, lost 0, repeated 0"),
        "{:?}",
        failure(&output)
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn events_are_printed_as_they_happen() {
    let deployment = Deployment::start(&[]);
    let mut tail = Tail::start(deployment.tail(&[]));
    for id in 0..3 {
        deployment.insert(id..id + 1);
        let event = tail.news().unwrap();
        assert_eq!(event["operationType"], "insert");
        assert_eq!(event["fullDocument"]["_id"], id);
    }
}

#[test]
fn a_sharded_cluster_is_followed_through_its_mongos() {
    let deployment = Deployment::start(&["--sharded", "--mongos", "2"]);
    assert!(
        deployment.uri.matches(',').count() == 1 && !deployment.uri.contains("replicaSet"),
        "{}",
        deployment.uri
    );
    let mut tail = Tail::start(deployment.tail(&[]));
    for id in 0..3 {
        deployment.insert(id..id + 1);
        // The other shard has to be past the event before it is shown.
        deployment.run(&doc! { "insert": "c", "documents": [{ "_id": id }], "$db": "elsewhere" });
        let event = tail.news().unwrap();
        assert_eq!(event["documentKey"]["_id"], id);
    }
}

#[test]
fn a_checkpoint_goes_on_where_the_last_run_ended() {
    let deployment = Deployment::start(&[]);
    let (file, checkpoint) = path("goes-on.json");
    let mut tail = Tail::start(deployment.tail(&["--checkpoint", &checkpoint, "--max-events", "2"]));
    deployment.insert(0..5);
    assert_eq!(tail.news().unwrap()["documentKey"]["_id"], 0);
    assert_eq!(tail.news().unwrap()["documentKey"]["_id"], 1);
    assert_eq!(tail.news(), None);
    assert_eq!(tail.exit_code(), Some(0));
    assert!(
        std::fs::read_to_string(file)
            .unwrap()
            .starts_with("{\"resumeAfter\":{\"_data\":\"")
    );
    let run = |events| {
        deployment
            .tail(&["--checkpoint", &checkpoint, "--max-events", events])
            .output()
            .unwrap()
    };
    assert_eq!(ids(&run("1")), [2]);
    assert_eq!(ids(&run("2")), [3, 4]);
}

#[test]
fn a_start_that_the_server_refuses_is_no_checkpoint() {
    let deployment = Deployment::start(&[]);
    let (file, checkpoint) = path("refused.json");
    let unknown = "8265";
    let output = deployment
        .tail(&["--checkpoint", &checkpoint, "--resume-after", unknown])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(!file.exists(), "it would be tried again and again");
}

#[test]
fn a_stream_that_has_opened_has_a_checkpoint() {
    let deployment = Deployment::start(&[]);
    let (file, checkpoint) = path("opened.json");
    let watched = ["tail", &deployment.uri, "--db", "d", "--coll", "c"];
    let waiting = ["--checkpoint", &checkpoint, "--max-await-ms", "600000"];
    let mut tail = changestream(&[&watched[..], &waiting[..]].concat());
    let tail = Running(tail.stdout(Stdio::null()).spawn().unwrap());
    let start = std::time::Instant::now();
    while !file.exists() {
        assert!(
            start.elapsed() < std::time::Duration::from_secs(20),
            "nothing was saved"
        );
        std::thread::yield_now();
    }
    drop(tail);
}

#[test]
fn a_quiet_stream_moves_its_checkpoint_too() {
    let deployment = Deployment::start(&[]);
    let (file, checkpoint) = path("quiet.json");
    let mut tail = Tail::start(deployment.tail(&["--checkpoint", &checkpoint]));
    assert_eq!(tail.line().unwrap()["update"], "idle");
    assert!(
        file.exists(),
        "the first position was stored before the second was printed"
    );
}

#[test]
fn sigint_and_sigterm_end_it_properly() {
    let deployment = Deployment::start(&[]);
    for signal in ["INT", "TERM"] {
        let mut tail = Tail::start(deployment.tail(&[]));
        tail.signal(signal);
        assert_eq!(tail.news(), None);
        assert_eq!(tail.exit_code(), Some(0), "{signal}");
    }
}

#[test]
fn a_closed_standard_output_ends_it_quietly() {
    let deployment = Deployment::start(&[]);
    let Tail { mut process, out } = Tail::start(deployment.tail(&[]));
    drop(out);
    deployment.insert(0..1);
    assert_eq!(process.0.wait().unwrap().code(), Some(0));
    let mut said = String::new();
    process
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(said, "");
}

#[test]
fn a_checkpoint_of_an_invalidation_that_was_not_shown_starts_after_it_too() {
    for batch_size in ["1", "1000"] {
        let deployment = Deployment::start(&[]);
        let (file, checkpoint) = path(&format!("invalidated-unseen-{batch_size}.json"));
        deployment.insert(0..1);
        let inserts = r#"[{"$match": {"operationType": "insert"}}]"#;
        let options = [
            "--checkpoint",
            &checkpoint,
            "--pipeline",
            inserts,
            "--batch-size",
            batch_size,
        ];
        let mut tail = Tail::start(deployment.tail(&options));
        deployment.insert(1..2);
        assert_eq!(tail.news().unwrap()["operationType"], "insert");
        deployment.run(&doc! { "drop": "c", "$db": "d" });
        assert_eq!(tail.news().unwrap()["update"], "invalidated");
        goes_on_behind_the_invalidation(&deployment, tail, &file, &checkpoint);
    }
}

#[test]
fn an_invalidated_stream_ends_and_its_checkpoint_starts_after_it() {
    let deployment = Deployment::start(&[]);
    let (file, checkpoint) = path("invalidated.json");
    deployment.insert(0..1);
    let mut tail = Tail::start(deployment.tail(&["--checkpoint", &checkpoint]));
    deployment.run(&doc! { "drop": "c", "$db": "d" });
    assert_eq!(tail.news().unwrap()["operationType"], "drop");
    assert_eq!(tail.news().unwrap()["operationType"], "invalidate");
    assert_eq!(tail.news().unwrap()["update"], "invalidated");
    goes_on_behind_the_invalidation(&deployment, tail, &file, &checkpoint);
}

fn goes_on_behind_the_invalidation(deployment: &Deployment, mut tail: Tail, file: &Path, checkpoint: &str) {
    assert_eq!(tail.news(), None);
    assert_eq!(tail.exit_code(), Some(0));
    assert!(
        std::fs::read_to_string(file)
            .unwrap()
            .starts_with("{\"startAfter\":")
    );
    deployment.insert(7..8);
    let next = deployment
        .tail(&["--checkpoint", checkpoint, "--max-events", "1"])
        .output()
        .unwrap();
    assert_eq!(ids(&next), [7]);
}

#[test]
fn each_failure_has_its_exit_code() {
    let nobody = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200";
    let (code, said) = failure(&changestream(&["tail", nobody]).output().unwrap());
    assert_eq!(code, Some(10), "{said}");

    let standalone = Deployment::start(&["--standalone"]);
    let (code, said) = failure(&standalone.tail(&[]).output().unwrap());
    assert_eq!(code, Some(9), "{said}");

    let deployment = Deployment::start(&[]);
    let (code, said) = failure(&deployment.tail(&["--resume-after", "82FF"]).output().unwrap());
    assert_eq!(code, Some(14), "{said}");

    let mut without_id = Tail::start(deployment.tail(&["--pipeline", r#"{"$project":{"_id":0}}"#]));
    deployment.insert(0..1);
    assert_eq!(without_id.news(), None);
    assert_eq!(without_id.exit_code(), Some(4));
}

#[test]
fn a_password_opens_the_stream_and_is_never_printed() {
    let deployment = Deployment::start(&["--user", "alice", "--password", "s3cr3t"]);
    assert!(!deployment.uri.contains("s3cr3t"), "{}", deployment.uri);
    let hosts = deployment.uri.strip_prefix("mongodb://").unwrap();
    let hosts = hosts.rsplit('@').next().unwrap();
    for (password, expected) in [("s3cr3t", 0), ("s3cr3t-but-wrong", 11)] {
        let uri = format!("mongodb://alice:{password}@{hosts}");
        let mut tail = changestream(&["tail", &uri, "--max-await-ms", "100", "--updates"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map(Running)
            .unwrap();
        let mut line = String::new();
        BufReader::new(tail.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let code = tail.0.wait().unwrap().code();
        let mut said = String::new();
        tail.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(
            (code, line.is_empty()),
            (Some(expected), expected != 0),
            "{line}{said}"
        );
        assert!(!said.contains("s3cr3t"), "{said}");
    }
}

#[test]
fn a_deployment_is_followed_by_its_name_in_dns() {
    let deployment = Deployment::start(&[]);
    let address = deployment.uri.strip_prefix("mongodb://").unwrap();
    let (_, port) = address
        .split(['/', ','])
        .next()
        .unwrap()
        .rsplit_once(':')
        .unwrap();
    // The name of the server is an address, below the domain 0.0.1: so nobody has to look that up.
    let zone = Zone::default()
        .srv("_mongodb._tcp.cluster.0.0.1", "127.0.0.1", port.parse().unwrap())
        .txt("cluster.0.0.1", &["replicaSet=rs0"]);
    let names = NameServer::start(zone);
    let server = names.address().to_string();
    let tail = |uri: &str| {
        changestream(&[
            "tail",
            uri,
            "--dns-server",
            &server,
            "--start-at",
            "1",
            "--max-events",
            "1",
        ])
        .output()
        .unwrap()
    };
    deployment.run(&doc! { "insert": "orders", "documents": [{ "_id": 1 }], "$db": "shop" });
    let output = tail("mongodb+srv://cluster.0.0.1/?tls=false");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let output = tail("mongodb+srv://other.0.0.1/?tls=false");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("_mongodb._tcp.other.0.0.1"),
        "{said}"
    );
}
