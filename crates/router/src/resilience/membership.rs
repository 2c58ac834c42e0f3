//! Fetching the members: who knows them, and when they are asked.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use peerage_wire::NodeId;

/// The members and their weights, or why they are not known now.
pub type Fetched = Result<BTreeMap<NodeId, u64>, Box<dyn Error + Send + Sync>>;

/// A fetch that is under way.
pub type Fetching = Pin<Box<dyn Future<Output = Fetched> + Send>>;

/// Who knows the members of the network: a chain's state, a registry. Given to the node once, it is asked when the node
/// starts, and again when the set is old and used.
pub trait Membership: Send + Sync + 'static {
    /// Fetches them, in a task of its own, one at a time. Too slow, or an error, leaves the set as it was.
    fn fetch(&self) -> Fetching;
}

impl<F, M> Membership for F
where
    F: Fn() -> M + Send + Sync + 'static,
    M: Future<Output = Fetched> + Send + 'static,
{
    fn fetch(&self) -> Fetching {
        Box::pin(self())
    }
}

impl fmt::Debug for dyn Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Membership")
    }
}

/// What is to be done once a fetch has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFetch {
    /// The set that it brought holds.
    Use,
    /// It counts for nothing: somebody said the set meanwhile, or it failed and the set stays until it is asked for again.
    Nothing,
    /// It failed, and there is no set yet, so nobody would ask for it: try again after a while.
    Retry,
}

/// When members are fetched: one fetch at a time, and never against what was said meanwhile.
#[derive(Debug, Default)]
pub struct Fetches {
    out: bool,
    /// The set was said while a fetch was out.
    overtaken: bool,
    /// There is a set.
    known: bool,
}

impl Fetches {
    /// The set is wanted; whether a fetch is to begin. One that is out will do.
    #[must_use]
    pub fn want(&mut self) -> bool {
        !std::mem::replace(&mut self.out, true)
    }

    /// The application said the set itself.
    pub fn said(&mut self) {
        self.known = true;
        self.overtaken = self.out;
    }

    /// A fetch has ended.
    #[must_use]
    pub fn ended(&mut self, fetched: bool) -> AfterFetch {
        self.out = false;
        if std::mem::take(&mut self.overtaken) {
            return AfterFetch::Nothing;
        }
        match (fetched, self.known) {
            (true, _) => {
                self.known = true;
                AfterFetch::Use
            }
            (false, true) => AfterFetch::Nothing,
            (false, false) => AfterFetch::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fetch_at_a_time_and_a_failed_one_leaves_the_set() {
        let mut fetches = Fetches::default();
        assert!(fetches.want() && !fetches.want(), "one is out");
        assert_eq!(fetches.ended(false), AfterFetch::Retry, "there is none yet");
        assert!(fetches.want());
        assert_eq!(fetches.ended(true), AfterFetch::Use);
        assert!(fetches.want());
        assert_eq!(fetches.ended(false), AfterFetch::Nothing, "the old one stays");
        assert!(fetches.want(), "and is asked for again when it is old");
    }

    #[test]
    fn what_was_said_during_a_fetch_holds() {
        let mut fetches = Fetches::default();
        fetches.said();
        assert!(fetches.want());
        fetches.said();
        assert!(!fetches.want(), "still out");
        assert_eq!(fetches.ended(true), AfterFetch::Nothing);
        assert!(fetches.want());
        assert_eq!(fetches.ended(true), AfterFetch::Use);
    }
}
