//! Which shard has which document: shard keys and chunks.

use std::cmp::Ordering;
use std::sync::Arc;

use bson::{Bson, Document, doc};
use md5::{Digest, Md5};

use crate::query::compare;
use crate::query::path;
use crate::reply::raw;

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

/// The hash of a hashed shard key, as the server's (`BSONElementHasher::hash64` with the seed 0): of MD5, over the kind
/// of each value and its bytes, whole numbers of any type being equal.
fn hash(value: &Bson) -> i64 {
    let mut md5 = Md5::new();
    md5.update(0_i32.to_le_bytes());
    add(&mut md5, None, value);
    let digest: [u8; 16] = md5.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    i64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn add(md5: &mut Md5, name: Option<&str>, value: &Bson) {
    md5.update(kind(value).to_le_bytes());
    if let Some(name) = name {
        md5.update(name);
        md5.update([0]);
    }
    match value {
        Bson::Document(inner) => {
            for (name, value) in inner {
                add(md5, Some(name), value);
            }
            end(md5);
        }
        Bson::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                add(md5, Some(&index.to_string()), value);
            }
            end(md5);
        }
        Bson::Int32(n) => md5.update(i64::from(*n).to_le_bytes()),
        Bson::Int64(n) => md5.update(n.to_le_bytes()),
        // Fractions are cut off, and what is out of range is the nearest there is.
        Bson::Double(n) => md5.update((*n as i64).to_le_bytes()),
        Bson::String(_)
        | Bson::Boolean(_)
        | Bson::Null
        | Bson::RegularExpression(_)
        | Bson::JavaScriptCode(_)
        | Bson::JavaScriptCodeWithScope(_)
        | Bson::Timestamp(_)
        | Bson::Binary(_)
        | Bson::ObjectId(_)
        | Bson::DateTime(_)
        | Bson::Symbol(_)
        | Bson::Decimal128(_)
        | Bson::Undefined
        | Bson::MaxKey
        | Bson::MinKey
        | Bson::DbPointer(_) => md5.update(encoded(value)),
    }
}

/// The end of a document is an element too, without a name but with its NUL.
fn end(md5: &mut Md5) {
    md5.update(0_i32.to_le_bytes());
    md5.update([0]);
}

/// The value's bytes in BSON.
fn encoded(value: &Bson) -> Vec<u8> {
    let holder = raw(&doc! { "": value.clone() });
    let bytes = holder.as_bytes();
    // The length, the type and the empty name stand before, a NUL behind.
    bytes.get(6..bytes.len() - 1).unwrap_or_default().to_vec()
}

/// `canonicalizeBSONType`: what sorts together has one number.
fn kind(value: &Bson) -> i32 {
    match value {
        Bson::MinKey => -1,
        Bson::MaxKey => 127,
        Bson::Undefined => 0,
        Bson::Null => 5,
        Bson::Double(_) | Bson::Int32(_) | Bson::Int64(_) | Bson::Decimal128(_) => 10,
        Bson::String(_) | Bson::Symbol(_) => 15,
        Bson::Document(_) => 20,
        Bson::Array(_) => 25,
        Bson::Binary(_) => 30,
        Bson::ObjectId(_) => 35,
        Bson::Boolean(_) => 40,
        Bson::DateTime(_) => 45,
        Bson::Timestamp(_) => 47,
        Bson::RegularExpression(_) => 50,
        Bson::DbPointer(_) => 55,
        Bson::JavaScriptCode(_) => 60,
        Bson::JavaScriptCodeWithScope(_) => 65,
    }
}
