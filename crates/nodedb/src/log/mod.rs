//! Append logs: of each topic a window of entries, bounded in bytes and age, and how far each reader has come.
//!
//! An entry is a [`Head`] and a body. Bodies go first, oldest first, when there are more bytes than may be or when they
//! are too old; heads stay longer, so that what was taken once is not taken again when its body is gone. Positions rise
//! by one from 1, and no position is used twice, whatever was dropped.
//!
//! Every call is a job that ends in a call of `done`: in memory at once, on disk from the thread that owns the file.
//! Jobs that wait together are written in one commit, and `done` is called after it: what was told to be stored is on
//! disk. When the disk fails, the jobs do, and the file is opened anew for the next one.

#[cfg(feature = "disk")]
pub(crate) mod disk;
mod index;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
#[cfg(feature = "disk")]
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use peerage_wire::NodeId;

use crate::locked;
use memory::MemoryLogs;

/// Longest name of a cursor, in bytes.
pub const MAX_CURSOR_NAME: usize = 64;
/// Most cursors of one log.
pub const MAX_CURSORS: usize = 64;

/// What a log may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// Bytes of bodies; the newest one stays whatever its size.
    pub bytes: u64,
    /// How long a body stays.
    pub age: Duration,
    /// How long a head stays; not less than its body.
    pub heads_for: Duration,
    /// Most heads, and so most bodies.
    pub heads: usize,
}

/// What is known of an entry without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its place, from 1.
    pub position: u64,
    /// Who made it.
    pub publisher: NodeId,
    /// The publisher's number for it.
    pub sequence: u64,
    /// Its hash.
    pub id: [u8; 32],
    /// When it was appended, in milliseconds since the Unix epoch.
    pub at: u64,
    /// Bytes of its body.
    pub len: u32,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// What is known without the body. Its `len` is the body's.
    pub head: Head,
    /// What it says.
    pub body: Bytes,
}

/// A log as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenedLog {
    /// The heads, oldest first.
    pub heads: Vec<Head>,
    /// The position of the oldest body; `next` if there is none.
    pub oldest: u64,
    /// The position of the next entry.
    pub next: u64,
    /// Bytes of all bodies.
    pub bytes: u64,
    /// How far each reader has come.
    pub cursors: BTreeMap<String, u64>,
}

/// What an append came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// The position of the oldest body; the next entry's if there is none.
    pub oldest: u64,
    /// Bytes of all bodies.
    pub bytes: u64,
    /// Bodies that went for it.
    pub dropped: u64,
}

/// Most that a read answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Entries.
    pub entries: usize,
    /// Bytes of bodies, except that one entry may have any size.
    pub bytes: usize,
}

/// Which entries a selection is of, by their heads.
pub type Wanted = Box<dyn Fn(&Head) -> bool + Send>;

/// Most that a selection looks at and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectLimit {
    /// Heads that are looked at.
    pub heads: usize,
    /// What is answered.
    pub read: ReadLimit,
}

/// Entries that somebody wants, of a part of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Those that were wanted, oldest first.
    pub entries: Vec<LogEntry>,
    /// All that were wanted up to this position are among them, or are no longer there.
    pub after: u64,
    /// Whether there are entries behind it that nobody has looked at.
    pub more: bool,
}

/// Why a job failed. The node goes on; the job may be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No room on the disk.
    #[error("the disk is full; make room, and what waits is written")]
    Full,
    /// The disk failed otherwise.
    #[error("the logs cannot be read or written: {0}")]
    Disk(String),
    /// The log was not opened.
    #[error("the log must be opened first")]
    NotOpen,
    /// The positions do not follow those that are there.
    #[error("the next position is {expected}, and {found} was given")]
    Position {
        /// The next one.
        expected: u64,
        /// The one given.
        found: u64,
    },
    /// A cursor too many, or with too long a name.
    #[error("a log has at most {MAX_CURSORS} cursors with names of 1 to {MAX_CURSOR_NAME} bytes")]
    Cursor,
    /// The database was closed.
    #[error("the node database is closed")]
    Closed,
}

impl LogError {
    /// A word for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            LogError::Full => "full",
            LogError::Disk(_) => "disk",
            LogError::NotOpen => "not_open",
            LogError::Position { .. } => "position",
            LogError::Cursor => "cursor",
            LogError::Closed => "closed",
        }
    }
}

/// Called once, with what came of a job; from another thread if there is a disk, and else before the call returns. It must
/// not call the logs.
pub type Done<T> = Box<dyn FnOnce(Result<T, LogError>) + Send>;

pub(crate) enum Job {
    Open { log: String, bounds: LogBounds, now: Duration, done: Done<OpenedLog> },
    Append { log: String, entries: Vec<LogEntry>, now: Duration, done: Done<Appended> },
    Read { log: String, after: u64, limit: ReadLimit, done: Done<Vec<LogEntry>> },
    Select { log: String, after: u64, wanted: Wanted, limit: SelectLimit, done: Done<Selected> },
    Cursor { log: String, name: String, position: u64, done: Done<()> },
}

enum Place {
    Memory(MemoryLogs),
    /// Its thread is started with the first job: most nodes have no logs.
    #[cfg(feature = "disk")]
    Disk {
        path: PathBuf,
        thread: Option<disk::LogDisk>,
    },
    Closed,
}

/// A node's logs. Clones are the same logs.
#[derive(Clone)]
pub struct Logs(Arc<Mutex<Place>>);

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logs")
    }
}

impl Logs {
    /// Logs that last as long as their handles.
    pub fn memory() -> Logs {
        Logs(Arc::new(Mutex::new(Place::Memory(MemoryLogs::default()))))
    }

    /// Logs in the file at `path`, which is opened, or made, for the first job. A file that is damaged is set aside, as
    /// the [`NodeDb`](crate::NodeDb)'s is.
    #[cfg(feature = "disk")]
    pub fn at(path: impl Into<PathBuf>) -> Logs {
        Logs(Arc::new(Mutex::new(Place::Disk { path: path.into(), thread: None })))
    }

    /// Opens a log, or makes it; to be done before all else. Open already, it has these bounds from now on. `now` is
    /// since the Unix epoch, here and in [`append`](Logs::append).
    pub fn open(&self, log: &str, bounds: LogBounds, now: Duration, done: Done<OpenedLog>) {
        self.submit(Job::Open { log: log.to_owned(), bounds, now, done });
    }

    /// Appends entries whose positions follow the last one's; those that are there already are passed over. With none,
    /// what is too old goes.
    pub fn append(&self, log: &str, entries: Vec<LogEntry>, now: Duration, done: Done<Appended>) {
        self.submit(Job::Append { log: log.to_owned(), entries, now, done });
    }

    /// The entries after a position that are still there, oldest first.
    pub fn read(&self, log: &str, after: u64, limit: ReadLimit, done: Done<Vec<LogEntry>>) {
        self.submit(Job::Read { log: log.to_owned(), after, limit, done });
    }

    /// Those of the entries after a position that are wanted. Heads are in memory, so what is not wanted costs no disk.
    pub fn select(&self, log: &str, after: u64, wanted: Wanted, limit: SelectLimit, done: Done<Selected>) {
        self.submit(Job::Select { log: log.to_owned(), after, wanted, limit, done });
    }

    /// Moves a cursor forward; backward it does not go.
    pub fn set_cursor(&self, log: &str, name: &str, position: u64, done: Done<()>) {
        self.submit(Job::Cursor { log: log.to_owned(), name: name.to_owned(), position, done });
    }

    /// Writes what waits, and lets go of the file. Jobs fail from then on.
    pub fn close(&self) {
        match std::mem::replace(&mut *locked(&self.0), Place::Closed) {
            #[cfg(feature = "disk")]
            Place::Disk { thread: Some(thread), .. } => thread.close(),
            _ => {}
        }
    }

    fn submit(&self, job: Job) {
        let refused = match &mut *locked(&self.0) {
            Place::Memory(memory) => {
                memory.run(job);
                return;
            }
            #[cfg(feature = "disk")]
            Place::Disk { path, thread } => {
                let started = match thread.take() {
                    Some(thread) => Ok(thread),
                    None => disk::LogDisk::start(path.clone()),
                };
                match started {
                    Ok(running) => {
                        let submitted = running.submit(job);
                        // One that has ended is started anew for the next job.
                        *thread = Some(running).filter(disk::LogDisk::is_running);
                        match submitted {
                            Ok(()) => return,
                            Err(job) => (job, LogError::Disk("too many jobs wait for it".to_owned())),
                        }
                    }
                    Err(error) => (job, LogError::Disk(error)),
                }
            }
            Place::Closed => (job, LogError::Closed),
        };
        fail(refused.0, refused.1);
    }
}

pub(crate) fn fail(job: Job, error: LogError) {
    match job {
        Job::Open { done, .. } => done(Err(error)),
        Job::Append { done, .. } => done(Err(error)),
        Job::Read { done, .. } => done(Err(error)),
        Job::Select { done, .. } => done(Err(error)),
        Job::Cursor { done, .. } => done(Err(error)),
    }
}

fn cursor_fits(cursors: &BTreeMap<String, u64>, name: &str) -> bool {
    (1..=MAX_CURSOR_NAME).contains(&name.len()) && (cursors.contains_key(name) || cursors.len() < MAX_CURSORS)
}
