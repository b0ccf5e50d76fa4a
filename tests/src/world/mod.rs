//! A world in one process: streams, a simulated deployment, and a network between them, on one fake clock.
//!
//! Nothing in it waits, and a seed decides everything: how long bytes travel, where they are cut, what the machines
//! choose. A test arranges a world, steps it, and looks at what came out.

mod clients;
mod driving;
mod identity;
mod lines;
mod network;
mod observing;
mod rewriting;
mod tap;
mod writer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::Document;
use changestream_core::client::{
    ClientMachine, ClientSettings, ConnectionId, Deadline, Demand, Idle, Input, Output, Snapshot,
};
use changestream_core::connection::ClientMetadata;
use changestream_core::monitoring::Event;
use changestream_core::random::Random;
use changestream_core::stream::CommandReply;
use changestream_core::{ChangeEvent, ConnectionString, Error, Scope, Update, WatchOptions};
use changestream_sim::{self as sim, Deployment};

use crate::name_service::Zone;
use lines::Line;
use rewriting::Rewriting;
use tap::Tap;
use writer::Writer;

pub use identity::Identity;
pub use lines::LineId;
pub use network::{Conditions, Network, Way};
pub use observing::{both, collection, database, document, exact, key_of, stage};
pub use rewriting::{batch_of, without_batch_tokens};
pub use tap::Heard;

/// The world.
#[derive(Debug)]
pub struct World {
    /// The time, everywhere.
    pub now: Instant,
    /// The deployment, for its controls.
    pub deployment: Deployment,
    /// The wires.
    pub network: Network,
    /// What DNS says, at once.
    pub zone: Zone,
    /// What streams authenticate with.
    pub identity: Identity,
    streams: Vec<Stream>,
    /// Those that were not dropped.
    live: Vec<usize>,
    random: Random,
    writer: Option<Writer>,
    /// Every connection that was the writer's.
    writers: BTreeSet<sim::ConnectionId>,
    lines: BTreeMap<sim::ConnectionId, Line>,
    /// What the machines that are watched have published, in order.
    events: Vec<(StreamId, Event)>,
    rewriting: Rewriting,
    tap: Tap,
    steps: u64,
    /// How many connections a load balancer has spread.
    balanced: usize,
    /// Of everything that streams have sent, in order.
    sent: DefaultHasher,
}

/// Names a stream of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(usize);

#[derive(Debug)]
struct Stream {
    machine: ClientMachine,
    /// Taken out of the machine by a demand, not yet by the test.
    updates: VecDeque<Update>,
    closed: Option<Result<(), Error>>,
    deadline: Option<Deadline>,
    /// What was demanded and has not come yet.
    demand: Demand,
    /// Whether it runs commands instead, and their replies that were not taken yet.
    runs_commands: bool,
    replies: VecDeque<Result<CommandReply, Error>>,
}

/// What a try of [`World::try_next`] brought.
#[derive(Debug)]
pub enum Tried {
    /// An event.
    Event(ChangeEvent),
    /// Nothing within one getMore.
    Nothing(Idle),
    /// `timeoutMS` was over first.
    TimedOut(Error),
    /// The end.
    End(Result<(), Error>),
}

impl Stream {
    /// An update comes only when one is demanded, and satisfies the demand as [`Demand`] says.
    fn take(&mut self, update: Update) {
        assert_ne!(self.demand, Demand::None, "nobody asked for {update:?}");
        let ends_a_try = matches!(
            update,
            Update::Change(_) | Update::Invalidated { .. } | Update::Idle(_) | Update::TimedOut(_)
        );
        if self.demand == Demand::Next || ends_a_try {
            self.demand = Demand::None;
        }
        self.updates.push_back(update);
    }

    /// A machine that owes something never relies on its peer alone.
    fn wait(&mut self, deadline: Option<Deadline>) {
        let opens = !self.runs_commands && !self.machine.is_open();
        let owes = self.demand != Demand::None || opens;
        assert!(deadline.is_some() || !owes, "waits for ever: {self:?}");
        self.deadline = deadline;
    }
}

impl World {
    /// A world with that deployment.
    pub fn new(config: sim::Config, seed: [u8; 32]) -> Self {
        let now = epoch();
        let mut random = Random::new(seed);
        let mut sim_seed = [0; 32];
        random.fill(&mut sim_seed);
        let deployment = config
            .seed(sim_seed)
            .build(now)
            .expect("the test's deployment makes sense");
        let mut world = Self {
            now,
            deployment,
            network: Network::new(random.fork()),
            zone: Zone::default(),
            identity: Identity::new(now),
            streams: Vec::new(),
            live: Vec::new(),
            random,
            writer: None,
            writers: BTreeSet::new(),
            lines: BTreeMap::new(),
            events: Vec::new(),
            rewriting: Rewriting::default(),
            tap: Tap::default(),
            steps: 0,
            balanced: 0,
            sent: DefaultHasher::new(),
        };
        world.settle();
        world
    }

    /// A replica set of three members of server 4.4, seed 1.
    pub fn replica_set() -> Self {
        Self::new(Deployment::replica_set(3), [1; 32])
    }

    /// A stream to the deployment's own connection string, not yet open.
    pub fn watch(&mut self, scope: &Scope, options: WatchOptions) -> StreamId {
        self.watch_by(&self.deployment.uri(), None, scope, options)
            .expect("the test's options make sense")
    }

    /// A stream by that connection string, with what other streams have learned.
    ///
    /// # Errors
    /// As [`ClientMachine::new`].
    pub fn watch_by(
        &mut self,
        uri: &str,
        snapshot: Option<Snapshot>,
        scope: &Scope,
        options: WatchOptions,
    ) -> Result<StreamId, Error> {
        let uri: ConnectionString = uri.parse().map_err(Error::from)?;
        let settings = Arc::new(ClientSettings::new(uri.options, ClientMetadata::new())?);
        self.watch_with(&settings, snapshot, scope, options)
    }

    /// Opens the stream.
    ///
    /// # Errors
    /// What opening it failed with.
    pub fn open(&mut self, id: StreamId) -> Result<(), Error> {
        self.input(id, Input::Begin);
        self.run_until(|world| {
            let stream = &world.streams[id.0];
            stream.machine.is_open() || stream.closed.is_some()
        });
        match &self.streams[id.0].closed {
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// A stream that is open.
    pub fn watching(&mut self, scope: &Scope, options: WatchOptions) -> StreamId {
        let id = self.watch(scope, options);
        self.open(id).expect("the stream opens");
        id
    }

    /// The next update, none after the end; a call by itself.
    pub fn next_update(&mut self, id: StreamId) -> Option<Result<Update, Error>> {
        self.input(id, Input::Begin);
        self.next_of_call(id)
    }

    fn next_of_call(&mut self, id: StreamId) -> Option<Result<Update, Error>> {
        if !self.has_something(id) {
            self.demand(id, Demand::Next);
        }
        self.run_until(|world| world.has_something(id));
        self.take(id)
    }

    fn take(&mut self, id: StreamId) -> Option<Result<Update, Error>> {
        let stream = &mut self.streams[id.0];
        match stream.updates.pop_front() {
            Some(Update::TimedOut(error)) => return Some(Err(error)),
            Some(update) => return Some(Ok(update)),
            None => {}
        }
        match &stream.closed {
            Some(Err(error)) => Some(Err(error.clone())),
            Some(Ok(())) | None => None,
        }
    }

    /// The next update that comes within this time; `None` if none does. The demand is then abandoned, as by a consumer
    /// who drops a future: nothing may be lost by that.
    pub fn next_update_within(&mut self, id: StreamId, time: Duration) -> Option<Result<Update, Error>> {
        self.input(id, Input::Begin);
        self.demand(id, Demand::Next);
        let end = self.now + time;
        self.settle();
        while !self.has_something(id) {
            if self.next_time().is_none_or(|at| at > end) {
                self.now = end;
                self.demand(id, Demand::None);
                return None;
            }
            self.step();
        }
        self.take(id)
    }

    /// The next event, none after the end.
    pub fn next(&mut self, id: StreamId) -> Option<Result<ChangeEvent, Error>> {
        self.input(id, Input::Begin);
        loop {
            match self.next_of_call(id)? {
                Ok(Update::Change(event)) => return Some(Ok(event)),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next event, which has to come.
    #[track_caller]
    pub fn event(&mut self, id: StreamId) -> ChangeEvent {
        match self.next(id) {
            Some(Ok(event)) => event,
            other => panic!("expected an event, got {other:?}"),
        }
    }

    /// The error that the stream has to end with.
    #[track_caller]
    pub fn failure(&mut self, id: StreamId) -> Error {
        match self.next(id) {
            Some(Err(error)) => error,
            other => panic!("expected an error, got {other:?}"),
        }
    }

    /// What at most one getMore brings.
    pub fn try_next(&mut self, id: StreamId) -> Tried {
        self.input(id, Input::Begin);
        if !self.has_something(id) {
            self.demand(id, Demand::TryNext);
        }
        loop {
            self.run_until(|world| world.has_something(id));
            let stream = &mut self.streams[id.0];
            match stream.updates.pop_front() {
                Some(Update::Change(event)) => return Tried::Event(event),
                Some(Update::Idle(idle)) => return Tried::Nothing(idle),
                Some(Update::TimedOut(error)) => return Tried::TimedOut(error),
                Some(_) => {}
                None => return Tried::End(stream.closed.clone().expect("it has ended")),
            }
        }
    }

    /// Closes the stream, within five seconds.
    pub fn close(&mut self, id: StreamId) {
        let deadline = self.now + Duration::from_secs(5);
        self.input(id, Input::Close { deadline });
        self.run_until(|world| world.streams[id.0].closed.is_some());
    }

    /// The stream's machine, to be asked.
    pub fn machine(&self, id: StreamId) -> &ClientMachine {
        &self.streams[id.0].machine
    }

    /// The commands that members received, oldest first, but for hellos and those of the writer: what a command
    /// monitor would show of the streams.
    pub fn commands(&self) -> Vec<Document> {
        self.records().map(|record| record.body.clone()).collect()
    }

    /// The names of [`commands`](Self::commands).
    pub fn command_names(&self) -> Vec<String> {
        self.commands()
            .iter()
            .filter_map(|command| command.keys().next().cloned())
            .collect()
    }

    /// Lets this much time pass.
    pub fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next_time().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
        self.settle();
    }

    /// Steps until the condition holds. A world that does not get there within an hour of its time, or in a million
    /// steps, is stuck: that is a failure.
    #[track_caller]
    pub fn run_until(&mut self, condition: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(3600);
        let last = self.steps + 1_000_000;
        self.settle();
        while !condition(self) {
            assert!(self.now < end && self.steps < last, "stuck at {:?}", self.streams);
            self.step();
        }
    }

    /// Moves on to the next moment at which something happens.
    #[track_caller]
    pub fn step(&mut self) {
        let Some(at) = self.next_time() else {
            panic!("nothing will ever happen: {:?}", self.streams)
        };
        self.step_to(at);
    }

    /// Whether an update or the end is there to be taken.
    pub fn has_something(&self, id: StreamId) -> bool {
        let stream = &self.streams[id.0];
        !stream.updates.is_empty() || stream.closed.is_some()
    }

    fn add(&mut self, mut machine: ClientMachine, runs_commands: bool) -> StreamId {
        machine.set_event_source(1 + u64::try_from(self.streams.len()).unwrap_or(u64::MAX));
        self.streams.push(Stream {
            machine,
            updates: VecDeque::new(),
            closed: None,
            deadline: None,
            demand: Demand::None,
            runs_commands,
            replies: VecDeque::new(),
        });
        let index = self.streams.len() - 1;
        self.live.push(index);
        StreamId(index)
    }

    fn input(&mut self, id: StreamId, input: Input) {
        self.streams[id.0].machine.handle_input(self.now, input);
    }

    /// The next moment at which something happens by itself.
    fn next_time(&mut self) -> Option<Instant> {
        self.settle();
        let awake = self.live.iter().filter(|index| !self.network.is_asleep(**index));
        let streams = awake
            .filter_map(|index| Some(self.streams[*index].deadline?.at))
            .min();
        let deployment = match self.deployment.poll_output(self.now) {
            sim::Output::Deadline(at) => at,
            sim::Output::Listen { .. }
            | sim::Output::Close { .. }
            | sim::Output::Transmit { .. }
            | sim::Output::Disconnect { .. } => unreachable!("the deployment has just been drained"),
        };
        [streams, deployment, self.network.next_arrival()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Lets everybody say what they have to say.
    pub fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for at in 0..self.live.len() {
                quiet &= !self.poll_stream(self.live[at]);
            }
            loop {
                let output = self.deployment.poll_output(self.now);
                if matches!(output, sim::Output::Deadline(_)) {
                    break;
                }
                self.obey_deployment(output);
                quiet = false;
            }
            if quiet {
                return;
            }
        }
    }

    /// Drains a stream; returns whether it had anything for the network.
    fn poll_stream(&mut self, index: usize) -> bool {
        let spoke = self.poll_outputs(index);
        while let Some(event) = self.streams[index].machine.poll_event() {
            self.events.push((StreamId(index), event));
        }
        spoke
    }

    /// Hands over an event that a short cut gives, of which every other stream's consumer makes use.
    fn hand_over(&mut self, index: usize, short_cut: fn(&mut ClientMachine) -> Option<ChangeEvent>) -> bool {
        let stream = &mut self.streams[index];
        if index.is_multiple_of(2) || self.network.is_asleep(index) {
            return false;
        }
        let Some(event) = short_cut(&mut stream.machine) else {
            return false;
        };
        let update = Update::Change(event);
        self.tap.told(index, &update);
        stream.take(update);
        true
    }

    fn poll_outputs(&mut self, index: usize) -> bool {
        let mut spoke = false;
        if self.network.is_asleep(index) {
            return false;
        }
        self.hand_over(index, ClientMachine::take_awaited);
        loop {
            let stream = &mut self.streams[index];
            let output = stream.machine.poll_output();
            let follows_the_end = stream.closed.is_some() && !matches!(output, Output::Closed(_));
            assert!(!follows_the_end, "something follows the end: {output:?}");
            match output {
                Output::Resolve { lookup, question } => {
                    let result = self.zone.answer(&question);
                    let input = Input::Resolved { lookup, result };
                    stream.machine.handle_input(self.now, input);
                }
                Output::Connect { connection, address } => {
                    let member = self.member_at(&address.to_string());
                    self.tap.connected((index, connection), member);
                    self.network.connect(self.now, (index, connection), member);
                }
                Output::Transmit { connection, bytes } => {
                    bytes.hash(&mut self.sent);
                    self.tap.sent((index, connection), &bytes);
                    self.network.send_to_server(self.now, (index, connection), bytes);
                }
                Output::Disconnect { connection } => {
                    self.tap.disconnected((index, connection));
                    self.network.client_closes(self.now, (index, connection));
                }
                Output::Credentials { connection, request } => {
                    if let Some(answer) = self.identity.answer(self.now, &request) {
                        let input = Input::Credentials { connection, answer };
                        stream.machine.handle_input(self.now, input);
                    }
                }
                Output::Update(update) => {
                    self.tap.told(index, &update);
                    stream.take(update);
                    continue;
                }
                Output::Reply(reply) => {
                    stream.replies.push_back(reply);
                    continue;
                }
                Output::Wait(deadline) => {
                    stream.wait(deadline);
                    return spoke;
                }
                Output::Closed(result) => {
                    if stream.closed.is_none() {
                        self.tap.ended(index, &result);
                    }
                    stream.closed.get_or_insert(result);
                    stream.deadline = None;
                    return spoke;
                }
            }
            spoke = true;
        }
    }

    /// Where a connection to that address leads: behind a load balancer to each mongos in turn.
    fn member_at(&mut self, address: &str) -> Option<usize> {
        let members = self.deployment.member_count();
        let member = (0..members).find(|member| self.deployment.address(*member) == Some(address))?;
        if !self.deployment.is_load_balanced() {
            return Some(member);
        }
        self.balanced += 1;
        Some((member + self.balanced) % members)
    }

    fn obey_deployment(&mut self, output: sim::Output) {
        if self.is_for_a_line(&output) {
            return;
        }
        match output {
            sim::Output::Listen { member } => self.network.listen(member),
            sim::Output::Close { member } => self.network.close(member),
            sim::Output::Transmit { connection, bytes } => match &mut self.writer {
                Some(writer) if writer.connection == connection => writer.receive(&bytes),
                _ => {
                    let bytes = self.rewriting.apply(bytes);
                    self.network.send_to_client(self.now, connection, bytes);
                }
            },
            sim::Output::Disconnect { connection } => {
                if self
                    .writer
                    .as_ref()
                    .is_some_and(|writer| writer.connection == connection)
                {
                    self.writer = None;
                }
                self.network.server_closes(self.now, connection);
            }
            sim::Output::Deadline(_) => {}
        }
    }

    /// Brings what has arrived by now to whom it is for.
    fn deliver(&mut self) {
        while let Some(arrival) = self
            .network
            .poll_arrival(self.now, || self.deployment.new_connection())
        {
            arrival.deliver(self);
        }
    }

    fn receive(&mut self, id: StreamId, connection: ConnectionId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let machine = &mut self.streams[id.0].machine;
            let Some(buffer) = machine.read_buffer(connection) else {
                return;
            };
            let len = buffer.len().min(bytes.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            self.tap.received((id.0, connection), &bytes[..len]);
            bytes = &bytes[len..];
            machine.handle_input(self.now, Input::Received { connection, len });
        }
    }
}

/// Why time starts here: the machines only look at differences.
pub(crate) fn epoch() -> Instant {
    Instant::now()
}
