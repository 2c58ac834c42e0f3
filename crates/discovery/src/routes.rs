//! The node's sockets, and the choice of one to send from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use peerage_transport::Datagram;

use crate::machine::Families;

/// Peers of whom it is remembered which socket they reached; more than a table and its requests under way have.
const MAX_ROUTES: usize = 2_048;

/// The node's sockets, to send from.
pub(crate) struct Sockets {
    all: Vec<(SocketAddr, Arc<Datagram>)>,
    routes: Routes,
}

impl Sockets {
    /// Those whose address can be read; a socket without one is not bound.
    pub(crate) fn new(sockets: &[Arc<Datagram>]) -> Sockets {
        let all = sockets.iter().filter_map(|socket| Some((socket.local_addr().ok()?, socket.clone()))).collect();
        Sockets { all, routes: Routes::new(MAX_ROUTES) }
    }

    /// Each with the number by which [`heard`](Sockets::heard) knows it.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, &Arc<Datagram>)> {
        self.all.iter().map(|(_, socket)| socket).enumerate()
    }

    pub(crate) fn families(&self) -> Families {
        Families {
            v4: self.all.iter().any(|(local, _)| local.is_ipv4()),
            v6: self.all.iter().any(|(local, _)| local.is_ipv6()),
        }
    }

    /// A packet came from `peer` to this socket: what goes to `peer` leaves from there, its answer above all. A node
    /// with several addresses must answer from the one that was asked, as peers match answers by source address.
    pub(crate) fn heard(&mut self, peer: SocketAddr, socket: usize) {
        // Where there is no choice there is nothing to remember.
        if self.of_family(peer).nth(1).is_some() {
            self.routes.put(peer, socket);
        }
    }

    /// Sends from the socket that `to` reached last; to whom none is known, from the first of its family and reach:
    /// loopback is spoken to from loopback and the rest of the world is not, unless there is no other way. A socket
    /// that cannot reach it any more (its link went down) is replaced by another.
    pub(crate) fn send(&mut self, bytes: &[u8], to: SocketAddr) -> bool {
        let send = |(_, socket): &(SocketAddr, Arc<Datagram>)| socket.send_to(bytes, to).is_ok();
        if let Some(known) = self.routes.get(to).and_then(|socket| self.all.get(socket)) {
            if send(known) {
                return true;
            }
            self.routes.forget(to);
        }
        let near = self
            .of_family(to)
            .find(|(local, _)| local.ip().is_unspecified() || local.ip().is_loopback() == to.ip().is_loopback());
        near.or_else(|| self.of_family(to).next()).is_some_and(send)
    }

    fn of_family(&self, peer: SocketAddr) -> impl Iterator<Item = &(SocketAddr, Arc<Datagram>)> {
        self.all.iter().filter(move |(local, _)| local.is_ipv4() == peer.is_ipv4())
    }
}

/// Which socket each peer reached last. When it is full, who was heard of longest ago makes room.
struct Routes {
    capacity: usize,
    by_peer: BTreeMap<SocketAddr, (usize, u64)>,
    by_age: BTreeMap<u64, SocketAddr>,
    next: u64,
}

impl Routes {
    fn new(capacity: usize) -> Routes {
        Routes { capacity, by_peer: BTreeMap::new(), by_age: BTreeMap::new(), next: 0 }
    }

    fn get(&self, peer: SocketAddr) -> Option<usize> {
        self.by_peer.get(&peer).map(|(socket, _)| *socket)
    }

    fn put(&mut self, peer: SocketAddr, socket: usize) {
        self.next += 1;
        if let Some((_, age)) = self.by_peer.insert(peer, (socket, self.next)) {
            self.by_age.remove(&age);
        }
        self.by_age.insert(self.next, peer);
        if self.by_peer.len() > self.capacity
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.by_peer.remove(&oldest);
        }
    }

    fn forget(&mut self, peer: SocketAddr) {
        if let Some((_, age)) = self.by_peer.remove(&peer) {
            self.by_age.remove(&age);
        }
    }
}

#[cfg(test)]
mod tests {
    use peerage_transport::Transport;

    use super::*;

    #[test]
    fn routes_are_bounded_and_the_silent_make_room() {
        let mut routes = Routes::new(3);
        let peer = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        for port in 1..=3 {
            routes.put(peer(port), port.into());
        }
        routes.put(peer(1), 7);
        routes.put(peer(4), 4);
        assert_eq!([1, 2, 3, 4].map(|port| routes.get(peer(port))), [Some(7), None, Some(3), Some(4)]);
        routes.forget(peer(3));
        assert_eq!((routes.by_peer.len(), routes.by_age.len()), (2, 2));
    }

    #[tokio::test]
    async fn what_goes_to_a_peer_leaves_from_the_socket_it_reached() {
        let bind = async |on: &str| {
            Arc::new(Transport::sockets().bind_datagram(on.parse().expect("address")).await.expect("bound"))
        };
        let own = [bind("127.0.0.1:0").await, bind("127.0.0.2:0").await, bind("127.0.0.3:0").await];
        let locals = own.clone().map(|socket| socket.local_addr().expect("bound"));
        let (peer, other) = (bind("127.0.0.1:0").await, bind("127.0.0.1:0").await);
        let mut sockets = Sockets::new(&own);
        let source = async |sockets: &mut Sockets, peer: &Datagram| {
            assert!(sockets.send(b"hi", peer.local_addr().expect("bound")));
            peer.recv_from(&mut [0; 8]).await.expect("received").1
        };
        assert_eq!(source(&mut sockets, &peer).await, locals[0], "the first that can reach it");
        for socket in [1, 2, 1] {
            sockets.heard(peer.local_addr().expect("bound"), socket);
            assert_eq!(source(&mut sockets, &peer).await, locals[socket]);
            assert_eq!(source(&mut sockets, &other).await, locals[0], "of another peer nothing was said");
        }
    }
}
