//! What the router actor counts.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use metrics::{Counter, Gauge, Histogram};
use peerage_mailbox::Meter;

use crate::handler::HandlerId;
use crate::machine::{Count, Fault, Stats};
use crate::stream::Counted;
use crate::wire::ErrorCode;

pub(crate) struct Metrics {
    counts: Vec<Counter>,
    pub(crate) streams: Counted,
    /// Streams and answers on streams: waiting for a header, served, opened, coming, going.
    open: [Gauge; 5],
    bytes_in: Counter,
    bytes_out: Counter,
    operations: Gauge,
    calls: Gauge,
    call_bytes: Gauge,
    waiting: Gauge,
    took: Histogram,
    turn: Histogram,
    /// Bounded by the handlers that this node has ever served in the actor's life; a peer can name none.
    handlers: BTreeMap<HandlerId, Handled>,
    meter: Meter,
}

/// What is counted of one handler. Each name is looked up once: a recorder's look-up takes as long as a small call.
struct Handled {
    name: String,
    took: Histogram,
    outcomes: BTreeMap<&'static str, Counter>,
}

/// How a call ended, for metrics: a closed set, whatever codes handlers use.
pub(crate) fn outcome(answer: &Result<Bytes, Fault>) -> &'static str {
    match answer.as_ref().map_err(|fault| fault.code) {
        Ok(_) => "ok",
        Err(ErrorCode::Internal) => "internal",
        Err(ErrorCode::UnknownHandler) => "unknown_handler",
        Err(ErrorCode::NotMember) => "not_member",
        Err(ErrorCode::Throttled) => "throttled",
        Err(ErrorCode::InvalidRequest) => "invalid_request",
        Err(ErrorCode::TooLarge) => "too_large",
        Err(ErrorCode::Application(_)) => "application",
        Err(ErrorCode::Unknown(_)) => "unknown",
    }
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Metrics {
        meter.describe(
            "peerage_router_events_total",
            "Requests and calls: how they went, and what was not done and why",
        );
        meter.describe("peerage_router_streams", "Streams that are open, by what they are");
        meter.describe("peerage_router_stream_bytes_total", "Bytes that applications read and wrote on streams");
        meter.describe("peerage_router_bytes_total", "Bytes on router channels; out once for each recipient");
        meter.describe("peerage_router_requests", "Requests of this node that wait for their end");
        meter.describe("peerage_router_calls", "Calls of peers that wait or are at work");
        meter.describe("peerage_router_call_bytes", "Bytes of their payloads");
        meter.describe("peerage_router_waiting", "Tasks of handlers that could go on and wait for their turn");
        meter.describe("peerage_router_answer_seconds", "Time from a request to its answer");
        meter.describe("peerage_router_turn_seconds", "Time the actor takes for one batch of what came in");
        meter.describe(
            "peerage_router_handled_total",
            "Calls of this node's handlers that ended, by handler and outcome",
        );
        meter.describe("peerage_router_handled_seconds", "Time that handlers took for a call, by handler");
        let event = |count: &Count| meter.counter("peerage_router_events_total", &[("event", count.label())]);
        let bytes = |direction| meter.counter("peerage_router_bytes_total", &[("direction", direction)]);
        let stream_bytes = |direction| meter.counter("peerage_router_stream_bytes_total", &[("direction", direction)]);
        Metrics {
            counts: Count::ALL.iter().map(event).collect(),
            streams: Counted { read: stream_bytes("in"), written: stream_bytes("out") },
            open: ["pending", "served", "opened", "answer_in", "answer_out"]
                .map(|state| meter.gauge("peerage_router_streams", &[("state", state)])),
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
            operations: meter.gauge("peerage_router_requests", &[]),
            calls: meter.gauge("peerage_router_calls", &[]),
            call_bytes: meter.gauge("peerage_router_call_bytes", &[]),
            waiting: meter.gauge("peerage_router_waiting", &[]),
            took: meter.histogram("peerage_router_answer_seconds", &[]),
            turn: meter.histogram("peerage_router_turn_seconds", &[]),
            handlers: BTreeMap::new(),
            meter: meter.clone(),
        }
    }

    /// A handler is served by this name.
    pub(crate) fn serves(&mut self, handler: HandlerId, name: &str) {
        let took = self.meter.histogram("peerage_router_handled_seconds", &[("handler", name)]);
        self.handlers.insert(handler, Handled { name: name.to_owned(), took, outcomes: BTreeMap::new() });
    }

    /// A call of a handler has ended.
    pub(crate) fn handled(&mut self, handler: HandlerId, outcome: &'static str, took: Duration) {
        let Some(Handled { name, took: times, outcomes }) = self.handlers.get_mut(&handler) else { return };
        let labels = [("handler", name.as_str()), ("outcome", outcome)];
        let counter =
            outcomes.entry(outcome).or_insert_with(|| self.meter.counter("peerage_router_handled_total", &labels));
        counter.increment(1);
        times.record(took.as_secs_f64());
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

    pub(crate) fn holds(&self, stats: Stats, waiting: usize) {
        self.waiting.set(waiting as f64);
        self.operations.set(stats.operations as f64);
        self.calls.set(stats.calls as f64);
        self.call_bytes.set(stats.call_bytes as f64);
        let Stats { streams_pending, streams_served, streams_opened, answers_in, answers_out, .. } = stats;
        let held = [streams_pending, streams_served, streams_opened, answers_in, answers_out];
        self.open.iter().zip(held).for_each(|(gauge, held)| gauge.set(held as f64));
    }
}

/// An actor that has ended holds nothing.
impl Drop for Metrics {
    fn drop(&mut self) {
        self.holds(Stats::default(), 0);
    }
}
