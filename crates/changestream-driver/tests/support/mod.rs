//! A world without a network: fake sockets, a fake clock, a scripted server, and an executor that steps it all.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod server;

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, pending, ready};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use changestream_core::wire::FrameReader;
use changestream_driver::{ChangeStream, Client, Endpoint, Runtime};
use futures_io::{AsyncRead, AsyncWrite};
use server::{Answer, Server, URI};

/// How long the server waits for changes before it answers with an empty batch.
pub const AWAIT_TIME: Duration = Duration::from_secs(1);

/// The world; a clone is the same one.
#[derive(Clone)]
pub struct World(Arc<Mutex<State>>);

pub struct State {
    pub now: Instant,
    pub server: Server,
    /// The most bytes that one read gives.
    pub read_at_most: usize,
    /// Whether a read that gave something is followed by one that has to wait.
    pub read_waits: bool,
    /// The most bytes that one write takes; a write that took that much is followed by one that has to wait.
    pub write_at_most: usize,
    /// Whether the server answers, and notices what was said.
    pub mute: bool,
    /// What becomes of connections that are to be opened.
    pub connecting: Connecting,
    /// And of those to one address.
    pub of_endpoint: BTreeMap<String, Connecting>,
    /// The addresses of every name; none is a look-up that never ends.
    pub addresses: Vec<SocketAddr>,
    /// When it was tried to connect, and where to.
    pub attempts: Vec<(Instant, String)>,
    /// How many attempts that hang were dropped.
    pub abandoned: Arc<AtomicUsize>,
    /// Sends, byte by byte and without a pause, a reply of 40 MB.
    pub flood: bool,
    /// How many reads gave something, or the end.
    pub reads: usize,
    /// Wires that were opened so far.
    pub opened: usize,
    wires: BTreeMap<usize, Wire>,
    timers: Vec<(Instant, Waker)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Connecting {
    Open,
    Refuse,
    Hang,
    OpenAfter(Duration),
}

/// One connection, seen from the server.
struct Wire {
    requests: FrameReader,
    replies: VecDeque<u8>,
    held: Vec<(Instant, Bytes)>,
    closed: bool,
    blocked: bool,
    /// Nothing can be read before the server's next turn.
    starved: bool,
    /// Bytes of the flood that were sent.
    flooded: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl World {
    pub fn new(server: Server) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: Instant::now(),
            server,
            read_at_most: usize::MAX,
            read_waits: false,
            write_at_most: usize::MAX,
            mute: false,
            connecting: Connecting::Open,
            of_endpoint: BTreeMap::new(),
            addresses: vec![SocketAddr::from(([127, 0, 0, 1], 27017))],
            attempts: Vec::new(),
            abandoned: Arc::default(),
            flood: false,
            reads: 0,
            opened: 0,
            wires: BTreeMap::new(),
            timers: Vec::new(),
        })))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn client(&self) -> Client<Self> {
        let parsed: changestream_driver::ConnectionString = URI.parse().unwrap();
        Client::with_mode(self.clone(), parsed.options).unwrap()
    }

    /// A stream that has not been polled.
    pub fn stream(&self) -> ChangeStream<Self> {
        let watch = self.client().collection("shop", "orders").watch();
        watch.seed([7; 32]).start().unwrap()
    }

    /// A stream that is open.
    pub fn open(&self) -> ChangeStream<Self> {
        let mut stream = self.stream();
        self.run(stream.opened()).unwrap();
        stream
    }

    /// Runs a future to its end: polls it when it was woken, lets the server work, and moves the clock when nothing
    /// else can happen.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let alarm = Arc::new(Alarm(AtomicBool::new(true)));
        let waker = Waker::from(alarm.clone());
        for _ in 0..1_000_000 {
            if alarm.0.swap(false, Ordering::Relaxed) {
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return output;
                }
            } else if !self.step() && !self.move_clock() {
                panic!("nothing will ever wake the stream");
            }
        }
        panic!("the stream is busy without end");
    }

    /// Polls a future once, drops it, and lets the world go on.
    pub fn poll_and_drop<F: Future>(&self, future: F) -> Poll<F::Output> {
        let polled = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
        if polled.is_pending() && !self.step() {
            self.move_clock();
        }
        polled
    }

    /// Lets the server do what there is to do. Whether there was anything.
    pub fn step(&self) -> bool {
        self.state().serve()
    }

    /// Moves the clock on without anybody being polled; the server goes on working.
    pub fn pass(&self, time: Duration) {
        let end = self.state().now + time;
        loop {
            self.step();
            let next = self.state().next_event().filter(|at| *at < end);
            let Some(at) = next else { break };
            self.state().set_clock(at);
        }
        self.state().set_clock(end);
        self.step();
    }

    fn move_clock(&self) -> bool {
        let mut state = self.state();
        let next = state.next_event();
        if let Some(at) = next {
            state.set_clock(at);
        }
        next.is_some()
    }
}

impl State {
    /// Closes every connection from the server's side.
    pub fn cut(&mut self) {
        for wire in self.wires.values_mut() {
            wire.closed = true;
            wire.wake();
        }
    }

    /// The runtime says of no socket that it has anything before it has looked again, as those do that remember what
    /// they were told last.
    pub fn doze(&mut self) {
        for wire in self.wires.values_mut() {
            wire.starved = true;
        }
    }

    /// The connections that the client has not dropped.
    pub fn connections(&self) -> usize {
        self.wires.len()
    }

    fn serve(&mut self) -> bool {
        let mut busy = false;
        for wire in self.wires.values_mut() {
            let starved = std::mem::take(&mut wire.starved);
            if std::mem::take(&mut wire.blocked) || starved {
                busy = true;
                wire.wake();
            }
            if self.mute || wire.closed {
                continue;
            }
            let mut answers = Vec::new();
            for (until, frame) in std::mem::take(&mut wire.held) {
                let late = self.now >= until;
                answers.push((until, self.server.answer(&frame, late), frame));
            }
            while let Some(frame) = wire.requests.next_frame().unwrap() {
                busy = true;
                answers.push((self.now + AWAIT_TIME, self.server.hear(&frame), frame));
            }
            for (until, answer, frame) in answers {
                match answer {
                    Answer::Reply(bytes) => {
                        busy = true;
                        wire.replies.extend(bytes);
                        wire.wake();
                    }
                    Answer::Hold => wire.held.push((until, frame)),
                    Answer::Silence => {}
                }
            }
        }
        busy
    }

    fn next_event(&self) -> Option<Instant> {
        let held = self.wires.values().filter(|_| !self.mute).flat_map(|w| &w.held);
        let timers = self.timers.iter().map(|(at, _)| *at);
        held.map(|(at, _)| *at)
            .chain(timers)
            .filter(|at| *at > self.now)
            .min()
    }

    fn set_clock(&mut self, now: Instant) {
        self.now = now;
        for (_, waker) in self.timers.extract_if(.., |(at, _)| *at <= now) {
            waker.wake();
        }
    }
}

impl Wire {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Runtime for World {
    type Connection = Socket;
    type Connect = Pin<Box<dyn Future<Output = io::Result<Socket>> + Send>>;
    type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
    type Timer = Timer;

    fn lookup(&self, _: &str, _: u16) -> Self::Lookup {
        let addresses = self.state().addresses.clone();
        match addresses.is_empty() {
            true => Box::pin(pending()),
            false => Box::pin(ready(Ok(addresses))),
        }
    }

    fn connect(&self, endpoint: &Endpoint) -> Self::Connect {
        let mut state = self.state();
        let now = state.now;
        state.attempts.push((now, endpoint.to_string()));
        let connecting = state.of_endpoint.get(&endpoint.to_string()).copied();
        let mut later = None;
        match connecting.unwrap_or(state.connecting) {
            Connecting::Open => {}
            Connecting::OpenAfter(delay) => later = Some(now + delay),
            Connecting::Refuse => {
                return Box::pin(ready(Err(io::ErrorKind::ConnectionRefused.into())));
            }
            Connecting::Hang => {
                let dropped = Dropped(state.abandoned.clone());
                return Box::pin(async move {
                    let _dropped = dropped;
                    pending().await
                });
            }
        }
        state.opened += 1;
        let id = state.opened;
        let wire = Wire {
            requests: FrameReader::new(),
            replies: VecDeque::new(),
            held: Vec::new(),
            closed: false,
            blocked: false,
            starved: false,
            flooded: 0,
            reader: None,
            writer: None,
        };
        state.wires.insert(id, wire);
        let socket = Socket {
            world: self.clone(),
            id,
        };
        let timer = later.map(|at| Timer {
            world: self.clone(),
            at,
        });
        Box::pin(async move {
            if let Some(timer) = timer {
                timer.await;
            }
            Ok(socket)
        })
    }

    fn sleep_until(&self, at: Instant) -> Timer {
        Timer {
            world: self.clone(),
            at,
        }
    }

    fn now(&self) -> Instant {
        self.state().now
    }
}

/// Counts that it was dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A timer that forgets its waker when it is dropped or moved only in so far as waking once too often does no harm.
pub struct Timer {
    world: World,
    at: Instant,
}

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.world.state();
        if state.now >= self.at {
            return Poll::Ready(());
        }
        state
            .timers
            .retain(|(at, waker)| *at != self.at || !waker.will_wake(cx.waker()));
        state.timers.push((self.at, cx.waker().clone()));
        Poll::Pending
    }
}

/// The client's end of a connection.
pub struct Socket {
    world: World,
    id: usize,
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = self.world.state();
        let most = state.read_at_most.min(buffer.len());
        let waits = state.read_waits;
        let flood = state.flood;
        let wire = state.wires.get_mut(&self.id).unwrap();
        if flood && !buffer.is_empty() {
            buffer[0] = FLOOD.to_le_bytes().get(wire.flooded).copied().unwrap_or(0);
            wire.flooded += 1;
            state.reads += 1;
            return Poll::Ready(Ok(1));
        }
        if wire.starved || wire.replies.is_empty() && !wire.closed {
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = most.min(wire.replies.len());
        for (to, from) in buffer.iter_mut().zip(wire.replies.drain(..len)) {
            *to = from;
        }
        wire.starved = waits;
        state.reads += 1;
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.world.state();
        let most = state.write_at_most;
        let wire = state.wires.get_mut(&self.id).unwrap();
        if wire.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if wire.blocked {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut len = 0;
        for byte in slices.iter().flat_map(|slice| slice.iter()).take(most) {
            wire.requests.buffer()[0] = *byte;
            wire.requests.filled(1);
            len += 1;
        }
        wire.blocked = len == most;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The server still reads what was written before.
impl Drop for Socket {
    fn drop(&mut self) {
        let mut state = self.world.state();
        state.serve();
        state.wires.remove(&self.id);
    }
}

/// How long the reply claims to be that floods the client.
const FLOOD: i32 = 40_000_000;

struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
