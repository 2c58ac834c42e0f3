//! Signature checks, away from the actor: a few in a task of their own, many in batches on blocking threads, answered
//! through a queue.

use peerage_mailbox::{Bell, Capacity, Inlet, Item, Line, Outlet, data_queue};
use peerage_queue::SessionId;

use crate::config::Work;
use crate::message::{Check, Checked};

/// Checks done by one thread before it answers: a few milliseconds of work.
const BATCH: usize = 64;
/// Checks that are not worth waking a thread for: a tenth of a millisecond of work, as long as a task may keep a runtime's
/// thread. With twenty messages a second among 20 nodes on two cores, waking blocking threads for one check each was four
/// fifths of all futex calls and half of all context switches (`cargo xtask bench gossip`).
const FEW: usize = 2;

/// A check to be done, under its token, and for whom.
#[derive(Debug)]
struct Asked {
    token: u64,
    check: Check,
    from: SessionId,
}

/// Each weighs the same.
impl Item for Asked {
    fn source(&self) -> Option<u64> {
        Some(self.from.0)
    }
}

/// What became of one batch.
struct Answers {
    /// By token.
    done: Vec<(u64, Checked)>,
    /// What it did not come to.
    undone: Vec<Asked>,
}

/// The capacity covers every batch that may be under way.
impl Item for Answers {}

/// One batch under way. A check that panics ends alone, and is answered so. Should the batch end early all the same,
/// it answers when dropped, and what it did not come to is checked again: it must not count as forged.
struct Batch {
    checks: std::vec::IntoIter<Asked>,
    done: Vec<(u64, Checked)>,
    to: Outlet<Answers>,
}

impl Batch {
    fn run(mut self) {
        for Asked { token, check, .. } in self.checks.by_ref() {
            self.done.push((token, check.outcome()));
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let (done, undone) = (std::mem::take(&mut self.done), self.checks.by_ref().collect());
        // An actor that is gone does not want to know.
        drop(self.to.offer(Answers { done, undone }));
    }
}

/// The checks of one life of the actor.
pub(crate) struct Checker {
    threads: usize,
    busy: usize,
    /// Bounded by the machine's limit of messages in flight. Sessions take turns.
    waiting: Line<Asked>,
    outlet: Outlet<Answers>,
    inlet: Inlet<Answers>,
}

impl Checker {
    /// Rings `bell` when there are answers.
    pub(crate) fn new(work: Work, bell: Bell) -> Checker {
        let threads = work.threads();
        let (outlet, inlet) = data_queue(Capacity { items: threads.max(1), weight: threads.max(1) });
        inlet.bind(bell);
        Checker { threads, busy: 0, waiting: Line::new(), outlet, inlet }
    }

    /// Takes a check to be done after [`start`](Checker::start), or answers at once if it works inline.
    pub(crate) fn check(&mut self, token: u64, check: Check, from: SessionId) -> Option<Checked> {
        if self.threads == 0 {
            return Some(check.outcome());
        }
        self.waiting.push(Asked { token, check, from });
        None
    }

    /// Gives what waits to idle threads, or tasks in their place.
    pub(crate) fn start(&mut self) {
        while self.busy < self.threads && !self.waiting.is_empty() {
            // Spread over the idle threads.
            let idle = self.threads - self.busy;
            let count = self.waiting.len().div_ceil(idle).min(BATCH);
            let checks: Vec<_> = std::iter::from_fn(|| self.waiting.pop()).take(count).collect();
            let batch = Batch { checks: checks.into_iter(), done: Vec::with_capacity(count), to: self.outlet.clone() };
            self.busy += 1;
            if count <= FEW {
                // It comes next on the thread that the actor leaves.
                tokio::spawn(async move { batch.run() });
            } else {
                tokio::task::spawn_blocking(move || batch.run());
            }
        }
    }

    /// What was answered since the last call.
    pub(crate) fn answers(&mut self) -> Vec<(u64, Checked)> {
        let mut answers = Vec::new();
        for Answers { done, undone } in self.inlet.take(usize::MAX) {
            self.busy -= 1;
            answers.extend(done);
            undone.into_iter().for_each(|asked| self.waiting.push(asked));
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peerage_wire::Keypair;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::message::{Claim, MessageId};

    fn good() -> Check {
        let keys = Keypair::from_seed([1; 32]);
        let claim = Claim { id: MessageId([1; 32]), issued: 1 };
        Check { publisher: keys.id(), claim, signature: claim.sign(&keys) }
    }

    fn fatal() -> Check {
        let claim = Claim { issued: crate::poison::ISSUED, ..good().claim };
        Check { claim, ..good() }
    }

    fn checker(threads: usize) -> (Checker, UnboundedReceiver<()>) {
        let (rings, rung) = unbounded_channel();
        let bell = Bell::from_fn(move || assert!(rings.send(()).is_ok()));
        (Checker::new(Work::Pool { threads }, bell), rung)
    }

    /// A ring for every batch, wherever it is done.
    async fn heard(rung: &mut UnboundedReceiver<()>) {
        let rings = tokio::time::timeout(Duration::from_secs(30), rung.recv()).await;
        assert_eq!(rings, Ok(Some(())));
    }

    #[tokio::test]
    async fn every_check_is_answered_once_by_the_threads_and_one_that_panics_spoils_no_other() {
        let (mut checker, mut rung) = checker(2);
        for token in 0..200 {
            let check = match token % 3 {
                0 => Check { signature: [0; 64], ..good() },
                _ if token == 100 => fatal(),
                _ => good(),
            };
            assert_eq!(checker.check(token, check, SessionId(token % 5)), None);
        }
        let mut answers = Vec::new();
        checker.start();
        while answers.len() < 200 {
            assert!(checker.busy <= 2);
            heard(&mut rung).await;
            answers.extend(checker.answers());
            checker.start();
        }
        answers.sort_unstable();
        for (token, (answered, outcome)) in (0..).zip(answers) {
            let expected = match token {
                100 => Checked::Panicked,
                _ if token % 3 == 0 => Checked::Fails,
                _ => Checked::Holds,
            };
            assert_eq!((answered, outcome), (token, expected));
        }
        assert_eq!(checker.busy, 0);
    }

    #[tokio::test]
    async fn what_a_batch_that_died_did_not_come_to_is_checked_again() {
        let (mut checker, mut rung) = checker(1);
        checker.busy = 1;
        let checks = vec![Asked { token: 7, check: good(), from: SessionId(1) }].into_iter();
        drop(Batch { checks, done: vec![(6, Checked::Fails)], to: checker.outlet.clone() });
        heard(&mut rung).await;
        assert_eq!(checker.answers(), [(6, Checked::Fails)]);
        checker.start();
        heard(&mut rung).await;
        assert_eq!(checker.answers(), [(7, Checked::Holds)]);
    }

    #[tokio::test]
    async fn a_few_checks_wake_no_thread_and_are_done_once_the_actor_waits() {
        let (mut checker, mut rung) = checker(2);
        for token in 0..FEW as u64 {
            assert_eq!(checker.check(token, if token == 0 { fatal() } else { good() }, SessionId(1)), None);
        }
        checker.start();
        assert_eq!(checker.answers(), [], "not in the actor's turn");
        let mut answers = Vec::new();
        while answers.len() < FEW {
            heard(&mut rung).await;
            answers.extend(checker.answers());
        }
        answers.sort_unstable();
        assert_eq!(answers, [(0, Checked::Panicked), (1, Checked::Holds)]);
        assert_eq!(checker.busy, 0);
    }

    #[tokio::test]
    async fn one_check_does_not_wait_for_the_many_of_another_session() {
        let (mut checker, mut rung) = checker(1);
        for token in 0..1_000 {
            assert_eq!(checker.check(token, good(), SessionId(1)), None);
        }
        assert_eq!(checker.check(1_000, good(), SessionId(2)), None);
        checker.start();
        heard(&mut rung).await;
        let first: Vec<u64> = checker.answers().into_iter().map(|(token, _)| token).collect();
        assert!(first.len() <= BATCH && first.contains(&1_000), "{first:?}");
    }

    #[test]
    fn inline_a_check_that_panics_is_answered_too() {
        let mut checker = Checker::new(Work::Inline, Bell::from_fn(|| {}));
        assert_eq!(checker.check(1, fatal(), SessionId(1)), Some(Checked::Panicked));
        assert_eq!(checker.check(2, good(), SessionId(1)), Some(Checked::Holds));
    }
}
