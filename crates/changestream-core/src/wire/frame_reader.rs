//! Cuts a byte stream into frames, without copying them.

use bytes::{Bytes, BytesMut};

use super::{DEFAULT_MAX_MESSAGE_SIZE, HEADER_LEN, WireError};

/// Lends the buffer that a socket is read into, and hands complete frames out as slices of it.
///
/// Small frames share a buffer. A frame that does not fit gets one of exactly its own length, taken only after that
/// length was found to be legal, so that what follows a large frame never keeps it in memory.
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
    /// All of it is initialised; the first `filled` bytes were received.
    buffer: BytesMut,
    filled: usize,
    max_message_size: usize,
}

impl FrameReader {
    /// A reader that accepts messages of up to [`DEFAULT_MAX_MESSAGE_SIZE`] bytes and has taken no memory yet.
    pub fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            filled: 0,
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
    /// Call [`next_frame`](Self::next_frame) until it has no more before this: a frame that is still in the reader
    /// only makes the lent buffer larger than it need be.
    pub fn buffer(&mut self) -> &mut [u8] {
        let declared = self.declared_len().ok().flatten().unwrap_or(0);
        let wanted = declared.max(self.filled + 1);
        if self.buffer.len() < wanted {
            let mut larger = BytesMut::zeroed(wanted.max(SHARED_BUFFER));
            if let (Some(to), Some(from)) = (larger.get_mut(..self.filled), self.buffer.get(..self.filled)) {
                to.copy_from_slice(from);
            }
            self.buffer = larger;
        }
        &mut self.buffer[self.filled..]
    }

    /// Says that this many bytes were written to the start of [`buffer`](Self::buffer). What exceeds the buffer is
    /// ignored.
    pub fn filled(&mut self, bytes: usize) {
        self.filled = self.filled.saturating_add(bytes).min(self.buffer.len());
    }

    /// Bytes received that are not part of a frame handed out yet.
    pub fn pending(&self) -> usize {
        self.filled
    }

    /// Those bytes.
    pub(crate) fn received(&self) -> &[u8] {
        self.buffer.get(..self.filled).unwrap_or_default()
    }

    /// The next complete frame, header included; none while bytes of it are missing.
    ///
    /// # Errors
    /// The declared length is shorter than a header or longer than the longest message accepted. The stream cannot
    /// be read on after that.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, WireError> {
        let Some(len) = self.declared_len()? else {
            return Ok(None);
        };
        if self.filled < len {
            return Ok(None);
        }
        let frame = self.buffer.split_to(len).freeze();
        self.filled -= len;
        Ok(Some(frame))
    }

    fn declared_len(&self) -> Result<Option<usize>, WireError> {
        let Some(&[a, b, c, d]) = self.buffer[..self.filled].first_chunk() else {
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

/// The buffer that small frames share: what an idle stream keeps.
const SHARED_BUFFER: usize = 4 << 10;
