//! Programs that are talked to by lines, and never waited for without end.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::Value;

/// A process that does not outlive its test.
pub(crate) struct Running {
    process: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    name: &'static str,
}

impl Running {
    pub(crate) fn start(name: &'static str, mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stdin = process.stdin.take().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            process,
            stdin,
            lines,
            name,
        }
    }

    /// The next line; none at the end.
    pub(crate) fn text(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("nothing from {} for {PATIENCE:?}", self.name),
        }
    }

    /// The same, as JSON whose keys keep their order.
    pub(crate) fn line(&self) -> Option<Value> {
        self.text().map(|line| {
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{}: {error}: {line}", self.name))
        })
    }

    pub(crate) fn say(&mut self, line: &Value) {
        writeln!(self.stdin, "{line}")
            .unwrap_or_else(|error| panic!("{} does not listen: {error}", self.name));
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.process.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Longer than any scenario's own patience, which tells more.
const PATIENCE: Duration = Duration::from_secs(30);
