//! What records cost: sealing and opening by each cipher and implementation, and the header of a frame.

mod support;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use peerage_peer_session::handshake::Keys;
use peerage_peer_session::peerage_wire::frame::{Header, Kind, Lane, MAX_FRAGMENT};
use peerage_peer_session::peerage_wire::handshake::CipherId;
use peerage_peer_session::records::MAX_PLAIN;
use peerage_peer_session::{Ciphers, Implementation};

/// Both ends' keys, as a handshake leaves them.
fn keys(ciphers: Ciphers) -> (Keys, Keys) {
    support::handshake(&support::end(1, ciphers), &support::end(2, ciphers))
}

fn records(c: &mut Criterion) {
    let only = [CipherId::CHACHA20_POLY1305, CipherId::AES_256_GCM].into_iter().filter_map(Ciphers::only);
    // Without the feature `accelerated` the pure implementation is the only one.
    let accelerated = only.filter(|ciphers| keys(*ciphers).0.implementation == Implementation::Accelerated);
    let each: Vec<Ciphers> = [Ciphers::pure()].into_iter().chain(accelerated).collect();
    for operation in ["seal", "open"] {
        let mut group = c.benchmark_group(operation);
        for len in [128, 1024, 16 * 1024, MAX_PLAIN] {
            group.throughput(Throughput::Bytes(len as u64));
            for ciphers in &each {
                let (mut from, mut to) = keys(*ciphers);
                let name = format!("{}/{}", from.cipher.label(), from.implementation.label());
                let text = vec![7; len];
                let mut seal = |buffer: &mut Vec<u8>| {
                    buffer.clear();
                    let start = from.sealer.begin(buffer);
                    buffer.extend_from_slice(&text);
                    from.sealer.finish(buffer, start);
                };
                let id = BenchmarkId::new(name, len);
                let mut buffer = Vec::with_capacity(1 << 17);
                match operation {
                    "seal" => group.bench_function(id, |b| b.iter(|| seal(black_box(&mut buffer)))),
                    // A record opens once, so each is sealed first, and only the opening is timed.
                    _ => group.bench_function(id, |b| {
                        b.iter_custom(|times| {
                            let mut spent = Duration::ZERO;
                            for _ in 0..times {
                                seal(&mut buffer);
                                let started = std::time::Instant::now();
                                black_box(to.opener.open_first(black_box(&mut buffer)).expect("true"));
                                spent += started.elapsed();
                            }
                            spent
                        });
                    }),
                };
            }
        }
        group.finish();
    }
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    for (name, stream) in [("message", 0), ("stream", 300)] {
        let header = Header { stream, ..Header::new(Kind::Data, Lane::Normal, 3, 128) };
        let mut buffer = Vec::with_capacity(1024);
        group.bench_function(BenchmarkId::new("encode", name), |b| {
            b.iter(|| {
                buffer.clear();
                black_box(&header).encode(black_box(&mut buffer));
            });
        });
        buffer.resize(buffer.len() + 128, 7);
        group.bench_function(BenchmarkId::new("decode", name), |b| {
            b.iter(|| black_box(Header::decode(&mut black_box(&buffer[..])).expect("a frame")));
        });
    }
    // The whole of what one turn of many small frames costs beside the cipher.
    let header = Header::new(Kind::Data, Lane::Bulk, 3, MAX_FRAGMENT as u16);
    let mut buffer = Vec::with_capacity(1 << 17);
    let payload = vec![7; MAX_FRAGMENT];
    group.throughput(Throughput::Bytes(3 * MAX_FRAGMENT as u64));
    group.bench_function("three fragments copied", |b| {
        b.iter(|| {
            buffer.clear();
            for _ in 0..3 {
                header.encode(&mut buffer);
                buffer.extend_from_slice(black_box(&payload));
            }
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = records, frames
}
criterion_main!(benches);
