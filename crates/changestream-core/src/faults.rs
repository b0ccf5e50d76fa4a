//! Deliberate mistakes: the simulation has to find each of them, or it would not find those that are not deliberate.
//!
//! They can be switched on in builds with `--cfg changestream_faults` only. In every other build [`Fault::is_on`] is
//! `false` at compile time, and nothing is left of them.

#![cfg_attr(
    not(changestream_faults),
    allow(unreachable_pub, reason = "public in the builds that can make mistakes")
)]

/// A mistake that a stream can be told to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The token moves when a batch arrives.
    TokenOnReceipt,
    /// An empty batch does not move the token.
    IdleTokenForgotten,
    /// A stream that began with `startAfter` and delivered nothing resumes with `resumeAfter`.
    StartAfterForgotten,
    /// A stream that began with `startAfter` resumes with it although it has delivered something.
    StartAfterKept,
    /// The last event of each batch is lost.
    LastOfBatchDropped,
    /// Each batch is delivered twice.
    BatchTwice,
    /// A failure throws away what waits to be delivered, and the stream resumes behind it.
    ResumedAhead,
    /// A stream resumes from every error of a getMore.
    EverythingResumed,
    /// A stream resumes in another session.
    SessionChanged,
    /// A stream resumes without `fullDocument`.
    FullDocumentLost,
    /// A cursor that was left behind is killed at whichever server comes next.
    KilledElsewhere,
    /// The token does not move with the first fragment of an event that was split.
    FragmentForgotten,
    /// Every empty reply of an exhaust cursor waits to be told, long after the token has moved on.
    EmptyRepliesPiledUp,
    /// What comes after its call has run out of time is thrown away.
    LateAnswerLost,
    /// The token does not move with events whose reply is still arriving.
    EarlyForgotten,
}

#[cfg(changestream_faults)]
mod switch {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Fault;

    static ON: AtomicU8 = AtomicU8::new(OFF);
    const OFF: u8 = u8::MAX;

    impl Fault {
        /// All of them.
        pub const ALL: [Self; 15] = [
            Self::TokenOnReceipt,
            Self::IdleTokenForgotten,
            Self::StartAfterForgotten,
            Self::StartAfterKept,
            Self::LastOfBatchDropped,
            Self::BatchTwice,
            Self::ResumedAhead,
            Self::EverythingResumed,
            Self::SessionChanged,
            Self::FullDocumentLost,
            Self::KilledElsewhere,
            Self::FragmentForgotten,
            Self::EmptyRepliesPiledUp,
            Self::LateAnswerLost,
            Self::EarlyForgotten,
        ];

        /// From now on every stream of the process makes this mistake and no other; or none.
        pub fn switch_to(fault: Option<Self>) {
            ON.store(fault.map_or(OFF, |fault| fault as u8), Ordering::Relaxed);
        }

        pub(crate) fn is_on(self) -> bool {
            ON.load(Ordering::Relaxed) == self as u8
        }
    }
}

#[cfg(not(changestream_faults))]
impl Fault {
    pub(crate) const fn is_on(self) -> bool {
        false
    }
}
