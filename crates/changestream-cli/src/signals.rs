//! SIGINT and SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{Exit, Failure};

/// Whether the user wants the program to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From the first signal on it is set, after which `act` is called, on another thread. A second signal ends the
    /// program at once.
    pub(crate) fn on_signal(act: impl FnOnce() + Send + 'static) -> Result<Self, Failure> {
        let stop = Self::default();
        let mut signals = Signals::new([SIGINT, SIGTERM])
            .map_err(|error| Failure::new(Exit::Other, format!("cannot wait for signals: {error}")))?;
        let seen = stop.clone();
        std::thread::spawn(move || {
            let mut act = Some(act);
            for signal in signals.forever() {
                let Some(act) = act.take() else {
                    std::process::exit(128 + signal); // as shells count it
                };
                seen.0.store(true, Ordering::SeqCst);
                act();
            }
        });
        Ok(stop)
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
