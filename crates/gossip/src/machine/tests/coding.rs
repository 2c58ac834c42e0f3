//! Coded messages among the other rules, and what their attackers find.

use super::*;
use crate::coded::{Admitted, Bits, CodedConfig, Coding, Erasure, Header, Key, Pieces, ReedSolomon, Shape, Tree};
use crate::wire::{CodedStatus, Item, Shard};

const LARGE: usize = 40_000;
const PUBLISHER: u8 = 7;

fn config(change: impl FnOnce(&mut CodedConfig)) -> Config {
    let mut config = Config::test();
    config.coded.from = 10_000;
    // Wide enough that what is passed on does not wait for answers.
    config.coded.window = 1024 * 1024;
    config.coded.admitted.insert(topic(), Admitted::Everybody);
    change(&mut config.coded);
    config
}

/// A node that takes coded messages, with these peers, which do too.
fn node(peers: impl IntoIterator<Item = u64>, change: impl FnOnce(&mut CodedConfig)) -> Node {
    let mut node = Node::with(0, config(change));
    node.subscribe(Policy::Signed);
    for n in peers {
        node.peer(n);
        node.inbound(at(0), n, wire::topics_of(false, true, [&topic()]));
    }
    node
}

fn payload(salt: u8) -> Bytes {
    (0..LARGE).map(|n| (n / 3) as u8 ^ salt).collect::<Vec<u8>>().into()
}

/// A coded message as its publisher has it.
struct Made {
    header: Header,
    coding: Coding,
    tree: Tree,
}

/// A code whose shards are some other payload's from the middle on.
struct NoCode;

impl Erasure for NoCode {
    fn encode(&self, payload: &Bytes, shape: Shape) -> Option<Pieces> {
        let good = ReedSolomon.encode(payload, shape)?;
        Some(Pieces { made: vec![9; good.made.len()].into(), ..good })
    }

    fn decode(&self, _: &[(u16, Bytes)], _: Shape) -> Option<Bytes> {
        None
    }
}

fn made(sequence: u64, salt: u8, code: &impl Erasure) -> Made {
    let (keys, payload) = (keys(PUBLISHER), payload(salt));
    let id = MessageId::signed(&topic(), &keys.id(), sequence, &payload);
    let issued = at(0).unix_millis();
    let shape = Shape::of(LARGE, 100).expect("it can be cut");
    let coding = Coding::of(payload, shape, code).expect("it can be coded");
    let tree = coding.tree();
    let mut header = Header {
        topic: topic(),
        publisher: keys.id(),
        sequence,
        issued,
        message_signature: Claim { id, issued }.sign(&keys),
        id,
        shape,
        root: tree.root(),
        expires: issued + 30_000,
        signature: [0; 64],
    };
    header.signature = header.claim().sign(&keys);
    Made { header, coding, tree }
}

impl Made {
    fn key(&self) -> Key {
        self.header.key()
    }

    fn shard(&self, index: u16) -> Shard {
        Shard {
            key: self.key(),
            index,
            has: Bits::default(),
            proof: self.tree.proof(index.into()),
            bytes: self.coding.shard(index.into()).expect("a shard"),
        }
    }

    /// As it travels, with the header.
    fn item(&self, index: u16) -> Bytes {
        wire::shard(Some(&wire::header(&self.header)), &self.shard(index))
    }

    fn enough(&self) -> u16 {
        self.header.shape.data
    }
}

/// What a node sends, item by item, with the session it is for.
fn said(outs: &[Out]) -> Vec<(u64, Item)> {
    let pushes = outs.iter().filter_map(|out| if let Out::Push(push) = out { Some(push) } else { None });
    pushes
        .flat_map(|push| {
            let items: Vec<Item> =
                wire::items(push.bytes.clone(), 1 << 20).collect::<Result<_, _>>().expect("what is sent decodes");
            push.to.iter().flat_map(move |to| items.clone().into_iter().map(|item| (to.session.0, item)))
        })
        .collect()
}

fn shards_to(outs: &[Out], session: u64) -> Vec<u16> {
    let of = |(to, item): (u64, Item)| match item {
        Item::Shard(shard) if to == session => Some(shard.index),
        _ => None,
    };
    said(outs).into_iter().filter_map(of).collect()
}

fn statuses(outs: &[Out], wanted: CodedStatus) -> Vec<u64> {
    let of = |(to, item): (u64, Item)| match item {
        Item::CodedStatus { status, .. } if status == wanted => Some(to),
        _ => None,
    };
    said(outs).into_iter().filter_map(of).collect()
}

fn asked(outs: &[Out]) -> Vec<u64> {
    let of = |(to, item): (u64, Item)| matches!(item, Item::CodedNeed { .. }).then_some(to);
    said(outs).into_iter().filter_map(of).collect()
}

fn blamed(outs: &[Out]) -> Vec<(u64, Penalty)> {
    let of = |out: &Out| if let Out::Report { session, penalty } = out { Some((session.0, *penalty)) } else { None };
    outs.iter().filter_map(of).collect()
}

fn delivered(outs: &[Out]) -> Vec<Bytes> {
    let of = |out: &Out| if let Out::Deliver(message) = out { Some(message.payload.clone()) } else { None };
    outs.iter().filter_map(of).collect()
}

fn dropped_for(outs: &[Out], reason: DropReason) -> usize {
    outs.iter().filter(|out| **out == Out::Count(Count::Dropped(reason))).count()
}

/// Does the coding that is asked for, and what comes of it.
fn code(node: &mut Node, now: Time, outs: Vec<Out>) -> Vec<Out> {
    let mut all = Vec::new();
    let mut rest = outs;
    while !rest.is_empty() {
        let mut next = Vec::new();
        for out in rest {
            match out {
                Out::Code { token, job } => {
                    let coding = job.run(&ReedSolomon).map(Box::new);
                    next.extend(node.feed(now, In::Coded { token, coding }));
                }
                out => all.push(out),
            }
        }
        rest = next;
    }
    all
}

fn publish(node: &mut Node, salt: u8) -> Vec<Out> {
    let publish =
        In::Publish { token: 9, topic: topic(), policy: Policy::Signed, payload: payload(salt), pressed: false };
    let outs = node.feed(at(0), publish);
    code(node, at(0), outs)
}

#[test]
fn a_large_message_goes_out_as_different_shards_each_after_its_header_and_whole_to_who_takes_none() {
    let mut node = node(1..=3, |coded| coded.first_copies = 1);
    node.peer(9);
    let outs = publish(&mut node, 0);
    let mut seen = BTreeSet::new();
    for session in 1..=3 {
        let shards = shards_to(&outs, session);
        assert!(!shards.is_empty() && shards.iter().all(|shard| seen.insert(*shard)), "{session}: {shards:?}");
        let first = said(&outs).into_iter().find(|(to, _)| *to == session).expect("something");
        assert!(matches!(first.1, Item::Header(_)), "its header comes first");
    }
    let whole = |(to, item): &(u64, Item)| matches!(item, Item::Message(_)).then_some(*to);
    assert_eq!(said(&outs).iter().filter_map(whole).collect::<Vec<_>>(), [9]);
    assert_eq!(delivered(&outs), [payload(0)]);
    let published = outs.iter().any(|out| matches!(out, Out::Published { result: Ok(Published { peers: 4, .. }), .. }));
    assert!(published, "queued to four");
}

/// What others are most likely to be sending a peer just now is what many have.
#[test]
fn of_what_a_peer_lacks_it_is_sent_first_what_the_fewest_have() {
    // One shard under way to each peer at a time.
    let (mut node, message) = (node(1..=5, |coded| coded.window = 1), made(1, 0, &ReedSolomon));
    let has = |shards: &[usize]| {
        let mut bits = Bits::default();
        shards.iter().for_each(|shard| assert!(bits.insert(*shard)));
        wire::has(message.key(), CodedStatus::Has, &bits)
    };
    let outs = node.inbound(at(0), 1, message.item(0));
    assert!((2..=5).all(|peer| shards_to(&outs, peer) == [0]), "the only one that there is");
    for index in [1, 2, 3] {
        assert!(said(&node.inbound(at(1), 1, message.item(index))).iter().all(|(to, _)| *to == 1), "they wait");
    }
    assert_eq!(shards_to(&node.inbound(at(2), 2, has(&[1, 2])), 2), [], "the first is still under way");
    assert_eq!(shards_to(&node.inbound(at(3), 3, has(&[0])), 3), [3], "which one has, where the others are at two");
    // What a peer that is gone had counts no more: the first two are at one, the third at two.
    node.feed(at(4), In::PeerDown { session: SessionId(2) });
    let sent = shards_to(&node.inbound(at(5), 4, has(&[0])), 4);
    assert!(sent == [1] || sent == [2], "{sent:?}");
    let fifth = shards_to(&node.inbound(at(6), 5, has(&[0])), 5);
    assert_eq!([sent, fifth].concat().iter().sum::<u16>(), 3, "the other one");
}

#[test]
fn a_message_is_rebuilt_of_any_shards_that_are_enough_and_delivered_once() {
    let (mut node, message) = (node(1..=4, |_| {}), made(1, 0, &ReedSolomon));
    let (mut all, enough) = (Vec::new(), message.enough());
    for (nth, index) in (0..message.header.shape.total).rev().take(enough.into()).enumerate() {
        let outs = node.inbound(at(nth as u64), 1, message.item(index));
        assert_eq!(statuses(&outs, CodedStatus::Have).is_empty(), nth + 1 < enough.into(), "at once, and not before");
        all.extend(code(&mut node, at(nth as u64), outs));
    }
    assert_eq!(delivered(&all), [payload(0)]);
    assert_eq!(blamed(&all), []);
    assert!((2..=4).all(|peer| !shards_to(&all, peer).is_empty()), "and passed on meanwhile");
    assert_eq!(shards_to(&all, 1), [], "but not to where they came from");
    let again = node.inbound(at(99), 2, message.item(0));
    assert!(delivered(&code(&mut node, at(99), again)).is_empty());
    // Who takes no shards gets the whole message on request.
    let outs = node.inbound(at(100), 3, wire::i_want(&[message.header.id]));
    assert!(said(&outs).iter().any(|(to, item)| *to == 3 && matches!(item, Item::Message(_))));
}

#[test]
fn a_node_that_has_all_makes_what_a_peer_asks_for() {
    let (mut node, message) = (node(1..=2, |_| {}), made(1, 0, &ReedSolomon));
    for index in 0..message.enough() {
        let outs = node.inbound(at(0), 1, message.item(index));
        code(&mut node, at(0), outs);
    }
    let mut wanted = Bits::default();
    let last = message.header.shape.total - 1;
    wanted.insert(last.into());
    let outs = node.inbound(at(1), 2, wire::need(message.key(), &wanted));
    let shard =
        said(&outs).into_iter().find_map(|(_, item)| if let Item::Shard(shard) = item { Some(shard) } else { None });
    assert_eq!(shard.map(|shard| (shard.index, shard.bytes)), Some((last, message.shard(last).bytes)));
    // As often as there are shards, twice; then no more.
    let all: Bits = (0..usize::from(message.header.shape.total)).fold(Bits::default(), |mut all, index| {
        all.insert(index);
        all
    });
    let served: usize =
        (0..10).map(|_| shards_to(&node.inbound(at(2), 2, wire::need(message.key(), &all)), 2).len()).sum();
    assert!(served <= 2 * usize::from(message.header.shape.total), "{served}");
}

#[test]
fn shards_that_are_not_what_was_signed_blame_their_sender_and_spoil_nothing() {
    let (mut node, message) = (node(1..=3, |_| {}), made(1, 0, &ReedSolomon));
    node.inbound(at(0), 1, message.item(0));
    let good = message.shard(1);
    let polluted = [
        Shard { bytes: vec![1; good.bytes.len()].into(), ..good.clone() },
        Shard { index: 2, ..good.clone() },
        Shard { index: message.header.shape.total, ..good.clone() },
        Shard { bytes: good.bytes.slice(1..), ..good.clone() },
        Shard { proof: Vec::new(), ..good.clone() },
    ];
    for shard in polluted {
        let outs = node.inbound(at(1), 2, wire::shard(Some(&wire::header(&message.header)), &shard));
        assert_eq!(blamed(&outs), [(2, Penalty::InvalidMessage)]);
        assert!(shards_to(&outs, 3).is_empty(), "nothing of it is passed on");
    }
    let mut all = Vec::new();
    for index in 1..message.enough() {
        let outs = node.inbound(at(2), 1, message.item(index));
        all.extend(code(&mut node, at(2), outs));
    }
    assert_eq!(delivered(&all), [payload(0)]);
}

#[test]
fn who_signs_what_is_no_code_is_barred_and_no_relayer_is_blamed() {
    let (mut node, message) = (node([1, 2], |_| {}), made(1, 0, &NoCode));
    // The publisher is a peer too, under another session.
    node.feed(at(0), In::PeerUp(PeerUp::new(SessionId(50), keys(PUBLISHER).id(), ChannelId(1))));
    let mut all = Vec::new();
    for index in (0..message.header.shape.total).rev().take(message.enough().into()) {
        let outs = node.inbound(at(0), 1, message.item(index));
        all.extend(code(&mut node, at(0), outs));
    }
    assert_eq!(blamed(&all), [(50, Penalty::InvalidMessage)], "its own session, and not the relayer's");
    assert_eq!((delivered(&all).len(), dropped_for(&all, DropReason::NotACode)), (0, 1));
    assert_eq!((node.stats().coded, node.stats().coded_bytes), (0, 0));
    let again = node.inbound(at(1), 2, message.item(0));
    assert_eq!(statuses(&again, CodedStatus::Refused), [2], "the root is refused from now on");
    let other = made(2, 1, &ReedSolomon);
    let outs = node.inbound(at(2), 2, other.item(0));
    assert_eq!(statuses(&outs, CodedStatus::Refused), [2], "and so is all else of it");
}

#[test]
fn one_root_lives_for_a_sequence() {
    let (mut node, one, other) = (node(1..=3, |_| {}), made(1, 0, &ReedSolomon), made(1, 1, &ReedSolomon));
    node.inbound(at(0), 1, one.item(0));
    let outs = node.inbound(at(1), 2, other.item(0));
    assert_eq!(statuses(&outs, CodedStatus::Refused), [2]);
    assert_eq!((blamed(&outs), node.stats().coded), (vec![], 1), "who relays it may not know of the other");
}

#[test]
fn a_forged_header_is_its_senders_doing_and_does_not_keep_the_true_one_out() {
    let (mut node, message) = (node(1..=3, |_| {}), made(1, 0, &ReedSolomon));
    let mut forged = made(1, 0, &ReedSolomon);
    forged.header.signature = [3; 64];
    let outs = node.inbound(at(0), 1, forged.item(0));
    assert_eq!(blamed(&outs), [(1, Penalty::InvalidMessage)]);
    let mut unsigned = made(1, 0, &ReedSolomon);
    unsigned.header.message_signature = [3; 64];
    let outs = node.inbound(at(0), 1, unsigned.item(0));
    assert_eq!((blamed(&outs).len(), node.stats().coded), (1, 0));
    let mut outs = Vec::new();
    for index in 0..message.enough() {
        let more = node.inbound(at(1), 2, message.item(index));
        outs.extend(code(&mut node, at(1), more));
    }
    assert_eq!(delivered(&outs).len(), 1);
}

#[test]
fn shards_that_come_before_their_header_is_checked_wait_within_bounds() {
    let (mut node, message) = (node(1..=3, |_| {}), made(1, 0, &ReedSolomon));
    node.checks = false;
    let mut questions = Vec::new();
    for index in 0..30 {
        questions.extend(node.inbound(at(0), 1, message.item(index)));
    }
    assert!(said(&questions).iter().all(|(_, item)| !matches!(item, Item::Shard(_))), "nothing goes on unchecked");
    assert!(dropped_for(&questions, DropReason::CodedRefused) >= 26);
    node.checks = true;
    let token = questions.iter().find_map(|out| if let Out::Verify { token, .. } = out { Some(*token) } else { None });
    let outs = node.feed(at(1), In::Verified { token: token.expect("asked once"), ok: true });
    assert!(shards_to(&outs, 2).len() + shards_to(&outs, 3).len() >= 4, "what waited goes on");
}

#[test]
fn floods_of_headers_are_bounded_in_sessions_in_bytes_and_for_each_publisher() {
    let mut node = node(1..=3, |coded| {
        (coded.sessions, coded.publisher_bytes) = (8, 20 * LARGE);
    });
    for sequence in 1..100 {
        let message = made(sequence, sequence as u8, &ReedSolomon);
        node.inbound(at(sequence), 1 + sequence % 3, message.item(0));
        assert!(node.stats().coded <= 8 && node.stats().coded_bytes <= 8 * message.header.shape.bytes());
    }
    // Nothing that does not come on stays.
    for second in 1..=40 {
        node.expire(at(1_000 * second));
    }
    assert_eq!((node.stats().coded, node.stats().coded_bytes), (0, 0));
}

#[test]
fn a_publisher_has_its_quota() {
    let mut node = node(1..=3, |coded| coded.publisher_bytes = 2 * LARGE);
    let refused: Vec<bool> = (1..=4)
        .map(|sequence| {
            let outs = node.inbound(at(sequence), 1, made(sequence, 0, &ReedSolomon).item(0));
            !statuses(&outs, CodedStatus::Refused).is_empty()
        })
        .collect();
    assert_eq!(refused, [false, false, true, true]);
}

#[test]
fn a_publisher_that_the_topic_does_not_admit_is_refused_and_sends_whole_messages() {
    let nobody = |coded: &mut CodedConfig| coded.admitted.clear();
    let mut closed = node(1..=2, nobody);
    let message = made(1, 0, &ReedSolomon);
    let outs = closed.inbound(at(0), 1, message.item(0));
    assert_eq!((statuses(&outs, CodedStatus::Refused), closed.stats().coded), (vec![1], 0));
    let outs = publish(&mut closed, 0);
    assert!(said(&outs).iter().all(|(_, item)| matches!(item, Item::Message(_))));
    // And the other way round: who is told so sends the message whole.
    let mut open = node(1..=2, |_| {});
    let outs = publish(&mut open, 0);
    let key =
        said(&outs).into_iter().find_map(|(_, item)| if let Item::Header(h) = item { Some(h.key()) } else { None });
    let outs = open.inbound(at(1), 2, wire::status(key.expect("a header"), CodedStatus::Refused));
    assert!(matches!(&said(&outs)[..], [(2, Item::Message(_))]));
    let again = open.inbound(at(2), 2, wire::status(key.expect("a header"), CodedStatus::Refused));
    assert!(said(&again).is_empty(), "once");
}

#[test]
fn who_is_asked_for_what_it_has_just_sent_may_send_it_twice_and_nobody_may_unasked() {
    let (mut node, message) = (node(1..=2, |_| {}), made(1, 0, &ReedSolomon));
    node.inbound(at(0), 1, message.item(0));
    node.inbound(at(0), 2, wire::status(message.key(), CodedStatus::Have));
    let (mut now, mut wanted) = (at(0), Bits::default());
    while wanted.is_empty() {
        now += Duration::from_millis(50);
        let asks = said(&node.expire(now)).into_iter();
        let mut of = asks.filter_map(|(to, item)| match item {
            Item::CodedNeed { shards, .. } if to == 2 => Some(shards),
            _ => None,
        });
        wanted = of.next().unwrap_or_default();
    }
    assert!(wanted.len() > 16, "more than may come twice unasked");
    let mut twice = Vec::new();
    // Fewer than are enough: the message stays open.
    for index in wanted.iter().take(usize::from(message.enough()) - 2) {
        for _ in 0..2 {
            twice.extend(node.inbound(now, 2, message.item(u16::try_from(index).expect("an index"))));
        }
    }
    assert_eq!(blamed(&twice), [], "once as it was on its way, and once as it was asked for");
    let again: Vec<_> = (0..16).flat_map(|_| node.inbound(now, 1, message.item(0))).collect();
    assert_eq!(blamed(&again), [(1, Penalty::ControlFlood)]);
}

#[test]
fn a_peer_that_says_to_have_all_and_sends_nothing_holds_nobody_up() {
    let (mut node, message) = (node(1..=3, |_| {}), made(1, 0, &ReedSolomon));
    for index in 0..5 {
        node.inbound(at(0), 1, message.item(index));
    }
    node.inbound(at(1), 2, wire::status(message.key(), CodedStatus::Have));
    node.inbound(at(1), 3, wire::status(message.key(), CodedStatus::Have));
    let (mut asks, mut wants, mut whole) = (Vec::new(), 0, Vec::new());
    for millis in (0..20_000).step_by(50) {
        let outs = node.expire(at(millis));
        asks.extend(asked(&outs));
        wants += said(&outs).iter().filter(|(_, item)| matches!(item, Item::IWant { .. })).count();
        whole.extend(outs);
    }
    assert!(asks.contains(&2) && asks.contains(&3), "each is asked: {asks:?}");
    assert!(asks.len() <= 3 * 5 && wants >= 1, "not for ever, and then for the whole message");
    assert_eq!(blamed(&whole), []);
    let keys = keys(PUBLISHER);
    let parcel = Parcel::new(topic(), Some(message.header.origin()), &payload(0));
    assert_eq!(keys.id(), message.header.publisher);
    let outs = node.inbound(at(20_000), 3, parcel.bytes);
    assert_eq!(delivered(&outs), [payload(0)]);
}

#[test]
fn what_is_announced_while_its_shards_come_is_not_fetched_twice() {
    let (mut node, message) = (node(1..=3, |_| {}), made(1, 0, &ReedSolomon));
    node.inbound(at(0), 1, message.item(0));
    let outs = node.inbound(at(1), 2, wire::i_have(&topic(), &[message.header.id]));
    assert_eq!(said(&outs), []);
}

#[test]
fn peers_are_told_when_a_node_begins_to_take_coded_messages() {
    let mut node = Node::subscribed(Policy::Signed, [1]);
    node.feed(at(1), In::Admit { topic: topic(), publishers: Admitted::Everybody });
    let outs = node.expire(at(1_200));
    assert!(said(&outs).iter().any(|(to, item)| *to == 1 && matches!(item, Item::Topics { coded: true, .. })));
}

#[test]
fn of_a_peer_that_is_gone_nothing_is_left() {
    let (mut node, message) = (node(1..=3, |_| {}), made(1, 0, &ReedSolomon));
    node.inbound(at(0), 1, message.item(0));
    node.feed(at(1), In::PeerDown { session: SessionId(3) });
    let outs = node.inbound(at(2), 1, message.item(1));
    assert!(shards_to(&outs, 3).is_empty() && !shards_to(&outs, 2).is_empty());
}

/// Its shards are passed on as they come; the message itself waits for whoever judges.
#[test]
fn a_coded_message_is_delivered_after_the_verdict_and_one_that_is_rejected_bars_its_publisher() {
    for verdict in [Verdict::Accept, Verdict::Reject] {
        let (mut node, message) = (Node::with(0, config(|_| {})), made(1, 0, &ReedSolomon));
        let signed = Box::new(crate::config::TopicConfig::signed());
        node.feed(at(0), In::SubscribeWith { token: 1, topic: topic(), config: signed, validated: true });
        for n in 1..=4 {
            node.peer(n);
            node.inbound(at(0), n, wire::topics_of(false, true, [&topic()]));
        }
        let mut all = Vec::new();
        for index in 0..message.enough() {
            let outs = node.inbound(at(1), 1, message.item(index));
            all.extend(code(&mut node, at(1), outs));
        }
        let tokens: Vec<u64> = all
            .iter()
            .filter_map(|out| if let Out::Validate { token, .. } = out { Some(*token) } else { None })
            .collect();
        assert_eq!((tokens.len(), delivered(&all).len()), (1, 0), "asked once, and nothing before the answer");
        assert!((2..=4).all(|peer| !shards_to(&all, peer).is_empty()));
        let asked = node.inbound(at(2), 3, wire::i_want(&[message.header.id]));
        assert!(!said(&asked).iter().any(|(_, item)| matches!(item, Item::Message(_))), "nor is it served whole");
        let outs = node.feed(at(3), In::Verdict { token: tokens[0], verdict });
        let other = made(2, 1, &ReedSolomon);
        let next = node.inbound(at(4), 2, other.item(0));
        let refused = !statuses(&next, CodedStatus::Refused).is_empty();
        let accepted = verdict == Verdict::Accept;
        assert_eq!((delivered(&outs).len(), refused), (usize::from(accepted), !accepted), "{verdict:?}");
    }
}
