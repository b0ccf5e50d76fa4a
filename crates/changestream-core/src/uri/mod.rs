//! Connection strings, and the options that they and code set.
//!
//! The rules are those of the Connection String, URI Options and Authentication specifications, and of those that
//! these refer to. What is wrong is an [`UriError`] that names the place; what is odd but harmless is a [`Warning`],
//! handed over as data for the caller to print or not.
//!
//! A few readings that the specifications leave open:
//!
//! - An option given twice takes its last value, with a warning; only `readPreferenceTags` adds up. A proxy option
//!   given twice is an error.
//! - Pairs are separated by `&`; by `;`, with a warning, only where there is no `&` and each piece is a pair.
//! - Lists and `key:value` lists (`compressors`, `readPreferenceTags`, `authMechanismProperties`) are decoded before
//!   they are split at commas: **a value that holds a comma, such as a `TOKEN_RESOURCE`, cannot be given in a
//!   connection string**. Set it by code.
//! - `+` is a plus, never a space.
//! - A host is a Unix domain socket if its decoded form holds a slash; it then must end in `.sock`.
//! - `MONGODB-AWS` may name its keys in the connection string.

mod credential;
mod error;
mod host;
mod option_table;
mod options;
mod parts;
mod secret;
mod srv;
mod validate;
mod values;

use std::fmt;
use std::str::FromStr;

pub use credential::{AuthMechanism, Credential, MechanismProperties};
pub use error::{UriError, UriPlace, Warning};
pub use options::{
    Acknowledgment, ClientOptions, PoolOptions, ProxyOptions, ServerMonitoringMode, TlsOptions, WriteConcern,
};
pub use secret::Secret;

use crate::address::ServerAddress;
use crate::auth::OidcFlow;
pub use crate::wire::Compressor;
use option_table::Draft;
use parts::{Parts, Scheme};

/// A `mongodb://` or `mongodb+srv://` connection string, parsed and checked.
///
/// `Display` and `Debug` show the string as it was given, but for `***` in place of passwords, mechanism properties
/// and the values of unknown options: fit for logs.
///
/// ```
/// use changestream_core::ConnectionString;
///
/// let parsed: ConnectionString = "mongodb://alice:p%40ss@db1,db2:27018/shop?replicaSet=rs0&shiny=yes".parse()?;
/// assert_eq!(parsed.hosts().len(), 2);
/// assert_eq!(parsed.options.replica_set.as_deref(), Some("rs0"));
/// assert_eq!(parsed.warnings[0].to_string(), "option shiny: is unknown and was ignored");
/// assert_eq!(parsed.to_string(), "mongodb://alice:***@db1,db2:27018/shop?replicaSet=rs0&shiny=***");
/// # Ok::<(), changestream_core::uri::UriError>(())
/// ```
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct ConnectionString {
    /// All that it says, with defaults for what it does not say.
    pub options: ClientOptions,
    /// What is odd about it, in the order in which it was found. Worth a log line each.
    pub warnings: Vec<Warning>,
    redacted: String,
}

impl ConnectionString {
    /// The seed list, as given; empty with `mongodb+srv://`, where it is found in DNS.
    pub fn hosts(&self) -> &[ServerAddress] {
        &self.options.hosts
    }

    /// The database between `/` and `?`.
    pub fn default_database(&self) -> Option<&str> {
        self.options.default_database.as_deref()
    }
}

impl FromStr for ConnectionString {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse_for(text, None)
    }
}

impl ConnectionString {
    /// Parses one for a client that will be given a callback for the tokens of MONGODB-OIDC, by code: its
    /// `authMechanismProperties` then must not name an `ENVIRONMENT`. With any other mechanism the same as
    /// [`from_str`](Self::from_str).
    ///
    /// ```
    /// use changestream_core::ConnectionString;
    /// use changestream_core::auth::OidcFlow;
    ///
    /// let text = "mongodb://localhost/?authMechanism=MONGODB-OIDC";
    /// assert!(text.parse::<ConnectionString>().is_err());
    /// let parsed = ConnectionString::parse_with_oidc_callback(text, OidcFlow::Machine)?;
    /// # Ok::<(), changestream_core::uri::UriError>(())
    /// ```
    pub fn parse_with_oidc_callback(text: &str, flow: OidcFlow) -> Result<Self, UriError> {
        Self::parse_for(text, Some(flow))
    }

    fn parse_for(text: &str, oidc_callback: Option<OidcFlow>) -> Result<Self, UriError> {
        let parts = Parts::split(text)?;
        let user_info = parts.user_info()?;
        let (hosts, srv_host) = match parts.scheme {
            Scheme::Hosts => (host::parse_all(parts.hosts, !parts.may_leak)?, None),
            Scheme::Srv => (Vec::new(), Some(srv::parse_host(parts.hosts)?)),
        };
        let database = parts.database()?;
        let pairs = parts.pairs()?;
        let mut draft = Draft::new(hosts, srv_host, database);
        draft.apply(&pairs)?;
        let (options, warnings) = draft.finish(user_info, oidc_callback)?;
        options.validate()?;
        Ok(Self {
            options,
            warnings,
            redacted: parts.redacted(&pairs),
        })
    }
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted)
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionString")
            .field("text", &self.redacted)
            .field("options", &self.options)
            .field("warnings", &self.warnings)
            .finish()
    }
}
