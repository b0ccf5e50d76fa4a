//! How a connection authenticates, and does so again when its server wants it to.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{RawDocument, RawDocumentBuf};
use bytes::Bytes;

use super::exchange::{Exchange, Purpose, after};
use super::incoming::Incoming;
use super::machine::{Held, connect_timeout};
use super::server::{Server, readable};
use super::state::{Awaits, State};
use super::{Connection, ConnectionOutput, Reply, reply};
use crate::Error;
use crate::auth::{Conversation, CredentialAnswer, CredentialRequest, Next, Parties};
use crate::error::ErrorKind;
use crate::stream::{append_max_time, server_share};
use crate::wire::{self, Flags};

/// What there is of time for authenticating, where a limit holds for all of what a connection is wanted for (`timeoutMS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthenticationLimit {
    /// Until when.
    pub until: Instant,
    /// How long a message to the server and its answer take at least.
    pub min_round_trip: Duration,
}

impl Connection {
    /// After [`ConnectionOutput::Hello`]: authenticates, if there is a credential and the server is one that has users
    /// (an arbiter has none). [`ConnectionOutput::Ready`] follows.
    pub fn authenticate(&mut self, now: Instant) {
        let state = mem::replace(&mut self.state, State::Failed);
        let State::Greeted {
            server,
            handshake,
            speculative,
        } = state
        else {
            self.state = state;
            return;
        };
        self.begin_authentication(now, server, &handshake, speculative);
    }

    /// What there is of time for [authenticating](Self::authenticate): the server is told. None, as before this is called,
    /// is nothing but `connectTimeoutMS`. Authenticating anew, as a server may ask for later, has no limit from here.
    pub fn limit_authentication(&mut self, limit: Option<AuthenticationLimit>) {
        self.limit = limit;
    }

    /// Answers [`ConnectionOutput::Credentials`]. An error ends the connection, unless the mechanism has another way.
    pub fn answer(&mut self, now: Instant, answer: Result<CredentialAnswer, Error>) {
        let settings = Arc::clone(&self.settings);
        let (Some(credential), Some((server, _, conversation))) =
            (&settings.credential, self.take_conversation(Awaits::Credentials))
        else {
            return;
        };
        let parties = Parties {
            credential,
            server: &self.address,
        };
        // A human may have taken long: what is left to do has its own time.
        let give_up = after(now, connect_timeout(&settings));
        let next = conversation.handle_answer(parties, answer);
        self.advance(now, server, give_up, next);
    }

    fn begin_authentication(
        &mut self,
        now: Instant,
        server: Server,
        handshake: &Bytes,
        speculative: Option<Conversation>,
    ) {
        let settings = Arc::clone(&self.settings);
        let (Some(credential), Some(hello)) = (&settings.credential, readable(handshake)) else {
            return self.become_ready(now, server, None);
        };
        // "If the server is of type RSArbiter, no authentication is possible" (Authentication specification).
        if reply::is_true(hello, "arbiterOnly") {
            return self.become_ready(now, server, None);
        }
        let give_up = after(now, connect_timeout(&settings));
        let mechanism = credential.negotiate(hello);
        let parties = Parties {
            credential,
            server: &self.address,
        };
        let begun = speculative.filter(|conversation| conversation.mechanism() == mechanism);
        let begun = match (begun, hello.get_document("speculativeAuthenticate")) {
            (Some(conversation), Ok(answer)) => conversation.handle_speculation(parties, answer),
            (_, _) => Ok(None),
        };
        let next = match begun {
            Ok(Some(next)) => Ok(next),
            Ok(None) => self
                .random
                .draw(|random| Conversation::begin(parties, mechanism, random)),
            Err(error) => Err(error),
        };
        self.advance(now, server, give_up, next);
    }

    pub(super) fn handle_authentication(&mut self, now: Instant, body: &Bytes) {
        let Some(answer) = readable(body) else {
            return self.fail_protocol("the answer to authentication is not a readable document".to_owned());
        };
        self.step(now, Awaits::Reply, |conversation, parties| {
            conversation.handle_reply(parties, answer)
        });
    }

    /// A limit of the authentication is reached; false if it was none.
    pub(super) fn handle_authentication_timeout(&mut self, now: Instant) -> bool {
        let State::Authenticating { awaits, give_up, .. } = &self.state else {
            return false;
        };
        match *awaits {
            Awaits::Reply => return false,
            Awaits::Time(_) if give_up.is_some_and(|end| end <= now) => return false,
            Awaits::Time(at) => {
                self.step(now, Awaits::Time(at), |conversation, parties| {
                    conversation.handle_pause_over(parties)
                });
            }
            Awaits::Credentials => {
                self.fail(Error::new(ErrorKind::Authentication {
                    message: format!(
                        "whoever hands out the credentials took longer than the connection has for it \
                         (connectTimeoutMS, {:?})",
                        self.settings.connect_timeout
                    ),
                    server_error: None,
                }));
            }
        }
        true
    }

    /// Takes one step of the conversation, if this is what it waits for.
    fn step(
        &mut self,
        now: Instant,
        awaited: Awaits,
        step: impl FnOnce(Conversation, Parties<'_>) -> Result<Next, Error>,
    ) {
        let settings = Arc::clone(&self.settings);
        let (Some(credential), Some((server, give_up, conversation))) =
            (&settings.credential, self.take_conversation(awaited))
        else {
            return;
        };
        let parties = Parties {
            credential,
            server: &self.address,
        };
        let next = step(conversation, parties);
        self.advance(now, server, give_up, next);
    }

    fn take_conversation(&mut self, awaited: Awaits) -> Option<(Server, Option<Instant>, Conversation)> {
        let is_awaited = matches!(&self.state, State::Authenticating { awaits, .. } if *awaits == awaited);
        if !is_awaited {
            return None;
        }
        let State::Authenticating {
            server,
            give_up,
            conversation,
            ..
        } = mem::replace(&mut self.state, State::Failed)
        else {
            return None;
        };
        Some((server, give_up, conversation))
    }

    fn advance(&mut self, now: Instant, server: Server, give_up: Option<Instant>, next: Result<Next, Error>) {
        let (conversation, awaits, give_up) = match next {
            Ok(Next::Send(conversation, command)) => {
                self.transmit_authentication(now, command);
                (conversation, Awaits::Reply, give_up)
            }
            Ok(Next::Ask(conversation, request)) => {
                let give_up = self.ask(now, give_up, request);
                (conversation, Awaits::Credentials, give_up)
            }
            Ok(Next::Pause(conversation, duration)) => (conversation, Awaits::Time(now + duration), give_up),
            Ok(Next::Done(proved)) => return self.become_ready(now, server, Some(proved)),
            Err(error) => return self.fail(error),
        };
        self.state = State::Authenticating {
            server,
            give_up,
            conversation,
            awaits,
        };
    }

    /// Asks outside; gives when the connection gives up.
    fn ask(
        &mut self,
        now: Instant,
        give_up: Option<Instant>,
        mut request: CredentialRequest,
    ) -> Option<Instant> {
        let give_up = match &mut request {
            CredentialRequest::Oidc(request) => match request.timeout {
                Some(timeout) => after(now, Some(timeout)),
                None => {
                    request.timeout = give_up.map(|at| at.saturating_duration_since(now));
                    give_up
                }
            },
            CredentialRequest::Aws { .. } => give_up,
        };
        self.outputs.push_back(ConnectionOutput::Credentials(request));
        give_up
    }

    fn transmit_authentication(&mut self, now: Instant, mut command: RawDocumentBuf) {
        if let Some(api) = &self.settings.server_api {
            api.declare(&mut command);
        }
        if let Some(limit) = &self.limit {
            let left = limit.until.saturating_duration_since(now);
            // Whom it is for does not wait any longer if there is none; the connection may be of use for others.
            if let Some(share) = server_share(left, limit.min_round_trip) {
                append_max_time(&mut command, share);
            }
        }
        let request_id = self.next_request_id();
        self.exchanges
            .open(now, request_id, Purpose::Authentication, None);
        self.transmit(wire::encode_op_msg(request_id, 0, Flags::NONE, &command, &[]));
    }
}

/// Authenticating anew (Authentication specification, "Reauthentication").
impl Connection {
    /// Takes a reply out that says that the connection must authenticate anew; gives back any other.
    pub(super) fn sift_refused(
        &mut self,
        now: Instant,
        mut exchange: Exchange,
        incoming: Incoming,
    ) -> Option<(Exchange, Incoming)> {
        let Purpose::Command { wanted: true, .. } = exchange.purpose else {
            return Some((exchange, incoming));
        };
        let is_ready = matches!(self.state, State::Ready { proved: Some(_), .. });
        if !(is_ready || matches!(self.state, State::Authenticating { .. }))
            || exchange.repeat.is_none()
            || !is_refusal(&incoming.body)
        {
            return Some((exchange, incoming));
        }
        let (bytes, may_be_compressed) = exchange.repeat.take()?;
        self.outputs.push_back(ConnectionOutput::Refused(Reply {
            request_id: exchange.request_id,
            body: incoming.body,
            more_to_come: false,
            round_trip: now.saturating_duration_since(exchange.since),
            received: now,
        }));
        self.held.push(Held {
            request_id: exchange.request_id,
            bytes,
            may_be_compressed,
            purpose: exchange.purpose,
            timeout: exchange.timeout,
            repeatable: false,
        });
        if is_ready {
            self.authenticate_again(now);
        }
        None
    }

    fn authenticate_again(&mut self, now: Instant) {
        let settings = Arc::clone(&self.settings);
        let Some(credential) = &settings.credential else {
            return;
        };
        let state = mem::replace(&mut self.state, State::Failed);
        let State::Ready {
            server,
            proved: Some(proved),
        } = state
        else {
            self.state = state;
            return;
        };
        let parties = Parties {
            credential,
            server: &self.address,
        };
        let give_up = after(now, connect_timeout(&settings));
        let next = self
            .random
            .draw(|random| Conversation::begin_again(parties, &proved, random));
        self.advance(now, server, give_up, next);
    }
}

fn is_refusal(body: &Bytes) -> bool {
    RawDocument::from_bytes(body).is_ok_and(|document| {
        !reply::is_ok(document) && reply::integer(document, "code") == Some(REAUTHENTICATION_REQUIRED)
    })
}

/// `ReauthenticationRequired`.
const REAUTHENTICATION_REQUIRED: i32 = 391;
