//! Commands that block.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use changestream_driver::bson::Document;
use changestream_driver::{Error, Running};

use crate::reactor::Reactor;

/// Polls until the reply is there, and between polls waits for the sockets and the deadline.
pub(crate) fn block_on(mut running: Running<Reactor>) -> Result<Document, Error> {
    let Some(reactor) = running.runtime().map(Reactor::handle) else {
        return poll_once(&mut running);
    };
    reactor.look_anew();
    let waker = reactor.waker();
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(result) = Pin::new(&mut running).poll(&mut cx) {
            return result;
        }
        if !reactor.was_woken() {
            reactor
                .wait(running.deadline())
                .map_err(|error| Error::system(format!("cannot wait for sockets: {error}")))?;
        }
    }
}

/// A command that was refused before it could be sent.
fn poll_once(running: &mut Running<Reactor>) -> Result<Document, Error> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    match Pin::new(running).poll(&mut cx) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(Error::system("a command without sockets waits for them")),
    }
}
