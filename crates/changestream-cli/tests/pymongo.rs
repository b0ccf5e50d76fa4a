//! PyMongo and `changestream tail` on one simulated deployment: both live through the same scenarios and see the
//! same events.
//!
//! `CHANGESTREAM_PYTHON` names a Python that has PyMongo, as `.ci/run` installs it; without it the tests say so and
//! are skipped. Versions before 4.4 are too old for PyMongo.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod official;

use std::process::Command;

use official::Server;

#[test]
fn the_same_events_from_version_7_0() {
    compare(Server::of("7.0"));
}

#[test]
fn the_same_events_from_version_8_0() {
    compare(Server::quick("8.0"));
}

#[test]
fn the_same_events_from_version_6_0() {
    compare(Server::quick("6.0"));
}

#[test]
fn the_same_events_from_version_5_0() {
    compare(Server::quick("5.0"));
}

#[test]
fn the_same_events_from_version_4_4() {
    compare(Server::quick("4.4"));
}

#[test]
fn the_same_transactions_through_a_mongos() {
    compare(Server::sharded("7.0"));
}

#[test]
fn the_same_events_after_either_mechanism_and_the_negotiated_one() {
    for server in Server::with_passwords() {
        compare(server);
    }
}

#[test]
fn the_same_events_through_tls_compressed_by_zstd() {
    compare(Server::with_tls(Some("zstd")));
}

fn compare(server: Server) {
    let Some(python) = std::env::var_os("CHANGESTREAM_PYTHON") else {
        official::say("skipped: CHANGESTREAM_PYTHON names no Python with PyMongo; .ci/run installs one");
        return;
    };
    let driver = || {
        let mut command = Command::new(&python);
        command
            .arg("-B")
            .arg(official::drivers().join("pymongo/run_scenarios.py"));
        command
    };
    official::compare(driver, server);
}
