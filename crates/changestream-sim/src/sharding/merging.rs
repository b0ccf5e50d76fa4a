//! A change stream on a mongos: the shards' streams, merged by their tokens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Cluster;
use crate::change_stream::{self, ChangeStream, Continues, Sink, Start};
use crate::cursors::{Batch, Cursor, Kind};
use crate::error::CommandError;
use crate::profile::Profile;
use crate::token::EncodedToken;

/// An open change stream of a mongos.
///
/// An event leaves when no shard can come with an earlier one any more: every other shard has a later event waiting, or
/// its own postBatchResumeToken is past. A shard without writes gets there by its no-ops only, and until then it holds
/// back the events of all others, as in every cluster.
#[derive(Debug)]
pub(crate) struct MergedStream {
    remotes: Vec<Remote>,
    token: Arc<EncodedToken>,
    /// The event that the client resumes after, until a shard has seen it again.
    to_find: Option<String>,
}

/// A shard's part: a cursor of one of its members.
#[derive(Debug)]
struct Remote {
    shard: usize,
    member: usize,
    cursor: i64,
    fetched: Fetched,
    /// Nothing before this comes any more.
    promised: Arc<EncodedToken>,
    /// It has the event that the client resumes after.
    found: bool,
    over: bool,
}

#[derive(Debug, Default)]
struct Fetched {
    events: VecDeque<(Arc<EncodedToken>, Bytes)>,
    bytes: usize,
}

impl MergedStream {
    /// Opens a cursor on each shard, on its primary or, where the client prefers that, on a secondary.
    pub(crate) fn open(
        cluster: &mut Cluster,
        mongos: usize,
        now: Instant,
        start: &Start,
        secondary: bool,
        mut stream: impl FnMut(Start) -> ChangeStream,
        mut cursor_id: impl FnMut() -> i64,
    ) -> Result<Self, CommandError> {
        let to_find = match start {
            Start::After {
                token,
                is_event: true,
                ..
            } => Some(token.data.clone()),
            Start::After { .. } | Start::At(_) => None,
        };
        let mut remotes = Vec::new();
        let mut token = None;
        for shard in 0..cluster.shards.len() {
            let stream = stream(start.clone()).on_shard();
            let Some((set, primary)) = cluster.primary_mut(mongos, shard) else {
                continue;
            };
            let member = set.secondary().filter(|_| secondary).unwrap_or(primary);
            let cursor = cursor_id();
            let promised = stream.token().clone();
            token.get_or_insert_with(|| promised.clone());
            let Some(m) = set.members.get_mut(member) else {
                continue;
            };
            m.cursors.open(Cursor {
                id: cursor,
                namespace: String::new(),
                kind: Kind::ChangeStream(Box::new(stream)),
                session: None,
                user: None,
                last_used: now,
                last_batch: 0,
            });
            remotes.push(Remote {
                shard,
                member,
                cursor,
                fetched: Fetched::default(),
                promised,
                found: false,
                over: false,
            });
        }
        let token = match start {
            Start::After { token, .. } => Some(Arc::new(token.clone())),
            Start::At(_) => token,
        };
        let token = token.ok_or_else(|| CommandError::new(70, "the cluster has no shard"))?;
        Ok(Self {
            remotes,
            token,
            to_find,
        })
    }

    /// The postBatchResumeToken.
    pub(crate) fn token(&self) -> &EncodedToken {
        &self.token
    }

    /// The shards' cursors: shard, member, id.
    pub(crate) fn remotes(&self) -> impl Iterator<Item = (usize, usize, i64)> {
        self.remotes.iter().map(|r| (r.shard, r.member, r.cursor))
    }

    /// Fills a batch with what no shard can come before any more.
    pub(crate) fn fill(
        &mut self,
        cluster: &mut Cluster,
        mongos: usize,
        now: Instant,
        profile: &Profile,
        batch: &mut Batch,
    ) -> Result<Continues, CommandError> {
        // Trouble is told even where this shard's events would not be next.
        for remote in &self.remotes {
            remote.check(cluster, mongos)?;
        }
        loop {
            let Some((index, next)) = self.next() else {
                return Ok(Continues::Yes);
            };
            match next {
                Next::Event { bytes } => {
                    // Every shard has looked further than this.
                    self.must_have_found()?;
                    if batch.is_full_for(bytes) {
                        return Ok(Continues::Yes);
                    }
                    if let Some((token, event)) = self.pop(index) {
                        batch.push(&event);
                        self.token = token;
                    }
                }
                Next::Over(token) => {
                    self.must_have_found()?;
                    self.token = token;
                    return Ok(change_stream::ended(batch));
                }
                // A shard is waited for only as long as there is nothing to return.
                Next::Ask if !batch.is_empty() => {
                    self.promise(index);
                    return Ok(Continues::Yes);
                }
                Next::Ask => {
                    let moved = match self.remotes.get_mut(index) {
                        Some(remote) => remote.fetch(cluster, now, profile)?,
                        None => false,
                    };
                    if !moved {
                        self.promise(index);
                        return Ok(Continues::Yes);
                    }
                }
            }
        }
    }

    /// The shard with the earliest token, and what it has.
    fn next(&self) -> Option<(usize, Next)> {
        let (index, remote) = self
            .remotes
            .iter()
            .enumerate()
            .min_by(|(_, a), (_, b)| a.key().cmp(&b.key()))?;
        let next = match remote.fetched.events.front() {
            Some((_, event)) => Next::Event { bytes: event.len() },
            None if remote.over => Next::Over(remote.promised.clone()),
            None => Next::Ask,
        };
        Some((index, next))
    }

    fn pop(&mut self, index: usize) -> Option<(Arc<EncodedToken>, Bytes)> {
        let fetched = &mut self.remotes.get_mut(index)?.fetched;
        let (token, event) = fetched.events.pop_front()?;
        fetched.bytes = fetched.bytes.saturating_sub(event.len());
        Some((token, event))
    }

    /// The slowest shard is past this point, hence all are.
    fn promise(&mut self, index: usize) {
        if let Some(remote) = self.remotes.get(index)
            && remote.promised.data > self.token.data
        {
            self.token = remote.promised.clone();
        }
    }

    /// What the client resumes after has to be in some shard's log.
    fn must_have_found(&mut self) -> Result<(), CommandError> {
        let Some(wanted) = &self.to_find else {
            return Ok(());
        };
        if self.remotes.iter().any(|remote| remote.found) {
            self.to_find = None;
            return Ok(());
        }
        Err(CommandError::change_stream_fatal_error(format!(
            "cannot resume stream; the resume token was not found. {{_data: \"{wanted}\"}}"
        )))
    }
}

/// What the shard with the earliest token has.
enum Next {
    Event {
        bytes: usize,
    },
    /// Nothing yet.
    Ask,
    /// It was invalidated, up to this token.
    Over(Arc<EncodedToken>),
}

impl Remote {
    /// Its next token, or that it has promised; events come before promises.
    fn key(&self) -> (&str, bool) {
        match self.fetched.events.front() {
            Some((token, _)) => (token.data.as_str(), false),
            None => (self.promised.data.as_str(), true),
        }
    }

    /// Whether its cursor is there and can be reached.
    fn check(&self, cluster: &Cluster, mongos: usize) -> Result<(), CommandError> {
        if self.over {
            return Ok(());
        }
        let member = cluster
            .shards
            .get(self.shard)
            .and_then(|set| set.members.get(self.member));
        let cut = cluster.cut.contains(&(mongos, self.shard));
        let Some(member) = member.filter(|m| m.is_up() && !cut) else {
            return Err(self.failed(cluster, CommandError::new(6, "Connection refused")));
        };
        match member.cursors.get(self.cursor) {
            Some(_) => Ok(()),
            None => Err(self.failed(
                cluster,
                CommandError::cursor_not_found(format!("cursor id {} not found", self.cursor)),
            )),
        }
    }

    /// Asks its cursor for what is there; false if that is nothing new.
    fn fetch(
        &mut self,
        cluster: &mut Cluster,
        now: Instant,
        profile: &Profile,
    ) -> Result<bool, CommandError> {
        let member = cluster
            .shards
            .get_mut(self.shard)
            .and_then(|set| set.members.get_mut(self.member));
        let Some(member) = member else {
            return Ok(false);
        };
        let Some(mut cursor) = member.cursors.take(self.cursor) else {
            return Ok(false);
        };
        cursor.last_used = now;
        let result = match &mut cursor.kind {
            Kind::ChangeStream(stream) => stream
                .fill(member, profile, &mut self.fetched)
                .map(|continues| (continues, stream.token().clone(), stream.has_found())),
            Kind::Documents(_) | Kind::Merged(_) => return Ok(false),
        };
        match result {
            Ok((continues, token, found)) => {
                let moved = self.promised != token;
                self.promised = token;
                self.found |= found;
                self.over = continues == Continues::No;
                if !self.over {
                    member.cursors.put_back(cursor);
                }
                Ok(moved || self.over)
            }
            Err(error) => Err(self.failed(cluster, error)),
        }
    }

    fn failed(&self, cluster: &Cluster, error: CommandError) -> CommandError {
        let address = cluster
            .shards
            .get(self.shard)
            .and_then(|set| set.address(self.member))
            .unwrap_or("");
        error.caused(&format!("Error on remote shard {address}"))
    }
}

impl Sink for Fetched {
    fn is_full(&self) -> bool {
        self.bytes >= MAX_FETCHED_BYTES
    }

    fn is_full_for(&self, bytes: usize) -> bool {
        !self.events.is_empty() && self.bytes.saturating_add(bytes) > MAX_FETCHED_BYTES
    }

    fn take(&mut self, token: &Arc<EncodedToken>, event: &Bytes) {
        self.bytes += event.len();
        self.events.push_back((Arc::clone(token), event.clone()));
    }
}

/// What a mongos holds of a shard's events: a batch, which is limited by its bytes only.
const MAX_FETCHED_BYTES: usize = 16 << 20;
