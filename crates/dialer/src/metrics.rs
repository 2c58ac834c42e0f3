//! What the dialer shows: dials, their outcomes, refused candidates, slots.

use std::collections::BTreeMap;

use metrics::{Counter, Gauge};
use peerage_mailbox::Meter;

use crate::{Cause, Count, Out, Refusal, Status};

const KINDS: [&str; 2] = ["dynamic", "static"];

fn kind(is_static: bool) -> &'static str {
    KINDS[usize::from(is_static)]
}

/// The dialer's metrics. Labels are from closed sets: the kind of a dial, its outcome, a reason.
#[derive(Debug)]
pub(crate) struct Metrics {
    meter: Meter,
    dropped: BTreeMap<Refusal, Counter>,
    causes: BTreeMap<Cause, Counter>,
    resolves: Counter,
    late: Counter,
    statics_refused: Counter,
    enabled: Gauge,
    wanted: Gauge,
    dialled_peers: Gauge,
    dialing: Gauge,
    dialing_static: Gauge,
    free_slots: Gauge,
    statics: Gauge,
    remembered: Gauge,
}

const DIALS: &str = "peerage_dialer_dials_total";
const OUTCOMES: &str = "peerage_dialer_outcomes_total";
const DROPPED: &str = "peerage_dialer_candidates_dropped_total";
const CAUSES: &str = "peerage_dialer_causes_total";
const RESOLVES: &str = "peerage_dialer_resolves_total";
const LATE: &str = "peerage_dialer_late_answers_total";
const STATICS_REFUSED: &str = "peerage_dialer_statics_refused_total";
const ENABLED: &str = "peerage_dialer_enabled";
const WANTED: &str = "peerage_dialer_wanted_peers";
const DIALLED_PEERS: &str = "peerage_dialer_dialled_peers";
const DIALING: &str = "peerage_dialer_dialing";
const FREE_SLOTS: &str = "peerage_dialer_free_slots";
const STATICS: &str = "peerage_dialer_statics";
const REMEMBERED: &str = "peerage_dialer_remembered";

impl Metrics {
    pub(crate) fn new(meter: Meter) -> Metrics {
        for (name, help) in [
            (DIALS, "dials asked of the connector"),
            (OUTCOMES, "ended attempts by outcome, and failed handshakes by reason"),
            (DROPPED, "candidates not dialled, by reason"),
            (CAUSES, "what kept nodes from becoming dialled peers, static ones not counted"),
            (RESOLVES, "static peers looked up"),
            (LATE, "answers to attempts that had ended"),
            (STATICS_REFUSED, "static peers refused: this node itself, or too many"),
            (ENABLED, "1 if anybody is dialled at all"),
            (WANTED, "peers this node wants to have dialled, static ones not counted"),
            (DIALLED_PEERS, "connected peers this node dialled, static ones not counted"),
            (DIALING, "attempts in flight"),
            (FREE_SLOTS, "slots free for candidates"),
            (STATICS, "static peers"),
            (REMEMBERED, "nodes whose dials and failures are remembered"),
        ] {
            meter.describe(name, help);
        }
        Metrics {
            dropped: Refusal::ALL
                .iter()
                .map(|refusal| (*refusal, meter.counter(DROPPED, &[("reason", refusal.label())])))
                .collect(),
            causes: Cause::ALL
                .iter()
                .map(|cause| (*cause, meter.counter(CAUSES, &[("cause", cause.label())])))
                .collect(),
            resolves: meter.counter(RESOLVES, &[]),
            late: meter.counter(LATE, &[]),
            statics_refused: meter.counter(STATICS_REFUSED, &[]),
            enabled: meter.gauge(ENABLED, &[]),
            wanted: meter.gauge(WANTED, &[]),
            dialled_peers: meter.gauge(DIALLED_PEERS, &[]),
            dialing: meter.gauge(DIALING, &[("kind", kind(false))]),
            dialing_static: meter.gauge(DIALING, &[("kind", kind(true))]),
            free_slots: meter.gauge(FREE_SLOTS, &[]),
            statics: meter.gauge(STATICS, &[]),
            remembered: meter.gauge(REMEMBERED, &[]),
            meter,
        }
    }

    pub(crate) fn note(&self, out: &Out) {
        match out {
            Out::Dial { target, .. } => self.meter.counter(DIALS, &[("kind", kind(target.is_static))]).increment(1),
            Out::Resolve { .. } => self.resolves.increment(1),
            Out::Want(_) | Out::Cancel(_) | Out::Seeking(_) => {}
            Out::Count(Count::Dropped(refusal)) => {
                if let Some(counter) = self.dropped.get(refusal) {
                    counter.increment(1);
                }
            }
            Out::Count(Count::Cause(cause)) => {
                if let Some(counter) = self.causes.get(cause) {
                    counter.increment(1);
                }
            }
            Out::Count(Count::Finished { outcome, is_static }) => {
                let (outcome, reason) = outcome.labels();
                let labels = [("kind", kind(*is_static)), ("outcome", outcome), ("reason", reason)];
                self.meter.counter(OUTCOMES, &labels).increment(1);
            }
            Out::Count(Count::Late) => self.late.increment(1),
            Out::Count(Count::StaticRefused) => self.statics_refused.increment(1),
        }
    }

    pub(crate) fn show(&self, status: Status) {
        self.enabled.set(f64::from(u8::from(status.enabled)));
        self.wanted.set(status.wanted);
        self.dialled_peers.set(status.dialled_peers);
        self.dialing.set(status.dialing);
        self.dialing_static.set(status.dialing_static);
        self.free_slots.set(status.free_slots);
        self.statics.set(status.statics as f64);
        self.remembered.set(status.remembered as f64);
    }
}
