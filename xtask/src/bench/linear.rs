//! What the cost of an event does not depend on: in instructions, which are the same on every run.

use super::build::{Programs, say};
use super::run::Server;
use super::smoke::{has_valgrind, instructions};
use super::{Plot, Results};

/// Cost over events already seen, over batches, and over members of the deployment.
pub(super) fn measure(programs: &Programs, results: &mut Results) -> Result<(), String> {
    if !has_valgrind() {
        say("there is no valgrind: no plots of instructions");
        return Ok(());
    }
    say("linearity");
    let each = |options: &[&str], from: u32, to: u32| -> Result<f64, String> {
        let server = Server::start(&programs.replay, options)?;
        let few = instructions(&programs.blocking, &server, "raw", from)?;
        let many = instructions(&programs.blocking, &server, "raw", to)?;
        Ok((many - few) / f64::from(to - from))
    };
    let mut lines = Vec::new();
    for batch in ["1000", "100", "10"] {
        let mut points = Vec::new();
        for seen in [10_000, 40_000, 80_000, 160_000] {
            let options = ["--event", "insert:313", "--batch", batch];
            points.push((f64::from(seen) / 1000.0, each(&options, seen, seen + 10_000)?));
        }
        lines.push((format!("batches of {batch}"), points));
    }
    results.plots.push(Plot {
        file: "seen.svg",
        title: "Cost of an event over the events already seen".to_owned(),
        x: "thousand events of 313 B already seen",
        y: "instructions an event",
        lines,
    });
    let mut points = Vec::new();
    for members in ["1", "10", "20", "30", "40", "50"] {
        let options = ["--event", "insert:313", "--members", members];
        points.push((members.parse().unwrap_or(0.0), each(&options, 10_000, 30_000)?));
    }
    results.plots.push(Plot {
        file: "members.svg",
        title: "Cost of an event over the members of the deployment".to_owned(),
        x: "members",
        y: "instructions an event",
        lines: vec![("batches of 1000".to_owned(), points)],
    });
    Ok(())
}
