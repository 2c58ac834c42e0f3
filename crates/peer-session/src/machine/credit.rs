//! The credit of one flow that comes in: what the other end may send, what it has sent, and what was given back.
//!
//! All counts are costs since the session began. The bytes that may be here, or on their way, are `limit - released`;
//! they never exceed what is reserved for the flow in the node's inbound pool (`window + extra`), so nothing is advertised
//! that is not there.

use std::time::Duration;

use peerage_machine::Time;
use peerage_wire::frame::MESSAGE_COST;

/// A window is not sized for a shorter round trip than this: else scheduling alone would decide its size. It also bounds
/// how long what is under way may take to read, about twice as much.
const SHORTEST_ROUND_TRIP: Duration = Duration::from_micros(375);

/// A sender does not cut fragments smaller than this (`queue::Lanes`).
const SLIVER: u64 = 1024;

/// More came than was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Credit {
    /// What was advertised.
    limit: u64,
    /// What came in, and what of that has been handled.
    received: u64,
    released: u64,
    /// What is reserved for it: always, and for messages larger than that.
    window: u64,
    extra: u64,
    /// Where the limit must get to so that the message under way can be completed.
    wanted: u64,
    /// When the window was last judged, and what had been released then.
    judged: (Time, u64),
    /// What had been received when the flow was last looked at for idleness.
    seen: u64,
    /// The other end was asked to give back what it does not use: down to this limit, and when.
    reclaiming: Option<(u64, Time)>,
}

impl Credit {
    pub(crate) const fn new(window: u64) -> Credit {
        Credit {
            limit: window,
            received: 0,
            released: 0,
            window,
            extra: 0,
            wanted: 0,
            judged: (Time::ZERO, 0),
            seen: 0,
            reclaiming: None,
        }
    }

    const fn reserved(&self) -> u64 {
        self.released + self.window + self.extra
    }

    /// Raises the limit when that is worth a frame, or a message waits for it.
    pub(crate) const fn advance(&mut self) -> Option<u64> {
        let reserved = self.reserved();
        let worth_it = reserved >= self.limit + self.window / 4 || self.limit < self.wanted;
        if self.reclaiming.is_some() || reserved <= self.limit || !worth_it {
            return None;
        }
        self.limit = reserved;
        Some(reserved)
    }

    /// The total of releases at which [`advance`](Credit::advance) has something to do.
    pub(crate) fn wake_at(&self) -> u64 {
        if self.limit < self.wanted || self.extra > 0 {
            return self.released + 1;
        }
        (self.limit + self.window / 4).saturating_sub(self.window).max(self.released + 1)
    }

    /// Takes note of what came in.
    pub(crate) const fn receive(&mut self, cost: u64) -> Result<(), Exceeded> {
        if cost > self.limit.saturating_sub(self.received) {
            return Err(Exceeded);
        }
        self.received += cost;
        Ok(())
    }

    /// A message of `total` bytes begins, of which `first` have been received; what it needs beyond the window.
    pub(crate) const fn begin(&mut self, total: u64, first: u64) -> u64 {
        let need = total + MESSAGE_COST;
        self.wanted = self.received - first - MESSAGE_COST + need;
        need.saturating_sub(self.window)
    }

    /// More was reserved for the message under way. Returns what it does not need any more: its window may have grown
    /// since it asked.
    pub(crate) fn grant(&mut self, bytes: u64) -> u64 {
        self.extra += bytes;
        self.spare()
    }

    /// Whether the message under way may be sent whole.
    pub(crate) const fn covers_message(&self) -> bool {
        self.limit >= self.wanted
    }

    /// The permits of so much, since the session began, were dropped. Returns what need no longer be reserved.
    pub(crate) fn release(&mut self, total: u64) -> u64 {
        debug_assert!(total <= self.received, "permits are of what came in");
        self.released = self.released.max(total.min(self.received));
        self.spare()
    }

    fn spare(&mut self) -> u64 {
        let needed = self.limit.max(self.wanted).saturating_sub(self.released).max(self.window);
        let spare = (self.window + self.extra).saturating_sub(needed).min(self.extra);
        self.extra -= spare;
        spare
    }

    /// By how much the window should grow, judged each time half of it was used: it doubles while the sender could use
    /// all of it in less than two round trips (as yamux and QUIC do), or if messages are larger than half of it.
    pub(crate) fn growth(&mut self, now: Time, round_trip: Option<Duration>, largest: u64, max: u64) -> u64 {
        let (judged_at, judged_released) = self.judged;
        let used = self.released - judged_released;
        if used < self.window / 2 {
            return 0;
        }
        self.judged = (now, self.released);
        let Some(round_trip) = round_trip else { return 0 };
        // Time for a whole window at the rate seen: the time passed, times window / used.
        let micros = u64::try_from(now.since(judged_at).as_micros()).unwrap_or(u64::MAX);
        let whole = micros.saturating_mul(self.window) / used.max(1);
        let short = u128::from(whole) < 2 * round_trip.max(SHORTEST_ROUND_TRIP).as_micros();
        if !short && largest + MESSAGE_COST <= self.window / 2 {
            return 0;
        }
        (self.window * 2).min(max).saturating_sub(self.window)
    }

    /// The window was grown by so much.
    pub(crate) const fn grown(&mut self, by: u64) {
        self.window += by;
    }

    /// Asks for what lies idle: nothing came since the last call, nothing is here, and the window is larger than it began.
    pub(crate) const fn reclaim(&mut self, now: Time, initial: u64) -> Option<u64> {
        let idle = self.seen == self.received && self.received == self.released;
        self.seen = self.received;
        if !idle || self.reclaiming.is_some() || self.window <= initial || self.received == 0 {
            return None;
        }
        let limit = self.released + initial;
        self.reclaiming = Some((limit, now));
        Some(limit)
    }

    /// Since when an answer is awaited.
    pub(crate) fn reclaiming_since(&self) -> Option<Time> {
        self.reclaiming.map(|(_, since)| since)
    }

    /// Nothing was read for so long: an answer may have lain there.
    pub(crate) fn postpone(&mut self, waited: Duration) {
        if let Some((_, since)) = &mut self.reclaiming {
            *since += waited;
        }
    }

    /// The other end says which limit holds now. Returns what need no longer be reserved.
    pub(crate) fn reclaimed(&mut self, limit: u64, initial: u64) -> Result<u64, Exceeded> {
        // What the sender had sent when it was asked came before its answer: it has nothing else to keep credit for.
        let honest = |asked: u64| limit == asked.max(self.received) || (limit < asked && limit == self.limit);
        if !self.reclaiming.is_some_and(|(asked, _)| honest(asked)) {
            return Err(Exceeded);
        }
        self.reclaiming = None;
        self.limit = limit;
        // A message that began meanwhile counted on the window it had.
        let needed = limit.max(self.wanted).saturating_sub(self.released);
        let window = initial.max(needed).min(self.window);
        let freed = self.window - window;
        self.window = window;
        Ok(freed + self.spare())
    }

    /// Whether the other end could send on: with less credit than [`SLIVER`], or than `left`, it waits for more.
    pub(crate) fn has_credit(&self, left: u64) -> bool {
        self.limit - self.received >= left.min(SLIVER)
    }

    /// What came and was not handled yet.
    pub(crate) const fn unread(&self) -> u64 {
        self.received - self.released
    }

    /// What may still come.
    pub(crate) const fn left(&self) -> u64 {
        self.limit - self.received
    }

    /// What is reserved for it.
    pub(crate) const fn held(&self) -> u64 {
        self.window + self.extra
    }

    #[cfg(test)]
    pub(crate) const fn outstanding(&self) -> (u64, u64) {
        (self.limit - self.released, self.window + self.extra)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: u64 = 1000;

    fn fresh() -> Credit {
        let mut credit = Credit::new(WINDOW);
        assert_eq!(credit.advance(), None, "the first window is granted by itself");
        credit
    }

    #[test]
    fn what_was_not_granted_is_refused_and_what_is_released_is_granted_again_in_quarters() {
        let mut credit = fresh();
        assert_eq!(credit.receive(WINDOW + 1), Err(Exceeded));
        assert_eq!(credit.receive(WINDOW), Ok(()));
        assert_eq!(credit.receive(1), Err(Exceeded));
        assert_eq!((credit.release(200), credit.advance(), credit.wake_at()), (0, None, 250));
        assert_eq!((credit.release(250), credit.advance()), (0, Some(1250)));
        assert_eq!(credit.receive(250), Ok(()));
    }

    #[test]
    fn a_message_larger_than_its_window_is_granted_its_rest_which_comes_back_when_it_was_handled() {
        let mut credit = fresh();
        credit.receive(100 + MESSAGE_COST).expect("granted");
        let need = credit.begin(5000, 100);
        assert_eq!(need, 5000 + MESSAGE_COST - WINDOW);
        assert_eq!(credit.grant(1000), 0);
        assert_eq!(credit.advance(), Some(2000), "partial grants are passed on");
        assert_eq!(credit.grant(need - 1000), 0);
        assert_eq!(credit.advance(), Some(5000 + MESSAGE_COST), "enough for this message and no more");
        credit.receive(4900).expect("granted");
        assert_eq!(credit.receive(1), Err(Exceeded));
        assert_eq!(credit.release(5000 + MESSAGE_COST), need);
        assert_eq!(credit.outstanding(), (0, WINDOW));
        assert_eq!(credit.advance(), Some(5000 + MESSAGE_COST + WINDOW));
    }

    #[test]
    fn the_last_bytes_of_a_window_are_granted_when_a_message_needs_them() {
        let mut credit = fresh();
        credit.receive(100).expect("granted");
        credit.release(100);
        assert_eq!(credit.advance(), None, "not worth a frame");
        credit.receive(900).expect("granted");
        assert_eq!(credit.begin(900, 900 - MESSAGE_COST), 0);
        assert_eq!(credit.advance(), Some(1100), "but now somebody waits");
    }

    #[test]
    fn a_window_that_is_used_in_two_round_trips_doubles_up_to_its_maximum() {
        let mut credit = fresh();
        let rtt = Some(Duration::from_millis(60));
        let mut now = Time::ZERO;
        let mut use_window = |credit: &mut Credit, after: u64, rtt| {
            now += Duration::from_millis(after);
            let window = credit.window;
            credit.receive(window).expect("granted");
            credit.release(credit.received);
            let growth = credit.growth(now, rtt, 0, 3000);
            credit.grown(growth);
            credit.advance();
            growth
        };
        assert_eq!(use_window(&mut credit, 60, None), 0, "not before the round trip is known");
        assert_eq!(use_window(&mut credit, 60, rtt), 1000);
        assert_eq!(use_window(&mut credit, 200, rtt), 0, "slow enough");
        assert_eq!(use_window(&mut credit, 60, rtt), 1000, "to the maximum");
        assert_eq!(use_window(&mut credit, 60, rtt), 0);
    }

    #[test]
    fn an_idle_window_goes_back_to_its_first_size_once_the_other_end_agrees() {
        let mut credit = fresh();
        credit.receive(500).expect("granted");
        credit.release(500);
        credit.grown(3000);
        assert_eq!(credit.advance(), Some(4500));
        assert_eq!(credit.reclaim(Time::ZERO, WINDOW), None, "used since");
        assert_eq!(credit.reclaim(Time::ZERO, WINDOW), Some(1500));
        assert_eq!(credit.reclaimed(5000, WINDOW), Err(Exceeded), "more than it had");
        assert_eq!(credit.reclaimed(4500, WINDOW), Err(Exceeded), "nothing of what was asked for");
        credit.receive(600).expect("what was on its way is granted still");
        assert_eq!(credit.advance(), None, "no new credit crosses the answer");
        assert_eq!(credit.reclaimed(1500, WINDOW), Ok(3000));
        assert_eq!(credit.outstanding(), (1000, WINDOW));
        assert_eq!(credit.reclaimed(1500, WINDOW), Err(Exceeded), "nobody asked");
    }

    #[test]
    fn a_message_that_crosses_the_question_keeps_the_window_that_it_counted_on() {
        let mut credit = fresh();
        credit.receive(500).expect("granted");
        credit.release(500);
        credit.grown(9000);
        assert_eq!(credit.advance(), Some(10_500));
        credit.reclaim(Time::ZERO, WINDOW);
        assert_eq!(credit.reclaim(Time::ZERO, WINDOW), Some(1500));
        credit.receive(2000 + MESSAGE_COST).expect("granted");
        assert_eq!(credit.begin(5000, 2000), 0, "it fits the window");
        assert_eq!(credit.reclaimed(2564, WINDOW), Ok(10_000 - 5064));
        assert!(!credit.covers_message());
        assert_eq!(credit.advance(), Some(500 + 5064), "and can be completed");
        assert!(credit.covers_message());
    }

    proptest! {
        #[test]
        fn nothing_is_advertised_that_is_not_reserved(
            ops in proptest::collection::vec((0u8..6, 0u64..3000), 1..200),
        ) {
            let mut credit = Credit::new(WINDOW);
            let mut reserved = WINDOW;
            let mut now = Time::ZERO;
            for (op, n) in ops {
                now += Duration::from_micros(n);
                match op {
                    0 => { let _ = credit.receive(n); }
                    1 => reserved -= credit.release(credit.released + n.min(credit.received - credit.released)),
                    2 if credit.received >= credit.wanted && credit.receive(MESSAGE_COST + 1).is_ok() => {
                        let need = credit.begin(n + 2, 1);
                        reserved += need - credit.grant(need);
                    }
                    3 => {
                        let growth = credit.growth(now, Some(Duration::from_millis(1)), n, 16_000);
                        credit.grown(growth);
                        reserved += growth;
                    }
                    4 => { let _ = credit.reclaim(now, WINDOW); }
                    5 if credit.reclaiming.is_some() => {
                        let limit = credit.reclaiming.map_or(0, |(asked, _)| asked.max(credit.received).min(credit.limit));
                        reserved -= credit.reclaimed(limit, WINDOW).expect("a fair answer");
                    }
                    _ => {}
                }
                credit.advance();
                let (outstanding, held) = credit.outstanding();
                prop_assert!(outstanding <= held, "{outstanding} of {held}");
                prop_assert_eq!(held, reserved);
            }
        }
    }
}
