//! What administers a replica set.

use std::time::Duration;

use bson::{Bson, DateTime, Document, doc};

use super::{Answer, Context, Result};
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::failpoints::number;
use crate::member::Role;
use crate::reply::Reply;

pub(super) fn step_down(d: &mut Deployment, context: &Context<'_>) -> Result {
    in_set(d)?;
    d.check_role(context, super::Needs::Write)?;
    let seconds = seconds(context)?.unwrap_or(60);
    let force = super::documents::flag(context.body(), "force");
    if !force && !d.has_successor(context.member) {
        return Err(CommandError::new(
            262,
            "No electable secondaries caught up as of the deadline. Please use the replSetStepDown command with the \
             argument {force: true} to force node to step down.",
        ));
    }
    d.step_down_member(context.now, context.member, Duration::from_secs(seconds));
    Ok(Answer::Reply(Reply::ok()))
}

pub(super) fn freeze(d: &mut Deployment, context: &Context<'_>) -> Result {
    in_set(d)?;
    let seconds = seconds(context)?.unwrap_or(0);
    let Some(m) = d.members.get_mut(context.member) else {
        return Ok(Answer::Reply(Reply::ok()));
    };
    if m.role == Role::Primary {
        return Err(CommandError::new(
            95,
            "cannot freeze node when primary or running for election. state: Primary",
        ));
    }
    m.frozen_until = (seconds > 0).then(|| context.now + Duration::from_secs(seconds));
    Ok(Answer::Reply(Reply::ok()))
}

pub(super) fn get_config(d: &mut Deployment, _: &Context<'_>) -> Result {
    let name = in_set(d)?;
    let members: Vec<Bson> = d
        .members
        .iter()
        .enumerate()
        .map(|(i, m)| {
            doc! {
                "_id": i32::try_from(i).unwrap_or(i32::MAX),
                "host": m.address.as_str(),
                "arbiterOnly": false,
                "buildIndexes": true,
                "hidden": false,
                "priority": 1.0,
                "tags": {},
                "slaveDelay": 0_i64,
                "votes": 1,
            }
            .into()
        })
        .collect();
    Ok(Answer::Reply(Reply::fields(&doc! {
        "config": {
            "_id": name,
            "version": 1,
            "term": d.members.iter().map(|m| m.term).max().unwrap_or(0),
            "protocolVersion": 1_i64,
            "writeConcernMajorityJournalDefault": true,
            "members": members,
            "settings": { "chainingAllowed": true, "electionTimeoutMillis": 10_000 },
        },
    })))
}

pub(super) fn get_status(d: &mut Deployment, context: &Context<'_>) -> Result {
    let name = in_set(d)?;
    let Some(me) = d.members.get(context.member) else {
        return Ok(Answer::Reply(Reply::ok()));
    };
    let members: Vec<Bson> = d
        .members
        .iter()
        .enumerate()
        .map(|(i, m)| Bson::Document(member_status(d, context, i, m)))
        .collect();
    Ok(Answer::Reply(Reply::fields(&doc! {
        "set": name,
        "date": DateTime::from_millis(d.wall(context.now)),
        "myState": state(me.role).0,
        "term": me.term,
        "heartbeatIntervalMillis": 2000_i64,
        "majorityVoteCount": i32::try_from(d.majority()).unwrap_or(i32::MAX),
        "optimes": {
            "lastCommittedOpTime": me.commit_point.unwrap_or_else(|| me.last_applied()).to_document(),
            "appliedOpTime": me.last_applied().to_document(),
        },
        "members": members,
    })))
}

fn member_status(d: &Deployment, context: &Context<'_>, index: usize, m: &crate::member::Member) -> Document {
    let reached = d.connected(context.member, index);
    let (number, text) = if reached { state(m.role) } else { state(Role::Down) };
    let mut status = doc! {
        "_id": i32::try_from(index).unwrap_or(i32::MAX),
        "name": m.address.as_str(),
        "health": if reached { 1.0 } else { 0.0 },
        "state": number,
        "stateStr": text,
        "optime": m.last_applied().to_document(),
    };
    if index == context.member {
        status.insert("self", true);
    }
    status
}

fn state(role: Role) -> (i32, &'static str) {
    match role {
        Role::Primary => (1, "PRIMARY"),
        Role::Secondary => (2, "SECONDARY"),
        Role::Down => (8, "(not reachable/healthy)"),
        Role::Standalone | Role::Mongos => (0, "STARTUP"),
    }
}

fn in_set(d: &Deployment) -> Result<String> {
    d.set_name
        .clone()
        .ok_or_else(|| CommandError::new(76, "not running with --replSet"))
}

fn seconds(context: &Context<'_>) -> Result<Option<u64>> {
    let given = context.body().get(context.request.name()).and_then(number);
    given
        .map(|n| u64::try_from(n).map(|n| n.min(MAX_SECONDS)))
        .transpose()
        .map_err(|_| CommandError::new(2, "stepdown period must be a positive integer"))
}

/// Ten years.
const MAX_SECONDS: u64 = 315_360_000;
