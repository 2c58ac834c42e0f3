//! The pool as its tasks see it: guards, wake-ups, and two tasks at one account.

use std::future::poll_fn;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use super::*;

const WAITED_FOR: PoolConfig = PoolConfig { at_large: 10, shared: 0, holder_max: 10, aside: 0 };

#[test]
fn a_charge_is_all_or_nothing_and_comes_back_once_however_often_it_is_shared() {
    let pool = Pool::new(100);
    let charge = pool.charge(60).expect("fits");
    let most = pool.charge(30).expect("fits");
    assert!(pool.pressure().over_half());
    drop(most);
    let shared = charge.clone();
    assert!(pool.charge(41).is_none());
    assert!(pool.charge(usize::MAX).is_none());
    drop(charge);
    assert_eq!((pool.used(), pool.free()), (60, 40));
    assert!(!pool.pressure().over_half());
    drop(shared);
    assert_eq!((pool.used(), pool.free()), (0, 100));
    assert!(!pool.pressure().over_half());
}

#[test]
fn what_peers_take_of_their_shares_is_no_pressure() {
    let pool = Pool::new(PoolConfig { at_large: 80, shared: 800, holder_max: 70, aside: 0 });
    let account = pool.account(1);
    assert!(account.charge(870));
    assert!(!pool.pressure().over_half());
    let _charge = pool.charge(1).expect("fits");
    assert!(pool.pressure().over_half());
}

#[tokio::test]
async fn a_waiting_account_is_woken_when_another_gives_back_and_learns_how_much() {
    let pool = Pool::new(WAITED_FOR);
    let charge = pool.charge(4).expect("fits");
    let (busy, account) = (pool.account(0), pool.account(0));
    assert!(busy.charge(6));
    assert_eq!(account.take(8), 0);
    let waits = tokio::spawn(async move {
        let mut grants = Vec::new();
        while grants.iter().sum::<usize>() < 8 {
            grants.push(poll_fn(|cx| account.poll_granted(cx)).await);
        }
        (grants, account)
    });
    tokio::task::yield_now().await;
    assert_eq!(pool.waiting(), 1);
    drop(charge);
    tokio::task::yield_now().await;
    busy.give_back(6);
    let (grants, account) = waits.await.expect("no panic");
    assert_eq!((grants, account.held(), pool.waiting()), (vec![4, 4], 8, 0));
    drop(account);
    assert_eq!(pool.used(), 0, "given back with the account");
}

#[tokio::test]
async fn what_was_granted_before_the_first_poll_is_reported_by_it() {
    let pool = Pool::new(WAITED_FOR);
    let (busy, account) = (pool.account(0), pool.account(0));
    assert!(busy.charge(10));
    assert_eq!(account.take(3), 0);
    drop(busy);
    assert_eq!(poll_fn(|cx| account.poll_granted(cx)).await, 3);
}

/// The door of a sender charges while the session's task gives back.
#[test]
fn two_tasks_use_one_account_at_once() {
    let pool = Pool::new(WAITED_FOR);
    let account = pool.account(0);
    let charged = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..1000 {
                while !account.charge(7) {
                    std::thread::yield_now();
                }
                charged.fetch_add(1, Ordering::Release);
            }
        });
        for given in 0..1000 {
            while charged.load(Ordering::Acquire) <= given {
                std::thread::yield_now();
            }
            account.give_back(7);
        }
    });
    assert_eq!((account.held(), pool.used()), (0, 0));
}

/// avalanchego `TestInboundMsgByteThrottlerCancelContext`: what was granted meanwhile is returned as well.
#[test]
fn a_cancelled_wait_says_what_was_missing_and_reports_nothing_later() {
    let pool = Pool::new(WAITED_FOR);
    let (busy, account) = (pool.account(0), pool.account(0));
    assert!(busy.charge(10));
    assert_eq!(account.take(8), 0);
    busy.give_back(5);
    let missing = account.cancel();
    assert_eq!((missing, account.held(), pool.waiting()), (3, 5, 0));
    account.give_back(8 - missing);
    assert!(account.poll_granted(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(pool.used(), 5);
}

#[test]
fn the_next_account_at_the_same_place_hears_nothing_of_the_last() {
    let pool = Pool::new(WAITED_FOR);
    let (busy, account) = (pool.account(0), pool.account(0));
    assert!(busy.charge(10));
    assert_eq!(account.take(8), 0);
    busy.give_back(10);
    drop(account);
    let next = pool.account(0);
    assert!(next.poll_granted(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!((next.held(), pool.used()), (0, 0));
}

/// A waker that owns an account, as that of a task does which nobody else keeps.
struct Owner {
    _account: Account,
    woken: AtomicUsize,
}

impl Wake for Owner {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn wakers_are_woken_and_dropped_without_the_lock() {
    let pool = Pool::new(WAITED_FOR);
    let (busy, account) = (pool.account(0), pool.account(0));
    assert!(busy.charge(10));
    assert_eq!(account.take(8), 0);
    let owner = || Arc::new(Owner { _account: pool.account(0), woken: AtomicUsize::new(0) });
    let second = owner();
    for waker in [owner(), second.clone(), owner()].map(Waker::from) {
        // Replaces the last one, whose account leaves the pool then and there.
        assert!(account.poll_granted(&mut Context::from_waker(&waker)).is_pending());
        if waker.data() == Arc::as_ptr(&second).cast() {
            busy.give_back(1);
            assert_eq!(second.woken.load(Ordering::Relaxed), 1);
            assert!(account.poll_granted(&mut Context::from_waker(&waker)).is_ready());
        }
    }
    drop((account, busy, second));
    assert_eq!((pool.used(), pool.waiting()), (0, 0));
}

/// Who trusts a peer, or no longer does, while its session holds the share and waits for more.
#[tokio::test]
async fn an_inbound_share_grows_and_shrinks_with_its_weight_wherever_it_has_gone() {
    let pool = InboundPool::new(100, PoolConfig { at_large: 0, shared: 100, holder_max: 0, aside: 0 });
    let other = pool.admit(10, 1).expect("room");
    let share = pool.admit(10, 0).expect("room");
    let weight = share.weight();
    assert!(!share.beyond().charge(1));
    assert_eq!(share.beyond().take(60), 0);
    let waits = tokio::spawn(async move { (poll_fn(|cx| share.beyond().poll_granted(cx)).await, share) });
    tokio::task::yield_now().await;
    assert_eq!(pool.waiting(), 1);
    weight.set(1);
    let (granted, share) = waits.await.expect("no panic");
    assert_eq!((granted, pool.waiting(), pool.used()), (50, 1, (20, 50)), "its half, at once");
    weight.clone().set(3);
    assert_eq!(poll_fn(|cx| share.beyond().poll_granted(cx)).await, 10, "the rest of what it waited for");

    weight.set(0);
    assert_eq!(share.beyond().held(), 60, "what it holds it keeps");
    assert!(!share.beyond().charge(1) && other.beyond().charge(40) && !other.beyond().charge(1));
    share.beyond().give_back(60);
    assert!(!share.beyond().charge(1) && other.beyond().charge(60), "and its part goes to the other");
    drop((share, other));
    assert_eq!((pool.used(), pool.waiting()), ((0, 0), 0));
}

#[test]
fn a_weight_outlives_its_share_without_holding_or_changing_anything() {
    let pool = InboundPool::new(100, PoolConfig { at_large: 0, shared: 100, holder_max: 0, aside: 0 });
    let gone = pool.admit(100, 1).expect("room");
    let weight = gone.weight();
    drop(gone);
    let (next, other) = (pool.admit(50, 0).expect("all is back"), pool.admit(50, 1).expect("all is back"));
    weight.set(u64::MAX);
    assert!(!next.beyond().charge(1), "it has the place, and not the weight");
    assert!(other.beyond().charge(100));
}
