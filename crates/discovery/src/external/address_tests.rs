//! Tests of what a node tells of its address: precedence, ports, and how often it changes.

use peerage_machine::Driver;

use super::*;

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("socket")
}

fn config(statics: &[&str]) -> AddressConfig {
    AddressConfig {
        statics: statics.iter().map(|text| text.parse().expect("address")).collect(),
        bound: vec![socket("192.168.1.5:30303"), socket("127.0.0.1:30303"), socket("[fd00::5]:30304")],
        tcp: true,
        udp: true,
        settle: AddressConfig::SETTLE,
    }
}

struct Solo(Driver<AddressMachine>);

impl Solo {
    fn new(config: AddressConfig) -> Solo {
        let mut driver = Driver::new(AddressMachine::new(config));
        driver.handle(at(0), AddressIn::Start);
        assert_eq!(driver.drain().count(), 0, "the first record is no change");
        Solo(driver)
    }

    fn changes(&mut self) -> Vec<Vec<External>> {
        self.0.drain().map(|AddressOut::Changed(external)| external).collect()
    }

    fn predicted(&mut self, seconds: u64, v4: Option<&str>) -> Vec<Vec<External>> {
        self.0.handle(at(seconds), AddressIn::Predicted { v4: v4.map(socket), v6: None });
        self.changes()
    }

    fn mapped(&mut self, seconds: u64, ip: &str) -> Vec<Vec<External>> {
        let mapping = Mapping { ip: ip.parse().expect("ip"), tcp: Some(5001), udp: Some(5002) };
        self.0.handle(at(seconds), AddressIn::Mapped(Some(mapping)));
        self.changes()
    }

    fn pass(&mut self, seconds: u64) -> Vec<Vec<External>> {
        self.0.expire_due(at(seconds));
        self.changes()
    }
}

fn external(ip: &str, tcp: u16, udp: u16, origin: Origin) -> External {
    External { ip: ip.parse().expect("ip"), tcp: Some(tcp), udp: Some(udp), origin }
}

#[test]
fn what_others_see_is_told_until_the_gateway_grants_a_port_and_the_users_word_comes_before_both() {
    let mut solo = Solo::new(config(&[]));
    assert_eq!(solo.0.machine().external(), [], "bound addresses are all there is");
    let predicted = external("203.0.113.7", 30303, 40000, Origin::Predicted);
    assert_eq!(solo.predicted(1, Some("203.0.113.7:40000")), [[predicted]]);
    let mapped = external("203.0.113.8", 5001, 5002, Origin::Mapped);
    assert_eq!(solo.mapped(100, "203.0.113.8"), [[mapped]]);
    solo.0.handle(at(300), AddressIn::Mapped(None));
    assert_eq!(solo.changes(), [[predicted]], "what is lost is not told any more");

    let mut solo = Solo::new(config(&["203.0.113.9"]));
    let said = external("203.0.113.9", 30303, 30303, Origin::Static);
    assert_eq!(solo.0.machine().external(), [said], "from the first record on, with the bound port");
    assert_eq!(solo.mapped(100, "203.0.113.8"), Vec::<Vec<External>>::new());
    assert_eq!(solo.predicted(200, Some("203.0.113.7:40000")), Vec::<Vec<External>>::new());
}

#[test]
fn each_family_has_its_own_static_address_and_a_port_that_is_said_holds() {
    let solo = Solo::new(config(&["/ip4/203.0.113.9/tcp/4000", "2001:db8::9"]));
    let v4 = external("203.0.113.9", 4000, 4000, Origin::Static);
    let v6 = external("2001:db8::9", 30304, 30304, Origin::Static);
    assert_eq!(solo.0.machine().external(), [v4, v6]);
    let deaf = AddressConfig { tcp: false, ..config(&["/ip4/203.0.113.9/tcp/4000"]) };
    let solo = Solo::new(deaf);
    assert_eq!(solo.0.machine().external(), [External { tcp: None, ..v4 }], "who takes no connections names no port");
    let only_v4 = AddressConfig { bound: vec![socket("0.0.0.0:1")], ..config(&["2001:db8::9"]) };
    assert_eq!(Solo::new(only_v4).0.machine().external(), [], "no port leads there");
}

#[test]
fn a_node_that_is_seen_where_it_is_bound_has_no_external_address() {
    let mut solo = Solo::new(config(&[]));
    assert_eq!(solo.predicted(1, Some("192.168.1.5:30303")), Vec::<Vec<External>>::new());
}

#[test]
fn a_gateway_behind_another_one_grants_nothing_of_use() {
    for ip in ["10.0.0.2", "100.64.0.9", "100.127.255.1", "0.0.0.0", "169.254.0.1"] {
        let mut solo = Solo::new(config(&[]));
        solo.predicted(1, Some("203.0.113.7:40000"));
        assert_eq!(solo.mapped(100, ip), Vec::<Vec<External>>::new(), "{ip}");
    }
    let mut solo = Solo::new(config(&[]));
    assert_eq!(solo.mapped(100, "100.128.0.1").len(), 1, "the first address beyond the shared space");
}

#[test]
fn a_nat_that_flaps_changes_the_record_ever_more_rarely_and_the_last_word_counts() {
    let mut solo = Solo::new(config(&[]));
    let mut changes = Vec::new();
    for second in 0..3600 {
        let address = format!("203.0.113.7:{}", 40_000 + second % 2);
        changes.extend(solo.pass(second).iter().map(|_| second));
        changes.extend(solo.predicted(second, Some(&address)).iter().map(|_| second));
    }
    assert!(changes.windows(2).all(|pair| pair[1] - pair[0] >= 60), "{changes:?}");
    assert!(changes.len() <= 9, "{changes:?}");
    // It settles: what it says then is told in the end.
    solo.predicted(3600, Some("203.0.113.7:41000"));
    let told: Vec<_> = (3600..6000).flat_map(|second| solo.pass(second)).collect();
    assert_eq!(told, [[external("203.0.113.7", 30303, 41000, Origin::Predicted)]]);
}

#[test]
fn a_change_that_is_taken_back_in_time_is_never_told() {
    let mut solo = Solo::new(config(&[]));
    assert_eq!(solo.predicted(1, Some("203.0.113.7:1")).len(), 1, "the first one at once");
    assert_eq!(solo.predicted(2, Some("203.0.113.7:2")), Vec::<Vec<External>>::new());
    assert_eq!(solo.predicted(3, Some("203.0.113.7:1")), Vec::<Vec<External>>::new());
    assert_eq!(solo.0.next_deadline(), None);
    solo.predicted(4, Some("203.0.113.7:2"));
    assert_eq!(solo.pass(60), Vec::<Vec<External>>::new());
    assert_eq!(solo.pass(61).len(), 1, "a minute after the first");
}

#[test]
fn the_users_address_is_read_in_three_forms_and_refused_with_what_to_do() {
    let read = |text: &str| text.parse::<StaticAddress>().map(|address| (address.ip.to_string(), address.port));
    assert_eq!(read("203.0.113.7"), Ok(("203.0.113.7".into(), None)));
    assert_eq!(read("2001:db8::7"), Ok(("2001:db8::7".into(), None)));
    assert_eq!(read("::ffff:203.0.113.7"), Ok(("203.0.113.7".into(), None)));
    assert_eq!(read("/ip4/203.0.113.7"), Ok(("203.0.113.7".into(), None)));
    assert_eq!(read("/ip6/2001:db8::7/tcp/30303"), Ok(("2001:db8::7".into(), Some(30303))));
    assert_eq!(read("/ip4/203.0.113.7/udp/30303"), Ok(("203.0.113.7".into(), Some(30303))));
    assert_eq!(read("10.0.0.7"), Ok(("10.0.0.7".into(), None)), "an intranet has addresses of its own");
    let told = |text: &str| text.parse::<StaticAddress>().expect_err(text).to_string();
    for text in ["", "/", "hello", "203.0.113.7:30303", "/dns4/example.org/tcp/1", "/ip4/203.0.113.7/tcp/1/ws"] {
        assert!(told(text).contains("write it like 203.0.113.7"), "{text}");
    }
    for text in ["0.0.0.0", "127.0.0.1", "::1", "224.0.0.1", "255.255.255.255", "169.254.1.1", "/ip4/0.0.0.0/tcp/1"] {
        assert!(told(text).contains("others cannot reach"), "{text}");
    }
    assert!(told("/ip4/203.0.113.7/tcp/0").contains("port 0"));
}
