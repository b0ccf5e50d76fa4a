//! Bytes read as a row of choices.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, Document, RawDocumentBuf, Timestamp};
use bytes::Bytes;

/// Choices decoded from bytes, each from the next one or few: a changed byte changes one choice, and bytes that are
/// cut short are a scenario that ends early. Whoever asks beyond the end gets zeros.
#[derive(Clone, Debug)]
pub(super) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether there are none left.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `bound`, which is not 0. Two bytes where one does not reach.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let mut number = usize::from(self.byte());
        if bound > 256 {
            number = number << 8 | usize::from(self.byte());
        }
        number % bound
    }

    pub(super) fn any<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// Some bytes, as many as the next byte says.
    pub(super) fn slice(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte());
        self.take(len)
    }

    pub(super) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// A document of these field names, or of names that are spelt out.
    pub(super) fn document(&mut self, names: &[&str]) -> Document {
        self.document_within(names, DEEPEST)
    }

    /// As [`document`](Self::document), encoded; or, now and then, bytes that only begin and end as a document does.
    pub(super) fn encoded_document(&mut self, names: &[&str]) -> Bytes {
        if self.byte() >= 224 {
            let content = self.slice();
            let len = i32::try_from(content.len() + 5).expect("a slice is short");
            return [&len.to_le_bytes(), content, &[0]].concat().into();
        }
        let document = self.document(names);
        let encoded = RawDocumentBuf::try_from(&document).expect("its names hold no NUL");
        encoded.into_bytes().into()
    }

    pub(super) fn value(&mut self, names: &[&str]) -> Bson {
        self.value_within(names, DEEPEST)
    }

    fn document_within(&mut self, names: &[&str], depth: usize) -> Document {
        let mut document = Document::new();
        for _ in 0..self.below(MOST_FIELDS) {
            let name = self.name(names);
            document.insert(name, self.value_within(names, depth));
        }
        document
    }

    fn name(&mut self, names: &[&str]) -> String {
        let index = self.below(names.len() + 8);
        names
            .get(index)
            .map_or_else(|| self.text().replace('\0', "."), |name| (*name).to_owned())
    }

    fn text(&mut self) -> String {
        let len = self.below(12);
        String::from_utf8_lossy(self.take(len)).into_owned()
    }

    fn value_within(&mut self, names: &[&str], depth: usize) -> Bson {
        match self.below(if depth == 0 { 24 } else { 32 }) {
            0 => Bson::Null,
            1..=3 => Bson::Int32(i32::from(self.byte()) - 3),
            4 => Bson::Int32(i32::from_le_bytes(self.array())),
            5 => Bson::Int64(i64::from(self.byte())),
            6 => Bson::Int64(i64::from_le_bytes(self.array())),
            7 => Bson::Double(f64::from(self.byte()) / 4.0),
            8 => Bson::Double(f64::from_le_bytes(self.array())),
            9 => Bson::Decimal128(Decimal128::from_bytes(self.array())),
            10 | 11 => Bson::Boolean(self.flag()),
            12 => Bson::String(self.text()),
            13..=15 => Bson::String(self.name(names)),
            16 => Bson::String(format!("${}", self.name(names))),
            17 => Bson::Timestamp(Timestamp {
                time: u32::from_le_bytes(self.array()),
                increment: u32::from(self.byte()),
            }),
            18 => Bson::DateTime(DateTime::from_millis(i64::from_le_bytes(self.array()))),
            19 => Bson::ObjectId(ObjectId::from_bytes([self.byte(); 12])),
            20 => {
                let subtype = BinarySubtype::from(self.byte());
                Bson::Binary(Binary {
                    subtype,
                    bytes: self.slice().to_vec(),
                })
            }
            21 => self.any(&[
                Bson::MinKey,
                Bson::MaxKey,
                Bson::Undefined,
                Bson::Double(f64::NAN),
            ]),
            22 => Bson::Binary(Binary {
                subtype: BinarySubtype::Uuid,
                bytes: vec![self.byte(); 16],
            }),
            23 => Bson::RegularExpression(bson::Regex {
                pattern: self
                    .text()
                    .replace('\0', ".")
                    .try_into()
                    .expect("it holds no NUL"),
                options: self
                    .any(&["", "i", "mx", "?"])
                    .to_owned()
                    .try_into()
                    .expect("it holds no NUL"),
            }),
            24..=28 => Bson::Document(self.document_within(names, depth - 1)),
            _ => {
                let len = self.below(MOST_FIELDS);
                Bson::Array((0..len).map(|_| self.value_within(names, depth - 1)).collect())
            }
        }
    }
}

const DEEPEST: usize = 6;
const MOST_FIELDS: usize = 7;
