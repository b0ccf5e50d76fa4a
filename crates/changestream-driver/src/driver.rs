//! The one loop that drives a machine over sockets and a clock.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use changestream_core::client::{ClientMachine, ConnectionId, Demand, Input, Output, Snapshot, Update};
use changestream_core::stream::CommandReply;
use changestream_core::{ChangeEvent, Error, ErrorKind, RunCommand, ServerAddress};

use crate::Runtime;
use crate::alarm::Alarm;
use crate::credentials::{Credentials, Providers};
use crate::dns::{DnsServers, Lookups};
use crate::logging::log_update;
use crate::monitor::Monitor;
use crate::pace::Pace;
use crate::security::Security;
use crate::socket::Socket;

/// A machine with its sockets and its timer.
///
/// Everything lives here and nothing in a future, so that a future may be dropped at any await point: bytes read are
/// the machine's before control returns, a partial write keeps its offset in the socket's outbox, a connection on its
/// way stays in the map, and an update leaves only in the poll that returns it.
///
/// A turn of the loop: carry out what the machine orders, write, read every socket once, and only when no socket has
/// anything more, judge the deadline. A stream that nobody polled for a minute thus finds the reply that has been
/// waiting in its socket, and not that the reply is late.
pub(crate) struct Driver<R: Runtime> {
    runtime: R,
    machine: ClientMachine,
    security: Security,
    credentials: Credentials,
    monitor: Monitor,
    /// In the order in which they were asked for.
    sockets: Vec<(ConnectionId, Socket<R>)>,
    lookups: Lookups<R>,
    alarm: Alarm<R>,
    /// What the machine was told last, as far as it has not been satisfied.
    demand: Demand,
    /// Taken from the machine, and not by the consumer yet. One at most, but for a resume that a `TryNext` goes through.
    updates: VecDeque<Update>,
    pace: Pace,
    /// Whether the machine has said that it waits, and has been told nothing since.
    is_settled: bool,
    /// The answer to a command, until it is taken.
    reply: Option<Result<CommandReply, Error>>,
    end: Option<Result<(), Error>>,
}

impl<R: Runtime> Driver<R> {
    pub(crate) fn new(
        runtime: R,
        machine: ClientMachine,
        security: Security,
        servers: DnsServers,
        providers: Providers,
        monitor: Monitor,
    ) -> Self {
        Self {
            runtime,
            machine,
            security,
            credentials: Credentials::new(providers),
            monitor,
            sockets: Vec::new(),
            lookups: Lookups::new(servers),
            alarm: Alarm::new(),
            demand: Demand::None,
            updates: VecDeque::with_capacity(1),
            pace: Pace::default(),
            is_settled: false,
            reply: None,
            end: None,
        }
    }

    pub(crate) fn runtime(&self) -> &R {
        &self.runtime
    }

    pub(crate) fn machine(&self) -> &ClientMachine {
        &self.machine
    }

    /// How the stream ended, if it has.
    pub(crate) fn end(&self) -> Option<&Result<(), Error>> {
        self.end.as_ref()
    }

    /// When the loop wants to be polled again though no socket wakes it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let sockets = self.sockets.iter().filter_map(|(_, socket)| socket.deadline());
        let others = self.alarm.at().into_iter().chain(self.lookups.deadline());
        sockets.chain(others).min()
    }

    /// The next update of those that the demand asks for; none after the end.
    pub(crate) fn poll_update(&mut self, cx: &mut Context<'_>, demand: Demand) -> Poll<Option<Update>> {
        if self.updates.is_empty() {
            self.pace.come_back(|| self.runtime.now());
            self.say(demand);
            ready!(self.drive(cx));
        }
        let update = self.updates.pop_front();
        if !self.machine.has_buffered() {
            self.pace.hand_over(self.runtime.now());
        }
        Poll::Ready(update)
    }

    /// The next event, if nothing else is to be done for it.
    #[inline]
    pub(crate) fn take_ready(&mut self) -> Option<ChangeEvent> {
        if !self.updates.is_empty() {
            return None;
        }
        self.machine.take_ready()
    }

    /// Gives an update back, to be the next again.
    pub(crate) fn put_back(&mut self, update: Update) {
        self.updates.push_front(update);
    }

    /// A call of the consumer's begins.
    pub(crate) fn begin(&mut self) {
        self.input(Input::Begin);
    }

    /// Ready when the stream is open, or has ended.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.machine.is_open() {
            return Poll::Ready(());
        }
        self.say(Demand::None);
        match self.drive(cx) {
            Poll::Pending if !self.machine.is_open() => Poll::Pending,
            Poll::Pending | Poll::Ready(()) => Poll::Ready(()),
        }
    }

    /// Runs a command. What the sockets have to tell comes first: a connection may be gone that stood when the last
    /// command was done.
    pub(crate) fn run(&mut self, cx: &mut Context<'_>, command: RunCommand, known: Snapshot) {
        let _ = self.drive(cx);
        self.machine.learn(known);
        self.input(Input::Command(Box::new(command)));
    }

    /// The answer to the command.
    pub(crate) fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<CommandReply, Error>> {
        ready!(self.drive(cx));
        let gone = || Err(Error::new(ErrorKind::Closed));
        Poll::Ready(self.reply.take().unwrap_or_else(gone))
    }

    /// Nobody polls it for a while, and then perhaps on another executor: a timer would be none there.
    pub(crate) fn rest(&mut self) {
        self.alarm = Alarm::new();
    }

    /// Asks the machine to end.
    pub(crate) fn close(&mut self, deadline: Instant) {
        if self.end.is_none() {
            self.demand = Demand::None;
            self.input(Input::Close { deadline });
        }
    }

    /// Ready when the stream has ended. An update that nobody took is dropped.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.end.is_none() {
            self.updates.clear();
            ready!(self.drive(cx));
        }
        Poll::Ready(())
    }

    /// Says it only if it is news: a demand that is said anew would be a new demand.
    fn say(&mut self, demand: Demand) {
        if self.demand != demand {
            self.demand = demand;
            self.input(Input::Demand(demand));
        }
    }

    /// Ready when there is an update, or the end. Does a bounded amount of work, and wakes itself if there is more.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS {
            self.carry_out(cx);
            self.write(cx);
            if !self.updates.is_empty() || self.reply.is_some() || self.end.is_some() {
                return Poll::Ready(());
            }
            let more = self.read(cx);
            if more.is_some() && self.take_awaited() {
                return Poll::Ready(());
            }
            if self.alarm.is_due(&self.runtime, more) {
                self.input(Input::Timeout);
            } else if more.is_none() && self.alarm.poll(&self.runtime, cx).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether there is an event, the only one, for a consumer who will be back before the server misses anything. What the
    /// machine orders is carried out then.
    fn take_awaited(&mut self) -> bool {
        if !self.pace.is_prompt() {
            return false;
        }
        let Some(event) = self.machine.take_awaited() else {
            return false;
        };
        self.monitor.tell(&mut self.machine);
        self.take(Update::Change(event));
        true
    }

    fn take(&mut self, update: Update) {
        log_update(&update);
        if satisfies(self.demand, &update) {
            self.demand = Demand::None;
        }
        self.updates.push_back(update);
    }

    fn input(&mut self, input: Input) {
        self.is_settled = false;
        self.machine.handle_input(self.runtime.now(), input);
    }

    /// Carries out all that the machine orders, also what it orders after an update: a getMore that fetches ahead is to
    /// leave now, and not when the consumer comes back.
    fn carry_out(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none() && !self.is_settled {
            let output = self.machine.poll_output();
            self.monitor.tell(&mut self.machine);
            match output {
                Output::Resolve { lookup, question } => self.lookups.start(lookup, &question),
                Output::Connect { connection, address } => self.connect(connection, &address),
                Output::Transmit { connection, bytes } => self.transmit(connection, bytes),
                Output::Disconnect { connection } => self.disconnect(connection, cx),
                Output::Credentials { connection, request } => self.credentials.ask(connection, request),
                Output::Update(update) => self.take(update),
                Output::Reply(result) => self.reply = Some(result),
                Output::Wait(deadline) => {
                    self.alarm.set(deadline);
                    self.is_settled = true;
                }
                Output::Closed(result) => self.finish(result, cx),
            }
        }
    }

    fn connect(&mut self, connection: ConnectionId, address: &ServerAddress) {
        let socket = Socket::connect(&self.runtime, address, &self.security);
        // In the steady state it is the only one.
        self.sockets.reserve_exact(1);
        self.sockets.push((connection, socket));
    }

    fn transmit(&mut self, connection: ConnectionId, bytes: Bytes) {
        let mut sockets = self.sockets.iter_mut();
        if let Some((_, Socket::Open(open))) = sockets.find(|(id, _)| *id == connection) {
            open.transmit(bytes);
        }
    }

    fn disconnect(&mut self, connection: ConnectionId, cx: &mut Context<'_>) {
        self.credentials.forget(connection);
        if let Some(Socket::Open(open)) = self.remove(connection) {
            open.leave(cx);
        }
    }

    fn remove(&mut self, connection: ConnectionId) -> Option<Socket<R>> {
        let place = self.sockets.iter().position(|(id, _)| *id == connection)?;
        let (_, socket) = self.sockets.remove(place);
        self.sockets.shrink_to_fit();
        Some(socket)
    }

    fn finish(&mut self, result: Result<(), Error>, cx: &mut Context<'_>) {
        self.end = Some(result);
        self.alarm = Alarm::new();
        self.lookups.clear();
        for (_, socket) in std::mem::take(&mut self.sockets) {
            if let Socket::Open(open) = socket {
                open.leave(cx);
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) {
        for (_, socket) in &mut self.sockets {
            if let Socket::Open(open) = socket {
                open.write(cx);
            }
        }
    }

    /// Polls every socket and look-up once, so that none waits for another, however busy. None if no socket had anything, else how
    /// many bytes there were.
    fn read(&mut self, cx: &mut Context<'_>) -> Option<usize> {
        let mut progress = None;
        let mut gone = Vec::new();
        for (connection, socket) in &mut self.sockets {
            let connection = *connection;
            let Poll::Ready((len, input)) =
                poll_socket(&self.runtime, &mut self.machine, connection, socket, cx)
            else {
                continue;
            };
            if matches!(input, Input::Disconnected { .. }) {
                gone.push(connection);
            }
            self.machine.handle_input(self.runtime.now(), input);
            self.is_settled = false;
            progress = Some(progress.unwrap_or(0) + len);
        }
        for connection in gone {
            self.remove(connection);
        }
        while let Poll::Ready((lookup, result)) = self.lookups.poll(&self.runtime, cx) {
            self.input(Input::Resolved { lookup, result });
            progress = Some(progress.unwrap_or(0));
        }
        for (connection, answer) in self.credentials.poll(cx) {
            let input = Input::Credentials { connection, answer };
            self.input(input);
            progress = progress.or(Some(0));
        }
        progress
    }
}

/// What a socket has to tell, and how many bytes of it.
fn poll_socket<R: Runtime>(
    runtime: &R,
    machine: &mut ClientMachine,
    connection: ConnectionId,
    socket: &mut Socket<R>,
    cx: &mut Context<'_>,
) -> Poll<(usize, Input)> {
    let result = match socket {
        Socket::Connecting { .. } | Socket::Opening(_) | Socket::Gone => {
            ready!(socket.poll_connect(runtime, cx)).map(|()| (0, Input::Connected { connection }))
        }
        Socket::Open(open) => {
            // Without a buffer the connection is no longer wanted, and the order to close it is on its way.
            let Some(buffer) = machine.read_buffer(connection) else {
                return Poll::Pending;
            };
            ready!(open.poll_read(cx, buffer)).map(|len| (len, Input::Received { connection, len }))
        }
    };
    Poll::Ready(result.unwrap_or_else(|reason| (0, Input::Disconnected { connection, reason })))
}

/// Whether this update is the one that was asked for, so that the demand is back to none.
fn satisfies(demand: Demand, update: &Update) -> bool {
    match demand {
        Demand::None => false,
        Demand::Next => true,
        Demand::TryNext => matches!(
            update,
            Update::Change(_) | Update::Invalidated { .. } | Update::Idle(_) | Update::TimedOut(_)
        ),
    }
}

/// How many turns of the loop one poll takes before it lets others run. A turn reads each socket once.
const TURNS: usize = 64;
