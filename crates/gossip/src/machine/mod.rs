//! The rules of gossip.
//!
//! In the order in which a copy of a message meets them: seen already; in flight (it waits for the one
//! check); outside the time window; refused before; one strict check; and only then it is marked as seen,
//! delivered and sent on. Marking earlier would let a forged copy censor the true one.

mod aged;
mod blame;
mod cache;
mod coding;
mod confirming;
mod contract;
mod drops;
mod durable;
mod flights;
mod grafting;
mod history;
mod inbound;
mod librarian;
mod mesh;
mod parameters;
mod peers;
mod publish;
mod reconcile;
mod repair;
mod spreading;
#[cfg(test)]
mod tests;
mod validating;
mod wants;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::{Effects, Machine, Rng, Time};
use peerage_queue::{Recipient, SessionId};
use peerage_wire::frame::Lane;
use peerage_wire::{NodeId, Penalty};

pub use self::blame::{Blame, Handling, Suspect};
pub use self::confirming::{ConfirmError, Confirmed};
pub use self::contract::{
    Count, In, Out, Outgoing, PeerUp, PruneReason, PublishError, Published, Standing, Stats, SubscribeError, Timer,
};
pub use self::drops::DropReason;
pub use self::librarian::Found;
#[cfg(feature = "actor")]
pub(crate) use self::librarian::HEADS;
pub use self::validating::Verdict;

use self::aged::AgedSet;
use self::cache::{Cache, Slots};
use self::confirming::{Confirmations, Receipts};
use self::durable::Counted;
use self::flights::Flights;
use self::history::Histories;
use self::librarian::Librarian;
use self::mesh::Mesh;
use self::parameters::Parameters;
use self::peers::Peers;
use self::publish::Draft;
use self::reconcile::Pulls;
use self::validating::Validations;
use self::wants::{Asks, Wants};
use self::ways::{Spread, Way};
use crate::coded::{Coded, is_coded_tag, is_coded_token};
use crate::config::Config;
use crate::message::{Fingerprint, Message, MessageId, Policy, Topic};
use crate::score::{POINT, Scores};
use crate::wire::{self, Parcel};

/// Tags of pushes that are not messages; see [`In::SendFailed`].
mod tag {
    pub(super) const TOPICS: u64 = 0;
    pub(super) const ANNOUNCEMENT: u64 = 1;
    /// Of what is not sent again.
    pub(super) const REQUEST: u64 = 2;
    pub(super) const MESH: u64 = 3;
}

/// Messages that made a handler panic, remembered so long and so many.
const POISON_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const MAX_POISON: usize = 1024;

pub(crate) type Fx = Effects<Out, Timer>;

/// A node's gossip.
#[derive(Debug)]
pub struct GossipMachine {
    config: Config,
    node: NodeId,
    rng: Rng,
    /// What this node is subscribed to.
    subscriptions: BTreeMap<Topic, Policy>,
    /// Of those of them that have any of their own.
    parameters: BTreeMap<Topic, Parameters>,
    peers: Peers,
    /// One for each topic this node is subscribed to.
    meshes: BTreeMap<Topic, Mesh>,
    scores: Scores,
    /// Tags of kept messages that lazy links are to be told of.
    lazies: Vec<u64>,
    /// How long lazy links wait at present.
    lazy_after: Duration,
    /// Peers that are to be told which of their messages were first.
    reports: BTreeSet<SessionId>,
    /// Heartbeats so far.
    beats: u64,
    seen: AgedSet<MessageId>,
    flights: Flights,
    validations: Validations,
    /// Messages whose spread is being watched here.
    confirmations: Confirmations,
    /// Peers that wait to hear that this node has a message.
    receipts: Receipts,
    rejected: AgedSet<Fingerprint>,
    poison: AgedSet<Fingerprint>,
    cache: Cache,
    wants: Wants,
    pulls: Pulls,
    coded: Coded,
    drafts: BTreeMap<u64, Draft>,
    last_sequence: u64,
    /// The durable topics, and how far this node has counted its own messages of each.
    durable: BTreeMap<Topic, Counted>,
    histories: Histories,
    librarian: Librarian,
    handling: Option<Handling>,
    heart_beats: bool,
    #[cfg(any(test, feature = "planted-bugs"))]
    bug: bool,
}

impl GossipMachine {
    /// The gossip of `node`. Equal seeds decide equally.
    pub fn new(config: Config, node: NodeId, seed: u64) -> GossipMachine {
        let mut rng = Rng::new(seed);
        GossipMachine {
            node,
            subscriptions: BTreeMap::new(),
            parameters: BTreeMap::new(),
            peers: Peers::new(config.mesh.degree, rng.fork()),
            meshes: BTreeMap::new(),
            scores: Scores::new(config.scores.clone()),
            lazies: Vec::new(),
            lazy_after: config.lazy_after,
            reports: BTreeSet::new(),
            beats: 0,
            seen: AgedSet::new(config.seen_ids, config.seen_for()),
            flights: Flights::new(config.in_flight, config.in_flight_bytes),
            validations: Validations::new(&config),
            confirmations: Confirmations::default(),
            receipts: Receipts::default(),
            rejected: AgedSet::new(config.rejected, config.seen_for()),
            poison: AgedSet::new(MAX_POISON, POISON_LIFETIME),
            cache: Cache::new(config.cache_bytes, config.cache_ids, config.retained),
            wants: Wants::new(config.want_timeout, config.wants_per_peer),
            pulls: Pulls::new(config.pull.clone(), rng.fork()),
            coded: Coded::new(config.coded.clone(), seed),
            drafts: BTreeMap::new(),
            last_sequence: 0,
            durable: BTreeMap::new(),
            // Not a fork: the decisions of all else are the same with and without durable topics.
            histories: Histories::new(Rng::new(!seed)),
            librarian: Librarian::new(),
            handling: None,
            heart_beats: false,
            #[cfg(any(test, feature = "planted-bugs"))]
            bug: false,
            config,
            rng,
        }
    }

    /// Plants a bug: a copy is held for a new message if its peer has not sent that message before, and delivered. It is
    /// not sent on again, so that a message ends. For tests of the world, which must catch it.
    #[cfg(any(test, feature = "planted-bugs"))]
    #[doc(hidden)]
    pub fn plant_bug(&mut self) {
        self.bug = true;
    }

    /// What is being handled: after a panic, what it is charged to.
    pub fn handling(&self) -> Option<Handling> {
        self.handling
    }

    /// How much it holds.
    pub fn stats(&self) -> Stats {
        Stats {
            peers: self.peers.len(),
            subscriptions: self.subscriptions.len(),
            seen: self.seen.len(),
            cached: self.cache.len(),
            cached_bytes: self.cache.bytes(),
            in_flight: self.flights.len(),
            validating: self.validations.len(),
            confirming: self.confirmations.len(),
            wanted: self.wants.len(),
            links: self.meshes.values().map(Mesh::len).sum(),
            coded: self.coded.load().0,
            coded_bytes: self.coded.load().1,
        }
    }

    fn peer_up(&mut self, now: Time, up: PeerUp, fx: &mut Fx) {
        if !self.peers.up(now, up, self.config.direct.contains(&up.id)) {
            return;
        }
        let session = up.session;
        self.scores.up(now, session, up.id, up.host);
        // Always asks for the peer's in return: this node may have restarted its gossip, and what the peer
        // said first may have come before this node knew of the session.
        self.send_topics(session, true, fx);
        self.pulls.newcomer(now);
        self.start_heart(now, fx);
    }

    fn peer_down(&mut self, now: Time, session: SessionId, fx: &mut Fx) {
        let topics = self.peers.get(session).map(|peer| peer.topics.clone()).unwrap_or_default();
        topics.iter().for_each(|topic| self.unlink(now, session, topic));
        let Some(slot) = self.peers.down(session) else { return };
        self.scores.down(now, session);
        self.receipts.forget(session);
        self.cache.forget_slot(slot);
        self.meshes.values_mut().for_each(|mesh| mesh.forget_slot(slot));
        self.pulls.forget(session);
        self.histories.forget(session);
        self.librarian.forget(session);
        self.coded.peer_down(session);
        let mut asks = Asks::new();
        self.wants.forget(now, session, &mut asks);
        self.ask(asks, fx);
    }

    fn send_topics(&self, session: SessionId, want_reply: bool, fx: &mut Fx) {
        let bytes = wire::topics_of(want_reply, self.coded.enabled(), self.subscriptions.keys());
        self.control(self.peers.recipient(session), Lane::Control, bytes, tag::TOPICS, fx);
    }

    fn subscribe(&mut self, now: Time, topic: Topic, policy: Policy, fx: &mut Fx) -> Result<(), SubscribeError> {
        match self.subscriptions.get(&topic) {
            Some(other) if *other != policy => Err(SubscribeError::Policy(*other)),
            Some(_) => Ok(()),
            None if self.subscriptions.len() >= self.config.max_topics => {
                Err(SubscribeError::TooMany(self.config.max_topics))
            }
            None => {
                self.control(self.peers.everyone(), Lane::Control, wire::subscribe(&topic), tag::TOPICS, fx);
                self.peers.topic_matters(&topic);
                self.subscriptions.insert(topic.clone(), policy);
                self.join(now, &topic, fx);
                Ok(())
            }
        }
    }

    fn unsubscribe(&mut self, now: Time, topic: &Topic, fx: &mut Fx) {
        self.durable.remove(topic);
        self.histories.remove(topic);
        if self.subscriptions.remove(topic).is_some() {
            self.leave(now, topic, fx);
            self.forget_parameters(topic);
            self.control(self.peers.everyone(), Lane::Control, wire::unsubscribe(topic), tag::TOPICS, fx);
            self.peers.topic_matters(topic);
        }
    }

    /// Takes a message that has passed every check: marks, keeps, delivers and pushes it. Answers how many
    /// peers it was pushed to.
    #[allow(clippy::too_many_arguments, reason = "what is known of one message")]
    fn accept(
        &mut self,
        now: Time,
        id: MessageId,
        parcel: Parcel,
        from: Option<NodeId>,
        way: Way,
        mut has: Slots,
        fx: &mut Fx,
    ) -> usize {
        if self.seen.insert(now, id) {
            fx.emit(Out::Count(Count::Dropped(DropReason::SeenEvicted)));
        }
        let durable = self.durable.contains_key(&parcel.topic);
        if !durable {
            fx.emit(Out::Remember(id));
        }
        let publisher = parcel.origin.as_ref().map(|origin| origin.publisher);
        self.peers.mark(&mut has, publisher, self.wants.settle(&id));
        // What comes by pull repair has been round the network.
        let spread = match self.pulls.repaired(&id) {
            true => Spread::default(),
            false => self.spread(&parcel.topic, &id, &has, way, parcel.bytes.len()),
        };
        let spread = self.without_shards(now, &id, spread, fx);
        let to = self.send_on(now, &parcel.topic, &id, way, &spread);
        let count = to.len();
        if from.is_none() || !self.validates(&parcel.topic) {
            self.say_have(&parcel.topic, &id, parcel.bytes.len(), &has, &spread.told, fx);
        }
        let tag = self.cache.keep(now, id, parcel.topic.clone(), parcel.bytes.clone(), has, spread.told, way);
        if spread.lazy {
            self.announce_soon(now, tag, fx);
        }
        if durable {
            let bytes = parcel.bytes.clone();
            let first = self.begins_own(&parcel);
            fx.emit(Out::Keep { id, parcel, from, first, old: false });
            self.push(to, bytes, tag, fx);
        } else if self.subscriptions.contains_key(&parcel.topic) {
            let issued = parcel.origin.as_ref().map(|origin| origin.issued);
            let Parcel { topic, payload, bytes, .. } = parcel;
            fx.emit(Out::Deliver(Message { id, topic, publisher, issued, from, payload }));
            self.push(to, bytes, tag, fx);
        } else {
            self.pulls.guest_until(now + self.config.retained);
            self.push(to, parcel.bytes, tag, fx);
        }
        self.start_heart(now, fx);
        self.give_receipts(&id, fx);
        count
    }

    /// Sends a message; the oldest give way where there is no room, and are announced again later.
    fn push(&self, to: Vec<Recipient>, bytes: Bytes, tag: u64, fx: &mut Fx) {
        if !to.is_empty() {
            fx.emit(Out::Push(Outgoing { to, lane: Lane::Normal, bytes, drop_oldest: true, tag }));
        }
    }

    fn control(&self, to: impl IntoIterator<Item = Recipient>, lane: Lane, bytes: Bytes, tag: u64, fx: &mut Fx) {
        let to: Vec<Recipient> = to.into_iter().collect();
        if !to.is_empty() {
            fx.emit(Out::Push(Outgoing { to, lane, bytes, drop_oldest: false, tag }));
        }
    }

    /// Whether it was a message.
    fn send_failed(&mut self, session: SessionId, tag: u64) -> bool {
        let Some(peer) = self.peers.get_mut(session) else { return false };
        match tag {
            tag::TOPICS => peer.owed_topics = Some(true),
            tag::ANNOUNCEMENT => self.cache.forget_told(peer.slot),
            // It times out, and the next peer is asked.
            tag::REQUEST => {}
            tag::MESH => peer.owed_meshes = true,
            tag if is_coded_tag(tag) => self.coded.send_failed(session, tag),
            tag => {
                self.cache.unsent(tag, peer.slot);
                return true;
            }
        }
        false
    }

    /// Blames a peer, once for all floods between two heartbeats.
    fn blame(&mut self, now: Time, session: SessionId, penalty: Penalty, fx: &mut Fx) {
        if penalty == Penalty::ControlFlood {
            match self.peers.get_mut(session) {
                Some(peer) if !peer.beat.blamed => peer.beat.blamed = true,
                _ => return,
            }
            self.misbehaved(now, session, POINT);
        }
        fx.emit(Out::Report { session, penalty });
    }

    /// A peer did what the others pay for (P7), by so many thousandths of a point; not more than two points between two
    /// heartbeats.
    fn misbehaved(&mut self, now: Time, session: SessionId, thousandths: i64) {
        let Some(peer) = self.peers.get_mut(session).filter(|peer| !peer.direct) else { return };
        let counted = thousandths.min(2 * POINT - peer.beat.misbehaved);
        peer.beat.misbehaved += counted;
        if counted > 0 {
            self.scores.behaved_badly(now, session, counted);
        }
    }

    /// How good a peer is, against the thresholds; a direct one always is.
    fn stands(&self, session: SessionId, threshold: i64) -> bool {
        self.peers.get(session).is_some_and(|peer| peer.direct || self.scores.standing(session) >= threshold)
    }

    /// What is known of each peer in the meshes and beside them, for operators.
    pub fn standings(&self, now: Time) -> Vec<Standing> {
        let standing = |(session, id, topics): (SessionId, NodeId, usize)| {
            let meshes = self.meshes.iter().filter(|(_, mesh)| mesh.contains(session)).map(|(topic, _)| topic.clone());
            let pruned = self.peers.get(session).and_then(|peer| peer.pruned);
            Standing { id, topics, meshes: meshes.collect(), score: self.scores.explain(now, session), pruned }
        };
        self.peers.summary().map(standing).collect()
    }

    fn tell_of_use(&mut self, fx: &mut Fx) {
        let subscriptions = &self.subscriptions;
        for (session, useful) in self.peers.news_of_use(|topic| subscriptions.contains_key(topic)) {
            fx.emit(Out::Useful { session, useful });
        }
    }

    fn restore(&mut self, seen: Vec<(MessageId, Time)>, sequence: u64, useful: BTreeSet<SessionId>) {
        self.peers.restore(useful);
        for (id, at) in seen {
            self.seen.insert(at, id);
        }
        self.last_sequence = self.last_sequence.max(sequence);
    }
}

pub(crate) fn dropped(reason: DropReason, fx: &mut Fx) {
    fx.emit(Out::Count(Count::Dropped(reason)));
}

impl Machine for GossipMachine {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Fx) {
        match input {
            In::PeerUp(up) => self.peer_up(now, up, fx),
            In::PeerDown { session } => self.peer_down(now, session, fx),
            In::Subscribe { token, topic, policy } => {
                let result = self.subscribe(now, topic, policy, fx);
                fx.emit(Out::Subscribed { token, result });
            }
            In::SubscribeWith { token, topic, config, validated } => {
                let result = self.subscribe_with(now, &topic, *config, validated, fx);
                fx.emit(Out::Subscribed { token, result });
            }
            In::Verdict { token, verdict } => self.verdict(now, token, verdict, fx),
            In::NotJudged { token } => self.not_judged(now, token, fx),
            In::Confirm { token, id, peers, within } => self.confirm(now, token, id, peers, within, fx),
            In::Unsubscribe { topic } => self.unsubscribe(now, &topic, fx),
            In::Publish { token, topic, policy, payload, pressed } => {
                if let Err(error) = self.publish(now, token, topic, policy, payload, pressed, fx) {
                    fx.emit(Out::Published { token, result: Err(error) });
                }
            }
            In::Signed { token, signature } => self.signed(now, token, signature, fx),
            In::Inbound { session, payload } => self.inbound(now, session, payload, fx),
            In::Verified { token, ok } if is_coded_token(token) => self.coded_verified(now, token, ok, fx),
            In::CheckPanicked { token } if is_coded_token(token) => self.coded_verified(now, token, false, fx),
            In::Coded { token, coding } => self.coded(now, token, coding.map(|coding| *coding), fx),
            In::Admit { topic, publishers } => self.admit(topic, publishers),
            In::Limits(limits) => {
                self.coded.limit(limits.publisher_bytes, limits.quota_period);
                limits.apply(&mut self.config);
            }
            In::Verified { token, ok } => self.verified(now, token, ok, fx),
            In::CheckPanicked { token } => self.check_panicked(now, token, fx),
            In::SendFailed { session, tag } => {
                // Of messages alone: what else is sent is small, and asked for or said again.
                if self.send_failed(session, tag) {
                    self.scores.slow(now, session);
                }
            }
            In::Shed { session, tag } => {
                if self.send_failed(session, tag)
                    && let Some(slot) = self.peers.get(session).map(|peer| peer.slot)
                {
                    self.cache.unserved(tag, slot);
                }
            }
            In::Restore { seen, sequence, useful } => self.restore(seen, sequence, useful),
            In::Durable { topic, ids, items, sequence, age, floor } => {
                self.last_sequence = self.last_sequence.max(sequence);
                self.histories.add(topic.clone(), age, floor);
                self.make_durable(now, topic.clone(), ids, items);
                self.history_missing(now, &topic, fx);
            }
            In::Missing { topic } => {
                self.pulls.hurry(now);
                self.history_missing(now, &topic, fx);
            }
            In::Forget { ids } => ids.iter().for_each(|id| self.seen.remove(id)),
            In::HistoryKnown { topic, first, last, known } => {
                self.history_known(now, &topic, first, last, known, fx);
            }
            In::HistoryRead { token, found } => self.history_read(token, found, fx),
            In::Refuse { fingerprint } => drop(self.poison.insert(now, fingerprint)),
        }
        self.tell_of_use(fx);
        if !self.reports.is_empty() {
            self.report_firsts(fx);
        }
        // A panic leaves it set, which is what it is for.
        self.handling = None;
    }

    fn expire(&mut self, now: Time, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Heartbeat => self.heartbeat(now, fx),
            Timer::Wants => self.ask_others(now, fx),
            Timer::Lazy => self.announce_lazily(fx),
            Timer::Coded => self.coded_tick(now, fx),
            Timer::Validation => self.validations_due(now, fx),
            Timer::Confirm => self.confirmations_due(now, fx),
            Timer::History => self.histories_due(now, fx),
        }
    }
}
