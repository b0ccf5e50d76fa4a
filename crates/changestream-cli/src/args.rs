//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use bson::{Bson, DateTime, Document, Timestamp};
use changestream_core::event::ExtendedJson;
use changestream_core::{FullDocument, FullDocumentBeforeChange, ReadPreferenceMode};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit::EXIT_CODES;

/// Follow MongoDB change streams from the command line.
#[derive(Debug, Parser)]
#[command(name = "changestream", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Tail(Box<Tail>),
    Token(Token),
    Sim(crate::sim::Args),
    Demo(crate::demo::Args),
}

/// Print change events as they happen, one line of extended JSON each.
///
/// Without --db the whole deployment is watched, without --coll the whole database. Everything but events goes to
/// standard error.
#[derive(Debug, Args)]
#[command(after_help = format!("{UPDATE_LINES}\n\n{EXIT_CODES}"))]
pub(crate) struct Tail {
    /// Connection string, mongodb://... or mongodb+srv://...; a password in it is safer in the environment variable.
    #[arg(env = "CHANGESTREAM_URI", hide_env_values = true)]
    pub(crate) uri: String,

    /// DNS server to ask for the servers of mongodb+srv://, in place of the system's; may be given several times.
    #[cfg(feature = "dns")]
    #[arg(long, value_name = "IP[:PORT]", value_parser = dns_server)]
    pub(crate) dns_server: Vec<std::net::SocketAddr>,

    /// File of the access token for authMechanism=MONGODB-OIDC, read anew whenever the server wants one; the token itself
    /// may stand in the environment variable CHANGESTREAM_OIDC_TOKEN instead.
    ///
    /// Keys for MONGODB-AWS may stand in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.
    #[arg(long, value_name = "FILE")]
    pub(crate) oidc_token_file: Option<PathBuf>,

    /// Database to watch.
    #[arg(long, value_name = "NAME")]
    pub(crate) db: Option<String>,

    /// Collection to watch.
    #[arg(long, value_name = "NAME", requires = "db")]
    pub(crate) coll: Option<String>,

    /// Stages after $changeStream: an array of them, or one, in extended JSON.
    #[arg(long, value_name = "JSON", value_parser = parse_pipeline)]
    pub(crate) pipeline: Option<Pipeline>,

    /// Document that an update carries: default, updateLookup, whenAvailable or required.
    #[arg(long, value_name = "MODE", value_parser = full_document)]
    pub(crate) full_document: Option<FullDocument>,

    /// Document before the change: off, whenAvailable or required.
    #[arg(long, value_name = "MODE", value_parser = full_document_before_change)]
    pub(crate) full_document_before_change: Option<FullDocumentBeforeChange>,

    /// Also show index builds, created collections and the like (server 6.0).
    #[arg(long)]
    pub(crate) show_expanded_events: bool,

    /// Go on after this resume token: extended JSON, its _data alone, or @FILE with either.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) resume_after: Option<String>,

    /// As --resume-after, also with an invalidate event's token.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) start_after: Option<String>,

    /// Start with the changes at this time: seconds since 1970, or seconds,increment, or as in 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) start_at: Option<Timestamp>,

    /// Go on from the position in this file, if it is there, whatever else says where to start; and keep it there.
    ///
    /// Written when the stream has opened, and when all events that were at hand have been printed, ten times a second at
    /// most: after a crash, the last ones may be printed again.
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,

    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_events: Option<u64>,

    /// Most events in a batch.
    #[arg(long, value_name = "N")]
    pub(crate) batch_size: Option<u32>,

    /// How long the server waits for a change before it says that there was none [server's default: 1000].
    #[arg(long, value_name = "N", value_parser = milliseconds)]
    pub(crate) max_await_ms: Option<Duration>,

    /// Members to read from: primary, primaryPreferred, secondary, secondaryPreferred or nearest.
    #[arg(long, value_name = "MODE", value_parser = read_preference)]
    pub(crate) read_preference: Option<ReadPreferenceMode>,

    /// Form of extended JSON.
    #[arg(long, value_enum, default_value = "relaxed")]
    pub(crate) format: Format,

    /// Also print, as lines of their own, when the stream was idle, resumes, has resumed or was invalidated.
    #[arg(long)]
    pub(crate) updates: bool,

    /// Show throughput, lag and resumes on standard error.
    #[arg(long)]
    pub(crate) stats: bool,
}

/// Explain a resume token.
///
/// Prints what stands in it as extended JSON. Advisory: servers are free to change the layout.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Token {
    /// The token in extended JSON, its _data alone, @FILE with either, or - for standard input.
    pub(crate) token: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    /// Plain numbers and ISO dates.
    Relaxed,
    /// Each value names its type.
    Canonical,
}

impl From<Format> for ExtendedJson {
    fn from(format: Format) -> Self {
        match format {
            Format::Relaxed => Self::Relaxed,
            Format::Canonical => Self::Canonical,
        }
    }
}

/// A name of its own, since clap takes `Vec` for an argument that may come several times.
pub(crate) type Pipeline = std::sync::Arc<[Document]>;

const UPDATE_LINES: &str = "\
Lines of --updates have no _id, and start with the field \"update\":
  {\"update\":\"idle\",\"token\":TOKEN,\"operationTime\":TIMESTAMP}
  {\"update\":\"resuming\",\"attempt\":N,\"delayMs\":N,\"cause\":TEXT,\"code\":N}   code only if a server said it
  {\"update\":\"resumed\",\"server\":ADDRESS}
  {\"update\":\"invalidated\",\"token\":TOKEN}";

fn parse_pipeline(text: &str) -> Result<Pipeline, String> {
    let value = parse_json(text)?;
    let stages = value
        .as_array()
        .map_or_else(|| std::slice::from_ref(&value), Vec::as_slice);
    let stages = stages.iter().enumerate().map(|(number, stage)| {
        let stage = stage.as_document().cloned();
        stage.ok_or_else(|| format!("stage {} is no document", number + 1))
    });
    stages.collect()
}

/// Extended JSON of either form.
pub(crate) fn parse_json(text: &str) -> Result<Bson, String> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    Bson::try_from(value).map_err(|error| format!("not extended JSON: {error}"))
}

// A parser's form, though no value is wrong: the server judges it.
fn full_document(name: &str) -> Result<FullDocument, String> {
    Ok(FullDocument::from(name))
}

// A parser's form, though no value is wrong: the server judges it.
fn full_document_before_change(name: &str) -> Result<FullDocumentBeforeChange, String> {
    Ok(FullDocumentBeforeChange::from(name))
}

fn read_preference(name: &str) -> Result<ReadPreferenceMode, String> {
    ReadPreferenceMode::from_name(name).ok_or_else(|| {
        "it is one of primary, primaryPreferred, secondary, secondaryPreferred, nearest".to_owned()
    })
}

#[cfg(feature = "dns")]
fn dns_server(text: &str) -> Result<std::net::SocketAddr, String> {
    const PORT: u16 = 53;
    let address = text.parse::<std::net::IpAddr>().map(|ip| (ip, PORT).into());
    address
        .or_else(|_| text.parse())
        .map_err(|_| "it is an IP address, such as 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:53".to_owned())
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_millis)
        .map_err(|_| "it is a number of milliseconds".to_owned())
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(date) = DateTime::parse_rfc3339_str(text) {
        let seconds = date.timestamp_millis().div_euclid(1000);
        let time =
            u32::try_from(seconds).map_err(|_| "cluster times lie between 1970 and 2106".to_owned())?;
        return Ok(Timestamp { time, increment: 0 });
    }
    let (seconds, increment) = text.split_once(',').unwrap_or((text, "0"));
    match (seconds.trim().parse(), increment.trim().parse()) {
        (Ok(time), Ok(increment)) => Ok(Timestamp { time, increment }),
        _ => Err(
            "it is seconds since 1970, such as 1767225600 or 1767225600,1, or a date and time, such as \
                  2026-01-01T00:00:00Z"
                .to_owned(),
        ),
    }
}
