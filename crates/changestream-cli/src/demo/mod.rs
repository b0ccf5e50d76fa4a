//! `changestream demo`.

mod connection;
mod ledger;
mod writer;

use std::io::{self, Write};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use changestream_blocking::{ChangeStream, Client};
use changestream_core::Update;
use changestream_core::event::ExtendedJson;
use changestream_core::uri::ConnectionString;
use changestream_sim::{Deployment, RunningDeployment};

use crate::exit::{EXIT_CODES, Exit, Failure};
use crate::sim::{seeded, start};
use crate::tail::{Printer, Unprinted};

use ledger::Ledger;
use writer::Writer;

/// See it work: write to a simulated replica set, follow the writes, and let its primary crash in the middle.
///
/// Ends with a line that counts what was written, delivered, lost and repeated; fails unless nothing was lost and
/// nothing repeated.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Documents to write.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    writes: u32,

    /// Server version to behave as.
    #[arg(long, value_name = "V", default_value = "4.4")]
    server_version: String,

    /// Seed of every random choice [default: from the operating system].
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let config = Deployment::replica_set(3)
        .server_version(args.server_version.as_str())
        .election_timeout(ELECTION_TIMEOUT);
    let deployment = start(seeded(config, args.seed))?;
    let connection: ConnectionString = deployment
        .uri()
        .parse()
        .map_err(|error| other(format!("the deployment's connection string: {error}")))?;
    crate::say(&format!("a replica set of three runs at {connection}"));
    let members = connection.options.hosts.iter().map(ToString::to_string).collect();
    let client = Client::with_options(connection.options)?;
    let mut stream = client
        .collection(DATABASE, COLLECTION)
        .watch()
        .max_await_time(AWAIT)
        .open()?;

    let ledger = thread::scope(|scope| {
        let writer = scope.spawn(|| write(Writer::new(members), args.writes, &deployment));
        follow(&mut stream, writer, args.writes)
    })?;
    let resumes = stream.stats().resumes;
    // What goes wrong now is of no interest: the server forgets the cursor by itself.
    let _ = stream.close();

    let balance = ledger.balance(args.writes);
    let summary = format!("{balance}, elections 1, resumes {resumes}");
    match writeln!(io::stdout(), "{summary}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Failure::file("standard output", &error));
        }
        Ok(()) | Err(_) => {}
    }
    if !balance.is_even() {
        return Err(other(
            "the demonstration failed: not every write was delivered once and in order",
        ));
    }
    if resumes == 0 {
        return Err(other(
            "the demonstration failed: the stream's server crashed, and it did not resume",
        ));
    }
    Ok(())
}

/// Writes at a walking pace. Halfway the primary crashes, and comes back a while later.
fn write(mut writer: Writer, writes: u32, deployment: &RunningDeployment) -> Result<(), String> {
    let mut crashed = None;
    for number in 0..writes {
        if number == writes / 2 {
            crashed = deployment.primary();
            crate::say("the primary crashes: another is elected");
            crashed.iter().for_each(|member| deployment.crash(*member));
        }
        if number == writes - writes / 4 {
            crashed.iter().for_each(|member| deployment.restart(*member));
        }
        writer.insert(number)?;
        thread::sleep(BETWEEN_WRITES.min(LONGEST_RUN / writes));
    }
    Ok(())
}

/// Prints and counts until everything is there, and a moment longer: what is repeated would come late.
fn follow(
    stream: &mut ChangeStream,
    writer: ScopedJoinHandle<'_, Result<(), String>>,
    writes: u32,
) -> Result<Ledger, Failure> {
    let mut printer = Printer::new(ExtendedJson::Relaxed, true);
    let mut ledger = Ledger::default();
    let mut last_event = Instant::now();
    while let Some(update) = stream.next_update() {
        let update = update?;
        if let Update::Change(event) = &update {
            ledger.note(event);
            last_event = Instant::now();
        }
        match printer.print(&update).and_then(|()| printer.flush()) {
            Ok(()) | Err(Unprinted::Closed) => {}
            Err(Unprinted::Failed(failure)) => return Err(failure),
        }
        let patience = if ledger.has(writes) { AWAIT } else { LOST_AFTER };
        if writer.is_finished() && last_event.elapsed() >= patience {
            break;
        }
    }
    match writer.join() {
        Ok(Ok(())) => Ok(ledger),
        Ok(Err(error)) => Err(other(format!("the writer failed: {error}"))),
        Err(_) => Err(other("the writer panicked")),
    }
}

fn other(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Other, message)
}

const DATABASE: &str = "demo";
const COLLECTION: &str = "documents";
/// Short, so that the end is noticed soon.
const AWAIT: Duration = Duration::from_millis(250);
/// How long the set is without a primary.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);
const BETWEEN_WRITES: Duration = Duration::from_millis(25);
const LONGEST_RUN: Duration = Duration::from_secs(20);
/// An event that has not come by then will not come.
const LOST_AFTER: Duration = Duration::from_secs(10);
