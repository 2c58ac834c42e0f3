//! Two exchange actors joined by plain queues, under paused time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_discovery::exchange::{Args, Charge, Config, ExchangeMailbox, ExchangeOut, PeerUp, spawn};
use peerage_discovery::peerage_machine::journal::Journals;
use peerage_discovery::peerage_mailbox::{Capacity, Child, Clock, Inlet, Meter, Outlet, Port, Supervisor, data_queue};
use peerage_discovery::peerage_transport::{Link, MemoryNetwork};
use peerage_discovery::peerage_wire::{Admission, Keypair, NetworkId, NodeRecord, RecordDraft, Verified, address};
use peerage_queue::{ChannelId, Delivery, Inbound, Push, SessionId};
use tokio::sync::mpsc;

const ROOM: Capacity = Capacity { items: 1_000, weight: 1 << 20 };
const SECOND: Duration = Duration::from_secs(1);

fn home(n: u8) -> SocketAddr {
    SocketAddr::from(([20, 0, n, 1], 30303))
}

fn record(n: u8) -> Verified<NodeRecord> {
    let draft = RecordDraft::new(1, NetworkId::named("test")).address(address::from_tcp(home(n)));
    draft.sign(&Keypair::from_seed([n; 32])).expect("small")
}

struct Node {
    n: u8,
    args: Args,
    exchange: ExchangeMailbox,
    child: Child,
    inbound: Outlet<Inbound>,
    pushes: Inlet<Push>,
    told: mpsc::UnboundedReceiver<ExchangeOut>,
}

impl Node {
    async fn start(n: u8, network: &MemoryNetwork, clock: Clock) -> Node {
        let (inbound, inbound_end) = data_queue(ROOM);
        let (push, pushes) = data_queue(ROOM);
        let (tell, told) = mpsc::unbounded_channel();
        let args = Args {
            config: Config::recommended(),
            record: record(n),
            admission: Arc::new(Admission::open()),
            seed: n.into(),
            inbound: inbound_end,
            push,
            transport: network.host(home(n).ip()),
            out: Port::from_fn(move |out| drop(tell.send(out))),
            charge: Charge::default(),
            clock,
            meter: Meter::none(),
            journals: Journals::off(),
        };
        let (exchange, child) = spawn(args.clone(), &Supervisor::none()).await.expect("starts");
        Node { n, args, exchange, child, inbound, pushes, told }
    }

    fn up(&self, other: u8) {
        let (session, channel) = (SessionId(other.into()), Some(ChannelId(2)));
        let (remote, record) = (home(other), record(other));
        self.exchange.peer_up(PeerUp { session, channel, remote, dialled: true, record });
    }

    /// Carries what it pushes to the other one's session of it.
    fn connect(&self, other: &Node) {
        let (mut pushes, inbound) = (self.pushes.clone(), other.inbound.clone());
        let (me, them) = (SessionId(self.n.into()), SessionId(other.n.into()));
        tokio::spawn(async move {
            while let Ok(Push { to, lane, payload, .. }) = pushes.recv().await {
                for recipient in to.into_iter().filter(|recipient| recipient.session == them) {
                    let (channel, payload) = (recipient.channel, payload.clone());
                    inbound.offer(Delivery { session: me, channel, stream: 0, lane, payload }.into()).expect("room");
                }
            }
        });
    }

    /// What it told the root within some time.
    async fn told_within(&mut self, time: Duration) -> Vec<ExchangeOut> {
        tokio::time::sleep(time).await;
        std::iter::from_fn(|| self.told.try_recv().ok()).collect()
    }
}

async fn pair() -> (MemoryNetwork, Node, Node) {
    let (network, clock) =
        (MemoryNetwork::new(1, Link::default()), Clock::simulated(Duration::from_secs(1_800_000_000)));
    let (a, b) = (Node::start(1, &network, clock).await, Node::start(2, &network, clock).await);
    a.connect(&b);
    b.connect(&a);
    (network, a, b)
}

#[tokio::test(start_paused = true)]
async fn a_node_learns_its_peers_peers_and_offers_them_or_hands_them_out() {
    let (_network, a, mut b) = pair().await;
    a.up(3);
    a.up(2);
    b.up(1);
    let told = b.told_within(2 * SECOND).await;
    assert!(told.contains(&ExchangeOut::Offer(vec![record(3)])), "{told:?}");
    assert!(told.contains(&ExchangeOut::Observed { by: home(1), observed: home(2) }), "{told:?}");
    b.exchange.want(5, true);
    assert_eq!(b.told_within(SECOND).await, [ExchangeOut::Candidates(vec![(record(3), vec![home(3)])])]);
}

#[tokio::test(start_paused = true)]
async fn what_a_session_sent_before_its_news_arrived_is_not_lost() {
    let (_network, a, mut b) = pair().await;
    a.up(2);
    // Of a knows b already and speaks, b's root has not said yet that it has a session.
    tokio::time::sleep(SECOND / 2).await;
    b.up(1);
    let told = b.told_within(SECOND).await;
    assert!(told.contains(&ExchangeOut::Observed { by: home(1), observed: home(2) }), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_is_dialled_and_told_whether_its_port_is_open() {
    for open in [true, false] {
        let (network, a, b) = pair().await;
        let listener = if open { Some(network.host(home(1).ip()).listen(home(1)).await.expect("free")) } else { None };
        a.up(2);
        b.up(1);
        let accepted = async {
            match listener {
                Some(mut listener) => listener.accept().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        let accepted = tokio::time::timeout(60 * SECOND, accepted).await;
        assert_eq!(accepted.is_ok(), open, "a connection, and only where somebody listens");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_actor_goes_on_with_the_same_queues() {
    let (_network, a, mut b) = pair().await;
    a.up(3);
    a.up(2);
    b.up(1);
    b.told_within(2 * SECOND).await;
    b.child.kill();
    b.child.wait().await;
    (b.exchange, b.child) = spawn(b.args.clone(), &Supervisor::none()).await.expect("starts again");
    b.up(1);
    let told = b.told_within(60 * SECOND).await;
    assert!(told.contains(&ExchangeOut::Offer(vec![record(3)])), "{told:?}");
    assert!(!told.iter().any(|out| matches!(out, ExchangeOut::Report { .. })), "{told:?}");
    let mut bad = b.args.clone();
    bad.config.max_known = 0;
    assert!(spawn(bad, &Supervisor::none()).await.is_err());
    assert!(!b.args.charge.take());
}
