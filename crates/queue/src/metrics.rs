//! What the queue actor counts.

use metrics::Counter;
use peerage_mailbox::Meter;

use crate::Refusal;

pub(crate) struct Metrics {
    pub(crate) pushed: Counter,
    pub(crate) offered: Counter,
    pub(crate) taken_back: Counter,
    refused: Vec<Counter>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Metrics {
        meter.describe("peerage_queue_pushes_total", "Messages handed to the fan-out");
        meter.describe("peerage_queue_offers_total", "Messages queued for one peer each");
        meter.describe("peerage_queue_refused_total", "Messages not queued for a peer, by reason");
        meter.describe(
            "peerage_queue_taken_back_total",
            "Messages that were queued for a peer which turned out to have them",
        );
        let refused = |reason: &Refusal| meter.counter("peerage_queue_refused_total", &[("reason", reason.label())]);
        Metrics {
            pushed: meter.counter("peerage_queue_pushes_total", &[]),
            offered: meter.counter("peerage_queue_offers_total", &[]),
            taken_back: meter.counter("peerage_queue_taken_back_total", &[]),
            refused: Refusal::ALL.iter().map(refused).collect(),
        }
    }

    pub(crate) fn refused(&self, reason: Refusal) {
        let position = Refusal::ALL.iter().position(|known| *known == reason);
        if let Some(counter) = position.and_then(|position| self.refused.get(position)) {
            counter.increment(1);
        }
    }
}
