//! Runs one server and one client at a time.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::build::Programs;

/// A replaying server.
pub(super) struct Server {
    child: Child,
    /// It ends when this is closed.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    port: u16,
    /// Options of the connection string.
    options: String,
}

impl Server {
    pub(super) fn start(program: &Path, options: &[&str]) -> Result<Self, String> {
        Self::run(Command::new(program), program, options)
    }

    /// The same, kept on the first processor.
    pub(super) fn start_pinned(program: &Path, options: &[&str]) -> Result<Self, String> {
        Self::run(pinned("0", program.as_ref()), program, options)
    }

    fn run(mut command: Command, program: &Path, options: &[&str]) -> Result<Self, String> {
        let mut child = command
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        output.read_line(&mut line).map_err(|error| error.to_string())?;
        let port = line
            .trim()
            .strip_prefix("PORT ")
            .and_then(|port| port.parse().ok())
            .ok_or("the server names no port")?;
        Ok(Self {
            child,
            input,
            output,
            port,
            options: client_options(options),
        })
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn uri(&self) -> String {
        format!("mongodb://{}/?{}", self.address(), self.options)
    }

    /// Ends it. The nanoseconds of processor time that it has used.
    pub(super) fn stop(mut self) -> f64 {
        drop(self.input.take());
        let mut rest = String::new();
        let _ = self.output.read_to_string(&mut rest);
        number(&rest, "server_cpu_ns").unwrap_or(0.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// What a client has to know of a server with these options.
fn client_options(options: &[&str]) -> String {
    let value = |name| {
        let place = options.iter().position(|option| *option == name)?;
        options.get(place + 1)
    };
    // Some drivers would have a thousand streams wait for ten connections.
    let mut told = "maxPoolSize=2000".to_owned();
    told += match value("--members") {
        Some(_) => "&replicaSet=rs0",
        None => "&directConnection=true",
    };
    if let Some(authority) = value("--tls") {
        told += &format!("&tls=true&tlsCAFile={authority}");
    }
    if let Some(codec) = value("--codec") {
        told += &format!("&compressors={codec}");
    }
    told
}

/// What is measured: a program with its arguments.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) name: String,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    /// Bare loops take an address and no form, database or collection.
    is_limit: bool,
    form: &'static str,
    /// It is kept on the second processor.
    is_pinned: bool,
}

impl Client {
    pub(super) fn limit(programs: &Programs, kind: &str) -> Self {
        let name = match kind {
            "step" => "limit".to_owned(),
            other => format!("limit-{other}"),
        };
        Self {
            name,
            command: vec![shown(&programs.limit), kind.to_owned()],
            environment: Vec::new(),
            is_limit: true,
            form: "raw",
            is_pinned: false,
        }
    }

    /// The bare loop over TLS or with a codec, or the codec alone.
    pub(super) fn limit_over(name: &str, programs: &Programs, layer: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            command: vec![shown(&programs.limit_layers), layer.to_owned(), value.to_owned()],
            environment: Vec::new(),
            is_limit: true,
            form: "raw",
            is_pinned: false,
        }
    }

    pub(super) fn new(name: &str, program: &Path, form: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            command: vec![shown(program)],
            environment: Vec::new(),
            is_limit: false,
            form,
            is_pinned: false,
        }
    }

    pub(super) fn argument(mut self, path: &Path) -> Self {
        self.command.push(shown(path));
        self
    }

    /// Kept on the second processor, where the server is on the first: else the kernel puts them now on one, now on two.
    pub(super) fn pinned(mut self) -> Self {
        self.is_pinned = true;
        self
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self, server: &Server, events: u64, mode: &str) -> Command {
        let mut words = self.command.iter();
        let program = words.next().map_or("", String::as_str);
        let mut command = if self.is_pinned {
            pinned("1", program.as_ref())
        } else {
            Command::new(program)
        };
        command.args(words);
        let events = events.to_string();
        if self.is_limit {
            command.args([&server.address(), &events, mode]);
        } else {
            command.args([self.form, &server.uri(), "bench", "events", &events, mode]);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("BENCH_PEAK", "1").stdin(Stdio::null());
        command
    }

    /// Reads that many events. The line of JSON that the client prints.
    pub(super) fn read(&self, server: &Server, events: u64, mode: &str) -> Result<String, String> {
        let output = self
            .command(server, events, mode)
            .output()
            .map_err(|error| format!("{}: {error}", self.name))?;
        let text = String::from_utf8_lossy(&output.stdout);
        match text.lines().find(|line| line.starts_with('{')) {
            Some(line) if output.status.success() => Ok(line.to_owned()),
            _ => Err(format!(
                "{} ended with {}: {}",
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }

    /// Opens that many streams that wait.
    pub(super) fn idle(&self, server: &Server, streams: u64) -> Result<Child, String> {
        let mut child = self
            .command(server, streams, "idle")
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", self.name))?;
        let mut line = String::new();
        let output = child.stdout.take().ok_or("no output")?;
        let read = BufReader::new(output).read_line(&mut line);
        if read.is_ok() && line.trim() == "READY" {
            return Ok(child);
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(format!("{} did not get ready", self.name))
    }
}

/// A number of a line of JSON.
pub(super) fn number(json: &str, field: &str) -> Option<f64> {
    let (_, rest) = json.split_once(&format!("\"{field}\":"))?;
    let rest = rest.trim_start();
    let end = rest
        .find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | 'e' | '+'))
        .unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// Processor time of a process in clock ticks of 10 ms, and its resident memory in KiB.
pub(super) fn of_process(id: u32) -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks: f64 = [11, 12]
        .iter()
        .filter_map(|&index| fields.get(index)?.parse::<f64>().ok())
        .sum();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident = resident.trim().trim_end_matches(" kB").parse().ok()?;
    Some((ticks, resident))
}

/// Whether programs can be kept on processors of their own.
pub(super) fn can_pin() -> bool {
    let has_two = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    let version = Command::new("taskset")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    has_two && version.is_ok_and(|status| status.success())
}

fn pinned(processor: &str, program: &OsStr) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", processor]).arg(program);
    command
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
