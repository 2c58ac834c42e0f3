//! What goes in and out of the lists' rules, and their numbers.

use std::time::Duration;

use peerage_machine::Backoff;
use peerage_wire::{NodeRecord, Verified};
use serde::{Deserialize, Serialize};

use crate::sources::dns::entry::ListLink;

/// How lists are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListConfig {
    /// How often a list's root is looked up again (EIP-1459 clients: 30 min).
    pub recheck: Duration,
    /// Pauses after lookups of a root that failed.
    pub retry: Backoff,
    /// How long a lookup may take.
    pub timeout: Duration,
    /// Time from one lookup to the next.
    pub pace: Duration,
    /// Lookups that may be unanswered.
    pub at_once: usize,
    /// How many links may lie between a list that the user named and one that is followed.
    pub max_depth: usize,
    /// Lists that are followed, those that the user named included.
    pub max_lists: usize,
    /// Links of one list that are followed, so that none takes all places.
    pub max_links: usize,
    /// Nodes of a list.
    pub max_nodes: usize,
    /// Entries of all lists together. One is kept in less than 1 KiB.
    pub max_entries: usize,
}

impl ListConfig {
    /// For a network on the internet.
    pub const fn recommended() -> ListConfig {
        ListConfig {
            recheck: Duration::from_secs(30 * 60),
            retry: Backoff { base: Duration::from_secs(10), cap: Duration::from_secs(30 * 60) },
            timeout: Duration::from_secs(5),
            pace: Duration::from_millis(100),
            at_once: 4,
            max_depth: 4,
            max_lists: 64,
            max_links: 16,
            max_nodes: 4_096,
            max_entries: 16_384,
        }
    }
}

/// What may happen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum In {
    /// The node begins.
    Start,
    /// So many more nodes are of use; replaces what is left of an earlier wish.
    Want(usize),
    /// A lookup was answered.
    Answer {
        /// Its token.
        token: u64,
        /// The texts at the name, each put together from its strings.
        texts: Vec<String>,
    },
    /// A lookup failed.
    Failed {
        /// Its token.
        token: u64,
    },
}

/// Why a list, or a part of it, is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// There is no root that its key signed.
    NoRoot,
    /// The root is older than one that was seen, or another one of the same number.
    OldRoot,
    /// The text at an entry's name is not the one that its hash stands for.
    Hash,
    /// A text that is no entry, or a record that its owner did not sign.
    Entry,
    /// A link among nodes, or a node among links.
    Kind,
    /// A node of another network.
    Network,
    /// It has more nodes or entries than are kept.
    TooLarge,
    /// It links to more lists than are followed, or too far.
    TooManyLinks,
}

impl Refusal {
    /// In words.
    pub const fn label(self) -> &'static str {
        match self {
            Refusal::NoRoot => "it has no root that its key signed",
            Refusal::OldRoot => "its root is older than one that was seen before",
            Refusal::Hash => "an entry is not the one that its hash stands for",
            Refusal::Entry => "an entry is malformed, or not signed by its owner",
            Refusal::Kind => "an entry is of the other tree",
            Refusal::Network => "it names a node of another network",
            Refusal::TooLarge => "it is larger than what is kept of lists",
            Refusal::TooManyLinks => "it links to more lists than are followed, or over more steps",
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// Look up the TXT records at this name.
    Query {
        /// Comes back with the answer.
        token: u64,
        /// The name, without a dot at the end.
        name: String,
    },
    /// Nodes of lists, their signatures checked, of this network; never more than were wanted.
    Found(Vec<Verified<NodeRecord>>),
    /// A list has a new root.
    Accepted {
        /// The list.
        link: ListLink,
        /// The root's number.
        seq: u64,
    },
    /// A lookup was not answered in time, or with an error.
    Failed {
        /// Of which list.
        link: ListLink,
        /// What was looked up: the root, or an entry.
        root: bool,
    },
    /// Something of a list is not used.
    Refused {
        /// The list.
        link: ListLink,
        /// Why.
        why: Refusal,
    },
}

/// The timers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A lookup has taken long enough.
    Query(u64),
    /// The next lookup may be made.
    Pace,
    /// A list's root is to be looked up.
    Root(ListLink),
}
