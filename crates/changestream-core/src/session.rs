//! Logical sessions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bson::{Binary, RawDocumentBuf, Timestamp, rawdoc, spec::BinarySubtype};

use crate::random::Random;
use crate::stream::ClusterTime;

/// A logical session: its id goes with every command of a stream (Driver Sessions specification).
///
/// Cloning it gives the same session, which is the same as another if it has the same id. A stream that was given one
/// never ends it.
///
/// A session remembers the newest `operationTime` and `$clusterTime` that replies to its commands have carried. It is
/// causally consistent unless [`causally_consistent`](Self::causally_consistent) says otherwise: a stream that is opened
/// in it reads from a server that has come as far as the session (`readConcern.afterClusterTime`; Causal Consistency
/// specification), so that a stream on a secondary starts no earlier than what the session has seen elsewhere.
#[derive(Clone, Debug)]
pub struct Session {
    id: [u8; 16],
    is_causal: bool,
    seen: Arc<Mutex<Seen>>,
}

/// What a session's replies have told.
#[derive(Debug, Default)]
struct Seen {
    operation_time: Option<Timestamp>,
    cluster_time: Option<ClusterTime>,
}

impl Session {
    /// A session with a random id, a version 4 UUID.
    pub fn new(random: &mut Random) -> Self {
        let mut id = [0; 16];
        random.fill(&mut id);
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        Self::with_id(id)
    }

    /// A session with this id: the bytes of a UUID.
    pub fn with_id(id: [u8; 16]) -> Self {
        Self {
            id,
            is_causal: true,
            seen: Arc::default(),
        }
    }

    /// Sets whether streams in it read no earlier than what it has seen. Default: true.
    #[must_use]
    pub fn causally_consistent(mut self, is: bool) -> Self {
        self.is_causal = is;
        self
    }

    /// The newest `operationTime` of the replies to its commands, or what it was advanced to. None before the first.
    pub fn operation_time(&self) -> Option<Timestamp> {
        self.seen().operation_time
    }

    /// Goes on from a time that another session has seen, unless this one is further. To be used together with
    /// [`advance_cluster_time`](Self::advance_cluster_time) where that session is another client's.
    pub fn advance_operation_time(&self, time: Timestamp) {
        let known = &mut self.seen().operation_time;
        *known = (*known).max(Some(time));
    }

    /// The newest `$clusterTime` of the replies to its commands, or what it was advanced to.
    pub fn cluster_time(&self) -> Option<ClusterTime> {
        self.seen().cluster_time.clone()
    }

    /// Takes the cluster time of another session over, unless this one's is newer. Its commands carry it from then on,
    /// those of the client outside of it do not: a server refuses what no server has signed.
    pub fn advance_cluster_time(&self, time: ClusterTime) {
        ClusterTime::advance(&mut self.seen().cluster_time, Some(time));
    }

    /// What a stream that is opened in it has to wait for.
    pub(crate) fn after_cluster_time(&self) -> Option<Timestamp> {
        self.operation_time().filter(|_| self.is_causal)
    }

    /// Takes in what a reply to one of its commands says.
    pub(crate) fn learn(&self, operation_time: Option<Timestamp>, cluster_time: Option<&ClusterTime>) {
        let mut seen = self.seen();
        seen.operation_time = seen.operation_time.max(operation_time);
        ClusterTime::advance(&mut seen.cluster_time, cluster_time.cloned());
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session's id: the bytes of a UUID.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The session as a command's `lsid`.
    pub fn lsid(&self) -> RawDocumentBuf {
        let id = Binary {
            subtype: BinarySubtype::Uuid,
            bytes: self.id.to_vec(),
        };
        rawdoc! { "id": id }
    }
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Session {}
