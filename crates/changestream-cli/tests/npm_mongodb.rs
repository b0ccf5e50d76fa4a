//! The npm driver and `changestream tail` on one simulated deployment: both live through the same scenarios and see the
//! same events.
//!
//! `CHANGESTREAM_NODE_DRIVER` names the folder in which `.ci/run` has installed the npm package `mongodb`; without it
//! the tests say so and are skipped.

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
fn the_same_events_through_tls_compressed_by_zlib() {
    compare(Server::with_tls(Some("zlib")));
}

fn compare(server: Server) {
    let Some(folder) = std::env::var_os("CHANGESTREAM_NODE_DRIVER") else {
        official::say(
            "skipped: CHANGESTREAM_NODE_DRIVER names no folder with the npm driver; .ci/run installs it",
        );
        return;
    };
    let driver = || {
        let mut command = Command::new("node");
        command.arg(official::drivers().join("node/run_scenarios.mjs"));
        command.env("NODE_DRIVER_FOLDER", &folder);
        command
    };
    official::compare(driver, server);
}
