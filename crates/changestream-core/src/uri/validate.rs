//! Which options contradict each other.

use super::error::{UriError, UriPlace};
use super::options::{Acknowledgment, ClientOptions};
use crate::read_preference::{ReadPreferenceMode, TagSet};

impl ClientOptions {
    /// Checks that these options make sense together. A connection string is checked so when it is parsed; whoever
    /// builds or changes options by code need not call it, since a client does.
    ///
    /// # Errors
    ///
    /// The first contradiction found, by the option that has to change.
    pub fn validate(&self) -> Result<(), UriError> {
        self.validate_topology()?;
        self.validate_numbers()?;
        self.validate_tls()?;
        self.validate_proxy()?;
        self.validate_read_preference()?;
        self.validate_write_concern()?;
        match &self.credential {
            Some(credential) => credential.validate(),
            None => Ok(()),
        }
    }

    /// URI Options specification, "directConnection URI option with multiple seeds"; Load Balancer specification, "URI
    /// Validation"; Initial DNS Seedlist Discovery specification, "URI Validation".
    fn validate_topology(&self) -> Result<(), UriError> {
        self.validate_srv()?;
        let hosts = self.hosts.len();
        if hosts == 0 && self.srv_host.is_none() {
            return Err(UriError::new(UriPlace::Whole, "name at least one host"));
        }
        if self.direct_connection == Some(true) && hosts > 1 {
            return Err(UriError::option(
                "directConnection",
                "a direct connection has one host",
            ));
        }
        if self.load_balanced {
            let conflict = if hosts > 1 {
                Some("a load-balanced deployment has one host")
            } else if self.replica_set.is_some() {
                Some("contradicts replicaSet")
            } else if self.direct_connection == Some(true) {
                Some("contradicts directConnection=true")
            } else {
                None
            };
            if let Some(reason) = conflict {
                return Err(UriError::option("loadBalanced", reason));
            }
        }
        Ok(())
    }

    fn validate_numbers(&self) -> Result<(), UriError> {
        if self.heartbeat_frequency() < Self::MIN_HEARTBEAT_FREQUENCY {
            return Err(UriError::option("heartbeatFrequencyMS", "must be at least 500"));
        }
        if self
            .app_name
            .as_ref()
            .is_some_and(|name| name.len() > Self::MAX_APP_NAME_BYTES)
        {
            return Err(UriError::option("appName", "must not be longer than 128 bytes"));
        }
        if self.replica_set.as_ref().is_some_and(String::is_empty) {
            return Err(UriError::option("replicaSet", "must not be empty"));
        }
        if self
            .zlib_compression_level
            .is_some_and(|level| !(-1..=9).contains(&level))
        {
            return Err(UriError::option("zlibCompressionLevel", "must be from -1 to 9"));
        }
        if self.pool.max_connecting == Some(0) {
            return Err(UriError::option("maxConnecting", "must be at least 1"));
        }
        match (self.pool.min_size, self.pool.max_size) {
            (Some(min), Some(max)) if max != 0 && min > max => {
                Err(UriError::option("minPoolSize", "must not exceed maxPoolSize"))
            }
            (_, _) => Ok(()),
        }
    }

    fn validate_tls(&self) -> Result<(), UriError> {
        let tls = &self.tls_options;
        tls_conflict(|name| match name {
            "tlsInsecure" => tls.insecure.is_some(),
            "tlsAllowInvalidCertificates" => tls.allow_invalid_certificates.is_some(),
            "tlsAllowInvalidHostnames" => tls.allow_invalid_hostnames.is_some(),
            "tlsDisableOCSPEndpointCheck" => tls.disable_ocsp_endpoint_check.is_some(),
            "tlsDisableCertificateRevocationCheck" => tls.disable_certificate_revocation_check.is_some(),
            _ => false,
        })
    }

    /// SOCKS5 Support specification, "MongoClient Configuration".
    fn validate_proxy(&self) -> Result<(), UriError> {
        let proxy = &self.proxy;
        let given = [
            ("proxyPort", proxy.port.is_some()),
            ("proxyUsername", proxy.username.is_some()),
            ("proxyPassword", proxy.password.is_some()),
        ];
        if proxy.host.is_none()
            && let Some((name, _)) = given.into_iter().find(|(_, given)| *given)
        {
            return Err(UriError::option(name, "needs proxyHost"));
        }
        if proxy.host.as_ref().is_some_and(String::is_empty) {
            return Err(UriError::option("proxyHost", "must not be empty"));
        }
        match (&proxy.username, &proxy.password) {
            (Some(_), None) => Err(UriError::option("proxyUsername", "needs proxyPassword")),
            (None, Some(_)) => Err(UriError::option("proxyPassword", "needs proxyUsername")),
            (None, None) | (Some(_), Some(_)) => Ok(()),
        }
    }

    /// Server Selection specification, "Read Preference"; Max Staleness specification, "API".
    fn validate_read_preference(&self) -> Result<(), UriError> {
        let preference = &self.read_preference;
        if preference.mode != ReadPreferenceMode::Primary {
            return Ok(());
        }
        if preference.max_staleness.is_some() {
            return Err(UriError::option(
                "maxStalenessSeconds",
                "needs a readPreference other than primary",
            ));
        }
        if preference.tag_sets.iter().any(|tags: &TagSet| !tags.is_empty()) {
            return Err(UriError::option(
                "readPreferenceTags",
                "needs a readPreference other than primary",
            ));
        }
        Ok(())
    }

    /// Read and Write Concern specification, "Inconsistent WriteConcern".
    fn validate_write_concern(&self) -> Result<(), UriError> {
        let concern = &self.write_concern;
        if concern.w == Some(Acknowledgment::Nodes(0)) && concern.journal == Some(true) {
            return Err(UriError::option("journal", "contradicts w=0"));
        }
        Ok(())
    }
}

/// URI Options specification, "Conflicting TLS options": these must not even appear together, whatever their values.
pub(super) fn tls_conflict(present: impl Fn(&str) -> bool) -> Result<(), UriError> {
    for (first, second) in TLS_CONFLICTS {
        if present(first) && present(second) {
            return Err(UriError::option(
                first,
                format!("must not be given with {second}"),
            ));
        }
    }
    Ok(())
}

const TLS_CONFLICTS: [(&str, &str); 7] = [
    ("tlsInsecure", "tlsAllowInvalidCertificates"),
    ("tlsInsecure", "tlsAllowInvalidHostnames"),
    ("tlsInsecure", "tlsDisableOCSPEndpointCheck"),
    ("tlsInsecure", "tlsDisableCertificateRevocationCheck"),
    ("tlsAllowInvalidCertificates", "tlsDisableOCSPEndpointCheck"),
    (
        "tlsAllowInvalidCertificates",
        "tlsDisableCertificateRevocationCheck",
    ),
    (
        "tlsDisableOCSPEndpointCheck",
        "tlsDisableCertificateRevocationCheck",
    ),
];
