//! Two routers joined by a cable in one process. In a node, sessions and queues are between.

mod cable;
mod way;

use std::error::Error;

use peerage_router::peerage_machine::journal::Journals;
use peerage_router::peerage_mailbox::{Capacity, Clock, Meter, Outlet, Port, Supervisor, data_queue};
use peerage_router::peerage_queue::stream::AcceptedStream;
use peerage_router::peerage_queue::{ChannelId, Inbound, Pool, PoolConfig, SessionId};
use peerage_router::peerage_wire::{Keypair, NodeId};
use peerage_router::{Args, Config, Memory, PeerUp, Router, RouterMailbox};

const ROOM: Capacity = Capacity { items: 1_000, weight: 8 << 20 };

/// A router, and who asks through it.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) mailbox: RouterMailbox,
    pub(crate) router: Router,
    streams: Outlet<AcceptedStream>,
    hears: Outlet<Inbound>,
    pool: Pool,
}

impl Node {
    async fn start(n: u8) -> Result<Node, Box<dyn Error>> {
        let pool = Pool::new(PoolConfig::outbound());
        let (hears, inbound) = data_queue(ROOM);
        let (streams, accepted) = data_queue(ROOM);
        let (report_failures, failures) = data_queue(ROOM);
        let (router, asks) = Router::new(ROOM);
        let args = Args {
            config: Config::recommended(),
            seed: n.into(),
            inbound,
            streams: accepted,
            asks,
            failures,
            report_failures,
            pool: pool.clone(),
            events: Port::closed(),
            clock: Clock::system(),
            meter: Meter::none(),
            memory: Memory::new(),
            journals: Journals::off(),
        };
        let (mailbox, _) = peerage_router::spawn(args, &Supervisor::none()).await?;
        Ok(Node { id: Keypair::from_seed([n; 32]).id(), mailbox, router, streams, hears, pool })
    }
}

/// Two that see each other.
pub(crate) async fn pair() -> Result<(Node, Node), Box<dyn Error>> {
    let (alice, bob) = (Node::start(1).await?, Node::start(2).await?);
    let (at_alice, at_bob, carry) = cable::cable(alice.streams.clone(), bob.streams.clone());
    tokio::spawn(carry);
    for (node, other, door) in [(&alice, &bob, at_alice), (&bob, &alice, at_bob)] {
        let up = PeerUp { session: SessionId(1), id: other.id, channel: ChannelId(1) };
        node.mailbox.peer_up(up, way::way(&node.pool, Clock::system(), other.hears.clone()));
        node.mailbox.streams(SessionId(1), door);
    }
    Ok((alice, bob))
}
