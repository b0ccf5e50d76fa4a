//! Where a stream stands, and from where a new cursor has to start.

use std::ops::Range;

use bson::raw::RawDocumentBuf;
use bson::{Timestamp, raw::CStr};
use bytes::Bytes;

use super::Start;
use crate::WatchOptions;
use crate::event::ChangeEvent;
use crate::faults::Fault;
use crate::token::ResumeToken;

/// The token cache of the change-streams specification ("Updating the Cached Resume Token"), and what else decides
/// how a stream starts anew.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    resume_after: Option<ResumeToken>,
    start_after: Option<ResumeToken>,
    start_at: Option<Timestamp>,
    /// The cached resume token. A reply without one never erases it.
    token: Option<ResumeToken>,
    /// Whether an event was handed over: from then on a stream that began with `startAfter` resumes with
    /// `resumeAfter`.
    delivered: bool,
    /// `operationTime` of the first aggregate, kept where nothing else tells the starting point.
    opened_at: Option<Timestamp>,
}

impl Position {
    pub(crate) fn new(options: &WatchOptions) -> Self {
        Self {
            resume_after: options.resume_after.clone(),
            start_after: options.start_after.clone(),
            start_at: options.start_at_operation_time,
            token: options
                .start_after
                .clone()
                .or_else(|| options.resume_after.clone()),
            delivered: false,
            opened_at: None,
        }
    }

    /// The cached resume token.
    pub(crate) fn token(&self) -> Option<&ResumeToken> {
        self.token.as_ref()
    }

    /// Whether an event was handed over.
    pub(crate) fn has_delivered(&self) -> bool {
        self.delivered
    }

    /// The last event of a batch was handed over. The token is kept in memory of its own: the reply's is to be used
    /// again.
    pub(crate) fn delivered(&mut self, token: ResumeToken) {
        self.delivered = true;
        self.token = Some(token.into_owned());
    }

    /// An event was handed over that others follow.
    pub(crate) fn delivered_event(&mut self, event: &ChangeEvent) {
        self.delivered = true;
        self.token = Some(event.resume_token().clone());
    }

    /// An event was handed over that others follow: the token at that place of their array.
    #[inline]
    pub(crate) fn delivered_within(&mut self, array: &Bytes, place: &Range<usize>) {
        self.delivered = true;
        let moved = self
            .token
            .as_mut()
            .is_some_and(|token| token.move_within(array, place));
        if !moved {
            self.token = ResumeToken::at(array.clone(), place);
        }
    }

    /// A batch was empty.
    pub(crate) fn advanced(&mut self, post_batch_resume_token: Option<ResumeToken>) {
        if let Some(token) = post_batch_resume_token
            && !Fault::IdleTokenForgotten.is_on()
        {
            self.token = Some(token.into_owned());
        }
    }

    /// The first aggregate succeeded. Its `operationTime` is the starting point of a resume if there is no other:
    /// no start option was given, and the reply brought neither an event nor a token.
    pub(crate) fn opened(&mut self, operation_time: Option<Timestamp>, brought_any: bool, wire_version: i32) {
        if !self.starts_in_the_past(Start::Open) && !brought_any && wire_version >= WIRE_VERSION_OF_START_AT {
            self.opened_at = operation_time;
        }
    }

    /// Whether an aggregate names a point to start from, so that the server has to read its log from there on.
    pub(crate) fn starts_in_the_past(&self, start: Start) -> bool {
        match start {
            Start::Open => {
                self.resume_after.is_some() || self.start_after.is_some() || self.start_at.is_some()
            }
            Start::Resume => self.token.is_some() || self.opened_at.is_some() || self.start_at.is_some(),
        }
    }

    /// Appends the start fields of the first aggregate: what the user gave, all of it. Whether it fits together is
    /// the server's to say.
    pub(crate) fn append_start(&self, stage: &mut RawDocumentBuf) {
        if let Some(token) = &self.resume_after {
            stage.append(RESUME_AFTER, token.as_raw_bson());
        }
        if let Some(token) = &self.start_after {
            stage.append(START_AFTER, token.as_raw_bson());
        }
        if let Some(time) = self.start_at {
            stage.append(START_AT, time);
        }
    }

    /// Appends the one start field of an aggregate that resumes ("Resume Process").
    pub(crate) fn append_resume(&self, stage: &mut RawDocumentBuf) {
        if let Some(token) = &self.token {
            let untouched = !self.delivered || Fault::StartAfterKept.is_on();
            let starts_after = self.start_after.is_some() && !Fault::StartAfterForgotten.is_on();
            let field = if starts_after && untouched {
                START_AFTER
            } else {
                RESUME_AFTER
            };
            stage.append(field, token.as_raw_bson());
        } else if let Some(time) = self.opened_at.or(self.start_at) {
            stage.append(START_AT, time);
        }
    }
}

/// `startAtOperationTime` exists since server 4.0.
const WIRE_VERSION_OF_START_AT: i32 = 7;

const RESUME_AFTER: &CStr = bson::raw::cstr!("resumeAfter");
const START_AFTER: &CStr = bson::raw::cstr!("startAfter");
const START_AT: &CStr = bson::raw::cstr!("startAtOperationTime");
