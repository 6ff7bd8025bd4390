//! A seeded generator for tests and attack plans: the same seed gives the same values on every machine. It is not fit
//! for keys or ports.

/// The generator (SplitMix64).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random(u64);

impl Random {
    /// Creates a generator from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next value, from the whole range of `u64`.
    pub fn value(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A value from 0 to `limit` - 1; 0 if `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.value() % limit).unwrap_or(0)
    }

    /// True with this probability, in percent.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of the values; `None` if there are none.
    pub fn pick<'v, V>(&mut self, values: &'v [V]) -> Option<&'v V> {
        let index = self.below(values.len());
        values.get(index)
    }
}

/// A value that depends only on the seed, the text and the number, in whatever order the caller asks.
pub fn hash(seed: u64, text: &str, number: u64) -> u64 {
    let start = seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93);
    text.bytes().fold(Random(start).value(), |state, byte| Random(state ^ u64::from(byte)).value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_values_and_another_does_not() {
        let values = |seed| {
            let mut random = Random::new(seed);
            [(); 8].map(|()| random.below(1000))
        };
        assert_eq!(values(7), values(7));
        assert_ne!(values(7), values(8));
        assert_eq!(hash(1, "mx.test.", 2), hash(1, "mx.test.", 2));
        assert_ne!(hash(1, "mx.test.", 2), hash(1, "mx.test.", 3));
    }

    #[test]
    fn every_value_below_the_limit_comes_up() {
        let mut random = Random::new(1);
        let mut counts = [0; 5];
        (0..1000).for_each(|_| counts[random.below(5)] += 1);
        assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.pick::<u8>(&[]), None);
        assert!((0..1000).filter(|_| random.chance(10)).count() < 200);
    }
}
