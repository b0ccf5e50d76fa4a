//! The events of one reply, stepped over without being decoded.

use std::ops::Range;

use bytes::Bytes;

use crate::Error;
use crate::walk::until_zero;

/// What is left of a `firstBatch` or `nextBatch`: a BSON array of documents.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    array: Bytes,
    /// Where the next element starts.
    next: usize,
}

impl Batch {
    /// The batch in a whole BSON array.
    pub(crate) fn new(array: Bytes) -> Self {
        let next = array.len().min(LENGTH);
        Self { array, next }
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends_at(self.next)
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> usize {
        self.array.len() - self.next
    }

    /// The whole array.
    pub(crate) fn array(&self) -> &Bytes {
        &self.array
    }

    /// Steps over the next document: where in the array it stands.
    ///
    /// # Errors
    /// The element is no document, or its length does not fit into the array.
    pub(crate) fn next(&mut self) -> Result<Option<Range<usize>>, Error> {
        if self.is_empty() {
            return Ok(None);
        }
        let document = self.bounds().ok_or_else(malformed)?;
        self.next = document.end;
        Ok(Some(document))
    }

    /// Where the next document stands, if it is well-formed and not the last one.
    #[inline]
    pub(crate) fn peek_but_last(&self) -> Option<Range<usize>> {
        self.bounds().filter(|document| !self.ends_at(document.end))
    }

    /// Steps over the document that was peeked at.
    #[inline]
    pub(crate) fn pass(&mut self, document: &Range<usize>) {
        self.next = document.end;
    }

    fn ends_at(&self, at: usize) -> bool {
        matches!(self.array.get(at..), Some([] | [0]) | None)
    }

    /// An element is its type, its key, a zero byte, and the document.
    #[inline]
    fn bounds(&self) -> Option<Range<usize>> {
        const EMBEDDED_DOCUMENT: u8 = 0x03;
        const LONGEST_KEY: usize = 16;
        let (&kind, after_kind) = self.array.get(self.next..)?.split_first()?;
        if kind != EMBEDDED_DOCUMENT {
            return None;
        }
        let key = until_zero(after_kind).filter(|&key| key < LONGEST_KEY)?;
        let start = self.next + 1 + key + 1;
        let declared = i32::from_le_bytes(*self.array.get(start..)?.first_chunk()?);
        let end = start.checked_add(usize::try_from(declared).ok()?)?;
        let document = self.array.get(start..end)?;
        (document.len() >= 5 && document.last() == Some(&0)).then_some(start..end)
    }
}

/// An array starts with its length.
const LENGTH: usize = 4;

fn malformed() -> Error {
    Error::protocol("a batch holds something that is not a document")
}
