//! How much a node remembers, and for how long.

use std::time::Duration;

/// Every bound of a [`NodeDb`](crate::NodeDb). A capacity of zero remembers nothing of its kind.
///
/// All of it is also in memory: 16,384 nodes with their records and proofs are about 15 MiB, everything else below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Nodes whose record or proofs are remembered. For a new one the least valuable is forgotten: first nodes that
    /// never answered a ping, of those the one heard of longest ago; then the one whose last answer is oldest.
    pub nodes: usize,
    /// Nodes of one site (/24 for IPv4, /48 for IPv6) that answered; for a new one goes the one whose last answer is
    /// oldest. So whoever answers pings under endless ids from a few addresses pushes out its own. Addresses that are
    /// not of the internet are under no such limit.
    pub nodes_per_site: usize,
    /// Addresses of one node with proofs of their own; for a new one goes the one whose proof is oldest.
    pub addresses: usize,
    /// Bans of identities; for a new one goes the one that ends soonest, which may be the new one.
    pub bans_by_id: usize,
    /// Bans of networks; for a new one goes the one that ends soonest, which may be the new one.
    pub bans_by_network: usize,
    /// Scores; for a new one goes the lowest, which may be the new one.
    pub scores: usize,
    /// Anchors; of a longer list the first are kept. At most 255.
    pub anchors: usize,
    /// How long a proof counts, and how long a node without a fresh one is remembered (geth: 24 hours,
    /// `enode/nodedb.go`).
    pub proof_lifetime: Duration,
    /// How long a score that nobody updates is remembered.
    pub score_lifetime: Duration,
}

impl Config {
    /// For a node on the internet.
    pub fn recommended() -> Config {
        Config {
            nodes: 16_384,
            nodes_per_site: 64,
            addresses: 4,
            bans_by_id: 4_096,
            bans_by_network: 1_024,
            scores: 4_096,
            anchors: 16,
            proof_lifetime: Duration::from_secs(24 * 3_600),
            score_lifetime: Duration::from_secs(7 * 24 * 3_600),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::recommended()
    }
}
