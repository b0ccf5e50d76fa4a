//! What lies between a message and the socket: TLS, and codecs.

use std::path::PathBuf;

use super::build::{Programs, say};
use super::run::{Client, Server, number};
use super::scenarios::{interleaved, ours};
use super::{Results, Scenario, Series};

pub(super) fn measure(programs: &Programs, rounds: usize, results: &mut Results) -> Result<(), String> {
    tls(programs, rounds, results)?;
    for codec in ["snappy", "zstd", "zlib"] {
        for (batch, events) in [("1000", 100_000), ("10", 20_000)] {
            let scenario = added_by(codec, batch, events, programs, rounds)?;
            results.scenarios.push(scenario);
        }
    }
    Ok(())
}

/// Beside a loop of bare rustls.
fn tls(programs: &Programs, rounds: usize, results: &mut Results) -> Result<(), String> {
    let authority: PathBuf = programs.folder.join("authority.pem");
    let file = authority.display().to_string();
    let mut clients = vec![Client::limit_over("limit-touch", programs, "tls", &file)];
    clients.extend(ours(programs, "raw"));
    for (title, event, batch, events) in [
        ("313 B inserts", "insert:313", "1000", 300_000),
        ("1.4 KB inserts", "insert:1400", "1000", 100_000),
        ("16 KB inserts", "insert:16000", "100", 10_000),
    ] {
        let options = ["--event", event, "--batch", batch, "--tls", &file];
        let measured = interleaved(programs, &options, &clients, events, "throughput", rounds)?;
        for (unit, time) in [
            ("MB a second of processor time", "loop_cpu_ns"),
            ("MB a second", "loop_wall_ns"),
        ] {
            results.scenarios.push(measured.table(
                &format!("{title} over TLS"),
                unit,
                "limit-touch",
                |line| Some(number(line, "bytes")? * 1e3 / number(line, time)?),
            ));
        }
    }
    Ok(())
}

/// Beside the codec alone, inflating the same replies into memory that is there: what the client takes longer for them
/// than for replies that are not compressed.
fn added_by(
    codec: &str,
    batch: &str,
    events: u64,
    programs: &Programs,
    rounds: usize,
) -> Result<Scenario, String> {
    say(&format!("{codec}, batches of {batch}"));
    let plain = ["--event", "insert:1400", "--batch", batch];
    let mut compressed = plain.to_vec();
    compressed.extend(["--codec", codec]);
    let (plain, compressed) = (
        Server::start(&programs.replay, &plain)?,
        Server::start(&programs.replay, &compressed)?,
    );
    let alone = Client::limit_over("the codec alone", programs, "inflate", codec);
    let client = Client::new("changestream-tokio", &programs.tokio, "raw");
    let cost = |client: &Client, server: &Server| {
        let line = client.read(server, events, "throughput")?;
        let cost = number(&line, "loop_cpu_ns").zip(number(&line, "events"));
        cost.map(|(time, events)| time / events)
            .ok_or_else(|| format!("{} says nothing", client.name))
    };
    let (mut own, mut added) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        own.push(cost(&alone, &compressed)?);
        added.push(cost(&client, &compressed)? - cost(&client, &plain)?);
    }
    let series = |client: &str, values| Series {
        client: client.to_owned(),
        values,
    };
    Ok(Scenario {
        title: format!("What {codec} adds to a 1.4 KB insert, batches of {batch}"),
        unit: "CPU ns an event more",
        reference: "the codec alone",
        series: vec![
            series("the codec alone", own),
            series("changestream-tokio", added),
        ],
    })
}
