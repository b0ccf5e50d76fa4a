//! One authentication, by any mechanism, from the client's first word to the server's last.

use std::time::Duration;

use bson::raw::cstr;
use bson::{RawDocument, RawDocumentBuf, rawdoc};

use super::request::{CredentialAnswer, CredentialRequest};
use super::{Credential, Mechanism, aws_steps, oidc, refused, sasl, scram_steps};
use crate::connection::reply;
use crate::random::Random;
use crate::uri::Secret;
use crate::{Error, ServerAddress};

/// One authentication that is under way.
pub(crate) struct Conversation {
    mechanism: Mechanism,
    step: Step,
}

/// Where it stands; each mechanism has its own steps.
enum Step {
    Scram(scram_steps::Step),
    /// `authenticate` is to be answered.
    X509,
    /// The one message is to be answered.
    Plain,
    Aws(aws_steps::Step),
    Oidc(oidc::Step),
}

/// What follows.
pub(crate) enum Next {
    /// Send this command; its reply goes on with this conversation.
    Send(Conversation, RawDocumentBuf),
    /// Ask this outside; the answer goes on with this conversation.
    Ask(Conversation, CredentialRequest),
    /// Go on with this conversation after that time.
    Pause(Conversation, Duration),
    /// Both sides have proved themselves.
    Done(Proved),
}

/// The same, of one mechanism's steps.
pub(super) enum Progress<S> {
    Send(S, RawDocumentBuf),
    Ask(S, CredentialRequest),
    Pause(S, Duration),
    /// With the token that proved it, for mechanisms whose tokens are kept.
    Done(Option<Secret>),
}

/// How a connection has proved who it is: by what it can do so again.
#[derive(Debug)]
pub(crate) struct Proved {
    mechanism: Mechanism,
    /// The token that the server took (the Authentication specification's *Connection Cache*).
    token: Option<Secret>,
}

/// Who authenticates, and to whom.
#[derive(Clone, Copy)]
pub(crate) struct Parties<'a> {
    pub(crate) credential: &'a Credential,
    pub(crate) server: &'a ServerAddress,
}

impl Conversation {
    /// A conversation that begins within the handshake, and its first command, without database; none where the
    /// mechanism has no such thing, or what it takes is not at hand.
    pub(crate) fn speculate(
        parties: Parties<'_>,
        mechanism: Mechanism,
        random: &mut Random,
    ) -> Option<(Self, RawDocumentBuf)> {
        let (step, command) = match mechanism {
            Mechanism::ScramSha1 | Mechanism::ScramSha256 => {
                let hash = mechanism.scram_hash().ok()?;
                // What is wrong with the user is told when the connection is to authenticate.
                let (step, command) = scram_steps::begin(parties.credential, mechanism, hash, random).ok()?;
                (Step::Scram(step), command)
            }
            Mechanism::MongodbX509 => (Step::X509, x509(parties.credential)),
            Mechanism::MongodbOidc => {
                let (step, command) = oidc::Step::speculate(parties)?;
                (Step::Oidc(step), command)
            }
            // A password in the clear is not sent to whoever answers; AWS has no speculation in the specification.
            Mechanism::Plain | Mechanism::MongodbAws | Mechanism::Gssapi => return None,
        };
        Some((Self { mechanism, step }, command))
    }

    /// Begins.
    ///
    /// # Errors
    /// The mechanism is not supported, or something that it needs is not there.
    pub(crate) fn begin(
        parties: Parties<'_>,
        mechanism: Mechanism,
        random: &mut Random,
    ) -> Result<Next, Error> {
        let credential = parties.credential;
        let send = |step, command| Next::Send(Self { mechanism, step }, command);
        Ok(match mechanism {
            Mechanism::ScramSha1 | Mechanism::ScramSha256 => {
                let hash = mechanism.scram_hash()?;
                let (step, command) = scram_steps::begin(credential, mechanism, hash, random)?;
                send(Step::Scram(step), sasl::with_database(command, credential))
            }
            Mechanism::MongodbX509 => send(Step::X509, sasl::with_database(x509(credential), credential)),
            Mechanism::Plain => send(Step::Plain, plain(credential)?),
            Mechanism::MongodbAws => {
                let (step, command) = aws_steps::begin(credential, random)?;
                send(Step::Aws(step), command)
            }
            Mechanism::MongodbOidc => Self::next(mechanism, Step::Oidc, oidc::Step::begin(parties)?),
            Mechanism::Gssapi => return Err(refused(GSSAPI_UNSUPPORTED)),
        })
    }

    /// Begins again on a connection that has proved itself before, because the server wants it to.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub(crate) fn begin_again(
        parties: Parties<'_>,
        proved: &Proved,
        random: &mut Random,
    ) -> Result<Next, Error> {
        if let Some(token) = &proved.token {
            parties.credential.oidc().invalidate(token);
        }
        Self::begin(parties, proved.mechanism, random)
    }

    pub(crate) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Takes the `speculativeAuthenticate` of a hello reply; none if it has to be begun anew.
    ///
    /// # Errors
    /// As [`handle_reply`](Self::handle_reply).
    pub(crate) fn handle_speculation(
        self,
        parties: Parties<'_>,
        answer: &RawDocument,
    ) -> Result<Option<Next>, Error> {
        match self.step {
            Step::X509 => Ok(Some(Next::Done(Proved {
                mechanism: self.mechanism,
                token: None,
            }))),
            // The token may be good all the same: what it is worth is seen when it is sent as a command.
            Step::Oidc(_) if !matches!(sasl::is_done(answer), Ok(true)) => Ok(None),
            Step::Scram(_) | Step::Plain | Step::Aws(_) | Step::Oidc(_) => {
                self.handle_success(parties, answer).map(Some)
            }
        }
    }

    /// Takes the server's reply to a command.
    ///
    /// # Errors
    /// The server refused, its reply is malformed, or it did not prove itself.
    pub(crate) fn handle_reply(self, parties: Parties<'_>, answer: &RawDocument) -> Result<Next, Error> {
        if reply::is_ok(answer) {
            return self.handle_success(parties, answer);
        }
        let error = sasl::refused_by_server(parties.credential, self.mechanism, answer);
        match self.step {
            Step::Oidc(step) => Ok(Self::next(
                self.mechanism,
                Step::Oidc,
                step.handle_refusal(parties, error)?,
            )),
            Step::Scram(_) | Step::X509 | Step::Plain | Step::Aws(_) => Err(error),
        }
    }

    fn handle_success(self, parties: Parties<'_>, answer: &RawDocument) -> Result<Next, Error> {
        let (mechanism, credential) = (self.mechanism, parties.credential);
        Ok(match self.step {
            Step::Scram(step) => Self::next(mechanism, Step::Scram, step.handle_reply(credential, answer)?),
            Step::X509 => Next::Done(Proved {
                mechanism,
                token: None,
            }),
            Step::Plain => {
                sasl::expect_done(mechanism, answer)?;
                Next::Done(Proved {
                    mechanism,
                    token: None,
                })
            }
            Step::Aws(step) => Self::next(mechanism, Step::Aws, step.handle_reply(credential, answer)?),
            Step::Oidc(step) => Self::next(mechanism, Step::Oidc, step.handle_reply(parties, answer)?),
        })
    }

    /// Takes the answer to what was asked.
    ///
    /// # Errors
    /// There is no answer, and the mechanism has no other way; or it cannot be used.
    pub(crate) fn handle_answer(
        self,
        parties: Parties<'_>,
        answer: Result<CredentialAnswer, Error>,
    ) -> Result<Next, Error> {
        let mechanism = self.mechanism;
        Ok(match self.step {
            Step::Aws(step) => Self::next(
                mechanism,
                Step::Aws,
                step.handle_answer(parties.credential, answer)?,
            ),
            Step::Oidc(step) => Self::next(mechanism, Step::Oidc, step.handle_answer(parties, answer)?),
            Step::Scram(_) | Step::X509 | Step::Plain => {
                return Err(refused(format!("{mechanism} asks for nothing")));
            }
        })
    }

    /// The pause is over.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub(crate) fn handle_pause_over(self, parties: Parties<'_>) -> Result<Next, Error> {
        let mechanism = self.mechanism;
        match self.step {
            Step::Oidc(step) => Ok(Self::next(
                mechanism,
                Step::Oidc,
                step.handle_pause_over(parties)?,
            )),
            Step::Scram(_) | Step::X509 | Step::Plain | Step::Aws(_) => {
                Err(refused(format!("{mechanism} has no pauses")))
            }
        }
    }

    fn next<S>(mechanism: Mechanism, wrap: impl Fn(S) -> Step, progress: Progress<S>) -> Next {
        let with = |step| Self {
            mechanism,
            step: wrap(step),
        };
        match progress {
            Progress::Send(step, command) => Next::Send(with(step), command),
            Progress::Ask(step, request) => Next::Ask(with(step), request),
            Progress::Pause(step, duration) => Next::Pause(with(step), duration),
            Progress::Done(token) => Next::Done(Proved { mechanism, token }),
        }
    }
}

/// The command of MONGODB-X509, without database. The certificate has been shown in the TLS handshake; without a user
/// name the server takes the certificate's subject.
fn x509(credential: &Credential) -> RawDocumentBuf {
    let mut command = rawdoc! { "authenticate": 1, "mechanism": Mechanism::MongodbX509.as_str() };
    if !credential.username().is_empty() {
        command.append(cstr!("user"), credential.username());
    }
    command
}

/// The one message of PLAIN (RFC 4616).
fn plain(credential: &Credential) -> Result<RawDocumentBuf, Error> {
    let (user, password) = (credential.username(), credential.password());
    if user.is_empty() {
        return Err(refused("PLAIN needs a user name"));
    }
    if user.contains('\0') || password.contains('\0') {
        return Err(refused(
            "user name and password of PLAIN must not hold a NUL character",
        ));
    }
    let message = format!("\0{user}\0{password}").into_bytes();
    let mut command = sasl::start(Mechanism::Plain, message);
    command.append(cstr!("autoAuthorize"), 1);
    Ok(sasl::with_database(command, credential))
}

const GSSAPI_UNSUPPORTED: &str = "GSSAPI (Kerberos) is not supported; use SCRAM-SHA-256, MONGODB-X509, PLAIN, \
    MONGODB-AWS or MONGODB-OIDC";
