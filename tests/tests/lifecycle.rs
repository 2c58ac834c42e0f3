//! What is left when a node did not start, or has stopped: nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage_server::gossip::wire::topics;
use peerage_server::mailbox::Clock;
use peerage_server::peer_session::peerage_wire::frame::Lane;
use peerage_server::transport::{Link, MemoryNetwork, Transport};
use peerage_server::{Args, Config, PeerAddress, StartError, start};
use peerage_tests::attack::{deafened, endpoint};
use peerage_tests::{World, config, ip, keys, topic};
use tokio::runtime::Handle;
use tokio::time::Instant;

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

fn args(transport: Transport, listen: Vec<SocketAddr>, config: Config) -> Args {
    let clock = Clock::simulated(Duration::from_secs(1_700_000_000));
    peerage_tests::args(config, keys(1, 1), transport, listen, clock)
}

/// Both sockets of an address are free again.
async fn is_free(transport: &Transport, at: SocketAddr) -> bool {
    transport.listen(at).await.is_ok() && transport.bind_datagram(at).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_leaves_nothing_behind() {
    let network = MemoryNetwork::new(1, Link::default());
    let transport = network.host(ip(1));
    let [first, second] = [1, 2].map(|port| SocketAddr::new(ip(1), port));
    let base = tasks();

    let taken = transport.listen(second).await.expect("free");
    let error = start(args(transport.clone(), vec![first, second], config(10))).await.expect_err("TCP is taken");
    assert!(matches!(error, StartError::Listen { address, protocol: "TCP", .. } if address == second), "{error}");
    drop(taken);
    assert!(is_free(&transport, first).await && is_free(&transport, second).await);

    let taken = transport.bind_datagram(second).await.expect("free");
    let error = start(args(transport.clone(), vec![first, second], config(10))).await.expect_err("UDP is taken");
    assert!(matches!(error, StartError::Listen { address, protocol: "UDP", .. } if address == second), "{error}");
    drop(taken);
    assert!(is_free(&transport, first).await && is_free(&transport, second).await);

    let mut bad = config(10);
    bad.session.max_message = 1 << 20;
    let error = start(args(transport.clone(), vec![first], bad)).await.expect_err("it does not add up");
    assert!(matches!(error, StartError::Config(_)), "{error}");
    // Of two addresses only the first can be had.
    let elsewhere = SocketAddr::new(ip(2), 1);
    let error = start(args(transport.clone(), vec![first, elsewhere], config(10))).await.expect_err("not its own");
    assert!(matches!(error, StartError::Listen { address, .. } if address == elsewhere), "{error}");
    assert!(is_free(&transport, first).await);

    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(tasks(), base, "tasks of nodes that did not start");
    let server = start(args(transport.clone(), vec![first, second], config(10))).await.expect("all is free");
    server.shutdown().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(tasks(), base, "tasks of a node that was alone");
    assert!(is_free(&transport, first).await && is_free(&transport, second).await);
}

/// The node has sessions, one with a peer that does not read, dials and inbound set-ups that hang.
#[tokio::test(start_paused = true)]
async fn a_shutdown_in_the_middle_of_everything_is_bounded_and_leaves_nothing() {
    let base = tasks();
    let mut world = World::start(41, 4, config(20)).await;
    world.until_peers(3, Duration::from_secs(60)).await;
    let address = world.nodes[1].address.clone();

    // A peer that subscribes, and then never reads again.
    let deaf = Arc::new(AtomicBool::new(false));
    let clock = world.clock;
    let stream = world.network.host(ip(50)).connect(address.addresses[0]).await.expect("it listens");
    let dialled = endpoint(&keys(41, 50), clock).dial(deafened(stream, deaf.clone()), address.id).await;
    let peer = dialled.expect("there is a place");
    let gossip = peer.channel("gossip").expect("both speak it");
    peer.send(gossip, Lane::Control, topics(false, [&topic()])).await.expect("room");
    tokio::time::sleep(Duration::from_secs(2)).await;
    deaf.store(true, Ordering::Release);
    for n in 0..8 {
        world.publish(1, Bytes::from(vec![n; 1 << 20])).await;
    }
    // Hosts that take connections and never answer, to which it dials; and those that connect and say nothing.
    let mut silent = Vec::new();
    for n in 60..70 {
        let at = SocketAddr::new(ip(n), 1);
        silent.push(world.network.host(ip(n)).listen(at).await.expect("free"));
        world.nodes[1]
            .server
            .add_static(PeerAddress { id: keys(41, n).id(), addresses: vec![at], hosts: Vec::new() })
            .await
            .expect("admitted");
    }
    let mut strangers = Vec::new();
    for n in 70..90 {
        strangers.push(world.network.host(ip(n)).connect(address.addresses[0]).await.expect("it listens"));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;

    let connected = world.nodes[1].server.peers().await.expect("running");
    assert!(connected.iter().any(|peer| peer.id == keys(41, 50).id()), "the one that does not read is a peer");
    let gauge = |name| world.nodes[1].counts.gauge(name).is_some_and(|value| value > 0.0);
    assert!(gauge("peerage_inbound_slots{slots=open}"), "set-ups are in flight");
    assert!(gauge("peerage_dialer_dialing{kind=static}"), "and dials");
    let start = Instant::now();
    world.nodes[1].server.shutdown().await;
    let took = start.elapsed();
    let limit = world.config.drain_timeout + Duration::from_secs(2);
    assert!(took <= limit, "{took:?} of {limit:?}");
    println!("the shutdown took {took:?} of {limit:?}");
    assert!(is_free(&world.network.host(ip(1)), address.addresses[0]).await, "its sockets are free");

    drop((peer, silent, strangers));
    world.finish().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(tasks(), base, "tasks that outlive their node");
}
