//! One message: OP_MSG in both directions, OP_QUERY and OP_REPLY for the legacy hello.

use std::fmt;

use bson::RawDocument;
use bytes::{BufMut, Bytes, BytesMut};

use super::{Compressor, HEADER_LEN};

/// A complete message, decoded so far that its documents are located and their lengths fit.
///
/// The documents are slices of the frame; nothing in them has been looked at beyond length and terminator.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// OP_MSG (2013), every request and reply today.
    Msg(OpMsg),
    /// OP_QUERY (2004), the first request of a client to a server that may predate OP_MSG hello.
    Query(LegacyQuery),
    /// OP_REPLY (1), the answer to an OP_QUERY.
    Reply(LegacyReply),
}

impl Message {
    /// Decodes a frame that [`FrameReader`](super::FrameReader) has cut.
    ///
    /// # Errors
    /// The frame is shorter than its parts, a length in it is impossible, a required flag is unknown, the checksum
    /// does not match, or the operation is none of the three.
    pub fn decode(frame: &Bytes) -> Result<Self, WireError> {
        let mut reader = Reader { frame, at: 0 };
        let declared = reader.i32("messageLength")?;
        if usize::try_from(declared) != Ok(frame.len()) {
            return Err(WireError::Malformed("messageLength is not the frame's length"));
        }
        let request_id = reader.i32("requestID")?;
        let response_to = reader.i32("responseTo")?;
        match reader.i32("opCode")? {
            OP_MSG => OpMsg::decode(reader, request_id, response_to).map(Self::Msg),
            OP_QUERY => LegacyQuery::decode(reader, request_id).map(Self::Query),
            OP_REPLY => LegacyReply::decode(reader, request_id, response_to).map(Self::Reply),
            other => Err(WireError::OpCode(other)),
        }
    }

    /// The sender's number for this message.
    pub fn request_id(&self) -> i32 {
        match self {
            Self::Msg(m) => m.request_id,
            Self::Query(m) => m.request_id,
            Self::Reply(m) => m.request_id,
        }
    }

    /// The number of the request that this message answers; 0 in a request.
    pub fn response_to(&self) -> i32 {
        match self {
            Self::Msg(m) => m.response_to,
            Self::Query(_) => 0,
            Self::Reply(m) => m.response_to,
        }
    }
}

/// An OP_MSG.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OpMsg {
    /// The sender's number for this message.
    pub request_id: i32,
    /// The number of the request that this message answers; 0 in a request.
    pub response_to: i32,
    /// The flag bits.
    pub flags: Flags,
    /// The document of the one section of kind 0.
    pub body: Bytes,
    /// The sections of kind 1, in order.
    pub sequences: Vec<DocumentSequence>,
}

impl OpMsg {
    fn decode(mut reader: Reader<'_>, request_id: i32, response_to: i32) -> Result<Self, WireError> {
        let flags = Flags::from_bits(reader.u32("flagBits")?);
        if flags.unknown_required() {
            return Err(WireError::Flags(flags.bits()));
        }
        if flags.contains(Flags::CHECKSUM_PRESENT) {
            reader.verify_checksum()?;
        }
        let mut body = None;
        let mut sequences = Vec::new();
        let mut budget = MAX_SEQUENCE_PARTS;
        while reader.remaining() > 0 {
            match reader.u8("section kind")? {
                0 => {
                    if body.replace(reader.document("body")?).is_some() {
                        return Err(WireError::Malformed("two sections of kind 0"));
                    }
                }
                1 => sequences.push(DocumentSequence::decode(&mut reader, &mut budget)?),
                kind => return Err(WireError::SectionKind(kind)),
            }
        }
        Ok(Self {
            request_id,
            response_to,
            flags,
            body: body.ok_or(WireError::Malformed("no section of kind 0"))?,
            sequences,
        })
    }
}

/// A section of kind 1: documents that belong to a field of the body, such as `documents` of an insert.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DocumentSequence {
    /// The field's name.
    pub identifier: String,
    /// The documents, in order.
    pub documents: Vec<Bytes>,
}

impl DocumentSequence {
    fn decode(reader: &mut Reader<'_>, budget: &mut usize) -> Result<Self, WireError> {
        spend(budget)?;
        let start = reader.at;
        let size = usize::try_from(reader.i32("section size")?)
            .map_err(|_| WireError::Malformed("negative section size"))?;
        let end = start
            .checked_add(size)
            .filter(|end| (reader.at..=reader.frame.len()).contains(end))
            .ok_or(WireError::Malformed("a section is longer than the message"))?;
        let identifier = reader.cstring("section identifier")?;
        let mut documents = Vec::new();
        while reader.at < end {
            spend(budget)?;
            documents.push(reader.document("document of a sequence")?);
        }
        if reader.at != end {
            return Err(WireError::Malformed("a section's documents exceed its size"));
        }
        Ok(Self {
            identifier,
            documents,
        })
    }
}

/// Counts a part of a sequence, so that a message of tiny parts does not take a multiple of its size in memory.
fn spend(budget: &mut usize) -> Result<(), WireError> {
    *budget = budget
        .checked_sub(1)
        .ok_or(WireError::Malformed("too many documents in its sequences"))?;
    Ok(())
}

/// An OP_QUERY that carries a command, as the legacy hello does.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LegacyQuery {
    /// The sender's number for this message.
    pub request_id: i32,
    /// The namespace, such as `admin.$cmd`.
    pub namespace: String,
    /// The command.
    pub query: Bytes,
}

impl LegacyQuery {
    fn decode(mut reader: Reader<'_>, request_id: i32) -> Result<Self, WireError> {
        reader.u32("flags")?;
        let namespace = reader.cstring("fullCollectionName")?;
        reader.i32("numberToSkip")?;
        reader.i32("numberToReturn")?;
        let query = reader.document("query")?;
        Ok(Self {
            request_id,
            namespace,
            query,
        })
    }
}

/// An OP_REPLY with its first document.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LegacyReply {
    /// The sender's number for this message.
    pub request_id: i32,
    /// The number of the request that this message answers.
    pub response_to: i32,
    /// The first document.
    pub document: Bytes,
}

impl LegacyReply {
    fn decode(mut reader: Reader<'_>, request_id: i32, response_to: i32) -> Result<Self, WireError> {
        reader.u32("responseFlags")?;
        reader.i32("cursorID")?;
        reader.i32("cursorID")?;
        reader.i32("startingFrom")?;
        if reader.i32("numberReturned")? < 1 {
            return Err(WireError::Malformed("OP_REPLY without a document"));
        }
        let document = reader.document("document")?;
        Ok(Self {
            request_id,
            response_to,
            document,
        })
    }
}

/// The flag bits of an OP_MSG. The low 16 must be understood, the high 16 may be ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// The message ends with its CRC-32C.
    pub const CHECKSUM_PRESENT: Self = Self(1);
    /// Another message follows this one without a request in between.
    pub const MORE_TO_COME: Self = Self(1 << 1);
    /// The client is prepared for several replies to this request.
    pub const EXHAUST_ALLOWED: Self = Self(1 << 16);

    /// The flags with these bits.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether all flags of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn unknown_required(self) -> bool {
        self.0 & 0xffff & !(Self::CHECKSUM_PRESENT.0 | Self::MORE_TO_COME.0) != 0
    }
}

/// Encodes an OP_MSG. With [`Flags::CHECKSUM_PRESENT`] its CRC-32C is appended.
///
/// `sequences` become sections of kind 1: a field's name and its documents.
pub fn encode_op_msg(
    request_id: i32,
    response_to: i32,
    flags: Flags,
    body: &RawDocument,
    sequences: &[(&str, &[&RawDocument])],
) -> Bytes {
    let mut out = start(request_id, response_to, OP_MSG, 5 + body.as_bytes().len());
    out.put_u32_le(flags.bits());
    out.put_u8(0);
    out.put_slice(body.as_bytes());
    for (identifier, documents) in sequences {
        let size = 4 + identifier.len() + 1 + documents.iter().map(|d| d.as_bytes().len()).sum::<usize>();
        out.put_u8(1);
        out.put_i32_le(length(size));
        out.put_slice(identifier.as_bytes());
        out.put_u8(0);
        for document in *documents {
            out.put_slice(document.as_bytes());
        }
    }
    if flags.contains(Flags::CHECKSUM_PRESENT) {
        let total = out.len() + CHECKSUM_LEN;
        set_length(&mut out, total);
        let checksum = crc32c::crc32c(&out);
        out.put_u32_le(checksum);
        return out.freeze();
    }
    finish(out)
}

/// Encodes a command as the OP_QUERY that servers without OP_MSG hello understand.
pub fn encode_op_query(request_id: i32, namespace: &str, query: &RawDocument) -> Bytes {
    const SECONDARY_OK: u32 = 1 << 2;
    let mut out = start(request_id, 0, OP_QUERY, 32 + query.as_bytes().len());
    out.put_u32_le(SECONDARY_OK);
    out.put_slice(namespace.as_bytes());
    out.put_u8(0);
    out.put_i32_le(0);
    out.put_i32_le(-1);
    out.put_slice(query.as_bytes());
    finish(out)
}

/// Encodes the answer to an OP_QUERY.
pub fn encode_op_reply(request_id: i32, response_to: i32, document: &RawDocument) -> Bytes {
    const AWAIT_CAPABLE: u32 = 1 << 3;
    let mut out = start(request_id, response_to, OP_REPLY, 20 + document.as_bytes().len());
    out.put_u32_le(AWAIT_CAPABLE);
    out.put_i64_le(0);
    out.put_i32_le(0);
    out.put_i32_le(1);
    out.put_slice(document.as_bytes());
    finish(out)
}

fn start(request_id: i32, response_to: i32, op_code: i32, payload: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(HEADER_LEN + payload);
    out.put_i32_le(0);
    out.put_i32_le(request_id);
    out.put_i32_le(response_to);
    out.put_i32_le(op_code);
    out
}

fn finish(mut out: BytesMut) -> Bytes {
    let total = out.len();
    set_length(&mut out, total);
    out.freeze()
}

fn set_length(out: &mut BytesMut, total: usize) {
    out[..4].copy_from_slice(&length(total).to_le_bytes());
}

fn length(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireError {
    /// A message's declared length is shorter than a header or longer than allowed.
    #[non_exhaustive]
    Length {
        /// What the header says, in bytes.
        declared: i32,
        /// The longest message that is accepted, in bytes.
        max: usize,
    },
    /// The message ends inside the named part.
    Truncated(&'static str),
    /// The parts contradict each other.
    Malformed(&'static str),
    /// An operation that is not spoken here.
    OpCode(i32),
    /// A section of unknown kind.
    SectionKind(u8),
    /// A flag among those that must be understood is unknown; all flag bits.
    Flags(u32),
    /// The CRC-32C does not match.
    Checksum,
    /// An OP_COMPRESSED holds another operation than OP_MSG.
    CompressedOpCode(i32),
    /// The compressor of this number is not known.
    Compressor(u8),
    /// The feature of this compressor is off.
    NotBuiltIn(Compressor),
    /// A compressed message declares an inflated size that is not positive, or longer than allowed.
    #[non_exhaustive]
    InflatedLength {
        /// What it says, in bytes.
        declared: i32,
        /// The largest that is accepted, in bytes.
        max: usize,
    },
    /// A compressed message's content is broken, or not of the declared size.
    #[non_exhaustive]
    Inflated {
        /// The compressor's name.
        compressor: &'static str,
    },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { declared, max } => write!(
                f,
                "a message claims a length of {declared} bytes, legal are {HEADER_LEN} to {max}; is this a MongoDB server?"
            ),
            Self::Truncated(part) => write!(f, "a message ends inside its {part}"),
            Self::Malformed(what) => write!(f, "malformed message: {what}"),
            Self::OpCode(code) => write!(f, "unexpected operation code {code}"),
            Self::SectionKind(kind) => write!(f, "unknown section kind {kind} in an OP_MSG"),
            Self::Flags(bits) => write!(f, "unknown required flag in an OP_MSG: {bits:#x}"),
            Self::Checksum => f.write_str("a message's CRC-32C does not match its bytes"),
            Self::CompressedOpCode(code) => {
                write!(f, "unexpected operation code {code} in a compressed message")
            }
            Self::Compressor(id) => write!(f, "a message is compressed by unknown compressor {id}"),
            Self::NotBuiltIn(compressor) => write!(
                f,
                "a message is compressed by {0}, which is not built in: turn the feature `{0}` on",
                compressor.as_str()
            ),
            Self::InflatedLength { declared, max } => write!(
                f,
                "a compressed message claims to inflate to {declared} bytes, legal are 1 to {max}"
            ),
            Self::Inflated { compressor } => write!(
                f,
                "a message compressed by {compressor} is broken, or does not inflate to the size it declares"
            ),
        }
    }
}

impl std::error::Error for WireError {}

/// Walks over a frame.
struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
}

/// The part of the frame that a reader may see ends before the checksum, so it is cut off by narrowing `frame`.
impl Reader<'_> {
    fn remaining(&self) -> usize {
        self.frame.len() - self.at - self.checksum_len()
    }

    /// A checksum is verified before sections are read; from then on its four bytes are out of bounds.
    fn checksum_len(&self) -> usize {
        match self.frame.get(HEADER_LEN) {
            Some(flags) if self.at > HEADER_LEN && self.is_op_msg() && flags & 1 == 1 => CHECKSUM_LEN,
            _ => 0,
        }
    }

    fn is_op_msg(&self) -> bool {
        self.frame.get(12..16) == Some(&OP_MSG.to_le_bytes())
    }

    fn verify_checksum(&self) -> Result<(), WireError> {
        let (bytes, checksum) = self
            .frame
            .split_last_chunk::<CHECKSUM_LEN>()
            .filter(|(bytes, _)| bytes.len() >= self.at)
            .ok_or(WireError::Truncated("checksum"))?;
        if crc32c::crc32c(bytes) == u32::from_le_bytes(*checksum) {
            Ok(())
        } else {
            Err(WireError::Checksum)
        }
    }

    fn chunk<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], WireError> {
        if self.remaining() < N {
            return Err(WireError::Truncated(part));
        }
        let chunk = self.frame[self.at..]
            .first_chunk::<N>()
            .ok_or(WireError::Truncated(part))?;
        self.at += N;
        Ok(*chunk)
    }

    fn u8(&mut self, part: &'static str) -> Result<u8, WireError> {
        self.chunk(part).map(|[byte]| byte)
    }

    fn i32(&mut self, part: &'static str) -> Result<i32, WireError> {
        self.chunk(part).map(i32::from_le_bytes)
    }

    fn u32(&mut self, part: &'static str) -> Result<u32, WireError> {
        self.chunk(part).map(u32::from_le_bytes)
    }

    fn cstring(&mut self, part: &'static str) -> Result<String, WireError> {
        let rest = &self.frame[self.at..self.at + self.remaining()];
        let len = rest
            .iter()
            .position(|&b| b == 0)
            .ok_or(WireError::Truncated(part))?;
        let text = str::from_utf8(&rest[..len])
            .map_err(|_| WireError::Malformed("a name is not UTF-8"))?
            .to_owned();
        self.at += len + 1;
        Ok(text)
    }

    fn document(&mut self, part: &'static str) -> Result<Bytes, WireError> {
        let rest = &self.frame[self.at..self.at + self.remaining()];
        let declared = rest
            .first_chunk()
            .map(|len| i32::from_le_bytes(*len))
            .ok_or(WireError::Truncated(part))?;
        let len = usize::try_from(declared)
            .ok()
            .filter(|len| *len >= MIN_DOCUMENT_LEN)
            .ok_or(WireError::Malformed("a document's length is impossible"))?;
        if rest.len() < len {
            return Err(WireError::Truncated(part));
        }
        if rest[len - 1] != 0 {
            return Err(WireError::Malformed("a document does not end with a zero byte"));
        }
        let document = self.frame.slice(self.at..self.at + len);
        self.at += len;
        Ok(document)
    }
}

const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
pub(crate) const OP_MSG: i32 = 2013;
const CHECKSUM_LEN: usize = 4;
/// Sections of kind 1 and documents in them, together. A server takes 100,000 documents of each kind
/// (`maxWriteBatchSize`), and no command has more than two kinds.
const MAX_SEQUENCE_PARTS: usize = 1 << 18;
const MIN_DOCUMENT_LEN: usize = 5;
