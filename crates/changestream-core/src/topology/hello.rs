//! What a server says of itself.

use std::fmt;

use bson::oid::ObjectId;
use bson::{DateTime, RawArray, RawBsonRef, RawDocument};

use super::{ServerType, TopologyVersion};
use crate::ServerAddress;
use crate::read_preference::TagSet;

/// A reply to `hello`, or to the legacy hello `isMaster`.
///
/// A field that is absent, of another type or out of range is `None`, false or empty: a server of another version is
/// no error. Every list and text is bounded ([`MAX_HOSTS`], [`MAX_LIST`], [`MAX_TEXT`]); what goes beyond is ignored.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct HelloReply {
    /// `ok` is 1.
    pub ok: bool,
    /// `errmsg` of a reply that is not ok, cut to [`MAX_TEXT`] bytes.
    pub error_message: Option<String>,
    /// `code` of a reply that is not ok.
    pub code: Option<i32>,
    /// `errorLabels` of a reply that is not ok.
    pub error_labels: Vec<String>,
    /// `isWritablePrimary`, else `ismaster`.
    pub is_writable_primary: bool,
    /// `secondary`.
    pub secondary: bool,
    /// `arbiterOnly`.
    pub arbiter_only: bool,
    /// `hidden`.
    pub hidden: bool,
    /// `passive`: a member of priority 0.
    pub passive: bool,
    /// `isreplicaset`: started as a replica set member, but not in a configuration.
    pub is_replica_set: bool,
    /// `msg`; "isdbgrid" is a mongos.
    pub msg: Option<String>,
    /// `setName`.
    pub set_name: Option<String>,
    /// `setVersion`.
    pub set_version: Option<i64>,
    /// `electionId`, of a primary.
    pub election_id: Option<ObjectId>,
    /// `hosts`.
    pub hosts: Vec<ServerAddress>,
    /// `passives`.
    pub passives: Vec<ServerAddress>,
    /// `arbiters`.
    pub arbiters: Vec<ServerAddress>,
    /// `primary`: which member this one thinks is the primary.
    pub primary: Option<ServerAddress>,
    /// `me`: the address of this server in the replica set's configuration.
    pub me: Option<ServerAddress>,
    /// `tags`.
    pub tags: TagSet,
    /// `minWireVersion`, 0 by default.
    pub min_wire_version: i32,
    /// `maxWireVersion`, 0 by default.
    pub max_wire_version: i32,
    /// `lastWrite.lastWriteDate`.
    pub last_write_date: Option<DateTime>,
    /// `logicalSessionTimeoutMinutes`: none if the server does not know sessions.
    pub logical_session_timeout_minutes: Option<i64>,
    /// `topologyVersion`.
    pub topology_version: Option<TopologyVersion>,
    /// `maxBsonObjectSize`, in bytes.
    pub max_bson_object_size: Option<u32>,
    /// `maxMessageSizeBytes`.
    pub max_message_size_bytes: Option<u32>,
    /// `helloOk`: the server knows `hello`.
    pub hello_ok: bool,
    /// `connectionId`: the server's number for this connection.
    pub connection_id: Option<i64>,
    /// `serviceId`: which service behind a load balancer this is.
    pub service_id: Option<ObjectId>,
    /// `saslSupportedMechs`: mechanisms of the user that hello asked about.
    pub sasl_supported_mechs: Vec<String>,
    /// `compression`: compressors that both sides know.
    pub compression: Vec<String>,
}

impl HelloReply {
    /// Reads a reply.
    ///
    /// # Errors
    /// The document is no BSON. Fields of unexpected types are no error.
    pub fn parse(document: &RawDocument) -> Result<Self, InvalidHello> {
        let mut reply = Self::default();
        let mut is_master = false;
        let mut is_writable_primary = None;
        for element in document {
            let (name, value) = element.map_err(|error| InvalidHello {
                reason: cut(&error.to_string()),
            })?;
            match name.as_str() {
                "isWritablePrimary" => is_writable_primary = Some(truth(value)),
                "ismaster" => is_master = truth(value),
                name => reply.read_field(name, value),
            }
        }
        reply.is_writable_primary = is_writable_primary.unwrap_or(is_master);
        Ok(reply)
    }

    /// What kind of server this is (Server Discovery And Monitoring, "type").
    pub fn server_type(&self) -> ServerType {
        match self {
            Self { ok: false, .. } => ServerType::Unknown,
            Self { msg: Some(msg), .. } if msg == "isdbgrid" => ServerType::Mongos,
            Self {
                is_replica_set: true, ..
            } => ServerType::RsGhost,
            Self { set_name: None, .. } => ServerType::Standalone,
            Self { hidden: true, .. } => ServerType::RsOther,
            Self {
                is_writable_primary: true,
                ..
            } => ServerType::RsPrimary,
            Self { secondary: true, .. } => ServerType::RsSecondary,
            Self {
                arbiter_only: true, ..
            } => ServerType::RsArbiter,
            Self { .. } => ServerType::RsOther,
        }
    }

    /// Whether a refusal carries the backpressure label: it says nothing of the server but that it is busy.
    pub fn is_overloaded(&self) -> bool {
        !self.ok
            && self
                .error_labels
                .iter()
                .any(|label| label == super::SYSTEM_OVERLOADED_ERROR)
    }

    fn read_field(&mut self, name: &str, value: RawBsonRef<'_>) {
        match name {
            "ok" => self.ok = truth(value),
            "errmsg" => self.error_message = value.as_str().map(cut),
            "code" => self.code = small(value),
            "errorLabels" => self.error_labels = texts(value),
            "secondary" => self.secondary = truth(value),
            "arbiterOnly" => self.arbiter_only = truth(value),
            "hidden" => self.hidden = truth(value),
            "passive" => self.passive = truth(value),
            "isreplicaset" => self.is_replica_set = truth(value),
            "msg" => self.msg = text(value),
            "setName" => self.set_name = text(value),
            "setVersion" => self.set_version = integer(value),
            "electionId" => self.election_id = value.as_object_id(),
            "hosts" => self.hosts = addresses(value),
            "passives" => self.passives = addresses(value),
            "arbiters" => self.arbiters = addresses(value),
            "primary" => self.primary = address(value),
            "me" => self.me = address(value),
            "tags" => self.tags = tags(value),
            "minWireVersion" => self.min_wire_version = small(value).unwrap_or(0),
            "maxWireVersion" => self.max_wire_version = small(value).unwrap_or(0),
            "lastWrite" => self.last_write_date = last_write_date(value),
            "logicalSessionTimeoutMinutes" => self.logical_session_timeout_minutes = integer(value),
            "topologyVersion" => {
                self.topology_version = value.as_document().and_then(TopologyVersion::parse);
            }
            "maxBsonObjectSize" => self.max_bson_object_size = size(value),
            "maxMessageSizeBytes" => self.max_message_size_bytes = size(value),
            "helloOk" => self.hello_ok = truth(value),
            "connectionId" => self.connection_id = integer(value),
            "serviceId" => self.service_id = value.as_object_id(),
            "saslSupportedMechs" => self.sasl_supported_mechs = texts(value),
            "compression" => self.compression = texts(value),
            _ => {}
        }
    }
}

/// The most addresses that are taken from each of a reply's `hosts`, `passives` and `arbiters`. A replica set has at
/// most 50 members.
pub const MAX_HOSTS: usize = 128;

/// The longest address, in bytes, that is taken from a reply: DNS names have at most 253.
pub const MAX_ADDRESS: usize = 272;

/// The most entries that are taken from a reply's other lists, and from its tags.
pub const MAX_LIST: usize = 64;

/// The longest text, in bytes, that is taken from a reply; a longer one is ignored (a message: cut).
pub const MAX_TEXT: usize = 1024;

/// A hello reply that is no BSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidHello {
    reason: String,
}

impl fmt::Display for InvalidHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed hello reply: {}", self.reason)
    }
}

impl std::error::Error for InvalidHello {}

impl TopologyVersion {
    /// Reads `{processId, counter}`; none if one of them is missing or of another type.
    pub fn parse(document: &RawDocument) -> Option<Self> {
        Some(Self {
            process_id: field(document, "processId")?.as_object_id()?,
            counter: integer(field(document, "counter")?)?,
        })
    }
}

fn field<'a>(document: &'a RawDocument, name: &str) -> Option<RawBsonRef<'a>> {
    document
        .iter()
        .map_while(Result::ok)
        .find_map(|(key, value)| (key.as_str() == name).then_some(value))
}

/// Servers send booleans as booleans, `ok` as a number of any type.
fn truth(value: RawBsonRef<'_>) -> bool {
    value
        .as_bool()
        .unwrap_or_else(|| integer(value).is_some_and(|number| number != 0))
}

fn integer(value: RawBsonRef<'_>) -> Option<i64> {
    if let Some(number) = value.as_i32() {
        return Some(i64::from(number));
    }
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let number = value.as_f64()?;
    // Up to 2^53 each integer has a double of its own.
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

fn small(value: RawBsonRef<'_>) -> Option<i32> {
    i32::try_from(integer(value)?).ok()
}

fn size(value: RawBsonRef<'_>) -> Option<u32> {
    u32::try_from(integer(value)?).ok().filter(|&size| size > 0)
}

fn text(value: RawBsonRef<'_>) -> Option<String> {
    value
        .as_str()
        .filter(|text| text.len() <= MAX_TEXT)
        .map(str::to_owned)
}

fn texts(value: RawBsonRef<'_>) -> Vec<String> {
    elements(value.as_array(), MAX_LIST).filter_map(text).collect()
}

fn address(value: RawBsonRef<'_>) -> Option<ServerAddress> {
    value
        .as_str()
        .filter(|text| text.len() <= MAX_ADDRESS && !text.contains(char::is_control))?
        .parse()
        .ok()
}

fn addresses(value: RawBsonRef<'_>) -> Vec<ServerAddress> {
    let mut addresses: Vec<_> = elements(value.as_array(), MAX_HOSTS)
        .filter_map(address)
        .collect();
    // They are kept.
    addresses.shrink_to_fit();
    addresses
}

/// At most `limit` elements, up to the first one that is no BSON.
fn elements(array: Option<&RawArray>, limit: usize) -> impl Iterator<Item = RawBsonRef<'_>> {
    array.into_iter().flatten().take(limit).map_while(Result::ok)
}

fn tags(value: RawBsonRef<'_>) -> TagSet {
    value
        .as_document()
        .into_iter()
        .flatten()
        .take(MAX_LIST)
        .map_while(Result::ok)
        .filter_map(|(name, value)| {
            let name = name.as_str();
            (name.len() <= MAX_TEXT).then_some((name.to_owned(), text(value)?))
        })
        .collect()
}

fn last_write_date(value: RawBsonRef<'_>) -> Option<DateTime> {
    field(value.as_document()?, "lastWriteDate")?.as_datetime()
}

/// At most [`MAX_TEXT`] bytes, on one line, so that a peer's message fits into ours.
pub(super) fn cut(message: &str) -> String {
    let mut short = String::new();
    for character in message.chars() {
        let character = if character.is_control() { ' ' } else { character };
        if short.len() + character.len_utf8() > MAX_TEXT {
            break;
        }
        short.push(character);
    }
    short
}
