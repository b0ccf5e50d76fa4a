//! A line on standard error that tells how the stream goes.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use changestream_blocking::StreamStats;

/// Tells now and then: in place on a terminal, a line every ten seconds elsewhere.
#[derive(Debug)]
pub(super) struct StatusLine {
    in_place: bool,
    told: StreamStats,
    since: Instant,
}

impl StatusLine {
    pub(super) fn new() -> Self {
        Self {
            in_place: io::stderr().is_terminal(),
            told: StreamStats::default(),
            since: Instant::now(),
        }
    }

    /// Tells if it is time to.
    pub(super) fn refresh(&mut self, stats: impl FnOnce() -> StreamStats) {
        let interval = if self.in_place {
            IN_PLACE_INTERVAL
        } else {
            LINE_INTERVAL
        };
        if self.since.elapsed() >= interval {
            self.tell(stats());
        }
    }

    /// Makes room for what is printed to the same terminal.
    pub(super) fn clear(&self) {
        if self.in_place {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    /// Tells a last time.
    pub(super) fn finish(&mut self, stats: StreamStats) {
        self.tell(stats);
        if self.in_place {
            let _ = writeln!(io::stderr());
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    fn tell(&mut self, stats: StreamStats) {
        let seconds = self.since.elapsed().as_secs_f64().max(1e-3);
        let events = stats.events.saturating_sub(self.told.events) as f64;
        let megabytes = stats.bytes.saturating_sub(self.told.bytes) as f64 / 1e6;
        let lag = stats
            .lag()
            .map_or_else(|| "unknown".to_owned(), |lag| format!("{} s", lag.as_secs()));
        let line = format!(
            "{:.0} events/s, {:.2} MB/s, lag {lag}, {} events, {} resumes",
            events / seconds,
            megabytes / seconds,
            stats.events,
            stats.resumes,
        );
        // Failing to tell is no reason to end.
        let _ = if self.in_place {
            write!(io::stderr(), "\r\x1b[K{line}")
        } else {
            writeln!(io::stderr(), "changestream: {line}")
        };
        (self.told, self.since) = (stats, Instant::now());
    }
}

const IN_PLACE_INTERVAL: Duration = Duration::from_millis(500);
const LINE_INTERVAL: Duration = Duration::from_secs(10);
