//! Logs in memory: what a simulated node has for a disk.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::index::Index;
use super::{Head, Job, LogEntry, LogError, OpenedLog, ReadLimit, SelectLimit, Selected, Wanted, cursor_fits, fail};

#[derive(Debug)]
struct MemoryLog {
    index: Index,
    bodies: BTreeMap<u64, Bytes>,
    cursors: BTreeMap<String, u64>,
}

/// Does every job at once.
#[derive(Debug, Default)]
pub(super) struct MemoryLogs(BTreeMap<String, MemoryLog>);

impl MemoryLogs {
    pub(super) fn run(&mut self, job: Job) {
        match job {
            Job::Open { log, bounds, now, done } => {
                let log = self.0.entry(log).or_insert_with(|| MemoryLog {
                    index: Index::new(bounds, Vec::new(), 1, 1),
                    bodies: BTreeMap::new(),
                    cursors: BTreeMap::new(),
                });
                log.index.bounds = bounds;
                log.append(&[], now);
                let state = log.index.appended(0);
                done(Ok(OpenedLog {
                    heads: log.index.heads().copied().collect(),
                    oldest: state.oldest,
                    next: log.index.next(),
                    bytes: state.bytes,
                    cursors: log.cursors.clone(),
                }));
            }
            Job::Append { log, entries, now, done } => match self.0.get_mut(&log) {
                None => done(Err(LogError::NotOpen)),
                Some(log) => done(log.index.new_of(entries).map(|new| {
                    let dropped = log.append(&new, now);
                    log.index.appended(dropped)
                })),
            },
            Job::Read { log, after, limit, done } => match self.0.get(&log) {
                None => done(Err(LogError::NotOpen)),
                Some(log) => done(Ok(log.read(after, limit))),
            },
            Job::Select { log, after, wanted, limit, done } => match self.0.get(&log) {
                None => done(Err(LogError::NotOpen)),
                Some(log) => done(Ok(log.select(after, &wanted, limit))),
            },
            Job::Cursor { ref log, ref name, position, .. } => match self.0.get_mut(log) {
                None => fail(job, LogError::NotOpen),
                Some(log) if !cursor_fits(&log.cursors, name) => fail(job, LogError::Cursor),
                Some(log) => {
                    let cursor = log.cursors.entry(name.clone()).or_default();
                    *cursor = position.max(*cursor);
                    if let Job::Cursor { done, .. } = job {
                        done(Ok(()));
                    }
                }
            },
        }
    }
}

impl MemoryLog {
    fn append(&mut self, entries: &[LogEntry], now: std::time::Duration) -> u64 {
        self.bodies.extend(entries.iter().map(|entry| (entry.head.position, entry.body.clone())));
        let trim = self.index.take(entries, now);
        let dropped = trim.bodies.end - trim.bodies.start;
        trim.bodies.for_each(|position| drop(self.bodies.remove(&position)));
        dropped
    }

    fn select(&self, after: u64, wanted: &Wanted, limit: SelectLimit) -> Selected {
        let (heads, after, more) = self.index.select(after, wanted, limit);
        let entry = |head: Head| Some(LogEntry { head, body: self.bodies.get(&head.position)?.clone() });
        Selected { entries: heads.into_iter().filter_map(entry).collect(), after, more }
    }

    fn read(&self, after: u64, limit: ReadLimit) -> Vec<LogEntry> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let first = self.index.next() - self.index.heads().count() as u64;
        for (position, body) in self.bodies.range(after.saturating_add(1)..) {
            bytes += body.len();
            if entries.len() >= limit.entries || (bytes > limit.bytes && !entries.is_empty()) {
                break;
            }
            let Some(head) = self.index.heads().nth((position - first) as usize) else { continue };
            entries.push(LogEntry { head: *head, body: body.clone() });
        }
        entries
    }
}
