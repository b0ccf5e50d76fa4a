//! When to check which server: scans, and the pauses between checks.
//!
//! Server Monitoring, "Single-threaded monitoring".

use std::time::{Duration, Instant};

use super::{ServerDescription, ServerType, Topology};
use crate::ServerAddress;

/// `minHeartbeatFrequencyMS`: the pause between the end of a server's check and the next one.
pub const MIN_HEARTBEAT_FREQUENCY: Duration = Duration::from_millis(500);

/// `cooldownMS`: the pause after a check that failed with a network error.
pub const COOLDOWN: Duration = Duration::from_secs(5);

/// Where the checks of one server stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Never checked.
    Never,
    /// Under way.
    Running {
        /// When the one before it ended.
        previous: Option<Instant>,
    },
    /// The last one ended.
    Ended { at: Instant, next: Next },
}

/// What the end of a check means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// After `minHeartbeatFrequencyMS`.
    Pause,
    /// After `cooldownMS`: a network error.
    Cooldown,
    /// At once, in the same scan: a network error on a server that was known before.
    Retry,
}

impl Check {
    /// From when on the server may be checked; none while a check is under way. `Some(None)` is at any time.
    pub(super) fn allowed_at(self, cooldown: Duration) -> Option<Option<Instant>> {
        match self {
            Self::Never => Some(None),
            Self::Running { .. } => None,
            Self::Ended { at, next } => Some(Some(match next {
                Next::Pause => at + MIN_HEARTBEAT_FREQUENCY,
                Next::Cooldown => at + cooldown.max(MIN_HEARTBEAT_FREQUENCY),
                Next::Retry => at,
            })),
        }
    }

    /// Whether a scan that began then has still to check the server, as soon as it may.
    fn is_due_in(self, scan: Instant) -> bool {
        match self {
            Self::Never => true,
            Self::Running { .. } => false,
            Self::Ended {
                next: Next::Retry, ..
            } => true,
            Self::Ended { at, .. } => at < scan,
        }
    }

    fn is_allowed(self, now: Instant, cooldown: Duration) -> bool {
        match self.allowed_at(cooldown) {
            None => false,
            Some(None) => true,
            Some(Some(at)) => at <= now,
        }
    }

    pub(super) fn is_running(self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// When the last check ended.
    pub(super) fn ended(self) -> Option<Instant> {
        match self {
            Self::Never => None,
            Self::Running { previous } => previous,
            Self::Ended { at, .. } => Some(at),
        }
    }
}

/// Where the scans of the topology stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// None is under way.
    Idle {
        /// When the last one ended; none before the first.
        ended: Option<Instant>,
        /// Whether something asks for another one.
        stale: bool,
    },
    /// One is under way.
    Running {
        /// Since when.
        started: Instant,
        /// Whether something asks for another one after it.
        stale: bool,
    },
}

impl Scan {
    pub(super) fn mark_stale(&mut self) {
        match self {
            Self::Idle { stale, .. } | Self::Running { stale, .. } => *stale = true,
        }
    }

    /// Whether servers are to be scanned: "if heartbeatFrequencyMS has passed since the previous scan ended, or if the
    /// topology is marked stale". A scan under way counts: it is not done.
    pub(super) fn is_stale(self, now: Instant, heartbeat_frequency: Duration) -> bool {
        match self {
            Self::Running { .. } => true,
            Self::Idle { stale: true, .. } | Self::Idle { ended: None, .. } => true,
            Self::Idle {
                ended: Some(ended), ..
            } => now.saturating_duration_since(ended) >= heartbeat_frequency,
        }
    }
}

impl Topology {
    /// Whether the servers are to be scanned before the next selection, or are being scanned: the last scan is older
    /// than `heartbeatFrequencyMS`, or something made it stale. Never behind a load balancer.
    pub fn is_stale(&self, now: Instant) -> bool {
        !self.settings.load_balanced && self.scan.is_stale(now, self.settings.heartbeat_frequency)
    }

    /// Asks for a scan, because no server suits. Without effect while one is under way: see first what it finds.
    pub fn mark_stale(&mut self) {
        if !self.is_scanning() {
            self.scan.mark_stale();
        }
    }

    /// Begins the scan anew for those that have answered already, because none of them suits, while another one is
    /// silent: a member may take until `connectTimeoutMS`, and the others elect a primary meanwhile. Without effect
    /// before the time that [`scans_anew_at`](Self::scans_anew_at) says.
    pub fn scan_anew(&mut self, now: Instant) {
        let may = self.scans_anew_at().is_some_and(|at| at <= now);
        if let Scan::Running { started, .. } = &mut self.scan
            && may
        {
            *started = now;
        }
    }

    /// From when on [`scan_anew`](Self::scan_anew) has an effect: `minHeartbeatFrequencyMS` after the scan began. None if
    /// none is under way, or nobody has answered in it.
    pub fn scans_anew_at(&self) -> Option<Instant> {
        let Scan::Running { started, .. } = self.scan else {
            return None;
        };
        let mut checks = self.servers.values().map(|server| server.check);
        checks
            .any(|check| matches!(check, Check::Ended { at, .. } if at >= started))
            .then(|| started + MIN_HEARTBEAT_FREQUENCY)
    }

    /// Whether a check of each server has ended since then.
    pub(crate) fn has_checked_all_since(&self, since: Instant) -> bool {
        self.checks().all(|(_, check)| check.ended() >= Some(since))
    }

    /// Whether a check of that server is under way.
    pub(super) fn is_being_checked(&self, address: &ServerAddress) -> bool {
        let server = self.servers.get(address);
        server.is_some_and(|server| matches!(server.check, Check::Running { .. }))
    }

    /// Whether a scan is under way.
    pub fn is_scanning(&self) -> bool {
        matches!(self.scan, Scan::Running { .. })
    }

    /// The next server to check, if the topology is stale; the check has then begun. Its outcome is to be told by
    /// [`handle_hello`](Self::handle_hello), [`handle_check_failure`](Self::handle_check_failure) or
    /// [`cancel_check`](Self::cancel_check). Several may be under way; a server under check is not handed out again.
    ///
    /// A scan begins with the first server handed out, and ends when each server has been checked, but for those that
    /// must not be checked again so soon.
    pub fn poll_check(&mut self, now: Instant) -> Option<ServerAddress> {
        if !self.is_stale(now) {
            return None;
        }
        let address = self.servers_to_check(now).into_iter().next()?;
        if let Scan::Idle { .. } = self.scan {
            self.scan = Scan::Running {
                started: now,
                stale: false,
            };
        }
        let server = self.servers.get_mut(&address)?;
        server.check = Check::Running {
            previous: server.check.ended(),
        };
        Some(address)
    }

    /// The servers that [`poll_check`](Self::poll_check) would hand out at that time in a stale topology, in that
    /// order: the primary first, then a possible primary, then known servers, then others, each kind from the one that
    /// was checked longest ago on.
    pub fn servers_to_check(&self, now: Instant) -> Vec<ServerAddress> {
        if self.settings.load_balanced {
            return Vec::new();
        }
        let mut due: Vec<_> = self
            .checks()
            .filter(|(server, check)| {
                self.is_due(*check) && check.is_allowed(now, self.cooldown(server.server_type))
            })
            .map(|(server, check)| (rank(server.server_type), check.ended(), &server.address))
            .collect();
        due.sort();
        due.into_iter().map(|(_, _, address)| address.clone()).collect()
    }

    /// When [`poll_check`](Self::poll_check) next has a server to hand out if the topology is stale then: at once, or
    /// after a pause. None if what is to be checked is under check.
    pub fn next_check_at(&self, now: Instant) -> Option<Instant> {
        if !self.is_stale(now) {
            return None;
        }
        self.checks()
            .filter(|(_, check)| self.is_due(*check))
            .filter_map(|(server, check)| check.allowed_at(self.cooldown(server.server_type)))
            .map(|at| at.map_or(now, |at| at.max(now)))
            .min()
    }

    /// Ends a check without an outcome: nothing is learned, and the server counts as checked.
    pub fn cancel_check(&mut self, now: Instant, address: &ServerAddress) {
        if self
            .servers
            .get(address)
            .is_some_and(|server| server.check.is_running())
        {
            self.end_check(address, now, Next::Pause);
            self.finish_scan(now);
        }
    }

    pub(super) fn end_check(&mut self, address: &ServerAddress, now: Instant, next: Next) {
        if let Some(server) = self.servers.get_mut(address) {
            server.check = Check::Ended { at: now, next };
        }
    }

    /// Ends the scan if no check is under way and no server is left that may be checked.
    pub(super) fn finish_scan(&mut self, now: Instant) {
        let Scan::Running { stale, .. } = self.scan else {
            return;
        };
        let busy = self.servers.values().any(|server| server.check.is_running());
        if !busy && self.servers_to_check(now).is_empty() {
            self.scan = Scan::Idle {
                ended: Some(now),
                stale,
            };
        }
    }

    fn checks(&self) -> impl Iterator<Item = (&ServerDescription, Check)> {
        self.description.servers.values().map(|server| {
            let known = self.servers.get(&server.address);
            (server.as_ref(), known.map_or(Check::Never, |known| known.check))
        })
    }

    /// Whether the scan under way, or one that begins, has to check the server.
    fn is_due(&self, check: Check) -> bool {
        match self.scan {
            Scan::Idle { .. } => !check.is_running(),
            Scan::Running { started, .. } => check.is_due_in(started),
        }
    }

    /// The pause after a network error: a member that another one takes for the primary is worth a try before.
    fn cooldown(&self, server_type: ServerType) -> Duration {
        match server_type {
            ServerType::Unknown => self.settings.cooldown,
            ServerType::PossiblePrimary
            | ServerType::Standalone
            | ServerType::Mongos
            | ServerType::RsPrimary
            | ServerType::RsSecondary
            | ServerType::RsArbiter
            | ServerType::RsOther
            | ServerType::RsGhost
            | ServerType::LoadBalancer => MIN_HEARTBEAT_FREQUENCY,
        }
    }
}

fn rank(server_type: ServerType) -> u8 {
    match server_type {
        ServerType::RsPrimary => 0,
        ServerType::PossiblePrimary => 1,
        ServerType::Standalone
        | ServerType::Mongos
        | ServerType::RsSecondary
        | ServerType::RsArbiter
        | ServerType::RsOther
        | ServerType::LoadBalancer => 2,
        ServerType::RsGhost | ServerType::Unknown => 3,
    }
}
