//! The network in memory.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::*;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn fixed(latency_ms: u64) -> Link {
    Link { latency: Duration::from_millis(latency_ms), jitter: Duration::ZERO, ..Link::default() }
}

async fn joined(network: &MemoryNetwork) -> (Stream, Stream) {
    joined_at(network, 1).await
}

async fn joined_at(network: &MemoryNetwork, port: u16) -> (Stream, Stream) {
    let at = SocketAddr::new(B, port);
    let mut listener = network.host(B).listen(at).await.expect("free");
    let out = network.host(A).connect(at).await.expect("listening");
    (out, listener.accept().await.expect("dialled"))
}

#[tokio::test(start_paused = true)]
async fn bytes_arrive_in_order_after_the_latency_and_the_rate() {
    let link = Link { bytes_per_second: Some(1_000_000), ..fixed(50) };
    let (mut out, mut into) = joined(&MemoryNetwork::new(1, link)).await;
    let start = Instant::now();
    let sent: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    out.write_all(&sent).await.expect("room");
    let mut got = vec![0; sent.len()];
    into.read_exact(&mut got).await.expect("whole");
    assert_eq!(got, sent);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(150) && took < Duration::from_millis(153), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_when_nobody_reads() {
    let slow = Link { bytes_per_second: Some(1 << 20), ..fixed(1) };
    let wide = Link { window: 1 << 20, unsent_limit: 1 << 10, ..slow };
    for (link, room_kib) in [(fixed(1), 256), (slow, 256 + 16), (wide, 1024 + 1)] {
        let (mut out, _into) = joined(&MemoryNetwork::new(1, link)).await;
        let mut wrote = 0;
        while let Ok(len) = tokio::time::timeout(Duration::from_secs(1), out.write(&[0; 1000])).await {
            wrote += len.expect("open");
        }
        assert_eq!(wrote, room_kib << 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_end_is_an_end_of_stream_and_a_cut_is_an_error() {
    let network = MemoryNetwork::new(1, fixed(1));
    let (mut out, mut into) = joined(&network).await;
    out.write_all(b"last").await.expect("room");
    drop(out);
    let mut rest = Vec::new();
    into.read_to_end(&mut rest).await.expect("ends");
    assert_eq!(rest, b"last");

    let (mut out, mut into) = joined(&network).await;
    network.cut(A, B);
    assert!(out.write_all(b"x").await.is_err());
    assert!(into.read_u8().await.is_err());
    assert!(network.host(A).connect(SocketAddr::new(B, 1)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_parted_stream_is_silent_and_goes_on_when_healed() {
    let network = MemoryNetwork::new(1, fixed(1));
    let (mut out, mut into) = joined(&network).await;
    let (mut gone, left) = joined_at(&network, 2).await;
    let patience = Duration::from_secs(60);
    network.part(A, B);
    out.write_all(b"late").await.expect("room");
    drop(left);
    assert!(tokio::time::timeout(patience, into.read_u8()).await.is_err(), "nothing comes");
    assert!(tokio::time::timeout(patience, gone.read_u8()).await.is_err(), "nor the news of an end");
    gone.write_all(b"x").await.expect("it does not know");
    let again = network.host(A);
    assert!(tokio::time::timeout(patience, again.connect(SocketAddr::new(B, 1))).await.is_err(), "no answer");
    network.heal(A, B);
    let mut late = [0; 4];
    into.read_exact(&mut late).await.expect("it was on its way");
    assert_eq!(&late, b"late");
    assert!(gone.write_all(b"x").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn datagrams_get_lost_as_often_as_the_link_says_and_equal_seeds_lose_the_same() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let network = MemoryNetwork::new(5, Link { loss_per_mille: 300, ..fixed(5) });
        let (a, b) = (SocketAddr::new(A, 9), SocketAddr::new(B, 9));
        let sender = network.host(A).bind_datagram(a).await.expect("free");
        let receiver = network.host(B).bind_datagram(b).await.expect("free");
        for n in 0..200u8 {
            sender.send_to(&[n], b).expect("never refuses");
        }
        let mut got = Vec::new();
        let mut buf = [0; 8];
        while let Ok(packet) = tokio::time::timeout(Duration::from_millis(50), receiver.recv_from(&mut buf)).await {
            assert_eq!(packet.expect("open"), (1, a));
            got.push(buf[0]);
        }
        assert!((100..180).contains(&got.len()), "{} of 200", got.len());
        runs.push(got);
    }
    assert_eq!(runs[0], runs[1]);
}
