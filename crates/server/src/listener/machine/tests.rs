//! The listener's rules, one by one, and what holds whatever happens.

use peerage_machine::{Driver, Quota};
use proptest::prelude::*;

use super::super::config::SharedAddress;
use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// The nth host of the nth site, none of them local.
fn from(site: u16, host: u8) -> IpAddr {
    let [high, low] = site.to_be_bytes();
    [20, high, low, host].into()
}

/// No limits by address, so that a test is about slots alone.
fn open() -> ListenerConfig {
    let many = Quota::new(1_000_000, Duration::from_secs(10));
    ListenerConfig { per_host: many, per_site: many, ..ListenerConfig::recommended() }
}

struct World {
    driver: Driver<ListenerMachine>,
    now: Time,
    next: u64,
}

impl World {
    fn new(config: ListenerConfig) -> World {
        let driver = Driver::new(ListenerMachine::new(config, false));
        World { driver, now: Time::ZERO + Duration::from_secs(100), next: 0 }
    }

    fn input(&mut self, input: In) -> Vec<Out> {
        self.driver.handle(self.now, input);
        self.driver.drain().collect()
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// What becomes of a connection from there, and who gives way to it.
    fn accept(&mut self, ip: IpAddr) -> (Result<Conn, Refusal>, Option<Conn>) {
        let conn = Conn(self.next);
        self.next += 1;
        let (mut fate, mut evicted) = (None, None);
        for out in self.input(In::Accepted(conn, ip)) {
            match out {
                Out::Begin(of) if of == conn => fate = Some(Ok(conn)),
                Out::Refuse(of, refusal) if of == conn => fate = Some(Err(refusal)),
                Out::Close(of, Refusal::Evicted) => evicted = Some(of),
                other => panic!("{other:?}"),
            }
        }
        (fate.expect("every connection has a fate"), evicted)
    }

    fn takes(&mut self, ip: IpAddr) -> Result<Conn, Refusal> {
        self.accept(ip).0
    }

    fn in_use(&self) -> (usize, usize) {
        self.driver.machine().in_use()
    }
}

/// geth TestServerInboundThrottle, avalanchego TestInboundConnUpgradeThrottler.
#[test]
fn a_host_has_its_burst_and_then_one_connection_an_interval() {
    let mut world = World::new(ListenerConfig::recommended());
    let open = |world: &mut World, ip| {
        let fate = world.takes(ip);
        if let Ok(conn) = fate {
            world.input(In::Released(conn));
        }
        fate.map(drop)
    };
    for _ in 0..10 {
        assert_eq!(open(&mut world, from(1, 1)), Ok(()));
    }
    assert_eq!(open(&mut world, from(1, 1)), Err(Refusal::HostLimit));
    assert_eq!(open(&mut world, ip("::ffff:20.0.1.1")), Err(Refusal::HostLimit), "the same host in other clothes");
    assert_eq!(open(&mut world, from(1, 2)), Ok(()), "another host has its own");
    world.wait(999);
    assert_eq!(open(&mut world, from(1, 1)), Err(Refusal::HostLimit), "what was refused did not count");
    world.wait(1);
    assert_eq!(open(&mut world, from(1, 1)), Ok(()));
    assert_eq!(open(&mut world, from(1, 1)), Err(Refusal::HostLimit));
}

#[test]
fn an_ipv6_host_is_its_64_and_a_site_its_48_or_24() {
    let config = ListenerConfig { per_site: Quota::new(15, Duration::from_secs(10)), ..ListenerConfig::recommended() };
    let mut world = World::new(config.clone());
    for n in 0..10 {
        assert!(world.takes(ip(&format!("2001:db8:1:1::{n}"))).is_ok());
    }
    assert_eq!(world.takes(ip("2001:db8:1:1::ffff")), Err(Refusal::HostLimit));
    for n in 2..7 {
        assert!(world.takes(ip(&format!("2001:db8:1:{n}::1"))).is_ok());
    }
    assert_eq!(world.takes(ip("2001:db8:1:9::1")), Err(Refusal::SiteLimit));
    assert!(world.takes(ip("2001:db8:2:9::1")).is_ok());
    let mut world = World::new(config);
    for host in 0..15 {
        assert!(world.takes(from(1, host)).is_ok());
    }
    assert_eq!(world.takes(from(1, 200)), Err(Refusal::SiteLimit));
    assert!(world.takes(from(2, 200)).is_ok());
}

/// status-go#2146: a venue's peers share one address.
#[test]
fn an_address_that_many_share_has_as_many_times_the_limit() {
    let shared = SharedAddress { network: "20.0.1.1/32".parse().expect("network"), factor: 20 };
    let shared_addresses = vec![shared];
    let mut world = World::new(ListenerConfig { shared_addresses, ..ListenerConfig::recommended() });
    let mut taken = |ip| (0..1000).filter(|_| matches!(world.takes(ip), Ok(_) | Err(Refusal::NoSlot))).count();
    assert_eq!(taken(from(1, 1)), 200);
    assert_eq!(taken(from(2, 1)), 10);
}

/// avalanchego TestNoInboundConnUpgradeThrottler, and its loopback case.
#[test]
fn local_addresses_are_exempt_from_limits_by_address_if_the_configuration_says_so() {
    let local = ["127.0.0.1", "192.168.1.1", "::1", "fd00::1"].map(ip);
    for address in local {
        let mut strict = World::new(ListenerConfig::recommended());
        assert_eq!((0..20).filter(|_| strict.takes(address).is_ok()).count(), 10);
        strict.driver = Driver::new(ListenerMachine::new(ListenerConfig::recommended(), true));
        assert_eq!((0..200).filter(|_| strict.takes(address).is_ok()).count(), 200);
    }
    let mut world = World::new(ListenerConfig::recommended());
    world.driver = Driver::new(ListenerMachine::new(ListenerConfig::recommended(), true));
    assert_eq!((0..20).filter(|_| world.takes(from(1, 1)).is_ok()).count(), 10, "a global address is not local");
}

#[test]
fn the_policy_comes_before_everything_and_holds_for_who_is_on_the_way_in() {
    let mut world = World::new(ListenerConfig::recommended());
    let stranger = world.takes(from(1, 1)).expect("open");
    let known = world.takes(from(1, 2)).expect("open");
    let other = world.takes(from(2, 1)).expect("open");
    world.input(In::Identified(known));
    let denied = vec!["20.0.1.0/24".parse().expect("network")];
    let policy = Arc::new(Admission { denied, ..Admission::open() });
    assert_eq!(
        world.input(In::Admission(policy)),
        [Out::Close(stranger, Refusal::NotAllowed), Out::Close(known, Refusal::NotAllowed)]
    );
    assert_eq!(world.in_use(), (1, 0));
    for _ in 0..100 {
        assert_eq!(world.takes(from(1, 1)), Err(Refusal::NotAllowed), "however often: no limit is charged");
    }
    world.input(In::Released(other));
    world.input(In::Admission(Arc::new(Admission::open())));
    assert!(world.takes(from(1, 1)).is_ok());
}

/// avalanchego TestInboundConnThrottlerAccept: 256 a second, and nobody honest is refused for it.
#[test]
fn the_ceiling_makes_the_accept_loop_wait_and_refuses_nobody() {
    let mut world = World::new(open());
    let start = world.now;
    let mut taken = 0u16;
    while world.now < start + Duration::from_secs(4) {
        let wait = world.driver.machine().wait(world.now);
        if !wait.is_zero() {
            world.now += wait;
            continue;
        }
        let conn = world.takes(from(taken, 1)).expect("nobody is refused");
        world.input(In::Released(conn));
        taken += 1;
        let at_most = 64 + (world.now.since(start).as_millis() * 256 / 1000) as u16 + 1;
        assert!(taken <= at_most, "{taken} of {at_most}");
    }
    assert!(taken >= 1024, "{taken}");
}

#[test]
fn who_is_refused_for_its_address_does_not_use_up_the_ceiling() {
    let mut world = World::new(ListenerConfig::recommended());
    let denied = vec!["21.0.0.0/8".parse().expect("network")];
    world.input(In::Admission(Arc::new(Admission { denied, ..Admission::open() })));
    for _ in 0..10_000 {
        let _ = world.takes(from(1, 1));
        let _ = world.takes(ip("21.1.1.1"));
    }
    assert!(world.driver.machine().wait(world.now).is_zero(), "ten of them were let in");
}

/// An attacker with more addresses than can be remembered must not lock newcomers out.
#[test]
fn the_tables_of_hosts_are_bounded_and_never_refuse_for_being_full() {
    let mut world = World::new(ListenerConfig::recommended());
    for n in 0..20_000u32 {
        world.now += world.driver.machine().wait(world.now);
        // Each time another host of another site: as fast as the ceiling lets them.
        let [_, a, b, c] = n.to_be_bytes();
        let address = IpAddr::from([30 + a, b, c, 1]);
        if let Ok(conn) = world.takes(address) {
            world.input(In::Released(conn));
        }
        if n % 100 == 0 {
            let newcomer = from((n / 100) as u16, 9);
            let conn = world.takes(newcomer).expect("a newcomer is let in, however many there are");
            world.input(In::Released(conn));
        }
        let machine = world.driver.machine();
        for (remembered, capacity) in [machine.hosts.remembered(), machine.sites.remembered()] {
            assert!(remembered <= capacity && capacity < 6_000, "{remembered} of {capacity}");
        }
    }
}

#[test]
fn a_full_listener_lets_the_oldest_stranger_of_the_largest_site_give_way() {
    let mut world = World::new(open());
    let lone = world.takes(from(9, 1)).expect("room");
    let flood: Vec<Conn> = (0..239).map(|n| world.takes(from(n % 3, 1)).expect("room")).collect();
    assert_eq!(world.in_use(), (240, 0));
    // Sites 0 and 1 have 80 each, site 2 has 79; the oldest is site 0's first.
    assert_eq!(world.accept(from(10, 1)).1, Some(flood[0]));
    assert_eq!(world.accept(from(11, 1)).1, Some(flood[1]), "now site 1 is the largest");
    world.input(In::Identified(flood[2]));
    assert_eq!(world.accept(from(12, 1)).1, Some(flood[3]), "one that has shown who it is never gives way");
    assert_eq!(world.in_use(), (240, 0));
    assert!(world.driver.machine().slots.contains_key(&lone), "the first of all stays");
}

#[test]
fn between_equal_sites_the_larger_host_gives_way_first() {
    let mut world = World::new(open());
    for n in 0..120 {
        world.takes(from(1, n)).expect("room");
    }
    let crowd: Vec<Conn> = (0..120).map(|n| world.takes(from(2, n / 2)).expect("room")).collect();
    assert_eq!(world.accept(from(3, 1)).1, Some(crowd[0]));
}

#[test]
fn a_newcomer_of_the_largest_site_displaces_only_who_had_its_time() {
    let mut world = World::new(open());
    let first = world.takes(from(1, 0)).expect("room");
    world.wait(500);
    for n in 1..240 {
        world.takes(from(1, (n % 250) as u8)).expect("room");
    }
    assert_eq!(world.accept(from(1, 250)), (Err(Refusal::NoSlot), None));
    assert!(world.accept(from(2, 1)).1.is_some(), "another site's is let in at once");
    world.wait(499);
    assert_eq!(world.takes(from(1, 250)), Err(Refusal::NoSlot));
    world.wait(501);
    let (fate, evicted) = world.accept(from(1, 250));
    assert!(fate.is_ok() && evicted.is_some_and(|conn| conn > first));
    assert_eq!(world.in_use(), (240, 0));
}

/// Every set-up has at least half a second, which is several round trips, whoever floods from wherever.
#[test]
fn under_a_flood_from_one_site_or_from_more_than_there_are_slots_honest_newcomers_get_their_time() {
    for sites in [1, 50, 2_000u16] {
        let mut world = World::new(open());
        let mut honest: BTreeMap<Conn, Time> = BTreeMap::new();
        let (mut through, mut tries) = (0, 0);
        for n in 0..2_000u16 {
            world.now += world.driver.machine().wait(world.now);
            let newcomer = if n % 64 == 0 { from(30_000 + n / 64, 1) } else { from(n % sites, (n % 250) as u8) };
            let (fate, evicted) = world.accept(newcomer);
            if n % 64 == 0 {
                tries += 1;
                honest.insert(fate.expect("an honest newcomer always gets a slot"), world.now);
            }
            if let Some(since) = evicted.and_then(|conn| honest.remove(&conn)) {
                assert!(world.now.since(since) >= Duration::from_millis(500), "{sites}: {:?}", world.now.since(since));
            }
            // Honest ones need 400 ms to show who they are; those of the flood never do.
            let now = world.now;
            let ready: Vec<Conn> = honest
                .iter()
                .filter(|(_, since)| now.since(**since) >= Duration::from_millis(400))
                .map(|(conn, _)| *conn)
                .collect();
            for conn in ready {
                honest.remove(&conn);
                world.input(In::Identified(conn));
                world.input(In::Released(conn));
                through += 1;
            }
        }
        assert!(through + honest.len() == tries && honest.len() < 10, "{through} of {tries} from {sites}");
    }
}

#[test]
fn reserved_slots_are_for_privileged_addresses_alone_and_are_no_free_pass() {
    let mut world = World::new(open());
    world.input(In::Privileged([from(7, 7), ip("::ffff:20.3.132.8")].into()));
    for n in 0..240 {
        world.takes(from(n, 1)).expect("room");
    }
    for _ in 0..16 {
        assert_eq!(world.accept(from(7, 7)).1, None, "nobody has to give way");
    }
    assert_eq!(world.in_use(), (240, 16));
    // From here on it is one like all: the first of all strangers gives way, never one in a reserved slot.
    assert_eq!(world.accept(from(900, 8)).1, Some(Conn(0)));
    for n in 0..300 {
        if let Some(evicted) = world.accept(from(1000 + n, 1)).1 {
            assert!(!(240..256).contains(&evicted.0), "{evicted:?} was in a reserved slot");
        }
    }
    assert_eq!(world.in_use(), (240, 16));
    let mut strict = World::new(ListenerConfig::recommended());
    strict.input(In::Privileged([from(7, 7)].into()));
    assert_eq!((0..30).filter(|_| strict.takes(from(7, 7)).is_ok()).count(), 10, "its own limit holds");
}

#[test]
fn the_neighbours_of_a_privileged_address_do_not_use_up_its_limit() {
    let mut world = World::new(ListenerConfig::recommended());
    world.input(In::Privileged([from(1, 200)].into()));
    assert_eq!((0..200).filter(|n| world.takes(from(1, n / 5)).is_ok()).count(), 40);
    assert_eq!(world.takes(from(1, 201)), Err(Refusal::SiteLimit));
    assert!(world.takes(from(1, 200)).is_ok());
}

#[test]
fn a_door_takes_no_more_visitors_than_it_said_and_they_never_give_way() {
    let mut world = World::new(open());
    let conns: Vec<Conn> = (0..240).map(|_| world.takes(from(1, 1)).expect("room")).collect();
    let matched = |conn| In::Matched { conn, door: "http".into(), limit: 2 };
    assert_eq!(world.input(matched(conns[0])), [Out::Hand(conns[0])]);
    assert_eq!(world.input(matched(conns[1])), [Out::Hand(conns[1])]);
    assert_eq!(world.input(matched(conns[2])), [Out::Close(conns[2], Refusal::DoorFull)]);
    assert_eq!(world.in_use(), (239, 0));
    let other = In::Matched { conn: conns[3], door: "metrics".into(), limit: 1 };
    assert_eq!(world.input(other), [Out::Hand(conns[3])], "another door has its own");
    assert_eq!(world.takes(from(2, 1)), Ok(Conn(240)));
    assert_eq!(world.accept(from(3, 1)).1, Some(conns[4]));
    assert_eq!(world.input(matched(conns[4])), [], "it gave way while its first bytes came");
    world.input(In::Released(conns[0]));
    assert_eq!(world.input(matched(conns[5])), [Out::Hand(conns[5])]);
}

#[derive(Clone, Debug)]
enum Step {
    Accept(u8, u8),
    Identified(usize),
    Matched(usize, bool),
    Released(usize),
    Privileged(u8),
    Deny(Option<u8>),
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..6u8, 0..4u8).prop_map(|(site, host)| Step::Accept(site, host)),
        2 => any::<usize>().prop_map(Step::Identified),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(of, door)| Step::Matched(of, door)),
        4 => any::<usize>().prop_map(Step::Released),
        1 => (0..6u8).prop_map(Step::Privileged),
        1 => proptest::option::of(0..6u8).prop_map(Step::Deny),
        2 => (0..2000u16).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..300)
}

proptest! {
    /// Whatever happens: no more slots than there are, none lost, nobody who has shown who it is gives way, and
    /// every connection has exactly one fate.
    #[test]
    fn slots_are_bounded_and_never_lost_and_eviction_never_hits_who_is_known(steps in steps()) {
        let mut world = World::new(ListenerConfig { slots: 12, reserved: 3, ..open() });
        // What the shell holds: whether it is known (or a visitor) by conn.
        let mut held: BTreeMap<Conn, bool> = BTreeMap::new();
        for step in steps {
            let pick = |n: usize| held.keys().nth(n % held.len().max(1)).copied();
            let outs = match step {
                Step::Accept(site, host) => {
                    let conn = Conn(world.next);
                    world.next += 1;
                    let outs = world.input(In::Accepted(conn, from(u16::from(site), host)));
                    let fates = outs.iter().filter(|out| matches!(out, Out::Begin(of) | Out::Refuse(of, _) if *of == conn));
                    prop_assert_eq!(fates.count(), 1);
                    outs
                }
                Step::Identified(n) => match pick(n) {
                    Some(conn) if !held[&conn] => {
                        held.insert(conn, true);
                        world.input(In::Identified(conn))
                    }
                    _ => continue,
                },
                Step::Matched(n, one) => match pick(n) {
                    Some(conn) if !held[&conn] => {
                        world.input(In::Matched { conn, door: if one { "a" } else { "b" }.into(), limit: 2 })
                    }
                    _ => continue,
                },
                Step::Released(n) => match pick(n) {
                    Some(conn) => {
                        held.remove(&conn);
                        world.input(In::Released(conn))
                    }
                    None => continue,
                },
                Step::Privileged(site) => world.input(In::Privileged([from(u16::from(site), 0)].into())),
                Step::Deny(site) => {
                    let denied = site.map(|site| peerage_wire::address::site(from(u16::from(site), 0)).network());
                    let denied = denied.into_iter().collect();
                    world.input(In::Admission(Arc::new(Admission { denied, ..Admission::open() })))
                }
                Step::Wait(millis) => {
                    world.wait(u64::from(millis));
                    continue;
                }
            };
            for out in outs {
                match out {
                    Out::Begin(conn) => prop_assert_eq!(held.insert(conn, false), None),
                    Out::Hand(conn) => prop_assert_eq!(held.insert(conn, true), Some(false)),
                    Out::Refuse(conn, _) => prop_assert!(!held.contains_key(&conn)),
                    Out::Close(conn, refusal) => {
                        let known = held.remove(&conn);
                        prop_assert!(known.is_some());
                        prop_assert!(refusal != Refusal::Evicted || known == Some(false));
                    }
                }
            }
            let (open, reserved) = world.in_use();
            prop_assert!(open <= 9 && reserved <= 3);
            prop_assert_eq!(open + reserved, held.len());
        }
        for conn in held.keys().copied().collect::<Vec<_>>() {
            world.input(In::Released(conn));
        }
        prop_assert_eq!(world.in_use(), (0, 0));
    }
}

#[test]
fn limits_that_change_hold_for_who_comes_and_slots_that_are_taken_stay_so() {
    let mut world = World::new(ListenerConfig { slots: 4, reserved: 0, ..open() });
    let held: Vec<Conn> = (0..4).map(|n| world.accept(from(n, 1)).0.expect("a slot")).collect();
    for conn in &held {
        world.input(In::Identified(*conn));
    }
    world.input(In::Limits(Box::new(ListenerConfig { slots: 2, reserved: 0, ..open() })));
    assert_eq!(world.driver.machine().in_use(), (4, 0), "nobody is closed");
    assert_eq!(world.accept(from(9, 1)).0, Err(Refusal::NoSlot));
    for conn in &held[..3] {
        world.input(In::Released(*conn));
    }
    assert!(world.accept(from(9, 1)).0.is_ok());
    let per_host = Quota::new(1, Duration::from_secs(10));
    world.input(In::Limits(Box::new(ListenerConfig { per_host, ..open() })));
    assert!(world.accept(from(7, 1)).0.is_ok());
    assert_eq!(world.accept(from(7, 1)).0, Err(Refusal::HostLimit));
    world.input(In::Limits(Box::new(open())));
    world.wait(10_000);
    assert!((0..100).all(|_| world.accept(from(7, 1)).0.is_ok()), "what was charged is forgotten after its period");
}
