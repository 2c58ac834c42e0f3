//! Publishing the items one after the other, each through a node drawn by lot from those that stay up.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;
use rand::{SeedableRng, rngs::ChaCha8Rng};

use super::client::{Answer, ClientError};

/// How often a wait looks up.
const LOOK: Duration = Duration::from_millis(2);

/// Somewhere to publish: a node's API, or a test.
pub(crate) trait Publish {
    fn publish(&self, node: usize, payload: &[u8]) -> Result<Answer, ClientError>;
}

/// How far publishing may go, moved by whoever watches the run.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    limit: AtomicUsize,
    closed: AtomicBool,
}

impl Gate {
    /// Items below `limit` may be published.
    pub(crate) fn open_to(&self, limit: usize) {
        self.limit.store(limit, Ordering::Release);
    }

    /// Ends publishing before the next item.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Waits until `item` may be published; false when it never may.
    fn wait(&self, item: usize) -> bool {
        while !self.closed.load(Ordering::Acquire) {
            if item < self.limit.load(Ordering::Acquire) {
                return true;
            }
            thread::sleep(LOOK);
        }
        false
    }

    /// Sleeps, but not past the end of the run.
    fn sleep_until(&self, when: Instant) {
        while !self.closed.load(Ordering::Acquire) {
            let left = when.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(Duration::from_millis(20)));
        }
    }
}

/// What happens to an item, told in this order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// About to be handed to a node.
    Publishing {
        item: usize,
        node: usize,
    },
    /// The node was busy; the same item goes to it again now.
    Again {
        item: usize,
    },
    Published,
}

/// Publishes every item in order; ends early, without error, when the gate closes.
pub(crate) fn publish_all(
    items: &[Vec<u8>],
    through: &[usize],
    rate: Option<f64>,
    seed: u64,
    gate: &Gate,
    api: &impl Publish,
    mut tell: impl FnMut(Step),
) -> Result<(), String> {
    let mut lot = ChaCha8Rng::seed_from_u64(seed);
    let begun = Instant::now();
    for (item, payload) in items.iter().enumerate() {
        let node = *through.choose(&mut lot).ok_or("no node stays up to publish through")?;
        if let Some(rate) = rate {
            gate.sleep_until(begun + Duration::from_secs_f64(item as f64 / rate));
        }
        if !gate.wait(item) {
            return Ok(());
        }
        tell(Step::Publishing { item, node });
        loop {
            match api.publish(node, payload) {
                Ok(Answer::Accepted) => break,
                Ok(Answer::Busy(wait)) => {
                    gate.sleep_until(Instant::now() + wait);
                    if !gate.wait(item) {
                        return Ok(());
                    }
                    tell(Step::Again { item });
                }
                Err(error) => {
                    let bytes = payload.len();
                    return Err(format!("node {} did not take message {item} ({bytes} bytes): {error}", node + 1));
                }
            }
        }
        tell(Step::Published);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Says busy to every second request and remembers what it took.
    #[derive(Default)]
    struct Fake {
        asked: RefCell<usize>,
        taken: RefCell<Vec<(usize, Vec<u8>)>>,
        broken: bool,
    }

    impl Publish for Fake {
        fn publish(&self, node: usize, payload: &[u8]) -> Result<Answer, ClientError> {
            *self.asked.borrow_mut() += 1;
            if self.broken {
                return Err(ClientError::Status { status: 500, body: "broken".to_owned() });
            }
            if *self.asked.borrow() % 2 == 1 {
                return Ok(Answer::Busy(Duration::from_millis(1)));
            }
            self.taken.borrow_mut().push((node, payload.to_vec()));
            Ok(Answer::Accepted)
        }
    }

    fn items(count: u8) -> Vec<Vec<u8>> {
        (0..count).map(|byte| vec![byte]).collect()
    }

    #[test]
    fn every_item_goes_once_and_in_order_through_nodes_that_stay_up_even_when_they_are_busy() {
        let (fake, gate, items) = (Fake::default(), Gate::default(), items(20));
        gate.open_to(items.len());
        let mut steps = Vec::new();
        publish_all(&items, &[0, 2], None, 7, &gate, &fake, |step| steps.push(step)).expect("the fake takes all");
        let taken = fake.taken.borrow();
        assert_eq!(taken.iter().map(|(_, payload)| payload.clone()).collect::<Vec<_>>(), items);
        assert!(taken.iter().all(|(node, _)| [0, 2].contains(node)));
        assert!(taken.iter().any(|(node, _)| *node == 0) && taken.iter().any(|(node, _)| *node == 2));
        assert_eq!(steps.iter().filter(|step| matches!(step, Step::Again { .. })).count(), 20);
        assert!(matches!(steps[..3], [Step::Publishing { item: 0, .. }, Step::Again { item: 0 }, Step::Published]));
    }

    #[test]
    fn equal_seeds_draw_equal_nodes() {
        let draw = |seed| {
            let (fake, gate, items) = (Fake::default(), Gate::default(), items(30));
            gate.open_to(items.len());
            publish_all(&items, &[0, 1, 2, 3], None, seed, &gate, &fake, |_| ()).expect("the fake takes all");
            fake.taken.borrow().iter().map(|(node, _)| *node).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn a_refusal_ends_publishing_with_its_reason() {
        let (fake, gate) = (Fake { broken: true, ..Fake::default() }, Gate::default());
        gate.open_to(1);
        let error = publish_all(&items(1), &[0], None, 7, &gate, &fake, |_| ()).expect_err("it is broken");
        assert!(error.contains("node 1") && error.contains("500"), "{error}");
    }

    #[test]
    fn nothing_passes_a_gate_and_a_closed_gate_lets_go_of_the_publisher() {
        let (fake, gate) = (Fake::default(), Gate::default());
        gate.open_to(2);
        let mut published = 0;
        let count = |step| {
            if step == Step::Published {
                published += 1;
                if published == 2 {
                    gate.close();
                }
            }
        };
        publish_all(&items(5), &[0], None, 7, &gate, &fake, count).expect("a closed gate is no error");
        assert_eq!(published, 2);
    }

    #[test]
    fn a_rate_spreads_the_items_over_time() {
        let (fake, gate, begun) = (Fake::default(), Gate::default(), Instant::now());
        gate.open_to(5);
        publish_all(&items(5), &[0], Some(100.0), 7, &gate, &fake, |_| ()).expect("the fake takes all");
        assert!(begun.elapsed() >= Duration::from_millis(40), "four gaps of 10 ms");
    }
}
