//! What the system says of a process. By Linux's `/proc`.

use std::fs;
use std::process;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::settings::Settings;

/// A process at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Resident memory, in KiB.
    pub(crate) rss: u64,
    /// Open file descriptors.
    pub(crate) files: usize,
}

/// This process.
pub(crate) fn own() -> Result<Usage, String> {
    of(process::id())
}

pub(crate) fn of(process: u32) -> Result<Usage, String> {
    let explain = |what: &str| format!("{what} cannot be read: the soak measures by Linux's /proc");
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).map_err(|_| explain(&path))?;
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
        .ok_or_else(|| explain("VmRSS"))?;
    let path = format!("/proc/{process}/fd");
    let files = fs::read_dir(&path).map_err(|_| explain(&path))?.count();
    Ok(Usage { rss, files })
}

/// Seconds of processor time that this process has used.
pub(crate) fn cpu() -> f64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .map_or(0.0, |time| time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

/// Lets this process open as many files as it may, and says whether these suffice: two for each connection on the
/// deployment's side, and a stream that looks for a server has several.
pub(crate) fn allow_files(settings: &Settings) -> Result<(), String> {
    let wrong = |error| format!("the limit of open files: {error}");
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(wrong)?;
    let wanted = settings.streams as u64 * 8 + 100;
    if most < wanted {
        return Err(format!(
            "{wanted} open files are needed, {most} allowed: raise `ulimit -Hn`, or ask for fewer streams"
        ));
    }
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(wrong)
}
