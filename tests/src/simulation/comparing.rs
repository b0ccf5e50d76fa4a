//! Whether an event is the one that was due, field by field.

use std::sync::Arc;

use bson::{Bson, Document, doc};

use super::model::{Before, Filter, Full, Is, Log, View};
use super::place::Due;

/// In what the event differs from what is due; none if it does not.
pub(super) fn differs(due: &Due<'_>, log: &Log, view: &View, event: &Document) -> Option<String> {
    let change = due.change;
    let mut wrong = Vec::new();
    let mut expect = |field: &str, expected: Option<Bson>| {
        if event.get(field) != expected.as_ref() {
            wrong.push(format!("{field} is not {expected:?}"));
        }
    };
    expect("operationType", Some(due.kind.into()));
    expect("clusterTime", Some(change.time.into()));
    if due.kind != "invalidate" {
        let mut ns = doc! { "db": change.database.as_str() };
        if !change.collection.is_empty() {
            ns.insert("coll", change.collection.as_str());
        }
        expect("ns", Some(ns.into()));
        expect("documentKey", change.key.clone().map(Bson::from));
        let to = change.to.as_ref();
        expect("to", to.map(|(db, coll)| doc! { "db": db, "coll": coll }.into()));
    }
    if !change.in_transaction {
        expect("txnNumber", None);
    } else if event.get("txnNumber").is_none() {
        wrong.push("it tells of no transaction".to_owned());
    }
    if let Some(why) = wrong_full_document(due, log, view, event) {
        wrong.push(why);
    }
    let has_before = matches!(due.kind, "update" | "replace" | "delete") && view.before != Before::Off;
    let before = event.get("fullDocumentBeforeChange");
    let right = if has_before {
        is_image(before, change.before.as_ref(), log.images_of(change))
    } else {
        before.is_none()
    };
    if !right {
        wrong.push("fullDocumentBeforeChange is another".to_owned());
    }
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

fn wrong_full_document(due: &Due<'_>, log: &Log, view: &View, event: &Document) -> Option<String> {
    let carried = event.get("fullDocument");
    let after = due.change.after.as_ref();
    let right = match (due.kind, view.full) {
        _ if view.filter == Filter::Slim => carried.is_none(),
        ("insert" | "replace", _) => is(carried, after),
        ("update", Full::Default) => carried.is_none(),
        // As it was when it was read: at the change or later, and perhaps gone.
        ("update", Full::Lookup) => match carried {
            Some(Bson::Document(found)) => found.get("_id") == after.and_then(|after| after.get("_id")),
            other => other == Some(&Bson::Null),
        },
        ("update", Full::WhenAvailable | Full::Required) => {
            is_image(carried, after, log.images_of(due.change))
        }
        _ => carried.is_none(),
    };
    (!right).then(|| "fullDocument is another".to_owned())
}

fn is(carried: Option<&Bson>, document: Option<&Arc<Document>>) -> bool {
    match (carried, document) {
        (Some(Bson::Document(carried)), Some(document)) => carried == document.as_ref(),
        (carried, document) => carried.is_none() && document.is_none(),
    }
}

/// The image, or null where there is none.
fn is_image(carried: Option<&Bson>, document: Option<&Arc<Document>>, image: Is) -> bool {
    let null = carried == Some(&Bson::Null);
    match image {
        Is::There => is(carried, document),
        Is::PerhapsThere => null || is(carried, document),
        Is::Missing => null,
    }
}

pub(super) fn shortened(event: &Document) -> String {
    let mut text = event.to_string();
    if text.len() > 600 {
        text.truncate((0..=600).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
        text.push_str("...");
    }
    text
}
