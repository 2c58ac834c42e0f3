//! Coding, away from the actor: each job on a blocking thread, answered through a queue.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use peerage_mailbox::{Bell, Capacity, Inlet, Item, Outlet, data_queue};

use super::code::{Coding, Job};
use super::reed_solomon::ReedSolomon;
use crate::config::Work;

/// What became of one job.
struct Answer {
    token: u64,
    coding: Option<Coding>,
}

/// The capacity covers every job that may be under way.
impl Item for Answer {}

/// One job under way. It answers when dropped, however it ends.
struct Run {
    answer: Option<Answer>,
    to: Outlet<Answer>,
}

impl Run {
    fn go(mut self, token: u64, job: Job) {
        self.answer = Some(Answer { token, coding: done(job) });
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            // An actor that is gone does not want to know.
            drop(self.to.offer(answer));
        }
    }
}

/// The coding of one life of the actor.
pub(crate) struct Coder {
    threads: usize,
    busy: usize,
    /// Bounded by the machine's limit of coded messages.
    waiting: VecDeque<(u64, Job)>,
    outlet: Outlet<Answer>,
    inlet: Inlet<Answer>,
}

/// A panic is an answer: what shards somebody made up must not stop others' messages.
fn done(job: Job) -> Option<Coding> {
    catch_unwind(AssertUnwindSafe(|| job.run(&ReedSolomon))).ok().flatten()
}

impl Coder {
    /// Rings `bell` when there are answers.
    pub(crate) fn new(work: Work, bell: Bell) -> Coder {
        let threads = work.threads();
        let (outlet, inlet) = data_queue(Capacity { items: threads.max(1), weight: threads.max(1) });
        inlet.bind(bell);
        Coder { threads, busy: 0, waiting: VecDeque::new(), outlet, inlet }
    }

    /// Takes a job to be done after [`start`](Coder::start), or answers at once if it works inline.
    pub(crate) fn code(&mut self, token: u64, job: Job) -> Option<Option<Coding>> {
        if self.threads == 0 {
            return Some(done(job));
        }
        self.waiting.push_back((token, job));
        None
    }

    /// Gives what waits to idle threads.
    pub(crate) fn start(&mut self) {
        while self.busy < self.threads
            && let Some((token, job)) = self.waiting.pop_front()
        {
            self.busy += 1;
            let run = Run { answer: Some(Answer { token, coding: None }), to: self.outlet.clone() };
            tokio::task::spawn_blocking(move || run.go(token, job));
        }
    }

    /// What was answered since the last call.
    pub(crate) fn answers(&mut self) -> Vec<(u64, Option<Coding>)> {
        let answers = self.inlet.take(usize::MAX);
        self.busy -= answers.len();
        answers.into_iter().map(|answer| (answer.token, answer.coding)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::coded::Shape;

    fn job(len: usize, said: usize) -> Job {
        let shape = Shape::of(said, 100).expect("it can be cut");
        Job::Encode { payload: Bytes::from(vec![7; len]), shape }
    }

    #[tokio::test]
    async fn every_job_is_answered_once() {
        let (rings, rung) = mpsc::channel();
        let mut coder = Coder::new(Work::Pool { threads: 2 }, Bell::from_fn(move || assert!(rings.send(()).is_ok())));
        for token in 0..10 {
            let said = if token == 3 { 70_001 } else { 70_000 };
            assert!(coder.code(token, job(70_000, said)).is_none());
        }
        let mut answers = Vec::new();
        coder.start();
        while answers.len() < 10 {
            assert!(coder.busy <= 2);
            rung.recv_timeout(Duration::from_secs(30)).expect("a ring");
            answers.extend(coder.answers());
            coder.start();
        }
        answers.sort_unstable_by_key(|(token, _)| *token);
        for (expected, (token, coding)) in (0..).zip(answers) {
            assert_eq!((token, coding.is_some()), (expected, expected != 3), "the third is not as long as it says");
        }
    }

    #[test]
    fn inline_it_answers_at_once() {
        let mut coder = Coder::new(Work::Inline, Bell::from_fn(|| {}));
        assert!(coder.code(1, job(70_000, 70_000)).is_some_and(|coding| coding.is_some()));
    }
}
