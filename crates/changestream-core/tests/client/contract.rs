//! What holds of the machine whatever happens.

use bson::{Document, doc};
use changestream_core::client::{ConnectionId, Demand, Disconnected, Input};
use changestream_core::random::Random;
use changestream_core::{ResumePolicy, Update, WatchOptions};

use super::network::{
    Network, RESUMABLE, Request, epoch, failure, first_batch, next_batch, ok, primary, secondary,
    without_prefetch,
};

const SET: &str = "mongodb://a:1,b:1/?replicaSet=rs";

/// A conversation with most things in it.
fn converse(mut network: Network) -> Network {
    network.answer_hello("b:1", &secondary("b:1"));
    network.answer_hello("a:1", &primary("a:1", 1));
    network.open_at("a:1");
    network.demand(Demand::Next);
    let get_more = network.expect("a:1", "getMore");
    network.answer(&get_more, &next_batch(7, &["e1", "e2"]));
    network.demand(Demand::Next);
    network.demand(Demand::Next);
    network.pass(700);
    let get_more = network.expect("a:1", "getMore");
    network.answer(&get_more, &failure(10107, RESUMABLE));
    let kill = network.expect("a:1", "killCursors");
    network.answer(&kill, &ok());
    network.answer_hello("a:1", &secondary("a:1"));
    network.answer_hello("b:1", &primary("b:1", 2));
    let aggregate = network.expect("b:1", "aggregate");
    network.answer(&aggregate, &first_batch(8));
    network.close(1000);
    for name in ["killCursors", "endSessions"] {
        let request = network.expect("b:1", name);
        network.answer(&request, &ok());
    }
    assert!(matches!(network.closed, Some(Ok(()))));
    network
}

#[test]
fn the_same_seed_and_inputs_give_the_same_outputs_to_the_byte() {
    let now = epoch();
    let network = || Network::at(now, SET, None, without_prefetch());
    assert_eq!(converse(network()).transcript, converse(network()).transcript);
}

#[test]
fn where_received_bytes_are_cut_changes_nothing() {
    let now = epoch();
    let whole = converse(Network::at(now, SET, None, without_prefetch()));
    for piece in [1, 2, 3, 15, 16, 17, 100] {
        let mut network = Network::at(now, SET, None, without_prefetch());
        network.piece = piece;
        assert_eq!(converse(network).transcript, whole.transcript, "{piece}");
    }
}

#[test]
fn after_the_end_there_is_only_the_end() {
    let mut network = converse(Network::new(SET));
    let outputs = network.transcript.len();
    for input in strange_inputs(&some_connections()) {
        network.input(input);
    }
    for line in &network.transcript[outputs..] {
        assert_eq!(line, "Closed(Ok(()))");
    }
    assert!(network.machine.read_buffer(some_connections()[0]).is_none());
}

#[test]
fn inputs_that_make_no_sense_are_ignored_at_any_time() {
    let strange = some_connections();
    let unknown = &strange[strange.len() - 1..];
    let mut network = Network::new(SET);
    let odd = |network: &mut Network| {
        let outputs = network.transcript.len();
        for input in strange_inputs(unknown) {
            if !matches!(input, Input::Close { .. } | Input::Demand(_)) {
                network.input(input);
            }
        }
        let connection = network.link("a:1");
        network.input(Input::Received { connection, len: 0 });
        if network.links[&connection].open {
            network.input(Input::Connected { connection });
        }
        assert_eq!(
            network.transcript.len(),
            outputs,
            "{:?}",
            &network.transcript[outputs..]
        );
    };
    odd(&mut network);
    network.connect("a:1");
    odd(&mut network);
    network.answer_hello("a:1", &primary("a:1", 1));
    odd(&mut network);
    network.open_at("a:1");
    odd(&mut network);
    network.demand(Demand::Next);
    odd(&mut network);
    let get_more = network.expect("a:1", "getMore");
    network.answer(&get_more, &next_batch(7, &["e1"]));
    assert!(matches!(network.updates[..], [Update::Change(_)]));
}

/// Names of connections, the last of which no short conversation uses.
fn some_connections() -> Vec<ConnectionId> {
    let mut network = Network::new("mongodb://a:1/?directConnection=true&serverSelectionTimeoutMS=300000");
    let mut names = Vec::new();
    while network.closed.is_none() {
        if network.links.is_empty() {
            network.wake();
        } else {
            names.push(network.link("a:1"));
            network.disconnect("a:1");
        }
    }
    names
}

fn strange_inputs(connections: &[ConnectionId]) -> Vec<Input> {
    let mut inputs = Vec::new();
    for &connection in connections {
        inputs.push(Input::Connected { connection });
        inputs.push(Input::Received { connection, len: 100 });
        inputs.push(Input::Disconnected {
            connection,
            reason: Disconnected {
                message: String::new(),
                timed_out: false,
            },
        });
    }
    inputs.push(Input::Timeout);
    inputs.push(Input::Demand(Demand::Next));
    inputs.push(Input::Demand(Demand::TryNext));
    inputs.push(Input::Close { deadline: epoch() });
    inputs
}

#[test]
fn whatever_servers_and_consumers_do_no_event_is_lost_or_repeated() {
    let mut delivered = 0;
    for seed in 0..300 {
        let mut chaos = Chaos::new(seed);
        for _ in 0..400 {
            chaos.step();
            if chaos.network.closed.is_some() {
                break;
            }
        }
        chaos.end();
        delivered += chaos.next - 1;
    }
    assert!(
        delivered > 2000,
        "{delivered}: the servers are too unkind to test anything"
    );
}

/// Two members with one log of numbered events, and a whim.
struct Chaos {
    network: Network,
    random: Random,
    /// The number of the event that has to come next.
    next: usize,
    /// How far each cursor has read. A cursor's id is its index, and 1.
    cursors: Vec<usize>,
    primary: usize,
    election: u8,
}

const MEMBERS: [&str; 2] = ["a:1", "b:1"];

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut random = Random::new(bytes);
        let mut options = WatchOptions::default();
        options.prefetch_batches = random.below(3);
        options.resume_policy = ResumePolicy::Forever;
        options.start_after = Some(token(0).try_into().unwrap());
        let modes = [
            "primary",
            "primaryPreferred",
            "secondaryPreferred",
            "secondary",
            "nearest",
        ];
        let mode = modes[random.below(modes.len())];
        let times = ["0", "100", "30000"];
        let (connect, select) = (times[random.below(3)], times[random.below(3)]);
        let uri = format!(
            "{SET}&readPreference={mode}&connectTimeoutMS={connect}&serverSelectionTimeoutMS={select}"
        );
        let mut network = Network::with(&uri, None, options);
        network.piece = 1 + random.below(4000);
        Self {
            network,
            random,
            next: 1,
            cursors: Vec::new(),
            primary: 0,
            election: 1,
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..8 => self.serve(),
            8..10 => self.accept(),
            10..14 => {
                let demands = [Demand::Next, Demand::Next, Demand::TryNext, Demand::None];
                let demand = demands[self.random.below(4)];
                self.network.demand(demand);
            }
            14 => self.network.pass(1 + self.random.below(700) as u64),
            15 => self.network.pass(self.random.below(20_000) as u64),
            16 => self.network.sleep(self.random.below(100_000) as u64),
            17 if self.random.below(3) == 0 => self.break_one(),
            18 if self.random.below(3) == 0 => {
                self.primary = 1 - self.primary;
                self.election = self.election.saturating_add(1);
            }
            _ => self.serve(),
        }
        self.take_updates();
    }

    fn accept(&mut self) {
        let opening = self.network.links.iter().find(|(_, link)| !link.open);
        if let Some((&connection, _)) = opening {
            self.network.links.get_mut(&connection).unwrap().open = true;
            self.network.input(Input::Connected { connection });
        }
    }

    fn break_one(&mut self) {
        let links: Vec<_> = self.network.links.keys().copied().collect();
        if links.is_empty() {
            return;
        }
        let connection = links[self.random.below(links.len())];
        let reason = Disconnected {
            message: "broken".to_owned(),
            timed_out: self.random.below(2) == 0,
        };
        self.network.input(Input::Disconnected { connection, reason });
    }

    fn serve(&mut self) {
        let Some(request) = self.network.take_request() else {
            return;
        };
        let reply = self.reply(&request);
        self.network.answer(&request, &reply);
    }

    fn reply(&mut self, request: &Request) -> Document {
        let member = usize::from(request.address == "b:1");
        match request.name() {
            "hello" | "isMaster" if member == self.primary => primary(MEMBERS[member], self.election),
            "hello" | "isMaster" => secondary(MEMBERS[member]),
            "aggregate" if self.random.below(12) == 0 => failure(189, &[]),
            "aggregate" => self.aggregate(&request.command),
            "getMore" if self.random.below(6) == 0 => self.refuse(),
            "getMore" => self.get_more(&request.command),
            _ => ok(),
        }
    }

    fn refuse(&mut self) -> Document {
        match self.random.below(5) {
            0 => failure(43, &[]),
            1 => failure(91, RESUMABLE),
            2 => failure(10107, RESUMABLE),
            3 => failure(6, RESUMABLE),
            _ => failure(
                462,
                &[
                    "RetryableError",
                    "SystemOverloadedError",
                    "ResumableChangeStreamError",
                ],
            ),
        }
    }

    fn aggregate(&mut self, command: &Document) -> Document {
        let stages = command.get_array("pipeline").unwrap();
        let stage = stages[0]
            .as_document()
            .unwrap()
            .get_document("$changeStream")
            .unwrap();
        let field = if self.next == 1 {
            "startAfter"
        } else {
            "resumeAfter"
        };
        let start = stage
            .get_document(field)
            .unwrap_or_else(|_| panic!("no {field} in {stage}"));
        let position = start.get_str("_data").unwrap().parse().unwrap();
        assert_eq!(position, self.next - 1, "resumes from what was delivered");
        self.cursors.push(position);
        self.batch("firstBatch", self.cursors.len() - 1)
    }

    fn get_more(&mut self, command: &Document) -> Document {
        let id = command.get_i64("getMore").unwrap();
        self.batch("nextBatch", usize::try_from(id).unwrap() - 1)
    }

    fn batch(&mut self, name: &str, cursor: usize) -> Document {
        let from = self.cursors[cursor];
        self.cursors[cursor] += self.random.below(4);
        let to = self.cursors[cursor];
        let events: Vec<_> = (from + 1..=to)
            .map(|event| doc! { "_id": token(event) })
            .collect();
        doc! {
            "cursor": {
                name: events, "id": (cursor + 1) as i64, "ns": "shop.orders", "postBatchResumeToken": token(to),
            },
            "ok": 1.0,
        }
    }

    fn take_updates(&mut self) {
        for update in std::mem::take(&mut self.network.updates) {
            if let Update::Change(event) = update {
                let expected = token(self.next).try_into().unwrap();
                assert_eq!(*event.resume_token(), expected, "an event is lost or repeated");
                assert_eq!(self.network.machine.resume_token(), Some(&expected));
                self.next += 1;
            }
        }
    }

    /// However it stands, it ends when it is told to.
    fn end(&mut self) {
        self.network.close(3000);
        for _ in 0..20 {
            if self.random.below(3) > 0 {
                self.accept();
                self.serve();
            }
        }
        self.network.pass(3000);
        let ended = self.network.closed.as_ref();
        assert!(ended.is_some(), "{:?}", self.network.deadline);
    }
}

fn token(event: usize) -> Document {
    doc! { "_data": event.to_string() }
}
