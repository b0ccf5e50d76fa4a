//! Wires between streams and members: they delay, cut, break and lose as they are told, and by a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use changestream_core::client::{ConnectionId, Disconnected, Input};
use changestream_core::random::Random;
use changestream_sim as sim;

use super::{StreamId, World};

/// A stream's connection.
pub(super) type Client = (usize, ConnectionId);

/// How the wires behave.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// The shortest time that bytes travel one way.
    pub delay: Duration,
    /// How much longer it may take, at random.
    pub jitter: Duration,
    /// The longest piece that arrives at once; pieces are cut at random below it. None keeps messages whole.
    pub longest_piece: Option<usize>,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            delay: Duration::from_micros(100),
            jitter: Duration::from_micros(50),
            longest_piece: None,
        }
    }
}

/// All wires.
#[derive(Debug)]
pub struct Network {
    /// How they behave from now on.
    pub conditions: Conditions,
    random: Random,
    wires: BTreeMap<Client, Wire>,
    listening: BTreeSet<usize>,
    /// Members that bytes do not reach, or do not leave: nobody is told.
    cut_off: BTreeSet<(usize, Way)>,
    /// Until when nothing arrives from or at a member.
    stalled: BTreeMap<usize, Instant>,
    /// Streams that nobody drives.
    asleep: BTreeSet<usize>,
    /// What is to be told of connections that were reset.
    broken: VecDeque<(Instant, Arrival)>,
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From streams to members.
    ToServer,
    /// From members to streams.
    ToClient,
}

#[derive(Debug)]
struct Wire {
    member: Option<usize>,
    /// The server's name for it, once it is accepted.
    accepted: Option<sim::ConnectionId>,
    to_server: VecDeque<(Instant, Parcel)>,
    to_client: VecDeque<(Instant, Parcel)>,
    /// The stream has closed its end.
    abandoned: bool,
    /// Something was lost on it: nothing later arrives on that way either.
    torn: BTreeSet<Way>,
    /// After how many further bytes on that way it breaks.
    breaks: Option<(Way, usize)>,
}

impl Wire {
    fn tear(&mut self, way: Way, lost: bool) -> bool {
        if lost {
            self.torn.insert(way);
        }
        self.torn.contains(&way)
    }

    /// What of a piece passes before the wire breaks, and whether it then does.
    fn pass(&mut self, way: Way, piece: &mut Bytes) -> bool {
        match &mut self.breaks {
            Some((breaks_on, left)) if *breaks_on == way => {
                piece.truncate(*left);
                *left -= piece.len();
                *left == 0
            }
            _ => false,
        }
    }

    fn arrive_at_server(
        &mut self,
        at: Instant,
        parcel: Parcel,
        lost: bool,
        name: &mut impl FnMut() -> sim::ConnectionId,
    ) -> Option<Arrival> {
        let member = self.member.filter(|_| !lost)?;
        if matches!(parcel, Parcel::Open) {
            let connection = name();
            self.accepted = Some(connection);
            self.to_client.push_back((at, Parcel::Open));
            return Some(Arrival::AtServer(connection, member, Parcel::Open));
        }
        Some(Arrival::AtServer(self.accepted?, member, parcel))
    }
}

#[derive(Debug)]
pub(super) enum Parcel {
    Open,
    Refused,
    Bytes(Bytes),
    Closed,
}

/// Something that has reached its end of a wire.
#[derive(Debug)]
pub(super) enum Arrival {
    AtServer(sim::ConnectionId, usize, Parcel),
    AtClient(Client, Parcel),
}

impl Arrival {
    /// Hands it to the machine that it is for.
    pub(super) fn deliver(self, world: &mut World) {
        match self {
            Self::AtServer(connection, member, parcel) => {
                let input = match &parcel {
                    Parcel::Open => sim::Input::Accepted { member, connection },
                    Parcel::Bytes(bytes) => sim::Input::Received { connection, bytes },
                    Parcel::Refused | Parcel::Closed => sim::Input::Disconnected { connection },
                };
                world.deployment.handle_input(world.now, input);
                if let (Parcel::Open, Some(subject)) = (&parcel, &world.identity.certificate) {
                    world.deployment.show_certificate(connection, subject);
                }
            }
            Self::AtClient((stream, connection), parcel) => {
                let id = StreamId(stream);
                match parcel {
                    Parcel::Open => world.input(id, Input::Connected { connection }),
                    Parcel::Bytes(bytes) => world.receive(id, connection, &bytes),
                    Parcel::Refused => world.input(id, disconnected(connection, "connection refused")),
                    Parcel::Closed => world.input(id, disconnected(connection, "connection reset by peer")),
                }
            }
        }
    }
}

fn disconnected(connection: ConnectionId, message: &str) -> Input {
    Input::Disconnected {
        connection,
        reason: Disconnected {
            message: message.to_owned(),
            timed_out: false,
        },
    }
}

impl Network {
    pub(super) fn new(random: Random) -> Self {
        Self {
            conditions: Conditions::default(),
            random,
            wires: BTreeMap::new(),
            listening: BTreeSet::new(),
            cut_off: BTreeSet::new(),
            stalled: BTreeMap::new(),
            asleep: BTreeSet::new(),
            broken: VecDeque::new(),
        }
    }

    /// Cuts a member off from all streams: what is under way is lost in silence, and so is what follows.
    pub fn cut_off(&mut self, member: usize) {
        self.cut_off_one_way(member, Way::ToServer);
        self.cut_off_one_way(member, Way::ToClient);
    }

    /// As [`cut_off`](Self::cut_off), in one direction only.
    pub fn cut_off_one_way(&mut self, member: usize, way: Way) {
        self.cut_off.insert((member, way));
    }

    /// Nothing arrives from or at that member until then; nothing is lost.
    pub fn stall(&mut self, member: usize, until: Instant) {
        self.stalled.insert(member, until);
        let wires = self.wires.values_mut().filter(|wire| wire.member == Some(member));
        for (at, _) in wires.flat_map(|wire| wire.to_server.iter_mut().chain(&mut wire.to_client)) {
            *at = until.max(*at);
        }
    }

    /// All connections of streams to that member break once this many further bytes have passed that way: wherever in a
    /// message that is.
    pub fn break_after(&mut self, member: usize, way: Way, bytes: usize) {
        for wire in self.wires.values_mut().filter(|wire| wire.member == Some(member)) {
            wire.breaks = Some((way, bytes.max(1)));
        }
    }

    /// The member's end of all connections is closed for writing: streams read the end of the file, and what they write
    /// still arrives.
    pub fn half_close(&mut self, now: Instant, member: usize) {
        let accepted: Vec<_> = self
            .wires
            .values()
            .filter(|wire| wire.member == Some(member))
            .filter_map(|wire| wire.accepted)
            .collect();
        for connection in accepted {
            self.server_closes(now, connection);
        }
    }

    pub(super) fn put_to_sleep(&mut self, stream: usize) {
        self.asleep.insert(stream);
    }

    pub(super) fn wake(&mut self, stream: usize) {
        self.asleep.remove(&stream);
    }

    pub(super) fn is_asleep(&self, stream: usize) -> bool {
        self.asleep.contains(&stream)
    }

    pub(super) fn abandon(&mut self, now: Instant, stream: usize) {
        let clients: Vec<_> = self
            .wires
            .keys()
            .copied()
            .filter(|client| client.0 == stream)
            .collect();
        for client in clients {
            self.client_closes(now, client);
        }
    }

    /// Undoes [`cut_off`](Self::cut_off). Connections from before are as dead as they would be.
    pub fn reconnect(&mut self, member: usize) {
        self.cut_off.retain(|(cut, _)| *cut != member);
    }

    /// Resets all connections of streams to that member: both ends learn of it at once.
    pub fn reset(&mut self, now: Instant, member: usize) {
        let broken: Vec<_> = self
            .wires
            .iter()
            .filter(|(_, wire)| wire.member == Some(member))
            .map(|(client, wire)| (*client, wire.accepted))
            .collect();
        for (client, accepted) in broken {
            self.wires.remove(&client);
            self.broken
                .push_back((now, Arrival::AtClient(client, Parcel::Closed)));
            if let Some(accepted) = accepted {
                self.broken
                    .push_back((now, Arrival::AtServer(accepted, member, Parcel::Closed)));
            }
        }
    }

    /// Connections that streams hold open or are opening.
    pub fn open_connections(&self) -> usize {
        self.wires.len()
    }

    pub(super) fn listen(&mut self, member: usize) {
        self.listening.insert(member);
    }

    pub(super) fn close(&mut self, member: usize) {
        self.listening.remove(&member);
    }

    pub(super) fn connect(&mut self, now: Instant, client: Client, member: Option<usize>) {
        let mut wire = Wire {
            member,
            accepted: None,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            abandoned: false,
            torn: BTreeSet::new(),
            breaks: None,
        };
        let at = self.arrival(now, member, None);
        match member.filter(|member| self.listening.contains(member)) {
            Some(_) => wire.to_server.push_back((at, Parcel::Open)),
            None => wire.to_client.push_back((at, Parcel::Refused)),
        }
        self.wires.insert(client, wire);
    }

    pub(super) fn send_to_server(&mut self, now: Instant, client: Client, bytes: Bytes) {
        for mut piece in self.cut(bytes) {
            let Some(wire) = self.wires.get(&client) else {
                return;
            };
            let (member, last) = (wire.member, wire.to_server.back().map(|(at, _)| *at));
            let at = self.arrival(now, member, last);
            let Some(wire) = self.wires.get_mut(&client) else {
                return;
            };
            let breaks = wire.pass(Way::ToServer, &mut piece);
            wire.to_server.push_back((at, Parcel::Bytes(piece)));
            if breaks {
                return self.break_wire(at, client);
            }
        }
    }

    pub(super) fn send_to_client(&mut self, now: Instant, connection: sim::ConnectionId, bytes: Bytes) {
        let Some(client) = self.client_of(connection) else {
            return;
        };
        for mut piece in self.cut(bytes) {
            let Some(wire) = self.wires.get(&client).filter(|wire| !wire.abandoned) else {
                return;
            };
            let (member, last) = (wire.member, wire.to_client.back().map(|(at, _)| *at));
            let at = self.arrival(now, member, last);
            let Some(wire) = self.wires.get_mut(&client) else {
                return;
            };
            let breaks = wire.pass(Way::ToClient, &mut piece);
            wire.to_client.push_back((at, Parcel::Bytes(piece)));
            if breaks {
                return self.break_wire(at, client);
            }
        }
    }

    /// Both ends learn of it, behind what is under way to them.
    fn break_wire(&mut self, at: Instant, client: Client) {
        if let Some(wire) = self.wires.get_mut(&client) {
            for queue in [&mut wire.to_server, &mut wire.to_client] {
                let at = queue.back().map_or(at, |(last, _)| at.max(*last));
                queue.push_back((at, Parcel::Closed));
            }
        }
    }

    pub(super) fn client_closes(&mut self, now: Instant, client: Client) {
        let Some(wire) = self.wires.get(&client) else {
            return;
        };
        let (member, last) = (wire.member, wire.to_server.back().map(|(at, _)| *at));
        let at = self.arrival(now, member, last);
        if let Some(wire) = self.wires.get_mut(&client) {
            wire.abandoned = true;
            wire.to_client.clear();
            wire.to_server.push_back((at, Parcel::Closed));
        }
    }

    pub(super) fn server_closes(&mut self, now: Instant, connection: sim::ConnectionId) {
        let Some(client) = self.client_of(connection) else {
            return;
        };
        let Some(wire) = self.wires.get(&client) else {
            return;
        };
        let (member, last) = (wire.member, wire.to_client.back().map(|(at, _)| *at));
        let at = self.arrival(now, member, last);
        if let Some(wire) = self.wires.get_mut(&client).filter(|wire| !wire.abandoned) {
            wire.to_client.push_back((at, Parcel::Closed));
        }
    }

    pub(super) fn next_arrival(&self) -> Option<Instant> {
        let on_wires = self
            .wires
            .iter()
            .flat_map(|(client, wire)| {
                let to_client = wire.to_client.front().filter(|_| !self.is_asleep(client.0));
                [wire.to_server.front(), to_client]
            })
            .flatten()
            .map(|(at, _)| *at);
        on_wires.chain(self.broken.iter().map(|(at, _)| *at)).min()
    }

    /// The next thing that has arrived by now. `name` gives a connection that a member accepts its name. What belongs
    /// to a member that is cut off is lost on the way.
    pub(super) fn poll_arrival(
        &mut self,
        now: Instant,
        mut name: impl FnMut() -> sim::ConnectionId,
    ) -> Option<Arrival> {
        if let Some((_, arrival)) = self.broken.pop_front() {
            return Some(arrival);
        }
        loop {
            let due = |queue: &VecDeque<(Instant, Parcel)>| queue.front().is_some_and(|(at, _)| *at <= now);
            let asleep = &self.asleep;
            let client = self
                .wires
                .iter()
                .find(|(client, wire)| {
                    due(&wire.to_server) || (due(&wire.to_client) && !asleep.contains(&client.0))
                })
                .map(|(client, _)| *client)?;
            let wire = self.wires.get_mut(&client)?;
            let member = wire.member;
            let cut = |way| member.is_some_and(|member| self.cut_off.contains(&(member, way)));
            let arrival = if due(&wire.to_server) {
                let (at, parcel) = wire.to_server.pop_front()?;
                let lost = wire.tear(Way::ToServer, cut(Way::ToServer));
                wire.arrive_at_server(at, parcel, lost, &mut name)
            } else {
                let (_, parcel) = wire.to_client.pop_front()?;
                let lost = wire.tear(Way::ToClient, cut(Way::ToClient));
                (!lost).then_some(Arrival::AtClient(client, parcel))
            };
            // An end that has learned of the end does not keep the other from learning it.
            let over = match &arrival {
                Some(Arrival::AtServer(_, _, Parcel::Closed)) => {
                    wire.accepted = None;
                    wire.to_client.is_empty() || wire.abandoned
                }
                Some(Arrival::AtClient(_, Parcel::Closed)) => {
                    wire.abandoned = true;
                    wire.to_client.clear();
                    let told = wire.accepted.is_none();
                    told || wire.breaks.is_none_or(|(_, left)| left != 0)
                }
                Some(Arrival::AtServer(_, _, parcel) | Arrival::AtClient(_, parcel)) => {
                    matches!(parcel, Parcel::Refused)
                }
                None => wire.abandoned && wire.to_server.is_empty(),
            };
            if over {
                self.wires.remove(&client);
            }
            if arrival.is_some() {
                return arrival;
            }
        }
    }

    fn client_of(&self, connection: sim::ConnectionId) -> Option<Client> {
        self.wires
            .iter()
            .find(|(_, wire)| wire.accepted == Some(connection))
            .map(|(client, _)| *client)
    }

    /// When something that leaves now arrives: never before what left earlier on the same wire.
    fn arrival(&mut self, now: Instant, member: Option<usize>, last: Option<Instant>) -> Instant {
        // Most pieces of a message travel together, and are pieces all the same.
        if let Some(last) = last.filter(|last| *last > now && self.random.below(4) != 0) {
            return last;
        }
        let jitter = self.conditions.jitter.mul_f64(self.random.fraction());
        let stalled = member.and_then(|member| self.stalled.get(&member));
        let at = (now + self.conditions.delay + jitter).max(stalled.copied().unwrap_or(now));
        last.map_or(at, |last| at.max(last))
    }

    fn cut(&mut self, mut bytes: Bytes) -> Vec<Bytes> {
        let Some(longest) = self.conditions.longest_piece else {
            return vec![bytes];
        };
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let len = match pieces.len() {
                // What is longer is cut at its start only: more would take long and show nothing more.
                0..MOST_PIECES => (1 + self.random.below(longest)).min(bytes.len()),
                _ => bytes.len(),
            };
            pieces.push(bytes.split_to(len));
        }
        pieces
    }
}

const MOST_PIECES: usize = 60;
