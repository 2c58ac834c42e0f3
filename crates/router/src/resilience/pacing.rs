//! How often a handler of a peer is asked, so that its limits are not tripped: less often at once when it says that it
//! is throttled, and a little more often again for each second of answers.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::Time;
use peerage_wire::NodeId;
use serde::{Deserialize, Serialize};

use crate::handler::HandlerId;

const SECOND: Duration = Duration::from_secs(1);
/// A slowed pace still lets so many go at once.
const BURST: u32 = 8;
/// Pairs of peer and handler that are measured.
const MEASURED: usize = 4096;

/// How fast a pace falls and rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacingConfig {
    /// The slowest pace, in requests a second.
    pub least: u32,
    /// Requests a second that each second of answers adds.
    pub rise: u32,
    /// After so long without a word of throttling nothing is held back any more.
    pub forget_after: Duration,
}

impl PacingConfig {
    /// One request a second at least, four more for each good second, forgotten after a minute.
    pub const fn recommended() -> PacingConfig {
        PacingConfig { least: 1, rise: 4, forget_after: Duration::from_secs(60) }
    }
}

/// When a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    Now,
    /// Then: that place is its own.
    At(Time),
    /// Not in its time.
    Never,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    /// Requests a second.
    rate: u32,
    /// Where the next one belongs, as if they came evenly.
    next: Time,
    /// When it was last lowered or raised, and when the peer last said that it is throttled.
    moved: Time,
    throttled: Time,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    /// The present second, and the requests of it and of the one before.
    since: Time,
    current: u32,
    previous: u32,
    limit: Option<Limit>,
}

impl Limit {
    fn interval(&self) -> Duration {
        SECOND / self.rate.max(1)
    }

    /// Another pace from now on: what was given away at the old one does not count for longer than a burst of the new.
    fn set(&mut self, now: Time, rate: u32) {
        self.rate = rate;
        self.moved = now;
        self.next = self.next.min(now + self.interval() * BURST);
    }
}

impl Measured {
    fn turn(&mut self, now: Time) {
        let passed = now.since(self.since);
        if passed >= SECOND {
            self.previous = if passed < 2 * SECOND { self.current } else { 0 };
            self.current = 0;
            self.since = now;
        }
    }
}

/// The paces of all peers' handlers.
#[derive(Clone, Debug)]
pub struct Pacer {
    config: PacingConfig,
    measured: BTreeMap<(NodeId, HandlerId), Measured>,
    /// How many have a limit: while none has, answers cost nothing.
    limited: usize,
}

impl Pacer {
    /// Nobody has said that it is throttled.
    pub const fn new(config: PacingConfig) -> Pacer {
        Pacer { config, measured: BTreeMap::new(), limited: 0 }
    }

    /// A request is to go, before `latest`. Whoever is told to wait has its place, and need not ask again.
    pub fn begin(&mut self, now: Time, peer: NodeId, handler: HandlerId, latest: Time) -> Pace {
        let full = self.measured.len() >= MEASURED;
        if full && !self.measured.contains_key(&(peer, handler)) {
            // Those that are quiet and free carry no knowledge.
            self.measured.retain(|_, known| known.limit.is_some() || now.since(known.since) < 2 * SECOND);
            if self.measured.len() >= MEASURED {
                return Pace::Now;
            }
        }
        let new = Measured { since: now, current: 0, previous: 0, limit: None };
        let known = self.measured.entry((peer, handler)).or_insert(new);
        known.turn(now);
        if known.limit.is_some_and(|limit| now.since(limit.throttled) >= self.config.forget_after) {
            known.limit = None;
            self.limited -= 1;
        }
        let Some(limit) = &mut known.limit else {
            known.current = known.current.saturating_add(1);
            return Pace::Now;
        };
        let interval = limit.interval();
        let (place, burst) = (limit.next.max(now), interval * BURST);
        let early = place.since(now);
        let at = now + early.saturating_sub(burst);
        if at >= latest && at > now {
            return Pace::Never;
        }
        limit.next = place + interval;
        known.current = known.current.saturating_add(1);
        if at > now { Pace::At(at) } else { Pace::Now }
    }

    /// Who was told to wait goes no more: those that come now are served as if it had not been there.
    pub fn leave(&mut self, now: Time, peer: &NodeId, handler: HandlerId) {
        let known = self.measured.get_mut(&(*peer, handler)).map(|known| &mut known.limit);
        if let Some(Some(limit)) = known {
            limit.next = (now + limit.next.since(now).saturating_sub(limit.interval())).min(limit.next);
        }
    }

    /// Whether a request could go at once.
    pub fn is_ready(&self, now: Time, peer: &NodeId, handler: HandlerId) -> bool {
        let limit = self.limit_of(peer, handler);
        limit.is_none_or(|limit| limit.next.since(now) <= limit.interval() * BURST)
    }

    fn limit_of(&self, peer: &NodeId, handler: HandlerId) -> Option<Limit> {
        if self.limited == 0 { None } else { self.measured.get(&(*peer, handler))?.limit }
    }

    /// The peer said that it is throttled: half the pace at which it was asked, once a second at most.
    pub fn throttled(&mut self, now: Time, peer: &NodeId, handler: HandlerId) {
        let Some(known) = self.measured.get_mut(&(*peer, handler)) else { return };
        known.turn(now);
        let asked = known.current.max(known.previous);
        let least = self.config.least.max(1);
        match &mut known.limit {
            Some(limit) => {
                limit.throttled = now;
                if now.since(limit.moved) >= SECOND {
                    limit.set(now, (limit.rate.min(asked.max(1)) / 2).max(least));
                }
            }
            none => {
                let mut limit = Limit { rate: (asked / 2).max(least), next: now, moved: now, throttled: now };
                // It had its burst.
                limit.next = now + limit.interval() * BURST;
                *none = Some(limit);
                self.limited += 1;
            }
        }
    }

    /// The peer answered.
    pub fn answered(&mut self, now: Time, peer: &NodeId, handler: HandlerId) {
        if self.limited == 0 {
            return;
        }
        if let Some(limit) = self.measured.get_mut(&(*peer, handler)).and_then(|known| known.limit.as_mut())
            && now.since(limit.moved) >= SECOND
        {
            limit.set(now, limit.rate.saturating_add(self.config.rise));
        }
    }

    /// Requests a second that a handler of a peer is asked at most; none if it is not held back.
    pub fn rate(&self, peer: &NodeId, handler: HandlerId) -> Option<u32> {
        self.limit_of(peer, handler).map(|limit| limit.rate)
    }

    /// A peer is gone.
    pub fn forget(&mut self, peer: &NodeId) {
        let from = (*peer, HandlerId(0))..=(*peer, HandlerId(u64::MAX));
        let of: Vec<_> = self.measured.range(from).map(|(pair, _)| *pair).collect();
        for pair in of {
            let gone = self.measured.remove(&pair);
            self.limited -= usize::from(gone.is_some_and(|gone| gone.limit.is_some()));
        }
    }

    /// Pairs of peer and handler that are measured.
    pub fn len(&self) -> usize {
        self.measured.len()
    }

    /// Whether nobody was asked.
    pub fn is_empty(&self) -> bool {
        self.measured.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId::from_bytes([1; 32]);
    const HANDLER: HandlerId = HandlerId(7);

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn pacer() -> Pacer {
        Pacer::new(PacingConfig::recommended())
    }

    /// Asks so many times, evenly in a second from `from`; how many went.
    fn ask(pacer: &mut Pacer, from: u64, count: u64) -> usize {
        let now = |n| at(from + n * 1_000 / count);
        (0..count).filter(|n| pacer.begin(now(*n), PEER, HANDLER, now(*n)) == Pace::Now).count()
    }

    #[test]
    fn nothing_is_held_back_until_a_peer_says_that_it_is_throttled_and_then_half_goes() {
        let mut pacer = pacer();
        assert_eq!(ask(&mut pacer, 0, 200), 200);
        pacer.throttled(at(1_000), &PEER, HANDLER);
        assert_eq!(pacer.rate(&PEER, HANDLER), Some(100));
        let went = ask(&mut pacer, 1_000, 200);
        assert!((100..=110).contains(&went), "{went}");
        assert_eq!(pacer.begin(at(1_000), PEER, HandlerId(8), at(1_000)), Pace::Now, "another handler is another");
    }

    #[test]
    fn one_word_counts_once_a_second_and_answers_raise_the_pace_again() {
        let mut pacer = pacer();
        ask(&mut pacer, 0, 200);
        (0..50).for_each(|_| pacer.throttled(at(1_000), &PEER, HANDLER));
        assert_eq!(pacer.rate(&PEER, HANDLER), Some(100));
        for second in 2..12 {
            (0..20).for_each(|_| pacer.answered(at(second * 1_000), &PEER, HANDLER));
        }
        assert_eq!(pacer.rate(&PEER, HANDLER), Some(140));
        for second in 12..30 {
            pacer.throttled(at(second * 1_000), &PEER, HANDLER);
        }
        assert_eq!(pacer.rate(&PEER, HANDLER), Some(1), "never less than the least");
        assert_eq!(ask(&mut pacer, 29_000 + 60_000, 100), 100, "forgotten after a minute");
    }

    #[test]
    fn who_waits_has_its_own_place_and_none_is_given_beyond_its_time() {
        let mut pacer = pacer();
        ask(&mut pacer, 0, 20);
        pacer.throttled(at(1_000), &PEER, HANDLER);
        let mut places = Vec::new();
        let mut never = 0;
        for _ in 0..40 {
            match pacer.begin(at(1_000), PEER, HANDLER, at(3_000)) {
                Pace::At(place) => places.push(place),
                Pace::Never => never += 1,
                Pace::Now => {}
            }
        }
        assert_eq!((places.len(), never), (19, 20), "one at once, and one every tenth of a second");
        assert!(places.windows(2).all(|pair| pair[1].since(pair[0]) == Duration::from_millis(100)));
    }

    #[test]
    fn who_leaves_gives_its_place_back() {
        let mut pacer = pacer();
        ask(&mut pacer, 0, 20);
        pacer.throttled(at(1_000), &PEER, HANDLER);
        let begin = |pacer: &mut Pacer| pacer.begin(at(1_000), PEER, HANDLER, at(3_000));
        while begin(&mut pacer) != Pace::Never {}
        pacer.leave(at(1_000), &PEER, HANDLER);
        assert!(matches!(begin(&mut pacer), Pace::At(_)), "there is one place again");
        assert_eq!(begin(&mut pacer), Pace::Never, "and only one");
        (0..100).for_each(|_| pacer.leave(at(1_000), &PEER, HANDLER));
        let at_once = (0..40).filter(|_| begin(&mut pacer) == Pace::Now).count();
        assert_eq!(at_once, BURST as usize + 1, "no more than a burst can be given back");
    }

    #[test]
    fn peers_that_are_gone_are_forgotten_and_a_crowd_is_not_remembered() {
        let mut pacer = pacer();
        ask(&mut pacer, 0, 10);
        pacer.throttled(at(0), &PEER, HANDLER);
        pacer.forget(&PEER);
        assert!(pacer.is_empty() && pacer.limited == 0);
        for n in 0..10_000u64 {
            pacer.begin(at(0), PEER, HandlerId(n), at(0));
        }
        assert_eq!(pacer.len(), MEASURED);
    }
}
