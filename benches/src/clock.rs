//! Clocks that all programs of one machine agree about.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`: the same in every process.
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// Nanoseconds of processor time that this process has used, in user and in system mode.
pub fn cpu_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock)
        .map(|time| {
            let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
            let rest = u64::try_from(time.tv_nsec()).unwrap_or(0);
            seconds * 1_000_000_000 + rest
        })
        .unwrap_or(0)
}
