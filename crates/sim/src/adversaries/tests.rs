//! Each adversary does what it says: its machine asked directly, and one small run of each kind.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use peerage_dialer::{Attempt, DialOutcome};
use peerage_discovery::wire::{Cookie, Message, Nonce, Packet};
use peerage_discovery::{Inbound, Key};
use peerage_gossip::coded::{Admitted, Coding, Header, Job, Shape};
use peerage_gossip::wire::{self, Item, Parcel, Shard};
use peerage_gossip::{Check, Origin, Out};
use peerage_machine::Driver;
use peerage_queue::{ChannelId, SessionId};
use peerage_wire::NetworkId;

use super::*;
use crate::node::{Descriptor, Oracle};
use crate::report::Report;
use crate::run::run;
use crate::scenario::{Number, OptionValue, Scenario, Sites};

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

/// The gossip of an attacker with two peers that want its topic.
struct Gossip {
    cast: Rc<Cast>,
    driver: Driver<Foreign<GossipMachine>>,
}

impl Gossip {
    fn of(kind: Kind, options: &[(&str, i64)]) -> Gossip {
        let (cast, parts) = member(kind, options);
        let driver = Driver::new(parts.gossip.expect("it has a gossip of its own"));
        let mut gossip = Gossip { cast, driver };
        use peerage_gossip::In;
        gossip.told(0, In::Subscribe { token: 1, topic: topic(), policy: Policy::Signed });
        for number in 1..3 {
            let session = SessionId(number.into());
            gossip.told(0, In::PeerUp(peerage_gossip::PeerUp::new(session, keys(number).id(), ChannelId(1))));
            gossip.told(0, In::Inbound { session, payload: wire::topics_of(false, true, [&topic()]) });
        }
        gossip
    }

    /// What it asks for, with signatures given as the world gives them.
    fn outs(&mut self, now: Time) -> Vec<Out> {
        let mut all = Vec::new();
        loop {
            let outs: Vec<Out> = self.driver.drain().collect();
            if outs.is_empty() {
                return all;
            }
            for out in outs {
                let input = match &out {
                    Out::Sign { token, claim, .. } => {
                        let signature = self.cast.sign(keys(9).id(), claim);
                        Some(peerage_gossip::In::Signed { token: *token, signature })
                    }
                    Out::Verify { token, check, .. } => {
                        Some(peerage_gossip::In::Verified { token: *token, ok: self.cast.holds(check) })
                    }
                    Out::Code { token, job } => {
                        let coding = job.clone().run(&Oracle).map(Box::new);
                        Some(peerage_gossip::In::Coded { token: *token, coding })
                    }
                    _ => None,
                };
                input.into_iter().for_each(|input| self.driver.handle(now, input));
                all.push(out);
            }
        }
    }

    fn told(&mut self, millis: u64, input: peerage_gossip::In) -> Vec<Out> {
        self.driver.handle(at(millis), input);
        self.outs(at(millis))
    }

    /// What it does by itself in so many milliseconds.
    fn until(&mut self, millis: u64) -> Vec<Out> {
        let mut all = Vec::new();
        while let Some(due) = self.driver.next_deadline().filter(|due| *due <= at(millis)) {
            self.driver.expire_due(due);
            all.extend(self.outs(due));
        }
        all
    }

    /// A genuine message of an honest node, as its first peer sends it.
    fn genuine(&self) -> Parcel {
        let publisher = keys(3).id();
        let id = peerage_gossip::MessageId::signed(&topic(), &publisher, 1, b"news");
        let claim = peerage_gossip::Claim { id, issued: 0 };
        let signature = self.cast.sign(publisher, &claim);
        Parcel::new(topic(), Some(Origin { publisher, sequence: 1, issued: 0, signature }), b"news")
    }

    fn hears_news(&mut self) -> Vec<Out> {
        let payload = self.genuine().bytes;
        self.told(10, peerage_gossip::In::Inbound { session: SessionId(1), payload })
    }
}

/// What is sent, and to which sessions.
fn sent(outs: &[Out]) -> Vec<(Item, Vec<u64>)> {
    let mut sent = Vec::new();
    for out in outs {
        if let Out::Push(outgoing) = out {
            let to: Vec<u64> = outgoing.to.iter().map(|peer| peer.session.0).collect();
            let items = wire::items(outgoing.bytes.clone(), wire::MAX_PAYLOAD);
            sent.extend(items.map(|item| (item.expect("it decodes"), to.clone())));
        }
    }
    sent
}

fn messages(outs: &[Out]) -> Vec<(Parcel, Vec<u64>)> {
    let messages = sent(outs).into_iter().filter_map(|(item, to)| match item {
        Item::Message(parcel) => Some((parcel, to)),
        _ => None,
    });
    messages.collect()
}

fn holds(cast: &Cast, parcel: &Parcel) -> bool {
    let Origin { publisher, issued, signature, .. } = parcel.origin.clone().expect("signed");
    cast.holds(&Check { publisher, claim: peerage_gossip::Claim { id: parcel.id(), issued }, signature })
}

#[test]
fn a_free_rider_takes_and_does_not_give() {
    let mut rider = Gossip::of(Kind::FreeRider, &[]);
    let outs = rider.hears_news();
    assert!(outs.iter().any(|out| matches!(out, Out::Deliver(_))), "it takes");
    let mut later = rider.until(5_000);
    let ids = vec![rider.genuine().id()];
    let payload = wire::i_want(&ids);
    later.extend(rider.told(5_000, peerage_gossip::In::Inbound { session: SessionId(2), payload }));
    let given = sent(&[outs, later].concat());
    assert!(!given.iter().any(|(item, _)| matches!(item, Item::Message(_) | Item::IHave { .. })), "{given:?}");
}

#[test]
fn a_covert_swarm_gives_until_it_turns() {
    // It turns 30 s after the scenario began.
    let mut covert = Gossip::of(Kind::CovertFlash, &[]);
    assert_eq!(messages(&covert.hears_news()).len(), 1, "before");
    covert.until(31_000);
    let payload = wire::i_want(&[covert.genuine().id()]);
    let outs = covert.told(31_000, peerage_gossip::In::Inbound { session: SessionId(2), payload });
    assert!(messages(&outs).is_empty(), "after");
}

#[test]
fn a_spammer_publishes_at_its_rate_to_everybody_and_says_nothing_of_it() {
    let mut spammer = Gossip::of(Kind::Spammer, &[("rate", 20)]);
    let outs = spammer.until(1_000);
    let spam = messages(&outs);
    assert_eq!(spam.len(), 20);
    assert!(spam.iter().all(|(parcel, to)| holds(&spammer.cast, parcel) && *to == [1, 2]));
    assert!(!outs.iter().any(|out| matches!(out, Out::Published { .. })));
}

#[test]
fn an_equivocator_signs_two_messages_with_one_sequence() {
    let mut equivocator = Gossip::of(Kind::Equivocator, &[("rate", 1)]);
    let told = messages(&equivocator.until(1_000));
    let [(one, to_one), (other, to_other)] = told.as_slice() else { panic!("two halves: {told:?}") };
    let sequence = |parcel: &Parcel| parcel.origin.as_ref().map(|origin| (origin.publisher, origin.sequence));
    assert_eq!(sequence(one), sequence(other));
    assert_ne!(one.payload, other.payload);
    assert!(holds(&equivocator.cast, one) && holds(&equivocator.cast, other));
    assert_eq!((to_one.as_slice(), to_other.as_slice()), ([1].as_slice(), [2].as_slice()));
}

#[test]
fn invalid_signatures_come_in_others_names_and_on_copies_of_what_is_genuine() {
    let mut flood = Gossip::of(Kind::InvalidSignatures, &[("rate", 10)]);
    let copies = messages(&flood.hears_news());
    let [(copy, to)] = copies.as_slice() else { panic!("one copy: {copies:?}") };
    assert_eq!((copy.id(), to.as_slice()), (flood.genuine().id(), [2].as_slice()));
    assert!(messages(&flood.hears_news()).is_empty(), "once: an attacker's copy of it is not damaged again");
    let invented = messages(&flood.until(1_000));
    assert_eq!(invented.len(), 10);
    let me = keys(9).id();
    for parcel in invented.iter().map(|(parcel, _)| parcel).chain([copy]) {
        assert!(!holds(&flood.cast, parcel));
        assert_ne!(parcel.origin.as_ref().map(|origin| origin.publisher), Some(me));
    }
}

#[test]
fn floods_send_what_they_say_at_their_rates() {
    let ids = |outs: &[Out], wanted: fn(&Item) -> usize| -> usize {
        sent(outs).iter().filter(|(_, to)| *to == [1, 2]).map(|(item, _)| wanted(item)).sum()
    };
    let mut promises = Gossip::of(Kind::IHaveFlood, &[("rate", 3_000)]);
    let outs = promises.until(1_000);
    let promised = ids(&outs, |item| if let Item::IHave { ids, .. } = item { ids.len() } else { 0 });
    assert_eq!(promised, 3_000);
    let mut requests = Gossip::of(Kind::IWantFlood, &[("rate", 3_000)]);
    requests.hears_news();
    let outs = requests.until(1_000);
    assert_eq!(ids(&outs, |item| if let Item::IWant { ids } = item { ids.len() } else { 0 }), 3_000);
    let mut grafts = Gossip::of(Kind::GraftFlood, &[("rate", 1_000)]);
    let outs = grafts.until(1_000);
    assert_eq!(ids(&outs, |item| usize::from(matches!(item, Item::Subscribe(_) | Item::Unsubscribe(_)))), 500);
    assert_eq!(ids(&outs, |item| usize::from(matches!(item, Item::Graft(_) | Item::Prune { .. }))), 500);
    assert_eq!(ids(&outs, |item| usize::from(matches!(item, Item::Topics { want_reply: true, .. }))), 10);
}

/// The header and the shards of what was sent.
fn coded(outs: &[Out]) -> (Option<Header>, Vec<(Shard, Vec<u64>)>) {
    let (mut header, mut shards) = (None, Vec::new());
    for (item, to) in sent(outs) {
        match item {
            Item::Header(said) => header = Some(*said),
            Item::Shard(shard) => shards.push((shard, to)),
            _ => {}
        }
    }
    (header, shards)
}

#[test]
fn a_polluter_sends_damaged_shards_to_all_others_and_none_as_it_was() {
    let mut polluter = Gossip::of(Kind::ShardPollution, &[]);
    let what = Descriptor { number: 1, size: 128 << 10 };
    // What an honest publisher sends.
    let shape = Shape::of(what.size as usize, 100).expect("it can be cut");
    let coding = Coding::of(what.payload(), shape, &Oracle).expect("it can be coded");
    let publisher = keys(3).id();
    let id = peerage_gossip::MessageId::signed(&topic(), &publisher, 1, &what.payload());
    let message_signature = polluter.cast.sign(publisher, &peerage_gossip::Claim { id, issued: 0 });
    let (topic, root) = (topic(), coding.tree().root());
    let unsigned = Header {
        topic,
        publisher,
        sequence: 1,
        issued: 0,
        message_signature,
        id,
        shape,
        root,
        expires: 60_000,
        signature: [0; 64],
    };
    let signature = polluter.cast.sign(publisher, &unsigned.claim());
    let header = Header { signature, ..unsigned };
    let bytes = coding.shard(3).expect("there is one");
    let genuine = Shard { key: header.key(), index: 3, has: Default::default(), proof: coding.tree().proof(3), bytes };
    let payload = wire::shard(Some(&wire::header(&header)), &genuine);
    let mut outs = polluter.told(10, peerage_gossip::In::Inbound { session: SessionId(1), payload });
    outs.extend(polluter.until(2_000));
    let (said, shards) = coded(&outs);
    assert_eq!(said, Some(header));
    let [(damaged, to)] = shards.as_slice() else { panic!("one shard: {shards:?}") };
    assert_eq!(to.as_slice(), [2]);
    assert_eq!((damaged.index, &damaged.proof), (3, &genuine.proof));
    assert_ne!(damaged.bytes, genuine.bytes);
    assert_eq!(weigh(&damaged.bytes), weigh(&genuine.bytes));
}

#[test]
fn a_forgers_shards_are_under_its_root_and_no_payloads() {
    let mut forger = Gossip::of(Kind::NonCodeword, &[("rate", 1)]);
    let outs = forger.until(1_500);
    assert_eq!(messages(&outs).len(), 0, "never whole");
    let (header, shards) = coded(&outs);
    let header = header.expect("it published");
    assert!(forger.cast.holds(&header.check()) && forger.cast.holds(&header.message_check()));
    let what = Descriptor { number: Descriptor::HOSTILE | (9 << 32) | 1, size: 128 << 10 };
    let sound = Coding::of(what.payload(), header.shape, &Oracle).expect("it can be coded");
    assert_ne!(header.root, sound.tree().root());
    for (shard, _) in &shards {
        let is_cut = shard.index < header.shape.data;
        assert_eq!(sound.shard(shard.index.into()) == Some(shard.bytes.clone()), is_cut, "{}", shard.index);
    }
    let (mut indices, data) = (shards.iter().map(|(shard, _)| shard.index), header.shape.data);
    assert!(indices.clone().any(|index| index < data) && indices.any(|index| index >= data));
    // Whoever has enough of those that are sound finds a payload, and that it is not what was signed.
    let shards = (0..data).filter_map(|index| Some((index, sound.shard(index.into())?))).collect();
    assert_eq!(Job::Rebuild { header: Box::new(header), shards }.run(&Oracle), None);
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
