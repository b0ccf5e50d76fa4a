//! Finding a server: the Server Selection specification's loop, with the scan that single-threaded clients do inline.
//!
//! All servers that are due are checked at once, each over a connection of its own that becomes the stream's if its
//! server is chosen. In the steady state nothing is checked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bson::oid::ObjectId;

use super::links::{Link, Stage};
use super::machine::Phase;
use super::{ClientMachine, ConnectionId, Deadline, DeadlineReason, Update};
use crate::connection::AuthenticationLimit;
use crate::monitoring::{ClosedReason, SelectionStage};
use crate::stream::{Avoid, CommandReply, StreamInput};
use crate::topology::{
    ApplicationError, ApplicationErrorKind, Changes, ConnectionPhase, SelectionCriteria, SelectionError,
    ServerType, TopologyType,
};
use crate::{Error, ErrorKind, ReadPreferenceMode, ServerAddress};

/// A selection that is going on.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    started: Instant,
    deadline: Instant,
    deprioritized: BTreeMap<ServerAddress, Avoid>,
    /// When the first suitable server answered: others that are as near answer soon after.
    suitable_since: Option<Instant>,
    /// Whether they have had their time.
    settled: bool,
    /// Whether the deadline is over. A server that suits may still be on its way, within its own limits.
    over: bool,
}

/// What can be done next.
enum Step {
    Take(ServerAddress),
    Fail(Error),
    Wait,
}

impl ClientMachine {
    /// The stream needs a server.
    pub(super) fn start_selection(&mut self, deprioritized: BTreeMap<ServerAddress, Avoid>) {
        if let Some(journal) = self.journal() {
            journal.given_back();
        }
        self.tell_search(SelectionStage::Started);
        self.drop_outdated_links();
        let deadline = self.now
            + self
                .settings
                .options
                .server_selection_timeout
                .min(LONGEST_SELECTION);
        if !self.start_resolving(&deprioritized, deadline) {
            self.select_until(deprioritized, deadline);
        }
    }

    /// Selects a server, within what is left of the time.
    pub(super) fn select_until(&mut self, deprioritized: BTreeMap<ServerAddress, Avoid>, deadline: Instant) {
        self.phase = Phase::Selecting(Selection {
            started: self.now,
            deadline,
            deprioritized,
            suitable_since: None,
            settled: false,
            over: false,
        });
        self.advance_selection();
    }

    /// Goes on with the selection, whatever has happened.
    pub(super) fn advance_selection(&mut self) {
        if !matches!(self.phase, Phase::Selecting(_)) {
            return;
        }
        match self.next_step() {
            Step::Take(address) => self.take(address),
            Step::Fail(error) => self.fail_selection(error),
            Step::Wait => {}
        }
    }

    fn next_step(&mut self) -> Step {
        let found = match self.find_suitable() {
            Ok(found) => found,
            Err(error) => {
                return Step::Fail(Error::new(ErrorKind::ServerSelection {
                    message: error.to_string(),
                }));
            }
        };
        let looks_once = self.looks_once();
        if found.is_none() && !(looks_once && self.has_asked_all()) {
            self.topology.mark_stale();
            if !looks_once {
                self.topology.scan_anew(self.now);
            }
        }
        if !self.rescan_first() {
            self.scan();
        }
        let (checking, settling_time) = (self.is_checking(), self.settling_time());
        let only_primary = self.only_primary();
        let is_best_kind = found.as_ref().is_some_and(|address| self.is_best_kind(address));
        let has_looked_once = self.has_looked_once();
        let limits_connecting = self.limits_connecting();
        let Phase::Selecting(selection) = &mut self.phase else {
            return Step::Wait;
        };
        selection.suitable_since = found
            .as_ref()
            .map(|_| selection.suitable_since.unwrap_or(self.now));
        selection.settled = selection
            .suitable_since
            .is_some_and(|since| since + settling_time <= self.now);
        selection.over = has_looked_once.unwrap_or(selection.deadline <= self.now);
        let out_of_time = limits_connecting && selection.deadline <= self.now;
        let (over, end) = (selection.over, selection.deadline);
        let wait = checking && !over && !(is_best_kind && (selection.settled || only_primary));
        match found {
            Some(_) if wait => Step::Wait,
            Some(address) if out_of_time && !self.is_ready(&address) => {
                Step::Fail(self.connecting_timed_out(&address))
            }
            Some(address) => Step::Take(address),
            None if over => Step::Fail(self.none_in_time()),
            None => {
                if !checking {
                    let remaining = end.saturating_duration_since(self.now);
                    self.tell_search(SelectionStage::Waiting { remaining });
                }
                Step::Wait
            }
        }
    }

    fn find_suitable(&mut self) -> Result<Option<ServerAddress>, SelectionError> {
        if let Some(only) = self.work.only_server() {
            let known = self.topology.server(only);
            let is_known = known.is_some_and(|server| server.server_type.is_known());
            return Ok(is_known.then(|| only.clone()));
        }
        let criteria = self.criteria();
        self.random.draw(|random| self.topology.select(&criteria, random))
    }

    /// "The server selection loop MUST fail with a timeout error once the timeout expires" (Client Side Operations Timeout
    /// specification, "Server Selection").
    fn none_in_time(&self) -> Error {
        let error = self.none_suitable(&self.selection_limit());
        if self.work.is_timed() {
            return Error::timeout("no server was found", Some(error));
        }
        error
    }

    /// Whether each server is asked once only. A timeout of zero cannot mean less; `serverSelectionTryOnce` means it
    /// (Server Selection specification, "serverSelectionTryOnce").
    fn looks_once(&self) -> bool {
        let options = &self.settings.options;
        options.server_selection_timeout.is_zero() || options.server_selection_try_once == Some(true)
    }

    /// Whether each server was asked once, if that decides when the selection is over.
    fn has_looked_once(&self) -> Option<bool> {
        if self.settings.options.server_selection_timeout.is_zero() {
            return Some(!self.is_checking());
        }
        (self.looks_once() && self.has_asked_all()).then_some(true)
    }

    /// Whether a check of each server has ended since the selection began.
    fn has_asked_all(&self) -> bool {
        let Phase::Selecting(selection) = &self.phase else {
            return false;
        };
        !self.is_checking() && self.topology.has_checked_all_since(selection.started)
    }

    fn criteria(&self) -> SelectionCriteria {
        let mut criteria = SelectionCriteria::read(self.work.read_preference().clone());
        if let Phase::Selecting(selection) = &self.phase {
            let sharded = self.topology.description().topology_type == TopologyType::Sharded;
            let avoided = selection.deprioritized.iter();
            criteria.deprioritized = avoided
                .filter(|(_, avoid)| sharded || **avoid == Avoid::Always)
                .map(|(server, _)| server.clone())
                .collect();
        }
        criteria
    }

    /// A server that is near enough to be chosen answers hello within this time of the first one that is suitable:
    /// connecting takes one round trip, hello another.
    fn settling_time(&self) -> Duration {
        self.settings.options.local_threshold.min(LONGEST_SELECTION) * 2
    }

    /// Checks every server that is due. A server that a connection already leads to is asked over that.
    fn scan(&mut self) {
        let now = self.now;
        while let Some(address) = self.topology.poll_check(now) {
            let known = self.link_to(&address);
            let id = known.unwrap_or_else(|| self.open_link(address));
            if let Some(journal) = self.journal() {
                journal.check_began(now, id);
            }
            if known.is_some() {
                self.on_link(id, |link| {
                    if link.stage != Stage::Opening {
                        link.stage = Stage::Checking;
                        link.connection.check(now);
                    }
                });
            }
        }
    }

    fn is_checking(&self) -> bool {
        self.rescan_deadline().is_some()
            || self
                .links
                .values()
                .any(|link| matches!(link.stage, Stage::Opening | Stage::Checking))
    }

    /// A server is chosen: over to its connection.
    fn take(&mut self, address: ServerAddress) {
        let now = self.now;
        if self.journal().is_some_and(|journal| !journal.wants(&address)) {
            self.tell_search(SelectionStage::Succeeded {
                server: address.clone(),
            });
        }
        if let Some(journal) = self.journal() {
            journal.wanted(now, &address);
        }
        let Some(id) = self.link_to(&address) else {
            // Known from another stream of the client. The hello on the new connection tells whether it still holds.
            self.open_link(address);
            return;
        };
        let Phase::Selecting(selection) = &self.phase else {
            return;
        };
        match self.links.get(&id).map(|link| link.stage) {
            Some(Stage::Ready) => self.attach(id),
            Some(Stage::Greeted) => {
                let limit = self.authentication_limit(&address, selection.deadline);
                self.phase = Phase::Authenticating(id, selection.clone());
                self.on_link(id, |link| {
                    link.connection.limit_authentication(limit);
                    link.connection.authenticate(now);
                });
            }
            Some(Stage::Opening | Stage::Checking) | None => {}
        }
    }

    /// "All commands sent during the connection's handshake MUST use the remaining `computedServerSelectionTimeout` as their
    /// `timeoutMS` value" (Client Side Operations Timeout specification, "Server Selection"). Not hello, which checks the
    /// server ("Server Monitoring").
    fn authentication_limit(
        &self,
        address: &ServerAddress,
        selection_end: Instant,
    ) -> Option<AuthenticationLimit> {
        let until = self.work.call_end()?.min(selection_end);
        let server = self.topology.server(address);
        Some(AuthenticationLimit {
            until,
            min_round_trip: server
                .map(|server| server.round_trip.minimum())
                .unwrap_or_default(),
        })
    }

    /// Whether `serverSelectionTimeoutMS` holds for connecting to the server too: "After a server has been selected, drivers
    /// MUST use the remaining `computedServerSelectionTimeout` value as the timeout for connection checkout" (Client Side
    /// Operations Timeout specification, "Server Selection"). A timeout of zero only says that servers are looked at once.
    fn limits_connecting(&self) -> bool {
        self.work.is_timed() && !self.settings.options.server_selection_timeout.is_zero()
    }

    /// Whether a connection to that server is ready for commands.
    fn is_ready(&self, address: &ServerAddress) -> bool {
        let link = self.link_to(address).and_then(|id| self.links.get(&id));
        link.is_some_and(|link| link.stage == Stage::Ready)
    }

    fn connecting_timed_out(&self, address: &ServerAddress) -> Error {
        let limit = self.selection_limit();
        Error::timeout(format!("no connection was ready {limit}"), None).at(address.clone())
    }

    /// Time has passed while a connection authenticates.
    pub(super) fn check_authenticating(&mut self) {
        let Phase::Authenticating(id, selection) = &self.phase else {
            return;
        };
        if !self.limits_connecting() || self.now < selection.deadline {
            return;
        }
        if let Some(link) = self.links.get(id) {
            let error = self.connecting_timed_out(&link.address);
            self.fail_selection(error);
        }
    }

    pub(super) fn fail_selection(&mut self, error: Error) {
        self.tell_search(SelectionStage::Failed {
            failure: error.clone(),
        });
        self.drop_links_but(None, &ClosedReason::Unused);
        self.phase = Phase::Parked;
        self.work.handle_input(self.now, StreamInput::Failed(error));
    }

    /// Connections of a pool that was cleared since are not used any more (Connection Monitoring and Pooling
    /// specification, "Clearing a Connection Pool").
    fn drop_outdated_links(&mut self) {
        let outdated: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| link.generation < self.topology.generation(&link.address, link.service_id))
            .map(|(id, _)| *id)
            .collect();
        for id in outdated {
            self.drop_link(id, ClosedReason::Stale);
        }
    }

    /// While a connection authenticates, its own limit is the only one, unless `timeoutMS` is set: the selection has
    /// succeeded.
    pub(super) fn selection_deadline(&self) -> Option<Deadline> {
        if let Phase::Authenticating(_, selection) = &self.phase {
            return self.limits_connecting().then_some(Deadline {
                at: selection.deadline,
                reason: DeadlineReason::ServerSelection,
            });
        }
        let Phase::Selecting(selection) = &self.phase else {
            return None;
        };
        let checking = self.is_checking();
        let settle = selection
            .suitable_since
            .map(|since| since + self.settling_time())
            .filter(|_| checking && !selection.settled && !selection.over)
            .map(|at| Deadline {
                at,
                reason: DeadlineReason::Scan,
            });
        let scan = self.rescan_deadline().or_else(|| {
            let anew = self.topology.scans_anew_at();
            let anew = anew.filter(|_| selection.suitable_since.is_none() && !self.looks_once());
            let next = self.topology.next_check_at(self.now);
            next.into_iter().chain(anew).min().map(|at| Deadline {
                at,
                reason: DeadlineReason::Scan,
            })
        });
        let looks_once = checking && self.settings.options.server_selection_timeout.is_zero();
        let connecting = self.limits_connecting() && selection.deadline > self.now;
        let end = ((!selection.over || connecting) && !looks_once).then_some(Deadline {
            at: selection.deadline,
            reason: DeadlineReason::ServerSelection,
        });
        settle
            .into_iter()
            .chain(scan)
            .chain(end)
            .min_by_key(|deadline| deadline.at)
    }

    /// Nobody looked for that long: what has to be done until the deadline has as long as if somebody had.
    pub(super) fn postpone(&mut self, by: Duration) {
        if let Phase::Selecting(selection) = &mut self.phase {
            selection.deadline += by.min(LONGEST_SELECTION);
        }
        if let Phase::Resolving(resolving) = &mut self.phase {
            resolving.deadline += by.min(LONGEST_SELECTION);
        }
        for link in self.links.values_mut() {
            link.connection.postpone(by);
        }
    }

    fn link_to(&self, address: &ServerAddress) -> Option<ConnectionId> {
        self.links
            .iter()
            .find(|(_, link)| link.address == *address)
            .map(|(id, _)| *id)
    }

    /// Whether no server that has not answered yet could be preferred to this one for its kind.
    fn is_best_kind(&self, address: &ServerAddress) -> bool {
        let is_primary = self
            .topology
            .server(address)
            .is_some_and(|server| server.server_type == ServerType::RsPrimary);
        if !matches!(
            self.topology.description().topology_type,
            TopologyType::ReplicaSetWithPrimary | TopologyType::ReplicaSetNoPrimary
        ) {
            return true;
        }
        match self.work.read_preference().mode {
            ReadPreferenceMode::Primary | ReadPreferenceMode::Secondary | ReadPreferenceMode::Nearest => true,
            ReadPreferenceMode::PrimaryPreferred => is_primary,
            ReadPreferenceMode::SecondaryPreferred => !is_primary,
        }
    }

    fn only_primary(&self) -> bool {
        self.work.read_preference().mode == ReadPreferenceMode::Primary
            && self.topology.description().topology_type == TopologyType::ReplicaSetWithPrimary
    }

    fn selection_limit(&self) -> String {
        let options = &self.settings.options;
        match options.server_selection_try_once {
            Some(true) => "in one scan (serverSelectionTryOnce)".to_owned(),
            Some(false) | None => format!(
                "within {} ms (serverSelectionTimeoutMS)",
                options.server_selection_timeout.as_millis()
            ),
        }
    }

    fn none_suitable(&self, limit: &str) -> Error {
        let looked = self.topology.selection_error_message(&self.criteria());
        Error::new(ErrorKind::ServerSelection {
            message: format!("{looked} {limit}"),
        })
    }

    /// A call begins while a server is looked for: it has `serverSelectionTimeoutMS`, as each call has that selects.
    pub(super) fn renew_selection(&mut self) {
        if let Phase::Selecting(selection) = &mut self.phase
            && self.work.is_open()
            && self.work.is_timed()
        {
            selection.deadline = self.now
                + self
                    .settings
                    .options
                    .server_selection_timeout
                    .min(LONGEST_SELECTION);
            selection.over = false;
        }
    }

    /// A timeout while a server was looked for has a cause: what is known of the servers.
    pub(super) fn explain(&self, error: Error) -> Error {
        match (&self.phase, error.kind()) {
            (
                Phase::Selecting(_) | Phase::Authenticating(..),
                ErrorKind::Timeout { message, cause: None },
            ) => Error::timeout(message.clone(), Some(self.none_suitable("in that time")))
                .with_resume_token(error.resume_token().cloned()),
            (_, _) => error,
        }
    }

    pub(super) fn explained(&self, update: Update) -> Update {
        match update {
            Update::TimedOut(error) => Update::TimedOut(self.explain(error)),
            Update::Change(_)
            | Update::Idle(_)
            | Update::Resuming(_)
            | Update::Resumed { .. }
            | Update::Invalidated { .. } => update,
        }
    }
}

/// What an error says about the topology (SDAM specification, "Application errors").
impl ClientMachine {
    /// A server refused a command.
    pub(super) fn blame(&mut self, id: ConnectionId, reply: &CommandReply) {
        let (Some(link), Some(error)) = (self.links.get(&id), reply.error.clone()) else {
            return;
        };
        let kind = ApplicationErrorKind::Command {
            error,
            topology_version: reply.topology_version(),
        };
        let error = application_error(link, kind);
        let address = link.address.clone();
        let changes = self.topology.handle_application_error(self.now, &address, &error);
        self.note_changes(&changes, &address, error.service_id);
    }

    /// What an error, or a hello, has done to the pool of its server, or to the connections of that service behind it.
    pub(super) fn note_changes(
        &mut self,
        changes: &Changes,
        address: &ServerAddress,
        service_id: Option<ObjectId>,
    ) {
        if changes.pool_cleared
            && let Some(journal) = self.journal()
        {
            journal.cleared(address, service_id);
        }
    }

    /// A connection failed.
    pub(super) fn blame_connection(&mut self, link: &Link, error: &Error) {
        let message = error.kind().to_string();
        let network = matches!(error.kind(), ErrorKind::Network { .. });
        if matches!(link.stage, Stage::Opening | Stage::Checking) {
            let changes = self
                .topology
                .handle_check_failure(self.now, &link.address, &message, network);
            return self.note_changes(&changes, &link.address, None);
        }
        let kind = match (error.kind(), error.server_error()) {
            (_, Some(error)) => ApplicationErrorKind::Command {
                error: error.clone(),
                topology_version: None,
            },
            (ErrorKind::Network { timed_out, .. }, None) => ApplicationErrorKind::Network {
                message,
                timed_out: *timed_out,
            },
            (_, None) => ApplicationErrorKind::Other { message },
        };
        let error = application_error(link, kind);
        let changes = self
            .topology
            .handle_application_error(self.now, &link.address, &error);
        self.note_changes(&changes, &link.address, error.service_id);
    }
}

fn application_error(link: &Link, kind: ApplicationErrorKind) -> ApplicationError {
    ApplicationError {
        kind,
        phase: match link.stage {
            Stage::Opening => ConnectionPhase::Establishing,
            Stage::Greeted => ConnectionPhase::Authenticating,
            Stage::Checking | Stage::Ready => ConnectionPhase::Ready,
        },
        generation: link.generation,
        service_id: link.service_id,
        max_wire_version: link.connection.max_wire_version(),
    }
}

/// A longer `serverSelectionTimeoutMS` is cut to this, so that instants cannot overflow.
pub(super) const LONGEST_SELECTION: Duration = Duration::from_secs(365 * 24 * 3600);
