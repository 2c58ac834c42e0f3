//! What the router actor counts.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use peerage_mailbox::Meter;

use crate::machine::{Count, Stats};

pub(crate) struct Metrics {
    counts: Vec<Counter>,
    pub(crate) crashed: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    operations: Gauge,
    calls: Gauge,
    call_bytes: Gauge,
    took: Histogram,
    turn: Histogram,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Metrics {
        meter.describe(
            "peerage_router_events_total",
            "Requests and calls: how they went, and what was not done and why",
        );
        meter.describe("peerage_router_handler_panics_total", "Calls whose handler panicked");
        meter.describe("peerage_router_bytes_total", "Bytes on router channels; out once for each recipient");
        meter.describe("peerage_router_requests", "Requests of this node that wait for their end");
        meter.describe("peerage_router_calls", "Calls of peers that wait or are at work");
        meter.describe("peerage_router_call_bytes", "Bytes of their payloads");
        meter.describe("peerage_router_answer_seconds", "Time from a request to its answer");
        meter.describe("peerage_router_turn_seconds", "Time the actor takes for one batch of what came in");
        let event = |count: &Count| meter.counter("peerage_router_events_total", &[("event", count.label())]);
        let bytes = |direction| meter.counter("peerage_router_bytes_total", &[("direction", direction)]);
        Metrics {
            counts: Count::ALL.iter().map(event).collect(),
            crashed: meter.counter("peerage_router_handler_panics_total", &[]),
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
            operations: meter.gauge("peerage_router_requests", &[]),
            calls: meter.gauge("peerage_router_calls", &[]),
            call_bytes: meter.gauge("peerage_router_call_bytes", &[]),
            took: meter.histogram("peerage_router_answer_seconds", &[]),
            turn: meter.histogram("peerage_router_turn_seconds", &[]),
        }
    }

    pub(crate) fn count(&self, count: Count) {
        if let Some(counter) = self.counts.get(count as usize) {
            counter.increment(1);
        }
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.bytes_in.increment(bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize, recipients: usize) {
        self.bytes_out.increment((bytes * recipients) as u64);
    }

    pub(crate) fn answered(&self, took: Duration) {
        self.took.record(took.as_secs_f64());
    }

    pub(crate) fn turn(&self, took: Duration) {
        self.turn.record(took.as_secs_f64());
    }

    pub(crate) fn holds(&self, stats: Stats) {
        self.operations.set(stats.operations as f64);
        self.calls.set(stats.calls as f64);
        self.call_bytes.set(stats.call_bytes as f64);
    }
}

/// An actor that has ended holds nothing.
impl Drop for Metrics {
    fn drop(&mut self) {
        self.holds(Stats::default());
    }
}
