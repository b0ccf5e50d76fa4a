//! A client whose credentials come from code.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use changestream_core::auth::{AwsCredentials, OidcFlow, OidcRequest, OidcToken};
use changestream_core::uri::{ClientOptions, ConnectionString};
use changestream_core::{AuthMechanism, Error};

use super::providers::failed;
use super::{BoxError, Boxed, Given};
use crate::{Client, Mode};

/// A client to be made, with what a connection string cannot hold: callbacks that hand out credentials.
///
/// Made by [`Client::builder`]. A callback is a function that gives a future, and nothing of it has to wait: one that gets
/// its answer at once, or blocks, gives [`std::future::ready`]. Its future is polled by the stream that needs the answer,
/// on that stream's executor, and dropped when the stream gives up.
#[must_use = "nothing is made before `build`"]
pub struct ClientBuilder<M> {
    mode: M,
    given: Given,
    allowed_hosts: Option<Vec<String>>,
}

impl<M: Mode> ClientBuilder<M> {
    pub(crate) fn new(mode: M) -> Self {
        Self {
            mode,
            given: Given::default(),
            allowed_hosts: None,
        }
    }

    /// Where tokens of MONGODB-OIDC come from, when a program fetches them by itself (the specification's
    /// `OIDC_CALLBACK`).
    ///
    /// A token is kept for all streams of the client until a server does not take it any more; one call is under way at a
    /// time, however many streams wait for it. It has [`OidcRequest::timeout`] to give an answer.
    pub fn oidc_callback<F, Fut, E>(mut self, callback: F) -> Self
    where
        F: Fn(OidcRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<OidcToken, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.given.oidc = Some((OidcFlow::Machine, boxed_callback(callback)));
        self
    }

    /// Where tokens of MONGODB-OIDC come from, when a human has to do something for one (`OIDC_HUMAN_CALLBACK`). It is told
    /// what the server knows of the provider, and has five minutes. Tokens go only to
    /// [allowed hosts](Self::oidc_allowed_hosts).
    pub fn oidc_human_callback<F, Fut, E>(mut self, callback: F) -> Self
    where
        F: Fn(OidcRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<OidcToken, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.given.oidc = Some((OidcFlow::Human, boxed_callback(callback)));
        self
    }

    /// The hosts that a human's token may be shown to (`ALLOWED_HOSTS`): names or IP addresses, without ports; a leading
    /// `*.` stands for any subdomain. Default: those of MongoDB's own service, and this machine.
    pub fn oidc_allowed_hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.allowed_hosts = Some(hosts.into_iter().map(Into::into).collect());
        self
    }

    /// Where keys for MONGODB-AWS come from, if the connection string holds none: an SDK of AWS, say, which knows web
    /// identities, the endpoints of ECS and EC2, and profiles. Asked for each connection, so it should keep keys until
    /// shortly before they end, as the SDKs do. Default: the environment variables `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`.
    pub fn aws_credentials<F, Fut, E>(mut self, provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<AwsCredentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.given.aws = Some(Arc::new(move || {
            let keys = provider();
            Box::pin(async move {
                keys.await
                    .map_err(|error| failed("the provider of AWS keys", error.into()))
            })
        }));
        self
    }

    /// Makes the client for this connection string.
    ///
    /// # Errors
    /// As [`Client::new`]. Or what was handed in here is not for the mechanism that the string names.
    pub fn build(self, connection_string: impl AsRef<str>) -> Result<Client<M>, Error> {
        let text = connection_string.as_ref();
        let parsed = match &self.given.oidc {
            Some((flow, _)) => ConnectionString::parse_with_oidc_callback(text, *flow)?,
            None => text.parse()?,
        };
        for warning in &parsed.warnings {
            tracing::warn!("connection string: {warning}");
        }
        let Self {
            mode,
            given,
            allowed_hosts,
        } = self;
        let options = with_allowed_hosts(parsed.options, allowed_hosts)?;
        Client::with_given(mode, options, given, parsed.warnings)
    }

    /// Makes the client with these options.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_with_options(self, mut options: ClientOptions) -> Result<Client<M>, Error> {
        if let (Some(credential), Some((flow, _))) = (&mut options.credential, &self.given.oidc)
            && credential.mechanism == Some(AuthMechanism::MongoDbOidc)
        {
            credential.oidc_callback = Some(*flow);
        }
        let options = with_allowed_hosts(options, self.allowed_hosts)?;
        Client::with_given(self.mode, options, self.given, Vec::new())
    }
}

impl<M> fmt::Debug for ClientBuilder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("has_oidc_callback", &self.given.oidc.is_some())
            .field("has_aws_credentials", &self.given.aws.is_some())
            .field("allowed_hosts", &self.allowed_hosts)
            .finish_non_exhaustive()
    }
}

fn with_allowed_hosts(
    mut options: ClientOptions,
    allowed_hosts: Option<Vec<String>>,
) -> Result<ClientOptions, Error> {
    if allowed_hosts.is_some() {
        let human = options
            .credential
            .as_mut()
            .filter(|credential| credential.oidc_callback == Some(OidcFlow::Human));
        let Some(credential) = human else {
            return Err(Error::invalid_argument(
                "allowed hosts are for MONGODB-OIDC with oidc_human_callback",
            ));
        };
        credential.allowed_hosts = allowed_hosts;
    }
    Ok(options)
}

fn boxed_callback<F, Fut, E>(callback: F) -> super::providers::OidcCallback
where
    F: Fn(OidcRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<OidcToken, E>> + Send + 'static,
    E: Into<BoxError>,
{
    Arc::new(move |request| {
        let token = callback(request);
        Box::pin(async move {
            token
                .await
                .map_err(|error| failed("the callback for tokens of MONGODB-OIDC", error.into()))
        }) as Boxed<OidcToken>
    })
}
