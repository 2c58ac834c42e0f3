//! What a run leaves behind to be compared with another: a digest, and where two digests part.

use std::fmt::{self, Write as _};

/// Events in one block of the trail.
pub(crate) const BLOCK: u64 = 2048;
/// Bytes of an event in it.
const EVENT: usize = 32;

/// The digest of a run: equal for equal runs. Prints as 16 bytes in hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 16]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One event, as it goes into the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) at: u64,
    pub(crate) host: u32,
    pub(crate) kind: u32,
    pub(crate) about: u64,
    pub(crate) mark: u64,
}

/// The digests of a run, block by block: each block's holds all before it.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    blocks: Vec<[u8; 32]>,
    open: Vec<u8>,
    events: u64,
    /// What is written down of a window of events, one line each.
    watched: Option<(std::ops::Range<u64>, Vec<String>)>,
}

impl Trail {
    pub(crate) fn note(&mut self, trace: Trace) {
        self.open.extend_from_slice(&trace.at.to_le_bytes());
        self.open.extend_from_slice(&trace.host.to_le_bytes());
        self.open.extend_from_slice(&trace.kind.to_le_bytes());
        self.open.extend_from_slice(&trace.about.to_le_bytes());
        self.open.extend_from_slice(&trace.mark.to_le_bytes());
        self.events += 1;
        if self.open.len() == EVENT * BLOCK as usize {
            self.blocks.push(self.chained());
            self.open.clear();
        }
    }

    fn chained(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("peerage 2026-11 digest of a run");
        hasher.update(self.blocks.last().unwrap_or(&[0; 32]));
        hasher.update(&self.open);
        hasher.finalize().into()
    }

    /// The digest of all events so far.
    pub fn digest(&self) -> Digest {
        let mut digest = [0; 16];
        digest.copy_from_slice(&self.chained()[..16]);
        Digest(digest)
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The events among which two runs part, if they do: found by bisection of the blocks.
    pub fn parts_from(&self, other: &Trail) -> Option<std::ops::Range<u64>> {
        if self.events == other.events && self.digest() == other.digest() {
            return None;
        }
        let blocks = self.blocks.len().min(other.blocks.len());
        // A block's digest holds all before it: once they differ, they differ for good.
        let (mut same, mut differ) = (0, blocks);
        while same < differ {
            let middle = same + (differ - same) / 2;
            if self.blocks[middle] == other.blocks[middle] { same = middle + 1 } else { differ = middle }
        }
        Some(same as u64 * BLOCK..(same as u64 + 1) * BLOCK)
    }

    /// Writes down what happens in a window of events.
    pub fn watch(&mut self, events: std::ops::Range<u64>) {
        self.watched = Some((events, Vec::new()));
    }

    /// What was written down.
    pub fn watched(&self) -> &[String] {
        self.watched.as_ref().map_or(&[], |(_, lines)| lines)
    }

    pub(crate) fn describe(&mut self, line: impl FnOnce() -> String) {
        let next = self.events;
        if let Some((window, lines)) = &mut self.watched
            && window.contains(&next)
        {
            let mut numbered = String::new();
            // Writing to a string cannot fail.
            let _ = write!(numbered, "event {next}: {}", line());
            lines.push(numbered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(events: u64, changed: Option<u64>) -> Trail {
        let mut trail = Trail::default();
        for n in 0..events {
            let mark = if changed == Some(n) { 1 } else { 0 };
            trail.note(Trace { at: n, host: 0, kind: 0, about: 0, mark });
        }
        trail
    }

    #[test]
    fn equal_runs_do_not_part_and_one_changed_event_is_found() {
        let events = 10 * BLOCK + 5;
        assert_eq!(run(events, None).parts_from(&run(events, None)), None);
        for changed in [0, 1, BLOCK - 1, BLOCK, 7 * BLOCK + 3, 10 * BLOCK, events - 1] {
            let window = run(events, Some(changed)).parts_from(&run(events, None)).expect("they differ");
            assert!(window.contains(&changed), "{changed} in {window:?}");
        }
        let window = run(events, None).parts_from(&run(events + 1, None)).expect("one is longer");
        assert!(window.contains(&events));
    }
}
