//! Whom a human's token may be shown to.

use crate::ServerAddress;

/// Whether the server is one of those allowed: a host name or an IP address, or `*.` and a domain that it is below of.
/// A Unix domain socket is `localhost`.
pub(in crate::auth) fn allows(allowed: &[String], server: &ServerAddress) -> bool {
    let host = match server.port() {
        Some(_) => server.host().trim_matches(['[', ']']).to_ascii_lowercase(),
        None => "localhost".to_owned(),
    };
    allowed.iter().any(|pattern| {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_prefix('*') {
            Some(domain) if domain.starts_with('.') => host.len() > domain.len() && host.ends_with(domain),
            Some(_) | None => host == pattern,
        }
    })
}
