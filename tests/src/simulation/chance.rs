//! What decides: a seed, or the bytes of a script.

use std::collections::VecDeque;
use std::time::Duration;

use changestream_core::random::Random;

/// What decides.
pub(super) enum Chance {
    Seed(Box<Random>),
    /// The bytes that are left. Once they are spent every choice is the first.
    Script(VecDeque<u8>),
}

impl Chance {
    pub(super) fn of_seed(seed: [u8; 32]) -> Self {
        Self::Seed(Box::new(Random::new(seed)))
    }

    pub(super) fn of_script(script: &[u8]) -> Self {
        Self::Script(script.iter().copied().collect())
    }

    /// A number below `bound`. A script spends a byte on it, or two where one does not reach.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        match self {
            Self::Seed(random) => random.below(bound),
            Self::Script(bytes) => {
                let mut next = || usize::from(bytes.pop_front().unwrap_or(0));
                let number = if bound > 256 { next() << 8 | next() } else { next() };
                number % bound
            }
        }
    }

    /// True once in so many times.
    pub(super) fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == many - 1
    }

    pub(super) fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    pub(super) fn millis(&mut self, bound: usize) -> Duration {
        Duration::from_millis(self.below(bound) as u64)
    }

    /// Whether a script has come to its end.
    pub(super) fn is_spent(&self) -> bool {
        match self {
            Self::Seed(_) => false,
            Self::Script(bytes) => bytes.is_empty(),
        }
    }
}
