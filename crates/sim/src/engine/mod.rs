//! The engine: hosts, what is between them, and what happens next.

mod agenda;
mod chance;
mod conns;
mod core;
mod host;
mod links;
mod node;
mod resident;
mod streams;
mod trail;

use std::net::SocketAddr;
use std::time::Duration;

use peerage_machine::Time;

use self::agenda::Instant;
pub(crate) use self::chance::mix;
use self::conns::Item;
use self::core::{Core, Pending};
use self::host::Host;
pub use self::host::HostSpec;
pub use self::links::Links;
pub use self::node::{Closed, Conn, Event, HostId, Node, Payload};
pub use self::resident::resident_bytes;
pub use self::trail::{Digest, Trail};

/// What a world has carried so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams sent.
    pub datagrams: u64,
    /// Their bytes.
    pub datagram_bytes: u64,
    /// Those that nobody got: lost, damaged, or for a host that was down, cut off or closed to them.
    pub datagrams_lost: u64,
    /// Messages written to connections.
    pub messages: u64,
    /// Their bytes.
    pub message_bytes: u64,
    /// Stream messages that were late because something was lost.
    pub retransmissions: u64,
    /// Connections that were tried.
    pub dials: u64,
}

/// Hosts, the nodes that run on them, and the network between them, in virtual time.
///
/// Everything that is left to chance is a function of the seed: two worlds that were built and told alike run alike,
/// event by event, and have equal [digests](World::digest).
pub struct World<N: Node> {
    nodes: Vec<Option<N>>,
    core: Core<N>,
}

impl<N: Node> World<N> {
    /// An empty world.
    ///
    /// # Panics
    /// If the latencies are not those of a square and symmetric table with at least one region and at most an hour from
    /// one to the other, or the spread is more than a million parts of a million.
    pub fn new(links: Links, seed: u64) -> World<N> {
        World { nodes: Vec::new(), core: Core::new(links, seed) }
    }

    /// How long nothing may come over a connection before its ends are told; 30 s if nothing is said.
    pub fn set_idle(&mut self, idle: Duration) {
        self.core.idle = nanos(idle);
    }

    /// How long a connection attempt to who does not answer takes; 3 s if nothing is said.
    pub fn set_patience(&mut self, patience: Duration) {
        self.core.patience = nanos(patience);
    }

    /// Adds a host, on which nothing runs yet.
    ///
    /// # Panics
    /// If there is a host with its address, or its region is not in the links.
    pub fn add(&mut self, spec: HostSpec) -> HostId {
        self.nodes.push(None);
        self.core.add(Host::new(spec))
    }

    /// Starts a node on a host where none runs.
    ///
    /// # Panics
    /// If one does.
    pub fn start(&mut self, host: HostId, node: N) {
        assert!(self.nodes[host.index()].is_none(), "host {} has a node", host.0);
        self.nodes[host.index()] = Some(node);
        let now = self.core.now;
        let started = &mut self.core.hosts[host.index()];
        (started.alive, started.started, started.deadline, started.reading) = (true, now, None, true);
        self.tell(host.0, Event::Start);
    }

    /// Ends a node at once, without a word to it, and returns it: what it would have had on disk is in it.
    pub fn crash(&mut self, host: HostId) -> Option<N> {
        let node = self.nodes[host.index()].take()?;
        let crashed = &mut self.core.hosts[host.index()];
        (crashed.alive, crashed.deadline, crashed.wake) = (false, None, None);
        crashed.wake_number = crashed.wake_number.wrapping_add(1);
        self.core.reset_all(host.0);
        Some(node)
    }

    /// Gives a running node a command now; nothing happens if none runs.
    pub fn command(&mut self, host: HostId, command: N::Command) {
        if self.core.hosts[host.index()].alive {
            self.tell(host.0, Event::Command(command));
        }
    }

    /// Gives a node a command after a while, if one runs there then.
    pub fn command_in(&mut self, after: Duration, host: HostId, command: N::Command) {
        let at = self.core.now.saturating_add(nanos(after));
        self.core.later(at, Pending::Command { host: host.0, command });
    }

    /// Runs until `until`, which counts from the beginning of the world, and tells `observe` what nodes note.
    pub fn run_until(&mut self, until: Duration, mut observe: impl FnMut(Duration, HostId, N::Note)) {
        let until = nanos(until);
        while let Some(what) = self.core.next(until) {
            if let Some((host, event)) = self.core.happens(what) {
                self.tell(host, event);
                self.observed(&mut observe);
            }
        }
        self.core.now = self.core.now.max(until);
        // Of what the caller itself told nodes.
        self.observed(&mut observe);
    }

    fn observed(&mut self, observe: &mut impl FnMut(Duration, HostId, N::Note)) {
        if !self.core.notes.is_empty() {
            self.core.notes.drain(..).for_each(|(at, host, note)| observe(Duration::from_nanos(at), host, note));
        }
    }

    fn tell(&mut self, host: u32, event: Event<N>) {
        self.core.trace(host, &event);
        if let Some(node) = &mut self.nodes[host as usize] {
            node.handle(event, &mut Net { core: &mut self.core, host });
            self.core.arm(host);
        }
    }

    /// Puts every host on a side; those on different sides no longer hear each other. What is on its way over a
    /// connection waits, and comes if the network heals before the ends give up; datagrams are lost. A connection that
    /// has just been answered still opens.
    pub fn partition(&mut self, side: impl Fn(HostId) -> u8) {
        for (index, host) in self.core.hosts.iter_mut().enumerate() {
            host.side = side(HostId(index as u32));
        }
        self.core.cut();
    }

    /// Cuts two regions off from each other; others hear both. At most 32 regions can be.
    pub fn cut_regions(&mut self, (a, b): (u8, u8)) {
        for host in &mut self.core.hosts {
            let other = if host.spec.region == a {
                b
            } else if host.spec.region == b {
                a
            } else {
                continue;
            };
            host.deaf_to |= 1 << other;
        }
        self.core.cut();
    }

    /// Everybody hears everybody again.
    pub fn heal(&mut self) {
        self.core.hosts.iter_mut().for_each(|host| (host.side, host.deaf_to) = (0, 0));
        self.core.cut();
    }

    /// Lets a host stop to read its connections, or begin again. What is written to it waits at its sender's after
    /// 256 KiB.
    pub fn set_reading(&mut self, host: HostId, reading: bool) {
        let before = std::mem::replace(&mut self.core.hosts[host.index()].reading, reading);
        if reading && !before {
            self.core.read_again(host.0);
        }
    }

    /// Steps a host's wall clock.
    pub fn step_clock(&mut self, host: HostId, by_ms: i64) {
        let spec = &mut self.core.hosts[host.index()].spec;
        spec.skew_ms = spec.skew_ms.saturating_add(by_ms);
    }

    /// How long the world exists.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.core.now)
    }

    /// What a host's clocks say.
    pub fn time_at(&self, host: HostId) -> Time {
        self.core.hosts[host.index()].time(self.core.now)
    }

    /// The node that runs on a host.
    pub fn node(&self, host: HostId) -> Option<&N> {
        self.nodes[host.index()].as_ref()
    }

    /// The nodes that run.
    pub fn nodes(&self) -> impl Iterator<Item = (HostId, &N)> {
        self.nodes.iter().enumerate().filter_map(|(index, node)| Some((HostId(index as u32), node.as_ref()?)))
    }

    /// How many regions the links have.
    pub fn regions(&self) -> usize {
        self.core.links.regions()
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> usize {
        self.nodes.len()
    }

    /// A host's address and line.
    pub fn spec(&self, host: HostId) -> &HostSpec {
        &self.core.hosts[host.index()].spec
    }

    /// The host with this address.
    pub fn host_at(&self, address: SocketAddr) -> Option<HostId> {
        self.core.host_at(address)
    }

    /// The two hosts of a connection, the dialler first, while this end has it.
    pub fn ends(&mut self, conn: Conn) -> Option<[HostId; 2]> {
        Some(self.core.conns.get(conn)?.hosts.map(HostId))
    }

    /// Connections that are open, being opened, or closed by one end only.
    pub fn connections(&self) -> usize {
        self.core.conns.count()
    }

    /// What is on the agenda.
    pub fn pending(&self) -> usize {
        self.core.pending()
    }

    /// What was carried so far.
    pub fn counts(&self) -> Counts {
        self.core.counts
    }

    /// The digest of all events so far.
    pub fn digest(&self) -> Digest {
        self.core.trail.digest()
    }

    /// How many events nodes were told of so far.
    pub fn events(&self) -> u64 {
        self.core.trail.events()
    }

    /// What the run leaves behind.
    pub fn trail(&self) -> &Trail {
        &self.core.trail
    }

    /// Writes down what happens in a window of events, to be read from the [trail](World::trail).
    pub fn watch(&mut self, events: std::ops::Range<u64>) {
        self.core.trail.watch(events);
    }
}

fn nanos(span: Duration) -> Instant {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What a node can do while it handles an event.
pub struct Net<'a, N: Node> {
    core: &'a mut Core<N>,
    host: u32,
}

impl<N: Node> Net<'_, N> {
    /// What the host's clocks say: how long the node runs, and its wall clock.
    pub fn now(&self) -> Time {
        self.core.hosts[self.host as usize].time(self.core.now)
    }

    /// The host that the node runs on.
    pub fn host(&self) -> HostId {
        HostId(self.host)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.core.hosts[self.host as usize].spec.address
    }

    /// Sends a datagram, which may get lost.
    pub fn send(&mut self, to: SocketAddr, message: N::Message) {
        self.core.datagram(self.host, to, message);
    }

    /// Opens a connection. What comes of it is told as [`Event::Opened`] or [`Event::Closed`].
    pub fn connect(&mut self, to: SocketAddr) -> Conn {
        self.core.connect(self.host, to)
    }

    /// Whether a connection takes another message without letting it wait at this end. If not, an
    /// [`Event::Writable`] says when it does.
    pub fn ready(&mut self, conn: Conn) -> bool {
        self.core.ready(conn)
    }

    /// Sends a message over a connection. Messages come in the order in which they were sent, unless the connection
    /// breaks.
    pub fn write(&mut self, conn: Conn, message: N::Message) {
        self.core.write(conn, Item::Message(message));
    }

    /// Closes a connection, after everything that was written to it. No more is told of it.
    pub fn close(&mut self, conn: Conn) {
        self.core.close(conn);
    }

    /// Asks for an [`Event::Wake`] at this moment, in place of any that was asked for before.
    pub fn wake_at(&mut self, at: Option<Time>) {
        let host = &mut self.core.hosts[self.host as usize];
        host.deadline = at.map(|at| host.started.saturating_add(nanos(at.running())));
    }

    /// Tells the observer of the run.
    pub fn note(&mut self, note: N::Note) {
        self.core.notes.push((self.core.now, HostId(self.host), note));
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
