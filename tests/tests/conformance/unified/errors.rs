//! Whether an error is the expected one.

use bson::Document;
use changestream_core::Error;

use super::fault::{Fault, failed, unsupported};
use super::schema::ExpectedError;

/// Holds an error to what a test expects of it.
pub(super) fn check(expected: &ExpectedError, error: &Error) -> Result<(), Fault> {
    if expected.error_response.is_some()
        || expected.write_errors.is_some()
        || expected.write_concern_errors.is_some()
        || expected.expect_result.is_some()
    {
        return Err(unsupported("errors do not carry the server's whole reply"));
    }
    let fault = |what: String| Err(failed(format!("{what}: {error:?}")));
    let said = error.server_error();
    if let Some(is_client_error) = expected.is_client_error
        && is_client_error == said.is_some()
    {
        return fault(format!("expected isClientError {is_client_error}"));
    }
    if let Some(is_timeout) = expected.is_timeout_error
        && is_timeout != error.is_timeout()
    {
        return fault(format!("expected isTimeoutError {is_timeout}"));
    }
    if let Some(text) = &expected.error_contains
        && !error.to_string().to_lowercase().contains(&text.to_lowercase())
    {
        return fault(format!("expected the text {text:?}"));
    }
    if let Some(code) = expected.error_code
        && error.code().map(i64::from) != Some(code)
    {
        return fault(format!("expected the code {code}"));
    }
    if let Some(name) = &expected.error_code_name
        && said.map(|said| said.code_name.as_str()) != Some(name)
    {
        return fault(format!("expected the code name {name}"));
    }
    let has_label = |label: &String| error.has_label(label);
    if let Some(label) = expected
        .error_labels_contain
        .iter()
        .find(|label| !has_label(label))
    {
        return fault(format!("expected the label {label}"));
    }
    if let Some(label) = expected.error_labels_omit.iter().find(|label| has_label(label)) {
        return fault(format!("expected no label {label}"));
    }
    Ok(())
}

/// What a reply says went wrong, of a reply that was not read by the client.
pub(super) fn refusal(reply: &Document) -> Option<String> {
    let is_ok = reply.get("ok").and_then(|ok| {
        ok.as_f64()
            .or_else(|| ok.as_i32().map(f64::from))
            .or_else(|| ok.as_i64().map(|ok| ok as f64))
    });
    (is_ok != Some(1.0)).then(|| reply.to_string())
}
