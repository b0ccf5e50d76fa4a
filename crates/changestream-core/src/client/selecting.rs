//! Finding a server: the Server Selection specification's loop, with the scan that single-threaded clients do inline.
//!
//! All servers that are due are checked at once, each over a connection of its own that becomes the stream's if its
//! server is chosen. In the steady state nothing is checked.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::machine::{Link, Phase, Stage};
use super::{ClientMachine, ConnectionId, Deadline, DeadlineReason};
use crate::stream::{CommandReply, StreamInput};
use crate::topology::{
    ApplicationError, ApplicationErrorKind, ConnectionPhase, SelectionCriteria, ServerType, TopologyType,
};
use crate::{Error, ErrorKind, ReadPreferenceMode, ServerAddress};

/// A selection that is going on.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    deadline: Instant,
    deprioritized: BTreeSet<ServerAddress>,
    /// When the first suitable server answered: others that are as near answer soon after.
    suitable_since: Option<Instant>,
}

/// What can be done next.
enum Step {
    Take(ServerAddress),
    Fail(Error),
    Wait,
}

impl ClientMachine {
    /// The stream needs a server.
    pub(super) fn start_selection(&mut self, deprioritized: Option<ServerAddress>) {
        self.phase = Phase::Selecting(Selection {
            deadline: self.now + self.settings.options.server_selection_timeout.min(LONGEST_SELECTION),
            deprioritized: deprioritized.into_iter().collect(),
            suitable_since: None,
        });
        self.advance_selection();
    }

    /// Goes on with the selection, whatever has happened.
    pub(super) fn advance_selection(&mut self) {
        match &self.phase {
            Phase::Authenticating(_, selection) if selection.deadline <= self.now => {
                return self.fail_selection(self.none_suitable());
            }
            Phase::Selecting(_) => {}
            Phase::Authenticating(..)
            | Phase::Parked
            | Phase::Attached(..)
            | Phase::Closing(_)
            | Phase::Closed(_) => return,
        }
        match self.next_step() {
            Step::Take(address) => self.take(address),
            Step::Fail(error) => self.fail_selection(error),
            Step::Wait => {}
        }
    }

    fn next_step(&mut self) -> Step {
        let found = match self.topology.select(&self.criteria(), &mut self.random) {
            Ok(found) => found,
            Err(error) => return Step::Fail(Error::new(ErrorKind::ServerSelection { message: error.to_string() })),
        };
        let Phase::Selecting(selection) = &mut self.phase else {
            return Step::Wait;
        };
        if found.is_some() {
            selection.suitable_since.get_or_insert(self.now);
        }
        let (since, deadline) = (selection.suitable_since, selection.deadline);
        if found.is_none() {
            self.topology.mark_stale();
        }
        self.scan();
        match found {
            Some(address) if self.is_checking() => {
                let settled = since.is_some_and(|since| since + self.settling_time() <= self.now);
                if self.is_best_kind(&address) && (settled || self.only_primary()) {
                    Step::Take(address)
                } else {
                    Step::Wait
                }
            }
            Some(address) => Step::Take(address),
            None if deadline <= self.now && !self.still_looks_once() => Step::Fail(self.none_suitable()),
            None => Step::Wait,
        }
    }

    /// A timeout of zero still means that each server is asked once.
    fn still_looks_once(&self) -> bool {
        self.settings.options.server_selection_timeout.is_zero() && self.is_checking()
    }

    fn criteria(&self) -> SelectionCriteria {
        let mut criteria = SelectionCriteria::read(self.stream.read_preference().clone());
        if let Phase::Selecting(selection) = &self.phase {
            criteria.deprioritized.clone_from(&selection.deprioritized);
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
            match self.link_to(&address) {
                Some(id) => self.on_link(id, |link| {
                    if link.stage != Stage::Opening {
                        link.stage = Stage::Checking;
                        link.connection.check(now);
                    }
                }),
                None => {
                    self.open_link(address);
                }
            }
        }
    }

    fn is_checking(&self) -> bool {
        self.links
            .values()
            .any(|link| matches!(link.stage, Stage::Opening | Stage::Checking))
    }

    /// A server is chosen: over to its connection.
    fn take(&mut self, address: ServerAddress) {
        let now = self.now;
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
                self.phase = Phase::Authenticating(id, selection.clone());
                self.on_link(id, |link| link.connection.authenticate(now));
            }
            Some(Stage::Opening | Stage::Checking) | None => {}
        }
    }

    pub(super) fn fail_selection(&mut self, error: Error) {
        self.drop_links_but(None);
        self.phase = Phase::Parked;
        self.stream.handle_input(self.now, StreamInput::Failed(error));
    }

    pub(super) fn selection_deadline(&self, selection: &Selection) -> Deadline {
        let checking = self.is_checking();
        let settle = selection
            .suitable_since
            .map(|since| since + self.settling_time())
            .filter(|at| checking && *at > self.now)
            .map(|at| Deadline {
                at,
                reason: DeadlineReason::Scan,
            });
        let scan = match self.phase {
            Phase::Selecting(_) => self.topology.next_check_at(self.now).map(|at| Deadline {
                at,
                reason: DeadlineReason::Scan,
            }),
            Phase::Authenticating(..)
            | Phase::Parked
            | Phase::Attached(..)
            | Phase::Closing(_)
            | Phase::Closed(_) => None,
        };
        let end = Deadline {
            at: selection.deadline,
            reason: DeadlineReason::ServerSelection,
        };
        settle
            .into_iter()
            .chain(scan)
            .chain([end])
            .min_by_key(|deadline| deadline.at)
            .unwrap_or(end)
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
        match self.stream.read_preference().mode {
            ReadPreferenceMode::Primary | ReadPreferenceMode::Secondary | ReadPreferenceMode::Nearest => true,
            ReadPreferenceMode::PrimaryPreferred => is_primary,
            ReadPreferenceMode::SecondaryPreferred => !is_primary,
        }
    }

    fn only_primary(&self) -> bool {
        self.stream.read_preference().mode == ReadPreferenceMode::Primary
            && self.topology.description().topology_type == TopologyType::ReplicaSetWithPrimary
    }

    fn none_suitable(&self) -> Error {
        Error::new(ErrorKind::ServerSelection {
            message: format!(
                "{} within {} ms (serverSelectionTimeoutMS)",
                self.topology.selection_error_message(&self.criteria()),
                self.settings.options.server_selection_timeout.as_millis(),
            ),
        })
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
        self.topology
            .handle_application_error(self.now, &link.address, &error);
    }

    /// A connection failed.
    pub(super) fn blame_connection(&mut self, link: &Link, error: &Error) {
        let message = error.kind().to_string();
        let network = matches!(error.kind(), ErrorKind::Network { .. });
        if matches!(link.stage, Stage::Opening | Stage::Checking) {
            self.topology
                .handle_check_failure(self.now, &link.address, &message, network);
            return;
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
        self.topology
            .handle_application_error(self.now, &link.address, &error);
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
        service_id: None,
        max_wire_version: link.connection.max_wire_version(),
    }
}

/// A longer `serverSelectionTimeoutMS` is cut to this, so that instants cannot overflow.
const LONGEST_SELECTION: Duration = Duration::from_secs(365 * 24 * 3600);
