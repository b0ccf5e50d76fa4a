//! What authentication needs of the world outside: tokens, keys of AWS, and the time of day.

mod builder;
mod call;
mod providers;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

pub use builder::ClientBuilder;
use changestream_core::Error;
use changestream_core::auth::{CredentialAnswer, CredentialRequest};
use changestream_core::client::ConnectionId;

use call::Call;
pub(crate) use providers::{Given, Providers};

/// What the connections of one stream have asked for.
pub(crate) struct Credentials {
    providers: Providers,
    pending: BTreeMap<ConnectionId, Pending>,
}

/// An answer that is not there yet.
pub(crate) enum Pending {
    /// Nobody else waits for this.
    Own(Boxed<CredentialAnswer>),
    /// All streams of the client wait for the same.
    Shared(Arc<Call>),
    Failed(Error),
}

/// What a provider gives: anything that says what is wrong.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;
pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

impl Credentials {
    pub(crate) fn new(providers: Providers) -> Self {
        Self {
            providers,
            pending: BTreeMap::new(),
        }
    }

    pub(crate) fn ask(&mut self, connection: ConnectionId, request: CredentialRequest) {
        let pending = self.providers.ask(request);
        self.pending.insert(connection, pending);
    }

    /// The connection is given up.
    pub(crate) fn forget(&mut self, connection: ConnectionId) {
        self.pending.remove(&connection);
    }

    /// Answers that have come.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Vec<(ConnectionId, Result<CredentialAnswer, Error>)> {
        let mut answers = Vec::new();
        for (connection, pending) in &mut self.pending {
            if let Poll::Ready(answer) = pending.poll(cx) {
                answers.push((*connection, answer));
            }
        }
        for (connection, _) in &answers {
            self.pending.remove(connection);
        }
        answers
    }
}

impl Pending {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<CredentialAnswer, Error>> {
        match self {
            Self::Own(future) => future.as_mut().poll(cx),
            Self::Shared(call) => call
                .poll(cx.waker())
                .map(|token| token.map(CredentialAnswer::Oidc)),
            Self::Failed(error) => Poll::Ready(Err(error.clone())),
        }
    }
}
