//! A flood of datagrams against a node on loopback while honest peers ping it: for a test, and for a measurement.
//!
//! Three threads: the node under attack, with a runtime of its own; the honest peers; and the generator, which sends as
//! fast as it can. Every party has an address of its own (all of 127.0.0.0/8 is this computer's on Linux), and the node
//! exempts none from its limits.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peerage_discovery::peerage_machine::journal::Journals;
use peerage_discovery::peerage_mailbox::{Clock, Counts, Meter, Port, Supervisor};
use peerage_discovery::peerage_transport::{Datagram, Transport};
use peerage_discovery::peerage_wire::{Admission, Keypair, NetworkId, NodeId, NodeRecord, RecordDraft, address};
use peerage_discovery::wire::{Cookie, Envelope, Kind, MAX_PACKET, Message, Nonce, Packet, neighbors};
use peerage_discovery::{Args, Config, Secrets, spawn};

/// Addresses that attack, each in a site of its own.
pub(crate) const SOURCES: u8 = 24;
/// Honest peers, each in a site of its own.
pub(crate) const HONEST: u8 = 16;
/// Between two pings of one of them.
const PING_EVERY: Duration = Duration::from_millis(125);
/// In which they get to know the node before the flood begins.
const CALM: Duration = Duration::from_secs(1);
/// A ping that has no answer by then is unanswered.
const ANSWER: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Flooded {
    /// Datagrams sent by kind: garbage, requests without a cookie, bad signatures with one.
    pub(crate) sent: [u64; 3],
    /// How long that took.
    pub(crate) lasted: Duration,
    /// Honest pings sent meanwhile, and those that were answered within a second.
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    /// Datagrams that the system lost as the node's socket was full.
    pub(crate) lost: u64,
    /// What the node dropped meanwhile, by reason.
    pub(crate) dropped: BTreeMap<String, u64>,
    /// What the caller's probe said on the node's thread before and after.
    pub(crate) probes: [u64; 2],
    /// How many nodes its table held at the end.
    pub(crate) known: usize,
}

fn network() -> NetworkId {
    NetworkId::named("flood")
}

fn record(keys: &Keypair, at: SocketAddr) -> NodeRecord {
    let draft = RecordDraft::new(1, network()).address(address::from_udp(at));
    draft.sign(keys).expect("small").into_inner()
}

fn expiry() -> u64 {
    Clock::system().now().unix().as_secs() + 20
}

/// Where the node is, and how to ask it things.
#[derive(Clone)]
struct Victim {
    id: NodeId,
    at: SocketAddr,
    socket: Arc<Datagram>,
    counts: Counts,
    ask: tokio::sync::mpsc::Sender<std::sync::mpsc::Sender<(u64, usize)>>,
}

impl Victim {
    /// What the probe says on its thread, and how many it knows.
    fn probe(&self) -> (u64, usize) {
        let (reply, answer) = std::sync::mpsc::channel();
        self.ask.blocking_send(reply).expect("it runs");
        answer.recv().expect("it answers")
    }

    fn dropped(&self) -> BTreeMap<String, u64> {
        self.counts.counters("peerage_discovery_drops_total")
    }
}

/// Runs the node until nobody can ask it any more.
async fn serve(probe: fn() -> u64, tell: std::sync::mpsc::Sender<Victim>) {
    let socket = Transport::sockets().bind_datagram((Ipv4Addr::LOCALHOST, 0).into()).await.expect("bound");
    let (socket, keys) = (Arc::new(socket), Keypair::from_seed([1; 32]));
    let at = socket.local_addr().expect("bound");
    let (counts, clock) = (Counts::default(), Clock::system());
    let (id, record) = (keys.id(), record(&keys, at).verify().expect("its own"));
    let args = Args {
        config: Config { exempt_local: false, ..Config::local() },
        keys,
        record,
        sockets: vec![socket.clone()],
        foreign: None,
        sources: Default::default(),
        bootnodes: Vec::new(),
        seeds: Vec::new(),
        admission: Arc::new(Admission::open()),
        secrets: Secrets::generate().expect("randomness"),
        seed: 1,
        clock,
        meter: Meter::new(Arc::new(counts.clone())),
        journals: Journals::off(),
        out: Port::from_fn(drop),
    };
    let (mailbox, _child) = spawn(args, &Supervisor::none()).await.expect("starts");
    let (ask, mut asked) = tokio::sync::mpsc::channel::<std::sync::mpsc::Sender<(u64, usize)>>(1);
    tell.send(Victim { id, at, socket, counts, ask }).expect("somebody waits");
    while let Some(reply) = asked.recv().await {
        let _ = reply.send((probe(), mailbox.table_len()));
    }
}

/// What honest peers do and count.
#[derive(Default)]
struct Honest {
    flooding: AtomicBool,
    done: AtomicBool,
    asked: AtomicU64,
    answered: AtomicU64,
}

/// Pings the node as long as it may, and answers its questions as a node does.
async fn honest(number: u8, victim: Victim, shared: Arc<Honest>) {
    let on = SocketAddr::from((Ipv4Addr::new(127, 200, number, 1), 0));
    let socket = Transport::sockets().bind_datagram(on).await.expect("bound");
    let keys = Keypair::from_seed([50 + number; 32]);
    let own = record(&keys, socket.local_addr().expect("bound"));
    let send = |nonce, cookie, message| {
        let packet = Packet { nonce, cookie, expiry: expiry(), message };
        drop(socket.send_to(&packet.seal(network(), &keys, victim.id), victim.at));
    };
    let (mut cookie, mut counter) = (Cookie::NONE, 0);
    let mut waiting = BTreeMap::new();
    // Spread over time, as those of strangers to each other are.
    tokio::time::sleep(PING_EVERY * u32::from(number) / u32::from(HONEST)).await;
    let mut ticks = tokio::time::interval(PING_EVERY);
    let mut buffer = [0; MAX_PACKET];
    while !shared.done.load(Ordering::Relaxed) {
        tokio::select! {
            biased;
            received = socket.recv_from(&mut buffer) => {
                let Ok((len, _)) = received else { continue };
                let Ok(envelope) = Envelope::read(&buffer[..len]) else { continue };
                let header = envelope.header;
                match header.kind {
                    Kind::Cookie => cookie = header.cookie,
                    Kind::Pong => {
                        let asked: Option<Instant> = waiting.remove(&header.nonce.counter);
                        if asked.is_some_and(|at| at.elapsed() <= ANSWER) {
                            shared.answered.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Kind::Ping => {
                        let pong = Message::Pong { record_seq: 1, observed: victim.at };
                        send(header.nonce, Cookie::NONE, pong);
                    }
                    Kind::FindNode => neighbors(&[]).into_iter().for_each(|m| send(header.nonce, Cookie::NONE, m)),
                    Kind::RecordRequest => {
                        send(header.nonce, Cookie::NONE, Message::RecordResponse { record: own.clone() });
                    }
                    _ => {}
                }
            }
            _ = ticks.tick() => {
                counter += 1;
                if shared.flooding.load(Ordering::Relaxed) {
                    shared.asked.fetch_add(1, Ordering::Relaxed);
                    waiting.insert(counter, Instant::now());
                }
                send(Nonce { counter, mac: [number; 8] }, cookie, Message::Ping { record_seq: 1 });
            }
        }
    }
}

/// One address that attacks, and what it sends.
struct Source {
    socket: UdpSocket,
    kinds: [Vec<u8>; 3],
}

impl Source {
    /// Gets itself a cookie, as anybody can.
    fn new(number: u8, victim: &Victim) -> Source {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 10 + number, 0, 1), 0)).expect("bound");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket");
        let keys = Keypair::from_seed([120 + number; 32]);
        let ping = |cookie| {
            let nonce = Nonce { counter: 7, mac: [number; 8] };
            let packet = Packet { nonce, cookie, expiry: expiry(), message: Message::Ping { record_seq: 1 } };
            packet.seal(network(), &keys, victim.id)
        };
        let unproven = ping(Cookie::NONE);
        socket.send_to(&unproven, victim.at).expect("sent");
        let mut buffer = [0; MAX_PACKET];
        let (len, _) = socket.recv_from(&mut buffer).expect("a cookie");
        let mut forged = ping(Envelope::read(&buffer[..len]).expect("a packet").header.cookie);
        *forged.last_mut().expect("a signature") ^= 1;
        Source { socket, kinds: [vec![number; forged.len()], unproven, forged] }
    }
}

/// Sends as fast as it can, or no more than so many a second.
fn generate(sources: &[Source], to: SocketAddr, lasting: Duration, rate: Option<u32>) -> ([u64; 3], Duration) {
    let (mut sent, begun) = ([0; 3], Instant::now());
    while begun.elapsed() < lasting {
        for source in sources {
            for (sent, bytes) in sent.iter_mut().zip(&source.kinds) {
                *sent += u64::from(source.socket.send_to(bytes, to).is_ok());
            }
        }
        let due = rate.map(|rate| Duration::from_secs(sent.iter().sum()) / rate);
        if let Some(early) = due.and_then(|due| due.checked_sub(begun.elapsed())) {
            thread::sleep(early);
        }
    }
    (sent, begun.elapsed())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Floods a node for this long, as fast as this computer can or with so many datagrams a second. `probe` is called on the node's thread before and after.
pub(crate) fn flood(lasting: Duration, rate: Option<u32>, probe: fn() -> u64) -> Flooded {
    let (tell, told) = std::sync::mpsc::channel();
    let node = thread::spawn(move || runtime().block_on(serve(probe, tell)));
    let victim = told.recv().expect("it starts");
    let shared = Arc::new(Honest::default());
    let peers = thread::spawn({
        let (victim, shared) = (victim.clone(), shared.clone());
        move || {
            let peers = async { futures(victim, shared).await };
            runtime().block_on(peers);
        }
    });
    let sources: Vec<Source> = (0..SOURCES).map(|number| Source::new(number, &victim)).collect();
    thread::sleep(CALM);
    let (before, lost, dropped) = (victim.probe().0, victim.socket.lost().unwrap_or(0), victim.dropped());
    shared.flooding.store(true, Ordering::Relaxed);
    let (sent, lasted) = generate(&sources, victim.at, lasting, rate);
    shared.flooding.store(false, Ordering::Relaxed);
    // Honest pings of the last moment still have their second.
    thread::sleep(ANSWER);
    let (after, known) = victim.probe();
    let since = |(reason, count): (String, u64)| {
        let count = count - dropped.get(&reason).copied().unwrap_or(0);
        let word = reason.split_once('=').map_or(reason.as_str(), |(_, word)| word.trim_end_matches('}'));
        (word.to_owned(), count)
    };
    let flooded = Flooded {
        sent,
        lasted,
        asked: shared.asked.load(Ordering::Relaxed),
        answered: shared.answered.load(Ordering::Relaxed),
        lost: victim.socket.lost().unwrap_or(0) - lost,
        dropped: victim.dropped().into_iter().map(since).collect(),
        probes: [before, after],
        known,
    };
    shared.done.store(true, Ordering::Relaxed);
    peers.join().expect("no honest peer panics");
    drop(victim);
    node.join().expect("the node does not panic");
    flooded
}

/// All honest peers, on one thread.
async fn futures(victim: Victim, shared: Arc<Honest>) {
    let peers: Vec<_> =
        (0..HONEST).map(|number| tokio::spawn(honest(number, victim.clone(), shared.clone()))).collect();
    drop(victim);
    for peer in peers {
        peer.await.expect("no honest peer panics");
    }
}
