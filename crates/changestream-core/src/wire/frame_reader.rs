//! Cuts a byte stream into frames, without copying them.

use std::mem;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::spare::Spare;
use super::{DEFAULT_MAX_MESSAGE_SIZE, HEADER_LEN, WireError};

/// Lends the buffer that a socket is read into, and hands complete frames out as slices of it.
///
/// Small frames share a buffer, which is as large as what came last: a peer that says little costs little. A frame that
/// does not fit gets one of exactly its own length, taken only after that length was found to be legal; but if parts are to
/// be taken out of it while it arrives, no more is held at once than they need. Once nobody holds the frames of a buffer
/// any more, it is used again: fresh memory costs as much as the bytes that are read into it. A buffer that is much too
/// large for the last frame is not.
///
/// ```
/// use changestream_core::wire::FrameReader;
///
/// let mut reader = FrameReader::new();
/// let frame = [18, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xdd, 7, 0, 0, 42, 43];
/// for byte in frame {
///     assert!(reader.next_frame()?.is_none());
///     reader.buffer()[0] = byte;
///     reader.filled(1);
/// }
/// assert_eq!(reader.next_frame()?.as_deref(), Some(&frame[..]));
/// # Ok::<(), changestream_core::wire::WireError>(())
/// ```
#[derive(Debug)]
pub struct FrameReader {
    received: Received,
    /// The buffer whose frames have left, to be used again.
    spare: Spare,
    /// What a new buffer that small frames share has room for.
    room: usize,
    /// How much was cut out of the frame that is being received.
    cut: usize,
    max_message_size: usize,
}

/// What was received and has not left.
#[derive(Debug)]
enum Received {
    /// A buffer is being filled: all of it is initialised, the first bytes were received, and they are no whole frame as
    /// far as anyone has looked.
    Filling(BytesMut, usize),
    /// Frames are leaving this buffer; the range has not left.
    Leaving(Bytes, Range<usize>),
    /// A part of this buffer's only frame has left. What is left of the frame starts with the head, and goes on with the
    /// range; it is no whole frame.
    Cut {
        whole: Bytes,
        head: Vec<u8>,
        rest: Range<usize>,
    },
}

impl FrameReader {
    /// A reader that accepts messages of up to [`DEFAULT_MAX_MESSAGE_SIZE`] bytes and has taken no memory yet.
    pub fn new() -> Self {
        Self {
            received: Received::Filling(BytesMut::new(), 0),
            spare: Spare::default(),
            room: LEAST_SHARED,
            cut: 0,
            max_message_size: DEFAULT_MAX_MESSAGE_SIZE,
        }
    }

    /// Changes the longest message that is accepted, in bytes; what lies outside 64 KiB to 128 MiB is brought inside.
    pub fn set_max_message_size(&mut self, bytes: usize) {
        self.max_message_size = bytes.clamp(64 << 10, 128 << 20);
    }

    /// The longest message that is accepted, in bytes.
    pub fn max_message_size(&self) -> usize {
        self.max_message_size
    }

    /// Where the next bytes go. Never empty.
    ///
    /// Call [`next_frame`](Self::next_frame) until it has no more before this: a frame that is still in the reader is
    /// copied.
    pub fn buffer(&mut self) -> &mut [u8] {
        self.buffer_up_to(usize::MAX)
    }

    /// The same, but for a frame of which parts will be [cut](Self::cut) out: no more of it than so many bytes is held at
    /// once, or one more than are held already.
    pub(crate) fn buffer_up_to(&mut self, most: usize) -> &mut [u8] {
        self.go_on_after_cut(most);
        let received = self.received();
        let filled = received.len();
        let most = most.max(filled + 1);
        let declared = self.declared_len(received).ok().flatten();
        let wanted = declared.unwrap_or(0).min(most).max(filled + 1);
        if !matches!(&self.received, Received::Filling(buffer, _) if buffer.len() >= wanted) {
            self.provide(wanted);
        }
        let is_cut = self.cut > 0;
        let Received::Filling(buffer, filled) = &mut self.received else {
            unreachable!("a buffer to be filled was provided");
        };
        let end = match declared {
            // What follows a large frame is read later, so that it need not be copied out of its buffer.
            Some(declared) if (declared > MOST_AT_ONCE || is_cut) && declared > *filled => declared.min(most),
            Some(_) => buffer.len(),
            // Nor is what starts a frame that will need a larger one.
            None => buffer.len().min(*filled + MOST_AT_ONCE),
        };
        &mut buffer[*filled..end]
    }

    /// Takes bytes out of the frame that is being received and is not complete. The frame goes on as if it had begun with
    /// `head`, which says its new length, and the bytes behind those taken out.
    ///
    /// None if no frame is being received, or the bytes are not there.
    pub(crate) fn cut(&mut self, head: Vec<u8>, out: Range<usize>) -> Option<Bytes> {
        let Received::Filling(_, filled) = self.received else {
            return None;
        };
        if out.start > out.end || out.end > filled {
            return None;
        }
        let (whole, range) = self.leaving();
        let taken = whole.slice(out.clone());
        self.cut += out.len();
        self.received = Received::Cut {
            whole,
            head,
            rest: out.end..range.end,
        };
        Some(taken)
    }

    /// Says that this many bytes were written to the start of [`buffer`](Self::buffer). What exceeds the buffer is
    /// ignored.
    pub fn filled(&mut self, bytes: usize) {
        if let Received::Filling(buffer, filled) = &mut self.received {
            *filled = filled.saturating_add(bytes).min(buffer.len());
        }
    }

    /// Bytes received that are not part of a frame handed out yet.
    pub fn pending(&self) -> usize {
        match &self.received {
            Received::Filling(..) | Received::Leaving(..) => self.received().len(),
            Received::Cut { head, rest, .. } => head.len() + rest.len(),
        }
    }

    /// Those bytes; none right after a [cut](Self::cut).
    pub(crate) fn received(&self) -> &[u8] {
        match &self.received {
            Received::Filling(buffer, filled) => buffer.get(..*filled),
            Received::Leaving(whole, range) => whole.get(range.clone()),
            Received::Cut { .. } => None,
        }
        .unwrap_or_default()
    }

    /// The next complete frame, header included; none while bytes of it are missing.
    ///
    /// # Errors
    /// The declared length is shorter than a header or longer than the longest message accepted. The stream cannot
    /// be read on after that.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, WireError> {
        let received = self.received();
        let Some(len) = self.declared_len(received)? else {
            return Ok(None);
        };
        if received.len() < len {
            return Ok(None);
        }
        let (whole, range) = self.leaving();
        let frame = whole.slice(range.start..range.start + len);
        let rest = range.start + len..range.end;
        let len = len + mem::take(&mut self.cut);
        if rest.is_empty() {
            self.spare.keep(whole, len);
        } else {
            self.received = Received::Leaving(whole, rest);
        }
        Ok(Some(frame))
    }

    /// Stops filling.
    fn leaving(&mut self) -> (Bytes, Range<usize>) {
        match mem::replace(&mut self.received, Received::Filling(BytesMut::new(), 0)) {
            Received::Filling(buffer, filled) => {
                self.expect_as_much(filled, buffer.len());
                (buffer.freeze(), 0..filled)
            }
            Received::Leaving(whole, range) => (whole, range),
            Received::Cut { whole, .. } => (whole, 0..0),
        }
    }

    /// Puts what is left of a frame together again: in the same buffer, if nobody holds what was cut out of it any more.
    fn go_on_after_cut(&mut self, most: usize) {
        let (whole, head, rest) =
            match mem::replace(&mut self.received, Received::Filling(BytesMut::new(), 0)) {
                Received::Cut { whole, head, rest } => (whole, head, rest),
                other @ (Received::Filling(..) | Received::Leaving(..)) => {
                    self.received = other;
                    return;
                }
            };
        let filled = head.len() + rest.len();
        let mut buffer = match whole.try_into_mut() {
            Ok(mut buffer) => {
                buffer.copy_within(rest, head.len());
                buffer
            }
            Err(whole) => {
                let wanted = most.min(whole.len()).max(filled + 1);
                let buffer = self.spare.take(wanted);
                let mut buffer = buffer.unwrap_or_else(|| BytesMut::zeroed(wanted));
                if let (Some(place), Some(rest)) = (buffer.get_mut(head.len()..filled), whole.get(rest)) {
                    place.copy_from_slice(rest);
                }
                let len = whole.len();
                self.spare.keep(whole, len);
                buffer
            }
        };
        if let Some(place) = buffer.get_mut(..head.len()) {
            place.copy_from_slice(&head);
        }
        self.received = Received::Filling(buffer, filled);
    }

    /// What came at once once may come so again; and more, if there was no room for more.
    fn expect_as_much(&mut self, filled: usize, room: usize) {
        if filled > 0 {
            let expected = if filled == room { filled * 2 } else { filled };
            self.room = expected.next_power_of_two().clamp(LEAST_SHARED, MOST_SHARED);
        }
    }

    /// Sees to a buffer of at least that many bytes that starts with what was received.
    fn provide(&mut self, wanted: usize) {
        let (whole, range) = self.leaving();
        let pending = whole.get(range).unwrap_or_default();
        let mut buffer = self
            .spare
            .take(wanted)
            .unwrap_or_else(|| BytesMut::zeroed(wanted.max(self.room)));
        let filled = pending.len();
        if let Some(place) = buffer.get_mut(..filled) {
            place.copy_from_slice(pending);
        }
        if whole.len() <= MOST_SHARED {
            self.spare.keep(whole, wanted);
        }
        self.received = Received::Filling(buffer, filled);
    }

    fn declared_len(&self, received: &[u8]) -> Result<Option<usize>, WireError> {
        let Some(&[a, b, c, d]) = received.first_chunk() else {
            return Ok(None);
        };
        let declared = i32::from_le_bytes([a, b, c, d]);
        match usize::try_from(declared) {
            Ok(len) if (HEADER_LEN..=self.max_message_size).contains(&len) => Ok(Some(len)),
            _ => Err(WireError::Length {
                declared,
                max: self.max_message_size,
            }),
        }
    }
}

impl Default for FrameReader {
    fn default() -> Self {
        Self::new()
    }
}

/// The smallest buffer that small frames share, and all that an idle stream keeps: room for the answer to a getMore that
/// found no changes.
const LEAST_SHARED: usize = 512;

/// The largest one.
const MOST_SHARED: usize = 16 << 10;

/// How much is read before a frame's length is known; and frames that are larger are read to their end and no further.
const MOST_AT_ONCE: usize = 64 << 10;
