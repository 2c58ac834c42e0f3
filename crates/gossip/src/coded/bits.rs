//! A set of shards: one bit each.

use std::iter;

use super::shape::MAX_SHARDS;

/// Which shards, of at most [`MAX_SHARDS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// Adds a shard; whether it was not in there before. One beyond [`MAX_SHARDS`] never is.
    pub fn insert(&mut self, shard: usize) -> bool {
        if shard >= MAX_SHARDS {
            return false;
        }
        let (at, bit) = (shard / 64, 1 << (shard % 64));
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        let Some(word) = self.0.get_mut(at) else { return false };
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    /// Takes a shard out; whether it was in.
    pub fn remove(&mut self, shard: usize) -> bool {
        let Some(word) = self.0.get_mut(shard / 64) else { return false };
        let bit = 1 << (shard % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }

    /// Whether a shard is in there.
    pub fn contains(&self, shard: usize) -> bool {
        self.0.get(shard / 64).is_some_and(|word| word >> (shard % 64) & 1 == 1)
    }

    /// Takes all of another set out.
    pub fn subtract(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, gone)| *word &= !gone);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Those there are, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        ones(self.0.iter().copied())
    }

    /// Those of them that are not in another set, in order.
    pub fn without(&self, other: &Bits) -> impl Iterator<Item = usize> {
        let gone = other.0.iter().copied().chain(iter::repeat(0));
        ones(self.0.iter().zip(gone).map(|(word, gone)| word & !gone))
    }

    /// As it travels: the first shard is the lowest bit of the first byte; no zeros at the end.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        bytes
    }

    /// As it was before it travelled; `None` if it is longer than [`MAX_SHARDS`] are.
    pub fn from_bytes(bytes: &[u8]) -> Option<Bits> {
        if bytes.len() > MAX_SHARDS / 8 {
            return None;
        }
        let word = |chunk: &[u8]| {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(word)
        };
        Some(Bits(bytes.chunks(8).map(word).collect()))
    }
}

/// The places of the ones in a row of words, in order.
fn ones(words: impl Iterator<Item = u64>) -> impl Iterator<Item = usize> {
    words.enumerate().flat_map(|(at, word)| {
        let left = iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)));
        left.take_while(|word| *word != 0).map(move |word| 64 * at + word.trailing_zeros() as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_set_has_and_another_has_not() {
        let of = |shards: &[usize]| {
            let mut bits = Bits::default();
            shards.iter().for_each(|shard| assert!(bits.insert(*shard)));
            bits
        };
        let (long, short) = (of(&[0, 3, 63, 64, 200]), of(&[3, 64, 65]));
        assert_eq!(long.without(&short).collect::<Vec<_>>(), [0, 63, 200]);
        assert_eq!(short.without(&long).collect::<Vec<_>>(), [65]);
        assert_eq!(short.without(&Bits::default()).collect::<Vec<_>>(), [3, 64, 65]);
        assert_eq!(Bits::default().without(&long).count(), 0);
    }

    #[test]
    fn a_set_is_the_same_after_its_travels() {
        let mut bits = Bits::default();
        assert!(bits.is_empty() && bits.to_bytes().is_empty());
        for shard in [0, 7, 63, 64, 700, MAX_SHARDS - 1] {
            assert!(bits.insert(shard) && !bits.insert(shard) && bits.contains(shard));
        }
        assert!(!bits.insert(MAX_SHARDS) && !bits.contains(MAX_SHARDS));
        let bytes = bits.to_bytes();
        assert_eq!(Bits::from_bytes(&bytes), Some(bits.clone()));
        assert_eq!((bits.len(), bits.iter().collect::<Vec<_>>()), (6, vec![0, 7, 63, 64, 700, MAX_SHARDS - 1]));
        assert_eq!(Bits::from_bytes(&[bytes, vec![1]].concat()), None, "more than there can be");
        bits.remove(700);
        assert!(!bits.contains(700));
    }
}
