//! Where a server listens.

use std::fmt;
use std::str::FromStr;

/// The address of one server: a TCP host and port, or a Unix domain socket.
///
/// Host names compare without case, so they are kept in lower case, as the Server Discovery And Monitoring
/// specification asks. An IPv6 address is kept without its brackets.
///
/// ```
/// use changestream_core::ServerAddress;
///
/// let address: ServerAddress = "Db1.Example.com".parse()?;
/// assert_eq!(address.to_string(), "db1.example.com:27017");
/// let address: ServerAddress = "[::1]:27018".parse()?;
/// assert_eq!((address.host(), address.port()), ("::1", Some(27018)));
/// # Ok::<(), changestream_core::address::InvalidAddress>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ServerAddress {
    /// A host name or IP address, and a port.
    #[non_exhaustive]
    Tcp {
        /// Host name, IPv4 or IPv6 address, in lower case, an IPv6 address without brackets.
        host: String,
        /// Port, 27017 where none is given.
        port: u16,
    },
    /// The path of a Unix domain socket.
    #[non_exhaustive]
    Unix {
        /// The path, percent-decoded, its case kept.
        path: String,
    },
}

impl ServerAddress {
    /// The port of a server whose address names none.
    pub const DEFAULT_PORT: u16 = 27017;

    /// A TCP address. The host is folded to lower case; brackets around an IPv6 address are taken off.
    pub fn tcp(host: &str, port: u16) -> Self {
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        Self::Tcp {
            host: host.to_lowercase(),
            port,
        }
    }

    /// A Unix domain socket.
    pub fn unix(path: impl Into<String>) -> Self {
        Self::Unix { path: path.into() }
    }

    /// The host, or the path of a Unix domain socket.
    pub fn host(&self) -> &str {
        match self {
            Self::Tcp { host, .. } => host,
            Self::Unix { path } => path,
        }
    }

    /// The port; none for a Unix domain socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp { port, .. } => Some(*port),
            Self::Unix { .. } => None,
        }
    }
}

/// Parses `host`, `host:port`, `[ipv6]`, `[ipv6]:port`, an IPv6 address without brackets and port, or a path that
/// ends in `.sock`, as a server's hello reply and a connection string (percent-decoded) give them.
impl FromStr for ServerAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = |reason| InvalidAddress {
            address: text.to_owned(),
            reason,
        };
        if text.is_empty() {
            return Err(invalid("it is empty"));
        }
        if text.ends_with(".sock") {
            return Ok(Self::unix(text));
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest
                .split_once(']')
                .ok_or_else(|| invalid("a bracket is not closed"))?;
            match rest {
                "" => (host, None),
                _ => match rest.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None => return Err(invalid("only a colon and a port may follow the bracket")),
                },
            }
        } else {
            match text.split_once(':') {
                Some((_, port)) if port.contains(':') => (text, None),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        if host.is_empty() {
            return Err(invalid("the host is empty"));
        }
        let port = match port {
            None => Self::DEFAULT_PORT,
            Some(port) => match port.parse::<u16>() {
                Ok(port) if port != 0 && !text.contains(":+") => port,
                _ => return Err(invalid("the port must be a number from 1 to 65535")),
            },
        };
        Ok(Self::tcp(host, port))
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { path } => f.write_str(path),
        }
    }
}

impl fmt::Debug for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no server address, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidAddress {
    address: String,
    reason: &'static str,
}

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid server address {:?}: {}", self.address, self.reason)
    }
}

impl std::error::Error for InvalidAddress {}
