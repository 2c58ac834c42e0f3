//! What the root, the listener and the connector count.

use metrics::{Counter, Gauge};
use peerage_mailbox::Meter;
use peerage_nodedb::{Entries, Stats};
use peerage_peer_session::handshake::Direction;
use peerage_queue::throttle::{ThrottleReason, ThrottleStats};
use peerage_wire::{DisconnectReason, Penalty};

use crate::health::Finding;
use crate::shedding::{Level, Resource};

/// Counts of connections being set up.
#[derive(Clone, Debug)]
pub(crate) struct SetupMetrics(Meter);

impl SetupMetrics {
    pub(crate) fn new(meter: &Meter) -> SetupMetrics {
        meter.describe("peerage_handshakes_total", "Connections set up, by direction and outcome");
        meter.describe("peerage_inbound_refused_total", "Inbound connections refused before any crypto, by reason");
        meter.describe("peerage_inbound_slots", "Inbound connections in their set-up: in slots for all, and reserved");
        meter.describe("peerage_dial_attempts_total", "Connections tried to single addresses, by outcome");
        meter.describe("peerage_accept_failed_total", "Failures of accept, which pause it for a moment");
        SetupMetrics(meter.clone())
    }

    /// `outcome` is one of a closed set: `ok`, a dial outcome, or a reason's label.
    pub(crate) fn finished(&self, direction: &'static str, outcome: &'static str) {
        self.0.counter("peerage_handshakes_total", &[("direction", direction), ("outcome", outcome)]).increment(1);
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.0.counter("peerage_inbound_refused_total", &[("reason", reason)]).increment(1);
    }

    pub(crate) fn slots(&self, open: usize, reserved: usize) {
        self.0.gauge("peerage_inbound_slots", &[("slots", "open")]).set(open as f64);
        self.0.gauge("peerage_inbound_slots", &[("slots", "reserved")]).set(reserved as f64);
    }

    /// `outcome` is one of `opened`, `failed`, `timed_out`, `overtaken`.
    pub(crate) fn dialled_address(&self, outcome: &'static str) {
        self.0.counter("peerage_dial_attempts_total", &[("outcome", outcome)]).increment(1);
    }

    pub(crate) fn accept_failed(&self) {
        self.0.counter("peerage_accept_failed_total", &[]).increment(1);
    }
}

pub(crate) struct ServerMetrics {
    meter: Meter,
    inbound: Gauge,
    outbound: Gauge,
    pub(crate) bans: Counter,
    pool_bytes: Gauge,
    lane_bytes: Gauge,
    inbound_windows: Gauge,
    inbound_beyond: Gauge,
    inbound_waiting: Gauge,
}

impl ServerMetrics {
    pub(crate) fn new(meter: &Meter) -> ServerMetrics {
        meter.describe("peerage_peers", "Peers, by direction");
        meter.describe("peerage_disconnects_total", "Sessions ended, by reason and by who ended them");
        meter.describe("peerage_penalties_total", "What peers were blamed for");
        meter.describe("peerage_queue_bytes", "Bytes queued: in the node's pool, and in all peers' lanes");
        meter.describe("peerage_inbound_bytes", "Bytes that peers were granted: first windows, and beyond them");
        meter.describe("peerage_inbound_waiting", "Sessions whose next message waits for the inbound pool");
        meter.describe("peerage_throttle_waits_total", "Times that a peer was made to wait, by reason");
        meter.describe("peerage_throttle_waited_milliseconds_total", "Time in waits that have ended, by reason");
        meter.describe("peerage_throttle_waiting", "Peers that wait for the node's bandwidth, by direction");
        meter.describe(
            "peerage_throttle_tokens",
            "Bytes of the node's bandwidth that are free now, by direction; 0 without a limit",
        );
        meter.describe("peerage_throttle_cpu_millicores", "Time of the node's handlers that peers use");
        meter.describe(
            "peerage_throttle_cpu_most_millicores",
            "Of that what the one peer uses that uses most, and what it may use",
        );
        meter.describe("peerage_bans_total", "Nodes banned");
        meter.describe("peerage_banned", "Identities and networks that are banned");
        meter.describe("peerage_blamed", "Nodes that are blamed for something");
        meter.describe("peerage_nodedb_entries", "What the node database holds, by kind");
        meter.describe("peerage_nodedb_commits_total", "Transactions of the node database, by outcome");
        meter.describe("peerage_external_changes_total", "Changes of the address that the node tells others");
        meter.describe("peerage_restarts_total", "Actors started again after they failed");
        meter.describe("peerage_degraded", "1 while an actor is down for longer than a restart takes");
        ServerMetrics {
            meter: meter.clone(),
            inbound: meter.gauge("peerage_peers", &[("direction", "inbound")]),
            outbound: meter.gauge("peerage_peers", &[("direction", "outbound")]),
            bans: meter.counter("peerage_bans_total", &[]),
            pool_bytes: meter.gauge("peerage_queue_bytes", &[("in", "pool")]),
            lane_bytes: meter.gauge("peerage_queue_bytes", &[("in", "lanes")]),
            inbound_windows: meter.gauge("peerage_inbound_bytes", &[("in", "windows")]),
            inbound_beyond: meter.gauge("peerage_inbound_bytes", &[("in", "beyond")]),
            inbound_waiting: meter.gauge("peerage_inbound_waiting", &[]),
        }
    }

    pub(crate) fn queue_bytes(&self, pool: usize, lanes: usize) {
        self.pool_bytes.set(pool as f64);
        self.lane_bytes.set(lanes as f64);
    }

    pub(crate) fn inbound(&self, windows: usize, beyond: usize, waiting: usize) {
        self.inbound_windows.set(windows as f64);
        self.inbound_beyond.set(beyond as f64);
        self.inbound_waiting.set(waiting as f64);
    }

    pub(crate) fn throttles(&self, stats: &ThrottleStats) {
        for reason in ThrottleReason::ALL {
            let (at, labels) = (reason as usize, [("reason", reason.label())]);
            self.meter.counter("peerage_throttle_waits_total", &labels).absolute(stats.waits[at]);
            let millis = u64::try_from(stats.waited[at].as_millis()).unwrap_or(u64::MAX);
            self.meter.counter("peerage_throttle_waited_milliseconds_total", &labels).absolute(millis);
        }
        let directions = [("download", stats.waiting.0, stats.tokens.0), ("upload", stats.waiting.1, stats.tokens.1)];
        for (direction, waiting, tokens) in directions {
            let labels = [("direction", direction)];
            self.meter.gauge("peerage_throttle_waiting", &labels).set(waiting as f64);
            self.meter.gauge("peerage_throttle_tokens", &labels).set(tokens.unwrap_or(0) as f64);
        }
        self.meter.gauge("peerage_throttle_cpu_millicores", &[]).set(stats.cpu as f64);
        let (used, target) = stats.cpu_most;
        for (what, millicores) in [("used", used), ("target", target)] {
            self.meter.gauge("peerage_throttle_cpu_most_millicores", &[("what", what)]).set(millicores as f64);
        }
    }

    /// What is remembered and banned.
    pub(crate) fn memory(&self, stats: Stats, banned: usize, blamed: usize) {
        let Entries { records, proofs, bans, scores, anchors } = stats.entries;
        let kinds =
            [("records", records), ("proofs", proofs), ("bans", bans), ("scores", scores), ("anchors", anchors)];
        for (kind, entries) in kinds {
            self.meter.gauge("peerage_nodedb_entries", &[("kind", kind)]).set(entries as f64);
        }
        for (outcome, commits) in [("ok", stats.disk.commits), ("failed", stats.disk.failed_commits)] {
            self.meter.counter("peerage_nodedb_commits_total", &[("outcome", outcome)]).absolute(commits);
        }
        self.meter.gauge("peerage_banned", &[]).set(banned as f64);
        self.meter.gauge("peerage_blamed", &[]).set(blamed as f64);
    }

    pub(crate) fn peers(&self, direction: Direction, change: f64) {
        let gauge = match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        };
        gauge.increment(change);
    }

    pub(crate) fn disconnected(&self, reason: DisconnectReason, by: &'static str) {
        self.meter.counter("peerage_disconnects_total", &[("reason", reason.label()), ("by", by)]).increment(1);
    }

    pub(crate) fn penalty(&self, penalty: Penalty) {
        self.meter.counter("peerage_penalties_total", &[("penalty", penalty.label())]).increment(1);
    }

    pub(crate) fn external_changed(&self) {
        self.meter.counter("peerage_external_changes_total", &[]).increment(1);
    }

    pub(crate) fn restarted(&self, service: &'static str) {
        self.meter.counter("peerage_restarts_total", &[("actor", service)]).increment(1);
    }

    pub(crate) fn degraded(&self, service: &'static str, degraded: bool) {
        self.meter.gauge("peerage_degraded", &[("actor", service)]).set(if degraded { 1.0 } else { 0.0 });
    }
}

/// What the root sees of the node.
pub(crate) struct WatchMetrics {
    meter: Meter,
    send_fail_rate: Gauge,
    level: Gauge,
}

impl WatchMetrics {
    pub(crate) fn new(meter: &Meter) -> WatchMetrics {
        meter.describe("peerage_health", "1 while a check finds nothing missing, else 0");
        meter.describe(
            "peerage_send_fail_rate",
            "Part of the messages for peers that do not go out, averaged over peers",
        );
        meter.describe("peerage_shedding_level", "0: everything is done; 1: no bulk; 2: no normal; 3: nobody new");
        meter.describe("peerage_shedding_used", "The scarcest resource, and which part of its limit is used");
        meter.describe("peerage_limits_changes_total", "Changes of limits while the node ran, by outcome");
        WatchMetrics {
            meter: meter.clone(),
            send_fail_rate: meter.gauge("peerage_send_fail_rate", &[]),
            level: meter.gauge("peerage_shedding_level", &[]),
        }
    }

    pub(crate) fn health<'a>(&self, findings: impl Iterator<Item = &'a Finding>, send_fail_rate: u32) {
        for finding in findings {
            let well = if finding.fails() { 0.0 } else { 1.0 };
            self.meter.gauge("peerage_health", &[("check", finding.check.label())]).set(well);
        }
        self.send_fail_rate.set(f64::from(send_fail_rate) / 1e3);
    }

    pub(crate) fn shedding(&self, level: Level, scarcest: Option<(Resource, u32)>) {
        self.level.set(f64::from(level as u8));
        for resource in Resource::ALL {
            let used = scarcest.filter(|(scarce, _)| scarce == resource).map_or(0, |(_, used)| used);
            self.meter.gauge("peerage_shedding_used", &[("resource", resource.label())]).set(f64::from(used) / 1e3);
        }
    }

    pub(crate) fn limits(&self, ok: bool) {
        let outcome = if ok { "ok" } else { "refused" };
        self.meter.counter("peerage_limits_changes_total", &[("outcome", outcome)]).increment(1);
    }
}
