//! In place of look-ups, where the feature `dns` is off: a client that needs one is refused when it is made.

use std::marker::PhantomData;
use std::task::{Context, Poll};
use std::time::Instant;

use changestream_core::Error;
use changestream_core::client::LookupId;
use changestream_core::dns::{Answer, DnsFault, Question};
use changestream_core::uri::ClientOptions;

/// The name servers of a client: of any, those of the system, which nobody asks.
#[derive(Clone, Debug, Default)]
pub(crate) enum DnsServers {
    #[default]
    System,
}

/// Look-ups that have failed.
#[derive(Debug)]
pub(crate) struct Lookups<R> {
    failed: Vec<LookupId>,
    runtime: PhantomData<fn() -> R>,
}

impl<R> Lookups<R> {
    pub(crate) fn new(_: DnsServers) -> Self {
        Self {
            failed: Vec::new(),
            runtime: PhantomData,
        }
    }

    pub(crate) fn start(&mut self, id: LookupId, _: &Question) {
        self.failed.push(id);
    }

    pub(crate) fn poll(&mut self, _: &R, _: &mut Context<'_>) -> Poll<(LookupId, Result<Answer, DnsFault>)> {
        match self.failed.pop() {
            Some(id) => Poll::Ready((id, Err(DnsFault::no_server(ABSENT)))),
            None => Poll::Pending,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        None
    }

    pub(crate) fn clear(&mut self) {
        self.failed.clear();
    }
}

/// Whether these options can be used.
pub(crate) fn check(options: &ClientOptions) -> Result<(), Error> {
    if options.srv_host.is_some() {
        return Err(Error::invalid_argument(format!(
            "{ABSENT}: enable the feature `dns`, or list the servers in a mongodb:// connection string"
        )));
    }
    Ok(())
}

const ABSENT: &str = "looking mongodb+srv names up is not built in";
