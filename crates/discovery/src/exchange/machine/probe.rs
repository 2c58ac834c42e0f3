//! Whether this node can be dialled from outside: asking peers to try, and trying for them.
//!
//! Trying for a peer means one TCP connection to the address that its session shows, at a port that it names, closed at
//! once without a byte. So a peer can have us knock at nobody's door but its own host's; each host's is knocked at a few
//! times in ten minutes, whoever asks, and all of them half a time a second.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_wire::address::{host, is_local, site};
use peerage_wire::{NodeRecord, Verified};

use super::super::count::{DropReason, Event};
use super::super::wire::{Item, Outcome};
use super::{ExchangeMachine, FIRST_PORT, Fx, Out, Peer, Timer};

impl ExchangeMachine {
    pub(super) fn schedule_probe(&mut self, now: Time, pause: Duration, fx: &mut Fx) {
        if self.local.tcp_sockets().is_empty() {
            // It does not listen: there is nothing to be reached.
            return fx.disarm(Timer::Probe);
        }
        let jitter = self.jitter(pause / 5);
        fx.arm(Timer::Probe, now + pause + jitter);
    }

    /// The port at which this node says that it listens: for the peer's family, if it names one for it.
    fn listening_port(&self, peer: &Peer) -> Option<u16> {
        let named = self.local.tcp_sockets();
        let alike = named.iter().find(|tcp| tcp.is_ipv4() == peer.remote.is_ipv4());
        alike.or(named.first()).map(|tcp| tcp.port()).filter(|port| *port >= FIRST_PORT)
    }

    /// Asks some peers, each of another site: first those that this node dialled, as those that dialled it have shown
    /// already that they can, and of the outside before the local network's.
    pub(super) fn probe(&mut self, now: Time, fx: &mut Fx) {
        let pause = self.config.probe.per_peer.period();
        let rested = |peer: &Peer| peer.probed_at.is_none_or(|at| now.since(at) >= pause);
        let mut askable: Vec<(bool, bool, SessionId)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.channel.is_some() && peer.probe.is_none() && rested(peer))
            .map(|(session, peer)| (is_local(peer.remote.ip()), !peer.dialled, *session))
            .collect();
        let all = askable.len();
        self.rng.sample(&mut askable, all);
        askable.sort_by_key(|(local, came, _)| (*local, *came));
        let (mut sites, mut asked) = (BTreeSet::new(), 0);
        for (.., session) in askable {
            if asked == self.config.probe.peers {
                break;
            }
            let nonce = self.rng.next_u64();
            let Some(peer) = self.peers.get(&session) else { continue };
            let Some(port) = self.listening_port(peer) else { continue };
            if !sites.insert(site(peer.remote.ip())) {
                continue;
            }
            if let Some(peer) = self.peers.get_mut(&session) {
                peer.probe = Some(nonce);
                peer.probed_at = Some(now);
            }
            asked += 1;
            self.send(session, &Item::Probe { nonce, port }, fx);
            fx.emit(Out::Event(Event::Probed));
            fx.arm(Timer::ProbeAnswer(session), now + self.config.probe.timeout);
        }
        // Old votes have ended meanwhile.
        self.tell_reachable(now, fx);
        let pause = if asked < self.config.probe.enough { self.config.probe.retry } else { self.config.probe.every };
        self.schedule_probe(now, pause, fx);
    }

    pub(super) fn probe_answered(&mut self, now: Time, session: SessionId, nonce: u64, outcome: Outcome, fx: &mut Fx) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        if peer.probe != Some(nonce) {
            return self.stray(now, session, DropReason::Unsolicited, fx);
        }
        peer.probe = None;
        let by = peer.remote.ip();
        fx.disarm(Timer::ProbeAnswer(session));
        fx.emit(Out::Event(match outcome {
            Outcome::Reached => Event::Reached,
            Outcome::Unreached => Event::Unreached,
            Outcome::Declined | Outcome::Unknown(_) => Event::Declined,
        }));
        if let Outcome::Reached | Outcome::Unreached = outcome {
            self.reachability.vote(now, by, outcome == Outcome::Reached);
            self.tell_reachable(now, fx);
        }
    }

    pub(super) fn tell_reachable(&mut self, now: Time, fx: &mut Fx) {
        let state = self.reachability.state(now);
        if self.told != state {
            self.told = state;
            fx.emit(Out::Reachable(state));
        }
    }

    pub(super) fn local_changed(&mut self, now: Time, record: Verified<NodeRecord>, fx: &mut Fx) {
        if record.id() != self.local.id() {
            return;
        }
        let moved = NodeRecord::tcp_sockets(&record) != self.local.tcp_sockets();
        self.local = record;
        if moved {
            self.reachability.forget();
            self.tell_reachable(now, fx);
            self.schedule_probe(now, self.config.probe.after, fx);
        }
    }

    /// A peer asks to be dialled.
    pub(super) fn probed(&mut self, now: Time, session: SessionId, nonce: u64, port: u16, fx: &mut Fx) {
        let Some(peer) = self.peers.get(&session) else { return };
        let (id, ip) = (peer.id, peer.remote.ip());
        let declined = Item::ProbeResult { nonce, outcome: Outcome::Declined };
        if port < FIRST_PORT {
            self.send(session, &declined, fx);
            return self.stray(now, session, DropReason::ProbePort, fx);
        }
        // What is the peer's doing is looked at first, so that it is counted although there is no time for it.
        if !self.dials_per_peer.take(now, &id) {
            self.send(session, &declined, fx);
            return self.stray(now, session, DropReason::ProbeQuota, fx);
        }
        let free = self.dial_backs.len() < self.config.probe.at_once;
        if !free
            || !self.admission.permits_ip(ip)
            || !self.dials_per_host.take(now, &host(ip))
            || !self.dials.take(now, &())
        {
            self.send(session, &declined, fx);
            return fx.emit(Out::Drop(DropReason::ProbeBusy));
        }
        let token = self.token();
        self.dial_backs.insert(token, (session, nonce));
        fx.emit(Out::Event(Event::DialledBack));
        fx.emit(Out::DialBack { token, to: SocketAddr::new(ip, port) });
    }

    pub(super) fn dialled_back(&mut self, token: u64, reached: bool, fx: &mut Fx) {
        let Some((session, nonce)) = self.dial_backs.remove(&token) else { return };
        let outcome = if reached { Outcome::Reached } else { Outcome::Unreached };
        self.send(session, &Item::ProbeResult { nonce, outcome }, fx);
    }
}
