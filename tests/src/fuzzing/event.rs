//! Change events of any bytes.

use std::collections::BTreeMap;

use bson::raw::RawBson;
use bson::serde_helpers::HumanReadable;
use bson::{Document, RawDocumentBuf, Utf8Lossy};
use changestream_core::ChangeEvent;
use changestream_core::event::{ChangeStreamDocument, ExtendedJson, UpdateDescription};

use super::{Choices, words};

/// No accessor, conversion or decoding of an event ever panics; a decoding that fails hands the event back.
///
/// # Panics
/// It does not hold.
pub fn event(data: &[u8]) {
    if let Ok(document) = RawDocumentBuf::from_bytes(data.to_vec()) {
        look_at(document);
    }
    let bytes = Choices::new(data).encoded_document(words::EVENT);
    if let Ok(document) = RawDocumentBuf::from_bytes(bytes.to_vec()) {
        look_at(document);
    }
}

fn look_at(document: RawDocumentBuf) {
    let Ok(event) = ChangeEvent::from_raw(document.clone()) else {
        return;
    };
    assert_eq!(event.as_raw(), &*document);
    let _ = (
        event.operation_type(),
        event.namespace().map(|ns| ns.to_string()),
        event.ns_type(),
        event.to(),
    );
    let _ = (
        event.document_key(),
        event.full_document(),
        event.full_document_before_change(),
    );
    let _ = (
        event.cluster_time(),
        event.wall_time(),
        event.lsid(),
        event.txn_number(),
        event.split_event(),
    );
    let _ = (
        event.operation_description(),
        event.collection_uuid(),
        event.resume_token().explain(),
    );
    if let Some(description) = event.update_description() {
        look_into(&description);
    }
    for name in words::EVENT {
        let _ = event.get(name);
    }
    for form in [ExtendedJson::Relaxed, ExtendedJson::Canonical] {
        let _ = event.to_extended_json(form);
    }
    let _ = format!("{event:?}");
    decode(&event);
    assert_eq!(event.clone().into_owned().as_raw(), event.as_raw());
}

fn look_into(description: &UpdateDescription<'_>) {
    let _ = (description.updated_fields(), description.disambiguated_paths());
    let _ = description.removed_fields().count();
    let _ = description.truncated_arrays().count();
}

fn decode(event: &ChangeEvent) {
    if let Err(error) = event.decode::<ChangeStreamDocument>() {
        let _ = (error.to_string(), error.path(), error.message());
        // By its bytes: an event whose token is NaN is not equal to itself.
        assert_eq!(error.into_event().as_raw(), event.as_raw());
    }
    // The same as the library makes of it, if it makes anything.
    let ours = event.decode::<Document>();
    if let Ok(library) = bson::deserialize_from_slice::<Document>(event.as_raw().as_bytes()) {
        let ours = ours.unwrap_or_else(|error| panic!("{error}, and the library has {library:?}"));
        assert_eq!(ours.to_vec().ok(), library.to_vec().ok());
        // Nothing is lost in this text, and there is nothing to replace.
        match event.decode::<Utf8Lossy<HumanReadable<Document>>>() {
            Ok(wrapped) => assert_eq!(wrapped.0.0.to_vec().ok(), library.to_vec().ok()),
            Err(error) => panic!("{error}, and without the wrappers it is {library:?}"),
        }
    }
    let _ = event.decode::<Utf8Lossy<Document>>();
    let _ = event.full_document_as::<Document>();
    let _ = event.full_document_before_change_as::<Document>();
    decode_raw(event);
}

/// Raw values are what the library makes of them.
fn decode_raw(event: &ChangeEvent) {
    type Fields = BTreeMap<String, RawBson>;
    let ours = event.decode::<Fields>();
    let Ok(library) = bson::deserialize_from_slice::<Fields>(event.as_raw().as_bytes()) else {
        return;
    };
    match ours {
        // By what is shown: a value that is NaN is not equal to itself.
        Ok(ours) => assert_eq!(format!("{ours:?}"), format!("{library:?}")),
        Err(error) => assert!(
            error.message().contains("deeper"),
            "{error}, and the library has {library:?}"
        ),
    }
}
