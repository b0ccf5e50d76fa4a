//! Whoever reads a stream, over all the streams that it takes one after the other.

use std::time::Duration;

use bson::Timestamp;
use changestream_core::wire::Compressor;
use changestream_core::{
    FullDocument, FullDocumentBeforeChange, ReadPreference, ReadPreferenceMode, ResumePolicy, ResumeToken,
    Scope, WatchOptions,
};

use super::chance::Chance;
use super::model::{Before, Filter, Full, View};
use super::place::Place;
use super::servers::Servers;
use super::shadow::Shadow;
use crate::world::{StreamId, collection, database};

/// A consumer.
pub(super) struct Consumer {
    pub(super) id: StreamId,
    pub(super) view: View,
    /// The options of each of its streams, but for where it starts.
    pub(super) options: WatchOptions,
    pub(super) compressor: Option<Compressor>,
    pub(super) shadow: Shadow,
    /// None until the first stream has opened.
    pub(super) place: Option<Place>,
    pub(super) state: State,
    /// It asks by tries instead of waiting.
    pub(super) tries: bool,
    /// How often it drops what it waits for, as one does who drops futures: each so many times that it is looked at.
    pub(super) fickle: Option<u32>,
    pub(super) looked_at: u32,
    /// It takes one event at a time, for one that cannot be made is near.
    pub(super) careful: bool,
    /// Its stream began with another's token, of an event that it may not have.
    pub(super) foreign: bool,
    pub(super) last_kind: Option<String>,
    pub(super) closing: bool,
    pub(super) delivered: u64,
}

/// What a consumer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Reading,
    /// Its stream is driven, and it asks for nothing.
    Pausing,
    /// Nobody drives its stream.
    Asleep,
    /// The servers are too old for it.
    Refused,
}

/// Where a new stream starts.
pub(super) enum Start {
    Now,
    At(Timestamp),
    Behind(ResumeToken),
    /// The same by `startAfter`, which an invalidate event's token needs.
    BehindInvalidate(ResumeToken),
    /// Behind a token of another stream, at that place.
    Elsewhere(ResumeToken, Place),
}

impl Consumer {
    /// The options of a stream that starts there.
    pub(super) fn options_from(&self, start: Start) -> WatchOptions {
        let mut options = self.options.clone();
        if self.careful {
            options.batch_size = Some(1);
        }
        match start {
            Start::Now => {}
            Start::At(time) => options.start_at_operation_time = Some(time),
            Start::Behind(token) => options.resume_after = Some(token),
            Start::BehindInvalidate(token) => options.start_after = Some(token),
            Start::Elsewhere(token, _) => {
                if self.tries {
                    options.start_after = Some(token);
                } else {
                    options.resume_after = Some(token);
                }
            }
        }
        options
    }
}

/// What a consumer wants to see.
pub(super) fn view(chance: &mut Chance, servers: &Servers) -> View {
    let images = servers.profile.images;
    let scope = match chance.below(6) {
        0 | 1 => collection("shop", chance.one_of(&["seen", "other"])),
        2 => collection("store", "seen"),
        3 => database(chance.one_of(&["shop", "store"])),
        _ => Scope::Cluster,
    };
    let expanded = images && chance.below(3) == 1;
    let filter = match chance.below(9) {
        0..=3 => Filter::All,
        4 => Filter::Kinds(vec!["insert", "replace", "delete"]),
        5 => Filter::Kinds(vec!["update", "drop", "rename", "dropDatabase", "invalidate"]),
        6 => Filter::Even,
        7 => Filter::Collection(chance.one_of(&["seen", "other"])),
        _ => Filter::Slim,
    };
    let small = servers.largest.is_some();
    let splits = servers.profile.split_large_event
        && match chance.below(3) {
            0 => servers.sharded && small,
            1 => true,
            _ => small,
        };
    // In a cluster a consumer could not tell which shard has no image.
    let requires = images && !servers.sharded;
    let full = match chance.below(if small { 9 } else { 6 }) {
        // Which document is looked up depends on when: a filter by it has no certain answer, nor has the number of pieces.
        1 if !splits => Full::Lookup,
        // Where events can be too large, most carry both images, or they would not be.
        2 | 6.. if images => Full::WhenAvailable,
        4.. if images && small => Full::WhenAvailable,
        3 if requires => Full::Required,
        _ => Full::Default,
    };
    // As is whether there is a post-image to filter by.
    let full = if filter == Filter::Even {
        Full::Default
    } else {
        full
    };
    let before = match chance.below(if small { 8 } else { 5 }) {
        1 | 5.. if images => Before::WhenAvailable,
        3.. if images && small => Before::WhenAvailable,
        2 if requires => Before::Required,
        _ => Before::Off,
    };
    View {
        scope,
        filter,
        expanded,
        full,
        before,
        splits,
        largest: servers.largest,
    }
}

/// How it reads.
pub(super) fn options(chance: &mut Chance, view: &View) -> WatchOptions {
    let mut options = WatchOptions::default();
    options.pipeline = view.pipeline();
    options.prefetch_batches = chance.below(3);
    options.prefetch_bytes = chance.one_of(&[16 << 20, 1_000, 50_000]);
    options.batch_size = chance.one_of(&[None, Some(0), Some(1), Some(2), Some(7)]);
    options.max_await_time = chance.one_of(&[
        None,
        Some(Duration::from_millis(400)),
        Some(Duration::from_secs(3)),
    ]);
    options.resume_policy = match chance.below(4) {
        0 => ResumePolicy::Specification,
        1 => ResumePolicy::For(Duration::from_secs(40)),
        _ => ResumePolicy::Forever,
    };
    options.full_document = match view.full {
        Full::Default => None,
        Full::Lookup => Some(FullDocument::UpdateLookup),
        Full::WhenAvailable => Some(FullDocument::WhenAvailable),
        Full::Required => Some(FullDocument::Required),
    };
    options.full_document_before_change = match view.before {
        Before::Off => None,
        Before::WhenAvailable => Some(FullDocumentBeforeChange::WhenAvailable),
        Before::Required => Some(FullDocumentBeforeChange::Required),
    };
    // Longer than any server waits by these options.
    options.timeout = match chance.below(5) {
        1 => Some(Duration::from_millis(3_500) + chance.millis(6_000)),
        2 if chance.one_in(3) => Some(Duration::ZERO),
        _ => None,
    };
    options.exhaust = chance.below(4) == 1;
    options.show_expanded_events = view.expanded.then_some(true);
    options.read_preference = match chance.below(5) {
        0 => Some(ReadPreferenceMode::SecondaryPreferred),
        1 => Some(ReadPreferenceMode::Nearest),
        2 => Some(ReadPreferenceMode::PrimaryPreferred),
        _ => None,
    }
    .map(ReadPreference::new);
    options.comment = chance.one_of(&[None, Some("storm".into())]);
    options
}
