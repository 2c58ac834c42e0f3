//! Admission: the two checkpoints, the places, and what changes for those who have one.

use std::time::Duration;

use peerage_machine::Time;
use peerage_peer_session::handshake::Direction;
use peerage_peer_session::{Ended, EndedBy};
use peerage_queue::SessionId;
use peerage_wire::address::{host, site};
use peerage_wire::{DisconnectReason, NodeId};

use super::{Fx, Meta, Out, Running, ServerMachine, Setup};

/// A session is not replaced by another process of its node before it is this old: a node that flaps, or two
/// that share an identity, cost no more than this.
const REPLACE_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Peer {
    pub(super) session: SessionId,
    pub(super) meta: Meta,
    pub(super) since: Time,
    /// Whether it is being ended: told once.
    pub(super) ending: bool,
    /// Since when neither end has anything that the other supports; `None` while one has.
    pub(super) useless_since: Option<Time>,
}

pub(super) struct SetUp {
    pub(super) meta: Meta,
    /// Why it lost its reservation, if it did.
    lost: Option<DisconnectReason>,
}

/// Places taken by peers and by reservations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) inbound: u32,
    pub(super) dialled: u32,
    pub(super) statics: u32,
}

impl ServerMachine {
    /// Peers, and set-ups that hold a reservation, but for `except`. A node that is replacing its own session is one.
    fn takers<'a>(&'a self, except: Option<&'a NodeId>) -> impl Iterator<Item = &'a Meta> {
        let reserved = self.reserved.values().filter_map(|setup| self.setups.get(setup)).map(|held| &held.meta);
        let reserved = reserved.filter(|meta| !self.peers.contains_key(&meta.id));
        let takers = self.peers.values().map(|peer| &peer.meta).chain(reserved);
        takers.filter(move |meta| Some(&meta.id) != except)
    }

    /// What all but `except` take.
    pub(super) fn places(&self, except: Option<&NodeId>) -> Places {
        let mut places = Places::default();
        for meta in self.takers(except) {
            let place = match meta.direction {
                _ if self.statics.contains(&meta.id) => &mut places.statics,
                Direction::Inbound => &mut places.inbound,
                Direction::Outbound => &mut places.dialled,
            };
            *place += 1;
        }
        places
    }

    /// Whether a node has to wait for a place.
    fn is_full(&self, meta: &Meta) -> bool {
        if self.trusted.contains(&meta.id) {
            return false;
        }
        let places = self.places(Some(&meta.id));
        if self.statics.contains(&meta.id) {
            return places.statics >= self.config.max_static_peers;
        }
        let dial_share = self.config.dial_share;
        let full = places.inbound + places.dialled >= self.config.max_peers;
        full || match meta.direction {
            Direction::Inbound => {
                places.inbound >= self.config.max_peers - dial_share || !self.has_place_for_another_of(meta)
            }
            // With dialling off, who is dialled is the program's affair.
            Direction::Outbound => self.config.dialing_on && places.dialled >= dial_share,
        }
    }

    /// Whether the host and the site of a node that came may have another one here. Identities cost nothing: without
    /// this, one computer could take every place.
    fn has_place_for_another_of(&self, meta: &Meta) -> bool {
        if self.config.is_exempt(meta.ip) {
            return true;
        }
        let factor = self.config.factor(meta.ip);
        let came = self.strangers(Some(&meta.id)).filter(|other| other.direction == Direction::Inbound);
        let (mut of_host, mut of_site) = (0, 0);
        for other in came {
            of_host += u32::from(host(other.ip) == host(meta.ip));
            of_site += u32::from(site(other.ip) == site(meta.ip));
        }
        of_host < self.config.inbound_per_host.saturating_mul(factor)
            && of_site < self.config.inbound_per_site.saturating_mul(factor)
    }

    /// Peers, and set-ups that hold a reservation, that are neither static nor trusted.
    fn strangers<'a>(&'a self, except: Option<&'a NodeId>) -> impl Iterator<Item = &'a Meta> {
        let friend = |id: &NodeId| self.statics.contains(id) || self.trusted.contains(id);
        self.takers(except).filter(move |meta| !friend(&meta.id))
    }

    /// Notes where a static or trusted peer is, while it is one and was seen.
    pub(super) fn befriend(&mut self, id: NodeId) {
        if !self.statics.contains(&id) && !self.trusted.contains(&id) {
            self.seen_at.remove(&id);
        } else if let Some(peer) = self.peers.get(&id) {
            self.seen_at.insert(id, peer.meta.ip);
        }
    }

    /// The policy, which holds for static and trusted peers too.
    fn permitted(&self, meta: &Meta) -> Result<(), DisconnectReason> {
        if !self.admission.permits_id(&meta.id) || !self.admission.permits_ip(meta.ip) {
            Err(DisconnectReason::NotAllowed)
        } else if !self.forks.contains(&meta.fork) {
            Err(DisconnectReason::WrongFork)
        } else {
            Ok(())
        }
    }

    /// The checks that both checkpoints make.
    ///
    /// # Errors
    /// The reason to refuse the node.
    pub fn check(&self, now: Time, meta: &Meta) -> Result<(), DisconnectReason> {
        if self.running != Running::Running {
            return Err(DisconnectReason::Quitting);
        }
        if self.reputations.is_banned(now, &meta.id, meta.ip) {
            return Err(DisconnectReason::Banned);
        }
        self.permitted(meta)?;
        if self.is_full(meta) {
            return Err(DisconnectReason::TooManyPeers);
        }
        match self.peers.get(&meta.id) {
            // The same process twice. A new one replaces the old: a restarted peer is never locked out.
            Some(peer) if peer.meta.instance == meta.instance || now.since(peer.since) < REPLACE_AFTER => {
                Err(DisconnectReason::AlreadyConnected)
            }
            _ if meta.id == self.own => Err(DisconnectReason::SelfConnect),
            _ => Ok(()),
        }
    }

    /// Decides between a new set-up and one that holds the node's reservation.
    fn outranks(&self, new: &Meta, held: &Meta) -> bool {
        if new.instance != held.instance {
            return true;
        }
        // The accepting end answers `Accepted` as soon as it reserves, so an inbound reservation stands.
        // Of two where neither has been accepted, the one that the smaller id dialled survives on both ends.
        held.direction == Direction::Outbound && new.direction == Direction::Inbound && new.id < self.own
    }

    pub(super) fn identified(
        &mut self,
        now: Time,
        setup: Setup,
        meta: Meta,
        fx: &mut Fx,
    ) -> Result<(), DisconnectReason> {
        self.check(now, &meta)?;
        if let Some(held) = self.reserved.get(&meta.id).and_then(|held| self.setups.get(held)) {
            if !self.outranks(&meta, &held.meta) {
                return Err(DisconnectReason::AlreadyConnected);
            }
            self.revoke(&meta.id, DisconnectReason::AlreadyConnected, fx);
        }
        if meta.direction == Direction::Inbound {
            fx.emit(Out::InboundPending(meta.id));
        }
        self.reserved.insert(meta.id, setup);
        self.setups.insert(setup, SetUp { meta, lost: None });
        Ok(())
    }

    /// Ends the session that this one replaces, if any, and adds the peer; the news of it are for after the
    /// verdict, with which its session starts.
    pub(super) fn established(
        &mut self,
        now: Time,
        setup: Setup,
        meta: Meta,
        fx: &mut Fx,
    ) -> Result<SessionId, DisconnectReason> {
        if self.reserved.get(&meta.id) != Some(&setup) {
            let lost = self.setups.get(&setup).and_then(|held| held.lost);
            return Err(lost.unwrap_or(DisconnectReason::AlreadyConnected));
        }
        self.check(now, &meta)?;
        if let Some(old) = self.peers.get(&meta.id).map(|peer| peer.session) {
            // Told to everybody before the verdict, so that the new session follows the old one's end in every table.
            fx.emit(Out::Disconnect(old, DisconnectReason::Replaced));
            let ended = Ended { reason: DisconnectReason::Replaced, by: EndedBy::Us };
            self.remove(now, old, ended, fx);
        }
        self.next_session += 1;
        let session = SessionId(self.next_session);
        let peer = Peer { session, meta, since: now, ending: false, useless_since: Some(now) };
        self.peers.insert(meta.id, Box::new(peer));
        self.sessions.insert(session, meta.id);
        self.befriend(meta.id);
        Ok(session)
    }

    /// Gives a reservation back; the set-up that held it learns at its second checkpoint why.
    pub(super) fn revoke(&mut self, id: &NodeId, reason: DisconnectReason, fx: &mut Fx) {
        if let Some(setup) = self.reserved.get(id).copied() {
            self.unreserve(*id, fx);
            if let Some(held) = self.setups.get_mut(&setup) {
                held.lost = Some(reason);
            }
        }
    }

    pub(super) fn unreserve(&mut self, id: NodeId, fx: &mut Fx) {
        let held = self.reserved.remove(&id).and_then(|setup| self.setups.get(&setup));
        if held.is_some_and(|held| held.meta.direction == Direction::Inbound) {
            fx.emit(Out::InboundDone(id));
        }
    }

    pub(super) fn released(&mut self, setup: Setup, fx: &mut Fx) {
        let Some(id) = self.setups.get(&setup).map(|held| held.meta.id) else { return };
        if self.reserved.get(&id) == Some(&setup) {
            self.unreserve(id, fx);
        }
        self.setups.remove(&setup);
    }

    pub(super) fn set_trusted(&mut self, id: NodeId, trusted: bool, fx: &mut Fx) {
        let changed = if trusted { self.trusted.insert(id) } else { self.trusted.remove(&id) };
        self.befriend(id);
        if trusted {
            self.forgive(&id, fx);
        }
        if let Some(peer) = self.peers.get(&id).filter(|_| changed) {
            fx.emit(Out::Trusted(peer.session, trusted));
        }
    }

    /// Tells whoever asks the policy, and ends the sessions that it does not admit any more.
    pub(super) fn admission_changed(&mut self, fx: &mut Fx) {
        fx.emit(Out::Admission(self.admission()));
        self.recheck(fx);
    }

    /// Ends the sessions that the policy or the forks do not admit any more.
    pub(super) fn recheck(&mut self, fx: &mut Fx) {
        let refused = |peer: &Peer| Some((peer.meta.id, self.permitted(&peer.meta).err()?));
        let refused: Vec<(NodeId, DisconnectReason)> = self.peers.values().filter_map(|peer| refused(peer)).collect();
        for (id, reason) in refused {
            self.end(&id, reason, fx);
        }
    }
}
