//! The events of a reply of which the rest is still on its way.

use std::ops::Range;

use super::{Connection, ConnectionOutput};
use crate::walk;
use crate::wire::{Flags, HEADER_LEN, OP_MSG};

/// What is known of the message that is being received.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// How much of it has to be held, so that a part can be taken from it; at least.
    needed: usize,
    taken: bool,
}

impl Parts {
    /// Whether any part was taken from it.
    pub(super) fn were_taken(&self) -> bool {
        self.taken
    }
}

impl Connection {
    /// How much is held at once of the message that is being received, if parts may be taken from it; as far as is known.
    pub(super) fn most_of_reply(&self) -> Option<usize> {
        let in_parts = self.exchanges.expects_parts()
            && answers(self.reader.received())
                .is_none_or(|answered| answered.is_some_and(|to| self.exchanges.in_parts(to).is_some()));
        in_parts.then(|| self.most_at_once())
    }

    fn most_at_once(&self) -> usize {
        self.settings.part_size.max(self.parts.needed)
    }

    /// Hands over the events that have arrived of a reply, if that is as much of it as is to be held.
    pub(super) fn take_events(&mut self) {
        if !self.exchanges.expects_parts() || self.reader.pending() < self.most_at_once() {
            return;
        }
        let received = self.reader.received();
        let answered = answers(received).flatten();
        let Some(request_id) = answered.and_then(|to| self.exchanges.in_parts(to)) else {
            return;
        };
        match look(received) {
            Arriving::Events { events, head } => {
                self.parts.needed = 0;
                if let Some(events) = self.reader.cut(head, events) {
                    self.parts.taken = true;
                    self.outputs
                        .push_back(ConnectionOutput::Events { request_id, events });
                }
            }
            Arriving::Longer(needed) => self.parts.needed = needed,
            Arriving::Whole => self.parts.needed = usize::MAX,
        }
    }
}

/// What can be said of a reply that is being received.
enum Arriving {
    /// These bytes are whole events of its batch, and another one begins behind them. Without them the reply starts with
    /// this head.
    Events { events: Range<usize>, head: Vec<u8> },
    /// Its first event ends behind so many bytes.
    Longer(usize),
    /// It is nothing that parts can be taken from.
    Whole,
}

/// Which request the message answers, if it is one that parts can be taken from: not compressed, and without a checksum.
/// None as long as that is not known.
fn answers(received: &[u8]) -> Option<Option<i32>> {
    let header = received.first_chunk::<BODY>()?;
    let at = |place: usize| {
        header
            .get(place..)?
            .first_chunk()
            .copied()
            .map(u32::from_le_bytes)
    };
    let plain = at(12) == Some(OP_MSG as u32)
        && at(16).is_some_and(|flags| flags & !Flags::MORE_TO_COME.bits() == 0)
        && header.last() == Some(&SECTION_OF_BODY);
    Some(at(8).map(u32::cast_signed).filter(|_| plain))
}

/// Looks for whole events at the start of the batch of a getMore's reply. The last event is never among them, for its
/// token may be the one that stands behind the batch.
///
/// All lengths have to fit into one another, as they have to in what is left.
fn look(received: &[u8]) -> Arriving {
    // Each part costs what stands before the batch.
    let Some(batch) = Batch::of(received).filter(|batch| batch.events <= MOST_BEFORE_BATCH) else {
        return unclear(received, MOST_BEFORE_BATCH);
    };
    let mut end = batch.events;
    while let Some(next) = batch.behind_event(received, end)
        && received.get(next) == Some(&walk::DOCUMENT)
        && received.get(next - 1) == Some(&0)
    {
        end = next;
    }
    if end > batch.events {
        let events = batch.events..end;
        let head = batch.head_without(received, events.len());
        return head.map_or(Arriving::Whole, |head| Arriving::Events { events, head });
    }
    match batch.behind_event(received, end) {
        Some(next) if next >= received.len() => Arriving::Longer(next + 1),
        Some(_) => Arriving::Whole,
        None => unclear(received, batch.events + MOST_BEFORE_EVENT),
    }
}

/// What should be among so many bytes is not there, or is not all there yet.
fn unclear(received: &[u8], most: usize) -> Arriving {
    if received.len() < most {
        Arriving::Longer(most)
    } else {
        Arriving::Whole
    }
}

/// A batch in a message of which the start was received.
struct Batch {
    /// Where the lengths stand that count it: of the message, the reply, the cursor, and the array.
    lengths: [usize; 4],
    /// Where its first event starts.
    events: usize,
    /// Where its last one ends.
    end: usize,
}

impl Batch {
    fn of(received: &[u8]) -> Option<Self> {
        let message = usize::try_from(u32::from_le_bytes(*received.first_chunk()?)).ok()?;
        let reply = Place::at(received, BODY, message).filter(|reply| reply.end == message)?;
        let cursor = reply.field(received, walk::DOCUMENT, b"cursor")?;
        let array = cursor.field(received, walk::ARRAY, b"nextBatch")?;
        Some(Self {
            lengths: [0, reply.start, cursor.start, array.start],
            events: array.start + LENGTH,
            end: array.end - 1,
        })
    }

    /// Where the event ends that starts there.
    fn behind_event(&self, received: &[u8], start: usize) -> Option<usize> {
        let (&kind, key) = received.get(start..)?.split_first()?;
        let key = walk::until_zero(key).filter(|&key| kind == walk::DOCUMENT && key < LONGEST_KEY)?;
        Some(Place::at(received, start + 1 + key + 1, self.end)?.end)
    }

    /// What the message starts with when so many bytes of events are taken out.
    fn head_without(&self, received: &[u8], bytes: usize) -> Option<Vec<u8>> {
        let mut head = received.get(..self.events)?.to_vec();
        for at in self.lengths {
            let length = head.get_mut(at..)?.first_chunk_mut()?;
            let less = u32::from_le_bytes(*length).checked_sub(u32::try_from(bytes).ok()?)?;
            *length = less.to_le_bytes();
        }
        Some(head)
    }
}

/// Where a document or an array stands of which not all has to be there.
struct Place {
    start: usize,
    end: usize,
}

impl Place {
    /// What starts there, and ends there at the latest.
    fn at(received: &[u8], start: usize, latest: usize) -> Option<Self> {
        let length = u32::from_le_bytes(*received.get(start..)?.first_chunk()?);
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        (length >= LEAST && end <= latest).then_some(Self { start, end })
    }

    /// The field of that name, if it and all before it can be stepped over.
    fn field(&self, received: &[u8], kind: u8, name: &[u8]) -> Option<Self> {
        let mut at = self.start + LENGTH;
        loop {
            let (&found, after) = received.get(at..)?.split_first()?;
            let key = walk::until_zero(after).filter(|_| found != 0)?;
            let value = at + 1 + key + 1;
            if found == kind && after.get(..key)? == name {
                return Self::at(received, value, self.end - 1);
            }
            at = value.checked_add(walk::size(received.get(value..)?, found)?)?;
        }
    }
}

/// Where a message's first section starts, behind the header, the flags and its kind.
const BODY: usize = HEADER_LEN + 4 + 1;
const SECTION_OF_BODY: u8 = 0;
/// A document starts with its length.
const LENGTH: usize = 4;
/// The length of the empty one.
const LEAST: u32 = 5;
/// Of an array's element: its index, in decimal digits.
const LONGEST_KEY: usize = 16;
/// An element's type and key, and the length of the document.
const MOST_BEFORE_EVENT: usize = 1 + LONGEST_KEY + LENGTH;
/// Where a batch begins at the latest: some servers put the cursor's other fields before it.
const MOST_BEFORE_BATCH: usize = 4 << 10;
