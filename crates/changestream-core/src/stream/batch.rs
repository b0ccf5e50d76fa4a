//! The events of one reply, stepped over without being decoded.

use bytes::{Buf, Bytes};

use crate::Error;

/// What is left of a `firstBatch` or `nextBatch`: a BSON array of documents.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// From the next element on, the terminator included.
    rest: Bytes,
}

impl Batch {
    /// The batch in a whole BSON array.
    pub(crate) fn new(array: Bytes) -> Self {
        Self {
            rest: array.slice(array.len().min(4)..),
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(*self.rest, [] | [0])
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next document.
    ///
    /// # Errors
    /// The element is no document, or its length does not fit into the array.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.is_empty() {
            return Ok(None);
        }
        let (start, end) = self.bounds().ok_or_else(malformed)?;
        self.rest.advance(start);
        Ok(Some(self.rest.split_to(end - start)))
    }

    /// Where the next document starts and ends. An element is its type, its key, a zero byte, and the document.
    fn bounds(&self) -> Option<(usize, usize)> {
        const EMBEDDED_DOCUMENT: u8 = 0x03;
        const LONGEST_KEY: usize = 16;
        let (&kind, after_kind) = self.rest.split_first()?;
        if kind != EMBEDDED_DOCUMENT {
            return None;
        }
        let key = after_kind.iter().take(LONGEST_KEY).position(|&b| b == 0)?;
        let start = 1 + key + 1;
        let declared = i32::from_le_bytes(*self.rest.get(start..)?.first_chunk()?);
        let end = start.checked_add(usize::try_from(declared).ok()?)?;
        let document = self.rest.get(start..end)?;
        (document.len() >= 5 && document.last() == Some(&0)).then_some((start, end))
    }
}

fn malformed() -> Error {
    Error::protocol("a batch holds something that is not a document")
}
