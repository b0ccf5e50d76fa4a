//! The command machine: one command, one reply, with the session and the retries that belong to it.
//!
//! For what users of change streams want to say besides: `ping`, `create` with pre-images, `serverStatus`. Like the
//! [stream machine](crate::stream) it knows no bytes, sockets or topology: it asks for a server, gives the command for
//! it, and takes the reply. [`ClientMachine::for_commands`](crate::client::ClientMachine::for_commands) drives it.
//!
//! A command is sent as it is (Run Command specification): neither a read concern nor a read preference is inherited from
//! the client, and none is retried that does not say that it is a retryable read. A `getMore` or `killCursors` goes to the
//! server of its cursor, if the machine that runs it has seen the cursor opened.
//!
//! # Time
//!
//! Without `timeoutMS` a command takes as long as it takes, or `socketTimeoutMS` lets its server be silent. With it (Client
//! Side Operations Timeout specification), the limit holds for all of it: finding a server (for which there is
//! `serverSelectionTimeoutMS` too), connecting, authenticating, and every try. What runs out of time ends with
//! [`ErrorKind::Timeout`](crate::ErrorKind::Timeout), and a connection that a reply is still awaited on is closed.
//!
//! The server is told what is left of the time, less the shortest round trip to it, as the command's `maxTimeMS`; if that is
//! nothing, the command is not sent. So do not write `maxTimeMS` into a command where there is a limit: it would be there
//! twice, and the server refuses it. A `getMore` has none added, since servers take it there for cursors only that wait.
//! What the server itself gave up for it (code 50, also among write errors) is a timeout as well. A retryable read is
//! tried as often as the time allows.

mod budget;
mod cursors;
mod machine;

use std::time::Duration;

use bson::raw::cstr;
use bson::{Document, RawDocument, RawDocumentBuf};

pub use machine::{CommandMachine, CommandOutput, CommandRules};

use crate::stream::append_max_time;
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
    /// `timeoutMS`: the longest that the command may take, from when it is handed over to its reply, all that is done for
    /// it included. Zero is no limit. Default: that of the client, and without one no limit.
    ///
    /// See [the module](self#time) for what becomes of the command then.
    pub timeout: Option<Duration>,
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

    /// Sets [`timeout`](Self::timeout).
    #[must_use]
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = Some(time);
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

    /// Its name, such as `ping`: that of its first field.
    pub fn name(&self) -> &str {
        let first = self.body.iter_elements().next().and_then(Result::ok);
        first.map_or("", |element| element.key().as_str())
    }

    fn has(&self, field: &str) -> bool {
        !matches!(self.body.get(field), Ok(None))
    }

    /// Whether it is told how long it may take. "Drivers MUST NOT append a `maxTimeMS` field to `getMore` commands" (Client
    /// Side Operations Timeout specification, "Non-tailable Cursors").
    fn takes_max_time(&self) -> bool {
        self.name() != "getMore"
    }

    /// The command for a server: with the session, the database, the read preference, and how long the server may take.
    fn encode(
        &self,
        session: Option<&Session>,
        preference: Option<RawDocumentBuf>,
        max_time: Option<Duration>,
    ) -> RawDocumentBuf {
        let mut body = self.body.clone();
        if let Some(time) = max_time.filter(|_| self.takes_max_time()) {
            append_max_time(&mut body, time);
        }
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
