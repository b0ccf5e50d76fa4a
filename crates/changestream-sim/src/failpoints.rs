//! Fail points: `failCommand`, and the one for getMore.

use std::time::Duration;

use bson::{Bson, Document};

use crate::error::CommandError;

/// The fail points of a member.
#[derive(Clone, Debug, Default)]
pub(crate) struct FailPoints {
    active: Vec<FailPoint>,
}

#[derive(Clone, Debug)]
struct FailPoint {
    name: String,
    mode: Mode,
    hits: i64,
    commands: Vec<String>,
    app_name: Option<String>,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    Always,
    Times(i64),
    Skip(i64),
}

/// What a fail point does to a command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault {
    /// The command is not even begun.
    pub(crate) error_code: Option<i32>,
    /// A getMore fails once it has its cursor.
    pub(crate) checked_out_error: Option<i32>,
    pub(crate) close_connection: bool,
    pub(crate) block: Option<Duration>,
    pub(crate) error_labels: Option<Vec<String>>,
    pub(crate) write_concern_error: Option<Document>,
}

impl FailPoints {
    /// Executes `configureFailPoint`; how often the fail point had been hit before.
    pub(crate) fn configure(&mut self, command: &Document) -> Result<i64, CommandError> {
        let name = command
            .get_str("configureFailPoint")
            .map_err(|_| CommandError::new(14, "configureFailPoint takes a name"))?;
        if !KNOWN.contains(&name) {
            return Err(CommandError::new(191, format!("{name} not found")));
        }
        let hits = self.active.iter().find(|f| f.name == name).map_or(0, |f| f.hits);
        let mode = parse_mode(command.get("mode"))?;
        self.active.retain(|f| f.name != name);
        if let Some(mode) = mode {
            let empty = Document::new();
            let data = command.get_document("data").unwrap_or(&empty);
            self.active.push(FailPoint {
                name: name.to_owned(),
                mode,
                hits: 0,
                commands: commands_of(name, data),
                app_name: data.get_str("appName").ok().map(str::to_owned),
                fault: parse_fault(name, data),
            });
        }
        Ok(hits)
    }

    /// What becomes of this command, if anything.
    pub(crate) fn fault(&mut self, command: &str, app_name: Option<&str>) -> Option<Fault> {
        let command = if command == "ismaster" {
            "isMaster"
        } else {
            command
        };
        let index = self.active.iter().position(|f| {
            f.commands.iter().any(|c| same_command(c, command))
                && f.app_name
                    .as_deref()
                    .is_none_or(|wanted| Some(wanted) == app_name)
        })?;
        self.hit(index)
    }

    /// What becomes of a retryable write that is about to be made, if anything.
    pub(crate) fn retryable_write(&mut self) -> Option<Fault> {
        let index = self.active.iter().position(|f| f.name == RETRYABLE_WRITE)?;
        self.hit(index)
    }

    fn hit(&mut self, index: usize) -> Option<Fault> {
        let point = self.active.get_mut(index)?;
        point.hits += 1;
        let fault = point.fault.clone();
        match &mut point.mode {
            Mode::Always => Some(fault),
            Mode::Skip(0) => Some(fault),
            Mode::Skip(left) => {
                *left -= 1;
                None
            }
            Mode::Times(left) => {
                *left -= 1;
                if *left <= 0 {
                    self.active.remove(index);
                }
                Some(fault)
            }
        }
    }
}

fn same_command(a: &str, b: &str) -> bool {
    let fold = |c: &str| {
        if c == "isMaster" || c == "ismaster" {
            "hello".to_owned()
        } else {
            c.to_owned()
        }
    };
    fold(a) == fold(b)
}

fn parse_mode(mode: Option<&Bson>) -> Result<Option<Mode>, CommandError> {
    let bad = || {
        CommandError::new(
            9,
            "fail point mode must be off, alwaysOn, {times: n} or {skip: n}",
        )
    };
    match mode {
        Some(Bson::String(s)) if s == "off" => Ok(None),
        Some(Bson::String(s)) if s == "alwaysOn" => Ok(Some(Mode::Always)),
        Some(Bson::Document(d)) => {
            if let Some(n) = d.get("times").and_then(number) {
                Ok((n > 0).then_some(Mode::Times(n)))
            } else if let Some(n) = d.get("skip").and_then(number) {
                Ok(Some(Mode::Skip(n.max(0))))
            } else {
                Err(bad())
            }
        }
        _ => Err(bad()),
    }
}

fn commands_of(name: &str, data: &Document) -> Vec<String> {
    if name == GET_MORE {
        return vec!["getMore".to_owned()];
    }
    let given = data
        .get_array("failCommands")
        .map(Vec::as_slice)
        .unwrap_or_default();
    given.iter().filter_map(Bson::as_str).map(str::to_owned).collect()
}

fn parse_fault(name: &str, data: &Document) -> Fault {
    let flag = |key: &str| data.get_bool(key).unwrap_or(false);
    let millis = data
        .get("blockTimeMS")
        .and_then(number)
        .and_then(|n| u64::try_from(n).ok());
    let code = |key: &str| {
        let code = data.get(key).and_then(number);
        code.and_then(|n| i32::try_from(n).ok())
    };
    if name == RETRYABLE_WRITE {
        return Fault {
            // Unlike elsewhere, the connection ends unless it is said that it does not.
            close_connection: data.get_bool("closeConnection").unwrap_or(true),
            error_code: code("failBeforeCommitExceptionCode"),
            ..Fault::default()
        };
    }
    let code = code("errorCode");
    Fault {
        error_code: code.filter(|_| name != GET_MORE),
        // InternalError where no code is given.
        checked_out_error: (name == GET_MORE).then(|| code.unwrap_or(1)),
        close_connection: flag("closeConnection"),
        block: flag("blockConnection").then(|| Duration::from_millis(millis.unwrap_or(0).min(MAX_BLOCK))),
        error_labels: data.get_array("errorLabels").ok().map(|labels| {
            labels
                .iter()
                .filter_map(Bson::as_str)
                .map(str::to_owned)
                .collect()
        }),
        write_concern_error: data.get_document("writeConcernError").ok().cloned(),
    }
}

/// A whole number of any numeric type.
pub(crate) fn number(value: &Bson) -> Option<i64> {
    let whole = value.as_i32().map(i64::from).or_else(|| value.as_i64());
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
    whole.or_else(|| value.as_f64().filter(|d| d.is_finite()).map(|d| d as i64))
}

const GET_MORE: &str = "failGetMoreAfterCursorCheckout";
/// For each write of a session that may retry it, after it is made but before it is committed.
const RETRYABLE_WRITE: &str = "onPrimaryTransactionalWrite";
const KNOWN: [&str; 3] = ["failCommand", GET_MORE, RETRYABLE_WRITE];
/// An hour: far longer than any test waits.
const MAX_BLOCK: u64 = 3_600_000;
