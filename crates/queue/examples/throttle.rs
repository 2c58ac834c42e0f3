//! A fast and a slow peer get the same messages: the slow one loses its oldest, and nobody else notices.

use bytes::Bytes;
use peerage_queue::peerage_machine::Time;
use peerage_queue::peerage_mailbox::{Capacity, data_queue};
use peerage_queue::peerage_wire::frame::Lane;
use peerage_queue::{ChannelId, LanesConfig, Message, Pool, SendFailed, SessionId, WhenFull, lanes};

fn main() {
    let pool = Pool::new(1 << 20);
    let config = LanesConfig { items: 100, bytes: 64 * 1024 };
    let (failures, failed) = data_queue::<SendFailed>(Capacity { items: 1000, weight: 1000 });
    let (fast, mut fast_end) = lanes(config, &pool, 0);
    let (slow, mut slow_end) = lanes(config, &pool, 0);

    let mut received = 0;
    for tag in 0..250 {
        let payload = Bytes::from(vec![0; 1000]);
        // Charged to the node once, although two peers get it.
        let charge = pool.charge(payload.len()).expect("the slow peer's lane bounds what can be charged");
        for (session, door) in [(1, &fast), (2, &slow)] {
            let message = Message::new(ChannelId(1), Lane::Normal, payload.clone())
                .charged(charge.clone())
                .when_full(WhenFull::DropOldest)
                .report(failures.clone(), SessionId(session), tag);
            door.offer(message).expect("the oldest make room");
        }
        while fast_end.pop(Time::ZERO).is_some() {
            received += 1;
        }
    }
    let lost = failed.take(usize::MAX);
    assert!(lost.iter().all(|failed| failed.session == SessionId(2)));
    println!(
        "fast peer: {received} of 250 messages; slow peer: {} lost, {} bytes still queued",
        lost.len(),
        pool.used()
    );
    let mut kept = 0;
    while slow_end.pop(Time::ZERO).is_some() {
        kept += 1;
    }
    println!("slow peer comes back: gets the newest {kept}; {} bytes queued", pool.used());
}
