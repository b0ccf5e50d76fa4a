//! Looks SRV and TXT records up, for `mongodb+srv://`.
//!
//! What to ask, and what to make of the records, is decided by the machine. Here is what any DNS client does: it asks the
//! name servers in turn by UDP, and by TCP what does not fit into a datagram (`lookup`), in messages that say what
//! they should (`message`); whom to ask stands in the system's settings (`servers`).

mod datagram;
mod lookup;
mod message;
mod servers;
mod tcp;

use std::collections::BTreeMap;
use std::fmt;
use std::task::{Context, Poll};
use std::time::Instant;

use changestream_core::Error;
use changestream_core::client::LookupId;
use changestream_core::dns::{Answer, DnsFault, Question};
use changestream_core::uri::ClientOptions;

use crate::Runtime;
use lookup::Lookup;
#[doc(hidden)]
pub use message::{Reply, decode};
pub(crate) use servers::DnsServers;

/// The look-ups of one stream. All of their state is here, none in a future of a caller.
pub(crate) struct Lookups<R: Runtime> {
    servers: DnsServers,
    running: BTreeMap<LookupId, Lookup<R>>,
}

impl<R: Runtime> Lookups<R> {
    pub(crate) fn new(servers: DnsServers) -> Self {
        Self {
            servers,
            running: BTreeMap::new(),
        }
    }

    /// Starts to look these records up.
    pub(crate) fn start(&mut self, id: LookupId, question: &Question) {
        self.running.insert(id, Lookup::new(&self.servers, question));
    }

    /// The next look-up that has ended.
    pub(crate) fn poll(
        &mut self,
        runtime: &R,
        cx: &mut Context<'_>,
    ) -> Poll<(LookupId, Result<Answer, DnsFault>)> {
        let ended = self
            .running
            .iter_mut()
            .find_map(|(id, lookup)| match lookup.poll(runtime, cx) {
                Poll::Ready(result) => Some((*id, result)),
                Poll::Pending => None,
            });
        let Some((id, result)) = ended else {
            return Poll::Pending;
        };
        if let Some(lookup) = self.running.remove(&id) {
            match &result {
                Ok(answer) => tracing::debug!(question = %lookup.question(), ?answer, "looked up in DNS"),
                Err(fault) => tracing::warn!(question = %lookup.question(), %fault, "not found in DNS"),
            }
        }
        Poll::Ready((id, result))
    }

    /// When they want to be polled again though no socket wakes them.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.running.values().filter_map(Lookup::deadline).min()
    }

    /// Gives them all up.
    pub(crate) fn clear(&mut self) {
        self.running.clear();
    }
}

impl<R: Runtime> fmt::Debug for Lookups<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups")
            .field("servers", &self.servers)
            .field("running", &self.running.keys())
            .finish()
    }
}

/// Whether these options can be used: with this feature, all can.
#[expect(clippy::unnecessary_wraps, reason = "without the feature it fails")]
pub(crate) fn check(_: &ClientOptions) -> Result<(), Error> {
    Ok(())
}
