//! Every option of a connection string, and what it sets (URI Options specification, "List of specified options").

use std::collections::BTreeSet;
use std::time::Duration;

use super::credential::{AuthMechanism, Credential, DEFAULT_SOURCE, MechanismProperties};
use super::error::{UriError, UriPlace, Warning};
use super::options::{Acknowledgment, ClientOptions, ServerMonitoringMode, Stated, TlsOptions};
use super::parts::{Pairs, UserInfo};
use super::validate::tls_conflict;
use super::values::{MAX_INTEGER, Problem, Value};
use crate::address::ServerAddress;
use crate::auth::OidcFlow;
use crate::read_preference::{ReadConcern, ReadPreferenceMode, TagSet};
use crate::wire::Compressor;

/// Options as they fill up while a connection string is read.
pub(super) struct Draft {
    options: ClientOptions,
    warnings: Vec<Warning>,
    /// Names of the known options that the string holds.
    names: BTreeSet<&'static str>,
    mechanism: Option<AuthMechanism>,
    source: Option<String>,
    properties: MechanismProperties,
}

impl Draft {
    pub(super) fn new(hosts: Vec<ServerAddress>, srv_host: Option<String>, database: Option<String>) -> Self {
        Self {
            options: ClientOptions {
                hosts,
                srv_host,
                default_database: database,
                ..ClientOptions::default()
            },
            warnings: Vec::new(),
            names: BTreeSet::new(),
            mechanism: None,
            source: None,
            properties: MechanismProperties::default(),
        }
    }

    /// Sets what the pairs say, in their order.
    pub(super) fn apply(&mut self, pairs: &Pairs<'_>) -> Result<(), UriError> {
        if pairs.semicolons {
            let text = "pairs are separated by semicolons, which is deprecated; write & instead";
            self.warnings.push(Warning::new(";", text));
        }
        let known = pairs.list.iter().map(|pair| (pair, find(&pair.key)));
        self.names = known.clone().filter_map(|(_, entry)| Some(entry?.name)).collect();
        tls_conflict(|name| self.names.contains(name))?;
        let mut done = BTreeSet::new();
        for (pair, entry) in known {
            let Some(entry) = entry else {
                let name = pair.printable_key();
                self.warnings
                    .push(Warning::new(&name, "is unknown and was ignored"));
                continue;
            };
            if !done.insert(entry.name) {
                self.repeated(entry)?;
            }
            let value = Value {
                name: entry.name,
                text: &pair.value,
            };
            match (entry.set)(self, value) {
                Ok(()) => {}
                Err(Problem::Ignored(text)) => self.warnings.push(Warning::new(entry.name, text)),
                Err(Problem::Fatal(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn repeated(&mut self, entry: &Entry) -> Result<(), UriError> {
        match entry.repeat {
            Repeat::Adds | Repeat::Agrees => Ok(()),
            Repeat::Refused => Err(UriError::option(entry.name, "must not be given twice")),
            Repeat::Replaces => {
                let text = "is given more than once; the last valid value counts";
                self.warnings.push(Warning::new(entry.name, text));
                Ok(())
            }
        }
    }

    /// What of it a TXT record may say: `authSource`, `replicaSet` and `loadBalanced`.
    pub(super) fn into_defaults(self) -> (Option<String>, Option<String>, bool) {
        let options = self.options;
        (self.source, options.replica_set, options.load_balanced)
    }

    /// The options, with the credential made of all that concerns it, and the warnings.
    pub(super) fn finish(
        mut self,
        user_info: Option<UserInfo>,
        oidc_callback: Option<OidcFlow>,
    ) -> Result<(ClientOptions, Vec<Warning>), UriError> {
        if self.options.tls == Some(false) && self.options.tls_options != TlsOptions::default() {
            let text = "is false, so the other tls options have no effect";
            self.warnings.push(Warning::new("tls", text));
        }
        self.options.stated = Stated {
            auth_source: self.source.is_some(),
            load_balanced: self.names.contains("loadBalanced"),
        };
        self.options.credential = self.credential(user_info)?;
        if let Some(credential) = &mut self.options.credential
            && credential.mechanism == Some(AuthMechanism::MongoDbOidc)
        {
            credential.oidc_callback = oidc_callback;
        }
        Ok((self.options, self.warnings))
    }

    /// Authentication specification, "Credential delimiter in URI implies authentication": a user name or a mechanism
    /// makes a credential; a source, a database and properties do not.
    fn credential(&mut self, user_info: Option<UserInfo>) -> Result<Option<Credential>, UriError> {
        if user_info.is_none() && self.mechanism.is_none() {
            if !self.properties.is_empty() {
                let text = "was ignored: there is no user name and no authMechanism";
                self.warnings.push(Warning::new("authMechanismProperties", text));
            }
            return Ok(None);
        }
        let database = self.options.default_database.as_deref();
        let source = self.source.take().unwrap_or_else(|| {
            match self.mechanism {
                Some(mechanism) => mechanism.default_source(database),
                None => database.unwrap_or(DEFAULT_SOURCE),
            }
            .to_owned()
        });
        let (username, password) = match user_info {
            Some(UserInfo { username, password }) => ((!username.is_empty()).then_some(username), password),
            None => (None, None),
        };
        if username.is_none() && password.is_some() {
            return Err(UriError::new(UriPlace::UserInfo, "the user name is missing"));
        }
        let mut mechanism_properties = std::mem::take(&mut self.properties);
        if self.mechanism == Some(AuthMechanism::Gssapi) && mechanism_properties.get("SERVICE_NAME").is_none()
        {
            // Authentication specification, "GSSAPI".
            mechanism_properties.insert("SERVICE_NAME", "mongodb");
        }
        Ok(Some(Credential {
            username,
            password,
            source,
            mechanism: self.mechanism,
            mechanism_properties,
            oidc_callback: None,
            allowed_hosts: None,
        }))
    }
}

/// The name of an option as the specification writes it.
pub(super) fn canonical_name(key: &str) -> Option<&'static str> {
    Some(find(key)?.name)
}

/// Whether an option's value may be printed: it is known, and not a secret.
pub(super) fn is_printable(key: &str) -> bool {
    canonical_name(key).is_some_and(|name| !SECRET.contains(&name))
}

struct Entry {
    name: &'static str,
    repeat: Repeat,
    set: Setter,
}

type Setter = fn(&mut Draft, Value<'_>) -> Result<(), Problem>;

/// What an option means that is given twice.
#[derive(Clone, Copy)]
enum Repeat {
    /// The last one counts, with a warning.
    Replaces,
    /// All count.
    Adds,
    /// All must say the same.
    Agrees,
    /// That is an error.
    Refused,
}

impl Entry {
    const fn new(name: &'static str, set: Setter) -> Self {
        Self::repeating(name, Repeat::Replaces, set)
    }

    const fn repeating(name: &'static str, repeat: Repeat, set: Setter) -> Self {
        Self { name, repeat, set }
    }
}

fn find(key: &str) -> Option<&'static Entry> {
    let mut entries = TABLES.iter().flat_map(|table| table.iter());
    entries.find(|entry| entry.name.eq_ignore_ascii_case(key))
}

/// A setter of an optional field: `set!(field.path, method(arguments))`.
macro_rules! set {
    ($($field:ident).+, $method:ident($($argument:expr),*)) => {
        |draft, value| {
            draft.options.$($field).+ = Some(value.$method($($argument),*)?);
            Ok(())
        }
    };
    ($($field:ident).+, boolean) => {
        |draft, value| {
            draft.options.$($field).+ = Some(value.boolean(&mut draft.warnings)?);
            Ok(())
        }
    };
}

const SECRET: [&str; 3] = [
    "authMechanismProperties",
    "proxyPassword",
    "tlsCertificateKeyFilePassword",
];

const TABLES: [&[Entry]; 5] = [CONNECTION, AUTHENTICATION, CONCERNS, TLS, DATA];

const CONNECTION: &[Entry] = &[
    Entry::new("appName", |draft, value| {
        let name = value.string()?;
        if name.len() > ClientOptions::MAX_APP_NAME_BYTES {
            return Err(value.expected("at most 128 bytes long"));
        }
        draft.options.app_name = Some(name);
        Ok(())
    }),
    Entry::new("replicaSet", set!(replica_set, string())),
    Entry::new("directConnection", set!(direct_connection, boolean)),
    Entry::new("loadBalanced", |draft, value| {
        draft.options.load_balanced = value.boolean(&mut draft.warnings)?;
        Ok(())
    }),
    Entry::new("connectTimeoutMS", |draft, value| {
        draft.options.connect_timeout = limit(value.milliseconds()?);
        Ok(())
    }),
    Entry::new("socketTimeoutMS", |draft, value| {
        draft.options.socket_timeout = limit(value.milliseconds()?);
        Ok(())
    }),
    Entry::new("timeoutMS", set!(timeout, milliseconds())),
    Entry::new("serverSelectionTimeoutMS", |draft, value| {
        draft.options.server_selection_timeout = value.milliseconds()?;
        Ok(())
    }),
    Entry::new("serverSelectionTryOnce", set!(server_selection_try_once, boolean)),
    Entry::new("localThresholdMS", |draft, value| {
        draft.options.local_threshold = value.milliseconds()?;
        Ok(())
    }),
    Entry::new(
        "heartbeatFrequencyMS",
        set!(heartbeat_frequency, milliseconds_from(500)),
    ),
    Entry::new("serverMonitoringMode", |draft, value| {
        let mode = ServerMonitoringMode::from_name(value.text);
        draft.options.server_monitoring_mode =
            Some(mode.ok_or_else(|| value.expected("auto, poll or stream"))?);
        Ok(())
    }),
    Entry::new("retryReads", |draft, value| {
        draft.options.retry_reads = value.boolean(&mut draft.warnings)?;
        Ok(())
    }),
    Entry::new("retryWrites", |draft, value| {
        draft.options.retry_writes = value.boolean(&mut draft.warnings)?;
        Ok(())
    }),
    Entry::new("maxAdaptiveRetries", set!(max_adaptive_retries, count())),
    Entry::new(
        "enableOverloadRetargeting",
        set!(enable_overload_retargeting, boolean),
    ),
    Entry::new("compressors", compressors),
    Entry::new("zlibCompressionLevel", |draft, value| {
        let level = value.integer(-1..=9, "a whole number from -1 to 9")?;
        draft.options.zlib_compression_level = i32::try_from(level).ok();
        Ok(())
    }),
];

const AUTHENTICATION: &[Entry] = &[
    Entry::new("authMechanism", |draft, value| {
        draft.mechanism = Some(value.text.parse::<AuthMechanism>()?);
        Ok(())
    }),
    Entry::new("authMechanismProperties", mechanism_properties),
    Entry::new("authSource", |draft, value| {
        if value.text.is_empty() {
            return Err(UriError::option(value.name, "must not be empty").into());
        }
        draft.source = Some(value.text.to_owned());
        Ok(())
    }),
];

const CONCERNS: &[Entry] = &[
    Entry::new("readPreference", |draft, value| {
        let mode = ReadPreferenceMode::from_name(value.text);
        draft.options.read_preference.mode = mode.ok_or_else(|| {
            value.expected("primary, primaryPreferred, secondary, secondaryPreferred or nearest")
        })?;
        Ok(())
    }),
    Entry::repeating("readPreferenceTags", Repeat::Adds, |draft, value| {
        let tags = if value.text.is_empty() {
            Ok(TagSet::new())
        } else {
            value.key_values().collect::<Result<TagSet, ()>>()
        };
        let tags = tags.map_err(|()| value.expected("tags such as dc:ny,rack:1"))?;
        draft.options.read_preference.tag_sets.push(tags);
        Ok(())
    }),
    Entry::new("maxStalenessSeconds", |draft, value| {
        // Max Staleness specification, "API": -1 is no limit, any other value is positive.
        let seconds = value.integer(-1..=MAX_INTEGER, "-1 or a whole number of seconds from 90")?;
        draft.options.read_preference.max_staleness = match u64::try_from(seconds) {
            Ok(0) => return Err(value.expected("-1 or a whole number of seconds from 90")),
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => None,
        };
        Ok(())
    }),
    Entry::new("readConcernLevel", |draft, value| {
        draft.options.read_concern = Some(ReadConcern::new(value.string()?));
        Ok(())
    }),
    Entry::new("w", |draft, value| {
        draft.options.write_concern.w = Some(acknowledgment(value)?);
        Ok(())
    }),
    Entry::new("wTimeoutMS", write_timeout),
    Entry::new("wtimeout", |draft, value| {
        let replaced = draft.names.contains("wTimeoutMS");
        let text = if replaced {
            "is deprecated and was ignored, since wTimeoutMS is there"
        } else {
            "is deprecated; write wTimeoutMS"
        };
        draft.warnings.push(Warning::new(value.name, text));
        if replaced {
            Ok(())
        } else {
            write_timeout(draft, value)
        }
    }),
    Entry::new("journal", set!(write_concern.journal, boolean)),
];

const TLS: &[Entry] = &[
    Entry::repeating("tls", Repeat::Agrees, tls),
    Entry::repeating("ssl", Repeat::Agrees, tls),
    Entry::new("tlsCAFile", set!(tls_options.ca_file, string())),
    Entry::new(
        "tlsCertificateKeyFile",
        set!(tls_options.certificate_key_file, string()),
    ),
    Entry::new("tlsCertificateKeyFilePassword", |draft, value| {
        draft.options.tls_options.certificate_key_file_password = Some(value.string()?.into());
        Ok(())
    }),
    Entry::new(
        "tlsAllowInvalidCertificates",
        set!(tls_options.allow_invalid_certificates, boolean),
    ),
    Entry::new(
        "tlsAllowInvalidHostnames",
        set!(tls_options.allow_invalid_hostnames, boolean),
    ),
    Entry::new("tlsInsecure", set!(tls_options.insecure, boolean)),
    Entry::new(
        "tlsDisableOCSPEndpointCheck",
        set!(tls_options.disable_ocsp_endpoint_check, boolean),
    ),
    Entry::new(
        "tlsDisableCertificateRevocationCheck",
        set!(tls_options.disable_certificate_revocation_check, boolean),
    ),
];

/// What a change-stream client only keeps, and what concerns the way to the hosts.
const DATA: &[Entry] = &[
    Entry::new("maxPoolSize", set!(pool.max_size, count())),
    Entry::new("minPoolSize", set!(pool.min_size, count())),
    Entry::new("maxIdleTimeMS", set!(pool.max_idle_time, milliseconds())),
    Entry::new(
        "waitQueueTimeoutMS",
        set!(pool.wait_queue_timeout, milliseconds_from(1)),
    ),
    Entry::new("maxConnecting", |draft, value| {
        let expected = "a whole number from 1";
        let count = value.integer(1..=MAX_INTEGER, expected)?;
        draft.options.pool.max_connecting = u32::try_from(count).ok();
        Ok(())
    }),
    Entry::repeating("proxyHost", Repeat::Refused, set!(proxy.host, string())),
    Entry::repeating("proxyPort", Repeat::Refused, |draft, value| {
        let expected = "a number from 1 to 65535";
        let port = value.integer(1..=65535, expected)?;
        draft.options.proxy.port = u16::try_from(port).ok();
        Ok(())
    }),
    Entry::repeating("proxyUsername", Repeat::Refused, set!(proxy.username, string())),
    Entry::repeating("proxyPassword", Repeat::Refused, |draft, value| {
        draft.options.proxy.password = Some(value.string()?.into());
        Ok(())
    }),
    Entry::new("srvAllowedHostsSuffix", set!(srv_allowed_hosts_suffix, string())),
    Entry::new("srvMaxHosts", set!(srv_max_hosts, count())),
    Entry::new("srvServiceName", set!(srv_service_name, string())),
];

/// OP_COMPRESSED specification: a compressor that is not known is passed over with a warning.
fn compressors(draft: &mut Draft, value: Value<'_>) -> Result<(), Problem> {
    let mut compressors = Vec::new();
    let mut unknown = value.text.is_empty();
    for name in value.text.split(',').map(str::trim) {
        match Compressor::from_name(name) {
            Some(compressor) if compressors.contains(&compressor) => {}
            Some(compressor) => compressors.push(compressor),
            None => unknown = true,
        }
    }
    let absent = compressors.iter().filter(|compressor| !compressor.is_built_in());
    for compressor in absent.map(|compressor| compressor.as_str()) {
        let text = format!("names {compressor}, which is not built in: turn the feature `{compressor}` on");
        draft.warnings.push(Warning::new(value.name, text));
    }
    draft.options.compressors = compressors;
    if unknown {
        let text = "names something else than snappy, zlib and zstd, which was ignored";
        draft.warnings.push(Warning::new(value.name, text));
    }
    Ok(())
}

fn mechanism_properties(draft: &mut Draft, value: Value<'_>) -> Result<(), Problem> {
    let mut properties = MechanismProperties::default();
    for pair in value.key_values() {
        match pair {
            Ok((name, value)) => {
                properties.insert(&name, value);
            }
            Err(()) => {
                let text =
                    "what is no name:value pair was ignored; a value that holds a comma must be set by code";
                draft.warnings.push(Warning::new(value.name, text));
            }
        }
    }
    draft.properties = properties;
    Ok(())
}

/// Read and Write Concern specification: a negative number is an error, any other text is a tag.
fn acknowledgment(value: Value<'_>) -> Result<Acknowledgment, Problem> {
    let text = value.string()?;
    let digits = text.strip_prefix('-').unwrap_or(&text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(Acknowledgment::Named(text));
    }
    match value.count() {
        Ok(nodes) => Ok(Acknowledgment::Nodes(nodes)),
        Err(_) => Err(UriError::option(value.name, "must be a number of members from 0, or a name").into()),
    }
}

/// URI Options specification: this one integer has 64 bits.
fn write_timeout(draft: &mut Draft, value: Value<'_>) -> Result<(), Problem> {
    let milliseconds = value.integer(0..=i64::MAX, "a whole number of milliseconds from 0")?;
    draft.options.write_concern.w_timeout = Some(Duration::from_millis(milliseconds.unsigned_abs()));
    Ok(())
}

/// URI Options specification, "Conflicting TLS options": all instances of `tls` and `ssl` must say the same.
fn tls(draft: &mut Draft, value: Value<'_>) -> Result<(), Problem> {
    let enabled = value.boolean(&mut draft.warnings)?;
    if draft.options.tls.is_some_and(|earlier| earlier != enabled) {
        return Err(UriError::option(value.name, "all of tls and ssl must have the same value").into());
    }
    draft.options.tls = Some(enabled);
    Ok(())
}

/// A limit whose zero means that there is none.
fn limit(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}
