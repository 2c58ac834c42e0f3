//! What the gossip actor counts.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use peerage_mailbox::Meter;

use crate::machine::{Count, DropReason, Stats};

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
    drops: Vec<Counter>,
    cache_bytes: Gauge,
    cached: Gauge,
    seen: Gauge,
    handling: Histogram,
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
        meter.describe("peerage_gossip_ids_total", "Message ids announced (ihave) and asked for (iwant)");
        meter.describe("peerage_gossip_served_total", "Messages sent to peers that asked for them");
        meter.describe("peerage_gossip_cache_bytes", "Bytes of messages kept to be announced and served");
        meter.describe("peerage_gossip_cached", "Messages kept to be announced and served");
        meter.describe("peerage_gossip_seen", "Message ids remembered");
        meter.describe("peerage_gossip_turn_seconds", "Time the actor takes for one batch of what came in");
        let result = |name| meter.counter("peerage_gossip_messages_total", &[("result", name)]);
        let bytes = |direction| meter.counter("peerage_gossip_bytes_total", &[("direction", direction)]);
        let ids =
            |item, direction| meter.counter("peerage_gossip_ids_total", &[("item", item), ("direction", direction)]);
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
            drops: DropReason::ALL.iter().map(drops).collect(),
            cache_bytes: meter.gauge("peerage_gossip_cache_bytes", &[]),
            cached: meter.gauge("peerage_gossip_cached", &[]),
            seen: meter.gauge("peerage_gossip_seen", &[]),
            handling: meter.histogram("peerage_gossip_turn_seconds", &[]),
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
            Count::Dropped(reason) => self.dropped(reason),
        }
    }

    pub(crate) fn dropped(&self, reason: DropReason) {
        let position = DropReason::ALL.iter().position(|known| *known == reason);
        if let Some(counter) = position.and_then(|position| self.drops.get(position)) {
            counter.increment(1);
        }
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.bytes_in.increment(bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize, recipients: usize) {
        self.bytes_out.increment((bytes * recipients) as u64);
    }

    pub(crate) fn turn(&self, took: Duration, stats: Stats) {
        self.handling.record(took.as_secs_f64());
        self.cache_bytes.set(stats.cached_bytes as f64);
        self.cached.set(stats.cached as f64);
        self.seen.set(stats.seen as f64);
    }
}
