//! How far a secondary may lag behind: Max Staleness.

use std::time::{Duration, Instant};

use bson::DateTime;

use super::{SelectionError, ServerDescription, ServerType, TopologyDescription};

/// `smallestMaxStalenessSeconds`.
pub const SMALLEST_MAX_STALENESS: Duration = Duration::from_secs(90);

/// `idleWritePeriodMS`: how often an idle primary writes to the oplog.
pub const IDLE_WRITE_PERIOD: Duration = Duration::from_secs(10);

/// Whether this limit is one that a replica set can keep.
pub(super) fn validate(max_staleness: Duration, heartbeat_frequency: Duration) -> Result<(), SelectionError> {
    let smallest = SMALLEST_MAX_STALENESS.max(heartbeat_frequency.saturating_add(IDLE_WRITE_PERIOD));
    if max_staleness >= smallest {
        return Ok(());
    }
    Err(SelectionError::InvalidReadPreference(format!(
        "maxStalenessSeconds must be at least {} with a heartbeatFrequencyMS of {}, but is {}",
        smallest.as_secs_f64(),
        heartbeat_frequency.as_millis(),
        max_staleness.as_secs_f64()
    )))
}

/// Whether the server's estimated lag is within the limit. Other servers than secondaries have none; a secondary whose
/// lag cannot be estimated is not within it.
pub(super) fn is_fresh(
    description: &TopologyDescription,
    server: &ServerDescription,
    max_staleness: Duration,
    heartbeat_frequency: Duration,
) -> bool {
    if server.server_type != ServerType::RsSecondary {
        return true;
    }
    let lag = match description.primary() {
        Some(primary) => lag_behind_primary(server, primary),
        None => lag_behind_newest(server, description),
    };
    lag.is_some_and(|lag| lag.saturating_add(millis(heartbeat_frequency)) <= millis(max_staleness))
}

/// `(S.lastUpdateTime - S.lastWriteDate) - (P.lastUpdateTime - P.lastWriteDate)`, in milliseconds.
fn lag_behind_primary(secondary: &ServerDescription, primary: &ServerDescription) -> Option<i128> {
    let written = written(primary.last_write_date?) - written(secondary.last_write_date?);
    let updated = elapsed(primary.last_update_time?, secondary.last_update_time?);
    Some(updated + written)
}

/// `SMax.lastWriteDate - S.lastWriteDate`, in milliseconds.
fn lag_behind_newest(secondary: &ServerDescription, description: &TopologyDescription) -> Option<i128> {
    let newest = description
        .servers
        .values()
        .filter(|server| server.server_type == ServerType::RsSecondary)
        .filter_map(|server| server.last_write_date)
        .max()?;
    Some(written(newest) - written(secondary.last_write_date?))
}

fn written(date: DateTime) -> i128 {
    i128::from(date.timestamp_millis())
}

/// Milliseconds from the one to the other, negative if it is earlier.
fn elapsed(from: Instant, to: Instant) -> i128 {
    match to.checked_duration_since(from) {
        Some(later) => millis(later),
        None => -millis(from.saturating_duration_since(to)),
    }
}

fn millis(duration: Duration) -> i128 {
    i128::try_from(duration.as_millis()).unwrap_or(i128::MAX)
}
