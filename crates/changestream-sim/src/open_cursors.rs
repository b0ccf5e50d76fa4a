//! The cursors that a member keeps open.

use std::collections::BTreeMap;

use crate::cursors::Cursor;

/// Cursors by their ids. Counts those that are gone, so that who waits for one can tell whether to look again.
#[derive(Debug, Default)]
pub(crate) struct OpenCursors {
    open: BTreeMap<i64, Cursor>,
    gone: u64,
}

impl OpenCursors {
    pub(crate) fn get(&self, id: i64) -> Option<&Cursor> {
        self.open.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: i64) -> Option<&mut Cursor> {
        self.open.get_mut(&id)
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        self.open.contains_key(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Cursor> {
        self.open.values()
    }

    pub(crate) fn open(&mut self, cursor: Cursor) {
        self.open.insert(cursor.id, cursor);
    }

    /// Takes a cursor out to read from it. It counts as gone until it is [put back](Self::put_back).
    pub(crate) fn take(&mut self, id: i64) -> Option<Cursor> {
        let cursor = self.open.remove(&id)?;
        self.gone += 1;
        Some(cursor)
    }

    pub(crate) fn put_back(&mut self, cursor: Cursor) {
        self.gone -= 1;
        self.open.insert(cursor.id, cursor);
    }

    /// Ends a cursor; false if there is none.
    pub(crate) fn kill(&mut self, id: i64) -> bool {
        let killed = self.open.remove(&id).is_some();
        self.gone += u64::from(killed);
        killed
    }

    /// Ends those that this does not hold for.
    pub(crate) fn retain(&mut self, mut keeps: impl FnMut(&Cursor) -> bool) {
        let before = self.open.len();
        self.open.retain(|_, cursor| keeps(cursor));
        self.gone += (before - self.open.len()) as u64;
    }

    /// How many have been opened and are not open any more.
    pub(crate) fn gone(&self) -> u64 {
        self.gone
    }
}
