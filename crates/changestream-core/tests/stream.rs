//! The stream machine alone: commands out, replies in.

#![allow(clippy::wildcard_enum_match_arm, reason = "tests panic on all else")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, Timestamp, doc};
use changestream_core::client::{Demand, Idle};
use changestream_core::random::Random;
use changestream_core::stream::{
    Avoid, CommandReply, Expects, Patience, Retries, Role, Server, StreamInput, StreamMachine, StreamOutput,
};
use changestream_core::{
    Error, ErrorKind, ReadPreference, ReadPreferenceMode, ResumePolicy, ResumeToken, Scope, ServerAddress,
    ServerError, Session, Update, WatchOptions,
};

#[path = "stream/commands.rs"]
mod commands;
#[path = "stream/counting.rs"]
mod counting;
#[path = "stream/exhaust.rs"]
mod exhaust;
#[path = "stream/hostile.rs"]
mod hostile;
#[path = "stream/parts.rs"]
mod parts;

/// A stream and the server that it talks to, played by hand.
struct World {
    stream: StreamMachine,
    now: Instant,
    wire_version: i32,
    role: Role,
}

impl World {
    fn new(options: WatchOptions) -> Self {
        Self::on(&collection(), options)
    }

    fn on(scope: &Scope, options: WatchOptions) -> Self {
        Self::made(scope, options, 7)
    }

    /// One of many streams, each of which draws other numbers.
    fn seeded(options: WatchOptions, seed: u8) -> Self {
        Self::made(&collection(), options, seed)
    }

    fn made(scope: &Scope, options: WatchOptions, seed: u8) -> Self {
        let now = epoch();
        let random = Random::new([seed; 32]);
        let stream = StreamMachine::new(scope, &options, RETRIES, PATIENCE, random, now).unwrap();
        Self {
            stream,
            now,
            wire_version: 9,
            role: Role::Member,
        }
    }

    /// A stream without prefetch, opened with an empty first batch.
    fn opened(options: WatchOptions) -> Self {
        let mut world = Self::new(without_prefetch(options));
        world.open(cursor(1, "firstBatch", &[], Some("t0")));
        world
    }

    fn open(&mut self, reply: Document) -> Document {
        self.expect_selection();
        self.ready();
        let command = self.expect_command();
        self.reply(reply);
        command
    }

    fn ready(&mut self) {
        let server = Server {
            address: "a:1".parse().unwrap(),
            max_wire_version: self.wire_version,
            supports_sessions: true,
            role: self.role,
            min_round_trip: Duration::ZERO,
        };
        self.input(StreamInput::Ready(server));
    }

    fn input(&mut self, input: StreamInput) {
        self.stream.handle_input(self.now, input);
    }

    fn demand(&mut self, demand: Demand) {
        self.input(StreamInput::Demand(demand));
    }

    fn reply(&mut self, reply: Document) {
        let body = RawDocumentBuf::try_from(&reply).unwrap().into_bytes();
        self.input(StreamInput::Reply(CommandReply::parse(body.into()).unwrap()));
    }

    fn poll(&mut self) -> Option<StreamOutput> {
        self.stream.poll_output(self.now)
    }

    fn poll_all(&mut self) -> Vec<StreamOutput> {
        std::iter::from_fn(|| self.poll()).collect()
    }

    #[track_caller]
    fn expect_selection(&mut self) -> Option<ServerAddress> {
        match self.poll() {
            Some(StreamOutput::SelectServer { deprioritized }) => deprioritized.into_keys().next(),
            other => panic!("expected a selection, got {other:?}"),
        }
    }

    #[track_caller]
    fn expect_command(&mut self) -> Document {
        match self.poll() {
            Some(StreamOutput::Send(command)) => command.body.try_into().unwrap(),
            other => panic!("expected a command, got {other:?}"),
        }
    }

    #[track_caller]
    fn expect_get_more(&mut self) -> Document {
        let command = self.expect_command();
        assert!(
            command.contains_key("getMore"),
            "expected a getMore, got {command}"
        );
        command
    }

    #[track_caller]
    fn expect_update(&mut self) -> Update {
        match self.poll() {
            Some(StreamOutput::Update(update)) => update,
            other => panic!("expected an update, got {other:?}"),
        }
    }

    #[track_caller]
    fn expect_event(&mut self, token: &str) {
        self.demand(Demand::Next);
        match self.expect_update() {
            Update::Change(event) => assert_eq!(*event.resume_token(), token_of(token)),
            other => panic!("expected an event, got {other:?}"),
        }
    }

    #[track_caller]
    fn expect_end(&mut self) -> Result<(), Error> {
        match self.poll() {
            Some(StreamOutput::End(result, _)) => result,
            other => panic!("expected the end, got {other:?}"),
        }
    }

    #[track_caller]
    fn expect_nothing(&mut self) {
        let output = self.poll();
        assert!(output.is_none(), "expected nothing, got {output:?}");
    }

    fn token(&self) -> Option<ResumeToken> {
        self.stream.resume_token().cloned()
    }

    /// Waits for an event, lets the getMore fail, and returns the aggregate that resumes.
    #[track_caller]
    fn resume_after(&mut self, failure: Failure) -> Document {
        self.demand(Demand::Next);
        self.expect_get_more();
        match failure {
            Failure::Reply(reply) => self.reply(reply),
            Failure::Network => self.input(StreamInput::Failed(network_error())),
        }
        for _ in 0..8 {
            match self.poll() {
                Some(StreamOutput::SelectServer { .. }) => self.ready(),
                Some(StreamOutput::Update(Update::Resuming(_))) => self.demand(Demand::Next),
                Some(StreamOutput::Send(command)) => {
                    let body: Document = command.body.try_into().unwrap();
                    if body.contains_key("aggregate") {
                        return body;
                    }
                }
                None => {
                    self.now += Duration::from_secs(20);
                    self.input(StreamInput::Timeout);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        panic!("the stream does not resume")
    }
}

enum Failure {
    Reply(Document),
    Network,
}

const RETRIES: Retries = Retries {
    reads: true,
    overloads: 2,
    retargets: false,
};

const PATIENCE: Patience = Patience {
    open: Duration::from_secs(30),
    scan: Duration::from_secs(300),
    get_more: Duration::from_secs(10),
};

#[allow(clippy::disallowed_methods, reason = "one epoch for the fake clock")]
fn epoch() -> Instant {
    Instant::now()
}

fn collection() -> Scope {
    Scope::Collection {
        database: "shop".into(),
        collection: "orders".into(),
    }
}

fn without_prefetch(mut options: WatchOptions) -> WatchOptions {
    options.prefetch_batches = 0;
    options
}

fn options(change: impl FnOnce(&mut WatchOptions)) -> WatchOptions {
    let mut options = WatchOptions::default();
    change(&mut options);
    options
}

fn token_of(name: &str) -> ResumeToken {
    doc! { "_data": name }.try_into().unwrap()
}

fn cursor(id: i64, batch_name: &str, events: &[&str], token: Option<&str>) -> Document {
    let events: Vec<Bson> = events
        .iter()
        .map(|name| {
            let kind = if name.starts_with("inv") {
                "invalidate"
            } else {
                "insert"
            };
            Bson::Document(doc! { "_id": { "_data": *name }, "operationType": kind })
        })
        .collect();
    let mut cursor = doc! { batch_name: events, "id": id, "ns": "shop.orders" };
    if let Some(token) = token {
        cursor.insert("postBatchResumeToken", doc! { "_data": token });
    }
    doc! { "cursor": cursor, "ok": 1.0, "operationTime": Timestamp { time: 100, increment: 1 } }
}

fn next_batch(events: &[&str], token: Option<&str>) -> Document {
    cursor(1, "nextBatch", events, token)
}

fn failure(code: i32, labels: &[&str]) -> Document {
    doc! { "ok": 0.0, "code": code, "codeName": "Name", "errmsg": "message", "errorLabels": labels }
}

fn resumable() -> Document {
    failure(10107, &["ResumableChangeStreamError"])
}

fn network_error() -> Error {
    Error::network("connection reset", false)
}

fn stage(command: &Document) -> &Document {
    command.get_array("pipeline").unwrap()[0]
        .as_document()
        .unwrap()
        .get_document("$changeStream")
        .unwrap()
}

#[test]
fn an_aggregate_without_options_sends_an_empty_stage_and_cursor() {
    let session = Session::with_id([1; 16]);
    let lsid: Document = session.lsid().try_into().unwrap();
    let mut world = World::new(options(|o| o.session = Some(session)));
    let command = world.open(cursor(1, "firstBatch", &[], Some("t0")));
    assert_eq!(
        command,
        doc! {
            "aggregate": "orders", "pipeline": [{ "$changeStream": {} }], "cursor": {}, "lsid": lsid, "$db": "shop",
        }
    );
}

#[test]
fn database_and_cluster_streams_aggregate_on_one() {
    let scope = Scope::Database {
        database: "shop".into(),
    };
    let command = World::on(&scope, WatchOptions::default()).open(cursor(1, "firstBatch", &[], None));
    assert_eq!(command.get_i32("aggregate").unwrap(), 1);
    assert_eq!(command.get_str("$db").unwrap(), "shop");
    assert_eq!(*stage(&command), doc! {});
    let command =
        World::on(&Scope::Cluster, WatchOptions::default()).open(cursor(1, "firstBatch", &[], None));
    assert_eq!(command.get_i32("aggregate").unwrap(), 1);
    assert_eq!(command.get_str("$db").unwrap(), "admin");
    assert_eq!(*stage(&command), doc! { "allChangesForCluster": true });
}

#[test]
fn max_await_time_goes_on_get_more_only_and_the_comment_on_both() {
    let mut world = World::new(options(|o| {
        o.max_await_time = Some(Duration::from_micros(250_500));
        o.comment = Some(Bson::String("why".into()));
        o.batch_size = Some(3);
    }));
    let aggregate = world.open(cursor(9, "firstBatch", &[], Some("t0")));
    assert!(!aggregate.to_string().contains("maxTimeMS"));
    assert!(!aggregate.to_string().contains("maxAwaitTimeMS"));
    assert_eq!(aggregate.get_str("comment").unwrap(), "why");
    assert_eq!(
        aggregate.get_document("cursor").unwrap(),
        &doc! { "batchSize": 3 }
    );
    world.demand(Demand::Next);
    let mut command = world.expect_get_more();
    command.remove("lsid");
    assert_eq!(
        command,
        doc! {
            "getMore": 9_i64, "collection": "orders", "batchSize": 3, "maxTimeMS": 251_i64, "comment": "why",
            "$db": "shop",
        }
    );
}

#[test]
fn before_4_4_the_comment_is_not_on_get_more() {
    let mut world = World::new(options(|o| o.comment = Some(Bson::Int32(1))));
    world.wire_version = 8;
    world.open(cursor(9, "firstBatch", &[], Some("t0")));
    world.demand(Demand::Next);
    assert!(!world.expect_get_more().contains_key("comment"));
}

#[test]
fn batch_size_zero_is_sent_on_aggregate_and_left_out_of_get_more() {
    let mut world = World::new(options(|o| o.batch_size = Some(0)));
    let aggregate = world.open(cursor(9, "firstBatch", &[], Some("t0")));
    assert_eq!(
        aggregate.get_document("cursor").unwrap(),
        &doc! { "batchSize": 0 }
    );
    world.demand(Demand::Next);
    assert!(!world.expect_get_more().contains_key("batchSize"));
}

#[test]
fn get_more_names_the_namespace_of_the_reply() {
    let mut world = World::on(&Scope::Cluster, WatchOptions::default());
    let mut reply = cursor(9, "firstBatch", &[], Some("t0"));
    reply
        .get_document_mut("cursor")
        .unwrap()
        .insert("ns", "admin.$cmd.aggregate");
    world.open(reply);
    world.demand(Demand::Next);
    let command = world.expect_get_more();
    assert_eq!(command.get_str("collection").unwrap(), "$cmd.aggregate");
    assert_eq!(command.get_str("$db").unwrap(), "admin");
}

#[test]
fn all_start_options_are_sent_for_the_server_to_judge() {
    let mut world = World::new(options(|o| {
        o.resume_after = Some(token_of("a"));
        o.start_after = Some(token_of("b"));
        o.start_at_operation_time = Some(Timestamp {
            time: 5,
            increment: 6,
        });
    }));
    let command = world.open(failure(40674, &[]));
    assert_eq!(
        *stage(&command),
        doc! {
            "resumeAfter": { "_data": "a" }, "startAfter": { "_data": "b" },
            "startAtOperationTime": Timestamp { time: 5, increment: 6 },
        }
    );
    assert_eq!(world.expect_end().unwrap_err().code(), Some(40674));
}

#[test]
fn the_token_is_the_events_id_within_a_batch_and_the_batch_token_at_its_end() {
    let mut world = World::opened(WatchOptions::default());
    assert_eq!(world.token(), Some(token_of("t0")));
    world.demand(Demand::Next);
    world.expect_get_more();
    world.reply(next_batch(&["e1", "e2", "e3"], Some("t3")));
    assert_eq!(world.token(), Some(token_of("t0")));
    for (event, token) in [("e1", "e1"), ("e2", "e2"), ("e3", "t3")] {
        world.expect_event(event);
        assert_eq!(world.token(), Some(token_of(token)));
    }
}

#[test]
fn each_fragment_of_a_large_event_is_where_the_stream_stands() {
    let fragment = |name: &str, fragment: i32| {
        let split = doc! { "fragment": fragment, "of": 3 };
        Bson::Document(doc! { "_id": { "_data": name }, "operationType": "update", "splitEvent": split })
    };
    let fragments = vec![fragment("f1", 1), fragment("f2", 2), fragment("f3", 3)];
    let mut world = World::opened(WatchOptions::default());
    world.demand(Demand::Next);
    world.expect_get_more();
    let mut reply = next_batch(&[], Some("t3"));
    let cursor = reply.get_document_mut("cursor").unwrap();
    cursor.insert("nextBatch", fragments);
    world.reply(reply);
    for (event, token) in [("f1", "f1"), ("f2", "f2"), ("f3", "t3")] {
        world.expect_event(event);
        assert_eq!(world.token(), Some(token_of(token)));
    }
}

#[test]
fn without_a_batch_token_the_last_id_is_the_token_and_an_empty_batch_keeps_it() {
    let mut world = World::opened(WatchOptions::default());
    world.demand(Demand::Next);
    world.expect_get_more();
    world.reply(next_batch(&["e1"], None));
    world.expect_event("e1");
    assert_eq!(world.token(), Some(token_of("e1")));
    world.demand(Demand::Next);
    world.expect_get_more();
    world.reply(next_batch(&[], None));
    let update = world.expect_update();
    assert!(matches!(update, Update::Idle(Idle { token: Some(t), .. }) if t == token_of("e1")));
    assert_eq!(world.token(), Some(token_of("e1")));
}

#[test]
fn an_unread_first_batch_leaves_the_token_as_the_user_gave_it() {
    for (given, expected) in [(None, None), (Some("s"), Some(token_of("s")))] {
        let mut world = World::new(without_prefetch(options(|o| o.start_after = given.map(token_of))));
        world.open(cursor(1, "firstBatch", &["e1", "e2"], Some("t2")));
        assert_eq!(world.token(), expected);
    }
}

#[test]
fn a_resume_continues_after_the_token_in_the_same_session() {
    let mut world = World::new(without_prefetch(options(|o| {
        o.pipeline = vec![doc! { "$match": { "x": 1 } }];
        o.start_at_operation_time = Some(Timestamp {
            time: 1,
            increment: 1,
        });
    })));
    let first = world.open(cursor(1, "firstBatch", &["e1", "e2"], Some("t2")));
    world.expect_event("e1");
    world.expect_event("e2");
    let again = world.resume_after(Failure::Reply(resumable()));
    assert_eq!(*stage(&again), doc! { "resumeAfter": { "_data": "t2" } });
    assert_eq!(first.get("lsid"), again.get("lsid"));
    let user_stages = |command: &Document| command.get_array("pipeline").unwrap()[1..].to_vec();
    assert_eq!(user_stages(&first), user_stages(&again));
}

#[test]
fn start_after_stays_start_after_until_an_event_was_handed_over() {
    let mut world = World::new(without_prefetch(options(|o| {
        o.start_after = Some(token_of("inv"))
    })));
    world.open(cursor(1, "firstBatch", &[], Some("t0")));
    let again = world.resume_after(Failure::Network);
    assert_eq!(*stage(&again), doc! { "startAfter": { "_data": "t0" } });
    world.reply(cursor(2, "firstBatch", &["e1"], Some("t1")));
    while !matches!(world.expect_update(), Update::Resumed { .. }) {
        world.demand(Demand::Next);
    }
    world.expect_event("e1");
    let again = world.resume_after(Failure::Network);
    assert_eq!(*stage(&again), doc! { "resumeAfter": { "_data": "t1" } });
}

#[test]
fn without_any_token_the_first_operation_time_is_where_a_resume_starts() {
    let mut world = World::new(without_prefetch(WatchOptions::default()));
    world.wire_version = 7;
    world.open(cursor(1, "firstBatch", &[], None));
    let again = world.resume_after(Failure::Network);
    assert_eq!(
        *stage(&again),
        doc! { "startAtOperationTime": Timestamp { time: 100, increment: 1 } }
    );
}

#[test]
fn before_4_0_a_resume_without_token_is_the_original_command() {
    let mut world = World::new(without_prefetch(WatchOptions::default()));
    world.wire_version = 6;
    world.open(cursor(1, "firstBatch", &[], None));
    let again = world.resume_after(Failure::Network);
    assert_eq!(*stage(&again), doc! {});
}

#[test]
fn the_connections_wire_version_decides_between_label_and_code_list() {
    const LISTED: [i32; 17] = [
        6, 7, 63, 89, 91, 133, 150, 189, 234, 262, 9001, 10107, 11600, 11602, 13388, 13435, 13436,
    ];
    const LABEL: &[&str] = &["ResumableChangeStreamError"];
    let listed = LISTED
        .into_iter()
        .flat_map(|code| [(8, code, &[][..], true), (9, code, &[][..], false)]);
    let others = [
        (9, 1, LABEL, true),
        (8, 1, LABEL, false),
        (8, 43, &[], true),
        (9, 43, &[], true),
        (8, 11601, &[], false),
        (8, 237, &[], false),
        (8, 50, &[], false),
        (9, 280, &["NonResumableChangeStreamError"], false),
        (9, 286, &["NonResumableChangeStreamError"], false),
    ];
    for (wire_version, code, labels, expected) in listed.chain(others) {
        let mut world = World::new(without_prefetch(WatchOptions::default()));
        world.wire_version = wire_version;
        world.open(cursor(1, "firstBatch", &[], Some("t0")));
        world.demand(Demand::Next);
        world.expect_get_more();
        world.reply(failure(code, labels));
        let outputs = world.poll_all();
        let resumes = outputs
            .iter()
            .any(|o| matches!(o, StreamOutput::SelectServer { .. }));
        let ends = outputs.iter().any(|o| matches!(o, StreamOutput::End(Err(_), _)));
        assert_eq!(
            (resumes, ends),
            (expected, !expected),
            "code {code}, wire version {wire_version}"
        );
    }
}

#[test]
fn a_lost_cursor_is_not_killed_and_any_other_is() {
    let killed_elsewhere = failure(237, &["ResumableChangeStreamError"]);
    for (reply, expected) in [(failure(43, &[]), 0), (killed_elsewhere, 0), (resumable(), 1)] {
        let mut world = World::opened(WatchOptions::default());
        world.demand(Demand::Next);
        world.expect_get_more();
        world.reply(reply);
        let killed = world
            .poll_all()
            .iter()
            .filter(|o| matches!(o, StreamOutput::Send(c) if c.body.get("killCursors").unwrap().is_some()))
            .count();
        assert_eq!(killed, expected);
    }
}

#[test]
fn a_cursor_left_behind_by_a_network_error_is_killed_once_its_server_is_found_again() {
    let mut world = World::opened(WatchOptions::default());
    world.demand(Demand::Next);
    world.expect_get_more();
    world.input(StreamInput::Failed(network_error()));
    world.expect_selection();
    world.ready();
    let kill = world.expect_command();
    assert_eq!(kill.get_array("cursors").unwrap(), &vec![Bson::Int64(1)]);
    assert!(world.expect_command().contains_key("aggregate"));
}

#[test]
fn an_aggregate_is_retried_once_after_a_retryable_error_and_never_resumed() {
    let mut world = World::new(WatchOptions::default());
    world.open(failure(91, &[]));
    assert_eq!(world.expect_selection(), Some("a:1".parse().unwrap()));
    world.ready();
    world.expect_command();
    world.reply(failure(91, &["ResumableChangeStreamError"]));
    assert_eq!(world.expect_end().unwrap_err().code(), Some(91));
    world.expect_nothing();
}

#[test]
fn a_resume_whose_aggregate_fails_ends_the_stream_with_that_error_and_the_token() {
    let mut world = World::opened(WatchOptions::default());
    world.resume_after(Failure::Reply(resumable()));
    world.reply(failure(286, &[]));
    world.demand(Demand::Next);
    let error = loop {
        match world.poll() {
            Some(StreamOutput::End(result, _)) => break result.unwrap_err(),
            Some(StreamOutput::Update(Update::Resuming(_))) => world.demand(Demand::Next),
            other => panic!("unexpected {other:?}"),
        }
    };
    assert!(matches!(error.kind(), ErrorKind::HistoryLost(_)));
    assert_eq!(error.resume_token(), Some(&token_of("t0")));
}

#[test]
fn resumes_may_follow_each_other_without_events_for_ever() {
    let mut world = World::opened(WatchOptions::default());
    for _ in 0..30 {
        world.resume_after(Failure::Reply(resumable()));
        world.reply(cursor(1, "firstBatch", &[], Some("t0")));
        while !matches!(world.expect_update(), Update::Idle(_)) {
            world.demand(Demand::Next);
        }
    }
    assert_eq!(world.stream.stats().resumes, 30);
}

#[test]
fn a_resume_that_follows_another_waits() {
    let mut world = World::opened(WatchOptions::default());
    let mut delays = Vec::new();
    for _ in 0..20 {
        world.demand(Demand::Next);
        world.expect_get_more();
        world.reply(failure(43, &[]));
        while delays.len() < 20 {
            match world.poll() {
                Some(StreamOutput::Update(Update::Resuming(resuming))) => {
                    assert_eq!(resuming.attempt as usize, delays.len() + 1);
                    delays.push(resuming.delay);
                    world.now += resuming.delay;
                    world.input(StreamInput::Timeout);
                }
                Some(StreamOutput::Update(Update::Idle(_))) => break,
                Some(StreamOutput::SelectServer { .. }) => world.ready(),
                Some(StreamOutput::Send(_)) => world.reply(cursor(1, "firstBatch", &[], Some("t0"))),
                _ => {}
            }
            world.demand(Demand::Next);
        }
    }
    assert_eq!(delays[0], Duration::ZERO);
    assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(10)));
    assert!(delays.iter().any(|delay| *delay > Duration::from_secs(1)));
}

#[test]
fn a_policy_keeps_resuming_after_failures_that_may_pass() {
    let mut world = World::opened(options(|o| o.resume_policy = ResumePolicy::Forever));
    world.resume_after(Failure::Network);
    for _ in 0..5 {
        world.reply(failure(91, &[]));
        let mut asked = 0;
        while asked < 2 {
            match world.poll() {
                Some(StreamOutput::SelectServer { .. }) => world.ready(),
                Some(StreamOutput::Send(_)) => {
                    asked += 1;
                    if asked == 1 {
                        world.reply(failure(91, &[]));
                    }
                }
                Some(StreamOutput::Update(Update::Resuming(_))) => world.demand(Demand::Next),
                None => {
                    world.now += Duration::from_secs(10);
                    world.input(StreamInput::Timeout);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    world.reply(failure(286, &[]));
    assert!(matches!(
        world.poll_all().pop(),
        Some(StreamOutput::End(Err(_), _))
    ));
}

#[test]
fn an_error_waits_until_the_events_before_it_are_handed_over() {
    let mut world = World::new(WatchOptions::default());
    world.open(cursor(1, "firstBatch", &["e1", "e2"], Some("t2")));
    world.expect_get_more();
    world.reply(failure(43, &[]));
    world.expect_nothing();
    world.expect_event("e1");
    assert_eq!(world.token(), Some(token_of("e1")));
    world.expect_event("e2");
    world.demand(Demand::Next);
    world.expect_selection();
    world.ready();
    assert_eq!(
        *stage(&world.expect_command()),
        doc! { "resumeAfter": { "_data": "t2" } }
    );
}

#[test]
fn prefetch_keeps_to_its_window_of_batches() {
    let mut world = World::new(options(|o| o.prefetch_batches = 2));
    world.open(cursor(1, "firstBatch", &["e1"], Some("t1")));
    world.expect_get_more();
    world.reply(next_batch(&["e2"], Some("t2")));
    world.expect_get_more();
    world.reply(next_batch(&["e3"], Some("t3")));
    world.expect_nothing();
    world.expect_event("e1");
    world.expect_get_more();
    world.expect_event("e2");
}

#[test]
fn prefetch_keeps_to_its_window_of_bytes() {
    let mut world = World::new(options(|o| {
        o.prefetch_batches = 9;
        o.prefetch_bytes = 10;
    }));
    world.open(cursor(1, "firstBatch", &["e1"], Some("t1")));
    world.expect_nothing();
    world.expect_event("e1");
    world.expect_nothing();
    world.demand(Demand::Next);
    world.expect_get_more();
}

#[test]
fn the_window_of_bytes_is_of_what_is_not_handed_over_yet() {
    let size = |name: &str| {
        let event = doc! { "_id": { "_data": name }, "operationType": "insert" };
        RawDocumentBuf::try_from(&event).unwrap().as_bytes().len()
    };
    let mut world = World::new(options(|o| {
        o.prefetch_batches = 9;
        // Two events with their places in the array, and no third.
        o.prefetch_bytes = 2 * (size("e1") + 3) + 1;
    }));
    world.open(cursor(1, "firstBatch", &["e1", "e2", "e3"], Some("t3")));
    world.expect_nothing();
    world.expect_event("e1");
    world.expect_get_more();
}

#[test]
fn a_stream_is_open_once_its_first_aggregate_has_succeeded() {
    let mut world = World::new(WatchOptions::default());
    world.expect_selection();
    assert!(!world.stream.is_open());
    world.ready();
    world.expect_command();
    assert!(!world.stream.is_open());
    world.reply(cursor(1, "firstBatch", &[], Some("t0")));
    assert!(world.stream.is_open());
}

#[test]
fn a_refusal_with_one_of_the_two_labels_of_an_overload_is_none() {
    for labels in [&["RetryableError"][..], &["SystemOverloadedError"]] {
        let mut world = World::opened(WatchOptions::default());
        world.demand(Demand::Next);
        world.expect_get_more();
        world.reply(failure(462, labels));
        assert!(world.expect_command().contains_key("killCursors"));
        assert_eq!(world.expect_end().unwrap_err().code(), Some(462));
    }
}

#[test]
fn no_pause_ends_before_its_time() {
    let mut world = World::opened(WatchOptions::default());
    world.demand(Demand::Next);
    world.expect_get_more();
    world.reply(overload());
    world.input(StreamInput::Timeout);
    world.expect_nothing();
    wait(&mut world, 200);
    world.expect_get_more();

    let mut world = World::opened(options(|o| o.resume_policy = ResumePolicy::Forever));
    world.resume_after(Failure::Network);
    for refusal in 0..2 {
        world.reply(failure(91, &[]));
        if refusal == 0 {
            world.expect_selection();
            world.ready();
            world.expect_command();
        }
    }
    world.demand(Demand::Next);
    let Update::Resuming(resuming) = world.expect_update() else {
        panic!("the policy lets it be tried again")
    };
    assert!(!resuming.delay.is_zero());
    world.input(StreamInput::Timeout);
    world.expect_nothing();
    world.now += resuming.delay;
    world.input(StreamInput::Timeout);
    world.expect_selection();
}

#[test]
fn without_prefetch_a_get_more_leaves_only_when_the_consumer_waits() {
    let mut world = World::new(without_prefetch(WatchOptions::default()));
    world.open(cursor(1, "firstBatch", &["e1"], Some("t1")));
    world.expect_nothing();
    world.expect_event("e1");
    world.expect_nothing();
    world.demand(Demand::Next);
    world.expect_get_more();
}

#[test]
fn a_try_sends_exactly_one_get_more() {
    let mut world = World::opened(WatchOptions::default());
    for _ in 0..3 {
        world.demand(Demand::TryNext);
        world.expect_get_more();
        world.expect_nothing();
        world.reply(next_batch(&[], Some("t1")));
        assert!(matches!(world.expect_update(), Update::Idle(_)));
        world.expect_nothing();
    }
}

#[test]
fn a_try_that_has_to_resume_ends_without_another_get_more() {
    let mut world = World::opened(WatchOptions::default());
    world.demand(Demand::TryNext);
    world.expect_get_more();
    world.reply(failure(43, &[]));
    world.expect_selection();
    world.ready();
    world.expect_command();
    assert!(matches!(world.expect_update(), Update::Resuming(_)));
    world.demand(Demand::TryNext);
    world.reply(cursor(2, "firstBatch", &[], Some("t0")));
    assert!(matches!(world.expect_update(), Update::Resumed { .. }));
    world.demand(Demand::TryNext);
    assert!(matches!(world.expect_update(), Update::Idle(_)));
    world.expect_nothing();
}

#[test]
fn a_try_that_begins_with_a_resume_still_has_its_get_more() {
    let mut world = World::opened(WatchOptions::default());
    world.input(StreamInput::Failed(network_error()));
    world.demand(Demand::TryNext);
    world.expect_selection();
    world.ready();
    assert!(world.expect_command().contains_key("killCursors"));
    assert!(world.expect_command().contains_key("aggregate"));
    world.reply(cursor(2, "firstBatch", &[], Some("t0")));
    assert!(matches!(world.expect_update(), Update::Resuming(_)));
    assert!(matches!(world.expect_update(), Update::Resumed { .. }));
    assert_eq!(world.expect_get_more().get_i64("getMore").unwrap(), 2);
    world.reply(next_batch(&[], Some("t1")));
    assert!(matches!(world.expect_update(), Update::Idle(_)));
    world.expect_nothing();
}

#[test]
fn a_resume_that_finds_nothing_tells_who_waits_for_more_than_a_try_where_the_stream_stands() {
    let mut world = World::opened(WatchOptions::default());
    world.input(StreamInput::Failed(network_error()));
    world.demand(Demand::Next);
    world.expect_selection();
    world.ready();
    world.expect_command();
    world.expect_command();
    world.reply(cursor(2, "firstBatch", &[], Some("t1")));
    for _ in 0..2 {
        world.expect_update();
        world.demand(Demand::Next);
    }
    assert!(
        matches!(world.expect_update(), Update::Idle(Idle { token: Some(t), .. }) if t == token_of("t1"))
    );
}

#[test]
fn an_invalidate_event_is_followed_by_its_update_and_the_end() {
    let mut world = World::opened(WatchOptions::default());
    world.demand(Demand::Next);
    world.expect_get_more();
    world.reply(cursor(0, "nextBatch", &["e1", "inv"], Some("inv")));
    world.expect_event("e1");
    world.expect_event("inv");
    assert!(!world.stream.is_alive());
    world.demand(Demand::Next);
    assert!(matches!(world.expect_update(), Update::Invalidated { token } if token == token_of("inv")));
    assert!(world.expect_end().is_ok());
    world.expect_nothing();
}

#[test]
fn an_invalidation_whose_event_the_pipeline_drops_is_told_with_its_token() {
    for events in [&[][..], &["e1"][..]] {
        let mut world = World::opened(WatchOptions::default());
        world.demand(Demand::Next);
        world.expect_get_more();
        let mut reply = cursor(0, "nextBatch", events, Some("inv"));
        let said = reply.get_document_mut("cursor").unwrap();
        said.insert("invalidated", true);
        world.reply(reply);
        for event in events {
            world.expect_event(event);
            world.demand(Demand::Next);
        }
        assert!(matches!(world.expect_update(), Update::Invalidated { token } if token == token_of("inv")));
        assert_eq!(world.stream.resume_token(), Some(&token_of("inv")));
        assert!(!world.stream.is_alive());
        assert!(world.expect_end().is_ok());
    }
}

#[test]
fn a_cursor_that_is_lost_behind_an_invalidate_event_is_the_end_and_no_reason_to_resume() {
    let token = format!(
        "826B030F15000000012B022C0100296F5A1004{}04",
        "40F9A34BB4064C96A38F06AB76E96584"
    );
    let projected = doc! { "_id": { "_data": &token } };
    let whole = doc! { "_id": { "_data": &token }, "operationType": "invalidate" };
    for (failure, event) in [
        (Failure::Network, &whole),
        (Failure::Reply(resumable()), &whole),
        (Failure::Network, &projected),
    ] {
        let mut world = World::opened(WatchOptions::default());
        world.demand(Demand::Next);
        world.expect_get_more();
        let mut reply = next_batch(&[], Some(&token));
        reply
            .get_document_mut("cursor")
            .unwrap()
            .insert("nextBatch", [event.clone()]);
        world.reply(reply);
        world.expect_event(&token);
        world.demand(Demand::Next);
        world.expect_get_more();
        let answered = matches!(failure, Failure::Reply(_));
        match failure {
            Failure::Reply(reply) => world.reply(reply),
            Failure::Network => world.input(StreamInput::Failed(network_error())),
        }
        let mut outputs = world.poll_all().into_iter();
        let update = outputs.find_map(|output| match output {
            StreamOutput::Update(update) => Some(update),
            StreamOutput::Send(command) => {
                assert!(command.body.get("aggregate").unwrap().is_none());
                None
            }
            other => panic!("unexpected {other:?}"),
        });
        assert!(matches!(update, Some(Update::Invalidated { token: t }) if t == token_of(&token)));
        let Some(StreamOutput::End(Ok(()), farewell)) = outputs.next() else {
            panic!("expected the end")
        };
        // The server that answered is still there to be told that the session ends.
        assert_eq!(farewell.is_some(), answered);
    }
}

#[test]
fn a_stream_that_starts_before_an_invalidation_which_it_does_not_show_is_told_of_it() {
    let mut world = World::new(WatchOptions::default());
    let mut reply = cursor(0, "firstBatch", &[], Some("inv"));
    let said = reply.get_document_mut("cursor").unwrap();
    said.insert("invalidated", true);
    world.open(reply);
    world.demand(Demand::Next);
    assert!(matches!(world.expect_update(), Update::Invalidated { token } if token == token_of("inv")));
    assert!(world.expect_end().is_ok());
}

#[test]
fn an_invalidate_event_that_fills_its_batch_is_followed_by_its_update_once_the_cursor_has_ended() {
    for token in [Some("inv"), None] {
        let mut world = World::opened(WatchOptions::default());
        world.demand(Demand::Next);
        world.expect_get_more();
        world.reply(next_batch(&["inv"], token));
        world.expect_event("inv");
        world.demand(Demand::Next);
        world.expect_get_more();
        world.reply(cursor(0, "nextBatch", &[], token));
        assert!(matches!(world.expect_update(), Update::Invalidated { token } if token == token_of("inv")));
        assert!(world.expect_end().is_ok());
        world.expect_nothing();
    }
}

#[test]
fn a_token_that_looks_like_an_invalidate_events_says_that_a_cursor_ended_by_one() {
    let token = format!(
        "826B030F15000000012B022C0100296F5A1004{}04",
        "40F9A34BB4064C96A38F06AB76E96584"
    );
    for events in [&[][..], &["e1"][..]] {
        let mut world = World::opened(WatchOptions::default());
        world.demand(Demand::Next);
        world.expect_get_more();
        world.reply(cursor(0, "nextBatch", events, Some(&token)));
        for event in events {
            world.expect_event(event);
            world.demand(Demand::Next);
        }
        assert!(matches!(world.expect_update(), Update::Invalidated { token: t } if t == token_of(&token)));
        assert!(world.expect_end().is_ok());
    }
}

#[test]
fn of_a_cursor_that_ends_without_saying_why_only_the_end_is_told() {
    let mut world = World::opened(WatchOptions::default());
    world.demand(Demand::Next);
    world.expect_get_more();
    world.reply(cursor(0, "nextBatch", &["e1"], None));
    world.expect_event("e1");
    world.demand(Demand::Next);
    assert!(world.expect_end().is_ok());
    assert_eq!(world.stream.resume_token(), Some(&token_of("e1")));
}

#[test]
fn an_event_without_id_ends_the_stream_and_kills_the_cursor() {
    let mut world = World::opened(WatchOptions::default());
    world.demand(Demand::Next);
    world.expect_get_more();
    let mut reply = next_batch(&[], Some("t1"));
    reply
        .get_document_mut("cursor")
        .unwrap()
        .insert("nextBatch", vec![doc! { "operationType": "insert" }]);
    world.reply(reply);
    let Some(StreamOutput::End(Err(error), Some(farewell))) = world.poll() else {
        panic!("expected the end")
    };
    assert!(matches!(error.kind(), ErrorKind::MissingResumeToken));
    assert!(
        error
            .to_string()
            .starts_with("Cannot provide resume functionality when the resume token is missing")
    );
    assert!(farewell.commands[0].get("killCursors").unwrap().is_some());
    assert_eq!(error.server().unwrap().to_string(), "a:1");
    world.demand(Demand::Next);
    world.expect_nothing();
}

#[test]
fn a_reply_that_makes_no_sense_is_an_error_and_no_reason_to_resume() {
    for cursor in [
        doc! {},
        doc! { "id": "x", "nextBatch": [] },
        doc! { "id": 1_i64 },
        doc! { "id": 1_i64, "nextBatch": 5 },
        doc! { "id": 1_i64, "nextBatch": [5] },
        doc! { "id": 1_i64, "nextBatch": { "0": { "_id": { "_data": "e1" } } } },
    ] {
        let mut world = World::opened(WatchOptions::default());
        world.demand(Demand::Next);
        world.expect_get_more();
        world.reply(doc! { "ok": 1, "cursor": cursor.clone() });
        let error = world.expect_end().unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Protocol { .. }),
            "{cursor}: {error}"
        );
    }
}

#[test]
fn closing_says_what_is_left_to_tell_the_server() {
    let mut world = World::opened(WatchOptions::default());
    let farewell = world.stream.close(None).unwrap();
    assert!(!farewell.busy);
    assert_eq!(farewell.commands.len(), 2);
    assert_eq!(farewell.server, "a:1".parse().unwrap());
    let mut world = World::opened(options(|o| o.session = Some(Session::with_id([1; 16]))));
    world.demand(Demand::Next);
    world.expect_get_more();
    let farewell = world.stream.close(None).unwrap();
    assert!(farewell.busy);
    assert_eq!(
        farewell.commands.len(),
        1,
        "a session that was given is not ended"
    );
    world.expect_nothing();
}

#[test]
fn a_name_that_cannot_be_a_namespace_is_refused_before_anything_is_sent() {
    let collection = |database: &str, collection: &str| Scope::Collection {
        database: database.into(),
        collection: collection.into(),
    };
    for scope in [collection("", "c"), collection("a\0b", "c"), collection("a", "")] {
        let options = WatchOptions::default();
        let result = StreamMachine::new(&scope, &options, RETRIES, PATIENCE, Random::new([0; 32]), epoch());
        assert!(matches!(
            result.unwrap_err().kind(),
            ErrorKind::InvalidArgument { .. }
        ));
    }
}

#[test]
fn attempts_that_nobody_asks_about_do_not_pile_up() {
    let mut world = World::opened(options(|o| o.resume_policy = ResumePolicy::Forever));
    world.demand(Demand::Next);
    world.expect_get_more();
    world.input(StreamInput::Failed(network_error()));
    world.expect_selection();
    assert!(matches!(world.expect_update(), Update::Resuming(_)));
    for _ in 0..100 {
        let refused = ServerError::new(91, "ShutdownInProgress", "");
        world.input(StreamInput::Failed(Error::new(ErrorKind::Server(refused))));
        world.now += Duration::from_secs(20);
        world.input(StreamInput::Timeout);
        world.poll_all();
    }
    world.demand(Demand::Next);
    let Update::Resuming(last) = world.expect_update() else {
        panic!("expected an attempt")
    };
    assert!(last.attempt > 40, "{}", last.attempt);
    assert_eq!(last.cause.resume_token(), Some(&token_of("t0")));
    world.demand(Demand::Next);
    world.expect_nothing();
}

#[test]
fn a_stream_is_alive_while_the_last_events_of_its_cursor_are_not_handed_over() {
    let mut world = World::opened(WatchOptions::default());
    world.resume_after(Failure::Network);
    world.reply(cursor(0, "firstBatch", &["e1"], Some("t1")));
    assert!(world.stream.is_alive() && world.stream.has_buffered());
    world.demand(Demand::None);
    world.expect_nothing();
    world.demand(Demand::Next);
    while !matches!(world.expect_update(), Update::Resumed { .. }) {
        world.demand(Demand::Next);
    }
    world.expect_event("e1");
    assert!(!world.stream.is_alive());
    assert!(world.expect_end().is_ok());
}

#[test]
fn behind_a_load_balancer_a_cursor_that_was_left_behind_is_killed_by_nobody() {
    let mut world = World::new(without_prefetch(WatchOptions::default()));
    world.role = Role::LoadBalanced;
    world.open(cursor(1, "firstBatch", &[], Some("t0")));
    world.demand(Demand::Next);
    world.expect_get_more();
    world.input(StreamInput::Failed(network_error()));
    world.expect_selection();
    world.ready();
    assert!(world.expect_command().contains_key("aggregate"));
}

#[test]
fn what_a_server_is_decides_what_it_is_told_of_the_read_preference() {
    let nearest = ReadPreference::new(ReadPreferenceMode::Nearest);
    let primary_preferred = doc! { "mode": "primaryPreferred" };
    for (role, preference, told) in [
        (Role::Member, None, None),
        (Role::LoadBalanced, None, None),
        (Role::Direct, None, Some(primary_preferred)),
        (Role::Standalone, None, None),
        (Role::Standalone, Some(nearest.clone()), None),
        (
            Role::Member,
            Some(nearest.clone()),
            Some(doc! { "mode": "nearest" }),
        ),
        (Role::Direct, Some(nearest), Some(doc! { "mode": "nearest" })),
    ] {
        let mut world = World::new(options(|o| o.read_preference = preference));
        world.role = role;
        let command = world.open(cursor(1, "firstBatch", &[], Some("t0")));
        assert_eq!(
            command.get_document("$readPreference").ok(),
            told.as_ref(),
            "{role:?}"
        );
    }
}

#[test]
fn each_get_more_that_is_overdue_doubles_the_patience_until_one_is_answered() {
    let mut world = World::opened(options(|o| o.max_await_time = Some(Duration::from_secs(2))));
    let mut patience = Vec::new();
    for round in 0..4 {
        world.demand(Demand::Next);
        let within = loop {
            match world.poll() {
                Some(StreamOutput::Send(command)) if command.body.get("getMore").unwrap().is_some() => {
                    let Expects::Reply { within } = command.expects else {
                        panic!("a getMore without reply")
                    };
                    break within;
                }
                Some(StreamOutput::Send(command)) if command.body.get("aggregate").unwrap().is_some() => {
                    world.reply(cursor(1, "firstBatch", &[], Some("t0")));
                }
                Some(StreamOutput::SelectServer { .. }) => world.ready(),
                Some(StreamOutput::Update(_)) => world.demand(Demand::Next),
                Some(StreamOutput::Send(_)) => {}
                Some(StreamOutput::End(..) | StreamOutput::Abandon) => panic!("the stream has ended"),
                None => {
                    world.now += Duration::from_secs(20);
                    world.input(StreamInput::Timeout);
                }
            }
        };
        patience.push(within.as_secs());
        match round {
            2 => world.reply(next_batch(&[], Some("t1"))),
            _ => world.input(StreamInput::Failed(Error::network("silent", true))),
        }
    }
    assert_eq!(patience, [12, 22, 42, 12]);
}

#[test]
fn the_longest_times_overflow_nothing() {
    let options = options(|o| {
        o.max_await_time = Some(Duration::MAX);
        o.resume_policy = ResumePolicy::For(Duration::MAX);
    });
    let patience = Patience {
        open: Duration::MAX,
        scan: Duration::MAX,
        get_more: Duration::MAX,
    };
    let scope = collection();
    let stream =
        StreamMachine::new(&scope, &options, RETRIES, patience, Random::new([7; 32]), epoch()).unwrap();
    let mut world = World {
        stream,
        ..World::new(WatchOptions::default())
    };
    world.open(cursor(1, "firstBatch", &[], Some("t0")));
    world.demand(Demand::Next);
    assert_eq!(world.expect_get_more().get_i64("maxTimeMS").unwrap(), i64::MAX);
    for _ in 0..100 {
        world.input(StreamInput::Failed(Error::network("silent", true)));
        world.demand(Demand::Next);
        world.poll_all();
        world.ready();
        world.poll_all();
        world.reply(cursor(1, "firstBatch", &[], Some("t0")));
        world.now += Duration::from_secs(20);
        world.input(StreamInput::Timeout);
    }
}

fn overload() -> Document {
    failure(462, &["RetryableError", "SystemOverloadedError"])
}

/// Waits as long as the stream wants to, which must not be longer than this.
#[track_caller]
fn wait(world: &mut World, at_most: u64) {
    world.expect_nothing();
    world.now += Duration::from_millis(at_most);
    world.input(StreamInput::Timeout);
}

#[test]
fn a_get_more_that_an_overloaded_server_refuses_is_sent_again_twice_with_growing_pauses() {
    let mut world = World::opened(WatchOptions::default());
    world.demand(Demand::TryNext);
    let first = world.expect_get_more();
    for pause in [200, 400] {
        world.reply(overload());
        wait(&mut world, pause);
        assert_eq!(world.expect_get_more(), first);
    }
    world.reply(next_batch(&["e1"], Some("t1")));
    world.expect_event("e1");

    world.demand(Demand::Next);
    world.expect_get_more();
    for pause in [200, 400] {
        world.reply(overload());
        assert!(world.stream.is_alive());
        wait(&mut world, pause);
        world.expect_get_more();
    }
    world.reply(overload());
    assert!(world.expect_command().contains_key("killCursors"));
    assert_eq!(world.expect_end().unwrap_err().code(), Some(462));
}

#[test]
fn the_second_pause_may_be_twice_as_long_as_the_first() {
    let longer_than = |milliseconds: u64, refusals: u32| {
        let seeds = (0..60).filter(|seed| {
            let mut world = World::seeded(without_prefetch(WatchOptions::default()), *seed);
            world.open(cursor(1, "firstBatch", &[], Some("t0")));
            world.demand(Demand::Next);
            world.expect_get_more();
            for _ in 1..refusals {
                world.reply(overload());
                wait(&mut world, 200);
                world.expect_get_more();
            }
            world.reply(overload());
            wait(&mut world, milliseconds);
            world.poll().is_none()
        });
        seeds.count()
    };
    assert_eq!(longer_than(200, 1), 0);
    assert!(longer_than(100, 1) > 10);
    assert_eq!(longer_than(400, 2), 0);
    assert!(longer_than(200, 2) > 10);
}

#[test]
fn a_reply_is_kept_as_it_came() {
    let document = next_batch(&["e1"], None);
    let bytes = RawDocumentBuf::try_from(&document).unwrap().into_bytes();
    let reply = CommandReply::parse(bytes.clone().into()).unwrap();
    assert_eq!(reply.as_bytes()[..], bytes);
    assert_eq!(reply.as_raw().as_bytes(), bytes);
    assert_eq!(reply.to_document().unwrap(), document);
}

#[test]
fn the_server_says_how_long_the_first_pause_may_be_and_no_longer_than_ten_seconds() {
    for (base, longest) in [
        (1.0, 2),
        (5000.0, 10_000),
        (f64::MAX, 200),
        (-1.0, 200),
        (f64::NAN, 200),
    ] {
        let mut world = World::opened(WatchOptions::default());
        world.demand(Demand::Next);
        world.expect_get_more();
        let mut reply = overload();
        reply.insert("baseBackoffMS", base);
        world.reply(reply);
        wait(&mut world, longest);
        world.expect_get_more();
    }
}

#[test]
fn an_aggregate_that_is_refused_by_an_overloaded_server_is_tried_again_at_any_server() {
    let mut world = World::new(WatchOptions::default());
    world.expect_selection();
    world.ready();
    world.expect_command();
    for pause in [200, 400] {
        world.reply(overload());
        world.input(StreamInput::Timeout);
        wait(&mut world, pause);
        let Some(StreamOutput::SelectServer { deprioritized }) = world.poll() else {
            panic!("a server is selected anew")
        };
        let avoid: Vec<_> = deprioritized.values().collect();
        assert_eq!(
            avoid,
            [&Avoid::AmongMongos],
            "not in a replica set unless that is asked for"
        );
        world.ready();
        world.expect_command();
    }
    world.reply(failure(91, &[]));
    assert_eq!(
        world.expect_end().unwrap_err().code(),
        Some(91),
        "the limit holds for all tries together"
    );
}

#[test]
fn closing_in_the_pause_before_a_get_more_kills_the_cursor() {
    let mut world = World::opened(WatchOptions::default());
    world.demand(Demand::Next);
    world.expect_get_more();
    world.reply(overload());
    let farewell = world.stream.close(None).unwrap();
    assert_eq!((farewell.commands.len(), farewell.busy), (2, false));
}

#[test]
fn a_connection_that_breaks_in_the_pause_before_a_get_more_is_resumed() {
    let mut world = World::opened(WatchOptions::default());
    world.demand(Demand::Next);
    world.expect_get_more();
    world.reply(overload());
    world.input(StreamInput::Failed(network_error()));
    world.expect_selection();
}
