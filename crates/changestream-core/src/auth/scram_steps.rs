//! SCRAM as a SASL conversation.

use bson::raw::cstr;
use bson::{RawDocument, RawDocumentBuf, rawdoc};

use super::conversation::Progress;
use super::sasl::{self, SaslReply};
use super::scram::{self, Hash, Scram, ServerProof};
use super::{Credential, Mechanism, refused};
use crate::Error;
use crate::random::Random;

/// What the next reply is an answer to.
pub(super) enum Step {
    /// The client's first message.
    First(Scram),
    /// The client's final message.
    Final(ServerProof),
    /// The empty message that servers without `skipEmptyExchange` (before 4.4) want at the end.
    Empty,
}

/// The first step, and its command without database.
pub(super) fn begin(
    credential: &Credential,
    mechanism: Mechanism,
    hash: Hash,
    random: &mut Random,
) -> Result<(Step, RawDocumentBuf), Error> {
    if credential.username().is_empty() {
        return Err(refused(format!("{mechanism} needs a user name")));
    }
    let scram = Scram::new(hash, credential.username(), scram::nonce(random));
    let mut command = sasl::start(mechanism, scram.client_first().into_bytes());
    command.append(cstr!("autoAuthorize"), 1);
    command.append(cstr!("options"), rawdoc! { "skipEmptyExchange": true });
    Ok((Step::First(scram), command))
}

impl Step {
    /// Takes a reply that says `ok: 1`.
    pub(super) fn handle_reply(
        self,
        credential: &Credential,
        reply: &RawDocument,
    ) -> Result<Progress<Self>, Error> {
        let reply = SaslReply::parse(reply)?;
        let (step, payload) = match self {
            Self::First(scram) => {
                if reply.done {
                    return Err(refused("the server ended SCRAM before it had proved itself"));
                }
                let (client_final, proof) = scram.answer(reply.payload, |hash, salt, iterations| {
                    credential.scram_keys(hash, salt, iterations)
                })?;
                (Self::Final(proof), client_final)
            }
            Self::Final(proof) => {
                proof.verify(reply.payload)?;
                if reply.done {
                    return Ok(Progress::Done(None));
                }
                (Self::Empty, String::new())
            }
            Self::Empty if reply.done => return Ok(Progress::Done(None)),
            Self::Empty => return Err(refused("the server does not end SCRAM")),
        };
        let command = sasl::continue_command(credential, reply.conversation_id, payload.into_bytes());
        Ok(Progress::Send(step, command))
    }
}
