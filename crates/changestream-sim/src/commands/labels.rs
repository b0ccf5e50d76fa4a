//! Error labels: which the server adds to which error.

use bson::Bson;

use super::Context;
use crate::cursors::Kind;
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::failpoints::number;
use crate::transactions;

/// Adds what the server adds to an error that a command ends with.
pub(super) fn add(d: &Deployment, context: &Context<'_>, error: &mut CommandError, change_stream: bool) {
    if change_stream && d.profile.labels_errors && is_resumable(error.code) {
        label(error, "ResumableChangeStreamError");
    }
    if d.profile.labels_non_resumable && matches!(error.code, 280 | 286) {
        label(error, "NonResumableChangeStreamError");
    }
    // One label of the two: who tries the whole transaction again need not retry its commit.
    let transient = error.labels.iter().any(|label| label == transactions::TRANSIENT);
    if d.profile.labels_errors && !transient && is_retryable_write(context) && is_retriable(error.code) {
        label(error, RETRYABLE_WRITE);
    }
}

/// Adds the same to an error that a fail point gives, before the command has done anything: it knows no cursor yet, and
/// a mongos labels no retryable writes but those that its own shutdown ends.
pub(super) fn add_before_the_command(d: &Deployment, context: &Context<'_>, error: &mut CommandError) {
    let change_stream = context.request.name() == "aggregate" && concerns_change_stream(d, context);
    transactions::label(context, error);
    add(d, context, error, change_stream);
    if d.cluster.is_some() {
        error.labels.retain(|label| label != RETRYABLE_WRITE);
    }
}

/// Whether the command opens or reads a change stream.
pub(super) fn concerns_change_stream(d: &Deployment, context: &Context<'_>) -> bool {
    let body = context.body();
    match context.request.name() {
        "aggregate" => body
            .get_array("pipeline")
            .ok()
            .and_then(|p| p.first())
            .and_then(Bson::as_document)
            .is_some_and(|stage| stage.contains_key("$changeStream")),
        "getMore" => body
            .get("getMore")
            .and_then(number)
            .and_then(|id| d.members.get(context.member)?.cursors.get(id))
            .is_some_and(|cursor| matches!(cursor.kind, Kind::ChangeStream(_) | Kind::Merged(_))),
        _ => false,
    }
}

/// The category RetriableError of the server's error codes.
pub(crate) fn is_retriable(code: i32) -> bool {
    matches!(
        code,
        6 | 7 | 89 | 91 | 134 | 189 | 262 | 9001 | 10107 | 11600 | 11602 | 13435 | 13436
    )
}

/// Whether the command is a retryable write, or ends a transaction.
pub(super) fn is_retryable_write(context: &Context<'_>) -> bool {
    let body = context.body();
    let ends = matches!(context.request.name(), "commitTransaction" | "abortTransaction");
    ends || (body.contains_key("txnNumber") && !body.contains_key("autocommit"))
}

/// Retriable errors, network errors, those that ask for another target, and the codes that exist for change streams.
fn is_resumable(code: i32) -> bool {
    is_retriable(code) || matches!(code, 63 | 133 | 150 | 234 | 13388)
}

fn label(error: &mut CommandError, label: &str) {
    if !error.labels.iter().any(|l| l == label) {
        error.labels.push(label.to_owned());
    }
}

const RETRYABLE_WRITE: &str = "RetryableWriteError";
