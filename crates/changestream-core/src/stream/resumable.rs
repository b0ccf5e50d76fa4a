//! Which errors a stream resumes from, and which aggregates are tried again.

use std::time::Duration;

use crate::faults::Fault;
use crate::random::Random;
use crate::stream::Server;
use crate::{Error, ErrorKind, ServerError};

/// Whether the specification lets a stream resume from this failure of a getMore (change-streams specification,
/// "Resumable Error").
///
/// `wire_version` is that of the connection that ran it. Errors of our own making (bytes that are no reply, a missing
/// token, a close) are never resumable, though no server sent them: resuming would meet them again for ever.
pub(crate) fn is_resumable(error: &Error, wire_version: i32) -> bool {
    if Fault::EverythingResumed.is_on() {
        return true;
    }
    match error.kind() {
        ErrorKind::Network { .. } => true,
        ErrorKind::Protocol { .. }
        | ErrorKind::Timeout { .. }
        | ErrorKind::InvalidArgument { .. }
        | ErrorKind::System { .. }
        | ErrorKind::Dns { .. }
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::Authentication { .. }
        | ErrorKind::MissingResumeToken
        | ErrorKind::Decode { .. }
        | ErrorKind::Closed => false,
        ErrorKind::HistoryLost(e)
        | ErrorKind::TokenNotFound(e)
        | ErrorKind::InvalidToken(e)
        | ErrorKind::EventTooLarge(e)
        | ErrorKind::PreImageMissing(e)
        | ErrorKind::NotAReplicaSet(e)
        | ErrorKind::Server(e) => is_resumable_server_error(e, wire_version),
    }
}

fn is_resumable_server_error(error: &ServerError, wire_version: i32) -> bool {
    if error.code == CURSOR_NOT_FOUND {
        return true;
    }
    if wire_version >= WIRE_VERSION_OF_LABEL {
        return error.has_label("ResumableChangeStreamError");
    }
    RESUMABLE_BEFORE_LABEL.contains(&error.code)
}

/// Whether an aggregate that failed so is tried once more (Retryable Reads specification, "Retryable Error").
pub(crate) fn is_retryable_read(error: &Error) -> bool {
    match (error.kind(), error.server_error()) {
        (ErrorKind::Network { .. }, _) => true,
        (_, Some(e)) => RETRYABLE_READ.contains(&e.code),
        (_, None) => false,
    }
}

/// The pause before a command is sent again that an overloaded server refused: "jitter * min(MAX_BACKOFF, BASE_BACKOFF *
/// 2^attempt)" (Client Backpressure specification).
pub(crate) fn overload_delay(attempt: u32, base: Option<Duration>, random: &mut Random) -> Duration {
    let ceiling = base.unwrap_or(BACKOFF_BASE).saturating_mul(1 << attempt.min(16));
    ceiling.min(BACKOFF_MAX).mul_f64(random.fraction())
}

/// The pause before a read is sent again that failed where `timeoutMS` lets it be tried until the time is over; none for the
/// first tries. A server that fails at once is then not asked in a tight loop for all of that time.
pub(crate) fn retry_pause(retries: u32, random: &mut Random) -> Option<Duration> {
    (retries > PROMPT_RETRIES).then(|| LONGEST_RETRY_PAUSE.mul_f64(random.fraction()))
}

/// What a server may take of the time that is left, in whole milliseconds: "`remaining timeoutMS - minRoundTripTime`"
/// (Client Side Operations Timeout specification, "Command Execution"). None if that is nothing: then nothing is sent.
pub(crate) fn server_share(left: Duration, min_round_trip: Duration) -> Option<Duration> {
    let share = left.saturating_sub(min_round_trip).as_millis();
    let share = u64::try_from(share).unwrap_or(u64::MAX);
    (share > 0).then(|| Duration::from_millis(share))
}

/// What is told where nothing is.
pub(crate) fn too_short(what: &str, limit: Option<Duration>, server: &Server) -> Error {
    let limit = limit.unwrap_or_default().as_millis();
    let round_trip = server.min_round_trip.as_millis();
    let message = format!(
        "{what} was not sent: what is left of {limit} ms (timeoutMS) is no longer than a round trip ({round_trip} ms)"
    );
    Error::timeout(message, None).at(server.address.clone())
}

/// Whether the server has no cursor any more after this error, so that there is none to kill.
pub(crate) fn cursor_is_gone(error: &ServerError) -> bool {
    const CURSOR_KILLED: i32 = 237;
    matches!(error.code, CURSOR_NOT_FOUND | CURSOR_KILLED)
}

/// Whether the server gave up because the command's `maxTimeMS` was over. "Drivers MUST only check that the error code
/// is 50" (Client Side Operations Timeout specification, "Error Transformations").
pub(crate) fn is_max_time_expired(error: &ServerError) -> bool {
    const MAX_TIME_MS_EXPIRED: i32 = 50;
    error.code == MAX_TIME_MS_EXPIRED
}

const CURSOR_NOT_FOUND: i32 = 43;

const PROMPT_RETRIES: u32 = 4;
const LONGEST_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The first and the longest pause between tries (Client Backpressure specification).
pub(crate) const BACKOFF_BASE: Duration = Duration::from_millis(100);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// From server 4.4 on the server itself says what is resumable.
const WIRE_VERSION_OF_LABEL: i32 = 9;

/// The list of the change-streams specification for servers before 4.4.
const RESUMABLE_BEFORE_LABEL: [i32; 17] = [
    6, 7, 63, 89, 91, 133, 150, 189, 234, 262, 9001, 10107, 11600, 11602, 13388, 13435, 13436,
];

/// The list of the Retryable Reads specification.
const RETRYABLE_READ: [i32; 13] = [
    6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436,
];
