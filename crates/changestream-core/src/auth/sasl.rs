//! What all SASL mechanisms have in common: the commands `saslStart` and `saslContinue`, and their replies.

use bson::raw::cstr;
use bson::spec::BinarySubtype;
use bson::{RawBinaryRef, RawBson, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};

use super::{Credential, Mechanism, refused};
use crate::Error;
use crate::connection::reply;
use crate::error::ErrorKind;

/// A `saslStart` command without database: as `speculativeAuthenticate` it needs `db`, as command `$db`.
pub(super) fn start(mechanism: Mechanism, payload: Vec<u8>) -> RawDocumentBuf {
    rawdoc! {
        "saslStart": 1,
        "mechanism": mechanism.as_str(),
        "payload": binary(payload),
    }
}

/// The same, as a command of its own.
pub(super) fn start_command(
    credential: &Credential,
    mechanism: Mechanism,
    payload: Vec<u8>,
) -> RawDocumentBuf {
    with_database(start(mechanism, payload), credential)
}

/// A `saslContinue` command.
pub(super) fn continue_command(
    credential: &Credential,
    conversation_id: RawBson,
    payload: Vec<u8>,
) -> RawDocumentBuf {
    rawdoc! {
        "saslContinue": 1,
        "conversationId": conversation_id,
        "payload": binary(payload),
        "$db": credential.source(),
    }
}

pub(super) fn with_database(mut command: RawDocumentBuf, credential: &Credential) -> RawDocumentBuf {
    command.append(cstr!("$db"), credential.source());
    command
}

/// The error for a command of an authentication that was answered with `ok: 0`.
pub(super) fn refused_by_server(credential: &Credential, mechanism: Mechanism, reply: &RawDocument) -> Error {
    let who = match credential.username() {
        "" => String::new(),
        name => format!(" as user {name:?}"),
    };
    Error::new(ErrorKind::Authentication {
        message: format!("{mechanism}{who} of database {:?}", credential.source()),
        server_error: Some(reply::server_error(reply)),
    })
}

/// The fields of a reply to `saslStart` or `saslContinue`.
pub(super) struct SaslReply<'a> {
    pub(super) conversation_id: RawBson,
    pub(super) done: bool,
    pub(super) payload: &'a [u8],
}

impl<'a> SaslReply<'a> {
    pub(super) fn parse(reply: &'a RawDocument) -> Result<Self, Error> {
        let conversation_id = field(reply, "conversationId")?;
        let conversation_id = (conversation_id.as_i32().map(RawBson::Int32))
            .or_else(|| conversation_id.as_i64().map(RawBson::Int64))
            .ok_or_else(|| wrong("conversationId"))?;
        let RawBsonRef::Binary(RawBinaryRef { bytes: payload, .. }) = field(reply, "payload")? else {
            return Err(wrong("payload"));
        };
        Ok(Self {
            conversation_id,
            done: is_done(reply)?,
            payload,
        })
    }
}

/// Whether the conversation is over, and with success: all that a last reply has to say.
pub(super) fn is_done(reply: &RawDocument) -> Result<bool, Error> {
    field(reply, "done")?.as_bool().ok_or_else(|| wrong("done"))
}

/// A last reply that must say so.
pub(super) fn expect_done(mechanism: Mechanism, reply: &RawDocument) -> Result<(), Error> {
    if is_done(reply)? {
        return Ok(());
    }
    Err(refused(format!("the server does not end {mechanism}")))
}

fn field<'a>(reply: &'a RawDocument, name: &str) -> Result<RawBsonRef<'a>, Error> {
    reply
        .get(name)
        .map_err(|_| refused("the server's SASL reply is malformed"))?
        .ok_or_else(|| refused(format!("the server's SASL reply has no {name}")))
}

fn wrong(name: &str) -> Error {
    refused(format!("{name} of the server's SASL reply is of a wrong type"))
}

pub(super) fn binary(bytes: Vec<u8>) -> RawBson {
    RawBson::Binary(bson::Binary {
        subtype: BinarySubtype::Generic,
        bytes,
    })
}
