//! The deployment's process, from the side of who started it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::settings::Settings;

pub(crate) struct Remote {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub(crate) uri: String,
}

impl Remote {
    pub(crate) fn start(settings: &Settings) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .arg("serve")
            .args(settings.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("the deployment's process does not start: {error}"))?;
        let orders = child.stdin.take();
        let answers = child
            .stdout
            .take()
            .ok_or("the deployment's process has no output")?;
        let mut remote = Self {
            child,
            orders,
            answers: BufReader::new(answers),
            uri: String::new(),
        };
        remote.uri = remote.answer("uri")?;
        Ok(remote)
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Writing and faults begin.
    pub(crate) fn go(&mut self) -> Result<(), String> {
        self.order("go")
    }

    /// Processor seconds, documents written, and faults by kind.
    pub(crate) fn status(&mut self) -> Result<String, String> {
        self.order("status")?;
        self.answer("status")
    }

    /// Writing and faults end. How many documents each collection has.
    pub(crate) fn stop(&mut self) -> Result<Vec<u64>, String> {
        self.order("stop")?;
        let counts = self.answer("written")?;
        counts
            .split_whitespace()
            .map(|count| {
                count
                    .parse()
                    .map_err(|_| format!("{count:?} is no number of documents"))
            })
            .collect()
    }

    fn order(&mut self, order: &str) -> Result<(), String> {
        let orders = self
            .orders
            .as_mut()
            .ok_or("the deployment's process has no input")?;
        writeln!(orders, "{order}").map_err(|error| format!("the deployment's process is gone: {error}"))
    }

    fn answer(&mut self, name: &str) -> Result<String, String> {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .map_err(|error| error.to_string())?;
        match line.trim_end().split_once(' ') {
            Some((first, rest)) if first == name => Ok(rest.to_owned()),
            Some(_) | None => Err(format!(
                "the deployment's process says {line:?} in the place of {name:?}"
            )),
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // The end of its input is the end of it.
        self.orders = None;
        drop(self.child.wait());
    }
}
