//! OP_COMPRESSED: a message whose operation is compressed (the specification of that name).

#[cfg(not(all(feature = "snappy", feature = "zlib", feature = "zstd")))]
mod absent;
mod libraries;
#[cfg(any(feature = "zlib", feature = "zstd"))]
mod pool;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::spare::Spare;
use super::{HEADER_LEN, WireError};

/// A compression of wire messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Compressor {
    /// `snappy`, where the feature `snappy` is on.
    Snappy,
    /// `zlib`, where the feature `zlib` is on.
    Zlib,
    /// `zstd`, where the feature `zstd` is on.
    Zstd,
}

impl Compressor {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Snappy, Self::Zlib, Self::Zstd];

    /// The name in the handshake and in connection strings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snappy => "snappy",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }

    /// The compressor of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|compressor| compressor.as_str() == name)
    }

    /// The number in a message (OP_COMPRESSED specification, "compressorId").
    pub fn id(self) -> u8 {
        match self {
            Self::Snappy => 1,
            Self::Zlib => 2,
            Self::Zstd => 3,
        }
    }

    /// The compressor of that number.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|compressor| compressor.id() == id)
    }

    /// Whether the feature of its name is on.
    pub fn is_built_in(self) -> bool {
        match self {
            Self::Snappy => cfg!(feature = "snappy"),
            Self::Zlib => cfg!(feature = "zlib"),
            Self::Zstd => cfg!(feature = "zstd"),
        }
    }
}

/// Makes an OP_COMPRESSED of a complete message.
///
/// `zlib_level` is -1 to 9, the default where there is none; other compressors have their own default. None if the
/// compressor is not built in, or the message is no message.
///
/// ```
/// # #[cfg(feature = "zlib")] {
/// use bson::rawdoc;
/// use changestream_core::wire::{self, Compressor, Flags};
///
/// let message = wire::encode_op_msg(7, 0, Flags::NONE, &rawdoc! { "ping": 1, "$db": "admin" }, &[]);
/// let compressed = wire::compress(&message, Compressor::Zlib, None).expect("a message, and the feature is on");
/// assert_eq!(wire::compressor_of(&compressed), Some(2));
/// assert_eq!(wire::decompress(&compressed, 1000), Ok(message));
/// # }
/// ```
pub fn compress(message: &Bytes, compressor: Compressor, zlib_level: Option<i32>) -> Option<Bytes> {
    let (header, operation) = message.split_at_checked(HEADER_LEN)?;
    let (numbers, op_code) = (header.get(4..12)?, header.get(12..16)?);
    let size = i32::try_from(operation.len()).ok()?;
    let content = libraries::deflate(compressor, operation, zlib_level)?;
    let length = i32::try_from(PREFIX_LEN + content.len()).ok()?;
    let mut out = BytesMut::with_capacity(PREFIX_LEN + content.len());
    out.put_i32_le(length);
    out.put_slice(numbers);
    out.put_i32_le(OP_COMPRESSED);
    out.put_slice(op_code);
    out.put_i32_le(size);
    out.put_u8(compressor.id());
    out.put_slice(&content);
    Some(out.freeze())
}

/// The number of the compressor, if this frame is an OP_COMPRESSED.
pub fn compressor_of(frame: &Bytes) -> Option<u8> {
    let is_compressed = frame.get(12..16) == Some(&OP_COMPRESSED.to_le_bytes());
    is_compressed.then(|| frame.get(PREFIX_LEN - 1).copied().unwrap_or_default())
}

/// The message in an OP_COMPRESSED, as if it had come uncompressed: a frame for [`Message::decode`](super::Message::decode).
///
/// Memory is taken once, for the declared size, and only if a message of that size is no longer than
/// `max_message_size`. What inflates to more or less than declared is an error as soon as that is known.
///
/// # Errors
/// The frame is no OP_COMPRESSED, is cut short, declares an illegal size, holds another operation than OP_MSG, its
/// compressor is unknown or not built in, or its content is not what was declared.
pub fn decompress(frame: &Bytes, max_message_size: usize) -> Result<Bytes, WireError> {
    decompress_into(&mut Spare::default(), frame, max_message_size)
}

/// As [`decompress`], into the spare memory if it has room, which the message's then is again.
pub(crate) fn decompress_into(
    spare: &mut Spare,
    frame: &Bytes,
    max_message_size: usize,
) -> Result<Bytes, WireError> {
    let mut prefix = frame
        .get(..PREFIX_LEN)
        .ok_or(WireError::Truncated("OP_COMPRESSED"))?;
    if usize::try_from(prefix.get_i32_le()) != Ok(frame.len()) {
        return Err(WireError::Malformed("messageLength is not the frame's length"));
    }
    let (request_id, response_to) = (prefix.get_i32_le(), prefix.get_i32_le());
    let op_code = prefix.get_i32_le();
    if op_code != OP_COMPRESSED {
        return Err(WireError::OpCode(op_code));
    }
    let original = prefix.get_i32_le();
    if original != super::message::OP_MSG {
        return Err(WireError::CompressedOpCode(original));
    }
    let declared = prefix.get_i32_le();
    let length = usize::try_from(declared)
        .ok()
        .filter(|size| *size > 0)
        .and_then(|size| size.checked_add(HEADER_LEN))
        .filter(|length| *length <= max_message_size)
        .ok_or_else(|| WireError::InflatedLength {
            declared,
            max: max_message_size.saturating_sub(HEADER_LEN),
        })?;
    let message_length = i32::try_from(length).map_err(|_| WireError::Malformed("its size overflows"))?;
    let compressor = match prefix.get_u8() {
        NOOP => None,
        id => Some(Compressor::from_id(id).ok_or(WireError::Compressor(id))?),
    };
    if let Some(compressor) = compressor.filter(|compressor| !compressor.is_built_in()) {
        return Err(WireError::NotBuiltIn(compressor));
    }
    let content = frame.get(PREFIX_LEN..).unwrap_or_default();
    if compressor.is_none() && content.len() != length - HEADER_LEN {
        return Err(WireError::Inflated { compressor: "noop" });
    }
    let mut out = spare.take(length).unwrap_or_else(|| BytesMut::zeroed(length));
    let (mut header, operation) = out[..length].split_at_mut(HEADER_LEN);
    header.put_i32_le(message_length);
    header.put_i32_le(request_id);
    header.put_i32_le(response_to);
    header.put_i32_le(original);
    match compressor {
        None => operation.copy_from_slice(content),
        Some(compressor) => libraries::inflate(compressor, content, operation)?,
    }
    let whole = out.freeze();
    let message = whole.slice(..length);
    if length > SMALL {
        spare.keep(whole, length);
    }
    Ok(message)
}

/// Whether a command may be compressed: those of the handshake, and those that carry secrets, may not
/// (OP_COMPRESSED specification, "Messages not allowed to be compressed").
pub fn may_compress(command_name: &str) -> bool {
    !NEVER_COMPRESSED
        .iter()
        .any(|name| name.eq_ignore_ascii_case(command_name))
}

/// Memory of messages up to this length is not kept: taking it costs little.
const SMALL: usize = 4 << 10;

const OP_COMPRESSED: i32 = 2012;
/// The header, originalOpcode, uncompressedSize and compressorId.
const PREFIX_LEN: usize = HEADER_LEN + 9;
/// The compressor that leaves everything as it is: for tests, says the specification.
const NOOP: u8 = 0;
const NEVER_COMPRESSED: [&str; 11] = [
    "hello",
    "isMaster",
    "saslStart",
    "saslContinue",
    "getnonce",
    "authenticate",
    "createUser",
    "updateUser",
    "copydbSaslStart",
    "copydbgetnonce",
    "copydb",
];
