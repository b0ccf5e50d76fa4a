//! Logical sessions.

use bson::{Binary, RawDocumentBuf, rawdoc, spec::BinarySubtype};

use crate::random::Random;

/// A logical session: its id goes with every command of a stream (Driver Sessions specification).
///
/// Cloning it gives the same session. A stream that was given one never ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    id: [u8; 16],
}

impl Session {
    /// A session with a random id, a version 4 UUID.
    pub fn new(random: &mut Random) -> Self {
        let mut id = [0; 16];
        random.fill(&mut id);
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        Self { id }
    }

    /// A session with this id: the bytes of a UUID.
    pub fn with_id(id: [u8; 16]) -> Self {
        Self { id }
    }

    /// The session's id: the bytes of a UUID.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The session as a command's `lsid`.
    pub fn lsid(&self) -> RawDocumentBuf {
        let id = Binary {
            subtype: BinarySubtype::Uuid,
            bytes: self.id.to_vec(),
        };
        rawdoc! { "id": id }
    }
}
