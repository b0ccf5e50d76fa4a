//! A bare loop that reads events: what nothing can be faster than.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to its user"
)]

use std::process::ExitCode;

use changestream_benches::limit::{self, Kind};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, address, events, mode] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let kind = match kind.as_str() {
        "step" => Kind::Step,
        "touch" => Kind::Touch,
        "stream" => Kind::Stream,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let events = events.parse().unwrap_or(1_000_000);
    match limit::run(address, kind, events, mode == "latency") {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("limit: {error}");
            ExitCode::FAILURE
        }
    }
}

const USAGE: &str = "limit step|touch|stream HOST:PORT EVENTS throughput|latency";
