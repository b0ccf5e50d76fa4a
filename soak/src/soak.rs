//! The process of the streams: opens them, looks at itself each second, and judges in the end.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{self, Usage};
use crate::remote::Remote;
use crate::settings::Settings;
use crate::streams::Streams;
use crate::verdict::Observed;

pub(crate) fn run(settings: &Settings) -> Result<(), String> {
    process::allow_files(settings)?;
    let mut remote = Remote::start(settings)?;
    let mut streams = Streams::new()?;
    let mut observed = Observed::new(settings.streams, process::own()?, process::of(remote.process())?);
    let begun = Instant::now();
    streams.open(&remote.uri, settings)?;
    println!(
        "{} streams are open after {:.1} s",
        settings.streams,
        begun.elapsed().as_secs_f64()
    );
    remote.go()?;
    watch(settings, &mut remote, &streams, &mut observed)?;
    let goal = remote.stop()?;
    println!("written in the end: {} documents", goal.iter().sum::<u64>());
    streams.tally().set_goal(goal);
    await_everything(settings, &streams);
    observed.complete = streams.tally().complete();
    observed.at_rest = process::own()?;
    streams.close();
    observed.wrong = streams.tally().wrong();
    observed.closed = settled(process::own, observed.before)?;
    let remote_process = remote.process();
    observed.remote_closed = settled(|| process::of(remote_process), observed.remote_before)?;
    observed.judge()
}

/// Looks at both processes each second, for as long as the soak is to last or until something goes wrong.
fn watch(
    settings: &Settings,
    remote: &mut Remote,
    streams: &Streams,
    observed: &mut Observed,
) -> Result<(), String> {
    let begun = Instant::now();
    let mut told = 0;
    for second in 1..=settings.duration.as_secs() {
        thread::sleep((begun + Duration::from_secs(second)).saturating_duration_since(Instant::now()));
        let usage = process::own()?;
        observed.samples.push(usage);
        if second.is_multiple_of(10) {
            let events = streams.tally().events.load(Ordering::Relaxed);
            tell(second, usage, events, (events - told) / 10, streams, remote)?;
            told = events;
        }
        if streams.tally().is_wrong() {
            break;
        }
    }
    Ok(())
}

fn tell(
    second: u64,
    usage: Usage,
    events: u64,
    rate: u64,
    streams: &Streams,
    remote: &mut Remote,
) -> Result<(), String> {
    let status = remote.status()?;
    let mut status = status.splitn(3, ' ');
    let remote_cpu = status.next().unwrap_or_default();
    let written = status.next().unwrap_or_default();
    let faults = status.next().unwrap_or_default();
    println!(
        "{second:>4} s  RSS {:.1} MiB  files {}  events {events} ({rate}/s)  resumes {}, opened again {}  CPU {:.1} s  |  deployment: CPU {remote_cpu} s, \
         {written} documents; {faults}",
        usage.rss as f64 / 1024.0,
        usage.files,
        streams.tally().resumes.load(Ordering::Relaxed),
        streams.tally().reopened.load(Ordering::Relaxed),
        process::cpu(),
    );
    Ok(())
}

/// Until every stream has been given everything, and for a while after it: what is repeated then is seen too.
fn await_everything(settings: &Settings, streams: &Streams) {
    let limit = Instant::now() + LAST_EVENTS;
    while streams.tally().complete() < settings.streams
        && Instant::now() < limit
        && !streams.tally().is_wrong()
    {
        thread::sleep(LOOK);
    }
    thread::sleep(REPEATS);
}

/// The usage once as few files are open as before, or after a while.
fn settled(look: impl Fn() -> Result<Usage, String>, before: Usage) -> Result<Usage, String> {
    let limit = Instant::now() + CLOSING;
    loop {
        let usage = look()?;
        if usage.files <= before.files || Instant::now() >= limit {
            return Ok(usage);
        }
        thread::sleep(LOOK);
    }
}

const LOOK: Duration = Duration::from_millis(100);
/// How long the last events may take: a resume that is under way, and the longest wait for a reply.
const LAST_EVENTS: Duration = Duration::from_secs(120);
/// Longer than the longest wait for a reply, after which a connection is idle or in use for good.
const REPEATS: Duration = Duration::from_secs(12);
const CLOSING: Duration = Duration::from_secs(15);
