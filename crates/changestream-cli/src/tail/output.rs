//! Lines on standard output.

use std::io::{self, BufWriter, StdoutLock, Write};

use bson::{Bson, Document, doc};
use changestream_core::event::ExtendedJson;
use changestream_core::{ChangeEvent, Error, ResumeToken, Update};

use crate::exit::{Exit, Failure};
use crate::token;

/// Prints events, and updates if asked to, one line each. Nothing is printed before it is flushed or the buffer full.
pub(crate) struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    form: ExtendedJson,
    updates: bool,
}

/// Why a line could not be printed.
pub(crate) enum Unprinted {
    /// Nobody reads standard output any more: time to end quietly.
    Closed,
    Failed(Failure),
}

impl Printer {
    pub(crate) fn new(form: ExtendedJson, updates: bool) -> Self {
        Self {
            out: BufWriter::with_capacity(BUFFER, io::stdout().lock()),
            form,
            updates,
        }
    }

    pub(crate) fn print(&mut self, update: &Update) -> Result<(), Unprinted> {
        if let Update::Change(event) = update {
            return self.event(event);
        }
        if !self.updates {
            return Ok(());
        }
        match line_of(update).map_err(|error| Unprinted::Failed(error.into()))? {
            Some(line) => self.line(&self.text(line)),
            None => Ok(()),
        }
    }

    pub(crate) fn flush(&mut self) -> Result<(), Unprinted> {
        self.out.flush().map_err(unprinted)
    }

    fn event(&mut self, event: &ChangeEvent) -> Result<(), Unprinted> {
        let line = event.to_extended_json(self.form).map_err(|error| {
            let message = match token::to_json(event.resume_token()) {
                Ok(token) => format!("{error}; to skip the event, start after {token}"),
                Err(broken) => format!("{error}; {broken}"),
            };
            Unprinted::Failed(Failure::new(Exit::Protocol, message))
        })?;
        self.line(&line)
    }

    fn line(&mut self, line: &str) -> Result<(), Unprinted> {
        self.out
            .write_all(line.as_bytes())
            .and_then(|()| self.out.write_all(b"\n"))
            .map_err(unprinted)
    }

    fn text(&self, line: Document) -> String {
        match self.form {
            ExtendedJson::Relaxed => Bson::Document(line).into_relaxed_extjson(),
            ExtendedJson::Canonical => Bson::Document(line).into_canonical_extjson(),
        }
        .to_string()
    }
}

/// What is told of an update that is no change. See `--help` of `tail`: programs read it.
fn line_of(update: &Update) -> Result<Option<Document>, Error> {
    Ok(Some(match update {
        Update::Idle(idle) => doc! {
            "update": "idle",
            "token": idle.token.as_ref().map(ResumeToken::to_bson).transpose()?,
            "operationTime": idle.operation_time,
        },
        Update::Resuming(resuming) => {
            let mut line = doc! {
                "update": "resuming",
                "attempt": i64::from(resuming.attempt),
                "delayMs": i64::try_from(resuming.delay.as_millis()).unwrap_or(i64::MAX),
                "cause": resuming.cause.to_string(),
            };
            if let Some(code) = resuming.cause.code() {
                line.insert("code", code);
            }
            line
        }
        Update::Resumed { server } => doc! { "update": "resumed", "server": server.to_string() },
        Update::Invalidated { token } => {
            doc! { "update": "invalidated", "token": token.to_bson()? }
        }
        Update::Change(_) | _ => return Ok(None),
    }))
}

fn unprinted(error: io::Error) -> Unprinted {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Unprinted::Closed;
    }
    Unprinted::Failed(Failure::file("standard output", &error))
}

const BUFFER: usize = 256 * 1024;
