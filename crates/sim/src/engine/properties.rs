//! Random operations on small worlds, against what a user of connections may rely on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;

use super::*;

const HOSTS: u8 = 4;

/// Which end of which connection wrote it: the process, and its handle.
type Writer = (u32, u32, Conn);

#[derive(Clone, Debug)]
struct Numbered {
    by: Writer,
    number: u64,
    size: usize,
}

impl Payload for Numbered {
    fn size(&self) -> usize {
        self.size
    }

    fn mark(&self) -> u64 {
        self.number << 16 | u64::from(self.by.0) << 8 | u64::from(self.by.1)
    }
}

#[derive(Clone, Debug)]
enum Do {
    Dial(SocketAddr),
    /// Writes so many at once, as the connection's opening may still be under way.
    DialAndWrite(SocketAddr, usize),
    Write(usize, usize),
    Close(usize),
    Send(SocketAddr),
}

#[derive(Debug, PartialEq)]
enum Said {
    Wrote,
    Sent,
    Heard,
    /// An end finished, after writing so many.
    Closed(Writer, u64),
    /// A connection brought so many of this writer's before it finished.
    Finished(Option<Writer>, u64),
    Meets(Writer, (u32, u32, Conn)),
}

#[derive(Default)]
struct End {
    open: bool,
    wrote: u64,
    got: u64,
    from: Option<Writer>,
    waits: bool,
}

/// Panics if it is told what it must not be told.
struct Probe {
    process: u32,
    ends: BTreeMap<Conn, End>,
}

impl Probe {
    fn write(&mut self, conn: Conn, size: usize, net: &mut Net<'_, Probe>) {
        let by = (net.host().0, self.process, conn);
        let Some(end) = self.ends.get_mut(&conn) else { return };
        end.waits |= !net.ready(conn);
        net.write(conn, Numbered { by, number: end.wrote, size });
        end.wrote += 1;
        net.note(Said::Wrote);
    }

    fn pick(&self, which: usize) -> Option<Conn> {
        self.ends.keys().nth(which % self.ends.len().max(1)).copied()
    }

    fn came(&mut self, conn: Conn, message: Option<Numbered>, net: &mut Net<'_, Probe>) {
        let end = self.ends.get_mut(&conn).expect("of a connection that it has");
        assert!(end.open, "not before it opened");
        if let Some(Numbered { by, number, .. }) = message {
            if *end.from.get_or_insert(by) == by && end.got == 0 {
                net.note(Said::Meets(by, (net.host().0, self.process, conn)));
            }
            assert_eq!((end.from, end.got), (Some(by), number), "in order, each once, from one writer");
        }
        end.got += 1;
    }
}

impl Node for Probe {
    type Message = Numbered;
    type Command = Do;
    type Note = Said;

    fn handle(&mut self, event: Event<Probe>, net: &mut Net<'_, Probe>) {
        match event {
            Event::Start => assert!(self.ends.is_empty()),
            Event::Wake => unreachable!("nobody asked for it"),
            Event::Datagram { .. } => net.note(Said::Heard),
            Event::Opened(conn) => {
                let end = self.ends.get_mut(&conn).expect("it dialled");
                assert!(conn.dialled() && !std::mem::replace(&mut end.open, true), "opened once");
            }
            Event::Accepted { conn, .. } => {
                let end = End { open: true, ..End::default() };
                assert!(!conn.dialled() && self.ends.insert(conn, end).is_none(), "accepted once");
            }
            Event::Message { conn, message } => self.came(conn, Some(message), net),
            Event::Garbled(conn) => self.came(conn, None, net),
            Event::Writable(conn) => {
                let end = self.ends.get_mut(&conn).expect("of a connection that it has");
                assert!(end.open && std::mem::replace(&mut end.waits, false), "only who was told to wait");
            }
            Event::Silent(conn) => {
                assert!(self.ends[&conn].open);
                self.close(conn, net);
            }
            Event::Closed { conn, how } => {
                let end = self.ends.remove(&conn).expect("of a connection that it had");
                match how {
                    Closed::Finished => net.note(Said::Finished(end.from, end.got)),
                    Closed::Reset => {}
                    Closed::Refused | Closed::Unreachable => assert!(conn.dialled() && !end.open),
                }
            }
            Event::Command(Do::Dial(to)) => {
                self.ends.insert(net.connect(to), End::default());
            }
            Event::Command(Do::DialAndWrite(to, count)) => {
                let conn = net.connect(to);
                self.ends.insert(conn, End::default());
                (0..count).for_each(|_| self.write(conn, 10_000, net));
            }
            Event::Command(Do::Write(which, size)) => {
                if let Some(conn) = self.pick(which) {
                    self.write(conn, size, net);
                }
            }
            Event::Command(Do::Close(which)) => {
                if let Some(conn) = self.pick(which) {
                    self.close(conn, net);
                }
            }
            Event::Command(Do::Send(to)) => {
                let by = (net.host().0, self.process, Conn { slot: 0, life: 0, end: 0 });
                net.send(to, Numbered { by, number: 0, size: 500 });
                net.note(Said::Sent);
            }
        }
    }
}

impl Probe {
    fn close(&mut self, conn: Conn, net: &mut Net<'_, Probe>) {
        let end = self.ends.remove(&conn).expect("it has it");
        net.close(conn);
        net.note(Said::Closed((net.host().0, self.process, conn), end.wrote));
    }
}

#[derive(Clone, Debug)]
enum Op {
    Tell(u8, Do),
    Crash(u8),
    Start(u8),
    Partition(u8),
    Heal,
    Read(u8, bool),
    Run(u64),
}

fn address(n: u8) -> SocketAddr {
    (Ipv4Addr::new(20, 0, n, 1), 30303).into()
}

fn op() -> impl Strategy<Value = Op> {
    let host = 0..HOSTS;
    // One address is nobody's, and a host may dial itself.
    let to = (0..=HOSTS).prop_map(address);
    let told = prop_oneof![
        3 => to.clone().prop_map(Do::Dial),
        2 => (to.clone(), 0..4_usize).prop_map(|(to, count)| Do::DialAndWrite(to, count)),
        8 => (any::<usize>(), prop_oneof![0..100_usize, 0..100_000_usize]).prop_map(|(which, size)| Do::Write(which, size)),
        2 => any::<usize>().prop_map(Do::Close),
        2 => to.prop_map(Do::Send),
    ];
    prop_oneof![
        17 => (host.clone(), told).prop_map(|(host, told)| Op::Tell(host, told)),
        1 => host.clone().prop_map(Op::Crash),
        2 => host.clone().prop_map(Op::Start),
        1 => any::<u8>().prop_map(Op::Partition),
        1 => Just(Op::Heal),
        2 => (host, any::<bool>()).prop_map(|(host, reads)| Op::Read(host, reads)),
        8 => prop_oneof![0..30_u64, 0..300_u64, Just(40_000_u64)].prop_map(Op::Run),
    ]
}

fn hosts() -> impl Strategy<Value = Vec<HostSpec>> {
    let line = || prop_oneof![2 => Just(None), 1 => (50_000..5_000_000_u64).prop_map(Some)];
    let host = (line(), line(), proptest::bool::weighted(0.1));
    proptest::collection::vec(host, usize::from(HOSTS)).prop_map(|hosts| {
        let spec = |(n, (up, down, nat)): (usize, _)| HostSpec { up, down, nat, ..HostSpec::at(address(n as u8)) };
        hosts.into_iter().enumerate().map(spec).collect()
    })
}

fn links() -> impl Strategy<Value = Links> {
    let share = || prop_oneof![Just(0), Just(300_000_u32)];
    (0..80_u64, share(), share(), share(), prop_oneof![3 => Just(0), 1 => Just(50_000_u32)]).prop_map(
        |(millis, jitter, loss, reorder, corrupt)| Links {
            jitter: jitter * 5,
            loss,
            reorder,
            corrupt,
            ..Links::uniform(Duration::from_millis(millis))
        },
    )
}

struct Run {
    world: World<Probe>,
    said: Vec<Said>,
    processes: u32,
}

impl Run {
    fn on(&mut self, op: &Op) {
        let world = &mut self.world;
        match op {
            Op::Tell(host, told) => world.command(HostId(u32::from(*host)), told.clone()),
            Op::Crash(host) => drop(world.crash(HostId(u32::from(*host)))),
            Op::Start(host) => {
                let host = HostId(u32::from(*host));
                if world.node(host).is_none() {
                    self.processes += 1;
                    world.start(host, Probe { process: self.processes, ends: BTreeMap::new() });
                }
            }
            Op::Partition(sides) => world.partition(|host| sides >> (2 * host.0) & 3),
            Op::Heal => world.heal(),
            Op::Read(host, reads) => world.set_reading(HostId(u32::from(*host)), *reads),
            Op::Run(millis) => {
                let until = world.now() + Duration::from_millis(*millis);
                let said = &mut self.said;
                world.run_until(until, |_, _, what| said.push(what));
            }
        }
    }
}

/// Runs all, then closes all, and lets the world come to rest.
fn run(seed: u64, links: &Links, hosts: &[HostSpec], ops: &[Op]) -> Run {
    let mut run = Run { world: World::new(links.clone(), seed), said: Vec::new(), processes: 0 };
    for spec in hosts {
        run.world.add(spec.clone());
    }
    (0..HOSTS).for_each(|host| run.on(&Op::Start(host)));
    ops.iter().for_each(|op| run.on(op));
    run.on(&Op::Heal);
    (0..HOSTS).for_each(|host| run.on(&Op::Read(host, true)));
    run.on(&Op::Run(10_000));
    for host in 0..HOSTS {
        while run.world.node(HostId(u32::from(host))).is_some_and(|probe| !probe.ends.is_empty()) {
            run.on(&Op::Tell(host, Do::Close(0)));
        }
    }
    run.on(&Op::Run(1_000_000));
    run
}

proptest! {
    #[test]
    fn connections_keep_their_promises_whatever_happens(
        seed in any::<u64>(), links in links(), hosts in hosts(), ops in proptest::collection::vec(op(), 1..120),
    ) {
        let Run { world, said, .. } = run(seed, &links, &hosts, &ops);
        let count = |what: Said| said.iter().filter(|said| **said == what).count() as u64;
        let counts = world.counts();
        prop_assert_eq!(counts.datagrams, count(Said::Sent));
        prop_assert_eq!(counts.datagrams - counts.datagrams_lost, count(Said::Heard));
        prop_assert_eq!(counts.messages, count(Said::Wrote));
        prop_assert_eq!((world.connections(), world.pending()), (0, 0), "nothing is left");
        prop_assert!(world.core.hosts.iter().all(|host| host.conns.is_empty() && host.turns.is_empty()));

        let closed: BTreeMap<Writer, u64> =
            said.iter().filter_map(|said| if let Said::Closed(by, wrote) = said { Some((*by, *wrote)) } else { None }).collect();
        let (mut met, mut readers) = (BTreeSet::new(), BTreeSet::new());
        for said in &said {
            match said {
                Said::Meets(writer, reader) => {
                    prop_assert!(met.insert(*writer) && readers.insert(*reader), "each writer has one reader");
                }
                // Who finished in good order had all that it wrote arrive.
                Said::Finished(Some(from), got) => prop_assert_eq!(closed.get(from), Some(got)),
                _ => {}
            }
        }
        let again = run(seed, &links, &hosts, &ops).world;
        prop_assert_eq!((world.digest(), world.events()), (again.digest(), again.events()));
    }
}
