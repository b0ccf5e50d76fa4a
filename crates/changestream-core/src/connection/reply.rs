//! Reading what all command replies have in common.

use bson::{RawBsonRef, RawDocument};

use crate::ServerError;

/// Whether a reply says that its command succeeded: `ok` is 1, in whichever numeric type, or true.
pub fn is_ok(reply: &RawDocument) -> bool {
    match reply.get("ok") {
        Ok(Some(RawBsonRef::Boolean(ok))) => ok,
        Ok(Some(ok)) => number(ok) == Some(1),
        Ok(None) | Err(_) => false,
    }
}

/// What a reply with `ok: 0` says. Fields that it lacks, or that are of a wrong type, are empty.
pub fn server_error(reply: &RawDocument) -> ServerError {
    let text = |name| reply.get_str(name).unwrap_or_default().to_owned();
    let mut message = text("errmsg");
    if message.is_empty() {
        // OP_REPLY's own way to say it.
        message = text("$err");
    }
    let mut error = ServerError::new(
        integer(reply, "code").unwrap_or_default(),
        text("codeName"),
        message,
    );
    if let Ok(labels) = reply.get_array("errorLabels") {
        error.labels = labels
            .into_iter()
            .filter_map(|label| label.ok()?.as_str().map(str::to_owned))
            .collect();
    }
    error
}

/// A field that is a number with an integral value, whichever its type.
pub fn integer(reply: &RawDocument, name: &str) -> Option<i32> {
    number(reply.get(name).ok()??)
}

/// A field that is true.
pub fn is_true(reply: &RawDocument, name: &str) -> bool {
    reply.get_bool(name).unwrap_or(false)
}

fn number(value: RawBsonRef<'_>) -> Option<i32> {
    if let Some(n) = value.as_i64() {
        return i32::try_from(n).ok();
    }
    let double = value.as_f64().map(|n| (n, n as i32));
    value
        .as_i32()
        .or_else(|| double.filter(|(n, i)| f64::from(*i) == *n).map(|(_, i)| i))
}
