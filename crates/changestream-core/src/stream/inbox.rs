//! What has arrived and is not delivered yet, in order.

use std::collections::VecDeque;

use bson::Timestamp;

use super::batch::Batch;
use crate::Error;
use crate::client::Update;
use crate::faults::Fault;
use crate::token::ResumeToken;

/// Replies and what became of them, in the order in which the consumer is to learn of them.
///
/// An error waits here too: what arrived before it is delivered first, so that the position it is resumed from is
/// both the last one received and the last one delivered.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    items: VecDeque<Item>,
}

#[derive(Debug)]
pub(crate) enum Item {
    /// Events.
    Batch(Arrived),
    /// A reply without events. Its token was cached when it arrived if nothing was ahead of it.
    Idle {
        token: Option<ResumeToken>,
        operation_time: Option<Timestamp>,
    },
    /// A reply without events, and the last of its cursor.
    Ended(Ended),
    /// Behind the last event of a cursor: what was watched is gone, up to this token.
    Invalidated(ResumeToken),
    /// Something to say.
    Update(Update),
    /// A getMore failed.
    Fault(Error),
}

/// A batch that is not empty.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) batch: Batch,
    /// Whether the rest of the reply follows.
    pub(crate) is_part: bool,
    pub(crate) post_batch_resume_token: Option<ResumeToken>,
    /// Whether the cursor ended with it.
    pub(crate) is_final: bool,
    /// Whether the server says that it ended because what was watched is gone.
    pub(crate) invalidated: bool,
}

/// The end of a cursor that came without events.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) token: Option<ResumeToken>,
    pub(crate) operation_time: Option<Timestamp>,
    /// Whether the server says that what was watched is gone.
    pub(crate) invalidated: bool,
}

impl Inbox {
    pub(crate) fn push(&mut self, item: Item) {
        if self.items.capacity() == 0 {
            self.items.reserve_exact(1);
        }
        self.items.push_back(item);
    }

    /// A reply without events. Of several in a row the latest says all: an exhaust cursor sends them to a consumer who
    /// pauses, too, and what waits for him neither grows nor leads him back.
    pub(crate) fn push_idle(&mut self, token: Option<ResumeToken>, operation_time: Option<Timestamp>) {
        self.drop_last_idle();
        self.items.push_back(Item::Idle {
            token,
            operation_time,
        });
    }

    /// The last of several in a row.
    pub(crate) fn push_ended(&mut self, ended: Ended) {
        self.drop_last_idle();
        self.push(Item::Ended(ended));
    }

    fn drop_last_idle(&mut self) {
        if let Some(Item::Idle { .. }) = self.items.back()
            && !Fault::EmptyRepliesPiledUp.is_on()
        {
            self.items.pop_back();
        }
    }

    /// Puts back what is to be delivered next.
    pub(crate) fn push_front(&mut self, item: Item) {
        self.items.push_front(item);
    }

    /// The batch that is being consumed, if nothing comes before it.
    #[inline]
    pub(crate) fn current(&mut self) -> Option<&mut Arrived> {
        match self.items.front_mut() {
            Some(Item::Batch(arrived)) => Some(arrived),
            Some(
                Item::Idle { .. } | Item::Ended(_) | Item::Invalidated(_) | Item::Update(_) | Item::Fault(_),
            )
            | None => None,
        }
    }

    /// Gives up what room is not needed while nothing comes.
    pub(crate) fn shrink(&mut self) {
        self.items.shrink_to(1);
    }

    pub(crate) fn pop(&mut self) -> Option<Item> {
        self.items.pop_front()
    }

    /// Whether all there is is a batch that is down to one event.
    pub(crate) fn is_down_to_one(&self) -> bool {
        let mut items = self.items.iter();
        match (items.next(), items.next()) {
            (Some(Item::Batch(arrived)), None) => arrived.batch.peek_but_last().is_none(),
            _ => false,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.items.clear();
    }

    /// The postBatchResumeToken of the last batch.
    pub(crate) fn last_token(&self) -> Option<ResumeToken> {
        self.items.iter().rev().find_map(|item| match item {
            Item::Batch(arrived) => arrived.post_batch_resume_token.clone(),
            Item::Idle { .. } | Item::Ended(_) | Item::Invalidated(_) | Item::Update(_) | Item::Fault(_) => {
                None
            }
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Takes the last item back if it announces an attempt to resume.
    pub(crate) fn drop_last_resuming(&mut self) {
        if let Some(Item::Update(Update::Resuming(_))) = self.items.back() {
            self.items.pop_back();
        }
    }

    /// Replies of which the end is held and has events, the one that is being consumed included.
    pub(crate) fn replies(&self) -> usize {
        let is_end = |item: &&Item| matches!(item, Item::Batch(arrived) if !arrived.is_part);
        self.items.iter().filter(is_end).count()
    }

    /// Batches and parts of batches held, the one that is being consumed included.
    pub(crate) fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.items.iter().filter_map(|item| match item {
            Item::Batch(arrived) => Some(&arrived.batch),
            Item::Idle { .. } | Item::Ended(_) | Item::Invalidated(_) | Item::Update(_) | Item::Fault(_) => {
                None
            }
        })
    }
}
