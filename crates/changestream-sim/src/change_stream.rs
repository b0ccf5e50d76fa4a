//! A change stream on a member: from where it reads, and what it hands out next.

use std::sync::Arc;

use bson::{Bson, Document, RawDocument, Timestamp};
use bytes::Bytes;

use crate::change_event::{self, Candidate, EventOptions};
use crate::error::CommandError;
use crate::member::Member;
use crate::oplog::{Entry, Log};
use crate::plain_event::PlainEvent;
use crate::profile::Profile;
use crate::query::needs::Needs;
use crate::query::pipeline::Pipeline;
use crate::reply::raw;
use crate::split_event;
use crate::token::{EncodedToken, ResumeTokenData};

/// An open change stream.
///
/// One rule places it: what has a token not above `floor` was handed out already. The floor is the last event's
/// token, or the high-water mark of the commit point once everything up to there was looked at; so it is also the
/// postBatchResumeToken.
#[derive(Debug)]
pub(crate) struct ChangeStream {
    options: EventOptions,
    pipeline: Pipeline,
    /// What the pipeline looks at, if it can do with encoded events.
    needs: Option<Needs>,
    floor: Arc<EncodedToken>,
    floor_ts: Timestamp,
    /// The event that the client resumes after, until it is seen again.
    to_find: Option<String>,
    found: bool,
    /// A mongos merges it with others, one of which has the event to find.
    on_shard: bool,
    started: bool,
    /// It was invalidated, and its last event handed out.
    over: bool,
    /// The commit point that it has read the log up to.
    seen: Option<Timestamp>,
}

/// Where a stream begins.
#[derive(Clone)]
pub(crate) enum Start {
    /// At a moment.
    At(Timestamp),
    /// After a token: its text, and when that was.
    After {
        token: EncodedToken,
        ts: Timestamp,
        is_event: bool,
    },
}

/// Where events go.
pub(crate) trait Sink {
    fn is_full(&self) -> bool;
    /// Whether a further event of this many bytes belongs to the next batch.
    fn is_full_for(&self, bytes: usize) -> bool;
    /// Adds an event, as BSON.
    fn take(&mut self, token: &Arc<EncodedToken>, event: &Bytes);
}

/// What becomes of a stream that was invalidated: a server finds that out when it looks for the event behind the last one,
/// and it does not look where the batch is full.
pub(crate) fn ended(batch: &impl Sink) -> Continues {
    match batch.is_full() {
        true => Continues::Yes,
        false => Continues::No,
    }
}

/// Whether a stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continues {
    Yes,
    /// It was invalidated.
    No,
}

impl ChangeStream {
    pub(crate) fn new(options: EventOptions, pipeline: Pipeline, start: Start, profile: &Profile) -> Self {
        let (floor, floor_ts, to_find) = match start {
            Start::At(ts) => (mark(ts, profile), ts, None),
            Start::After { token, ts, is_event } => {
                let to_find = is_event.then(|| token.data.clone());
                (Arc::new(token), ts, to_find)
            }
        };
        Self {
            options,
            needs: pipeline.needs(),
            pipeline,
            floor,
            floor_ts,
            to_find,
            found: false,
            on_shard: false,
            started: false,
            over: false,
            seen: None,
        }
    }

    /// The same, as a part of a mongos' stream.
    pub(crate) fn on_shard(mut self) -> Self {
        self.on_shard = true;
        self
    }

    /// Whether the event that the client resumes after was seen.
    pub(crate) fn has_found(&self) -> bool {
        self.found
    }

    /// The postBatchResumeToken.
    pub(crate) fn token(&self) -> &Arc<EncodedToken> {
        &self.floor
    }

    /// Fills a batch with what is committed.
    pub(crate) fn fill(
        &mut self,
        member: &Member,
        profile: &Profile,
        batch: &mut impl Sink,
    ) -> Result<Continues, CommandError> {
        if self.over {
            return Ok(Continues::No);
        }
        self.check_history(member)?;
        let committed = member.commit_ts();
        let mut passed = None;
        for entry in member.log.from(self.floor_ts) {
            if entry.optime.ts > committed {
                break;
            }
            if let Some(plain) = self.only_plain(entry, member, profile) {
                let Some(event) = self.selected(plain) else {
                    continue;
                };
                if batch.is_full_for(event.len()) {
                    self.stand_at(passed);
                    return Ok(Continues::Yes);
                }
                batch.take(&plain.token, &event);
                passed = Some((entry.optime.ts, &plain.token));
                continue;
            }
            self.stand_at(passed.take());
            for candidate in change_event::candidates(entry, &self.options, member.stored(), profile) {
                // Where events may be split, each fragment is placed by itself. None that invalidates is ever so large.
                let splits = self.pipeline.splits_large_events() && !candidate.invalidates;
                if !splits && !self.is_next(&candidate.token.data)? {
                    continue;
                }
                if batch.is_full() {
                    return Ok(Continues::Yes);
                }
                for (token, event) in self.pieces(member, profile, &candidate)? {
                    if splits && !self.is_next(&token.data)? {
                        continue;
                    }
                    if batch.is_full_for(event.len()) {
                        return Ok(Continues::Yes);
                    }
                    batch.take(&token, &event);
                    self.floor_ts = entry.optime.ts;
                    self.floor = token;
                }
                if candidate.invalidates {
                    self.floor_ts = entry.optime.ts;
                    self.floor = candidate.token;
                    self.over = true;
                    return Ok(ended(batch));
                }
            }
        }
        self.stand_at(passed);
        let mark = mark(committed, profile);
        if mark.data > self.floor.data {
            self.floor = mark;
            self.floor_ts = committed;
        }
        self.seen = Some(committed);
        Ok(Continues::Yes)
    }

    /// Whether filling another batch would find what the last one has left: nothing.
    pub(crate) fn has_seen_all(&self, committed: Timestamp, log: &Log) -> bool {
        !self.over && self.seen == Some(committed) && log.reaches_back_to(self.floor_ts)
    }

    /// The short way, which nearly all events go: the one event of an entry later than the floor, as it is told to all
    /// with the same wishes.
    fn only_plain<'a>(&self, entry: &'a Entry, member: &Member, profile: &Profile) -> Option<&'a PlainEvent> {
        if self.to_find.is_some() || self.needs.is_none() || entry.optime.ts <= self.floor_ts {
            return None;
        }
        change_event::only_plain(entry, &self.options, member.stored(), profile)
            .filter(|plain| plain.document.len() <= self.most_bytes())
    }

    /// What the pipeline leaves of an event, decoding no more than it looks at; none if it drops it.
    fn selected(&self, plain: &PlainEvent) -> Option<Bytes> {
        if self.pipeline.is_empty() {
            return Some(plain.document.clone());
        }
        let raw = RawDocument::from_bytes(&plain.document).ok()?;
        let needed = self.needs.as_ref()?.of(raw)?;
        if !self.pipeline.lets_through(&needed) {
            return None;
        }
        let Some(projection) = self.pipeline.projection() else {
            return Some(plain.document.clone());
        };
        Some(projection.apply_encoded(raw)?.into_bytes().into())
    }

    /// `BSONObjMaxInternalSize`, of which users see a document of the largest size.
    fn most_bytes(&self) -> usize {
        let largest = self.options.largest;
        largest + split_event::overhead(largest)
    }

    fn stand_at(&mut self, event: Option<(Timestamp, &Arc<EncodedToken>)>) {
        if let Some((ts, token)) = event {
            self.floor_ts = ts;
            self.floor = Arc::clone(token);
        }
    }

    fn check_history(&mut self, member: &Member) -> Result<(), CommandError> {
        let started = std::mem::replace(&mut self.started, true);
        if member.log.reaches_back_to(self.floor_ts) {
            return Ok(());
        }
        if started {
            return Err(CommandError::new(
                136,
                "CollectionScan died due to position in capped collection being deleted. ",
            ));
        }
        Err(CommandError::new(
            286,
            "Resume of change stream was not possible, as the resume point may no longer be in the oplog.",
        ))
    }

    /// Whether the event with this token is to be handed out.
    fn is_next(&mut self, candidate: &str) -> Result<bool, CommandError> {
        let Some(wanted) = &self.to_find else {
            return Ok(candidate > self.floor.data.as_str());
        };
        if candidate < wanted.as_str() {
            return Ok(false);
        }
        if candidate == wanted {
            self.to_find = None;
            self.found = true;
            return Ok(false);
        }
        if self.on_shard {
            self.to_find = None;
            return Ok(true);
        }
        Err(CommandError::new(
            280,
            format!("cannot resume stream; the resume token was not found. {{_data: \"{wanted}\"}}"),
        ))
    }

    /// The event as the pipeline leaves it, in one piece or several; none if the pipeline drops it.
    fn pieces(
        &self,
        member: &Member,
        profile: &Profile,
        candidate: &Candidate<'_>,
    ) -> Result<Vec<(Arc<EncodedToken>, Bytes)>, CommandError> {
        if let Some(plain) = candidate.plain
            && self.pipeline.is_empty()
            && plain.document.len() <= self.most_bytes()
        {
            return Ok(vec![(Arc::clone(&plain.token), plain.document.clone())]);
        }
        let event = change_event::build(candidate, &self.options, member.stored(), profile)?;
        let id = event.get("_id").cloned().unwrap_or(Bson::Null);
        let Some(event) = self.pipeline.apply(event)? else {
            return Ok(Vec::new());
        };
        if event.get("_id") != Some(&id) {
            return Err(id_modified(&candidate.token.data, event.get("_id")));
        }
        let encoded = Bytes::from(raw(&event).into_bytes());
        let size = encoded.len();
        let most = self.most_bytes();
        if size <= most {
            return Ok(vec![(Arc::clone(&candidate.token), encoded)]);
        }
        if self.pipeline.splits_large_events() {
            return split_event::split(event, &candidate.token_data(profile), self.options.largest);
        }
        Err(CommandError::bson_object_too_large(format!(
            "BSONObj size: {size} (0x{size:X}) is invalid. Size must be between 0 and {most}(16MB) First element: \
             _id: {{ _data: \"{}\" }}",
            candidate.token.data
        )))
    }
}

fn mark(ts: Timestamp, profile: &Profile) -> Arc<EncodedToken> {
    Arc::new(ResumeTokenData::high_water_mark(profile.token_version, ts).encode())
}

fn id_modified(expected: &str, found: Option<&Bson>) -> CommandError {
    let mut holder = Document::new();
    if let Some(found) = found {
        holder.insert("_id", found.clone());
    }
    CommandError::new(
        280,
        format!(
            "Encountered an event whose _id field, which contains the resume token, was modified by the pipeline. \
             Modifying the _id field of an event makes it impossible to resume the stream from that point. Only \
             transformations that retain the unmodified _id field are allowed. Expected: \
             {{ _id: {{ _data: \"{expected}\" }} }} but found: {}",
            crate::query::show::spaced(&holder)
        ),
    )
}
