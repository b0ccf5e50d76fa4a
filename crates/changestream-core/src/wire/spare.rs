//! Memory that is used again.

use bytes::{Bytes, BytesMut};

/// A buffer whose frames have left, to be used again once nobody holds them any more: fresh pages cost as much as the bytes
/// that are put there.
#[derive(Debug, Default)]
pub(crate) struct Spare(Option<Bytes>);

impl Spare {
    /// The buffer, if it has that many bytes and nobody else holds any of it.
    pub(crate) fn take(&mut self, wanted: usize) -> Option<BytesMut> {
        let buffer = self.0.take()?.try_into_mut().ok()?;
        (buffer.len() >= wanted).then_some(buffer)
    }

    /// Keeps a buffer that so many bytes were in at last, unless it is much larger: an idle stream shall not hold the memory
    /// of its largest batch.
    pub(crate) fn keep(&mut self, whole: Bytes, last: usize) {
        let fits = whole.len() <= SMALL || last >= whole.len() / 8;
        self.0 = fits.then_some(whole).filter(|whole| !whole.is_empty());
    }
}

/// What is kept whatever was in it.
const SMALL: usize = 1 << 10;
