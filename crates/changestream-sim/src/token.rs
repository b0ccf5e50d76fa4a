//! Resume tokens as a server writes them: `{ _data: "HEX" }`, sometimes with `_typeBits`.

use std::cmp::Ordering;
use std::fmt::Write as _;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, Timestamp, doc};

use crate::error::CommandError;
use crate::keystring::{self, TypeBits};
use crate::query::show;

/// What stands in a resume token.
///
/// ```
/// use changestream_sim::token::{ResumeTokenData, TokenVersion};
/// use bson::Timestamp;
///
/// let token = ResumeTokenData::high_water_mark(TokenVersion::V1, Timestamp { time: 0x6B030FB2, increment: 7 });
/// assert_eq!(token.encode().data, "826B030FB2000000072B0229296E04");
/// # Ok::<(), changestream_sim::error::CommandError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ResumeTokenData {
    /// The operation's time, or the time up to which everything was seen.
    pub cluster_time: Timestamp,
    /// The layout of what follows.
    pub version: TokenVersion,
    /// Whether it is an event's or a position between events.
    pub token_type: TokenType,
    /// Which operation of a transaction it was; 0 outside of one.
    pub txn_op_index: u32,
    /// Whether it is an `invalidate` event's, which follows the event with the same token otherwise.
    pub from_invalidate: bool,
    /// The collection's UUID; none in a high-water mark and for events of databases.
    pub uuid: Option<[u8; 16]>,
    /// What happened: a document key (version 1, none for `drop` and the like), or an object of `operationType` with
    /// `documentKey` or `operationDescription` (version 2).
    pub identifier: Option<Document>,
    /// Which fragment of a split event, from 0; version 2 only.
    pub fragment: Option<u32>,
}

/// A token's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenVersion {
    /// 4.2 to 5.x.
    V1,
    /// 6.0 and later.
    V2,
}

/// What a token marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// A position: everything up to its time was seen.
    HighWaterMark,
    /// An event.
    Event,
}

/// A token as it goes over the wire.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncodedToken {
    /// `_data`: upper-case hexadecimal digits, which compare as the tokens do.
    pub data: String,
    /// `_typeBits`: only where a document key holds something else than strings and 32-bit integers.
    pub type_bits: Option<Vec<u8>>,
}

/// What an event was about, for its token.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A document.
    DocumentKey(Document),
    /// What a DDL operation did.
    OperationDescription(Document),
    /// Nothing more than the collection or the database.
    Nothing,
}

impl ResumeTokenData {
    /// The position at that time.
    pub fn high_water_mark(version: TokenVersion, cluster_time: Timestamp) -> Self {
        Self {
            cluster_time,
            version,
            token_type: TokenType::HighWaterMark,
            txn_op_index: 0,
            from_invalidate: false,
            uuid: None,
            identifier: None,
            fragment: None,
        }
    }

    /// The token of an event outside of a transaction.
    pub fn event(
        version: TokenVersion,
        cluster_time: Timestamp,
        uuid: Option<[u8; 16]>,
        operation_type: &str,
        subject: Subject,
    ) -> Self {
        let bare = version == TokenVersion::V1 && CLASSIC.contains(&operation_type);
        let identifier = match (subject, bare) {
            (Subject::DocumentKey(key), true) => Some(key),
            (Subject::OperationDescription(_) | Subject::Nothing, true) => None,
            (Subject::DocumentKey(key), false) => {
                Some(doc! { "operationType": operation_type, "documentKey": key })
            }
            (Subject::OperationDescription(what), false) => {
                Some(doc! { "operationType": operation_type, "operationDescription": what })
            }
            (Subject::Nothing, false) => Some(doc! { "operationType": operation_type }),
        };
        Self {
            token_type: TokenType::Event,
            uuid,
            identifier,
            ..Self::high_water_mark(version, cluster_time)
        }
    }

    /// The token of the `invalidate` that follows the event of this one.
    #[must_use]
    pub fn invalidating(mut self) -> Self {
        self.from_invalidate = true;
        self
    }

    /// The same token for an operation of a transaction.
    #[must_use]
    pub fn in_transaction(mut self, index: u32) -> Self {
        self.txn_op_index = index;
        self
    }

    /// The same token for a fragment of its event, counted from 0.
    #[must_use]
    pub fn fragment(mut self, number: u32) -> Self {
        self.fragment = Some(number);
        self
    }

    /// Whether it is a position rather than an event.
    pub fn is_high_water_mark(&self) -> bool {
        self.token_type == TokenType::HighWaterMark
    }

    /// The token as it goes over the wire.
    pub fn encode(&self) -> EncodedToken {
        let number = |value: u32| i32::try_from(value).map_or(Bson::Int64(value.into()), Bson::Int32);
        let mut values = vec![
            Bson::Timestamp(self.cluster_time),
            Bson::Int32(self.version.number()),
            Bson::Int32(self.token_type.number()),
            number(self.txn_op_index),
            Bson::Boolean(self.from_invalidate),
        ];
        match (self.uuid, self.version) {
            (Some(uuid), _) => {
                values.push(Bson::Binary(Binary {
                    subtype: BinarySubtype::Uuid,
                    bytes: uuid.to_vec(),
                }));
            }
            (None, TokenVersion::V2) => values.push(Bson::Null),
            (None, TokenVersion::V1) => {}
        }
        values.extend(self.identifier.clone().map(Bson::Document));
        if self.version == TokenVersion::V2 {
            values.extend(self.fragment.map(number));
        }
        let encoded = keystring::encode(&values);
        let data = encoded.bytes.iter().fold(String::new(), |mut data, byte| {
            // Writing to a String cannot fail.
            let _ = write!(data, "{byte:02X}");
            data
        });
        let type_bits = (!encoded.type_bits.is_zero()).then(|| encoded.type_bits.to_bytes());
        EncodedToken { data, type_bits }
    }

    /// The token as a document.
    pub fn to_document(&self) -> Document {
        self.encode().to_document()
    }

    /// What stands in a token document.
    ///
    /// # Errors
    /// 40647 and 40648 for fields of the wrong type, and those of [`EncodedToken::decode`].
    pub fn from_document(document: &Document) -> Result<Self, CommandError> {
        EncodedToken::from_document(document)?.decode()
    }

    /// What stands in a token without type bits.
    ///
    /// # Errors
    /// Those of [`EncodedToken::decode`].
    pub fn decode(data: &str) -> Result<Self, CommandError> {
        EncodedToken {
            data: data.to_owned(),
            type_bits: None,
        }
        .decode()
    }

    /// The order of the stream, which is that of the encoded bytes: by time; a position before the events of its
    /// time.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.encode().data.cmp(&other.encode().data)
    }
}

impl EncodedToken {
    /// The token that a document holds, not yet decoded.
    ///
    /// # Errors
    /// 40647 if `_data` is no string, 40648 if `_typeBits` is no generic binary data.
    pub fn from_document(document: &Document) -> Result<Self, CommandError> {
        let Some(Bson::String(data)) = document.get("_data") else {
            return Err(CommandError::new(
                40647,
                format!(
                    "Bad resume token: _data of missing or of wrong type. Expected string, got {}",
                    show::document(document)
                ),
            ));
        };
        let type_bits = match document.get("_typeBits") {
            None => None,
            Some(Bson::Binary(Binary {
                subtype: BinarySubtype::Generic,
                bytes,
            })) => Some(bytes.clone()),
            Some(_) => {
                return Err(CommandError::new(
                    40648,
                    format!(
                        "Bad resume token: _typeBits of wrong type {}",
                        show::document(document)
                    ),
                ));
            }
        };
        Ok(Self {
            data: data.clone(),
            type_bits,
        })
    }

    /// The token as a document.
    pub fn to_document(&self) -> Document {
        let mut document = doc! { "_data": &self.data };
        if let Some(bits) = &self.type_bits {
            document.insert(
                "_typeBits",
                Binary {
                    subtype: BinarySubtype::Generic,
                    bytes: bits.clone(),
                },
            );
        }
        document
    }

    /// What stands in the token.
    ///
    /// # Errors
    /// The server's own, by the place at which the token stops making sense: 9 (no hex string), 40649, 50796 (no
    /// version), 50795, 51055 to 51057, 50793 to 50872, 6189500 to 6189504, 7182501, 40646.
    pub fn decode(&self) -> Result<ResumeTokenData, CommandError> {
        let Some(bytes) = from_hex(&self.data) else {
            return Err(CommandError::failed_to_parse(
                "resume token string was not a valid hex string",
            ));
        };
        let malformed = |error| CommandError::failed_to_parse(format!("Bad resume token: {error}"));
        let type_bits =
            TypeBits::from_bytes(self.type_bits.as_deref().unwrap_or_default()).map_err(malformed)?;
        let values = keystring::decode(&bytes, &type_bits).map_err(malformed)?;
        decode_values(values)
    }
}

fn decode_values(values: Vec<Bson>) -> Result<ResumeTokenData, CommandError> {
    let error = |code, message: &str| CommandError::new(code, message);
    let mut values = values.into_iter();
    let cluster_time = match values.next() {
        Some(Bson::Timestamp(time)) => time,
        Some(_) => {
            return Err(CommandError::failed_to_parse(
                "Invalid resume token: wrong type for clusterTime",
            ));
        }
        None => return Err(error(40649, "invalid empty resume token")),
    };
    let version = decode_version(values.next())?;
    let token_type = decode_type(values.next())?;
    let txn_op_index = match values.next() {
        Some(Bson::Int32(index)) => u32::try_from(index)
            .map_err(|_| error(50794, "Invalid Resume Token: txnOpIndex should be non-negative"))?,
        Some(_) => return Err(error(50855, "Resume Token txnOpIndex is not an integer")),
        None => return Err(error(50793, "Resume Token does not contain txnOpIndex")),
    };
    let from_invalidate = match values.next() {
        Some(Bson::Boolean(from_invalidate)) => from_invalidate,
        Some(_) => {
            return Err(error(50870, "Resume Token fromInvalidate is not a boolean."));
        }
        None => return Err(error(50872, "Resume Token does not contain fromInvalidate")),
    };
    let mut token = ResumeTokenData {
        token_type,
        txn_op_index,
        from_invalidate,
        ..ResumeTokenData::high_water_mark(version, cluster_time)
    };
    decode_subject(&mut token, values)?;
    Ok(token)
}

fn decode_version(value: Option<Bson>) -> Result<TokenVersion, CommandError> {
    match value {
        Some(Bson::Int32(1)) => Ok(TokenVersion::V1),
        Some(Bson::Int32(2)) => Ok(TokenVersion::V2),
        Some(Bson::Int32(_)) => Err(CommandError::new(
            50795,
            "Invalid Resume Token: only supports version 0, 1 and 2",
        )),
        Some(_) => Err(CommandError::new(
            50854,
            "Invalid resume token: wrong type for version",
        )),
        None => Err(CommandError::new(50796, "Resume Token does not contain version")),
    }
}

fn decode_type(value: Option<Bson>) -> Result<TokenType, CommandError> {
    match value {
        Some(Bson::Int32(HIGH_WATER_MARK)) => Ok(TokenType::HighWaterMark),
        Some(Bson::Int32(EVENT)) => Ok(TokenType::Event),
        Some(Bson::Int32(other)) => Err(CommandError::new(
            51057,
            format!("Token type {other} not recognized"),
        )),
        Some(_) => Err(CommandError::new(51056, "Resume Token tokenType is not an int.")),
        None => Err(CommandError::new(
            51055,
            "Resume Token does not contain tokenType",
        )),
    }
}

/// The UUID, the identifier and the fragment number, none of which need be there.
fn decode_subject(
    token: &mut ResumeTokenData,
    mut values: impl Iterator<Item = Bson>,
) -> Result<(), CommandError> {
    let v2 = token.version == TokenVersion::V2;
    match values.next() {
        None if v2 => return Err(CommandError::new(6_189_500, "Expected UUID or null")),
        None => return Ok(()),
        Some(Bson::Null) => {}
        Some(Bson::Binary(Binary {
            subtype: BinarySubtype::Uuid,
            bytes,
        })) => {
            let uuid = <[u8; 16]>::try_from(bytes);
            token.uuid =
                Some(uuid.map_err(|_| CommandError::new(131, "uuid must be a 16-byte binary field"))?);
        }
        Some(_) => {
            return Err(CommandError::new(
                131,
                "The UUID of a resume token must be a 16-byte binary field",
            ));
        }
    }
    match values.next() {
        Some(_) if token.is_high_water_mark() => {
            return Err(CommandError::new(6_189_504, "Invalid high water mark token"));
        }
        Some(Bson::Document(identifier)) => token.identifier = Some(identifier),
        Some(_) => {
            return Err(CommandError::new(
                6_189_503,
                "Resume Token eventIdentifier is not an object",
            ));
        }
        None if v2 && !token.is_high_water_mark() => {
            return Err(CommandError::new(
                6_189_501,
                "Expected an eventIdentifier for an event resume token",
            ));
        }
        None => return Ok(()),
    }
    let mut rest = values;
    if v2 && let Some(number) = rest.next() {
        let number = number.as_i32().and_then(|number| u32::try_from(number).ok());
        token.fragment = Some(number.ok_or_else(|| {
            CommandError::new(
                7_182_501,
                "Resume token 'fragmentNum' must be a non-negative integer.",
            )
        })?);
    }
    match rest.next() {
        None => Ok(()),
        Some(_) => Err(CommandError::new(40646, "invalid oversized resume token")),
    }
}

impl TokenVersion {
    fn number(self) -> i32 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

impl TokenType {
    fn number(self) -> i32 {
        match self {
            Self::HighWaterMark => HIGH_WATER_MARK,
            Self::Event => EVENT,
        }
    }
}

const HIGH_WATER_MARK: i32 = 0;
const EVENT: i32 = 128;

/// The operation types whose version 1 tokens hold a bare document key.
const CLASSIC: &[&str] = &[
    "insert",
    "update",
    "replace",
    "delete",
    "drop",
    "rename",
    "dropDatabase",
    "invalidate",
];

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let (pairs, []) = digits.as_deref()?.as_chunks::<2>() else {
        return None;
    };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}
