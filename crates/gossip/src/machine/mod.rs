//! The rules of gossip.
//!
//! In the order in which a copy of a message meets them: seen already; in flight (it waits for the one
//! check); outside the time window; refused before; one strict check; and only then it is marked as seen,
//! delivered and sent on. Marking earlier would let a forged copy censor the true one.

mod aged;
mod blame;
mod cache;
mod contract;
mod flights;
mod inbound;
mod peers;
mod publish;
mod repair;
#[cfg(test)]
mod tests;
mod wants;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::{Effects, Machine, Rng, Time};
use peerage_queue::{Recipient, SessionId};
use peerage_wire::frame::Lane;
use peerage_wire::{NodeId, Penalty};

pub use self::blame::{Blame, Handling, Suspect};
pub use self::contract::{Count, DropReason, In, Out, Outgoing, PublishError, Published, Stats, SubscribeError, Timer};

use self::aged::AgedSet;
use self::cache::{Cache, Slots};
use self::flights::Flights;
use self::peers::Peers;
use self::publish::Draft;
use self::wants::{Asks, Wants};
use crate::config::Config;
use crate::message::{Fingerprint, Message, MessageId, Policy, Topic};
use crate::wire::{self, Parcel};

/// Tags of pushes that are not messages; see [`In::SendFailed`].
mod tag {
    pub(super) const TOPICS: u64 = 0;
    pub(super) const ANNOUNCEMENT: u64 = 1;
    pub(super) const REQUEST: u64 = 2;
}

/// Messages that made a handler panic, remembered so long and so many.
const POISON_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const MAX_POISON: usize = 1024;

type Fx = Effects<Out, Timer>;

/// A node's gossip.
#[derive(Debug)]
pub struct GossipMachine {
    config: Config,
    node: NodeId,
    rng: Rng,
    /// What this node is subscribed to.
    subscriptions: BTreeMap<Topic, Policy>,
    peers: Peers,
    seen: AgedSet<MessageId>,
    flights: Flights,
    rejected: AgedSet<Fingerprint>,
    poison: AgedSet<Fingerprint>,
    cache: Cache,
    wants: Wants,
    drafts: BTreeMap<u64, Draft>,
    last_sequence: u64,
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
            peers: Peers::new(config.fanout, rng.fork()),
            seen: AgedSet::new(config.seen_ids, config.seen_for()),
            flights: Flights::new(config.in_flight, config.in_flight_bytes),
            rejected: AgedSet::new(config.rejected, config.seen_for()),
            poison: AgedSet::new(MAX_POISON, POISON_LIFETIME),
            cache: Cache::new(config.cache_bytes, config.cache_ids, config.retained),
            wants: Wants::new(config.want_timeout, config.wants_per_peer),
            drafts: BTreeMap::new(),
            last_sequence: 0,
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
            wanted: self.wants.len(),
        }
    }

    fn peer_up(&mut self, now: Time, session: SessionId, id: NodeId, channel: peerage_queue::ChannelId, fx: &mut Fx) {
        if !self.peers.up(now, session, id, channel) {
            return;
        }
        // Always asks for the peer's in return: this node may have restarted its gossip, and what the peer
        // said first may have come before this node knew of the session.
        self.send_topics(session, true, fx);
        self.start_heart(now, fx);
    }

    fn peer_down(&mut self, now: Time, session: SessionId, fx: &mut Fx) {
        let Some(slot) = self.peers.down(session) else { return };
        self.cache.forget_slot(slot);
        let mut asks = Asks::new();
        self.wants.forget(now, session, &mut asks);
        self.ask(asks, fx);
    }

    fn send_topics(&self, session: SessionId, want_reply: bool, fx: &mut Fx) {
        let bytes = wire::topics(want_reply, self.subscriptions.keys());
        self.control(self.peers.recipient(session), Lane::Control, bytes, tag::TOPICS, fx);
    }

    fn subscribe(&mut self, topic: Topic, policy: Policy, fx: &mut Fx) -> Result<(), SubscribeError> {
        match self.subscriptions.get(&topic) {
            Some(other) if *other != policy => Err(SubscribeError::Policy(*other)),
            Some(_) => Ok(()),
            None if self.subscriptions.len() >= self.config.max_topics => {
                Err(SubscribeError::TooMany(self.config.max_topics))
            }
            None => {
                self.control(self.peers.everyone(), Lane::Control, wire::subscribe(&topic), tag::TOPICS, fx);
                self.peers.topic_matters(&topic);
                self.subscriptions.insert(topic, policy);
                Ok(())
            }
        }
    }

    fn unsubscribe(&mut self, topic: &Topic, fx: &mut Fx) {
        if self.subscriptions.remove(topic).is_some() {
            self.control(self.peers.everyone(), Lane::Control, wire::unsubscribe(topic), tag::TOPICS, fx);
            self.peers.topic_matters(topic);
        }
    }

    /// Takes a message that has passed every check: marks, keeps, delivers and pushes it. Answers how many
    /// peers it was pushed to.
    fn accept(
        &mut self,
        now: Time,
        id: MessageId,
        parcel: Parcel,
        from: Option<NodeId>,
        mut has: Slots,
        fx: &mut Fx,
    ) -> usize {
        if self.seen.insert(now, id) {
            fx.emit(Out::Count(Count::Dropped(DropReason::SeenEvicted)));
        }
        fx.emit(Out::Remember(id));
        let publisher = parcel.origin.as_ref().map(|origin| origin.publisher);
        self.peers.mark(&mut has, publisher, self.wants.settle(&id));
        let (to, told) = self.peers.lacking(&parcel.topic, &has);
        let count = to.len();
        let tag = self.cache.keep(now, id, parcel.topic.clone(), parcel.bytes.clone(), has, told);
        if self.subscriptions.contains_key(&parcel.topic) {
            let issued = parcel.origin.as_ref().map(|origin| origin.issued);
            let Parcel { topic, payload, bytes, .. } = parcel;
            fx.emit(Out::Deliver(Message { id, topic, publisher, issued, from, payload }));
            self.push(to, bytes, tag, fx);
        } else {
            self.push(to, parcel.bytes, tag, fx);
        }
        self.start_heart(now, fx);
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

    fn send_failed(&mut self, session: SessionId, tag: u64) {
        let Some(peer) = self.peers.get_mut(session) else { return };
        match tag {
            tag::TOPICS => peer.owed_topics = Some(true),
            tag::ANNOUNCEMENT => self.cache.forget_told(peer.slot),
            // It times out, and the next peer is asked.
            tag::REQUEST => {}
            tag => self.cache.unsent(tag, peer.slot),
        }
    }

    /// Blames a peer, once for all floods between two heartbeats.
    fn blame(&mut self, session: SessionId, penalty: Penalty, fx: &mut Fx) {
        if penalty == Penalty::ControlFlood {
            match self.peers.get_mut(session) {
                Some(peer) if !peer.beat.blamed => peer.beat.blamed = true,
                _ => return,
            }
        }
        fx.emit(Out::Report { session, penalty });
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

fn dropped(reason: DropReason, fx: &mut Fx) {
    fx.emit(Out::Count(Count::Dropped(reason)));
}

impl Machine for GossipMachine {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Fx) {
        match input {
            In::PeerUp { session, id, channel } => self.peer_up(now, session, id, channel, fx),
            In::PeerDown { session } => self.peer_down(now, session, fx),
            In::Subscribe { token, topic, policy } => {
                let result = self.subscribe(topic, policy, fx);
                fx.emit(Out::Subscribed { token, result });
            }
            In::Unsubscribe { topic } => self.unsubscribe(&topic, fx),
            In::Publish { token, topic, policy, payload, pressed } => {
                if let Err(error) = self.publish(now, token, topic, policy, payload, pressed, fx) {
                    fx.emit(Out::Published { token, result: Err(error) });
                }
            }
            In::Signed { token, signature } => self.signed(now, token, signature, fx),
            In::Inbound { session, payload } => self.inbound(now, session, payload, fx),
            In::Verified { token, ok } => self.verified(now, token, ok, fx),
            In::CheckPanicked { token } => self.check_panicked(now, token, fx),
            In::SendFailed { session, tag } => self.send_failed(session, tag),
            In::Restore { seen, sequence, useful } => self.restore(seen, sequence, useful),
            In::Refuse { fingerprint } => drop(self.poison.insert(now, fingerprint)),
        }
        self.tell_of_use(fx);
        // A panic leaves it set, which is what it is for.
        self.handling = None;
    }

    fn expire(&mut self, now: Time, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Heartbeat => self.heartbeat(now, fx),
            Timer::Wants => self.ask_others(now, fx),
        }
    }
}
