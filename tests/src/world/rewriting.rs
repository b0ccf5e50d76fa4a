//! A peer that is not quite the simulated one: replies are changed on their way to a stream.
//!
//! For servers that no profile models, such as those without a postBatchResumeToken, and for events that no pipeline
//! of the simulated server makes.

use std::fmt;

use bson::{Bson, Document, RawDocumentBuf};
use bytes::Bytes;
use changestream_core::wire::{self, Compressor, Message};

/// What is done to replies.
#[derive(Default)]
pub(super) struct Rewriting(Option<Change>);

type Change = Box<dyn FnMut(&mut Document)>;

impl fmt::Debug for Rewriting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Rewriting" } else { "nothing" })
    }
}

impl Rewriting {
    pub(super) fn by(change: impl FnMut(&mut Document) + 'static) -> Self {
        Self(Some(Box::new(change)))
    }

    /// The message as it goes on.
    pub(super) fn apply(&mut self, message: Bytes) -> Bytes {
        let Some(change) = &mut self.0 else { return message };
        let compressor = wire::compressor_of(&message).and_then(Compressor::from_id);
        let message = match compressor {
            Some(_) => wire::decompress(&message, wire::DEFAULT_MAX_MESSAGE_SIZE)
                .expect("the deployment compresses well"),
            None => message,
        };
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "whatever else it is, it is no reply"
        )]
        let rewritten = match Message::decode(&message).expect("the deployment speaks the protocol") {
            Message::Msg(reply) => {
                let body = changed(change, &reply.body);
                wire::encode_op_msg(reply.request_id, reply.response_to, reply.flags, &body, &[])
            }
            Message::Reply(reply) => {
                let body = changed(change, &reply.document);
                wire::encode_op_reply(reply.request_id, reply.response_to, &body)
            }
            other => panic!("the deployment answered with {other:?}"),
        };
        compressor
            .and_then(|compressor| wire::compress(&rewritten, compressor, None))
            .unwrap_or(rewritten)
    }
}

fn changed(change: &mut dyn FnMut(&mut Document), body: &Bytes) -> RawDocumentBuf {
    let raw = RawDocumentBuf::from_bytes(body.to_vec()).expect("a document");
    let mut document = Document::try_from(raw).expect("a document");
    change(&mut document);
    RawDocumentBuf::try_from(&document).expect("BSON")
}

/// A server whose replies carry no postBatchResumeToken, as before 4.0.7. (Nothing else of it: the client refuses
/// servers before 4.2.)
pub fn without_batch_tokens(reply: &mut Document) {
    if let Ok(cursor) = reply.get_document_mut("cursor") {
        cursor.remove("postBatchResumeToken");
    }
}

/// The batch in a reply of aggregate or getMore.
pub fn batch_of(reply: &mut Document) -> Option<&mut Vec<Bson>> {
    let cursor = reply.get_document_mut("cursor").ok()?;
    let name = ["firstBatch", "nextBatch"]
        .into_iter()
        .find(|name| cursor.contains_key(name))?;
    cursor.get_array_mut(name).ok()
}
