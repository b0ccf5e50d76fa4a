//! What is asked, and what is answered.

use std::fmt;
use std::time::Duration;

/// One look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Question {
    /// What kind of records.
    pub record: RecordType,
    /// Of which name: absolute, in lower case, without the dot at its end. No search list applies to it.
    pub name: String,
}

impl Question {
    /// That question.
    pub fn new(record: RecordType, name: impl Into<String>) -> Self {
        Self {
            record,
            name: name.into(),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records of {}", self.record, self.name)
    }
}

/// The kinds of records that a seed list is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordType {
    /// Where the servers are (RFC 2782).
    Srv,
    /// Options of the connection string (RFC 1035).
    Txt,
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Srv => "SRV",
            Self::Txt => "TXT",
        })
    }
}

/// The records that there are: all of them, and at least one. That there are none is a [`DnsFault`](super::DnsFault).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of an SRV look-up.
    Srv(Vec<SrvRecord>),
    /// Of a TXT look-up.
    Txt(Vec<TxtRecord>),
}

/// One SRV record, but for priority and weight, which the specification has ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvRecord {
    /// The host, with or without the dot at its end.
    pub target: String,
    /// Its port.
    pub port: u16,
    /// How long the record holds; where it was found through aliases, the shortest time of all of them.
    pub time_to_live: Duration,
}

/// One TXT record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxtRecord {
    /// Its strings, put together in the record's order.
    pub text: String,
}
