//! Random failures: a stream that resumes by its token tells exactly what the majority kept, in order.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::time::Duration;

use bson::{Document, doc};
use changestream_core::random::Random;
use changestream_sim::{ConnectionId, Deployment};
use world::{World, batch, ids, token};

#[test]
fn through_any_failures_the_stream_tells_what_the_majority_kept() {
    for seed in 0..60 {
        run(seed);
    }
}

#[test]
fn a_primary_that_was_alone_stands_back_when_it_hears_of_a_later_term() {
    let mut w = World::new(Deployment::replica_set(3));
    w.control(|d, now| d.partition(now, &[0]));
    // Before it finds out that it is alone.
    let later = 1;
    w.control(|d, now| {
        d.elect(now, later);
    });
    let c = w.connect(later);
    w.run(c, doc! { "insert": "c", "documents": [{ "_id": 1 }] });

    // Of the later term nobody is left but one who has heard of it, and has what its majority kept.
    w.control(|d, now| d.crash(now, later));
    w.control(|d, now| d.heal(now));
    w.advance(Duration::from_secs(30));

    let primary = w.deployment.primary().unwrap();
    let c = w.connect(primary);
    let found = w.ok(c, doc! { "find": "c" });
    assert_eq!(batch(&found), [doc! { "_id": 1 }]);
}

fn run(seed: u8) {
    let mut random = Random::new([seed; 32]);
    let mut w = World::new(Deployment::replica_set(3).seed([seed; 32]));
    let mut stream = Follower {
        token: None,
        open: None,
        told: Vec::new(),
    };
    let first = w.connect(0);
    w.insert(first, -1);
    stream.follow(&mut w, 0);
    for id in 0..60 {
        disturb(&mut w, &mut random);
        if let Some(primary) = w.deployment.primary() {
            let c = w.connect(primary);
            w.run(c, doc! { "insert": "c", "documents": [{ "_id": id }] });
        }
        stream.follow(&mut w, random.below(3));
    }
    for member in 0..3 {
        w.control(|d, now| d.restart(now, member));
        w.control(|d, now| d.lag(now, member, Duration::ZERO));
    }
    w.control(|d, now| d.heal(now));
    w.advance(Duration::from_secs(120));
    let primary = w.deployment.primary().unwrap();
    stream.open = None;
    stream.follow(&mut w, primary);
    stream.follow(&mut w, primary);
    let c = w.connect(primary);
    let found = w.ok(c, doc! { "find": "c", "batchSize": 1000 });
    let kept: Vec<i32> = batch(&found).iter().map(|d| d.get_i32("_id").unwrap()).collect();
    assert_eq!(kept.split_first().unwrap().1, stream.told, "seed {seed}");
    assert!(stream.told.len() > 5, "seed {seed} told little");
}

fn disturb(w: &mut World, random: &mut Random) {
    let member = random.below(3);
    match random.below(12) {
        0 => w.control(|d, now| d.step_down(now)),
        1 => w.control(|d, now| d.crash(now, member)),
        2 | 3 => w.control(|d, now| d.restart(now, member)),
        4 => w.control(|d, now| d.partition(now, &[member])),
        5 | 6 => w.control(|d, now| d.heal(now)),
        7 => {
            w.control(|d, now| d.elect(now, member));
        }
        8 => {
            let lag = Duration::from_millis(u64::try_from(random.below(3000)).unwrap());
            w.control(|d, now| d.lag(now, member, lag));
        }
        _ => {}
    }
    let millis = u64::try_from(random.below(8000)).unwrap();
    w.advance(Duration::from_millis(millis));
}

/// A stream as a client keeps it: a cursor while there is one, else the token.
struct Follower {
    token: Option<Document>,
    open: Option<(ConnectionId, i64)>,
    told: Vec<i32>,
}

impl Follower {
    fn follow(&mut self, w: &mut World, member: usize) {
        if self.open.is_some_and(|(c, _)| w.ended.contains(&c)) {
            self.open = None;
        }
        let (connection, command) = match self.open {
            Some((c, cursor)) => (c, doc! { "getMore": cursor, "collection": "c", "maxTimeMS": 1 }),
            None => {
                let options = match &self.token {
                    Some(token) => doc! { "resumeAfter": token.clone() },
                    None => doc! {},
                };
                let pipeline = vec![doc! { "$changeStream": options }];
                let anywhere = doc! { "mode": "nearest" };
                let open = doc! { "aggregate": "c", "pipeline": pipeline, "cursor": {}, "$readPreference": anywhere };
                (w.connect(member), open)
            }
        };
        if w.ended.contains(&connection) {
            return;
        }
        w.send(connection, command);
        w.advance(Duration::from_millis(2));
        let Some(reply) = w.reply(connection) else { return };
        if reply.get_f64("ok").unwrap() != 1.0 {
            assert_eq!(reply.get_i32("code").unwrap(), 43, "{reply}");
            self.open = None;
            return;
        }
        self.told.extend(ids(&reply));
        self.token = Some(token(&reply));
        let cursor = reply.get_document("cursor").unwrap().get_i64("id").unwrap();
        self.open = Some((connection, cursor));
    }
}
