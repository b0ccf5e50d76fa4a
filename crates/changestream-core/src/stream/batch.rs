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
    /// Where the next document stands, if it is well-formed. Found one step ahead, so that its ends are on their way from
    /// memory while the document before it is read.
    document: Option<Range<usize>>,
}

impl Batch {
    /// The batch in a whole BSON array.
    pub(crate) fn new(array: Bytes) -> Self {
        let next = array.len().min(LENGTH);
        let document = bounds(&array, next);
        Self {
            array,
            next,
            document,
        }
    }

    /// A part of a batch: elements of its array, which others follow.
    pub(crate) fn part(elements: Bytes) -> Self {
        let document = bounds(&elements, 0);
        Self {
            array: elements,
            next: 0,
            document,
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends_at(self.next)
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> usize {
        self.array.len() - self.next
    }

    /// The whole array, or the part of it.
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
        let document = self.document.clone().ok_or_else(malformed)?;
        self.pass(&document);
        Ok(Some(document))
    }

    /// Where the next document stands, if it is well-formed and not the last one.
    #[inline]
    pub(crate) fn peek_but_last(&self) -> Option<Range<usize>> {
        let document = self.document.as_ref()?;
        (!self.ends_at(document.end)).then(|| document.clone())
    }

    /// Steps over the document that was peeked at.
    #[inline]
    pub(crate) fn pass(&mut self, document: &Range<usize>) {
        self.next = document.end;
        self.document = bounds(&self.array, self.next);
    }

    fn ends_at(&self, at: usize) -> bool {
        matches!(self.array.get(at..), Some([] | [0]) | None)
    }
}

/// Where the document of the element stands that starts there. An element is its type, its key, a zero byte, and the
/// document.
#[inline]
fn bounds(array: &[u8], at: usize) -> Option<Range<usize>> {
    const EMBEDDED_DOCUMENT: u8 = 0x03;
    const LONGEST_KEY: usize = 16;
    let (&kind, after_kind) = array.get(at..)?.split_first()?;
    if kind != EMBEDDED_DOCUMENT {
        return None;
    }
    let key = until_zero(after_kind).filter(|&key| key < LONGEST_KEY)?;
    let start = at + 1 + key + 1;
    let declared = i32::from_le_bytes(*array.get(start..)?.first_chunk()?);
    let end = start.checked_add(usize::try_from(declared).ok()?)?;
    let document = array.get(start..end)?;
    (document.len() >= 5 && document.last() == Some(&0)).then_some(start..end)
}

/// An array starts with its length.
const LENGTH: usize = 4;

fn malformed() -> Error {
    Error::protocol("a batch holds something that is not a document")
}
