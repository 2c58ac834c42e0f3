//! What becomes of requests: of all, and apart from them of those that members make.

use std::time::Duration;

use super::measure::{Histogram, share};
use super::results::{Curves, Metrics, add, curve};
use crate::report::Unit;

/// Requests of some askers.
#[derive(Default)]
struct Asked {
    asks: u64,
    answers: Histogram,
    /// Calls of theirs that handlers of honest nodes were handed.
    calls: u64,
}

impl Asked {
    fn results(&self, family: &str, metrics: &mut Metrics) {
        let mut say = |name: &str, unit, value| add(metrics, &format!("{family}.{name}"), unit, value);
        say("asked", Unit::Count, self.asks);
        say("handled", Unit::Count, self.calls);
        say("answered", Unit::Share, share(self.answers.count(), self.asks));
        if self.answers.count() > 0 {
            say("p50", Unit::Time, self.answers.percentile(50));
            say("p99", Unit::Time, self.answers.percentile(99));
            say("max", Unit::Time, self.answers.max());
        }
    }
}

/// Requests of everybody.
#[derive(Default)]
pub(super) struct Requests {
    all: Asked,
    members: Asked,
}

impl Requests {
    /// Those that this counts for.
    fn of(&mut self, member: bool) -> impl Iterator<Item = &mut Asked> {
        std::iter::once(&mut self.all).chain(member.then_some(&mut self.members))
    }

    /// An honest node, member or not, is about to ask; returns the question's number.
    pub(super) fn asks(&mut self, member: bool) -> u64 {
        self.of(member).for_each(|asked| asked.asks += 1);
        self.all.asks
    }

    /// An honest node has its answer.
    pub(super) fn answered(&mut self, member: bool, took: Duration) {
        self.of(member).for_each(|asked| asked.answers.add(took.as_micros() as u64));
    }

    /// A handler of an honest node has a call of anybody's.
    pub(super) fn called(&mut self, member: bool) {
        self.of(member).for_each(|asked| asked.calls += 1);
    }

    pub(super) fn results(&self, has_members: bool, metrics: &mut Metrics, curves: &mut Curves) {
        if self.all.asks == 0 {
            return;
        }
        self.all.results("requests", metrics);
        if self.all.answers.count() > 0 {
            curve(curves, "requests-cdf", "µs", "answers, ppm", self.all.answers.shares());
        }
        if has_members {
            self.members.results("requests.members", metrics);
            // Of all that there was to ask and to handle, what was theirs.
            add(metrics, "requests.members.of-handled", Unit::Share, share(self.members.calls, self.all.calls.max(1)));
        }
    }
}
