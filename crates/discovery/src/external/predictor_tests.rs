//! Tests of the prediction: go-ethereum's scenarios, and those of reporters that lie.

use peerage_machine::Driver;
use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("socket")
}

/// Site number `number` of the internet; `host` of its hosts.
fn reporter(number: u16, host: u8) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([20, high, low, host], 30303))
}

struct Solo(Driver<Predictor>);

impl Solo {
    fn new() -> Solo {
        Solo(Driver::new(Predictor::new(PredictorConfig::recommended())))
    }

    fn tell(&mut self, seconds: u64, input: PredictorIn) -> Vec<Prediction> {
        self.0.expire_due(at(seconds));
        self.0.handle(at(seconds), input);
        self.0.drain().map(|PredictorOut::Predicted(prediction)| prediction).collect()
    }

    fn state(&mut self, seconds: u64, by: SocketAddr, observed: SocketAddr) -> Option<SocketAddr> {
        self.tell(seconds, PredictorIn::Stated { by, observed });
        self.0.machine().prediction().v4
    }

    fn after(&mut self, seconds: u64) -> Option<SocketAddr> {
        self.0.expire_due(at(seconds));
        self.0.drain().for_each(drop);
        self.0.machine().prediction().v4
    }
}

const US: &str = "203.0.113.7:40000";

#[test]
fn many_sites_must_state_the_same_address_before_it_is_believed() {
    let mut solo = Solo::new();
    // Twenty are heard, each with another idea, as behind a NAT that gives each of them another port.
    for number in 0..20 {
        assert_eq!(solo.state(1, reporter(number, 1), SocketAddr::new([203, 0, 113, 7].into(), 1 + number)), None);
    }
    for number in 0..10 {
        assert_eq!(solo.state(2, reporter(number, 1), socket(US)), None, "statement {number}");
    }
    assert_eq!(solo.state(2, reporter(10, 1), socket(US)), Some(socket(US)), "eleven of twenty");
}

#[test]
fn on_a_tiny_network_three_sites_are_enough_and_two_never_are() {
    let mut solo = Solo::new();
    assert_eq!(solo.state(1, reporter(1, 1), socket(US)), None);
    assert_eq!(solo.state(1, reporter(2, 1), socket(US)), None);
    assert_eq!(solo.state(1, reporter(3, 1), socket(US)), Some(socket(US)));
    // On a larger one ten are, however many are heard.
    let mut solo = Solo::new();
    for number in 0..100 {
        solo.state(1, reporter(number, 1), socket(US));
    }
    for number in 0..10 {
        assert_eq!(solo.state(400, reporter(number, 1), socket(US)).is_some(), number >= 9, "{number}");
    }
}

#[test]
fn a_statement_counts_for_its_window_and_the_prediction_ends_with_the_last_of_them() {
    let mut solo = Solo::new();
    for number in 0..3 {
        solo.state(u64::from(number) * 10, reporter(number, 1), socket(US));
    }
    assert_eq!(solo.after(299), Some(socket(US)));
    assert_eq!(solo.after(300), Some(socket(US)), "two of three still say so");
    assert_eq!(solo.after(310), None);
    assert_eq!(solo.0.next_deadline(), Some(at(320)));
    solo.after(320);
    assert_eq!(solo.0.next_deadline(), None, "nothing is left to wait for");
}

#[test]
fn the_hosts_of_one_site_have_one_statement_and_the_newest_counts() {
    let mut solo = Solo::new();
    for host in 1..=254 {
        assert_eq!(solo.state(1, reporter(1, host), socket(US)), None);
    }
    assert_eq!(solo.0.machine().remembered().0, 1);
    let mut predictor = Solo::new();
    for host in 1..=254u16 {
        let by = SocketAddr::new(std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, host, 0, 0, 0, 1).into(), 1);
        predictor.tell(1, PredictorIn::Stated { by, observed: socket("[2001:db8:9::1]:5") });
    }
    assert_eq!(predictor.0.machine().prediction().v6, None, "a /48 is one site");
}

#[test]
fn a_few_hostile_sites_cannot_move_the_address_however_often_they_speak() {
    let mut solo = Solo::new();
    for number in 0..20 {
        solo.state(1, reporter(number, 1), socket(US));
    }
    let elsewhere = socket("198.51.100.66:30303");
    // Nine sites, all their hosts, for five minutes, while the honest ones say what they see once a minute.
    for second in 2..300 {
        for number in 100..109 {
            let host = u8::try_from(second % 250).expect("small");
            assert_eq!(solo.state(second, reporter(number, host), elsewhere), Some(socket(US)));
        }
        if second % 60 == 0 {
            for number in 0..20 {
                solo.state(second, reporter(number, 1), socket(US));
            }
        }
    }
    assert_eq!(solo.after(300), Some(socket(US)));
}

#[test]
fn ten_sites_that_agree_do_not_speak_for_many_that_see_something_else_each() {
    // go-ethereum would believe them: theirs is the largest part.
    let mut solo = Solo::new();
    for number in 0..40 {
        solo.state(1, reporter(number, 1), SocketAddr::new([203, 0, 113, 7].into(), 1000 + number));
    }
    for number in 100..115 {
        assert_eq!(solo.state(2, reporter(number, 1), socket("198.51.100.66:30303")), None);
    }
}

#[test]
fn who_contradicts_does_not_silence_the_node_and_a_true_move_is_followed() {
    let mut solo = Solo::new();
    for number in 0..20 {
        solo.state(1, reporter(number, 1), socket(US));
    }
    // As many liars as honest ones, each with an idea of its own: no majority, and no silence.
    for number in 100..120 {
        let lie = SocketAddr::new([198, 51, 100, 66].into(), number);
        assert_eq!(solo.state(2, reporter(number, 1), lie), Some(socket(US)));
    }
    // The node's address changes: the honest ones say so, one after the other, and the liars' words grow old.
    let moved = socket("203.0.113.99:40000");
    for number in 0..20 {
        solo.state(303, reporter(number, 1), moved);
    }
    assert_eq!(solo.after(303), Some(moved));
}

#[test]
fn what_may_not_be_told_is_not_believed() {
    for (by, observed) in [
        ("20.0.0.1:1", "192.168.1.7:30303"),    // a stranger, of a private address
        ("192.168.0.1:1", "203.0.113.7:30303"), // a neighbour, of a public one
        ("20.0.0.1:1", "127.0.0.1:30303"),
        ("127.0.0.1:1", "127.0.0.1:30303"),
        ("20.0.0.1:1", "0.0.0.0:30303"),
        ("20.0.0.1:1", "255.255.255.255:30303"),
        ("20.0.0.1:1", "224.0.0.1:30303"),
        ("20.0.0.1:1", "203.0.113.7:0"),
        ("20.0.0.1:1", "[2001:db8::1]:30303"), // another family
        ("[2001:db8::2]:1", "[fe80::1]:30303"),
    ] {
        let mut solo = Solo::new();
        solo.tell(1, PredictorIn::Stated { by: socket(by), observed: socket(observed) });
        assert_eq!(solo.0.machine().remembered().0, 0, "{observed} stated by {by}");
    }
    let mut solo = Solo::new();
    let by = |number: u8| SocketAddr::from(([10, 0, number, 1], 1));
    for number in 0..3 {
        solo.state(1, by(number), socket("10.9.9.9:5"));
    }
    assert_eq!(solo.after(1), Some(socket("10.9.9.9:5")), "neighbours, of an address of the neighbourhood");
    for number in 0..3 {
        solo.state(2, reporter(number, 1), socket("[::ffff:203.0.113.7]:40000"));
    }
    assert_eq!(solo.after(2), Some(socket(US)), "the internet comes first; IPv4 inside IPv6 is IPv4");
}

#[test]
fn a_stranger_that_asks_shows_that_the_way_is_open_and_an_acquaintance_does_not() {
    let mut solo = Solo::new();
    let open = |solo: &mut Solo, seconds| {
        solo.state(seconds, reporter(900, 1), socket(US));
        solo.0.machine().prediction().open
    };
    solo.tell(1, PredictorIn::Contact(reporter(1, 1).ip()));
    solo.tell(2, PredictorIn::Asked(reporter(1, 1).ip()));
    assert!(!open(&mut solo, 3), "we spoke to it first");
    solo.tell(4, PredictorIn::Asked(reporter(2, 1).ip()));
    solo.tell(5, PredictorIn::Contact(reporter(2, 1).ip()));
    assert!(open(&mut solo, 6), "it spoke to us first");
    assert!(open(&mut solo, 603));
    assert!(!open(&mut solo, 604));
    solo.tell(700, PredictorIn::Asked(reporter(1, 1).ip()));
    assert!(open(&mut solo, 701), "that we spoke to it is forgotten, by a NAT too");
}

#[test]
fn memory_is_bounded_although_nobody_reads_and_nothing_is_taken_for_a_stranger_by_that() {
    let mut solo = Solo::new();
    let config = PredictorConfig::recommended();
    for number in 0..5_000 {
        solo.tell(1, PredictorIn::Contact(reporter(number, 1).ip()));
        let observed = SocketAddr::new([203, 0, 113, 7].into(), number + 1);
        solo.tell(1, PredictorIn::Stated { by: reporter(number, 1), observed });
        let (statements, contacts) = solo.0.machine().remembered();
        assert!(statements <= config.max_statements && contacts <= config.max_contacts, "{statements} {contacts}");
    }
    for number in 0..5_000 {
        solo.tell(2, PredictorIn::Asked(reporter(number, 1).ip()));
    }
    solo.state(3, reporter(1, 1), socket(US));
    assert!(!solo.0.machine().prediction().open);
}

#[test]
fn numbers_that_do_not_add_up_are_refused_with_the_sum() {
    assert_eq!(PredictorConfig::recommended().check(), Ok(()));
    let told = |config: PredictorConfig| config.check().expect_err("it does not add up");
    let recommended = PredictorConfig::recommended;
    assert!(told(PredictorConfig { min_statements_ever: 11, ..recommended() }).contains("min_statements (10)"));
    assert!(told(PredictorConfig { max_statements: 9, ..recommended() }).contains("max_statements (9)"));
    assert!(told(PredictorConfig { window: Duration::from_secs(601), ..recommended() }).contains("601s"));
}

proptest! {
    #[test]
    fn less_than_half_of_the_sites_never_decide(
        honest in 4u16..30,
        order in proptest::collection::vec((any::<bool>(), 0u16..30, 0u64..3), 1..400),
    ) {
        let hostile = (honest - 1) / 2;
        let mut solo = Solo::new();
        for number in 0..honest {
            solo.state(0, reporter(number, 1), socket(US));
        }
        let mut now = 0;
        for (lie, number, wait) in order {
            now = (now + wait).min(290);
            let (by, observed) = match lie {
                true => (reporter(1_000 + number % hostile.max(1), 1), socket("198.51.100.66:1")),
                false => (reporter(number % honest, 1), socket(US)),
            };
            prop_assert_eq!(solo.state(now, by, observed), Some(socket(US)));
        }
    }
}
