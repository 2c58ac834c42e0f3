//! What becomes of names: resolved, resolved anew, refused.

use peerage_machine::Driver;

use super::*;

fn host(text: &str) -> Host {
    Host::from_tcp(&text.parse().expect("an address")).expect("a host")
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

fn secs(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

struct World {
    driver: Driver<NamesMachine>,
    now: Time,
}

impl World {
    fn new(hosts: &[Host]) -> World {
        let mut world = World { driver: Driver::new(NamesMachine::new(7)), now: Time::ZERO };
        world.tell(In::Hosts(hosts.to_vec()));
        world
    }

    fn tell(&mut self, input: In) {
        self.driver.handle(self.now, input);
    }

    fn outs(&mut self) -> Vec<Out> {
        self.driver.drain().collect()
    }

    /// The token of the lookup that is asked for, and nothing else is.
    fn look(&mut self) -> u64 {
        match &self.outs()[..] {
            [Out::Look { token, .. }] => *token,
            others => panic!("one lookup is asked for, not {others:?}"),
        }
    }

    /// Lets time pass until something is asked for.
    fn until(&mut self, limit: Time) -> Vec<Out> {
        while let Some(due) = self.driver.next_deadline().filter(|due| *due <= limit) {
            self.now = due;
            self.driver.expire_due(due);
            let outs = self.outs();
            if !outs.is_empty() {
                return outs;
            }
        }
        self.now = limit;
        Vec::new()
    }
}

#[test]
fn a_name_is_resolved_at_once_and_kept_and_resolved_anew_while_nobody_is_found() {
    let named = host("/dns4/boot.example/tcp/30303");
    let mut world = World::new(std::slice::from_ref(&named));
    let token = world.look();
    world.tell(In::Answer { token, ips: ips(&["192.0.2.1", "2001:db8::1", "192.0.2.1"]) });
    let sockets = vec!["192.0.2.1:30303".parse().expect("socket")];
    assert_eq!(world.outs(), [Out::Found { host: named.clone(), sockets }], "of the family asked for, once");

    let mut pauses = Vec::new();
    for _ in 0..8 {
        let before = world.now;
        let [Out::Look { token, host }] = &world.until(secs(100_000))[..] else { panic!("looked up again") };
        assert_eq!(*host, named);
        pauses.push(world.now.since(before));
        world.tell(In::Answer { token: *token, ips: ips(&["192.0.2.1"]) });
        assert_eq!(world.outs(), [], "nothing has changed");
    }
    assert!(pauses[0] >= Duration::from_secs(5) && pauses[0] <= Duration::from_secs(10), "{pauses:?}");
    assert!(pauses[7] > Duration::from_secs(100) && pauses[7] <= Duration::from_secs(300), "ever rarer: {pauses:?}");

    let [Out::Look { token, .. }] = world.until(secs(100_000))[..] else { panic!("looked up again") };
    world.tell(In::Answer { token, ips: ips(&["192.0.2.9"]) });
    let moved = vec!["192.0.2.9:30303".parse().expect("socket")];
    assert_eq!(world.outs(), [Out::Found { host: named, sockets: moved }], "the node has moved");
}

#[test]
fn a_name_is_left_alone_while_nothing_is_missing_and_resolved_when_somebody_is() {
    let mut world = World::new(&[host("/dns/boot.example/tcp/1")]);
    world.tell(In::Lonely(false));
    let token = world.look();
    world.tell(In::Answer { token, ips: ips(&["192.0.2.1"]) });
    assert_eq!(world.outs().len(), 1);
    assert_eq!(world.until(secs(500)), []);
    world.tell(In::Lonely(true));
    assert!(matches!(world.until(secs(501))[..], [Out::Look { .. }]));
}

#[test]
fn an_unknown_name_is_told_each_time_and_its_last_addresses_stay() {
    let named = host("/dns/boot.example/tcp/1");
    let mut world = World::new(std::slice::from_ref(&named));
    let token = world.look();
    world.tell(In::Answer { token, ips: ips(&["192.0.2.1"]) });
    world.outs();
    for times in 1..4 {
        let [Out::Look { token, .. }] = world.until(secs(100_000))[..] else { panic!("tried again") };
        world.tell(In::Failed { token });
        assert_eq!(world.outs(), [Out::Unknown { host: named.clone(), times }]);
    }
    let [Out::Look { token, .. }] = world.until(secs(100_000))[..] else { panic!("tried again") };
    world.tell(In::Answer { token, ips: ips(&["192.0.2.1"]) });
    assert_eq!(world.outs(), [], "as it was");
}

#[test]
fn a_lookup_has_five_seconds_and_what_comes_later_is_nobodys() {
    let named = host("/dns/boot.example/tcp/1");
    let mut world = World::new(std::slice::from_ref(&named));
    let token = world.look();
    assert_eq!(world.until(secs(100)), [Out::Unknown { host: named, times: 1 }]);
    assert_eq!(world.now, secs(5));
    world.tell(In::Answer { token, ips: ips(&["192.0.2.1"]) });
    assert_eq!(world.outs(), [], "it was given up");
}

#[test]
fn addresses_that_no_stranger_may_name_are_refused() {
    let refused = ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "127.0.0.1", "::1", "::ffff:127.0.0.1", "0.1.2.3"];
    assert_eq!(usable(&host("/dns/evil.example/tcp/1"), ips(&refused)), []);
    assert_eq!(usable(&host("/dns4/localhost/tcp/1"), ips(&["127.0.0.1", "::1"])).len(), 1, "its own name");
    assert_eq!(usable(&host("/dns/node.lan/tcp/1"), ips(&["10.0.0.1", "fd00::1"])).len(), 2, "a local network's");
    let many: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([192, 0, 2, n])).collect();
    assert_eq!(usable(&host("/dns/big.example/tcp/1"), many).len(), MAX_ADDRESSES);
    assert_eq!(usable(&host("/dns4/six.example/tcp/1"), ips(&["2001:db8::1"])), []);
}

#[test]
fn names_and_lookups_are_bounded_and_all_get_their_turn() {
    let hosts: Vec<Host> = (0..200).map(|n| host(&format!("/dns/n{n}.example/tcp/1"))).collect();
    let mut world = World::new(&hosts);
    let mut open: Vec<u64> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut outs = world.outs();
    while seen.len() < MAX_HOSTS {
        for out in outs {
            let Out::Look { token, host } = out else { panic!("{out:?}") };
            seen.insert(host);
            open.push(token);
        }
        assert!(open.len() <= AT_ONCE);
        for (n, token) in std::mem::take(&mut open).into_iter().enumerate() {
            world.tell(In::Answer { token, ips: vec![IpAddr::from([192, 0, 2, n as u8])] });
        }
        world.outs();
        outs = world.until(secs(9));
        if outs.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), MAX_HOSTS);
}

#[test]
fn a_name_that_is_taken_back_is_not_resolved_again() {
    let (a, b) = (host("/dns/a.example/tcp/1"), host("/dns/b.example/tcp/1"));
    let mut world = World::new(&[a.clone(), b.clone()]);
    let tokens: Vec<u64> = world
        .outs()
        .into_iter()
        .map(|out| match out {
            Out::Look { token, .. } => token,
            other => panic!("{other:?}"),
        })
        .collect();
    world.tell(In::Hosts(vec![b.clone()]));
    for token in tokens {
        world.tell(In::Answer { token, ips: ips(&["192.0.2.1"]) });
    }
    assert!(matches!(&world.outs()[..], [Out::Found { host, .. }] if *host == b));
    while let [Out::Look { host, token }] = &world.until(secs(2_000))[..] {
        assert_eq!(*host, b);
        let token = *token;
        world.tell(In::Answer { token, ips: ips(&["192.0.2.1"]) });
        world.outs();
    }
}
