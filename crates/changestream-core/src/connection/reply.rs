//! Reading what all command replies have in common.

use bson::{RawBsonRef, RawDocument};

use crate::ServerError;

/// Whether a reply says that its command succeeded: `ok` is 1, in whichever numeric type, or true.
pub fn is_ok(reply: &RawDocument) -> bool {
    reply.get("ok").is_ok_and(|ok| ok.is_some_and(says_ok))
}

/// Whether that is the value of an `ok` that says so.
pub(crate) fn says_ok(ok: RawBsonRef<'_>) -> bool {
    ok.as_bool().unwrap_or_else(|| number(ok) == Some(1))
}

/// What a reply with `ok: 0` says. Fields that it lacks, or that are of a wrong type, are empty. Texts are cut at 8 KiB
/// and labels at 32, since errors are kept and printed.
pub fn server_error(reply: &RawDocument) -> ServerError {
    let text = |name| cut(reply.get_str(name).unwrap_or_default());
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
            .map_while(Result::ok)
            .take(MOST_LABELS)
            .filter_map(|label| label.as_str().map(cut))
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

fn cut(text: &str) -> String {
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
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

const LONGEST_TEXT: usize = 8 << 10;
const MOST_LABELS: usize = 32;
