//! The memory of large replies, which is used again: fresh pages cost as much as the bytes that go into them.

use std::collections::VecDeque;

use bytes::Bytes;

/// Replies that were handed out. One that nobody else holds any more is memory for the next.
#[derive(Debug, Default)]
pub(crate) struct Buffers(VecDeque<Bytes>);

impl Buffers {
    /// Memory for a reply that will be large: empty, and new if all that is known is still held by somebody.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let free = self.0.iter().position(Bytes::is_unique);
        let Some(bytes) = free.and_then(|index| self.0.remove(index)) else {
            return Vec::new();
        };
        // Emptied first, since what is left would be moved.
        let mut bytes = bytes.try_into_mut().unwrap_or_default();
        bytes.clear();
        bytes.into()
    }

    /// Remembers a reply that is handed out, if its memory is worth it.
    pub(crate) fn remember(&mut self, reply: &Bytes) {
        if !is_large(reply.len()) {
            return;
        }
        if self.0.len() >= MAX_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(reply.clone());
    }
}

/// Whether a message of this many bytes wants memory that was used before.
pub(crate) fn is_large(bytes: usize) -> bool {
    bytes >= LARGE
}

/// Below this the allocator has pages at hand.
const LARGE: usize = 64 << 10;
/// One that is written to a socket, one that a client has asked for meanwhile.
const MAX_KEPT: usize = 2;
