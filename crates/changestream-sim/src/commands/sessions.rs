//! Sessions, and the ends of transactions.

use std::time::Duration;

use bson::spec::BinarySubtype;
use bson::{Binary, DateTime, Document, doc};

use super::{Answer, Context, Result, documents};
use crate::catalog::session_key;
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::reply::Reply;
use crate::transactions;

pub(super) fn start(d: &mut Deployment, _: &Context<'_>) -> Result {
    let id = Binary {
        subtype: BinarySubtype::Uuid,
        bytes: uuid(d).to_vec(),
    };
    Ok(Answer::Reply(Reply::fields(
        &doc! { "id": { "id": id }, "timeoutMinutes": 30 },
    )))
}

/// Remembers that the command's session is in use.
pub(super) fn touch(d: &mut Deployment, context: &Context<'_>) -> Result<()> {
    match context.body().get_document("lsid") {
        Ok(lsid) => remember(d, context, lsid.clone()),
        Err(_) => Ok(()),
    }
}

fn remember(d: &mut Deployment, context: &Context<'_>, lsid: Document) -> Result<()> {
    let key = session_key(&lsid);
    let lsid = transactions::with_owner(d, context, &lsid);
    let Some(m) = d.members.get_mut(context.member) else {
        return Ok(());
    };
    if m.sessions.len() >= MAX_SESSIONS && !m.sessions.contains_key(&key) {
        m.sessions
            .retain(|_, (_, used)| context.now.saturating_duration_since(*used) < TIMEOUT);
        if m.sessions.len() >= MAX_SESSIONS {
            return Err(CommandError::new(
                261,
                "Unable to add session into the cache because the number of active sessions is too high",
            ));
        }
    }
    m.sessions.insert(key, (lsid, context.now));
    Ok(())
}

/// What the stage `$listLocalSessions` yields.
pub(super) fn list_local(d: &Deployment, context: &Context<'_>) -> Vec<Document> {
    let Some(m) = d.members.get(context.member) else {
        return Vec::new();
    };
    let living = m
        .sessions
        .values()
        .filter(|(_, used)| context.now.saturating_duration_since(*used) < TIMEOUT);
    living
        .map(|(lsid, used)| doc! { "_id": lsid.clone(), "lastUse": DateTime::from_millis(d.wall(*used)) })
        .collect()
}

pub(super) fn refresh(d: &mut Deployment, context: &Context<'_>) -> Result {
    for lsid in documents::documents(context.body(), "refreshSessions")? {
        remember(d, context, lsid)?;
    }
    Ok(Answer::Reply(Reply::ok()))
}

pub(super) fn end(d: &mut Deployment, context: &Context<'_>) -> Result {
    forget(d, context, &documents::documents(context.body(), "endSessions")?)
}

pub(super) fn kill(d: &mut Deployment, context: &Context<'_>) -> Result {
    forget(d, context, &documents::documents(context.body(), "killSessions")?)
}

pub(super) fn kill_all(d: &mut Deployment, context: &Context<'_>) -> Result {
    if let Some(m) = d.members.get_mut(context.member) {
        m.transactions.clear();
        m.sessions.clear();
        m.routed.clear();
        m.cursors.retain(|cursor| cursor.session.is_none());
    }
    Ok(Answer::Reply(Reply::ok()))
}

pub(super) fn commit_transaction(d: &mut Deployment, context: &Context<'_>) -> Result {
    d.check_role(context, super::Needs::Write)?;
    let optime = transactions::commit(d, context)?;
    Ok(Answer::Written(Reply::ok(), optime))
}

pub(super) fn abort_transaction(d: &mut Deployment, context: &Context<'_>) -> Result {
    d.check_role(context, super::Needs::Write)?;
    transactions::abort(d, context)?;
    Ok(Answer::Reply(Reply::ok()))
}

/// A session's end takes its cursors and its transaction with it.
fn forget(d: &mut Deployment, context: &Context<'_>, sessions: &[Document]) -> Result {
    for key in sessions.iter().map(session_key) {
        d.forget_routed(context, &key);
        if let Some(m) = d.members.get_mut(context.member) {
            m.transactions.remove(&key);
            m.sessions.remove(&key);
            m.cursors.retain(|cursor| cursor.session.as_ref() != Some(&key));
        }
    }
    Ok(Answer::Reply(Reply::ok()))
}

/// A random UUID (version 4).
pub(super) fn uuid(d: &mut Deployment) -> [u8; 16] {
    let mut bytes = [0; 16];
    d.random.fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

/// `localLogicalSessionTimeoutMinutes`.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// A server's `maxSessions` is ten times as many.
const MAX_SESSIONS: usize = 100_000;
