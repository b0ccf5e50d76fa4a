//! The client beside its peers and beside bare loops, in one run.

mod build;
mod layers;
mod linear;
mod plot;
mod run;
mod scenarios;
mod smoke;
mod write;

use std::path::Path;

pub(crate) use smoke::run as smoke;

use build::Programs;

/// Builds and installs what is needed, measures, and writes table and plots into `benches/results` and the README.
/// `rounds` says how often each measurement is repeated.
pub(crate) fn run(root: &Path, rounds: usize) -> Result<(), String> {
    let programs = Programs::prepare(root)?;
    measure(root, &programs, rounds)
}

/// The same with what an earlier run has built.
pub(crate) fn run_built(root: &Path, rounds: usize) -> Result<(), String> {
    measure(root, &Programs::built(root), rounds)
}

fn measure(root: &Path, programs: &Programs, rounds: usize) -> Result<(), String> {
    let results = scenarios::measure(programs, rounds)?;
    write::results(root, &results)
}

/// One client's figures in one scenario.
#[derive(Clone, Debug)]
struct Series {
    client: String,
    values: Vec<f64>,
}

impl Series {
    fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The smallest and the largest.
    fn spread(&self) -> (f64, f64) {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (least, most)
    }
}

/// One table: rows are clients.
#[derive(Clone, Debug)]
struct Scenario {
    title: String,
    unit: &'static str,
    /// The client that the others are compared with.
    reference: &'static str,
    series: Vec<Series>,
}

/// One plot: lines of points.
#[derive(Clone, Debug)]
struct Plot {
    file: &'static str,
    title: String,
    x: &'static str,
    y: &'static str,
    lines: Vec<(String, Vec<(f64, f64)>)>,
}

#[derive(Debug, Default)]
struct Results {
    scenarios: Vec<Scenario>,
    plots: Vec<Plot>,
    notes: Vec<String>,
}
