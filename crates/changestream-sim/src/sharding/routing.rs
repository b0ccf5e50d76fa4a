//! Which shard has which document: shard keys and chunks.

use std::cmp::Ordering;
use std::sync::Arc;

use bson::{Bson, Document};
use md5::{Digest, Md5};

use crate::catalog::id_key;
use crate::query::compare;
use crate::query::path;

/// The chunks of a sharded collection.
#[derive(Clone, Debug)]
pub(super) struct Chunks {
    /// Fields to 1, -1 or "hashed".
    pub(super) key: Arc<Document>,
    /// Where each chunk begins, and its shard, in order; the first begins at the lowest point.
    bounds: Vec<(Vec<Bson>, usize)>,
}

impl Chunks {
    /// Everything on one shard.
    pub(super) fn on_one(key: &Document, shard: usize) -> Self {
        let lowest = key.keys().map(|_| Bson::MinKey).collect();
        Self {
            key: Arc::new(key.clone()),
            bounds: vec![(lowest, shard)],
        }
    }

    /// The range of hashes in equal parts, one for each shard. The hashed field is the key's first.
    pub(super) fn spread(key: &Document, shards: usize) -> Self {
        let mut chunks = Self::on_one(key, 0);
        let width = u64::MAX / u64::try_from(shards.max(1)).unwrap_or(1);
        for shard in 1..shards {
            let offset = width.saturating_mul(u64::try_from(shard).unwrap_or(0));
            let mut bound: Vec<Bson> = key.keys().map(|_| Bson::MinKey).collect();
            if let Some(first) = bound.first_mut() {
                *first = Bson::Int64(i64::MIN.wrapping_add_unsigned(offset));
            }
            chunks.bounds.push((bound, shard));
        }
        chunks
    }

    pub(super) fn owner(&self, document: &Document) -> usize {
        self.bounds
            .get(self.chunk_of(&self.point(document)))
            .map_or(0, |(_, shard)| *shard)
    }

    /// Splits the chunk with that point, a hash for a hashed field; false if a chunk begins there already.
    pub(super) fn split(&mut self, middle: &Document) -> bool {
        let point: Vec<Bson> = self.key.keys().map(|f| value(middle, f)).collect();
        let chunk = self.chunk_of(&point);
        let Some((lower, shard)) = self.bounds.get(chunk) else {
            return false;
        };
        if order(lower, &point) == Ordering::Equal {
            return false;
        }
        let shard = *shard;
        self.bounds.insert(chunk + 1, (point, shard));
        true
    }

    /// Gives the document's chunk to a shard.
    pub(super) fn give(&mut self, document: &Document, to: usize) {
        let chunk = self.chunk_of(&self.point(document));
        if let Some((_, shard)) = self.bounds.get_mut(chunk) {
            *shard = to;
        }
    }

    /// Whether both belong to the same chunk.
    pub(super) fn together(&self, a: &Document, b: &Document) -> bool {
        self.chunk_of(&self.point(a)) == self.chunk_of(&self.point(b))
    }

    /// Whether a document with these fields names one shard.
    pub(super) fn names(&self, fields: &Document) -> bool {
        self.key.keys().all(|field| fields.contains_key(field))
    }

    /// Whether both have the same shard key value.
    pub(super) fn same_key(&self, a: &Document, b: &Document) -> bool {
        order(&self.point(a), &self.point(b)) == Ordering::Equal
    }

    /// The shards with a chunk.
    pub(super) fn shards(&self) -> impl Iterator<Item = usize> {
        self.bounds.iter().map(|(_, shard)| *shard)
    }

    fn chunk_of(&self, point: &[Bson]) -> usize {
        self.bounds
            .partition_point(|(lower, _)| order(lower, point) != Ordering::Greater)
            .saturating_sub(1)
    }

    /// The shard key's values; a field that is missing counts as null.
    fn point(&self, document: &Document) -> Vec<Bson> {
        self.key
            .iter()
            .map(|(field, kind)| {
                let value = value(document, field);
                if is_hashed(kind) {
                    Bson::Int64(hash(&value))
                } else {
                    value
                }
            })
            .collect()
    }
}

pub(super) fn is_hashed(kind: &Bson) -> bool {
    kind.as_str() == Some("hashed")
}

/// A field of the document, by its dotted name where there is no such field.
fn value(document: &Document, field: &str) -> Bson {
    let whole = document.get(field);
    whole
        .or_else(|| path::get(document, path::Path::new(field).parts()))
        .cloned()
        .unwrap_or(Bson::Null)
}

fn order(a: &[Bson], b: &[Bson]) -> Ordering {
    let unequal = a
        .iter()
        .zip(b)
        .map(|(a, b)| compare::compare(a, b))
        .find(|o| *o != Ordering::Equal);
    unequal.unwrap_or(Ordering::Equal)
}

/// A number of the value, evenly spread; as in the server, of MD5, but not of the same bytes: nobody sees it.
fn hash(value: &Bson) -> i64 {
    let digest: [u8; 16] = Md5::digest(id_key(value)).into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    i64::from_le_bytes([a, b, c, d, e, f, g, h])
}
