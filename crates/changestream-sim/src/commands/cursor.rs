//! getMore and killCursors.

use std::time::{Duration, Instant};

use bson::{Bson, doc};

use super::{Answer, Context, Result, documents};
use crate::buffers;
use crate::catalog::session_key;
use crate::change_stream::Continues;
use crate::connection::Form;
use crate::cursors::{self, Batch, Cursor, Kind};
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::query::show;
use crate::reply::Reply;
use crate::wait::Wait;

pub(super) fn get_more(d: &mut Deployment, context: &Context<'_>) -> Result {
    let id = cursor_id(context)?;
    if !d.profile.generic_comment && context.body().contains_key("comment") {
        return Err(CommandError::failed_to_parse(format!(
            "Failed to parse: {}. Unrecognized field 'comment'.",
            show::spaced(context.body())
        )));
    }
    check(d, context, id)?;
    let deadline = context.now + await_time(context)?;
    continue_get_more(d, context, deadline)
}

/// A getMore that may have waited already.
pub(super) fn continue_get_more(d: &mut Deployment, context: &Context<'_>, deadline: Instant) -> Result {
    let id = cursor_id(context)?;
    let profile = d.profile.clone();
    let merged = d.cluster.is_some();
    let Some(m) = d.members.get_mut(context.member) else {
        return Err(not_found(id));
    };
    let Some(mut cursor) = m.cursors.take(id) else {
        return Err(CommandError::new(
            237,
            format!("cursor id {id} was killed while it was read"),
        ));
    };
    cursor.last_used = context.now;
    let limit = batch_size(context)?;
    let memory = if buffers::is_large(cursor.last_batch) {
        d.buffers.take()
    } else {
        Vec::new()
    };
    let mut batch = if merged {
        Batch::merged(limit, memory, &cursor.namespace)
    } else {
        Batch::next(limit, memory)
    };
    match &mut cursor.kind {
        Kind::Merged(_) => get_more_merged(d, context, cursor, batch, deadline),
        Kind::Documents(documents) => {
            cursors::take(documents, &mut batch);
            cursor.last_batch = batch.bytes();
            let open = !documents.is_empty();
            let reply = batch.reply(None, if open { id } else { 0 }, &cursor.namespace);
            if open {
                m.cursors.put_back(cursor);
            }
            Ok(Answer::Reply(reply))
        }
        Kind::ChangeStream(stream) => {
            // An error ends the cursor: it is not put back.
            let continues = stream.fill(m, &profile, &mut batch)?;
            cursor.last_batch = batch.bytes();
            if batch.is_empty() && continues == Continues::Yes && context.now < deadline {
                m.cursors.put_back(cursor);
                return Ok(Answer::Wait(Wait::GetMore { deadline }));
            }
            let token = stream.token().clone();
            let open = if continues == Continues::Yes { id } else { 0 };
            let told = Some(token.as_ref()).filter(|_| profile.post_batch_token);
            let reply = batch.reply(told, open, &cursor.namespace);
            if open == 0 {
                return Ok(Answer::MajorityRead(reply));
            }
            m.cursors.put_back(cursor);
            match context.request.form {
                Form::Msg { exhaust: true, .. } if profile.exhaust => {
                    let deadline = context.now + await_time(context)?.max(Duration::from_millis(1));
                    Ok(Answer::MajorityStreaming(reply, Wait::GetMore { deadline }))
                }
                Form::Msg { .. } | Form::Query => Ok(Answer::MajorityRead(reply)),
            }
        }
    }
}

/// Whether a getMore of a member that waits has still nothing to tell.
pub(super) fn waits_on(d: &mut Deployment, context: &Context<'_>, deadline: Instant) -> bool {
    let (Ok(id), Some(m)) = (cursor_id(context), d.members.get_mut(context.member)) else {
        return false;
    };
    let committed = m.commit_ts();
    let Some(cursor) = m.cursors.get_mut(id) else {
        return false;
    };
    cursor.last_used = context.now;
    match &cursor.kind {
        Kind::ChangeStream(stream) => context.now < deadline && stream.has_seen_all(committed, &m.log),
        Kind::Documents(_) | Kind::Merged(_) => false,
    }
}

/// When a getMore that waits has to be looked at again, though there is no news: what is read from is not idle, however
/// long the read takes.
pub(super) fn next_look(now: Instant, deadline: Instant) -> Instant {
    deadline.min(now + cursors::IDLE_TIMEOUT / 2)
}

/// What the fail point `failGetMoreAfterCursorCheckout` does: the cursor is found, and lost.
pub(super) fn fail_checked_out(d: &mut Deployment, context: &Context<'_>, code: i32) -> Result {
    let id = cursor_id(context)?;
    check(d, context, id)?;
    if let Some(m) = d.members.get_mut(context.member) {
        m.cursors.kill(id);
    }
    let mut error = CommandError::new(code, "Hit the 'failGetMoreAfterCursorCheckout' failpoint");
    error.code_name = super::name_of(d, code);
    Err(error)
}

/// The same of a mongos' change stream. The cursor is out of its place; an error leaves it there.
fn get_more_merged(
    d: &mut Deployment,
    context: &Context<'_>,
    mut cursor: Cursor,
    mut batch: Batch,
    deadline: Instant,
) -> Result {
    let (Some(cluster), Kind::Merged(stream)) = (&mut d.cluster, &mut cursor.kind) else {
        return Err(not_found(cursor.id));
    };
    let continues = stream.fill(cluster, context.member, context.now, &d.profile, &mut batch)?;
    cursor.last_batch = batch.bytes();
    let id = match continues {
        Continues::Yes => cursor.id,
        Continues::No => 0,
    };
    let waits = batch.is_empty() && id != 0 && context.now < deadline;
    // A mongos knows no exhaust cursors: the flag is without effect.
    let told = Some(stream.token()).filter(|_| d.profile.post_batch_token);
    let reply = batch.reply(told, id, &cursor.namespace);
    if let (Some(m), true) = (d.members.get_mut(context.member), id != 0) {
        m.cursors.put_back(cursor);
    }
    if waits {
        return Ok(Answer::Wait(Wait::GetMore { deadline }));
    }
    Ok(Answer::MajorityRead(reply))
}

pub(super) fn kill_cursors(d: &mut Deployment, context: &Context<'_>) -> Result {
    documents::collection(context)?;
    let ids = context
        .body()
        .get_array("cursors")
        .map_err(|_| CommandError::new(9, "Field 'cursors' must be of type array in: { killCursors }"))?;
    let (mut killed, mut not_found) = (Vec::new(), Vec::new());
    for id in ids {
        let Bson::Int64(n) = id else {
            return Err(CommandError::new(
                9,
                "Field 'cursors' contains an element that is not of type long",
            ));
        };
        let found = d
            .members
            .get_mut(context.member)
            .is_some_and(|m| m.cursors.kill(*n));
        if found {
            killed.push(id.clone())
        } else {
            not_found.push(id.clone())
        }
    }
    Ok(Answer::Reply(Reply::fields(&doc! {
        "cursorsKilled": killed,
        "cursorsNotFound": not_found,
        "cursorsAlive": [],
        "cursorsUnknown": [],
    })))
}

/// Opens a cursor; its id.
pub(super) fn open(d: &mut Deployment, context: &Context<'_>, namespace: &str, kind: Kind) -> i64 {
    let user = d
        .connection(context.connection)
        .and_then(|c| c.user().map(str::to_owned));
    let session = context.body().get_document("lsid").ok().map(session_key);
    let Some(m) = d.members.get_mut(context.member) else {
        return 0;
    };
    m.cursors.retain(|c| !c.is_expired(context.now));
    let id = loop {
        let id = i64::try_from(d.random.next_u64() >> 1).unwrap_or(1);
        if id != 0 && !m.cursors.contains(id) {
            break id;
        }
    };
    let namespace = namespace.to_owned();
    m.cursors.open(Cursor {
        id,
        namespace,
        kind,
        session,
        user,
        last_used: context.now,
        last_batch: 0,
    });
    id
}

fn cursor_id(context: &Context<'_>) -> Result<i64> {
    match context.body().get("getMore") {
        Some(Bson::Int64(id)) => Ok(*id),
        Some(other) => Err(CommandError::new(
            14,
            format!(
                "Field 'getMore' must be of type long in: {{ getMore }}, but is {}",
                documents::type_name(other)
            ),
        )),
        None => Err(not_found(0)),
    }
}

fn check(d: &Deployment, context: &Context<'_>, id: i64) -> Result<()> {
    let m = d.members.get(context.member);
    let cursor = m
        .and_then(|m| m.cursors.get(id))
        .filter(|c| !c.is_expired(context.now))
        .ok_or_else(|| not_found(id))?;
    let coll = context.body().get_str("collection").unwrap_or("");
    let asked = format!("{}.{coll}", context.db());
    if asked != cursor.namespace {
        return Err(CommandError::new(
            13,
            format!(
                "Requested getMore on namespace '{asked}', but cursor belongs to a different namespace {}",
                cursor.namespace
            ),
        ));
    }
    let user = d.connection(context.connection).and_then(|c| c.user());
    if user != cursor.user.as_deref() {
        return Err(CommandError::new(
            13,
            format!(
                "cursor id {} was not created by the authenticated user",
                cursor.id
            ),
        ));
    }
    let session = context.body().get_document("lsid").ok().map(session_key);
    match (&cursor.session, &session) {
        (Some(_), None) => Err(CommandError::new(
            50736,
            format!("Cannot run getMore on cursor {id}, which was created in a session, without an lsid"),
        )),
        (None, Some(_)) => Err(CommandError::new(
            50737,
            format!("Cannot run getMore on cursor {id}, which was not created in a session, in a session"),
        )),
        (Some(a), Some(b)) if a != b => Err(CommandError::new(
            50738,
            format!("Cannot run getMore on cursor {id}, which was created in another session"),
        )),
        (Some(_), Some(_)) | (None, None) => {
            if matches!(cursor.kind, Kind::Documents(_)) && context.body().contains_key("maxTimeMS") {
                return Err(CommandError::new(
                    2,
                    "cannot set maxTimeMS on getMore command for a non-awaitData cursor",
                ));
            }
            Ok(())
        }
    }
}

fn await_time(context: &Context<'_>) -> Result<Duration> {
    let millis = documents::count(context.body(), "maxTimeMS")?;
    Ok(Duration::from_millis(
        millis
            .filter(|ms| *ms > 0)
            .unwrap_or(DEFAULT_AWAIT_MILLIS)
            .min(MAX_AWAIT_MILLIS),
    ))
}

fn batch_size(context: &Context<'_>) -> Result<Option<u64>> {
    match documents::count(context.body(), "batchSize")? {
        Some(0) => Err(CommandError::new(
            2,
            "Batch size for getMore must be positive, but received: 0",
        )),
        size => Ok(size),
    }
}

fn not_found(id: i64) -> CommandError {
    CommandError::new(43, format!("cursor id {id} not found"))
}

/// How long an awaitData getMore waits without maxTimeMS.
const DEFAULT_AWAIT_MILLIS: u64 = 1000;
/// A day.
const MAX_AWAIT_MILLIS: u64 = 86_400_000;
