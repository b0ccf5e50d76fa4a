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
    pub(crate) fn from_reply(raw: Bytes) -> Result<Self, crate::Error> {
        let doc = RawDocument::from_bytes(&raw).map_err(|_| crate::Error::new(crate::ErrorKind::MissingResumeToken))?;
        let Ok(Some(id)) = doc.get("_id") else { return Err(crate::Error::new(crate::ErrorKind::MissingResumeToken)) };
        let token = ResumeToken::slice_of(&raw, id);
        Ok(Self::new(raw, token))
    }
    pub(crate) fn is_invalidate(&self) -> bool { self.as_raw().get_str("operationType") .is_ok_and(|t| t == "invalidate") }
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
