//! What a node remembers across restarts: records, proofs that a node is at an address, failures, scores, bans, and
//! the anchors it dials first.
//!
//! Everything is in memory, bounded by a [`Config`], and answers at once. With the feature `disk` (on by default) a
//! thread of its own writes what has changed to a file of `redb`, once a second in one transaction: a process that is
//! killed loses the last second at most, and the file is usable whenever it is. Losing the file loses no identity.
//!
//! ```
//! use std::time::Duration;
//! use peerage_machine::{Rng, Time};
//! use peerage_nodedb::{Config, NodeDb};
//! use peerage_wire::{Keypair, NetworkId, RecordDraft};
//!
//! let db = NodeDb::memory(Config::recommended());
//! let now = Time::new(Duration::ZERO, Duration::from_secs(1_700_000_000));
//! let record = RecordDraft::new(now.unix_millis(), NetworkId::named("example"))
//!     .address("/ip4/192.0.2.1/udp/30303".parse()?)
//!     .sign(&Keypair::from_seed([7; 32]))?;
//!
//! // Of it and of its address was heard; then it answered a ping from there.
//! db.put_record(&record, now);
//! db.pong_received(record.id(), "192.0.2.1".parse()?, now);
//!
//! // After a restart, these are asked first.
//! let five_days = Duration::from_secs(5 * 24 * 3_600);
//! assert_eq!(db.seeds(30, five_days, now, &mut Rng::new(1)), [record]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The [`Logs`] of durable topics are apart from that: in a file of their own, and written when it is told.
//!
//! A record is handed out only with its owner's signature checked, whatever the disk held. Instants that are stored
//! are of the wall clock ([`Time::unix`]). A clock that is set back makes nothing eternal: what then lies in the
//! future counts from now. A clock that jumps ahead may make a node forget proofs; they come back with the next pings.
#![warn(missing_docs)]

mod book;
mod config;
#[cfg(feature = "disk")]
mod disk;
mod log;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerage_machine::{Rng, Time};
use peerage_wire::{NodeId, NodeRecord, Verified};

use book::Book;
pub use book::{Anchor, Entries};
pub use config::Config;
pub use log::{
    Appended, Done, Head, LogBounds, LogEntry, LogError, Logs, MAX_CURSOR_NAME, MAX_CURSORS, OpenedLog, ReadLimit,
    SelectLimit, Selected, Wanted,
};
pub use peerage_machine;
pub use peerage_wire;
pub use peerage_wire::Banned;

/// Why a database did not open. Somebody has to do something about each of these; a file that is damaged or of another
/// version is none of them, but set aside.
#[cfg(feature = "disk")]
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another handle in this one, has it open.
    #[error("{path} is in use: does another node run with the same data directory?")]
    InUse {
        /// The file.
        path: std::path::PathBuf,
    },
    /// The file cannot be read and written, or its folder is not there.
    #[error("{path}: {source}; the node must be able to read and write it and its folder")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Its thread did not start.
    #[error("no thread for the node database: {source}")]
    Thread {
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// The disk does not have everything yet. The node goes on from memory and tries again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node database could not be written; the log says why")]
pub struct NotWritten;

/// What the disk had to do since the database was opened. All zero in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Transactions that were written.
    pub commits: u64,
    /// Transactions that failed; what they held is written by a later one.
    pub failed_commits: u64,
    /// Bytes of keys and values of the last one.
    pub last_commit_bytes: u64,
    /// Files that could not be used, and were replaced by a fresh one.
    pub set_aside: u64,
}

/// What metrics show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries by kind.
    pub entries: Entries,
    /// Records that were read from disk and were not signed by their owner: forgotten when somebody asked for them.
    pub unverified: u64,
    /// The disk's.
    pub disk: DiskStats,
}

/// What the handles share, and the disk's thread with them.
#[derive(Debug)]
struct State {
    book: Book,
    disk: DiskStats,
}

impl State {
    fn new(book: Book) -> State {
        State { book, disk: DiskStats::default() }
    }
}

/// A panic in the middle of a call leaves entries that are older or newer, never ones that harm.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node's memory. Clones are the same memory; the last one that goes closes it.
#[derive(Clone)]
pub struct NodeDb(Arc<Inner>);

struct Inner {
    /// Held for one call, never across a wait.
    state: Arc<Mutex<State>>,
    #[cfg(feature = "disk")]
    disk: Option<disk::Disk>,
    logs: Logs,
}

impl fmt::Debug for NodeDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeDb").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl NodeDb {
    /// A memory that lasts as long as its handles: a simulated node's outlives its crash by a clone. No thread is
    /// started, and results depend on nothing but the calls.
    pub fn memory(config: Config) -> NodeDb {
        let state = Arc::new(Mutex::new(State::new(Book::new(config))));
        NodeDb(Arc::new(Inner {
            state,
            #[cfg(feature = "disk")]
            disk: None,
            logs: Logs::memory(),
        }))
    }

    /// A memory that is kept in the file at `path`, made if it is not there. Nodes and anchors of another network are
    /// forgotten. Nothing expires by opening: seeds are read first, and a wall clock may be wrong until its first
    /// correction.
    ///
    /// A file that is damaged, or of another version, is renamed to `<name>.unusable-<unix seconds>` with a line in
    /// the log, and a fresh one started; the newest three of such files are kept.
    ///
    /// Blocks until all is read and every page's checksum is compared: a third of a second for 16,384 nodes, measured
    /// without optimisation.
    ///
    /// # Errors
    /// [`OpenError`], for what somebody must put right.
    #[cfg(feature = "disk")]
    pub fn open(
        path: impl AsRef<std::path::Path>,
        network: peerage_wire::NetworkId,
        config: Config,
    ) -> Result<NodeDb, OpenError> {
        let (state, disk) = disk::start(path.as_ref(), network, config)?;
        let logs = Logs::at(path.as_ref().with_extension("logs.redb"));
        Ok(NodeDb(Arc::new(Inner { state, disk: Some(disk), logs })))
    }

    /// The logs of its durable topics: in a file of their own, beside this one, from the first one on.
    pub fn logs(&self) -> Logs {
        self.0.logs.clone()
    }

    fn with<T>(&self, call: impl FnOnce(&mut Book) -> T) -> T {
        call(&mut locked(&self.0.state).book)
    }

    /// Remembers a record, unless the one that is there is as new. Whether it is remembered.
    pub fn put_record(&self, record: &Verified<NodeRecord>, now: Time) -> bool {
        self.with(|book| book.put_record(record, now))
    }

    /// A node's record. The first time that one from disk is asked for, its signature is checked (some 50 µs), and
    /// the record is forgotten if it is not its owner's.
    pub fn record(&self, id: &NodeId) -> Option<Verified<NodeRecord>> {
        self.with(|book| book.record(id))
    }

    /// A node sent a valid ping from this address.
    pub fn ping_received(&self, id: NodeId, ip: IpAddr, now: Time) {
        self.with(|book| book.prove(id, ip, now, |proof, now| proof.ping = now));
    }

    /// A node answered a ping from this address: it is there.
    pub fn pong_received(&self, id: NodeId, ip: IpAddr, now: Time) {
        self.with(|book| book.prove(id, ip, now, |proof, now| proof.pong = now));
    }

    /// How many questions in a row a node at this address has left without an answer.
    pub fn set_find_failures(&self, id: NodeId, ip: IpAddr, failures: u32, now: Time) {
        self.with(|book| book.prove(id, ip, now, |proof, _| proof.failures = failures));
    }

    /// When a node last sent a ping from this address, since the Unix epoch; never later than `now`.
    pub fn last_ping(&self, id: &NodeId, ip: IpAddr, now: Time) -> Option<Duration> {
        self.with(|book| book.proof(id, ip, now)).filter(|proof| proof.ping > 0).map(|p| Duration::from_millis(p.ping))
    }

    /// When a node last answered a ping from this address, since the Unix epoch; never later than `now`.
    pub fn last_pong(&self, id: &NodeId, ip: IpAddr, now: Time) -> Option<Duration> {
        self.with(|book| book.proof(id, ip, now)).filter(|proof| proof.pong > 0).map(|p| Duration::from_millis(p.pong))
    }

    /// What [`set_find_failures`](NodeDb::set_find_failures) said of a node at this address; 0 if nothing did.
    pub fn find_failures(&self, id: &NodeId, ip: IpAddr, now: Time) -> u32 {
        self.with(|book| book.proof(id, ip, now)).map_or(0, |proof| proof.failures)
    }

    /// At most `count` records, random and of different nodes, each of a node that answered a ping within `max_age`
    /// (geth: 5 days) from the address that its record names.
    pub fn seeds(&self, count: usize, max_age: Duration, now: Time, rng: &mut Rng) -> Vec<Verified<NodeRecord>> {
        self.with(|book| book.seeds(count, max_age, now, rng))
    }

    /// Forgets proofs and nodes that are older than [`Config::proof_lifetime`], bans that have ended and scores that
    /// nobody updated; to be called every hour, the first time an hour after the start, so that seeds were read
    /// before. Answers how many nodes were forgotten.
    pub fn expire(&self, now: Time) -> usize {
        self.with(|book| book.expire(now))
    }

    /// Bans until an instant since the Unix epoch, in place of an earlier ban. `Duration::MAX` has no end. Whether
    /// it is remembered: not if it has ended, or if there are as many as there may be and all of them end later.
    pub fn ban(&self, banned: Banned, until_unix: Duration, now: Time) -> bool {
        self.with(|book| book.ban(banned, until_unix, now))
    }

    /// Ends a ban. Whether there was one.
    pub fn unban(&self, banned: Banned) -> bool {
        self.with(|book| book.unban(banned))
    }

    /// The bans that hold, and until when since the Unix epoch; identities first, each kind in order.
    pub fn bans(&self, now: Time) -> Vec<(Banned, Duration)> {
        self.with(|book| book.bans(now))
    }

    /// A node's score, in thousandths of a point, at an instant since the Unix epoch. Zero is forgotten.
    pub fn set_score(&self, id: NodeId, thousandths: u64, at_unix: Duration) {
        self.with(|book| book.set_score(id, thousandths, at_unix));
    }

    /// Every score, as it was at an instant since the Unix epoch that is not later than `now`. How it decayed since
    /// is for whoever set it to say.
    pub fn scores(&self, now: Time) -> Vec<(NodeId, u64, Duration)> {
        self.with(|book| book.scores(now))
    }

    /// The nodes to dial first after a restart, best first, in place of the earlier ones.
    pub fn set_anchors(&self, anchors: Vec<Anchor>) {
        self.with(|book| book.set_anchors(anchors));
    }

    /// What [`set_anchors`](NodeDb::set_anchors) was told last, without any that their owner did not sign.
    pub fn anchors(&self, now: Time) -> Vec<Anchor> {
        self.with(|book| book.anchors(now))
    }

    /// Counts for metrics.
    pub fn stats(&self) -> Stats {
        let state = locked(&self.0.state);
        Stats { entries: state.book.entries(), unverified: state.book.unverified(), disk: state.disk }
    }

    /// Completes when all that was told before is on disk; at once in memory. Blocks nothing meanwhile.
    ///
    /// # Errors
    /// [`NotWritten`], also after [`close`](NodeDb::close).
    pub async fn flush(&self) -> Result<(), NotWritten> {
        #[cfg(feature = "disk")]
        if let Some(disk) = &self.0.disk {
            return disk.flush().await;
        }
        Ok(())
    }

    /// Writes what is left and ends the disk's thread; from then on this is a memory. A second call does nothing.
    ///
    /// Blocks for 5 s at most, and for as long as it takes to close a file after a [`flush`](NodeDb::flush). Without
    /// it the last handle that is dropped does the same, and waits for 1 s at most.
    ///
    /// # Errors
    /// [`NotWritten`]: something is not on disk, or not yet.
    pub fn close(&self) -> Result<(), NotWritten> {
        #[cfg(feature = "disk")]
        if let Some(disk) = &self.0.disk {
            self.0.logs.close();
            return disk.close();
        }
        Ok(())
    }
}
