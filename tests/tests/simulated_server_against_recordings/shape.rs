//! What of a reply has to be as recorded.

use bson::{Bson, Document};

/// The differences in form, each with its path and what it is: fields, their order and types, and the values that do
/// not differ from run to run.
pub(crate) fn differences(recorded: &Document, ours: &Document) -> Vec<(String, String)> {
    let mut found = Vec::new();
    documents("", recorded, ours, &mut found);
    found
}

fn documents(path: &str, recorded: &Document, ours: &Document, found: &mut Vec<(String, String)>) {
    let keys = |document: &Document| document.keys().cloned().collect::<Vec<_>>().join(" ");
    if keys(recorded) != keys(ours) {
        let what = format!("fields: recorded [{}], ours [{}]", keys(recorded), keys(ours));
        found.push((path.to_owned(), what));
    }
    for (key, value) in recorded {
        if let Some(other) = ours.get(key) {
            let inner = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            values(&inner, value, other, found);
        }
    }
}

fn values(path: &str, recorded: &Bson, ours: &Bson, found: &mut Vec<(String, String)>) {
    let mut differ = |what: String| found.push((path.to_owned(), what));
    if recorded.element_type() != ours.element_type() {
        let (a, b) = (recorded.element_type(), ours.element_type());
        return differ(format!("type: recorded {a:?}, ours {b:?}"));
    }
    match (recorded, ours) {
        (Bson::Document(a), Bson::Document(b)) => documents(path, a, b, found),
        (Bson::Array(a), Bson::Array(b)) => {
            if a.len() != b.len() {
                differ(format!("length: recorded {}, ours {}", a.len(), b.len()));
            }
            for (a, b) in a.iter().zip(b) {
                values(&format!("{path}[]"), a, b, found);
            }
        }
        _ => {
            let (a, b) = (stable(path, recorded), stable(path, ours));
            if a != b {
                differ(format!("value: recorded {}, ours {}", short(&a), short(&b)));
            }
        }
    }
}

/// The value without what differs from run to run.
fn stable(path: &str, value: &Bson) -> Bson {
    let last = path.rsplit('.').next().unwrap_or(path);
    let in_data = ["fullDocument", "documentKey", "updateDescription"]
        .iter()
        .any(|part| path.contains(part));
    match value {
        _ if in_data => value.clone(),
        Bson::String(text) if last == "_data" => Bson::from(token_form(text)),
        Bson::String(text) if last == "errmsg" => Bson::from(message_form(text)),
        Bson::String(_) if matches!(last, "hosts[]" | "me" | "primary") => Bson::Null,
        Bson::Int32(_) if matches!(last, "connectionId" | "counter") => Bson::Null,
        Bson::Int64(id) if path == "cursor.id" => Bson::Boolean(*id == 0),
        Bson::Int64(_) if last.starts_with("cursors") || matches!(last, "counter" | "keyId" | "t") => {
            Bson::Null
        }
        Bson::Timestamp(_) | Bson::DateTime(_) | Bson::ObjectId(_) => Bson::Null,
        Bson::Binary(binary) if last == "payload" => {
            Bson::from(payload_form(&String::from_utf8_lossy(&binary.bytes)))
        }
        Bson::Binary(binary) => Bson::from(binary.bytes.len() as i64),
        _ => value.clone(),
    }
}

/// A token's bytes but for its time and its collection.
fn token_form(token: &str) -> String {
    let token = token.to_owned();
    let start: String = token.chars().take(2).collect();
    let rest: String = token.chars().skip(18).collect();
    match rest.split_once("5A1004") {
        Some((before, after)) => {
            let after: String = after.chars().skip(32).collect();
            format!("{start}<time>{before}5A1004<uuid>{after}")
        }
        None => format!("{start}<time>{rest}"),
    }
}

/// A message, its tokens and cursor ids blanked.
fn message_form(message: &str) -> String {
    let words = message.split(' ').map(|word| {
        let inner = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        if inner.len() > 40 && inner.starts_with("82") && inner.chars().all(|c| c.is_ascii_hexdigit()) {
            word.replace(inner, &token_form(inner))
        } else if inner.len() > 12 && inner.chars().all(|c| c.is_ascii_digit()) {
            word.replace(inner, "<id>")
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The attributes of a SCRAM message, and the iteration count.
fn payload_form(payload: &str) -> String {
    let attributes = payload
        .split(',')
        .map(|attribute| match attribute.split_once('=') {
            Some(("i", _)) => attribute.to_owned(),
            Some((name, value)) => format!("{name}={}", value.len()),
            None => attribute.to_owned(),
        });
    attributes.collect::<Vec<_>>().join(",")
}

fn short(value: &Bson) -> String {
    value.to_string().chars().take(300).collect()
}
