//! One session floods, another asks once: whose request is handled when.

#[path = "../examples/support/way.rs"]
mod way;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerage_router::peerage_machine::journal::Journals;
use peerage_router::peerage_mailbox::{
    Capacity, Child, Clock, Inlet, Meter, Outlet, Port, Supervisor, ask, data_queue,
};
use peerage_router::peerage_queue::{ChannelId, Inbound, Pool, PoolConfig, SendFailed, SessionId};
use peerage_router::peerage_wire::{Keypair, NodeId};
use peerage_router::{Args, Config, Handler, HandlerConfig, Incoming, Memory, PeerUp, Router, RouterMailbox};

const ROOM: Capacity = Capacity { items: 10_000, weight: 64 << 20 };
const SECOND: Duration = Duration::from_secs(1);

struct Node {
    id: NodeId,
    mailbox: RouterMailbox,
    _child: Child,
    router: Router,
    hears: Outlet<Inbound>,
    pool: Pool,
    clock: Clock,
}

impl Node {
    async fn start(n: u8) -> Node {
        let clock = Clock::simulated(Duration::from_secs(1_800_000_000));
        let (hears, inbound) = data_queue(ROOM);
        let (_, streams) = data_queue(ROOM);
        let (report_failures, failures) = data_queue::<SendFailed>(ROOM);
        let (router, asks) = Router::new(ROOM);
        let pool = Pool::new(PoolConfig::outbound());
        let args = Args {
            config: Config::recommended(),
            seed: u64::from(n),
            inbound,
            streams,
            asks,
            failures,
            report_failures,
            pool: pool.clone(),
            events: Port::from_fn(|_| ()),
            clock,
            meter: Meter::none(),
            memory: Memory::new(),
            journals: Journals::off(),
        };
        let (mailbox, child) = peerage_router::spawn(args, &Supervisor::none()).await.expect("starts");
        Node { id: Keypair::from_seed([n; 32]).id(), mailbox, _child: child, router, hears, pool, clock }
    }

    /// Sees a peer in this session, to whom what it says goes.
    fn sees(&self, session: u64, peer: NodeId, says: Outlet<Inbound>) {
        let up = PeerUp { session: SessionId(session), id: peer, channel: ChannelId(1) };
        self.mailbox.peer_up(up, way::way(&self.pool, self.clock, says));
    }

    /// The messages that it asks the other one with, which are not sent.
    async fn asks(&self, other: NodeId, payloads: std::ops::Range<u32>) -> Vec<Inbound> {
        let (says, said): (_, Inlet<Inbound>) = data_queue(ROOM);
        self.sees(1, other, says);
        for payload in payloads {
            let (router, payload) = (self.router.clone(), payload.to_be_bytes().to_vec());
            tokio::spawn(async move { router.request(other, "log", payload, 10 * SECOND).await });
        }
        tokio::time::sleep(SECOND).await;
        said.take(usize::MAX)
    }
}

/// As a session hands it on.
fn from(session: u64, mut inbound: Inbound) -> Inbound {
    inbound.delivery.session = SessionId(session);
    inbound
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_behind_the_flood_of_another_session() {
    let (node, flooder, honest) = (Node::start(1).await, Node::start(2).await, Node::start(3).await);
    let called = Arc::new(Mutex::new(Vec::new()));
    let log = called.clone();
    let handler = Handler::function(move |Incoming { payload, .. }: Incoming| {
        let bytes = payload.as_ref().try_into().expect("four bytes");
        log.lock().expect("no panic").push(u32::from_be_bytes(bytes));
        Ok(payload)
    });
    ask(SECOND, |reply| node.mailbox.add_handler("log", HandlerConfig::in_order(), handler, Some(reply)))
        .await
        .expect("answered")
        .expect("added");
    for (session, peer) in [(1, &flooder), (2, &honest)] {
        node.sees(session, peer.id, peer.hears.clone());
    }
    let flood = flooder.asks(node.id, 0..60).await;
    let asked = honest.asks(node.id, 1_000..1_001).await;
    let messages = flood.len();
    for inbound in flood {
        node.hears.offer(from(1, inbound)).expect("room");
    }
    for inbound in asked {
        node.hears.offer(from(2, inbound)).expect("room");
    }
    tokio::time::sleep(SECOND).await;
    let called = called.lock().expect("no panic");
    let place = called.iter().position(|payload| *payload == 1_000).expect("it was called");
    assert!(messages > 10 && called.len() == 61, "{messages} messages, {} calls", called.len());
    assert!(place <= 61_usize.div_ceil(messages), "behind {place} of 61 calls in {messages} messages");
    let of_flood: Vec<u32> = called.iter().copied().filter(|payload| *payload < 1_000).collect();
    assert_eq!(of_flood, (0..60).collect::<Vec<_>>(), "each session's in its order");
}
