//! One message.

use bson::RawDocument;
use bytes::Bytes;
use changestream_core::wire::{DocumentSequence, Message, encode_op_msg, encode_op_query, encode_op_reply};

/// What is decoded is a part of the frame, and encodes to bytes that decode to the same.
///
/// # Panics
/// It does not.
pub fn wire(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    let Ok(message) = Message::decode(&frame) else {
        return;
    };
    let Some(again) = encoded(&message) else { return };
    let decoded = Message::decode(&again).expect("what was encoded decodes");
    assert_eq!(decoded, message);
}

/// None where a document is none within, which no encoder is ever given.
fn encoded(message: &Message) -> Option<Bytes> {
    Some(match message {
        Message::Msg(m) => {
            let parts = m.sequences.iter().map(documents).collect::<Option<Vec<_>>>()?;
            let names = m.sequences.iter().map(|sequence| sequence.identifier.as_str());
            let sequences: Vec<_> = names.zip(parts.iter().map(Vec::as_slice)).collect();
            encode_op_msg(
                m.request_id,
                m.response_to,
                m.flags,
                document(&m.body)?,
                &sequences,
            )
        }
        Message::Query(m) => encode_op_query(m.request_id, &m.namespace, document(&m.query)?),
        Message::Reply(m) => encode_op_reply(m.request_id, m.response_to, document(&m.document)?),
        _ => return None,
    })
}

fn documents(sequence: &DocumentSequence) -> Option<Vec<&RawDocument>> {
    sequence.documents.iter().map(document).collect()
}

fn document(bytes: &Bytes) -> Option<&RawDocument> {
    RawDocument::from_bytes(bytes).ok()
}
