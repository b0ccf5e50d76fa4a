//! Serves prepared batches on the loopback: prints its port, and ends when standard input does.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to its user"
)]

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::process::{ExitCode, exit};
use std::time::Duration;

use changestream_benches::clock;
use changestream_benches::codec::Codec;
use changestream_benches::events::Shape;
use changestream_benches::replay::{self, Layer, Settings};
use changestream_benches::tls;

fn main() -> ExitCode {
    match settings().and_then(|settings| start(settings).map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}\n\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn start(settings: Settings) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("PORT {}", listener.local_addr()?.port());
    io::stdout().flush()?;
    std::thread::spawn(move || {
        // Whoever started it has gone, or is done.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        println!(r#"{{"server_cpu_ns":{}}}"#, clock::cpu_ns());
        exit(0);
    });
    replay::serve(&listener, settings)
}

fn settings() -> Result<Settings, String> {
    let mut settings = Settings {
        shape: Shape::Insert(313),
        batch: 1000,
        think: Duration::ZERO,
        members: 1,
        exhaust: true,
        layer: Layer::Plain,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<u32>().map_err(|_| format!("{name} needs a number"));
        match name.as_str() {
            "--event" => {
                settings.shape = Shape::parse(&value).ok_or("--event needs insert:BYTES or update")?
            }
            "--batch" => settings.batch = number()?,
            "--think-us" => settings.think = Duration::from_micros(u64::from(number()?)),
            "--members" => settings.members = u16::try_from(number()?).unwrap_or(u16::MAX),
            "--exhaust" => settings.exhaust = number()? != 0,
            "--tls" => {
                let config = tls::server_config(value.as_ref()).map_err(|error| error.to_string())?;
                settings.layer = Layer::Tls(config);
            }
            "--codec" => {
                let codec = Codec::from_name(&value).ok_or("--codec needs snappy, zlib or zstd")?;
                settings.layer = Layer::Codec(codec);
            }
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok(settings)
}

const USAGE: &str =
    "replay [--event insert:BYTES|update] [--batch EVENTS] [--think-us N] [--members N] [--exhaust 0|1]
       [--tls FILE | --codec snappy|zlib|zstd]
With --tls the certificate of the server's authority is written to FILE.
Prints `PORT n`, serves until its standard input ends, and prints the processor time that it used.";
