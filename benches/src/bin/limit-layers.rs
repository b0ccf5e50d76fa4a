//! Bare loops over TLS and with codecs: what nothing can be faster than.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to its user"
)]

use std::path::Path;
use std::process::ExitCode;

use changestream_benches::codec::Codec;
use changestream_benches::layered;
use changestream_benches::limit::Kind;

fn main() -> ExitCode {
    match run() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("limit-layers: {message}\n\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [layer, value, address, events, _] = arguments.as_slice() else {
        return Err("wrong arguments".to_owned());
    };
    let events = events.parse().map_err(|_| "EVENTS is no number")?;
    let codec = || Codec::from_name(value).ok_or("no such codec");
    let line = match layer.as_str() {
        "tls" => layered::by_tls(address, Path::new(value), Kind::Touch, events),
        "codec" => layered::compressed(address, codec()?, Kind::Touch, events),
        "inflate" => layered::inflate(address, codec()?, events),
        _ => return Err("no such layer".to_owned()),
    };
    line.map_err(|error| error.to_string())
}

const USAGE: &str = "limit-layers tls FILE HOST:PORT EVENTS throughput
limit-layers codec|inflate snappy|zlib|zstd HOST:PORT EVENTS throughput
Reads events and looks at their keys; `inflate` does nothing but inflate.";
