//! A host: its address and what its line can carry.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::agenda::Instant;
use super::node::Conn;

/// Where a host is and how it is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSpec {
    /// Its address, for datagrams and connections alike. No two hosts have the same.
    pub address: SocketAddr,
    /// Its region, an index of [`Links::latency`](super::Links::latency).
    pub region: u8,
    /// Whether it is behind a translator that lets nobody in: no connections, and datagrams only from where it
    /// sent some in the last minute.
    pub nat: bool,
    /// What it can send, in bytes a second; `None` for as much as it likes.
    pub up: Option<u64>,
    /// What it can receive, likewise.
    pub down: Option<u64>,
    /// How far its wall clock is ahead, in milliseconds.
    pub skew_ms: i64,
}

impl HostSpec {
    /// A host of the first region with an unlimited line and a true clock.
    pub fn at(address: SocketAddr) -> HostSpec {
        HostSpec { address, region: 0, nat: false, up: None, down: None, skew_ms: 0 }
    }
}

/// How long a translator remembers whom its host sent datagrams to.
const MAPPING: Instant = 60_000_000_000;
/// What the queue before a line holds, as the time that the line needs for it: a usual home router's. Datagrams that find
/// it full are lost.
const QUEUE: Instant = 250_000_000;
const UNIX: Duration = Duration::from_secs(1_700_000_000);

/// What most events look at is in the first line of the cache.
#[repr(C, align(64))]
pub(super) struct Host {
    pub(super) deadline: Option<Instant>,
    /// The wake-up that is on the agenda, and its number.
    pub(super) wake: Option<Instant>,
    pub(super) wake_number: u32,
    pub(super) alive: bool,
    /// Whether its connections are read.
    pub(super) reading: bool,
    /// Hosts on different sides do not hear each other.
    pub(super) side: u8,
    /// Regions whose hosts it does not hear, one bit each.
    pub(super) deaf_to: u32,
    /// Whether the next turn is on the agenda.
    pub(super) sending: bool,
    pub(super) started: Instant,
    pub(super) spec: HostSpec,
    pub(super) conns: Vec<u32>,
    /// Connections with something to send, in turn; only with a limited line.
    pub(super) turns: VecDeque<Conn>,
    /// Until when its line out is used.
    up_free: Instant,
    /// Until when its line in is used.
    down_free: Instant,
    /// Until when datagrams alone would use it.
    down_datagrams: Instant,
    mappings: BTreeMap<SocketAddr, Instant>,
    /// How many of them there may be before the old ones are sought out.
    mappings_full: usize,
}

impl Host {
    pub(super) fn new(spec: HostSpec) -> Host {
        Host {
            spec,
            alive: false,
            started: 0,
            side: 0,
            deaf_to: 0,
            reading: true,
            deadline: None,
            wake: None,
            wake_number: 0,
            conns: Vec::new(),
            turns: VecDeque::new(),
            sending: false,
            up_free: 0,
            down_free: 0,
            down_datagrams: 0,
            mappings: BTreeMap::new(),
            mappings_full: 16,
        }
    }

    pub(super) fn time(&self, now: Instant) -> peerage_machine::Time {
        let skew = Duration::from_millis(self.spec.skew_ms.unsigned_abs());
        let unix = UNIX + Duration::from_nanos(now);
        let unix = if self.spec.skew_ms < 0 { unix.saturating_sub(skew) } else { unix + skew };
        peerage_machine::Time::new(Duration::from_nanos(now - self.started), unix)
    }

    pub(super) fn sent_to(&mut self, now: Instant, to: SocketAddr) {
        if self.spec.nat {
            if self.mappings.len() >= self.mappings_full {
                self.mappings.retain(|_, until| *until > now);
                self.mappings_full = 16.max(2 * self.mappings.len());
            }
            self.mappings.insert(to, now + MAPPING);
        }
    }

    pub(super) fn lets_in(&self, now: Instant, from: SocketAddr) -> bool {
        !self.spec.nat || self.mappings.get(&from).is_some_and(|until| *until > now)
    }

    /// When so many bytes of a connection have left on its line, or until when it is busy.
    pub(super) fn line_out(&mut self, now: Instant, bytes: u64) -> Result<Instant, Instant> {
        if self.up_free > now {
            return Err(self.up_free);
        }
        self.up_free = now.saturating_add(carries(bytes, self.spec.up));
        Ok(self.up_free)
    }

    /// When so many bytes of a connection have come in on its line.
    pub(super) fn line_in(&mut self, now: Instant, bytes: u64) -> Instant {
        if bytes == 0 || self.spec.down.is_none() {
            return now;
        }
        self.down_free = self.down_free.max(now).saturating_add(carries(bytes, self.spec.down));
        self.down_free
    }

    /// When a datagram has left, if the line's queue has room for it.
    pub(super) fn datagram_out(&mut self, now: Instant, bytes: u64) -> Option<Instant> {
        if self.spec.up.is_none() {
            return Some(now);
        }
        if self.up_free.saturating_sub(now) > QUEUE + carries(super::core::TURN, self.spec.up) {
            return None;
        }
        self.up_free = self.up_free.max(now).saturating_add(carries(bytes, self.spec.up));
        Some(self.up_free)
    }

    /// When a datagram has come in, if the line's queue has room for it. Connections would slow down where the queue
    /// is full, so it is never theirs alone.
    pub(super) fn datagram_in(&mut self, now: Instant, bytes: u64) -> Option<Instant> {
        if self.spec.down.is_none() {
            return Some(now);
        }
        let alone = self.down_datagrams.max(now).saturating_add(carries(bytes, self.spec.down));
        if alone - now > QUEUE + carries(bytes, self.spec.down) {
            return None;
        }
        self.down_datagrams = alone;
        Some(self.line_in(now, bytes).min(alone.saturating_add(QUEUE)))
    }
}

/// How long a line needs for so many bytes; one of no bytes a second is one of one.
fn carries(bytes: u64, rate: Option<u64>) -> Instant {
    let nanos = |rate: u64| u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    rate.map_or(0, |rate| u64::try_from(nanos(rate)).unwrap_or(Instant::MAX))
}
