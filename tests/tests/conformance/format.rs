//! The formats of the specifications' files. A file's format is told by its content, wherever it lies.

use serde_json::Value;

use crate::case::Case;
use crate::judgement::Verdict;
use crate::{bson_corpus, connection_string, read_write_concern, sdam, seedlist, server_selection, unified};

/// A format of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Connection strings: connection-string, uri-options, auth, read-write-concern.
    ConnectionString,
    /// Documents of read and write concerns.
    ConcernDocument,
    /// Replies and what the topology is after them.
    Sdam,
    /// Which servers are suitable; max-staleness too.
    ServerSelection,
    /// Averages of round-trip times.
    RoundTripTime,
    /// How often each server is chosen.
    InWindow,
    /// SRV and TXT records.
    DnsSeedlist,
    /// Connection pools.
    ConnectionPool,
    /// Documents as bytes.
    BsonCorpus,
    /// The unified test format.
    Unified,
}

impl Format {
    /// The format of a file with that content.
    pub(crate) fn of(content: &Value) -> Option<Self> {
        let has = |name: &str| content.get(name).is_some();
        let case_has = |name: &str| content["tests"][0].get(name).is_some();
        Some(match () {
            // One that lacks its version is one that is wrong.
            () if has("schemaVersion") || (has("description") && case_has("operations")) => Self::Unified,
            () if has("bson_type") => Self::BsonCorpus,
            () if has("phases") => Self::Sdam,
            () if has("mocked_topology_state") => Self::InWindow,
            () if has("topology_description") => Self::ServerSelection,
            () if has("new_rtt_ms") => Self::RoundTripTime,
            () if has("style") && has("version") => Self::ConnectionPool,
            () if case_has("readConcernDocument") || case_has("writeConcernDocument") => {
                Self::ConcernDocument
            }
            () if case_has("uri") => Self::ConnectionString,
            () if content["uri"]
                .as_str()
                .is_some_and(|uri| uri.starts_with("mongodb+srv:")) =>
            {
                Self::DnsSeedlist
            }
            () => return None,
        })
    }

    /// The descriptions of the file's cases, in order; `stem` is that of a file that has none.
    pub(crate) fn descriptions(self, content: &Value, stem: &str) -> Vec<String> {
        match self {
            Self::ConnectionString | Self::ConcernDocument | Self::Unified => {
                let cases = content["tests"].as_array().into_iter().flatten();
                cases.map(|case| described(&case["description"], stem)).collect()
            }
            Self::BsonCorpus => bson_corpus::descriptions(content),
            Self::DnsSeedlist => vec![described(&content["uri"], stem)],
            Self::Sdam
            | Self::ServerSelection
            | Self::RoundTripTime
            | Self::InWindow
            | Self::ConnectionPool => vec![described(&content["description"], stem)],
        }
    }

    /// Runs a case of that format.
    pub(crate) fn run(self, case: &Case) -> Verdict {
        let content = &case.file.content;
        let outcome = match self {
            Self::ConnectionString => connection_string::run(&content["tests"][case.index]),
            Self::ConcernDocument => return read_write_concern::run(&content["tests"][case.index]),
            Self::Sdam => sdam::run(content),
            Self::ServerSelection => server_selection::run_selection(content),
            Self::RoundTripTime => server_selection::run_round_trip(content),
            Self::InWindow => server_selection::run_in_window(content),
            Self::BsonCorpus => bson_corpus::run(content, case.index),
            Self::DnsSeedlist => seedlist::run(content),
            Self::ConnectionPool => return Verdict::Skipped(NO_POOL.to_owned()),
            Self::Unified => return unified::run(&case.file.name, content, case.index),
        };
        outcome.into()
    }
}

fn described(value: &Value, stem: &str) -> String {
    value.as_str().unwrap_or(stem).to_owned()
}

const NO_POOL: &str = "there is no pool of connections: a stream owns its sockets";
