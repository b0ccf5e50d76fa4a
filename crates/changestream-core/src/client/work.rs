//! What a client machine is for: one stream, or commands.

use std::time::{Duration, Instant};

use super::DeadlineReason;
use crate::command::{CommandMachine, CommandOutput};
use crate::event::ChangeEvent;
use crate::stream::{ClusterTime, Farewell, Server, StreamInput, StreamMachine, StreamOutput, StreamStats};
use crate::token::ResumeToken;
use crate::{ReadPreference, ServerAddress, Session};

/// The inner machine that servers are found for.
#[derive(Debug)]
pub(super) enum Work {
    Stream(Box<StreamMachine>),
    Commands(Box<CommandMachine>),
}

pub(super) enum WorkOutput {
    Stream(StreamOutput),
    Command(CommandOutput),
}

impl Work {
    pub(super) fn handle_input(&mut self, now: Instant, input: StreamInput) {
        let commands = match self {
            Self::Stream(stream) => return stream.handle_input(now, input),
            Self::Commands(commands) => commands,
        };
        match input {
            StreamInput::Ready(server) => commands.handle_ready(now, server, None),
            StreamInput::Reply(reply) => commands.handle_reply(now, reply),
            StreamInput::Failed(error) => commands.handle_failed(now, error),
            StreamInput::Timeout => commands.handle_timeout(now),
            // Only a stream has anything to demand, and takes replies in parts.
            StreamInput::Events(_) | StreamInput::Demand(_) | StreamInput::Begin => {}
        }
    }

    /// A connection to the server that was asked for is ready.
    pub(super) fn handle_ready(&mut self, now: Instant, server: Server, session_timeout: Option<Duration>) {
        match self {
            Self::Stream(stream) => stream.handle_input(now, StreamInput::Ready(server)),
            Self::Commands(commands) => commands.handle_ready(now, server, session_timeout),
        }
    }

    /// What was being done for a command whose time was over is given up.
    pub(super) fn given_up(&mut self, now: Instant) {
        match self {
            Self::Commands(commands) => commands.handle_given_up(now),
            Self::Stream(_) => {}
        }
    }

    pub(super) fn poll_output(&mut self, now: Instant) -> Option<WorkOutput> {
        match self {
            Self::Stream(stream) => stream.poll_output(now).map(WorkOutput::Stream),
            Self::Commands(commands) => commands.poll_output().map(WorkOutput::Command),
        }
    }

    #[inline]
    pub(super) fn take_ready(&mut self) -> Option<ChangeEvent> {
        match self {
            Self::Stream(stream) => stream.take_ready(),
            Self::Commands(_) => None,
        }
    }

    pub(super) fn take_awaited(&mut self, now: Instant) -> Option<ChangeEvent> {
        match self {
            Self::Stream(stream) => stream.take_awaited(now),
            Self::Commands(_) => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<(Instant, DeadlineReason)> {
        match self {
            Self::Stream(stream) => stream.deadline(),
            Self::Commands(commands) => commands.deadline(),
        }
    }

    /// How long each call may take, or a command that says nothing of its own.
    pub(super) fn call_limit(&self) -> Option<Duration> {
        match self {
            Self::Stream(stream) => stream.call_limit(),
            Self::Commands(commands) => commands.limit(),
        }
    }

    /// When the call ends, or the time of the command, that is going on; none without a limit.
    pub(super) fn call_end(&self) -> Option<Instant> {
        match self {
            Self::Stream(stream) => stream.call_end(),
            Self::Commands(commands) => commands.call_end(),
        }
    }

    /// Whether `timeoutMS` is set, be it to no limit.
    pub(super) fn is_timed(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.is_timed(),
            Self::Commands(commands) => commands.is_timed(),
        }
    }

    /// The only server that will do, if there is such a one.
    pub(super) fn only_server(&self) -> Option<&ServerAddress> {
        match self {
            Self::Stream(_) => None,
            Self::Commands(commands) => commands.only_server(),
        }
    }

    pub(super) fn close(&mut self, max_time: Option<Duration>) -> Option<Farewell> {
        match self {
            Self::Stream(stream) => stream.close(max_time),
            Self::Commands(commands) => commands.close(),
        }
    }

    pub(super) fn read_preference(&self) -> &ReadPreference {
        match self {
            Self::Stream(stream) => stream.read_preference(),
            Self::Commands(commands) => commands.read_preference(),
        }
    }

    /// The name of the command that a server is looked for for.
    pub(super) fn operation(&self) -> &str {
        match self {
            Self::Stream(_) => "aggregate",
            Self::Commands(commands) => commands.operation(),
        }
    }

    /// The cluster time of the user's session, if it works in one.
    pub(super) fn session_time(&self) -> Option<ClusterTime> {
        match self {
            Self::Stream(stream) => stream.explicit_session(),
            Self::Commands(commands) => commands.explicit_session(),
        }
        .and_then(Session::cluster_time)
    }

    /// Whether one connection is all that it needs. Commands go to one server now and to another then.
    pub(super) fn has_one_server(&self) -> bool {
        match self {
            Self::Stream(_) => true,
            Self::Commands(_) => false,
        }
    }

    pub(super) fn resume_token(&self) -> Option<&ResumeToken> {
        self.stream().and_then(StreamMachine::resume_token)
    }

    pub(super) fn is_open(&self) -> bool {
        self.stream().is_none_or(StreamMachine::is_open)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.stream().is_none_or(StreamMachine::is_alive)
    }

    pub(super) fn has_buffered(&self) -> bool {
        self.stream().is_some_and(StreamMachine::has_buffered)
    }

    pub(super) fn stats(&self) -> StreamStats {
        self.stream().map(StreamMachine::stats).unwrap_or_default()
    }

    fn stream(&self) -> Option<&StreamMachine> {
        match self {
            Self::Stream(stream) => Some(stream),
            Self::Commands(_) => None,
        }
    }
}
