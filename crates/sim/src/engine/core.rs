//! The world without its nodes: what is on its way, and where it arrives.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::Counts;
use super::agenda::{Agenda, Instant};
use super::chance::{Chance, mix};
use super::conns::{Conns, Item};
use super::host::Host;
use super::links::Links;
use super::node::{Closed, Conn, Event, HostId, Node, Payload};
use super::trail::{Trace, Trail};

/// What on the agenda is at least as far from now where two things at one host come one after the other.
pub(super) const ONE: Instant = 1;
/// Bytes that a line carries of one connection before the next one's turn.
pub(super) const TURN: u64 = 16 * 1024;

pub(super) enum Pending<N: Node> {
    Wake {
        host: u32,
        number: u32,
    },
    Datagram {
        to: u32,
        from: u32,
        /// Whether it has come in on the receiver's line.
        through: bool,
        message: N::Message,
    },
    /// The first message of a connection, for the end that was dialled.
    Syn(Conn),
    Opened(Conn),
    Accepted(Conn),
    Refused {
        conn: Conn,
        how: Closed,
    },
    /// With the bytes that the receiver's line has still to carry.
    Arrives {
        conn: Conn,
        line: u32,
        item: Item<N::Message>,
    },
    /// Came in on the receiver's line.
    Through {
        conn: Conn,
        item: Item<N::Message>,
    },
    /// A part of a message that is not the last: it only uses the receiver's line.
    Part {
        host: u32,
        size: u32,
    },
    /// The next message of those that waited for the receiver to read.
    Drain(Conn),
    Writable(Conn),
    Reset(Conn),
    Turn {
        host: u32,
    },
    Silent {
        conn: Conn,
        cut: u32,
    },
    Command {
        host: u32,
        command: N::Command,
    },
}

pub(super) struct Core<N: Node> {
    pub(super) links: Links,
    pub(super) seed: u64,
    pub(super) chance: Chance,
    pub(super) now: Instant,
    pub(super) idle: Instant,
    /// How long a connection attempt waits for an answer.
    pub(super) patience: Instant,
    pub(super) hosts: Vec<Host>,
    pub(super) trail: Trail,
    pub(super) counts: Counts,
    pub(super) notes: Vec<(Instant, HostId, N::Note)>,
    pub(super) conns: Conns<N::Message>,
    /// How often the hosts were put on sides.
    pub(super) cuts: u32,
    addresses: FxHashMap<SocketAddr, u32>,
    agenda: Agenda,
    pending: Vec<Option<Pending<N>>>,
    free: Vec<u32>,
}

impl<N: Node> Core<N> {
    pub(super) fn new(links: Links, seed: u64) -> Core<N> {
        links.check();
        Core {
            links,
            seed: mix(seed),
            chance: Chance::new(seed),
            now: 0,
            idle: Duration::from_secs(30).as_nanos() as Instant,
            patience: Duration::from_secs(3).as_nanos() as Instant,
            hosts: Vec::new(),
            trail: Trail::default(),
            counts: Counts::default(),
            notes: Vec::new(),
            conns: Conns::new(),
            cuts: 0,
            addresses: FxHashMap::default(),
            agenda: Agenda::new(),
            pending: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, host: Host) -> HostId {
        let id = HostId(u32::try_from(self.hosts.len()).expect("fewer than 2^32 hosts fit in memory"));
        let (region, regions) = (host.spec.region, self.links.regions());
        assert!(usize::from(region) < regions, "region {region} of {regions}, counted from 0");
        let before = self.addresses.insert(host.spec.address, id.0);
        assert!(before.is_none(), "two hosts with one address: {}", host.spec.address);
        self.hosts.push(host);
        id
    }

    pub(super) fn host_at(&self, address: SocketAddr) -> Option<HostId> {
        self.addresses.get(&address).copied().map(HostId)
    }

    pub(super) fn pending(&self) -> usize {
        self.agenda.len()
    }

    pub(super) fn later(&mut self, at: Instant, what: Pending<N>) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.pending[slot as usize] = Some(what);
                slot
            }
            None => {
                self.pending.push(Some(what));
                (self.pending.len() - 1) as u32
            }
        };
        let rank = self.chance.next() as u32;
        self.agenda.push(at, rank, slot);
    }

    pub(super) fn next(&mut self, until: Instant) -> Option<Pending<N>> {
        let (at, slot) = self.agenda.pop(until)?;
        self.now = at;
        self.free.push(slot);
        self.pending[slot as usize].take()
    }

    pub(super) fn reachable(&self, a: u32, b: u32) -> bool {
        let (a, b) = (&self.hosts[a as usize], &self.hosts[b as usize]);
        a.side == b.side && a.deaf_to >> b.spec.region & 1 == 0
    }

    pub(super) fn latency(&self, a: u32, b: u32) -> Instant {
        let region = |host: u32| self.hosts[host as usize].spec.region;
        self.links.between(self.seed, (a, region(a)), (b, region(b)))
    }

    pub(super) fn datagram(&mut self, from: u32, to: SocketAddr, message: N::Message) {
        let size = message.size() as u64;
        self.counts.datagrams += 1;
        self.counts.datagram_bytes += size;
        let sender = &mut self.hosts[from as usize];
        sender.sent_to(self.now, to);
        let left = sender.datagram_out(self.now, size);
        let lost = self.chance.hits(self.links.loss) || self.chance.hits(self.links.corrupt);
        let (Some(left), Some(to), false) = (left, self.addresses.get(&to).copied(), lost) else {
            self.counts.datagrams_lost += 1;
            return;
        };
        let latency = self.latency(from, to);
        let mut late = self.links.jitter(&mut self.chance, latency);
        if self.chance.hits(self.links.reorder) {
            late += self.chance.below(latency);
        }
        let arrives = left.saturating_add(latency + late);
        self.later(arrives, Pending::Datagram { to, from, through: false, message });
    }

    fn datagram_arrives(&mut self, to: u32, from: u32, through: bool, message: N::Message) -> Option<(u32, Event<N>)> {
        let (now, sender) = (self.now, self.hosts[from as usize].spec.address);
        let heard = through || self.reachable(from, to);
        let host = &mut self.hosts[to as usize];
        let lets_in = host.alive && heard && (through || host.lets_in(now, sender));
        let free = match (lets_in, through) {
            (true, false) => host.datagram_in(now, message.size() as u64),
            (true, true) => Some(now),
            (false, _) => None,
        };
        match free {
            None => {
                self.counts.datagrams_lost += 1;
                None
            }
            Some(free) if free > now => {
                self.later(free, Pending::Datagram { to, from, through: true, message });
                None
            }
            Some(_) => Some((to, Event::Datagram { from: sender, message })),
        }
    }

    /// What a node is told of something that was on the agenda, if anything.
    pub(super) fn happens(&mut self, what: Pending<N>) -> Option<(u32, Event<N>)> {
        match what {
            Pending::Arrives { conn, line, item } => self.arrives(conn, line, item),
            Pending::Through { conn, item } => self.through(conn, item),
            Pending::Datagram { to, from, through, message } => self.datagram_arrives(to, from, through, message),
            Pending::Wake { host, number } => self.wake(host, number),
            Pending::Syn(conn) => {
                self.syn(conn);
                None
            }
            Pending::Opened(conn) => {
                let connection = self.conns.get(conn)?;
                connection.known[0] = true;
                Some((connection.hosts[0], Event::Opened(conn)))
            }
            Pending::Accepted(conn) => {
                let connection = self.conns.get(conn)?;
                connection.known[1] = true;
                let [from, host] = connection.hosts;
                Some((host, Event::Accepted { conn, from: self.hosts[from as usize].spec.address }))
            }
            Pending::Refused { conn, how } => self.refused(conn, how),
            Pending::Part { host, size } => {
                self.hosts[host as usize].line_in(self.now, u64::from(size));
                None
            }
            Pending::Drain(conn) => self.drain(conn),
            Pending::Writable(conn) => {
                let connection = self.conns.get(conn)?;
                let end = usize::from(conn.end);
                connection.known[end].then(|| (connection.hosts[end], Event::Writable(conn)))
            }
            Pending::Reset(conn) => self.reset(conn),
            Pending::Turn { host } => {
                self.turn(host);
                None
            }
            Pending::Silent { conn, cut } => {
                let connection = self.conns.get(conn)?;
                let end = usize::from(conn.end);
                let silent = connection.cut == cut && connection.known[end];
                silent.then(|| (connection.hosts[end], Event::Silent(conn)))
            }
            Pending::Command { host, command } => {
                self.hosts[host as usize].alive.then_some((host, Event::Command(command)))
            }
        }
    }

    fn wake(&mut self, host: u32, number: u32) -> Option<(u32, Event<N>)> {
        let now = self.now;
        let woken = &mut self.hosts[host as usize];
        if !woken.alive || woken.wake_number != number {
            return None;
        }
        woken.wake = None;
        if woken.deadline.is_some_and(|deadline| deadline <= now) {
            woken.deadline = None;
            return Some((host, Event::Wake));
        }
        self.arm(host);
        None
    }

    /// Sees to it that the host is woken at its deadline.
    pub(super) fn arm(&mut self, host: u32) {
        let soonest = self.now.saturating_add(ONE);
        let waking = &mut self.hosts[host as usize];
        let Some(deadline) = waking.deadline else { return };
        // Time goes on, whatever a node asks for.
        let deadline = deadline.max(soonest);
        if waking.wake.is_none_or(|at| deadline < at) {
            waking.wake = Some(deadline);
            waking.wake_number = waking.wake_number.wrapping_add(1);
            let number = waking.wake_number;
            self.later(deadline, Pending::Wake { host, number });
        }
    }

    pub(super) fn trace(&mut self, host: u32, event: &Event<N>) {
        let (kind, about, mark) = match event {
            Event::Start => (0, 0, 0),
            Event::Wake => (1, 0, 0),
            Event::Datagram { from, message } => (2, number(from), message.mark()),
            Event::Opened(conn) => (3, conn.number(), 0),
            Event::Accepted { conn, from } => (4, conn.number(), number(from)),
            Event::Message { conn, message } => (5, conn.number(), message.mark()),
            Event::Writable(conn) => (6, conn.number(), 0),
            Event::Silent(conn) => (7, conn.number(), 0),
            Event::Garbled(conn) => (8, conn.number(), 0),
            Event::Closed { conn, how } => (9, conn.number(), *how as u64),
            Event::Command(_) => (10, 0, 0),
        };
        let at = self.now;
        self.trail.describe(|| format!("t+{:?} host {host} {event:?}", Duration::from_nanos(at)));
        self.trail.note(Trace { at, host, kind, about, mark });
    }
}

/// An address as a number, for the digest.
fn number(address: &SocketAddr) -> u64 {
    let ip = match address.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => mix(ip.to_bits() as u64) ^ (ip.to_bits() >> 64) as u64,
    };
    ip << 16 ^ u64::from(address.port())
}
