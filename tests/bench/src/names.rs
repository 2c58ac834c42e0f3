//! The names of benches: what `--only` takes and what `bench=` prints. `xtask` reads this file too.

/// In the order in which they run.
pub(crate) const SESSION: [&str; 12] = [
    "bulk64k",
    "bulk1m",
    "small128",
    "small1k",
    "rtt128",
    "rtt128-1cpu",
    "priority",
    "priority-10mbit",
    "wan",
    "setup",
    "mem",
    "load500",
];

/// The benches of requests, likewise.
pub(crate) const ROUTER: [&str; 8] = [
    "request128",
    "request128-1cpu",
    "requests-1",
    "requests-16",
    "requests-256",
    "stream",
    "stream-1cpu",
    "stream-1gib",
];

/// The benches of gossip, likewise.
pub(crate) const GOSSIP: [&str; 5] = ["gossip20", "gossip20-allocations", "hub128", "hub1k", "hub64k"];

/// Attacks by hostile peers, likewise: one after another, the last of them all at once.
pub(crate) const ATTACK: [&str; 6] = ["handshakes", "requests", "gossip", "streams", "slow-reads", "all"];
