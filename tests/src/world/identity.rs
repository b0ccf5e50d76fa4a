//! What streams of a world authenticate with: credentials that somebody hands out, and certificates.

use std::fmt;
use std::time::Instant;

use bson::DateTime;
use changestream_core::Error;
use changestream_core::auth::{CredentialAnswer, CredentialRequest};

/// Who hands them out.
pub struct Identity {
    provider: Box<Provider>,
    /// The subject of the certificate that streams show, if they show one.
    pub certificate: Option<String>,
    start: Instant,
}

type Provider = dyn FnMut(&CredentialRequest) -> Option<Result<CredentialAnswer, Error>>;

impl Identity {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            provider: Box::new(|_| Some(Err(Error::authentication("nobody has credentials here")))),
            certificate: None,
            start,
        }
    }

    /// Has this hand out credentials; none is an answer that never comes. Keys of AWS that the options give are answered
    /// with without it.
    pub fn provide(
        &mut self,
        provider: impl FnMut(&CredentialRequest) -> Option<Result<CredentialAnswer, Error>> + 'static,
    ) {
        self.provider = Box::new(provider);
    }

    /// The time of day: that of the simulated deployment, whose default epoch this is.
    pub fn wall(&self, now: Instant) -> DateTime {
        let passed = (now - self.start).as_millis() as i64;
        DateTime::from_millis(1_704_067_200_000 + passed)
    }

    pub(super) fn answer(
        &mut self,
        now: Instant,
        request: &CredentialRequest,
    ) -> Option<Result<CredentialAnswer, Error>> {
        if let CredentialRequest::Aws {
            given: Some(keys), ..
        } = request
        {
            return Some(Ok(CredentialAnswer::aws(keys.clone(), self.wall(now))));
        }
        (self.provider)(request)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}
