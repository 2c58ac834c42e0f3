//! The transport on real sockets: other protocols on the port, several addresses, both families, clocks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_discovery::wire::{Cookie, Envelope, Kind, MAX_PACKET, Message, Nonce, Packet};
use peerage_discovery::{Args, Bootnode, Config, DiscoveryMailbox, Foreign, MAX_FOREIGN, Secrets, spawn};
use peerage_machine::journal::Journals;
use peerage_mailbox::{Child, Clock, Counts, Meter, Port, Supervisor};
use peerage_transport::{Datagram, Link, MemoryNetwork, Transport};
use peerage_wire::{Admission, Keypair, NetworkId, NodeId, RecordDraft, address};

const PATIENCE: Duration = Duration::from_secs(10);

fn network() -> NetworkId {
    NetworkId::named("test")
}

async fn bind(on: &str) -> Arc<Datagram> {
    Arc::new(Transport::sockets().bind_datagram(on.parse().expect("address")).await.expect("bound"))
}

fn local(socket: &Datagram) -> SocketAddr {
    socket.local_addr().expect("bound")
}

/// A node that has these sockets.
struct Node {
    id: NodeId,
    counts: Counts,
    mailbox: DiscoveryMailbox,
    child: Child,
}

fn args(number: u8, sockets: Vec<Arc<Datagram>>, clock: Clock, counts: &Counts) -> Args {
    let keys = Keypair::from_seed([number; 32]);
    let mut draft = RecordDraft::new(clock.now().unix_millis(), network());
    for socket in &sockets {
        draft = draft.address(address::from_udp(local(socket)));
    }
    Args {
        config: Config::local(),
        record: draft.sign(&keys).expect("small"),
        keys,
        sockets,
        foreign: None,
        sources: Default::default(),
        bootnodes: Vec::new(),
        seeds: Vec::new(),
        admission: Arc::new(Admission::open()),
        secrets: Secrets::from_seed(&[number; 32]),
        seed: number.into(),
        clock,
        meter: Meter::new(Arc::new(counts.clone())),
        journals: Journals::off(),
        out: Port::from_fn(drop),
    }
}

async fn start(args: Args, counts: Counts) -> Node {
    let id = args.keys.id();
    let (mailbox, child) = spawn(args, &Supervisor::none()).await.expect("starts");
    Node { id, counts, mailbox, child }
}

impl Node {
    async fn with(number: u8, sockets: Vec<Arc<Datagram>>) -> Node {
        let counts = Counts::default();
        start(args(number, sockets, Clock::system(), &counts), counts).await
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.counts.counter(&format!("peerage_discovery_drops_total{{reason={reason}}}"))
    }

    async fn until(&self, what: &str, done: impl Fn(&Node) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !done(self) {
            assert!(tokio::time::Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Somebody who speaks the protocol by hand.
struct Raw {
    socket: Arc<Datagram>,
    keys: Keypair,
    clock: Clock,
}

impl Raw {
    async fn on(on: &str) -> Raw {
        Raw { socket: bind(on).await, keys: Keypair::from_seed([99; 32]), clock: Clock::system() }
    }

    fn send(&self, to: NodeId, addr: SocketAddr, cookie: Cookie) {
        let expiry = self.clock.now().unix().as_secs() + 20;
        let nonce = Nonce { counter: 1, mac: [3; 8] };
        let packet = Packet { nonce, cookie, expiry, message: Message::Ping { record_seq: 1 } };
        self.socket.send_to(&packet.seal(network(), &self.keys, to), addr).expect("sent");
    }

    /// What answers; the node's own questions are left alone.
    async fn receive(&self, expected: Kind) -> (Cookie, SocketAddr) {
        let mut buffer = [0; MAX_PACKET];
        loop {
            let received = tokio::time::timeout(PATIENCE, self.socket.recv_from(&mut buffer));
            let (len, from) = received.await.expect("in time").expect("received");
            let header = Envelope::read(&buffer[..len]).expect("a packet").header;
            if header.kind == expected {
                return (header.cookie, from);
            }
            assert_eq!(header.kind, Kind::RecordRequest);
        }
    }

    /// Pings with the cookie that it asks for first, and awaits the pong; from where both came.
    async fn ping(&self, to: NodeId, addr: SocketAddr) -> [SocketAddr; 2] {
        self.send(to, addr, Cookie::NONE);
        let (cookie, first) = self.receive(Kind::Cookie).await;
        self.send(to, addr, cookie);
        [first, self.receive(Kind::Pong).await.1]
    }
}

#[tokio::test]
async fn another_protocol_plays_ping_pong_on_the_port_of_discovery() {
    let shared = bind("127.0.0.1:0").await;
    let at = local(&shared);
    let (outlet, mut inlet) = Foreign::queue();
    let counts = Counts::default();
    let args = Args { foreign: Some(outlet), ..args(1, vec![shared.clone()], Clock::system(), &counts) };
    let node = start(args, counts).await;
    tokio::spawn(async move {
        while let Ok(foreign) = inlet.recv().await {
            let answer = [b"pong ", &foreign.bytes[..]].concat();
            foreign.answer(&answer).expect("sent");
        }
    });
    let theirs = bind("127.0.0.1:0").await;
    let mut buffer = vec![0; 2 * MAX_FOREIGN];
    // The last is as long as may be passed on; the first is empty.
    for ping in [vec![], b"P".to_vec(), b"hello".to_vec(), vec![7; MAX_FOREIGN - 5]] {
        theirs.send_to(&ping, at).expect("sent");
        let received = tokio::time::timeout(PATIENCE, theirs.recv_from(&mut buffer)).await.expect("in time");
        let (len, from) = received.expect("received");
        assert_eq!((&buffer[..len], from), (&[b"pong ", &ping[..]].concat()[..], at));
        // Discovery goes on between.
        let raw = Raw::on("127.0.0.1:0").await;
        assert_eq!(raw.ping(node.id, at).await, [at; 2]);
    }
    // The owner of the socket may speak first.
    shared.send_to(b"first", local(&theirs)).expect("sent");
    assert_eq!(theirs.recv_from(&mut buffer).await.expect("received"), (5, at));
    theirs.send_to(&vec![7; MAX_FOREIGN + 1], at).expect("sent");
    node.until("what is too long is dropped whole", |node| node.dropped("too_long") == 1).await;
    assert_eq!(node.counts.counter("peerage_discovery_events_total{event=foreign}"), 4);
}

#[tokio::test]
async fn a_handler_that_is_behind_loses_the_newest_and_costs_discovery_nothing() {
    let shared = bind("127.0.0.1:0").await;
    let at = local(&shared);
    let (outlet, inlet) = Foreign::queue();
    let counts = Counts::default();
    let args = Args { foreign: Some(outlet), ..args(1, vec![shared], Clock::system(), &counts) };
    let node = start(args, counts).await;
    let theirs = bind("127.0.0.1:0").await;
    for number in 0..150_u8 {
        theirs.send_to(&[number], at).expect("sent");
    }
    node.until("fifty find no room", |node| node.dropped("foreign_full") == 50).await;
    let raw = Raw::on("127.0.0.1:0").await;
    assert_eq!(raw.ping(node.id, at).await, [at; 2]);
    let first: Vec<u8> = inlet.take(200).into_iter().flat_map(|foreign| foreign.bytes).collect();
    assert_eq!(first, (0..100).collect::<Vec<u8>>());
}

#[tokio::test]
async fn without_a_handler_and_from_excluded_addresses_nothing_is_passed_on() {
    let (shared, theirs) = (bind("127.0.0.1:0").await, bind("127.0.0.1:0").await);
    let at = local(&shared);
    let node = Node::with(1, vec![shared]).await;
    theirs.send_to(b"hello", at).expect("sent");
    node.until("it is dropped", |node| node.dropped("magic") == 1).await;

    let shared = bind("127.0.0.1:0").await;
    let at = local(&shared);
    let (outlet, inlet) = Foreign::queue();
    let counts = Counts::default();
    let denied = vec!["127.0.0.1/32".parse().expect("network")];
    let args = Args {
        foreign: Some(outlet),
        admission: Arc::new(Admission { denied, ..Admission::open() }),
        ..args(2, vec![shared], Clock::system(), &counts)
    };
    let node = start(args, counts).await;
    theirs.send_to(b"hello", at).expect("sent");
    node.until("it is dropped", |node| node.dropped("not_admitted") == 1).await;
    assert!(inlet.is_empty());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn answers_leave_from_the_address_that_was_asked() {
    let sockets = [bind("127.0.0.1:0").await, bind("127.0.0.2:0").await, bind("127.0.0.3:0").await];
    let all = sockets.clone().map(|socket| local(&socket));
    let node = Node::with(1, sockets.into()).await;
    // One after the other from one and the same place: the last that was reached counts.
    let raw = Raw::on("127.0.0.9:0").await;
    for addr in [all[2], all[0], all[1], all[2]] {
        assert_eq!(raw.ping(node.id, addr).await, [addr; 2]);
    }
}

#[tokio::test]
async fn both_families_are_served_and_ipv4_inside_ipv6_is_ipv4() {
    let v4 = bind("127.0.0.1:0").await;
    let at = local(&v4);
    let Ok(v6) = Transport::sockets().bind_datagram("[::1]:0".parse().expect("address")).await else {
        // A machine without IPv6 has one family only.
        let node = Node::with(1, vec![v4]).await;
        assert_eq!(Raw::on("127.0.0.1:0").await.ping(node.id, at).await, [at; 2]);
        return;
    };
    let v6 = Arc::new(v6);
    let at6 = local(&v6);
    let node = Node::with(1, vec![v4, v6]).await;
    assert_eq!(Raw::on("127.0.0.1:0").await.ping(node.id, at).await, [at; 2]);
    assert_eq!(Raw::on("[::1]:0").await.ping(node.id, at6).await, [at6; 2]);
    // A socket of both families shows IPv4 senders as IPv6: cookie and nonce must be good for either look.
    let dual = std::net::UdpSocket::bind("[::]:0").expect("bound");
    dual.set_nonblocking(true).expect("a socket");
    let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", at.port()).parse().expect("address");
    let keys = Keypair::from_seed([98; 32]);
    let expiry = Clock::system().now().unix().as_secs() + 20;
    let mut cookie = Cookie::NONE;
    for expected in [Kind::Cookie, Kind::Pong] {
        let packet = Packet {
            nonce: Nonce { counter: 1, mac: [3; 8] },
            cookie,
            expiry,
            message: Message::Ping { record_seq: 1 },
        };
        dual.send_to(&packet.seal(network(), &keys, node.id), mapped).expect("sent");
        let mut buffer = [0; MAX_PACKET];
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let (len, from) = loop {
            match dual.recv_from(&mut buffer) {
                Ok(received) => break received,
                Err(_) => assert!(tokio::time::Instant::now() < deadline, "no {expected:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let header = Envelope::read(&buffer[..len]).expect("a packet").header;
        assert_eq!((header.kind, from), (expected, mapped));
        cookie = header.cookie;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_the_kernel_dropped_while_nobody_read_is_counted() {
    let (ours, theirs) = (bind("127.0.0.1:0").await, bind("127.0.0.1:0").await);
    let at = local(&ours);
    let node = Node::with(1, vec![ours.clone()]).await;
    assert_eq!(Raw::on("127.0.0.1:0").await.ping(node.id, at).await, [at; 2]);
    // The node shares this thread, which does nothing else now.
    for _ in 0..20_000 {
        theirs.send_to(&[0; 1_000], at).expect("sent");
    }
    assert!(ours.lost() > Some(0), "{:?}", ours.lost());
    // It looks every two seconds, as datagrams come.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while Some(node.dropped("kernel")) != ours.lost() {
        assert!(tokio::time::Instant::now() < deadline, "{} of {:?}", node.dropped("kernel"), ours.lost());
        theirs.send_to(&[0], at).expect("sent");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(Raw::on("127.0.0.1:0").await.ping(node.id, at).await, [at; 2], "and it goes on");
}

/// Nodes of one memory in sites of their own, all but the last with right clocks.
async fn with_clocks(offset: i64) -> Vec<Node> {
    const UNIX: Duration = Duration::from_secs(1_700_000_000);
    let memory = MemoryNetwork::new(5, Link { latency: Duration::from_millis(20), ..Link::default() });
    let mut nodes: Vec<(Node, SocketAddr)> = Vec::new();
    for number in 1..=7_u8 {
        let unix = if number == 7 { UNIX.as_secs().saturating_add_signed(offset) } else { UNIX.as_secs() };
        let clock = Clock::simulated(Duration::from_secs(unix));
        let on = SocketAddr::from(([10, 0, number, 1], 30303));
        let socket = Arc::new(memory.host(on.ip()).bind_datagram(on).await.expect("bound"));
        let bootnodes = nodes.iter().map(|(node, addr)| Bootnode { id: node.id, addr: *addr }).collect();
        let counts = Counts::default();
        let args = Args { bootnodes, ..args(number, vec![socket], clock, &counts) };
        nodes.push((start(args, counts).await, on));
    }
    tokio::time::sleep(Duration::from_secs(300)).await;
    nodes.into_iter().map(|(node, _)| node).collect()
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_clock_is_off_learns_it_from_its_peers() {
    for offset in [-30, 45] {
        let nodes = with_clocks(offset).await;
        let off = nodes.last().expect("seven");
        assert_eq!(off.mailbox.clock_drift(), offset);
        let gauge = "peerage_discovery_clock_drift_seconds{}";
        assert_eq!(off.counts.gauge(gauge), Some(offset as f64));
        assert_eq!(nodes[0].mailbox.clock_drift(), 0, "those who are right do not follow it");
        assert_eq!(off.mailbox.table_len(), 6, "within the tolerance it takes part");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_clock_is_so_wrong_that_nobody_answers_it_learns_it_from_their_cookies() {
    for offset in [-7_200, 3_600] {
        let nodes = with_clocks(offset).await;
        let off = nodes.last().expect("seven");
        assert_eq!((off.mailbox.clock_drift(), off.mailbox.table_len()), (offset, 0));
        assert_eq!(nodes[0].mailbox.clock_drift(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_actor_leaves_its_port_and_the_other_protocols_queue() {
    let memory = MemoryNetwork::new(5, Link::default());
    let on: SocketAddr = "10.0.0.1:30303".parse().expect("address");
    let socket = Arc::new(memory.host(on.ip()).bind_datagram(on).await.expect("bound"));
    let (outlet, mut inlet) = Foreign::queue();
    let clock = Clock::simulated(Duration::from_secs(1_700_000_000));
    let counts = Counts::default();
    let args = Args { foreign: Some(outlet), ..args(1, vec![socket], clock, &counts) };
    let node = start(args.clone(), counts.clone()).await;
    node.child.kill();
    node.child.wait().await;
    let _next = start(args, counts).await;
    let theirs = memory.host([10, 0, 0, 2].into()).bind_datagram("10.0.0.2:1".parse().expect("address")).await;
    theirs.expect("bound").send_to(b"hello", on).expect("sent");
    let foreign = tokio::time::timeout(PATIENCE, inlet.recv()).await.expect("in time").expect("open");
    assert_eq!(foreign.bytes, b"hello");
}
