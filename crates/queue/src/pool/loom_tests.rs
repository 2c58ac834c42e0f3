//! The pool's edges under loom's model checker: every interleaving of a grant with who waits for it.

use std::task::Wake;

use loom::sync::Notify;
use loom::thread;

use super::*;

/// A task that sleeps until it is woken.
struct Task(Notify);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// One byte, held by the first account; a thread does with that account what it is told.
fn race(act: fn(Account)) -> (Pool, Account, thread::JoinHandle<()>) {
    let pool = Pool::new(1);
    let (holder, waiter) = (pool.account(0), pool.account(0));
    assert!(holder.charge(1));
    (pool, waiter, thread::spawn(move || act(holder)))
}

fn wait(account: &Account) -> usize {
    let task = Arc::new(Task(Notify::new()));
    let waker = Waker::from(task.clone());
    loop {
        match account.poll_granted(&mut Context::from_waker(&waker)) {
            Poll::Ready(bytes) => return bytes,
            Poll::Pending => task.0.wait(),
        }
    }
}

/// Whether the byte comes free before the wait, between it and the poll, or after: the waiter gets on.
#[test]
fn no_wake_up_is_lost_between_take_and_poll() {
    for act in [drop as fn(Account), |holder| holder.give_back(1)] {
        loom::model(move || {
            let (pool, waiter, other) = race(act);
            let bytes = match waiter.take(1) {
                0 => wait(&waiter),
                bytes => bytes,
            };
            assert_eq!((bytes, waiter.held()), (1, 1));
            other.join().expect("no panic");
            assert_eq!((pool.used(), pool.waiting()), (1, 0));
        });
    }
}

/// A shared buffer whose last clone goes wakes as well.
#[test]
fn no_wake_up_is_lost_when_a_charge_is_dropped() {
    loom::model(|| {
        let pool = Pool::new(1);
        let (charge, waiter) = (pool.charge(1).expect("fits"), pool.account(0));
        let other = thread::spawn(move || drop(charge));
        let taken = waiter.take(1);
        assert_eq!(if taken == 0 { wait(&waiter) } else { taken }, 1);
        other.join().expect("no panic");
    });
}

#[test]
fn a_byte_is_returned_exactly_once_when_a_cancel_races_with_its_grant() {
    loom::model(|| {
        let (pool, waiter, other) = race(|holder| holder.give_back(1));
        assert!(waiter.take(1) <= 1);
        let missing = waiter.cancel();
        assert_eq!(waiter.held(), 1 - missing);
        waiter.give_back(1 - missing);
        other.join().expect("no panic");
        assert_eq!((pool.used(), pool.waiting()), (0, 0));
        assert!(waiter.poll_granted(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(pool.charge(1).is_some() && pool.charge(2).is_none());
    });
}

#[test]
fn a_byte_is_returned_exactly_once_when_its_waiter_leaves() {
    loom::model(|| {
        let (pool, waiter, other) = race(drop);
        assert!(waiter.take(1) <= 1);
        drop(waiter);
        other.join().expect("no panic");
        assert_eq!((pool.used(), pool.waiting(), pool.free()), (0, 0, 1));
    });
}
