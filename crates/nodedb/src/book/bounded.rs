//! A map of limited size that forgets the least valuable entry for a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// What an entry is worth remembering.
pub(crate) trait Worth {
    /// The least is forgotten first.
    type Worth: Ord + Copy + Debug;

    fn worth(&self) -> Self::Worth;
}

/// At most `capacity` entries. Finding the least valuable costs a look at an ordered index, as those who invent
/// identities make it the common case.
#[derive(Debug)]
pub(crate) struct Bounded<K, V: Worth> {
    entries: BTreeMap<K, V>,
    by_worth: BTreeSet<(V::Worth, K)>,
    capacity: usize,
}

impl<K: Ord + Copy, V: Worth> Bounded<K, V> {
    pub(crate) fn new(capacity: usize) -> Bounded<K, V> {
        Bounded { entries: BTreeMap::new(), by_worth: BTreeSet::new(), capacity }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    /// In the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.entries.iter().map(|(key, value)| (*key, value))
    }

    /// Stores an entry, and answers the one that is forgotten for it: it may be this one.
    pub(crate) fn put(&mut self, key: K, value: V) -> Option<(K, V)> {
        let worth = value.worth();
        if let Some(old) = self.entries.insert(key, value) {
            self.by_worth.remove(&(old.worth(), key));
        }
        self.by_worth.insert((worth, key));
        if self.entries.len() <= self.capacity {
            return None;
        }
        let (_, least) = *self.by_worth.first()?;
        self.remove(&least).map(|value| (least, value))
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.entries.remove(key)?;
        self.by_worth.remove(&(value.worth(), *key));
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Worth for u32 {
        type Worth = u32;

        fn worth(&self) -> u32 {
            *self
        }
    }

    #[test]
    fn the_least_valuable_goes_and_it_may_be_the_new_one() {
        let mut map = Bounded::new(2);
        assert_eq!(map.put('a', 5), None);
        assert_eq!(map.put('b', 6), None);
        assert_eq!(map.put('c', 1), Some(('c', 1)));
        assert_eq!(map.put('a', 9), None, "what is there is replaced");
        assert_eq!(map.put('d', 7), Some(('b', 6)));
        assert_eq!(map.iter().collect::<Vec<_>>(), [('a', &9), ('d', &7)]);
        assert_eq!(map.remove(&'d'), Some(7));
        assert_eq!(map.put('e', 0), None, "there is room again");
        assert_eq!((map.len(), map.by_worth.len()), (2, 2));
        assert_eq!(Bounded::new(0).put('a', 1), Some(('a', 1)));
    }
}
