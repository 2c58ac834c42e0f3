//! The data queue, rule by rule.

use std::sync::atomic::AtomicU32;

use super::*;

#[derive(Debug, PartialEq)]
struct Sized(&'static str, usize, Overflow);

impl Item for Sized {
    fn weight(&self) -> usize {
        self.1
    }

    fn overflow(&self) -> Overflow {
        self.2
    }

    fn supersedes(&self, queued: &Self) -> bool {
        self.0 == queued.0
    }
}

fn reject(name: &'static str, weight: usize) -> Sized {
    Sized(name, weight, Overflow::Reject)
}

fn names(inlet: &Inlet<Sized>) -> Vec<&'static str> {
    inlet.take(usize::MAX).into_iter().map(|item| item.0).collect()
}

fn queue() -> (Outlet<Sized>, Inlet<Sized>) {
    data_queue(Capacity { items: 3, weight: 10 })
}

fn counting_bell() -> (Bell, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let bell = Bell::from_fn(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    (bell, count)
}

#[test]
fn reject_gives_the_item_back_when_items_or_weight_run_out() {
    let (outlet, inlet) = queue();
    assert!(outlet.offer(reject("a", 4)).is_ok());
    assert!(matches!(outlet.offer(reject("b", 7)), Err(Refused::Full(Sized("b", ..)))));
    assert!(outlet.offer(reject("c", 6)).is_ok());
    assert!(outlet.offer(reject("d", 0)).is_ok());
    assert!(matches!(outlet.offer(reject("e", 0)), Err(Refused::Full(_))));
    assert_eq!(names(&inlet), ["a", "c", "d"]);
    assert!(outlet.offer(reject("huge", 99)).is_ok(), "an empty queue takes one item of any weight");
}

#[test]
fn drop_oldest_makes_room_and_counts_the_lag() {
    let (outlet, mut inlet) = queue();
    for name in ["a", "b", "c", "d", "e"] {
        assert!(outlet.offer(Sized(name, 5, Overflow::DropOldest)).is_ok());
    }
    let waker = Context::from_waker(Waker::noop());
    let mut context = waker;
    let mut received = Vec::new();
    for _ in 0..3 {
        let mut recv = std::pin::pin!(inlet.recv());
        if let Poll::Ready(item) = recv.as_mut().poll(&mut context) {
            received.push(item.map(|item| item.0));
        }
    }
    assert_eq!(received, [Err(RecvError::Lagged(3)), Ok("d"), Ok("e")]);
}

#[test]
fn replace_takes_the_place_of_what_it_supersedes_even_when_full() {
    let (outlet, inlet) = queue();
    for name in ["a", "b", "c"] {
        assert!(outlet.offer(reject(name, 1)).is_ok());
    }
    assert!(outlet.offer(Sized("b", 1, Overflow::Replace)).is_ok());
    assert!(outlet.offer(Sized("z", 1, Overflow::Replace)).is_err());
    assert_eq!(names(&inlet), ["a", "b", "c"]);
}

#[test]
fn the_bell_rings_once_a_batch_and_again_for_what_comes_after() {
    let (outlet, inlet) = queue();
    let (bell, count) = counting_bell();
    inlet.bind(bell);
    for name in ["a", "b"] {
        assert!(outlet.offer(reject(name, 1)).is_ok());
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(inlet.take(1).len(), 1);
    inlet.ring_if_more();
    assert_eq!(count.load(Ordering::SeqCst), 2, "one item is left");
    assert_eq!(inlet.take(9).len(), 1);
    inlet.ring_if_more();
    assert_eq!(count.load(Ordering::SeqCst), 2);
    assert!(outlet.offer(reject("c", 1)).is_ok());
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[test]
fn an_actor_that_is_behind_with_one_queue_gets_no_more_messages_for_what_comes_in_another() {
    let (busy, busy_end) = data_queue(Capacity { items: 1_000, weight: 1_000 });
    let (other, other_end) = queue();
    let (bell, count) = counting_bell();
    let bell = bell.shared();
    busy_end.bind(bell.clone());
    other_end.bind(bell.clone());
    for _ in 0..1_000 {
        assert!(busy.offer(reject("a", 1)).is_ok());
    }
    let mut handled = 0;
    for turn in 1..500 {
        assert!(other.offer(reject("b", 1)).is_ok());
        handled += 1;
        bell.heard();
        // Comes between, and rings for the next turn.
        assert!(other.offer(reject("c", 1)).is_ok());
        assert_eq!(busy_end.take(1).len(), 1);
        assert_eq!(names(&other_end), ["b", "c"]);
        busy_end.ring_if_more();
        other_end.ring_if_more();
        assert_eq!(count.load(Ordering::SeqCst), turn + 1, "one message is under way");
    }
    assert_eq!((handled, busy_end.len()), (499, 501));
}

#[test]
fn an_actor_that_starts_again_is_woken_for_what_is_queued() {
    let (outlet, inlet) = queue();
    let (first, _) = counting_bell();
    inlet.bind(first);
    assert!(outlet.offer(reject("a", 1)).is_ok());
    let (second, count) = counting_bell();
    inlet.bind(second);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(names(&inlet), ["a"]);
}

#[test]
fn the_last_inlet_closes_the_queue() {
    let (outlet, inlet) = queue();
    let second = inlet.clone();
    drop(inlet);
    assert!(outlet.offer(reject("a", 1)).is_ok());
    drop(second);
    assert!(matches!(outlet.offer(reject("b", 1)), Err(Refused::Closed(_))));
}

#[tokio::test]
async fn a_waiting_sender_gets_the_room_that_is_made() {
    let (outlet, inlet) = queue();
    assert!(outlet.offer(reject("a", 10)).is_ok());
    let sender = tokio::spawn(async move { outlet.offer_when_room(reject("b", 5)).await.is_ok() });
    tokio::task::yield_now().await;
    assert_eq!(names(&inlet), ["a"]);
    assert!(sender.await.expect("no panic"));
    assert_eq!(names(&inlet), ["b"]);
}

#[tokio::test]
async fn closing_lets_waiting_senders_go_and_dropping_senders_ends_the_receiver() {
    let (outlet, inlet) = queue();
    assert!(outlet.offer(reject("a", 10)).is_ok());
    let sender = tokio::spawn(async move { outlet.offer_when_room(reject("b", 5)).await });
    tokio::task::yield_now().await;
    inlet.close();
    assert!(matches!(sender.await.expect("no panic"), Err(Refused::Closed(_))));

    let (outlet, mut inlet) = queue();
    let receiver = tokio::spawn(async move { inlet.recv().await });
    tokio::task::yield_now().await;
    drop(outlet);
    assert_eq!(receiver.await.expect("no panic"), Err(RecvError::Closed));
}

#[tokio::test]
async fn a_sender_that_gives_up_leaves_no_waker_behind() {
    let (outlet, _inlet) = queue();
    assert!(outlet.offer(reject("a", 10)).is_ok());
    for _ in 0..100 {
        let sender = outlet.clone();
        let waiting = tokio::spawn(async move { sender.offer_when_room(reject("b", 5)).await.is_ok() });
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.is_err());
    }
    assert_eq!(lock(&outlet.shared.state).senders_waiting.len(), 0);
}

#[tokio::test]
async fn a_batch_goes_as_far_as_there_is_room_and_on_when_there_is_again() {
    use std::collections::VecDeque;

    let (outlet, inlet) = queue();
    let (bell, count) = counting_bell();
    inlet.bind(bell);
    let sender = tokio::spawn(async move {
        let mut items: VecDeque<Sized> = [reject("a", 4), reject("b", 4), reject("c", 9)].into();
        poll_fn(|cx| outlet.poll_offer_all(cx, &mut items)).await.is_ok() && items.is_empty()
    });
    tokio::task::yield_now().await;
    assert_eq!((names(&inlet), count.load(Ordering::SeqCst)), (vec!["a", "b"], 1));
    assert!(sender.await.expect("no panic"));
    assert_eq!(names(&inlet), ["c"]);
    inlet.close();
}
