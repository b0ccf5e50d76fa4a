//! Events that are the same for all streams with the same wishes, hence encoded once.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::catalog::Catalog;
use crate::change_event::{self, EventOptions, Image, Scope, Stored};
use crate::oplog::{Change, Entry, Op};
use crate::profile::Profile;
use crate::reply::raw;
use crate::token::EncodedToken;

/// An event without looked-up documents.
#[derive(Clone, Debug)]
pub(crate) struct PlainEvent {
    pub(crate) token: Arc<EncodedToken>,
    /// BSON.
    pub(crate) document: Bytes,
}

/// The wishes that events are encoded for; by default there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Telling {
    expanded: bool,
    post_image: bool,
    pre_image: bool,
}

/// An entry's events, by telling. Few streams have wishes, and entries are many.
#[derive(Debug, Default)]
pub(crate) struct Told {
    plain: OnceLock<Events>,
    wished: OnceLock<Box<[OnceLock<Events>; TELLINGS]>>,
}

/// One for each operation; none for one of which nothing is told.
type Events = Vec<Option<PlainEvent>>;

impl Told {
    fn by(&self, telling: Telling) -> &OnceLock<Events> {
        let wished = |index: usize| self.wished.get_or_init(Box::default).get(index);
        match telling.index() {
            0 => &self.plain,
            index => wished(index).unwrap_or(&self.plain),
        }
    }
}

/// How many tellings there are.
const TELLINGS: usize = 8;

impl Telling {
    /// What these options make of an operation; none if that differs from moment to moment, or if an image is missing.
    pub(crate) fn of(entry: &Entry, op: &Op, options: &EventOptions, stored: Stored<'_>) -> Option<Self> {
        let (update, has_before) = match &op.change {
            Change::Update { .. } => (true, true),
            Change::Replace { .. } | Change::Delete { .. } => (false, true),
            Change::Noop
            | Change::Insert { .. }
            | Change::Create { .. }
            | Change::Drop
            | Change::Rename { .. }
            | Change::DropDatabase
            | Change::CreateIndexes { .. }
            | Change::DropIndexes { .. }
            | Change::Modify { .. }
            | Change::Shard { .. } => (false, false),
        };
        let kept = |image| match image {
            Image::Default => Some(false),
            Image::UpdateLookup => None,
            Image::Kept => Some(true),
            Image::WhenAvailable | Image::Required => stored.has_images_of(entry, op).then_some(true),
        };
        Some(Self {
            expanded: options.expanded,
            post_image: update && kept(options.full_document)?,
            pre_image: has_before && kept(options.before_change)?,
        })
    }

    fn index(self) -> usize {
        usize::from(self.expanded) | usize::from(self.post_image) << 1 | usize::from(self.pre_image) << 2
    }

    /// Options that ask for this. The images are there.
    fn options(self) -> EventOptions {
        let image = |wanted| if wanted { Image::Kept } else { Image::Default };
        EventOptions {
            scope: Scope::Cluster,
            full_document: image(self.post_image),
            before_change: image(self.pre_image),
            expanded: self.expanded,
            largest: usize::MAX,
        }
    }
}

/// The events of an entry, one for each of its operations; none for an operation of which nothing is told. A deployment
/// has one profile, so an entry has one encoding for each telling.
pub(crate) fn of<'a>(entry: &'a Entry, telling: Telling, profile: &Profile) -> &'a [Option<PlainEvent>] {
    entry.told.by(telling).get_or_init(|| {
        let options = telling.options();
        let nothing = Catalog::default();
        let stored = Stored {
            committed: &nothing,
            images_from: entry.optime.ts,
        };
        let operations = entry.ops.iter().enumerate();
        operations
            .map(|(index, op)| {
                let candidate = change_event::plain(entry, index, op, options.expanded, profile)?;
                let event = change_event::build(&candidate, &options, stored, profile).ok()?;
                Some(PlainEvent {
                    token: Arc::clone(&candidate.token),
                    document: raw(&event).into_bytes().into(),
                })
            })
            .collect()
    })
}
