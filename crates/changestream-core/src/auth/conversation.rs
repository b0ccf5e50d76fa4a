//! SCRAM over MongoDB's SASL commands: `saslStart`, `saslContinue`, and the speculative start inside hello.

use bson::spec::BinarySubtype;
use bson::{RawBinaryRef, RawBson, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};

use super::scram::{self, Scram, ServerProof};
use super::{Credential, Mechanism, refused};
use crate::Error;
use crate::connection::reply;
use crate::error::ErrorKind;
use crate::random::Random;

/// One authentication, from the client's first message to the server's proof.
pub(crate) struct Conversation {
    mechanism: Mechanism,
    step: Step,
}

/// What the next reply is an answer to.
enum Step {
    /// The client's first message.
    First(Scram),
    /// The client's final message.
    Final(ServerProof),
    /// The empty message that servers without `skipEmptyExchange` (before 4.4) want at the end.
    Empty,
}

/// What follows a reply.
pub(crate) enum Next {
    /// Send this command; its reply goes on with this conversation.
    Continue(Conversation, RawDocumentBuf),
    /// Both sides have proved themselves.
    Done,
}

impl Conversation {
    /// A conversation that has not said anything yet.
    ///
    /// # Errors
    /// The mechanism is not supported, or there is no user name.
    pub(crate) fn new(
        credential: &Credential,
        mechanism: Mechanism,
        random: &mut Random,
    ) -> Result<Self, Error> {
        let hash = mechanism.scram_hash()?;
        if credential.username().is_empty() {
            return Err(refused(format!("{mechanism} needs a user name")));
        }
        let scram = Scram::new(hash, credential.username(), scram::nonce(random));
        Ok(Self {
            mechanism,
            step: Step::First(scram),
        })
    }

    pub(crate) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The `saslStart` command, without database: as `speculativeAuthenticate` it needs `db`, as command `$db`.
    pub(crate) fn start(&self) -> RawDocumentBuf {
        let payload = match &self.step {
            Step::First(scram) => scram.client_first(),
            Step::Final(_) | Step::Empty => String::new(),
        };
        rawdoc! {
            "saslStart": 1,
            "mechanism": self.mechanism.as_str(),
            "payload": binary(payload),
            "autoAuthorize": 1,
            "options": { "skipEmptyExchange": true },
        }
    }

    /// Takes the server's reply: to a command, or the `speculativeAuthenticate` of a hello reply.
    ///
    /// # Errors
    /// The server refused, its reply is malformed, or it did not prove that it knows the password.
    pub(crate) fn handle_reply(self, credential: &Credential, reply: &RawDocument) -> Result<Next, Error> {
        let mechanism = self.mechanism;
        let reply = SaslReply::parse(reply)?;
        let (step, payload) = match self.step {
            Step::First(scram) => {
                if reply.done {
                    return Err(refused("the server ended SCRAM before it had proved itself"));
                }
                let (client_final, proof) = scram.answer(reply.payload, |hash, salt, iterations| {
                    credential.scram_keys(hash, salt, iterations)
                })?;
                (Step::Final(proof), client_final)
            }
            Step::Final(proof) => {
                proof.verify(reply.payload)?;
                if reply.done {
                    return Ok(Next::Done);
                }
                (Step::Empty, String::new())
            }
            Step::Empty if reply.done => return Ok(Next::Done),
            Step::Empty => return Err(refused("the server does not end SCRAM")),
        };
        let command = rawdoc! {
            "saslContinue": 1,
            "conversationId": reply.conversation_id,
            "payload": binary(payload),
            "$db": credential.source(),
        };
        Ok(Next::Continue(Self { mechanism, step }, command))
    }
}

/// The error for a SASL command that was answered with `ok: 0`.
pub(crate) fn refused_by_server(credential: &Credential, mechanism: Mechanism, reply: &RawDocument) -> Error {
    Error::new(ErrorKind::Authentication {
        message: format!(
            "{mechanism} as user {:?} of database {:?}",
            credential.username(),
            credential.source()
        ),
        server_error: Some(reply::server_error(reply)),
    })
}

/// The fields of a reply to `saslStart` or `saslContinue`.
struct SaslReply<'a> {
    conversation_id: RawBson,
    done: bool,
    payload: &'a [u8],
}

impl<'a> SaslReply<'a> {
    fn parse(reply: &'a RawDocument) -> Result<Self, Error> {
        let field = |name| {
            reply
                .get(name)
                .map_err(|_| refused("the server's SASL reply is malformed"))?
                .ok_or_else(|| refused(format!("the server's SASL reply has no {name}")))
        };
        let wrong = |name| refused(format!("{name} of the server's SASL reply is of a wrong type"));
        let conversation_id = field("conversationId")?;
        let conversation_id = (conversation_id.as_i32().map(RawBson::Int32))
            .or_else(|| conversation_id.as_i64().map(RawBson::Int64))
            .ok_or_else(|| wrong("conversationId"))?;
        let RawBsonRef::Binary(RawBinaryRef { bytes: payload, .. }) = field("payload")? else {
            return Err(wrong("payload"));
        };
        let done = field("done")?.as_bool().ok_or_else(|| wrong("done"))?;
        Ok(Self {
            conversation_id,
            done,
            payload,
        })
    }
}

fn binary(payload: String) -> RawBson {
    RawBson::Binary(bson::Binary {
        subtype: BinarySubtype::Generic,
        bytes: payload.into_bytes(),
    })
}
