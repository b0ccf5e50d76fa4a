//! How far in the log a consumer has got, and what it has to be given next.

use bson::{Document, Timestamp};
use changestream_core::ChangeEvent;
use changestream_sim::LoggedChange;

use super::comparing::{differs, shortened};
use super::model::{Is, Log, View};

/// How far in the log a consumer has got.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Nothing before this moment is for it.
    pub(super) from: Timestamp,
    next: Vec<Next>,
    latest: Option<Timestamp>,
    /// What has come of an event that comes in pieces.
    pieces: Option<Pieces>,
    /// The shard and the number of the change whose event came last.
    came_last: Option<(usize, usize)>,
    /// What came last was a piece of an event.
    ends_with_piece: bool,
}

#[derive(Clone, Copy, Debug)]
struct Next {
    change: usize,
    /// The change's own event is passed; the invalidate event that follows it is not.
    invalidate: bool,
}

#[derive(Clone, Debug)]
struct Pieces {
    fields: Document,
    last: i32,
    of: i32,
}

/// An event that is due.
pub(super) struct Due<'a> {
    pub(super) change: &'a LoggedChange,
    pub(super) kind: &'static str,
    after: Next,
}

/// What comes next for a consumer.
enum Coming<'a> {
    Event(Due<'a>),
    /// An event that cannot be made: no stream gets past it.
    Obstacle,
    Nothing,
}

/// What an event that was due was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The one of the change of that number, in that shard.
    Whole { shard: usize, change: usize },
    /// A piece of one, or an invalidate event, from which not every stream can go on.
    Other,
}

/// An event that cannot be made, or perhaps cannot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Obstacle {
    pub(super) time: Timestamp,
    /// Something else is due before it.
    pub(super) is_behind_others: bool,
}

/// What servers say of an image that is not there.
pub(super) const NO_IMAGE: i32 = 47;
/// What servers say of an event that is too large.
pub(super) const TOO_LARGE: i32 = 10_334;

impl Place {
    /// At the first change at or after that moment.
    pub(super) fn new(log: &Log, from: Timestamp) -> Self {
        let next = log.shards.iter().map(|shard| Next {
            change: shard.changes.partition_point(|change| change.time < from),
            invalidate: false,
        });
        Self {
            from,
            next: next.collect(),
            latest: None,
            pieces: None,
            came_last: None,
            ends_with_piece: false,
        }
    }

    /// Behind the event of the change of that number in that shard, if it is certain where that is in the others.
    pub(super) fn behind(log: &Log, view: &View, shard: usize, change: usize) -> Option<Self> {
        let time = log.shards.get(shard)?.changes.get(change)?.time;
        let mut place = Self::new(log, time);
        for (index, next) in place.next.iter_mut().enumerate() {
            let changes = &log.shards[index].changes;
            if index == shard {
                // It may not have invalidated the stream that had its token, and invalidate this one.
                next.invalidate = view.contains(&changes[change]) && view.is_invalidated_by(&changes[change]);
                next.change = change + usize::from(!next.invalidate);
                place.came_last = Some((shard, change));
            } else if changes.get(next.change).is_some_and(|other| other.time == time) {
                // Shards that have not heard of each other can have changes of one moment.
                return None;
            }
        }
        Some(place)
    }

    /// Whether everything is delivered.
    pub(super) fn is_at_the_end(&self, log: &Log, view: &View) -> bool {
        let nothing = |shard| matches!(self.coming(log, view, shard), Coming::Nothing);
        self.pieces.is_none() && (0..self.next.len()).all(nothing)
    }

    /// An event was delivered: it has to be the one that is due.
    pub(super) fn take(&mut self, log: &Log, view: &View, event: &ChangeEvent) -> Result<Taken, String> {
        let document = Document::try_from(event.as_raw()).map_err(|error| error.to_string())?;
        let is_split = document.contains_key("splitEvent");
        self.ends_with_piece = is_split;
        let Some(document) = self.put_together(view, document)? else {
            return Ok(Taken::Other);
        };
        let time = document.get_timestamp("clusterTime").ok();
        if time < self.latest {
            return Err(format!("{document} comes after an event of {:?}", self.latest));
        }
        let mut refused = Vec::new();
        for shard in 0..self.next.len() {
            let Coming::Event(due) = self.coming(log, view, shard) else {
                continue;
            };
            match differs(&due, log, view, &document) {
                None => {
                    let taken = if is_split || due.after.invalidate || due.kind == "invalidate" {
                        Taken::Other
                    } else {
                        Taken::Whole {
                            shard,
                            change: due.after.change - 1,
                        }
                    };
                    self.came_last = Some((shard, due.after.change - usize::from(!due.after.invalidate)));
                    self.next[shard] = due.after;
                    self.latest = time;
                    return Ok(taken);
                }
                Some(why) => refused.push(format!(
                    "{} of {:?} {:?} at {:?} was due: {why}",
                    due.kind, due.change.collection, due.change.key, due.change.time
                )),
            }
        }
        Err(format!(
            "{} was not due, but {}",
            shortened(&document),
            refused.join(", or ")
        ))
    }

    /// The event, once all its pieces are there.
    fn put_together(&mut self, view: &View, mut event: Document) -> Result<Option<Document>, String> {
        let Some(split) = event.remove("splitEvent") else {
            return match &self.pieces {
                Some(pieces) => Err(format!(
                    "{} of {} pieces have come, and no more",
                    pieces.last, pieces.of
                )),
                None => Ok(Some(event)),
            };
        };
        let split = split.as_document().ok_or("splitEvent is no document")?;
        let number = split.get_i32("fragment").map_err(|error| error.to_string())?;
        let of = split.get_i32("of").map_err(|error| error.to_string())?;
        let mut pieces = self.pieces.take().unwrap_or(Pieces {
            fields: Document::new(),
            last: 0,
            of,
        });
        if !view.splits || of < 2 || number != pieces.last + 1 || of != pieces.of {
            return Err(format!(
                "piece {number} of {of} comes after {} of {}",
                pieces.last, pieces.of
            ));
        }
        for (name, value) in event {
            if name != "_id" && pieces.fields.insert(name.clone(), value).is_some() {
                return Err(format!("{name} comes in two pieces"));
            }
        }
        pieces.last = number;
        if number == of {
            return Ok(Some(pieces.fields));
        }
        self.pieces = Some(pieces);
        Ok(None)
    }

    /// Whether a server may not find the token any more by which a stream would go on: that of a piece, for an event that is
    /// made again may be in one piece by then, without an image or with another document.
    pub(super) fn may_be_whole_again(&self) -> bool {
        self.ends_with_piece
    }

    /// The stream says that it has ended by itself. That has to be because of an invalidate event: one that was
    /// delivered, or one that the filter hides and that comes before anything else that is due.
    pub(super) fn may_end(&mut self, log: &Log, view: &View, last_kind: Option<&str>) -> bool {
        if last_kind == Some("invalidate") {
            return true;
        }
        // Of those of several shards the earliest: the others end the streams that come after this one.
        let hidden =
            (0..self.next.len()).filter_map(|shard| Some((self.hidden_end(log, view, shard)?, shard)));
        let Some((due, shard)) = hidden.min_by_key(|(due, _)| due.change.time) else {
            return false;
        };
        self.next[shard] = due.after;
        true
    }

    /// The invalidate event that the filter hides, and everything before it in that shard.
    fn hidden_end<'a>(&self, log: &'a Log, view: &View, shard: usize) -> Option<Due<'a>> {
        let mut next = self.next[shard];
        loop {
            let due = candidate(log, view, shard, next, self.from)?;
            if view.shows(due.change, due.kind) {
                return None;
            }
            if due.kind == "invalidate" {
                return Some(due);
            }
            next = due.after;
        }
    }

    /// The stream has ended with that error of the server's: the first event that it may be about.
    pub(super) fn obstacle(&self, log: &Log, view: &View, code: i32) -> Option<Obstacle> {
        if code == NO_IMAGE
            && let Some(time) = self.image_missing_again(log, view)
        {
            return Some(Obstacle {
                time,
                is_behind_others: false,
            });
        }
        for shard in 0..self.next.len() {
            let mut next = self.next[shard];
            let mut is_behind_others = false;
            while let Some(due) = candidate(log, view, shard, next, self.from) {
                if may_be_obstacle(log, view, &due, code) != Is::Missing {
                    return Some(Obstacle {
                        time: due.change.time,
                        is_behind_others,
                    });
                }
                is_behind_others |= view.shows(due.change, due.kind);
                next = due.after;
            }
        }
        None
    }

    /// To go on behind an event or a piece of it, a server that may split it makes it once more, images and all, and so all
    /// that the same transaction changed before it.
    fn image_missing_again(&self, log: &Log, view: &View) -> Option<Timestamp> {
        let (shard, number) = self.came_last.filter(|_| view.splits)?;
        let up_to_it = &log.shards[shard].changes[..=number];
        let time = up_to_it.last()?.time;
        let mut of_the_moment = up_to_it.iter().rev().take_while(|change| change.time == time);
        of_the_moment
            .any(|change| {
                view.contains(change)
                    && view.requires_image(change.kind)
                    && log.images_of(change) != Is::There
            })
            .then_some(time)
    }

    fn coming<'a>(&self, log: &'a Log, view: &View, shard: usize) -> Coming<'a> {
        let mut next = self.next[shard];
        loop {
            let Some(due) = candidate(log, view, shard, next, self.from) else {
                return Coming::Nothing;
            };
            let stops = |code| may_be_obstacle(log, view, &due, code) == Is::There;
            if stops(NO_IMAGE) || stops(TOO_LARGE) {
                return Coming::Obstacle;
            }
            if view.shows(due.change, due.kind) {
                return Coming::Event(due);
            }
            next = due.after;
        }
    }
}

/// The next event of the shard, whether the filter shows it or not.
fn candidate<'a>(
    log: &'a Log,
    view: &View,
    shard: usize,
    mut next: Next,
    from: Timestamp,
) -> Option<Due<'a>> {
    loop {
        let change = log.shards[shard].changes.get(next.change)?;
        let following = Next {
            change: next.change + 1,
            invalidate: false,
        };
        if change.time < from || !view.contains(change) {
            next = following;
            continue;
        }
        let invalidates = view.is_invalidated_by(change);
        let (kind, after) = match (next.invalidate, invalidates) {
            (true, _) => ("invalidate", following),
            (false, false) => (change.kind, following),
            (false, true) => {
                let invalidate = Next {
                    change: next.change,
                    invalidate: true,
                };
                (change.kind, invalidate)
            }
        };
        return Some(Due { change, kind, after });
    }
}

/// Whether there is a reason to answer with that error where this event is next. A required image is looked for before
/// the filter, the size is looked at behind it.
fn may_be_obstacle(log: &Log, view: &View, due: &Due<'_>, code: i32) -> Is {
    match code {
        NO_IMAGE if view.requires_image(due.kind) => match log.images_of(due.change) {
            Is::There => Is::Missing,
            Is::PerhapsThere => Is::PerhapsThere,
            Is::Missing => Is::There,
        },
        TOO_LARGE if !view.splits && view.shows(due.change, due.kind) => {
            view.is_too_large(log, due.change, due.kind)
        }
        _ => Is::Missing,
    }
}
