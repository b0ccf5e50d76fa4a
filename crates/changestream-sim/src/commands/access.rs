//! Authentication.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};

use super::{Answer, Context, Result};
use crate::auth::{Conversation, Step};
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::reply::Reply;

pub(super) fn sasl_start(d: &mut Deployment, context: &Context<'_>) -> Result {
    let step = start(d, context, context.body(), context.db())?;
    Ok(Answer::Reply(Reply::fields(&step)))
}

pub(super) fn sasl_continue(d: &mut Deployment, context: &Context<'_>) -> Result {
    let payload = payload(context.body())?;
    let Some(connection) = d.connection_mut(context.connection) else {
        return Ok(Answer::Reply(Reply::ok()));
    };
    let Some(mut conversation) = connection.conversation.take() else {
        return Err(CommandError::new(17, "No SASL session state found"));
    };
    let step = conversation.next(&payload)?;
    match step.user.clone() {
        Some(user) => connection.user = Some(user),
        None => connection.conversation = Some(conversation),
    }
    Ok(Answer::Reply(Reply::fields(&answer(step))))
}

pub(super) fn logout(d: &mut Deployment, context: &Context<'_>) -> Result {
    if let Some(connection) = d.connection_mut(context.connection) {
        connection.user = None;
    }
    Ok(Answer::Reply(Reply::ok()))
}

pub(super) fn connection_status(d: &mut Deployment, context: &Context<'_>) -> Result {
    let user = d.connection(context.connection).and_then(|c| c.user.clone());
    let users: Vec<Bson> = user
        .into_iter()
        .map(|user| doc! { "user": user, "db": "admin" }.into())
        .collect();
    let roles: Vec<Bson> = users
        .iter()
        .map(|_| doc! { "role": "root", "db": "admin" }.into())
        .collect();
    Ok(Answer::Reply(Reply::fields(&doc! {
        "authInfo": { "authenticatedUsers": users, "authenticatedUserRoles": roles },
    })))
}

/// The mechanisms of `db.user`; none for a user that does not exist.
pub(super) fn supported_mechanisms(d: &Deployment, name: &str) -> Option<Vec<Bson>> {
    let (db, name) = name.split_once('.')?;
    let user = d.users.iter().find(|u| db == "admin" && u.name == name)?;
    Some(
        user.mechanisms()
            .into_iter()
            .map(|m| Bson::from(m.name()))
            .collect(),
    )
}

/// Begins the conversation in the hello; what fails is silent, so that the client begins again.
pub(super) fn speculate(d: &mut Deployment, context: &Context<'_>, command: &Document) -> Option<Document> {
    let db = command.get_str("db").unwrap_or("").to_owned();
    start(d, context, command, &db).ok()
}

fn start(d: &mut Deployment, context: &Context<'_>, command: &Document, db: &str) -> Result<Document> {
    let payload = payload(command)?;
    let mechanism = command.get_str("mechanism").unwrap_or("");
    let skip = command
        .get_document("options")
        .is_ok_and(|o| o.get_bool("skipEmptyExchange").unwrap_or(false));
    let users = if db == "admin" { d.users.as_slice() } else { &[] };
    let (conversation, step) = Conversation::start(users, mechanism, &payload, skip, &mut d.random)?;
    if let Some(connection) = d.connection_mut(context.connection) {
        connection.conversation = Some(conversation);
    }
    Ok(answer(step))
}

fn payload(command: &Document) -> Result<Vec<u8>> {
    match command.get("payload") {
        Some(Bson::Binary(b)) => Ok(b.bytes.clone()),
        Some(Bson::String(s)) => Ok(s.clone().into_bytes()),
        _ => Err(CommandError::new(
            14,
            "BSON field 'payload' is missing or of the wrong type",
        )),
    }
}

fn answer(step: Step) -> Document {
    doc! {
        "conversationId": 1,
        "done": step.user.is_some(),
        "payload": Binary { subtype: BinarySubtype::Generic, bytes: step.payload },
    }
}
