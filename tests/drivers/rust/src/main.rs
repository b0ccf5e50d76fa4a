//! Runs scenarios with the official Rust driver, one after another, as standard input says.
//!
//! A line in, a line out, all of them JSON; README.md beside scenarios.json tells what they mean.

mod operations;
mod run;

use std::io::{BufRead, Write};
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use mongodb::event::EventHandler;
use mongodb::event::command::CommandEvent;
use mongodb::options::ClientOptions;

use run::{Commands, Run};

/// What goes wrong in a scenario, for people.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Nothing here takes so long, unless something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Says a line, canonical, since types are to be compared too.
pub(crate) fn say(line: Document) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", Bson::Document(line).into_canonical_extjson())?;
    Ok(out.flush()?)
}

/// The next line; none at the end.
pub(crate) fn heard() -> Result<Option<Document>, Failure> {
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&line)?;
    Ok(Some(Document::try_from(fields)?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let uri = std::env::args()
        .nth(1)
        .ok_or("usage: rust-driver-scenarios URI")?;
    let commands = Commands::default();
    let mut options = ClientOptions::parse(&uri).await?;
    options.app_name = Some("driver".to_owned());
    options.heartbeat_freq = Some(Duration::from_millis(500));
    options.server_selection_timeout = Some(PATIENCE);
    let watched = commands.clone();
    options.command_event_handler = Some(EventHandler::callback(move |event: CommandEvent| {
        watched.note(&event)
    }));
    let client = Client::with_options(options)?;
    while let Some(order) = heard()? {
        let run = Run::new(
            &client,
            &commands,
            order.get_str("database")?,
            order.get_document("scenario")?,
        );
        if let Err(failure) = run.run().await {
            say(doc! { "failed": failure.to_string() })?;
        }
    }
    Ok(())
}
