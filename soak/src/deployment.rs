//! The process of the deployment: servers, a writer, and faults. It speaks with whoever started it by lines.
//!
//! It says its connection string; told `go` it begins to write and to fail, asked for its `status` it says how far it is,
//! told `stop` it heals and says what was written. It ends when nobody speaks to it any more.

use std::io::{self, BufRead, Write};
use std::thread;
use std::time::Duration;

use changestream_sim::{Deployment, RunningDeployment};

use crate::progress::Progress;
use crate::settings::Settings;
use crate::{faults, process, writer};

pub(crate) fn serve(settings: &Settings) -> Result<(), String> {
    process::allow_files(settings)?;
    let deployment = Deployment::replica_set(3)
        .server_version("7.0")
        .election_timeout(Duration::from_secs(1))
        .start()
        .map_err(|error| format!("the deployment does not start: {error}"))?;
    say(&format!("uri {}", deployment.uri()))?;
    let mut orders = io::stdin().lock().lines();
    while let Some(order) = orders.next() {
        match order.map_err(|error| error.to_string())?.as_str() {
            "go" => work(&deployment, settings, &mut orders)?,
            other => return Err(format!("the deployment was told {other:?}")),
        }
    }
    Ok(())
}

/// Until it is told to stop, or nobody is there any more.
fn work(
    deployment: &RunningDeployment,
    settings: &Settings,
    orders: &mut impl Iterator<Item = io::Result<String>>,
) -> Result<(), String> {
    let progress = Progress::default();
    let counts = thread::scope(|scope| {
        let writing = scope.spawn(|| writer::write(deployment, settings, &progress));
        let failing = scope.spawn(|| faults::inject(deployment, settings, &progress));
        for order in orders {
            match order.as_deref() {
                Ok("status") => say(&format!("status {}", progress.line()))?,
                Ok(_) | Err(_) => break,
            }
        }
        progress.stop();
        let failed = failing.join();
        let written = writing.join();
        failed.map_err(|_| "the faults panicked")?;
        written.map_err(|_| "the writer panicked")?
    })?;
    let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
    say(&format!("written {}", counts.join(" ")))
}

fn say(line: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| error.to_string())
}
