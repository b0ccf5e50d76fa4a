//! PyMongo's own tests of change streams against `changestream sim`: what they demand of a server, the simulated one
//! does.
//!
//! `CHANGESTREAM_PYTHON` names a Python that has PyMongo and pytest, `CHANGESTREAM_PYMONGO_TESTS` a folder that holds
//! the folder `test` of the same PyMongo's source distribution, as `.ci/run` fetches it; without them the tests say so
//! and are skipped. Versions before 4.4 are too old for PyMongo.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

#[allow(dead_code, reason = "PyMongo is not talked to here")]
#[path = "official/child.rs"]
mod child;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use child::Running;

#[test]
fn pymongos_own_tests_pass_on_a_replica_set_of_version_8_0() {
    Suite {
        server: &["--server-version", "8.0"],
        at_least: 120,
        ..CHANGE_STREAMS
    }
    .run();
}

#[test]
fn pymongos_own_tests_pass_on_a_replica_set_of_version_4_4() {
    Suite {
        server: &["--server-version", "4.4"],
        at_least: 100,
        ..CHANGE_STREAMS
    }
    .run();
}

/// What other suites of the drivers' specifications say of change streams: retryable reads, timeouts, sessions.
#[test]
fn pymongos_own_tests_of_what_surrounds_a_stream_pass_on_a_replica_set_of_version_8_0() {
    Suite {
        server: &["--server-version", "8.0"],
        files: &[
            "test/test_retryable_reads_unified.py",
            "test/test_csot.py",
            "test/test_versioned_api.py",
            "test/test_connections_survive_primary_stepdown_spec.py",
            "test/test_comment.py",
            "-k",
            "change or stepdown or versioned or comment",
        ],
        at_least: 60,
        without: &[],
    }
    .run();
}

#[test]
fn pymongos_own_tests_pass_on_a_sharded_cluster_of_version_8_0() {
    // A mongos that waits ten seconds for idle shards, as is the default, would be too slow for a test.
    Suite {
        server: &[
            "--server-version",
            "8.0",
            "--sharded",
            "--noop-interval-ms",
            "100",
        ],
        at_least: 100,
        ..CHANGE_STREAMS
    }
    .run();
}

/// What is run, and what is expected.
#[derive(Clone, Copy)]
struct Suite {
    /// Arguments of `changestream sim`.
    server: &'static [&'static str],
    /// Files of PyMongo's, and further arguments of pytest.
    files: &'static [&'static str],
    /// Fewer passed tests than this are a mistake of the test itself.
    at_least: usize,
    /// Tests that may fail, by a part of the name, each with the reason.
    without: &'static [(&'static str, &'static str)],
}

const CHANGE_STREAMS: Suite = Suite {
    server: &[],
    files: &["test/test_change_stream.py"],
    at_least: 0,
    without: &[],
};

impl Suite {
    fn run(self) {
        let (Some(python), Some(folder)) = (
            std::env::var_os("CHANGESTREAM_PYTHON"),
            std::env::var_os("CHANGESTREAM_PYMONGO_TESTS"),
        ) else {
            say(
                "skipped: CHANGESTREAM_PYTHON names no Python with PyMongo and pytest, or CHANGESTREAM_PYMONGO_TESTS \
                 no folder with PyMongo's tests; .ci/run fetches both",
            );
            return;
        };
        let (_deployment, host, port) = self.deployment();
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/drivers/pymongo/run_own_tests.py");
        let mut command = Command::new(python);
        command
            .arg("-B")
            .arg(script.canonicalize().unwrap())
            .args(self.files)
            .current_dir(&folder)
            .env("PYTHONPATH", &folder)
            .env("DB_IP", host)
            .env("DB_PORT", port);
        self.judge(&Running::start("PyMongo's tests", command));
    }

    fn deployment(&self) -> (Running, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_changestream"));
        command.arg("sim").args(self.server);
        let running = Running::start("the deployment", command);
        let uri = running.text().expect("the deployment names its address");
        let hosts = uri.strip_prefix("mongodb://").unwrap();
        let first = hosts.split([',', '/']).next().unwrap();
        let (host, port) = first.rsplit_once(':').unwrap();
        (running, host.to_owned(), port.to_owned())
    }

    fn judge(&self, tests: &Running) {
        let mut counts = BTreeMap::<String, usize>::new();
        let mut failures = Vec::new();
        let mut excused = Vec::new();
        loop {
            let line = tests.line().expect("the script says when it is at its end");
            let Some(name) = line["test"].as_str() else {
                // pytest's code: 0 or 1 where it ran tests.
                assert!(
                    matches!(line["end"].as_i64(), Some(0 | 1)),
                    "pytest ran no tests: {line}"
                );
                break;
            };
            let outcome = line["outcome"].as_str().unwrap_or_default().to_owned();
            let exception = self.without.iter().find(|(part, _)| name.contains(part));
            match (outcome.as_str(), exception) {
                ("failed", Some((_, reason))) => {
                    say(&format!("may fail: {name}: {reason}"));
                    excused.push(name.to_owned());
                }
                ("failed", None) => {
                    failures.push(format!("{name}\n{}", line["why"].as_str().unwrap_or_default()));
                }
                _ => {}
            }
            *counts.entry(outcome).or_default() += 1;
        }
        let count = |outcome: &str| counts.get(outcome).copied().unwrap_or(0);
        say(&format!(
            "PyMongo's own tests on `sim {}`: {} passed, {} failed ({} of them expected), {} skipped",
            self.server.join(" "),
            count("passed"),
            count("failed"),
            excused.len(),
            count("skipped"),
        ));
        assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
        assert!(
            count("passed") >= self.at_least,
            "only {} tests passed, {} are expected",
            count("passed"),
            self.at_least
        );
    }
}

/// Tells people, also of a test that passes: the test harness keeps what is printed by macros to itself.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
