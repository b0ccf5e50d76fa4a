//! `changestream token`, and tokens on the command line.

use std::io::{self, Read, Write};

use bson::{Bson, Document, RawBson, Timestamp, doc};
use changestream_core::ResumeToken;
use changestream_core::token::{TokenInfo, TokenKind};

use crate::args::{Token, parse_json};
use crate::exit::{Exit, Failure};

/// Explains a token on standard output.
pub(crate) fn run(args: &Token) -> Result<(), Failure> {
    let (token, _) = if args.token == "-" {
        let mut text = String::new();
        io::stdin()
            .take(LONGEST_FILE)
            .read_to_string(&mut text)
            .map_err(|error| Failure::file("standard input", &error))?;
        parse(&text)?
    } else {
        from_argument(&args.token)?
    };
    let info = token
        .explain()
        .map_err(|error| Failure::new(Exit::InvalidToken, error.to_string()))?;
    let explained = Bson::Document(explanation(info)).into_relaxed_extjson();
    match writeln!(io::stdout(), "{explained:#}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::file("standard output", &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Where a stream starts with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    ResumeAfter,
    StartAfter,
}

impl Start {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ResumeAfter => "resumeAfter",
            Self::StartAfter => "startAfter",
        }
    }
}

/// The token that an argument gives: in extended JSON, as its `_data` alone, or in the file after an `@`. A
/// checkpoint's file says besides how to start with it.
pub(crate) fn from_argument(argument: &str) -> Result<(ResumeToken, Option<Start>), Failure> {
    let Some(path) = argument.strip_prefix('@') else {
        return parse(argument);
    };
    let text = read_file(path.as_ref()).map_err(|error| Failure::file(path, &error))?;
    parse(&text).map_err(|failure| Failure::usage(format!("{path}: {failure}")))
}

/// As `std::fs::read_to_string`, but for files too long to be a token's.
pub(crate) fn read_file(path: &std::path::Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(LONGEST_FILE)
        .read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) fn parse(text: &str) -> Result<(ResumeToken, Option<Start>), Failure> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok((to_token(doc! { "_data": text }.into())?, None));
    }
    let value = parse_json(text).map_err(|error| {
        Failure::usage(format!(
            "a resume token is extended JSON, or its _data alone: {error}"
        ))
    })?;
    if let Bson::Document(document) = &value {
        for start in [Start::ResumeAfter, Start::StartAfter] {
            if let Some(token) = document.get(start.as_str()) {
                return Ok((to_token(token.clone())?, Some(start)));
            }
        }
    }
    Ok((to_token(value)?, None))
}

fn to_token(value: Bson) -> Result<ResumeToken, Failure> {
    let value =
        RawBson::try_from(value).map_err(|error| Failure::usage(format!("the resume token: {error}")))?;
    Ok(ResumeToken::from_raw_bson(value))
}

/// One line of canonical extended JSON, from which the very same token can be made again.
pub(crate) fn to_json(token: &ResumeToken) -> Result<String, changestream_core::Error> {
    Ok(token.to_bson()?.into_canonical_extjson().to_string())
}

/// What is known of a token, in the order in which people ask.
fn explanation(info: TokenInfo) -> Document {
    let kind = match info.kind {
        TokenKind::Event => "event".to_owned(),
        TokenKind::HighWaterMark => "high-water mark".to_owned(),
        TokenKind::Other(_) | _ => format!("{:?}", info.kind),
    };
    let mut explained = doc! {
        "clusterTime": info.cluster_time,
        "date": date(info.cluster_time),
        "kind": kind,
        "version": info.version,
        "transactionOperationIndex": info.transaction_operation_index,
        "fromInvalidate": info.from_invalidate,
    };
    let optional = [
        (
            "collectionUUID",
            info.collection_uuid.map(|uuid| Bson::String(uuid.to_string())),
        ),
        (
            "operationType",
            info.operation_type.map(|kind| Bson::String(kind.to_string())),
        ),
        ("documentKey", info.document_key.map(Bson::Document)),
        (
            "operationDescription",
            info.operation_description.map(Bson::Document),
        ),
        ("fragment", info.fragment.map(Bson::Int64)),
        ("notUnderstood", info.not_understood.map(Bson::String)),
    ];
    explained.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?))),
    );
    explained
}

fn date(time: Timestamp) -> bson::DateTime {
    bson::DateTime::from_millis(i64::from(time.time) * 1000)
}

/// A token holds a document's `_id` at most, which has a limit of its own.
const LONGEST_FILE: u64 = 48_000_000;
