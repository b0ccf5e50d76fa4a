//! [`CommandMachine`].

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bson::{RawArrayBuf, RawDocumentBuf, rawdoc};

use super::RunCommand;
use crate::random::Random;
use crate::stream::{
    Avoid, Command, CommandReply, Expects, Farewell, Retries, Server, is_max_time_expired, is_overload,
    is_retryable_read, overload_delay, read_preference,
};
use crate::{Error, ErrorKind, ReadPreference, ServerAddress, Session};

/// Runs commands, one after the other.
///
/// Those without a session of their own share an implicit one, which is used again while the server remembers it, and
/// left when the network has failed a command in it (Driver Sessions specification, "Server session pool").
#[derive(Debug)]
pub struct CommandMachine {
    rules: CommandRules,
    state: State,
    waiting: VecDeque<RunCommand>,
    outbox: VecDeque<CommandOutput>,
    session: Option<Implicit>,
    primary: ReadPreference,
    random: Random,
}

/// What the client's options say of commands.
#[derive(Clone, Copy, Debug)]
pub struct CommandRules {
    /// Which failures are answered by sending a command again.
    pub retries: Retries,
    /// `retryWrites`: a command that may write is sent again to an overloaded server only with this.
    pub retries_writes: bool,
    /// How long a reply may take. None is no limit.
    pub patience: Option<Duration>,
    /// Whether the client declares an API version, so that a command must not.
    pub declares_api: bool,
    /// Whether `timeoutMS` is set: a command that the server gave up for its `maxTimeMS` is a timeout then.
    pub is_timed: bool,
}

/// What a command machine wants.
#[derive(Debug)]
pub enum CommandOutput {
    /// A server by the command's read preference.
    SelectServer {
        /// Servers to avoid where there are others.
        deprioritized: BTreeMap<ServerAddress, Avoid>,
        /// Whether it is for a command that was tried before.
        again: bool,
    },
    /// Send this to the server that was given last. `$clusterTime` and the API version are for the sender to add.
    Send(Command),
    /// A command has come to its end.
    Replied(Result<CommandReply, Error>),
}

#[derive(Debug)]
enum State {
    /// Nothing to do; the server that the last command ran on, if the connection to it stands.
    Idle(Option<Server>),
    /// A server was asked for.
    Selecting(Job),
    /// The command is on its way.
    Running(Job, Server),
    /// The next try waits for its time.
    BackingOff(Job, Instant),
    Closed,
}

/// A command with its tries.
#[derive(Debug)]
struct Job {
    command: RunCommand,
    retries: u32,
    /// Whether an overloaded server refused it: it may then be tried again more often.
    overloaded: bool,
    avoided: BTreeMap<ServerAddress, Avoid>,
}

/// A session of the machine's own.
#[derive(Debug)]
struct Implicit {
    session: Session,
    used: Instant,
    /// Whether the network failed in it: the next command gets another one (Driver Sessions, "Server session").
    is_dirty: bool,
}

impl CommandMachine {
    /// A machine with nothing to do.
    pub fn new(rules: CommandRules, random: Random) -> Self {
        Self {
            rules,
            state: State::Idle(None),
            waiting: VecDeque::new(),
            outbox: VecDeque::new(),
            session: None,
            primary: ReadPreference::default(),
            random,
        }
    }

    /// Runs a command, after those that were to be run before. [`CommandOutput::Replied`] follows.
    pub fn run(&mut self, command: RunCommand) {
        self.waiting.push_back(command);
        self.go_on();
    }

    /// What it wants next.
    pub fn poll_output(&mut self) -> Option<CommandOutput> {
        self.outbox.pop_front()
    }

    /// The server asked for: a connection to it is ready. `session_timeout` is how long its deployment remembers a
    /// session that is not used.
    pub fn handle_ready(&mut self, now: Instant, server: Server, session_timeout: Option<Duration>) {
        let State::Selecting(job) = std::mem::replace(&mut self.state, State::Closed) else {
            return;
        };
        let options = job.command.options();
        let explicit = options.session.clone();
        if explicit.is_some() && !server.supports_sessions {
            let error = Error::invalid_argument("the deployment does not support sessions");
            return self.finish(Some(server), Err(error));
        }
        let preference = read_preference(options.read_preference.as_ref().unwrap_or(&self.primary), &server);
        let session = match explicit {
            Some(session) => Some(session),
            None if server.supports_sessions => Some(self.implicit(now, session_timeout)),
            None => None,
        };
        let body = job.command.encode(session.as_ref(), preference);
        self.outbox.push_back(CommandOutput::Send(Command {
            body,
            expects: Expects::Reply {
                within: self.rules.patience.unwrap_or(Duration::MAX),
            },
            exhaust_allowed: false,
        }));
        self.state = State::Running(job, server);
    }

    /// The answer to the command on its way.
    pub fn handle_reply(&mut self, now: Instant, reply: CommandReply) {
        if let Some(session) = self.explicit_session() {
            session.learn(reply.operation_time, reply.cluster_time.as_ref());
        }
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Running(job, server) => match &reply.error {
                Some(error) => {
                    let expired = self.rules.is_timed && is_max_time_expired(error);
                    let error = Error::new(ErrorKind::Server(error.clone())).at(server.address.clone());
                    let error = if expired {
                        Error::timeout("the server gave the command up", Some(error))
                    } else {
                        error
                    };
                    let pause = reply.base_backoff();
                    self.failed(now, job, Some(server), error, pause);
                }
                None => self.finish(Some(server), Ok(reply)),
            },
            unmoved @ (State::Idle(_) | State::Selecting(_) | State::BackingOff(..) | State::Closed) => {
                self.state = unmoved;
            }
        }
    }

    /// The session of the user's that the command on its way is in.
    pub(crate) fn explicit_session(&self) -> Option<&Session> {
        match &self.state {
            State::Selecting(job) | State::BackingOff(job, _) | State::Running(job, _) => {
                job.command.options().session.as_ref()
            }
            State::Idle(_) | State::Closed => None,
        }
    }

    /// No server was found, or the connection is gone.
    pub fn handle_failed(&mut self, now: Instant, error: Error) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Running(job, server) => {
                // The server may have run it: what the session's next command would mean there is not known. To try this
                // one again is another matter.
                if let Some(implicit) = &mut self.session {
                    implicit.is_dirty = true;
                }
                self.failed(now, job, None, error.at(server.address), None);
            }
            State::Selecting(job) => self.failed(now, job, None, error, None),
            State::Idle(_) => self.state = State::Idle(None),
            unmoved @ (State::BackingOff(..) | State::Closed) => self.state = unmoved,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::BackingOff(job, until) if until <= now => self.select(job),
            unmoved @ (State::Idle(_)
            | State::Selecting(_)
            | State::Running(..)
            | State::BackingOff(..)
            | State::Closed) => self.state = unmoved,
        }
    }

    /// When time alone moves it on.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::BackingOff(_, until) => Some(*until),
            State::Idle(_) | State::Selecting(_) | State::Running(..) | State::Closed => None,
        }
    }

    /// Ends it. Commands that are not answered never are. What is left to be told to a server is returned.
    pub fn close(&mut self) -> Option<Farewell> {
        self.outbox.clear();
        self.waiting.clear();
        let (server, busy) = match std::mem::replace(&mut self.state, State::Closed) {
            State::Idle(Some(server)) => (server, false),
            State::Running(_, server) => (server, true),
            State::Idle(None) | State::Selecting(_) | State::BackingOff(..) | State::Closed => return None,
        };
        let clean = self.session.take().filter(|implicit| !implicit.is_dirty);
        let commands = clean.map(|implicit| end(&implicit.session));
        Some(Farewell {
            server: server.address,
            commands: commands.into_iter().collect(),
            busy,
        })
    }

    /// The read preference that a server is to be selected by.
    pub fn read_preference(&self) -> &ReadPreference {
        let job = match &self.state {
            State::Selecting(job) | State::Running(job, _) | State::BackingOff(job, _) => Some(job),
            State::Idle(_) | State::Closed => None,
        };
        let chosen = job.and_then(|job| job.command.options().read_preference.as_ref());
        chosen.unwrap_or(&self.primary)
    }

    /// Starts the next command, if none is under way.
    fn go_on(&mut self) {
        if !matches!(self.state, State::Idle(_)) {
            return;
        }
        let Some(command) = self.waiting.pop_front() else {
            return;
        };
        self.session.take_if(|implicit| implicit.is_dirty);
        if self.rules.declares_api && command.has("apiVersion") {
            let error = Error::invalid_argument(
                "the command has a field apiVersion, and the client declares one: leave out one of them",
            );
            self.outbox.push_back(CommandOutput::Replied(Err(error)));
            return self.go_on();
        }
        self.select(Job {
            command,
            retries: 0,
            overloaded: false,
            avoided: BTreeMap::new(),
        });
    }

    fn select(&mut self, job: Job) {
        self.outbox.push_back(CommandOutput::SelectServer {
            deprioritized: job.avoided.clone(),
            again: job.retries > 0,
        });
        self.state = State::Selecting(job);
    }

    fn finish(&mut self, server: Option<Server>, result: Result<CommandReply, Error>) {
        self.outbox.push_back(CommandOutput::Replied(result));
        self.state = State::Idle(server);
        self.go_on();
    }

    /// Once more if it is a retryable read, some times more if a server was overloaded (Retryable Reads and Client
    /// Backpressure specifications).
    fn failed(
        &mut self,
        now: Instant,
        mut job: Job,
        server: Option<Server>,
        error: Error,
        base_backoff: Option<Duration>,
    ) {
        let retries = self.rules.retries;
        let is_read = job.command.options().retryable_read;
        let refused = error.server_error().is_some_and(is_overload);
        job.overloaded |= refused;
        let allowed = retries.reads && (is_read || (refused && self.rules.retries_writes));
        let most = if job.overloaded { retries.overloads } else { 1 };
        if !allowed || job.retries >= most || !(refused || is_retryable_read(&error)) {
            return self.finish(server, Err(error));
        }
        job.retries += 1;
        if let Some(server) = error.server() {
            job.avoided.insert(server.clone(), retries.avoid(refused));
        }
        if !refused {
            return self.select(job);
        }
        let delay = overload_delay(job.retries, base_backoff, &mut self.random);
        self.state = State::BackingOff(job, now + delay);
    }

    /// The implicit session: the one used last, unless the server is about to forget it ("at least one minute left").
    fn implicit(&mut self, now: Instant, timeout: Option<Duration>) -> Session {
        let left = |implicit: &Implicit| {
            let unused = now.saturating_duration_since(implicit.used);
            timeout.is_none_or(|timeout| unused + A_MINUTE < timeout)
        };
        let (session, is_dirty) = match self.session.take().filter(left) {
            Some(implicit) => (implicit.session, implicit.is_dirty),
            None => (Session::new(&mut self.random).causally_consistent(false), false),
        };
        self.session = Some(Implicit {
            session: session.clone(),
            used: now,
            is_dirty,
        });
        session
    }
}

fn end(session: &Session) -> RawDocumentBuf {
    let mut sessions = RawArrayBuf::new();
    sessions.push(session.lsid());
    rawdoc! { "endSessions": sessions, "$db": "admin" }
}

const A_MINUTE: Duration = Duration::from_secs(60);
