//! All coded messages of a node: admission, checks, bounds, repair.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Time;
use peerage_queue::{Recipient, SessionId};
use peerage_wire::frame::Lane;
use peerage_wire::{NodeId, Penalty, Signature};

use super::code::{Coding, Job};
use super::config::CodedConfig;
use super::header::{Header, Key};
use super::publishers::{Admitted, Quotas};
use super::session::{Session, Stage};
use super::shape::Shape;
use crate::machine::{DropReason, Fx, Out, Outgoing, dropped};
use crate::message::{MessageId, Origin, Topic};
use crate::wire::{self, CodedStatus};

/// Headers of one peer that are being checked at once.
const MAX_CHECKS_PER_PEER: usize = 4;
/// In tokens and tags: of coded messages.
pub(super) const CODED: u64 = 1 << 63;
/// The tag of what needs no news of its failure.
const UNHEEDED: u64 = 2;

/// Whether a question of the machine's is one of coded messages.
pub(crate) fn is_coded_token(token: u64) -> bool {
    token & CODED != 0
}

/// Whether a push was one of coded messages.
pub(crate) fn is_coded_tag(tag: u64) -> bool {
    tag & CODED != 0
}

/// A publication on its way to become coded.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    /// The shell's name for it.
    pub(crate) token: u64,
    pub(crate) topic: Topic,
    pub(crate) origin: Origin,
    pub(crate) payload: Bytes,
    pub(crate) id: MessageId,
}

/// A message of which too few shards came: who said to have it.
#[derive(Debug)]
pub(crate) struct Repair {
    pub(crate) id: MessageId,
    pub(crate) from: Vec<SessionId>,
}

/// What came of some coding.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The publication cannot be coded: it goes out whole.
    Whole(Box<Publication>),
    /// A message is here, of this header, first from this peer; these have it.
    Rebuilt(Box<Header>, Bytes, Option<SessionId>, Vec<SessionId>),
    /// A publisher signed what is no code's.
    Forged(NodeId),
    /// Nothing that matters any more.
    Nothing,
}

#[derive(Debug)]
pub(super) enum Work {
    Publish(Box<Publication>),
    Rebuild(Key),
}

/// Why a session is over, as far as its peers must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Here,
    Refused,
}

#[derive(Debug)]
pub(crate) struct Coded {
    pub(super) config: CodedConfig,
    pub(super) salt: u64,
    /// How many bytes a payload or shard stands for.
    pub(super) weigh: fn(&[u8]) -> usize,
    pub(super) admitted: BTreeMap<Topic, Admitted>,
    pub(super) quotas: Quotas,
    pub(super) sessions: BTreeMap<Key, Session>,
    pub(super) by_id: BTreeMap<MessageId, Key>,
    pub(super) by_serial: BTreeMap<u64, Key>,
    /// The one live root of each publisher's sequence.
    pub(super) roots: BTreeMap<(NodeId, u64), Key>,
    pub(super) gone: BTreeMap<Key, Ending>,
    pub(super) gone_order: VecDeque<(Key, (NodeId, u64))>,
    pub(super) checks: BTreeMap<u64, Key>,
    pub(super) works: BTreeMap<u64, Work>,
    pub(super) signing: BTreeMap<u64, (Box<Publication>, Box<Header>, Coding)>,
    pub(super) bytes: usize,
    pub(super) next: u64,
    pub(super) armed: Option<Time>,
}

impl Coded {
    /// What each publisher may have coded from now on. What it has used counts.
    pub(crate) fn limit(&mut self, bytes: usize, period: Duration) {
        self.quotas.set(bytes, period);
    }

    pub(crate) fn new(config: CodedConfig, salt: u64) -> Coded {
        Coded {
            quotas: Quotas::new(config.publisher_bytes, config.quota_period),
            admitted: config.admitted.clone(),
            config,
            salt,
            weigh: |bytes| bytes.len(),
            sessions: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_serial: BTreeMap::new(),
            roots: BTreeMap::new(),
            gone: BTreeMap::new(),
            gone_order: VecDeque::new(),
            checks: BTreeMap::new(),
            works: BTreeMap::new(),
            signing: BTreeMap::new(),
            bytes: 0,
            next: 0,
            armed: None,
        }
    }

    pub(crate) fn weighing(&mut self, weigh: fn(&[u8]) -> usize) {
        self.weigh = weigh;
    }

    /// Says whose messages of a topic may be coded. Answers whether peers are to be told.
    pub(crate) fn admit(&mut self, topic: Topic, admitted: Admitted) -> bool {
        let before = self.enabled();
        if admitted == Admitted::Nobody {
            self.admitted.remove(&topic);
        } else {
            self.admitted.insert(topic, admitted);
        }
        self.enabled() != before
    }

    /// Whether there are messages that this node takes coded.
    pub(crate) fn enabled(&self) -> bool {
        self.config.enabled && !self.admitted.is_empty()
    }

    pub(crate) fn admits(&self, topic: &Topic, publisher: &NodeId) -> bool {
        self.config.enabled && self.admitted.get(topic).is_some_and(|admitted| admitted.admits(publisher))
    }

    /// Messages under way or lingering, and their bytes.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.sessions.len(), self.bytes)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    // ---- Publishing.

    /// How a payload of this node would be cut; `None` if it is to go whole.
    pub(crate) fn shape(&self, topic: &Topic, publisher: &NodeId, payload: &[u8]) -> Option<Shape> {
        let bytes = (self.weigh)(payload);
        let coded = bytes >= self.config.from && self.admits(topic, publisher);
        if coded { Shape::of(bytes, self.config.spare) } else { None }
    }

    /// Has a publication coded.
    pub(crate) fn encode(&mut self, publication: Publication, shape: Shape, fx: &mut Fx) {
        let token = CODED | self.number();
        let payload = publication.payload.clone();
        self.works.insert(token, Work::Publish(Box::new(publication)));
        fx.emit(Out::Code { token, job: Job::Encode { payload, shape } });
    }

    /// The answer to [`Out::Code`].
    pub(crate) fn coded(&mut self, now: Time, token: u64, coding: Option<Coding>, fx: &mut Fx) -> Outcome {
        match (self.works.remove(&token), coding) {
            (None, _) => Outcome::Nothing,
            (Some(Work::Publish(publication)), None) => Outcome::Whole(publication),
            (Some(Work::Publish(publication)), Some(coding)) => {
                self.sign(publication, coding, fx);
                Outcome::Nothing
            }
            (Some(Work::Rebuild(key)), coding) => self.rebuilt(now, key, coding, fx),
        }
    }

    pub(super) fn sign(&mut self, publication: Box<Publication>, coding: Coding, fx: &mut Fx) {
        let Publication { token, topic, origin, id, .. } = &*publication;
        let lifetime = u64::try_from(self.config.lifetime.as_millis()).unwrap_or(u64::MAX);
        let header = Box::new(Header {
            topic: topic.clone(),
            publisher: origin.publisher,
            sequence: origin.sequence,
            issued: origin.issued,
            message_signature: origin.signature,
            id: *id,
            shape: coding.shape,
            root: coding.tree().root(),
            expires: origin.issued.saturating_add(lifetime),
            signature: [0; 64],
        });
        fx.emit(Out::Sign { token: *token, claim: header.claim(), sequence: origin.sequence });
        self.signing.insert(*token, (publication, header, coding));
    }

    /// The header of a publication is signed.
    pub(crate) fn signed(&mut self, token: u64, signature: Signature) -> Option<(Publication, Box<Header>, Coding)> {
        let (publication, mut header, coding) = self.signing.remove(&token)?;
        header.signature = signature;
        Some((*publication, header, coding))
    }

    /// Sends out a message of this node: different shards to different peers. Answers to how many.
    pub(crate) fn publish(
        &mut self,
        now: Time,
        header: Box<Header>,
        coding: Coding,
        links: Vec<Recipient>,
        fx: &mut Fx,
    ) -> usize {
        let (key, charge) = (header.key(), header.shape.bytes());
        if !self.make_room(charge, &header.publisher) {
            return 0;
        }
        self.by_id.insert(header.id, key);
        self.open(now, key, header);
        let ends = now + self.config.linger;
        let Some(session) = self.sessions.get_mut(&key) else { return 0 };
        for to in links {
            session.link(to);
        }
        let tree = coding.tree();
        session.complete(coding, tree);
        (session.charge, session.ends) = (charge, ends);
        self.bytes += charge;
        self.feed_all(now, key, fx);
        self.arm(now + self.config.patience, fx);
        self.sessions.get(&key).map_or(0, |session| session.links.values().filter(|link| link.knows).count())
    }

    pub(super) fn open(&mut self, now: Time, key: Key, header: Box<Header>) {
        let serial = self.number();
        let ends = now + self.config.lifetime;
        self.sessions.insert(key, Session::new(now, serial, key, header, ends));
        self.by_serial.insert(serial, key);
    }

    /// The peers that get a message by shards.
    pub(crate) fn takes_shards(&self, id: &MessageId, session: SessionId) -> bool {
        let coded = self.by_id.get(id).and_then(|key| self.sessions.get(key));
        coded.is_some_and(|coded| coded.links.get(&session).is_some_and(|link| !link.refused))
    }

    /// Whether shards of a message came or went.
    pub(crate) fn is_known(&self, id: &MessageId) -> bool {
        self.by_id.contains_key(id)
    }

    /// Whether shards of a message are coming in.
    pub(crate) fn is_coming(&self, id: &MessageId) -> bool {
        let coded = self.by_id.get(id).and_then(|key| self.sessions.get(key));
        coded.is_some_and(|coded| coded.asks <= self.config.asks)
    }

    /// A peer that announces a message has all its shards.
    pub(crate) fn announced(&mut self, id: &MessageId, session: SessionId) {
        let coded = self.by_id.get(id).and_then(|key| self.sessions.get_mut(key));
        if let Some(link) = coded.and_then(|coded| coded.links.get_mut(&session)) {
            link.complete = true;
        }
    }

    // ---- What peers send.

    /// A header of an admitted publisher, of a message that is not here.
    pub(crate) fn header(&mut self, now: Time, from: Recipient, header: Box<Header>, links: &[Recipient], fx: &mut Fx) {
        let key = header.key();
        if let Some(session) = self.sessions.get_mut(&key) {
            session.link(from).knows = true;
            return self.tell_enough(key, fx);
        }
        if let Some(ending) = self.gone.get(&key) {
            let status = if *ending == Ending::Here { CodedStatus::Have } else { CodedStatus::Refused };
            return say(from, wire::status(key, status), fx);
        }
        if !header.shape.is_sound() || header.expires > header.issued.saturating_add(self.longest()) {
            // An honest relayer has looked before it sent this on.
            dropped(DropReason::InvalidShard, fx);
            return fx.emit(Out::Report { session: from.session, penalty: Penalty::InvalidMessage });
        }
        let taken = self.roots.get(&(header.publisher, header.sequence)).is_some_and(|root| *root != key);
        let unchecked = |session: &&Session| !session.checked() && session.first == Some(from.session);
        let busy = self.sessions.values().filter(unchecked).count() >= MAX_CHECKS_PER_PEER;
        let late = header.expires <= now.unix_millis();
        let barred = self.quotas.is_barred(now, &header.publisher);
        if taken || busy || late || barred || !self.make_place() {
            dropped(DropReason::CodedRefused, fx);
            return say(from, wire::status(key, CodedStatus::Refused), fx);
        }
        let check = header.check();
        self.open(now, key, header);
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.first = Some(from.session);
        session.link(from).knows = true;
        for to in links {
            session.link(*to);
        }
        let token = CODED | self.number();
        self.checks.insert(token, key);
        fx.emit(Out::Verify { token, check, from: from.session });
        self.arm(now + self.config.lifetime, fx);
    }

    /// Twice what honest publishers say, in milliseconds.
    pub(super) fn longest(&self) -> u64 {
        u64::try_from(2 * self.config.lifetime.as_millis()).unwrap_or(u64::MAX)
    }

    /// A signature of a header was checked: its own first, then the message's.
    pub(crate) fn verified(&mut self, now: Time, token: u64, ok: bool, fx: &mut Fx) -> Outcome {
        let Some(key) = self.checks.remove(&token) else { return Outcome::Nothing };
        let Some(session) = self.sessions.get_mut(&key) else { return Outcome::Nothing };
        match (&session.stage, ok) {
            (Stage::Header, false) => {
                dropped(DropReason::InvalidSignature, fx);
                let senders = session.links.iter().filter(|(_, link)| link.knows).map(|(sender, _)| *sender);
                senders.for_each(|session| fx.emit(Out::Report { session, penalty: Penalty::InvalidMessage }));
                self.close(key, Ending::Refused);
                Outcome::Nothing
            }
            (Stage::Header, true) => {
                session.stage = Stage::Message;
                let check = session.header.message_check();
                let from = session.first;
                let token = CODED | self.number();
                self.checks.insert(token, key);
                if let Some(from) = from {
                    fx.emit(Out::Verify { token, check, from });
                }
                Outcome::Nothing
            }
            (Stage::Message, false) => {
                dropped(DropReason::InvalidSignature, fx);
                self.forged(now, key)
            }
            (Stage::Message, true) => {
                self.admitted(now, key, fx);
                Outcome::Nothing
            }
            _ => Outcome::Nothing,
        }
    }

    /// Both signatures of a header hold.
    pub(super) fn admitted(&mut self, now: Time, key: Key, fx: &mut Fx) {
        let Some(session) = self.sessions.get(&key) else { return };
        let (publisher, sequence) = (session.header.publisher, session.header.sequence);
        let (payload, charge) = (session.header.shape.payload as usize, session.header.shape.bytes());
        let taken = self.roots.get(&(publisher, sequence)).is_some_and(|root| *root != key);
        if taken || !self.quotas.take(now, publisher, payload) || !self.make_room(charge, &publisher) {
            dropped(DropReason::CodedRefused, fx);
            return self.refuse(key, fx);
        }
        self.roots.insert((publisher, sequence), key);
        self.bytes += charge;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        (session.stage, session.charge, session.progress_at) = (Stage::Open, charge, now);
        self.by_id.insert(session.header.id, key);
        let early = std::mem::take(&mut session.early);
        for (from, shard) in early {
            self.take(now, from, shard, fx);
        }
        self.arm(now + self.config.patience, fx);
    }
}

pub(super) fn say(to: Recipient, bytes: Bytes, fx: &mut Fx) {
    say_to(vec![to], bytes, fx);
}

pub(super) fn say_to(to: Vec<Recipient>, bytes: Bytes, fx: &mut Fx) {
    fx.emit(Out::Push(Outgoing { to, lane: Lane::High, bytes, drop_oldest: false, tag: UNHEEDED }));
}
