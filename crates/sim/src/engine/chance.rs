//! What is decided by lot, as a function of the seed.

/// Parts of a million.
pub(crate) const MILLION: u64 = 1_000_000;

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): every bit of the input moves every bit of the output.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A stream of lots: as many as one likes, each a function of the seed and of its number.
///
/// Not [`peerage_machine::Rng`], whose ChaCha is for machines that an attacker watches: the world draws several lots
/// for each event.
pub(crate) struct Chance {
    seed: u64,
    drawn: u64,
}

impl Chance {
    pub(crate) const fn new(seed: u64) -> Chance {
        Chance { seed: mix(seed), drawn: 0 }
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.drawn += 1;
        mix(self.seed ^ mix(self.drawn))
    }

    /// Uniform below `bound` (its bias, of bound in 2^64, is none that a run could show); 0 for a bound of 0.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    /// Whether something of so many parts in a million happens.
    pub(crate) const fn hits(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.below(MILLION) < ppm as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_draw_equal_lots_and_shares_come_out() {
        let mut chance = Chance::new(5);
        let hits = (0..100_000).filter(|_| chance.hits(250_000)).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            [chance.next(), chance.below(10), chance.next()]
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
        assert_eq!(Chance::new(1).below(0), 0);
    }
}
