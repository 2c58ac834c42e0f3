//! The actor as a whole: sockets, gate, signatures, timers, restart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_discovery::wire::{Cookie, Envelope, Kind, MAX_PACKET, Message, Nonce, Packet};
use peerage_discovery::{
    Args, Bootnode, Config, ConfigError, DiscoveryMailbox, DiscoveryOut, Key, Secrets, StartError, spawn,
};
use peerage_machine::journal::Journals;
use peerage_mailbox::{AskError, Child, Clock, Meter, Port, Supervisor, ask};
use peerage_transport::{Datagram, Link, MemoryNetwork, Transport};
use peerage_wire::{Admission, Keypair, NetworkId, NodeId, RecordDraft, address};
use tokio::sync::mpsc;

const UNIX: Duration = Duration::from_secs(1_700_000_000);
const PATIENCE: Duration = Duration::from_secs(10);

fn network() -> NetworkId {
    NetworkId::named("test")
}

/// A node under test, and what it told its wiring.
struct Node {
    id: NodeId,
    addr: SocketAddr,
    args: Args,
    mailbox: DiscoveryMailbox,
    child: Child,
    told: mpsc::UnboundedReceiver<DiscoveryOut>,
}

impl Node {
    async fn start(transport: &Transport, on: &str, number: u8, clock: Clock, bootnodes: Vec<Bootnode>) -> Node {
        let keys = Keypair::from_seed([number; 32]);
        let socket = transport.bind_datagram(on.parse().expect("address")).await.expect("bound");
        let addr = socket.local_addr().expect("bound");
        let record = RecordDraft::new(clock.now().unix_millis(), network())
            .address(address::from_tcp(addr))
            .address(address::from_udp(addr))
            .sign(&keys)
            .expect("small");
        let (tell, told) = mpsc::unbounded_channel();
        let args = Args {
            config: Config::local(),
            keys,
            record,
            sockets: vec![Arc::new(socket)],
            foreign: None,
            bootnodes,
            seeds: Vec::new(),
            admission: Arc::new(Admission::open()),
            secrets: Secrets::from_seed(&[number; 32]),
            seed: number.into(),
            clock,
            sources: Default::default(),
            meter: Meter::none(),
            journals: Journals::off(),
            out: Port::from_fn(move |out| drop(tell.send(out))),
        };
        let (mailbox, child) = spawn(args.clone(), &Supervisor::none()).await.expect("starts");
        Node { id: args.keys.id(), addr, args, mailbox, child, told }
    }

    fn bootnode(&self) -> Bootnode {
        Bootnode { id: self.id, addr: self.addr }
    }

    async fn candidates(&mut self, count: usize) -> Vec<NodeId> {
        self.mailbox.want(count);
        let mut found = Vec::new();
        while found.len() < count {
            match tokio::time::timeout(PATIENCE, self.told.recv()).await {
                Ok(Some(DiscoveryOut::Candidates(nodes))) => found.extend(nodes.iter().map(|(record, _)| record.id())),
                Ok(Some(DiscoveryOut::Alive(_) | DiscoveryOut::Predicted(_))) => {}
                other => panic!("only {found:?}, then {other:?}"),
            }
        }
        found.sort();
        found
    }
}

/// Nodes in one memory, the first of which the others know.
async fn nodes(count: u8) -> (MemoryNetwork, Clock, Vec<Node>) {
    let memory = MemoryNetwork::new(5, Link { latency: Duration::from_millis(20), ..Link::default() });
    let clock = Clock::simulated(UNIX);
    let mut nodes: Vec<Node> = Vec::new();
    for number in 1..=count {
        let host = memory.host([10, 0, 0, number].into());
        let bootnodes = nodes.first().map(Node::bootnode).into_iter().collect();
        nodes.push(Node::start(&host, &format!("10.0.0.{number}:30303"), number, clock, bootnodes).await);
    }
    (memory, clock, nodes)
}

fn others(nodes: &[Node], number: usize) -> Vec<NodeId> {
    let others = nodes.iter().enumerate().filter(|(other, _)| *other != number);
    let mut ids: Vec<_> = others.map(|(_, node)| node.id).collect();
    ids.sort();
    ids
}

#[tokio::test(start_paused = true)]
async fn nodes_that_know_the_first_find_each_other_within_seconds() {
    let (_memory, clock, mut nodes) = nodes(8).await;
    for number in 0..nodes.len() {
        let expected = others(&nodes, number);
        assert_eq!(nodes[number].candidates(7).await, expected);
    }
    assert!(clock.now().running() < Duration::from_secs(3), "{:?}", clock.now());
}

#[tokio::test]
async fn two_nodes_on_loopback_find_each_other() {
    let (transport, clock) = (Transport::sockets(), Clock::system());
    let mut first = Node::start(&transport, "127.0.0.1:0", 1, clock, vec![]).await;
    let mut second = Node::start(&transport, "127.0.0.1:0", 2, clock, vec![first.bootnode()]).await;
    assert_eq!(second.candidates(1).await, [first.id]);
    assert_eq!(first.candidates(1).await, [second.id]);
}

#[tokio::test(start_paused = true)]
async fn questions_are_answered() {
    let (_memory, _clock, mut nodes) = nodes(4).await;
    nodes[3].candidates(3).await;
    let (asker, target) = (nodes[3].mailbox.clone(), nodes[2].id);
    let found = ask(PATIENCE, |reply| asker.lookup(target, reply)).await.expect("answered");
    assert_eq!(found.first().map(|record| record.id()), Some(target));
    let record = ask(PATIENCE, |reply| asker.resolve(target, reply)).await.expect("answered");
    assert_eq!(record.map(|record| record.id()), Some(target));
    let nobody = NodeId::from_bytes([9; 32]);
    assert_eq!(ask(PATIENCE, |reply| asker.resolve(nobody, reply)).await, Ok(None));
    assert_eq!(ask(PATIENCE, |reply| asker.random(2, reply)).await.expect("answered").len(), 2);
    let closest = ask(PATIENCE, |reply| asker.closest(target, 1, reply)).await.expect("answered");
    assert_eq!(closest.first().map(|record| record.id()), Some(target));
    let sizes = ask(PATIENCE, |reply| asker.table_sizes(reply)).await.expect("answered");
    assert_eq!(sizes.iter().sum::<usize>(), 3);
    asker.resolve_for(77, target);
    let resolved = tokio::time::timeout(PATIENCE, nodes[3].told.recv()).await.expect("in time");
    let Some(DiscoveryOut::Resolved { attempt: 77, record: Some(record) }) = resolved else { panic!("{resolved:?}") };
    assert_eq!(record.id(), target);
    nodes[3].child.stop();
    nodes[3].child.wait().await;
    assert_eq!(ask(PATIENCE, |reply| asker.table_sizes(reply)).await, Err(AskError::Dropped));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_actor_uses_the_same_socket_and_finds_the_others_again() {
    let (_memory, _clock, mut nodes) = nodes(4).await;
    let expected = others(&nodes, 2);
    assert_eq!(nodes[2].candidates(3).await, expected);
    nodes[2].child.kill();
    nodes[2].child.wait().await;
    let (mailbox, child) = spawn(nodes[2].args.clone(), &Supervisor::none()).await.expect("starts again");
    (nodes[2].mailbox, nodes[2].child) = (mailbox, child);
    assert_eq!(nodes[2].candidates(3).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_bad_configuration_or_anothers_record_is_refused_at_the_start() {
    let (_memory, _clock, nodes) = nodes(2).await;
    let config = Config { max_requests: 0, ..Config::local() };
    let refused = spawn(Args { config, ..nodes[0].args.clone() }, &Supervisor::none()).await;
    assert!(matches!(refused, Err(StartError::Config(ConfigError::Zero("max_requests")))));
    let record = nodes[1].args.record.clone();
    let refused = spawn(Args { record, ..nodes[0].args.clone() }, &Supervisor::none()).await;
    assert!(matches!(refused, Err(StartError::Record)));
    let denied = vec!["10.0.0.0/8".parse().expect("network"); Admission::MAX_NETWORKS + 1];
    let admission = Arc::new(Admission { denied, ..Admission::open() });
    let refused = spawn(Args { admission, ..nodes[0].args.clone() }, &Supervisor::none()).await;
    assert!(matches!(refused, Err(StartError::Admission(_))));
}

#[tokio::test(start_paused = true)]
async fn a_policy_holds_from_the_start_and_can_be_changed() {
    let (_memory, _clock, mut nodes) = nodes(3).await;
    let others = others(&nodes, 2);
    assert_eq!(nodes[2].candidates(2).await, others);
    assert_eq!(nodes[2].mailbox.table_len(), 2);
    let only = |id| Arc::new(Admission { only: Some([id].into()), ..Admission::open() });
    nodes[2].mailbox.admission(only(nodes[0].id));
    let sizes = ask(PATIENCE, |reply| nodes[2].mailbox.table_sizes(reply)).await.expect("answered");
    assert_eq!((sizes.iter().sum::<usize>(), nodes[2].mailbox.table_len()), (1, 1));

    nodes[2].child.kill();
    nodes[2].child.wait().await;
    let args = Args { admission: only(nodes[1].id), ..nodes[2].args.clone() };
    let (mailbox, _child) = spawn(args, &Supervisor::none()).await.expect("starts again");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let found = ask(PATIENCE, |reply| mailbox.random(9, reply)).await.expect("answered");
    assert_eq!(found.iter().map(|record| record.id()).collect::<Vec<_>>(), [nodes[1].id]);
}

#[tokio::test(start_paused = true)]
async fn packets_of_who_is_not_admitted_are_not_answered_until_it_is() {
    let (memory, _clock, nodes) = nodes(1).await;
    let raw = stranger(&memory, &nodes[0], "10.0.0.50:1").await;
    let request = raw.packet(Cookie::NONE, Message::Ping { record_seq: 1 });
    let denied = vec!["10.0.0.48/29".parse().expect("network")];
    nodes[0].mailbox.admission(Arc::new(Admission { denied, ..Admission::open() }));
    tokio::time::sleep(Duration::from_millis(1)).await;
    raw.send(&request);
    assert_eq!(raw.received().await, []);
    nodes[0].mailbox.admission(Arc::new(Admission::open()));
    tokio::time::sleep(Duration::from_millis(1)).await;
    raw.send(&request);
    assert_eq!(raw.received().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_one_life_told_to_be_alive_seeds_the_next_without_a_bootnode() {
    let (_memory, _clock, mut nodes) = nodes(3).await;
    let mut seeds = Vec::new();
    while seeds.is_empty() {
        match tokio::time::timeout(Duration::from_secs(300), nodes[2].told.recv()).await.expect("in time") {
            Some(DiscoveryOut::Alive(record)) => seeds.push(record),
            other => panic!("{other:?}"),
        }
    }
    nodes[2].child.kill();
    nodes[2].child.wait().await;
    let args = Args { bootnodes: vec![], seeds, ..nodes[2].args.clone() };
    let (mailbox, child) = spawn(args, &Supervisor::none()).await.expect("starts again");
    (nodes[2].mailbox, nodes[2].child) = (mailbox, child);
    let expected = others(&nodes, 2);
    assert_eq!(nodes[2].candidates(2).await, expected);
}

/// A socket in the hands of somebody who speaks the protocol by hand.
struct Raw {
    socket: Datagram,
    keys: Keypair,
    to: NodeId,
    addr: SocketAddr,
}

impl Raw {
    fn packet(&self, cookie: Cookie, message: Message) -> Packet {
        Packet { nonce: Nonce { counter: 1, mac: [3; 8] }, cookie, expiry: UNIX.as_secs() + 20, message }
    }

    fn send(&self, packet: &Packet) {
        self.socket.send_to(&packet.seal(network(), &self.keys, self.to), self.addr).expect("sent");
    }

    /// What comes back within two seconds.
    async fn received(&self) -> Vec<(Vec<u8>, Kind)> {
        let (mut all, mut buffer) = (Vec::new(), [0; MAX_PACKET]);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        while let Ok(Ok((len, _))) = tokio::time::timeout_at(deadline, self.socket.recv_from(&mut buffer)).await {
            let bytes = buffer[..len].to_vec();
            let kind = Envelope::read(&bytes).expect("a packet").header.kind;
            all.push((bytes, kind));
        }
        all
    }
}

async fn stranger(memory: &MemoryNetwork, node: &Node, on: &str) -> Raw {
    let on: SocketAddr = on.parse().expect("address");
    let socket = memory.host(on.ip()).bind_datagram(on).await.expect("bound");
    Raw { socket, keys: Keypair::from_seed([99; 32]), to: node.id, addr: node.addr }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_gets_a_cookie_first_and_nothing_with_anothers() {
    let (memory, _clock, nodes) = nodes(1).await;
    let raw = stranger(&memory, &nodes[0], "10.0.0.50:1").await;
    let request = raw.packet(Cookie::NONE, Message::FindNode { target: Key::of(raw.to) });
    let sent = request.seal(network(), &raw.keys, raw.to).len();
    raw.send(&request);
    let received = raw.received().await;
    let [(cookie, Kind::Cookie)] = &received[..] else { panic!("{received:?}") };
    assert!(cookie.len() < sent, "nothing is amplified");
    let cookie = Envelope::read(cookie).expect("a packet").header.cookie;

    let elsewhere = stranger(&memory, &nodes[0], "10.0.0.51:1").await;
    elsewhere.send(&elsewhere.packet(cookie, Message::Ping { record_seq: 1 }));
    let kinds: Vec<_> = elsewhere.received().await.into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [Kind::Cookie]);

    raw.send(&raw.packet(cookie, Message::FindNode { target: Key::of(raw.to) }));
    let kinds: Vec<_> = raw.received().await.into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [Kind::Neighbors, Kind::RecordRequest], "an answer, and who are you?");
}

#[tokio::test(start_paused = true)]
async fn nothing_answers_what_is_oversized_expired_forged_or_unasked() {
    let (memory, clock, nodes) = nodes(1).await;
    let raw = stranger(&memory, &nodes[0], "10.0.0.50:1").await;
    raw.send(&raw.packet(Cookie::NONE, Message::Ping { record_seq: 1 }));
    let cookie = Envelope::read(&raw.received().await[0].0).expect("a packet").header.cookie;
    let ping = raw.packet(cookie, Message::Ping { record_seq: 1 });

    raw.send(&Packet { expiry: (clock.now().unix() - Duration::from_secs(3_600)).as_secs(), ..ping.clone() });
    raw.send(&Packet { expiry: u64::MAX, ..ping.clone() });
    raw.send(&raw.packet(Cookie::NONE, Message::Pong { record_seq: 1, observed: raw.addr }));
    raw.send(&raw.packet(Cookie::NONE, Message::Neighbors { index: 0, total: 1, records: vec![] }));
    raw.send(&raw.packet(cookie, Message::Cookie));
    let mut forged = ping.seal(network(), &raw.keys, raw.to);
    *forged.last_mut().expect("a signature") ^= 1;
    raw.socket.send_to(&forged, raw.addr).expect("sent");
    let mut long = ping.seal(network(), &raw.keys, raw.to);
    long.resize(MAX_PACKET + 1, 0);
    raw.socket.send_to(&long, raw.addr).expect("sent");
    raw.socket.send_to(&[0; 5], raw.addr).expect("sent");
    raw.socket.send_to(&ping.seal(NetworkId::named("other"), &raw.keys, raw.to), raw.addr).expect("sent");
    assert_eq!(raw.received().await, []);

    raw.send(&ping);
    let kinds: Vec<_> = raw.received().await.into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [Kind::Pong, Kind::RecordRequest], "it is alive and well");
}

#[cfg(feature = "fault-injection")]
#[tokio::test(start_paused = true)]
async fn an_injected_panic_ends_the_actor() {
    let (_memory, _clock, nodes) = nodes(1).await;
    nodes[0].mailbox.inject_panic();
    tokio::time::timeout(PATIENCE, nodes[0].child.wait()).await.expect("it ended");
}
