//! What must never be, whatever happens: looked at while a scenario runs.
//!
//! An [`Invariant`] is told what nodes tell and what the scenario does, and about once a second of each honest node
//! what can be [`Seen`] of it; in a large world of some nodes at each look, of all in turn. Those of [`all`] hold in
//! every scenario; [`Options::held_to`](crate::run::Options::held_to) adds others to one run.

mod bounds;
mod dials;
mod messages;
mod peers;
mod seen;
mod table;
#[cfg(test)]
mod trial;

use std::time::Duration;

use peerage_server::Config;
use peerage_wire::NodeId;

use rustc_hash::FxHashMap;

use crate::engine::HostId;
use crate::node::{Descriptor, Note};

pub use self::bounds::{Pending, QueueBytes};
pub use self::dials::DialHistory;
pub use self::messages::{DeliveredOnce, Genuine};
pub use self::peers::{HonestBans, NobodyBanned, Slots, Symmetric};
pub use self::seen::{Seen, SeenPeer};
pub use self::table::TableLimits;

/// What holds, or in words, how it was broken.
pub type Verdict = Result<(), String>;

/// Something that must hold.
pub trait Invariant {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// A node told something, hostile ones too.
    ///
    /// # Errors
    /// In words, how that breaks it.
    fn noted(&mut self, _scene: &Scene<'_>, _host: HostId, _note: &Note) -> Verdict {
        Ok(())
    }

    /// The scenario did something.
    fn happened(&mut self, _scene: &Scene<'_>, _what: &Happening) {}

    /// A look at an honest node that runs.
    ///
    /// # Errors
    /// In words, how what is seen breaks it.
    fn saw(&mut self, _scene: &Scene<'_>, _host: HostId, _seen: &Seen) -> Verdict {
        Ok(())
    }

    /// The end of a look, about once a second.
    ///
    /// # Errors
    /// In words, how what was told so far breaks it.
    fn looked(&mut self, _scene: &Scene<'_>) -> Verdict {
        Ok(())
    }
}

/// When and where something happens.
pub struct Scene<'a> {
    /// Since the world began.
    pub now: Duration,
    /// Who is in it.
    pub roster: &'a Roster,
    /// The configuration of all honest nodes.
    pub config: &'a Config,
}

/// What the scenario does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A node starts a life.
    Started(HostId),
    /// A node's life ends; nobody is told.
    Stopped(HostId),
    /// A message is about to be published.
    Published(Descriptor),
    /// A host stops to read its connections, or reads again.
    Reads(HostId, bool),
    /// From now on some nodes do not hear others.
    Parted,
    /// All hear each other again.
    Healed,
}

/// Who is in a world.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    hosts: Vec<(NodeId, std::net::IpAddr, bool)>,
    by_id: FxHashMap<NodeId, HostId>,
}

impl Roster {
    /// Everybody by host: who it is, where, and whether it is hostile.
    pub fn new(hosts: impl IntoIterator<Item = (NodeId, std::net::IpAddr, bool)>) -> Roster {
        let hosts: Vec<_> = hosts.into_iter().collect();
        let by_id = hosts.iter().enumerate().map(|(host, (id, ..))| (*id, HostId(host as u32))).collect();
        Roster { hosts, by_id }
    }

    /// Whose identity this is; `None` for one of nobody.
    pub fn host(&self, id: &NodeId) -> Option<HostId> {
        self.by_id.get(id).copied()
    }

    /// The host of an honest node.
    pub fn honest(&self, id: &NodeId) -> Option<HostId> {
        self.host(id).filter(|host| !self.is_hostile(*host))
    }

    /// Whether the node on a host is hostile.
    pub fn is_hostile(&self, host: HostId) -> bool {
        self.hosts.get(host.index()).is_some_and(|(.., hostile)| *hostile)
    }

    /// Who is on a host.
    pub fn id(&self, host: HostId) -> Option<NodeId> {
        self.hosts.get(host.index()).map(|(id, ..)| *id)
    }

    /// The addresses of honest nodes.
    pub fn honest_addresses(&self) -> impl Iterator<Item = std::net::IpAddr> {
        self.hosts.iter().filter(|(.., hostile)| !hostile).map(|(_, ip, _)| *ip)
    }

    pub(crate) fn ids(&self) -> &FxHashMap<NodeId, HostId> {
        &self.by_id
    }
}

/// Those that every scenario is held to.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(Slots),
        Box::new(Symmetric::default()),
        Box::new(NobodyBanned),
        Box::new(HonestBans),
        Box::new(TableLimits),
        Box::new(DialHistory::default()),
        Box::new(DeliveredOnce::default()),
        Box::new(Genuine::default()),
        Box::new(QueueBytes),
        Box::new(Pending),
    ]
}
