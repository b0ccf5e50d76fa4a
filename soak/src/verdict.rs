//! What was observed, and what has to hold of it.

use crate::process::Usage;

pub(crate) struct Observed {
    streams: usize,
    /// Before the first stream was opened.
    pub(crate) before: Usage,
    pub(crate) remote_before: Usage,
    /// Each second.
    pub(crate) samples: Vec<Usage>,
    /// Streams that were given everything.
    pub(crate) complete: usize,
    /// Everything is delivered, nothing fails any more, and the streams are still open.
    pub(crate) at_rest: Usage,
    /// All streams are closed.
    pub(crate) closed: Usage,
    pub(crate) remote_closed: Usage,
    pub(crate) wrong: Vec<String>,
}

impl Observed {
    pub(crate) fn new(streams: usize, before: Usage, remote_before: Usage) -> Self {
        Self {
            streams,
            before,
            remote_before,
            samples: Vec::new(),
            complete: 0,
            at_rest: before,
            closed: before,
            remote_closed: remote_before,
            wrong: Vec::new(),
        }
    }

    /// Prints each point, and fails if one does not hold.
    pub(crate) fn judge(&self) -> Result<(), String> {
        for wrong in self.wrong.iter().take(MOST_SHOWN) {
            println!("  {wrong}");
        }
        let (early, late) = self.peaks();
        let allowed = early + early / 20 + SLACK;
        let points = [
            (
                format!(
                    "nothing lost, nothing repeated: {} of {} streams",
                    self.complete, self.streams
                ),
                self.wrong.is_empty() && self.complete == self.streams,
            ),
            (
                format!(
                    "memory flat: at most {:.1} MiB in the second third, {:.1} MiB in the last one ({:.1} MiB allowed)",
                    mib(early),
                    mib(late),
                    mib(allowed)
                ),
                late <= allowed,
            ),
            (
                format!(
                    "one connection a stream: {} files more than before, with {} streams",
                    self.at_rest.files.saturating_sub(self.before.files),
                    self.streams
                ),
                self.at_rest.files <= self.before.files + self.streams,
            ),
            (
                format!(
                    "no socket leaked: {} files before, {} after",
                    self.before.files, self.closed.files
                ),
                self.closed.files <= self.before.files,
            ),
            (
                format!(
                    "nor at the deployment: {} files before, {} after",
                    self.remote_before.files, self.remote_closed.files
                ),
                self.remote_closed.files <= self.remote_before.files,
            ),
        ];
        for (what, holds) in &points {
            println!("{}  {what}", if *holds { "ok    " } else { "FAILED" });
        }
        match points.iter().filter(|(_, holds)| !holds).count() {
            0 => Ok(()),
            failed => Err(format!("{failed} of {} points do not hold", points.len())),
        }
    }

    /// The most memory after the warm-up, which is a third of the time, and in the last third.
    fn peaks(&self) -> (u64, u64) {
        let third = self.samples.len() / 3;
        let (warm, late) = (third, self.samples.len() - third);
        let most = |samples: &[Usage]| samples.iter().map(|usage| usage.rss).max().unwrap_or(0);
        (
            most(self.samples.get(warm..late).unwrap_or_default()),
            most(self.samples.get(late..).unwrap_or_default()),
        )
    }
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

const MOST_SHOWN: usize = 10;
/// Of memory, in KiB: what an allocator takes from the system at a time.
const SLACK: u64 = 4096;
