//! What stands in a resume token, for people and for measuring lag. Never for resuming: there a token is opaque.

use std::borrow::Cow;
use std::fmt;

use bson::raw::RawBsonRef;
use bson::{Bson, Document, Timestamp, Uuid};

use super::ResumeToken;
use super::keystring::{NotUnderstood, OBJECT, Reader, TIMESTAMP};
use crate::event::OperationType;

impl ResumeToken {
    /// The cluster time that the token stands at; none if its layout is not that of a MongoDB server.
    ///
    /// Cheap: looks at the first few bytes only. Compared with the server's `operationTime`, it tells how far a stream
    /// lags behind.
    pub fn cluster_time(&self) -> Option<Timestamp> {
        let mut start = [0; TIME_LENGTH];
        let data = data(self)?;
        if let Some(hex) = data.as_str() {
            let digits = hex.as_bytes().get(..TIME_LENGTH * 2)?;
            for (byte, pair) in start.iter_mut().zip(digits.chunks_exact(2)) {
                *byte = hex_byte(pair)?;
            }
        } else {
            start.copy_from_slice(data.as_binary()?.bytes.get(..TIME_LENGTH)?);
        }
        time_at_start(&start)
    }

    /// What stands in the token.
    ///
    /// # Errors
    /// [`UnknownLayout`] if it is none of a MongoDB server's: other databases that speak the protocol have their own.
    pub fn explain(&self) -> Result<TokenInfo, UnknownLayout> {
        TokenInfo::from_token(self)
    }
}

/// What stands in a resume token.
///
/// Advisory: the layout is the server's own affair and changes with its versions. Compare tokens of one stream by
/// [`cluster_time`](Self::cluster_time) if you must, and resume with the token itself.
///
/// ```
/// use changestream_core::token::{TokenInfo, TokenKind};
///
/// let info = TokenInfo::from_hex("826B030FB2000000072B0229296E04")?;
/// assert_eq!(info.kind, TokenKind::HighWaterMark);
/// assert_eq!(info.cluster_time.time, 1_795_362_738);
/// # Ok::<(), changestream_core::token::UnknownLayout>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TokenInfo {
    /// When the change happened, or up to when there was none.
    pub cluster_time: Timestamp,
    /// Version of the layout: 0 up to server 4.0, 1 from 4.2 on, 2 from 6.0 on.
    pub version: i64,
    /// What the token marks.
    pub kind: TokenKind,
    /// Which operation of its transaction the change was; 0 outside of one.
    pub transaction_operation_index: i64,
    /// Whether it is the token of an invalidate event, good for `start_after` only.
    pub from_invalidate: bool,
    /// UUID of the collection.
    pub collection_uuid: Option<Uuid>,
    /// What happened (version 2).
    pub operation_type: Option<OperationType>,
    /// Key of the document that was changed. Numbers have lost their type: whole ones are the smallest integer type
    /// that holds them, others doubles.
    pub document_key: Option<Document>,
    /// What a DDL operation did (version 2).
    pub operation_description: Option<Document>,
    /// Which fragment of a split event it marks, from 0 on (version 2).
    pub fragment: Option<i64>,
    /// Why the rest of the token is not explained; none if all of it is.
    pub not_understood: Option<String>,
}

/// What a token marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenKind {
    /// One event.
    Event,
    /// A point in time up to which everything has been seen.
    HighWaterMark,
    /// A kind that this version does not know, by the server's number for it.
    Other(i64),
}

/// A token that no MongoDB server is known to make. It may still be a good one: pass it on as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLayout {
    message: String,
}

impl fmt::Display for UnknownLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a resume token of a known layout: {}", self.message)
    }
}

impl std::error::Error for UnknownLayout {}

impl TokenInfo {
    /// What stands in this token.
    ///
    /// # Errors
    /// [`UnknownLayout`] if it is none of a MongoDB server's.
    pub fn from_token(token: &ResumeToken) -> Result<Self, UnknownLayout> {
        let bytes = match data(token) {
            Some(RawBsonRef::String(hex)) => Cow::Owned(hex_bytes(hex)?),
            Some(RawBsonRef::Binary(binary)) => Cow::Borrowed(binary.bytes),
            Some(other) => {
                return Err(unknown(format!("`_data` is of type {:?}", other.element_type())));
            }
            None => return Err(unknown("it has no `_data`")),
        };
        Self::from_bytes(&bytes)
    }

    /// What stands in the token with this `_data`.
    ///
    /// # Errors
    /// [`UnknownLayout`] if it is not hexadecimal, or none of a MongoDB server's.
    pub fn from_hex(hex: &str) -> Result<Self, UnknownLayout> {
        Self::from_bytes(&hex_bytes(hex)?)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, UnknownLayout> {
        let Some(cluster_time) = time_at_start(bytes) else {
            return Err(unknown(
                "it does not start with a cluster time (82 and eight bytes)",
            ));
        };
        let mut info = Self {
            cluster_time,
            version: 0,
            kind: TokenKind::Event,
            transaction_operation_index: 0,
            from_invalidate: false,
            collection_uuid: None,
            operation_type: None,
            document_key: None,
            operation_description: None,
            fragment: None,
            not_understood: None,
        };
        let mut reader = Reader::starting_at(TIME_LENGTH, bytes);
        if let Err(stop) = info.read(&mut reader) {
            info.not_understood = Some(stop.to_string());
        }
        Ok(info)
    }

    /// Fills in what follows the cluster time, as far as it goes.
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), NotUnderstood> {
        // Servers 3.6 and 4.0 up to 4.0.6: the document key, then the UUID, and nothing else.
        if reader.peek() == Some(OBJECT) {
            self.read_identifier(reader)?;
            return self.read_uuid(reader);
        }
        self.version = number(reader, "the version")?;
        if self.version > NEWEST_VERSION {
            return Err(reader.not_understood(format!(
                "its version is {}, the newest known is {NEWEST_VERSION}",
                self.version
            )));
        }
        if self.version > 0 {
            self.kind = match number(reader, "the token's type")? {
                0 => TokenKind::HighWaterMark,
                128 => TokenKind::Event,
                other => TokenKind::Other(other),
            };
        }
        self.transaction_operation_index = number(reader, "the transaction operation index")?;
        if self.version > 0 {
            self.from_invalidate = boolean(reader)?;
        }
        self.read_uuid(reader)?;
        self.read_identifier(reader)?;
        if !reader.at_end() {
            self.fragment = Some(number(reader, "the fragment number")?);
        }
        if !reader.at_end() {
            return Err(reader.not_understood("more follows than is known"));
        }
        Ok(())
    }

    fn read_uuid(&mut self, reader: &mut Reader<'_>) -> Result<(), NotUnderstood> {
        if reader.at_end() || reader.peek() == Some(OBJECT) {
            return Ok(());
        }
        let value = reader.value()?;
        if value == Bson::Null {
            return Ok(());
        }
        let uuid = if let Bson::Binary(binary) = &value {
            binary.bytes.as_slice().try_into().ok()
        } else {
            None
        };
        let Some(uuid) = uuid else {
            return Err(unexpected(reader, "a collection UUID", &value));
        };
        self.collection_uuid = Some(Uuid::from_bytes(uuid));
        Ok(())
    }

    /// What identifies the event beside its time: up to version 1 the document key, from version 2 on the operation
    /// type with the document key or the description of the operation.
    fn read_identifier(&mut self, reader: &mut Reader<'_>) -> Result<(), NotUnderstood> {
        if reader.at_end() {
            return Ok(());
        }
        let value = reader.value()?;
        if value == Bson::Null {
            return Ok(());
        }
        let Bson::Document(mut identifier) = value else {
            return Err(unexpected(reader, "a document", &value));
        };
        if self.version < 2 {
            self.document_key = Some(identifier);
            return Ok(());
        }
        let mut document = |name| match identifier.remove(name) {
            Some(Bson::Document(document)) => Some(document),
            Some(_) | None => None,
        };
        self.document_key = document("documentKey");
        self.operation_description = document("operationDescription");
        self.operation_type = identifier.get_str("operationType").ok().map(OperationType::from);
        Ok(())
    }
}

fn number(reader: &mut Reader<'_>, what: &str) -> Result<i64, NotUnderstood> {
    let value = reader.value()?;
    let number = value.as_i64().or_else(|| value.as_i32().map(i64::from));
    number.ok_or_else(|| unexpected(reader, what, &value))
}

fn boolean(reader: &mut Reader<'_>) -> Result<bool, NotUnderstood> {
    let value = reader.value()?;
    value
        .as_bool()
        .ok_or_else(|| unexpected(reader, "whether it is from an invalidate event", &value))
}

fn unexpected(reader: &Reader<'_>, expected: &str, found: &Bson) -> NotUnderstood {
    reader.not_understood(format!(
        "expected {expected}, found a value of type {:?}",
        found.element_type()
    ))
}

/// The token's `_data`: a string of hexadecimal digits, or in server 3.6 the bytes themselves.
fn data(token: &ResumeToken) -> Option<RawBsonRef<'_>> {
    token.as_document()?.get("_data").ok().flatten()
}

fn time_at_start(bytes: &[u8]) -> Option<Timestamp> {
    let (kind, rest) = bytes.split_first()?;
    let (time, rest) = rest.split_first_chunk()?;
    let increment = rest.first_chunk()?;
    (*kind == TIMESTAMP).then(|| Timestamp {
        time: u32::from_be_bytes(*time),
        increment: u32::from_be_bytes(*increment),
    })
}

fn hex_bytes(hex: &str) -> Result<Vec<u8>, UnknownLayout> {
    let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(hex_byte).collect();
    bytes.ok_or_else(|| unknown("it is not a string of hexadecimal digits, two for each byte"))
}

fn hex_byte(pair: &[u8]) -> Option<u8> {
    let [high, low] = pair else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

fn unknown(message: impl Into<String>) -> UnknownLayout {
    UnknownLayout {
        message: message.into(),
    }
}

/// A type byte, seconds, increment.
const TIME_LENGTH: usize = 9;

const NEWEST_VERSION: i64 = 2;
