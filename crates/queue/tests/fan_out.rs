//! The queue actor with real doors.

use bytes::Bytes;
use peerage_queue::peerage_machine::Time;
use peerage_queue::peerage_mailbox::{Capacity, Meter, Supervisor, data_queue};
use peerage_queue::peerage_wire::frame::Lane;
use peerage_queue::{
    Args, ChannelId, LanesConfig, Pool, Push, Recipient, Refusal, SendFailed, SessionId, WhenFull, lanes, spawn,
};

#[tokio::test(start_paused = true)]
async fn one_push_reaches_every_door_is_charged_once_and_reports_who_is_missing() {
    let pool = Pool::new(100);
    let (outlet, pushes) = data_queue::<Push>(Capacity { items: 10, weight: 1000 });
    let (failures, failed) = data_queue::<SendFailed>(Capacity { items: 10, weight: 10 });
    let args = Args { doors: Default::default(), pushes, pool: pool.clone(), meter: Meter::none() };
    let (queue, child) = spawn(args, &Supervisor::none()).await.expect("starts");
    let mut ends = Vec::new();
    for session in 1..=2 {
        let (door, end) = lanes(LanesConfig::recommended(), &pool, 0);
        queue.peer_up(SessionId(session), door);
        ends.push(end);
    }
    let to = |sessions: &[u64]| {
        sessions.iter().map(|s| Recipient { session: SessionId(*s), channel: ChannelId(1) }).collect::<Vec<_>>()
    };
    let push = |sessions: &[u64], len: usize, tag| Push {
        to: to(sessions),
        lane: Lane::Normal,
        payload: Bytes::from(vec![7; len]),
        when_full: WhenFull::Refuse,
        tag,
        failures: Some(failures.clone()),
    };
    outlet.offer(push(&[1, 2, 3], 80, 5)).expect("room");
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    assert_eq!(pool.used(), 80);
    outlet.offer(push(&[1], 21, 6)).expect("room");
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    let failed: Vec<_> = failed.take(9).into_iter().map(|f| (f.session.0, f.tag, f.reason)).collect();
    assert_eq!(failed, [(3, 5, Refusal::SessionEnded), (1, 6, Refusal::PoolFull)]);
    for end in &mut ends {
        assert_eq!(end.pop(Time::ZERO).map(|fragment| fragment.payload.len()), Some(80));
        assert!(end.pop(Time::ZERO).is_none());
    }
    assert_eq!(pool.used(), 0);
    child.stop();
    child.wait().await;
}
