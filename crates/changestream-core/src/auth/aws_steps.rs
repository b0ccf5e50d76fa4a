//! MONGODB-AWS: the server gets a signed request to AWS, sends it, and learns from the answer who the client is.

use bson::{RawBson, RawDocument, RawDocumentBuf, rawdoc};

use super::conversation::Progress;
use super::request::{CredentialAnswer, CredentialRequest};
use super::sasl::{self, SaslReply};
use super::{AwsCredentials, Credential, Mechanism, refused, sigv4};
use crate::Error;
use crate::random::Random;

pub(super) enum Step {
    /// The client's nonce is to be answered.
    First([u8; 32]),
    /// Keys and time are asked for.
    Asked {
        conversation_id: RawBson,
        server_nonce: Vec<u8>,
        host: String,
    },
    /// The signature is to be answered.
    Final,
}

/// The first step, and its command.
pub(super) fn begin(credential: &Credential, random: &mut Random) -> Result<(Step, RawDocumentBuf), Error> {
    if credential.username().is_empty() != credential.password().is_empty() {
        return Err(refused(
            "MONGODB-AWS needs both access key id and secret access key, or neither",
        ));
    }
    let mut nonce = [0; 32];
    random.fill(&mut nonce);
    let payload = rawdoc! { "r": sasl::binary(nonce.to_vec()), "p": NO_CHANNEL_BINDING };
    let command = sasl::start_command(credential, Mechanism::MongodbAws, payload.into_bytes());
    Ok((Step::First(nonce), command))
}

impl Step {
    /// Takes a reply that says `ok: 1`.
    pub(super) fn handle_reply(
        self,
        credential: &Credential,
        reply: &RawDocument,
    ) -> Result<Progress<Self>, Error> {
        match self {
            Self::First(nonce) => {
                let reply = SaslReply::parse(reply)?;
                if reply.done {
                    return Err(refused("the server ended MONGODB-AWS before it had begun"));
                }
                let (server_nonce, host) = parse_server_first(reply.payload, &nonce)?;
                let step = Self::Asked {
                    conversation_id: reply.conversation_id,
                    server_nonce,
                    host,
                };
                let given = given(credential);
                Ok(Progress::Ask(step, CredentialRequest::Aws { given }))
            }
            Self::Asked { .. } => Err(refused("the server goes on before it is asked to")),
            Self::Final => {
                sasl::expect_done(Mechanism::MongodbAws, reply)?;
                Ok(Progress::Done(None))
            }
        }
    }

    /// Takes the keys, and what time it is.
    pub(super) fn handle_answer(
        self,
        credential: &Credential,
        answer: Result<CredentialAnswer, Error>,
    ) -> Result<Progress<Self>, Error> {
        let Self::Asked {
            conversation_id,
            server_nonce,
            host,
        } = self
        else {
            return Err(refused("an answer that nobody asked for"));
        };
        let CredentialAnswer::Aws { credentials, time } = answer? else {
            return Err(refused("MONGODB-AWS was answered with a token"));
        };
        let signed = sigv4::sign(&credentials, time, &host, &server_nonce)?;
        let mut payload = rawdoc! { "a": signed.authorization, "d": signed.date };
        if let Some(token) = credentials.session_token() {
            payload.append(bson::raw::cstr!("t"), token.reveal());
        }
        let command = sasl::continue_command(credential, conversation_id, payload.into_bytes());
        Ok(Progress::Send(Self::Final, command))
    }
}

fn given(credential: &Credential) -> Option<AwsCredentials> {
    if credential.username().is_empty() {
        return None;
    }
    let keys = AwsCredentials::new(credential.username(), credential.password());
    Some(match credential.session_token() {
        Some(token) => keys.with_session_token(token.clone()),
        None => keys,
    })
}

/// The server's nonce, which must extend the client's, and the host of the service.
fn parse_server_first(payload: &[u8], client_nonce: &[u8; 32]) -> Result<(Vec<u8>, String), Error> {
    let malformed = || refused("the server's first message of MONGODB-AWS is malformed");
    let message = RawDocument::from_bytes(payload).map_err(|_| malformed())?;
    let nonce = message.get_binary("s").map_err(|_| malformed())?.bytes;
    if nonce.len() != 64 || !nonce.starts_with(client_nonce) {
        return Err(refused(
            "the server's nonce does not extend the client's to 64 bytes",
        ));
    }
    let host = message.get_str("h").map_err(|_| malformed())?;
    sigv4::check_host(host)?;
    Ok((nonce.to_vec(), host.to_owned()))
}

/// `gs2-cb-flag`: the letter n.
const NO_CHANNEL_BINDING: i32 = 110;
