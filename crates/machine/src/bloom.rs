//! A bloom filter: which of many things a peer has already, in about ten bits for each.
//!
//! The caller hashes, with a fresh salt for each filter, so that a thing that one filter shows by mistake is not hidden
//! by the next one too, and so that nobody can make things that share their bits in every filter. Of the 128 bits
//! `(a, b)` of a hash, the probes are `mix(a + i·b)`: double hashing (Kirsch and Mitzenmacher), mixed once more, as plain
//! steps through a filter of a few bytes meet each other too often.
//!
//! With `m` bits, `n` things and `k` probes each, a bit is set with probability `1 - (1 - 1/m)^(kn) ≈ 1 - e^(-kn/m)`, and
//! a stranger is shown by mistake with the `k`-th power of that. At ten bits a thing and seven probes that is
//! `(1 - e^(-0.7))^7 ≈ 0.8 %`; at eight bits and six probes 2.2 %; at four bits and three probes 15 %.

use std::fmt;

/// Bits for each thing, while there is room for them.
const BITS_EACH: usize = 10;
/// Probes that suit so many bits: `m/n · ln 2`.
const PROBES: u8 = 7;
/// More probes than this are of no use at any size.
pub const MAX_PROBES: u8 = 16;
/// The smallest filter, in bytes.
pub const MIN_BYTES: usize = 8;

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bloom {
    bits: Vec<u8>,
    probes: u8,
}

/// Why bytes are no filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BloomError {
    /// Fewer bytes than [`MIN_BYTES`].
    Bytes(usize),
    /// No probes, or more than [`MAX_PROBES`].
    Probes(u8),
}

impl fmt::Display for BloomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BloomError::Bytes(bytes) => write!(f, "a filter of {bytes} bytes, and it must have {MIN_BYTES} at least"),
            BloomError::Probes(probes) => {
                write!(f, "a filter of {probes} probes, and it must have from 1 to {MAX_PROBES}")
            }
        }
    }
}

impl std::error::Error for BloomError {}

impl Bloom {
    /// An empty filter for so many things, of at most `max_bytes` bytes (and never fewer than [`MIN_BYTES`]). It grows
    /// with the number of things; where that is more than there is room for, there are fewer probes, and more mistakes.
    pub fn sized(things: usize, max_bytes: usize) -> Bloom {
        let wished = things.saturating_mul(BITS_EACH).div_ceil(8);
        let bytes = wished.clamp(MIN_BYTES, max_bytes.max(MIN_BYTES));
        let bits_each = bytes.saturating_mul(8) / things.max(1);
        // 7/10 is ln 2 for this purpose, and no float decides.
        let probes = u8::try_from(bits_each.saturating_mul(7) / 10).unwrap_or(PROBES).clamp(1, PROBES);
        Bloom { bits: vec![0; bytes], probes }
    }

    /// The filter with these bits, as a peer sent it.
    ///
    /// # Errors
    /// [`BloomError`]. How many bytes there may be at most is for the caller to say, before it has them.
    pub fn from_parts(bits: Vec<u8>, probes: u8) -> Result<Bloom, BloomError> {
        if bits.len() < MIN_BYTES {
            return Err(BloomError::Bytes(bits.len()));
        }
        if probes == 0 || probes > MAX_PROBES {
            return Err(BloomError::Probes(probes));
        }
        Ok(Bloom { bits, probes })
    }

    /// Its bits, the lowest of each byte first.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// How many bits each thing sets.
    pub const fn probes(&self) -> u8 {
        self.probes
    }

    /// Adds the thing with this hash, which must be uniform.
    pub fn insert(&mut self, hash: [u64; 2]) {
        for at in positions(self.bits.len(), self.probes, hash) {
            if let Some(byte) = self.bits.get_mut(at / 8) {
                *byte |= 1 << (at % 8);
            }
        }
    }

    /// Whether the thing with this hash was added: certainly not if false, and by mistake now and then if true.
    pub fn contains(&self, hash: [u64; 2]) -> bool {
        positions(self.bits.len(), self.probes, hash)
            .all(|at| self.bits.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0))
    }
}

fn positions(bytes: usize, probes: u8, [a, b]: [u64; 2]) -> impl Iterator<Item = usize> {
    let bits = (bytes as u64).saturating_mul(8).max(1);
    (0..u64::from(probes)).map(move |probe| (mix(a.wrapping_add(probe.wrapping_mul(b))) % bits) as usize)
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood).
const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    fn hashes(rng: &mut Rng, count: usize) -> Vec<[u64; 2]> {
        (0..count).map(|_| [rng.next_u64(), rng.next_u64()]).collect()
    }

    #[test]
    fn what_was_added_is_always_found() {
        let mut rng = Rng::new(1);
        for count in [0, 1, 10, 1_000, 5_000] {
            let added = hashes(&mut rng, count);
            let mut bloom = Bloom::sized(count, 2_048);
            added.iter().for_each(|hash| bloom.insert(*hash));
            assert!(added.iter().all(|hash| bloom.contains(*hash)), "{count}");
            let again = Bloom::from_parts(bloom.bits().to_vec(), bloom.probes()).expect("well formed");
            assert_eq!(again, bloom);
        }
    }

    #[test]
    fn strangers_are_shown_as_often_as_the_arithmetic_says() {
        let mut rng = Rng::new(2);
        // Things, and mistakes among a hundred thousand strangers: (1 - e^-(14/64))^7 = 0.001 %, then 0.8 %, 0.8 %,
        // 2.2 %, 15 %.
        for (count, about) in [(2, 1), (100, 800), (1_638, 800), (2_048, 2_200), (4_096, 15_000)] {
            let mut bloom = Bloom::sized(count, 2_048);
            hashes(&mut rng, count).iter().for_each(|hash| bloom.insert(*hash));
            let mistakes = hashes(&mut rng, 100_000).iter().filter(|hash| bloom.contains(**hash)).count();
            assert!(mistakes >= about / 2 && mistakes < about * 2 + 10, "{mistakes} with {count} things");
        }
    }

    #[test]
    fn it_grows_with_what_is_in_it_up_to_its_bound() {
        let bytes = |count| Bloom::sized(count, 2_048).bits().len();
        assert_eq!([bytes(0), bytes(8), bytes(100), bytes(1_000)], [MIN_BYTES, 10, 125, 1_250]);
        assert_eq!([bytes(1_639), bytes(usize::MAX)], [2_048, 2_048]);
        assert_eq!(Bloom::sized(usize::MAX, 2_048).probes(), 1);
        assert_eq!(Bloom::sized(3, 0).bits().len(), MIN_BYTES, "never none");
    }

    #[test]
    fn a_filter_without_bits_or_with_senseless_probes_is_refused() {
        assert_eq!(Bloom::from_parts(Vec::new(), 3), Err(BloomError::Bytes(0)));
        assert_eq!(Bloom::from_parts(vec![0; 7], 3), Err(BloomError::Bytes(7)));
        for probes in [0, 17, 255] {
            assert_eq!(Bloom::from_parts(vec![0; 8], probes), Err(BloomError::Probes(probes)));
        }
    }

    #[test]
    fn a_full_filter_shows_everybody_and_an_empty_one_nobody() {
        let mut rng = Rng::new(3);
        let full = Bloom::from_parts(vec![0xff; 64], 16).expect("well formed");
        let empty = Bloom::from_parts(vec![0; 64], 1).expect("well formed");
        for hash in hashes(&mut rng, 100).into_iter().chain([[0, 0], [u64::MAX, u64::MAX]]) {
            assert!(full.contains(hash) && !empty.contains(hash));
        }
    }
}
