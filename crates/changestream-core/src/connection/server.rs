//! What a server says about itself.

use bson::RawDocument;
use bytes::Bytes;

use super::hello::Dialect;
use super::reply;
use crate::wire::{Compressor, DEFAULT_MAX_MESSAGE_SIZE};

/// What the server has said about itself last.
pub(super) struct Server {
    pub(super) max_wire_version: Option<i32>,
    pub(super) max_message_size: usize,
    /// How to say hello to it from now on.
    pub(super) dialect: Dialect,
    /// What the handshake has agreed upon.
    pub(super) compressor: Option<Compressor>,
}

impl Server {
    pub(super) fn new(dialect: Dialect, compressor: Option<Compressor>, hello: &RawDocument) -> Self {
        let max_wire_version = reply::integer(hello, "maxWireVersion");
        let max_message_size = reply::integer(hello, "maxMessageSizeBytes");
        Self {
            max_wire_version,
            max_message_size: max_message_size
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(DEFAULT_MAX_MESSAGE_SIZE),
            dialect: dialect.of_check(reply::is_true(hello, "helloOk"), max_wire_version),
            compressor,
        }
    }
}

/// The document, if its first level can be read to the end.
pub(super) fn readable(body: &Bytes) -> Option<&RawDocument> {
    let document = RawDocument::from_bytes(body).ok()?;
    document.iter().all(|element| element.is_ok()).then_some(document)
}
