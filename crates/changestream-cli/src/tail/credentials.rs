//! Where `tail` has its credentials from, beside the connection string.

use std::future::ready;
use std::path::{Path, PathBuf};

use changestream_blocking::{Client, OidcToken};
use changestream_core::auth::OidcFlow;
use changestream_core::uri::ConnectionString;
use changestream_core::{AuthMechanism, Error};

use crate::exit::Failure;

/// The variable that holds a token of MONGODB-OIDC.
pub(super) const TOKEN_VARIABLE: &str = "CHANGESTREAM_OIDC_TOKEN";

/// A client, and what is odd about its connection string.
pub(super) fn client(uri: &str, token_file: Option<&Path>) -> Result<Client, Failure> {
    let wrong =
        |error: changestream_core::uri::UriError| Failure::usage(format!("connection string: {error}"));
    let source = match token_file {
        Some(path) => Some(Source::File(path.to_owned())),
        None => std::env::var(TOKEN_VARIABLE).ok().map(|_| Source::Variable),
    };
    let parsed = match (uri.parse::<ConnectionString>(), &source) {
        (Ok(parsed), None | Some(Source::Variable)) => parsed,
        (_, Some(_)) => ConnectionString::parse_with_oidc_callback(uri, OidcFlow::Machine).map_err(wrong)?,
        (Err(error), None) => return Err(wrong(error)),
    };
    for warning in &parsed.warnings {
        crate::say(&format!("connection string: {warning}"));
    }
    let credential = parsed.options.credential.as_ref();
    let takes_token = credential.is_some_and(|credential| {
        credential.mechanism == Some(AuthMechanism::MongoDbOidc)
            && credential.mechanism_properties.get("ENVIRONMENT").is_none()
    });
    let mut builder = Client::builder();
    match source {
        Some(source) if takes_token => builder = builder.oidc_callback(move |_| ready(source.read())),
        Some(Source::File(_)) => {
            return Err(Failure::usage(
                "--oidc-token-file: use it with authMechanism=MONGODB-OIDC in the connection string",
            ));
        }
        Some(Source::Variable) | None => {}
    }
    Ok(builder.build_with_options(parsed.options)?)
}

/// Where a token is. Looked up anew whenever a server wants one.
enum Source {
    File(PathBuf),
    Variable,
}

impl Source {
    fn read(&self) -> Result<OidcToken, Error> {
        let text = match self {
            Self::File(path) => std::fs::read_to_string(path).map_err(|error| {
                Error::authentication(format!("--oidc-token-file {}: {error}", path.display()))
            })?,
            Self::Variable => std::env::var(TOKEN_VARIABLE).unwrap_or_default(),
        };
        Ok(OidcToken::new(text.trim()))
    }
}
