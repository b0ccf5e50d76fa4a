//! Commands in a form that can be compared between two runs: what differs by chance is called by its role.

use std::collections::BTreeMap;

use bson::{Bson, Document};
use changestream_sim::CommandRecord;
use serde_json::Value;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) name: String,
    /// Every field by its path, in order of the paths.
    pub(crate) fields: BTreeMap<String, String>,
}

/// Gives names.
pub(crate) struct Shower<'a> {
    tokens: &'a [Value],
    first_primary: Option<usize>,
    sessions: Vec<Bson>,
    cursors: Vec<i64>,
}

impl<'a> Shower<'a> {
    pub(crate) fn new(tokens: &'a [Value], first_primary: Option<usize>) -> Self {
        Self {
            tokens,
            first_primary,
            sessions: Vec::new(),
            cursors: Vec::new(),
        }
    }

    pub(crate) fn show(&mut self, record: &CommandRecord) -> Shown {
        let mut fields = BTreeMap::new();
        let server = match self.first_primary {
            None => "the mongos",
            Some(primary) if primary == record.member => "the first primary",
            Some(_) => "another member",
        };
        fields.insert("server".to_owned(), server.to_owned());
        for (name, value) in &record.body {
            self.add(name, value, &mut fields);
        }
        Shown {
            name: record.name.clone(),
            fields,
        }
    }

    fn add(&mut self, path: &str, value: &Bson, fields: &mut BTreeMap<String, String>) {
        let named = match (path, value) {
            ("lsid", session) => Some(format!("session {}", number_of(&mut self.sessions, session))),
            ("$clusterTime", _) => Some("is there".to_owned()),
            ("getMore", Bson::Int64(id)) => Some(format!("cursor {}", number_of(&mut self.cursors, id))),
            ("cursors", Bson::Array(ids)) => {
                let ids = ids.iter().filter_map(Bson::as_i64);
                let ids: Vec<_> = ids.map(|id| number_of(&mut self.cursors, &id)).collect();
                Some(format!("cursors {ids:?}"))
            }
            (_, Bson::Timestamp(_)) => Some("a time".to_owned()),
            (path, token) if path.ends_with(".resumeAfter") || path.ends_with(".startAfter") => {
                Some(self.token(token))
            }
            _ => None,
        };
        if let Some(named) = named {
            fields.insert(path.to_owned(), named);
            return;
        }
        match value {
            Bson::Document(document) if !document.is_empty() => {
                for (name, value) in document {
                    self.add(&format!("{path}.{name}"), value, fields);
                }
            }
            Bson::Array(values) if !values.is_empty() => {
                for (index, value) in values.iter().enumerate() {
                    self.add(&format!("{path}.{index}"), value, fields);
                }
            }
            other => {
                fields.insert(path.to_owned(), plain(other));
            }
        }
    }

    /// Which event's token it is.
    fn token(&self, token: &Bson) -> String {
        if self.first_primary.is_none() {
            // How far a mongos is beyond an event is a matter of its shards' clocks.
            return "a token".to_owned();
        }
        let token = token.clone().into_canonical_extjson();
        match self.tokens.iter().position(|known| *known == token) {
            Some(index) => format!("the token of event {}", index + 1),
            None => "a token of the server's".to_owned(),
        }
    }
}

/// Numbers by their value: drivers differ in their types, and servers do not mind.
fn plain(value: &Bson) -> String {
    match value {
        Bson::Int32(number) => number.to_string(),
        Bson::Int64(number) => number.to_string(),
        Bson::Double(number) => number.to_string(),
        Bson::Document(_) => Document::new().to_string(),
        other => other.to_string(),
    }
}

fn number_of<T: Clone + PartialEq>(known: &mut Vec<T>, value: &T) -> usize {
    let found = known.iter().position(|one| one == value);
    found.unwrap_or_else(|| {
        known.push(value.clone());
        known.len() - 1
    }) + 1
}
