//! What the disk does not have yet.

use std::collections::BTreeSet;

use super::Key;

/// Keys that changed since the last commit, each once however often it changed.
#[derive(Debug)]
pub(crate) struct Dirty {
    /// At most `max`: over that, and after anything went wrong on disk, everything is written anew instead. So a disk
    /// that is full for days costs no more memory.
    keys: BTreeSet<Key>,
    all: bool,
    max: usize,
}

/// What the next commit writes.
#[derive(Debug)]
pub(crate) enum Changes {
    /// Nothing has changed.
    Nothing,
    /// These have changed, or have gone.
    Keys(BTreeSet<Key>),
    /// What is on disk is to be replaced.
    All,
}

impl Dirty {
    pub(crate) fn new(max: usize) -> Dirty {
        Dirty { keys: BTreeSet::new(), all: false, max }
    }

    pub(crate) fn touch(&mut self, key: Key) {
        if self.all {
            return;
        }
        self.keys.insert(key);
        if self.keys.len() > self.max {
            self.touch_all();
        }
    }

    pub(crate) fn touch_all(&mut self) {
        self.all = true;
        self.keys.clear();
    }

    pub(crate) fn take(&mut self) -> Changes {
        match (std::mem::take(&mut self.all), std::mem::take(&mut self.keys)) {
            (true, _) => Changes::All,
            (false, keys) if keys.is_empty() => Changes::Nothing,
            (false, keys) => Changes::Keys(keys),
        }
    }
}

#[cfg(test)]
mod tests {
    use peerage_wire::NodeId;

    use super::*;

    fn key(n: u8) -> Key {
        Key::Score(NodeId::from_bytes([n; 32]))
    }

    #[test]
    fn a_key_that_changes_a_thousand_times_is_written_once() {
        let mut dirty = Dirty::new(4);
        (0..1_000).for_each(|_| dirty.touch(key(1)));
        assert!(matches!(dirty.take(), Changes::Keys(keys) if keys.len() == 1));
        assert!(matches!(dirty.take(), Changes::Nothing));
    }

    #[test]
    fn too_many_keys_are_everything() {
        let mut dirty = Dirty::new(4);
        (0..200).for_each(|n| dirty.touch(key(n)));
        assert!(dirty.keys.is_empty());
        assert!(matches!(dirty.take(), Changes::All));
        assert!(matches!(dirty.take(), Changes::Nothing));
    }
}
