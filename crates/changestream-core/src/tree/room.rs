//! Documents with room for as many fields as they will have.
//!
//! The library's document has no constructor for that. It grows by doubling: each time a larger table is made, and all that
//! stands in the old one is put in again, a fifth of what making a large document costs. But a copy of an emptied document has
//! the room that the fields had.

use std::sync::OnceLock;

use bson::{Bson, Document};

/// An empty document in which so many fields have room, as far as there are tables of that size.
pub(super) fn document_for(fields: usize) -> Document {
    if fields <= room(SMALLEST) {
        return Document::new();
    }
    let bits = (SMALLEST + 1..LARGEST).find(|&bits| fields <= room(bits));
    let bits = bits.unwrap_or(LARGEST);
    match EMPTIED.get((bits - SMALLEST - 1) as usize) {
        Some(emptied) => emptied.get_or_init(|| with_room(room(bits))).clone(),
        None => Document::new(),
    }
}

/// One for each size that was asked for. Their fields' place is not kept: all of them take 20 KB.
static EMPTIED: [OnceLock<Document>; SIZES] = [const { OnceLock::new() }; SIZES];

fn with_room(fields: usize) -> Document {
    let mut document: Document = (0..fields).map(|field| (field.to_string(), Bson::Null)).collect();
    document.clear();
    // The copy has the table, without the place for fields that stands beside it.
    document.clone()
}

/// For how many fields a table of so many places has room, which are given as a power of two.
const fn room(bits: u32) -> usize {
    match bits {
        ..=SMALLEST => 3,
        _ => (1 << bits) / 8 * 7,
    }
}

/// What a document has as soon as it has a field.
const SMALLEST: u32 = 2;
const LARGEST: u32 = 10;
const SIZES: usize = (LARGEST - SMALLEST) as usize;
