//! What records have to be like, and which of them become seeds.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{DnsFault, Question, RecordType, SrvRecord, TxtRecord};
use crate::ServerAddress;
use crate::random::Random;

/// The name in a `mongodb+srv://` connection string, and what is looked up for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SrvName {
    host: String,
    service: String,
    /// The domain that servers have to be below, where it is another than the host's.
    allowed: Option<String>,
}

impl SrvName {
    /// The host in lower case, without a dot at its end.
    pub(crate) fn new(host: &str, service: Option<&str>) -> Self {
        Self {
            host: normal(host),
            service: service.unwrap_or(DEFAULT_SERVICE).to_owned(),
            allowed: None,
        }
    }

    /// The same with `srvAllowedHostsSuffix`, if that is given.
    pub(crate) fn allowing(self, suffix: Option<&str>) -> Self {
        Self {
            allowed: suffix.map(|suffix| without_dots(suffix).to_ascii_lowercase()),
            ..self
        }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// "_{srvServiceName}._tcp.{hostname}.{domainname}".
    pub(crate) fn servers(&self) -> Question {
        Question::new(RecordType::Srv, format!("_{}._tcp.{}", self.service, self.host))
    }

    /// "a Client MUST also query the DNS server for TXT records on {hostname}.{domainname}".
    pub(crate) fn options(&self) -> Question {
        Question::new(RecordType::Txt, self.host.clone())
    }

    /// The servers of these records, each once, in their order.
    ///
    /// "A driver MUST verify that the host names returned through SRV records share the original SRV's {domainname}."
    pub(crate) fn verify_all(&self, records: &[SrvRecord]) -> Result<Vec<ServerAddress>, DnsFault> {
        let verified = records.iter().map(|record| self.verify(record));
        each_once(verified.collect::<Result<Vec<_>, _>>()?)
    }

    /// The servers of those records that are as they have to be: "a driver MUST NOT add" the others when it polls, and
    /// goes on with the rest.
    pub(crate) fn verify_some(&self, records: &[SrvRecord]) -> Result<Vec<ServerAddress>, DnsFault> {
        let mut verified = Vec::new();
        let mut fault = DnsFault::NoRecords;
        for record in records {
            match self.verify(record) {
                Ok(server) => verified.push(server),
                Err(error) => fault = error,
            }
        }
        each_once(verified).map_err(|_| fault)
    }

    fn verify(&self, record: &SrvRecord) -> Result<ServerAddress, DnsFault> {
        let target = normal(&record.target);
        if !is_host_name(&target) {
            return Err(DnsFault::malformed(format!(
                "{:?} is no host name",
                record.target.chars().take(MAX_NAME).collect::<String>()
            )));
        }
        if record.port == 0 {
            return Err(DnsFault::malformed(format!("the port of {target} is 0")));
        }
        let domain = self.domain();
        let below = target
            .strip_suffix(domain)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|rest| !rest.is_empty());
        if !below {
            return Err(DnsFault::ForeignHost {
                host: target,
                domain: domain.to_owned(),
            });
        }
        Ok(ServerAddress::tcp(&target, record.port))
    }

    /// What hosts have to be below: what is allowed, else of a name of three parts and more all but the first, of a
    /// shorter one the whole name.
    fn domain(&self) -> &str {
        if let Some(allowed) = &self.allowed {
            return allowed;
        }
        match self.host.split_once('.') {
            Some((_, rest)) if rest.contains('.') => rest,
            Some(_) | None => &self.host,
        }
    }
}

/// Which of the verified servers are used, where `srvMaxHosts` says how many at most (0: all). Of the current ones those
/// stay that are still named; "the driver MUST randomly select" the others.
pub(crate) fn choose(
    verified: Vec<ServerAddress>,
    current: &BTreeSet<ServerAddress>,
    max: usize,
    random: &mut Random,
) -> Vec<ServerAddress> {
    if max == 0 || verified.len() <= max {
        return verified;
    }
    let (mut chosen, mut others): (Vec<_>, Vec<_>) = verified
        .into_iter()
        .partition(|address| current.contains(address));
    chosen.truncate(max);
    while chosen.len() < max && !others.is_empty() {
        chosen.push(others.swap_remove(random.below(others.len())));
    }
    chosen
}

/// How long the records are good for: "the lowest of the individual TTLs", and "60 seconds" at least.
pub(crate) fn rescan_interval(records: &[SrvRecord]) -> Duration {
    let shortest = records.iter().map(|record| record.time_to_live).min();
    shortest
        .unwrap_or_default()
        .clamp(MIN_RESCAN_INTERVAL, MAX_RESCAN_INTERVAL)
}

/// The options in the TXT records, as they stand in a connection string; none if there is no record.
///
/// "A Client MUST NOT allow multiple TXT records for the same host name".
pub(crate) fn txt_options(records: &[TxtRecord]) -> Result<Option<&str>, DnsFault> {
    match records {
        [] => Ok(None),
        [record] => Ok(Some(&record.text)),
        [_, _, ..] => Err(DnsFault::SeveralTxtRecords),
    }
}

fn each_once(mut servers: Vec<ServerAddress>) -> Result<Vec<ServerAddress>, DnsFault> {
    let mut seen = BTreeSet::new();
    servers.retain(|server| seen.insert(server.clone()));
    if servers.is_empty() {
        return Err(DnsFault::NoRecords);
    }
    Ok(servers)
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// A domain without the dot that may stand before it, and that at its end.
pub(crate) fn without_dots(domain: &str) -> &str {
    let domain = domain.strip_prefix('.').unwrap_or(domain);
    domain.strip_suffix('.').unwrap_or(domain)
}

/// Letters, digits, hyphens, and underscores, which host names should not have and some do.
pub(crate) fn is_host_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.split('.').all(|label| {
            (1..=MAX_LABEL).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// "defaults to mongodb".
const DEFAULT_SERVICE: &str = "mongodb";

/// RFC 1035, section 2.3.4, less the length octet at the front and the root at the end.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Polling SRV Records for mongos Discovery, "rescanSRVIntervalMS".
const MIN_RESCAN_INTERVAL: Duration = Duration::from_secs(60);

/// RFC 8767, section 4, advises to cap times to live so; instants cannot overflow then.
const MAX_RESCAN_INTERVAL: Duration = Duration::from_secs(7 * 24 * 3600);
