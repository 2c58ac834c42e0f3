//! A node's own address, in virtual time: what its user says, what others see, and whether they come.

use std::net::SocketAddr;
use std::time::Duration;

use peerage_server::discovery::external::{Nat, Origin};
use peerage_server::{Config, Event};

use crate::net::{Net, PORT, ip};

#[tokio::test(start_paused = true)]
async fn what_the_user_says_is_in_the_first_record_and_in_every_later_one() {
    let net = Net::new();
    let node = net
        .node(1, |args| {
            args.config.external = vec!["203.0.113.9".parse().expect("address")];
            args.config.resign_every = Duration::from_secs(3600);
        })
        .await;
    let first = node.server.local().await.expect("running");
    let expected: [SocketAddr; 2] = [([203, 0, 113, 9], PORT).into(), (ip(1), PORT).into()];
    assert_eq!(first.record.tcp_sockets(), expected);
    assert_eq!((first.external.len(), first.external[0].origin), (1, Origin::Static));
    tokio::time::sleep(Duration::from_secs(3601)).await;
    let later = node.server.local().await.expect("running");
    assert_eq!(later.record.tcp_sockets(), expected);
    assert!(later.record.seq() > first.record.seq());
    node.server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_seen_where_they_are_bound_sign_no_new_record_and_ask_no_gateway() {
    let net = Net::new();
    let mut nodes = Vec::new();
    for number in 1..=6 {
        let bootnodes = nodes.first().map(|first: &crate::net::Node| first.address.clone()).into_iter().collect();
        let config = Config { nat: Nat::Auto, ..Config::recommended() };
        nodes.push(net.node(number, |args| (args.config, args.bootnodes) = (config, bootnodes)).await);
    }
    let mut before = Vec::new();
    for node in &nodes {
        before.push(node.server.local().await.expect("running").record);
    }
    tokio::time::sleep(Duration::from_secs(900)).await;
    for (node, before) in nodes.iter().zip(before) {
        let now = node.server.local().await.expect("running");
        assert_eq!((now.record, now.external), (before, Vec::new()));
        let events = node.events.take(1_000);
        assert!(!events.iter().any(|event| matches!(event, Event::LocalChanged { .. })), "{events:?}");
    }
    for node in nodes {
        node.server.shutdown().await;
    }
}
