//! [`CommandMachine`].

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bson::{RawArrayBuf, RawDocumentBuf, rawdoc};

use super::RunCommand;
use super::budget::Budget;
use super::cursors::Cursors;
use crate::client::DeadlineReason;
use crate::random::Random;
use crate::stream::{
    Avoid, Command, CommandReply, Expects, Farewell, Retries, Server, is_max_time_expired, is_retryable_read,
    overload_delay, read_preference, retry_pause, too_short,
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
    waiting: VecDeque<(RunCommand, Budget)>,
    outbox: VecDeque<CommandOutput>,
    session: Option<Implicit>,
    cursors: Cursors,
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
    /// How long a server may be silent while its reply is awaited, where `timeoutMS` is not set. None is no limit.
    pub patience: Option<Duration>,
    /// Whether the client declares an API version, so that a command must not.
    pub declares_api: bool,
    /// `timeoutMS` of the client: for commands that have none of their own. Zero is no limit.
    pub timeout: Option<Duration>,
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
    /// A command has come to its end by this timeout, in the middle of something: a server is not looked for any more, and
    /// the connection to the one that was given last is to be given up if its reply is awaited. Answer with
    /// [`handle_given_up`](CommandMachine::handle_given_up).
    Abandoned(Error),
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
    /// Its time was over; what was being done for it is to be given up.
    Abandoning(Job),
    Closed,
}

/// A command with its tries.
#[derive(Debug)]
struct Job {
    command: RunCommand,
    budget: Budget,
    /// What the last try came to.
    failure: Option<Error>,
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
            cursors: Cursors::default(),
            primary: ReadPreference::default(),
            random,
        }
    }

    /// Runs a command, after those that were to be run before. [`CommandOutput::Replied`] follows, or
    /// [`CommandOutput::Abandoned`]. Its time begins now.
    pub fn run(&mut self, now: Instant, command: RunCommand) {
        let budget = Budget::new(command.options().timeout.or(self.rules.timeout), now);
        self.waiting.push_back((command, budget));
        self.go_on(now);
    }

    /// What it wants next.
    pub fn poll_output(&mut self) -> Option<CommandOutput> {
        self.outbox.pop_front()
    }

    /// The server asked for: a connection to it is ready. `session_timeout` is how long its deployment remembers a
    /// session that is not used.
    pub fn handle_ready(&mut self, now: Instant, server: Server, session_timeout: Option<Duration>) {
        let job = match std::mem::replace(&mut self.state, State::Closed) {
            State::Selecting(job) => job,
            unmoved @ (State::Idle(_)
            | State::Running(..)
            | State::BackingOff(..)
            | State::Abandoning(_)
            | State::Closed) => {
                self.state = unmoved;
                return;
            }
        };
        let options = job.command.options();
        let explicit = options.session.clone();
        if explicit.is_some() && !server.supports_sessions {
            let error = Error::invalid_argument("the deployment does not support sessions");
            return self.finish(now, Some(server), Err(error));
        }
        let Ok(max_time) = job.budget.share(now, server.min_round_trip) else {
            let error = too_short("the command", job.budget.limit(), &server);
            return self.finish(now, Some(server), Err(error));
        };
        let preference = read_preference(options.read_preference.as_ref().unwrap_or(&self.primary), &server);
        let session = match explicit {
            Some(session) => Some(session),
            None if server.supports_sessions => Some(self.implicit(now, session_timeout)),
            None => None,
        };
        let body = job.command.encode(session.as_ref(), preference, max_time);
        // "Drivers MUST ignore any deprecated timeout options if `timeoutMS` is set" (Client Side Operations Timeout
        // specification, "Validation and Overrides").
        let patience = self.rules.patience.filter(|_| !job.budget.is_set());
        self.outbox.push_back(CommandOutput::Send(Command {
            body,
            expects: Expects::Reply {
                within: patience.unwrap_or(Duration::MAX),
            },
            exhaust_allowed: false,
            in_parts: false,
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
                    let error = Error::new(ErrorKind::Server(error.clone())).at(server.address.clone());
                    let pause = reply.base_backoff();
                    self.failed(now, job, Some(server), error, pause);
                }
                None => {
                    self.cursors.learn(&job.command, &reply, &server.address);
                    let result = match job.budget.is_set().then(|| expired_write(&reply)).flatten() {
                        Some(error) => Err(given_up(error.at(server.address.clone()))),
                        None => Ok(reply),
                    };
                    self.finish(now, Some(server), result);
                }
            },
            unmoved @ (State::Idle(_)
            | State::Selecting(_)
            | State::BackingOff(..)
            | State::Abandoning(_)
            | State::Closed) => {
                self.state = unmoved;
            }
        }
    }

    /// The session of the user's that the command on its way is in.
    pub(crate) fn explicit_session(&self) -> Option<&Session> {
        self.job()?.command.options().session.as_ref()
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
            unmoved @ (State::BackingOff(..) | State::Abandoning(_) | State::Closed) => self.state = unmoved,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Selecting(job) if job.budget.is_over(now) => self.run_out(job, "no server was found"),
            State::BackingOff(job, _) if job.budget.is_over(now) => {
                self.run_out(job, "the command did not succeed");
            }
            State::Running(job, _) if job.budget.is_over(now) => {
                // As where the network fails.
                if let Some(implicit) = &mut self.session {
                    implicit.is_dirty = true;
                }
                self.run_out(job, "the command was not answered");
            }
            State::BackingOff(job, until) if until <= now => self.select(job),
            unmoved @ (State::Idle(_)
            | State::Selecting(_)
            | State::Running(..)
            | State::BackingOff(..)
            | State::Abandoning(_)
            | State::Closed) => self.state = unmoved,
        }
    }

    /// What was being done for the command whose time was over is given up: on to the next.
    pub fn handle_given_up(&mut self, now: Instant) {
        if matches!(self.state, State::Abandoning(_)) {
            self.state = State::Idle(None);
            self.go_on(now);
        }
    }

    /// When time alone moves it on, and what for.
    pub fn deadline(&self) -> Option<(Instant, DeadlineReason)> {
        let retry = match &self.state {
            State::BackingOff(_, until) => Some((*until, DeadlineReason::ResumeBackoff)),
            State::Abandoning(_) => return None,
            State::Idle(_) | State::Selecting(_) | State::Running(..) | State::Closed => None,
        };
        let end = self.call_end().map(|until| (until, DeadlineReason::Call));
        retry.into_iter().chain(end).min_by_key(|(at, _)| *at)
    }

    /// When the time of the command ends that is being run; none without a limit.
    pub fn call_end(&self) -> Option<Instant> {
        self.job().and_then(|job| job.budget.until())
    }

    /// Whether `timeoutMS` is set for the command that is being run, be it to no limit.
    pub fn is_timed(&self) -> bool {
        self.job().is_some_and(|job| job.budget.is_set())
    }

    /// `timeoutMS` of the client, if it is a limit.
    pub fn limit(&self) -> Option<Duration> {
        self.rules.timeout.filter(|timeout| !timeout.is_zero())
    }

    /// Ends it. Commands that are not answered never are. What is left to be told to a server is returned.
    pub fn close(&mut self) -> Option<Farewell> {
        self.outbox.clear();
        self.waiting.clear();
        let (server, busy) = match std::mem::replace(&mut self.state, State::Closed) {
            State::Idle(Some(server)) => (server, false),
            State::Running(_, server) => (server, true),
            State::Idle(None)
            | State::Selecting(_)
            | State::BackingOff(..)
            | State::Abandoning(_)
            | State::Closed => return None,
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
        let chosen = self
            .job()
            .and_then(|job| job.command.options().read_preference.as_ref());
        chosen.unwrap_or(&self.primary)
    }

    /// The only server that the command that is being run can go to: that of its cursor.
    pub fn only_server(&self) -> Option<&ServerAddress> {
        self.cursors.server_for(&self.job()?.command)
    }

    /// The name of the command that is being run; empty if none is.
    pub fn operation(&self) -> &str {
        self.job().map_or("", |job| job.command.name())
    }

    fn job(&self) -> Option<&Job> {
        match &self.state {
            State::Selecting(job)
            | State::Running(job, _)
            | State::BackingOff(job, _)
            | State::Abandoning(job) => Some(job),
            State::Idle(_) | State::Closed => None,
        }
    }

    /// Starts the next command, if none is under way.
    fn go_on(&mut self, now: Instant) {
        if !matches!(self.state, State::Idle(_)) {
            return;
        }
        let Some((command, budget)) = self.waiting.pop_front() else {
            return;
        };
        self.session.take_if(|implicit| implicit.is_dirty);
        if self.rules.declares_api && command.has("apiVersion") {
            let error = Error::invalid_argument(
                "the command has a field apiVersion, and the client declares one: leave out one of them",
            );
            self.outbox.push_back(CommandOutput::Replied(Err(error)));
            return self.go_on(now);
        }
        if budget.is_over(now) {
            let error = Error::timeout("the commands before it took all of its time (timeoutMS)", None);
            self.outbox.push_back(CommandOutput::Replied(Err(error)));
            return self.go_on(now);
        }
        self.select(Job {
            command,
            budget,
            failure: None,
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

    fn finish(&mut self, now: Instant, server: Option<Server>, result: Result<CommandReply, Error>) {
        self.outbox.push_back(CommandOutput::Replied(result));
        self.state = State::Idle(server);
        self.go_on(now);
    }

    fn run_out(&mut self, job: Job, doing: &str) {
        let limit = job.budget.limit().unwrap_or_default().as_millis();
        let error = Error::timeout(
            format!("{doing} within {limit} ms (timeoutMS)"),
            job.failure.clone(),
        );
        self.outbox.push_back(CommandOutput::Abandoned(error));
        self.state = State::Abandoning(job);
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
        let error = told(now, job.budget, error);
        if error.is_timeout() {
            return self.finish(now, server, Err(error));
        }
        // "If the driver cannot select a server for a retry attempt [...] drivers MUST raise the previous retryable error"
        // (Retryable Reads specification, "Selecting the server for retry").
        if let (ErrorKind::ServerSelection { .. }, Some(previous)) = (error.kind(), job.failure.take()) {
            return self.finish(now, server, Err(previous));
        }
        let retries = self.rules.retries;
        let is_read = job.command.options().retryable_read;
        let refused = error.is_overload();
        job.overloaded |= refused;
        let allowed = retries.reads && (is_read || (refused && self.rules.retries_writes));
        // "Drivers MUST retry operations as many times as possible before the timeout expires" (Client Side Operations
        // Timeout specification, "Retryability").
        let most = match (job.overloaded, job.budget.is_set()) {
            (true, _) => retries.overloads,
            (false, true) => u32::MAX,
            (false, false) => 1,
        };
        if !allowed || job.retries >= most || !(refused || is_retryable_read(&error)) {
            return self.finish(now, server, Err(error));
        }
        job.retries = job.retries.saturating_add(1);
        if let Some(server) = error.server() {
            job.avoided.insert(server.clone(), retries.avoid(refused));
        }
        let pause = if refused {
            Some(overload_delay(job.retries, base_backoff, &mut self.random))
        } else {
            retry_pause(job.retries, &mut self.random)
        };
        let Some(pause) = pause else {
            job.failure = Some(error);
            return self.select(job);
        };
        if refused && !job.budget.lasts_until(now + pause) {
            // There would be no time left for another try.
            return self.finish(now, server, Err(error));
        }
        job.failure = Some(error);
        self.state = State::BackingOff(job, now + pause);
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

/// The error as it is to be told where `timeoutMS` is set: what ran out of time is a timeout, whoever said so.
fn told(now: Instant, budget: Budget, error: Error) -> Error {
    if !budget.is_set() || error.is_timeout() {
        return error;
    }
    if error.server_error().is_some_and(is_max_time_expired) {
        return given_up(error);
    }
    if budget.is_over(now) {
        let limit = budget.limit().unwrap_or_default().as_millis();
        return Error::timeout(
            format!("the command failed at the end of {limit} ms (timeoutMS)"),
            Some(error),
        );
    }
    error
}

/// That the server gave up some of what a reply says went well.
fn expired_write(reply: &CommandReply) -> Option<Error> {
    let expired = reply.write_errors().find(is_max_time_expired)?;
    Some(Error::new(ErrorKind::Server(expired)))
}

fn given_up(error: Error) -> Error {
    Error::timeout("the server gave the command up", Some(error))
}

fn end(session: &Session) -> RawDocumentBuf {
    let mut sessions = RawArrayBuf::new();
    sessions.push(session.lsid());
    rawdoc! { "endSessions": sessions, "$db": "admin" }
}

const A_MINUTE: Duration = Duration::from_secs(60);
