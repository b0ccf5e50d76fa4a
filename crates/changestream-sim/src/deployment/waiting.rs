//! Which connections are worth a look when something has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bson::Timestamp;

use super::ConnectionId;
use crate::member::Member;

/// The connections that may go on, and beside them those whose change streams have seen all that their member has to
/// tell: of these there may be thousands, and the member itself says when to look at them again.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    stirred: BTreeSet<ConnectionId>,
    asleep: BTreeMap<usize, Asleep>,
}

#[derive(Debug, Default)]
struct Asleep {
    /// How the member stood when they fell asleep.
    mark: Option<Mark>,
    connections: BTreeMap<ConnectionId, Instant>,
    due: BTreeSet<(Instant, ConnectionId)>,
}

/// What of a member makes a difference to change streams that have seen all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    committed: Timestamp,
    log_begins: Option<Timestamp>,
    cursors_gone: u64,
}

impl Waiting {
    /// Something has happened to this connection.
    pub(super) fn stir(&mut self, id: ConnectionId) {
        self.stirred.insert(id);
    }

    /// The connection has nothing to do any more.
    pub(super) fn rest(&mut self, id: ConnectionId) {
        self.stirred.remove(&id);
    }

    /// Those that are worth a look, in their order.
    pub(super) fn stirred(&self) -> impl Iterator<Item = ConnectionId> {
        self.stirred.iter().copied()
    }

    /// The connection need not be looked at before then, unless the member has news.
    pub(super) fn sleep(&mut self, id: ConnectionId, (index, member): (usize, &Member), due: Instant) {
        let asleep = self.asleep.entry(index).or_default();
        if !asleep.is_undisturbed(member) {
            asleep.wake_all(&mut self.stirred);
            asleep.mark = Some(Mark::of(member));
        }
        self.stirred.remove(&id);
        asleep.wake(id);
        asleep.connections.insert(id, due);
        asleep.due.insert((due, id));
    }

    /// Wakes those whose member has news, or whose time has come.
    pub(super) fn rouse(&mut self, now: Instant, members: &[Member]) {
        for (index, asleep) in &mut self.asleep {
            if !members.get(*index).is_some_and(|m| asleep.is_undisturbed(m)) {
                asleep.wake_all(&mut self.stirred);
            }
            while let Some((due, id)) = asleep.due.first().copied()
                && due <= now
            {
                asleep.wake(id);
                self.stirred.insert(id);
            }
        }
    }

    /// When the first of those that sleep is to be looked at.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let first = |asleep: &Asleep| asleep.due.first().map(|(due, _)| *due);
        self.asleep.values().filter_map(first).min()
    }

    pub(super) fn forget(&mut self, id: ConnectionId) {
        self.stirred.remove(&id);
        for asleep in self.asleep.values_mut() {
            asleep.wake(id);
        }
    }
}

impl Asleep {
    fn is_undisturbed(&self, member: &Member) -> bool {
        self.mark == Some(Mark::of(member))
    }

    fn wake(&mut self, id: ConnectionId) {
        if let Some(due) = self.connections.remove(&id) {
            self.due.remove(&(due, id));
        }
    }

    fn wake_all(&mut self, stirred: &mut BTreeSet<ConnectionId>) {
        self.due.clear();
        stirred.extend(std::mem::take(&mut self.connections).into_keys());
    }
}

impl Mark {
    fn of(member: &Member) -> Self {
        Self {
            committed: member.commit_ts(),
            log_begins: member.log.first_ts(),
            cursors_gone: member.cursors.gone(),
        }
    }
}
