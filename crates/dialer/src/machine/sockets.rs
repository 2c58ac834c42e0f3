//! Where somebody was dialled lately, whoever it was to be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use peerage_machine::Time;
use peerage_wire::NodeId;

/// The sockets that were dialled, each with the identity it was dialled for. Identities cost nothing, so whoever lets
/// many of them name one socket would otherwise aim all dials of a network at it.
#[derive(Debug)]
pub(super) struct Sockets {
    /// At most so many; the one that is free first makes room.
    capacity: usize,
    held: BTreeMap<SocketAddr, (Time, NodeId)>,
    order: BTreeSet<(Time, SocketAddr)>,
}

impl Sockets {
    pub(super) fn new(capacity: usize) -> Sockets {
        Sockets { capacity: capacity.max(1), held: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Whether nobody else was dialled there lately.
    pub(super) fn is_free(&self, now: Time, socket: &SocketAddr, id: &NodeId) -> bool {
        self.held.get(socket).is_none_or(|(until, held_for)| *until <= now || held_for == id)
    }

    /// Holds these back from everybody else until `until`.
    pub(super) fn dialled(&mut self, id: NodeId, sockets: &[SocketAddr], until: Time) {
        for socket in sockets {
            if let Some((earlier, _)) = self.held.insert(*socket, (until, id)) {
                self.order.remove(&(earlier, *socket));
            }
            self.order.insert((until, *socket));
        }
        while self.held.len() > self.capacity {
            self.forget_first();
        }
    }

    /// Forgets what is free.
    pub(super) fn forget(&mut self, now: Time) {
        while self.order.first().is_some_and(|(until, _)| *until <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, socket)) = self.order.pop_first() {
            self.held.remove(&socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_socket_is_held_for_one_identity_until_its_time_and_the_first_to_be_free_make_room() {
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let [one, other] = [1, 2].map(|n| NodeId::from_bytes([n; 32]));
        let socket = |n| SocketAddr::from(([192, 0, 2, n], 1));
        let mut sockets = Sockets::new(2);
        sockets.dialled(one, &[socket(1)], at(10));
        assert!(sockets.is_free(at(9), &socket(1), &one));
        assert!(!sockets.is_free(at(9), &socket(1), &other));
        assert!(sockets.is_free(at(10), &socket(1), &other));
        sockets.dialled(one, &[socket(1)], at(30));
        sockets.dialled(one, &[socket(2)], at(20));
        sockets.dialled(one, &[socket(3)], at(25));
        assert!(sockets.is_free(at(15), &socket(2), &other), "forgotten, as there are only two");
        assert!(!sockets.is_free(at(15), &socket(1), &other));
        sockets.forget(at(25));
        assert_eq!((sockets.held.len(), sockets.order.len()), (1, 1));
    }
}
