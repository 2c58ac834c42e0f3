//! A network in memory, in tokio's virtual time: hosts with IP addresses, links with delay, loss and rate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use peerage_machine::Rng;
use tokio::sync::mpsc;

use crate::flight::{Pace, Rate};
use crate::pipe::{Pipe, PipeEnd};
use crate::types::{Stream, StreamKind, Transport};

/// Connections that may wait for `accept`, as a kernel's backlog.
const BACKLOG: usize = 128;
/// Datagrams that may wait for `recv_from`, as a kernel's buffer; more are lost.
const DATAGRAMS: usize = 1024;
/// The first port given to who asks for none.
const FIRST_FREE_PORT: u16 = 40_000;

/// How every pair of hosts is joined. Each pair's latency is drawn once, from the seed and the pair.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Shortest one-way delay.
    pub latency: Duration,
    /// Added to it: uniform in [0, jitter), fixed for each pair and direction.
    pub jitter: Duration,
    /// Datagrams lost, in thousandths. Streams lose nothing.
    pub loss_per_mille: u16,
    /// Rate of each direction of a stream, in bytes a second; `None` for no limit. Every stream has it for itself.
    pub bytes_per_second: Option<u64>,
    /// Bytes that wait at the sender for a link with a rate, as with `TCP_NOTSENT_LOWAT`: who writes more waits
    /// until half of them are sent. What is written last arrives after these bytes. Without a rate none wait.
    pub unsent_limit: usize,
    /// Bytes of each direction of a stream that are sent and not yet read, as a receiver's window and buffer. The
    /// sender learns at once what was read, so rate × latency fills a link; more than the default, so, for
    /// 1 Gbit/s and 60 ms (7.5 MB).
    pub window: usize,
}

impl Default for Link {
    /// 20 to 30 ms, no loss, no rate limit, 16 KiB unsent, a window of 256 KiB.
    fn default() -> Link {
        Link {
            latency: Duration::from_millis(20),
            jitter: Duration::from_millis(10),
            loss_per_mille: 0,
            bytes_per_second: None,
            unsent_limit: 16 << 10,
            window: 256 << 10,
        }
    }
}

impl Link {
    fn pace(&self, latency: Duration) -> Pace {
        let rate = self.bytes_per_second.map(Rate::new);
        Pace { latency, rate, unsent_limit: self.unsent_limit, window: self.window }
    }
}

struct World {
    seed: u64,
    link: Link,
    rng: Rng,
    listeners: BTreeMap<SocketAddr, mpsc::Sender<Stream>>,
    /// How many accepts will fail.
    failing: BTreeMap<SocketAddr, usize>,
    datagrams: BTreeMap<SocketAddr, mpsc::Sender<(Vec<u8>, SocketAddr)>>,
    /// Pipes that may have to be cut; the dead ones are swept as new ones come.
    streams: Vec<(IpAddr, IpAddr, Weak<Pipe>)>,
    cut: BTreeSet<(IpAddr, IpAddr)>,
    parted: BTreeSet<(IpAddr, IpAddr)>,
    /// Hosts that nobody can connect to.
    shut: BTreeSet<IpAddr>,
    next_port: u16,
}

/// Hosts that reach each other in memory. Cheap to clone; clones are the same network.
///
/// Runs in virtual time under a paused `current_thread` runtime; equal seeds then give equal runs.
#[derive(Clone)]
pub struct MemoryNetwork(Arc<Mutex<World>>);

impl MemoryNetwork {
    /// A network whose delays and losses follow from `seed`.
    pub fn new(seed: u64, link: Link) -> MemoryNetwork {
        MemoryNetwork(Arc::new(Mutex::new(World {
            seed,
            link,
            rng: Rng::new(seed),
            listeners: BTreeMap::new(),
            failing: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            streams: Vec::new(),
            cut: BTreeSet::new(),
            parted: BTreeSet::new(),
            shut: BTreeSet::new(),
            next_port: FIRST_FREE_PORT,
        })))
    }

    /// The transport of the host with this address.
    pub fn host(&self, ip: IpAddr) -> Transport {
        Transport::memory(Arc::new(MemoryHost { network: self.clone(), ip }))
    }

    /// Cuts the link between two hosts: their streams break, nothing passes until [`heal`](Self::heal).
    pub fn cut(&self, a: IpAddr, b: IpAddr) {
        let mut world = self.lock();
        world.cut.insert(pair(a, b));
        let broken = world.between(a, b);
        drop(world);
        broken.iter().for_each(|pipe| pipe.cut());
    }

    /// Parts two hosts without a word to either: until [`heal`](Self::heal) datagrams are lost, what was written to
    /// streams is on its way, and who connects gets no answer.
    pub fn part(&self, a: IpAddr, b: IpAddr) {
        let mut world = self.lock();
        world.parted.insert(pair(a, b));
        let silent = world.between(a, b);
        drop(world);
        silent.iter().for_each(|pipe| pipe.part(true));
    }

    /// Joins two hosts again.
    pub fn heal(&self, a: IpAddr, b: IpAddr) {
        let mut world = self.lock();
        world.cut.remove(&pair(a, b));
        let parted = world.parted.remove(&pair(a, b));
        let silent = if parted { world.between(a, b) } else { Vec::new() };
        drop(world);
        silent.iter().for_each(|pipe| pipe.part(false));
    }

    /// Puts a host behind a firewall, as a router is: it connects to others, and who connects to it gets no answer.
    /// Datagrams pass.
    pub fn shut(&self, ip: IpAddr) {
        self.lock().shut.insert(ip);
    }

    /// Lets the next `count` accepts at this address fail, as they do where no file descriptor is left. Whoever connects
    /// meanwhile waits.
    pub fn fail_accepts(&self, at: SocketAddr, count: usize) {
        self.lock().failing.insert(at, count);
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryNetwork")
    }
}

fn pair(a: IpAddr, b: IpAddr) -> (IpAddr, IpAddr) {
    (a.min(b), a.max(b))
}

impl World {
    /// The pair's one-way delay: a function of the seed, so that no table is kept for it.
    fn latency(&self, from: IpAddr, to: IpAddr) -> Duration {
        let mut hash = self.seed;
        for ip in [from, to] {
            let bits = match ip {
                IpAddr::V4(ip) => u128::from(ip.to_bits()),
                IpAddr::V6(ip) => ip.to_bits(),
            };
            hash = Rng::new(hash ^ bits as u64 ^ (bits >> 64) as u64).next_u64();
        }
        let jitter = u64::try_from(self.link.jitter.as_nanos()).unwrap_or(u64::MAX);
        self.link.latency + Duration::from_nanos(Rng::new(hash).below(jitter))
    }

    /// The streams of two hosts, both directions of each.
    fn between(&self, a: IpAddr, b: IpAddr) -> Vec<Arc<Pipe>> {
        let theirs = self.streams.iter().filter(|(x, y, _)| pair(*x, *y) == pair(a, b));
        theirs.filter_map(|(_, _, pipe)| pipe.upgrade()).collect()
    }

    fn is_parted(&self, from: IpAddr, to: IpAddr) -> bool {
        self.parted.contains(&pair(from, to))
    }

    /// Whether who connects gets no answer.
    fn is_silent(&self, from: IpAddr, to: IpAddr) -> bool {
        self.is_parted(from, to) || self.shut.contains(&to) && from != to
    }

    fn reaches(&self, from: IpAddr, to: IpAddr) -> bool {
        !self.cut.contains(&pair(from, to))
    }

    fn bind<V>(taken: &BTreeMap<SocketAddr, V>, next_port: &mut u16, on: SocketAddr) -> io::Result<SocketAddr> {
        let mut at = on;
        if on.port() == 0 {
            at.set_port(*next_port);
            *next_port = next_port.checked_add(1).unwrap_or(FIRST_FREE_PORT);
        }
        if taken.contains_key(&at) { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(at) }
    }
}

pub(crate) struct MemoryHost {
    network: MemoryNetwork,
    ip: IpAddr,
}

impl MemoryHost {
    pub(crate) fn ip(&self) -> IpAddr {
        self.ip
    }

    fn own(&self, on: SocketAddr) -> io::Result<SocketAddr> {
        let ip = if on.ip().is_unspecified() { self.ip } else { on.ip() };
        if ip == self.ip { Ok(SocketAddr::new(ip, on.port())) } else { Err(io::ErrorKind::AddrNotAvailable.into()) }
    }

    pub(crate) fn listen(&self, on: SocketAddr) -> io::Result<MemoryListener> {
        let on = self.own(on)?;
        let mut world = self.network.lock();
        let World { listeners, next_port, .. } = &mut *world;
        let at = World::bind(listeners, next_port, on)?;
        let (streams, accepted) = mpsc::channel(BACKLOG);
        listeners.insert(at, streams);
        Ok(MemoryListener { network: self.network.clone(), at, accepted })
    }

    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        let (there, back) = {
            let world = self.network.lock();
            (world.latency(self.ip, to.ip()), world.latency(to.ip(), self.ip))
        };
        tokio::time::sleep(there).await;
        if self.network.lock().is_silent(self.ip, to.ip()) {
            std::future::pending::<()>().await;
        }
        let opened = self.open(to, there, back);
        tokio::time::sleep(back).await;
        opened
    }

    fn open(&self, to: SocketAddr, there: Duration, back: Duration) -> io::Result<Stream> {
        let mut world = self.network.lock();
        if !world.reaches(self.ip, to.ip()) {
            return Err(io::ErrorKind::HostUnreachable.into());
        }
        let here = SocketAddr::new(self.ip, world.next_port);
        world.next_port = world.next_port.checked_add(1).unwrap_or(FIRST_FREE_PORT);
        let forth = Arc::new(Pipe::new(world.link.pace(there)));
        let back_pipe = Arc::new(Pipe::new(world.link.pace(back)));
        let dialled = PipeEnd::new(back_pipe.clone(), forth.clone());
        let accepted = PipeEnd::new(forth.clone(), back_pipe.clone());
        let listener = world.listeners.get(&to).ok_or(io::ErrorKind::ConnectionRefused)?.clone();
        world.streams.retain(|(_, _, pipe)| pipe.strong_count() > 0);
        for pipe in [&forth, &back_pipe] {
            world.streams.push((self.ip, to.ip(), Arc::downgrade(pipe)));
        }
        drop(world);
        listener
            .try_send(Stream::made(StreamKind::Memory(accepted), here))
            .map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Stream::made(StreamKind::Memory(dialled), to))
    }

    pub(crate) fn bind_datagram(&self, on: SocketAddr) -> io::Result<MemoryDatagram> {
        let on = self.own(on)?;
        let mut world = self.network.lock();
        let World { datagrams, next_port, .. } = &mut *world;
        let at = World::bind(datagrams, next_port, on)?;
        let (sender, received) = mpsc::channel(DATAGRAMS);
        datagrams.insert(at, sender);
        Ok(MemoryDatagram { network: self.network.clone(), at, received: tokio::sync::Mutex::new(received) })
    }
}

pub(crate) struct MemoryListener {
    network: MemoryNetwork,
    at: SocketAddr,
    accepted: mpsc::Receiver<Stream>,
}

impl MemoryListener {
    pub(crate) async fn accept(&mut self) -> io::Result<Stream> {
        if let Some(left) = self.network.lock().failing.get_mut(&self.at).filter(|left| **left > 0) {
            *left -= 1;
            return Err(io::Error::other("no file descriptor is left"));
        }
        self.accepted.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.at
    }
}

impl fmt::Debug for MemoryListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryListener({})", self.at)
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        self.network.lock().listeners.remove(&self.at);
    }
}

pub(crate) struct MemoryDatagram {
    network: MemoryNetwork,
    at: SocketAddr,
    /// One reader at a time, as `recv_from` takes `&self`.
    received: tokio::sync::Mutex<mpsc::Receiver<(Vec<u8>, SocketAddr)>>,
}

impl MemoryDatagram {
    pub(crate) async fn recv_from(&self, buf: &mut [u8]) -> (usize, SocketAddr) {
        match self.received.lock().await.recv().await {
            Some((bytes, from)) => {
                let len = bytes.len().min(buf.len());
                buf[..len].copy_from_slice(&bytes[..len]);
                (len, from)
            }
            // The sender lives in the network's table as long as this socket does.
            None => std::future::pending().await,
        }
    }

    pub(crate) fn try_recv_from(&self, buf: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let (bytes, from) = self.received.try_lock().ok()?.try_recv().ok()?;
        let len = bytes.len().min(buf.len());
        buf[..len].copy_from_slice(&bytes[..len]);
        Some((len, from))
    }

    pub(crate) fn send_to(&self, bytes: &[u8], to: SocketAddr) {
        let mut world = self.network.lock();
        let lost = world.link.loss_per_mille;
        let (from, at) = (self.at.ip(), to.ip());
        if !world.reaches(from, at) || world.is_parted(from, at) || world.rng.below(1000) < u64::from(lost) {
            return;
        }
        let delay = world.latency(self.at.ip(), to.ip());
        drop(world);
        let (network, from, bytes) = (self.network.clone(), self.at, bytes.to_vec());
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let receiver = network.lock().datagrams.get(&to).cloned();
            if let Some(receiver) = receiver {
                // A full buffer loses the datagram, as a kernel's does.
                drop(receiver.try_send((bytes, from)));
            }
        });
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.at
    }
}

impl fmt::Debug for MemoryDatagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryDatagram({})", self.at)
    }
}

impl Drop for MemoryDatagram {
    fn drop(&mut self) {
        self.network.lock().datagrams.remove(&self.at);
    }
}

#[cfg(test)]
mod tests;
