//! What the exchange actor counts.

use metrics::{Counter, Gauge};
use peerage_mailbox::Meter;

use super::count::{DropReason, Event};
use crate::external::Reachable;
use crate::metrics::add;

const REACHABLE: [Reachable; 3] = [Reachable::Unknown, Reachable::Yes, Reachable::No];

pub(crate) struct Metrics {
    drops: Vec<Counter>,
    events: Vec<Counter>,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    known: Gauge,
    reachable: Vec<(Reachable, Gauge)>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Metrics {
        meter.describe("peerage_exchange_drops_total", "What peers sent on peers/1 and went no further, by reason");
        meter.describe("peerage_exchange_events_total", "Pulls, answers, dial-backs and what was learnt");
        meter.describe("peerage_exchange_bytes_total", "Bytes on channels of peers/1");
        meter.describe("peerage_exchange_known", "Nodes that peers told of and are not connected");
        meter.describe(
            "peerage_reachability",
            "1 for whether the node can be dialled from outside: unknown, reachable, unreachable",
        );
        let metrics = Metrics {
            drops: DropReason::ALL
                .iter()
                .map(|reason| meter.counter("peerage_exchange_drops_total", &[("reason", reason.label())]))
                .collect(),
            events: Event::ALL
                .iter()
                .map(|event| meter.counter("peerage_exchange_events_total", &[("event", event.label())]))
                .collect(),
            bytes_in: meter.counter("peerage_exchange_bytes_total", &[("direction", "in")]),
            bytes_out: meter.counter("peerage_exchange_bytes_total", &[("direction", "out")]),
            known: meter.gauge("peerage_exchange_known", &[]),
            reachable: REACHABLE
                .iter()
                .map(|state| (*state, meter.gauge("peerage_reachability", &[("state", state.label())])))
                .collect(),
        };
        metrics.reachable(Reachable::Unknown);
        metrics
    }

    pub(crate) fn dropped(&self, reason: DropReason) {
        add(&self.drops, reason as usize);
    }

    pub(crate) fn event(&self, event: Event) {
        add(&self.events, event as usize);
    }

    pub(crate) fn known(&self, known: usize) {
        self.known.set(known as f64);
    }

    pub(crate) fn reachable(&self, state: Reachable) {
        for (label, gauge) in &self.reachable {
            gauge.set(if *label == state { 1.0 } else { 0.0 });
        }
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
        DropReason::ALL.iter().for_each(|reason| metrics.dropped(*reason));
        Event::ALL.iter().for_each(|event| metrics.event(*event));
        for reason in DropReason::ALL {
            assert_eq!(counts.counter(&format!("peerage_exchange_drops_total{{reason={}}}", reason.label())), 1);
        }
        for event in Event::ALL {
            assert_eq!(counts.counter(&format!("peerage_exchange_events_total{{event={}}}", event.label())), 1);
        }
        for state in REACHABLE {
            metrics.reachable(state);
            let shown =
                REACHABLE.map(|other| counts.gauge(&format!("peerage_reachability{{state={}}}", other.label())));
            let expected = REACHABLE.map(|other| Some(if other == state { 1.0 } else { 0.0 }));
            assert_eq!(shown, expected);
        }
    }
}
