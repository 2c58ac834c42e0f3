//! What wakes an actor: a bell for data, an alarm for its timers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use peerage_machine::Time;
use ractor::{ActorRef, Message};
use tokio::sync::watch;

use crate::Clock;

/// Wakes a consumer of data queues.
#[derive(Clone)]
pub struct Bell {
    ring: Arc<dyn Fn() + Send + Sync>,
    /// Whether it has rung and was not heard.
    rung: Option<Arc<AtomicBool>>,
}

impl Bell {
    /// Sends the actor the message that `wake` makes.
    pub fn new<M: Message>(actor: &ActorRef<M>, wake: impl Fn() -> M + Send + Sync + 'static) -> Bell {
        let actor = actor.clone();
        // An actor that is gone needs no waking; its next life binds a bell of its own.
        Bell::from_fn(move || drop(actor.cast(wake())))
    }

    /// Calls `ring`.
    pub fn from_fn(ring: impl Fn() + Send + Sync + 'static) -> Bell {
        Bell { ring: Arc::new(ring), rung: None }
    }

    /// The same bell for several queues of one actor, which [hears](Bell::heard) it before it looks at any of them. Until
    /// then it does not ring again. If each queue rang for itself, an actor that has always more to do in one of them
    /// would get one more message for all that it does after each item of another, and never be rid of it.
    #[must_use]
    pub fn shared(mut self) -> Bell {
        self.rung = Some(Arc::default());
        self
    }

    /// Says that the actor looks at its queues now, so that what comes from now on rings again.
    pub fn heard(&self) {
        if let Some(rung) = &self.rung {
            rung.store(false, Ordering::SeqCst);
        }
    }

    pub(crate) fn ring(&self) {
        if !self.rung.as_ref().is_some_and(|rung| rung.swap(true, Ordering::SeqCst)) {
            (self.ring)();
        }
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bell")
    }
}

/// One task an actor that sends it a message at its machine's next deadline.
///
/// One, where ractor would spawn one for every timer; the machine's own generations make a message that
/// is already on its way harmless.
#[derive(Debug)]
pub struct Alarm {
    deadline: watch::Sender<Option<Time>>,
    set_to: Option<Time>,
}

impl Alarm {
    /// An alarm that sends the actor what `tick` makes. It ends when dropped.
    pub fn new<M: Message>(actor: &ActorRef<M>, clock: Clock, tick: impl Fn() -> M + Send + 'static) -> Alarm {
        let actor = actor.clone();
        Alarm::from_fn(clock, move || actor.cast(tick()).is_ok())
    }

    /// An alarm that calls `tick`, and ends when that answers false.
    pub fn from_fn(clock: Clock, tick: impl Fn() -> bool + Send + 'static) -> Alarm {
        let (deadline, mut changes) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let deadline = *changes.borrow_and_update();
                tokio::select! {
                    biased;
                    changed = changes.changed() => if changed.is_err() { return },
                    () = clock.sleep_until(deadline) => {
                        if !tick() {
                            return;
                        }
                        // The actor sets the next deadline when it has handled this one.
                        if changes.changed().await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Alarm { deadline, set_to: None }
    }

    /// Moves the deadline; `None` for never. Called after every turn, so an unchanged one costs nothing.
    pub fn set(&mut self, deadline: Option<Time>) {
        if self.set_to != deadline {
            self.set_to = deadline;
            self.deadline.send_replace(deadline);
        }
    }

    /// Says that the tick arrived, so that the same deadline may be set again. Called before the due
    /// timers are expired.
    pub fn ticked(&mut self) {
        self.set_to = None;
        self.deadline.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ticks_at_the_deadline_that_was_set_last() {
        let clock = Clock::simulated(Duration::ZERO);
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let mut alarm = Alarm::from_fn(clock, move || counted.fetch_add(1, Ordering::SeqCst) < 10);
        let start = clock.now();
        alarm.set(Some(start + Duration::from_secs(1)));
        alarm.set(Some(start + Duration::from_secs(5)));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(count.load(Ordering::SeqCst), 0);
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(count.load(Ordering::SeqCst), 1, "and once only");
        alarm.ticked();
        alarm.set(Some(start + Duration::from_secs(5)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(count.load(Ordering::SeqCst), 2, "a deadline in the past is due at once");
    }
}
