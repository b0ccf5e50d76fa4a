//! A bare loop that reads events: what nothing can be faster than.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to its user"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use changestream_benches::codec::Codec;
use changestream_benches::limit::{self, Kind, Way};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, address, events, mode] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let authority = std::env::var_os("BENCH_AUTHORITY").map(PathBuf::from);
    let codec = std::env::var("BENCH_CODEC").ok();
    let codec = codec.and_then(|name| Codec::from_name(&name));
    let way = match (&authority, codec) {
        (Some(authority), _) => Way::Tls(authority),
        (None, Some(codec)) => Way::Codec(codec),
        (None, None) => Way::Plain,
    };
    let kind = match (kind.as_str(), codec) {
        ("step", _) => Kind::Step,
        ("touch", _) => Kind::Touch,
        ("stream", _) => Kind::Stream,
        ("inflate", Some(codec)) => Kind::Inflate(codec),
        (_, _) => {
            eprintln!("{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let events = events.parse().unwrap_or(1_000_000);
    match limit::run(address, way, kind, events, mode == "latency") {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("limit: {error}");
            ExitCode::FAILURE
        }
    }
}

const USAGE: &str = "limit step|touch|stream|inflate HOST:PORT EVENTS throughput|latency
BENCH_AUTHORITY=FILE reads by TLS, BENCH_CODEC=snappy|zlib|zstd compressed replies; `inflate` does nothing but that";
