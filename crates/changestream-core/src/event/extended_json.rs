//! Events as MongoDB Extended JSON v2.

use bson::{Bson, RawDocument};

use super::{ChangeEvent, FieldError};
use crate::tree;

/// Which of the two forms of Extended JSON v2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExtendedJson {
    /// Readable: plain numbers and ISO dates where nothing is lost but the number's type.
    #[default]
    Relaxed,
    /// Exact: each value names its type.
    Canonical,
}

impl ChangeEvent {
    /// The event as one line of Extended JSON, its fields in the server's order.
    ///
    /// # Errors
    /// If the event is malformed, not UTF-8, or nests deeper than any server allows.
    ///
    /// ```
    /// use changestream_core::event::{ChangeEvent, ExtendedJson};
    ///
    /// let event = ChangeEvent::from_raw(bson::rawdoc! { "_id": { "_data": "82" }, "operationType": "drop" })?;
    /// assert_eq!(
    ///     event.to_extended_json(ExtendedJson::Relaxed)?,
    ///     r#"{"_id":{"_data":"82"},"operationType":"drop"}"#
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_extended_json(&self, form: ExtendedJson) -> Result<String, FieldError> {
        convert(self.as_raw(), form)
    }
}

fn convert(document: &RawDocument, form: ExtendedJson) -> Result<String, FieldError> {
    let document = tree::document(document.as_bytes())
        .map_err(|broken| FieldError::new(broken.path(), format!("it {}", broken.what())))?;
    let value = Bson::Document(document);
    Ok(match form {
        ExtendedJson::Relaxed => value.into_relaxed_extjson(),
        ExtendedJson::Canonical => value.into_canonical_extjson(),
    }
    .to_string())
}
