//! What a run survived, in figures.

use std::collections::BTreeMap;
use std::fmt;

/// What a run survived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Operations that writers sent, by kind.
    pub operations: BTreeMap<&'static str, u64>,
    /// Changes that a majority has kept.
    pub changes: usize,
    /// Documents whose insertion was acknowledged and then rolled back.
    pub rolled_back: usize,
    /// Events delivered, over all consumers.
    pub delivered: u64,
    /// Resumes, over all streams.
    pub resumes: u64,
    /// Streams that consumers took up where an earlier one had stopped.
    pub reopened: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What else streams met, by kind: see that nothing which they could meet is left out.
    pub met: BTreeMap<&'static str, u64>,
    /// Errors that streams ended with, by name.
    pub ends: BTreeMap<String, u64>,
    /// Of everything that streams have sent.
    pub fingerprint: u64,
}

impl Report {
    /// Adds another run's figures.
    pub fn add(&mut self, other: &Self) {
        self.changes += other.changes;
        self.rolled_back += other.rolled_back;
        self.delivered += other.delivered;
        self.resumes += other.resumes;
        self.reopened += other.reopened;
        self.fingerprint ^= other.fingerprint;
        for (kind, count) in &other.operations {
            *self.operations.entry(kind).or_default() += count;
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (kind, count) in &other.met {
            *self.met.entry(kind).or_default() += count;
        }
        for (name, count) in &other.ends {
            *self.ends.entry(name.clone()).or_default() += count;
        }
    }

    /// Streams met something of that kind.
    pub(super) fn meet(&mut self, kind: &'static str) {
        *self.met.entry(kind).or_default() += 1;
    }

    /// How many faults there were.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }
}

/// A table, a figure a line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        group(f, "operations written", &self.operations)?;
        line(f, "changes kept by a majority", self.changes as u64)?;
        line(f, "documents rolled back", self.rolled_back as u64)?;
        line(f, "events delivered", self.delivered)?;
        line(f, "resumes", self.resumes)?;
        line(f, "streams reopened", self.reopened)?;
        group(f, "other things met", &self.met)?;
        group(f, "streams ended by an error", &self.ends)?;
        group(f, "faults survived", &self.faults)
    }
}

fn group<K: fmt::Display>(f: &mut fmt::Formatter<'_>, name: &str, counts: &BTreeMap<K, u64>) -> fmt::Result {
    line(f, name, counts.values().sum())?;
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (kind, count) in counts {
        line(f, &format!("  {kind}"), *count)?;
    }
    Ok(())
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, count: u64) -> fmt::Result {
    writeln!(f, "{name:<40}{:>16}", grouped(count))
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What streams meet in any few seeds, besides faults.
pub const OFTEN_MET: [&str; 4] = [UNASKED, OUT_OF_TIME, DROPPED, OF_OTHERS];
/// What they meet in any thousand seeds.
pub const SELDOM_MET: [&str; 5] = [EARLY, PIECES, OBSTACLES, TOO_OLD, BALANCERS];

pub(super) const UNASKED: &str = "replies unasked";
pub(super) const OUT_OF_TIME: &str = "calls out of time";
pub(super) const DROPPED: &str = "demands dropped";
pub(super) const OF_OTHERS: &str = "others' tokens";
pub(super) const EARLY: &str = "events before their reply's end";
pub(super) const PIECES: &str = "pieces of events";
pub(super) const OBSTACLES: &str = "events that cannot be made";
pub(super) const TOO_OLD: &str = "servers too old";
pub(super) const BALANCERS: &str = "load balancers";
