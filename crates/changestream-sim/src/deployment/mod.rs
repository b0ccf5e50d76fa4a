//! The machine: members, connections, and the one place where input enters and output leaves.

mod config;
mod controls;
mod external;
mod log;
mod observe;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use changestream_core::random::Random;
use changestream_core::wire::Compressor;

pub use config::{Config, Mechanism};
pub use log::{Committed, LoggedChange};
pub use observe::CommandRecord;

use crate::auth::Credentials;
use crate::buffers::Buffers;
use crate::commands::{self, Context, Outcome};
use crate::connection::{Activity, Connection, Form, Request, encode_reply};
use crate::member::{Member, Role};
use crate::profile::Profile;
use crate::reply::{Reply, Times};
use crate::sharding::Cluster;
use crate::wait::Wait;
use waiting::Waiting;

/// A simulated deployment: a replica set, or a standalone.
///
/// It is pure: bytes and time in, bytes and deadlines out. [`handle_input`](Self::handle_input) and
/// [`poll_output`](Self::poll_output) may be called in any order and at any time; equal inputs give equal outputs.
///
/// ```
/// use std::time::Instant;
/// use changestream_sim::{Deployment, Input, Output};
///
/// let now = Instant::now();
/// let mut deployment = Deployment::replica_set(3).server_version("4.4").build(now)?;
/// assert!(matches!(deployment.poll_output(now), Output::Listen { member: 0 }));
/// deployment.handle_input(now, Input::Timeout);
/// # Ok::<(), changestream_sim::BuildError>(())
/// ```
#[derive(Debug)]
pub struct Deployment {
    pub(crate) set_name: Option<String>,
    pub(crate) profile: Profile,
    pub(crate) users: Vec<Credentials>,
    pub(crate) random: Random,
    pub(crate) members: Vec<Member>,
    /// Pairs of members that do not reach each other, the lower index first.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    pub(crate) config: Config,
    /// The shards, if the members are mongos.
    pub(crate) cluster: Option<Box<Cluster>>,
    start: Instant,
    connections: BTreeMap<ConnectionId, Connection>,
    waiting: Waiting,
    outputs: VecDeque<Output>,
    records: VecDeque<CommandRecord>,
    pub(crate) buffers: Buffers,
    next_connection: u64,
    /// When all that could happen then had happened.
    settled: Option<Instant>,
    /// When something is due next, where that was asked since.
    due: Option<Option<Instant>>,
    /// How many requests have arrived.
    arrivals: u64,
}

/// Names a connection for its whole life. Whoever feeds the machine chooses the numbers, or takes them from
/// [`Deployment::new_connection`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What happens to the deployment.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A client has connected to this member. The id must be new.
    Accepted {
        /// The member's index.
        member: usize,
        /// The connection's name from now on.
        connection: ConnectionId,
    },
    /// A client has sent bytes, cut anywhere.
    Received {
        /// The connection.
        connection: ConnectionId,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A connection has ended.
    Disconnected {
        /// The connection.
        connection: ConnectionId,
    },
    /// Time has passed: the last [`Output::Deadline`], or any other moment.
    Timeout,
}

/// What the deployment wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The member takes connections from now on.
    Listen {
        /// The member's index.
        member: usize,
    },
    /// The member takes no connections any more.
    Close {
        /// The member's index.
        member: usize,
    },
    /// Send these bytes.
    Transmit {
        /// The connection.
        connection: ConnectionId,
        /// The bytes of one message.
        bytes: Bytes,
    },
    /// End the connection.
    Disconnect {
        /// The connection.
        connection: ConnectionId,
    },
    /// Nothing else is left: come back with [`Input::Timeout`] then, or when something happens.
    Deadline(Option<Instant>),
}

/// Why a deployment cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// The server version is not modelled.
    Version(String),
    /// No member, or too many.
    Members(usize),
    /// No shard, or too many.
    Shards(usize),
    /// One address a member is needed.
    Addresses {
        /// Members asked for.
        members: usize,
        /// Addresses given.
        addresses: usize,
    },
    /// The password of this user cannot be prepared (RFC 4013).
    Password(String),
    /// The feature of this compressor is off.
    Compressor(Compressor),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(v) => {
                write!(
                    f,
                    "server version {v:?} is not modelled; take 4.0, 4.2, 4.4, 5.0, 6.0, 6.1, 6.2, 6.3, 7.0, 8.0, 8.1 or 8.2"
                )
            }
            Self::Members(n) => write!(f, "a deployment of {n} members; take 1 to 50"),
            Self::Shards(n) => write!(f, "a cluster of {n} shards; take 1 to 50"),
            Self::Addresses { members, addresses } => {
                write!(
                    f,
                    "{addresses} addresses for {members} members; give one for each"
                )
            }
            Self::Password(user) => {
                write!(f, "the password of user {user:?} has forbidden characters")
            }
            Self::Compressor(compressor) => {
                let name = compressor.as_str();
                write!(
                    f,
                    "compressor {name} is not built in: turn the feature `{name}` on"
                )
            }
        }
    }
}

impl std::error::Error for BuildError {}

impl Deployment {
    /// A replica set of this many members, named `rs0`.
    pub fn replica_set(members: usize) -> Config {
        Config::new(Some("rs0"), members)
    }

    /// A single server that is in no replica set, hence without change streams.
    pub fn standalone() -> Config {
        Config::new(None, 1)
    }

    /// A sharded cluster: this many shards `sh0`, `sh1`, ..., each a replica set of one member unless
    /// [`shard_members`](Config::shard_members) says otherwise, and this many mongos, which are what clients connect
    /// to and what the controls call members.
    ///
    /// Collections are unsharded, on their database's primary shard, until `enableSharding` and `shardCollection` are
    /// run; `split` and `moveChunk` move data. Change streams are the shards' merged by cluster time. Transactions may span
    /// shards. Not modelled are the balancer, `addShard` and failures of config servers.
    ///
    /// ```
    /// # use changestream_sim::Deployment;
    /// let mut cluster = Deployment::sharded(2, 2).build(std::time::Instant::now())?;
    /// assert_eq!(cluster.uri(), "mongodb://127.0.0.1:27017,127.0.0.1:27018/");
    /// # Ok::<(), changestream_sim::BuildError>(())
    /// ```
    pub fn sharded(shards: usize, mongos: usize) -> Config {
        let mut config = Config::new(None, mongos);
        config.shards = Some(shards);
        config
    }

    fn assemble(
        config: Config,
        profile: Profile,
        addresses: Vec<String>,
        users: Vec<Credentials>,
        mut random: Random,
        shards: Vec<Self>,
        now: Instant,
    ) -> Self {
        let seconds = config.epoch_millis / 1000;
        let members: Vec<Member> = addresses
            .into_iter()
            .map(|address| Member::new(address, seconds, &mut random))
            .collect();
        let outputs = (0..members.len())
            .map(|member| Output::Listen { member })
            .collect();
        let mut deployment = Self {
            set_name: config.set_name.clone(),
            profile,
            users,
            random,
            members,
            cut: BTreeSet::new(),
            config,
            cluster: (!shards.is_empty()).then(|| Box::new(Cluster::new(shards))),
            start: now,
            connections: BTreeMap::new(),
            waiting: Waiting::default(),
            outputs,
            records: VecDeque::new(),
            buffers: Buffers::default(),
            next_connection: 1,
            settled: None,
            due: None,
            arrivals: 0,
        };
        deployment.initiate(now);
        deployment
    }

    /// A connection id that was not used yet.
    pub fn new_connection(&mut self) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        id
    }

    /// Takes what has happened.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Accepted { member, connection } => self.accept(member, connection),
            Input::Received { connection, bytes } => self.receive(connection, bytes),
            Input::Disconnected { connection } => {
                self.forget(connection);
            }
            Input::Timeout if self.is_settled(now) => return,
            Input::Timeout => {}
        }
        self.settle(now);
    }

    /// The next thing to do. After the last it is the deadline, again and again.
    pub fn poll_output(&mut self, now: Instant) -> Output {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        if !self.is_settled(now) {
            self.settle(now);
        }
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        let due = self.due.unwrap_or_else(|| self.deadline(now));
        self.due = Some(due);
        Output::Deadline(due)
    }

    /// Whether nothing can have happened by itself since everything that could had.
    fn is_settled(&self, now: Instant) -> bool {
        let nothing_is_due = |due: Option<Instant>| due.is_none_or(|due| now < due);
        // At the same moment something may be due still: what a request did while it was looked at again.
        self.settled.is_some_and(|at| match self.due {
            Some(due) => now >= at && nothing_is_due(due),
            None => now == at,
        })
    }

    /// The wall clock, in milliseconds since the Unix epoch.
    pub(crate) fn wall(&self, now: Instant) -> i64 {
        let elapsed = now.saturating_duration_since(self.start).as_millis();
        self.config
            .epoch_millis
            .saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }

    /// When the wall clock shows these milliseconds.
    pub(crate) fn instant_of(&self, wall: i64) -> Instant {
        let millis = wall.saturating_sub(self.config.epoch_millis);
        self.start + std::time::Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    pub(crate) fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    pub(crate) fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// Ends a connection from the server's side.
    pub(crate) fn disconnect(&mut self, connection: ConnectionId) {
        if self.forget(connection) {
            self.outputs.push_back(Output::Disconnect { connection });
        }
    }

    fn forget(&mut self, connection: ConnectionId) -> bool {
        self.waiting.forget(connection);
        self.connections.remove(&connection).is_some()
    }

    pub(crate) fn disconnect_all(&mut self, member: usize) {
        let of_member: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, c)| c.member == member)
            .map(|(id, _)| *id)
            .collect();
        for id in of_member {
            self.disconnect(id);
        }
    }

    pub(crate) fn forget_outputs(&mut self) {
        self.outputs.clear();
    }

    pub(crate) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn accept(&mut self, member: usize, id: ConnectionId) {
        self.next_connection = self.next_connection.max(id.0.saturating_add(1));
        let Some(m) = self.members.get_mut(member).filter(|m| m.role != Role::Down) else {
            self.outputs.push_back(Output::Disconnect { connection: id });
            return;
        };
        let number = m.next_connection_number();
        self.connections.insert(id, Connection::new(member, number));
    }

    fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        self.waiting.stir(id);
        if connection.receive(bytes, &mut self.arrivals) {
            return;
        }
        // What came whole before the broken bytes is still executed, as the server does.
        connection.finish_then_close();
    }

    /// Lets everything happen that can happen now. A request is begun when all that those before it set off is done:
    /// so what it sees does not depend on whether it came together with them.
    pub(crate) fn settle(&mut self, now: Instant) {
        loop {
            self.replicate(now);
            self.waiting.rouse(now, &self.members);
            let ids: Vec<ConnectionId> = self.waiting.stirred().collect();
            let mut moved = false;
            for id in ids {
                while self.resume(now, id) {
                    moved = true;
                }
            }
            if !moved && !self.begin(now) {
                self.settled = Some(now);
                self.due = None;
                return;
            }
        }
    }

    /// Goes on with a connection's request that waits; false if it still does, or if there is none.
    fn resume(&mut self, now: Instant, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        match std::mem::replace(&mut connection.activity, Activity::Idle) {
            Activity::Idle => {
                if connection.is_at_rest() {
                    self.waiting.rest(id);
                }
                false
            }
            Activity::Waiting(waiting) => {
                let (request, wait) = *waiting;
                let member = connection.member;
                let context = Context {
                    now,
                    member,
                    connection: id,
                    request: &request,
                };
                let outcome = commands::resume(self, &context, wait);
                self.finish(id, member, request, outcome, false)
            }
        }
    }

    /// Begins the request that arrived first; false if there is none.
    fn begin(&mut self, now: Instant) -> bool {
        let arrived = |id| Some((self.connections.get(&id)?.next_arrival()?, id));
        let Some((_, id)) = self.waiting.stirred().filter_map(arrived).min() else {
            return self.end_broken();
        };
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        let member = connection.member;
        let Some(request) = connection.next_request() else {
            return false;
        };
        let context = Context {
            now,
            member,
            connection: id,
            request: &request,
        };
        self.record(&context);
        let outcome = commands::execute(self, &context);
        self.finish(id, member, request, outcome, true)
    }

    /// Ends the connections that sent broken bytes, once all before them is answered; always false.
    fn end_broken(&mut self) -> bool {
        let is_finished = |id: &ConnectionId| self.connections.get(id).is_some_and(Connection::is_finished);
        for id in self.waiting.stirred().filter(is_finished).collect::<Vec<_>>() {
            self.disconnect(id);
        }
        false
    }

    fn finish(
        &mut self,
        id: ConnectionId,
        member: usize,
        mut request: Request,
        outcome: Outcome,
        fresh: bool,
    ) -> bool {
        match outcome {
            Outcome::Reply(reply, times) => {
                self.send(id, member, &request, reply, times, false);
                true
            }
            Outcome::ReplyAndGoOn(reply, times, wait) => {
                if let Some(sent) = self.send(id, member, &request, reply, times, true) {
                    request.id = sent;
                    self.wait(id, request, wait);
                }
                true
            }
            Outcome::Wait(wait) => {
                self.wait(id, request, wait);
                fresh
            }
            Outcome::Sleep { deadline, look } => {
                self.wait(id, request, Wait::GetMore { deadline });
                if let Some(m) = self.members.get(member) {
                    self.waiting.sleep(id, (member, m), look);
                }
                false
            }
            Outcome::Disconnect => {
                self.disconnect(id);
                true
            }
        }
    }

    fn wait(&mut self, id: ConnectionId, request: Request, wait: Wait) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.activity = Activity::Waiting(Box::new((request, wait)));
        }
    }

    fn send(
        &mut self,
        connection: ConnectionId,
        member: usize,
        request: &Request,
        reply: Reply,
        times: Option<Times>,
        more_to_come: bool,
    ) -> Option<i32> {
        if matches!(
            request.form,
            Form::Msg {
                more_to_come: true,
                ..
            }
        ) {
            return None;
        }
        let id = self.members.get_mut(member)?.next_request_id();
        let message = if self.cluster.is_some() {
            reply.merged_message(times)
        } else {
            reply.message(&self.profile, times)
        };
        let bytes = encode_reply(id, request, more_to_come, message);
        self.buffers.remember(&bytes);
        self.outputs.push_back(Output::Transmit { connection, bytes });
        Some(id)
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let stirred = self.waiting.stirred().filter_map(|id| self.connections.get(&id));
        let waits = stirred.filter_map(|c| match &c.activity {
            Activity::Waiting(waiting) => waiting.1.deadline(),
            Activity::Idle => None,
        });
        waits
            .chain(self.waiting.deadline())
            .chain(self.replication_deadlines(now))
            .min()
    }
}
