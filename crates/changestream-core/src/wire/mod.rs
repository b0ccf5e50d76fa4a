//! The wire protocol: frames cut from a byte stream, and messages in them.
//!
//! Both directions are here, so that a server (the simulated deployment) and a client share one codec.
//! OP_MSG is specified in the driver specification "OP_MSG", OP_COMPRESSED in the one of its name; OP_QUERY and OP_REPLY
//! survive for the legacy hello only.

mod compression;
mod frame_reader;
mod message;
mod spare;

pub(crate) use compression::decompress_into;
pub use compression::{Compressor, compress, compressor_of, decompress, may_compress};
pub use frame_reader::FrameReader;
pub(crate) use message::OP_MSG;
pub use message::{
    DocumentSequence, Flags, LegacyQuery, LegacyReply, Message, OpMsg, WireError, encode_op_msg,
    encode_op_query, encode_op_reply,
};
pub(crate) use spare::Spare;

/// Bytes of the header that each message starts with: length, requestID, responseTo, opCode.
pub const HEADER_LEN: usize = 16;

/// The longest message that a peer may send before its hello reply has said otherwise, in bytes
/// (`maxMessageSizeBytes`, 48,000,000 in every server so far).
pub const DEFAULT_MAX_MESSAGE_SIZE: usize = 48_000_000;
