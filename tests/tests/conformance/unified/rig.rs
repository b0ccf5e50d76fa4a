//! What runs a test's clients: the simulated world under its fake clock, or sockets on a real executor.

use std::time::{Duration, Instant};

use bson::Document;
use changestream_core::command::{CommandOptions, RunCommand};
use changestream_core::connection::DriverInfo;
use changestream_core::server_api::{ServerApi, ServerApiVersion};
use changestream_core::{ChangeEvent, Error, ReadPreference, Scope, Session, WatchOptions};

use super::logged::LogMessage;
use super::observed::Observed;
use super::schema::ServerApiDefinition;

/// A client of the test's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientId(pub(super) usize);

/// A change stream of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamId(pub(super) usize);

/// A command that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommandId(pub(super) usize);

/// A command of a client's own.
#[derive(Clone, Debug)]
pub(super) struct ClientCommand {
    pub(super) database: String,
    pub(super) command: Document,
    pub(super) read_preference: Option<ReadPreference>,
    pub(super) session: Option<Session>,
    /// Whether it is one of those that are retried once where they fail by a retryable error.
    pub(super) is_retryable_read: bool,
    /// `timeoutMS` of its own.
    pub(super) timeout: Option<Duration>,
}

impl ClientCommand {
    /// The command for the client to run.
    pub(super) fn run_command(&self) -> Result<RunCommand, Error> {
        RunCommand::new(self.database.clone(), &self.command, self.options())
    }

    pub(super) fn options(&self) -> CommandOptions {
        let mut options = CommandOptions::default().retryable_read(self.is_retryable_read);
        options.read_preference.clone_from(&self.read_preference);
        options.session.clone_from(&self.session);
        options.timeout = self.timeout;
        options
    }
}

/// The server API that a test declares.
pub(super) fn server_api(definition: &ServerApiDefinition) -> ServerApi {
    let mut api = ServerApi::new(ServerApiVersion::V1);
    api.strict = definition.strict;
    api.deprecation_errors = definition.deprecation_errors;
    api
}

/// A deployment, and clients of it.
pub(super) trait Rig {
    /// The deployment's connection string, without credentials.
    fn uri(&self) -> String;

    /// What this rig is called.
    fn name(&self) -> String;

    /// Runs a command by the internal client, at that member or at whichever takes writes.
    fn internal(
        &mut self,
        member: Option<usize>,
        database: &str,
        command: Document,
    ) -> Result<Document, String>;

    fn client(&mut self, uri: &str, api: Option<&ServerApiDefinition>) -> Result<ClientId, Error>;

    /// An open stream.
    fn watch(&mut self, client: ClientId, scope: &Scope, options: WatchOptions) -> Result<StreamId, Error>;

    /// The next event; none at the end.
    fn next(&mut self, stream: StreamId) -> Result<Option<ChangeEvent>, Error>;

    /// The event that at most one getMore brings.
    fn try_next(&mut self, stream: StreamId) -> Result<Option<ChangeEvent>, Error>;

    fn close_stream(&mut self, stream: StreamId);

    fn close_client(&mut self, client: ClientId);

    /// Starts a command, which goes on while others do something.
    fn start(&mut self, client: ClientId, command: ClientCommand) -> CommandId;

    /// A command's reply.
    fn finish(&mut self, command: CommandId) -> Result<Document, Error>;

    fn wait(&mut self, time: Duration);

    fn now(&self) -> Instant;

    fn append_metadata(&mut self, client: ClientId, info: &DriverInfo) -> Result<(), Error>;

    /// What the client has published since the last call.
    fn events(&mut self, client: ClientId) -> Vec<Observed>;

    /// What the client has logged since the last call, if the thread [listens](super::logged::listen); what it has published
    /// is to be taken before.
    fn logs(&mut self, client: ClientId) -> Vec<LogMessage>;
}
