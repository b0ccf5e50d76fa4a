//! Which of a server's addresses is connected to: the first that answers.
//!
//! Happy Eyeballs (RFC 8305): the addresses of both families in turn, IPv6 first, each attempt a moment after the one
//! before or as soon as that has failed. All that are under way race, and the losers are dropped.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use changestream_core::ServerAddress;

use crate::{Endpoint, Runtime};

/// A connection on its way, from a server's name to an open socket. Sets no limit of its own.
pub(crate) struct Race<R: Runtime> {
    stage: Stage<R>,
    running: Vec<(Endpoint, R::Connect)>,
    waiting: VecDeque<Endpoint>,
    failures: Vec<(Endpoint, io::Error)>,
    /// When the next address is tried, though none has failed.
    next: Option<(Instant, R::Timer)>,
}

enum Stage<R: Runtime> {
    /// The name is looked up.
    LookingUp(R::Lookup),
    /// It was not worth an attempt.
    Refused(Option<io::Error>),
    /// The addresses are known.
    Racing,
}

impl<R: Runtime> Race<R> {
    /// Starts.
    pub(crate) fn new(runtime: &R, address: &ServerAddress) -> Self {
        let (stage, waiting) = match destination(address) {
            Ok(Destination::Known(endpoint)) => (Stage::Racing, VecDeque::from([endpoint])),
            Ok(Destination::Name(host, port)) => {
                (Stage::LookingUp(runtime.lookup(host, port)), VecDeque::new())
            }
            Err(error) => (Stage::Refused(Some(error)), VecDeque::new()),
        };
        Self {
            stage,
            running: Vec::new(),
            waiting,
            failures: Vec::new(),
            next: None,
        }
    }

    /// When it wants to be polled again though nothing wakes it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next.as_ref().map(|(at, _)| *at)
    }

    pub(crate) fn poll(&mut self, runtime: &R, cx: &mut Context<'_>) -> Poll<io::Result<R::Connection>> {
        match &mut self.stage {
            Stage::LookingUp(lookup) => {
                let addresses = ready!(Pin::new(lookup).poll(cx))?;
                self.waiting = in_order(addresses).into_iter().map(Endpoint::Tcp).collect();
                self.stage = Stage::Racing;
                if self.waiting.is_empty() {
                    let nothing = "the name has no address";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::NotFound, nothing)));
                }
            }
            Stage::Refused(error) => return error.take().map_or(Poll::Pending, |e| Poll::Ready(Err(e))),
            Stage::Racing => {}
        }
        loop {
            if let Some(winner) = self.poll_running(cx) {
                return Poll::Ready(Ok(winner));
            }
            let Some(endpoint) = self.poll_next(runtime, cx) else {
                if self.running.is_empty() && self.waiting.is_empty() {
                    return Poll::Ready(Err(summary(&mut self.failures)));
                }
                return Poll::Pending;
            };
            let connect = runtime.connect(&endpoint);
            self.running.push((endpoint, connect));
            self.next = (!self.waiting.is_empty()).then(|| {
                let at = runtime.now() + STAGGER;
                (at, runtime.sleep_until(at))
            });
        }
    }

    /// The first that is open. One that fails gives way to the next address at once.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> Option<R::Connection> {
        let mut winner = None;
        let failures = &mut self.failures;
        let next = &mut self.next;
        self.running.retain_mut(|(endpoint, connect)| {
            if winner.is_some() {
                return false;
            }
            match Pin::new(connect).poll(cx) {
                Poll::Pending => true,
                Poll::Ready(Ok(socket)) => {
                    winner = Some(socket);
                    false
                }
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%endpoint, %error, "cannot connect");
                    failures.push((endpoint.clone(), error));
                    *next = None;
                    false
                }
            }
        });
        winner
    }

    /// The address whose time has come.
    fn poll_next(&mut self, runtime: &R, cx: &mut Context<'_>) -> Option<Endpoint> {
        // A timer that fires early does no harm: the attempt is a little early, too.
        if let Some((at, timer)) = &mut self.next
            && runtime.now() < *at
            && Pin::new(timer).poll(cx).is_pending()
        {
            return None;
        }
        self.next = None;
        self.waiting.pop_front()
    }
}

enum Destination<'a> {
    Known(Endpoint),
    Name(&'a str, u16),
}

fn destination(address: &ServerAddress) -> io::Result<Destination<'_>> {
    let host = address.host();
    let Some(port) = address.port() else {
        #[cfg(unix)]
        return Ok(Destination::Known(Endpoint::Unix(host.into())));
        #[cfg(not(unix))]
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this platform has no Unix domain sockets",
        ));
    };
    Ok(match host.parse::<IpAddr>() {
        Ok(ip) => Destination::Known(Endpoint::Tcp(SocketAddr::new(ip, port))),
        Err(_) => Destination::Name(host, port),
    })
}

/// "Interleave addresses of the address families", IPv6 first, each family in the order of the resolver (RFC 8305,
/// section 4).
fn in_order(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut ordered = Vec::with_capacity(addresses.len());
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    loop {
        let (a, b) = (six.next(), four.next());
        if a.is_none() && b.is_none() {
            return ordered;
        }
        for address in [a, b].into_iter().flatten() {
            if !ordered.contains(&address) {
                ordered.push(address);
            }
        }
    }
}

/// One error of all: each address and what became of it.
fn summary(failures: &mut Vec<(Endpoint, io::Error)>) -> io::Error {
    let failures = std::mem::take(failures);
    let kind = failures.first().map_or(io::ErrorKind::Other, |(_, e)| e.kind());
    let same = failures.iter().all(|(_, error)| error.kind() == kind);
    let kind = if same { kind } else { io::ErrorKind::Other };
    let told: Vec<_> = failures
        .iter()
        .map(|(endpoint, error)| format!("{endpoint}: {error}"))
        .collect();
    io::Error::new(kind, told.join("; "))
}

/// "Connection Attempt Delay [...] recommended value: 250 ms" (RFC 8305, section 8).
const STAGGER: Duration = Duration::from_millis(250);
