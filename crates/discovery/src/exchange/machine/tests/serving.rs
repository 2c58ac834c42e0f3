//! Answering: who is shown to whom, and what those get who ask for too much.

use peerage_machine::Bloom;
use peerage_wire::Admission;

use super::*;

const SALT: [u8; 16] = [9; 16];

fn pull(known: Bloom) -> Item {
    Item::Pull { salt: SALT, known }
}

fn knowing(ids: &[NodeId]) -> Item {
    let mut bloom = Bloom::sized(ids.len(), 2_048);
    ids.iter().for_each(|id| bloom.insert(wire::place(&SALT, id)));
    pull(bloom)
}

/// Whom the nth node is shown, in the order of their numbers.
fn shown(outs: &[Out], n: u16) -> Option<Vec<u16>> {
    let records = sent(outs, n).into_iter().find_map(|item| match item {
        Item::Records(records) => Some(records),
        _ => None,
    })?;
    let number = |record: NodeRecord| (0..1_000).find(|n| id(*n) == record.id()).expect("one of the test's");
    let mut numbers: Vec<u16> = records.into_iter().map(number).collect();
    numbers.sort_unstable();
    Some(numbers)
}

#[test]
fn an_asker_is_shown_the_peers_that_it_does_not_know_and_nobody_else() {
    let mut node = Node::new();
    for n in 1..=5 {
        node.up(n);
    }
    assert_eq!(shown(&node.hear(1, &knowing(&[])), 1), Some(vec![2, 3, 4, 5]), "not itself, not this node");
    assert_eq!(shown(&node.hear(2, &knowing(&[id(1), id(3)])), 2), Some(vec![4, 5]));
    assert_eq!(shown(&node.hear(3, &knowing(&[1, 2, 4, 5].map(id))), 3), Some(vec![]), "an answer all the same");
    node.down(5);
    assert_eq!(shown(&node.hear(4, &knowing(&[])), 4), Some(vec![1, 2, 3]), "who left is shown no more");
}

#[test]
fn whom_this_node_was_told_of_is_not_told_further() {
    let mut node = Node::new();
    node.up(1);
    node.up(2);
    node.pulled(1);
    node.told(1, plain(10..20));
    assert_eq!(node.driver.machine().known(), 10);
    assert_eq!(shown(&node.hear(1, &knowing(&[])), 1), Some(vec![2]));
}

#[test]
fn of_the_peers_only_those_are_shown_that_can_be_dialled_by_the_asker_where_they_are() {
    let mut node = Node::new();
    let denied = Admission { denied: vec!["20.0.8.0/24".parse().expect("network")], ..Admission::open() };
    node.tell(In::Admission(std::sync::Arc::new(denied)));
    node.up(1);
    // Came from elsewhere than its record says: a bystander's address, perhaps.
    node.up_at(2, socket("20.9.9.9:40000"), false, record(2));
    // Came from where its record says, at another port.
    node.up_at(3, socket("20.0.3.1:40000"), false, record(3));
    // Names nothing; names a system port; names an address of no use to a node of the internet.
    node.up_at(4, home(4), true, record_at(4, 1, "test", &[]));
    node.up_at(5, home(5), true, record_at(5, 1, "test", &[SocketAddr::new(home(5).ip(), 53)]));
    node.up_at(6, socket("192.168.1.6:30303"), true, record_at(6, 1, "test", &[socket("192.168.1.6:30303")]));
    node.up_at(7, socket("192.168.1.7:30303"), true, record_at(7, 1, "test", &[socket("192.168.1.7:30303")]));
    node.up(8);
    // Does not speak the protocol, and is a peer like any other.
    let record = record(9);
    node.tell(In::PeerUp(PeerUp { session: SessionId(9), channel: None, remote: home(9), dialled: true, record }));
    assert_eq!(shown(&node.hear(1, &knowing(&[])), 1), Some(vec![3, 9]));
    assert_eq!(shown(&node.hear(6, &knowing(&[])), 6), Some(vec![1, 3, 7, 9]), "a neighbour is shown the neighbour");
}

#[test]
fn whatever_the_filter_nobody_gets_more_than_sixteen_and_hides_only_from_itself() {
    let mut node = Node::new();
    for n in 1..=40 {
        node.up(n);
    }
    let full = || Bloom::from_parts(vec![0xff; 2_048], 16).expect("well formed");
    assert_eq!(shown(&node.hear(1, &pull(full())), 1), Some(vec![]));
    assert_eq!(shown(&node.hear(2, &knowing(&[])), 2).map(|shown| shown.len()), Some(16));
    let empty = Bloom::from_parts(vec![0; 2_048], 1).expect("well formed");
    let first = shown(&node.hear(3, &pull(empty.clone())), 3);
    let second = shown(&node.hear(3, &pull(empty)), 3);
    assert_ne!(first, second, "others each time, in the order of the dice");
}

#[test]
fn who_pulls_more_often_than_allowed_gets_nothing_and_who_goes_on_is_reported() {
    let mut node = Node::new();
    node.up(1);
    node.up(2);
    let (mut served, mut refused, mut reported) = (0, 0, Vec::new());
    for _ in 0..50 {
        let outs = node.hear(1, &knowing(&[]));
        served += usize::from(shown(&outs, 1).is_some());
        refused += drops(&outs, DropReason::PullQuota);
        reported.extend(reports(&outs));
    }
    assert_eq!((served, refused), (2, 48));
    assert_eq!(reported, [(1, Penalty::ControlFlood); 40], "eight a minute are overlooked");
    assert!(shown(&node.hear(2, &knowing(&[])), 2).is_some(), "another one's flood is not its own");
    // The same node under a new session has the same quota.
    node.down(1);
    let session = SessionId(77);
    node.tell(In::PeerUp(PeerUp {
        session,
        channel: Some(ChannelId(2)),
        remote: home(1),
        dialled: false,
        record: record(1),
    }));
    let outs = node.tell(In::Inbound { session, stream: 0, payload: knowing(&[]).encode() });
    assert_eq!(drops(&outs, DropReason::PullQuota), 1);
    // An honest one, every five seconds, always gets its answer.
    for _ in 0..20 {
        node.pass(5 * SECOND);
        assert!(shown(&node.hear(2, &knowing(&[])), 2).is_some());
    }
}

#[test]
fn what_does_not_decode_is_reported_and_a_later_versions_items_are_only_counted() {
    let mut node = Node::new();
    node.up(1);
    let inbound =
        |stream, payload: &'static [u8]| In::Inbound { session: SessionId(1), stream, payload: payload.into() };
    let outs = node.tell(inbound(0, b"nonsense"));
    assert_eq!(reports(&outs), [(1, Penalty::MalformedMessage)]);
    assert_eq!(drops(&outs, DropReason::Malformed), 1);
    let outs = node.tell(inbound(0, &[0, 99, 0, 0, 0, 1, 7]));
    assert_eq!((reports(&outs).len(), drops(&outs, DropReason::UnknownKind)), (0, 1));
    let outs = node.tell(inbound(2, &[]));
    assert_eq!((reports(&outs).len(), drops(&outs, DropReason::Stream)), (0, 1));
    let nobody = In::Inbound { session: SessionId(5), stream: 0, payload: b"nonsense"[..].into() };
    assert_eq!(node.tell(nobody), [Out::Drop(DropReason::NoSession)]);
}

#[test]
fn each_end_says_once_where_it_sees_the_other_and_what_cannot_be_is_not_believed() {
    let mut node = Node::new();
    let outs = node.up_at(1, socket("20.0.1.1:41000"), false, record(1));
    assert_eq!(sent(&outs, 1), [Item::Observed(socket("20.0.1.1:41000"))]);
    let observed = socket("20.5.5.5:50000");
    let outs = node.hear(1, &Item::Observed(observed));
    assert!(outs.contains(&Out::Observed { by: socket("20.0.1.1:41000"), observed }));
    let mut reported = 0;
    for _ in 0..20 {
        let outs = node.hear(1, &Item::Observed(socket("20.6.6.6:1")));
        assert_eq!((drops(&outs, DropReason::Repeated), outs.len() <= 2), (1, true));
        reported += reports(&outs).len();
    }
    assert_eq!(reported, 12);
    for (n, nowhere) in [(2, "192.168.1.1:5"), (3, "0.0.0.0:5"), (4, "127.0.0.1:5"), (5, "224.0.0.1:5")] {
        node.up(n);
        let outs = node.hear(n, &Item::Observed(socket(nowhere)));
        assert_eq!(drops(&outs, DropReason::BadAddress), 1, "{nowhere}");
        assert!(!outs.iter().any(|out| matches!(out, Out::Observed { .. })));
    }
}
