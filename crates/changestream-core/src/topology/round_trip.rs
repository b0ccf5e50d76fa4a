//! How long a server takes to answer hello.

use std::collections::VecDeque;
use std::time::Duration;

/// The round trip times of one server's hello commands: their average and their minimum.
///
/// The average is exponentially weighted with alpha 0.2 (Server Selection, "Calculation of Average Round Trip
/// Times"); the minimum is that of the last 10 samples (Server Monitoring, "Measuring RTT").
///
/// ```
/// use std::time::Duration;
/// use changestream_core::topology::RoundTripTimes;
///
/// let mut times = RoundTripTimes::default();
/// times.add(Duration::from_millis(10));
/// times.add(Duration::from_millis(20));
/// assert_eq!(times.average(), Some(Duration::from_millis(12)));
/// assert_eq!(times.minimum(), Duration::from_millis(10));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoundTripTimes {
    average: Option<Duration>,
    recent: VecDeque<Duration>,
}

impl RoundTripTimes {
    /// Times of which only the average is known.
    pub fn from_average(average: Duration) -> Self {
        Self {
            average: Some(average),
            recent: VecDeque::new(),
        }
    }

    /// Takes a sample into account.
    pub fn add(&mut self, sample: Duration) {
        self.average = Some(match self.average {
            None => sample,
            // alpha is 1/5.
            Some(old) => old.saturating_mul(4).saturating_add(sample) / 5,
        });
        if self.recent.len() == RECENT_SAMPLES {
            self.recent.pop_front();
        }
        self.recent.push_back(sample);
    }

    /// The weighted average; none before the first sample.
    pub fn average(&self) -> Option<Duration> {
        self.average
    }

    /// The minimum of the last 10 samples; zero until there are two.
    pub fn minimum(&self) -> Duration {
        if self.recent.len() < 2 {
            return Duration::ZERO;
        }
        self.recent.iter().min().copied().unwrap_or_default()
    }
}

const RECENT_SAMPLES: usize = 10;
