//! Answering a pull: which peers are shown to whom.

use peerage_machine::{Bloom, Time};
use peerage_queue::SessionId;
use peerage_wire::NodeRecord;
use peerage_wire::address::{host, is_local};

use super::super::count::{DropReason, Event};
use super::super::wire::{self, Item, MAX_RECORDS, Salt};
use super::{ExchangeMachine, FIRST_PORT, Fx, Out, Peer};
use crate::net::may_relay;

impl ExchangeMachine {
    /// Whether a peer's record names a socket where its session shows that it is: a record names what its owner likes,
    /// and everybody who is shown it may connect there. A node of a local network may name another address of one.
    pub(super) fn proved(&self, peer: &Peer) -> bool {
        let at = peer.remote.ip();
        peer.record.tcp_sockets().iter().any(|tcp| {
            tcp.port() >= FIRST_PORT && (host(tcp.ip()) == host(at) || is_local(tcp.ip()) && may_relay(at, tcp.ip()))
        })
    }

    /// Shows the asker peers that its filter does not show, in random order. However the filter is made, no more than
    /// these few are shown, and only those that are connected: with all bits set it hides them from the asker alone.
    pub(super) fn serve(&mut self, now: Time, session: SessionId, salt: &Salt, known: &Bloom, fx: &mut Fx) {
        let Some(asker) = self.peers.get(&session) else { return };
        let (id, ip) = (asker.id, asker.remote.ip());
        if !self.pulls.take(now, &id) {
            return self.stray(now, session, DropReason::PullQuota, fx);
        }
        let fit = self.peers.iter().filter(|(other, peer)| {
            **other != session
                && peer.id != id
                && self.proved(peer)
                && peer.record.tcp_sockets().iter().any(|tcp| {
                    tcp.port() >= FIRST_PORT && may_relay(ip, tcp.ip()) && self.admission.permits_ip(tcp.ip())
                })
                && !known.contains(wire::place(salt, &peer.id))
        });
        let mut fit: Vec<NodeRecord> = fit.map(|(_, peer)| NodeRecord::clone(&peer.record)).collect();
        let shown = self.rng.sample(&mut fit, MAX_RECORDS).to_vec();
        fx.emit(Out::Event(Event::Served));
        self.send(session, &Item::Records(shown), fx);
    }
}
