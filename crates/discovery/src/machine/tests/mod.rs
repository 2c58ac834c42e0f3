//! The machine's rules, one machine at a time; `world` runs many.

mod admission;
mod handing;
mod hostile;
mod mixing;
mod rules;
mod sharing;
mod staying;
mod transport;
mod world;

use std::time::Duration;

use peerage_machine::Driver;
use peerage_wire::{Keypair, NetworkId, RecordDraft, address};

use super::*;
use crate::wire::{Cookie, Message, Nonce};

pub(super) fn network() -> NetworkId {
    NetworkId::named("test")
}

/// A scripted node: its id, its socket, its record.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) addr: SocketAddr,
    pub(super) record: Verified<NodeRecord>,
}

impl Peer {
    /// Number `number`, in a site of its own, reachable over UDP and TCP.
    pub(super) fn new(number: u16) -> Peer {
        let [high, low] = number.to_be_bytes();
        Peer::at(number, SocketAddr::from(([20, high, low, 1], 30303)), 1)
    }

    pub(super) fn at(number: u16, addr: SocketAddr, seq: u64) -> Peer {
        let draft = RecordDraft::new(seq, network()).address(address::from_tcp(addr)).address(address::from_udp(addr));
        Peer::with(number, addr, draft)
    }

    pub(super) fn with(number: u16, addr: SocketAddr, draft: RecordDraft) -> Peer {
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let keys = Keypair::from_seed(seed);
        let record = draft.sign(&keys).expect("small");
        Peer { id: keys.id(), addr, record }
    }

    pub(super) fn bootnode(&self) -> Bootnode {
        Bootnode { id: self.id, addr: self.addr }
    }

    /// What it sends, as the gate passes it on.
    pub(super) fn says(&self, nonce: Nonce, cookie: Cookie, message: Message) -> In {
        In::Packet(Inbound { from: self.id, addr: self.addr, packet: Packet { nonce, cookie, expiry: 0, message } })
    }

    pub(super) fn asks(&self, message: Message) -> In {
        self.says(Nonce { counter: 77, mac: [7; 8] }, Cookie([1; 16]), message)
    }

    pub(super) fn answers(&self, request: &Outgoing, message: Message) -> In {
        self.says(request.packet.nonce, Cookie::NONE, message)
    }

    pub(super) fn neighbors(&self, request: &Outgoing, told: &[&Peer]) -> In {
        let records = told.iter().map(|peer| peer.record.clone().into_inner()).collect();
        self.answers(request, Message::Neighbors { index: 0, total: 1, records })
    }

    pub(super) fn shows_record(&self, request: &Outgoing) -> In {
        self.answers(request, Message::RecordResponse { record: self.record.clone().into_inner() })
    }
}

/// One machine, its time set by hand; signatures of records are checked as the shell does.
pub(super) struct Solo {
    pub(super) driver: Driver<DiscoveryMachine>,
    pub(super) now: Time,
    pub(super) me: Peer,
}

pub(super) fn config() -> Config {
    Config { exempt_local: false, ..Config::recommended() }
}

impl Solo {
    pub(super) fn new(config: Config, bootnodes: &[&Peer]) -> Solo {
        Solo::with(config, bootnodes, |machine| machine)
    }

    pub(super) fn with(
        config: Config,
        bootnodes: &[&Peer],
        also: impl FnOnce(DiscoveryMachine) -> DiscoveryMachine,
    ) -> Solo {
        let me = Peer::new(9_999);
        let bootnodes = bootnodes.iter().map(|peer| peer.bootnode()).collect();
        let machine = DiscoveryMachine::new(config, me.record.clone(), Families::BOTH, bootnodes, 1);
        let now = Time::new(Duration::from_secs(100), Duration::from_secs(1_700_000_000));
        Solo { driver: Driver::new(also(machine)), now, me }
    }

    /// One that has begun a network and so takes whoever comes.
    pub(super) fn first(config: Config) -> Solo {
        let mut solo = Solo::new(config, &[]);
        solo.tell(In::Start);
        solo
    }

    /// One that knows these, each proved.
    pub(super) fn knowing(config: Config, peers: &[&Peer]) -> Solo {
        let mut solo = Solo::first(config);
        for peer in peers {
            solo.meet(peer);
        }
        solo
    }

    /// Lets a peer ping us and prove itself, unless there is no room for it; lookups that this starts find nobody.
    pub(super) fn meet(&mut self, peer: &Peer) {
        let outs = self.tell(peer.asks(Message::Ping { record_seq: peer.record.seq() }));
        let Some(request) = requests(&outs).pop() else { return };
        let outs = self.tell(peer.shows_record(&request));
        self.settle(outs, peer);
    }

    /// Answers every `FindNode` among these, and what follows, with nobody.
    fn settle(&mut self, outs: Vec<Out>, peer: &Peer) {
        let mut waiting = finds(&outs);
        while let Some(request) = waiting.pop() {
            let answerer = Peer { id: request.to, addr: request.addr, ..peer.clone() };
            let outs = self.tell(answerer.neighbors(&request, &[]));
            waiting.extend(finds(&outs));
        }
    }

    pub(super) fn tell(&mut self, input: In) -> Vec<Out> {
        self.driver.handle(self.now, input);
        self.outs()
    }

    fn outs(&mut self) -> Vec<Out> {
        let mut all = Vec::new();
        loop {
            let outs: Vec<Out> = self.driver.drain().collect();
            if outs.is_empty() {
                return all;
            }
            for out in outs {
                match out {
                    Out::Verify { token, records } => {
                        let records = records.into_iter().filter_map(|record| record.verify().ok()).collect();
                        self.driver.handle(self.now, In::Verified { token, records });
                    }
                    out => all.push(out),
                }
            }
        }
    }

    /// Lets time pass, timer by timer.
    pub(super) fn pass(&mut self, by: Duration) -> Vec<Out> {
        let end = self.now + by;
        let mut outs = Vec::new();
        while let Some(at) = self.driver.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.driver.expire_due(self.now);
            outs.extend(self.outs());
        }
        self.now = end;
        outs
    }

    /// Lets time pass until a peer is checked.
    pub(super) fn check_of(&mut self, peer: &Peer) -> Outgoing {
        for _ in 0..600 {
            let outs = self.pass(Duration::from_millis(50));
            let of_peer = |request: &Outgoing| request.to == peer.id;
            let is_ping = |request: &Outgoing| matches!(request.packet.message, Message::Ping { .. });
            if let Some(ping) = requests(&outs).into_iter().find(|request| of_peer(request) && is_ping(request)) {
                return ping;
            }
        }
        panic!("not checked within 30 s")
    }

    pub(super) fn machine(&self) -> &DiscoveryMachine {
        self.driver.machine()
    }

    pub(super) fn knows(&self, peer: &Peer) -> bool {
        self.machine().table.get(peer.id).is_some()
    }
}

pub(super) fn sent(outs: &[Out]) -> Vec<Outgoing> {
    outs.iter()
        .filter_map(|out| match out {
            Out::Send(outgoing) => Some(outgoing.clone()),
            _ => None,
        })
        .collect()
}

pub(super) fn requests(outs: &[Out]) -> Vec<Outgoing> {
    sent(outs).into_iter().filter(|outgoing| outgoing.packet.message.kind().is_request()).collect()
}

pub(super) fn finds(outs: &[Out]) -> Vec<Outgoing> {
    sent(outs).into_iter().filter(|outgoing| matches!(outgoing.packet.message, Message::FindNode { .. })).collect()
}

pub(super) fn only_request(outs: &[Out], message: Message) -> Outgoing {
    let requests = requests(outs);
    assert_eq!(requests.len(), 1, "{outs:?}");
    assert_eq!(requests[0].packet.message, message);
    requests[0].clone()
}

pub(super) fn drops(outs: &[Out]) -> Vec<DropReason> {
    outs.iter()
        .filter_map(|out| match out {
            Out::Drop(reason) => Some(*reason),
            _ => None,
        })
        .collect()
}

pub(super) fn answer(outs: &[Out], token: u64) -> Option<Vec<NodeId>> {
    outs.iter().find_map(|out| match out {
        Out::Answer { token: of, records } if *of == token => Some(records.iter().map(|record| record.id()).collect()),
        _ => None,
    })
}

pub(super) fn candidates(outs: &[Out]) -> Vec<NodeId> {
    outs.iter()
        .filter_map(|out| match out {
            Out::Candidates(found) => Some(found.iter().map(|(record, _)| record.id())),
            _ => None,
        })
        .flatten()
        .collect()
}
