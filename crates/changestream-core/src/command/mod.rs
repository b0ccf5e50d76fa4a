//! The command machine: one command, one reply, with the session and the retries that belong to it.
//!
//! For what users of change streams want to say besides: `ping`, `create` with pre-images, `serverStatus`. Like the
//! [stream machine](crate::stream) it knows no bytes, sockets or topology: it asks for a server, gives the command for
//! it, and takes the reply. [`ClientMachine::for_commands`](crate::client::ClientMachine::for_commands) drives it.
//!
//! A command is sent as it is (Run Command specification): neither a read concern nor a read preference is inherited from
//! the client, and none is retried that does not say that it is a retryable read.

mod machine;

use bson::raw::cstr;
use bson::{Document, RawDocument, RawDocumentBuf};

pub use machine::{CommandMachine, CommandOutput, CommandRules};

use crate::{Error, ReadPreference, Session};

/// How a command is to be run. What is not set is as the server has it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CommandOptions {
    /// Which servers may run it. Default: the primary, whatever the client's read preference is.
    pub read_preference: Option<ReadPreference>,
    /// The session to run it in. Default: an implicit one.
    pub session: Option<Session>,
    /// Whether it is a read that may be sent once more when the network or the server fails it, as the Retryable Reads
    /// specification says, if `retryReads` allows. Default: false. Never set it for what writes.
    pub retryable_read: bool,
}

impl CommandOptions {
    /// Sets [`read_preference`](Self::read_preference).
    #[must_use]
    pub fn read_preference(mut self, preference: ReadPreference) -> Self {
        self.read_preference = Some(preference);
        self
    }

    /// Sets [`session`](Self::session).
    #[must_use]
    pub fn session(mut self, session: Session) -> Self {
        self.session = Some(session);
        self
    }

    /// Sets [`retryable_read`](Self::retryable_read).
    #[must_use]
    pub fn retryable_read(mut self, is: bool) -> Self {
        self.retryable_read = is;
        self
    }
}

/// A command to be run: encoded, and checked for contradictions.
#[derive(Clone, Debug, PartialEq)]
pub struct RunCommand {
    database: String,
    body: RawDocumentBuf,
    options: CommandOptions,
}

impl RunCommand {
    /// This command on that database. Its first field is its name.
    ///
    /// # Errors
    /// The document is empty or cannot be encoded, the database's name is illegal, or the document says what is for the
    /// client to say: `$db` in any case, `lsid` and `$readPreference` where the options give one too.
    pub fn new(
        database: impl Into<String>,
        command: &Document,
        options: CommandOptions,
    ) -> Result<Self, Error> {
        let database = database.into();
        if database.is_empty() || database.contains(['\0', '.']) {
            return Err(Error::invalid_argument(
                "the name of the database is empty, or holds a zero byte or a dot",
            ));
        }
        if command.is_empty() {
            return Err(Error::invalid_argument("a command has at least its name"));
        }
        let given_twice = |what: &str| {
            Err(Error::invalid_argument(format!(
                "the command has a field {what} and the options say the same: leave out one of them"
            )))
        };
        if command.contains_key("$db") {
            return Err(Error::invalid_argument(
                "the command has a field $db: ask the database of that name to run it instead",
            ));
        }
        if options.session.is_some() && command.contains_key("lsid") {
            return given_twice("lsid");
        }
        if options.read_preference.is_some() && command.contains_key("$readPreference") {
            return given_twice("$readPreference");
        }
        let body = RawDocumentBuf::try_from(command).map_err(|error| {
            Error::invalid_argument(format!("the command cannot be encoded as BSON: {error}"))
        })?;
        Ok(Self {
            database,
            body,
            options,
        })
    }

    /// How it is to be run.
    pub fn options(&self) -> &CommandOptions {
        &self.options
    }

    /// The command without what the client adds.
    pub fn as_raw(&self) -> &RawDocument {
        &self.body
    }

    fn has(&self, field: &str) -> bool {
        !matches!(self.body.get(field), Ok(None))
    }

    /// The command for a server: with the session, the database and the read preference.
    fn encode(&self, session: Option<&Session>, preference: Option<RawDocumentBuf>) -> RawDocumentBuf {
        let mut body = self.body.clone();
        if let Some(session) = session.filter(|_| !self.has("lsid")) {
            body.append(cstr!("lsid"), session.lsid());
        }
        body.append(cstr!("$db"), self.database.as_str());
        if let Some(preference) = preference.filter(|_| !self.has("$readPreference")) {
            body.append(cstr!("$readPreference"), preference);
        }
        body
    }
}
