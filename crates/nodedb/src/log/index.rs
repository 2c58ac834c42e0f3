//! The heads of one log, and what has to go when there are too many of them or of their bodies.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::{Appended, Head, LogBounds, LogEntry, LogError, SelectLimit};

/// What an append removes, by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trim {
    pub(super) bodies: Range<u64>,
    pub(super) heads: Range<u64>,
}

#[derive(Debug)]
pub(super) struct Index {
    pub(super) bounds: LogBounds,
    /// With positions that follow each other, up to `next`.
    heads: VecDeque<Head>,
    oldest: u64,
    next: u64,
    bytes: u64,
}

impl Index {
    /// `heads` in order, of which those from `oldest` on have bodies.
    pub(super) fn new(bounds: LogBounds, heads: Vec<Head>, oldest: u64, next: u64) -> Index {
        let bytes = heads.iter().filter(|head| head.position >= oldest).map(|head| u64::from(head.len)).sum();
        Index { bounds, heads: heads.into(), oldest, next, bytes }
    }

    pub(super) fn heads(&self) -> impl Iterator<Item = &Head> {
        self.heads.iter()
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn appended(&self, dropped: u64) -> Appended {
        Appended { oldest: self.oldest, bytes: self.bytes, dropped }
    }

    /// Those of `entries` that are new. An append whose answer was lost is repeated, and is there already.
    pub(super) fn new_of(&self, entries: Vec<LogEntry>) -> Result<Vec<LogEntry>, LogError> {
        let mut expected = self.next;
        let mut new = Vec::with_capacity(entries.len());
        for entry in entries {
            let head = entry.head;
            let found = head.position;
            if found == expected {
                expected += 1;
                new.push(entry);
            } else if found > expected || self.at(found).is_some_and(|known| known.id != head.id) {
                return Err(LogError::Position { expected, found });
            }
        }
        Ok(new)
    }

    fn at(&self, position: u64) -> Option<&Head> {
        let first = self.next - self.heads.len() as u64;
        self.heads.get(usize::try_from(position.checked_sub(first)?).ok()?)
    }

    /// The heads of entries after a position that are there and wanted; up to which position that is all of them, and
    /// whether there are others behind it.
    pub(super) fn select(
        &self,
        after: u64,
        wanted: impl Fn(&Head) -> bool,
        limit: SelectLimit,
    ) -> (Vec<Head>, u64, bool) {
        let from = after.saturating_add(1).max(self.oldest);
        let first = self.next - self.heads.len() as u64;
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX).min(self.heads.len());
        let (mut selected, mut bytes, mut through) = (Vec::new(), 0, (from - 1).min(self.next - 1));
        for (looked, head) in self.heads.range(skip..).enumerate() {
            if looked >= limit.heads {
                return (selected, through, true);
            }
            if wanted(head) {
                bytes += head.len as usize;
                let full = selected.len() >= limit.read.entries || bytes > limit.read.bytes;
                if full && !selected.is_empty() {
                    return (selected, through, true);
                }
                selected.push(*head);
            }
            through = head.position;
        }
        (selected, through, false)
    }

    /// Takes new entries, whose positions follow, and answers what goes for them.
    pub(super) fn take(&mut self, entries: &[LogEntry], now: Duration) -> Trim {
        for entry in entries {
            self.bytes += u64::from(entry.head.len);
            self.heads.push_back(entry.head);
            self.next = entry.head.position + 1;
        }
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        // What lies in the future counts from now on, once the clock has passed it.
        let older = |head: &Head, age: Duration| u128::from(now.saturating_sub(head.at)) > age.as_millis();
        let first_body = self.oldest;
        let crowd = self.heads.len().saturating_sub(self.bounds.heads.max(1)) as u64;
        let first_head = self.next - self.heads.len() as u64;
        while let Some(head) = self.at(self.oldest).copied() {
            let large = self.bytes > self.bounds.bytes && self.oldest + 1 < self.next;
            if !large && !older(&head, self.bounds.age) && self.oldest >= first_head + crowd {
                break;
            }
            self.bytes -= u64::from(head.len);
            self.oldest += 1;
        }
        while let Some(head) = self.heads.front() {
            let crowded = self.heads.len() > self.bounds.heads.max(1);
            if head.position >= self.oldest || !(crowded || older(head, self.bounds.heads_for)) {
                break;
            }
            self.heads.pop_front();
        }
        let heads = first_head..self.next - self.heads.len() as u64;
        Trim { bodies: first_body..self.oldest, heads }
    }
}
