//! Who got what: the demonstration's own check.

use std::collections::BTreeMap;
use std::fmt;

use changestream_core::ChangeEvent;
use changestream_core::event::OperationType;

/// What was delivered, by the numbers of the documents.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    delivered: BTreeMap<i64, u64>,
    latest: Option<i64>,
    out_of_order: u64,
}

impl Ledger {
    pub(super) fn note(&mut self, event: &ChangeEvent) {
        let key = event.document_key().and_then(|key| key.get_i64("_id").ok());
        let (Some(OperationType::Insert), Some(number)) = (event.operation_type(), key) else {
            return;
        };
        let times = self.delivered.entry(number).or_default();
        *times += 1;
        let in_order = self.latest.is_none_or(|latest| latest < number);
        self.out_of_order += u64::from(*times == 1 && !in_order);
        self.latest = Some(number);
    }

    /// Whether as many different documents were delivered.
    pub(super) fn has(&self, written: u32) -> bool {
        self.delivered.len() as u64 >= u64::from(written)
    }

    /// The balance, of so many documents with the numbers from 0 on.
    pub(super) fn balance(&self, written: u32) -> Balance {
        let numbers = 0..i64::from(written);
        Balance {
            written,
            delivered: self.delivered.values().sum(),
            lost: numbers
                .clone()
                .filter(|number| !self.delivered.contains_key(number))
                .count(),
            repeated: self.delivered.values().map(|times| times - 1).sum(),
            unknown: self
                .delivered
                .keys()
                .filter(|number| !numbers.contains(number))
                .count(),
            out_of_order: self.out_of_order,
        }
    }
}

/// The summary.
#[derive(Debug)]
pub(super) struct Balance {
    written: u32,
    delivered: u64,
    lost: usize,
    repeated: u64,
    /// Delivered, though nobody wrote it.
    unknown: usize,
    out_of_order: u64,
}

impl Balance {
    pub(super) fn is_even(&self) -> bool {
        self.delivered == u64::from(self.written)
            && (self.lost, self.repeated, self.unknown, self.out_of_order) == (0, 0, 0, 0)
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            written,
            delivered,
            lost,
            repeated,
            unknown,
            out_of_order,
        } = self;
        write!(
            f,
            "written {written}, delivered {delivered}, lost {lost}, repeated {repeated}, unknown {unknown}, \
             out of order {out_of_order}"
        )
    }
}
