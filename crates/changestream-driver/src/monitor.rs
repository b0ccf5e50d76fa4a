//! Telling of what a client does: to a handler of the user's, and to the log.

use std::sync::Arc;

use changestream_core::client::ClientMachine;
use changestream_core::monitoring::Event;

use crate::logging;

/// Who is told of what a client does.
#[derive(Clone, Default)]
pub(crate) struct Monitor {
    handlers: Vec<Handler>,
}

type Handler = Arc<dyn Fn(&Event) + Send + Sync>;

impl Monitor {
    /// One more who is told.
    pub(crate) fn and(mut self, handler: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.handlers.push(Arc::new(handler));
        self
    }

    /// Whether anybody listens: if not, nothing is recorded.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.handlers.is_empty() || logging::is_enabled()
    }

    /// Tells of all that has happened.
    pub(crate) fn tell(&self, machine: &mut ClientMachine) {
        while let Some(event) = machine.poll_event() {
            logging::log(&event);
            for handler in &self.handlers {
                handler(&event);
            }
        }
    }
}
