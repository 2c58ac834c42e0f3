use std::net::{Ipv4Addr, SocketAddr};

use super::*;

#[derive(Clone, Debug)]
struct Text(u64, usize);

impl Payload for Text {
    fn size(&self) -> usize {
        self.1
    }

    fn mark(&self) -> u64 {
        self.0
    }
}

/// Writes down what happens to it, and answers even numbers.
#[derive(Default)]
struct Diary {
    greets: Option<SocketAddr>,
    conns: Vec<Conn>,
}

#[derive(Debug)]
enum Do {
    Send(SocketAddr, u64),
    Write(u64, usize),
    Close,
}

impl Node for Diary {
    type Message = Text;
    type Command = Do;
    type Note = String;

    fn handle(&mut self, event: Event<Diary>, net: &mut Net<'_, Diary>) {
        net.note(format!("{event:?}"));
        match event {
            Event::Start => self.conns.extend(self.greets.map(|to| net.connect(to))),
            Event::Datagram { from, message } if message.0 % 2 == 0 => net.send(from, Text(message.0 + 1, message.1)),
            Event::Accepted { conn, .. } => self.conns.push(conn),
            Event::Command(Do::Send(to, number)) => net.send(to, Text(number, 100)),
            Event::Command(Do::Write(number, size)) => {
                self.conns.iter().for_each(|conn| net.write(*conn, Text(number, size)));
            }
            Event::Command(Do::Close) => self.conns.drain(..).for_each(|conn| net.close(conn)),
            _ => {}
        }
    }
}

fn address(n: u8) -> SocketAddr {
    (Ipv4Addr::new(20, 0, n, 1), 30303).into()
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

type Log = Vec<(Duration, u32, String)>;

fn run(world: &mut World<Diary>, until: u64) -> Log {
    let mut log = Vec::new();
    world.run_until(ms(until), |at, host, note| log.push((at, host.0, note)));
    log
}

/// Host 1 dials host 0.
fn pair(links: Links, change: impl Fn(usize, &mut HostSpec)) -> World<Diary> {
    let mut world = World::new(links, 1);
    for n in 0..2 {
        let mut spec = HostSpec::at(address(n));
        change(usize::from(n), &mut spec);
        world.add(spec);
    }
    world.start(HostId(0), Diary::default());
    world.start(HostId(1), Diary { greets: Some(address(0)), ..Diary::default() });
    world
}

fn told<'a>(log: &'a Log, host: u32, what: &str) -> Vec<(u64, &'a str)> {
    let of_host = log.iter().filter(|(_, at, note)| *at == host && note.contains(what));
    of_host.map(|(at, _, note)| (at.as_millis() as u64, note.as_str())).collect()
}

#[test]
fn a_connection_opens_in_a_round_trip_and_carries_messages_in_order() {
    let mut world = pair(Links { jitter: 900_000, ..Links::uniform(ms(50)) }, |_, _| {});
    let log = run(&mut world, 1_000);
    assert_eq!(told(&log, 1, "opened")[0].0, 100);
    assert_eq!(told(&log, 0, "accepted")[0].0, 150);
    for number in 0..50 {
        world.command(HostId(1), Do::Write(number, 100));
    }
    world.command(HostId(1), Do::Close);
    let log = run(&mut world, 3_000);
    let messages = told(&log, 0, "brought");
    assert_eq!(messages.len(), 50);
    assert!(messages.iter().enumerate().all(|(n, (_, note))| note.contains(&format!("Text({n},"))), "{messages:?}");
    assert!(told(&log, 0, "Finished")[0].0 >= messages[49].0, "the end comes last");
    assert!(told(&log, 1, "closed").is_empty(), "who closes is told of nothing more");
    world.command(HostId(0), Do::Close);
    run(&mut world, 4_000);
    assert_eq!(world.connections(), 0);
}

#[test]
fn a_limited_line_carries_its_rate_both_ways_and_takes_turns() {
    // 1 MB/s out of host 1, half of that into host 0.
    for (up, down, millis) in
        [(Some(1_000_000), None, 100), (None, Some(500_000), 200), (Some(1_000_000), Some(500_000), 200)]
    {
        let mut world = pair(Links::uniform(ms(10)), |n, spec| match n {
            1 => spec.up = up,
            _ => spec.down = down,
        });
        run(&mut world, 1_000);
        world.command(HostId(1), Do::Write(7, 100_000));
        world.command(HostId(1), Do::Write(8, 1));
        world.command(HostId(1), Do::Close);
        let log = run(&mut world, 3_000);
        let came = told(&log, 0, "brought");
        assert_eq!(came.len(), 2, "{up:?} {down:?} {log:?}");
        let took = came[0].0 - 1_000 - 10;
        // What is cut into parts overlaps, but for the first part.
        assert!(took >= millis && took <= millis + 40, "{up:?} {down:?}: {took} ms");
        assert!(came[1].1.contains("Text(8"));
        assert_eq!(told(&log, 0, "Finished").len(), 1);
    }
}

#[test]
fn who_does_not_read_lets_the_writer_wait_and_gets_all_of_it_later() {
    let mut world = pair(Links::uniform(ms(10)), |_, _| {});
    run(&mut world, 1_000);
    world.set_reading(HostId(0), false);
    for number in 0..5 {
        world.command(HostId(1), Do::Write(number, 100_000));
    }
    let log = run(&mut world, 2_000);
    assert!(told(&log, 0, "brought").is_empty());
    let conn = world.node(HostId(1)).expect("it runs").conns[0];
    assert!(!world.core.ready(conn), "more than a window waits");
    world.set_reading(HostId(0), true);
    let log = run(&mut world, 3_000);
    assert_eq!(told(&log, 0, "brought").len(), 5);
    assert_eq!(told(&log, 1, "writable").len(), 1);
    assert!(world.core.ready(conn));
}

#[test]
fn a_partition_is_silence_and_what_was_sent_meanwhile_comes_when_it_heals() {
    let mut world = pair(Links::uniform(ms(10)), |_, _| {});
    run(&mut world, 1_000);
    world.partition(|host| host.0 as u8);
    world.command(HostId(1), Do::Write(1, 10));
    world.command(HostId(1), Do::Send(address(0), 2));
    assert!(run(&mut world, 5_000).iter().all(|(_, _, note)| note.contains("command")));
    world.heal();
    let log = run(&mut world, 6_000);
    assert_eq!((told(&log, 0, "brought").len(), told(&log, 0, "datagram").len()), (1, 0), "datagrams are lost");
    world.partition(|host| host.0 as u8);
    let log = run(&mut world, 40_000);
    assert_eq!((told(&log, 0, "silent").len(), told(&log, 1, "silent").len()), (1, 1));
}

#[test]
fn a_crash_resets_connections_and_a_dead_host_refuses_them() {
    let mut world = pair(Links::uniform(ms(10)), |_, _| {});
    run(&mut world, 1_000);
    assert!(world.crash(HostId(0)).is_some());
    let log = run(&mut world, 2_000);
    assert_eq!(told(&log, 1, "Reset"), [(1_010, told(&log, 1, "Reset")[0].1)]);
    world.crash(HostId(1));
    world.start(HostId(1), Diary { greets: Some(address(0)), ..Diary::default() });
    let log = run(&mut world, 3_000);
    assert_eq!(told(&log, 1, "Refused")[0].0, 2_020);
    assert_eq!(world.connections(), 0);
}

#[test]
fn what_is_written_before_a_connection_opens_comes_after_the_other_end_knows_of_it() {
    let mut world = pair(Links { loss: 500_000, ..Links::uniform(ms(10)) }, |_, _| {});
    (0..20).for_each(|number| world.command(HostId(1), Do::Write(number, 10)));
    let log = run(&mut world, 2_000);
    let came = told(&log, 0, "");
    assert!(came[0].1 == "starts" && came[1].1.contains("accepted"), "{came:?}");
    assert!(came[2..].iter().zip(0..20).all(|((_, note), n)| note.contains(&format!("Text({n},"))), "{came:?}");
    assert_eq!(came.len(), 22);
}

#[test]
fn who_closes_or_crashes_before_it_is_answered_leaves_no_trace() {
    for (crash, nat) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = pair(Links::uniform(ms(10)), |n, spec| spec.nat = nat && n == 0);
        world.command(HostId(1), Do::Write(1, 10));
        if crash {
            world.crash(HostId(1));
        } else {
            world.command(HostId(1), Do::Close);
        }
        let log = run(&mut world, 5_000);
        assert_eq!(told(&log, 0, "").len(), 1, "it starts: {log:?}");
        assert_eq!((world.connections(), world.pending()), (0, 0));
    }
}

#[test]
fn what_was_held_comes_before_what_was_on_its_way() {
    for down in [None, Some(1_000_000)] {
        let mut world = pair(Links::uniform(ms(50)), |n, spec| spec.down = down.filter(|_| n == 0));
        run(&mut world, 1_000);
        world.set_reading(HostId(0), false);
        for number in 0..30 {
            world.command(HostId(1), Do::Write(number, 2_000));
            let now = world.now().as_millis() as u64;
            assert!(told(&run(&mut world, now + 5), 0, "brought").is_empty());
        }
        world.set_reading(HostId(0), true);
        let log = run(&mut world, 3_000);
        let came = told(&log, 0, "brought");
        assert!(came.iter().zip(0..30).all(|((_, note), n)| note.contains(&format!("Text({n},"))), "{came:?}");
        assert_eq!(came.len(), 30);
    }
}

#[test]
fn a_crash_after_closing_with_a_backlog_is_noticed_at_the_other_end() {
    let mut world = pair(Links::uniform(ms(10)), |n, spec| spec.up = Some(100_000).filter(|_| n == 1));
    run(&mut world, 1_000);
    world.command(HostId(1), Do::Write(1, 1_000_000));
    world.command(HostId(1), Do::Close);
    run(&mut world, 2_000);
    world.crash(HostId(1));
    assert_eq!(told(&run(&mut world, 3_000), 0, "Reset").len(), 1);
    assert_eq!((world.connections(), world.pending()), (0, 0));
}

#[test]
fn a_crash_behind_a_partition_is_silence_until_it_heals() {
    let mut world = pair(Links::uniform(ms(10)), |_, _| {});
    run(&mut world, 1_000);
    world.partition(|host| host.0 as u8);
    world.crash(HostId(0));
    assert!(run(&mut world, 10_000).is_empty());
    world.heal();
    assert_eq!(told(&run(&mut world, 11_000), 1, "Reset").len(), 1);
}

#[test]
fn other_sides_join_whom_the_old_ones_parted() {
    let mut world = pair(Links::uniform(ms(10)), |_, _| {});
    run(&mut world, 1_000);
    world.partition(|host| host.0 as u8);
    world.command(HostId(1), Do::Write(1, 10));
    run(&mut world, 5_000);
    world.partition(|_| 7);
    let log = run(&mut world, 60_000);
    assert_eq!((told(&log, 0, "brought").len(), told(&log, 0, "silent").len()), (1, 0));
}

#[test]
fn a_full_line_loses_datagrams_and_never_lets_them_wait_for_long() {
    for (up, down) in [(Some(100_000), None), (None, Some(100_000))] {
        let mut world = pair(Links::uniform(ms(10)), |n, spec| match n {
            1 => spec.up = up,
            _ => spec.down = down,
        });
        run(&mut world, 1_000);
        (0..1_000).for_each(|number| world.command(HostId(1), Do::Send(address(0), 2 * number + 1)));
        let log = run(&mut world, 10_000);
        let came = told(&log, 0, "datagram from");
        // 100 bytes need a millisecond; the queue holds a quarter of a second, and a turn of a connection.
        assert!((250..=450).contains(&came.len()), "{up:?} {down:?}: {}", came.len());
        assert!(came.iter().all(|(at, _)| *at < 1_500), "{came:?}");
        assert_eq!(world.counts().datagrams_lost as usize, 1_000 - came.len());
    }
}

#[test]
fn a_node_that_wants_to_be_woken_in_the_past_does_not_stop_the_world() {
    #[derive(Default)]
    struct Restless(u64);
    impl Node for Restless {
        type Message = Text;
        type Command = ();
        type Note = ();
        fn handle(&mut self, _: Event<Restless>, net: &mut Net<'_, Restless>) {
            self.0 += 1;
            net.wake_at(Some(Time::ZERO));
        }
    }
    let mut world = World::new(Links::uniform(ms(1)), 1);
    let host = world.add(HostSpec::at(address(0)));
    world.start(host, Restless::default());
    world.run_until(Duration::from_nanos(1_000), |_, _, ()| {});
    assert_eq!(world.node(host).map(|node| node.0), Some(1_001));
}

#[test]
#[should_panic(expected = "region 1 has 1 latencies, there are 2 regions")]
fn a_table_of_latencies_that_is_not_square_is_refused_at_once() {
    World::<Diary>::new(Links { latency: vec![vec![ms(1); 2], vec![ms(1)]], ..Links::uniform(ms(1)) }, 1);
}

#[test]
#[should_panic(expected = "region 1 of 1")]
fn a_host_outside_of_all_regions_is_refused_at_once() {
    World::<Diary>::new(Links::uniform(ms(1)), 1).add(HostSpec { region: 1, ..HostSpec::at(address(0)) });
}

#[test]
fn a_translator_lets_in_only_answers() {
    let mut world = pair(Links::uniform(ms(10)), |n, spec| spec.nat = n == 0);
    let log = run(&mut world, 5_000);
    assert_eq!(told(&log, 1, "Unreachable").len(), 1);
    world.command(HostId(1), Do::Send(address(0), 1));
    assert!(told(&run(&mut world, 6_000), 0, "datagram").is_empty());
    world.command(HostId(0), Do::Send(address(1), 2));
    let log = run(&mut world, 7_000);
    assert_eq!((told(&log, 1, "datagram").len(), told(&log, 0, "datagram").len()), (1, 1));
}

#[test]
fn equal_seeds_run_alike_and_others_do_not() {
    let digest = |seed| {
        let mut world = World::new(Links { jitter: 500_000, loss: 100_000, reorder: 100_000, ..Links::world() }, seed);
        for n in 0..20 {
            world.add(HostSpec { region: n % 5, ..HostSpec::at(address(n)) });
        }
        for n in 0..20 {
            world.start(HostId(u32::from(n)), Diary { greets: Some(address((n + 1) % 20)), ..Diary::default() });
            for number in 0..10 {
                world.command_in(ms(number), HostId(u32::from(n)), Do::Send(address((n + 7) % 20), number));
            }
        }
        run(&mut world, 10_000);
        (world.digest(), world.events(), world.counts())
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1).0, digest(2).0);
    assert!(digest(1).2.datagrams_lost > 0);
}
