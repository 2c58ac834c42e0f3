//! What the discovery actor counts.

use metrics::{Counter, Gauge, Histogram};
use peerage_mailbox::Meter;

use crate::count::{DropReason, Event};
use crate::key::BUCKETS;
use crate::source::Source;
use crate::wire::Kind;

/// Handles for one node; all labels come from closed enums.
#[derive(Clone)]
pub(crate) struct Metrics {
    received: Vec<Counter>,
    sent: Vec<Counter>,
    drops: Vec<Counter>,
    events: Vec<Counter>,
    buckets: Vec<Gauge>,
    clock_drift: Gauge,
    candidates: Vec<Counter>,
    hops: Histogram,
    queries: Histogram,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Metrics {
        meter.describe("peerage_discovery_packets_total", "Discovery packets that passed the gate or were sent.");
        meter.describe("peerage_discovery_drops_total", "Packets and records dropped, by reason.");
        meter.describe("peerage_discovery_events_total", "Lookups, refreshes, time-outs and table changes.");
        meter.describe("peerage_discovery_table_nodes", "Nodes in each bucket of the table; 16 is the farthest.");
        meter.describe(
            "peerage_discovery_clock_drift_seconds",
            "How far this computer's clock is ahead of its peers'; 0 until five sites told theirs.",
        );
        meter
            .describe("peerage_discovery_candidates_total", "Records handed to the dialer, by where they were learnt.");
        meter.describe(
            "peerage_discovery_lookup_hops",
            "Nodes asked one after another until the nearest one that a lookup found was told of.",
        );
        meter.describe("peerage_discovery_lookup_queries", "Questions that a lookup asked.");
        let packets = |direction| {
            let counter = |kind: Kind| {
                let labels = [("direction", direction), ("type", kind.label())];
                meter.counter("peerage_discovery_packets_total", &labels)
            };
            Kind::ALL.into_iter().map(counter).collect()
        };
        Metrics {
            received: packets("in"),
            sent: packets("out"),
            drops: DropReason::ALL
                .iter()
                .map(|reason| meter.counter("peerage_discovery_drops_total", &[("reason", reason.label())]))
                .collect(),
            events: Event::ALL
                .iter()
                .map(|event| meter.counter("peerage_discovery_events_total", &[("event", event.label())]))
                .collect(),
            buckets: (0..BUCKETS)
                .map(|bucket| meter.gauge("peerage_discovery_table_nodes", &[("bucket", &bucket.to_string())]))
                .collect(),
            clock_drift: meter.gauge("peerage_discovery_clock_drift_seconds", &[]),
            candidates: Source::ALL
                .iter()
                .map(|source| meter.counter("peerage_discovery_candidates_total", &[("source", source.label())]))
                .collect(),
            hops: meter.histogram("peerage_discovery_lookup_hops", &[]),
            queries: meter.histogram("peerage_discovery_lookup_queries", &[]),
        }
    }

    pub(crate) fn walked(&self, hops: u8, queries: usize) {
        self.hops.record(f64::from(hops));
        self.queries.record(queries as f64);
    }

    pub(crate) fn received(&self, kind: Kind) {
        add(&self.received, kind as usize);
    }

    pub(crate) fn sent(&self, kind: Kind) {
        add(&self.sent, kind as usize);
    }

    pub(crate) fn dropped(&self, reason: DropReason) {
        add(&self.drops, reason as usize);
    }

    pub(crate) fn dropped_many(&self, reason: DropReason, count: u64) {
        if let Some(counter) = self.drops.get(reason as usize) {
            counter.increment(count);
        }
    }

    pub(crate) fn clock_drift(&self, seconds: i64) {
        self.clock_drift.set(seconds as f64);
    }

    pub(crate) fn event(&self, event: Event) {
        add(&self.events, event as usize);
    }

    pub(crate) fn handed(&self, source: Source) {
        add(&self.candidates, source as usize);
    }

    pub(crate) fn table(&self, sizes: [usize; BUCKETS]) {
        for (gauge, size) in self.buckets.iter().zip(sizes) {
            gauge.set(size as f64);
        }
    }
}

/// Counts one of several that are in the order of their enum's values.
pub(crate) fn add(counters: &[Counter], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.increment(1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use peerage_mailbox::Counts;

    use super::*;

    #[test]
    fn every_count_goes_to_its_own_label() {
        let counts = Counts::default();
        let metrics = Metrics::new(&Meter::new(Arc::new(counts.clone())));
        Kind::ALL.into_iter().for_each(|kind| metrics.received(kind));
        metrics.sent(Kind::Cookie);
        DropReason::ALL.iter().for_each(|reason| metrics.dropped(*reason));
        Event::ALL.iter().for_each(|event| metrics.event(*event));
        metrics.clock_drift(-12);
        Source::ALL.into_iter().for_each(|source| metrics.handed(source));
        metrics.dropped_many(DropReason::Kernel, 3);
        metrics.table(std::array::from_fn(|bucket| bucket));
        let value = |name: &str| counts.counter(name);
        assert_eq!(value("peerage_discovery_packets_total{direction=in,type=find_node}"), 1);
        assert_eq!(value("peerage_discovery_packets_total{direction=out,type=cookie}"), 1);
        assert_eq!(value("peerage_discovery_packets_total{direction=out,type=ping}"), 0);
        for reason in DropReason::ALL {
            let name = format!("peerage_discovery_drops_total{{reason={}}}", reason.label());
            assert_eq!(value(&name), if *reason == DropReason::Kernel { 4 } else { 1 }, "{name}");
        }
        assert_eq!(counts.gauge("peerage_discovery_clock_drift_seconds{}"), Some(-12.0));
        for event in Event::ALL {
            let name = format!("peerage_discovery_events_total{{event={}}}", event.label());
            assert_eq!(value(&name), 1, "{name}");
        }
        for source in Source::ALL {
            let name = format!("peerage_discovery_candidates_total{{source={}}}", source.label());
            assert_eq!(value(&name), 1, "{name}");
        }
        for bucket in 0..BUCKETS {
            let name = format!("peerage_discovery_table_nodes{{bucket={bucket}}}");
            assert_eq!(counts.gauge(&name), Some(bucket as f64), "{name}");
        }
    }
}
