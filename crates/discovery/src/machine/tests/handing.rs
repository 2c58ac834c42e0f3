//! Candidates for the dialer, lookups and resolves for callers.

use super::*;
use crate::key::Key;
use crate::machine::origin::Origin;

fn peers(count: u16) -> Vec<Peer> {
    (1..=count).map(Peer::new).collect()
}

fn knowing(peers: &[Peer]) -> Solo {
    Solo::knowing(config(), &peers.iter().collect::<Vec<_>>())
}

#[test]
fn the_dialer_gets_what_it_wants_and_no_more() {
    let peers = peers(8);
    let mut solo = knowing(&peers);
    assert_eq!(candidates(&solo.pass(Duration::from_millis(1))), [], "nothing unasked");
    let first = candidates(&solo.tell(In::Want(3)));
    let second = candidates(&solo.tell(In::Want(3)));
    assert_eq!((first.len(), second.len()), (3, 3));
    assert!(first.iter().all(|id| !second.contains(id)), "nobody twice in a row");
    let rest = candidates(&solo.tell(In::Want(9)));
    assert_eq!(rest.len(), 2);
    assert_eq!(solo.machine().wanted, 7, "the rest stays wanted");
    solo.tell(In::Want(0));
    assert_eq!(candidates(&solo.tell(In::Random { token: 1, count: 1 })), []);
}

#[test]
fn what_is_missing_follows_as_nodes_prove_themselves() {
    let mut solo = Solo::first(config());
    assert_eq!(candidates(&solo.tell(In::Want(2))), []);
    let peer = Peer::new(1);
    let outs = solo.tell(peer.asks(Message::Ping { record_seq: 1 }));
    let request = only_request(&outs, Message::RecordRequest);
    assert_eq!(candidates(&solo.tell(peer.shows_record(&request))), [peer.id]);
}

#[test]
fn a_node_is_handed_out_again_after_the_pause_which_failed_dials_double() {
    let peer = Peer::new(1);
    let pause = config().handout_pause;
    let mut solo = knowing(std::slice::from_ref(&peer));
    let answered = |solo: &mut Solo, by: Duration| {
        let (mut all, end) = (Vec::new(), solo.now + by);
        while solo.now < end {
            let mut outs = solo.pass(Duration::from_millis(250));
            all.extend(candidates(&outs));
            while let Some(request) = requests(&outs).first() {
                let answer = match request.packet.message {
                    Message::FindNode { .. } => peer.neighbors(request, &[]),
                    _ => peer.answers(request, Message::Pong { record_seq: 1, observed: solo.me.addr }),
                };
                outs = solo.tell(answer);
                all.extend(candidates(&outs));
            }
        }
        all
    };
    assert_eq!(candidates(&solo.tell(In::Want(1))), [peer.id]);
    solo.tell(In::Outcome { id: peer.id, ok: false });
    assert_eq!(candidates(&solo.tell(In::Want(1))), []);
    assert_eq!(answered(&mut solo, pause - Duration::from_secs(1)), []);
    assert_eq!(answered(&mut solo, Duration::from_secs(2)), [peer.id]);
    solo.tell(In::Want(1));
    assert_eq!(answered(&mut solo, pause * 2 - Duration::from_secs(2)), []);
    assert_eq!(answered(&mut solo, Duration::from_secs(3)), [peer.id]);
}

#[test]
fn only_live_nodes_with_a_dialable_tcp_address_are_handed_out() {
    let addr = |last| SocketAddr::from(([20, 1, last, 1], 30303));
    let udp_only = RecordDraft::new(1, network()).address(address::from_udp(addr(1)));
    let udp_only = Peer::with(1, addr(1), udp_only);
    // A node of the open network that wants us to connect into our own.
    let sly = RecordDraft::new(1, network())
        .address("/ip4/127.0.0.1/tcp/22".parse().expect("multiaddr"))
        .address(address::from_udp(addr(2)));
    let sly = Peer::with(2, addr(2), sly);
    let hearsay = Peer::new(3);
    let mut solo = Solo::knowing(config(), &[&udp_only, &sly]);
    let contact = Contact::new(hearsay.addr, hearsay.record.clone());
    solo.driver.machine_mut().table.heard_of(contact, Origin::Chosen);
    assert_eq!(solo.machine().table.len(), 3);
    assert_eq!(candidates(&solo.tell(In::Want(5))), []);
}

#[test]
fn hearsay_is_checked_at_once_while_the_dialer_waits() {
    let (teller, told) = (Peer::new(1), Peer::new(2));
    let mut solo = knowing(std::slice::from_ref(&teller));
    solo.tell(In::Want(2));
    let outs = solo.tell(In::Lookup { token: 1, target: told.id });
    let find = finds(&outs).pop().expect("a query");
    let outs = solo.tell(teller.neighbors(&find, &[&told]));
    // The lookup comes to it, which is a check as good as a ping.
    let asked = requests(&outs);
    assert_eq!(asked.iter().map(|request| request.addr).collect::<Vec<_>>(), [told.addr]);
    let outs = solo.tell(told.neighbors(&asked[0], &[]));
    assert_eq!(candidates(&outs), [told.id]);
    // Told of outside of a lookup, it is pinged.
    solo.tell(In::Want(1));
    let another = Peer::new(3);
    let draft = RecordDraft::new(1, network()).address(address::from_udp(another.addr));
    let another = Peer::with(3, another.addr, draft.address(address::from_tcp(another.addr)));
    let outs = solo.tell(In::Offer { source: Source::Exchange, records: vec![another.record.clone()] });
    let ping = only_request(&outs, Message::Ping { record_seq: 1 });
    let outs = solo.tell(another.answers(&ping, Message::Pong { record_seq: 1, observed: solo.me.addr }));
    assert_eq!(candidates(&outs), [another.id]);
}

#[test]
fn a_lookup_asks_the_nearest_three_at_a_time_and_gives_the_nearest() {
    let peers = peers(12);
    let mut solo = knowing(&peers);
    let hidden = Peer::new(40);
    let outs = solo.tell(In::Lookup { token: 5, target: hidden.id });
    let mut waiting = finds(&outs);
    assert_eq!(waiting.len(), 3);
    let mut result = None;
    while let Some(request) = waiting.pop() {
        let from =
            if request.to == hidden.id { &hidden } else { peers.iter().find(|p| p.id == request.to).expect("known") };
        let outs = solo.tell(from.neighbors(&request, &[&hidden]));
        waiting.extend(finds(&outs));
        assert!(waiting.len() <= 3);
        result = result.or(answer(&outs, 5));
    }
    let result = result.expect("the lookup ended");
    assert_eq!(result.first(), Some(&hidden.id));
    let distance = |id: &NodeId| Key::of(*id).distance(&Key::of(hidden.id));
    assert!(result.is_sorted_by_key(distance));
    assert_eq!(result.len(), 13);
    assert_eq!(solo.machine().under_way(), (0, 0));
}

#[test]
fn a_lookup_outlives_nodes_that_do_not_answer_and_leaves_them_out() {
    let peers = peers(6);
    let mut solo = knowing(&peers);
    solo.tell(In::Lookup { token: 5, target: Peer::new(40).id });
    let outs = solo.pass(Duration::from_secs(5));
    assert_eq!(answer(&outs, 5), Some(vec![]));
    let mut lonely = Solo::first(config());
    assert_eq!(answer(&lonely.tell(In::Lookup { token: 1, target: peers[0].id }), 1), Some(vec![]));
}

#[test]
fn a_lookup_too_many_is_answered_from_the_table() {
    let peers = peers(4);
    let mut solo = Solo::knowing(Config { max_lookups: 2, ..config() }, &peers.iter().collect::<Vec<_>>());
    for token in 0..2 {
        assert_eq!(answer(&solo.tell(In::Lookup { token, target: Peer::new(40).id }), token), None);
    }
    let outs = solo.tell(In::Lookup { token: 2, target: Peer::new(40).id });
    assert_eq!(answer(&outs, 2).map(|ids| ids.len()), Some(4));
    assert_eq!(drops(&outs), [DropReason::TooManyLookups]);
}

#[test]
fn a_resolve_asks_the_node_itself_and_then_the_network() {
    let (peer, other) = (Peer::new(1), Peer::new(2));
    let mut solo = Solo::knowing(config(), &[&peer, &other]);
    let outs = solo.tell(In::Resolve { token: 1, id: peer.id });
    let request = only_request(&outs, Message::RecordRequest);
    assert_eq!(answer(&solo.tell(peer.shows_record(&request)), 1), Some(vec![peer.id]));

    let outs = solo.tell(In::Resolve { token: 2, id: peer.id });
    only_request(&outs, Message::RecordRequest);
    let newer = Peer::at(1, SocketAddr::from(([20, 77, 1, 1], 30303)), 2);
    let mut outs = solo.pass(Duration::from_millis(501));
    let mut found = None;
    for _ in 0..20 {
        for request in finds(&outs).iter().filter(|request| request.to == other.id) {
            found = found.or(answer(&solo.tell(other.neighbors(request, &[&newer])), 2));
        }
        outs = solo.pass(Duration::from_millis(501));
        found = found.or_else(|| answer(&outs, 2));
    }
    assert_eq!(found, Some(vec![peer.id]));
    let record = solo.machine().table.get(peer.id).map(|entry| entry.contact.record.seq());
    assert_eq!(record, Some(2), "the newer record was learnt on the way");

    let me = solo.me.id;
    assert_eq!(answer(&solo.tell(In::Resolve { token: 3, id: me }), 3), Some(vec![me]));
    let mut lonely = Solo::first(config());
    assert_eq!(answer(&lonely.tell(In::Resolve { token: 4, id: peer.id }), 4), Some(vec![]));
}

#[test]
fn random_and_closest_come_from_the_table_at_once() {
    let peers = peers(6);
    let mut solo = knowing(&peers);
    let mut random = answer(&solo.tell(In::Random { token: 1, count: 4 }), 1).expect("at once");
    random.sort();
    random.dedup();
    assert_eq!(random.len(), 4);
    let target = peers[2].id;
    let closest = answer(&solo.tell(In::Closest { token: 2, target, count: 2 }), 2).expect("at once");
    assert_eq!((closest.len(), closest[0]), (2, target));
}

#[test]
fn a_new_record_of_ours_is_what_others_get() {
    let mut solo = Solo::first(config());
    let newer = Peer::at(9_999, solo.me.addr, 50);
    solo.tell(In::LocalChanged(newer.record.clone()));
    solo.tell(In::LocalChanged(Peer::new(1).record));
    let outs = solo.tell(Peer::new(1).asks(Message::RecordRequest));
    let record = newer.record.into_inner();
    assert_eq!(sent(&outs)[0].packet.message, Message::RecordResponse { record });
}

#[test]
fn a_node_is_not_handed_out_to_be_dialled_at_another_host_than_the_one_that_answered() {
    let addr = SocketAddr::from(([20, 1, 1, 1], 30303));
    // Every node that learns of it would connect to somebody else's ssh.
    let sly = RecordDraft::new(1, network())
        .address("/ip4/198.51.100.7/tcp/22".parse().expect("multiaddr"))
        .address(address::from_udp(addr));
    let sly = Peer::with(1, addr, sly);
    let mut solo = Solo::knowing(config(), &[&sly]);
    let ping = solo.check_of(&sly);
    solo.tell(sly.answers(&ping, Message::Pong { record_seq: 1, observed: addr }));
    assert_eq!(candidates(&solo.tell(In::Want(5))), []);
}

#[test]
fn a_node_is_dialled_at_the_host_that_answered_and_a_local_one_at_the_other_addresses_of_its_computer_too() {
    let address = |text: &str| text.parse::<peerage_wire::Multiaddr>().expect("multiaddr");
    let cases = [
        ("20.1.1.1", &["30.1.1.1", "20.1.1.1", "10.0.0.1"][..], &["20.1.1.1:30303"][..]),
        (
            "192.168.1.5",
            &["20.1.1.1", "172.17.0.1", "192.168.1.5", "127.0.0.1"],
            &["192.168.1.5:30303", "172.17.0.1:30303"],
        ),
        ("127.0.0.1", &["192.168.1.5"], &["192.168.1.5:30303"]),
    ];
    for (answered, named, dialled) in cases {
        let addr = SocketAddr::new(answered.parse().expect("ip"), 30303);
        let draft = RecordDraft::new(1, network()).address(address::from_udp(addr));
        let draft = named.iter().fold(draft, |draft, ip| draft.address(address(&format!("/ip4/{ip}/tcp/30303"))));
        let mut solo = Solo::knowing(config(), &[&Peer::with(1, addr, draft)]);
        let sockets = solo.tell(In::Want(1)).into_iter().find_map(|out| match out {
            Out::Candidates(found) => found.into_iter().next().map(|(_, sockets)| sockets),
            _ => None,
        });
        let sockets: Vec<String> = sockets.expect("handed out").iter().map(ToString::to_string).collect();
        assert_eq!(sockets, dialled, "{answered}");
    }
}
