//! Telling of what a client does: to a handler of the user's, and to the log.

use std::sync::Arc;

use changestream_core::client::ClientMachine;
use changestream_core::monitoring::Event;

use crate::logging;

/// Who is told of what a client does.
#[derive(Clone)]
pub(crate) struct Monitor {
    handlers: Vec<Handler>,
    /// How many characters of a document are logged.
    longest: usize,
}

type Handler = Arc<dyn Fn(&Event) + Send + Sync>;

impl Monitor {
    /// Nobody but the log, with documents of at most so many characters; none is as the environment says.
    pub(crate) fn new(longest: Option<usize>) -> Self {
        Self {
            handlers: Vec::new(),
            longest: longest.unwrap_or_else(logging::longest_by_environment),
        }
    }

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
            logging::log(&event, self.longest);
            for handler in &self.handlers {
                handler(&event);
            }
        }
    }
}
