//! What is remembered of one node, ban or score, and under which key it is stored.
//!
//! All instants here are milliseconds since the Unix epoch, as the wall clock said: they outlive the process.

use std::net::IpAddr;
use std::time::Duration;

use litemap::LiteMap;
use peerage_wire::address::{self, Site};
use peerage_wire::{Banned, NodeId, NodeRecord, Verified};

use super::bounded::Worth;

/// Milliseconds since the Unix epoch.
pub(crate) type Millis = u64;

pub(crate) fn millis(unix: Duration) -> Millis {
    Millis::try_from(unix.as_millis()).unwrap_or(Millis::MAX)
}

/// A node to dial first after a restart: it was a good peer for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Its record, which names it.
    pub record: Verified<NodeRecord>,
    /// Since when it is one; time since the Unix epoch.
    pub since: Duration,
    /// How long its sessions with this node have lived.
    pub lived: Duration,
}

impl Anchor {
    /// Who it is.
    pub fn id(&self) -> NodeId {
        self.record.id()
    }
}

/// A record, and whether somebody checked its signature since it left the disk.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) record: NodeRecord,
    pub(crate) checked: bool,
}

impl Held {
    pub(crate) fn checked(record: &Verified<NodeRecord>) -> Held {
        Held { record: NodeRecord::clone(record), checked: true }
    }

    /// The record, checked now if it was not before; `None` if its owner did not sign it.
    pub(crate) fn verified(&mut self) -> Option<Verified<NodeRecord>> {
        if self.checked {
            return Some(Verified::assume(self.record.clone()));
        }
        let verified = self.record.clone().verify().ok()?;
        self.checked = true;
        Some(verified)
    }
}

/// What is known of a node at one address (geth keeps the same three things by id and IP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proof {
    /// When it last sent a ping; 0 for never.
    pub(crate) ping: Millis,
    /// When it last answered one: it is at this address; 0 for never.
    pub(crate) pong: Millis,
    /// Questions in a row that it left without an answer.
    pub(crate) failures: u32,
    /// When any of this last changed.
    pub(crate) touched: Millis,
}

impl Proof {
    /// By what its age counts: its pong, or without one the last that was heard.
    pub(crate) fn stands_from(&self) -> Millis {
        if self.pong > 0 { self.pong } else { self.touched }
    }

    /// What lies in the future was written by a clock that has been set back since, and counts from now.
    #[must_use]
    pub(crate) fn clamped(self, now: Millis) -> Proof {
        Proof { ping: self.ping.min(now), pong: self.pong.min(now), touched: self.touched.min(now), ..self }
    }
}

/// What is known of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) record: Option<Held>,
    /// When the record came.
    pub(crate) heard: Millis,
    /// At most [`Config::addresses`](crate::Config::addresses), and mostly one: a tree would take room for eleven.
    pub(crate) proofs: LiteMap<IpAddr, Proof>,
}

impl Node {
    /// Its last pong from any address; 0 for never.
    pub(crate) fn youngest_pong(&self) -> Millis {
        self.proofs.values().map(|proof| proof.pong).max().unwrap_or(0)
    }

    /// By what its age counts: its last pong, or without one the last that was heard of it. A node with no pong at all
    /// ages too: in geth it stays for ever.
    pub(crate) fn stands_from(&self) -> Millis {
        match self.youngest_pong() {
            0 => self.proofs.values().map(|proof| proof.touched).fold(self.heard, Millis::max),
            pong => pong,
        }
    }
}

impl Node {
    /// Its last pong from the address that will be asked: the one that its record names, or any if that names a host;
    /// 0 for never.
    pub(crate) fn pong_from_record(&self) -> Millis {
        let Some(Held { record, .. }) = &self.record else { return 0 };
        match record.udp_address().or_else(|| record.tcp_address()) {
            Some(address) => self.proofs.get(&address.ip()).map_or(0, |proof| proof.pong),
            None => self.youngest_pong(),
        }
    }

    /// The site that it last answered from, if that is one of the internet.
    pub(crate) fn site(&self) -> Option<Site> {
        let (ip, _) = self.proofs.iter().filter(|(_, proof)| proof.pong > 0).max_by_key(|(_, proof)| proof.pong)?;
        (!address::is_local(*ip)).then(|| address::site(*ip))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.record.is_none() && self.proofs.is_empty()
    }

    /// Forgets the address whose proof is oldest, those without a pong first; never `keep`.
    pub(crate) fn forget_address(&mut self, keep: Option<IpAddr>) -> Option<IpAddr> {
        let others = self.proofs.iter().filter(|(ip, _)| Some(**ip) != keep);
        let (ip, _) = others.min_by_key(|(_, proof)| (proof.pong > 0, proof.stands_from()))?;
        let ip = *ip;
        self.proofs.remove(&ip);
        Some(ip)
    }
}

impl Worth for Node {
    type Worth = (bool, Millis);

    fn worth(&self) -> (bool, Millis) {
        (self.youngest_pong() > 0, self.stands_from())
    }
}

/// A ban, from one instant until another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ban {
    pub(crate) from: Millis,
    pub(crate) until: Millis,
}

impl Ban {
    /// A ban that begins in the future was set by a clock that has been set back since; it is as long, from now.
    #[must_use]
    pub(crate) fn clamped(self, now: Millis) -> Ban {
        match self.from.checked_sub(now) {
            // Without an end it stays so.
            Some(ahead) if self.until < Millis::MAX => Ban { from: now, until: self.until.saturating_sub(ahead) },
            _ => self,
        }
    }
}

impl Worth for Ban {
    type Worth = Millis;

    fn worth(&self) -> Millis {
        self.until
    }
}

/// Penalty points of a node, as they were at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Score {
    pub(crate) thousandths: u64,
    pub(crate) at: Millis,
}

impl Worth for Score {
    type Worth = (u64, Millis);

    fn worth(&self) -> (u64, Millis) {
        (self.thousandths, self.at)
    }
}

/// An anchor as it is held.
#[derive(Clone, Debug)]
pub(crate) struct HeldAnchor {
    pub(crate) held: Held,
    pub(crate) since: Millis,
    pub(crate) lived: Millis,
}

/// What can change by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Record(NodeId),
    Proof(NodeId, IpAddr),
    Ban(Banned),
    Score(NodeId),
    /// By its place in the list.
    Anchor(u8),
}
