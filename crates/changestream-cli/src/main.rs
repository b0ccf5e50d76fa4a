//! The `changestream` program.

mod args;
mod demo;
mod exit;
mod signals;
mod sim;
mod tail;
mod token;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Tail(args) => tail::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Sim(args) => sim::run(args),
        Command::Demo(args) => demo::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.to_string());
            failure.exit_code()
        }
    }
}

/// A line on standard error. That it cannot be written is no reason to end.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "changestream: {line}");
}
