//! What a measured client prints: one line of JSON.

use crate::clock;

/// Counts while a client reads, and prints when it is done.
///
/// ```
/// use changestream_benches::report::Report;
///
/// let mut report = Report::new("limit");
/// report.event(313, Some([0, 0, 1, 2]));
/// assert!(report.finish().starts_with(r#"{"client":"limit","events":1,"bytes":313,"checksum":258,"#));
/// ```
#[derive(Debug)]
pub struct Report {
    client: String,
    events: u64,
    bytes: u64,
    checksum: u64,
    wall: u64,
    cpu: u64,
    latencies: Vec<u64>,
}

impl Report {
    /// Starts the clocks: to be called just after the stream is open.
    pub fn new(client: &str) -> Self {
        Self {
            client: client.to_owned(),
            events: 0,
            bytes: 0,
            checksum: 0,
            wall: clock::monotonic_ns(),
            cpu: clock::cpu_ns(),
            latencies: Vec::new(),
        }
    }

    /// Counts an event of that many bytes, and the last four bytes of its key if they were read.
    #[inline]
    pub fn event(&mut self, bytes: usize, key_tail: Option<[u8; 4]>) {
        self.events += 1;
        self.bytes += bytes as u64;
        if let Some(tail) = key_tail {
            self.checksum += u64::from(u32::from_be_bytes(tail));
        }
    }

    /// Notes that an event arrives now that was sent at that time of `CLOCK_MONOTONIC`, in nanoseconds.
    pub fn sent(&mut self, sent_ns: i64) {
        let sent = u64::try_from(sent_ns).unwrap_or(0);
        self.latencies.push(clock::monotonic_ns().saturating_sub(sent));
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Stops the clocks. The line to print.
    pub fn finish(mut self) -> String {
        let cpu = clock::cpu_ns() - self.cpu;
        let wall = clock::monotonic_ns() - self.wall;
        let mut line = format!(
            r#"{{"client":"{}","events":{},"bytes":{},"checksum":{},"loop_wall_ns":{wall},"loop_cpu_ns":{cpu}"#,
            self.client, self.events, self.bytes, self.checksum
        );
        if !self.latencies.is_empty() {
            self.latencies.sort_unstable();
            let at = |share: f64| micros(self.latencies[rank(self.latencies.len(), share)]);
            line += &format!(
                r#","sent_us":{{"p50":{},"p99":{},"p999":{},"max":{}}}"#,
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0)
            );
        }
        if std::env::var_os("BENCH_PEAK").is_some() {
            line += &format!(r#","peak_kib":{}"#, peak_kib().unwrap_or(0));
        }
        line.push('}');
        line
    }
}

/// The most memory that this process has had, by the operating system's account.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().trim_end_matches(" kB").parse().ok()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a position in a list of some thousands"
)]
fn rank(len: usize, share: f64) -> usize {
    ((len as f64 * share).ceil() as usize).clamp(1, len) - 1
}

#[expect(clippy::cast_precision_loss, reason = "a time for people")]
fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}
