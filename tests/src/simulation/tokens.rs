//! Tokens that streams have had, for others to go on from.

use std::collections::VecDeque;

use bson::Timestamp;
use changestream_core::ResumeToken;
use changestream_core::token::TokenKind;

use super::chance::Chance;
use super::consumer::Start;
use super::model::{Log, View};
use super::place::Place;

/// The latest of them.
#[derive(Default)]
pub(super) struct Tokens {
    kept: VecDeque<(ResumeToken, At)>,
}

/// Where a token stands.
#[derive(Clone, Copy)]
enum At {
    /// Behind the event of that change.
    Change { shard: usize, change: usize },
    /// Before everything of that moment.
    Mark(Timestamp),
}

impl Tokens {
    /// That of an event.
    pub(super) fn keep(&mut self, token: &ResumeToken, shard: usize, change: usize) {
        self.push(token, At::Change { shard, change });
    }

    /// That of a stream to which nothing had come, if it is a mark and not its last event's.
    pub(super) fn keep_mark(&mut self, token: &ResumeToken) {
        if let Ok(info) = token.explain()
            && info.kind == TokenKind::HighWaterMark
        {
            self.push(token, At::Mark(info.cluster_time));
        }
    }

    fn push(&mut self, token: &ResumeToken, at: At) {
        if self.kept.len() == MOST {
            self.kept.pop_front();
        }
        self.kept.push_back((token.clone(), at));
    }

    /// One of them, and what is due behind it to who watches so.
    pub(super) fn any(&self, chance: &mut Chance, log: &Log, view: &View) -> Option<Start> {
        if self.kept.is_empty() {
            return None;
        }
        let (token, at) = &self.kept[chance.below(self.kept.len())];
        let place = match at {
            At::Change { shard, change } => Place::behind(log, view, *shard, *change)?,
            At::Mark(time) => Place::new(log, *time),
        };
        Some(Start::Elsewhere(token.clone(), place))
    }
}

const MOST: usize = 40;
