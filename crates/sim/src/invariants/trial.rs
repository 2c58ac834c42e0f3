//! What tests of invariants need: a scene, and people in it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use peerage_server::Config;
use peerage_wire::NodeId;

use super::{Happening, Invariant, Roster, Scene, Seen, SeenPeer, Verdict};
use crate::engine::HostId;
use crate::node::Note;

/// Four honest nodes and a hostile one, the last.
pub(super) struct Trial {
    pub(super) roster: Roster,
    pub(super) config: Config,
}

pub(super) const HOSTILE: u8 = 4;

pub(super) fn id(host: u8) -> NodeId {
    NodeId::from_bytes([host; 32])
}

/// An address in a site.
pub(super) fn ip(site: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(20, 0, site, host).into()
}

pub(super) fn peer(host: u8, dialled: bool) -> SeenPeer {
    SeenPeer { id: id(host), ip: ip(host, 1), dialled, fixed: false, trusted: false }
}

/// What is seen of the first node, with these peers.
pub(super) fn with(peers: impl IntoIterator<Item = SeenPeer>) -> Seen {
    Seen { peers: peers.into_iter().collect(), ..Seen::nothing(id(0)) }
}

impl Trial {
    pub(super) fn new() -> Trial {
        let roster = Roster::new((0..=HOSTILE).map(|host| (id(host), ip(host, 1), host == HOSTILE)));
        Trial { roster, config: Config { exempt_local: false, ..Config::recommended() } }
    }

    fn at(&self, second: u64) -> Scene<'_> {
        Scene { now: Duration::from_secs(second), roster: &self.roster, config: &self.config }
    }

    pub(super) fn saw(&self, invariant: &mut impl Invariant, seen: &Seen) -> Verdict {
        invariant.saw(&self.at(0), HostId(0), seen)
    }

    pub(super) fn noted(&self, invariant: &mut impl Invariant, second: u64, host: u8, note: Note) -> Verdict {
        invariant.noted(&self.at(second), HostId(host.into()), &note)
    }

    pub(super) fn happened(&self, invariant: &mut impl Invariant, second: u64, what: Happening) {
        invariant.happened(&self.at(second), &what);
    }

    pub(super) fn looked(&self, invariant: &mut impl Invariant, second: u64) -> Verdict {
        invariant.looked(&self.at(second))
    }
}
