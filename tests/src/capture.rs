//! Reads recorded conversations with a real server: `NAME.wire.jsonl` and `NAME.expected.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use bson::{Bson, Document};
use bytes::Bytes;
use changestream_core::wire::{self, Compressor, Flags, Message};
use serde_json::Value;

/// One recorded scenario: all that went over the wire, and what the recording client handed to its user.
#[derive(Debug)]
pub struct Scenario {
    /// The files' name without their endings.
    pub name: String,
    /// What it is about.
    pub note: String,
    /// Every wire message and connection event, in order.
    pub records: Vec<Record>,
    /// What was handed over, in order.
    pub log: Vec<Entry>,
}

/// One line of the wire file.
#[derive(Debug)]
pub struct Record {
    /// Since the recording began.
    pub at: Duration,
    /// The port that the client dialled.
    pub member: u16,
    /// The connection's number in this recording.
    pub connection: u64,
    /// What happened on it.
    pub happening: Happening,
}

/// What happened on a connection.
#[derive(Debug)]
pub enum Happening {
    /// The client opened it.
    Opened,
    /// The member refused it.
    Refused,
    /// One side closed it; the other's closing follows as a record of its own.
    Closed(Side),
    /// A whole message came from that side.
    Message(Side, Plain),
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client that was recorded.
    Client,
    /// The server.
    Server,
}

/// A recorded message, inflated if it was compressed.
#[derive(Debug)]
pub struct Plain {
    /// The sender's number for it.
    pub request_id: i32,
    /// Which request it answers; 0 in a request.
    pub response_to: i32,
    /// The flag bits; none in a legacy message.
    pub flags: Flags,
    /// Its document, without document sequences.
    pub body: Document,
    /// Its document sequences, each an array by its identifier.
    pub sequences: Document,
    /// By what it was compressed.
    pub compressor: Option<Compressor>,
}

/// One step of what the recording client handed to its user.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A change event, and the stream's token after it.
    Event {
        /// The whole event.
        event: Document,
        /// The stream's resume token once it was handed over.
        token: Option<Bson>,
    },
    /// A `try_next` that returned nothing.
    Idle {
        /// The stream's resume token then.
        token: Option<Bson>,
    },
    /// An error.
    Error(ExpectedError),
    /// Something that the script did or noted.
    Mark(Bson),
}

/// An error as the recording client showed it.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedError {
    /// Its text: the server's message, then what the client adds; long ones are cut.
    pub message: String,
    /// The server's code.
    pub code: Option<i32>,
    /// The code's name.
    pub code_name: Option<String>,
    /// The reply's labels.
    pub labels: Vec<String>,
}

impl Scenario {
    /// Every scenario of a folder, by name.
    ///
    /// # Errors
    /// A file that cannot be read or is not of the form, named with its line.
    pub fn all(folder: &Path) -> Result<BTreeMap<String, Self>, LoadError> {
        let entries = std::fs::read_dir(folder).map_err(|e| LoadError::new(folder, 0, e))?;
        let mut scenarios = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(|e| LoadError::new(folder, 0, e))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.and_then(|name| name.strip_suffix(".wire.jsonl")) {
                scenarios.insert(name.to_owned(), Self::load(folder, name)?);
            }
        }
        Ok(scenarios)
    }

    /// The scenario of that name.
    ///
    /// # Errors
    /// As [`all`](Self::all).
    pub fn load(folder: &Path, name: &str) -> Result<Self, LoadError> {
        let wire = folder.join(format!("{name}.wire.jsonl"));
        let expected = folder.join(format!("{name}.expected.json"));
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| LoadError::new(path, 0, e));
        let records = parse_wire(&read(&wire)?).map_err(|(line, why)| LoadError::new(&wire, line, why))?;
        let (note, log) =
            parse_expected(&read(&expected)?).map_err(|why| LoadError::new(&expected, 0, why))?;
        Ok(Self {
            name: name.to_owned(),
            note,
            records,
            log,
        })
    }

    /// The compressors that messages are compressed by.
    pub fn compressors(&self) -> BTreeSet<Compressor> {
        let messages = self.records.iter().filter_map(|record| match &record.happening {
            Happening::Message(_, message) => message.compressor,
            Happening::Opened | Happening::Refused | Happening::Closed(_) => None,
        });
        messages.collect()
    }
}

/// The records of a wire file's text; an error with the number of its line.
///
/// # Errors
/// A line that is no JSON, lacks a field, or whose message cannot be decoded.
pub fn parse_wire(text: &str) -> Result<Vec<Record>, (usize, String)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| parse_record(line).map_err(|why| (index + 1, why)))
        .collect()
}

fn parse_record(line: &str) -> Result<Record, String> {
    let value: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let number = |key: &str| {
        value
            .get(key)
            .and_then(Value::as_u64)
            .ok_or_else(|| format!("no number {key:?}"))
    };
    let seconds = value.get("t").and_then(Value::as_f64).ok_or("no number \"t\"")?;
    let side = match text("dir") {
        Some("c2s") | None => Side::Client,
        Some("s2c") => Side::Server,
        Some(other) => return Err(format!("unknown dir {other:?}")),
    };
    let happening = match (text("event"), text("bytes")) {
        (Some("open"), None) => Happening::Opened,
        (Some("refused"), None) => Happening::Refused,
        (Some("close"), None) => Happening::Closed(side),
        (None, Some(encoded)) => {
            let frame = base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .map_err(|e| e.to_string())?;
            Happening::Message(side, parse_message(frame.into())?)
        }
        (event, _) => return Err(format!("neither bytes nor a known event: {event:?}")),
    };
    Ok(Record {
        at: Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())?,
        member: u16::try_from(number("member")?).map_err(|e| e.to_string())?,
        connection: number("conn")?,
        happening,
    })
}

fn parse_message(mut frame: Bytes) -> Result<Plain, String> {
    let compressor = wire::compressor_of(&frame).and_then(Compressor::from_id);
    if compressor.is_some() {
        frame = wire::decompress(&frame, wire::DEFAULT_MAX_MESSAGE_SIZE).map_err(|e| e.to_string())?;
    }
    let message = Message::decode(&frame).map_err(|e| e.to_string())?;
    let mut sequences = Document::new();
    for sequence in sequences_of(&message) {
        let documents = sequence.documents.iter();
        let documents = documents.map(|d| Document::from_reader(&d[..]).map_err(|e| e.to_string()));
        sequences.insert(&sequence.identifier, documents.collect::<Result<Vec<_>, _>>()?);
    }
    let (flags, body) = match &message {
        Message::Msg(m) => (m.flags, &m.body),
        Message::Query(m) => (Flags::NONE, &m.query),
        Message::Reply(m) => (Flags::NONE, &m.document),
        other => return Err(format!("a message of another kind: {other:?}")),
    };
    Ok(Plain {
        request_id: message.request_id(),
        response_to: message.response_to(),
        flags,
        body: Document::from_reader(&body[..]).map_err(|e| e.to_string())?,
        sequences,
        compressor,
    })
}

fn sequences_of(message: &Message) -> &[wire::DocumentSequence] {
    if let Message::Msg(m) = message {
        return &m.sequences;
    }
    &[]
}

/// The note and the log of an expected file's text.
///
/// # Errors
/// It is no JSON, or a step of the log is of no known kind.
pub fn parse_expected(text: &str) -> Result<(String, Vec<Entry>), String> {
    let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let note = value
        .get("note")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let log = value
        .get("log")
        .and_then(Value::as_array)
        .ok_or("no array \"log\"")?;
    let entries = log
        .iter()
        .enumerate()
        .map(|(index, entry)| parse_entry(entry).map_err(|why| format!("log entry {index}: {why}")));
    Ok((note, entries.collect::<Result<_, _>>()?))
}

fn parse_entry(entry: &Value) -> Result<Entry, String> {
    let bson = |value: &Value| Bson::try_from(value.clone()).map_err(|e| e.to_string());
    let token = match entry.get("resumeToken") {
        None | Some(Value::Null) => None,
        Some(token) => Some(bson(token)?),
    };
    if let Some(event) = entry.get("event") {
        let event = bson(event)?;
        let event = event.as_document().ok_or("an event that is no document")?.clone();
        return Ok(Entry::Event { event, token });
    }
    if entry.get("idle").is_some() {
        return Ok(Entry::Idle { token });
    }
    if let Some(mark) = entry.get("mark") {
        return Ok(Entry::Mark(bson(mark)?));
    }
    let error = entry.get("error").ok_or("neither event, idle, error nor mark")?;
    let text = |key: &str| error.get(key).and_then(Value::as_str);
    let labels = error.get("errorLabels").and_then(Value::as_array);
    Ok(Entry::Error(ExpectedError {
        message: text("message").unwrap_or_default().to_owned(),
        code: error
            .get("code")
            .and_then(Value::as_i64)
            .and_then(|code| i32::try_from(code).ok()),
        code_name: text("codeName").map(str::to_owned),
        labels: labels
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    }))
}

/// A file that is not of the form.
#[derive(Debug)]
pub struct LoadError(String);

impl LoadError {
    fn new(path: &Path, line: usize, why: impl fmt::Display) -> Self {
        match line {
            0 => Self(format!("{}: {why}", path.display())),
            line => Self(format!("{}:{line}: {why}", path.display())),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoadError {}
