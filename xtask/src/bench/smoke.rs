//! Instructions an event, which are the same on every run: what a slow machine cannot hide.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::build::{client, say, tools};
use super::run::Server;

/// Counts the instructions that an event takes, and fails if they are more than was committed, by more than 5 %. With
/// `accept` the figures are written instead.
pub(crate) fn run(root: &Path, accept: bool) -> Result<(), String> {
    if !has_valgrind() {
        println!("bench-smoke: SKIPPED, for there is no valgrind");
        return Ok(());
    }
    let folder = root.join("target/bench");
    let [replay, ..] = tools(root, &folder)?;
    let program = client(root, &folder, "blocking", &[])?;
    let figures = root.join("benches/instructions.txt");
    let committed = fs::read_to_string(&figures).unwrap_or_default();
    let mut measured = String::new();
    let mut failures = Vec::new();
    for (name, form, event) in CASES {
        let server = Server::start(&replay, &["--event", event, "--batch", "1000"])?;
        let few = instructions(&program, &server, form, FEW)?;
        let many = instructions(&program, &server, form, MANY)?;
        let each = (many - few) / f64::from(MANY - FEW);
        measured += &format!("{name} {each:.0}\n");
        let limit = committed
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        match limit {
            Some(limit) => say(&format!(
                "{name}: {each:.0} instructions an event, committed {limit:.0}"
            )),
            None => say(&format!(
                "{name}: {each:.0} instructions an event, nothing committed"
            )),
        }
        if limit.is_none_or(|limit| each > limit * MOST_RISE) {
            failures.push(name);
        }
    }
    if accept {
        return fs::write(&figures, measured).map_err(|error| format!("{}: {error}", figures.display()));
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(format!(
        "more instructions an event than benches/instructions.txt allows: {}. Find out why; if it must be, run \
         `cargo xtask bench-smoke --accept` and commit the file",
        failures.join(", ")
    ))
}

pub(super) fn has_valgrind() -> bool {
    Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

pub(super) fn instructions(program: &Path, server: &Server, form: &str, events: u32) -> Result<f64, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([
            form,
            &server.uri(),
            "bench",
            "events",
            &events.to_string(),
            "throughput",
        ])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind does not start: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    match collected.and_then(|(_, number)| number.trim().parse().ok()) {
        Some(number) if output.status.success() => Ok(number),
        _ => Err(format!("valgrind has not counted: {text}")),
    }
}

/// Name, form, event.
const CASES: [(&str, &str, &str); 3] = [
    ("raw-313", "raw", "insert:313"),
    ("raw-update", "raw", "update"),
    ("typed-1400", "typed", "insert:1400"),
];

/// Starting up is the same for both.
const FEW: u32 = 10_000;
const MANY: u32 = 30_000;

const MOST_RISE: f64 = 1.05;
