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
    compare(Server {
        version: "7.0",
        ..Server::default()
    });
}

#[test]
fn the_same_events_from_version_8_0() {
    compare(Server {
        version: "8.0",
        quick: true,
        ..Server::default()
    });
}

#[test]
fn the_same_events_from_version_4_4() {
    compare(Server {
        version: "4.4",
        quick: true,
        ..Server::default()
    });
}

#[test]
fn the_same_events_after_either_mechanism_and_the_negotiated_one() {
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-1", ""] {
        compare(Server {
            version: "7.0",
            mechanism: Some(mechanism),
            quick: true,
            only: &[
                "every kind of write",
                "a database stream tells",
                "a cluster stream",
                "step-down",
            ],
            ..Server::default()
        });
    }
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
