//! What the queue actor counts.

use metrics::{Counter, Gauge};
use peerage_mailbox::Meter;

use crate::Refusal;

pub(crate) struct Metrics {
    pub(crate) pushed: Counter,
    pub(crate) offered: Counter,
    refused: Vec<Counter>,
    pool_bytes: Gauge,
    lane_bytes: Gauge,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Metrics {
        meter.describe("peerage_queue_pushes_total", "Messages handed to the fan-out");
        meter.describe("peerage_queue_offers_total", "Messages queued for one peer each");
        meter.describe("peerage_queue_refused_total", "Messages not queued for a peer, by reason");
        meter.describe("peerage_queue_bytes", "Bytes queued: in the node's pool, and in all peers' lanes");
        let refused = |reason: &Refusal| meter.counter("peerage_queue_refused_total", &[("reason", reason.label())]);
        Metrics {
            pushed: meter.counter("peerage_queue_pushes_total", &[]),
            offered: meter.counter("peerage_queue_offers_total", &[]),
            refused: Refusal::ALL.iter().map(refused).collect(),
            pool_bytes: meter.gauge("peerage_queue_bytes", &[("in", "pool")]),
            lane_bytes: meter.gauge("peerage_queue_bytes", &[("in", "lanes")]),
        }
    }

    pub(crate) fn refused(&self, reason: Refusal) {
        let position = Refusal::ALL.iter().position(|known| *known == reason);
        if let Some(counter) = position.and_then(|position| self.refused.get(position)) {
            counter.increment(1);
        }
    }

    pub(crate) fn bytes(&self, pool: usize, lanes: usize) {
        self.pool_bytes.set(pool as f64);
        self.lane_bytes.set(lanes as f64);
    }
}
