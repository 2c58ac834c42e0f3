//! What the shell of durable topics counts.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use peerage_mailbox::Meter;

use super::DurableCount;

pub(crate) struct DurableMetrics {
    meter: Meter,
    persisted: Counter,
    retired: Counter,
    held: Counter,
    given_up: Counter,
    late: Counter,
    publishers: Counter,
    overflow: Counter,
    pub(super) entries: Gauge,
    pub(super) bytes: Gauge,
    pub(super) in_memory: Gauge,
    latency: Histogram,
}

impl DurableMetrics {
    pub(crate) fn new(meter: &Meter) -> DurableMetrics {
        let messages = "peerage_gossip_durable_messages_total";
        meter.describe(messages, "Messages of durable topics: persisted, dropped by retention, held back, or dropped");
        meter.describe("peerage_gossip_durable_entries", "Messages of durable topics on disk");
        meter.describe("peerage_gossip_durable_bytes", "Bytes of messages of durable topics on disk");
        meter.describe("peerage_gossip_durable_memory_bytes", "Bytes that are held back or wait for the disk");
        meter.describe("peerage_gossip_durable_persist_seconds", "How long the disk takes for one commit");
        meter.describe("peerage_gossip_durable_errors_total", "What the logs could not do, by reason");
        let count = |result| meter.counter(messages, &[("result", result)]);
        DurableMetrics {
            persisted: count("persisted"),
            retired: count("retired"),
            held: count("held"),
            given_up: count("given_up"),
            late: count("late"),
            publishers: count("publishers"),
            overflow: count("overflow"),
            entries: meter.gauge("peerage_gossip_durable_entries", &[]),
            bytes: meter.gauge("peerage_gossip_durable_bytes", &[]),
            in_memory: meter.gauge("peerage_gossip_durable_memory_bytes", &[]),
            latency: meter.histogram("peerage_gossip_durable_persist_seconds", &[]),
            meter: meter.clone(),
        }
    }

    pub(super) fn count(&self, count: DurableCount) {
        match count {
            DurableCount::Persisted(messages) => self.persisted.increment(messages),
            DurableCount::Retired(messages) => self.retired.increment(messages),
            DurableCount::Held => self.held.increment(1),
            DurableCount::GivenUp(times) => self.given_up.increment(times),
            DurableCount::Late => self.late.increment(1),
            DurableCount::Publishers => self.publishers.increment(1),
            DurableCount::Overflow => self.overflow.increment(1),
        }
    }

    pub(super) fn took(&self, time: Duration) {
        self.latency.record(time.as_secs_f64());
    }

    /// Errors are rare, so their counters are made when they happen.
    pub(super) fn failed(&self, reason: &'static str) {
        self.meter.counter("peerage_gossip_durable_errors_total", &[("reason", reason)]).increment(1);
    }
}
