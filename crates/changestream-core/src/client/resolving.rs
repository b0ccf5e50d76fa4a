//! Finding the seeds in DNS, where the connection string is a `mongodb+srv://` one (Initial DNS Seedlist Discovery
//! specification), and looking whether the list of mongos has changed (Polling SRV Records for mongos Discovery).
//!
//! The first stream of a client looks the seeds up when it needs a server; the others start with what it found. Later
//! look-ups belong to scans, as the specification has it for single-threaded clients: in the steady state there are none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::machine::Phase;
use super::selecting::LONGEST_SELECTION;
use super::{ClientMachine, ClientSettings, Deadline, DeadlineReason, LookupId, Output};
use crate::dns::{self, Answer, DnsFault, Question, RecordType, SrvName, SrvRecord, TxtRecord};
use crate::stream::Avoid;
use crate::topology::Topology;
use crate::{Error, ServerAddress};

/// Where the seeds come from.
#[derive(Debug)]
pub(super) enum Seeds {
    /// From the connection string.
    Named,
    /// From DNS, which has not answered.
    Unresolved { name: SrvName, asked: Option<Asked> },
    /// From DNS.
    Listed {
        name: SrvName,
        resolution: Arc<Resolution>,
        rescan: Rescan,
    },
}

/// What DNS said last. Streams of a client share it.
#[derive(Debug)]
pub(super) struct Resolution {
    settings: Arc<ClientSettings>,
    /// The servers in use: they change when the records do, other than the settings.
    servers: Vec<ServerAddress>,
    looked_up: Instant,
    /// When to look again.
    stale_at: Instant,
}

impl Resolution {
    /// The settings for a stream that is told of events, or is not, by its own.
    fn settings_for(&self, own: &ClientSettings) -> Arc<ClientSettings> {
        let mut settings = Arc::clone(&self.settings);
        if settings.topology.record_events != own.topology.record_events {
            let topology = &mut Arc::make_mut(&mut settings).topology;
            Arc::make_mut(topology).record_events = own.topology.record_events;
        }
        settings
    }

    pub(super) fn newer(one: Option<Arc<Self>>, other: Option<Arc<Self>>) -> Option<Arc<Self>> {
        match (one, other) {
            (Some(one), Some(other)) if other.looked_up > one.looked_up => Some(other),
            (one, other) => one.or(other),
        }
    }
}

/// Looking again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rescan {
    /// With the first scan from then on.
    From(Instant),
    /// Under way.
    Running { lookup: LookupId, since: Instant },
}

impl Rescan {
    /// From when on a scan looks again. A look-up that nobody answers is given up some time.
    fn due(self) -> Instant {
        match self {
            Self::From(at) => at,
            Self::Running { since, .. } => since + ANSWER_TIMEOUT,
        }
    }
}

/// A server is needed, and the seeds are not known yet.
#[derive(Debug)]
pub(super) struct Resolving {
    pub(super) deadline: Instant,
    deprioritized: BTreeMap<ServerAddress, Avoid>,
}

/// The first look-up. It goes on when nobody waits any more, so that commands too short for it get there together.
#[derive(Debug)]
pub(super) struct Asked {
    since: Instant,
    servers: Lookup<Vec<SrvRecord>>,
    options: Lookup<Vec<TxtRecord>>,
}

#[derive(Debug)]
enum Lookup<T> {
    Running(LookupId),
    Done(T),
}

impl<T> Lookup<T> {
    fn is(&self, id: LookupId) -> bool {
        matches!(self, Self::Running(running) if *running == id)
    }
}

impl Seeds {
    /// With what other streams of the client have found already.
    pub(super) fn new(settings: &ClientSettings, known: Option<Arc<Resolution>>) -> Self {
        let options = settings.options();
        let Some(host) = &options.srv_host else {
            return Self::Named;
        };
        let name = SrvName::new(host, options.srv_service_name.as_deref())
            .allowing(options.srv_allowed_hosts_suffix.as_deref());
        match known {
            None => Self::Unresolved { name, asked: None },
            Some(resolution) => Self::Listed {
                name,
                rescan: Rescan::From(resolution.stale_at),
                resolution,
            },
        }
    }

    pub(super) fn resolution(&self) -> Option<&Arc<Resolution>> {
        match self {
            Self::Named | Self::Unresolved { .. } => None,
            Self::Listed { resolution, .. } => Some(resolution),
        }
    }

    /// The settings and the topology that a machine starts with.
    pub(super) fn start(
        &self,
        settings: Arc<ClientSettings>,
    ) -> Result<(Arc<ClientSettings>, Topology), Error> {
        if let Self::Unresolved { .. } = self {
            let topology = Topology::without_seeds(Arc::clone(&settings.topology));
            return Ok((settings, topology));
        }
        let settings = match self.resolution() {
            Some(resolution) => resolution.settings_for(&settings),
            None => settings,
        };
        let topology = Topology::new(Arc::clone(&settings.topology))
            .map_err(|error| Error::invalid_argument(error.to_string()))?;
        Ok((settings, topology))
    }
}

/// The first look-up.
impl ClientMachine {
    /// Looks the seeds up, if they are not known yet; whether that is to be waited for.
    pub(super) fn start_resolving(
        &mut self,
        deprioritized: &BTreeMap<ServerAddress, Avoid>,
        selection_deadline: Instant,
    ) -> bool {
        let Seeds::Unresolved { name, asked } = &self.seeds else {
            return false;
        };
        if asked
            .as_ref()
            .is_none_or(|asked| self.now >= asked.since + ANSWER_TIMEOUT)
        {
            let name = name.clone();
            let asked = Asked {
                since: self.now,
                servers: Lookup::Running(self.look_up(name.servers())),
                options: Lookup::Running(self.look_up(name.options())),
            };
            self.seeds = Seeds::Unresolved {
                name,
                asked: Some(asked),
            };
        }
        let options = &self.settings.options;
        // A selection that looks once has no time of its own: connecting has.
        let deadline = if options.server_selection_timeout.is_zero() {
            let limit = options.connect_timeout.unwrap_or(RESOLVE_TIMEOUT);
            self.now + limit.min(LONGEST_SELECTION)
        } else {
            selection_deadline
        };
        self.phase = Phase::Resolving(Resolving {
            deadline,
            deprioritized: deprioritized.clone(),
        });
        true
    }

    fn look_up(&mut self, question: Question) -> LookupId {
        let lookup = LookupId(self.next_lookup);
        self.next_lookup += 1;
        self.outputs.push_back(Output::Resolve { lookup, question });
        lookup
    }

    /// A look-up has ended.
    pub(super) fn on_resolved(&mut self, id: LookupId, result: Result<Answer, DnsFault>) {
        if let Seeds::Listed {
            rescan: Rescan::Running { lookup, .. },
            ..
        } = &self.seeds
            && *lookup == id
        {
            return self.on_rescanned(result);
        }
        let Seeds::Unresolved {
            name,
            asked: Some(asked),
        } = &mut self.seeds
        else {
            return;
        };
        let fault = if asked.servers.is(id) {
            match result.and_then(srv_records) {
                Ok(records) => {
                    asked.servers = Lookup::Done(records);
                    None
                }
                Err(fault) => Some((RecordType::Srv, fault)),
            }
        } else if asked.options.is(id) {
            match result.and_then(txt_records) {
                Ok(records) => {
                    asked.options = Lookup::Done(records);
                    None
                }
                // The record need not be there.
                Err(DnsFault::NoRecords | DnsFault::NoSuchName) => {
                    asked.options = Lookup::Done(Vec::new());
                    None
                }
                Err(fault) => Some((RecordType::Txt, fault)),
            }
        } else {
            return;
        };
        let ended = match fault {
            Some((record, fault)) => Err(failure(name, record, fault)),
            None => self.take_seeds(),
        };
        if let Err(error) = ended {
            self.forget_look_up();
            if let Phase::Resolving(_) = &self.phase {
                self.fail_selection(error);
            }
        }
    }

    /// Time has passed.
    pub(super) fn check_resolving(&mut self) {
        if let (
            Phase::Resolving(resolving),
            Seeds::Unresolved {
                name,
                asked: Some(asked),
            },
        ) = (&self.phase, &self.seeds)
            && resolving.deadline <= self.now
        {
            let record = match asked.servers {
                Lookup::Running(_) => RecordType::Srv,
                Lookup::Done(_) => RecordType::Txt,
            };
            let error = failure(name, record, DnsFault::TimedOut);
            self.fail_selection(error);
        }
    }

    /// Takes the seeds over, once all is answered, and goes on to select a server if one is needed.
    fn take_seeds(&mut self) -> Result<(), Error> {
        let Seeds::Unresolved {
            name,
            asked: Some(asked),
        } = &self.seeds
        else {
            return Ok(());
        };
        let (Lookup::Done(servers), Lookup::Done(options)) = (&asked.servers, &asked.options) else {
            return Ok(());
        };
        let verified = name
            .verify_all(servers)
            .map_err(|fault| failure(name, RecordType::Srv, fault))?;
        let max = max_hosts(&self.settings);
        let listed = self
            .random
            .draw(|random| dns::choose(verified, &BTreeSet::new(), max, random));
        let settings = dns::txt_options(options)
            .and_then(|defaults| self.settings.resolved(listed.clone(), defaults))
            .map_err(|fault| failure(name, RecordType::Txt, fault))?;
        let stale_at = self.now + dns::rescan_interval(servers);
        let seeds = Seeds::Listed {
            name: name.clone(),
            rescan: Rescan::From(stale_at),
            resolution: Arc::new(Resolution {
                settings: Arc::new(settings),
                servers: listed,
                looked_up: self.now,
                stale_at,
            }),
        };
        (self.settings, self.topology) = seeds.start(Arc::clone(&self.settings))?;
        self.seeds = seeds;
        if let Phase::Resolving(resolving) = &self.phase {
            self.select_until(resolving.deprioritized.clone(), resolving.deadline);
        }
        Ok(())
    }

    /// The next one who needs a server asks anew.
    fn forget_look_up(&mut self) {
        if let Seeds::Unresolved { asked, .. } = &mut self.seeds {
            *asked = None;
        }
    }
}

/// Later look-ups.
impl ClientMachine {
    /// Looks again, if it is time for that and servers are about to be scanned; whether the scan has to wait for the
    /// answer: "The rescan MUST happen before scanning all servers".
    ///
    /// It waits for a moment only: when DNS is down, the servers that are known may be up.
    pub(super) fn rescan_first(&mut self) -> bool {
        let scans = self.topology.is_stale(self.now) && !self.topology.is_scanning();
        let follows = self.topology.description().topology_type.follows_dns();
        if let Seeds::Listed { rescan, name, .. } = &self.seeds
            && follows
            && scans
            && rescan.due() <= self.now
        {
            let question = name.servers();
            let lookup = self.look_up(question);
            let since = self.now;
            if let Seeds::Listed { rescan, .. } = &mut self.seeds {
                *rescan = Rescan::Running { lookup, since };
            }
        }
        self.rescan_deadline().is_some()
    }

    /// Until when a scan waits for the look-up that is under way; none if it does not wait.
    pub(super) fn rescan_deadline(&self) -> Option<Deadline> {
        let Seeds::Listed {
            rescan: Rescan::Running { since, .. },
            ..
        } = &self.seeds
        else {
            return None;
        };
        let at = *since + RESCAN_PATIENCE;
        (self.now < at && !self.topology.is_scanning()).then_some(Deadline {
            at,
            reason: DeadlineReason::Resolve,
        })
    }

    /// "If the DNS request fails, the driver MUST NOT change the topology", and tries again after `heartbeatFrequencyMS`.
    fn on_rescanned(&mut self, result: Result<Answer, DnsFault>) {
        let Seeds::Listed {
            name,
            resolution,
            rescan,
        } = &mut self.seeds
        else {
            return;
        };
        let verified = result
            .and_then(srv_records)
            .and_then(|records| Ok((name.verify_some(&records)?, records)));
        let Ok((verified, records)) = verified else {
            let pause = self.settings.topology.heartbeat_frequency.min(LONGEST_SELECTION);
            *rescan = Rescan::From(self.now + pause);
            return self.advance_selection();
        };
        let stale_at = self.now + dns::rescan_interval(&records);
        let follows = self.topology.description().topology_type.follows_dns();
        let servers = if follows {
            let current = self.topology.description().servers.keys().cloned().collect();
            let max = max_hosts(&self.settings);
            self.random
                .draw(|random| dns::choose(verified, &current, max, random))
        } else {
            resolution.servers.clone()
        };
        *rescan = Rescan::From(stale_at);
        *resolution = Arc::new(Resolution {
            settings: Arc::clone(&resolution.settings),
            servers: servers.clone(),
            looked_up: self.now,
            stale_at,
        });
        self.take_list(&servers);
        self.advance_selection();
    }

    /// Brings the topology in line with the list, where it follows DNS.
    pub(super) fn take_list(&mut self, servers: &[ServerAddress]) {
        let changes = self.topology.update_mongos(self.now, servers);
        self.drop_links_to(&changes.removed);
    }

    /// The servers that other streams of the client have found in DNS, since they last looked.
    pub(super) fn take_known_list(&mut self) {
        if let Some(resolution) = self.seeds.resolution() {
            let resolution = Arc::clone(resolution);
            self.take_list(&resolution.servers);
        }
    }
}

fn failure(name: &SrvName, record: RecordType, fault: DnsFault) -> Error {
    let question = match record {
        RecordType::Srv => name.servers(),
        RecordType::Txt => name.options(),
    };
    Error::dns(name.host(), question, fault)
}

fn max_hosts(settings: &ClientSettings) -> usize {
    usize::try_from(settings.options().srv_max_hosts.unwrap_or(0)).unwrap_or(usize::MAX)
}

fn srv_records(answer: Answer) -> Result<Vec<SrvRecord>, DnsFault> {
    match answer {
        Answer::Srv(records) => Ok(records),
        Answer::Txt(_) => Err(DnsFault::malformed("TXT records in answer to SRV")),
    }
}

fn txt_records(answer: Answer) -> Result<Vec<TxtRecord>, DnsFault> {
    match answer {
        Answer::Txt(records) => Ok(records),
        Answer::Srv(_) => Err(DnsFault::malformed("SRV records in answer to TXT")),
    }
}

/// How long a scan waits for a look-up.
const RESCAN_PATIENCE: Duration = Duration::from_secs(1);

/// By then every adapter has given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the first look-up may take where nothing sets a limit.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
