//! Between the gossip actor and its durable topics.

use peerage_machine::Time;
use peerage_wire::NodeId;

use super::State;
use crate::machine::In;
use crate::message::{Message, MessageId, Topic};
use crate::wire::Parcel;

/// Questions of readers answered before others get their turn.
const ASK_BUDGET: usize = 128;

/// A message of a durable topic; see `Out::Keep`.
pub(super) struct Kept {
    pub(super) id: MessageId,
    pub(super) parcel: Parcel,
    pub(super) from: Option<NodeId>,
    pub(super) first: bool,
    pub(super) old: bool,
}

impl State {
    /// What the logs answered, and what readers ask.
    pub(super) fn durable_turn(&mut self, now: Time) {
        let mut tell = self.durables.turn(now);
        for ask in self.args.durable.take(ASK_BUDGET) {
            self.durables.ask(now, ask, &mut tell);
        }
        tell.into_iter().for_each(|input| self.feed(now, input));
    }

    /// What is due, and topics that nobody reads any more.
    pub(super) fn durables_due(&mut self, now: Time) {
        let tell = self.durables.expire(now);
        tell.into_iter().for_each(|input| self.feed(now, input));
        for topic in self.durables.take_unread() {
            self.leave(now, topic);
        }
    }

    /// Leaves a topic, unless somebody still hears or reads it.
    pub(super) fn leave(&mut self, now: Time, topic: Topic) {
        if !self.durables.holds(&topic) && !self.subscribers.contains_key(&topic) {
            self.validators.remove(&topic);
            self.feed(now, In::Unsubscribe { topic });
        }
    }

    /// Looking through peers' logs for a topic began, or ended.
    pub(super) fn catch_up(&mut self, now: Time, topic: &Topic, running: bool, until: Option<Time>) {
        let mut tell = Vec::new();
        self.durables.catch_up(now, topic, running, until, &mut tell);
        tell.into_iter().for_each(|input| self.feed(now, input));
    }

    /// Keeps a message of a durable topic. Who hears the topic without reading it gets it at once, as any other, unless it
    /// is old.
    pub(super) fn keep(&mut self, now: Time, kept: Kept) {
        let Kept { id, parcel, from, first, old } = kept;
        let mut tell = Vec::new();
        if !self.durables.keep(now, id, &parcel, first, &mut tell) && !old {
            self.args.memory.seen(now, id, self.args.config.seen_ids, self.args.config.seen_for());
        }
        tell.into_iter().for_each(|input| self.feed(now, input));
        if old {
            return;
        }
        let Parcel { topic, origin, payload, .. } = parcel;
        let (publisher, issued) = origin.map(|origin| (origin.publisher, origin.issued)).unzip();
        self.deliver(now, Message { id, topic, publisher, issued, from, payload });
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.driver.next_deadline().into_iter().chain(self.durables.next_deadline()).min()
    }
}
