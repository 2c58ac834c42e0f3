//! Meshes: who is taken in, who is let go, and which links get a message at once.

use super::*;
use crate::config::{MeshConfig, Mode};
use crate::score::POINT;

/// Who was sent a graft, and who a prune of how many seconds.
fn changes(outs: &[Out]) -> (Vec<u64>, Vec<(u64, u16)>) {
    let (mut grafts, mut prunes) = (Vec::new(), Vec::new());
    for push in pushes(outs) {
        for item in wire::items(push.bytes.clone(), 1024) {
            for to in &push.to {
                match item.clone().expect("well-formed") {
                    wire::Item::Graft(_) => grafts.push(to.session.0),
                    wire::Item::Prune { rest, .. } => prunes.push((to.session.0, rest)),
                    _ => {}
                }
            }
        }
    }
    (grafts, prunes)
}

fn mesh(node: &Node) -> Vec<u64> {
    let machine = node.driver.machine();
    machine.meshes.get(&topic()).into_iter().flat_map(Mesh::links).map(|(session, _)| session.0).collect()
}

fn up(node: &mut Node, now: Time, session: u64, outbound: bool) -> Vec<Out> {
    let id = keys(100 + session as u8).id();
    let up = PeerUp { outbound, ..PeerUp::new(SessionId(session), id, ChannelId(1)) };
    let mut outs = node.feed(now, In::PeerUp(up));
    outs.extend(node.inbound(now, session, wire::topics(false, [&topic()])));
    outs
}

/// Beats up to a time, and what came of it.
fn beat(node: &mut Node, until: u64) -> Vec<Out> {
    let mut outs = Vec::new();
    while let Some(next) = node.driver.next_deadline().filter(|next| *next <= at(until)) {
        outs.extend(node.expire(next));
    }
    outs
}

#[test]
fn a_mesh_is_as_large_as_wished_and_takes_in_others_up_to_its_limit() {
    let mut node = Node::subscribed(Policy::Signed, []);
    let grafts: Vec<u64> = (1..=20).flat_map(|n| changes(&up(&mut node, at(0), n, false)).0).collect();
    assert_eq!((grafts, mesh(&node).len()), (Vec::from_iter(1..=8), 8));
    for n in 9..=12 {
        assert_eq!(changes(&node.inbound(at(1), n, wire::graft(&topic()))), (vec![], vec![]));
    }
    assert_eq!(mesh(&node).len(), 12);
    let outs = node.inbound(at(1), 13, wire::graft(&topic()));
    assert_eq!((changes(&outs), drops(&outs)), ((vec![], vec![(13, 60)]), vec![DropReason::GraftFull]));
    up(&mut node, at(1), 30, true);
    node.inbound(at(2), 30, wire::graft(&topic()));
    assert_eq!(mesh(&node).len(), 13, "a peer that this node dialled is taken in above the limit, too");
    let outs = beat(&mut node, 1_200);
    assert_eq!((changes(&outs).1.len(), mesh(&node).len()), (5, 8), "and the heartbeat cuts it down");
    assert!(mesh(&node).contains(&30), "but not by the dialled ones: {:?}", mesh(&node));
}

#[test]
fn a_mesh_that_has_lost_links_is_filled_and_who_was_pruned_rests() {
    let mut node = Node::subscribed(Policy::Signed, 1..=8);
    for n in 1..=3 {
        node.inbound(at(10), n, wire::prune(&topic(), 60));
    }
    up(&mut node, at(20), 9, false);
    assert_eq!(mesh(&node), [4, 5, 6, 7, 8, 9]);
    node.inbound(at(30), 9, wire::prune(&topic(), 60));
    assert_eq!(changes(&beat(&mut node, 50_000)).0, [0; 0], "all others rest");
    assert_eq!(mesh(&node).len(), 5);
    let grafts = changes(&beat(&mut node, 63_000)).0;
    assert_eq!((grafts.len(), mesh(&node).len()), (3, 8));
}

#[test]
fn a_rest_is_what_the_peer_asked_for_within_reason() {
    for (asked, earliest, latest) in [(0, 59, 63), (10, 9, 13), (u16::MAX, 3_590, 3_610)] {
        let mut node = Node::subscribed(Policy::Signed, 1..=6);
        node.inbound(at(0), 1, wire::prune(&topic(), asked));
        assert_eq!(changes(&beat(&mut node, earliest * 1_000)).0, [0; 0]);
        assert_eq!(changes(&beat(&mut node, latest * 1_000)).0, [1], "asked for {asked} s");
    }
}

#[test]
fn who_grafts_while_it_rests_is_refused_judged_and_in_the_end_not_heard() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    node.feed(at(1), In::Unsubscribe { topic: topic() });
    node.subscribe(Policy::Signed);
    assert_eq!(mesh(&node), [1, 2, 3], "a node that comes back to a topic has forgotten");
    node.inbound(at(2), 1, wire::prune(&topic(), 60));
    let outs = node.inbound(at(3), 1, wire::graft(&topic()));
    assert_eq!((changes(&outs).1, drops(&outs)), (vec![(1, 60)], vec![DropReason::GraftInRest]));
    assert_eq!(node.driver.machine().scores.standing(SessionId(1)), 0, "once is forgiven");
    for second in 1..20 {
        beat(&mut node, 1_000 * second);
        node.inbound(at(1_000 * second + 500), 1, wire::graft(&topic()));
    }
    assert!(node.driver.machine().scores.standing(SessionId(1)) < Config::test().scores.graylist);
    let outs = node.inbound(at(21_000), 1, parcel(50, 1, at(20_000), b"hi").bytes);
    assert_eq!((delivered(&outs).len(), drops(&outs)), (0, vec![DropReason::Graylisted]));
    let standing = node.driver.machine().standings(at(21_000));
    let judged = standing.iter().find(|peer| peer.id == keys(101).id()).expect("it is a peer");
    assert!(judged.score.behaviour < -100 * POINT && judged.meshes.is_empty(), "{judged:?}");
}

#[test]
fn a_flood_of_grafts_is_blamed() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    let outs: Vec<Out> = (0..100).flat_map(|_| node.inbound(at(1), 1, wire::graft(&topic()))).collect();
    let penalties = outs.iter().filter(|out| matches!(out, Out::Report { penalty: Penalty::ControlFlood, .. }));
    assert_eq!(penalties.count(), 1);
    assert!(drops(&outs).contains(&DropReason::GraftFlood));
}

#[test]
fn a_peer_of_low_score_leaves_the_mesh_and_it_is_said_why() {
    let mut node = Node::subscribed(Policy::Signed, 1..=8);
    for n in 0..4 {
        let mut forged = parcel(50, n, at(0), b"forged").bytes.to_vec();
        *forged.last_mut().expect("a payload") ^= 1;
        node.inbound(at(1), 1, forged.into());
    }
    let outs = beat(&mut node, 1_200);
    assert_eq!(changes(&outs).1, [(1, 60)]);
    assert!(outs.contains(&Out::Count(Count::Pruned(PruneReason::LowScore))));
    let standings = node.driver.machine().standings(at(1_200));
    let pruned = standings.iter().find(|peer| peer.id == keys(101).id()).expect("it is a peer");
    assert_eq!(pruned.pruned, Some(PruneReason::LowScore));
    assert!(pruned.score.invalid < 0 && pruned.score.score < 0, "{pruned:?}");
    let outs = node.inbound(at(70_000), 1, wire::graft(&topic()));
    assert!(drops(&outs).iter().all(|reason| [DropReason::GraftLowScore, DropReason::Graylisted].contains(reason)));
    assert!(!mesh(&node).contains(&1));
}

#[test]
fn a_mesh_has_peers_that_this_node_dialled() {
    let mut node = Node::subscribed(Policy::Signed, 1..=8);
    (9..=12).for_each(|n| drop(up(&mut node, at(1), n, true)));
    let grafts = changes(&beat(&mut node, 1_200)).0;
    assert_eq!(grafts.len(), 2);
    assert!(grafts.iter().all(|n| (9..=12).contains(n)), "{grafts:?}");
}

#[test]
fn direct_peers_get_everything_and_are_in_no_mesh() {
    let config = Config { direct: vec![keys(101).id()], ..Config::test() };
    let mut node = Node::with(0, config);
    node.subscribe(Policy::Signed);
    (1..=3).for_each(|n| node.peer(n));
    assert_eq!(mesh(&node), [2, 3]);
    assert_eq!(changes(&node.inbound(at(1), 1, wire::graft(&topic()))).1, [(1, 60)]);
    assert_eq!(pushed(&node.inbound(at(2), 2, parcel(50, 1, at(0), b"hi").bytes)), [1, 3]);
    for n in 0..40 {
        node.inbound(at(3), 1, wire::i_have(&topic(), &[MessageId([n; 32])]));
    }
    beat(&mut node, 30_000);
    assert_eq!(node.driver.machine().scores.standing(SessionId(1)), 0, "and are not judged");
}

#[test]
fn what_was_said_of_meshes_and_lost_is_said_again() {
    let mut node = Node::subscribed(Policy::Signed, 1..=3);
    node.feed(at(10), In::SendFailed { session: SessionId(2), tag: tag::MESH });
    assert_eq!(changes(&beat(&mut node, 1_200)).0, [2]);
    node.inbound(at(1_300), 2, wire::prune(&topic(), 60));
    node.feed(at(1_310), In::SendFailed { session: SessionId(2), tag: tag::MESH });
    assert_eq!(changes(&beat(&mut node, 2_300)).1.len(), 1);
}

/// Peer 1 sends messages; peers 2 and 3 tell at once which were first: all at 2, none at 3.
fn taught(mode: Mode) -> (Node, u64) {
    let config = Config { mode, mesh: MeshConfig { near: 0, ..MeshConfig::recommended() }, ..Config::test() };
    let mut node = Node::with(0, config);
    node.subscribe(Policy::Signed);
    (1..=3).for_each(|n| node.peer(n));
    let mut now = 0;
    for n in 0..40 {
        now += 400;
        let message = parcel(50, n, at(now), b"hi");
        let head = message.id().head();
        node.inbound(at(now), 1, message.bytes);
        beat(&mut node, now + 350);
        node.inbound(at(now + 360), 2, wire::firsts(&[head]));
        node.inbound(at(now + 360), 3, wire::firsts(&[]));
    }
    (node, now + 1_000)
}

#[test]
fn a_link_that_brings_nothing_new_is_announced_to_and_one_that_is_asked_is_eager_again() {
    let (mut node, now) = taught(Mode::Peerage);
    let message = parcel(50, 99, at(now), b"new");
    let id = message.id();
    assert_eq!(pushed(&node.inbound(at(now), 1, message.bytes)), [2], "the link to peer 3 is lazy");
    let outs = beat(&mut node, now + 150);
    assert_eq!(told(&outs), [(3, vec![id])], "which hears of it in a moment");
    assert_eq!(pushed(&node.inbound(at(now + 200), 3, wire::i_want(&[id]))), [3]);
    assert_eq!(pushed(&node.inbound(at(now + 300), 1, parcel(50, 100, at(now), b"next").bytes)), [2, 3]);
    let other_way = node.inbound(at(now + 400), 2, parcel(50, 101, at(now), b"other way").bytes);
    assert_eq!(pushed(&other_way), [1, 3], "what comes from peer 2 is another matter");
}

#[test]
fn lazy_links_wait_for_twice_what_half_of_the_peers_take_there_and_back_and_no_longer_than_configured() {
    for (round_trips, soonest, latest) in
        [([0, 0, 0], 1, 3), ([4, 4, 300], 4, 12), ([20, 30, 0], 20, 60), ([300, 300, 1], 50, 150)]
    {
        let (mut node, now) = taught(Mode::Peerage);
        let usual = Config::test().lazy_after.as_millis() as u64;
        assert_eq!(usual, 100, "what the cases are made for");
        for (n, millis) in (1..).zip(round_trips) {
            node.driver.machine_mut().peers.get_mut(SessionId(n)).expect("a peer").round_trip =
                Some(Duration::from_millis(millis));
        }
        beat(&mut node, now + 1_000);
        let message = parcel(50, 99, at(now + 1_000), b"new");
        let id = message.id();
        node.inbound(at(now + 1_000), 1, message.bytes);
        assert_eq!(told(&beat(&mut node, now + 1_000 + soonest - 1)), [], "{round_trips:?}");
        assert_eq!(told(&beat(&mut node, now + 1_000 + latest)), [(3, vec![id])], "{round_trips:?}");
    }
}

#[test]
fn gossipsubs_links_are_eager_whatever_they_are_good_for() {
    let (mut node, now) = taught(Mode::Gossipsub);
    assert_eq!(pushed(&node.inbound(at(now), 1, parcel(50, 99, at(now), b"new").bytes)), [2, 3]);
}

#[test]
fn plumtrees_links_are_lazy_for_all_ways_at_once() {
    let (mut node, now) = taught(Mode::Plumtree);
    assert_eq!(pushed(&node.inbound(at(now), 1, parcel(50, 99, at(now), b"new").bytes)), [2]);
    assert_eq!(pushed(&node.inbound(at(now + 10), 2, parcel(50, 100, at(now), b"other").bytes)), [1]);
}

#[test]
fn senders_are_told_which_of_their_messages_were_first() {
    let mut node = Node::subscribed(Policy::Signed, 1..=2);
    let (a, b) = (parcel(50, 1, at(0), b"a"), parcel(50, 2, at(0), b"b"));
    node.inbound(at(1), 1, a.bytes.clone());
    node.inbound(at(2), 2, a.bytes.clone());
    node.inbound(at(3), 1, b.bytes.clone());
    let mut told = BTreeMap::new();
    for push in pushes(&beat(&mut node, 1_200)) {
        for item in wire::items(push.bytes.clone(), 1024) {
            if let Ok(wire::Item::Firsts { heads }) = item {
                told.insert(push.to[0].session.0, heads);
            }
        }
    }
    assert_eq!(told, BTreeMap::from([(1, vec![a.id().head(), b.id().head()]), (2, vec![])]));
}

#[test]
fn a_copy_that_comes_close_behind_is_taken_for_the_first_if_its_sender_mostly_is() {
    let mut node = Node::subscribed(Policy::Signed, 1..=2);
    let messages: Vec<Parcel> = (0..5).map(|n| parcel(50, n, at(0), b"a")).collect();
    for message in &messages[..3] {
        node.inbound(at(1), 1, message.bytes.clone());
    }
    node.inbound(at(10), 2, messages[3].bytes.clone());
    node.inbound(at(15), 1, messages[3].bytes.clone());
    node.inbound(at(100), 2, messages[4].bytes.clone());
    node.inbound(at(200), 1, messages[4].bytes.clone());
    let mut told = BTreeMap::new();
    for push in pushes(&beat(&mut node, 1_200)) {
        for item in wire::items(push.bytes.clone(), 1024) {
            if let Ok(wire::Item::Firsts { heads }) = item {
                told.insert(push.to[0].session.0, heads);
            }
        }
    }
    let heads = |of: &[usize]| of.iter().map(|n| messages[*n].id().head()).collect::<Vec<_>>();
    assert_eq!(told, BTreeMap::from([(1, heads(&[0, 1, 2, 3])), (2, heads(&[4]))]));
}

#[test]
fn large_messages_are_not_sent_to_who_has_them() {
    let mut node = Node::subscribed(Policy::Signed, 1..=4);
    let payload = vec![7; Config::test().dont_want_from];
    let message = parcel(50, 1, at(0), &payload);
    let id = message.id();
    node.inbound(at(1), 2, wire::i_dont_want(&[id]));
    let outs = node.inbound(at(2), 1, message.bytes.clone());
    let to: Vec<u64> = pushes(&outs)
        .filter(|push| push.bytes == message.bytes)
        .flat_map(|push| &push.to)
        .map(|to| to.session.0)
        .collect();
    assert_eq!(to, [3, 4]);
    let tag = pushes(&outs).find(|push| push.bytes == message.bytes).expect("pushed").tag;
    let outs = node.inbound(at(3), 3, wire::i_dont_want(&[id]));
    let cancelled =
        |out: &Out| matches!(out, Out::Cancel { to, tag: known } if to.session == SessionId(3) && *known == tag);
    assert!(outs.iter().any(cancelled), "{outs:?}");
    let outs = node.inbound(at(4), 3, wire::i_dont_want(&[id]));
    assert!(!outs.iter().any(cancelled), "once");
}

#[test]
fn what_a_peer_does_not_want_is_bounded() {
    let mut node = Node::subscribed(Policy::Signed, 1..=2);
    let mut dropped = 0;
    let id = |n: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        MessageId(id)
    };
    for n in 0..10_000 {
        let outs = node.inbound(at(1), 1, wire::i_dont_want(&[id(n)]));
        dropped += drops(&outs).iter().filter(|reason| **reason == DropReason::UnwantedFlood).count();
    }
    assert_eq!(dropped, 10_000 - 1_024);
    let wants_not = |node: &Node| node.driver.machine().peers.wants_not(SessionId(1), &id(0));
    assert!(wants_not(&node));
    beat(&mut node, 5_000);
    assert!(!wants_not(&node), "forgotten after three heartbeats");
}
