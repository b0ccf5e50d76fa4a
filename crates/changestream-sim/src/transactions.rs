//! Multi-statement transactions: a snapshot, and what was done to it.

use std::sync::Arc;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document};
use sha2::{Digest, Sha256};

use crate::catalog::{Catalog, id_of, session_key};
use crate::commands::{Context, is_retriable};
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::failpoints::number;
use crate::member::{Member, Role};
use crate::oplog::{Change, Op, OpTime, Statement};

/// An open transaction of a session.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) number: i64,
    /// The snapshot, with the transaction's own changes.
    pub(crate) catalog: Catalog,
    /// The snapshot as it was, to find conflicts.
    base: Catalog,
    pub(crate) ops: Vec<Op>,
}

impl Transaction {
    pub(crate) fn new(number: i64, now: &Catalog) -> Self {
        Self {
            number,
            catalog: now.clone(),
            base: now.clone(),
            ops: Vec::new(),
        }
    }
}

/// Whether the command belongs to a transaction.
pub(crate) fn is_member(context: &Context<'_>) -> bool {
    context.body().get("autocommit") == Some(&Bson::Boolean(false))
}

/// Starts the command's transaction, or finds it.
pub(crate) fn begin(d: &mut Deployment, context: &Context<'_>) -> Result<(), CommandError> {
    let body = context.body();
    let Some(txn_number) = body.get("txnNumber").and_then(number) else {
        return Ok(());
    };
    let role = d.members.get(context.member).map(|m| m.role);
    if role == Some(Role::Standalone) {
        return Err(CommandError::new(
            20,
            "Transaction numbers are only allowed on a replica set member or mongos",
        ));
    }
    let lsid = body.get_document("lsid").map_err(|_| {
        CommandError::new(
            72,
            "Transaction number requires a session ID to also be specified",
        )
    })?;
    if !is_member(context) || ends(context) {
        return Ok(());
    }
    if !ALLOWED.contains(&context.request.name()) {
        return Err(CommandError::new(
            263,
            format!(
                "Cannot run '{}' in a multi-document transaction.",
                context.request.name()
            ),
        ));
    }
    let starts = body.get_bool("startTransaction").unwrap_or(false);
    check_concerns(body, starts)?;
    if d.cluster.is_some() {
        if !d.profile.sharded_transactions {
            return Err(CommandError::illegal_operation(
                "Transaction numbers are only allowed on a replica set member or mongos",
            ));
        }
        return d.begin_routed(context, txn_number);
    }
    let Some(m) = d.members.get_mut(context.member) else {
        return Ok(());
    };
    let key = session_key(lsid);
    let active = m.transactions.get(&key).map(|t| t.number);
    if starts {
        refuse_old(txn_number, active)?;
        let transaction = Transaction::new(txn_number, &m.catalog);
        m.transactions.insert(key, transaction);
        return Ok(());
    }
    if active == Some(txn_number) {
        Ok(())
    } else {
        Err(none_such(txn_number, active))
    }
}

/// A transaction has one read concern, and its write concern belongs to its end.
fn check_concerns(body: &Document, starts: bool) -> Result<(), CommandError> {
    if body.contains_key("writeConcern") {
        return Err(CommandError::invalid_options(
            "writeConcern is not allowed within a multi-statement transaction",
        ));
    }
    let later = body
        .get_document("readConcern")
        .is_ok_and(|concern| !concern.is_empty());
    if later && !starts {
        return Err(CommandError::invalid_options(
            "Only the first command in a transaction may specify a readConcern",
        ));
    }
    Ok(())
}

/// What a failed command does to its transaction, and which label that gives.
pub(crate) fn failed(d: &mut Deployment, context: &Context<'_>, error: &mut CommandError) {
    if !is_member(context) {
        return;
    }
    let Ok(lsid) = context.body().get_document("lsid") else {
        return;
    };
    let key = session_key(lsid);
    if !ends(context) && d.cluster.is_some() {
        d.forget_routed(context, &key);
    } else if !ends(context)
        && let Some(m) = d.members.get_mut(context.member)
    {
        m.transactions.remove(&key);
    }
    label(context, error);
}

/// Says of an error of a transaction's command that the whole transaction can be tried again.
pub(crate) fn label(context: &Context<'_>, error: &mut CommandError) {
    if !is_member(context) {
        return;
    }
    // Conflicts, snapshots that are no more, and errors after which nothing of the transaction is left; whether a
    // commit that could not be heard of has happened is for its retry to find out.
    let transient = match error.code {
        46 | 112 | 239 | 246 | 251 | 267 => true,
        code => !ends(context) && is_retriable(code),
    };
    if transient && !error.labels.iter().any(|l| l == TRANSIENT) {
        error.labels.push(TRANSIENT.to_owned());
    }
}

/// Executes `commitTransaction`; the point to wait for.
pub(crate) fn commit(d: &mut Deployment, context: &Context<'_>) -> Result<OpTime, CommandError> {
    let (lsid, txn_number) = named(context)?;
    let statement = Statement {
        lsid: with_owner(d, context, &lsid),
        txn_number,
        stmt_id: -1,
        outcome: Bson::Null,
    };
    if d.cluster.is_some() {
        return d.commit_routed(context, &lsid, &statement);
    }
    let Some(m) = d.members.get_mut(context.member) else {
        return Err(none_such(txn_number, None));
    };
    let key = session_key(&lsid);
    let active = m.transactions.get(&key).map(|t| t.number);
    // A commit may be retried.
    if active != Some(txn_number) && m.catalog.committed_transaction(&lsid, txn_number) {
        return Ok(m.last_applied());
    }
    let ops = ready(m, &key, txn_number)?.ok_or_else(|| none_such(txn_number, active))?;
    m.transactions.remove(&key);
    if ops.is_empty() {
        return Ok(m.last_applied());
    }
    Ok(d.append(context.now, context.member, ops, Some(statement), true))
}

/// What a session's transaction has done, if it can be committed; none if there is no such transaction. One that
/// conflicts with what was written since is over.
pub(crate) fn ready(m: &mut Member, key: &[u8], number: i64) -> Result<Option<Vec<Op>>, CommandError> {
    let Some(transaction) = m.transactions.get(key).filter(|t| t.number == number) else {
        return Ok(None);
    };
    let mut conflicts = transaction.ops.iter();
    if let Some(error) = conflicts.find_map(|op| conflict(&m.catalog, &transaction.base, op)) {
        m.transactions.remove(key);
        return Err(error);
    }
    Ok(Some(transaction.ops.clone()))
}

/// Carries out changes in a session's transaction.
pub(crate) fn change(m: &mut Member, key: &[u8], ops: Vec<Op>) -> Result<(), CommandError> {
    let transaction = m.transactions.get_mut(key).ok_or_else(|| none_such(0, None))?;
    for op in ops {
        if let Some(error) = conflict(&m.catalog, &transaction.base, &op) {
            return Err(error);
        }
        transaction.catalog.apply_op(&op);
        transaction.ops.push(op);
    }
    Ok(())
}

/// A session's identifier as it is logged: with the digest of its owner's name, which is empty without users.
pub(crate) fn with_owner(d: &Deployment, context: &Context<'_>, lsid: &Document) -> Document {
    let login = d.connection(context.connection).and_then(|c| c.login());
    let owner = login.map_or_else(String::new, |login| format!("{}@{}", login.user, login.source()));
    let mut whole = Document::new();
    if let Some(id) = lsid.get("id") {
        whole.insert("id", id.clone());
    }
    whole.insert(
        "uid",
        Binary {
            subtype: BinarySubtype::Generic,
            bytes: Sha256::digest(owner).to_vec(),
        },
    );
    whole
}

/// Executes `abortTransaction`.
pub(crate) fn abort(d: &mut Deployment, context: &Context<'_>) -> Result<(), CommandError> {
    let (lsid, txn_number) = named(context)?;
    if d.cluster.is_some() {
        return d.abort_routed(context, &lsid, txn_number);
    }
    let Some(m) = d.members.get_mut(context.member) else {
        return Ok(());
    };
    let key = session_key(&lsid);
    let active = m.transactions.get(&key).map(|t| t.number);
    if active == Some(txn_number) {
        m.transactions.remove(&key);
        return Ok(());
    }
    if m.catalog.committed_transaction(&lsid, txn_number) {
        return Err(is_committed(txn_number));
    }
    Err(none_such(txn_number, active))
}

impl Deployment {
    /// The data that a command sees.
    pub(crate) fn view(&self, context: &Context<'_>) -> Option<&Catalog> {
        self.view_of(context, context.db())
    }

    /// The same of another database; through a mongos, that of its primary shard.
    pub(crate) fn view_of(&self, context: &Context<'_>, db: &str) -> Option<&Catalog> {
        let m = self.members.get(context.member)?;
        let body = context.body();
        if is_member(context) && self.cluster.is_none() {
            let key = session_key(body.get_document("lsid").ok()?);
            return m.transactions.get(&key).map(|t| &t.catalog);
        }
        let majority = wants_majority(context);
        if self.cluster.is_some() {
            return self.routed_view(context, db, majority);
        }
        if m.role != Role::Standalone && majority {
            return Some(&m.committed);
        }
        Some(&m.catalog)
    }

    /// Carries out changes, in the command's transaction or at once.
    pub(crate) fn write(
        &mut self,
        context: &Context<'_>,
        ops: Vec<Op>,
        statement: Option<Statement>,
    ) -> Result<OpTime, CommandError> {
        if self.cluster.is_some() {
            return self.route(context, ops, statement);
        }
        if !is_member(context) {
            return Ok(self.append(context.now, context.member, ops, statement, false));
        }
        let key = context
            .body()
            .get_document("lsid")
            .map(session_key)
            .unwrap_or_default();
        let unknown = || {
            none_such(
                context.body().get("txnNumber").and_then(number).unwrap_or(0),
                None,
            )
        };
        let m = self.members.get_mut(context.member).ok_or_else(unknown)?;
        if !m.transactions.contains_key(&key) {
            return Err(unknown());
        }
        change(m, &key, ops)?;
        Ok(m.last_applied())
    }
}

/// Whether the command takes the read concern that it is given.
pub(crate) fn check_read_concern(d: &Deployment, context: &Context<'_>) -> Result<(), CommandError> {
    let Ok(concern) = context.body().get_document("readConcern") else {
        return Ok(());
    };
    let Some(level) = concern.get("level") else {
        return Ok(());
    };
    let Some(level) = level.as_str() else {
        return Err(CommandError::type_mismatch(
            "BSON field 'readConcern.level' must be a string",
        ));
    };
    let takes_it = match level {
        "local" | "available" => true,
        "majority" | "linearizable" | "snapshot" => {
            let name = context.request.name();
            let takes_it = match level {
                "snapshot" => name != "count" && d.profile.snapshot_reads,
                _ => true,
            };
            is_member(context) || (READS.contains(&name) && takes_it)
        }
        _ => {
            return Err(CommandError::bad_value(format!(
                "Enumeration value '{level}' for field 'readConcern.level' is not a valid value."
            )));
        }
    };
    if takes_it {
        return Ok(());
    }
    Err(CommandError::invalid_options(format!(
        "Command {} does not support {{ readConcern: {{ level: \"{level}\" }} }} :: caused by :: read concern not \
         supported",
        context.request.name()
    )))
}

/// Whether a read is to see only what the majority has.
pub(crate) fn wants_majority(context: &Context<'_>) -> bool {
    let concern = context.body().get_document("readConcern").ok();
    let level = concern.and_then(|c| c.get_str("level").ok());
    matches!(level, Some("majority" | "snapshot"))
}

/// A document that the transaction changes must be as it was when the transaction began.
fn conflict(now: &Catalog, base: &Catalog, op: &Op) -> Option<CommandError> {
    let document = match &op.change {
        Change::Insert { document } => document,
        Change::Update { after, .. } | Change::Replace { after, .. } => after,
        Change::Delete { before } => before,
        Change::Noop
        | Change::Create { .. }
        | Change::Drop
        | Change::Rename { .. }
        | Change::DropDatabase
        | Change::CreateIndexes { .. }
        | Change::DropIndexes { .. }
        | Change::Modify { .. }
        | Change::Shard { .. } => return None,
    };
    let id = id_of(document);
    let find = |catalog: &Catalog| {
        catalog
            .collection(&op.db, &op.coll)
            .and_then(|c| c.by_id(&id))
            .cloned()
    };
    let same = match (find(now), find(base)) {
        (Some(a), Some(b)) => Arc::ptr_eq(&a, &b),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    (!same).then(|| {
        CommandError::new(
            112,
            "WriteConflict error: this operation conflicted with another operation. Please retry your operation or \
             multi-document transaction.",
        )
    })
}

fn named(context: &Context<'_>) -> Result<(Document, i64), CommandError> {
    let body = context.body();
    match (body.get_document("lsid"), body.get("txnNumber").and_then(number)) {
        (Ok(lsid), Some(txn_number)) => Ok((lsid.clone(), txn_number)),
        _ => Err(CommandError::new(
            72,
            "Transaction number requires a session ID to also be specified",
        )),
    }
}

pub(crate) fn ends(context: &Context<'_>) -> bool {
    matches!(context.request.name(), "commitTransaction" | "abortTransaction")
}

/// A session's transactions are numbered upwards.
pub(crate) fn refuse_old(number: i64, active: Option<i64>) -> Result<(), CommandError> {
    match active {
        Some(active) if active > number => Err(CommandError::transaction_too_old(format!(
            "Cannot start transaction {number} because a newer transaction has started"
        ))),
        Some(_) | None => Ok(()),
    }
}

pub(crate) fn is_committed(number: i64) -> CommandError {
    CommandError::new(256, format!("Transaction {number} has been committed."))
}

pub(crate) fn none_such(txn_number: i64, active: Option<i64>) -> CommandError {
    CommandError::new(
        251,
        format!(
            "Given transaction number {txn_number} does not match any in-progress transactions. The active \
             transaction number is {}",
            active.unwrap_or(-1)
        ),
    )
}

pub(crate) const TRANSIENT: &str = "TransientTransactionError";
/// What takes other read concerns than local, outside transactions.
const READS: [&str; 4] = ["aggregate", "count", "distinct", "find"];
const ALLOWED: [&str; 12] = [
    "abortTransaction",
    "aggregate",
    "commitTransaction",
    "create",
    "createIndexes",
    "delete",
    "distinct",
    "find",
    "findAndModify",
    "getMore",
    "insert",
    "update",
];
