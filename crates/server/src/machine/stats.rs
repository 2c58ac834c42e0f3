//! How much the root holds.

use super::ServerMachine;

/// How much a machine holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Peers.
    pub peers: usize,
    /// Connections that are being set up.
    pub setups: usize,
    /// Nodes that are blamed for something.
    pub blamed: usize,
    /// Bans that have not been swept yet.
    pub bans: usize,
    /// Static and trusted peers of which it is known where they were seen last.
    pub seen_at: usize,
}

impl ServerMachine {
    /// How much it holds.
    pub fn stats(&self) -> Stats {
        Stats {
            peers: self.peers.len().max(self.sessions.len()),
            setups: self.setups.len().max(self.reserved.len()),
            blamed: self.blamed(),
            bans: self.bans().count(),
            seen_at: self.seen_at.len(),
        }
    }
}
