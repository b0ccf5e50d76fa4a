//! Events too large for one document, in fragments (`$changeStreamSplitLargeEvent`).

use std::sync::Arc;

use bson::{Bson, Document, doc};
use bytes::Bytes;

use crate::error::CommandError;
use crate::reply::raw;
use crate::token::{EncodedToken, ResumeTokenData};

/// The fragments of an event, each with its token. Whole top-level fields go, the smallest first, into as few
/// fragments as hold them.
pub(crate) fn split(
    mut event: Document,
    token: &ResumeTokenData,
    largest: usize,
) -> Result<Vec<(Arc<EncodedToken>, Bytes)>, CommandError> {
    event.remove("_id");
    let mut fields: Vec<(usize, String, Bson)> = event
        .into_iter()
        .map(|(name, value)| (size_of(&name, &value), name, value))
        .collect();
    fields.sort_by_key(|(size, ..)| *size);
    let mut fragments: Vec<Document> = Vec::new();
    let overhead = overhead(largest);
    let mut used = largest;
    for (size, name, value) in fields {
        if size > largest - overhead {
            return Err(CommandError::new(
                7_182_500,
                format!("Splitting change event failed: the field '{name}' alone has {size} bytes"),
            ));
        }
        if used + size > largest {
            fragments.push(Document::new());
            used = overhead;
        }
        used += size;
        if let Some(fragment) = fragments.last_mut() {
            fragment.insert(name, value);
        }
    }
    let of = i32::try_from(fragments.len()).unwrap_or(i32::MAX);
    let numbered = (0_u32..).zip(1_i32..).zip(fragments);
    Ok(numbered
        .map(|((index, number), fields)| {
            let token = token.clone().fragment(index).encode();
            let mut fragment =
                doc! { "_id": token.to_document(), "splitEvent": { "fragment": number, "of": of } };
            fragment.extend(fields);
            (Arc::new(token), raw(&fragment).into_bytes().into())
        })
        .collect())
}

fn size_of(name: &str, value: &Bson) -> usize {
    doc! { name: value.clone() }
        .to_vec()
        .map_or(usize::MAX, |bytes| bytes.len())
}

/// Room for `_id` and `splitEvent`: 16 KiB of the servers' 16 MiB.
pub(crate) fn overhead(largest: usize) -> usize {
    (largest / 1024).max(LEAST_OVERHEAD)
}

/// What these two take, and a little more.
const LEAST_OVERHEAD: usize = 512;
