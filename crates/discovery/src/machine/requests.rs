//! What this node asked and has no answer to yet, and the cookies it was given.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use peerage_machine::Time;
use peerage_wire::NodeId;

use crate::count::DropReason;
use crate::net::peer_at;
use crate::wire::{Cookie, Kind, Message, Nonce};

/// What an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// A check that a table entry still answers.
    Revalidate,
    /// A check that a node that was told of answers at all, as the dialer waits.
    Prove,
    /// A sign of life of a node that was lost.
    Regain,
    /// The record of a node that spoke to us.
    Learn,
    /// The record of a bootnode.
    Bootnode,
    /// A record that a caller wants fresh.
    Resolve(u64),
    /// A step of a lookup.
    Lookup(u64),
}

/// A request under way.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) to: NodeId,
    pub(crate) addr: SocketAddr,
    pub(crate) message: Message,
    pub(crate) purpose: Purpose,
    /// Whether it already follows a `Cookie`; there is one such retry.
    pub(crate) retried: bool,
    /// Which packets of a `Neighbors` answer came, as bits.
    pub(crate) packets: u16,
    /// How many records came in them.
    pub(crate) records: usize,
}

#[derive(Default)]
pub(crate) struct Requests {
    outstanding: BTreeMap<u64, Request>,
    next: u64,
}

impl Requests {
    pub(crate) fn len(&self) -> usize {
        self.outstanding.len()
    }

    /// Remembers a request under a counter that rises and [tells when it was asked](Nonce::first_counter). Running
    /// time goes on as long as the secrets behind nonces live, so no life of the machine repeats another's counters.
    pub(crate) fn insert(&mut self, now: Time, request: Request) -> u64 {
        let counter = self.next.max(Nonce::first_counter(now));
        self.next = counter.wrapping_add(1);
        self.outstanding.insert(counter, request);
        counter
    }

    pub(crate) fn remove(&mut self, counter: u64) -> Option<Request> {
        self.outstanding.remove(&counter)
    }

    /// The request that an answer belongs to: to its sender, at its source, of its type, with its nonce. A
    /// `Cookie` may answer any request.
    pub(crate) fn matching(
        &mut self,
        nonce: Nonce,
        from: NodeId,
        addr: SocketAddr,
        kind: Kind,
    ) -> Result<&mut Request, DropReason> {
        self.outstanding
            .get_mut(&nonce.counter)
            .filter(|request| request.to == from && request.addr == addr)
            .filter(|request| kind == Kind::Cookie || request.message.kind().answer() == Some(kind))
            .ok_or(DropReason::Unsolicited)
    }

    pub(crate) fn count(&self, mut predicate: impl FnMut(&Request) -> bool) -> usize {
        self.outstanding.values().filter(|request| predicate(request)).count()
    }

    pub(crate) fn any(&self, predicate: impl FnMut(&Request) -> bool) -> bool {
        self.outstanding.values().any(predicate)
    }
}

/// The cookies of the peers spoken to last: 28 bytes for each, as there are many.
pub(crate) struct Cookies {
    capacity: usize,
    /// With the turn in which each came. By a hash: two peers that shared one would have a cookie refused, and
    /// be given another.
    by_peer: BTreeMap<u64, (Cookie, u32)>,
    /// Cookies so far; it starts again from 0.
    turn: u32,
}

fn hash(peer: NodeId, addr: SocketAddr) -> u64 {
    let mut head = [0; 8];
    head.copy_from_slice(&blake3::hash(&peer_at(peer, addr)).as_bytes()[..8]);
    u64::from_le_bytes(head)
}

impl Cookies {
    pub(crate) fn new(capacity: usize) -> Cookies {
        Cookies { capacity, by_peer: BTreeMap::new(), turn: 0 }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_peer.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_peer.len()
    }

    pub(crate) fn get(&self, peer: NodeId, addr: SocketAddr) -> Cookie {
        self.by_peer.get(&hash(peer, addr)).map_or(Cookie::NONE, |(cookie, _)| *cookie)
    }

    /// Remembers a cookie; the oldest makes room. Only peers that were asked give cookies, so nobody can push
    /// out the others by sending some.
    pub(crate) fn insert(&mut self, peer: NodeId, addr: SocketAddr, cookie: Cookie) {
        let (peer, turn) = (hash(peer, addr), self.turn);
        if self.by_peer.len() >= self.capacity
            && !self.by_peer.contains_key(&peer)
            && let Some(oldest) =
                self.by_peer.iter().max_by_key(|(_, (_, came))| turn.wrapping_sub(*came)).map(|(peer, _)| *peer)
        {
            self.by_peer.remove(&oldest);
        }
        self.by_peer.insert(peer, (cookie, turn));
        self.turn = turn.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_cookie_makes_room() {
        let mut cookies = Cookies { turn: u32::MAX - 5, ..Cookies::new(3) };
        let addr: SocketAddr = "192.0.2.1:1".parse().expect("address");
        for number in 0..10u8 {
            cookies.insert(NodeId::from_bytes([number; 32]), addr, Cookie([number; 16]));
        }
        assert_eq!(cookies.by_peer.len(), 3);
        assert_eq!(cookies.get(NodeId::from_bytes([9; 32]), addr), Cookie([9; 16]));
        assert_eq!(cookies.get(NodeId::from_bytes([6; 32]), addr), Cookie::NONE);
    }

    #[test]
    fn an_answer_must_fit_its_request_in_every_way() {
        let mut requests = Requests::default();
        let (to, addr) = (NodeId::from_bytes([1; 32]), "192.0.2.1:1".parse().expect("address"));
        let message = Message::Ping { record_seq: 0 };
        let purpose = Purpose::Revalidate;
        let counter =
            requests.insert(Time::ZERO, Request { to, addr, message, purpose, retried: false, packets: 0, records: 0 });
        let nonce = Nonce { counter, mac: [0; 8] };
        let elsewhere: SocketAddr = "192.0.2.1:2".parse().expect("address");
        assert!(requests.matching(nonce, to, addr, Kind::Pong).is_ok());
        assert!(requests.matching(nonce, to, addr, Kind::Cookie).is_ok());
        assert!(requests.matching(nonce, to, addr, Kind::Neighbors).is_err());
        assert!(requests.matching(nonce, to, elsewhere, Kind::Pong).is_err());
        assert!(requests.matching(nonce, NodeId::from_bytes([2; 32]), addr, Kind::Pong).is_err());
        assert!(requests.matching(Nonce { counter: counter + 1, ..nonce }, to, addr, Kind::Pong).is_err());
    }

    #[test]
    fn counters_rise_and_tell_when_they_were_given() {
        let mut requests = Requests::default();
        let (to, addr) = (NodeId::from_bytes([1; 32]), "192.0.2.1:1".parse().expect("address"));
        let (message, purpose) = (Message::RecordRequest, Purpose::Learn);
        let request = Request { to, addr, message, purpose, retried: false, packets: 0, records: 0 };
        let mut at = |millis: u64| {
            let now = Time::ZERO + Duration::from_millis(millis);
            let counter = requests.insert(now, request.clone());
            (counter, Nonce { counter, mac: [0; 8] }.age(now + Duration::from_millis(30)))
        };
        let given = [at(5), at(5), at(6), at(700)];
        assert!(given.is_sorted_by(|a, b| a.0 < b.0), "{given:?}");
        assert!(given.iter().all(|(_, age)| *age == Duration::from_millis(30)), "{given:?}");
    }
}
