//! How much discovery holds.

use super::DiscoveryMachine;

/// How much a machine holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nodes in the table.
    pub table: usize,
    /// Requests without an answer.
    pub requests: usize,
    /// Lookups that run.
    pub lookups: usize,
    /// Batches of records whose signatures are being checked.
    pub checks: usize,
    /// Nodes that were asked for their record; those that may be asked again are swept when there are many.
    pub learning: usize,
    /// Peers whose cookies are remembered.
    pub cookies: usize,
    /// Nodes that were in the table and are lost.
    pub lost: usize,
    /// Records that sources other than the table told.
    pub told: usize,
}

impl DiscoveryMachine {
    /// How much it holds.
    pub fn stats(&self) -> Stats {
        Stats {
            table: self.table.len(),
            requests: self.requests.len(),
            lookups: self.lookups.len(),
            checks: self.checks.len(),
            learning: self.learning.len(),
            cookies: self.cookies.len(),
            lost: self.lost.len(),
            told: self.mix.len(),
        }
    }
}
