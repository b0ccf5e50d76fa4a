//! Whole deployments and several consumers through a storm of faults, decided by one seed.
//!
//! Servers of every version, behind a load balancer or not; consumers that wait, try, pause, drop what they wait for, limit
//! their calls in time, and go on from each other's tokens. Writers of every kind change the deployment while members crash, step down, lag and roll back, connections break in
//! the middle of a message, cursors vanish, clocks jump and commands fail. After every step of the world:
//!
//! - what each consumer was given is the log that a majority has, under its scope and filter, in order, without gap or
//!   repeat (`model`, `place` and `comparing`, which know of no client); where an event cannot be made (an image that is
//!   required is gone, it is too large), the stream ends with the error of that name, there and nowhere else;
//! - its token is the one that the specification prescribes, commands are those that it prescribes, a stream ends only
//!   where it may, and no more is fetched ahead than was allowed (`shadow`, which shares no code with a stream);
//! - a machine that owes something names a deadline, a timeout at its deadline moves it on, and nothing follows its end
//!   (the world itself looks after that).
//!
//! Then everything heals, and each consumer has to get to the end of the log.

mod chance;
mod comparing;
mod consumer;
mod consuming;
mod faults;
mod model;
mod place;
mod report;
mod servers;
mod shadow;
mod tokens;
mod writers;

use std::time::Duration;

use bson::doc;
use changestream_core::wire::Compressor;

use crate::world::World;
use chance::Chance;
use consumer::{Consumer, Start, State};
use faults::Wrongs;
use model::Log;
pub use report::{OFTEN_MET, Report, SELDOM_MET, grouped};
use servers::Servers;
use shadow::Shadow;
use tokens::Tokens;
use writers::Writers;

/// Runs the world of that seed: at least thirty faults.
///
/// # Panics
/// An invariant does not hold: the message says which.
pub fn run(seed: u64) -> Report {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Simulation::new(Chance::of_seed(bytes), bytes).run()
}

/// Runs a world whose faults, writes and consumers these bytes decide, one after the other; it ends when they do.
///
/// # Panics
/// As [`run`].
pub fn play(script: &[u8]) -> Report {
    Simulation::new(Chance::of_script(script), [0; 32]).run()
}

struct Simulation {
    world: World,
    chance: Chance,
    servers: Servers,
    log: Log,
    writers: Writers,
    consumers: Vec<Consumer>,
    wrongs: Wrongs,
    tokens: Tokens,
    /// How many streams there have been.
    watched: usize,
    report: Report,
}

impl Simulation {
    fn new(mut chance: Chance, seed: [u8; 32]) -> Self {
        let (servers, config) = Servers::any(&mut chance);
        let mut world = World::new(config, seed);
        world.listen();
        let mut report = Report::default();
        if servers.balanced {
            report.meet(report::BALANCERS);
        }
        Self {
            log: Log::new(world.deployment.shard_count().max(1)),
            world,
            chance,
            servers,
            writers: Writers::default(),
            consumers: Vec::new(),
            wrongs: Wrongs::default(),
            tokens: Tokens::default(),
            watched: 0,
            report,
        }
    }

    fn run(mut self) -> Report {
        self.prepare();
        for _ in 0..1 + self.chance.below(5) {
            self.join();
        }
        self.pass(Duration::from_secs(1));
        let enough = 30 + self.chance.below(10) as u64;
        while !self.chance.is_spent() && self.report.fault_count() < enough {
            self.turn();
        }
        self.heal();
        self.finish()
    }

    fn prepare(&mut self) {
        if self.servers.sharded {
            let key = doc! { "_id": "hashed" };
            self.world.command("admin", doc! { "enableSharding": "shop" });
            self.world
                .command("admin", doc! { "shardCollection": "shop.seen", "key": key });
        }
        for (db, coll) in [("shop", "seen"), ("shop", "other"), ("store", "seen")] {
            writers::create(&mut self.world, db, coll, self.servers.profile.images);
            self.write();
        }
    }

    /// One more consumer.
    fn join(&mut self) {
        let view = consumer::view(&mut self.chance, &self.servers);
        let options = consumer::options(&mut self.chance, &view);
        let compressor = Compressor::ALL.get(self.chance.below(6)).copied();
        let tries = self.chance.below(5) == 4;
        let fickle = (self.chance.below(4) == 1).then(|| 1 + self.chance.below(6) as u32);
        let mut consumer = Consumer {
            id: self.watch(&view, compressor, options.clone()),
            shadow: Shadow::new(&options, &self.servers),
            view,
            options,
            compressor,
            place: None,
            state: State::Reading,
            tries,
            fickle,
            looked_at: 0,
            careful: false,
            foreign: false,
            last_kind: None,
            closing: false,
            delivered: 0,
        };
        // Some start in the past; in a sharded cluster all say where, for a mongos does not tell where it begins.
        let past = self.chance.below(3) == 1;
        if past || self.servers.sharded {
            let start = self.start_in_the_log(past);
            self.begin(&mut consumer, start);
        }
        self.consumers.push(consumer);
    }

    fn start_in_the_log(&mut self, past: bool) -> Start {
        self.log.refresh(&self.world.deployment);
        let entries = self.log.first_shard_len();
        let time = (past && entries > 0)
            .then(|| self.chance.below(entries))
            .and_then(|number| self.log.time_of(number));
        Start::At(time.unwrap_or_else(|| model::after(self.log.up_to())))
    }

    fn turn(&mut self) {
        match self.chance.below(10) {
            0..=2 => self.write(),
            3..=5 => {
                if let Some(kind) = self.break_something() {
                    *self.report.faults.entry(kind).or_default() += 1;
                }
            }
            6 => self.change_mind(),
            7 => self.pump(),
            _ => {
                let time = self.chance.millis(4_000);
                self.pass(time);
            }
        }
    }

    fn write(&mut self) {
        self.writers
            .write(&mut self.world, &mut self.chance, &self.servers);
    }

    /// Lets this much time pass, and looks after every step whether all is well.
    fn pass(&mut self, time: Duration) {
        let end = self.world.now + time;
        self.pump();
        while self.world.step_before(end) {
            self.pump();
        }
        self.pump();
    }

    /// Everything is well again: each consumer has to get to the end of the log.
    fn finish(mut self) -> Report {
        // Long enough for the last election.
        self.pass(Duration::from_secs(15));
        for index in 0..self.consumers.len() {
            self.wake(index);
        }
        for (db, coll) in [("shop", "seen"), ("shop", "other"), ("store", "seen")] {
            self.writers.newest += 2 - self.writers.newest % 2;
            let last = doc! { "_id": self.writers.newest, "even": true };
            self.world
                .command(db, doc! { "insert": coll, "documents": [last] });
        }
        let end = self.world.now + Duration::from_secs(1_800);
        while !self.is_done() {
            assert!(
                self.world.now < end,
                "somebody does not get to the end of the log:{}",
                self.behind()
            );
            self.pass(Duration::from_millis(200));
        }
        self.report.operations = std::mem::take(&mut self.writers.operations);
        self.report.changes = self.log.len();
        let kept = self.log.inserts();
        self.report.rolled_back = self.writers.acknowledged.saturating_sub(kept);
        self.report.delivered = self.consumers.iter().map(|consumer| consumer.delivered).sum();
        self.report.resumes += self
            .consumers
            .iter()
            .map(|consumer| consumer.shadow.resumes)
            .sum::<u64>();
        self.report.fingerprint = self.world.fingerprint();
        self.report
    }

    fn is_done(&mut self) -> bool {
        self.log.refresh(&self.world.deployment);
        self.consumers
            .iter()
            .all(|consumer| self.has_everything(consumer))
    }

    fn has_everything(&self, consumer: &Consumer) -> bool {
        let place = consumer.place.as_ref();
        consumer.state == State::Refused
            || place.is_some_and(|place| place.is_at_the_end(&self.log, &consumer.view))
    }

    /// Who has not everything, and what it does instead.
    fn behind(&self) -> String {
        let mut text = String::new();
        for (index, consumer) in self.consumers.iter().enumerate() {
            if self.has_everything(consumer) {
                continue;
            }
            let Consumer {
                id,
                place,
                state,
                view,
                ..
            } = consumer;
            let (demand, machine) = (self.world.demand_of(*id), self.world.machine(*id));
            text.push_str(&format!(
                "\nconsumer {index} is {state:?} and demands {demand:?} at {place:?}, watching {view:?}: {machine:?}"
            ));
        }
        text
    }
}
