//! The short way between the deserializer of events and types of this crate that want a document's bytes.

/// A newtype of this name is given its bytes (`visit_borrowed_bytes`) where it stands for a document and the events' own
/// deserializer reads it. Others do not know the name, and take the newtype for what is in it (`visit_newtype_struct`).
pub(crate) const BY_BYTES: &str = "$changestream_document";
