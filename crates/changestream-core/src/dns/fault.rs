//! Why there is no seed list.

use std::fmt;

/// Why a look-up gave no records, or the records no seed list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DnsFault {
    /// It is not known whom to ask.
    #[non_exhaustive]
    NoServer {
        /// Why not.
        message: String,
    },
    /// The name does not exist (NXDOMAIN).
    NoSuchName,
    /// The name exists and has no such records.
    NoRecords,
    /// The name server answered by an error code.
    #[non_exhaustive]
    Refused {
        /// Which one, such as `SERVFAIL`.
        code: String,
    },
    /// No name server answered in time.
    TimedOut,
    /// What was answered is no answer: bytes that are no DNS message, or a chain of aliases without end.
    #[non_exhaustive]
    Malformed {
        /// What is wrong with it.
        message: String,
    },
    /// The name server could not be reached.
    #[non_exhaustive]
    Network {
        /// What the operating system says.
        message: String,
    },
    /// A server's host is not below the domain of the connection string's host: whoever answers DNS could lead the
    /// client to a server of theirs.
    #[non_exhaustive]
    ForeignHost {
        /// The host.
        host: String,
        /// What it has to end with.
        domain: String,
    },
    /// There are several TXT records, and which one counts cannot be told.
    SeveralTxtRecords,
    /// The TXT record says what it must not, or cannot be read.
    #[non_exhaustive]
    TxtOptions {
        /// What is wrong with it.
        message: String,
    },
    /// What DNS says contradicts the connection string, or itself.
    #[non_exhaustive]
    Contradiction {
        /// The contradiction.
        message: String,
    },
}

impl DnsFault {
    /// Nobody to ask.
    pub fn no_server(message: impl Into<String>) -> Self {
        Self::NoServer {
            message: message.into(),
        }
    }

    /// The name server answered by that error code.
    pub fn refused(code: impl Into<String>) -> Self {
        Self::Refused { code: code.into() }
    }

    /// Not an answer.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::Malformed {
            message: message.into(),
        }
    }

    /// The name server could not be reached.
    pub fn network(message: impl Into<String>) -> Self {
        Self::Network {
            message: message.into(),
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::NoServer { .. } => {
                "name the DNS servers to ask in the client's settings, or list the MongoDB servers in a mongodb:// connection string"
            }
            Self::NoSuchName | Self::NoRecords => {
                "check the host name and srvServiceName; a host that is itself a server needs mongodb:// without +srv"
            }
            Self::Refused { .. } | Self::TimedOut | Self::Network { .. } | Self::Malformed { .. } => {
                "check this machine's DNS servers and whether they are reachable over UDP and TCP, or list the MongoDB servers in a mongodb:// connection string"
            }
            Self::ForeignHost { .. } => {
                "no server was connected to; have whoever runs this domain put its servers below it, or, if they belong elsewhere, name that domain by srvAllowedHostsSuffix"
            }
            Self::SeveralTxtRecords => "have whoever runs this domain leave one TXT record for this name",
            Self::TxtOptions { .. } => {
                "have whoever runs this domain correct its TXT record, which may set authSource, replicaSet and loadBalanced"
            }
            Self::Contradiction { .. } => {
                "take the option out of the connection string, or correct the records"
            }
        }
    }
}

impl fmt::Display for DnsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer { message } => write!(f, "there is no DNS server to ask: {message}"),
            Self::NoSuchName => f.write_str("the name does not exist (NXDOMAIN)"),
            Self::NoRecords => f.write_str("the name has no such records"),
            Self::Refused { code } => write!(f, "the DNS server answered {code}"),
            Self::TimedOut => f.write_str("no DNS server answered in time"),
            Self::Malformed { message } => write!(f, "the DNS server's answer is malformed: {message}"),
            Self::Network { message } => write!(f, "the DNS server cannot be reached: {message}"),
            Self::ForeignHost { host, domain } => {
                write!(f, "the records name the host {host}, which is not below {domain}")
            }
            Self::SeveralTxtRecords => f.write_str("there is more than one TXT record"),
            Self::TxtOptions { message } => write!(f, "the TXT record cannot be used: {message}"),
            Self::Contradiction { message } => f.write_str(message),
        }
    }
}

impl std::error::Error for DnsFault {}
