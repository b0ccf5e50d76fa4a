//! What the measured examples of the adapters share: arguments, and what of an event they look at.

use std::time::Duration;
use std::{env, thread};

use bson::RawDocument;
use bson::oid::ObjectId;

/// `bench_client raw|typed URI DB COLL N throughput|latency|idle`, and what the environment varies.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// What is made of an event.
    pub form: Form,
    /// Where to.
    pub uri: String,
    /// The database to watch.
    pub database: String,
    /// The collection to watch.
    pub collection: String,
    /// How many events, or how many streams.
    pub events: u64,
    /// What is measured.
    pub mode: Mode,
    /// What is other than by default.
    pub variant: Variant,
}

/// What is made of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Nothing; its `documentKey` is read in place.
    Raw,
    /// A value of a type.
    Typed,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Time for all events.
    Throughput,
    /// Time from an event's sending to its delivery too.
    Latency,
    /// What streams cost that wait.
    Idle,
}

/// What a comparison of options sets, by environment variables. By default nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Variant {
    /// `BENCH_PREFETCH`: batches to fetch ahead.
    pub prefetch: Option<usize>,
    /// `BENCH_EXHAUST=1`: exhaust cursors.
    pub exhaust: bool,
    /// `BENCH_BATCHES=1`: whole batches instead of event by event.
    pub batches: bool,
    /// `BENCH_THINK_US`: how long the consumer works on a thousandth of the events.
    pub think: Duration,
    /// `BENCH_THINK_EVERY`: after how many events.
    pub every: u64,
}

impl Arguments {
    /// Those of this process.
    ///
    /// # Errors
    /// They are not of the form.
    pub fn from_environment() -> Result<Self, String> {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let [form, uri, database, collection, events, mode] = arguments.as_slice() else {
            return Err(USAGE.to_owned());
        };
        Ok(Self {
            form: match form.as_str() {
                "raw" => Form::Raw,
                "typed" => Form::Typed,
                _ => return Err(USAGE.to_owned()),
            },
            uri: uri.clone(),
            database: database.clone(),
            collection: collection.clone(),
            events: events.parse().map_err(|_| USAGE)?,
            mode: match mode.as_str() {
                "throughput" => Mode::Throughput,
                "latency" => Mode::Latency,
                "idle" => Mode::Idle,
                _ => return Err(USAGE.to_owned()),
            },
            variant: Variant {
                prefetch: number("BENCH_PREFETCH").and_then(|n| usize::try_from(n).ok()),
                exhaust: number("BENCH_EXHAUST").is_some_and(|n| n != 0),
                batches: number("BENCH_BATCHES").is_some_and(|n| n != 0),
                think: Duration::from_micros(number("BENCH_THINK_US").unwrap_or(0)),
                every: number("BENCH_THINK_EVERY").unwrap_or(1000).max(1),
            },
        })
    }

    /// The client's name in the report.
    pub fn name(&self, client: &str) -> String {
        match self.form {
            Form::Raw => format!("{client} raw"),
            Form::Typed => format!("{client} typed"),
        }
    }

    /// Works on what was read, if the environment says so.
    #[inline]
    pub fn think(&self, events: u64) {
        if !self.variant.think.is_zero() && events.is_multiple_of(self.variant.every) {
            thread::sleep(self.variant.think);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// The last four bytes of a `documentKey._id` that is an ObjectId.
#[inline]
pub fn document_key_tail(key: &RawDocument) -> Option<[u8; 4]> {
    key.get_object_id("_id").ok().map(|id| tail(&id))
}

/// The last four bytes of an ObjectId.
#[inline]
pub fn tail(id: &ObjectId) -> [u8; 4] {
    let [.., a, b, c, d] = id.bytes();
    [a, b, c, d]
}

/// When the event of this document was sent.
pub fn sent_ns(document: &RawDocument) -> Option<i64> {
    document.get_i64("sentNs").ok()
}

const USAGE: &str = "bench_client raw|typed URI DB COLL N throughput|latency|idle";
