//! What is particular to `mongodb+srv://` (Initial DNS Seedlist Discovery specification).

use super::ClientOptions;
use super::error::{UriError, UriPlace};
use super::option_table::Draft;
use super::parts::{Pairs, decode};
use crate::dns::SrvName;

/// The one host, in lower case. Errors do not repeat it: it may be part of a password whose at-sign is missing.
pub(super) fn parse_host(text: &str) -> Result<String, UriError> {
    let invalid = |reason: &str| UriError::new(UriPlace::Host { number: 1 }, reason);
    if text.contains(',') {
        return Err(UriError::new(
            UriPlace::Host { number: 2 },
            "mongodb+srv takes one host, whose SRV records list the servers; list servers with mongodb://",
        ));
    }
    if text.starts_with('[') {
        return Err(invalid(IP_ADDRESS));
    }
    if text.contains(':') {
        return Err(invalid(
            "mongodb+srv takes no port: the SRV records name the servers' ports",
        ));
    }
    let host = decode(text).map_err(invalid)?;
    check_host(&host).map_err(invalid)?;
    Ok(SrvName::new(&host, None).host().to_owned())
}

impl ClientOptions {
    /// "URI Validation".
    pub(super) fn validate_srv(&self) -> Result<(), UriError> {
        let Some(host) = &self.srv_host else {
            let option = if self.srv_allowed_hosts_suffix.is_some() {
                "srvAllowedHostsSuffix"
            } else if self.srv_max_hosts.is_some() {
                "srvMaxHosts"
            } else if self.srv_service_name.is_some() {
                "srvServiceName"
            } else {
                return Ok(());
            };
            return Err(UriError::option(option, "needs the mongodb+srv scheme"));
        };
        check_host(host).map_err(|reason| UriError::new(UriPlace::Host { number: 1 }, reason))?;
        if self
            .srv_service_name
            .as_deref()
            .is_some_and(|name| !is_service(name))
        {
            return Err(UriError::option("srvServiceName", SERVICE));
        }
        if !crate::dns::is_host_name(
            &SrvName::new(host, self.srv_service_name.as_deref())
                .servers()
                .name,
        ) {
            return Err(UriError::new(UriPlace::Host { number: 1 }, "it is too long"));
        }
        if let Some(suffix) = &self.srv_allowed_hosts_suffix {
            check_suffix(suffix).map_err(|reason| UriError::option("srvAllowedHostsSuffix", reason))?;
        }
        if self.direct_connection == Some(true) {
            return Err(UriError::option("directConnection", "contradicts mongodb+srv"));
        }
        let limited = self.srv_max_hosts.is_some_and(|max| max > 0);
        if limited && self.replica_set.is_some() {
            return Err(UriError::option("srvMaxHosts", "contradicts replicaSet"));
        }
        if limited && self.load_balanced {
            return Err(UriError::option("srvMaxHosts", "contradicts loadBalanced=true"));
        }
        Ok(())
    }

    /// Takes over what a TXT record says, where nothing was said before: "a Client MUST use options specified in the
    /// Connection String to override options provided through TXT records".
    ///
    /// `authSource` does not concern a mechanism that knows users by `$external` only.
    pub(crate) fn add_defaults(&mut self, text: &str) -> Result<(), UriError> {
        let pairs = Pairs::parse(text)?;
        if let Some(pair) = pairs
            .list
            .iter()
            .find(|pair| !ALLOWED.iter().any(|name| name.eq_ignore_ascii_case(&pair.key)))
        {
            return Err(UriError::option(&pair.printable_key(), "must not be set by DNS"));
        }
        let mut draft = Draft::new(Vec::new(), None, None);
        draft.apply(&pairs)?;
        let (auth_source, replica_set, load_balanced) = draft.into_defaults();
        if self.replica_set.is_none() {
            self.replica_set = replica_set;
        }
        if !self.stated.load_balanced {
            self.load_balanced |= load_balanced;
        }
        if let (Some(source), Some(credential)) = (auth_source, &mut self.credential)
            && !self.stated.auth_source
            && credential.has_default_source(self.default_database.as_deref())
        {
            credential.source = source;
        }
        Ok(())
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.parse::<std::net::IpAddr>().is_ok() {
        return Err(IP_ADDRESS);
    }
    if !name.is_ascii() {
        return Err("write a name with letters beyond ASCII in its encoded form (xn--)");
    }
    if !crate::dns::is_host_name(name) {
        return Err(
            "it must be a host name: letters, digits and hyphens, in parts of at most 63 separated by dots",
        );
    }
    Ok(())
}

/// With or without a dot at either end.
fn check_suffix(text: &str) -> Result<(), &'static str> {
    let name = crate::dns::without_dots(text);
    if !crate::dns::is_host_name(name) {
        return Err("must be a domain's name, such as example.com");
    }
    if !name.contains('.') {
        return Err("must have two parts at least: anybody can have hosts below a top-level domain");
    }
    Ok(())
}

/// RFC 6335, section 5.1, "with the exception that it may exceed 15 characters".
fn is_service(name: &str) -> bool {
    (1..=MAX_SERVICE).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_alphabetic())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// "A Client MUST only support the authSource, replicaSet, and loadBalanced options through a TXT record".
const ALLOWED: [&str; 3] = ["authSource", "replicaSet", "loadBalanced"];
const IP_ADDRESS: &str = "an IP address has no SRV records; write mongodb:// without +srv";
const SERVICE: &str = "must be a service's name: letters, digits and single hyphens between them, at most 62";
/// "the 63rd (62nd with prepended underscore) character DNS query limit".
const MAX_SERVICE: usize = 62;
