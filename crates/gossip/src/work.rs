//! Signature checks, away from the actor: batches on blocking threads, answered through a queue.

use peerage_mailbox::{Bell, Capacity, Inlet, Item, Outlet, data_queue};

use crate::config::Work;
use crate::message::Check;

/// Checks done by one thread before it answers: a few milliseconds of work.
const BATCH: usize = 64;

/// The answers of one batch, by token.
struct Answers(Vec<(u64, bool)>);

/// The capacity covers every batch that may be under way.
impl Item for Answers {}

/// One batch under way. It answers when dropped, so that even one that panicked does: what it did not
/// check does not hold.
struct Batch {
    checks: std::vec::IntoIter<(u64, Check)>,
    answers: Vec<(u64, bool)>,
    to: Outlet<Answers>,
}

impl Batch {
    fn run(mut self) {
        for (token, check) in self.checks.by_ref() {
            self.answers.push((token, false));
            let holds = check.holds();
            if let Some(answer) = self.answers.last_mut() {
                answer.1 = holds;
            }
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let mut answers = std::mem::take(&mut self.answers);
        answers.extend(self.checks.by_ref().map(|(token, _)| (token, false)));
        // An actor that is gone does not want to know.
        drop(self.to.offer(Answers(answers)));
    }
}

/// The checks of one life of the actor.
pub(crate) struct Checker {
    threads: usize,
    busy: usize,
    /// Bounded by the machine's limit of messages in flight.
    waiting: Vec<(u64, Check)>,
    outlet: Outlet<Answers>,
    inlet: Inlet<Answers>,
}

impl Checker {
    /// Rings `bell` when there are answers.
    pub(crate) fn new(work: Work, bell: Bell) -> Checker {
        let threads = match work {
            Work::Pool { threads } => threads.max(1),
            Work::Inline => 0,
        };
        let (outlet, inlet) = data_queue(Capacity { items: threads.max(1), weight: threads.max(1) });
        inlet.bind(bell);
        Checker { threads, busy: 0, waiting: Vec::new(), outlet, inlet }
    }

    /// Takes a check to be done after [`start`](Checker::start), or answers at once if it works inline.
    pub(crate) fn check(&mut self, token: u64, check: Check) -> Option<bool> {
        if self.threads == 0 {
            return Some(check.holds());
        }
        self.waiting.push((token, check));
        None
    }

    /// Gives what waits to idle threads.
    pub(crate) fn start(&mut self) {
        while self.busy < self.threads && !self.waiting.is_empty() {
            // Spread over the idle threads.
            let idle = self.threads - self.busy;
            let count = self.waiting.len().div_ceil(idle).min(BATCH);
            let checks: Vec<_> = self.waiting.drain(..count).collect();
            let batch =
                Batch { checks: checks.into_iter(), answers: Vec::with_capacity(count), to: self.outlet.clone() };
            self.busy += 1;
            tokio::task::spawn_blocking(move || batch.run());
        }
    }

    /// What was answered since the last call.
    pub(crate) fn answers(&mut self) -> impl Iterator<Item = (u64, bool)> {
        let batches = self.inlet.take(usize::MAX);
        self.busy -= batches.len();
        batches.into_iter().flat_map(|Answers(answers)| answers)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use peerage_wire::Keypair;

    use super::*;
    use crate::message::{Claim, MessageId};

    #[tokio::test]
    async fn every_check_is_answered_once_by_the_threads() {
        let keys = Keypair::from_seed([1; 32]);
        let claim = Claim { id: MessageId([1; 32]), issued: 1 };
        let good = Check { publisher: keys.id(), claim, signature: claim.sign(&keys) };
        let (rings, rung) = mpsc::channel();
        let mut checker =
            Checker::new(Work::Pool { threads: 2 }, Bell::from_fn(move || assert!(rings.send(()).is_ok())));
        for token in 0..200 {
            let signature = if token % 3 == 0 { [0; 64] } else { good.signature };
            assert_eq!(checker.check(token, Check { signature, ..good.clone() }), None);
        }
        let mut answers = Vec::new();
        checker.start();
        while answers.len() < 200 {
            assert!(checker.busy <= 2);
            rung.recv_timeout(Duration::from_secs(30)).expect("a ring for every batch");
            answers.extend(checker.answers());
            checker.start();
        }
        answers.sort_unstable();
        assert!(answers.iter().enumerate().all(|(n, answer)| *answer == (n as u64, n % 3 != 0)));
        assert_eq!(checker.busy, 0);
    }

    #[test]
    fn a_batch_that_dies_answers_that_nothing_holds() {
        let (to, inlet) = data_queue(Capacity { items: 1, weight: 1 });
        let claim = Claim { id: MessageId([1; 32]), issued: 1 };
        let check = Check { publisher: Keypair::from_seed([1; 32]).id(), claim, signature: [0; 64] };
        drop(Batch { checks: vec![(7, check)].into_iter(), answers: vec![(6, true)], to });
        let answers: Vec<_> = inlet.take(9).into_iter().flat_map(|Answers(answers)| answers).collect();
        assert_eq!(answers, [(6, true), (7, false)]);
    }
}
