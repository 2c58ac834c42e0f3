//! The root actor from outside: what geth's p2p.Server promises, over the in-memory network.

use std::time::Duration;

use crate::net::{Net, ip};
use peerage_mailbox::RecvError;
use peerage_peer_session::handshake::Direction;
use peerage_peer_session::{EndedBy, NetworkSecret};
use peerage_server::nodedb::NodeDb;
use peerage_server::{AddStaticFailed, Banned, Config, Event, PeerAddress, Status};
use peerage_wire::{Admission, DisconnectReason, ForkId, NodeId};

const SECOND: Duration = Duration::from_secs(1);

fn only(ids: &[NodeId]) -> Admission {
    Admission { only: Some(ids.iter().copied().collect()), ..Admission::open() }
}

/// geth TestServerListen, TestServerDial.
#[tokio::test(start_paused = true)]
async fn a_static_peer_is_dialled_and_both_ends_know_who_is_who() {
    let net = Net::new();
    let one = net.node(1, |args| args.config.agent = "first/1".into()).await;
    let two = net.node(2, |args| args.statics = vec![one.address.clone()]).await;
    let [dialled] = &two.until_peers(1).await[..] else { panic!("one peer") };
    let [accepted] = &one.until_peers(1).await[..] else { panic!("one peer") };
    assert_eq!((dialled.id, dialled.direction, dialled.is_static), (one.id, Direction::Outbound, true));
    assert_eq!((dialled.agent.as_str(), dialled.address.ip()), ("first/1", ip(1)));
    assert_eq!((accepted.id, accepted.direction, accepted.is_static), (two.id, Direction::Inbound, false));
    for trusted in [true, false] {
        match trusted {
            true => one.server.add_trusted(two.id),
            false => one.server.remove_trusted(two.id),
        }
        assert_eq!(one.until_peers(1).await[0].is_trusted, trusted, "as of now");
    }
    assert_eq!(one.server.peer_count().await, Ok(1));
}

/// geth TestServerRemovePeerDisconnect.
#[tokio::test(start_paused = true)]
async fn a_removed_peer_is_gone_when_remove_returns_and_is_not_dialled_again() {
    let net = Net::new();
    let one = net.node(1, |_| {}).await;
    let two = net.node(2, |args| args.statics = vec![one.address.clone()]).await;
    two.until_peers(1).await;
    two.happened();
    two.server.remove(one.id).await.expect("running");
    assert_eq!(two.server.peer_count().await, Ok(0));
    let happened = two.happened();
    assert!(
        matches!(&happened[..], [Event::PeerDown { id, reason: DisconnectReason::Requested, by: EndedBy::Us, .. }] if *id == one.id),
        "{happened:?}"
    );
    assert_eq!(two.peers_after(60 * SECOND).await, 0);
    assert_eq!(two.server.remove(one.id).await, Ok(()), "who is no peer is gone already");
    assert_eq!(two.server.add_static(two.address.clone()).await, Err(AddStaticFailed::OwnId));
    // As a static peer that is only disconnected comes back.
    two.server.add_static(one.address.clone()).await.expect("admitted");
    two.until_peers(1).await;
    two.server.disconnect(one.id);
    two.until_peers(0).await;
    two.until_peers(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_changes_drops_live_peers_and_keeps_them_away() {
    let net = Net::new();
    let one = net.node(1, |_| {}).await;
    let two = net.node(2, |args| args.statics = vec![one.address.clone()]).await;
    two.until_peers(1).await;
    one.server.set_admission(only(&[])).expect("small");
    one.until_peers(0).await;
    let told = two.happened().pop();
    assert!(
        matches!(told, Some(Event::PeerDown { reason: DisconnectReason::NotAllowed, by: EndedBy::Peer, .. })),
        "{told:?}"
    );
    assert_eq!(one.peers_after(60 * SECOND).await, 0);
    one.server.set_admission(only(&[two.id])).expect("small");
    one.until_peers(1).await;
    let denied = Admission { denied: vec!["20.0.2.0/24".parse().expect("network")], ..Admission::open() };
    one.server.set_admission(denied).expect("small");
    one.until_peers(0).await;
    assert_eq!(one.peers_after(60 * SECOND).await, 0);
    one.server.set_admission(Admission::open()).expect("small");
    one.until_peers(1).await;
    let many = Admission { denied: vec!["10.0.0.0/8".parse().expect("network"); 513], ..Admission::open() };
    assert!(one.server.set_admission(many).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_ban_holds_for_an_identity_and_for_a_network_until_it_is_over_or_taken_back() {
    let net = Net::new();
    let one = net.node(1, |_| {}).await;
    let two = net.node(2, |args| args.statics = vec![one.address.clone()]).await;
    let network = Banned::Network("20.0.2.0/24".parse().expect("network"));
    for banned in [Banned::Id(two.id), network] {
        one.until_peers(1).await;
        one.server.ban(banned, 30 * SECOND);
        one.until_peers(0).await;
        assert_eq!(one.peers_after(20 * SECOND).await, 0, "{banned}");
        let bans = one.server.bans().await.expect("running");
        assert!(matches!(&bans[..], [(what, left)] if *what == banned && *left <= 10 * SECOND), "{bans:?}");
    }
    one.until_peers(1).await;
    one.server.ban(network, 3600 * SECOND);
    one.until_peers(0).await;
    one.server.unban(network);
    one.until_peers(1).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_move_from_one_fork_to_the_next_together_and_leave_those_behind_who_do_not() {
    let net = Net::new();
    let one = net.node(1, |_| {}).await;
    let two = net.node(2, |args| args.statics = vec![one.address.clone()]).await;
    let three = net.node(3, |args| args.statics = vec![one.address.clone()]).await;
    one.until_peers(2).await;
    let next = ForkId::new(b"next").expect("short");
    for node in [&one, &two] {
        node.server.set_forks(next, vec![ForkId::default()]).expect("one");
    }
    assert_eq!(one.peers_after(10 * SECOND).await, 2, "the old fork is still taken");
    // A session from before shows the old fork; a new one the new.
    two.server.disconnect(one.id);
    two.until_peers(0).await;
    one.until_peers(2).await;
    one.server.set_forks(next, Vec::new()).expect("none");
    assert_eq!(one.until_peers(1).await[0].id, two.id);
    let left = three.happened().pop();
    assert!(matches!(left, Some(Event::PeerDown { reason: DisconnectReason::WrongFork, .. })), "{left:?}");
    assert_eq!(three.peers_after(60 * SECOND).await, 0);
    assert!(one.server.set_forks(next, vec![next; 17]).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_is_too_slow_loses_the_oldest_events_and_is_told_how_many() {
    let net = Net::new();
    let one = net.node(1, |_| {}).await;
    let two = net.node(2, |args| args.statics = vec![one.address.clone()]).await;
    let mut slow = two.server.events(2).await.expect("running");
    for _ in 0..3 {
        two.until_peers(1).await;
        two.server.disconnect(one.id);
        two.until_peers(0).await;
    }
    assert!(matches!(slow.recv().await, Err(RecvError::Lagged(missed)) if missed >= 3));
    assert!(matches!(slow.recv().await, Ok(Event::PeerUp { .. })));
    assert!(matches!(slow.recv().await, Ok(Event::PeerDown { .. })));
}

/// go-ethereum issues 19684, 21878: a failing accept that is tried again at once takes a whole core.
#[tokio::test(start_paused = true)]
async fn a_listener_whose_accepts_fail_pauses_before_each_new_try_and_goes_on() {
    let net = Net::new();
    net.network.fail_accepts((ip(1), crate::net::PORT).into(), 10);
    let one = net.node(1, |_| {}).await;
    let began = net.clock.now();
    let two = net.node(2, |args| args.statics = vec![one.address.clone()]).await;
    two.until_peers(1).await;
    let waited = net.clock.now().since(began);
    assert!(waited >= 2 * SECOND && waited < 4 * SECOND, "ten pauses of 200 ms: {waited:?}");
}

/// avalanchego TestNewNetwork, TestIngressConnCount.
#[tokio::test(start_paused = true)]
async fn three_nodes_mesh_and_each_knows_who_came_to_it() {
    let net = Net::new();
    let one = net.node(1, |_| {}).await;
    let two = net.node(2, |args| args.statics = vec![one.address.clone()]).await;
    let three = net.node(3, |args| args.statics = vec![one.address.clone(), two.address.clone()]).await;
    for (node, inbound) in [(&one, 2), (&two, 1), (&three, 0)] {
        let peers = node.until_peers(2).await;
        assert_eq!(peers.iter().filter(|peer| peer.direction == Direction::Inbound).count(), inbound);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_neither_dials_nor_listens_says_so_and_one_that_does_not_listen_cannot_be_dialled() {
    let net = Net::new();
    let deaf = net.node(1, |args| args.config.listening_on = false).await;
    assert_eq!(deaf.server.local().await.expect("running").addresses, []);
    let two = net
        .node(2, |args| {
            args.statics = vec![deaf.address.clone()];
            args.config.dialing_on = false;
        })
        .await;
    assert_eq!(two.peers_after(60 * SECOND).await, 0, "one cannot be dialled, two does not dial");
    deaf.server.add_static(two.address.clone()).await.expect("admitted");
    deaf.until_peers(1).await;
    let neither = net.node(3, |args| (args.config.listening_on, args.config.dialing_on) = (false, false)).await;
    let health = neither.server.health().await.expect("running");
    assert_eq!(health.status, Status::Degraded);
    assert!(health.reasons[0].contains("neither dials nor listens"), "{health:?}");
}

#[tokio::test(start_paused = true)]
async fn a_network_with_a_secret_is_closed_to_who_has_none_or_another() {
    let net = Net::new();
    let secret = |text: &str| Some(NetworkSecret::new(text.as_bytes()).expect("long"));
    let one = net.node(1, |args| args.secret = secret("correct horse battery staple")).await;
    let others = [secret("correct horse battery staple"), secret("correct horse battery stable"), None];
    for (n, (secret, peers)) in (2..).zip(others.into_iter().zip([1, 0, 0])) {
        let statics = vec![one.address.clone()];
        let node = net.node(n, |args| (args.secret, args.statics) = (secret, statics)).await;
        assert_eq!(node.peers_after(20 * SECOND).await, peers, "node {n}");
    }
    assert_eq!(one.server.peer_count().await, Ok(1));
}

/// geth's `EnableMsgEvents`.
#[tokio::test(start_paused = true)]
async fn messages_are_told_to_subscribers_if_somebody_asked_for_it() {
    let net = Net::new();
    let one = net.node(1, |_| {}).await;
    let two = net
        .node(2, |args| {
            args.statics = vec![one.address.clone()];
            args.config.message_events = true;
        })
        .await;
    two.until_peers(1).await;
    tokio::time::sleep(SECOND).await;
    let (mut sent, mut received) = (0, 0);
    for event in two.happened() {
        match event {
            Event::MsgSent { id, protocol, .. } if id == one.id && &*protocol == "gossip" => sent += 1,
            Event::MsgReceived { id, protocol, size, .. } if id == one.id && &*protocol == "gossip" && size > 0 => {
                received += 1;
            }
            Event::PeerUp { .. } => {}
            event => panic!("{event:?}"),
        }
    }
    assert!(sent > 0 && received > 0, "each end says its topics: {sent} sent, {received} received");
    assert!(matches!(&one.happened()[..], [Event::PeerUp { .. }]), "nobody asked here");
}

/// reth and Bitcoin Core remember good peers; geth does not (its issue 2766).
#[tokio::test(start_paused = true)]
async fn a_restarted_node_dials_its_anchors_first_and_keeps_its_bans() {
    let net = Net::new();
    let one = net.node(1, |_| {}).await;
    let banned = Banned::Id(peerage_wire::Keypair::from_seed([9; 32]).id());
    let db = NodeDb::memory(peerage_server::nodedb::Config::recommended());
    let two = net
        .node(2, |args| {
            args.bootnodes = vec![one.address.clone()];
            args.db = db.clone();
        })
        .await;
    two.until_peers(1).await;
    two.server.ban(banned, 3600 * SECOND);
    tokio::time::sleep(400 * SECOND).await;
    assert_eq!(db.anchors(net.clock.now()).iter().map(|anchor| anchor.id()).collect::<Vec<_>>(), [one.id]);
    two.server.shutdown().await;
    // Nobody tells it of the other node this time, and there is no discovery.
    let again = net.node(2, |args| args.db = db.clone()).await;
    assert_eq!(again.until_peers(1).await[0].id, one.id);
    let bans = again.server.bans().await.expect("running");
    assert!(matches!(&bans[..], [(what, left)] if *what == banned && *left <= 3200 * SECOND), "{bans:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_without_peers_dials_a_bootnode_itself_and_says_why_it_has_none() {
    let net = Net::new();
    let absent = PeerAddress { id: NodeId::from_bytes([7; 32]), addresses: vec![(ip(7), 1).into()], hosts: Vec::new() };
    let one = net.node(1, |_| {}).await;
    let bootnodes = vec![absent, one.address.clone()];
    one.server.shutdown().await;
    let two = net.node(2, |args| args.bootnodes = bootnodes).await;
    assert_eq!(two.peers_after(30 * SECOND).await, 0);
    let health = two.server.health().await.expect("running");
    assert!(health.reasons.iter().any(|reason| reason.contains("did not answer")), "{health:?}");
    net.node(1, |_| {}).await;
    two.until_peers(1).await;
    assert_eq!(two.server.health().await.expect("running").status, Status::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_does_not_add_up_is_refused_and_leaves_nothing_behind() {
    let net = Net::new();
    let mut args = net.args(1);
    args.config = Config { max_peers: 10, dial_ratio: 0, ..args.config };
    assert!(peerage_server::start(args).await.is_err());
    net.node(1, |_| {}).await.until_peers(0).await;
}
