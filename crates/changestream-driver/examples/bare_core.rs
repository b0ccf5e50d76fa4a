//! Any executor, part three: no driver either. The core's machine, driven by hand over the sockets of the standard
//! library, through elections and all: `cargo run --example bare_core -- 'mongodb://localhost/?replicaSet=rs0'`

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use changestream_core::client::{ClientMachine, ClientSettings, ConnectionId, Demand};
use changestream_core::client::{Disconnected, Input, Output, Update};
use changestream_core::connection::ClientMetadata;
use changestream_core::dns::DnsFault;
use changestream_core::{ConnectionString, Scope, WatchOptions};

type Sockets = BTreeMap<ConnectionId, TcpStream>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let uri = std::env::args().nth(1).ok_or("which deployment?")?;
    follow(&uri, usize::MAX, &mut io::stdout())
}

/// Writes so many changes of the deployment, a line each.
pub fn follow(uri: &str, mut count: usize, to: &mut dyn Write) -> Result<(), Box<dyn std::error::Error>> {
    let settings = ClientSettings::new(uri.parse::<ConnectionString>()?.options, ClientMetadata::new())?;
    let (scope, watch, now) = (Scope::Cluster, WatchOptions::default(), Instant::now());
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    let mut machine = ClientMachine::new(settings.into(), None, &scope, watch, seed, now)?;
    let mut sockets = Sockets::new();
    machine.handle_input(now, Input::Demand(Demand::Next));
    loop {
        let input = match machine.poll_output() {
            Output::Resolve { lookup, .. } => {
                let result = Err(DnsFault::no_server("this example asks none"));
                Some(Input::Resolved { lookup, result })
            }
            Output::Connect { connection, address } => {
                match TcpStream::connect((address.host(), address.port().unwrap_or(27017))) {
                    Ok(socket) => {
                        sockets.insert(connection, socket);
                        Some(Input::Connected { connection })
                    }
                    Err(error) => Some(gone(connection, error)),
                }
            }
            Output::Transmit { connection, bytes } => {
                let socket = sockets.get_mut(&connection);
                let failure = socket.and_then(|socket| socket.write_all(&bytes).err());
                failure.map(|error| gone(connection, error))
            }
            Output::Disconnect { connection } => {
                sockets.remove(&connection);
                None
            }
            Output::Credentials { connection, .. } => {
                let answer = Err(changestream_core::Error::authentication(
                    "this example hands out no tokens and no keys",
                ));
                Some(Input::Credentials { connection, answer })
            }
            Output::Update(Update::Change(event)) => {
                writeln!(to, "{}", bson::Document::try_from(event.as_raw())?)?;
                count = count.saturating_sub(1);
                let deadline = Instant::now() + Duration::from_secs(5);
                Some(Input::Close { deadline }).filter(|_| count == 0)
            }
            Output::Update(_) => None,
            Output::Wait(deadline) => wait(&mut machine, &mut sockets, deadline.map(|deadline| deadline.at))?,
            // The answer to a command, of which none was sent.
            Output::Reply(_) => continue,
            Output::Closed(result) => return Ok(result?),
        };
        if let Some(Input::Disconnected { connection, .. }) = &input {
            sockets.remove(connection);
        }
        machine.handle_input(Instant::now(), input.unwrap_or(Input::Demand(Demand::Next)));
    }
}

/// Reads from each socket in turn, and only then looks at the clock: what a socket holds has come in time.
fn wait(
    machine: &mut ClientMachine,
    sockets: &mut Sockets,
    until: Option<Instant>,
) -> io::Result<Option<Input>> {
    let left = || until.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
    // An open stream has one socket. One that looks for a server has several: each gets a moment.
    let longest = if sockets.len() > 1 { 2 } else { 3_600_000 };
    let patience = left().clamp(Duration::from_millis(1), Duration::from_millis(longest));
    if sockets.is_empty() {
        std::thread::sleep(patience);
    }
    for (&connection, socket) in sockets {
        let Some(buffer) = machine.read_buffer(connection) else {
            continue;
        };
        socket.set_read_timeout(Some(patience))?;
        match socket.read(buffer) {
            Ok(0) => return Ok(Some(gone(connection, ErrorKind::UnexpectedEof.into()))),
            Ok(len) => return Ok(Some(Input::Received { connection, len })),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Ok(Some(gone(connection, error))),
        }
    }
    Ok(left().is_zero().then_some(Input::Timeout))
}

fn gone(connection: ConnectionId, error: io::Error) -> Input {
    let (message, timed_out) = (error.to_string(), false);
    let reason = Disconnected { message, timed_out };
    Input::Disconnected { connection, reason }
}
