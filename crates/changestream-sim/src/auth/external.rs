//! Users that somebody else knows: those of the database `$external`.

use std::fmt;
use std::time::Instant;

use super::oidc::Oidc;
use super::{Login, aws, failed};
use crate::error::CommandError;

/// Who they are, and how each is known.
#[derive(Clone, Default)]
pub(crate) struct External {
    /// Names and passwords, as an LDAP server has them.
    pub(crate) plain: Vec<(String, String)>,
    /// Subjects of certificates.
    pub(crate) x509: Vec<String>,
    pub(crate) aws: Vec<AwsUser>,
    pub(crate) oidc: Oidc,
}

#[derive(Clone)]
pub(crate) struct AwsUser {
    pub(crate) arn: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: Option<String>,
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("External").finish_non_exhaustive()
    }
}

impl External {
    pub(crate) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.x509.is_empty() && self.aws.is_empty() && !self.oidc.in_use
    }

    /// PLAIN (RFC 4616): an identity to act as, which is not offered here, the name and the password.
    pub(crate) fn log_in_plain(&self, payload: &[u8]) -> Result<Login, CommandError> {
        let text = str::from_utf8(payload).map_err(|_| failed())?;
        let mut parts = text.split('\0');
        let parts = (parts.next(), parts.next(), parts.next(), parts.next());
        let (Some(""), Some(name), Some(password), None) = parts else {
            return Err(failed());
        };
        let known = self.plain.iter().any(|(n, p)| n == name && p == password);
        known.then(|| Login::external(name)).ok_or_else(failed)
    }

    /// MONGODB-X509: the certificate of the TLS handshake is the proof; a name that is given must be its subject.
    pub(crate) fn log_in_x509(
        &self,
        subject: Option<&str>,
        name: Option<&str>,
    ) -> Result<Login, CommandError> {
        let subject =
            subject.ok_or_else(|| CommandError::new(18, "No verified subject name available from client"))?;
        let is_meant = name.is_none_or(|name| name == subject);
        if is_meant && self.x509.iter().any(|known| known == subject) {
            return Ok(Login::external(subject));
        }
        Err(failed())
    }

    /// MONGODB-AWS: whose signature it is.
    pub(crate) fn log_in_aws(
        &self,
        conversation: &aws::Conversation,
        payload: &[u8],
        wall_millis: i64,
    ) -> Result<Login, CommandError> {
        let signed = aws::Signed::parse(payload).ok_or_else(failed)?;
        let user = self
            .aws
            .iter()
            .find(|user| user.access_key_id == signed.access_key_id());
        let user = user.ok_or_else(failed)?;
        if signed.is_genuine(conversation, user, wall_millis) {
            return Ok(Login::external(&user.arn));
        }
        Err(failed())
    }

    /// Whether what a connection has proved still holds.
    pub(crate) fn holds(&self, login: &Login, now: Instant) -> bool {
        login
            .token
            .as_deref()
            .is_none_or(|token| self.oidc.user_of(token, now).is_some())
    }
}
