//! What records cost: sealing and opening by each cipher and implementation, and the header of a frame.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use peerage_machine::Time;
use peerage_peer_session::handshake::{Acceptor, Dialler, Keys, LocalEnd, Presented};
use peerage_peer_session::peerage_wire::codec::{Blob, List, Text};
use peerage_peer_session::peerage_wire::frame::{Header, Kind, Lane, MAX_FRAGMENT};
use peerage_peer_session::peerage_wire::handshake::CipherId;
use peerage_peer_session::peerage_wire::{Capability, Hello, Keypair, NetworkId, RecordDraft};
use peerage_peer_session::records::MAX_PLAIN;
use peerage_peer_session::{Ciphers, Config, Implementation};
use zeroize::Zeroizing;

const UNIX: Duration = Duration::from_secs(1_700_000_000);

/// Both ends' keys, as a handshake leaves them.
fn keys(ciphers: Ciphers) -> (Keys, Keys) {
    let (config, now) = (Config::recommended(), Time::new(Duration::ZERO, UNIX));
    let network = NetworkId::named("bench");
    let end = |n: u8| {
        let keys = Keypair::from_seed([n; 32]);
        let hello = Hello {
            version: Hello::VERSION,
            network,
            fork_id: Blob::default(),
            instance: 1,
            agent: Text::new("bench").expect("short"),
            capabilities: List::truncated(Capability::new("a", 1)),
        };
        let record = RecordDraft::new(UNIX.as_millis() as u64, network).sign(&keys).expect("small");
        (LocalEnd::new(&keys).with_ciphers(ciphers), Presented { record, hello })
    };
    let ((alice, alice_says), (bob, bob_says)) = (end(1), end(2));
    let (dialler, m1) = Dialler::begin(&alice, Zeroizing::new([8; 32]), bob_says.record.id()).expect("begins");
    let m1 = m1.try_into().expect("of m1's length");
    let (acceptor, m2) = Acceptor::answer(&bob, Zeroizing::new([9; 32]), &bob_says, &m1).expect("answers");
    let (knowing, _) = dialler.read_m2(&config, now, &alice_says, &m2).expect("Bob's");
    let (m3, dialled) = knowing.write_m3(&alice_says).expect("fits");
    let (accepted, _) = acceptor.read_m3(&config, now, &bob_says, &m3).expect("Alice's");
    (dialled, accepted)
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
