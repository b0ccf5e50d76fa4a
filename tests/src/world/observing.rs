//! What tests ask of a world, and the faults that they order.

use std::time::Duration;

use bson::{Bson, Document, doc};
use changestream_core::client::Idle;
use changestream_core::{ChangeEvent, ResumeToken, Scope, Update, WatchOptions};
use changestream_sim::{CommandRecord, Deployment};

use super::rewriting::Rewriting;
use super::{StreamId, Tried, World};

/// The scope of one collection.
pub fn collection(database: &str, collection: &str) -> Scope {
    Scope::Collection {
        database: database.to_owned(),
        collection: collection.to_owned(),
    }
}

/// The scope of one database.
pub fn database(database: &str) -> Scope {
    Scope::Database {
        database: database.to_owned(),
    }
}

/// Options under which no getMore leaves before the consumer waits for it: for tests that count commands.
pub fn exact() -> WatchOptions {
    let mut options = WatchOptions::default();
    options.prefetch_batches = 0;
    options
}

/// [`exact`] and the default, which fetches ahead: for tests of what must not depend on it.
pub fn both() -> [WatchOptions; 2] {
    [exact(), WatchOptions::default()]
}

/// A token as a document.
pub fn document(token: &ResumeToken) -> Document {
    token
        .as_document()
        .expect("servers' tokens are documents")
        .try_into()
        .expect("BSON")
}

/// The `_id` of the document that an event is about.
#[track_caller]
pub fn key_of(event: &ChangeEvent) -> i32 {
    let key = event.document_key().expect("the event is about a document");
    key.get_i32("_id").expect("the test's ids are numbers")
}

impl World {
    /// A replica set, and an open stream of its collection shop.orders.
    pub fn watching_orders(options: WatchOptions) -> (Self, StreamId) {
        let mut world = Self::replica_set();
        let stream = world.watching(&collection("shop", "orders"), options);
        (world, stream)
    }

    /// A replica set of that version, a stream of shop.orders that has handed event 0 over, and events 1 and 2 that
    /// wait.
    #[track_caller]
    pub fn under_way(version: &str, options: WatchOptions) -> (Self, StreamId) {
        let mut world = Self::new(Deployment::replica_set(3).server_version(version), [3; 32]);
        let stream = world.watching(&collection("shop", "orders"), options);
        world.insert_orders(0..1);
        assert_eq!(world.keys(stream, 1), [0]);
        world.advance(Duration::from_secs(3));
        world.insert_orders(1..3);
        (world, stream)
    }

    /// Inserts documents with these ids, and nothing else in them, into shop.orders.
    #[track_caller]
    pub fn insert_orders(&mut self, ids: impl IntoIterator<Item = i32>) {
        self.insert("shop", "orders", ids.into_iter().map(|id| doc! { "_id": id }));
    }

    /// Replies that leave for streams from now on go through `change`.
    pub fn rewrite_replies(&mut self, change: impl FnMut(&mut Document) + 'static) {
        self.rewriting = Rewriting::by(change);
    }

    /// Replies go unchanged again.
    pub fn stop_rewriting(&mut self) {
        self.rewriting = Rewriting::default();
    }

    /// The streams' commands of that name, oldest first.
    pub fn commands_named(&self, name: &str) -> Vec<Document> {
        self.records()
            .filter(|record| record.name == name)
            .map(|record| record.body.clone())
            .collect()
    }

    /// The newest of the streams' commands of that name.
    #[track_caller]
    pub fn last_command(&self, name: &str) -> Document {
        let found = self.commands_named(name).pop();
        found.unwrap_or_else(|| panic!("no {name} was sent"))
    }

    /// The `$changeStream` stages of the streams' aggregates, oldest first.
    pub fn stages(&self) -> Vec<Document> {
        let aggregates = self.commands_named("aggregate");
        aggregates
            .iter()
            .map(|aggregate| stage(aggregate).clone())
            .collect()
    }

    /// Forgets the commands received so far.
    pub fn forget_commands(&mut self) {
        self.deployment.clear_commands();
    }

    /// The next so many commands of these names fail so, at every member. `fault` is the `data` of a `failCommand`
    /// fail point.
    pub fn fail(&mut self, commands: &[&str], times: i32, fault: Document) {
        for member in 0..self.deployment.member_count() {
            self.fail_at(member, commands, times, fault.clone());
        }
    }

    /// As [`fail`](Self::fail), at one member only.
    pub fn fail_at(&mut self, member: usize, commands: &[&str], times: i32, fault: Document) {
        let mut data =
            doc! { "failCommands": commands.iter().map(|name| Bson::from(*name)).collect::<Vec<_>>() };
        data.extend(fault);
        let command = doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data };
        self.deployment
            .fail_command(member, &command)
            .expect("the test's fail point is well formed");
    }

    /// The next getMore at each member fails with that code, as the server itself would let it fail: labels and all.
    pub fn fail_get_more(&mut self, code: i32) {
        let command = doc! {
            "configureFailPoint": "failGetMoreAfterCursorCheckout",
            "mode": { "times": 1 },
            "data": { "errorCode": code },
        };
        for member in 0..self.deployment.member_count() {
            self.deployment
                .fail_command(member, &command)
                .expect("the fail point is well formed");
        }
    }

    /// No command fails any more.
    pub fn stop_failing(&mut self) {
        for member in 0..self.deployment.member_count() {
            for name in ["failCommand", "failGetMoreAfterCursorCheckout"] {
                let off = doc! { "configureFailPoint": name, "mode": "off" };
                self.deployment.fail_command(member, &off).expect("well formed");
            }
        }
    }

    /// Takes all cursors of all members away from their streams.
    pub fn kill_all_cursors(&mut self) {
        let now = self.now;
        for member in 0..self.deployment.member_count() {
            for cursor in self.deployment.cursors(member) {
                self.deployment.kill_cursor(now, member, cursor);
            }
        }
    }

    /// How many cursors are open at all members.
    pub fn open_cursors(&self) -> usize {
        (0..self.deployment.member_count())
            .map(|member| self.deployment.cursors(member).len())
            .sum()
    }

    /// The index of the primary.
    #[track_caller]
    pub fn primary(&self) -> usize {
        self.deployment.primary().expect("there is a primary")
    }

    /// The member that received the newest of the streams' commands of that name.
    #[track_caller]
    pub fn member_of_last(&self, name: &str) -> usize {
        let record = self.records().filter(|record| record.name == name).last();
        record.unwrap_or_else(|| panic!("no {name} was sent")).member
    }

    /// The stream's resume token now.
    #[track_caller]
    pub fn token(&self, id: StreamId) -> Document {
        document(self.machine(id).resume_token().expect("the stream has a token"))
    }

    /// The keys of the documents that the next so many events are about.
    #[track_caller]
    pub fn keys(&mut self, id: StreamId, count: usize) -> Vec<i32> {
        (0..count).map(|_| key_of(&self.event(id))).collect()
    }

    /// A try that has to bring an event.
    #[track_caller]
    pub fn try_event(&mut self, id: StreamId) -> ChangeEvent {
        match self.try_next(id) {
            Tried::Event(event) => event,
            other @ (Tried::Nothing(_) | Tried::TimedOut(_) | Tried::End(_)) => {
                panic!("expected an event, got {other:?}")
            }
        }
    }

    /// A try that has to bring nothing.
    #[track_caller]
    pub fn try_nothing(&mut self, id: StreamId) -> Idle {
        match self.try_next(id) {
            Tried::Nothing(idle) => idle,
            other @ (Tried::Event(_) | Tried::TimedOut(_) | Tried::End(_)) => {
                panic!("expected nothing, got {other:?}")
            }
        }
    }

    /// Takes updates until an event comes; how many of them said that the stream had resumed.
    #[track_caller]
    pub fn resumes_until_event(&mut self, id: StreamId) -> (usize, ChangeEvent) {
        let mut resumes = 0;
        loop {
            match self.next_update(id) {
                Some(Ok(Update::Change(event))) => return (resumes, event),
                Some(Ok(Update::Resumed { .. })) => resumes += 1,
                Some(Ok(_)) => {}
                other => panic!("expected an event, got {other:?}"),
            }
        }
    }

    /// What members received from streams, oldest first, but for hellos and authentication.
    pub fn records(&self) -> impl Iterator<Item = &CommandRecord> {
        const NOT_ASKED_FOR: [&str; 6] = [
            "authenticate",
            "hello",
            "ismaster",
            "isMaster",
            "saslStart",
            "saslContinue",
        ];
        self.all_records()
            .filter(|record| !NOT_ASKED_FOR.contains(&record.name.as_str()))
    }

    /// What members received from streams, all of it, oldest first.
    pub fn all_records(&self) -> impl Iterator<Item = &CommandRecord> {
        self.deployment
            .commands()
            .filter(|record| !self.writers.contains(&record.connection))
    }
}

/// The `$changeStream` stage of an aggregate.
#[track_caller]
pub fn stage(aggregate: &Document) -> &Document {
    let first = aggregate.get_array("pipeline").expect("a pipeline").first();
    let first = first.and_then(Bson::as_document).expect("a first stage");
    first
        .get_document("$changeStream")
        .expect("the first stage is $changeStream")
}
