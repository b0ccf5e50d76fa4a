//! Events as streams without wishes tell them: the same for all of those, hence encoded once.

use std::sync::Arc;

use bytes::Bytes;

use crate::catalog::Catalog;
use crate::change_event::{self, EventOptions, Image, Scope};
use crate::oplog::Entry;
use crate::profile::Profile;
use crate::reply::raw;
use crate::token::EncodedToken;

/// An event without looked-up documents, images and expanded fields.
#[derive(Clone, Debug)]
pub(crate) struct PlainEvent {
    pub(crate) token: Arc<EncodedToken>,
    /// BSON.
    pub(crate) document: Bytes,
}

/// The events of an entry, one for each of its operations; none for an operation of which nothing is told without
/// expanded events. A deployment has one profile, so an entry has one encoding.
pub(crate) fn of<'a>(entry: &'a Entry, profile: &Profile) -> &'a [Option<PlainEvent>] {
    entry.plain_events.get_or_init(|| {
        let operations = entry.ops.iter().enumerate();
        operations
            .map(|(index, op)| {
                let candidate = change_event::plain(entry, index, op, profile)?;
                let event = change_event::build(&candidate, &OPTIONS, &Catalog::default(), profile).ok()?;
                Some(PlainEvent {
                    token: Arc::clone(&candidate.token),
                    document: raw(&event).into_bytes().into(),
                })
            })
            .collect()
    })
}

const OPTIONS: EventOptions = EventOptions {
    scope: Scope::Cluster,
    full_document: Image::Default,
    before_change: Image::Default,
    expanded: false,
};
