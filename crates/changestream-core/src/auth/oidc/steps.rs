//! The conversation: one step with a token, or two where the server has to name the provider first.

use std::time::Duration;

use bson::{RawBson, RawDocument, RawDocumentBuf, rawdoc};

use super::{IdpInfo, OidcFlow, OidcRequest, OidcToken, allows};
use crate::Error;
use crate::auth::conversation::{Parties, Progress};
use crate::auth::request::{CredentialAnswer, CredentialRequest};
use crate::auth::sasl::{self, SaslReply};
use crate::auth::{Credential, Mechanism, refused};
use crate::uri::Secret;

pub(in crate::auth) enum Step {
    /// A token that the client had is to be judged.
    Known(Secret),
    /// The client's token was not taken; another attempt has to wait a little.
    Pausing,
    /// A token is asked for; whether by a refresh token.
    Asked { refreshing: bool },
    /// A new token is to be judged.
    Fresh { token: Secret, refreshing: bool },
    /// The server is to name the provider.
    Principal,
    /// A token of that provider is asked for.
    AskedOf {
        idp_info: IdpInfo,
        conversation_id: RawBson,
    },
    /// That token is to be judged.
    Last(Secret),
}

impl Step {
    /// Within the handshake: only with a token that is there already.
    pub(in crate::auth) fn speculate(parties: Parties<'_>) -> Option<(Self, RawDocumentBuf)> {
        if !is_allowed(parties) {
            return None;
        }
        let token = parties.credential.oidc().token()?;
        let command = sasl::start(MECHANISM, token_payload(&token));
        Some((Self::Known(token), command))
    }

    pub(in crate::auth) fn begin(parties: Parties<'_>) -> Result<Progress<Self>, Error> {
        if !is_allowed(parties) {
            return Err(refused(format!(
                "{} is none of the allowed hosts of MONGODB-OIDC: nobody was asked for a token",
                parties.server
            )));
        }
        let credential = parties.credential;
        match credential.oidc().token() {
            Some(token) => {
                let command = start(credential, token_payload(&token));
                Ok(Progress::Send(Self::Known(token), command))
            }
            None => Ok(Self::begin_without_token(credential)),
        }
    }

    fn begin_without_token(credential: &Credential) -> Progress<Self> {
        match credential.oidc_flow() {
            OidcFlow::Machine => {
                Progress::Ask(Self::Asked { refreshing: false }, ask(credential, None, None))
            }
            OidcFlow::Human => match credential.oidc().refresh() {
                Some((idp_info, refresh_token)) => Progress::Ask(
                    Self::Asked { refreshing: true },
                    ask(credential, Some(idp_info), Some(refresh_token)),
                ),
                None => Self::ask_for_provider(credential),
            },
        }
    }

    fn ask_for_provider(credential: &Credential) -> Progress<Self> {
        let payload = match credential.username() {
            "" => RawDocumentBuf::new(),
            name => rawdoc! { "n": name },
        };
        Progress::Send(Self::Principal, start(credential, payload.into_bytes()))
    }

    pub(in crate::auth) fn handle_pause_over(self, parties: Parties<'_>) -> Result<Progress<Self>, Error> {
        let Self::Pausing = self else {
            return Err(refused("a pause that nobody made"));
        };
        let credential = parties.credential;
        // Another stream may have got one meanwhile.
        Ok(match credential.oidc().token() {
            Some(token) => {
                let command = start(credential, token_payload(&token));
                let refreshing = false;
                Progress::Send(Self::Fresh { token, refreshing }, command)
            }
            None => Self::begin_without_token(credential),
        })
    }

    /// Takes a reply that says `ok: 1`.
    pub(in crate::auth) fn handle_reply(
        self,
        parties: Parties<'_>,
        reply: &RawDocument,
    ) -> Result<Progress<Self>, Error> {
        match self {
            Self::Known(token) | Self::Fresh { token, .. } | Self::Last(token) => {
                sasl::expect_done(MECHANISM, reply)?;
                Ok(Progress::Done(Some(token)))
            }
            Self::Principal => {
                let reply = SaslReply::parse(reply)?;
                if reply.done {
                    return Err(refused(
                        "the server ended MONGODB-OIDC before it had seen a token",
                    ));
                }
                let idp_info = IdpInfo::parse(reply.payload)?;
                let request = ask(parties.credential, Some(idp_info.clone()), None);
                let step = Self::AskedOf {
                    idp_info,
                    conversation_id: reply.conversation_id,
                };
                Ok(Progress::Ask(step, request))
            }
            Self::Pausing | Self::Asked { .. } | Self::AskedOf { .. } => {
                Err(refused("the server goes on before it is asked to"))
            }
        }
    }

    /// Takes a reply that says `ok: 0`, as an error.
    pub(in crate::auth) fn handle_refusal(
        self,
        parties: Parties<'_>,
        error: Error,
    ) -> Result<Progress<Self>, Error> {
        let credential = parties.credential;
        let is_about_token = error.code().is_some_and(|code| TOKEN_ERRORS.contains(&code));
        match self {
            // Too old, probably.
            Self::Known(token) if is_about_token => {
                credential.oidc().invalidate(&token);
                Ok(match credential.oidc_flow() {
                    OidcFlow::Machine => Progress::Pause(Self::Pausing, PAUSE),
                    OidcFlow::Human => Self::begin_without_token(credential),
                })
            }
            Self::Fresh {
                token,
                refreshing: true,
            } => {
                credential.oidc().invalidate(&token);
                credential.oidc().forget_refresh();
                Ok(Self::ask_for_provider(credential))
            }
            Self::Known(_)
            | Self::Fresh { .. }
            | Self::Principal
            | Self::Last(_)
            | Self::Pausing
            | Self::Asked { .. }
            | Self::AskedOf { .. } => Err(error),
        }
    }

    /// Takes the token that was asked for.
    pub(in crate::auth) fn handle_answer(
        self,
        parties: Parties<'_>,
        answer: Result<CredentialAnswer, Error>,
    ) -> Result<Progress<Self>, Error> {
        let credential = parties.credential;
        match self {
            Self::Asked { refreshing } => match token_of(answer) {
                Ok(given) => {
                    credential.oidc().keep(&given);
                    let token = given.access_token;
                    let command = start(credential, token_payload(&token));
                    Ok(Progress::Send(Self::Fresh { token, refreshing }, command))
                }
                Err(_) if refreshing => {
                    credential.oidc().forget_refresh();
                    Ok(Self::ask_for_provider(credential))
                }
                Err(error) => Err(error),
            },
            Self::AskedOf {
                idp_info,
                conversation_id,
            } => {
                let given = token_of(answer)?;
                credential.oidc().keep(&given);
                credential.oidc().keep_idp(idp_info);
                let token = given.access_token;
                let command = sasl::continue_command(credential, conversation_id, token_payload(&token));
                Ok(Progress::Send(Self::Last(token), command))
            }
            Self::Known(_) | Self::Pausing | Self::Fresh { .. } | Self::Principal | Self::Last(_) => {
                Err(refused("an answer that nobody asked for"))
            }
        }
    }
}

impl IdpInfo {
    fn parse(payload: &[u8]) -> Result<Self, Error> {
        let malformed = || refused("what the server says of its identity provider is malformed");
        let message = RawDocument::from_bytes(payload).map_err(|_| malformed())?;
        let issuer = message.get_str("issuer").map_err(|_| malformed())?;
        let client_id = message.get("clientId").map_err(|_| malformed())?;
        let scopes = match message.get("requestScopes").map_err(|_| malformed())? {
            None | Some(bson::RawBsonRef::Null) => Vec::new(),
            Some(scopes) => {
                let scopes = scopes.as_array().ok_or_else(malformed)?.into_iter();
                let mut texts = Vec::new();
                for scope in scopes {
                    let scope = scope.map_err(|_| malformed())?;
                    texts.push(scope.as_str().ok_or_else(malformed)?.to_owned());
                }
                texts
            }
        };
        Ok(Self {
            issuer: issuer.to_owned(),
            client_id: client_id.and_then(|id| id.as_str()).map(str::to_owned),
            request_scopes: scopes,
        })
    }
}

fn is_allowed(parties: Parties<'_>) -> bool {
    match parties.credential.oidc_flow() {
        OidcFlow::Machine => true,
        OidcFlow::Human => allows(parties.credential.allowed_hosts(), parties.server),
    }
}

fn ask(
    credential: &Credential,
    idp_info: Option<IdpInfo>,
    refresh_token: Option<Secret>,
) -> CredentialRequest {
    let timeout = match credential.oidc_flow() {
        // What is left of the connection's own limit, which it knows itself.
        OidcFlow::Machine => None,
        OidcFlow::Human => Some(HUMAN_TIMEOUT),
    };
    CredentialRequest::Oidc(OidcRequest {
        timeout,
        version: CALLBACK_VERSION,
        username: Some(credential.username().to_owned()).filter(|name| !name.is_empty()),
        idp_info,
        refresh_token,
        cache: credential.oidc().clone(),
    })
}

fn token_of(answer: Result<CredentialAnswer, Error>) -> Result<OidcToken, Error> {
    match answer? {
        CredentialAnswer::Oidc(token) if token.access_token.reveal().is_empty() => {
            Err(refused("the access token for MONGODB-OIDC is empty"))
        }
        CredentialAnswer::Oidc(token) => Ok(token),
        CredentialAnswer::Aws { .. } => Err(refused("MONGODB-OIDC was answered with keys of AWS")),
    }
}

fn start(credential: &Credential, payload: Vec<u8>) -> RawDocumentBuf {
    sasl::start_command(credential, MECHANISM, payload)
}

/// `JwtStepRequest`.
fn token_payload(token: &Secret) -> Vec<u8> {
    rawdoc! { "jwt": token.reveal() }.into_bytes()
}

const MECHANISM: Mechanism = Mechanism::MongodbOidc;

/// Authentication specification, "OIDC Callback".
const CALLBACK_VERSION: u32 = 1;

/// Authentication specification, "OIDC Human Callback".
const HUMAN_TIMEOUT: Duration = Duration::from_secs(300);

/// Before a token is fetched in place of one that was not taken (Authentication specification, "Credential Caching").
const PAUSE: Duration = Duration::from_millis(100);

/// AuthenticationFailed and ReauthenticationRequired. Other errors say nothing about the token, which stays.
const TOKEN_ERRORS: [i32; 2] = [18, 391];
