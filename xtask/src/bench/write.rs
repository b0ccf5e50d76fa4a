//! Tables and plots for the README.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::build::say;
use super::{Results, Scenario, plot};

/// Writes `benches/results`, and the part of the README between its marks.
pub(super) fn results(root: &Path, results: &Results) -> Result<(), String> {
    let folder = root.join("benches/results");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    for plot in &results.plots {
        put(&folder.join(plot.file), &plot::svg(plot))?;
    }
    let mut report = format!("# Measured\n\n{}\n\n", when_and_where());
    report += "Medians; the spread is the smallest and the largest of all rounds. Clients take turns.\n\n";
    for scenario in &results.scenarios {
        report += &table(scenario);
        report.push('\n');
    }
    for note in &results.notes {
        let _ = writeln!(report, "- {note}");
    }
    report.push('\n');
    for plot in &results.plots {
        let _ = writeln!(report, "![{}]({})", plot.title, plot.file);
    }
    put(&folder.join("README.md"), &report)?;
    readme(root, results)
}

fn table(scenario: &Scenario) -> String {
    let reference = scenario
        .series
        .iter()
        .find(|series| series.client == scenario.reference)
        .map(super::Series::median);
    let mut out = format!(
        "## {}\n\n| Client | {} | Spread | Ratio to {} |\n|---|---|---|---|\n",
        scenario.title, scenario.unit, scenario.reference
    );
    for series in &scenario.series {
        let (least, most) = series.spread();
        let ratio = reference.map_or_else(String::new, |reference| {
            format!("{:.2}", series.median() / reference)
        });
        let _ = writeln!(
            out,
            "| {} | {} | {} to {} | {ratio} |",
            series.client,
            figure(series.median()),
            figure(least),
            figure(most)
        );
    }
    out
}

/// The README shows what matters most: events of each size, beside the limit and the peers.
fn readme(root: &Path, results: &Results) -> Result<(), String> {
    let path = root.join("README.md");
    let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    let (before, rest) = text
        .split_once(START)
        .ok_or("the README has no place for the figures")?;
    let (_, after) = rest
        .split_once(END)
        .ok_or("the README's place for the figures has no end")?;
    let of_events = results
        .scenarios
        .iter()
        .filter(|scenario| scenario.unit == "CPU ns an event");
    let (typed, raw): (Vec<_>, Vec<_>) = of_events.partition(|scenario| scenario.title.contains("typed"));
    let tables = [overview(&raw, &SHOWN), overview(&typed, &SHOWN_TYPED)];
    let part = format!("{}\n\n{}", when_and_where(), tables.join("\n"));
    let written = format!("{before}{START}\n{part}{END}{after}");
    put(&path, &written)
}

/// Clients over events of several sizes.
fn overview(shown: &[&Scenario], clients: &[&str]) -> String {
    let mut part = "| CPU ns an event |".to_owned();
    for scenario in shown {
        let _ = write!(part, " {} |", scenario.title);
    }
    part += "\n|---|";
    part += &"---|".repeat(shown.len());
    part.push('\n');
    for &client in clients {
        let _ = write!(part, "| {client} |");
        for scenario in shown {
            let find = |name: &str| scenario.series.iter().find(|series| series.client == name);
            let cell = find(client).map_or_else(String::new, |series| {
                let reference = find(scenario.reference).map_or(f64::NAN, super::Series::median);
                format!(
                    "{} ({:.2} x)",
                    figure(series.median()),
                    series.median() / reference
                )
            });
            let _ = write!(part, " {cell} |");
        }
        part.push('\n');
    }
    part
}

const SHOWN: [&str; 6] = [
    "limit",
    "limit-touch",
    "changestream-tokio",
    "changestream-blocking",
    "mongodb raw",
    "mongodb raw sync",
];

const SHOWN_TYPED: [&str; 6] = [
    "changestream-tokio typed",
    "changestream-blocking typed",
    "mongodb typed",
    "mongodb typed, bson 3",
    "PyMongo",
    "npm mongodb",
];

const START: &str = "<!-- figures: written by `cargo xtask bench` -->";
const END: &str = "<!-- end of figures -->";

fn when_and_where() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        output.map_or_else(String::new, |output| {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        })
    };
    let processor = fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            line.split_once(": ").map(|(_, name)| name.to_owned())
        })
        .unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    format!(
        "Measured {}, on {processor} ({cores} cores, load {load}), Linux {}, {}.",
        said("date", &["-u", "+%Y-%m-%d"]),
        said("uname", &["-r"]),
        said("rustc", &["--version"]),
    )
}

fn figure(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

fn put(path: &Path, text: &str) -> Result<(), String> {
    say(&format!("writing {}", path.display()));
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
