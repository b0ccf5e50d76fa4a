//! An official driver, by its script.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::{Value, json};

use crate::living::{Answer, Client};

/// A running script, which does not outlive its test.
pub(crate) struct Theirs {
    process: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Theirs {
    pub(crate) fn start(mut command: Command, uri: &str) -> Self {
        let mut process = command
            .arg(uri)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdin = process.stdin.take();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            process,
            stdin,
            lines,
        }
    }

    fn take(&mut self, step: &Value) -> Answer {
        let said = self.stdin.as_mut().map(|stdin| writeln!(stdin, "{step}"));
        if !matches!(said, Some(Ok(()))) {
            return Answer::Broken("the driver's script does not listen".to_owned());
        }
        let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
            return Answer::Broken(format!(
                "nothing from the driver's script after {step}, see standard error"
            ));
        };
        let Ok(answer) = serde_json::from_str::<Value>(&line) else {
            return Answer::Broken(format!("no JSON: {line}"));
        };
        if let Some(event) = answer.get("event") {
            return Answer::Event(event.clone());
        }
        if let Some(code) = answer.get("error") {
            let code = code["$numberInt"].as_str().and_then(|code| code.parse().ok());
            return Answer::Error(code);
        }
        match answer
            .as_object()
            .and_then(|fields| fields.keys().next())
            .map(String::as_str)
        {
            Some("nothing") => Answer::Nothing,
            Some("end") => Answer::End,
            Some("closed") => Answer::Closed,
            _ => Answer::Broken(format!("no answer: {line}")),
        }
    }
}

impl Client for Theirs {
    fn name(&self) -> &'static str {
        "theirs"
    }

    fn open(&mut self, options: &Value) -> Answer {
        self.take(&json!({ "open": options }))
    }

    fn try_next(&mut self) -> Answer {
        self.take(&json!({ "tryNext": {} }))
    }

    fn next(&mut self) -> Answer {
        self.take(&json!({ "next": {} }))
    }

    fn close(&mut self) -> Answer {
        self.take(&json!({ "close": {} }))
    }

    /// Without further lines the script closes its client, and what that leaves to a background thread is done.
    fn end(&mut self) {
        self.stdin = None;
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Longer than the script's own patience, which tells more.
const PATIENCE: Duration = Duration::from_secs(60);
