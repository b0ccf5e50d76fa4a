//! Where tokens and keys come from: what the user hands in, files, and environment variables.

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::SystemTime;

use changestream_core::auth::{
    AwsCredentials, CredentialAnswer, CredentialRequest, OidcFlow, OidcRequest, OidcToken,
};
use changestream_core::{AuthMechanism, ClientOptions, Error};

use super::call::Gate;
use super::{BoxError, Boxed, Pending};

/// What the user has handed in.
#[derive(Clone, Default)]
pub(crate) struct Given {
    pub(crate) aws: Option<AwsProvider>,
    pub(crate) oidc: Option<(OidcFlow, OidcCallback)>,
}

pub(crate) type AwsProvider = Arc<dyn Fn() -> Boxed<AwsCredentials> + Send + Sync>;
pub(crate) type OidcCallback = Arc<dyn Fn(OidcRequest) -> Boxed<OidcToken> + Send + Sync>;

/// Where a client's credentials come from, as far as its options do not hold them.
#[derive(Clone)]
pub(crate) struct Providers {
    aws: Option<AwsProvider>,
    oidc: Option<OidcCallback>,
    gate: Gate,
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Providers").finish_non_exhaustive()
    }
}

impl Providers {
    /// Checks that what is handed in is what the mechanism needs.
    pub(crate) fn new(options: &ClientOptions, given: Given) -> Result<Self, Error> {
        let credential = options.credential.as_ref();
        let mechanism = credential.and_then(|credential| credential.mechanism);
        let wrong = |message: &str| Err(Error::invalid_argument(message));
        if given.oidc.is_some() && mechanism != Some(AuthMechanism::MongoDbOidc) {
            return wrong("a callback for tokens is given: use it with authMechanism=MONGODB-OIDC");
        }
        if given.aws.is_some() && mechanism != Some(AuthMechanism::MongoDbAws) {
            return wrong("a provider of AWS keys is given: use it with authMechanism=MONGODB-AWS");
        }
        let oidc = match (credential, given.oidc) {
            (Some(credential), Some((flow, callback))) => {
                if credential.oidc_callback != Some(flow) {
                    return wrong("the options of MONGODB-OIDC are not made for the callback that is given");
                }
                Some(callback)
            }
            (Some(credential), None) if mechanism == Some(AuthMechanism::MongoDbOidc) => {
                Some(environment(credential.mechanism_properties.get("ENVIRONMENT"))?)
            }
            (_, _) => None,
        };
        Ok(Self {
            aws: given.aws,
            oidc,
            gate: Gate::default(),
        })
    }

    pub(super) fn ask(&self, request: CredentialRequest) -> Pending {
        match request {
            CredentialRequest::Aws {
                given: Some(keys), ..
            } => Pending::Own(Box::pin(ready(Ok(signed_now(keys))))),
            CredentialRequest::Aws { given: None, .. } => match &self.aws {
                Some(provider) => {
                    let keys = provider();
                    Pending::Own(Box::pin(async move { Ok(signed_now(keys.await?)) }))
                }
                None => Pending::Own(Box::pin(ready(aws_environment().map(signed_now)))),
            },
            CredentialRequest::Oidc(request) => match &self.oidc {
                Some(callback) => Pending::Shared(self.gate.join(request, |request| callback(request))),
                None => Pending::Failed(no_callback()),
            },
        }
    }
}

/// An error of whoever hands out credentials.
pub(super) fn failed(what: &str, error: BoxError) -> Error {
    Error::authentication(format!("{what} failed: {error}"))
}

/// The environments of MONGODB-OIDC that keep the token in a file.
fn environment(name: Option<&str>) -> Result<OidcCallback, Error> {
    let files: &'static [&'static str] = match name {
        Some("test") => &["OIDC_TOKEN_FILE"],
        Some("k8s") => &["AZURE_FEDERATED_TOKEN_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"],
        Some(name @ ("azure" | "gcp")) => {
            return Err(Error::invalid_argument(format!(
                "ENVIRONMENT:{name} of MONGODB-OIDC takes an HTTP client, which is not built in: leave it out, and hand \
                 in a callback that asks for the token (Client::builder, oidc_callback)"
            )));
        }
        Some(_) | None => return Err(no_callback()),
    };
    let fallback = (name == Some("k8s")).then_some(KUBERNETES_TOKEN_FILE);
    Ok(Arc::new(move |_| {
        Box::pin(ready(read_token(files, fallback))) as Boxed<OidcToken>
    }))
}

/// Reads the token anew each time: the file is replaced before it ends.
fn read_token(variables: &[&str], fallback: Option<&str>) -> Result<OidcToken, Error> {
    let path = variables
        .iter()
        .find_map(|name| variable(name))
        .or_else(|| fallback.map(str::to_owned))
        .ok_or_else(|| {
            let names = variables.join(" or ");
            Error::authentication(format!(
                "MONGODB-OIDC: the environment variable {names} names no file"
            ))
        })?;
    match std::fs::read_to_string(&path) {
        Ok(token) => Ok(OidcToken::new(token.trim())),
        Err(error) => Err(Error::authentication(format!(
            "MONGODB-OIDC: the file of the token, {path:?}, cannot be read: {error}"
        ))),
    }
}

/// The variables are read anew each time, as the specification asks.
fn aws_environment() -> Result<AwsCredentials, Error> {
    match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => {
            let keys = AwsCredentials::new(id, secret);
            Ok(match variable("AWS_SESSION_TOKEN") {
                Some(token) => keys.with_session_token(token),
                None => keys,
            })
        }
        (Some(_), None) | (None, Some(_)) => Err(Error::authentication(
            "MONGODB-AWS needs both environment variables, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )),
        (None, None) => Err(Error::authentication(
            "MONGODB-AWS has no keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or hand in a provider \
             (Client::builder, aws_credentials), which web identities and the endpoints of ECS and EC2 take",
        )),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn signed_now(credentials: AwsCredentials) -> CredentialAnswer {
    CredentialAnswer::aws(credentials, bson::DateTime::from_system_time(SystemTime::now()))
}

fn no_callback() -> Error {
    Error::invalid_argument(
        "MONGODB-OIDC needs a callback for tokens (Client::builder, oidc_callback), or ENVIRONMENT:k8s",
    )
}

/// Where Kubernetes puts it by default (Authentication specification, "Kubernetes").
const KUBERNETES_TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
