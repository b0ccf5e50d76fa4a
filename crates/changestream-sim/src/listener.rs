//! The deployment on the loopback: the only place with sockets, threads and a clock.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the one impure module: it carries the machine's bytes and tells it the time"
)]

mod channel;
#[cfg(feature = "tls")]
mod tls;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bson::{Document, Timestamp};
use bytes::Bytes;

use channel::{Channel, Layer};
#[cfg(feature = "tls")]
pub use tls::Tls;

use crate::deployment::{CommandRecord, Config, ConnectionId, Deployment, Input, Output};
use crate::error::CommandError;

/// A deployment that listens on 127.0.0.1. Dropping it ends everything.
///
/// ```no_run
/// let deployment = changestream_sim::Deployment::replica_set(3).start()?;
/// println!("{}", deployment.uri());
/// deployment.step_down();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct RunningDeployment {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Config {
    /// Starts the deployment on free ports of 127.0.0.1, or on those of [`addresses`](Self::addresses).
    ///
    /// # Errors
    /// A port cannot be bound, or the description is impossible (`InvalidInput`; see [`build`](Self::build)).
    pub fn start(mut self) -> io::Result<RunningDeployment> {
        if self.addresses.is_empty() {
            self.addresses = vec!["127.0.0.1:0".to_owned(); self.members];
        }
        let listeners = self
            .addresses
            .iter()
            .map(TcpListener::bind)
            .collect::<io::Result<Vec<_>>>()?;
        self.addresses = listeners
            .iter()
            .map(|l| Ok(l.local_addr()?.to_string()))
            .collect::<io::Result<_>>()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.epoch_millis = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        if self.seed.is_none() {
            self.seed = Some(entropy(now));
        }
        let layer = Layer::take(&mut self);
        let deployment = self
            .build(Instant::now())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        RunningDeployment::run(deployment, layer, listeners)
    }
}

impl RunningDeployment {
    fn run(deployment: Deployment, layer: Layer, listeners: Vec<TcpListener>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                deployment,
                outboxes: BTreeMap::new(),
                peers: BTreeMap::new(),
                subjects: BTreeMap::new(),
                deadline: None,
                listening: vec![false; listeners.len()],
                stopped: false,
            }),
            timer: Condvar::new(),
            layer,
        });
        shared.lock().drain();
        let mut threads = Vec::new();
        for (member, listener) in listeners.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            let name = format!("sim-member-{member}");
            threads.push(
                thread::Builder::new()
                    .name(name)
                    .spawn(move || accept(&shared, member, &listener))?,
            );
        }
        let for_timer = Arc::clone(&shared);
        threads.push(
            thread::Builder::new()
                .name("sim-timer".to_owned())
                .spawn(move || keep_time(&for_timer))?,
        );
        Ok(Self { shared, threads })
    }

    /// The connection string, with what a client needs for TLS if the deployment speaks it.
    pub fn uri(&self) -> String {
        self.shared.layer.uri(self.with(|d, _| d.uri()))
    }

    /// A member's address.
    pub fn address(&self, member: usize) -> Option<String> {
        self.with(|d, _| d.address(member).map(str::to_owned))
    }

    /// The primary's index.
    pub fn primary(&self) -> Option<usize> {
        self.with(|d, _| d.primary())
    }

    /// See [`Deployment::step_down`].
    pub fn step_down(&self) {
        self.with(Deployment::step_down);
    }

    /// See [`Deployment::elect`].
    pub fn elect(&self, member: usize) -> bool {
        self.with(|d, now| d.elect(now, member))
    }

    /// See [`Deployment::crash`]. The port stays reserved: connections to it are ended at once.
    pub fn crash(&self, member: usize) {
        self.with(|d, now| d.crash(now, member));
    }

    /// See [`Deployment::restart`].
    pub fn restart(&self, member: usize) {
        self.with(|d, now| d.restart(now, member));
    }

    /// See [`Deployment::partition`].
    pub fn partition(&self, members: &[usize]) {
        self.with(|d, now| d.partition(now, members));
    }

    /// See [`Deployment::heal`].
    pub fn heal(&self) {
        self.with(Deployment::heal);
    }

    /// See [`Deployment::cut_off`].
    pub fn cut_off(&self, mongos: usize, shard: usize) {
        self.with(|d, now| d.cut_off(now, mongos, shard));
    }

    /// See [`Deployment::lag`].
    pub fn lag(&self, member: usize, lag: Duration) {
        self.with(|d, now| d.lag(now, member, lag));
    }

    /// See [`Deployment::freeze`].
    pub fn freeze(&self, member: usize, duration: Duration) {
        self.with(|d, now| d.freeze(now, member, duration));
    }

    /// See [`Deployment::lose_history`].
    pub fn lose_history(&self, before: Timestamp) {
        self.with(|d, now| d.lose_history(now, before));
    }

    /// See [`Deployment::kill_cursor`].
    pub fn kill_cursor(&self, member: usize, cursor: i64) -> bool {
        self.with(|d, now| d.kill_cursor(now, member, cursor))
    }

    /// See [`Deployment::fail_command`].
    ///
    /// # Errors
    /// The command is malformed.
    pub fn fail_command(&self, member: usize, command: &Document) -> Result<(), CommandError> {
        self.with(|d, _| d.fail_command(member, command))
    }

    /// See [`Deployment::accept_oidc_token`].
    pub fn accept_oidc_token(&self, token: &str, user: &str, lifetime: Option<Duration>) {
        self.with(|d, now| d.accept_oidc_token(now, token, user, lifetime));
    }

    /// See [`Deployment::revoke_oidc_token`].
    pub fn revoke_oidc_token(&self, token: &str) {
        self.with(|d, _| d.revoke_oidc_token(token));
    }

    /// The connection that comes from this address, once it is there.
    pub fn connection_from(&self, from: SocketAddr) -> Option<ConnectionId> {
        self.shared.lock().peers.get(&from).copied()
    }

    /// See [`Deployment::show_certificate`]. The connection is the one that comes from this address: that of whoever
    /// ends TLS in front of the deployment. It may come later.
    pub fn show_certificate(&self, from: SocketAddr, subject: &str) {
        let mut state = self.shared.lock();
        match state.peers.get(&from).copied() {
            Some(connection) => state.deployment.show_certificate(connection, subject),
            None => {
                state.subjects.insert(from, subject.to_owned());
            }
        }
    }

    /// See [`Deployment::drop_connections`].
    pub fn drop_connections(&self, member: usize) {
        self.with(|d, now| d.drop_connections(now, member));
    }

    /// The commands received so far.
    pub fn commands(&self) -> Vec<CommandRecord> {
        self.with(|d, _| d.commands().cloned().collect())
    }

    /// Does anything with the machine, then carries out what it wants.
    pub fn with<T>(&self, act: impl FnOnce(&mut Deployment, Instant) -> T) -> T {
        let mut state = self.shared.lock();
        let result = act(&mut state.deployment, Instant::now());
        state.drain();
        drop(state);
        self.shared.timer.notify_all();
        result
    }
}

impl Drop for RunningDeployment {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopped = true;
        let addresses: Vec<String> = (0..state.listening.len())
            .filter_map(|m| state.deployment.address(m).map(str::to_owned))
            .collect();
        for outbox in state.outboxes.values() {
            outbox.close();
        }
        drop(state);
        self.shared.timer.notify_all();
        for address in addresses {
            // Wakes the accepting thread, which then sees that all is over.
            drop(TcpStream::connect(address));
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to tell here.
            drop(thread.join());
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    timer: Condvar,
    layer: Layer,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct State {
    deployment: Deployment,
    outboxes: BTreeMap<ConnectionId, Arc<Outbox>>,
    /// Where connections come from.
    peers: BTreeMap<SocketAddr, ConnectionId>,
    /// The subjects of certificates that were shown by who has not arrived yet.
    subjects: BTreeMap<SocketAddr, String>,
    deadline: Option<Instant>,
    listening: Vec<bool>,
    stopped: bool,
}

impl State {
    fn handle(&mut self, input: Input<'_>) {
        self.deployment.handle_input(Instant::now(), input);
        self.drain();
    }

    /// Carries out what the machine wants.
    fn drain(&mut self) {
        let now = Instant::now();
        loop {
            match self.deployment.poll_output(now) {
                Output::Listen { member } => self.set_listening(member, true),
                Output::Close { member } => self.set_listening(member, false),
                Output::Transmit { connection, bytes } => {
                    if let Some(outbox) = self.outboxes.get(&connection) {
                        outbox.push(bytes);
                    }
                }
                Output::Disconnect { connection } => {
                    if let Some(outbox) = self.outboxes.remove(&connection) {
                        outbox.finish();
                    }
                }
                Output::Deadline(deadline) => {
                    self.deadline = deadline;
                    return;
                }
            }
        }
    }

    fn set_listening(&mut self, member: usize, listening: bool) {
        if let Some(slot) = self.listening.get_mut(member) {
            *slot = listening;
        }
    }
}

/// What is still to be written to a connection.
#[derive(Debug)]
struct Outbox {
    queue: Mutex<Queue>,
    filled: Condvar,
    channel: Channel,
    stream: TcpStream,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    bytes: usize,
    finished: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, bytes: Bytes) {
        let mut queue = self.lock();
        queue.bytes += bytes.len();
        queue.messages.push_back(bytes);
        let too_slow = queue.bytes > MAX_UNREAD;
        drop(queue);
        self.filled.notify_one();
        if too_slow {
            self.close();
        }
    }

    /// Ends the connection once everything is written.
    fn finish(&self) {
        self.lock().finished = true;
        self.filled.notify_one();
    }

    /// Ends the connection now.
    fn close(&self) {
        self.lock().finished = true;
        self.filled.notify_one();
        // It may be gone already.
        drop(self.stream.shutdown(Shutdown::Both));
    }

    fn write_all(&self) {
        // A client that is gone has nothing more to be told.
        drop(self.try_write_all());
        drop(self.stream.shutdown(Shutdown::Both));
    }

    fn try_write_all(&self) -> io::Result<()> {
        let mut buffer = Vec::new();
        while let Some(message) = self.next() {
            let bytes = self.channel.outgoing(&message, &mut buffer)?;
            (&self.stream).write_all(bytes)?;
        }
        (&self.stream).write_all(self.channel.farewell(&mut buffer)?)
    }

    /// Waits for the next message; none once the connection is finished.
    fn next(&self) -> Option<Bytes> {
        let mut queue = self.lock();
        loop {
            if let Some(message) = queue.messages.pop_front() {
                queue.bytes -= message.len();
                return Some(message);
            }
            if queue.finished {
                return None;
            }
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn accept(shared: &Arc<Shared>, member: usize, listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut state = shared.lock();
        if state.stopped {
            return;
        }
        let Ok(stream) = stream else { continue };
        if state.listening.get(member) != Some(&true) {
            continue;
        }
        // Small messages must not wait for each other.
        drop(stream.set_nodelay(true));
        let Ok(reading) = stream.try_clone() else {
            continue;
        };
        let Ok(channel) = shared.layer.accept() else {
            continue;
        };
        let outbox = Arc::new(Outbox {
            queue: Mutex::default(),
            filled: Condvar::new(),
            channel,
            stream,
        });
        let connection = state.deployment.new_connection();
        state.outboxes.insert(connection, Arc::clone(&outbox));
        state.handle(Input::Accepted { member, connection });
        if let Ok(peer) = reading.peer_addr() {
            state.peers.insert(peer, connection);
            if let Some(subject) = state.subjects.remove(&peer) {
                state.deployment.show_certificate(connection, subject);
            }
        }
        drop(state);
        let (for_reading, for_writing) = (Arc::clone(shared), Arc::clone(&outbox));
        let writer = thread::Builder::new().spawn(move || for_writing.write_all());
        let reader = thread::Builder::new().spawn(move || read(&for_reading, connection, &outbox, reading));
        if writer.is_err() || reader.is_err() {
            end(shared, connection);
        }
    }
}

fn read(shared: &Shared, connection: ConnectionId, outbox: &Outbox, mut stream: TcpStream) {
    let mut buffer = vec![0; READ_BUFFER];
    let mut decrypted = Vec::new();
    loop {
        let bytes = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => buffer.get(..n).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let received = outbox.channel.incoming(bytes, &mut decrypted);
        if outbox.channel.wants_write() {
            // Nothing of the machine's: it only has the writing thread look.
            outbox.push(Bytes::new());
        }
        let Ok(bytes) = received else {
            shared.lock().outboxes.remove(&connection);
            outbox.finish();
            // A socket that is closed with something unread in it takes back what the client has not read yet: why.
            drop(io::copy(&mut stream, &mut io::sink()));
            break;
        };
        if bytes.is_empty() {
            continue;
        }
        let mut state = shared.lock();
        state.handle(Input::Received { connection, bytes });
        drop(state);
        shared.timer.notify_all();
    }
    end(shared, connection);
}

fn end(shared: &Shared, connection: ConnectionId) {
    let mut state = shared.lock();
    if let Some(outbox) = state.outboxes.remove(&connection) {
        outbox.close();
    }
    state.peers.retain(|_, other| *other != connection);
    state.handle(Input::Disconnected { connection });
    drop(state);
    shared.timer.notify_all();
}

/// Feeds the machine its deadlines.
fn keep_time(shared: &Shared) {
    let mut state = shared.lock();
    while !state.stopped {
        let now = Instant::now();
        match state.deadline {
            Some(at) if at <= now => state.handle(Input::Timeout),
            Some(at) => {
                let waited = shared.timer.wait_timeout(state, at - now);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            None => state = shared.timer.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// A seed from what the standard library has of the system's randomness: the keys of its hash maps.
fn entropy(now: Duration) -> [u8; 32] {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut seed = [0; 32];
    for (i, chunk) in seed.chunks_mut(8).enumerate() {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u128(now.as_nanos());
        hasher.write_usize(i);
        chunk.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    seed
}

const READ_BUFFER: usize = 64 << 10;
/// What may lie unread by a client of an exhaust cursor before its connection is ended: the machine does not know
/// how fast a socket drains.
const MAX_UNREAD: usize = 512 << 20;
