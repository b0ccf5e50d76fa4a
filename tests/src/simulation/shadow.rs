//! The rules of the change-streams specification, held against what a stream says and learns: which token it has, which
//! command comes next, and whether it may end.
//!
//! It is fed from outside the stream and shares no code with it.

use std::collections::{BTreeMap, VecDeque};

use bson::{Bson, Document, RawDocument, RawDocumentBuf, Timestamp};
use changestream_core::client::{ConnectionId, Idle};
use changestream_core::event::OperationType;
use changestream_core::{ChangeEvent, Error, ErrorKind, ResumePolicy, ResumeToken, WatchOptions};

use changestream_sim::token::ResumeTokenData;

use super::servers::Servers;
use crate::world::document;

/// What a stream has to do next.
pub(super) struct Shadow {
    options: WatchOptions,
    /// Whether errors are resumable by their label, or by a list (before server 4.4).
    labels: bool,
    /// Whether a load balancer stands before the servers: then a cursor can be reached over its own connection only.
    balanced: bool,
    token: Option<RawDocumentBuf>,
    delivered: bool,
    pub(super) opened: bool,
    /// The first aggregate, but for where it starts.
    first: Option<Document>,
    cursor: Option<(i64, Owner)>,
    owners: BTreeMap<i64, Owner>,
    replies: VecDeque<Reply>,
    /// The events that have come of a reply that is on its way, and how many of them were delivered.
    begun: Vec<RawDocumentBuf>,
    early: usize,
    /// How many getMores are not answered.
    awaited: u32,
    /// The last event that was delivered is an invalidate event.
    at_invalidate: bool,
    /// The consumer was told that what it watched is gone.
    invalidated: bool,
    failure: Option<Failure>,
    pub(super) resumes: u64,
}

/// Whom a stream talks to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) member: Option<usize>,
    pub(super) connection: ConnectionId,
}

/// Whose a cursor is: a server's, or behind a load balancer a connection's.
type Owner = (Option<usize>, Option<ConnectionId>);

/// A batch that has arrived.
struct Reply {
    events: VecDeque<RawDocumentBuf>,
    token: Option<RawDocumentBuf>,
}

impl Reply {
    fn len(&self) -> usize {
        self.events.iter().map(|event| event.as_bytes().len()).sum()
    }
}

/// A reply that was an error.
#[derive(Debug)]
struct Failure {
    command: String,
    code: i32,
    labels: Vec<String>,
}

impl Shadow {
    pub(super) fn new(options: &WatchOptions, servers: &Servers) -> Self {
        let start = options.start_after.as_ref().or(options.resume_after.as_ref());
        Self {
            labels: servers.profile.labels_errors,
            balanced: servers.balanced,
            token: start.map(|token| raw(token).to_owned()),
            delivered: false,
            opened: false,
            first: None,
            cursor: None,
            owners: BTreeMap::new(),
            replies: VecDeque::new(),
            begun: Vec::new(),
            early: 0,
            awaited: 0,
            at_invalidate: false,
            invalidated: false,
            failure: None,
            resumes: 0,
            options: options.clone(),
        }
    }

    /// Whether the token may be that of an invalidate event, which only `startAfter` takes.
    pub(super) fn may_be_at_invalidate(&self) -> bool {
        // A stream whose pipeline drops the event may be left before it is told.
        let stands_there = self.token.as_deref().is_some_and(is_of_invalidate);
        self.invalidated || self.is_exhausted() || self.at_invalidate || self.starts_after() || stands_there
    }

    fn is_exhausted(&self) -> bool {
        self.cursor.is_some_and(|(id, _)| id == 0)
    }

    /// Whether it has delivered an event.
    pub(super) fn has_delivered(&self) -> bool {
        self.delivered
    }

    /// Whether its token, as long as it has delivered nothing, may be one that only `startAfter` takes.
    fn starts_after(&self) -> bool {
        self.options.start_after.is_some() && !self.delivered
    }

    /// The stream sent a command.
    pub(super) fn asked(&mut self, name: &str, peer: Peer, command: &RawDocumentBuf) -> Result<(), String> {
        let owner = self.owner(peer);
        let command = Document::try_from(command).map_err(|error| error.to_string())?;
        match name {
            "aggregate" => self.asked_aggregate(command),
            "getMore" => self.asked_get_more(&command, owner),
            _ => self.asked_to_kill(&command, owner),
        }
    }

    fn owner(&self, peer: Peer) -> Owner {
        (peer.member, self.balanced.then_some(peer.connection))
    }

    /// Whether a server's error is told as a call's that has no time left, which a stream survives (Client Side Operations
    /// Timeout specification, "Change Streams").
    fn is_told_as_timeout(&self, failure: &Failure) -> bool {
        const MAX_TIME_EXPIRED: i32 = 50;
        self.options.timeout.is_some() && failure.code == MAX_TIME_EXPIRED
    }

    /// Whether calls are limited in time.
    fn is_timed(&self) -> bool {
        self.options.timeout.is_some_and(|timeout| !timeout.is_zero())
    }

    fn asked_aggregate(&mut self, mut command: Document) -> Result<(), String> {
        command.remove("$clusterTime");
        // What is left of the call's time.
        let limited = command.remove("maxTimeMS").is_some();
        ensure(limited == self.is_timed(), || {
            format!(
                "maxTimeMS is there: {limited}, and timeoutMS {:?}",
                self.options.timeout
            )
        })?;
        let start = take_start(&mut command)?;
        let expected = self.expected_start();
        ensure(start == expected, || {
            format!("starts at {start} instead of {expected}")
        })?;
        let first = self.first.get_or_insert_with(|| command.clone());
        for (field, value) in first.iter() {
            let now = command.get(field);
            ensure(now == Some(value), || {
                format!("{field} was {value} and now is {now:?}")
            })?;
        }
        if !self.opened {
            return Ok(());
        }
        ensure(self.held() == 0, || {
            "resumes while events wait to be delivered".to_owned()
        })?;
        // What was to come of that reply does not come.
        self.begun.clear();
        self.early = 0;
        self.awaited = 0;
        match &self.failure {
            Some(failure) if failure.command == "getMore" => ensure(
                self.is_resumable(failure) || self.is_told_as_timeout(failure),
                || format!("resumes after {failure:?}"),
            ),
            _ => Ok(()),
        }
    }

    /// "Resume Process".
    fn expected_start(&self) -> Document {
        let mut start = Document::new();
        let options = &self.options;
        if self.opened
            && let Some(token) = &self.token
        {
            let field = if options.start_after.is_some() && !self.delivered {
                "startAfter"
            } else {
                "resumeAfter"
            };
            let token = Document::try_from(token).expect("it came as BSON");
            start.insert(field, token);
            return start;
        }
        if let Some(token) = &options.resume_after {
            start.insert("resumeAfter", document(token));
        }
        if let Some(token) = &options.start_after {
            start.insert("startAfter", document(token));
        }
        if let Some(time) = options.start_at_operation_time {
            start.insert("startAtOperationTime", time);
        }
        start
    }

    fn asked_get_more(&mut self, command: &Document, owner: Owner) -> Result<(), String> {
        let id = command.get_i64("getMore").map_err(|error| error.to_string())?;
        ensure(self.cursor == Some((id, owner)), || {
            format!("asks {owner:?} for {id}; the cursor is {:?}", self.cursor)
        })?;
        let session = self.first.as_ref().and_then(|first| first.get("lsid"));
        ensure(command.get("lsid") == session, || "another session".to_owned())?;
        let size = self.options.batch_size.filter(|size| *size > 0).map(i64::from);
        let sent = command
            .get("batchSize")
            .and_then(|size| size.as_i64().or_else(|| size.as_i32().map(i64::from)));
        ensure(sent == size, || format!("batchSize is {sent:?}"))?;
        let wait = command.get_i64("maxTimeMS").ok();
        let wanted = self.options.max_await_time.map(|time| time.as_millis() as i64);
        // A call may have less time left than that.
        let right = wait == wanted || (self.is_timed() && wait.is_some() && wait < wanted);
        ensure(right, || format!("maxTimeMS is {wait:?}"))?;
        // The next may follow a reply of which events are here, so that it is known not to be an error.
        ensure(
            self.awaited == 0 || (self.awaited == 1 && !self.begun.is_empty()),
            || format!("asks while {} replies are awaited", self.awaited),
        )?;
        self.awaited += 1;
        let batches = self.held() + usize::from(!self.begun.is_empty());
        let bytes = self.replies.iter().map(Reply::len).sum::<usize>();
        let ahead = batches <= self.options.prefetch_batches && bytes <= self.options.prefetch_bytes;
        ensure(batches == 0 || ahead, || {
            format!("fetches ahead with {batches} batches of {bytes} bytes in memory")
        })
    }

    fn asked_to_kill(&self, command: &Document, asked: Owner) -> Result<(), String> {
        let ids = command.get_array("cursors").map_err(|error| error.to_string())?;
        for id in ids.iter().filter_map(Bson::as_i64) {
            let owner = self.owners.get(&id);
            ensure(owner == Some(&asked), || {
                format!("kills {id} at {asked:?}, and it is of {owner:?}")
            })?;
        }
        Ok(())
    }

    /// The stream received the start of a getMore's reply, up to these events.
    pub(super) fn began(&mut self, events: Vec<RawDocumentBuf>) {
        self.begun = events;
    }

    /// The stream received a reply. The operation time of the reply that opened the stream comes back.
    pub(super) fn answered(
        &mut self,
        name: &str,
        peer: Peer,
        reply: &RawDocumentBuf,
        more_to_come: bool,
    ) -> Result<Option<Timestamp>, String> {
        if name == "killCursors" {
            return Ok(None);
        }
        if name == "getMore" && !more_to_come {
            self.awaited = self.awaited.saturating_sub(1);
        }
        let broken = |error: bson::error::Error| error.to_string();
        let Some(cursor) = reply
            .get("cursor")
            .map_err(broken)?
            .and_then(|cursor| cursor.as_document())
        else {
            self.fail(name, reply);
            return Ok(None);
        };
        self.failure = None;
        let id = cursor.get_i64("id").map_err(|error| error.to_string())?;
        let owner = self.owner(peer);
        self.cursor = Some((id, owner));
        self.owners.insert(id, owner);
        let batch = match cursor.get("firstBatch").map_err(broken)? {
            Some(batch) => Some(batch),
            None => cursor.get("nextBatch").map_err(broken)?,
        };
        let events = batch.and_then(|batch| batch.as_array()).ok_or("no batch")?;
        let events = events
            .into_iter()
            .filter_map(|event| Some(event.ok()?.as_document()?.to_owned()));
        let token = cursor.get("postBatchResumeToken").map_err(broken)?;
        let token = token.and_then(|token| token.as_document());
        let mut events: VecDeque<_> = events.collect();
        let (begun, early) = (std::mem::take(&mut self.begun), std::mem::take(&mut self.early));
        ensure(events.iter().take(begun.len()).eq(&begun), || {
            "a reply goes on as another".to_owned()
        })?;
        ensure(early == 0 || early < events.len(), || {
            "the last event of a reply was delivered before its end".to_owned()
        })?;
        events.drain(..early);
        let reply_at = Reply {
            events,
            token: token.map(ToOwned::to_owned),
        };
        if reply_at.events.is_empty() && self.held() == 0 {
            self.replies.clear();
            self.token = reply_at.token.clone().or_else(|| self.token.take());
        }
        self.replies.push_back(reply_at);
        if self.opened {
            self.resumes += u64::from(name == "aggregate");
            return Ok(None);
        }
        self.opened = true;
        Ok(reply.get_timestamp("operationTime").ok())
    }

    fn fail(&mut self, name: &str, reply: &RawDocumentBuf) {
        let labels = reply.get_array("errorLabels").ok().into_iter().flatten();
        self.failure = Some(Failure {
            command: name.to_owned(),
            code: reply.get_i32("code").unwrap_or(0),
            labels: labels
                .filter_map(|label| Some(label.ok()?.as_str()?.to_owned()))
                .collect(),
        });
    }

    /// An event was delivered.
    pub(super) fn delivered(&mut self, event: &ChangeEvent) -> Result<(), String> {
        self.is_not_over()?;
        while self.replies.front().is_some_and(|reply| reply.events.is_empty()) {
            self.replies.pop_front();
        }
        let Some(reply) = self.replies.front_mut() else {
            return self.delivered_early(event);
        };
        let next = reply.events.pop_front();
        ensure(next.as_deref() == Some(event.as_raw()), || {
            "another event than the next of the batch".to_owned()
        })?;
        let mut token = raw(event.resume_token()).to_owned();
        if reply.events.is_empty() {
            token = reply.token.take().unwrap_or(token);
            self.replies.pop_front();
        }
        self.token = Some(token);
        self.at_invalidate = event.operation_type() == Some(OperationType::Invalidate);
        self.delivered = true;
        Ok(())
    }

    /// Whether the last event was delivered before its reply had come to its end.
    pub(super) fn is_early(&self) -> bool {
        self.early > 0
    }

    /// An event was delivered of which the reply is on its way.
    fn delivered_early(&mut self, event: &ChangeEvent) -> Result<(), String> {
        let next = self.begun.get(self.early);
        ensure(next.is_some_and(|next| &**next == event.as_raw()), || {
            "an event that no reply has brought".to_owned()
        })?;
        self.early += 1;
        self.token = Some(raw(event.resume_token()).to_owned());
        self.at_invalidate = event.operation_type() == Some(OperationType::Invalidate);
        self.delivered = true;
        Ok(())
    }

    /// The consumer was told that there is nothing.
    pub(super) fn idle(&mut self, idle: &Idle) -> Result<(), String> {
        self.is_not_over()?;
        self.moves_to(idle.token.as_ref().map(raw))
    }

    /// The consumer was told that what it watched is gone.
    pub(super) fn invalidated(&mut self, token: &ResumeToken) -> Result<(), String> {
        // A cursor that stands behind an invalidate event which its pipeline drops lives until the next reply, or is lost
        // before that.
        ensure(
            self.is_exhausted() || self.at_invalidate || is_of_invalidate(raw(token)),
            || "told of an invalidation while the cursor lives".to_owned(),
        )?;
        ensure(!self.invalidated && self.held() == 0, || {
            "told of an invalidation twice, or before the last event".to_owned()
        })?;
        self.invalidated = true;
        self.moves_to(Some(raw(token)))
    }

    fn is_not_over(&self) -> Result<(), String> {
        ensure(!self.invalidated, || {
            "goes on after an invalidation was told".to_owned()
        })
    }

    pub(super) fn is_told_of_invalidation(&self) -> bool {
        self.invalidated
    }

    fn moves_to(&mut self, told: Option<&RawDocument>) -> Result<(), String> {
        ensure(self.allows(told), || {
            format!("stands at {told:?} instead of {:?}", self.token)
        })?;
        while self.token.as_deref() != told {
            let Some(reply) = self.replies.pop_front() else {
                break;
            };
            self.token = reply.token.or_else(|| self.token.take());
        }
        Ok(())
    }

    /// The consumer was told that its call has no time left: the stream lives on.
    pub(super) fn timed_out(&self, error: &Error) -> Result<(), String> {
        let told = self
            .failure
            .as_ref()
            .is_some_and(|failure| self.is_told_as_timeout(failure));
        // `timeoutMS=0` limits no call, but the search for a server has its own limit.
        let unlimited =
            self.options.timeout.is_some() && error.to_string().contains("serverSelectionTimeoutMS");
        ensure(
            (self.is_timed() || told || unlimited) && error.is_timeout(),
            || format!("a call without a limit has run out of time: {error}"),
        )?;
        ensure(self.held() == 0, || {
            "says that nothing came while events wait to be delivered".to_owned()
        })
    }

    /// What the stream says its token is, at any time.
    pub(super) fn has_token(&self, token: Option<&ResumeToken>) -> Result<(), String> {
        let token = token.map(raw);
        ensure(self.allows(token), || {
            format!("the token is {token:?} instead of {:?}", self.token)
        })
    }

    /// The token may be that of the last hand-over; or of an empty batch right behind it, of which nothing was told yet.
    fn allows(&self, token: Option<&RawDocument>) -> bool {
        let mut empty = self.replies.iter().take_while(|reply| reply.events.is_empty());
        token == self.token.as_deref() || empty.any(|reply| reply.token.as_deref() == token)
    }

    /// The stream ended with an error: a named one, that nothing could be done about.
    pub(super) fn failed(&self, error: &Error) -> Result<(), String> {
        ensure(self.held() == 0, || {
            "ends while events wait to be delivered".to_owned()
        })?;
        let token = error.resume_token().map(raw);
        ensure(token == self.token.as_deref(), || {
            format!("the error carries {token:?} instead of {:?}", self.token)
        })?;
        if error.is_timeout() {
            return ensure(self.options.timeout.is_some() && !self.opened, || {
                "ends because a call took long".to_owned()
            });
        }
        if let Some(code) = error.code() {
            let failure = self
                .failure
                .as_ref()
                .ok_or("an error of a server that sent none")?;
            ensure(failure.code == code, || {
                format!("the server's error was {failure:?}")
            })?;
            let given_up = failure.command == "getMore" && self.is_resumable(failure);
            return ensure(!given_up, || format!("ends where it has to resume: {failure:?}"));
        }
        let transient = matches!(
            error.kind(),
            ErrorKind::ServerSelection { .. } | ErrorKind::Network { .. }
        );
        ensure(transient, || {
            "no error that a server or a network can make".to_owned()
        })?;
        let never_ends = self.opened && self.options.resume_policy == ResumePolicy::Forever;
        ensure(!never_ends, || "gives up, against its policy".to_owned())
    }

    fn held(&self) -> usize {
        self.replies
            .iter()
            .filter(|reply| !reply.events.is_empty())
            .count()
    }

    /// "Resumable Error".
    fn is_resumable(&self, failure: &Failure) -> bool {
        const BEFORE_LABELS: [i32; 17] = [
            6, 7, 63, 89, 91, 133, 150, 189, 234, 262, 9001, 10107, 11600, 11602, 13388, 13435, 13436,
        ];
        const CURSOR_NOT_FOUND: i32 = 43;
        let labelled = failure
            .labels
            .iter()
            .any(|label| label == "ResumableChangeStreamError");
        failure.code == CURSOR_NOT_FOUND
            || (self.labels && labelled)
            || (!self.labels && BEFORE_LABELS.contains(&failure.code))
    }
}

/// Takes the fields that say where to start out of an aggregate.
fn take_start(aggregate: &mut Document) -> Result<Document, String> {
    let pipeline = aggregate
        .get_array_mut("pipeline")
        .map_err(|error| error.to_string())?;
    let stage = pipeline
        .first_mut()
        .and_then(Bson::as_document_mut)
        .ok_or("no stage")?;
    let stage = stage
        .get_document_mut("$changeStream")
        .map_err(|error| error.to_string())?;
    let mut start = Document::new();
    for field in ["resumeAfter", "startAfter", "startAtOperationTime"] {
        if let Some(value) = stage.remove(field) {
            start.insert(field, value);
        }
    }
    Ok(start)
}

fn is_of_invalidate(token: &RawDocument) -> bool {
    let token = Document::try_from(token).ok();
    let token = token.and_then(|token| ResumeTokenData::from_document(&token).ok());
    token.is_some_and(|token| token.from_invalidate)
}

/// A token as it came.
fn raw(token: &ResumeToken) -> &RawDocument {
    token.as_document().expect("servers' tokens are documents")
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}
