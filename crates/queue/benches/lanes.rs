//! What a message costs in the lanes: offered at the door and popped at the lane end, one by one, on one thread.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use peerage_queue::peerage_machine::Time;
use peerage_queue::peerage_wire::frame::Lane;
use peerage_queue::{ChannelId, LanesConfig, Message, Pool, lanes};

/// Messages that wait at a time in the second bench: what a pump finds when it comes back from its socket.
const BATCH: usize = 1000;

fn push_pop(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("push_pop");
    for size in [128, 1024] {
        let pool = Pool::new(64 << 20);
        let (door, mut end) = lanes(LanesConfig::recommended(), &pool, 0);
        let payload = Bytes::from(vec![7; size]);
        let offer = || {
            let message = Message::new(ChannelId(1), Lane::Normal, payload.clone());
            door.offer(black_box(message)).expect("the lane is larger than a batch");
        };
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{size}/one"), |bencher| {
            bencher.iter(|| {
                offer();
                end.pop(Time::ZERO).expect("just offered")
            });
        });
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(format!("{size}/batch"), |bencher| {
            bencher.iter(|| {
                for _ in 0..BATCH {
                    offer();
                }
                while let Some(fragment) = end.pop(Time::ZERO) {
                    black_box(fragment);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, push_pop);
criterion_main!(benches);
