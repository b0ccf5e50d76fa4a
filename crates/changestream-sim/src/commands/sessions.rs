//! Sessions, and the ends of transactions.

use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};

use super::{Answer, Context, Result, documents};
use crate::catalog::session_key;
use crate::deployment::Deployment;
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

pub(super) fn refresh(_: &mut Deployment, _: &Context<'_>) -> Result {
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
        m.routed.clear();
        m.cursors.retain(|_, cursor| cursor.session.is_none());
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
            m.cursors
                .retain(|_, cursor| cursor.session.as_ref() != Some(&key));
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
