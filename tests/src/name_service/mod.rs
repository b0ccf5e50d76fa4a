//! Names for tests: records as data, for worlds that answer look-ups by themselves, and a name server on the loopback
//! that serves them, with the faults that servers have.

mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use changestream_core::dns::{Answer, DnsFault, Question, RecordType, SrvRecord, TxtRecord};

pub use server::NameServer;

/// Records by name. Names are written without a dot at the end, in lower case.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    records: BTreeMap<String, Vec<Record>>,
    habits: BTreeMap<String, Habit>,
}

#[derive(Clone, Debug)]
enum Record {
    Srv { target: String, port: u16, ttl: u32 },
    Txt { strings: Vec<String> },
    Alias { target: String, ttl: u32 },
}

/// What a server does with questions about a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Habit {
    /// It answers them.
    #[default]
    Answers,
    /// It answers over TCP only; over UDP it says that the answer does not fit.
    Truncates,
    /// It says nothing.
    Silent,
    /// It sends something that begins as an answer and is none.
    Mangles,
    /// It says that it has failed.
    Fails,
    /// It first sends what somebody would who guesses: wrong numbers, other questions.
    IsSpoofed,
    /// It does not know EDNS, and says that the question makes no sense.
    IsOld,
    /// It names an alias without the records of what it stands for.
    DoesNotFollow,
}

impl Zone {
    /// Adds an SRV record, which holds for a day.
    #[must_use]
    pub fn srv(self, name: &str, target: &str, port: u16) -> Self {
        self.srv_for(name, target, port, 86400)
    }

    /// Adds an SRV record, which holds for so many seconds.
    #[must_use]
    pub fn srv_for(self, name: &str, target: &str, port: u16, ttl: u32) -> Self {
        let target = target.to_owned();
        self.with(name, Record::Srv { target, port, ttl })
    }

    /// Adds a TXT record of these strings.
    #[must_use]
    pub fn txt(self, name: &str, strings: &[&str]) -> Self {
        let strings = strings.iter().map(|string| (*string).to_owned()).collect();
        self.with(name, Record::Txt { strings })
    }

    /// Makes a name an alias of another one, for so many seconds.
    #[must_use]
    pub fn alias(self, name: &str, target: &str, ttl: u32) -> Self {
        let target = target.to_owned();
        self.with(name, Record::Alias { target, ttl })
    }

    fn with(mut self, name: &str, record: Record) -> Self {
        self.records.entry(name.to_owned()).or_default().push(record);
        self
    }

    /// Has the server act so on questions about that name.
    #[must_use]
    pub fn habit(mut self, name: &str, habit: Habit) -> Self {
        self.habits.insert(name.to_owned(), habit);
        self
    }

    fn habit_of(&self, name: &str) -> Habit {
        self.habits.get(name).copied().unwrap_or_default()
    }

    /// What a resolver says to that question.
    ///
    /// # Errors
    /// There is no such name, or no such record.
    pub fn answer(&self, question: &Question) -> Result<Answer, DnsFault> {
        let (mut name, mut limit) = (question.name.as_str(), u32::MAX);
        while let Some((target, ttl)) = self.alias_of(name) {
            (name, limit) = (target, limit.min(ttl));
        }
        if !self.exists(name) {
            return Err(DnsFault::NoSuchName);
        }
        let (mut servers, mut texts) = (Vec::new(), Vec::new());
        for record in self.records.get(name).into_iter().flatten() {
            match record {
                Record::Srv { target, port, ttl } => servers.push(SrvRecord {
                    target: target.clone(),
                    port: *port,
                    time_to_live: Duration::from_secs((*ttl).min(limit).into()),
                }),
                Record::Txt { strings } => texts.push(TxtRecord {
                    text: strings.concat(),
                }),
                Record::Alias { .. } => {}
            }
        }
        match question.record {
            RecordType::Srv if !servers.is_empty() => Ok(Answer::Srv(servers)),
            RecordType::Txt if !texts.is_empty() => Ok(Answer::Txt(texts)),
            RecordType::Srv | RecordType::Txt => Err(DnsFault::NoRecords),
        }
    }

    fn alias_of(&self, name: &str) -> Option<(&str, u32)> {
        self.records.get(name)?.iter().find_map(|record| match record {
            Record::Alias { target, ttl } => Some((target.as_str(), *ttl)),
            Record::Srv { .. } | Record::Txt { .. } => None,
        })
    }

    /// A name exists if it, or one below it, has any record (RFC 8020).
    fn exists(&self, name: &str) -> bool {
        self.records.keys().any(|other| {
            other
                .strip_suffix(name)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }
}
