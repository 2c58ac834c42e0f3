//! Each adversary does what it says: its machine asked directly, and one small run of each kind.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use peerage_dialer::{Attempt, DialOutcome};
use peerage_discovery::wire::{Cookie, Message, Nonce, Packet};
use peerage_discovery::{Inbound, Key};
use peerage_gossip::coded::Admitted;
use peerage_machine::Driver;
use peerage_queue::{ChannelId, SessionId};
use peerage_wire::NetworkId;

use super::*;
use crate::node::Descriptor;
use crate::report::Report;
use crate::run::run;
use crate::scenario::{Number, OptionValue, Scenario, Sites};

mod gossip;

const TOPIC: &str = "blocks";

fn topic() -> Topic {
    Topic::new(TOPIC).expect("short")
}

fn keys(number: u8) -> Keypair {
    Keypair::from_seed([number; 32])
}

fn address(number: u8) -> SocketAddr {
    (Ipv4Addr::new(20, 0, number, 1), 30303).into()
}

fn at(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

fn service() -> Service {
    let terms = peerage_router::Terms::within(Duration::from_secs(1));
    let limits = peerage_router::HandlerConfig::in_order();
    Service { name: "height/1".into(), limits, answer: 3, takes: Duration::ZERO, terms }
}

/// A swarm of this kind that knows three honest nodes, and its first member's machines.
fn member(kind: Kind, options: &[(&str, i64)]) -> (Rc<Cast>, ForeignParts) {
    let options = options.iter().map(|(name, value)| (String::from(*name), OptionValue::Number(*value))).collect();
    let adversary = Adversary { kind, number: Number::Count(1), sites: Sites::Own, at: None, options };
    let mut config = Config::recommended();
    config.gossip.coded.admitted = BTreeMap::from([(topic(), Admitted::Everybody)]);
    let mut swarm = Swarm::new(&adversary, &Rc::new(config), &[Policy::Signed]).expect("it is known");
    let cast = Rc::new(Cast::new(NetworkId::named("test"), 1));
    let honest: Vec<_> = (1..4).map(|number| (keys(number).id(), address(number))).collect();
    let victim = honest.last().copied();
    swarm.brief(&cast, honest, victim);
    let recruit = Recruit {
        host: HostId(9),
        keys: &keys(9),
        address: address(9),
        topics: &[(topic(), Policy::Signed)],
        bootnodes: &[],
        services: &[service()],
        cast: &cast,
        now: Time::ZERO,
        at: Duration::ZERO,
        seed: 5,
    };
    let parts = swarm.parts(&recruit).expect("it fits");
    (cast, parts)
}

/// A question to an attacker's discovery, and what it sends back to who asked.
fn asked(driver: &mut Driver<Foreign<DiscoveryMachine>>, from: u8, message: Message) -> Vec<Message> {
    let nonce = Nonce { counter: 1, mac: [0; 8] };
    let packet = Packet { nonce, cookie: Cookie::NONE, expiry: 20, message };
    let inbound = Inbound { from: keys(from).id(), addr: address(from), packet };
    driver.handle(at(100), peerage_discovery::In::Packet(inbound));
    let outs: Vec<_> = driver.drain().collect();
    let answers = outs.into_iter().filter_map(|out| match out {
        peerage_discovery::Out::Send(outgoing) if outgoing.to == keys(from).id() => Some(outgoing.packet.message),
        _ => None,
    });
    answers.collect()
}

fn discovery(kind: Kind) -> (Rc<Cast>, Driver<Foreign<DiscoveryMachine>>) {
    let (cast, parts) = member(kind, &[]);
    let mut driver = Driver::new(parts.discovery.expect("it has a discovery of its own"));
    driver.handle(Time::ZERO, peerage_discovery::In::Start);
    driver.drain();
    (cast, driver)
}

fn told(answers: &[Message]) -> Vec<NodeRecord> {
    let records = answers.iter().filter_map(|answer| match answer {
        Message::Neighbors { records, .. } => Some(records.clone()),
        _ => None,
    });
    records.flatten().collect()
}

#[test]
fn a_liar_tells_of_its_fellows_of_nobody_and_of_others_with_forged_records() {
    let (cast, mut liar) = discovery(Kind::Liar);
    let record = cast.record(&keys(1), 1, address(1)).expect("it fits").into_inner();
    let heard = Message::Neighbors { index: 0, total: 1, records: vec![record] };
    asked(&mut liar, 1, heard);
    let target = Key::of(keys(2).id());
    let records = told(&asked(&mut liar, 2, Message::FindNode { target }));
    let genuine: Vec<_> = records.iter().filter(|record| cast.verify(record).is_some()).collect();
    assert!(genuine.iter().any(|record| record.id() == keys(9).id()), "itself");
    assert!(genuine.iter().any(|record| record.udp_address().is_some_and(|at| at.ip().to_string().starts_with("120"))));
    let forged: Vec<_> = records.iter().filter(|record| cast.verify(record).is_none()).map(|r| r.id()).collect();
    assert_eq!(forged, [keys(1).id()]);
    let observed = asked(&mut liar, 2, Message::Ping { record_seq: 1 });
    let false_address = |answer: &Message| matches!(answer, Message::Pong { observed, .. } if *observed != address(2));
    assert!(observed.iter().any(false_address), "{observed:?}");
}

#[test]
fn an_eclipser_lies_to_its_victim_alone_and_courts_it() {
    let (cast, mut eclipser) = discovery(Kind::Eclipser);
    let question = || Message::FindNode { target: Key::of(keys(2).id()) };
    let ids = |records: Vec<NodeRecord>| records.iter().map(NodeRecord::id).collect::<Vec<_>>();
    assert_eq!(ids(told(&asked(&mut eclipser, 3, question()))), [keys(9).id()], "the victim");
    assert_eq!(ids(told(&asked(&mut eclipser, 2, question()))), [], "the truth: it knows nobody yet");
    assert!(cast.verify(&cast.record(&keys(9), 0, address(9)).expect("it fits")).is_some());
    let mut courted = Vec::new();
    while let Some(due) = eclipser.next_deadline().filter(|due| *due <= at(1_000)) {
        eclipser.expire_due(due);
        courted.extend(
            eclipser
                .drain()
                .filter(|out| matches!(out, peerage_discovery::Out::Send(outgoing) if outgoing.addr == address(3))),
        );
    }
    assert_eq!(courted.len(), 2, "two requests a second");
    // It shows the cookie that it is given from then on.
    let nonce = Nonce { counter: (1 << 62) | 1, mac: [0; 8] };
    let packet = Packet { nonce, cookie: Cookie([7; 16]), expiry: 0, message: Message::Cookie };
    let inbound = Inbound { from: keys(3).id(), addr: address(3), packet };
    eclipser.handle(at(1_000), peerage_discovery::In::Packet(inbound));
    let mut cookies = Vec::new();
    while let Some(due) = eclipser.next_deadline().filter(|due| *due <= at(2_000)) {
        eclipser.expire_due(due);
        cookies.extend(eclipser.drain().filter_map(|out| match out {
            peerage_discovery::Out::Send(outgoing) if outgoing.addr == address(3) => Some(outgoing.packet.cookie),
            _ => None,
        }));
    }
    assert_eq!(cookies, [Cookie([7; 16]); 2]);
}

#[test]
fn who_wants_places_dials_again_and_again() {
    for (kind, targets) in [(Kind::Eclipser, 1), (Kind::ColdBoot, 3), (Kind::Flapper, 3)] {
        let (_, parts) = member(kind, &[("rate", 10)]);
        let mut dialer = Driver::new(parts.dialer.expect("it has a dialer of its own"));
        dialer.handle(Time::ZERO, peerage_dialer::In::Start);
        let mut dialled = BTreeMap::<NodeId, u32>::new();
        for _ in 0..20 {
            let due = dialer.next_deadline().expect("it goes on");
            dialer.expire_due(due);
            let outs: Vec<_> = dialer.drain().collect();
            for out in outs {
                let peerage_dialer::Out::Dial { attempt, target } = out else { continue };
                *dialled.entry(target.id).or_default() += 1;
                assert_ne!(attempt, Attempt(0));
                let outcome = DialOutcome::ConnectFailed;
                dialer.handle(due, peerage_dialer::In::Done { attempt, outcome });
            }
        }
        assert_eq!(dialled.len(), targets, "{kind}");
        assert!(dialled.values().all(|count| *count >= 5), "{kind}: {dialled:?}");
    }
}

#[test]
fn a_flapper_leaves_a_second_after_it_came() {
    let (_, parts) = member(Kind::Flapper, &[]);
    let mut root = Driver::new(parts.server.expect("it has a run loop of its own"));
    use peerage_server::{In, Meta, Out, Setup, Stage};
    root.handle(Time::ZERO, In::Start);
    let direction = peerage_peer_session::handshake::Direction::Outbound;
    let (id, fork) = (keys(1).id(), Config::recommended().fork_id);
    let meta = Meta { id, direction, instance: 1, ip: address(1).ip(), fork };
    for stage in [Stage::Identified, Stage::Established] {
        root.handle(at(100), In::Checkpoint(Setup(1), stage, meta));
    }
    let leaves = |outs: Vec<Out>| outs.iter().any(|out| matches!(out, Out::Disconnect(..)));
    let outs: Vec<Out> = root.drain().collect();
    assert!(outs.iter().any(|out| matches!(out, Out::PeerUp(..))) && !leaves(outs));
    assert_eq!(root.next_deadline(), Some(at(1_100)));
    root.expire_due(at(1_100));
    assert!(leaves(root.drain().collect()));
}

// ---- Runs.

const REQUESTS: &str = r#"
[[requests]]
handler = "height/1"
rate = 10
question = "64B"
answer = "256B"
allowance = 20
deadline = "5s"
from = "7s"
until = "11s"
"#;

const CODED: &str = r#"
[[traffic]]
topic = "bodies"
rate = 1
size = "128KiB"
coded = true
from = "7s"
until = "11s"
"#;

/// A small network with a quarter of it hostile.
fn small(kind: Kind, more: &str) -> Report {
    let asking = matches!(kind, Kind::RequestFlood | Kind::SlowAnswers);
    let requests = if asking { REQUESTS } else { "" };
    let is_coded = matches!(kind, Kind::ShardPollution | Kind::NonCodeword);
    let coded = if is_coded { CODED } else { "" };
    let text = format!(
        r#"
name = "small"
about = "A quarter is hostile."
seeds = 1
duration = "16s"

[population]
nodes = 20
preset = "local"
max_peers = 12

[[traffic]]
topic = "blocks"
rate = 2
size = "1KiB"
from = "7s"
until = "11s"
{coded}
{requests}

[[adversaries]]
kind = "{kind}"
count = 6
sites = "own"
{more}

[[expect]]
metric = "bans.honest"
equals = 0
"#
    );
    let scenario = Scenario::parse("small.toml", &text).expect("it is a scenario");
    let report = run(&scenario, 1).expect("it can be played");
    assert_eq!(report.violations, [], "{kind}");
    report
}

fn count(report: &Report, name: &str) -> u64 {
    report.metrics.get(name).unwrap_or_else(|| panic!("there is no {name}")).value
}

#[test]
fn a_small_network_lives_with_each_kind() {
    for kind in Kind::ALL {
        let more = if kind == Kind::CovertFlash { "options = { turn = \"8s\" }" } else { "" };
        let report = small(kind, more);
        assert_eq!(count(&report, "bans.honest"), 0, "{kind}");
        assert_eq!(count(&report, "delivered"), 1_000_000, "{kind}: {:?}", report.metrics);
        assert_eq!(count(&report, "duplicates-delivered"), 0, "{kind}");
        if matches!(kind, Kind::RequestFlood | Kind::SlowAnswers) {
            assert!(count(&report, "requests.answered") >= 800_000, "{kind}: {:?}", report.metrics);
        }
        let hostile = count(&report, "hostile.delivered") > 0;
        assert_eq!(hostile, matches!(kind, Kind::Spammer | Kind::Equivocator), "{kind}");
        if matches!(kind, Kind::InvalidSignatures | Kind::ShardPollution | Kind::NonCodeword) {
            assert!(count(&report, "blames") > 0 && count(&report, "blames.honest") == 0, "{kind}");
        }
    }
}

#[test]
fn an_option_that_a_kind_does_not_have_is_an_error_that_says_so() {
    let scenario = |options: &str| {
        let text = format!(
            "name = \"s\"\nabout = \"s\"\nseeds = 1\nduration = \"1s\"\n[population]\nnodes = 2\n\
             [[adversaries]]\nkind = \"eclipser\"\ncount = 1\nsites = 1\noptions = {{ {options} }}\n\
             [[expect]]\nmetric = \"components\"\nequals = 1\n"
        );
        let scenario = Scenario::parse("s.toml", &text).expect("it is a scenario");
        run(&scenario, 1).expect_err("it cannot be played").to_string()
    };
    assert!(scenario("size = 3").contains("eclipser has no option `size`: it has victim, rate, after"));
    assert!(scenario("victim = 2").contains("there is no honest node 2"));
}

/// The router of an attacker with two peers.
fn router(kind: Kind, options: &[(&str, i64)]) -> Driver<Foreign<RouterMachine>> {
    use peerage_router::{In, PeerUp};
    let (_, parts) = member(kind, options);
    let mut driver = Driver::new(parts.router.expect("it has a router of its own"));
    for number in 1..3 {
        let up = PeerUp { session: SessionId(number.into()), id: keys(number).id(), channel: ChannelId(2) };
        driver.handle(at(0), In::PeerUp(up));
    }
    driver
}

/// What it pushes to how many until then.
fn pushes(driver: &mut Driver<Foreign<RouterMachine>>, until: u64) -> Vec<(usize, Bytes)> {
    let mut pushed = Vec::new();
    loop {
        pushed.extend(driver.drain().filter_map(|out| match out {
            peerage_router::Out::Push(outgoing) => Some((outgoing.to.len(), outgoing.bytes)),
            _ => None,
        }));
        match driver.next_deadline().filter(|due| *due <= at(until)) {
            Some(due) => driver.expire_due(due),
            None => return pushed,
        }
    }
}

#[test]
fn a_request_flood_asks_every_peer_as_often_as_it_is_told_with_an_id_for_each() {
    use peerage_router::wire::{Item, items};
    let mut driver = router(Kind::RequestFlood, &[("rate", 70)]);
    let pushed = pushes(&mut driver, 1_000);
    let mut asked = BTreeSet::new();
    for (to, bytes) in pushed {
        assert_eq!(to, 2);
        for item in items(bytes, 1 << 20) {
            let Ok(Item::Request { id, handler, .. }) = item else { panic!("{item:?}") };
            assert_eq!(handler, HandlerId::of("height/1"));
            asked.insert(id);
        }
    }
    assert_eq!(asked.len(), 70);
}

#[test]
fn slow_answers_come_a_byte_a_second() {
    use peerage_router::{In, Payload, wire};
    let mut driver = router(Kind::SlowAnswers, &[]);
    let token = 1;
    driver.handle(at(0), In::AddHandler { token, name: service().name, config: service().limits });
    let question = wire::request(7, HandlerId::of("height/1"), Duration::from_secs(60), b"?");
    driver.handle(at(0), In::Inbound { session: SessionId(1), payload: question });
    let call = driver.drain().find_map(|out| match out {
        peerage_router::Out::Call(call) => Some(call.call),
        _ => None,
    });
    let answer = Descriptor { number: 1, size: 30 }.payload();
    driver.handle(at(0), In::Answered { call: call.expect("it is asked"), answer: Ok(Payload(answer)) });
    assert_eq!(pushes(&mut driver, 29_999).len(), 0);
    assert_eq!(pushes(&mut driver, 30_000).len(), 1);
}
