//! What is measured.

use std::time::Duration;

use super::build::{Programs, say};
use super::run::{Client, Server, can_pin, number, of_process};
use super::{Plot, Results, Scenario, Series, layers, linear};

/// All scenarios, each with every client in turn, that many times.
pub(super) fn measure(programs: &Programs, rounds: usize) -> Result<Results, String> {
    let mut results = Results::default();
    for (title, event, batch, events) in SHAPES {
        let options = ["--event", event, "--batch", batch];
        let measured = interleaved(programs, &options, &raw(programs), events, "throughput", rounds)?;
        results.notes.push(format!(
            "{title}: the server used {:.0} % of the processor time of the clients.",
            measured.server_share * 100.0
        ));
        results
            .scenarios
            .push(measured.table(title, "CPU ns an event", "limit-touch", |line| {
                Some(number(line, "loop_cpu_ns")? / number(line, "events")?)
            }));
        if batch == "1000" && event == "insert:1400" {
            results
                .scenarios
                .push(measured.table("Peak memory, 1.4 KB inserts", "MiB", "limit-touch", peak));
        }
        let measured = interleaved(
            programs,
            &options,
            &typed(programs),
            events / 4,
            "throughput",
            rounds,
        )?;
        results.scenarios.push(measured.table(
            &format!("{title}, typed"),
            "CPU ns an event",
            "mongodb typed",
            |line| Some(number(line, "loop_cpu_ns")? / number(line, "events")?),
        ));
    }
    large_batches(programs, rounds, &mut results)?;
    fetching_ahead(programs, rounds, &mut results)?;
    latency(programs, rounds, &mut results)?;
    idle(programs, &mut results)?;
    layers::measure(programs, rounds, &mut results)?;
    over_events(programs, &mut results)?;
    linear::measure(programs, &mut results)?;
    Ok(results)
}

/// Title, event, events a batch, events.
const SHAPES: [(&str, &str, &str, u64); 4] = [
    ("313 B inserts", "insert:313", "1000", 300_000),
    ("1.4 KB inserts", "insert:1400", "1000", 100_000),
    ("16 KB inserts", "insert:16000", "100", 10_000),
    ("updates", "update", "1000", 200_000),
];

pub(super) struct Measured {
    lines: Vec<(String, Vec<String>)>,
    server_share: f64,
}

impl Measured {
    pub(super) fn table(
        &self,
        title: &str,
        unit: &'static str,
        reference: &'static str,
        value: impl Fn(&str) -> Option<f64>,
    ) -> Scenario {
        let series = |(client, lines): &(String, Vec<String>)| Series {
            client: client.clone(),
            values: lines.iter().filter_map(|line| value(line)).collect(),
        };
        Scenario {
            title: title.to_owned(),
            unit,
            reference,
            series: self
                .lines
                .iter()
                .map(series)
                .filter(|series| !series.values.is_empty())
                .collect(),
        }
    }
}

/// Every client in turn, and all of that again: what disturbs the machine disturbs all alike.
pub(super) fn interleaved(
    programs: &Programs,
    options: &[&str],
    clients: &[Client],
    events: u64,
    mode: &str,
    rounds: usize,
) -> Result<Measured, String> {
    let server = Server::start(&programs.replay, options)?;
    in_turns(server, options, clients, events, mode, rounds)
}

fn in_turns(
    server: Server,
    options: &[&str],
    clients: &[Client],
    events: u64,
    mode: &str,
    rounds: usize,
) -> Result<Measured, String> {
    say(&format!("{mode} {}", options.join(" ")));
    let mut lines: Vec<(String, Vec<String>)> = clients
        .iter()
        .map(|client| (client.name.clone(), Vec::new()))
        .collect();
    let mut client_cpu = 0.0;
    for _ in 0..rounds {
        for (client, (_, lines)) in clients.iter().zip(&mut lines) {
            let is_slow = SLOW.iter().any(|slow| client.name.starts_with(slow));
            let line = client.read(&server, if is_slow { events / 10 } else { events }, mode)?;
            client_cpu += number(&line, "loop_cpu_ns").unwrap_or(0.0);
            lines.push(line);
        }
    }
    let server_share = server.stop() / client_cpu;
    Ok(Measured { lines, server_share })
}

/// How many deliveries are timed.
const LATENCIES: u64 = 1000;

/// Ten times fewer events suffice to measure these.
const SLOW: [&str; 2] = ["PyMongo", "npm"];

pub(super) fn ours(programs: &Programs, form: &'static str) -> Vec<Client> {
    let name = |adapter: &str| match form {
        "raw" => format!("changestream-{adapter}"),
        _ => format!("changestream-{adapter} {form}"),
    };
    vec![
        Client::new(&name("tokio"), &programs.tokio, form),
        Client::new(&name("blocking"), &programs.blocking, form),
    ]
}

fn raw(programs: &Programs) -> Vec<Client> {
    let mut clients = vec![
        Client::limit(programs, "step"),
        Client::limit(programs, "touch"),
        Client::limit(programs, "stream"),
    ];
    clients.extend(ours(programs, "raw"));
    clients.push(
        Client::new("changestream-tokio next_batch", &programs.tokio, "raw").with("BENCH_BATCHES", "1"),
    );
    clients
        .push(Client::new("changestream-tokio exhaust", &programs.tokio, "raw").with("BENCH_EXHAUST", "1"));
    if let Some(program) = &programs.mongodb {
        clients.push(Client::new("mongodb raw", program, "raw"));
        clients.push(Client::new("mongodb raw multi-thread", program, "raw").with("PEER_RUNTIME", "multi"));
        clients.push(Client::new("mongodb raw sync", program, "raw").with("PEER_RUNTIME", "sync"));
    }
    clients
}

fn typed(programs: &Programs) -> Vec<Client> {
    let mut clients = ours(programs, "typed");
    if let Some(program) = &programs.mongodb {
        clients.push(Client::new("mongodb typed", program, "typed"));
    }
    if let Some(program) = &programs.mongodb_bson_3 {
        clients.push(Client::new("mongodb typed, bson 3", program, "typed"));
    }
    if let Some(python) = &programs.python {
        let script = programs.scripts.join("pymongo_client.py");
        clients.push(Client::new("PyMongo", python, "typed").argument(&script));
    }
    if let Some(folder) = &programs.node {
        let script = programs.scripts.join("node_client.cjs");
        clients.push(
            Client::new("npm mongodb", "node".as_ref(), "typed")
                .argument(&script)
                .with("PEER_NODE_MODULES", &folder.display().to_string()),
        );
    }
    clients
}

fn peak(line: &str) -> Option<f64> {
    Some(number(line, "peak_kib")? / 1024.0)
}

fn large_batches(programs: &Programs, rounds: usize, results: &mut Results) -> Result<(), String> {
    let options = ["--event", "insert:1400", "--batch", "10700"];
    let measured = interleaved(programs, &options, &raw(programs), 100_000, "throughput", rounds)?;
    results
        .scenarios
        .push(measured.table("Peak memory, batches of 15 MB", "MiB", "limit-touch", peak));
    Ok(())
}

/// The server takes as long for a batch as the consumer does.
fn fetching_ahead(programs: &Programs, rounds: usize, results: &mut Results) -> Result<(), String> {
    let client = |name: &str| {
        Client::new(name, &programs.tokio, "raw")
            .with("BENCH_THINK_US", "1000")
            .with("BENCH_THINK_EVERY", "100")
    };
    let clients = [
        client("prefetch off").with("BENCH_PREFETCH", "0"),
        client("prefetch 1 (default)"),
        client("prefetch 2").with("BENCH_PREFETCH", "2"),
        client("exhaust").with("BENCH_EXHAUST", "1"),
    ];
    let options = ["--event", "insert:1400", "--batch", "100", "--think-us", "1000"];
    let measured = interleaved(programs, &options, &clients, 20_000, "throughput", rounds)?;
    let title = "Server and consumer both take 1 ms a batch of 100";
    results
        .scenarios
        .push(measured.table(title, "events a second", "prefetch off", |line| {
            Some(number(line, "events")? * 1e9 / number(line, "loop_wall_ns")?)
        }));
    Ok(())
}

fn latency(programs: &Programs, rounds: usize, results: &mut Results) -> Result<(), String> {
    let mut clients = vec![Client::limit(programs, "touch")];
    clients.extend(ours(programs, "raw"));
    if let Some(program) = &programs.mongodb {
        clients.push(Client::new("mongodb raw", program, "raw"));
        clients.push(Client::new("mongodb raw multi-thread", program, "raw").with("PEER_RUNTIME", "multi"));
    }
    let options = ["--event", "insert:313", "--batch", "1", "--think-us", "2000"];
    let measured = interleaved(programs, &options, &clients, LATENCIES, "latency", rounds)?;
    let mut tell = |measured: &Measured, how: &str| {
        for (title, field) in [("Delivery, median", "p50"), ("Delivery, 99th percentile", "p99")] {
            let title = format!("{title}, one event each 2 ms{how}");
            let table = measured.table(&title, "us", "limit-touch", |line| number(line, field));
            results.scenarios.push(table);
        }
    };
    tell(&measured, "");
    if can_pin() {
        let clients: Vec<Client> = clients.into_iter().map(Client::pinned).collect();
        let server = Server::start_pinned(&programs.replay, &options)?;
        let measured = in_turns(server, &options, &clients, LATENCIES, "latency", rounds)?;
        tell(&measured, ", client and server on processors of their own");
    }
    Ok(())
}

fn idle(programs: &Programs, results: &mut Results) -> Result<(), String> {
    say("idle streams");
    let mut clients = ours(programs, "raw");
    clients.truncate(1);
    if let Some(program) = &programs.mongodb {
        clients.push(Client::new("mongodb raw", program, "raw"));
    }
    let (mut memory, mut time) = (Vec::new(), Vec::new());
    let mut points = Vec::new();
    for client in &clients {
        let server = Server::start(&programs.replay, &["--batch", "0"])?;
        let one = waiting(client, &server, 1)?;
        for streams in [10, 100, 1000] {
            let many = waiting(client, &server, streams)?;
            #[expect(clippy::cast_precision_loss, reason = "a thousand")]
            let count = streams as f64;
            if client.name.starts_with("changestream") {
                points.push((count, many.micros));
            }
            if streams == 1000 {
                memory.push(single(
                    &client.name,
                    (many.resident - one.resident) / (count - 1.0),
                ));
                time.push(single(&client.name, many.micros));
            }
        }
    }
    results.scenarios.push(Scenario {
        title: "1,000 idle streams of one client: memory".to_owned(),
        unit: "KiB a stream, without what the kernel keeps",
        reference: "mongodb raw",
        series: memory,
    });
    results.scenarios.push(Scenario {
        title: "1,000 idle streams of one client: time".to_owned(),
        unit: "CPU us a getMore",
        reference: "mongodb raw",
        series: time,
    });
    results.plots.push(Plot {
        file: "streams.svg",
        title: "Cost of a getMore over the number of idle streams".to_owned(),
        x: "streams of one client",
        y: "CPU us a getMore",
        lines: vec![("changestream-tokio".to_owned(), points)],
    });
    Ok(())
}

fn single(client: &str, value: f64) -> Series {
    Series {
        client: client.to_owned(),
        values: vec![value],
    }
}

struct Waiting {
    /// Of the process.
    resident: f64,
    /// Processor time of a getMore.
    micros: f64,
}

/// Each stream's getMore is answered after a second.
fn waiting(client: &Client, server: &Server, streams: u64) -> Result<Waiting, String> {
    const SECONDS: f64 = 5.0;
    let mut child = client.idle(server, streams)?;
    std::thread::sleep(Duration::from_secs(2));
    let before = of_process(child.id());
    std::thread::sleep(Duration::from_secs_f64(SECONDS));
    let after = of_process(child.id());
    let _ = child.kill();
    let _ = child.wait();
    let (Some((from, _)), Some((to, resident))) = (before, after) else {
        return Err(format!("{} is gone", client.name));
    };
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let requests = streams as f64 * SECONDS;
    Ok(Waiting {
        resident,
        micros: (to - from) * 10_000.0 / requests,
    })
}

/// Processor time over events.
fn over_events(programs: &Programs, results: &mut Results) -> Result<(), String> {
    let client = Client::new("changestream-blocking", &programs.blocking, "raw");
    let milliseconds = |line: &str| number(line, "loop_cpu_ns").map(|ns| ns / 1e6);
    let mut lines = Vec::new();
    for (name, batch) in [("batches of 1000", "1000"), ("batches of 100", "100")] {
        let server = Server::start(&programs.replay, &["--event", "insert:313", "--batch", batch])?;
        let mut points = vec![(0.0, 0.0)];
        for step in 1..=8_u32 {
            let events = u64::from(step) * 100_000;
            let line = client.read(&server, events, "throughput")?;
            points.push((f64::from(step) * 0.1, milliseconds(&line).unwrap_or(0.0)));
        }
        lines.push((name.to_owned(), points));
    }
    results.plots.push(Plot {
        file: "events.svg",
        title: "CPU time over events".to_owned(),
        x: "million events of 313 B",
        y: "CPU ms",
        lines,
    });
    Ok(())
}
