//! The names of the benches of a session: what `--only` takes and what `bench=` prints. `xtask` reads this file too.

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

/// The benches of gossip, likewise.
pub(crate) const GOSSIP: [&str; 5] = ["gossip20", "gossip20-allocations", "hub128", "hub1k", "hub64k"];
