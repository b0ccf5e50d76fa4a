//! Whom to ask, how long and how often.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use changestream_core::dns::DnsFault;
use resolv_conf::{Config, ScopedIp};

/// The name servers of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum DnsServers {
    /// Those of the system, as its settings are when a look-up starts.
    #[default]
    System,
    /// These, in this order.
    Given(Vec<SocketAddr>),
}

/// What a look-up is carried out by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// In the order in which they are asked; at least one.
    pub(super) servers: Vec<SocketAddr>,
    /// How long each may take to answer.
    pub(super) timeout: Duration,
    /// How often each is asked.
    pub(super) attempts: u32,
    /// Whether UDP is left out.
    pub(super) tcp_only: bool,
}

impl DnsServers {
    pub(super) fn settings(&self) -> Result<Settings, DnsFault> {
        match self {
            Self::System => system(),
            Self::Given(servers) if servers.is_empty() => {
                Err(DnsFault::no_server("the list of DNS servers to ask is empty"))
            }
            Self::Given(servers) => Ok(Settings {
                servers: servers.clone(),
                timeout: TIMEOUT,
                attempts: ATTEMPTS,
                tcp_only: false,
            }),
        }
    }
}

/// The system's settings. A file that is not there is one that names no server, hence the local machine
/// (resolv.conf(5)).
#[cfg(unix)]
fn system() -> Result<Settings, DnsFault> {
    match std::fs::read(RESOLV_CONF) {
        Ok(text) => settings(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => settings(b""),
        Err(error) => Err(DnsFault::no_server(format!("{RESOLV_CONF}: {error}"))),
    }
}

#[cfg(not(unix))]
fn system() -> Result<Settings, DnsFault> {
    Err(DnsFault::no_server("this platform's DNS settings are not read"))
}

/// Lines that cannot be understood are passed over, as the system's own resolver does. Search lists and `ndots` do not
/// apply: the names are absolute.
#[cfg_attr(not(unix), allow(dead_code, reason = "other platforms have no resolv.conf"))]
fn settings(text: &[u8]) -> Result<Settings, DnsFault> {
    let (mut config, errors) = Config::parse_with_errors(text);
    for error in errors {
        tracing::debug!(%error, "a line of the resolver's settings is passed over");
    }
    config.glibc_normalize();
    let servers: Vec<_> = config.get_nameservers_or_local().iter().map(address).collect();
    Ok(Settings {
        servers,
        timeout: Duration::from_secs(u64::from(config.timeout.clamp(1, MAX_TIMEOUT))),
        attempts: config.attempts.clamp(1, MAX_ATTEMPTS),
        tcp_only: config.use_vc,
    })
}

fn address(ip: &ScopedIp) -> SocketAddr {
    match ip {
        ScopedIp::V6(ip, Some(scope)) => {
            let scope = interface_index(scope).unwrap_or(0);
            SocketAddr::V6(SocketAddrV6::new(*ip, PORT, 0, scope))
        }
        ScopedIp::V4(_) | ScopedIp::V6(_, None) => SocketAddr::new(IpAddr::from(ip), PORT),
    }
}

/// A zone is a number, or the name of an interface.
fn interface_index(zone: &str) -> Option<u32> {
    zone.parse().ok().or_else(|| {
        let index = std::fs::read_to_string(format!("/sys/class/net/{zone}/ifindex")).ok()?;
        index.trim().parse().ok()
    })
}

#[cfg(unix)]
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// RFC 1035, section 4.2.
const PORT: u16 = 53;

/// resolv.conf(5): the defaults and the limits of `timeout` and `attempts`.
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 2;
const MAX_TIMEOUT: u32 = 30;
const MAX_ATTEMPTS: u32 = 5;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_systems_settings_say_whom_to_ask_how_long_and_how_often() {
        let text = b"# made by hand\nsearch example.com\nnameserver 192.0.2.1\nnameserver fe80::1%3\n\
            options timeout:2 attempts:3 use-vc ndots:5\nnonsense\n";
        let settings = settings(text).unwrap();
        let scoped = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, 3));
        assert_eq!(settings.servers, ["192.0.2.1:53".parse().unwrap(), scoped]);
        assert_eq!((settings.timeout, settings.attempts), (Duration::from_secs(2), 3));
        assert!(settings.tcp_only);
    }

    #[test]
    fn settings_without_a_server_mean_the_local_machine() {
        let settings = settings(b"").unwrap();
        assert_eq!(
            settings.servers,
            ["127.0.0.1:53", "[::1]:53"].map(|a| a.parse().unwrap())
        );
        assert_eq!((settings.timeout, settings.attempts), (TIMEOUT, ATTEMPTS));
    }

    #[test]
    fn settings_beyond_the_systems_limits_are_cut() {
        let text =
            b"nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n\
            options timeout:4000000000 attempts:0\n";
        let settings = settings(text).unwrap();
        assert_eq!(settings.servers.len(), 3);
        assert_eq!(
            (settings.timeout, settings.attempts),
            (Duration::from_secs(30), 1)
        );
    }

    #[test]
    fn an_empty_list_of_servers_is_said() {
        let fault = DnsServers::Given(Vec::new()).settings().unwrap_err();
        assert!(matches!(fault, DnsFault::NoServer { .. }), "{fault}");
    }
}
