//! Every switch of a node, and the combinations of those that concern each other: in memory and in virtual time,
//! but for the one test of real sockets.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use peerage::server::gossip::Work;
use peerage::server::transport::{Link, MemoryNetwork, Stream};
use peerage::{
    AddStaticFailed, Admission, Banned, Builder, Churn, Clock, Direction, DisconnectReason, Event, ForkId, IpNet,
    Keypair, Node, NodeId, PeerAddress, Status,
};
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

const PORT: u16 = 30303;
/// In which nodes that can connect have done so. A node without peers dials its bootnodes directly after a longer
/// time, which no test here is about.
const SETTLED: Duration = Duration::from_secs(10);

struct World {
    network: MemoryNetwork,
    clock: Clock,
}

fn world() -> World {
    World {
        network: MemoryNetwork::new(1, Link::default()),
        clock: Clock::simulated(Duration::from_secs(1_800_000_000)),
    }
}

/// A network of its own for each, so that limits by network do not shape a test that is not about them.
fn ip(n: u8) -> IpAddr {
    Ipv4Addr::new(20, 0, n, 1).into()
}

fn keys(n: u8) -> Keypair {
    Keypair::from_seed([n; 32])
}

fn id(n: u8) -> NodeId {
    keys(n).id()
}

fn at(n: u8) -> PeerAddress {
    PeerAddress { id: id(n), addresses: vec![(ip(n), PORT).into()], hosts: Vec::new() }
}

fn network(text: &str) -> IpNet {
    text.parse().expect("a network")
}

impl World {
    /// The nth node, as quick to dial again as on one machine.
    fn node(&self, n: u8) -> Builder {
        Builder::local()
            .identity(keys(n))
            .transport(self.network.host(ip(n)))
            .listen(SocketAddr::from((ip(n), PORT)))
            .clock(self.clock)
            .seed(n.into())
            .configure(|config| config.gossip.work = Work::Inline)
    }

    /// A node that knows nobody, and that nobody learns of by itself.
    fn quiet(&self, n: u8) -> Builder {
        self.node(n).discovery(false).exchange(false)
    }
}

async fn start(builder: Builder) -> Node {
    builder.start().await.expect("starts")
}

async fn stop(nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        node.shutdown().await;
    }
}

/// Who its peers are, and who dialled.
async fn peers(node: &Node) -> Vec<(NodeId, Direction)> {
    node.peers().await.expect("runs").iter().map(|peer| (peer.id, peer.direction)).collect()
}

async fn count(node: &Node) -> usize {
    node.peer_count().await.expect("runs")
}

/// Waits in virtual time until a node has so many peers.
async fn until(node: &Node, expected: usize) {
    for _ in 0..600 {
        if count(node).await == expected {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("{expected} peers within a minute, not {}", count(node).await);
}

/// How a node gets to know the other one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Nothing,
    Bootnode,
    Static,
}

#[derive(Clone, Copy, Debug)]
struct Switches {
    discovery: bool,
    dialing: bool,
    listening: bool,
}

/// Who dials whom, as the node with the switches sees it. The other end does everything.
fn expected(switches: Switches, told: Told) -> Option<&'static [Direction]> {
    use Direction::{Inbound, Outbound};
    match (told, switches) {
        (Told::Static, Switches { dialing: true, .. }) => Some(&[Outbound]),
        // Both find the other, and the faster one dials.
        (Told::Bootnode, Switches { discovery: true, dialing: true, listening: true }) => Some(&[Inbound, Outbound]),
        (Told::Bootnode, Switches { discovery: true, dialing: true, listening: false }) => Some(&[Outbound]),
        // Without discovery, a node that stays alone dials the bootnode itself.
        (Told::Bootnode, Switches { discovery: false, dialing: true, .. }) => Some(&[Outbound]),
        // The bootnode finds it by its record.
        (Told::Bootnode, Switches { discovery: true, dialing: false, listening: true }) => Some(&[Inbound]),
        _ => None,
    }
}

async fn combination(switches: Switches, told: Told) {
    let case = format!("{switches:?}, {told:?}");
    let Switches { discovery, dialing, listening } = switches;
    let world = world();
    let other = start(world.node(2)).await;
    let builder = world.node(1).discovery(discovery).dialing(dialing).listening(listening);
    let node = start(match told {
        Told::Nothing => builder,
        Told::Bootnode => builder.bootnode(at(2)),
        Told::Static => builder.static_peer(at(2)),
    })
    .await;
    sleep(SETTLED).await;

    let connected = peers(&node).await;
    match (expected(switches, told), &connected[..]) {
        (None, []) => {}
        (Some(ways), [(peer, way)]) => assert!(*peer == id(2) && ways.contains(way), "{case}: {connected:?}"),
        _ => panic!("{case}: {connected:?}"),
    }
    assert_eq!(count(&other).await, connected.len(), "{case}: both ends see the same");

    let socket = SocketAddr::from((ip(1), PORT));
    let host = world.network.host(ip(1));
    let taken = |error: std::io::Error| assert_eq!(error.kind(), ErrorKind::AddrInUse, "{case}");
    let (tcp, udp) = (host.listen(socket).await.map(drop), host.bind_datagram(socket).await.map(drop));
    assert_eq!((tcp.is_err(), udp.is_err()), (listening, discovery), "{case}: what is bound");
    tcp.err().into_iter().chain(udp.err()).for_each(taken);
    let record = node.record().await.expect("runs");
    let has = |protocol| record.addresses().iter().any(|address| address.to_string().contains(protocol));
    assert_eq!((has("/tcp/"), has("/udp/")), (listening, discovery), "{case}: what others are told");
    assert_eq!(node.addresses().await.expect("runs").len(), usize::from(listening), "{case}");

    let health = node.health().await.expect("runs");
    let says = |words| health.reasons.iter().any(|reason| reason.contains(words));
    assert_eq!(says("neither dials nor listens"), !dialing && !listening, "{case}: {health:?}");
    let sought = told == Told::Static || (told == Told::Bootnode && discovery);
    assert_eq!(says("no peer is connected"), sought && connected.is_empty(), "{case}: {health:?}");
    assert_eq!(health.status == Status::Ok, health.reasons.is_empty(), "{case}: {health:?}");
    stop([node, other]).await;
}

#[tokio::test(start_paused = true)]
async fn discovery_dialing_and_listening_do_what_they_say_in_every_combination() {
    for told in [Told::Nothing, Told::Bootnode, Told::Static] {
        for bits in 0..8 {
            let switches = Switches { discovery: bits & 1 != 0, dialing: bits & 2 != 0, listening: bits & 4 != 0 };
            combination(switches, told).await;
        }
    }
}

#[tokio::test]
async fn no_socket_is_bound_that_is_switched_off() {
    let port = |text: String| {
        let mut words = text.split('/').skip_while(|word| *word != "tcp" && *word != "udp");
        words.nth(1).and_then(|port| port.parse::<u16>().ok()).expect("a port")
    };
    let node = start(Builder::local().discovery(false)).await;
    let tcp = port(node.addresses().await.expect("runs").remove(0).to_string());
    assert!(std::net::TcpListener::bind(("127.0.0.1", tcp)).is_err());
    assert!(std::net::UdpSocket::bind(("127.0.0.1", tcp)).is_ok());
    node.shutdown().await;

    let node = start(Builder::local().listening(false)).await;
    let udp = port(node.record().await.expect("runs").addresses()[0].to_string());
    assert!(std::net::TcpListener::bind(("127.0.0.1", udp)).is_ok());
    assert!(std::net::UdpSocket::bind(("127.0.0.1", udp)).is_err());
    node.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn allowed_and_denied_networks_hold_for_those_who_dial_and_those_who_are_dialled() {
    type Rule = fn(Builder) -> Builder;
    let rules: [(Rule, bool); 6] = [
        (|builder| builder, true),
        (|builder| builder.allow_network(network("20.0.2.0/24")), true),
        (|builder| builder.allow_network(network("20.0.3.0/24")), false),
        (|builder| builder.allow_network(network("20.0.3.0/24")).allow_network(network("20.0.2.1/32")), true),
        (|builder| builder.deny_network(network("20.0.2.0/24")), false),
        (|builder| builder.allow_network(network("20.0.0.0/8")).deny_network(network("20.0.2.1/32")), false),
    ];
    for (n, (rule, admitted)) in rules.into_iter().enumerate() {
        for dials in [true, false] {
            let world = world();
            let (node, other) = (rule(world.quiet(1)), world.quiet(2));
            let (node, other) = if dials { (node.static_peer(at(2)), other) } else { (node, other.static_peer(at(1))) };
            let nodes = [start(other).await, start(node).await];
            sleep(SETTLED).await;
            let counts = [count(&nodes[0]).await, count(&nodes[1]).await];
            assert_eq!(counts, [usize::from(admitted); 2], "rule {n}, it dials: {dials}");
            stop(nodes).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_discovery_finds_in_a_denied_network_is_left_alone() {
    let world = world();
    let hub = start(world.node(1)).await;
    let denied = start(world.node(2).bootnode(at(1))).await;
    let node = start(world.node(3).bootnode(at(1)).deny_network(network("20.0.2.0/24"))).await;
    sleep(SETTLED).await;
    let ids = async |node: &Node| peers(node).await.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(&node).await, [id(1)]);
    assert_eq!(ids(&denied).await, [id(1)]);
    stop([node, denied, hub]).await;
}

#[tokio::test(start_paused = true)]
async fn a_permissioned_node_has_the_peers_that_were_named_and_no_others() {
    let world = world();
    // Named in two calls: both are admitted. Trust opens no door.
    let hub = start(world.quiet(1).only_peers([id(2)]).only_peers([id(3)]).trusted(id(4))).await;
    let mut nodes = Vec::new();
    for n in 2..=5 {
        nodes.push(start(world.quiet(n).static_peer(at(1))).await);
    }
    // It does not dial others either, whoever says so.
    assert_eq!(hub.add_static(at(5)).await, Err(AddStaticFailed::NotAdmitted));
    sleep(SETTLED).await;
    let mut admitted: Vec<NodeId> = peers(&hub).await.into_iter().map(|(id, _)| id).collect();
    let mut named = vec![id(2), id(3)];
    admitted.sort_unstable();
    named.sort_unstable();
    assert_eq!(admitted, named);
    assert_eq!([count(&nodes[2]).await, count(&nodes[3]).await], [0, 0]);

    let nobody = start(world.quiet(6).only_peers([])).await;
    nodes.push(start(world.quiet(7).static_peer(at(6))).await);
    sleep(SETTLED).await;
    assert_eq!(count(&nobody).await, 0, "an empty list admits nobody");
    stop(nodes.into_iter().chain([hub, nobody])).await;
}

#[tokio::test(start_paused = true)]
async fn peers_see_the_agent_and_have_to_be_of_the_same_network_and_fork() {
    let world = world();
    let fork = |byte| ForkId::new(&[byte]).expect("short");
    let named = |n| world.quiet(n).network("mine").fork_id(fork(7));
    let hub = start(named(1).agent("miner/7")).await;
    let mut events = hub.events().await.expect("runs");
    let same = start(named(2).static_peer(at(1)).agent("wallet/2")).await;
    until(&hub, 1).await;
    assert_eq!(same.peers().await.expect("runs")[0].agent, "miner/7");
    assert_eq!(hub.peers().await.expect("runs")[0].agent, "wallet/2");
    assert!(matches!(events.next().await, Some(Event::PeerUp { agent, .. }) if agent == "wallet/2"));
    let local = hub.local().await.expect("runs");
    assert_eq!((&*local.agent, &*local.network), ("miner/7", "mine"));

    let other_network = start(named(3).network("another").static_peer(at(1))).await;
    let other_fork = start(named(4).fork_id(fork(8)).static_peer(at(1))).await;
    sleep(SETTLED).await;
    assert_eq!([count(&hub).await, count(&other_network).await, count(&other_fork).await], [1, 0, 0]);

    // The application moves on: who did not is dropped, unless it is still taken.
    hub.set_forks(fork(9), vec![fork(7)]).expect("one");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(count(&hub).await, 1);
    hub.set_forks(fork(9), Vec::new()).expect("none");
    until(&hub, 0).await;
    assert!(hub.set_forks(fork(9), vec![fork(7); 17]).expect_err("many").contains("at most 16"));
    stop([hub, same, other_network, other_fork]).await;
}

#[tokio::test(start_paused = true)]
async fn one_in_dial_ratio_peers_is_dialled() {
    for (ratio, dialled) in [(1, 5), (2, 3), (3, 2), (100, 1)] {
        let world = world();
        let node = start(world.node(1).max_peers(6).dial_ratio(ratio)).await;
        let mut others = Vec::new();
        for n in 2..=6 {
            // They are found, and do not dial.
            others.push(start(world.node(n).dialing(false).bootnode(at(1))).await);
        }
        sleep(2 * SETTLED).await;
        let peers = peers(&node).await;
        assert_eq!(peers.len(), dialled, "ratio {ratio}: {peers:?}");
        assert!(peers.iter().all(|(_, way)| *way == Direction::Outbound));
        stop(others.into_iter().chain([node])).await;
    }
}

#[tokio::test(start_paused = true)]
async fn static_peers_have_places_of_their_own_and_only_so_many() {
    let world = world();
    let mut others = Vec::new();
    for n in 2..=4 {
        others.push(start(world.quiet(n)).await);
    }
    let builder = world.quiet(1).max_peers(1).max_static_peers(2);
    let node = start((2..=4).fold(builder, |builder, n| builder.static_peer(at(n)))).await;
    sleep(SETTLED).await;
    assert_eq!(count(&node).await, 2);
    let guest = start(world.quiet(5).static_peer(at(1))).await;
    sleep(SETTLED).await;
    // The one ordinary place is for whom it dials, as a node always dials somebody.
    assert_eq!(count(&guest).await, 0);
    node.add_trusted(id(5));
    until(&node, 3).await;
    assert_eq!(node.trusted().await.expect("runs"), [id(5)]);
    stop(others.into_iter().chain([node, guest])).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_connections_than_max_pending_are_in_their_set_up() {
    let world = world();
    let node = start(world.quiet(1).max_pending(3)).await;
    let mut silent: Vec<Stream> = Vec::new();
    for n in 2..=6 {
        silent.push(world.network.host(ip(n)).connect((ip(1), PORT).into()).await.expect("listens"));
    }
    sleep(Duration::from_millis(500)).await;
    let mut open = 0;
    for stream in &mut silent {
        // Neither end says anything; one that was turned away has ended.
        open += usize::from(timeout(Duration::from_millis(1), stream.read_u8()).await.is_err());
    }
    assert_eq!(open, 3);
    // A silent one does not keep its place for ever.
    let other = start(world.quiet(7).static_peer(at(1))).await;
    until(&other, 1).await;
    stop([node, other]).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_node_lets_a_peer_go_now_and_then_only_if_it_is_told_to() {
    for on in [true, false] {
        let world = world();
        // Two places for those who dial it.
        let hub = world.quiet(1).max_peers(3).churn(on).configure(|config| {
            assert_eq!(config.churn, on.then(Churn::recommended));
            // That is another reason to go, and not the one of this test.
            config.useless_after = Duration::from_secs(24 * 3600);
        });
        let hub = start(hub).await;
        let mut events = hub.events().await.expect("runs");
        let others = [start(world.quiet(2).static_peer(at(1))).await, start(world.quiet(3).static_peer(at(1))).await];
        let gone = async {
            loop {
                if let Event::PeerDown { reason, lived, .. } = events.next().await.expect("runs") {
                    assert_eq!(reason, DisconnectReason::TooManyPeers);
                    return lived;
                }
            }
        };
        let gone = timeout(Duration::from_secs(20 * 60), gone).await;
        match gone {
            Ok(lived) => assert!(on && lived >= Churn::recommended().min_age, "{lived:?}"),
            Err(_) => assert!(!on, "nobody was let go"),
        }
        stop(others.into_iter().chain([hub])).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_removed_is_gone_and_one_that_is_banned_stays_away() {
    let world = world();
    let node = start(world.quiet(1).static_peer(at(2))).await;
    let other = start(world.quiet(2)).await;
    until(&node, 1).await;
    assert_eq!(node.statics().await.expect("runs"), [at(2)]);
    node.remove(id(2)).await.expect("runs");
    assert_eq!((count(&node).await, node.statics().await.expect("runs")), (0, vec![]));
    sleep(SETTLED).await;
    assert_eq!(count(&node).await, 0, "it is not dialled again");
    node.remove(id(9)).await.expect("nobody is nothing to wait for");

    for banned in [Banned::Id(id(2)), Banned::Network(network("20.0.2.0/24"))] {
        node.add_static(at(2)).await.expect("admitted");
        until(&node, 1).await;
        node.ban(banned, Duration::from_secs(60));
        until(&node, 0).await;
        let bans = node.bans().await.expect("runs");
        assert!(matches!(bans[..], [(what, left)] if what == banned && left <= Duration::from_secs(60)), "{bans:?}");
        sleep(SETTLED).await;
        assert_eq!(count(&node).await, 0);
        // It ends by itself.
        until(&node, 1).await;
        assert_eq!(node.bans().await.expect("runs"), []);
        node.ban(banned, Duration::from_secs(24 * 3600));
        until(&node, 0).await;
        node.unban(banned);
        until(&node, 1).await;
        node.remove(id(2)).await.expect("runs");
    }
    stop([node, other]).await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_changes_drops_who_is_not_admitted_any_more() {
    let world = world();
    let node = start(world.quiet(1)).await;
    let others = [start(world.quiet(2).static_peer(at(1))).await, start(world.quiet(3).static_peer(at(1))).await];
    until(&node, 2).await;
    let only = Admission { only: Some([id(3)].into()), ..Admission::open() };
    node.set_admission(only.clone()).expect("small");
    assert_eq!(node.admission().await.expect("runs"), only);
    until(&node, 1).await;
    sleep(SETTLED).await;
    assert_eq!(peers(&node).await, [(id(3), Direction::Inbound)]);
    let many = Admission { denied: vec![network("10.0.0.0/8"); 513], ..Admission::open() };
    assert!(node.set_admission(many).expect_err("large").to_string().contains("at most 512"));
    node.set_admission(Admission::open()).expect("small");
    until(&node, 2).await;
    stop(others.into_iter().chain([node])).await;
}

#[tokio::test(start_paused = true)]
async fn a_switch_with_a_value_that_cannot_be_is_refused_at_the_start() {
    let world = world();
    let refused =
        async |change: fn(Builder) -> Builder| change(world.node(1)).start().await.expect_err("nonsense").to_string();
    assert!(refused(|builder| builder.dial_ratio(0)).await.contains("dial_ratio"));
    assert!(refused(|builder| builder.max_pending(0)).await.contains("listener.slots"));
    assert!(refused(|builder| builder.agent("x".repeat(65))).await.contains("at most 64"));
    let many = |builder| (0..513).fold(builder, |builder: Builder, _| builder.deny_network(network("10.0.0.0/8")));
    assert!(refused(many).await.contains("at most 512"));
}
