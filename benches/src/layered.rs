//! The bare loops over TLS and with codecs, and the codecs alone.

use std::io::{self, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::codec::Codec;
use crate::limit::{self, Kind};
use crate::report::Report;
use crate::tls;

/// As [`limit::run`], by TLS, trusting the authority in that file.
///
/// # Errors
/// The connection fails.
pub fn by_tls(address: &str, authority: &Path, kind: Kind, events: u64) -> io::Result<String> {
    limit::read(
        tls::connect(authority, connect(address)?)?,
        None,
        kind,
        events,
        false,
    )
}

/// As [`limit::run`], from a server that compresses its batches.
///
/// # Errors
/// The connection or the codec fails.
pub fn compressed(address: &str, codec: Codec, kind: Kind, events: u64) -> io::Result<String> {
    let mut inflater = codec.inflater()?;
    let mut inflate = |message: &[u8], out: &mut Vec<u8>| inflater.inflate(message, out);
    limit::read(connect(address)?, Some(&mut inflate), kind, events, false)
}

/// Inflates one reply of such a server again and again, and does nothing else.
///
/// # Errors
/// The connection or the codec fails.
pub fn inflate(address: &str, codec: Codec, events: u64) -> io::Result<String> {
    let (mut socket, mut inflater) = (connect(address)?, codec.inflater()?);
    let (mut reply, mut inflated) = (Vec::new(), Vec::new());
    let request = limit::open(&mut socket, &mut reply)?;
    socket.write_all(&request)?;
    let len = limit::read_reply(&mut socket, &mut reply)?;
    let len_inflated = inflater.inflate(&reply[..len], &mut inflated)?;
    let mut batch = Report::new("codec");
    limit::walk(&inflated[..len_inflated], Kind::Step, events, false, &mut batch);
    let mut report = Report::new("codec");
    while report.events() < events {
        inflater.inflate(&reply[..len], &mut inflated)?;
        for _ in 0..batch.events() {
            report.event(0, None);
        }
    }
    Ok(report.finish())
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    Ok(socket)
}
