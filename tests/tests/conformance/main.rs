//! The conformance files of the driver specifications, all that apply: what is found in the folder that
//! [`changestream_tests::specs`] names is run, and a table of it printed. `cargo xtask conformance` is this program.
//!
//! Arguments are parts of names: only cases whose file or description holds one of them are run. `--verbose` tells of
//! each case that is skipped.
#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test, and a program that talks to its user"
)]

mod bson_corpus;
mod by_hand;
mod case;
mod connection_string;
mod expected;
mod format;
mod judgement;
mod listed;
mod read_write_concern;
mod sdam;
mod seedlist;
mod server_selection;
mod table;
mod unified;

use std::process::ExitCode;

use judgement::Judge;
use table::Table;

fn main() -> ExitCode {
    let Some(root) = changestream_tests::specs() else {
        return ExitCode::SUCCESS;
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let verbose = arguments.iter().any(|argument| argument == "--verbose");
    let parts: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let judge = match Judge::new(&root) {
        Ok(judge) => judge,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::FAILURE;
        }
    };
    let cases = case::find(&root, &parts);
    let judgements = judge.run(&cases);
    let mut table = Table::default();
    for (case, judgement) in cases.iter().zip(&judgements) {
        table.add(case, judgement);
        judgement.tell(case, verbose);
    }
    let mut faults = 0;
    if parts.is_empty() {
        for fault in judge.unused_entries(&cases) {
            eprintln!("FAILED {fault}");
            faults += 1;
        }
    }
    let repeated = unified::repeated();
    if repeated > 0 {
        eprintln!(
            "{repeated} cases that are about time passed or failed at the second try, with longer times"
        );
    }
    print!("{table}");
    if parts.is_empty() {
        // CI compares it with the README's.
        std::fs::write(
            concat!(env!("CARGO_TARGET_TMPDIR"), "/conformance.txt"),
            table.to_string(),
        )
        .unwrap();
    }
    if table.failed() + faults == 0 {
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}
