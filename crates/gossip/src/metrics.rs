//! What the gossip actor counts.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use peerage_mailbox::Meter;

use crate::machine::{Count, DropReason, PruneReason, Stats, Verdict};
use crate::message::Topic;

pub(crate) struct Metrics {
    pub(crate) delivered: Counter,
    accepted: Counter,
    published: Counter,
    duplicates: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    announced_in: Counter,
    announced_out: Counter,
    requested_in: Counter,
    requested_out: Counter,
    served: Counter,
    unwanted_out: Counter,
    grafted: Counter,
    grafted_by: Counter,
    pruned: Vec<Counter>,
    pruned_by: Counter,
    links: Gauge,
    pulls: Counter,
    repaired: Counter,
    history_asked: Counter,
    history_served: Counter,
    history_taken: Counter,
    shards_new: Counter,
    shards_known: Counter,
    shards_asked: Counter,
    rebuilt: Counter,
    drops: Vec<Counter>,
    cache_bytes: Gauge,
    cached: Gauge,
    seen: Gauge,
    handling: Histogram,
    meter: Meter,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Metrics {
        meter.describe(
            "peerage_gossip_messages_total",
            "Messages: published here, accepted from peers, handed to subscribers",
        );
        meter.describe("peerage_gossip_duplicates_total", "Copies of messages that were known or being checked");
        meter.describe("peerage_gossip_bytes_total", "Bytes on gossip channels; out once for each recipient");
        meter.describe("peerage_gossip_drops_total", "What was not done, by reason");
        meter.describe(
            "peerage_gossip_ids_total",
            "Message ids announced (ihave), asked for (iwant), and said to be here already (idontwant)",
        );
        meter.describe("peerage_gossip_served_total", "Messages sent to peers that asked for them");
        meter.describe("peerage_gossip_mesh_changes_total", "Peers grafted into meshes and pruned from them");
        meter.describe("peerage_gossip_mesh_links", "Peers in meshes, in all topics");
        meter.describe("peerage_gossip_pulls_total", "Filters of what is here that were shown to peers");
        meter.describe("peerage_gossip_repaired_total", "Messages sent to peers whose filter did not have them");
        meter.describe("peerage_gossip_cache_bytes", "Bytes of messages kept to be announced and served");
        meter.describe("peerage_gossip_cached", "Messages kept to be announced and served");
        meter.describe("peerage_gossip_seen", "Message ids remembered");
        meter.describe("peerage_gossip_turn_seconds", "Time the actor takes for one batch of what came in");
        meter.describe("peerage_gossip_shards_total", "Shards of coded messages: new, known, asked for");
        meter.describe("peerage_gossip_rebuilt_total", "Messages rebuilt of their shards");
        meter.describe(
            "peerage_gossip_history_total",
            "Histories of durable topics: questions to peers, messages sent out of the log, new ones from peers' logs",
        );
        let history = |what| meter.counter("peerage_gossip_history_total", &[("what", what)]);
        meter.describe("peerage_gossip_validations_total", "Verdicts of validators, by topic");
        meter.describe("peerage_gossip_validation_seconds", "Time from asking a validator to its verdict, by topic");
        let shards = |what| meter.counter("peerage_gossip_shards_total", &[("shard", what)]);
        let result = |name| meter.counter("peerage_gossip_messages_total", &[("result", name)]);
        let bytes = |direction| meter.counter("peerage_gossip_bytes_total", &[("direction", direction)]);
        let ids =
            |item, direction| meter.counter("peerage_gossip_ids_total", &[("item", item), ("direction", direction)]);
        let mesh = |change, by, reason| {
            meter.counter("peerage_gossip_mesh_changes_total", &[("change", change), ("by", by), ("reason", reason)])
        };
        let drops = |reason: &DropReason| meter.counter("peerage_gossip_drops_total", &[("reason", reason.label())]);
        Metrics {
            delivered: result("delivered"),
            accepted: result("accepted"),
            published: result("published"),
            duplicates: meter.counter("peerage_gossip_duplicates_total", &[]),
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
            announced_in: ids("ihave", "in"),
            announced_out: ids("ihave", "out"),
            requested_in: ids("iwant", "in"),
            requested_out: ids("iwant", "out"),
            served: meter.counter("peerage_gossip_served_total", &[]),
            unwanted_out: ids("idontwant", "out"),
            grafted: mesh("graft", "us", "wanted"),
            grafted_by: mesh("graft", "peer", "wanted"),
            pruned: PruneReason::ALL.iter().map(|reason| mesh("prune", "us", reason.label())).collect(),
            pruned_by: mesh("prune", "peer", "told"),
            links: meter.gauge("peerage_gossip_mesh_links", &[]),
            pulls: meter.counter("peerage_gossip_pulls_total", &[]),
            repaired: meter.counter("peerage_gossip_repaired_total", &[]),
            history_asked: history("asked"),
            history_served: history("served"),
            history_taken: history("taken"),
            shards_new: shards("new"),
            shards_known: shards("known"),
            shards_asked: shards("asked"),
            rebuilt: meter.counter("peerage_gossip_rebuilt_total", &[]),
            drops: DropReason::ALL.iter().map(drops).collect(),
            cache_bytes: meter.gauge("peerage_gossip_cache_bytes", &[]),
            cached: meter.gauge("peerage_gossip_cached", &[]),
            seen: meter.gauge("peerage_gossip_seen", &[]),
            handling: meter.histogram("peerage_gossip_turn_seconds", &[]),
            meter: meter.clone(),
        }
    }

    pub(crate) fn count(&self, count: Count) {
        match count {
            Count::Accepted => self.accepted.increment(1),
            Count::Published => self.published.increment(1),
            Count::Duplicate => self.duplicates.increment(1),
            Count::AnnouncedOut(ids) => self.announced_out.increment(ids as u64),
            Count::AnnouncedIn(ids) => self.announced_in.increment(ids as u64),
            Count::RequestedOut(ids) => self.requested_out.increment(ids as u64),
            Count::RequestedIn(ids) => self.requested_in.increment(ids as u64),
            Count::Served => self.served.increment(1),
            Count::UnwantedOut(ids) => self.unwanted_out.increment(ids as u64),
            Count::Grafted => self.grafted.increment(1),
            Count::GraftedBy => self.grafted_by.increment(1),
            Count::Pruned(reason) => {
                if let Some(counter) = self.pruned.get(reason as usize) {
                    counter.increment(1);
                }
            }
            Count::PrunedBy => self.pruned_by.increment(1),
            Count::Pulled => self.pulls.increment(1),
            Count::Repaired(messages) => self.repaired.increment(messages as u64),
            Count::HistoryAsked => self.history_asked.increment(1),
            Count::HistoryServed(messages) => self.history_served.increment(messages as u64),
            Count::HistoryTaken => self.history_taken.increment(1),
            Count::Shard(true) => self.shards_new.increment(1),
            Count::Shard(false) => self.shards_known.increment(1),
            Count::ShardsAsked(shards) => self.shards_asked.increment(shards as u64),
            Count::Rebuilt => self.rebuilt.increment(1),
            Count::Dropped(reason) => self.dropped(reason),
        }
    }

    pub(crate) fn dropped(&self, reason: DropReason) {
        let position = DropReason::ALL.iter().position(|known| *known == reason);
        if let Some(counter) = position.and_then(|position| self.drops.get(position)) {
            counter.increment(1);
        }
    }

    /// A validator's verdict. A topic that has one is this node's own choice, so a peer can make no label.
    pub(crate) fn judged(&self, topic: &Topic, verdict: Verdict, took: Duration) {
        let outcome = match verdict {
            Verdict::Accept => "accept",
            Verdict::Ignore => "ignore",
            Verdict::Reject => "reject",
        };
        let topic = ("topic", topic.as_str());
        self.meter.counter("peerage_gossip_validations_total", &[topic, ("outcome", outcome)]).increment(1);
        self.meter.histogram("peerage_gossip_validation_seconds", &[topic]).record(took.as_secs_f64());
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.bytes_in.increment(bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize, recipients: usize) {
        self.bytes_out.increment((bytes * recipients) as u64);
    }

    pub(crate) fn turn(&self, took: Duration) {
        self.handling.record(took.as_secs_f64());
    }

    /// How much there is, at each tick: at each turn it would cost as much as handling a copy of a known message.
    pub(crate) fn holds(&self, stats: Stats) {
        self.cache_bytes.set(stats.cached_bytes as f64);
        self.cached.set(stats.cached as f64);
        self.seen.set(stats.seen as f64);
        self.links.set(stats.links as f64);
    }
}
