//! What the soak is asked for.

use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) duration: Duration,
    pub(crate) streams: usize,
    /// Documents written a second, over all collections.
    pub(crate) rate: u32,
    pub(crate) seed: u64,
}

impl Settings {
    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let mut settings = Self {
            duration: Duration::from_secs(600),
            streams: 1_000,
            rate: 100,
            seed: 1,
        };
        for pair in words.chunks(2) {
            let [name, value] = pair else {
                return Err(USAGE.to_owned());
            };
            let number: u64 = value.parse().map_err(|_| USAGE.to_owned())?;
            match name.as_str() {
                "--minutes" => settings.duration = Duration::from_secs(number.saturating_mul(60)),
                "--streams" => settings.streams = usize::try_from(number).map_err(|e| e.to_string())?,
                "--rate" => settings.rate = u32::try_from(number).map_err(|e| e.to_string())?,
                "--seed" => settings.seed = number,
                _ => return Err(USAGE.to_owned()),
            }
        }
        if settings.duration.is_zero() || settings.streams == 0 || settings.rate == 0 {
            return Err(USAGE.to_owned());
        }
        Ok(settings)
    }

    /// As arguments again.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let minutes = self.duration.as_secs() / 60;
        [
            ("--minutes", minutes),
            ("--streams", self.streams as u64),
            ("--rate", u64::from(self.rate)),
            ("--seed", self.seed),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value.to_string()])
        .collect()
    }

    /// Each has about fifty streams of its own.
    pub(crate) fn collections(&self) -> usize {
        self.streams.div_ceil(STREAMS_OF_A_COLLECTION)
    }

    pub(crate) fn collection(number: usize) -> String {
        format!("c{number}")
    }

    pub(crate) fn random(&self) -> changestream_core::random::Random {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.seed.to_le_bytes());
        changestream_core::random::Random::new(bytes)
    }
}

pub(crate) const DATABASE: &str = "soak";
const STREAMS_OF_A_COLLECTION: usize = 50;
const USAGE: &str = "usage: soak [--minutes M] [--streams N] [--rate DOCUMENTS_A_SECOND] [--seed S], each a number above zero";
