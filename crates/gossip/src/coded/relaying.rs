//! Shards: what comes of one that arrives, who is told what is here, and what each peer is sent.

use peerage_machine::Time;
use peerage_queue::{Recipient, SessionId};
use peerage_wire::Penalty;
use peerage_wire::frame::Lane;

use super::bits::Bits;
use super::code::Job;
use super::config::CodedConfig;
use super::header::Key;
use super::machine::{CODED, Coded, Work, say_to};
use super::merkle;
use super::session::{Held, Session, Stage};
use crate::machine::{Count, DropReason, Fx, Out, Outgoing, dropped};
use crate::message::MessageId;
use crate::wire::{self, CodedStatus, Shard};

/// Shards a peer brings twice, unasked, before it is blamed: a failed push is repeated.
const MAX_REPEATS: usize = 16;
/// In tags: the header went along.
const WITH_HEADER: u64 = 1 << 62;
/// Bits of a tag that say which shard.
const INDEX_BITS: u32 = 16;

impl Coded {
    /// A shard.
    pub(crate) fn shard(&mut self, now: Time, from: Recipient, shard: Shard, fx: &mut Fx) {
        let Some(session) = self.sessions.get_mut(&shard.key) else {
            let known = self.gone.contains_key(&shard.key);
            return if known {
                fx.emit(Out::Count(Count::Shard(false)))
            } else {
                dropped(DropReason::UnknownShard, fx)
            };
        };
        if !session.checked() {
            if !session.wait(from.session, shard) {
                dropped(DropReason::CodedRefused, fx);
            }
            return;
        }
        session.link(from);
        self.take(now, from.session, shard, fx);
    }

    /// Takes a shard of a message whose header holds.
    pub(super) fn take(&mut self, now: Time, from: SessionId, shard: Shard, fx: &mut Fx) {
        let Shard { key, index, has, proof, bytes } = shard;
        let weight = (self.weigh)(&bytes);
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let (total, place) = (usize::from(session.header.shape.total), usize::from(index));
        let known = session.have.contains(place);
        let sound = place < total && weight == session.header.shape.shard as usize;
        let proved =
            sound && (known || merkle::holds(&session.header.root, total, place, merkle::leaf(&bytes), &proof));
        let Some(link) = session.links.get_mut(&from) else { return };
        if !proved {
            dropped(DropReason::InvalidShard, fx);
            return fx.emit(Out::Report { session: from, penalty: Penalty::InvalidMessage });
        }
        // What was asked for may have been sent unasked just before.
        let again = !link.brought.insert(place) && !link.wanted.remove(place);
        if again {
            link.repeats += 1;
            if link.repeats == MAX_REPEATS {
                fx.emit(Out::Report { session: from, penalty: Penalty::ControlFlood });
            }
        }
        let mut has = has;
        has.insert(place);
        session.heard(now, from, &has);
        fx.emit(Out::Count(Count::Shard(!known)));
        if !known && !session.has_enough() {
            session.keep(index, Held { bytes, proof });
            (session.progress_at, session.asks) = (now, 0);
            if session.have.len() == session.enough() {
                session.stage = Stage::Rebuilding;
                let job = Job::Rebuild { header: session.header.clone(), shards: session.shards() };
                let token = CODED | self.number();
                self.works.insert(token, Work::Rebuild(key));
                fx.emit(Out::Code { token, job });
            }
        }
        if self.sessions.get(&key).is_some_and(Session::has_enough) {
            return self.tell_enough(key, fx);
        }
        self.say_has(key, from, fx);
        self.feed_all(now, key, fx);
    }

    /// Tells who sent a shard what is here: it came, and which others need not. All peers are told of the first one, as
    /// some that could send others have not been told of this node.
    pub(super) fn say_has(&mut self, key: Key, session: SessionId, fx: &mut Fx) {
        let Some(coded) = self.sessions.get_mut(&key) else { return };
        let first = !std::mem::replace(&mut coded.introduced, true);
        let to: Vec<Recipient> =
            coded.links.iter().filter(|(to, _)| first || **to == session).map(|(_, link)| link.to).collect();
        say_to(to, wire::has(key, CodedStatus::Has, &coded.have), fx);
    }

    /// Tells peers, once each, that this node has enough: at once, as what they send from here on is in vain.
    pub(super) fn tell_enough(&mut self, key: Key, fx: &mut Fx) {
        let Some(session) = self.sessions.get_mut(&key).filter(|session| session.has_enough()) else { return };
        let untold = session.links.values_mut().filter(|link| !link.told && !link.refused);
        let to: Vec<Recipient> = untold
            .map(|link| {
                link.told = true;
                link.to
            })
            .collect();
        if !to.is_empty() {
            say_to(to, wire::status(key, CodedStatus::Have), fx);
        }
    }

    /// A peer says something of a message; whether it wants the message whole.
    pub(crate) fn status(
        &mut self,
        now: Time,
        from: Recipient,
        key: Key,
        status: CodedStatus,
        shards: &Bits,
        fx: &mut Fx,
    ) -> Option<MessageId> {
        let session = self.sessions.get_mut(&key).filter(|session| session.checked())?;
        let link = session.link(from);
        link.knows = true;
        match status {
            CodedStatus::Has => {
                session.heard(now, from.session, shards);
                if session.has_enough() {
                    self.tell_enough(key, fx);
                }
                while self.feed(now, key, from.session, fx) {}
            }
            CodedStatus::Have => link.complete = true,
            CodedStatus::Refused if !link.refused => {
                link.refused = true;
                return Some(session.header.id);
            }
            CodedStatus::Refused | CodedStatus::Unknown(_) => {}
        }
        None
    }

    /// A peer asks for shards.
    pub(crate) fn need(&mut self, now: Time, from: SessionId, key: Key, wanted: &Bits, fx: &mut Fx) {
        let Some(session) = self.sessions.get_mut(&key) else { return dropped(DropReason::NotKept, fx) };
        let most = 2 * usize::from(session.header.shape.total);
        let Some(link) = session.links.get_mut(&from) else { return dropped(DropReason::NotKept, fx) };
        link.served += wanted.len();
        if link.served > most {
            return dropped(DropReason::ServedEnough, fx);
        }
        let here: Vec<usize> = wanted.iter().filter(|index| session.have.contains(*index)).collect();
        for index in here {
            if let Ok(index) = u16::try_from(index) {
                self.send(now, key, index, &[from], fx);
            }
        }
    }

    /// Sends a peer one shard that it may lack, if it has said to have got enough of what it was sent before. Answers
    /// whether it did.
    pub(super) fn feed(&mut self, now: Time, key: Key, to: SessionId, fx: &mut Fx) -> bool {
        let Some(session) = self.sessions.get(&key) else { return false };
        let CodedConfig { window, copies, first_window, first_copies, .. } = self.config;
        let own = session.first.is_none();
        let (window, copies) = if own { (first_window, first_copies) } else { (window, copies) };
        let Some(index) = session.next_for(to, window, copies, self.salt) else { return false };
        self.send(now, key, index, &[to], fx);
        true
    }

    /// The same for all peers in turn, until none takes more.
    pub(super) fn feed_all(&mut self, now: Time, key: Key, fx: &mut Fx) {
        let Some(session) = self.sessions.get(&key).filter(|session| session.checked()) else { return };
        let mut takers: Vec<SessionId> = session.links.keys().copied().collect();
        while !takers.is_empty() {
            takers.retain(|to| self.feed(now, key, *to, fx));
        }
    }

    pub(super) fn send(&mut self, now: Time, key: Key, index: u16, to: &[SessionId], fx: &mut Fx) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let tag = CODED | session.serial << INDEX_BITS | u64::from(index);
        for (with_header, to, bytes) in session.carry(now, index, to) {
            let tag = if with_header { tag | WITH_HEADER } else { tag };
            fx.emit(Out::Push(Outgoing { to, lane: Lane::Normal, bytes, drop_oldest: false, tag }));
        }
    }

    /// A shard did not reach a peer.
    pub(crate) fn send_failed(&mut self, session: SessionId, tag: u64) {
        let serial = (tag & !CODED & !WITH_HEADER) >> INDEX_BITS;
        let index = tag & ((1 << INDEX_BITS) - 1);
        let coded = self.by_serial.get(&serial).and_then(|key| self.sessions.get_mut(key));
        if let Some(coded) = coded {
            coded.unsent(session, usize::try_from(index).unwrap_or(usize::MAX), tag & WITH_HEADER != 0);
        }
    }

    pub(crate) fn peer_down(&mut self, session: SessionId) {
        for coded in self.sessions.values_mut() {
            coded.unlink(session);
            coded.early.retain(|(from, _)| *from != session);
        }
    }
}
