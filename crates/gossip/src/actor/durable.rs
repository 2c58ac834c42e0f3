//! Between the gossip actor and its durable topics.

use peerage_machine::Time;
use peerage_wire::NodeId;

use super::State;
use crate::machine::In;
use crate::message::{Message, MessageId, Topic};
use crate::wire::Parcel;

/// Questions of readers answered before others get their turn.
const ASK_BUDGET: usize = 128;

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

    /// Keeps a message of a durable topic. Who hears the topic without reading it gets it at once, as any other.
    pub(super) fn keep(&mut self, now: Time, id: MessageId, parcel: Parcel, from: Option<NodeId>, first: bool) {
        let mut tell = Vec::new();
        if !self.durables.keep(now, id, &parcel, first, &mut tell) {
            self.args.memory.seen(now, id, self.args.config.seen_ids, self.args.config.seen_for());
        }
        tell.into_iter().for_each(|input| self.feed(now, input));
        let Parcel { topic, origin, payload, .. } = parcel;
        let (publisher, issued) = origin.map(|origin| (origin.publisher, origin.issued)).unzip();
        self.deliver(now, Message { id, topic, publisher, issued, from, payload });
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.driver.next_deadline().into_iter().chain(self.durables.next_deadline()).min()
    }
}
