//! What two processes are told to do, and whose way of doing it is measured.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sessions::CHUNK;

/// Figures by metric.
pub(crate) type Values = BTreeMap<String, f64>;

/// Whose way of doing a job is measured: Peerage's with one cipher, or a reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Impl {
    /// Plain TCP, or the plain in-memory link.
    RawTcp,
    /// TCP with records sealed and opened in place and nothing else: the most that a cipher allows.
    PipeChacha,
    PipeAes,
    PipePure,
    /// The curve operations of a handshake without the handshake.
    CurveDalek,
    CurveAwsLc,
    /// A priority queue and nothing else.
    BinaryHeap,
    /// One signature check and nothing else.
    Ed25519,
    /// Ways to find the nearest of a table's nodes.
    Buckets,
    Scan,
    SortedPrefixes,
    Tree,
    /// A session with the cipher that it chooses by itself.
    Peerage,
    PeerageAes,
    PeerageChacha,
    PeeragePure,
    /// Peerage's requests with a task for each answer, as `Node::serve` has them.
    PeerageTask,
    /// A stream of a node beside one that nobody reads, on the same session.
    PeerageUnread,
    /// A session without a node around it.
    PeerageSession,
    /// Peerage's gossip, set to do as gossipsub does.
    PeerageGossipsub,
}

impl Impl {
    /// As `impl=` prints it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Impl::RawTcp => "rawtcp",
            Impl::PipeChacha => "aead-pipe-chacha",
            Impl::PipeAes => "aead-pipe-aes",
            Impl::PipePure => "aead-pipe-pure",
            Impl::CurveDalek => "curve-dalek",
            Impl::CurveAwsLc => "curve-aws-lc",
            Impl::BinaryHeap => "binary-heap",
            Impl::Ed25519 => "ed25519",
            Impl::Buckets => "buckets",
            Impl::Scan => "scan",
            Impl::SortedPrefixes => "sorted-prefixes",
            Impl::Tree => "tree",
            Impl::Peerage => "peerage",
            Impl::PeerageAes => "peerage-aes",
            Impl::PeerageChacha => "peerage-chacha",
            Impl::PeeragePure => "peerage-pure",
            Impl::PeerageTask => "peerage-task",
            Impl::PeerageUnread => "peerage-unread",
            Impl::PeerageSession => "peerage-session",
            Impl::PeerageGossipsub => "peerage-gossipsub",
        }
    }

    /// Whether this is a session of Peerage's.
    pub(crate) const fn is_peerage(self) -> bool {
        matches!(
            self,
            Impl::Peerage | Impl::PeerageAes | Impl::PeerageChacha | Impl::PeeragePure | Impl::PeerageSession
        )
    }
}

/// The work itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Messages of so many bytes as fast as they go; the accepting process counts bytes.
    Bulk { size: usize },
    /// The same for small messages; the accepting process counts messages.
    Small { size: usize },
    /// One message of so many bytes back and forth.
    RoundTrip { size: usize },
    /// One request of so many bytes after the other, answered with as many.
    Request { size: usize },
    /// So many requests out at any time.
    Requests { size: usize, outstanding: usize },
    /// A stream that is read for as long as the job, or to the end of so many bytes, and questions meanwhile.
    Stream { bytes: Option<u64> },
    /// Urgent messages back and forth while bulk fills one direction of the session.
    Priority,
    /// The same over a link of 10 Mbit/s and 20 ms each way.
    PrioritySlowLink,
    /// Bulk over a link of 1 Gbit/s and 30 ms each way.
    Wan,
    /// Sessions one after the other.
    Setup,
    /// So many sessions that do nothing.
    Idle { sessions: usize },
    /// So many sessions with ten small messages a second each.
    Load { sessions: usize },
}

impl Work {
    /// What `by` does of it: who has no streams sends messages as large as a stream's pieces.
    pub(crate) const fn of(self, by: Impl) -> Work {
        match (self, by) {
            (Work::Stream { .. }, Impl::RawTcp | Impl::PeerageSession) => Work::Bulk { size: CHUNK },
            (work, _) => work,
        }
    }

    /// Whether Peerage does it by the routers of whole nodes.
    pub(crate) const fn is_routed(&self) -> bool {
        matches!(self, Work::Request { .. } | Work::Requests { .. } | Work::Stream { .. })
    }
}

/// Work for a pair of processes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) by: Impl,
    /// How long before figures count.
    pub(crate) warm: Duration,
    /// How long they count.
    pub(crate) run: Duration,
    /// Both processes on one processor.
    pub(crate) one_cpu: bool,
}

impl Job {
    /// Whether one process does it all: in virtual time, or without a network.
    pub(crate) const fn alone(&self) -> bool {
        matches!(self.work, Work::Wan | Work::PrioritySlowLink)
            || matches!(self.by, Impl::CurveDalek | Impl::CurveAwsLc)
    }

    /// When a run is given up as broken. In virtual time it is computing that takes time, and setting up thousands of
    /// sessions is not part of the run.
    pub(crate) fn limit(&self) -> Duration {
        self.warm + self.run * 4 + Duration::from_secs(60)
    }
}
