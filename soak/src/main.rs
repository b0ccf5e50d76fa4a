//! Many streams in one process for minutes, against a simulated deployment full of faults in another: is anything lost or
//! repeated, does memory grow, do sockets leak? `cargo xtask soak` starts it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

mod deployment;
mod faults;
mod process;
mod progress;
mod remote;
mod settings;
mod soak;
mod streams;
mod verdict;
mod writer;

use std::process::ExitCode;

use settings::Settings;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.split_first() {
        // How the program starts itself for the deployment's process.
        Some((first, rest)) if first == "serve" => Settings::parse(rest).and_then(|s| deployment::serve(&s)),
        Some(_) | None => Settings::parse(&arguments).and_then(|settings| soak::run(&settings)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("soak: {message}");
            ExitCode::FAILURE
        }
    }
}
