//! What is wrong with a connection string, and what is odd about it.

use std::fmt;

/// Why a connection string or a [`ClientOptions`](super::ClientOptions) cannot be used.
///
/// It names the place, and never repeats what may be a secret: neither a password, nor text that would be part of one
/// if the user forgot to percent-encode it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriError {
    place: UriPlace,
    reason: String,
}

impl UriError {
    pub(crate) fn new(place: UriPlace, reason: impl Into<String>) -> Self {
        Self {
            place,
            reason: reason.into(),
        }
    }

    pub(crate) fn option(name: &str, reason: impl Into<String>) -> Self {
        Self::new(
            UriPlace::Option {
                name: name.to_owned(),
            },
            reason,
        )
    }

    /// Where the fault is.
    pub fn place(&self) -> &UriPlace {
        &self.place
    }

    /// What the fault is, and what to do about it.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

impl std::error::Error for UriError {}

impl From<UriError> for crate::Error {
    fn from(error: UriError) -> Self {
        Self::invalid_argument(format!("connection string, {error}"))
    }
}

/// A place in a connection string.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UriPlace {
    /// The string as a whole.
    Whole,
    /// What stands before `://`.
    Scheme,
    /// User name and password.
    UserInfo,
    /// A host.
    #[non_exhaustive]
    Host {
        /// Its position in the list, counted from 1.
        number: usize,
    },
    /// The database between `/` and `?`.
    Database,
    /// A `key=value` pair that cannot be read as one.
    #[non_exhaustive]
    Pair {
        /// Its position behind the `?`, counted from 1.
        number: usize,
    },
    /// An option.
    #[non_exhaustive]
    Option {
        /// Its name as the specification writes it.
        name: String,
    },
}

impl fmt::Display for UriPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("the string"),
            Self::Scheme => f.write_str("scheme"),
            Self::UserInfo => f.write_str("user name and password"),
            Self::Host { number } => write!(f, "host {number}"),
            Self::Database => f.write_str("database name"),
            Self::Pair { number } => write!(f, "pair {number} behind the question mark"),
            Self::Option { name } => write!(f, "option {name}"),
        }
    }
}

/// Something odd about a connection string that does not keep it from being used: an option that is not known, is
/// repeated, is deprecated, or has a value that was ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// The option, as the specification writes it; an unknown one as the connection string writes it, in lower case.
    pub option: String,
    /// What is odd, and what was done about it. Never holds a value.
    pub text: String,
}

impl Warning {
    /// A warning about that option; for who makes something of it, and finds it odd then.
    pub fn new(option: &str, text: impl Into<String>) -> Self {
        Self {
            option: option.to_owned(),
            text: text.into(),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "option {}: {}", self.option, self.text)
    }
}
