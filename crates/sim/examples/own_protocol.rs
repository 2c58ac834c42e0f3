//! A protocol of one's own on 1,000 nodes: rumours that reach everybody although datagrams are lost and a tenth crashes.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use peerage_sim::peerage_machine::{Driver, Effects, Machine, Rng, Time};
use peerage_sim::{Digest, Event, HostId, HostSpec, Links, Net, Node, Payload, World, resident_bytes};

/// How many a node tells at once of what it did not know.
const FANOUT: usize = 4;
/// How often it compares what it knows with somebody, whatever happens.
const COMPARE: Duration = Duration::from_millis(500);

/// The rules: what is new is told to some, and who lacks something is answered.
struct Rumours {
    peers: Vec<SocketAddr>,
    known: u64,
    rng: Rng,
}

impl Rumours {
    fn tell(&mut self, count: usize, fx: &mut Effects<(SocketAddr, u64), ()>) {
        for _ in 0..count {
            if let Some(peer) = self.rng.index(self.peers.len()) {
                fx.emit((self.peers[peer], self.known));
            }
        }
    }

    fn start(&mut self, now: Time, fx: &mut Effects<(SocketAddr, u64), ()>) {
        // Not all at the same moment.
        fx.arm((), now + Duration::from_micros(self.rng.below(COMPARE.as_micros() as u64)));
    }
}

impl Machine for Rumours {
    /// Who says that it knows what: a bit for each rumour.
    type In = (SocketAddr, u64);
    /// Who is to be told what.
    type Out = (SocketAddr, u64);
    type Timer = ();

    fn handle(&mut self, _: Time, (from, theirs): (SocketAddr, u64), fx: &mut Effects<(SocketAddr, u64), ()>) {
        let news = theirs & !self.known != 0;
        self.known |= theirs;
        if self.known & !theirs != 0 {
            fx.emit((from, self.known));
        }
        if news {
            self.tell(FANOUT, fx);
        }
    }

    fn expire(&mut self, now: Time, (): (), fx: &mut Effects<(SocketAddr, u64), ()>) {
        self.tell(1, fx);
        fx.arm((), now + COMPARE);
    }
}

/// What travels: the rumours that the sender knows.
#[derive(Clone, Debug)]
struct Known(u64);

impl Payload for Known {
    fn size(&self) -> usize {
        8 + 28
    }

    fn mark(&self) -> u64 {
        self.0
    }
}

/// The machine on a host.
struct Peer(Driver<Rumours>);

impl Node for Peer {
    type Message = Known;
    type Command = u64;
    type Note = ();

    fn handle(&mut self, event: Event<Peer>, net: &mut Net<'_, Peer>) {
        let (now, me) = (net.now(), net.address());
        match event {
            Event::Start => self.0.with(|rumours, fx| rumours.start(now, fx)),
            Event::Wake => self.0.expire_due(now),
            Event::Datagram { from, message: Known(theirs) } => self.0.handle(now, (from, theirs)),
            Event::Command(rumour) => self.0.handle(now, (me, rumour)),
            _ => {}
        }
        self.0.drain().for_each(|(to, known)| net.send(to, Known(known)));
        net.wake_at(self.0.next_deadline());
    }
}

const NODES: u32 = 1000;
const RUMOURS: u32 = 20;
const EVERYTHING: u64 = (1 << RUMOURS) - 1;

fn address(host: u32) -> SocketAddr {
    (Ipv4Addr::from(0x1400_0000 + (host << 8)), 30303).into()
}

/// Knows some others, and no rumour.
fn peer(rng: &mut Rng) -> Peer {
    let peers = (0..12).map(|_| address(rng.below(NODES.into()) as u32)).collect();
    Peer(Driver::new(Rumours { peers, known: 0, rng: rng.fork() }))
}

/// When everybody knew everything, if they did, and the world as it was then.
fn run(seed: u64) -> (Option<Duration>, World<Peer>) {
    let mut rng = Rng::new(seed);
    let mut world = World::new(Links { jitter: 100_000, loss: 100_000, ..Links::world() }, seed);
    for host in 0..NODES {
        let host = world.add(HostSpec { region: (host % 5) as u8, ..HostSpec::at(address(host)) });
        world.start(host, peer(&mut rng));
    }
    // A tenth crashes while rumours spread, and comes back knowing nothing.
    let crashed = NODES / 10;
    for rumour in 0..RUMOURS {
        let origin = crashed + rng.below((NODES - crashed).into()) as u32;
        world.command_in(Duration::from_millis(100) * rumour, HostId(origin), 1 << rumour);
    }
    world.run_until(Duration::from_millis(1500), |_, _, ()| {});
    (0..crashed).for_each(|host| drop(world.crash(HostId(host))));
    world.run_until(Duration::from_millis(4500), |_, _, ()| {});
    (0..crashed).for_each(|host| world.start(HostId(host), peer(&mut rng)));
    while world.now() < Duration::from_secs(60) {
        world.run_until(world.now() + Duration::from_millis(10), |_, _, ()| {});
        if world.nodes().all(|(_, Peer(driver))| driver.machine().known == EVERYTHING) {
            return (Some(world.now()), world);
        }
    }
    (None, world)
}

fn main() -> ExitCode {
    let seed = 1;
    let before = resident_bytes();
    let begun = Instant::now();
    let (everybody, world) = run(seed);
    let took = begun.elapsed();
    let after = resident_bytes();

    let (counts, digest): (_, Digest) = (world.counts(), world.digest());
    let (came, nodes) = (counts.datagrams - counts.datagrams_lost, u64::from(NODES));
    match everybody {
        Some(at) => println!("all {NODES} nodes knew all {RUMOURS} rumours after {at:?}"),
        None => println!("after {:?}, somebody still did not know everything", world.now()),
    }
    println!("copies: {} a node, {} datagrams of {} were lost", came / nodes, counts.datagrams_lost, counts.datagrams);
    println!(
        "speed:  {} events in {took:?}: {:.0} a second",
        world.events(),
        world.events() as f64 / took.as_secs_f64()
    );
    if let (Some(before), Some(after)) = (before, after) {
        println!("memory: {} bytes a node", after.saturating_sub(before) / nodes);
    }
    let again = run(seed).1.digest();
    println!("digest: {digest} with seed {seed}, {again} when run again");
    if everybody.is_some() && digest == again { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
