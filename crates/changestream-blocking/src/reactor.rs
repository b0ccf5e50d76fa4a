//! Waits for the sockets of one stream.

use std::future::{Pending, pending};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Wake, Waker};
use std::time::{Duration, Instant};
use std::{fmt, io};

use changestream_driver::{Endpoint, Runtime, SystemLookup};
use mio::event::Source;
use mio::{Events, Interest, Registry, Token};

use crate::socket::{Connect, Socket};

/// The sockets and timers of one stream. Made by [`Blocking`](crate::Blocking).
pub struct Reactor {
    shared: Arc<Shared>,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let shared = Shared {
            registry: poll.registry().try_clone()?,
            waker: mio::Waker::new(poll.registry(), WAKER)?,
            waiting: Mutex::new((poll, Events::with_capacity(EVENTS))),
            woken: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            next_token: AtomicUsize::new(WAKER.0 + 1),
            reports: AtomicU64::new(0),
            parting: AtomicBool::new(false),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle(self.shared.clone())
    }
}

impl Runtime for Reactor {
    type Connection = Socket;
    type Lookup = SystemLookup;
    type Connect = Connect;
    /// Never wakes: the wait for the sockets ends at the stream's deadline.
    type Timer = Pending<()>;

    fn lookup(&self, host: &str, port: u16) -> SystemLookup {
        SystemLookup::new(host, port)
    }

    fn connect(&self, endpoint: &Endpoint) -> Connect {
        Connect::new(&self.handle(), endpoint)
    }

    fn sleep_until(&self, _: Instant) -> Pending<()> {
        pending()
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").finish_non_exhaustive()
    }
}

/// Ends what a stream is blocked in, from any thread.
///
/// It may be used in a signal handler: all it does is to set an atomic flag and to make a system call.
#[derive(Clone)]
pub struct Canceller {
    handle: Handle,
}

impl Canceller {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Ends the blocked call, and every later one but closing. What the call would have delivered is not lost: the
    /// stream's resume token stands before it.
    pub fn cancel(&self) {
        self.handle.0.cancelled.store(true, Ordering::Release);
        // It fails only when the stream's poller is gone, and with it who might be blocked.
        let _ = self.handle.0.waker.wake();
    }

    /// Whether it was used.
    pub fn is_cancelled(&self) -> bool {
        self.handle.is_cancelled()
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller")
            .field("is_cancelled", &self.is_cancelled())
            .finish()
    }
}

/// The reactor, as sockets and a waiting stream see it.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Shared>);

struct Shared {
    registry: Registry,
    waker: mio::Waker,
    /// Held by whoever waits.
    waiting: Mutex<(mio::Poll, Events)>,
    woken: AtomicBool,
    cancelled: AtomicBool,
    next_token: AtomicUsize,
    /// How often a wait ended because something happened, or may have happened without one.
    reports: AtomicU64,
    /// Whether a peer has said that it will say nothing more.
    parting: AtomicBool,
}

impl Handle {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    pub(crate) fn waker(&self) -> Waker {
        self.0.clone().into()
    }

    /// Whether the loop was woken since the last question.
    pub(crate) fn was_woken(&self) -> bool {
        self.0.woken.swap(false, Ordering::AcqRel)
    }

    /// Waits until a socket is ready, the waker is used, a signal arrives, or it is that time.
    pub(crate) fn wait(&self, until: Option<Instant>) -> io::Result<()> {
        let timeout = until.map(|at| at.saturating_duration_since(Instant::now()));
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (poll, events) = &mut *waiting;
        match poll.poll(events, timeout.map(|timeout| timeout.min(LONGEST_WAIT))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        if !events.is_empty() {
            self.0.reports.fetch_add(1, Ordering::AcqRel);
        }
        if events
            .iter()
            .any(|event| event.is_read_closed() || event.is_error())
        {
            self.0.parting.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// How many waits have ended with something to tell. What a socket has told by then it does not tell again.
    pub(crate) fn reports(&self) -> u64 {
        self.0.reports.load(Ordering::Acquire)
    }

    /// A call begins: it may be long since the last wait, and what has arrived meanwhile was told to nobody.
    pub(crate) fn look_anew(&self) {
        self.0.reports.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the end of what a peer has to say was reported together with what came before it.
    pub(crate) fn is_parting(&self) -> bool {
        self.0.parting.load(Ordering::Acquire)
    }

    /// Has the socket wake the loop whenever it gets ready. Which of the sockets it was does not matter: the driver
    /// tries them all, each until it would block.
    pub(crate) fn register(&self, socket: &mut impl Source) -> io::Result<()> {
        let token = Token(self.0.next_token.fetch_add(1, Ordering::Relaxed));
        self.0
            .registry
            .register(socket, token, Interest::READABLE | Interest::WRITABLE)
    }

    pub(crate) fn deregister(&self, socket: &mut impl Source) {
        // The socket is about to be closed, which takes it out of the poller in any case.
        let _ = self.0.registry.deregister(socket);
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        // It fails only when the poller is gone.
        let _ = self.waker.wake();
    }
}

/// The result of an operation that would block: pending, since the socket is registered once and for all.
pub(crate) fn pending_if_blocked<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

const WAKER: Token = Token(0);

/// How many sockets one wait can report. Those left out are reported by the next, and are tried anyway.
const EVENTS: usize = 64;

/// Some platforms fail on longer ones; waking early does no harm.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
