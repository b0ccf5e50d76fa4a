//! The tokens of a client (the Authentication specification's *Client Cache*).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{IdpInfo, OidcToken};
use crate::uri::Secret;

/// Shared by all connections of a client.
#[derive(Clone, Default)]
pub(in crate::auth) struct Cache(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    token: Option<Secret>,
    refresh_token: Option<Secret>,
    idp_info: Option<IdpInfo>,
}

impl Cache {
    pub(in crate::auth) fn token(&self) -> Option<Secret> {
        self.lock().token.clone()
    }

    /// What a token can be refreshed by, if the provider is known as well.
    pub(super) fn refresh(&self) -> Option<(IdpInfo, Secret)> {
        let kept = self.lock();
        Some((kept.idp_info.clone()?, kept.refresh_token.clone()?))
    }

    pub(in crate::auth) fn keep(&self, token: &OidcToken) {
        let mut kept = self.lock();
        kept.token = Some(token.access_token.clone());
        kept.refresh_token.clone_from(&token.refresh_token);
    }

    pub(super) fn keep_idp(&self, idp_info: IdpInfo) {
        self.lock().idp_info = Some(idp_info);
    }

    pub(super) fn forget_refresh(&self) {
        self.lock().refresh_token = None;
    }

    /// Forgets this token, and no other that has come since.
    pub(in crate::auth) fn invalidate(&self, token: &Secret) {
        let mut kept = self.lock();
        if kept.token.as_ref() == Some(token) {
            kept.token = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}
