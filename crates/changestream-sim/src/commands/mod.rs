//! Commands: the table, and what is the same for all of them before and after they run.

mod access;
mod api;
mod collections;
mod cursor;
mod diagnostics;
mod documents;
mod find_and_modify;
mod hello;
mod labels;
mod read;
mod replset;
mod sessions;
mod sharding;
mod table;
mod users;
mod watch;
mod write;
mod write_concern;
mod writer;

use std::time::{Duration, Instant};

use bson::{Bson, Document, Timestamp};

use crate::connection::Request;
use crate::deployment::{ConnectionId, Deployment};
use crate::error::CommandError;
use crate::failpoints::Fault;
use crate::member::Role;
use crate::oplog::OpTime;
use crate::reply::{Failure, Reply, Times};
use crate::transactions;
use crate::wait::Wait;

pub(crate) use labels::is_retriable;
use table::{COMMANDS, Command, Needs};

/// What a command runs with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) member: usize,
    pub(crate) connection: ConnectionId,
    pub(crate) request: &'a Request,
}

impl<'a> Context<'a> {
    pub(crate) fn body(&self) -> &'a Document {
        &self.request.body
    }

    pub(crate) fn db(&self) -> &'a str {
        self.request.db()
    }
}

/// What becomes of the connection.
pub(crate) enum Outcome {
    Reply(Reply, Option<Times>),
    /// A reply with `moreToCome`; the request goes on.
    ReplyAndGoOn(Reply, Option<Times>, Wait),
    Wait(Wait),
    /// A change stream has seen all that its member has to tell. Unless there is news, it need not be looked at before.
    Sleep {
        deadline: Instant,
        look: Instant,
    },
    Disconnect,
}

/// What a command answers.
pub(crate) enum Answer {
    Reply(Reply),
    /// The data is as of the commit point.
    MajorityRead(Reply),
    /// It wrote up to this point; the write concern is still to be met.
    Written(Reply, OpTime),
    Wait(Wait),
    Streaming(Reply, Wait),
    /// The same, as of the commit point.
    MajorityStreaming(Reply, Wait),
}

pub(crate) type Result<T = Answer> = std::result::Result<T, CommandError>;

/// Runs a request that has just arrived.
pub(crate) fn execute(d: &mut Deployment, context: &Context<'_>) -> Outcome {
    gossip(d, context);
    let app_name = app_name(d, context);
    let fault = d
        .members
        .get_mut(context.member)
        .and_then(|m| m.fail_points.fault(context.request.name(), app_name.as_deref()));
    match fault {
        Some(Fault {
            block: Some(duration),
            ..
        }) => Outcome::Wait(Wait::Blocked {
            until: context.now + duration,
            fault: Box::new(fault.unwrap_or_default()),
        }),
        Some(fault) => execute_faulty(d, context, &fault),
        None => run(d, context),
    }
}

/// The name that the client gave in its handshake; later servers heed one in the handshake itself.
fn app_name(d: &Deployment, context: &Context<'_>) -> Option<String> {
    let known = d.connection(context.connection).and_then(|c| c.app_name.clone());
    if known.is_some() || !d.profile.fails_handshakes_by_name {
        return known;
    }
    hello::application(context.body()).map(str::to_owned)
}

/// Takes up a request that waited.
pub(crate) fn resume(d: &mut Deployment, context: &Context<'_>, wait: Wait) -> Outcome {
    gossip(d, context);
    match wait {
        Wait::Shards { deadline } => {
            let stream = labels::concerns_change_stream(d, context);
            let answer = match unreachable_shards(d, context) {
                Some(_) if context.now < deadline => Ok(Answer::Wait(Wait::Shards { deadline })),
                Some(error) => Err(error),
                None => command(d, context).and_then(|command| run_command(d, context, command)),
            };
            conclude(d, context, answer, stream)
        }
        Wait::ShardWriteConcern {
            reply,
            points,
            deadline,
        } => match write_concern::check_shards(d, context, reply, points, deadline) {
            Ok(reply) => Outcome::Reply(reply, times(d, context, false)),
            Err(wait) => Outcome::Wait(wait),
        },
        Wait::Blocked { until, fault } if until <= context.now => execute_faulty(d, context, &fault),
        Wait::ClusterTime { ts } if applied(d, context, ts) => run(d, context),
        Wait::Snapshot if !matches!(d.snapshot_is_ready(context), Ok(false)) => run(d, context),
        Wait::Blocked { .. } | Wait::ClusterTime { .. } | Wait::Snapshot => Outcome::Wait(wait),
        Wait::GetMore { deadline } if cursor::waits_on(d, context, deadline) => Outcome::Sleep {
            deadline,
            look: cursor::next_look(context.now, deadline),
        },
        Wait::GetMore { deadline } => {
            let stream = labels::concerns_change_stream(d, context);
            let answer = cursor::continue_get_more(d, context, deadline);
            conclude(d, context, answer, stream)
        }
        Wait::Hello { deadline, seen } => {
            let answer = hello::continue_hello(d, context, deadline, seen);
            conclude(d, context, answer, false)
        }
        Wait::WriteConcern {
            reply,
            optime,
            deadline,
        } => match write_concern::check(d, context, reply, optime, deadline) {
            Ok(reply) => Outcome::Reply(reply, times(d, context, false)),
            Err(wait) => Outcome::Wait(wait),
        },
    }
}

fn execute_faulty(d: &mut Deployment, context: &Context<'_>, fault: &Fault) -> Outcome {
    if fault.close_connection {
        return Outcome::Disconnect;
    }
    if let Some(code) = fault.checked_out_error {
        let stream = labels::concerns_change_stream(d, context);
        let answer = cursor::fail_checked_out(d, context, code);
        return conclude(d, context, answer, stream);
    }
    if let Some(code) = fault.error_code {
        let mut error = CommandError::new(code, "Failing command due to 'failCommand' failpoint");
        error.code_name = name_of(d, code);
        match &fault.error_labels {
            Some(given) => error.labels.clone_from(given),
            None => labels::add_before_the_command(d, context, &mut error),
        }
        return Outcome::Reply(failure(d, context, error), times(d, context, false));
    }
    let (reply, told_times, error) = match (run(d, context), &fault.write_concern_error) {
        (Outcome::Reply(reply, told_times), Some(error)) => (reply, told_times, error.clone()),
        // The error comes in the place of waiting for the write concern.
        (
            Outcome::Wait(Wait::WriteConcern { reply, .. } | Wait::ShardWriteConcern { reply, .. }),
            Some(error),
        ) => (reply, times(d, context, false), error.clone()),
        (outcome, _) => return outcome,
    };
    let body = match reply {
        Reply::Success(body) => body,
        Reply::Cursor(cursor) => cursor.document(),
        Reply::Failure(_) => return Outcome::Reply(reply, told_times),
    };
    let labels = fault.error_labels.clone();
    Outcome::Reply(
        write_concern::with_error(d, context, body, error, labels),
        told_times,
    )
}

/// What the fail point `onPrimaryTransactionalWrite` does: the connection ends with the command, the write may fail.
fn fail_retryable_write(d: &mut Deployment, context: &Context<'_>) -> Result<()> {
    let Some(fault) = d
        .members
        .get_mut(context.member)
        .and_then(|m| m.fail_points.retryable_write())
    else {
        return Ok(());
    };
    if let (true, Some(connection)) = (fault.close_connection, d.connection_mut(context.connection)) {
        connection.hangs_up = true;
    }
    match fault.error_code {
        None => Ok(()),
        Some(code) => Err(CommandError::new(
            code,
            "Failing write due to failpoint. The write must not be reflected.",
        )),
    }
}

fn run(d: &mut Deployment, context: &Context<'_>) -> Outcome {
    let stream = labels::concerns_change_stream(d, context);
    let answer = checked(d, context);
    if d.connection(context.connection).is_some_and(|c| c.hangs_up) {
        return Outcome::Disconnect;
    }
    conclude(d, context, answer, stream)
}

fn command(d: &Deployment, context: &Context<'_>) -> Result<&'static Command> {
    let name = context.request.name();
    COMMANDS
        .iter()
        .find(|c| c.name == name && (name != "hello" || d.profile.hello))
        .filter(|_| d.profile.versioned_api || !api::is_test(name))
        .ok_or_else(|| CommandError::new(59, format!("no such command: '{name}'")))
}

fn checked(d: &mut Deployment, context: &Context<'_>) -> Result {
    let name = context.request.name();
    let command = command(d, context)?;
    if context.db().is_empty() {
        return Err(CommandError::new(40571, "OP_MSG requests require a $db argument"));
    }
    if command.needs != Needs::Nothing && d.is_guarded() {
        check_login(d, context)?;
    }
    if command.needs == Needs::Admin && context.db() != "admin" {
        return Err(CommandError::new(
            13,
            format!("{name} may only be run against the admin database."),
        ));
    }
    api::check(d, context)?;
    d.check_role(context, command.needs)?;
    sessions::touch(d, context)?;
    transactions::check_read_concern(d, context)?;
    transactions::begin(d, context)?;
    if let Some(ts) = after_cluster_time(context)
        && !applied(d, context, ts)
    {
        return Ok(Answer::Wait(Wait::ClusterTime { ts }));
    }
    if !d.snapshot_is_ready(context)? {
        return Ok(Answer::Wait(Wait::Snapshot));
    }
    let needs_shards = matches!(command.needs, Needs::Read | Needs::Write);
    if (needs_shards || ON_SHARDS.contains(&name)) && unreachable_shards(d, context).is_some() {
        let deadline = context.now + FIND_HOST_TIMEOUT;
        return Ok(Answer::Wait(Wait::Shards { deadline }));
    }
    run_command(d, context, command)
}

fn run_command(d: &mut Deployment, context: &Context<'_>, command: &Command) -> Result {
    d.take_part(context)?;
    let answer = (command.run)(d, context)?;
    let Some(token) = d.recovery_token(context) else {
        return Ok(answer);
    };
    Ok(match answer {
        Answer::Reply(reply) => Answer::Reply(reply.with_recovery(&token)),
        Answer::Written(reply, optime) => Answer::Written(reply.with_recovery(&token), optime),
        other @ (Answer::MajorityRead(_)
        | Answer::Wait(_)
        | Answer::Streaming(..)
        | Answer::MajorityStreaming(..)) => other,
    })
}

fn check_login(d: &Deployment, context: &Context<'_>) -> Result<()> {
    let name = context.request.name();
    let login = d.connection(context.connection).and_then(|c| c.login());
    match login {
        Some(login) if d.config.external.holds(login, context.now) => Ok(()),
        Some(_) => Err(CommandError::new(391, "Reauthentication is required")),
        None => Err(CommandError::new(
            13,
            format!("command {name} requires authentication"),
        )),
    }
}

/// Why a mongos cannot run the command now: it does not reach a primary that it needs.
fn unreachable_shards(d: &Deployment, context: &Context<'_>) -> Option<CommandError> {
    let cluster = d.cluster.as_ref()?;
    let shards = crate::sharding::targets(cluster, context);
    crate::sharding::reachable(cluster, context.member, &shards).err()
}

/// A mongos learns the time from its client and its shards, and tells them.
fn gossip(d: &mut Deployment, context: &Context<'_>) {
    if d.cluster.is_none() {
        return;
    }
    let told = context.body().get_document("$clusterTime").ok();
    let told = told.and_then(|t| t.get_timestamp("clusterTime").ok());
    d.gossip(context.member, told);
    d.enter_transaction(context);
    // What an earlier command wrote without waiting for it.
    d.take_written();
}

fn conclude(d: &mut Deployment, context: &Context<'_>, answer: Result, stream: bool) -> Outcome {
    match answer {
        Ok(Answer::Reply(reply)) => {
            let majority = transactions::wants_majority(context) && !transactions::is_member(context);
            Outcome::Reply(reply, times(d, context, majority))
        }
        Ok(Answer::MajorityRead(reply)) => Outcome::Reply(reply, times(d, context, true)),
        Ok(Answer::Wait(wait)) => Outcome::Wait(wait),
        Ok(Answer::Streaming(reply, wait)) => Outcome::ReplyAndGoOn(reply, times(d, context, false), wait),
        Ok(Answer::MajorityStreaming(reply, wait)) => {
            Outcome::ReplyAndGoOn(reply, times(d, context, true), wait)
        }
        Ok(Answer::Written(reply, optime)) => match write_concern::begin(d, context, reply, optime) {
            Ok(reply) => Outcome::Reply(reply, times(d, context, false)),
            Err(wait) => Outcome::Wait(wait),
        },
        Err(mut error) => {
            transactions::failed(d, context, &mut error);
            labels::add(d, context, &mut error, stream);
            Outcome::Reply(failure(d, context, error), times(d, context, false))
        }
    }
}

fn failure(d: &Deployment, context: &Context<'_>, error: CommandError) -> Reply {
    // Of the codes that say that the server's state has changed, those of a shutdown come without.
    let state_change = matches!(error.code, 189 | 10107 | 11602 | 13435 | 13436);
    let topology_version = d
        .members
        .get(context.member)
        .filter(|_| state_change && d.profile.streams_hello)
        .map(crate::member::Member::topology_version);
    let reported = context.request.name() == "saslContinue";
    Reply::Failure(Box::new(Failure {
        error,
        reported,
        topology_version,
    }))
}

fn times(d: &Deployment, context: &Context<'_>, majority: bool) -> Option<Times> {
    let m = d.members.get(context.member)?;
    if let Some(cluster) = &d.cluster {
        let of_shard = |shard| {
            let primary = cluster.primary(context.member, shard)?;
            Some(if majority {
                primary.commit_ts()
            } else {
                primary.last_applied().ts
            })
        };
        let operation = (0..cluster.shards.len()).filter_map(of_shard).max();
        return Some(Times {
            cluster: m.cluster_time,
            operation: operation.unwrap_or(m.cluster_time),
        });
    }
    d.set_name.as_ref()?;
    let operation = if majority {
        m.commit_ts()
    } else {
        m.last_applied().ts
    };
    Some(Times {
        cluster: m.cluster_time,
        operation,
    })
}

fn after_cluster_time(context: &Context<'_>) -> Option<Timestamp> {
    let concern = context.body().get_document("readConcern").ok()?;
    concern.get_timestamp("afterClusterTime").ok()
}

fn applied(d: &Deployment, context: &Context<'_>, ts: Timestamp) -> bool {
    let Some(m) = d.members.get(context.member) else {
        return true;
    };
    if m.role == Role::Mongos {
        // The shards that it reaches have the time from it.
        return true;
    }
    let newest = d.members.iter().map(|m| m.cluster_time).max();
    // A time that no member has reached would be waited for without end.
    m.last_applied().ts >= ts || newest.is_none_or(|newest| newest < ts)
}

/// The name of a code, as this version says it.
pub(crate) fn name_of(d: &Deployment, code: i32) -> std::borrow::Cow<'static, str> {
    let old = match code {
        10107 => "NotMaster",
        13435 => "NotMasterNoSlaveOk",
        13436 => "NotMasterOrSecondary",
        _ => return CommandError::new(code, "").code_name,
    };
    if d.profile.says_primary {
        CommandError::new(code, "").code_name
    } else {
        old.into()
    }
}

impl Deployment {
    fn check_role(&self, context: &Context<'_>, needs: Needs) -> std::result::Result<(), CommandError> {
        let Some(m) = self.members.get(context.member) else {
            return Ok(());
        };
        let accepts = match needs {
            Needs::Nothing | Needs::User | Needs::Admin => true,
            Needs::Write => m.accepts_writes(),
            Needs::Read => m.role != Role::Secondary || allows_secondary(context.body()),
        };
        if accepts {
            return Ok(());
        }
        let (code, text) = match (needs == Needs::Write, self.profile.says_primary) {
            (true, true) => (10107, "not primary"),
            (true, false) => (10107, "not master"),
            (false, true) => (13435, "not primary and secondaryOk=false"),
            (false, false) => (13435, "not master and slaveOk=false"),
        };
        let mut error = CommandError::new(code, text);
        error.code_name = name_of(self, code);
        Err(error)
    }
}

fn allows_secondary(body: &Document) -> bool {
    match body.get("$readPreference") {
        Some(Bson::Document(preference)) => preference.get_str("mode").is_ok_and(|m| m != "primary"),
        _ => false,
    }
}

/// Commands of the database admin that go to shards.
const ON_SHARDS: [&str; 2] = ["moveChunk", "shardCollection"];
/// `defaultFindReplicaSetHostTimeoutMS`: how long a mongos looks for a shard's primary.
const FIND_HOST_TIMEOUT: Duration = Duration::from_secs(15);
