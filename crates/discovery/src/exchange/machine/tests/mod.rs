//! The rules of the exchange, one by one: a machine by itself, and what peers send it.

mod probing;
mod pulling;
mod serving;

use std::net::SocketAddr;
use std::time::Duration;

use peerage_machine::{Driver, Time};
use peerage_queue::{ChannelId, SessionId};
use peerage_wire::{Keypair, NetworkId, NodeId, NodeRecord, Penalty, RecordDraft, Verified, address};

use super::super::wire::{self, Item};
use super::super::{Config, DropReason, Event, ExchangeMachine, In, Out, PeerUp};

const SECOND: Duration = Duration::from_secs(1);

fn keys(n: u16) -> Keypair {
    let mut seed = [0; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    seed[2] = 1;
    Keypair::from_seed(seed)
}

fn id(n: u16) -> NodeId {
    keys(n).id()
}

/// Where the nth node listens: on a site of its own.
fn home(n: u16) -> SocketAddr {
    let [high, low] = n.to_be_bytes();
    SocketAddr::from(([20, high, low, 1], 30303))
}

fn record_at(n: u16, seq: u64, network: &str, sockets: &[SocketAddr]) -> Verified<NodeRecord> {
    let draft = RecordDraft::new(seq, NetworkId::named(network));
    let draft = sockets.iter().fold(draft, |draft, socket| draft.address(address::from_tcp(*socket)));
    draft.sign(&keys(n)).expect("small")
}

fn record(n: u16) -> Verified<NodeRecord> {
    record_at(n, 1, "test", &[home(n)])
}

fn plain(numbers: impl IntoIterator<Item = u16>) -> Vec<NodeRecord> {
    numbers.into_iter().map(|n| record(n).into_inner()).collect()
}

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("a socket")
}

/// Node 0, whose peers the tests are.
struct Node {
    driver: Driver<ExchangeMachine>,
    now: Time,
}

impl Node {
    fn new() -> Node {
        Node::with(Config::recommended())
    }

    fn with(config: Config) -> Node {
        Node::listening(config, record(0))
    }

    fn listening(config: Config, local: Verified<NodeRecord>) -> Node {
        let mut node = Node { driver: Driver::new(ExchangeMachine::new(config, local, 7)), now: Time::ZERO };
        assert_eq!(node.tell(In::Start), []);
        node
    }

    fn tell(&mut self, input: In) -> Vec<Out> {
        self.driver.handle(self.now, input);
        self.driver.drain().collect()
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, time: Duration) -> Vec<Out> {
        let until = self.now + time;
        let mut outs = Vec::new();
        while let Some(at) = self.driver.next_deadline().filter(|at| *at <= until) {
            self.now = at;
            self.driver.expire_due(at);
            outs.extend(self.driver.drain());
        }
        self.now = until;
        outs
    }

    /// The nth node connects, or is dialled, where it listens; its session has its number.
    fn up(&mut self, n: u16) -> Vec<Out> {
        self.up_at(n, home(n), true, record(n))
    }

    fn up_at(&mut self, n: u16, remote: SocketAddr, dialled: bool, record: Verified<NodeRecord>) -> Vec<Out> {
        let (session, channel) = (SessionId(n.into()), Some(ChannelId(2)));
        self.tell(In::PeerUp(PeerUp { session, channel, remote, dialled, record }))
    }

    fn down(&mut self, n: u16) -> Vec<Out> {
        self.tell(In::PeerDown(SessionId(n.into())))
    }

    fn hear(&mut self, n: u16, item: &Item) -> Vec<Out> {
        self.tell(In::Inbound { session: SessionId(n.into()), stream: 0, payload: item.encode() })
    }

    /// The nth node answers a pull; the signatures hold.
    fn told(&mut self, n: u16, records: Vec<NodeRecord>) -> Vec<Out> {
        let mut outs = self.hear(n, &Item::Records(records));
        if let Some((token, records)) = to_verify(&outs) {
            let records = records.into_iter().filter_map(|record| record.verify().ok()).collect();
            outs.extend(self.tell(In::Verified { token, records }));
        }
        outs
    }

    /// Waits until somebody is pulled, and says who.
    fn anyone_pulled(&mut self) -> (u16, Item) {
        for _ in 0..1_200 {
            for out in self.pass(SECOND / 4) {
                if let Out::Send { to, payload } = out {
                    let items = wire::items(&payload).expect("what is sent can be read");
                    if let Some(pull) = items.into_iter().find(|item| matches!(item, Item::Pull { .. })) {
                        return (u16::try_from(to.session.0).expect("small"), pull);
                    }
                }
            }
        }
        panic!("nobody was asked for five minutes")
    }

    /// Waits until the nth node is pulled; the others answer that they know nobody.
    fn pulled(&mut self, n: u16) -> Item {
        loop {
            let (asked, pull) = self.anyone_pulled();
            if asked == n {
                return pull;
            }
            self.told(asked, Vec::new());
        }
    }
}

fn to_verify(outs: &[Out]) -> Option<(u64, Vec<NodeRecord>)> {
    outs.iter().find_map(|out| match out {
        Out::Verify { token, records } => Some((*token, records.clone())),
        _ => None,
    })
}

/// What the nth node was sent.
fn sent(outs: &[Out], n: u16) -> Vec<Item> {
    let theirs = outs.iter().filter_map(|out| match out {
        Out::Send { to, payload } if to.session == SessionId(n.into()) => Some(payload),
        _ => None,
    });
    theirs.flat_map(|payload| wire::items(payload).expect("what is sent can be read")).collect()
}

fn drops(outs: &[Out], reason: DropReason) -> usize {
    outs.iter().filter(|out| **out == Out::Drop(reason)).count()
}

fn events(outs: &[Out], event: Event) -> usize {
    outs.iter().filter(|out| **out == Out::Event(event)).count()
}

fn reports(outs: &[Out]) -> Vec<(u16, Penalty)> {
    let reported = outs.iter().filter_map(|out| match out {
        Out::Report { session, penalty } => Some((u16::try_from(session.0).expect("small"), *penalty)),
        _ => None,
    });
    reported.collect()
}

/// Whom the dialer got.
fn candidates(outs: &[Out]) -> Vec<NodeId> {
    let found = outs.iter().filter_map(|out| match out {
        Out::Candidates(found) => Some(found.iter().map(|(record, _)| record.id())),
        _ => None,
    });
    found.flatten().collect()
}

/// Whom discovery got.
fn offers(outs: &[Out]) -> Vec<NodeId> {
    let offered = outs.iter().filter_map(|out| match out {
        Out::Offer(records) => Some(records.iter().map(|record| record.id())),
        _ => None,
    });
    offered.flatten().collect()
}
