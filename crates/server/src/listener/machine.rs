//! Who gets in, who must wait, and who gives way: the listener's rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_machine::{Effects, Machine, Time};
use peerage_wire::Admission;
use peerage_wire::address::{Host, Site, host, is_local, site};
use serde::{Deserialize, Serialize};

use super::config::ListenerConfig;
use super::limits::{Ceiling, Limit};

/// An accepted connection, numbered through a life of the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Conn(pub u64);

/// Why a connection gets no session from the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Refusal {
    /// The node's policy does not admit its address.
    NotAllowed,
    /// Its host has opened too many.
    HostLimit,
    /// Its site has.
    SiteLimit,
    /// All slots are taken, and nobody in them has to give way to it.
    NoSlot,
    /// It gave its slot to another site's.
    Evicted,
    /// The door that it asked for has as many as it takes.
    DoorFull,
    /// Its first bytes are no door's.
    UnknownProtocol,
    /// Its first bytes did not come in time.
    FirstBytesTimeout,
    /// It went before its first bytes were there.
    Closed,
}

impl Refusal {
    /// A word for metrics and people.
    pub const fn label(self) -> &'static str {
        match self {
            Refusal::NotAllowed => "not_allowed",
            Refusal::HostLimit => "host_limit",
            Refusal::SiteLimit => "site_limit",
            Refusal::NoSlot => "no_slot",
            Refusal::Evicted => "evicted",
            Refusal::DoorFull => "door_full",
            Refusal::UnknownProtocol => "unknown_protocol",
            Refusal::FirstBytesTimeout => "first_bytes_timeout",
            Refusal::Closed => "closed",
        }
    }
}

/// What may happen to the listener. All from its own tasks, at most four a slot, but for the last two.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum In {
    /// A connection was accepted.
    Accepted(Conn, IpAddr),
    /// Its other end has shown who it is, and the root has a place for it.
    Identified(Conn),
    /// Its first bytes are those of another protocol's door.
    Matched {
        /// Which connection.
        conn: Conn,
        /// The door's name.
        door: String,
        /// How many visitors it takes at a time.
        limit: usize,
    },
    /// Its set-up is over.
    Released(Conn),
    /// From the root: the policy from now on.
    Admission(Arc<Admission>),
    /// From the root: the addresses of static and trusted peers.
    Privileged(BTreeSet<IpAddr>),
    /// From the root: the limits from now on. Who has a slot keeps it.
    Limits(Box<ListenerConfig>),
}

/// What the listener's shell is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    /// Begin this connection's set-up.
    Begin(Conn),
    /// Close this connection, which has no slot.
    Refuse(Conn, Refusal),
    /// Hand this connection to the door that it matched.
    Hand(Conn),
    /// End this connection's set-up and close it; its slot is free already.
    Close(Conn, Refusal),
}

/// The listener has no timers: its deadlines are its tasks', and the ceiling is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Has not shown who it is.
    Stranger,
    Identified,
    /// Another protocol's, which ends it by its own rules.
    Visitor(String),
}

#[derive(Debug)]
struct Slot {
    address: IpAddr,
    host: Host,
    site: Site,
    since: Time,
    reserved: bool,
    stage: Stage,
}

impl Slot {
    fn may_give_way(&self) -> bool {
        !self.reserved && self.stage == Stage::Stranger
    }
}

/// The listener's rules.
///
/// In this order, before any crypto: the policy, the limits by address, the ceiling, a slot. Static and trusted
/// peers' addresses have slots of their own, and their site's other hosts do not use up their limit; their own limit
/// holds, because an address may be shared with somebody hostile.
///
/// When the slots for all are taken, the oldest stranger of the site that has most of them gives way; one that has
/// shown who it is never does. A newcomer of that very site displaces only what has had its time.
pub struct ListenerMachine {
    config: ListenerConfig,
    exempt_local: bool,
    admission: Arc<Admission>,
    /// As many as the node has static and trusted peers.
    privileged: BTreeSet<IpAddr>,
    hosts: Limit<Host>,
    sites: Limit<Site>,
    ceiling: Ceiling,
    /// At most `config.slots`.
    slots: BTreeMap<Conn, Slot>,
}

impl ListenerMachine {
    /// A listener without connections, which admits everybody until it is told a policy. `exempt_local`: the limits by
    /// address spare local addresses.
    pub fn new(config: ListenerConfig, exempt_local: bool) -> ListenerMachine {
        let ceiling = Ceiling::new(config.accepts_per_second);
        ListenerMachine {
            exempt_local,
            admission: Arc::new(Admission::open()),
            privileged: BTreeSet::new(),
            hosts: Limit::new(config.per_host, &ceiling),
            sites: Limit::new(config.per_site, &ceiling),
            ceiling,
            slots: BTreeMap::new(),
            config,
        }
    }

    fn limit(&mut self, config: ListenerConfig) {
        self.ceiling.limit(config.accepts_per_second);
        self.hosts.limit(config.per_host, &self.ceiling);
        self.sites.limit(config.per_site, &self.ceiling);
        self.config = config;
    }

    /// How long to accept nobody. Each socket may go over it by the one connection that it accepted meanwhile.
    pub fn wait(&self, now: Time) -> Duration {
        self.ceiling.wait(now)
    }

    /// Slots in use: those for all, and the reserved ones.
    pub fn in_use(&self) -> (usize, usize) {
        let reserved = self.slots.values().filter(|slot| slot.reserved).count();
        (self.slots.len() - reserved, reserved)
    }

    /// Charges the limits by address.
    fn charge(&mut self, now: Time, ip: IpAddr) -> Result<(), Refusal> {
        if !self.admission.permits_ip(ip) {
            return Err(Refusal::NotAllowed);
        }
        if !(self.exempt_local && is_local(ip)) {
            let factor = self.config.factor(ip);
            let (host, site) = (host(ip), site(ip));
            let spared = self.privileged.contains(&ip);
            if !self.hosts.allows(now, &host, factor) {
                return Err(Refusal::HostLimit);
            }
            if !spared && !self.sites.allows(now, &site, factor) {
                return Err(Refusal::SiteLimit);
            }
            self.hosts.charge(now, host, factor);
            if !spared {
                self.sites.charge(now, site, factor);
            }
        }
        self.ceiling.take(now);
        Ok(())
    }

    fn accepted(&mut self, now: Time, conn: Conn, ip: IpAddr, fx: &mut Effects<Out, Timer>) {
        // One host is one host, in whichever clothes its address comes.
        let ip = ip.to_canonical();
        if let Err(refusal) = self.charge(now, ip) {
            return fx.emit(Out::Refuse(conn, refusal));
        }
        let (open, reserved) = self.in_use();
        let privileged = self.privileged.contains(&ip) && reserved < self.config.reserved;
        if !privileged && open >= self.config.slots.saturating_sub(self.config.reserved) {
            let Some(evicted) = self.gives_way(now, ip) else {
                return fx.emit(Out::Refuse(conn, Refusal::NoSlot));
            };
            self.slots.remove(&evicted);
            fx.emit(Out::Close(evicted, Refusal::Evicted));
        }
        let slot = Slot {
            address: ip,
            host: host(ip),
            site: site(ip),
            since: now,
            reserved: privileged,
            stage: Stage::Stranger,
        };
        self.slots.insert(conn, slot);
        fx.emit(Out::Begin(conn));
    }

    /// Who must give way to a newcomer, if anybody: of the site with most strangers (then of the host with most, then
    /// the one that came first) the oldest.
    fn gives_way(&self, now: Time, newcomer: IpAddr) -> Option<Conn> {
        let strangers = || self.slots.iter().filter(|(_, slot)| slot.may_give_way());
        let (mut sites, mut hosts) = (BTreeMap::<Site, usize>::new(), BTreeMap::<Host, usize>::new());
        for (_, slot) in strangers() {
            *sites.entry(slot.site).or_default() += 1;
            *hosts.entry(slot.host).or_default() += 1;
        }
        let most = sites.values().copied().max()?;
        let own = sites.get(&site(newcomer)).copied().unwrap_or(0);
        let weight = |slot: &Slot| (sites[&slot.site], hosts[&slot.host]);
        if own < most {
            // Conns rise with time: of equals the first is the oldest.
            let worst = strangers().map(|(_, slot)| weight(slot)).max()?;
            return strangers().find(|(_, slot)| weight(slot) == worst).map(|(conn, _)| *conn);
        }
        // Its own site has most. A flood from there pushes out nobody before its time, honest hosts of that site
        // included; and what has had its time makes room for them.
        let spent = |slot: &Slot| slot.site == site(newcomer) && now.since(slot.since) >= self.config.evict_after;
        let worst = strangers().filter(|(_, slot)| spent(slot)).map(|(_, slot)| hosts[&slot.host]).max()?;
        strangers().find(|(_, slot)| spent(slot) && hosts[&slot.host] == worst).map(|(conn, _)| *conn)
    }

    fn matched(&mut self, conn: Conn, door: String, limit: usize, fx: &mut Effects<Out, Timer>) {
        let visits = |slot: &&Slot| matches!(&slot.stage, Stage::Visitor(of) if *of == door);
        let visitors = self.slots.values().filter(visits).count();
        let Some(slot) = self.slots.get_mut(&conn) else { return };
        if visitors >= limit {
            self.slots.remove(&conn);
            fx.emit(Out::Close(conn, Refusal::DoorFull));
        } else {
            slot.stage = Stage::Visitor(door);
            fx.emit(Out::Hand(conn));
        }
    }

    /// A policy holds for those who are on their way in, too.
    fn enforce(&mut self, fx: &mut Effects<Out, Timer>) {
        let admission = Arc::clone(&self.admission);
        self.slots.retain(|conn, slot| {
            // A visitor is its door's, which knows by itself whom it serves.
            let permitted = matches!(slot.stage, Stage::Visitor(_)) || admission.permits_ip(slot.address);
            if !permitted {
                fx.emit(Out::Close(*conn, Refusal::NotAllowed));
            }
            permitted
        });
    }
}

impl Machine for ListenerMachine {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Effects<Out, Timer>) {
        match input {
            In::Accepted(conn, ip) => self.accepted(now, conn, ip, fx),
            In::Identified(conn) => {
                if let Some(slot) = self.slots.get_mut(&conn) {
                    slot.stage = Stage::Identified;
                }
            }
            In::Matched { conn, door, limit } => self.matched(conn, door, limit, fx),
            In::Released(conn) => drop(self.slots.remove(&conn)),
            In::Admission(admission) => {
                self.admission = admission;
                self.enforce(fx);
            }
            In::Limits(config) => self.limit(*config),
            In::Privileged(addresses) => {
                self.privileged = addresses.into_iter().map(|ip| ip.to_canonical()).collect();
            }
        }
    }

    fn expire(&mut self, _now: Time, timer: Timer, _fx: &mut Effects<Out, Timer>) {
        match timer {}
    }
}

#[cfg(test)]
mod tests;
