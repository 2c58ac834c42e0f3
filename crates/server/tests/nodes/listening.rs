//! The listener as its visitors see it: over the in-memory network in virtual time, and over sockets.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::net;
use crate::support::{Node, config, node, until, until_closed};
use peerage_server::dialer::peerage_machine::Quota;
use peerage_server::mailbox::Port;
use peerage_server::peer_session::handshake::{Direction, HandshakeError};
use peerage_server::transport::{Link, MemoryNetwork, Stream, Transport};
use peerage_server::wire::handshake::MAGIC;
use peerage_server::wire::{Admission, DisconnectReason};
use peerage_server::{Args, Config, Door, DoorError, ListenerConfig, OpenDoorFailed, SetupFailed, StartError, Visitor};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::Instant;

/// The host of the listener in most tests.
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(20, 0, 0, 1));

fn network() -> MemoryNetwork {
    MemoryNetwork::new(1, Link { latency: Duration::from_millis(20), jitter: Duration::ZERO, ..Link::default() })
}

/// The nth host of others, each in a site of its own.
fn other(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(21, high, low, 1).into()
}

async fn listener(network: &MemoryNetwork, config: Config) -> Node {
    node(1, config, network.host(HOME), HOME, Vec::new()).await
}

async fn caller(network: &MemoryNetwork, n: u16, to: &Node) -> Stream {
    network.host(other(n)).connect(to.at).await.expect("listening")
}

/// Visitors that a door took.
type Taken = Arc<Mutex<Vec<Visitor>>>;

fn door(name: &str, prefix: &[u8], limit: usize) -> (Door, Taken) {
    let taken = Taken::default();
    let visitors = taken.clone();
    let take = Port::from_fn(move |visitor| visitors.lock().expect("no panic").push(visitor));
    (Door { name: name.into(), prefix: prefix.into(), limit, take }, taken)
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_too_little_is_closed_after_a_second() {
    let network = network();
    let node = listener(&network, config()).await;
    let halves: [&[u8]; 4] = [b"", b"P", &MAGIC, &[&MAGIC[..], &[7; 31]].concat()];
    for (n, half) in halves.into_iter().enumerate() {
        let start = Instant::now();
        let mut stream = caller(&network, n as u16, &node).await;
        let accepted = start.elapsed() - Duration::from_millis(20);
        for byte in half {
            stream.write_all(&[*byte]).await.expect("open");
            // A byte now and then does not buy more time.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(until_closed(&mut stream).await, 0, "nothing is said to strangers");
        let lasted = start.elapsed() - accepted;
        assert!((1000..1100).contains(&lasted.as_millis()), "{lasted:?}");
        assert_eq!(node.counts.refused("first_bytes_timeout"), n as u64 + 1);
    }
    until(async || node.counts.slots() == (0.0, 0.0)).await;
    node.server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn unknown_first_bytes_are_refused_at_once_and_counted() {
    let network = network();
    let node = listener(&network, config()).await;
    for (n, first) in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01", b"PRH", b"\0"].into_iter().enumerate() {
        let mut stream = caller(&network, n as u16, &node).await;
        let start = Instant::now();
        stream.write_all(first).await.expect("open");
        assert_eq!(until_closed(&mut stream).await, 0);
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
        assert_eq!(node.counts.refused("unknown_protocol"), n as u64 + 1);
    }
    drop(caller(&network, 9, &node).await);
    until(async || node.counts.refused("closed") == 1).await;
    until(async || node.counts.slots() == (0.0, 0.0)).await;
    node.server.shutdown().await;
}

/// geth TestServerInboundThrottle.
#[tokio::test(start_paused = true)]
async fn a_host_over_its_limit_is_closed_before_a_byte_is_read() {
    let network = network();
    let per_host = Quota::new(1, Duration::from_secs(30));
    let node = listener(
        &network,
        Config { listener: ListenerConfig { per_host, ..ListenerConfig::recommended() }, ..config() },
    )
    .await;
    let _first = caller(&network, 1, &node).await;
    let start = Instant::now();
    assert_eq!(until_closed(&mut caller(&network, 1, &node).await).await, 0);
    assert!(start.elapsed() < Duration::from_millis(100));
    assert_eq!(node.counts.refused("host_limit"), 1);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let start = Instant::now();
    until_closed(&mut caller(&network, 1, &node).await).await;
    assert!(start.elapsed() >= Duration::from_secs(1), "it had its second");
    node.server.shutdown().await;
}

/// avalanchego TestInboundConnThrottlerAccept.
#[tokio::test(start_paused = true)]
async fn connections_beyond_the_ceiling_wait_and_none_is_refused_for_it() {
    let network = network();
    let node = listener(&network, config()).await;
    let start = Instant::now();
    let mut streams = Vec::new();
    for n in 0..100 {
        let (out, at) = (network.host(other(n)), node.at);
        streams.push(tokio::spawn(async move {
            for _ in 0..6 {
                let mut stream = out.connect(at).await.expect("the backlog has room");
                stream.write_all(b"?").await.expect("open");
                until_closed(&mut stream).await;
            }
        }));
    }
    for stream in streams {
        stream.await.expect("no panic");
    }
    assert_eq!(node.counts.refused("unknown_protocol"), 600, "each had its turn");
    let took = start.elapsed();
    assert!((2000..3000).contains(&took.as_millis()), "64 at once, then 256 a second: {took:?}");
    node.server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_set_while_the_node_runs_refuses_and_closes() {
    let network = network();
    let node = listener(&network, config()).await;
    let mut before = caller(&network, 1, &node).await;
    let denied = vec!["21.0.1.0/24".parse().expect("network")];
    tokio::time::sleep(Duration::from_millis(100)).await;
    node.server.set_admission(Admission { denied, ..Admission::open() }).expect("small");
    let start = Instant::now();
    until_closed(&mut before).await;
    until_closed(&mut caller(&network, 1, &node).await).await;
    assert!(start.elapsed() < Duration::from_millis(200));
    assert_eq!(node.counts.refused("not_allowed"), 2);
    node.server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_door_gets_its_connections_whole_and_its_slots_come_back() {
    let network = network();
    let (http, taken) = door("http", b"GET ", 2);
    let node = node(1, config(), network.host(HOME), HOME, vec![http]).await;
    let mut streams = Vec::new();
    for n in 0..3 {
        let mut stream = caller(&network, n, &node).await;
        for part in [&b"G"[..], b"ET", b" /page\n"] {
            stream.write_all(part).await.expect("open");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        streams.push(stream);
    }
    assert_eq!(until_closed(&mut streams[2]).await, 0);
    assert_eq!(node.counts.refused("door_full"), 1);
    assert_eq!(node.counts.slots(), (2.0, 0.0));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(node.counts.slots(), (2.0, 0.0), "how long they stay is the door's to say");

    let [first, second]: [Visitor; 2] =
        std::mem::take(&mut *taken.lock().expect("no panic")).try_into().expect("two were taken");
    assert_eq!(first.address().ip(), other(0));
    let mut first = first.admitted();
    until(async || node.counts.slots() == (1.0, 0.0)).await;
    drop(second);
    until(async || node.counts.slots() == (0.0, 0.0)).await;
    assert_eq!(until_closed(&mut streams[1]).await, 0);
    let mut request = [0; 10];
    first.read_exact(&mut request).await.expect("all of it");
    assert_eq!(&request, b"GET /page\n");
    node.server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn doors_open_and_close_while_the_node_runs() {
    let network = network();
    let node = listener(&network, config()).await;
    let (http, taken) = door("http", b"GET ", 10);
    node.server.open_door(http).await.expect("free");
    let (again, _) = door("web", b"GET /", 10);
    let error = node.server.open_door(again).await.expect_err("ambiguous");
    assert!(matches!(error, OpenDoorFailed::Refused(DoorError::Ambiguous { .. })), "{error}");
    caller(&network, 1, &node).await.write_all(b"GET /").await.expect("open");
    until(async || taken.lock().expect("no panic").len() == 1).await;
    node.server.close_door("http");
    let mut late = caller(&network, 2, &node).await;
    late.write_all(b"GET /").await.expect("open");
    until_closed(&mut late).await;
    assert_eq!(node.counts.refused("unknown_protocol"), 1);
    node.server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_door_that_cannot_be_keeps_the_node_from_starting() {
    let (bad, _) = door("us", b"PRG", 10);
    let clock = peerage_server::mailbox::Clock::simulated(Duration::from_secs(1_700_000_000));
    let args = Args { doors: vec![bad], ..net::args(1, (HOME, 1).into(), network().host(HOME), clock) };
    let error = peerage_server::start(args).await.expect_err("ambiguous");
    assert!(matches!(&error, StartError::Config(sum) if sum.contains("`us`")), "{error}");
}

/// 50 addresses open 2,000 connections and say nothing; peers get in all the same.
#[tokio::test(start_paused = true)]
async fn peers_get_in_while_silent_connections_fill_every_slot() {
    let network = network();
    let slots = ListenerConfig { slots: 40, reserved: 4, ..ListenerConfig::recommended() };
    let target = listener(&network, Config { listener: slots, ..config() }).await;
    let flood = {
        let (network, at) = (network.clone(), target.at);
        tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            for n in 0..2_000u16 {
                let attacker = network.host(other(100 + n % 50));
                open.spawn(async move { attacker.connect(at).await });
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            open.join_all().await
        })
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut peers = Vec::new();
    for n in 2..12 {
        let ip = other(u16::from(n));
        let peer = node(n, config(), network.host(ip), ip, Vec::new()).await;
        peer.server.add_static(target.address()).await.expect("admitted");
        peer.until_peers(1).await;
        peers.push(peer);
        assert!(target.counts.slots().0 <= 36.0);
    }
    let open = flood.await.expect("no panic");
    for reason in ["host_limit", "evicted"] {
        assert!(target.counts.refused(reason) > 0, "the flood was one: {reason}");
    }
    drop(open);
    assert_eq!(target.peers().await, 10);
    until(async || target.counts.slots() == (0.0, 0.0)).await;
    target.server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_static_peers_address_has_a_reserved_slot() {
    let network = network();
    let target = listener(&network, config()).await;
    let ip = other(2);
    let peer = node(2, config(), network.host(ip), ip, Vec::new()).await;
    target.server.add_static(peer.address()).await.expect("admitted");
    target.until_peers(1).await;
    let mut stream = caller(&network, 2, &target).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(target.counts.slots(), (0.0, 1.0));
    target.server.remove_static(peer.id);
    until_closed(&mut stream).await;
    let _stream = caller(&network, 2, &target).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(target.counts.slots(), (1.0, 0.0));
    target.server.shutdown().await;
}

#[cfg(feature = "fault-injection")]
#[tokio::test(start_paused = true)]
async fn a_listener_that_was_restarted_has_its_doors_and_all_its_slots() {
    let network = network();
    let target = listener(&network, config()).await;
    let (http, taken) = door("http", b"GET ", 10);
    target.server.open_door(http).await.expect("free");
    let mut cut_off = caller(&network, 1, &target).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    target.server.inject_panic(peerage_server::Service::Listener);
    let start = Instant::now();
    until_closed(&mut cut_off).await;
    assert!(start.elapsed() < Duration::from_millis(500), "what it had begun ends with it");
    tokio::time::sleep(Duration::from_secs(5)).await;
    caller(&network, 2, &target).await.write_all(b"GET /").await.expect("open");
    until(async || taken.lock().expect("no panic").len() == 1).await;
    assert_eq!(target.counts.slots(), (1.0, 0.0));
    taken.lock().expect("no panic").clear();
    until(async || target.counts.slots() == (0.0, 0.0)).await;
    target.server.shutdown().await;
}

/// geth's `SetupConn`: a program that has a connection makes a peer of it.
#[tokio::test(start_paused = true)]
async fn a_connection_that_was_made_elsewhere_becomes_a_session() {
    let network = network();
    let (near, far) = (listener(&network, config()).await, other(2));
    let far = node(2, config(), network.host(far), far, Vec::new()).await;
    let mut elsewhere = network.host(HOME).listen((HOME, 999).into()).await.expect("free");
    let mut joined = async || {
        let transport = network.host(other(2));
        let (out, into) = tokio::join!(transport.connect((HOME, 999).into()), elsewhere.accept());
        (out.expect("listening"), into.expect("dialled"))
    };

    let (out, into) = joined().await;
    let (dialled, accepted) = tokio::join!(
        far.server.setup(out, Direction::Outbound, Some(near.id)),
        near.server.setup(into, Direction::Inbound, None)
    );
    assert_eq!((dialled, accepted), (Ok(near.id), Ok(far.id)));
    assert_eq!((near.peers().await, far.peers().await), (1, 1));

    let (out, into) = joined().await;
    let refused = SetupFailed::Handshake(HandshakeError::Refused(DisconnectReason::AlreadyConnected));
    let (dialled, accepted) = tokio::join!(
        far.server.setup(out, Direction::Outbound, Some(near.id)),
        near.server.setup(into, Direction::Inbound, None)
    );
    assert_eq!(dialled, Err(refused));
    assert!(accepted.is_err());

    let (out, into) = joined().await;
    assert_eq!(far.server.setup(out, Direction::Outbound, None).await, Err(SetupFailed::NobodyExpected));
    let told = near.server.setup(into, Direction::Inbound, Some(far.id)).await.expect_err("a contradiction");
    assert!(told.to_string().contains("who dials shows itself"), "{told}");
    near.server.shutdown().await;
    far.server.shutdown().await;
    let (out, _into) = joined().await;
    let gone = near.server.setup(out, Direction::Outbound, Some(far.id)).await;
    assert!(matches!(gone, Err(SetupFailed::Ask(_))), "{gone:?}");
}

/// geth TestServerSetupConn: what fails, fails with its reason at both ends.
#[tokio::test(start_paused = true)]
async fn a_connection_that_was_made_elsewhere_and_fails_says_why() {
    let network = network();
    let near = listener(&network, config()).await;
    let full = node(2, Config { max_peers: 0, ..config() }, network.host(other(2)), other(2), Vec::new()).await;
    let mut elsewhere = network.host(HOME).listen((HOME, 999).into()).await.expect("free");
    let mut joined = async || {
        let transport = network.host(other(2));
        let (out, into) = tokio::join!(transport.connect((HOME, 999).into()), elsewhere.accept());
        (out.expect("listening"), into.expect("dialled"))
    };
    let failed = |setup: Result<_, SetupFailed>| match setup {
        Err(SetupFailed::Handshake(error)) => error,
        other => panic!("{other:?}"),
    };

    // It is somebody else.
    let (out, into) = joined().await;
    let (dialled, accepted) = tokio::join!(
        near.server.setup(out, Direction::Outbound, Some(near.id)),
        full.server.setup(into, Direction::Inbound, None)
    );
    assert_eq!(failed(dialled), HandshakeError::UnexpectedIdentity { expected: near.id, found: full.id });
    assert!(matches!(failed(accepted), HandshakeError::Io(_)));

    // It is this node itself.
    let (out, into) = joined().await;
    let (dialled, accepted) = tokio::join!(
        near.server.setup(out, Direction::Outbound, Some(near.id)),
        near.server.setup(into, Direction::Inbound, None)
    );
    assert_eq!(failed(dialled), HandshakeError::Refused(DisconnectReason::SelfConnect));
    assert!(matches!(failed(accepted), HandshakeError::Io(_)));

    // It has no place.
    let (out, into) = joined().await;
    let (dialled, accepted) = tokio::join!(
        near.server.setup(out, Direction::Outbound, Some(full.id)),
        full.server.setup(into, Direction::Inbound, None)
    );
    assert_eq!(failed(dialled), HandshakeError::RefusedByPeer(DisconnectReason::TooManyPeers));
    assert_eq!(failed(accepted), HandshakeError::Refused(DisconnectReason::TooManyPeers));

    // It does not speak the protocol, or not at all.
    let (mut out, into) = joined().await;
    out.write_all(&[b'?'; 36]).await.expect("open");
    assert_eq!(failed(near.server.setup(into, Direction::Inbound, None).await), HandshakeError::Magic);
    let (_silent, into) = joined().await;
    assert_eq!(failed(near.server.setup(into, Direction::Inbound, None).await), HandshakeError::TimedOut);
    assert_eq!(near.peers().await, 0);
    near.server.shutdown().await;
    full.server.shutdown().await;
}

#[tokio::test]
async fn one_port_serves_web_pages_and_peers_over_sockets() {
    let taken = Port::from_fn(|visitor: Visitor| {
        tokio::spawn(async move {
            let mut stream = BufReader::new(visitor.admitted());
            let mut request = String::new();
            stream.read_line(&mut request).await.expect("a line");
            let answer = format!("HTTP/1.0 200 OK\r\n\r\nyou said {request}");
            stream.get_mut().write_all(answer.as_bytes()).await.expect("open");
        });
    });
    let http = Door { name: "http".into(), prefix: b"GET ".to_vec(), limit: 100, take: taken };
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let exempt = Config { exempt_local: true, ..config() };
    let first = node(1, exempt.clone(), Transport::sockets(), local, vec![http]).await;
    let second = node(2, exempt, Transport::sockets(), local, Vec::new()).await;

    let page = async || {
        let mut browser = Transport::sockets().connect(first.at).await.expect("listening");
        browser.write_all(b"GET /peers HTTP/1.0\r\n").await.expect("open");
        let mut page = String::new();
        browser.read_to_string(&mut page).await.expect("ends");
        assert!(page.ends_with("you said GET /peers HTTP/1.0\r\n"), "{page}");
    };
    page().await;
    second.server.add_static(first.address()).await.expect("admitted");
    tokio::join!(second.until_peers(1), page(), page());
    assert_eq!(first.peers().await, 1);

    let mut unknown = Transport::sockets().connect(first.at).await.expect("listening");
    unknown.write_all(b"SSH-2.0-x\r\n").await.expect("open");
    assert_eq!(until_closed(&mut unknown).await, 0);
    until(async || first.counts.refused("unknown_protocol") == 1).await;
    until(async || first.counts.slots() == (0.0, 0.0)).await;
    second.server.shutdown().await;
    first.server.shutdown().await;
}
