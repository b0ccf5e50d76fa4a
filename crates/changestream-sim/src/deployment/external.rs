//! Users of `$external`: those who authenticate by something else than SCRAM.

use std::time::{Duration, Instant};

use super::{Config, ConnectionId, Deployment};
use crate::auth::{AwsUser, Login, Provider, Token};

impl Config {
    /// Adds a user who authenticates by PLAIN, as those of an LDAP server do. With any user, authentication is required.
    pub fn plain_user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.external.plain.push((name.into(), password.into()));
        self
    }

    /// Adds a user who authenticates by MONGODB-X509: by a certificate with this subject, as RFC 2253 writes it. See
    /// [`Deployment::show_certificate`].
    pub fn x509_user(mut self, subject: impl Into<String>) -> Self {
        self.external.x509.push(subject.into());
        self
    }

    /// Adds a user who authenticates by MONGODB-AWS: the identity of this name (its ARN), which signs with these keys;
    /// with a session token, if they are temporary ones.
    pub fn aws_user(
        mut self,
        arn: impl Into<String>,
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<String>,
        session_token: Option<&str>,
    ) -> Self {
        self.external.aws.push(AwsUser {
            arn: arn.into(),
            access_key_id: access_key_id.into(),
            secret_access_key: secret_access_key.into(),
            session_token: session_token.map(str::to_owned),
        });
        self
    }

    /// Adds an identity provider for MONGODB-OIDC, which knows the users whose names begin like this: all, if it is
    /// empty. A client without a token is told of it.
    pub fn oidc_provider(
        mut self,
        issuer: impl Into<String>,
        client_id: impl Into<String>,
        prefix: impl Into<String>,
    ) -> Self {
        self.external.oidc.in_use = true;
        self.external.oidc.providers.push(Provider {
            issuer: issuer.into(),
            client_id: client_id.into(),
            prefix: prefix.into(),
        });
        self
    }

    /// Adds a user who authenticates by MONGODB-OIDC, with this token. See [`Deployment::accept_oidc_token`].
    pub fn oidc_token(mut self, token: impl Into<String>, user: impl Into<String>) -> Self {
        let token_of = Token {
            user: user.into(),
            until: None,
        };
        self.external.oidc.in_use = true;
        self.external.oidc.tokens.insert(token.into(), token_of);
        self
    }
}

impl Deployment {
    /// From now on this token of MONGODB-OIDC is good, for this user; for that time, if one is given. A real server
    /// reads both from the token and verifies its signature.
    pub fn accept_oidc_token(
        &mut self,
        now: Instant,
        token: impl Into<String>,
        user: impl Into<String>,
        lifetime: Option<Duration>,
    ) {
        let token_of = Token {
            user: user.into(),
            until: lifetime.and_then(|lifetime| now.checked_add(lifetime)),
        };
        self.config.external.oidc.in_use = true;
        self.config.external.oidc.tokens.insert(token.into(), token_of);
    }

    /// From now on this token is not good. Connections that have authenticated by it must do so anew: commands are
    /// answered with `ReauthenticationRequired`.
    pub fn revoke_oidc_token(&mut self, token: &str) {
        self.config.external.oidc.tokens.remove(token);
    }

    /// The client of this connection has shown a certificate with this subject in its TLS handshake, which is the
    /// business of whoever carries the bytes.
    pub fn show_certificate(&mut self, connection: ConnectionId, subject: impl Into<String>) {
        if let Some(connection) = self.connection_mut(connection) {
            connection.subject = Some(subject.into());
        }
    }

    /// The connection is this user's from now on, without a proof: for who prepares data behind its clients' back. None
    /// of the user's own rights matter, since every user may do everything.
    pub fn log_in(&mut self, connection: ConnectionId, user: impl Into<String>) {
        if let Some(connection) = self.connection_mut(connection) {
            connection.log_in(Login::internal(user));
        }
    }

    /// Whether clients have to authenticate: whether there are users.
    pub fn is_guarded(&self) -> bool {
        !self.config.users.is_empty() || !self.config.external.is_empty()
    }
}
