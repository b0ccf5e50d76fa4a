//! One question to one server, by UDP.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// A socket that looks for its datagram at times, more seldom the longer it takes.
///
/// No executor is asked to wait for it: looking names up happens once when a stream opens, and in scans a minute apart at
/// the least. That is worth neither a second kind of socket in every `Runtime` nor a thread.
pub(super) struct Datagram {
    socket: UdpSocket,
    look_at: Instant,
    pause: Duration,
}

impl Datagram {
    /// Sends the question, from a port that the operating system chooses at random. Only that server's datagrams arrive.
    pub(super) fn send(server: SocketAddr, bytes: &[u8], now: Instant) -> io::Result<Self> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        socket.connect(server)?;
        socket.send(bytes)?;
        Ok(Self {
            socket,
            look_at: now,
            pause: FIRST_PAUSE,
        })
    }

    /// A datagram, if one is there.
    pub(super) fn receive(&mut self, now: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; MAX_DATAGRAM];
        match self.socket.recv(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                Ok(Some(buffer))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                if self.look_at <= now {
                    self.look_at = now + self.pause;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// When to look again.
    pub(super) fn look_at(&self) -> Instant {
        self.look_at
    }
}

/// Less than a resolver on the same machine takes.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// More than the size that is announced: a server may ignore that.
const MAX_DATAGRAM: usize = 4096;
