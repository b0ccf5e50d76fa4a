//! What a stream has done so far, and how far behind it is.

use std::time::Duration;

use bson::Timestamp;

/// Counters of one stream since it was made, and its lag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStats {
    /// Events handed over.
    pub events: u64,
    /// Bytes of the events handed over.
    pub bytes: u64,
    /// Replies to aggregate and getMore that brought events.
    pub batches: u64,
    /// Replies to getMore without events.
    pub empty_batches: u64,
    /// Successful resumes.
    pub resumes: u64,
    /// The newest `operationTime` that a reply carried: where the server's log ended then.
    pub operation_time: Option<Timestamp>,
    /// The cluster time of the resume token: what the consumer has seen everything up to. None if the token is of a
    /// form that is not known.
    pub position_time: Option<Timestamp>,
}

impl StreamStats {
    /// How far what was handed over lags behind the server's log, in whole seconds of cluster time; none before both
    /// are known.
    ///
    /// An empty batch does not mean that there is no lag: a filtered stream may still be reading old entries. This
    /// does.
    ///
    /// ```
    /// use bson::Timestamp;
    /// use changestream_core::stream::StreamStats;
    ///
    /// assert_eq!(StreamStats::default().lag(), None);
    /// ```
    pub fn lag(&self) -> Option<Duration> {
        let log_end = self.operation_time?.time;
        let position = self.position_time?.time;
        Some(Duration::from_secs(u64::from(log_end.saturating_sub(position))))
    }
}
