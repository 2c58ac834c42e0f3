//! How coded messages end: rebuilt, found to be none, overtaken, or given up; and the room they make.

use std::time::Duration;

use peerage_machine::Time;
use peerage_wire::NodeId;

use super::code::Coding;
use super::header::Key;
use super::machine::{Coded, Ending, Outcome, Repair, say, say_to};
use super::session::{Session, Stage};
use crate::machine::{Count, Fx, Out, Timer};
use crate::message::MessageId;
use crate::wire::{self, CodedStatus};

/// Messages remembered after their session.
const MAX_GONE: usize = 1024;
/// Peers asked at once for what is missing.
const ASKED_AT_ONCE: usize = 3;

impl Coded {
    // ---- Ends.

    pub(super) fn rebuilt(&mut self, now: Time, key: Key, coding: Option<Coding>, fx: &mut Fx) -> Outcome {
        let ends = now + self.config.linger;
        let Some(session) = self.sessions.get_mut(&key) else { return Outcome::Nothing };
        if !matches!(session.stage, Stage::Rebuilding) {
            return Outcome::Nothing;
        }
        let Some(coding) = coding else { return self.forged(now, key) };
        let (payload, tree) = (coding.payload.clone(), coding.tree());
        session.complete(coding, tree);
        session.ends = ends;
        let complete = session.links.iter().filter(|(_, link)| link.complete).map(|(session, _)| *session).collect();
        let outcome = Outcome::Rebuilt(session.header.clone(), payload, session.first, complete);
        self.feed_all(now, key, fx);
        outcome
    }

    /// A publisher has signed what is no code's, or no message's: none of its shards are passed on for a while.
    pub(super) fn forged(&mut self, now: Time, key: Key) -> Outcome {
        let Some(publisher) = self.sessions.get(&key).map(|session| session.header.publisher) else {
            return Outcome::Nothing;
        };
        self.quotas.bar(now, publisher, now + 4 * self.config.lifetime);
        self.close(key, Ending::Refused);
        Outcome::Forged(publisher)
    }

    /// The message came whole: its shards are not needed.
    pub(crate) fn overtaken(&mut self, now: Time, id: &MessageId, fx: &mut Fx) {
        let Some(key) = self.by_id.get(id).copied() else { return };
        let Some(session) = self.sessions.get_mut(&key).filter(|session| matches!(session.stage, Stage::Open)) else {
            return;
        };
        session.stage = Stage::Overtaken;
        session.ends = now + self.config.linger;
        self.tell_enough(key, fx);
    }

    /// The application does not want a message: its shards are neither taken nor passed on any more. Shards go on before
    /// the message can be judged, so who signed what is rejected is barred as who signs what is no code's.
    pub(crate) fn judged(&mut self, now: Time, id: &MessageId, rejected: bool, fx: &mut Fx) {
        let Some(key) = self.by_id.get(id).copied() else { return };
        if rejected && let Some(publisher) = self.sessions.get(&key).map(|session| session.header.publisher) {
            self.quotas.bar(now, publisher, now + 4 * self.config.lifetime);
        }
        self.refuse(key, fx);
    }

    /// Tells who knows of it that this node takes no shards of it.
    pub(super) fn refuse(&mut self, key: Key, fx: &mut Fx) {
        if let Some(session) = self.sessions.get(&key) {
            let to = session.links.values().filter(|link| link.knows).map(|link| link.to).collect();
            say_to(to, wire::status(key, CodedStatus::Refused), fx);
        }
        self.close(key, Ending::Refused);
    }

    pub(super) fn close(&mut self, key: Key, ending: Ending) {
        let Some(session) = self.sessions.remove(&key) else { return };
        self.bytes -= session.charge;
        self.by_serial.remove(&session.serial);
        let (id, slot) = (session.header.id, (session.header.publisher, session.header.sequence));
        if self.by_id.get(&id) == Some(&key) {
            self.by_id.remove(&id);
        }
        self.gone.insert(key, ending);
        self.gone_order.push_back((key, slot));
        while self.gone_order.len() > MAX_GONE {
            let Some((old, slot)) = self.gone_order.pop_front() else { break };
            self.gone.remove(&old);
            if self.roots.get(&slot) == Some(&old) {
                self.roots.remove(&slot);
            }
        }
    }

    /// The session that is missed least: the oldest of those that only linger.
    pub(super) fn idlest(&self) -> Option<Key> {
        let idle = |session: &&Session| matches!(session.stage, Stage::Whole(_) | Stage::Overtaken);
        let oldest = self.sessions.values().filter(idle).min_by_key(|session| session.serial);
        oldest.map(|session| session.key)
    }

    pub(super) fn make_place(&mut self) -> bool {
        while self.sessions.len() >= self.config.sessions {
            let Some(key) = self.idlest() else { return false };
            self.close(key, Ending::Here);
        }
        true
    }

    /// Makes room for the shards of a message of a publisher, which may have a quarter of it, or one message.
    pub(super) fn make_room(&mut self, charge: usize, publisher: &NodeId) -> bool {
        let of_publisher = self.sessions.values().filter(|session| session.header.publisher == *publisher);
        let own: usize = of_publisher.filter(|session| !session.has_enough()).map(|session| session.charge).sum();
        if own > 0 && own + charge > self.config.bytes / 4 {
            return false;
        }
        while self.bytes + charge > self.config.bytes {
            let Some(key) = self.idlest() else { return false };
            self.close(key, Ending::Here);
        }
        self.make_place()
    }

    // ---- Time.

    pub(super) fn arm(&mut self, at: Time, fx: &mut Fx) {
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            fx.arm(Timer::Coded, at);
        }
    }

    /// Asks for what is missing, and forgets what is old. Answers with what is to be asked for whole.
    pub(crate) fn tick(&mut self, now: Time, fx: &mut Fx) -> Vec<Repair> {
        self.armed = None;
        let over: Vec<Key> = self.sessions.values().filter(|s| s.ends <= now).map(|session| session.key).collect();
        for key in over {
            let here = self.sessions.get(&key).is_some_and(Session::has_enough);
            self.close(key, if here { Ending::Here } else { Ending::Refused });
        }
        let mut repairs = Vec::new();
        let mut next: Option<Time> = None;
        for session in self.sessions.values_mut() {
            let mut due = session.ends;
            if matches!(session.stage, Stage::Open) && session.asks <= self.config.asks {
                let patience = self.config.patience * (1 + u32::from(session.asks));
                if now.since(session.progress_at) >= patience {
                    session.progress_at = now;
                    session.asks += 1;
                    if session.asks > self.config.asks {
                        let complete = session.links.iter().filter(|(_, link)| link.complete);
                        let from = complete.map(|(session, _)| *session).collect();
                        repairs.push(Repair { id: session.header.id, from });
                    } else {
                        for (to, wanted) in session.asks(ASKED_AT_ONCE) {
                            fx.emit(Out::Count(Count::ShardsAsked(wanted.len())));
                            say(to, wire::need(session.key, &wanted), fx);
                        }
                    }
                }
                due = due.min(session.progress_at + self.config.patience * (1 + u32::from(session.asks)));
            }
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        if let Some(next) = next {
            self.arm(next.max(now + Duration::from_millis(1)), fx);
        }
        repairs
    }
}
