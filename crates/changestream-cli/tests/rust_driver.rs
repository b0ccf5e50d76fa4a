//! The official Rust driver and `changestream tail` on one simulated deployment: both live through the same scenarios
//! and see the same events.
//!
//! `CHANGESTREAM_RUST_DRIVER` names the program of `tests/drivers/rust`, which `.ci/run` builds: this workspace has
//! nothing to do with the crate. Without it the tests say so and are skipped.

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
fn the_same_events_through_tls() {
    compare(Server::with_tls(None));
}

fn compare(server: Server) {
    let Some(program) = std::env::var_os("CHANGESTREAM_RUST_DRIVER") else {
        official::say(
            "skipped: CHANGESTREAM_RUST_DRIVER names no program with the Rust driver; .ci/run builds it",
        );
        return;
    };
    let server = Server {
        without: DIFFERENCES,
        ..server
    };
    official::compare(|| Command::new(&program), server);
}

/// What this driver does otherwise than the specification says: scenarios, each with the reason.
const DIFFERENCES: &[(&str, &str)] = &[(
    "collation, comment, waiting time and an explicit session",
    "the driver (3.9) puts `comment` into the $changeStream stage as well, which servers refuse with 40415",
)];
