//! Whether this computer's wall clock agrees with its peers': a machine of its own.
//!
//! Nobody is asked for the time. Every answer tells its sender's clock: a signed one by when it expires, a `Cookie` as
//! it is. It echoes a nonce of the last two seconds, so it is fresh whatever the clocks say, and comes from whom this
//! node chose to ask. Answers that a wrong clock makes look expired are refused, but still
//! [tell](crate::Gate::take_told); a node whose own requests look expired to others gets their cookies.
//!
//! One statement counts for each site (/24 or /48), the newest, and the median of all decides: to move it, an attacker
//! must answer from as many sites as all honest nodes that this node asked in the last ten minutes. With fewer than
//! five sites nothing is said, unless nobody answers at all: then the statement that is nearest to our own clock counts,
//! so that one honest node suffices to keep liars from being believed.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::{Effects, Machine, Time};
use peerage_wire::NodeId;
use peerage_wire::address::{self, is_local, site};
use serde::{Deserialize, Serialize};

use crate::gate::Told;

/// Fewer sites than this tell nothing to a node that gets answers.
const MIN_SITES: usize = 5;
/// As many sites are remembered; the one that spoke longest ago makes room.
const MAX_SITES: usize = 64;
/// A statement is forgotten after this.
const WINDOW: Duration = Duration::from_secs(10 * 60);
/// Requests unanswered in a row after which the clocks are compared at once (geth: 32).
const TIMEOUTS: u32 = 32;
/// Otherwise they are compared this often, as long as peers answer.
const COMPARE: Duration = Duration::from_secs(60);
/// A drift beyond this is said aloud (geth: 10 s).
pub const MAX_DRIFT: Duration = Duration::from_secs(10);
/// And no more often than this (geth: 10 min).
const WARN: Duration = Duration::from_secs(10 * 60);

/// What may happen to the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ClockIn {
    /// An answer to one of our requests told this, refused or not.
    Told(Told),
    /// One of our requests got a signed answer.
    Answered,
    /// One of our requests was not answered in time.
    TimedOut,
}

/// What it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockOut {
    /// By how many seconds our clock is ahead of the peers' (behind, if negative); when that changed.
    Drift(i64),
    /// It is more than [`MAX_DRIFT`]: say so.
    Warn(i64),
}

/// It has no timers: it compares when it is told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClockTimer {}

/// Whose statements count as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Site(address::Site),
    /// In a network of one's own, if limits spare that: many nodes on one host are many.
    Local(NodeId),
}

/// See the file's head.
#[derive(Debug)]
pub struct ClockMachine {
    exempt_local: bool,
    /// The peers' Unix seconds at our running time zero, and when they said it. Measured against the running time,
    /// which nobody steps, they hold on when our wall clock is set.
    said: BTreeMap<Place, (i64, Time)>,
    timeouts: u32,
    compared: Option<Time>,
    warned: Option<Time>,
    drift: i64,
}

impl ClockMachine {
    /// `exempt_local` counts each node of a local network as a site of its own.
    pub fn new(exempt_local: bool) -> ClockMachine {
        ClockMachine { exempt_local, said: BTreeMap::new(), timeouts: 0, compared: None, warned: None, drift: 0 }
    }

    fn told(&mut self, now: Time, told: Told) {
        let ip = told.addr.ip().to_canonical();
        let place = if self.exempt_local && is_local(ip) { Place::Local(told.from) } else { Place::Site(site(ip)) };
        let at_start = seconds(told.clock).saturating_sub(seconds(now.running().as_secs()));
        if self.said.len() >= MAX_SITES
            && !self.said.contains_key(&place)
            && let Some(oldest) = self.said.iter().min_by_key(|(_, (_, at))| *at).map(|(place, _)| *place)
        {
            self.said.remove(&oldest);
        }
        self.said.insert(place, (at_start, now));
    }

    /// How far our clock is ahead of what the peers said: of the median; or, when `nobody_answers` and few said
    /// anything, of what is nearest to it.
    fn measured(&mut self, now: Time, nobody_answers: bool) -> Option<i64> {
        self.said.retain(|_, (_, at)| now.since(*at) < WINDOW);
        let ours = seconds(now.unix().as_secs()).saturating_sub(seconds(now.running().as_secs()));
        let mut drifts: Vec<i64> = self.said.values().map(|(theirs, _)| ours.saturating_sub(*theirs)).collect();
        if drifts.len() < MIN_SITES {
            return drifts.into_iter().filter(|_| nobody_answers).min_by_key(|drift| drift.unsigned_abs());
        }
        drifts.sort_unstable();
        let (low, high) = (drifts[(drifts.len() - 1) / 2], drifts[drifts.len() / 2]);
        // Of two in the middle the smaller: who has just half of the sites moves nothing.
        Some(if low.unsigned_abs() <= high.unsigned_abs() { low } else { high })
    }

    fn compare(&mut self, now: Time, nobody_answers: bool, fx: &mut Effects<ClockOut, ClockTimer>) {
        let Some(drift) = self.measured(now, nobody_answers) else { return };
        self.compared = Some(now);
        if drift != self.drift {
            self.drift = drift;
            fx.emit(ClockOut::Drift(drift));
        }
        if drift.unsigned_abs() > MAX_DRIFT.as_secs() && self.warned.is_none_or(|at| now.since(at) >= WARN) {
            self.warned = Some(now);
            fx.emit(ClockOut::Warn(drift));
        }
    }
}

/// Seconds as a signed number; a claim of more is as wrong as this.
fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

impl Machine for ClockMachine {
    type In = ClockIn;
    type Out = ClockOut;
    type Timer = ClockTimer;

    fn handle(&mut self, now: Time, input: ClockIn, fx: &mut Effects<ClockOut, ClockTimer>) {
        match input {
            ClockIn::Told(told) => {
                self.told(now, told);
                if self.compared.is_none_or(|at| now.since(at) >= COMPARE) {
                    self.compare(now, false, fx);
                }
            }
            ClockIn::Answered => self.timeouts = 0,
            ClockIn::TimedOut => {
                self.timeouts += 1;
                if self.timeouts >= TIMEOUTS {
                    self.timeouts = 0;
                    self.compare(now, true, fx);
                }
            }
        }
    }

    fn expire(&mut self, _: Time, timer: ClockTimer, _: &mut Effects<ClockOut, ClockTimer>) {
        match timer {}
    }
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;
