//! Write concerns: when a write's reply may leave.

use std::time::Duration;

use bson::raw::{RawDocumentBuf, cstr};
use bson::{Bson, Document, doc};

use super::{Context, labels};
use crate::deployment::Deployment;
use crate::failpoints::number;
use crate::member::Role;
use crate::oplog::OpTime;
use crate::reply::{Reply, raw};
use crate::sharding::Point;
use crate::wait::Wait;

/// The reply, if the write concern is met already, else what to wait for.
pub(super) fn begin(
    d: &mut Deployment,
    context: &Context<'_>,
    reply: Reply,
    optime: OpTime,
) -> Result<Reply, Wait> {
    let concern = context
        .body()
        .get_document("writeConcern")
        .cloned()
        .unwrap_or_default();
    let timeout = concern
        .get("wtimeout")
        .and_then(number)
        .and_then(|ms| u64::try_from(ms).ok());
    let deadline = timeout
        .filter(|ms| *ms > 0)
        .map(|ms| context.now + Duration::from_millis(ms));
    if d.cluster.is_some() {
        let points = d.take_written();
        return check_shards(d, context, reply, points, deadline);
    }
    check(d, context, reply, optime, deadline)
}

/// The same of a write through a mongos: each shard that took part has to meet the concern.
pub(super) fn check_shards(
    d: &Deployment,
    context: &Context<'_>,
    mut reply: Reply,
    mut points: Vec<Point>,
    deadline: Option<std::time::Instant>,
) -> Result<Reply, Wait> {
    while let Some(point) = points.last().copied() {
        let shard = d
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.shards.get(point.shard));
        if let Some(shard) = shard {
            let context = Context {
                member: point.member,
                ..*context
            };
            let failed_before = matches!(&reply, Reply::Success(body) if body.get("writeConcernError").is_ok_and(|e| e.is_some()));
            if failed_before {
                return Ok(reply);
            }
            reply = match check(shard, &context, reply, point.optime, deadline) {
                Ok(reply) => reply,
                Err(Wait::WriteConcern { reply, .. }) => {
                    return Err(Wait::ShardWriteConcern {
                        reply,
                        points,
                        deadline,
                    });
                }
                Err(wait) => return Err(wait),
            };
        }
        points.pop();
    }
    Ok(reply)
}

/// The same, later.
pub(super) fn check(
    d: &Deployment,
    context: &Context<'_>,
    reply: Reply,
    optime: OpTime,
    deadline: Option<std::time::Instant>,
) -> Result<Reply, Wait> {
    let Some(m) = d.members.get(context.member) else {
        return Ok(reply);
    };
    let fail = |reply: Reply, error: Document| match reply {
        Reply::Success(body) => with_error(d, context, body, error, None),
        Reply::Cursor(cursor) => with_error(d, context, cursor.document(), error, None),
        failure @ Reply::Failure(_) => failure,
    };
    if m.role == Role::Standalone {
        return Ok(reply);
    }
    let needed = match members_needed(d, context) {
        Ok(needed) => needed,
        Err(error) => return Ok(fail(reply, error)),
    };
    let reached = match needed {
        Needed::Majority => m.commit_point >= Some(optime),
        Needed::Members(n) => {
            let holders = d.members.iter().enumerate().filter(|(i, other)| {
                d.connected(context.member, *i)
                    && other.last_applied().ts >= optime.ts
                    && (*i == context.member || other.log.contains(optime))
            });
            holders.count() >= n
        }
    };
    if reached {
        return Ok(reply);
    }
    if m.role != Role::Primary || !m.log.contains(optime) {
        let code_name = "InterruptedDueToReplStateChange";
        let errmsg = "operation was interrupted";
        return Ok(fail(
            reply,
            doc! { "code": 11602, "codeName": code_name, "errmsg": errmsg },
        ));
    }
    if deadline.is_some_and(|deadline| deadline <= context.now) {
        let concern = context
            .body()
            .get_document("writeConcern")
            .cloned()
            .unwrap_or_default();
        let error = doc! {
            "code": 64,
            "codeName": "WriteConcernFailed",
            "errmsg": "waiting for replication timed out",
            "errInfo": { "wtimeout": true, "writeConcern": concern },
        };
        return Ok(fail(reply, error));
    }
    Err(Wait::WriteConcern {
        reply,
        optime,
        deadline,
    })
}

/// A success with a `writeConcernError`.
pub(super) fn with_error(
    d: &Deployment,
    context: &Context<'_>,
    mut body: RawDocumentBuf,
    error: Document,
    given_labels: Option<Vec<String>>,
) -> Reply {
    let code = error
        .get("code")
        .and_then(number)
        .and_then(|c| i32::try_from(c).ok())
        .unwrap_or(0);
    let retryable =
        d.profile.labels_errors && labels::is_retryable_write(context) && labels::is_retriable(code);
    let labels = given_labels.unwrap_or_else(|| {
        if retryable {
            vec!["RetryableWriteError".to_owned()]
        } else {
            Vec::new()
        }
    });
    body.append(cstr!("writeConcernError"), raw(&error));
    if !labels.is_empty() {
        let labels = labels.into_iter().collect::<bson::raw::RawArrayBuf>();
        body.append(cstr!("errorLabels"), labels);
    }
    Reply::Success(body)
}

enum Needed {
    Majority,
    Members(usize),
}

fn members_needed(d: &Deployment, context: &Context<'_>) -> Result<Needed, Document> {
    let concern = context.body().get_document("writeConcern").ok();
    match concern.and_then(|c| c.get("w")) {
        None if d.profile.default_majority => Ok(Needed::Majority),
        None => Ok(Needed::Members(1)),
        Some(Bson::String(mode)) if mode == "majority" => Ok(Needed::Majority),
        Some(Bson::String(mode)) => Err(doc! {
            "code": 79,
            "codeName": "UnknownReplWriteConcern",
            "errmsg": format!("No write concern mode named '{mode}' found in replica set configuration"),
        }),
        Some(w) => {
            let n = number(w).and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
            if n > d.members.len() {
                return Err(doc! {
                    "code": 100,
                    "codeName": "UnsatisfiableWriteConcern",
                    "errmsg": "Not enough data-bearing nodes",
                });
            }
            Ok(Needed::Members(n.max(1)))
        }
    }
}
