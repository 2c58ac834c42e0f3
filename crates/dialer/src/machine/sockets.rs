//! Where somebody was dialled lately, whoever it was to be.

use std::collections::BTreeMap;
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
    /// None is free before this.
    next_free: Option<Time>,
}

impl Sockets {
    pub(super) fn new(capacity: usize) -> Sockets {
        Sockets { capacity: capacity.max(1), held: BTreeMap::new(), next_free: None }
    }

    /// Whether nobody else was dialled there lately.
    pub(super) fn is_free(&self, now: Time, socket: &SocketAddr, id: &NodeId) -> bool {
        self.held.get(socket).is_none_or(|(until, held_for)| *until <= now || held_for == id)
    }

    /// Holds these back from everybody else until `until`.
    pub(super) fn dialled(&mut self, id: NodeId, sockets: &[SocketAddr], until: Time) {
        for socket in sockets {
            self.held.insert(*socket, (until, id));
            self.next_free = Some(self.next_free.map_or(until, |at| at.min(until)));
        }
        while self.held.len() > self.capacity {
            let first =
                self.held.iter().min_by_key(|(socket, (until, _))| (*until, **socket)).map(|(socket, _)| *socket);
            first.and_then(|socket| self.held.remove(&socket));
        }
    }

    /// Forgets what is free.
    pub(super) fn forget(&mut self, now: Time) {
        if self.next_free.is_some_and(|at| at <= now) {
            self.held.retain(|_, (until, _)| *until > now);
            self.next_free = self.held.values().map(|(until, _)| *until).min();
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
        assert_eq!((sockets.held.len(), sockets.next_free), (1, Some(at(30))));
    }
}
