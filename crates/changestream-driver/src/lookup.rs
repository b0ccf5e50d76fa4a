//! The operating system's resolver, for runtimes that have none of their own.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

/// A name that the operating system looks up, on a thread of its own: its resolver blocks, for as long as it likes. The
/// thread ends with the look-up, also when nobody waits for it any more.
#[derive(Debug)]
pub struct SystemLookup(Arc<Mutex<State>>);

#[derive(Debug)]
enum State {
    Pending(Option<Waker>),
    Done(io::Result<Vec<SocketAddr>>),
    Taken,
}

impl SystemLookup {
    /// Starts to look the name up.
    pub fn new(host: &str, port: u16) -> Self {
        let state = Arc::new(Mutex::new(State::Pending(None)));
        let (shared, host) = (state.clone(), host.to_owned());
        let started = thread::Builder::new().name("look-up".to_owned()).spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            finish(&shared, found);
        });
        if let Err(error) = started {
            finish(&state, Err(error));
        }
        Self(state)
    }
}

impl Future for SystemLookup {
    type Output = io::Result<Vec<SocketAddr>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Pending(_) => {
                *state = State::Pending(Some(cx.waker().clone()));
                Poll::Pending
            }
            State::Done(found) => Poll::Ready(found),
            State::Taken => Poll::Pending,
        }
    }
}

fn finish(state: &Mutex<State>, found: io::Result<Vec<SocketAddr>>) {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let waiting = std::mem::replace(&mut *state, State::Done(found));
    drop(state);
    if let State::Pending(Some(waker)) = waiting {
        waker.wake();
    }
}
