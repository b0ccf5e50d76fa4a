//! hello and its older names, answered at once or when the topology changes.

use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, doc};
use changestream_core::wire::Compressor;

use super::{Answer, Context, Result, access};
use crate::connection::Form;
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::failpoints::number;
use crate::member::{Member, Passing, Role};
use crate::reply::Reply;
use crate::wait::Wait;

pub(super) fn hello(d: &mut Deployment, context: &Context<'_>) -> Result {
    let body = context.body();
    if d.is_load_balanced() && !super::documents::flag(body, "loadBalanced") {
        return Err(CommandError::new(
            354,
            "The server is being accessed through a load balancer, but this driver does not have load balancing enabled",
        ));
    }
    shake_hands(d, context);
    let Some((seen, await_time)) = awaited(d, body)? else {
        return Ok(Answer::Reply(reply(d, context, None)));
    };
    let deadline = context.now + await_time;
    if seen == version(d, context) {
        return Ok(Answer::Wait(Wait::Hello { deadline, seen }));
    }
    answer(d, context, await_time, None)
}

/// A hello that waited: answered if the topology version moved or its time is over.
pub(super) fn continue_hello(
    d: &mut Deployment,
    context: &Context<'_>,
    deadline: Instant,
    seen: (ObjectId, i64),
) -> Result {
    if seen == version(d, context) && context.now < deadline {
        return Ok(Answer::Wait(Wait::Hello { deadline, seen }));
    }
    let await_time = awaited(d, context.body())?.map_or(Duration::ZERO, |(_, time)| time);
    // Who waited is told of each standing that the member passed through.
    let passing = d.members.get(context.member).and_then(|m| m.passed_after(seen));
    answer(d, context, await_time, passing)
}

fn answer(
    d: &mut Deployment,
    context: &Context<'_>,
    await_time: Duration,
    passing: Option<Passing>,
) -> Result {
    let mut seen = version(d, context);
    seen.1 = passing.map_or(seen.1, |passing| passing.counter);
    let reply = reply(d, context, passing);
    match context.request.form {
        Form::Msg { exhaust: true, .. } => {
            // An await time of zero would answer without end.
            let deadline = context.now + await_time.max(Duration::from_millis(1));
            Ok(Answer::Streaming(reply, Wait::Hello { deadline, seen }))
        }
        Form::Msg { exhaust: false, .. } | Form::Query => Ok(Answer::Reply(reply)),
    }
}

/// The topology version that the client knows, and how long it wants to wait for another.
fn awaited(d: &Deployment, body: &Document) -> Result<Option<((ObjectId, i64), Duration)>> {
    if !d.profile.streams_hello {
        return Ok(None);
    }
    match (
        body.get_document("topologyVersion").ok(),
        body.get("maxAwaitTimeMS").and_then(number),
    ) {
        (None, None) => Ok(None),
        (Some(seen), Some(millis)) => {
            let id = seen.get_object_id("processId").map_err(|_| malformed())?;
            let counter = seen.get("counter").and_then(number).ok_or_else(malformed)?;
            let millis = u64::try_from(millis)
                .map_err(|_| CommandError::new(31373, "maxAwaitTimeMS must be a non-negative integer"))?;
            Ok(Some((
                (id, counter),
                Duration::from_millis(millis.min(MAX_AWAIT_MILLIS)),
            )))
        }
        (Some(_), None) => Err(CommandError::new(
            31368,
            "A request with a 'topologyVersion' must include 'maxAwaitTimeMS'",
        )),
        (None, Some(_)) => Err(CommandError::new(
            31368,
            "A request with 'maxAwaitTimeMS' must include a 'topologyVersion'",
        )),
    }
}

fn malformed() -> CommandError {
    CommandError::new(14, "BSON field 'topologyVersion' is malformed")
}

fn version(d: &Deployment, context: &Context<'_>) -> (ObjectId, i64) {
    d.members.get(context.member).map_or_else(
        || (ObjectId::from_bytes([0; 12]), 0),
        |m| (m.process_id, m.topology_counter),
    )
}

fn shake_hands(d: &mut Deployment, context: &Context<'_>) {
    let offered = offered(context.body());
    let known = d.config.compressors.clone();
    let Some(connection) = d.connection_mut(context.connection) else {
        return;
    };
    connection.handshaken = true;
    if let Some(offered) = offered {
        // In the client's order, which is the server's answer too.
        connection.compressors = offered.into_iter().filter(|c| known.contains(c)).collect();
    }
    if let Some(name) = application(context.body()) {
        connection.app_name = Some(name.to_owned());
    }
}

/// The name of the client's application.
pub(super) fn application(body: &Document) -> Option<&str> {
    let client = body.get_document("client").ok()?;
    client.get_document("application").ok()?.get_str("name").ok()
}

/// The compressors that a client offers, in its order; none where it does not speak of them.
fn offered(body: &Document) -> Option<Vec<Compressor>> {
    let names = body.get_array("compression").ok()?;
    let known = names
        .iter()
        .filter_map(|name| Compressor::from_name(name.as_str()?));
    Some(known.collect())
}

fn reply(d: &mut Deployment, context: &Context<'_>, passing: Option<Passing>) -> Reply {
    let Some(m) = d.members.get(context.member) else {
        return Reply::ok();
    };
    let body = context.body();
    if m.role == Role::Mongos {
        let hello = of_mongos(d, context, m);
        return with_negotiated(d, context, hello);
    }
    let mut reply = Document::new();
    let modern = context.request.name() == "hello";
    let writable = if modern { "isWritablePrimary" } else { "ismaster" };
    if m.role == Role::Standalone {
        reply.insert(writable, true);
    }
    if d.profile.hello && super::documents::flag(body, "helloOk") {
        reply.insert("helloOk", true);
    }
    if d.profile.streams_hello {
        let counter = passing.map_or(m.topology_counter, |passing| passing.counter);
        reply.insert(
            "topologyVersion",
            doc! { "processId": m.process_id, "counter": counter },
        );
    }
    if let Some(name) = &d.set_name {
        replica_set_fields(d, m, name, writable, passing, &mut reply);
    }
    let number = d.connection(context.connection).map_or(0, |c| c.number);
    reply.extend(doc! {
        "maxBsonObjectSize": 16 << 20,
        "maxMessageSizeBytes": 48_000_000,
        "maxWriteBatchSize": 100_000,
        "localTime": DateTime::from_millis(d.wall(context.now)),
        "logicalSessionTimeoutMinutes": 30,
        "connectionId": number,
        "minWireVersion": 0,
        "maxWireVersion": d.profile.max_wire_version,
        "readOnly": false,
    });
    with_negotiated(d, context, reply)
}

/// The fields of a mongos, in its own order.
fn of_mongos(d: &Deployment, context: &Context<'_>, m: &Member) -> Document {
    let mut reply = Document::new();
    if d.profile.hello && super::documents::flag(context.body(), "helloOk") {
        reply.insert("helloOk", true);
    }
    let modern = context.request.name() == "hello";
    reply.insert(if modern { "isWritablePrimary" } else { "ismaster" }, true);
    let number = d.connection(context.connection).map_or(0, |c| c.number);
    reply.extend(doc! {
        "msg": "isdbgrid",
        "maxBsonObjectSize": 16 << 20,
        "maxMessageSizeBytes": 48_000_000,
        "maxWriteBatchSize": 100_000,
        "localTime": DateTime::from_millis(d.wall(context.now)),
        "logicalSessionTimeoutMinutes": 30,
        "connectionId": number,
        "maxWireVersion": d.profile.max_wire_version,
        "minWireVersion": 0,
    });
    if d.profile.streams_hello {
        reply.insert("topologyVersion", m.topology_version());
    }
    if d.is_load_balanced() {
        reply.insert("serviceId", m.process_id);
    }
    reply
}

/// The same, with what this connection has agreed on.
fn with_negotiated(d: &mut Deployment, context: &Context<'_>, mut reply: Document) -> Reply {
    let body = context.body();
    let agreed = d
        .connection(context.connection)
        .map_or(&[][..], |c| &c.compressors);
    if !agreed.is_empty() {
        let names: Vec<&str> = agreed.iter().map(|compressor| compressor.as_str()).collect();
        reply.insert("compression", names);
    }
    if let Ok(name) = body.get_str("saslSupportedMechs")
        && let Some(mechanisms) = access::supported_mechanisms(d, name)
    {
        reply.insert("saslSupportedMechs", mechanisms);
    }
    if let Ok(start) = body.get_document("speculativeAuthenticate")
        && let Some(answer) = access::speculate(d, context, start)
    {
        reply.insert("speculativeAuthenticate", answer);
    }
    Reply::fields(&reply)
}

fn replica_set_fields(
    d: &Deployment,
    m: &Member,
    name: &str,
    writable: &str,
    passing: Option<Passing>,
    reply: &mut Document,
) {
    let hosts: Vec<Bson> = d.members.iter().map(|m| Bson::from(m.address.as_str())).collect();
    let (primary, secondary, election_id) = match passing {
        Some(passing) => (false, passing.secondary, Some(passing.election_id)),
        None => {
            let primary = m.role == Role::Primary;
            let election_id = primary.then(|| m.election_id());
            (primary, m.role == Role::Secondary, election_id)
        }
    };
    reply.insert("hosts", hosts);
    reply.insert("setName", name);
    reply.insert("setVersion", 1);
    reply.insert(writable, primary);
    reply.insert("secondary", secondary);
    let known = m.known_primary.and_then(|p| d.members.get(p));
    // Between the roles it is its own primary.
    if let Some(known) = known.filter(|_| passing.is_none()).or_else(|| passing.map(|_| m)) {
        reply.insert("primary", known.address.as_str());
    }
    reply.insert("me", m.address.as_str());
    if let Some(id) = election_id {
        reply.insert("electionId", id);
    }
    let applied = m.last_applied();
    let committed = m.commit_point.unwrap_or(applied);
    let date = |ts: bson::Timestamp| DateTime::from_millis(i64::from(ts.time) * 1000);
    reply.insert(
        "lastWrite",
        doc! {
            "opTime": applied.to_document(),
            "lastWriteDate": date(applied.ts),
            "majorityOpTime": committed.to_document(),
            "majorityWriteDate": date(committed.ts),
        },
    );
}

/// A day: no driver waits longer.
const MAX_AWAIT_MILLIS: u64 = 86_400_000;
