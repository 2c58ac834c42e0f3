//! What a node holds at a moment, by kind: what its machines say of themselves, and what the world keeps for them.

use std::fmt::{self, Debug, Write};

use super::PeerageNode;

/// Counts what is written to it, and keeps nothing.
#[derive(Default)]
struct Length(u64);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len() as u64;
        Ok(())
    }
}

/// How long all of a machine's state is when it is written out: what no statistic of its own counts grows there, too.
fn written(machine: &impl Debug) -> u64 {
    let mut length = Length::default();
    // Counting does not fail.
    let _ = write!(length, "{machine:?}");
    length.0
}

impl PeerageNode {
    /// What it holds, by kind. Not what is as long as its limit once it was filled, as the list of ended sessions.
    pub fn held(&self) -> Vec<(&'static str, u64)> {
        let mut held = vec![
            ("node.peers", self.sessions.len() as u64),
            ("node.connections", self.uses.len() as u64),
            ("node.dials", self.dials.len() as u64),
            ("node.setups", (self.setups.len() + self.accepted.len()) as u64),
            ("node.asked", self.asked.len() as u64),
            ("node.queued-bytes", self.queued_bytes as u64),
        ];
        let mut say = |of: &[(&'static str, usize)]| held.extend(of.iter().map(|(kind, count)| (*kind, *count as u64)));
        let db = self.db.stats().entries;
        say(&[("db.records", db.records), ("db.proofs", db.proofs), ("db.bans", db.bans), ("db.scores", db.scores)]);
        if let Some(stats) = self.root().map(|root| root.stats()) {
            say(&[("root.peers", stats.peers), ("root.setups", stats.setups), ("root.blamed", stats.blamed)]);
            say(&[("root.bans", stats.bans), ("root.seen-at", stats.seen_at)]);
        }
        if let Some(stats) = self.discovery().map(|discovery| discovery.stats()) {
            say(&[("discovery.table", stats.table), ("discovery.requests", stats.requests)]);
            say(&[("discovery.lookups", stats.lookups), ("discovery.checks", stats.checks)]);
            say(&[("discovery.learning", stats.learning), ("discovery.cookies", stats.cookies)]);
            say(&[("discovery.lost", stats.lost), ("discovery.told", stats.told)]);
        }
        if let Some(status) = self.dialer().map(|dialer| dialer.status()) {
            say(&[("dialer.dialing", (status.dialing + status.dialing_static) as usize)]);
            say(&[("dialer.remembered", status.remembered), ("dialer.statics", status.statics)]);
        }
        if let Some(stats) = self.gossip().map(|gossip| gossip.stats()) {
            say(&[("gossip.peers", stats.peers), ("gossip.links", stats.links), ("gossip.seen", stats.seen)]);
            say(&[("gossip.cached", stats.cached), ("gossip.cached-bytes", stats.cached_bytes)]);
            say(&[("gossip.in-flight", stats.in_flight), ("gossip.wanted", stats.wanted)]);
            say(&[("gossip.validating", stats.validating), ("gossip.confirming", stats.confirming)]);
            say(&[("gossip.coded", stats.coded), ("gossip.coded-bytes", stats.coded_bytes)]);
        }
        if let Some(stats) = self.router().map(|router| router.stats()) {
            say(&[("router.peers", stats.peers), ("router.operations", stats.operations)]);
            say(&[("router.operation-bytes", stats.operation_bytes), ("router.attempts", stats.attempts)]);
            say(&[("router.asked-peers", stats.asked_peers), ("router.retired", stats.retired)]);
            say(&[("router.calls", stats.calls), ("router.call-bytes", stats.call_bytes)]);
            say(&[("router.served-peers", stats.served_peers), ("router.deadlines", stats.deadlines)]);
            say(&[("router.answers-out", stats.answers_out), ("router.answers-in", stats.answers_in)]);
        }
        if let Some(requests) = &self.requests {
            let (asked, waiting) = requests.held();
            say(&[("node.requests", asked), ("node.calls", waiting)]);
        }
        held.extend(self.dialer().map(|dialer| ("dialer.written", written(dialer))));
        held.extend(self.gossip().map(|gossip| ("gossip.written", written(gossip))));
        held.extend(self.router().map(|router| ("router.written", written(router))));
        held
    }
}
