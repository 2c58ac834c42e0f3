//! What the router may use.

use std::time::Duration;

use peerage_machine::Quota;
use serde::{Deserialize, Serialize};

use crate::resilience::{BreakerConfig, PacingConfig, RatesConfig, TrackerConfig};
use crate::wire::MAX_PAYLOAD;

/// How much may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Requests with one peer.
    pub per_peer: usize,
    /// Their payloads' bytes.
    pub per_peer_bytes: usize,
    /// Requests with all peers.
    pub node: usize,
    /// Their payloads' bytes.
    pub node_bytes: usize,
}

/// How many streams may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamLimits {
    /// That this node's applications opened, to one peer.
    pub opened_per_peer: usize,
    /// That they opened, to all peers.
    pub opened: usize,
    /// That handlers have, of one peer.
    pub served_per_peer: usize,
    /// That handlers have, of all peers.
    pub served: usize,
    /// Of one peer, and without a header yet: as many as a peer's own limits let it open, answers included.
    pub pending_per_peer: usize,
    /// Of all peers, and without a header yet.
    pub pending: usize,
    /// How long a header may take.
    pub header_timeout: Duration,
}

impl Limits {
    /// What they can be raised to while the node runs.
    pub const MOST: Limits = Limits { per_peer: 1 << 16, per_peer_bytes: 1 << 30, node: 1 << 20, node_bytes: 1 << 30 };
}

/// Limits and intervals of a node's router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Largest payload of a request, an answer or a message, in bytes.
    ///
    /// # Warning
    /// To be the same in the whole network: a larger one counts as malformed where it arrives.
    pub max_payload: usize,
    /// What this node asks. geth's tracker has at most 10,000 a peer (`eth/protocols/eth/tracker.go`).
    pub asked: Limits,
    /// What this node is asked.
    pub served: Limits,
    /// Hundredths of what this node is asked, of what each of its handlers is, of the streams that it serves and of large
    /// answers in each direction, that are kept for members that are connected, each its part by weight: a crowd without
    /// weight cannot take them. Without such members they are everybody's.
    pub kept_for_members: u8,
    /// The longest deadline that a request is served with; a longer one is cut to it.
    pub max_deadline: Duration,
    /// How long after its end a request's late answer is expected and nobody's fault.
    pub grace: Duration,
    /// Ended requests whose late answers are expected, at most; the oldest make room.
    pub max_retired: usize,
    /// What a peer may do too often without blame: answers that nobody asked for, requests that are refused.
    pub forgiven: Quota,
    /// Most handlers.
    pub max_handlers: usize,
    /// A set of members older than this is asked for again.
    pub members_stale: Duration,
    /// How long fetching it may take.
    pub members_deadline: Duration,
    /// Requests and answers of at most so many bytes go on the high lane, others on the normal one.
    pub high_lane_up_to: usize,
    /// Streams.
    pub streams: StreamLimits,
    /// Answers larger than this have streams of their own, so that they delay nobody else's.
    pub stream_above: usize,
    /// Answers on streams, in each direction. Of those that go out so many at a time to a peer, and so many bytes, of
    /// which those that wait are part: what is beyond is `Throttled`. Of those that come in, what is beyond waits.
    pub answers: Limits,
    /// When a handler of a peer is given a rest.
    pub breaker: BreakerConfig,
    /// How time-outs follow what peers show.
    pub rates: RatesConfig,
    /// How peers are chosen where any will do.
    pub tracker: TrackerConfig,
    /// How much more seldom a handler is asked whose peer says that it is throttled; none: as often as before.
    pub pacing: Option<PacingConfig>,
}

/// A value of [`Config`] that does not add up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("router: {0}")]
pub struct ConfigError(pub(crate) String);

impl Config {
    /// For nodes of an open network.
    pub const fn recommended() -> Config {
        Config {
            max_payload: 1 << 20,
            asked: Limits { per_peer: 1024, per_peer_bytes: 4 << 20, node: 16_384, node_bytes: 32 << 20 },
            served: Limits { per_peer: 256, per_peer_bytes: 2 << 20, node: 4096, node_bytes: 32 << 20 },
            // As of the node's bandwidth (`peerage_queue::throttle::BandwidthLimits`).
            kept_for_members: 50,
            max_deadline: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            max_retired: 16_384,
            forgiven: Quota::new(256, Duration::from_secs(10)),
            max_handlers: 256,
            members_stale: Duration::from_secs(60),
            members_deadline: Duration::from_secs(20),
            high_lane_up_to: 4 << 10,
            streams: StreamLimits {
                opened_per_peer: 64,
                opened: 4096,
                served_per_peer: 64,
                served: 4096,
                pending_per_peer: 96,
                pending: 4096,
                header_timeout: Duration::from_secs(10),
            },
            stream_above: 64 << 10,
            // As many bytes for a peer as lanes and pool would take of messages.
            answers: Limits { per_peer: 32, per_peer_bytes: 16 << 20, node: 1024, node_bytes: 64 << 20 },
            breaker: BreakerConfig::recommended(),
            rates: RatesConfig::recommended(),
            tracker: TrackerConfig::recommended(),
            pacing: Some(PacingConfig::recommended()),
        }
    }

    /// For nodes of one computer or test: the same.
    pub const fn local() -> Config {
        Config::recommended()
    }

    /// Whether it adds up.
    ///
    /// # Errors
    /// [`ConfigError`] with the sum that does not.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fail = |what: String| Err(ConfigError(what));
        if self.max_payload == 0 || self.max_payload > MAX_PAYLOAD {
            return fail(format!("max_payload {} is not from 1 to {MAX_PAYLOAD}", self.max_payload));
        }
        for (name, limits) in [("asked", &self.asked), ("served", &self.served), ("answers", &self.answers)] {
            if limits.per_peer == 0 || limits.node < limits.per_peer {
                return fail(format!("{name}.node {} < {name}.per_peer {}", limits.node, limits.per_peer));
            }
            if limits.per_peer_bytes < self.max_payload || limits.node_bytes < limits.per_peer_bytes {
                let Limits { per_peer_bytes, node_bytes, .. } = limits;
                return fail(format!(
                    "{name}: max_payload {} ≤ per_peer_bytes {per_peer_bytes} ≤ node_bytes {node_bytes} does not hold",
                    self.max_payload
                ));
            }
        }
        if self.kept_for_members > 100 {
            return fail(format!("kept_for_members ({}) is more than a hundred hundredths", self.kept_for_members));
        }
        let streams = &self.streams;
        for (name, per_peer, all) in [
            ("opened", streams.opened_per_peer, streams.opened),
            ("served", streams.served_per_peer, streams.served),
            ("pending", streams.pending_per_peer, streams.pending),
        ] {
            if per_peer == 0 || all < per_peer {
                return fail(format!("streams.{name} {all} < streams.{name}_per_peer {per_peer}"));
            }
        }
        if streams.header_timeout.is_zero() {
            return fail("streams.header_timeout must be above zero".to_owned());
        }
        if self.max_deadline.is_zero() || self.max_retired == 0 || self.max_handlers == 0 {
            return fail("max_deadline, max_retired and max_handlers must be above zero".to_owned());
        }
        if self.members_stale.is_zero() || self.members_deadline.is_zero() {
            return fail("members_stale and members_deadline must be above zero".to_owned());
        }
        self.breaker.validate().and_then(|()| self.rates.validate()).or_else(fail)
    }
}
