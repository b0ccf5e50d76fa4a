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
    let Some(conversation) = connection.conversation.take() else {
        return Err(CommandError::new(17, "No SASL session state found"));
    };
    let (step, rest) = match conversation {
        Conversation::Scram(mut scram) => {
            let step = scram.next(&payload)?;
            (step, Some(Conversation::Scram(scram)))
        }
        Conversation::Aws(aws) => {
            let login = d
                .config
                .external
                .log_in_aws(&aws, &payload, d.wall(context.now))?;
            (Step::done(login), None)
        }
        Conversation::Oidc { provider, principal } => {
            let oidc = &d.config.external.oidc;
            let login = oidc.log_in_at(provider, principal.as_deref(), &payload, context.now)?;
            (Step::done(login), None)
        }
    };
    Ok(Answer::Reply(Reply::fields(&conclude(d, context, step, rest))))
}

/// MONGODB-X509.
pub(super) fn authenticate(d: &mut Deployment, context: &Context<'_>) -> Result {
    let step = certify(d, context, context.body(), context.db())?;
    Ok(Answer::Reply(Reply::fields(&step)))
}

pub(super) fn logout(d: &mut Deployment, context: &Context<'_>) -> Result {
    if let Some(connection) = d.connection_mut(context.connection) {
        connection.log_out();
    }
    Ok(Answer::Reply(Reply::ok()))
}

pub(super) fn connection_status(d: &mut Deployment, context: &Context<'_>) -> Result {
    let login = d.connection(context.connection).and_then(|c| c.login().cloned());
    let users: Vec<Bson> = login
        .into_iter()
        .map(|login| doc! { "user": login.user.as_str(), "db": login.source() }.into())
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
    if command.contains_key("authenticate") {
        return certify(d, context, command, &db).ok();
    }
    start(d, context, command, &db).ok()
}

fn start(d: &mut Deployment, context: &Context<'_>, command: &Document, db: &str) -> Result<Document> {
    let payload = payload(command)?;
    let mechanism = command.get_str("mechanism").unwrap_or("");
    let external = &d.config.external;
    let (step, conversation) = match (db, mechanism) {
        ("$external", "PLAIN") => (Step::done(external.log_in_plain(&payload)?), None),
        ("$external", "MONGODB-AWS") => Conversation::aws(&payload, &mut d.random)?,
        ("$external", "MONGODB-OIDC") => Conversation::oidc(external, &payload, context.now)?,
        (_, _) => {
            let skip = command
                .get_document("options")
                .is_ok_and(|o| o.get_bool("skipEmptyExchange").unwrap_or(false));
            let users = if db == "admin" { d.users.as_slice() } else { &[] };
            Conversation::scram(users, mechanism, &payload, skip, &mut d.random)?
        }
    };
    Ok(conclude(d, context, step, conversation))
}

fn certify(d: &mut Deployment, context: &Context<'_>, command: &Document, db: &str) -> Result<Document> {
    if db != "$external" || !matches!(command.get_str("mechanism"), Ok("MONGODB-X509")) {
        return Err(CommandError::new(
            334,
            "Received authentication for a mechanism which is not enabled",
        ));
    }
    let external = &d.config.external;
    let subject = d
        .connection(context.connection)
        .and_then(|c| c.subject.as_deref());
    let login = external.log_in_x509(subject, command.get_str("user").ok())?;
    let user = login.user.clone();
    if let Some(connection) = d.connection_mut(context.connection) {
        connection.log_in(login);
    }
    Ok(doc! { "dbname": "$external", "user": user })
}

/// The answer to a step; the connection is the user's, or the conversation goes on.
fn conclude(
    d: &mut Deployment,
    context: &Context<'_>,
    step: Step,
    conversation: Option<Conversation>,
) -> Document {
    let done = step.login.is_some();
    if let Some(connection) = d.connection_mut(context.connection) {
        match step.login {
            Some(login) => connection.log_in(login),
            None => connection.conversation = conversation,
        }
    }
    doc! {
        "conversationId": 1,
        "done": done,
        "payload": Binary { subtype: BinarySubtype::Generic, bytes: step.payload },
    }
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
