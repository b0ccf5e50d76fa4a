//! Change events: raw, lazy, slices of the reply that they came in.

use bson::RawDocument;
use bytes::Bytes;

use crate::token::ResumeToken;

/// One change event.
///
/// Holds a slice of the reply that it came in: as long as it lives, so does that reply's buffer.
#[derive(Clone, PartialEq)]
pub struct ChangeEvent {
    raw: Bytes,
    token: ResumeToken,
}

impl ChangeEvent {
    pub(crate) fn new(raw: Bytes, token: ResumeToken) -> Self {
        Self { raw, token }
    }

    /// The whole event as the server sent it.
    pub fn as_raw(&self) -> &RawDocument {
        RawDocument::from_bytes(&self.raw).expect("checked before the event was made")
    }

    /// The event's own resume token, its `_id`.
    pub fn resume_token(&self) -> &ResumeToken {
        &self.token
    }
}

impl std::fmt::Debug for ChangeEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ChangeEvent").field(&self.as_raw()).finish()
    }
}
