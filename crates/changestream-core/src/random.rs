//! Every random choice, drawn from one seed.

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

/// A seeded generator: equal seeds give equal choices, on every platform.
///
/// Cryptographically strong if its seed is, since SCRAM nonces come from it.
#[derive(Clone, Debug)]
pub struct Random(ChaCha12Rng);

impl Random {
    /// A generator that this seed determines.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    /// A generator of its own for a part of the machine, so that what one part draws does not move another's.
    pub fn fork(&mut self) -> Self {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        Self::new(seed)
    }

    /// Fills the slice with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// Any 64-bit number.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, each equally likely but for a bias under 2⁻³² for bounds under 2³²; 0 if it is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 {
            return 0;
        }
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A fraction from 0 up to, but not including, 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A generator for those who draw seldom: where a [`Random`] stands, in an eighth of its memory.
#[derive(Clone, Debug)]
pub(crate) struct Seldom {
    seed: [u8; 32],
    /// Words drawn so far.
    drawn: u128,
}

impl Seldom {
    /// Draws what that generator would have drawn.
    pub(crate) fn new(random: &Random) -> Self {
        Self {
            seed: random.0.get_seed(),
            drawn: random.0.get_word_pos(),
        }
    }

    /// Draws.
    pub(crate) fn draw<T>(&mut self, choose: impl FnOnce(&mut Random) -> T) -> T {
        let mut random = Random::new(self.seed);
        random.0.set_word_pos(self.drawn);
        let chosen = choose(&mut random);
        self.drawn = random.0.get_word_pos();
        chosen
    }
}
