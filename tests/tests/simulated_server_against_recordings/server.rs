//! The simulated deployment with the recorded connections on it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bson::raw::RawDocumentBuf;
use bson::spec::BinarySubtype;
use bson::{Binary, Document, Timestamp, doc};
use changestream_core::auth::scram::{Hash, Scram, ScramKeys};
use changestream_core::wire::{Flags, Message, encode_op_msg, encode_op_query};
use changestream_sim::{ConnectionId, Deployment, Input, Mechanism, Output};

/// A deployment as the recorded one, and what came back on each connection.
pub(crate) struct Server {
    pub(crate) deployment: Deployment,
    authenticates: bool,
    start: Instant,
    now: Instant,
    lines: BTreeMap<u64, Line>,
    /// A connection of our own, for writes.
    own: u64,
}

/// The server's end of a recorded connection.
struct Line {
    id: ConnectionId,
    replies: VecDeque<(Flags, Document)>,
    closed: bool,
}

/// What kind of deployment was recorded, by what a hello says.
pub(crate) fn build(name: &str, hello: &Document) -> Server {
    let config = if hello.contains_key("msg") {
        Deployment::sharded(2, 1)
    } else if let Ok(hosts) = hello.get_array("hosts") {
        Deployment::replica_set(hosts.len())
    } else {
        Deployment::standalone()
    };
    let authenticates = name.starts_with("auth-");
    let config = if authenticates {
        let users = config.user_with("sha1", "pencil", &[Mechanism::ScramSha1]);
        let users = users.user_with("sha256", "pencil", &[Mechanism::ScramSha256]);
        users.user("both", "pencil")
    } else {
        config
    };
    // Elections, no-ops and commits happen when the recording says so.
    let config = config.election_timeout(NEVER).handoff(NEVER).noop_interval(NEVER);
    let now = Instant::now();
    let mut server = Server {
        deployment: config.build(now).unwrap(),
        authenticates,
        start: now,
        now,
        lines: BTreeMap::new(),
        own: u64::MAX,
    };
    if server.is_sharded() {
        for command in [
            doc! { "enableSharding": "capdb", "$db": "admin" },
            doc! { "shardCollection": "capdb.c", "key": { "k": "hashed" }, "$db": "admin" },
        ] {
            server.write(command);
        }
    }
    server.hold();
    server
}

impl Server {
    pub(crate) fn is_sharded(&self) -> bool {
        self.deployment.shard_count() > 0
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Lets time pass until that moment of the recording.
    pub(crate) fn advance(&mut self, at: Duration) {
        self.advance_to(self.start + at);
    }

    fn advance_to(&mut self, until: Instant) {
        loop {
            match self.deployment.poll_output(self.now) {
                Output::Deadline(Some(at)) if at <= until => {
                    self.now = self.now.max(at);
                    self.deployment.handle_input(self.now, Input::Timeout);
                }
                Output::Deadline(_) if self.now < until => {
                    self.now = until;
                    self.deployment.handle_input(self.now, Input::Timeout);
                }
                Output::Deadline(_) => return,
                output => self.take(output),
            }
        }
    }

    fn take(&mut self, output: Output) {
        let line = |server: &mut Self, id| {
            let found = server.lines.iter().find(|(_, line)| line.id == id);
            found.map(|(number, _)| *number)
        };
        match output {
            Output::Transmit { connection, bytes } => {
                let (flags, body) = match Message::decode(&bytes).unwrap() {
                    Message::Msg(m) => (m.flags, m.body),
                    Message::Reply(r) => (Flags::NONE, r.document),
                    other => panic!("{other:?}"),
                };
                let body = Document::from_reader(&body[..]).unwrap();
                if let Some(line) = line(self, connection).and_then(|n| self.lines.get_mut(&n)) {
                    line.replies.push_back((flags, body));
                }
            }
            Output::Disconnect { connection } => {
                if let Some(line) = line(self, connection).and_then(|n| self.lines.get_mut(&n)) {
                    line.closed = true;
                }
            }
            Output::Listen { .. } | Output::Close { .. } | Output::Deadline(_) => {}
        }
    }

    pub(crate) fn open(&mut self, connection: u64, member: usize) {
        let id = self.deployment.new_connection();
        let input = Input::Accepted {
            member,
            connection: id,
        };
        self.deployment.handle_input(self.now, input);
        let line = Line {
            id,
            replies: VecDeque::new(),
            closed: false,
        };
        self.lines.insert(connection, line);
    }

    pub(crate) fn close(&mut self, connection: u64) {
        if let Some(line) = self.lines.get_mut(&connection) {
            line.closed = true;
            let input = Input::Disconnected { connection: line.id };
            self.deployment.handle_input(self.now, input);
        }
    }

    pub(crate) fn is_closed(&mut self, connection: u64) -> bool {
        self.advance_to(self.now);
        self.lines.get(&connection).is_none_or(|line| line.closed)
    }

    pub(crate) fn send(&mut self, connection: u64, flags: Flags, request: &Document) {
        let Some(line) = self.lines.get(&connection) else {
            return;
        };
        let id = line.id;
        let body = RawDocumentBuf::try_from(request).unwrap();
        let bytes = if request.contains_key("$db") {
            encode_op_msg(1, 0, flags, &body, &[])
        } else {
            encode_op_query(1, "admin.$cmd", &body)
        };
        let input = Input::Received {
            connection: id,
            bytes: &bytes,
        };
        self.deployment.handle_input(self.now, input);
        self.advance_to(self.now);
    }

    pub(crate) fn has_reply(&self, connection: u64) -> bool {
        self.lines
            .get(&connection)
            .is_some_and(|line| !line.replies.is_empty())
    }

    /// The next reply on the connection; waits a second longer than was recorded.
    pub(crate) fn reply(&mut self, connection: u64) -> Option<(Flags, Document)> {
        let limit = self.now + Duration::from_secs(1);
        while !self.has_reply(connection) && self.now < limit {
            self.advance_to(self.now + Duration::from_millis(1));
        }
        self.lines.get_mut(&connection)?.replies.pop_front()
    }

    /// Runs a command of our own on the primary, a millisecond later than what was before; when it wrote.
    pub(crate) fn write(&mut self, command: Document) -> (Instant, Timestamp) {
        self.advance_to(self.now + Duration::from_millis(1));
        let primary = self.deployment.primary().unwrap_or(0);
        self.own -= 1;
        self.open(self.own, primary);
        if self.authenticates {
            self.authenticate(self.own);
        }
        self.send(self.own, Flags::NONE, &command);
        let (_, reply) = self.reply(self.own).unwrap();
        assert!(
            reply.get_f64("ok").is_ok_and(|ok| ok == 1.0),
            "{command}: {reply}"
        );
        assert!(!reply.contains_key("writeErrors"), "{command}: {reply}");
        self.close(self.own);
        self.lines.remove(&self.own);
        (self.now, self.deployment.last_write().unwrap())
    }

    fn authenticate(&mut self, connection: u64) {
        let scram = Scram::new(Hash::Sha256, "both", "nonce");
        let payload = |text: String| Binary {
            subtype: BinarySubtype::Generic,
            bytes: text.into(),
        };
        let start = doc! {
            "saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": payload(scram.client_first()),
            "options": { "skipEmptyExchange": true }, "$db": "admin",
        };
        self.send(connection, Flags::NONE, &start);
        let (_, reply) = self.reply(connection).unwrap();
        let first = reply.get_binary_generic("payload").unwrap();
        let derive = |hash, salt: &[u8], iterations| Ok(ScramKeys::derive(hash, b"pencil", salt, iterations));
        let (last, _) = scram.answer(first, derive).unwrap();
        let go_on = doc! { "saslContinue": 1, "conversationId": 1, "payload": payload(last), "$db": "admin" };
        self.send(connection, Flags::NONE, &go_on);
        let (_, reply) = self.reply(connection).unwrap();
        assert!(reply.get_bool("done").is_ok_and(|done| done), "{reply}");
    }

    /// From now on, nothing is committed.
    pub(crate) fn hold(&mut self) {
        self.lag(NEVER);
    }

    /// Commits what was written until then, and nothing after it.
    pub(crate) fn commit(&mut self, until: Instant) {
        self.lag(self.now.saturating_duration_since(until));
        self.hold();
    }

    fn lag(&mut self, lag: Duration) {
        let now = self.now;
        let all = |set: &mut Deployment| {
            for member in 0..set.member_count() {
                set.lag(now, member, lag);
            }
        };
        if !self.is_sharded() {
            all(&mut self.deployment);
        }
        for shard in 0..self.deployment.shard_count() {
            self.deployment.on_shard(now, shard, all);
        }
        self.advance_to(now);
    }

    /// A write that nobody watches; in a cluster, one on each shard.
    pub(crate) fn write_elsewhere(&mut self) -> Instant {
        if self.is_sharded() {
            // By any command of a mongos, all shards learn the time, so that what they write is later than all before.
            self.write(doc! { "ping": 1, "$db": "admin" });
        }
        for shard in 0..self.deployment.shard_count() {
            self.write_on(shard);
        }
        if !self.is_sharded() {
            self.write(doc! { "insert": "c", "documents": [{}], "$db": "elsewhere" });
        }
        self.now
    }

    /// The same on the shard that has written nothing for longest.
    pub(crate) fn write_behind(&mut self) -> Instant {
        let now = self.now;
        let shards = 0..self.deployment.shard_count();
        let behind = shards.min_by_key(|shard| self.deployment.on_shard(now, *shard, |set| set.last_write()));
        self.write_on(behind.unwrap_or(0));
        self.now
    }

    fn write_on(&mut self, shard: usize) {
        let now = self.now;
        self.deployment.on_shard(now, shard, |set| {
            let insert = doc! { "insert": "c", "documents": [{}], "$db": "elsewhere" };
            let body = RawDocumentBuf::try_from(&insert).unwrap();
            let bytes = encode_op_msg(1, 0, Flags::NONE, &body, &[]);
            let (connection, member) = (set.new_connection(), set.primary().unwrap());
            set.handle_input(now, Input::Accepted { member, connection });
            set.handle_input(
                now,
                Input::Received {
                    connection,
                    bytes: &bytes,
                },
            );
            set.handle_input(now, Input::Disconnected { connection });
        });
    }
}

const NEVER: Duration = Duration::from_secs(3600);
