//! The circuit breaker: a handler of a peer that fails again and again is not asked for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::{Backoff, Rng, Time};
use peerage_wire::NodeId;
use serde::{Deserialize, Serialize};

use crate::handler::HandlerId;

/// When it opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerConfig {
    /// Failures in a row after which it opens.
    pub failures: u32,
    /// How long it stays open; longer after each probe that failed.
    pub rest: Backoff,
    /// Handlers of peers that are remembered. The one that failed longest ago makes room.
    pub remembered: usize,
}

impl BreakerConfig {
    /// Five failures; a rest of half a second to a second, then twice that and so on to a minute.
    pub const fn recommended() -> BreakerConfig {
        BreakerConfig {
            failures: 5,
            rest: Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) },
            remembered: 4096,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.failures == 0 || self.remembered == 0 {
            return Err("breaker.failures and breaker.remembered must be above zero".to_owned());
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct Circuit {
    failures: u32,
    last: Time,
    /// Since it opened: until when it rests, how often it opened in a row, and whether a probe is out.
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Time,
    times: u32,
    probing: bool,
}

/// One circuit for each handler of a peer. Only those that failed since they last succeeded are remembered.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    circuits: BTreeMap<(NodeId, HandlerId), Circuit>,
}

impl Breaker {
    /// All circuits closed.
    pub const fn new(config: BreakerConfig) -> Breaker {
        Breaker { config, circuits: BTreeMap::new() }
    }

    /// Whether the handler may be asked now; changes nothing.
    pub fn admits(&self, now: Time, peer: &NodeId, handler: HandlerId) -> bool {
        let open = self.circuits.get(&(*peer, handler)).and_then(|circuit| circuit.open);
        open.is_none_or(|open| !open.probing && now >= open.until)
    }

    /// The handler is asked. If its circuit rests until now, this is its one probe. False if it may not be asked.
    pub fn begin(&mut self, now: Time, peer: &NodeId, handler: HandlerId) -> bool {
        if !self.admits(now, peer, handler) {
            return false;
        }
        if let Some(open) = self.circuits.get_mut(&(*peer, handler)).and_then(|circuit| circuit.open.as_mut()) {
            open.probing = true;
        }
        true
    }

    /// What was asked says nothing of the handler: it was cancelled, or never sent for want of room here.
    pub fn forgive(&mut self, peer: &NodeId, handler: HandlerId) {
        if let Some(open) = self.circuits.get_mut(&(*peer, handler)).and_then(|circuit| circuit.open.as_mut()) {
            open.probing = false;
        }
    }

    /// It answered.
    pub fn succeeded(&mut self, peer: &NodeId, handler: HandlerId) {
        self.circuits.remove(&(*peer, handler));
    }

    /// It did not answer, or could not. True if its circuit opened by that.
    pub fn failed(&mut self, now: Time, peer: &NodeId, handler: HandlerId, rng: &mut Rng) -> bool {
        let key = (*peer, handler);
        if !self.circuits.contains_key(&key) && self.circuits.len() >= self.config.remembered {
            let oldest = self.circuits.iter().min_by_key(|(_, circuit)| circuit.last).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.circuits.remove(&oldest);
            }
        }
        let circuit = self.circuits.entry(key).or_insert(Circuit { failures: 0, last: now, open: None });
        circuit.last = now;
        circuit.failures = circuit.failures.saturating_add(1);
        let times = match circuit.open {
            // Asked before it opened.
            Some(open) if !open.probing => return false,
            Some(open) => open.times.saturating_add(1),
            None if circuit.failures < self.config.failures => return false,
            None => 1,
        };
        circuit.open = Some(Open { until: now + self.config.rest.delay(times, rng), times, probing: false });
        true
    }

    /// Circuits that are not known to be well.
    pub fn len(&self) -> usize {
        self.circuits.len()
    }

    /// Whether all are well.
    pub fn is_empty(&self) -> bool {
        self.circuits.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId::from_bytes([1; 32]);
    const HANDLER: HandlerId = HandlerId(1);

    fn open() -> (Breaker, Rng) {
        let (mut breaker, mut rng) = (Breaker::new(BreakerConfig::recommended()), Rng::new(1));
        for n in 1..=5 {
            assert!(breaker.begin(Time::ZERO, &PEER, HANDLER));
            assert_eq!(breaker.failed(Time::ZERO, &PEER, HANDLER, &mut rng), n == 5);
        }
        (breaker, rng)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_for_this_handler_of_this_peer_only() {
        let (breaker, _) = open();
        assert!(!breaker.admits(Time::ZERO, &PEER, HANDLER));
        assert!(breaker.admits(Time::ZERO, &PEER, HandlerId(2)));
        assert!(breaker.admits(Time::ZERO, &NodeId::from_bytes([2; 32]), HANDLER));
    }

    #[test]
    fn an_answer_between_failures_starts_the_count_again() {
        let (mut breaker, mut rng) = (Breaker::new(BreakerConfig::recommended()), Rng::new(1));
        for n in 1..20 {
            assert!(!breaker.failed(Time::ZERO, &PEER, HANDLER, &mut rng));
            if n % 4 == 0 {
                breaker.succeeded(&PEER, HANDLER);
            }
        }
    }

    #[test]
    fn after_its_rest_one_probe_decides() {
        let (mut breaker, mut rng) = open();
        let later = Time::ZERO + Duration::from_secs(1);
        assert!(breaker.begin(later, &PEER, HANDLER));
        assert!(!breaker.begin(later, &PEER, HANDLER), "one probe, not two");
        assert!(breaker.failed(later, &PEER, HANDLER, &mut rng));
        assert!(!breaker.admits(later + Duration::from_millis(999), &PEER, HANDLER), "rests longer than before");
        let later = later + Duration::from_secs(2);
        assert!(breaker.begin(later, &PEER, HANDLER));
        breaker.succeeded(&PEER, HANDLER);
        assert!(breaker.begin(later, &PEER, HANDLER) && breaker.begin(later, &PEER, HANDLER));
        assert!(breaker.is_empty());
    }

    #[test]
    fn a_probe_that_was_cancelled_lets_the_next_one_go() {
        let (mut breaker, _) = open();
        let later = Time::ZERO + Duration::from_secs(1);
        assert!(breaker.begin(later, &PEER, HANDLER));
        breaker.forgive(&PEER, HANDLER);
        assert!(breaker.begin(later, &PEER, HANDLER));
    }

    #[test]
    fn what_it_remembers_is_bounded() {
        let mut breaker = Breaker::new(BreakerConfig { remembered: 3, ..BreakerConfig::recommended() });
        let mut rng = Rng::new(1);
        for n in 0..100u64 {
            breaker.failed(Time::ZERO + Duration::from_secs(n), &PEER, HandlerId(n), &mut rng);
        }
        assert_eq!(breaker.len(), 3);
    }
}
