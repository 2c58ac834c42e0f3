//! Tests of the mapping: one search, the granted port kept, leases, refusals and the end.

use peerage_machine::Driver;
use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn machine() -> MappingMachine {
    MappingMachine::new(MappingConfig::recommended(), Some(30303), Some(30303), 7)
}

struct Solo {
    driver: Driver<MappingMachine>,
    now: u64,
}

impl Solo {
    fn new() -> Solo {
        Solo { driver: Driver::new(machine()), now: 0 }
    }

    fn tell(&mut self, input: MappingIn) -> Vec<MappingOut> {
        self.driver.handle(at(self.now), input);
        self.driver.drain().collect()
    }

    /// Lets time pass, second by second, until something is asked for.
    fn until_asked(&mut self, limit: u64) -> Vec<MappingOut> {
        let end = self.now + limit;
        while self.now < end {
            self.now += 1;
            self.driver.expire_due(at(self.now));
            let outs: Vec<_> = self.driver.drain().collect();
            if !outs.is_empty() {
                return outs;
            }
        }
        Vec::new()
    }

    fn grant(&mut self, protocol: Protocol, external: &str, lease: u64) -> Vec<MappingOut> {
        let external = external.parse().expect("socket");
        self.tell(MappingIn::Granted { protocol, external, lease: Duration::from_secs(lease) })
    }

    /// One with both ports mapped at ports of the gateway's choice.
    fn mapped() -> Solo {
        let mut solo = Solo::new();
        solo.tell(MappingIn::Start);
        solo.tell(MappingIn::Found);
        solo.grant(Protocol::Tcp, "203.0.113.1:5001", 600);
        solo.grant(Protocol::Udp, "203.0.113.1:5002", 600);
        assert_eq!(solo.driver.machine().mapped(), Some(both(5001, 5002)));
        solo
    }
}

fn both(tcp: u16, udp: u16) -> Mapping {
    Mapping { ip: [203, 0, 113, 1].into(), tcp: Some(tcp), udp: Some(udp) }
}

fn asks(outs: &[MappingOut]) -> Vec<(Protocol, u16, bool)> {
    outs.iter()
        .filter_map(|out| match out {
            MappingOut::Map { protocol, external, any, .. } => Some((*protocol, *external, *any)),
            _ => None,
        })
        .collect()
}

#[test]
fn both_ports_are_asked_of_one_gateway_that_is_searched_for_once_and_what_it_grants_is_told() {
    let mut solo = Solo::new();
    assert_eq!(solo.tell(MappingIn::Start), [MappingOut::Find]);
    for _ in 0..50 {
        assert_eq!(solo.tell(MappingIn::Start), [], "one search, however many ask for it");
    }
    let outs = solo.tell(MappingIn::Found);
    assert_eq!(asks(&outs), [(Protocol::Tcp, 30303, true), (Protocol::Udp, 30303, true)]);
    assert_eq!(solo.tell(MappingIn::Found), [], "nothing is asked twice");
    assert_eq!(solo.grant(Protocol::Tcp, "203.0.113.1:5001", 600), [], "both are one change");
    let told = solo.grant(Protocol::Udp, "203.0.113.1:5002", 600);
    assert_eq!(told, [MappingOut::Mapped(Some(both(5001, 5002)))]);
    assert_eq!(solo.tell(MappingIn::Start), []);
}

#[test]
fn the_granted_port_is_asked_for_again_at_half_of_the_lease_and_no_other() {
    let mut solo = Solo::mapped();
    for round in 1..50 {
        let outs = solo.until_asked(1000);
        assert_eq!(solo.now, round * 300);
        assert_eq!(asks(&outs), [(Protocol::Tcp, 5001, false), (Protocol::Udp, 5002, false)]);
        assert_eq!(solo.grant(Protocol::Tcp, "203.0.113.1:5001", 600), [], "nothing changed");
        assert_eq!(solo.grant(Protocol::Udp, "203.0.113.1:5002", 600), []);
    }
}

#[test]
fn a_refused_renewal_keeps_the_mapping_until_its_lease_ends_and_is_asked_again_before() {
    let mut solo = Solo::mapped();
    solo.until_asked(300);
    assert_eq!(solo.tell(MappingIn::Refused(Protocol::Tcp)), []);
    solo.grant(Protocol::Udp, "203.0.113.1:5002", 600);
    let mut asked = 0;
    loop {
        let outs = solo.until_asked(1000);
        if outs.contains(&MappingOut::Mapped(Some(Mapping { tcp: None, ..both(0, 5002) }))) {
            break;
        }
        asked += asks(&outs).iter().filter(|(protocol, port, _)| (*protocol, *port) == (Protocol::Tcp, 5001)).count();
        for (protocol, _, _) in asks(&outs) {
            match protocol {
                Protocol::Tcp => drop(solo.tell(MappingIn::Refused(protocol))),
                Protocol::Udp => drop(solo.grant(protocol, "203.0.113.1:5002", 600)),
            }
        }
    }
    assert_eq!(solo.now, 600, "the lease");
    assert!(asked >= 2, "{asked}");
    // The other port is granted still, so this gateway is there, and is asked for the old port.
    let outs = solo.until_asked(3600);
    assert!(asks(&outs).iter().all(|(protocol, port, _)| *protocol == Protocol::Udp || *port == 5001), "{outs:?}");
}

#[test]
fn refusals_are_followed_by_longer_and_longer_pauses_and_in_the_end_by_a_new_search() {
    let mut solo = Solo::new();
    solo.tell(MappingIn::Start);
    let mut outs = solo.tell(MappingIn::Found);
    let (mut rounds, mut times) = (0, Vec::new());
    while !outs.contains(&MappingOut::Find) {
        for (protocol, _, _) in asks(&outs) {
            solo.tell(MappingIn::Refused(protocol));
            rounds += 1;
        }
        outs = solo.until_asked(10_000);
        times.push(solo.now);
        assert!(rounds <= 12, "{times:?}");
    }
    assert!(solo.now > 60 * (1 + 2 + 4) / 2, "{times:?}");
    // Searches that find nobody become rare as well.
    let mut begun = Vec::new();
    for _ in 0..20 {
        begun.push(solo.now);
        solo.tell(MappingIn::NotFound);
        assert_eq!(solo.until_asked(3600), [MappingOut::Find]);
    }
    assert!(begun[19] - begun[18] >= 1800, "{begun:?}");
}

#[test]
fn a_gateway_that_is_gone_takes_its_mappings_along_and_another_one_owes_nothing() {
    let mut solo = Solo::mapped();
    assert_eq!(solo.tell(MappingIn::GatewayGone), [MappingOut::Mapped(None)]);
    assert_eq!(solo.until_asked(61), [MappingOut::Find]);
    let outs = solo.tell(MappingIn::Found);
    assert_eq!(asks(&outs), [(Protocol::Tcp, 30303, true), (Protocol::Udp, 30303, true)]);
    assert_eq!(solo.tell(MappingIn::Refused(Protocol::Udp)), []);
    assert_eq!(solo.grant(Protocol::Udp, "203.0.113.1:1", 600), [], "an answer that nobody waits for");
}

#[test]
fn a_gateway_whose_address_changes_is_asked_for_everything_at_once() {
    let mut solo = Solo::mapped();
    solo.until_asked(300);
    solo.grant(Protocol::Udp, "203.0.113.1:5002", 600);
    let outs = solo.grant(Protocol::Tcp, "203.0.113.2:5001", 600);
    assert_eq!(asks(&outs), [(Protocol::Udp, 5002, true)]);
    let moved = Mapping { ip: [203, 0, 113, 2].into(), tcp: Some(5001), udp: None };
    assert_eq!(
        solo.tell(MappingIn::Refused(Protocol::Udp)),
        [MappingOut::Mapped(Some(moved))],
        "as soon as it is known"
    );
}

#[test]
fn grants_that_are_none_are_refusals_and_odd_leases_do_no_harm() {
    for external in ["203.0.113.1:0", "0.0.0.0:5001", "[::]:5001"] {
        let mut solo = Solo::new();
        solo.tell(MappingIn::Start);
        solo.tell(MappingIn::Found);
        assert_eq!(solo.grant(Protocol::Tcp, external, 600), [], "{external}");
        assert_eq!(solo.driver.machine().mapped(), None);
    }
    for (lease, latest) in [(0, 12 * 3600), (1, 15), (u64::MAX, 12 * 3600)] {
        let mut solo = Solo::new();
        solo.tell(MappingIn::Start);
        solo.tell(MappingIn::Found);
        solo.grant(Protocol::Tcp, "203.0.113.1:5001", lease);
        let outs = solo.until_asked(latest);
        assert_eq!((asks(&outs).len(), solo.now), (1, latest), "a lease of {lease} s");
    }
}

#[test]
fn at_the_end_everything_is_given_back_and_nothing_more_is_asked() {
    let mut solo = Solo::mapped();
    solo.until_asked(300);
    let outs = solo.tell(MappingIn::Stop);
    for (protocol, external) in [(Protocol::Tcp, 5001), (Protocol::Udp, 5002)] {
        assert!(outs.contains(&MappingOut::Unmap { protocol, internal: 30303, external }), "{outs:?}");
    }
    assert_eq!(solo.driver.next_deadline(), None);
    // The renewal was under way: what comes of it is given back too.
    let late = solo.grant(Protocol::Tcp, "203.0.113.1:5001", 600);
    assert_eq!(late, [MappingOut::Unmap { protocol: Protocol::Tcp, internal: 30303, external: 5001 }]);
    assert_eq!(solo.grant(Protocol::Tcp, "203.0.113.1:5001", 600), []);
    for input in [MappingIn::Start, MappingIn::Found, MappingIn::NotFound, MappingIn::GatewayGone, MappingIn::Stop] {
        assert_eq!(solo.tell(input), [], "{input:?}");
    }
}

#[test]
fn a_node_without_ports_asks_nobody() {
    let mut driver = Driver::new(MappingMachine::new(MappingConfig::recommended(), None, None, 1));
    driver.handle(at(0), MappingIn::Start);
    assert_eq!(driver.drain().count(), 0);
    let mut driver = Driver::new(MappingMachine::new(MappingConfig::recommended(), None, Some(9), 1));
    driver.handle(at(0), MappingIn::Start);
    driver.handle(at(0), MappingIn::Found);
    let outs: Vec<_> = driver.drain().collect();
    assert_eq!(asks(&outs), [(Protocol::Udp, 9, true)], "only what it has");
}

fn inputs() -> impl Strategy<Value = MappingIn> {
    let protocol = || prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    prop_oneof![
        Just(MappingIn::Start),
        Just(MappingIn::Found),
        Just(MappingIn::NotFound),
        Just(MappingIn::GatewayGone),
        protocol().prop_map(MappingIn::Refused),
        (protocol(), any::<u16>(), any::<u8>(), any::<u64>()).prop_map(|(protocol, port, host, lease)| {
            let external = SocketAddr::from(([203, 0, 113, host], port));
            MappingIn::Granted { protocol, external, lease: Duration::from_secs(lease) }
        }),
    ]
}

proptest! {
    #[test]
    fn whatever_a_gateway_does_one_answer_is_awaited_at_a_time_and_it_is_asked_again_in_the_end(
        events in proptest::collection::vec((inputs(), 0u64..4000), 1..100),
    ) {
        let mut solo = Solo::new();
        solo.tell(MappingIn::Start);
        for (input, wait) in events {
            solo.now += wait;
            solo.driver.expire_due(at(solo.now));
            let mut outs: Vec<_> = solo.driver.drain().collect();
            outs.extend(solo.tell(input));
            let asked = asks(&outs).len() + outs.iter().filter(|out| **out == MappingOut::Find).count();
            prop_assert!(asked <= 4, "{:?}", outs);
        }
        // A gateway that says nothing is the shell's to time out; else a timer is set.
        let machine = solo.driver.machine();
        let awaited = machine.gateway == Gateway::Sought || machine.ports.values().any(|port| port.asked);
        prop_assert!(awaited || solo.driver.next_deadline().is_some());
        let outs = solo.tell(MappingIn::Stop);
        prop_assert_eq!(solo.driver.next_deadline(), None);
        let unmapped = outs.iter().filter(|out| matches!(out, MappingOut::Unmap { .. })).count();
        prop_assert!(unmapped <= 2);
    }
}
