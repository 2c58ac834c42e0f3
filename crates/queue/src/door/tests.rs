use peerage_mailbox::{Capacity, Inlet, data_queue};

use super::*;
use crate::{PoolConfig, Shed};
use peerage_wire::frame::MAX_FRAGMENT;

fn message(len: usize, tag: u64, failures: &Outlet<SendFailed>) -> Message {
    Message::new(ChannelId(1), Lane::Normal, Bytes::from(vec![0; len])).report(failures.clone(), SessionId(9), tag)
}

fn failed(inlet: &Inlet<SendFailed>) -> Vec<(u64, Refusal)> {
    inlet.take(99).into_iter().map(|failed| (failed.tag, failed.reason)).collect()
}

struct Bench {
    pool: Pool,
    door: Door,
    end: LaneEnd,
    failures: Outlet<SendFailed>,
    reported: Inlet<SendFailed>,
}

fn bench(config: LanesConfig, pool: usize) -> Bench {
    let pool = Pool::new(pool);
    let (failures, reported) = data_queue(Capacity { items: 99, weight: 99 });
    let (door, end) = lanes(config, &pool, 0);
    Bench { pool, door, end, failures, reported }
}

/// Runs until the future waits for something else.
async fn settle() {
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn every_message_is_popped_or_reported_exactly_once_and_all_bytes_come_back() {
    let Bench { pool, door, mut end, failures, reported } = bench(LanesConfig { items: 2, bytes: 1000 }, 1000);
    for tag in 0..4 {
        let message = message(10, tag, &failures).when_full(WhenFull::DropOldest);
        door.offer(message).expect("the oldest make room");
    }
    assert_eq!(failed(&reported), [(0, Refusal::Overtaken), (1, Refusal::Overtaken)]);
    assert!(end.pop(Time::ZERO).is_some());
    assert_eq!(pool.used(), 10, "released at pop");
    door.offer(message(10, 4, &failures)).expect("room for two");
    assert_eq!(door.offer(message(10, 5, &failures)), Err(Refusal::LaneFull));
    assert_eq!(failed(&reported), [(5, Refusal::LaneFull)]);
    drop(end);
    assert_eq!(failed(&reported), [(3, Refusal::SessionEnded), (4, Refusal::SessionEnded)]);
    assert_eq!(door.offer(message(10, 6, &failures)), Err(Refusal::SessionEnded));
    assert_eq!(failed(&reported), [(6, Refusal::SessionEnded)]);
    assert_eq!((pool.used(), pool.pressure().lane_bytes()), (0, 0));
}

#[test]
fn what_is_taken_back_is_not_reported_and_its_bytes_come_back() {
    let Bench { pool, door, mut end, failures, reported } = bench(LanesConfig::recommended(), 1000);
    for tag in [1, 2, 1] {
        door.offer(message(10, tag, &failures)).expect("room");
    }
    assert_eq!(door.take_back(Lane::Normal, 1), 2);
    assert_eq!(door.take_back(Lane::High, 2), 0, "another lane");
    assert_eq!((pool.used(), pool.pressure().lane_bytes()), (10, 10));
    assert!(end.pop(Time::ZERO).is_some() && end.is_empty());
    drop(end);
    assert_eq!(failed(&reported), []);
    assert_eq!(door.take_back(Lane::Normal, 1), 0, "of lanes that are closed");
}

/// AvalancheGo's throttled queue: the throttler refuses before the lane does, and what is refused is not charged.
#[test]
fn what_the_pool_has_no_room_for_is_refused_at_once_and_holds_nothing() {
    let Bench { pool, door, mut end, failures, reported } = bench(LanesConfig::recommended(), 100);
    door.offer(message(80, 1, &failures)).expect("room");
    assert_eq!(door.offer(message(30, 2, &failures)), Err(Refusal::PoolFull));
    assert_eq!((failed(&reported), pool.used()), (vec![(2, Refusal::PoolFull)], 80));
    let charge = pool.charge(20).expect("room");
    door.offer(Message::new(ChannelId(1), Lane::Normal, Bytes::from(vec![0; 20])).charged(charge)).expect("paid for");
    assert_eq!(pool.used(), 100);
    while end.pop(Time::ZERO).is_some() {}
    assert_eq!((pool.used(), failed(&reported)), (0, vec![]));
}

/// AvalancheGo's TestBypassThrottling: control takes nothing of the pool, and its own lane bounds it.
#[test]
fn control_passes_a_full_pool_within_its_small_lane() {
    let Bench { pool, door, mut end, failures, .. } = bench(LanesConfig::recommended(), 100);
    door.offer(message(100, 1, &failures)).expect("room");
    let control = |len: usize| door.offer(Message::new(ChannelId(1), Lane::Control, Bytes::from(vec![0; len])));
    assert_eq!(control(200_000), Ok(()));
    assert_eq!(control(200_000), Err(Refusal::LaneFull));
    assert_eq!(pool.used(), 100);
    while end.pop(Time::ZERO).is_some() {}
    assert_eq!(pool.used(), 0);
}

#[test]
fn what_is_for_a_channel_that_the_peer_lacks_is_refused_and_does_not_wait_for_ever() {
    let Bench { pool, door, mut end, failures, reported } = bench(LanesConfig::recommended(), 1000);
    end.require_credit(1);
    door.offer(message(10, 1, &failures)).expect("channel 1 is there");
    for channel in [0, 2] {
        let stray = Message::new(ChannelId(channel), Lane::Normal, Bytes::from_static(b"stray"));
        assert_eq!(door.offer(stray.report(failures.clone(), SessionId(9), 2)), Err(Refusal::NoChannel));
        assert_eq!(failed(&reported), [(2, Refusal::NoChannel)]);
    }
    assert_eq!(pool.used(), 10);
}

#[test]
fn a_message_that_expired_in_the_lane_is_reported_and_given_back() {
    let Bench { pool, door, mut end, failures, reported } = bench(LanesConfig::recommended(), 1000);
    let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
    door.offer(message(10, 1, &failures).expires(at(1))).expect("room");
    door.offer(message(10, 2, &failures).expires(at(9))).expect("room");
    assert!(end.pop(at(2)).is_some() && end.pop(at(2)).is_none());
    assert_eq!((failed(&reported), pool.used()), (vec![(1, Refusal::Expired)], 0));
}

/// AvalancheGo's TestMessageQueue, for `Pop`, `PopNow` and `Close`.
#[tokio::test]
async fn pop_waits_for_a_message_and_ends_as_soon_as_the_lanes_are_closed() {
    let Bench { pool, door, mut end, failures, reported } = bench(LanesConfig::recommended(), 1000);
    assert!(end.pop(Time::ZERO).is_none(), "PopNow of nothing");
    door.offer(message(1, 1, &failures)).expect("room");
    door.offer(message(2, 2, &failures)).expect("room");
    for len in [1, 2] {
        assert_eq!(end.recv(|| Time::ZERO).await.map(|fragment| fragment.payload.len()), Some(len), "in order");
    }
    let waiting = tokio::spawn(async move { (end.recv(|| Time::ZERO).await.map(|f| f.payload.len()), end) });
    settle().await;
    door.offer(message(3, 3, &failures)).expect("room");
    let (popped, mut end) = waiting.await.expect("no panic");
    assert_eq!(popped, Some(3));
    door.offer(message(4, 4, &failures)).expect("room");
    door.close();
    door.close();
    assert_eq!(failed(&reported), [(4, Refusal::SessionEnded)], "once");
    assert_eq!(end.recv(|| Time::ZERO).await, None, "although a message remained");
    assert!(end.pop(Time::ZERO).is_none() && pool.used() == 0);
    let (_door, mut end) = lanes(LanesConfig::recommended(), &pool, 0);
    let closer = _door.clone();
    let waiting = tokio::spawn(async move { end.recv(|| Time::ZERO).await });
    settle().await;
    closer.close();
    assert_eq!(waiting.await.expect("no panic"), None, "closing wakes who waits");
}

/// AvalancheGo's blocking queue: Push waits for room, and a cancelled or closed one fails with its callback.
#[tokio::test]
async fn a_blocking_push_gets_the_room_that_is_made_or_fails_once() {
    let Bench { pool, door, mut end, failures, reported } = bench(LanesConfig { items: 1, bytes: 1000 }, 1000);
    let push = |tag| {
        let (door, message) = (door.clone(), message(10, tag, &failures));
        tokio::spawn(async move { door.offer_when_room(message).await })
    };
    assert_eq!(push(1).await.expect("no panic"), Ok(()));
    let second = push(2);
    settle().await;
    assert!(!second.is_finished());
    assert!(end.pop(Time::ZERO).is_some());
    assert_eq!(second.await.expect("no panic"), Ok(()));

    let given_up = push(3);
    settle().await;
    given_up.abort();
    settle().await;
    assert_eq!(failed(&reported), [(3, Refusal::SessionEnded)]);

    let closed = push(4);
    settle().await;
    drop(end);
    assert_eq!(closed.await.expect("no panic"), Err(Refusal::SessionEnded));
    assert_eq!(push(5).await.expect("no panic"), Err(Refusal::SessionEnded));
    let mut reports = failed(&reported);
    reports.sort_unstable_by_key(|(tag, _)| *tag);
    assert_eq!(reports, [2, 4, 5].map(|tag| (tag, Refusal::SessionEnded)));
    assert_eq!(pool.used(), 0);
}

#[tokio::test]
async fn a_blocking_push_waits_for_the_pool_unless_it_could_never_fit() {
    let Bench { pool, door, mut end, failures, reported } = bench(LanesConfig::recommended(), 100);
    let (other, mut other_end) = lanes(LanesConfig::recommended(), &pool, 0);
    other.offer(message(90, 1, &failures)).expect("room");
    let push = |len, tag| {
        let (door, message) = (door.clone(), message(len, tag, &failures));
        tokio::spawn(async move { door.offer_when_room(message).await })
    };
    assert_eq!(push(101, 2).await.expect("no panic"), Err(Refusal::PoolFull));
    let waiting = push(20, 3);
    let ends_with_its_session = push(20, 4);
    settle().await;
    assert!(!waiting.is_finished());
    assert!(other_end.pop(Time::ZERO).is_some());
    assert_eq!(waiting.await.expect("no panic"), Ok(()));
    assert_eq!(ends_with_its_session.await.expect("no panic"), Ok(()));
    assert!(end.pop(Time::ZERO).is_some());
    other.offer(message(80, 5, &failures)).expect("room");
    let waiting = push(30, 6);
    settle().await;
    door.close();
    assert_eq!(waiting.await.expect("no panic"), Err(Refusal::SessionEnded), "not when somebody else gives bytes back");
    assert_eq!(failed(&reported), [(2, Refusal::PoolFull), (4, Refusal::SessionEnded), (6, Refusal::SessionEnded)]);
}

#[tokio::test]
async fn senders_that_give_up_leave_nothing_behind() {
    let Bench { pool, door, end: _end, failures, .. } = bench(LanesConfig { items: 1, bytes: 1000 }, 100);
    door.offer(message(90, 1, &failures)).expect("room");
    for len in [1, 50] {
        for _ in 0..1000 {
            let (door, message) = (door.clone(), message(len, 2, &failures));
            let waiting = tokio::spawn(async move { door.offer_when_room(message).await });
            tokio::task::yield_now().await;
            waiting.abort();
            assert!(waiting.await.is_err());
        }
    }
    assert_eq!((door.0.lock().senders.len(), door.0.account.senders()), (0, 0));
    assert_eq!(pool.used(), 90);
}

#[tokio::test]
async fn the_task_is_woken_for_what_was_offered_before_and_while_it_waits() {
    let Bench { door, mut end, failures, .. } = bench(LanesConfig::recommended(), 1000);
    door.offer(message(1, 0, &failures)).expect("room");
    let mut batch = Vec::new();
    poll_fn(|cx| {
        end.pop_batch(Time::ZERO, 10_000, cx, &mut batch);
        Poll::Ready(())
    })
    .await;
    assert_eq!(batch.len(), 1);
    let task = tokio::spawn(async move {
        poll_fn(|cx| {
            let mut batch = Vec::new();
            end.pop_batch(Time::ZERO, 10_000, cx, &mut batch);
            if batch.is_empty() { Poll::Pending } else { Poll::Ready(batch.len()) }
        })
        .await
    });
    settle().await;
    door.offer(message(1, 0, &failures)).expect("room");
    assert_eq!(task.await.expect("no panic"), 1);
}

#[tokio::test]
async fn a_batch_that_took_all_there_was_says_so_and_the_next_offer_wakes_the_task() {
    let Bench { door, mut end, failures, .. } = bench(LanesConfig::recommended(), 1 << 20);
    for size in [40_000, 10] {
        door.offer(message(size, 0, &failures)).expect("room");
    }
    let mut batch = Vec::new();
    // Room for one large fragment: there is more, and nobody needs to be woken for it.
    poll_fn(|cx| {
        assert!(end.pop_batch(Time::ZERO, MAX_FRAGMENT, cx, &mut batch));
        Poll::Ready(())
    })
    .await;
    assert!(door.0.lock().task.is_none());
    let task = tokio::spawn(async move {
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            let mut batch = Vec::new();
            assert!(!end.pop_batch(Time::ZERO, 1 << 20, cx, &mut batch));
            if polls == 2 { Poll::Ready(batch.len()) } else { Poll::Pending }
        })
        .await
    });
    settle().await;
    door.offer(message(1, 0, &failures)).expect("room");
    assert_eq!(task.await.expect("no panic"), 1, "woken although it took something when it looked last");
}

#[test]
fn pressure_is_over_half_when_the_peers_lanes_are() {
    let pool = Pool::new(1 << 20);
    let (failures, _reported) = data_queue(Capacity { items: 99, weight: 99 });
    let config = LanesConfig { items: 99, bytes: 100 };
    let (slow, _slow_end) = lanes(config, &pool, 0);
    let (_fast, fast_end) = lanes(config, &pool, 0);
    slow.offer(message(100, 0, &failures)).expect("room");
    assert!(!pool.pressure().over_half(), "one slow peer of two is not the node");
    drop(fast_end);
    assert!(pool.pressure().over_half());
}

/// Who trusts a peer, or no longer does, while its session lives.
#[tokio::test]
async fn a_peers_share_grows_and_shrinks_with_its_weight_and_nothing_is_lost() {
    let pool = Pool::new(PoolConfig { at_large: 0, shared: 100, holder_max: 0, aside: 0 });
    let peer = |weight| lanes(LanesConfig::recommended(), &pool, weight);
    let (trusted, mut trusted_end) = peer(1);
    let (door, mut end) = peer(0);
    let say = |door: &Door, len: usize| door.offer(Message::new(ChannelId(1), Lane::Normal, vec![0; len].into()));
    assert_eq!(say(&door, 1), Err(Refusal::PoolFull), "no share");
    let waits = tokio::spawn({
        let door = door.clone();
        async move { door.offer_when_room(Message::new(ChannelId(1), Lane::Normal, vec![0; 30].into())).await }
    });
    settle().await;
    assert!(!waits.is_finished());
    door.set_weight(1);
    assert_eq!(waits.await.expect("no panic"), Ok(()), "woken by its new share");
    assert_eq!((say(&door, 20), say(&door, 1)), (Ok(()), Err(Refusal::PoolFull)), "half of it");
    assert_eq!((say(&trusted, 51), say(&trusted, 50)), (Err(Refusal::PoolFull), Ok(())), "the other half");

    door.set_weight(0);
    assert_eq!((pool.used(), say(&door, 1)), (100, Err(Refusal::PoolFull)), "what is queued stays");
    while end.pop(Time::ZERO).is_some() {}
    assert_eq!((pool.used(), say(&door, 1)), (50, Err(Refusal::PoolFull)), "and its room goes to the other");
    assert_eq!(say(&trusted, 50), Ok(()));
    while trusted_end.pop(Time::ZERO).is_some() {}
    assert_eq!(pool.used(), 0);
}

#[test]
fn closed_lanes_have_no_share_whatever_weight_they_are_given() {
    let pool = Pool::new(PoolConfig { at_large: 0, shared: 100, holder_max: 0, aside: 0 });
    let (gone, end) = lanes(LanesConfig::recommended(), &pool, 9);
    let account = pool.account(1);
    assert!(!account.charge(100));
    drop(end);
    assert!(account.charge(100), "although somebody still has the door");
    account.give_back(100);
    gone.set_weight(u64::MAX);
    assert!(account.charge(100));
}

#[test]
fn lanes_that_rest_refuse_bulk_first_and_never_what_is_urgent() {
    let Bench { pool, door, end: _end, failures, reported } = bench(LanesConfig::recommended(), 1000);
    let offer = |lane| {
        let message =
            Message::new(ChannelId(1), lane, Bytes::from_static(b"x")).report(failures.clone(), SessionId(9), 1);
        door.offer(message)
    };
    for (shed, refused) in [
        (Shed::Nothing, &[][..]),
        (Shed::Bulk, &[Lane::Bulk]),
        (Shed::Normal, &[Lane::Normal, Lane::Bulk]),
        (Shed::Nothing, &[]),
    ] {
        pool.shed(shed);
        for lane in Lane::ALL {
            let expected = if refused.contains(&lane) { Err(Refusal::Shed) } else { Ok(()) };
            assert_eq!(offer(lane), expected, "{shed:?} {lane:?}");
        }
    }
    assert_eq!(failed(&reported), [(1, Refusal::Shed); 3], "each is told of once");
    assert_eq!(door.tally(), Tally::default(), "what rests has not failed");
}

#[tokio::test]
async fn a_blocking_push_waits_until_its_lane_rests_no_more_or_the_session_ends() {
    let Bench { pool, door, end: _end, failures, reported } = bench(LanesConfig::recommended(), 1000);
    let push = |number| {
        let message = Message::new(ChannelId(1), Lane::Bulk, Bytes::from_static(b"x"));
        let (door, message) = (door.clone(), message.report(failures.clone(), SessionId(9), number));
        tokio::spawn(async move { door.offer_when_room(message).await })
    };
    pool.shed(Shed::Bulk);
    let waiting = push(1);
    settle().await;
    pool.shed(Shed::Normal);
    settle().await;
    assert!(!waiting.is_finished(), "it is worse now");
    pool.shed(Shed::Nothing);
    assert_eq!(waiting.await.expect("no panic"), Ok(()));
    pool.shed(Shed::Bulk);
    let waiting = push(2);
    settle().await;
    door.close();
    assert_eq!(waiting.await.expect("no panic"), Err(Refusal::SessionEnded));
    assert_eq!(failed(&reported), [1, 2].map(|number| (number, Refusal::SessionEnded)), "each once");
    assert_eq!((door.0.lock().senders.len(), door.0.account.senders()), (0, 0));
}

#[tokio::test]
async fn a_stream_waits_while_its_lane_rests_and_is_told_of_its_end_meanwhile() {
    let Bench { pool, door, mut end, .. } = bench(LanesConfig::recommended(), 1000);
    let flow = |stream, lane| Flow { channel: ChannelId(1), stream, lane };
    let write = |flow: Flow| {
        let (door, place, mut bytes) = (door.clone(), door.writer_place(), Bytes::from_static(b"some"));
        tokio::spawn(async move {
            let written = poll_fn(|cx| door.poll_write(flow, &mut bytes, place, cx)).await.is_ok();
            door.leave_writer_place(flow.stream, place);
            written
        })
    };
    let (bulk, normal, ended) = (flow(1, Lane::Bulk), flow(3, Lane::Normal), flow(5, Lane::Bulk));
    [bulk, normal, ended].into_iter().for_each(|flow| end.open_stream(flow));
    pool.shed(Shed::Bulk);
    let (waits, goes, told) = (write(bulk), write(normal), write(ended));
    assert!(goes.await.expect("no panic"), "its lane does not rest");
    settle().await;
    end.end_stream(5);
    assert!(!told.await.expect("no panic"));
    assert!(!waits.is_finished());
    pool.shed(Shed::Nothing);
    assert!(waits.await.expect("no panic"));
    pool.shed(Shed::Bulk);
    let waits = write(bulk);
    settle().await;
    door.close();
    assert!(!waits.await.expect("no panic"));
    assert_eq!((door.0.lock().writers.len(), door.0.account.senders()), (0, 0));
}

#[test]
fn a_peers_tally_counts_what_went_out_and_what_found_no_room_or_no_time() {
    let Bench { pool, door, mut end, failures, .. } = bench(LanesConfig { items: 2, bytes: 1000 }, 1000);
    for tag in 0..3 {
        door.offer(message(10, tag, &failures).when_full(WhenFull::DropOldest)).expect("the oldest makes room");
    }
    assert_eq!(door.offer(message(10, 3, &failures)), Err(Refusal::LaneFull));
    assert_eq!(door.offer(message(2000, 4, &failures)), Err(Refusal::PoolFull));
    assert_eq!(door.tally(), Tally { sent: 0, failed: 3 });
    while end.pop(Time::ZERO).is_some() {}
    assert_eq!(door.tally(), Tally { sent: 2, failed: 3 });
    door.offer(message(10, 5, &failures).expires(Time::ZERO)).expect("room");
    assert!(end.pop(Time::ZERO + Duration::from_secs(1)).is_none());
    pool.set_config(5);
    assert_eq!(door.offer(message(10, 6, &failures)), Err(Refusal::PoolFull), "a smaller pool holds from now on");
    assert_eq!(door.tally(), Tally { sent: 2, failed: 5 });
}
