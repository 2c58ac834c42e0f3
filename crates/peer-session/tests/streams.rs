//! Streams over whole sessions: in memory in virtual time, and over real sockets.

use std::time::{Duration, Instant};

use bytes::Bytes;
use peerage_peer_session::peerage_mailbox::Clock;
use peerage_peer_session::peerage_queue::stream::{
    AcceptedStream, OpenError, StreamCode, StreamError, StreamReader, StreamWriter,
};
use peerage_peer_session::peerage_queue::{ChannelId, PoolConfig};
use peerage_peer_session::peerage_transport::{Stream, Transport};
use peerage_peer_session::peerage_wire::frame::{Lane, STREAM_WINDOW};
use peerage_peer_session::peerage_wire::{DisconnectReason, Keypair};
use peerage_peer_session::{Config, Endpoint, EndpointConfig, Peer};
use tokio::io::{DuplexStream, duplex};

const CHANNEL: ChannelId = ChannelId(1);
const LONG: Duration = Duration::from_secs(60);

fn endpoint(n: u8, change: impl FnOnce(&mut EndpointConfig)) -> Endpoint {
    let mut config = EndpointConfig::recommended();
    change(&mut config);
    Endpoint::with(&keys(n), "test", &[("a", 1), ("b", 1)], config).expect("good names")
}

fn keys(n: u8) -> Keypair {
    Keypair::from_seed([n; 32])
}

fn in_memory(io: DuplexStream) -> Stream {
    Stream::new(io, ([127, 0, 0, 1], 1).into())
}

fn link() -> (Stream, Stream) {
    let (left, right) = duplex(1 << 16);
    (in_memory(left), in_memory(right))
}

async fn joined(here: &Endpoint, there: &Endpoint, (left, right): (Stream, Stream)) -> (Peer, Peer) {
    let (dialled, accepted) = tokio::join!(here.dial(left, keys(2).id()), there.accept(right));
    (dialled.expect("dialled"), accepted.expect("accepted"))
}

/// Two ends over a connection in memory, on the clock of a paused runtime.
async fn two(change: impl Fn(&mut EndpointConfig)) -> (Peer, Peer) {
    let simulate = |config: &mut EndpointConfig| {
        config.clock = Clock::simulated(Duration::from_secs(1_700_000_000));
        change(config);
    };
    joined(&endpoint(1, simulate), &endpoint(2, simulate), link()).await
}

async fn pair(here: &Peer, there: &mut Peer) -> ((StreamWriter, StreamReader), AcceptedStream) {
    let opened = here.open_stream(CHANNEL, Lane::Bulk).await.expect("opened");
    (opened, there.accept_stream().await.expect("the session lives"))
}

async fn all(reader: &mut StreamReader) -> Result<Vec<u8>, StreamError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.read().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 / 8) as u8).collect()
}

#[tokio::test(start_paused = true)]
async fn either_end_opens_and_each_direction_ends_by_itself() {
    let (mut here, mut there) = two(|_| {}).await;
    let ((mut writer, mut reader), accepted) = pair(&here, &mut there).await;
    let AcceptedStream { writer: mut back, reader: mut question, channel, .. } = accepted;
    assert_eq!((channel, writer.flow().stream), (CHANNEL, 1));
    writer.write("question").await.expect("open");
    writer.finish().expect("open");
    assert_eq!(all(&mut question).await.as_deref(), Ok(&b"question"[..]));
    // The other direction goes on.
    let answer = pattern(3_000_000);
    let sent = answer.clone();
    let write = async move {
        back.write(sent).await.expect("open");
        back.finish().expect("open");
    };
    let (_, read) = tokio::join!(write, all(&mut reader));
    assert!(read.as_ref() == Ok(&answer), "as it was written");
    assert_eq!(reader.read().await, Ok(None), "and it stays ended");
    let ((writer, _), accepted) = pair(&there, &mut here).await;
    assert_eq!((writer.flow().stream, accepted.reader.flow().stream), (2, 2), "even from the accepting end");
}

#[tokio::test(start_paused = true)]
async fn a_reset_fails_the_reader_and_a_stop_fails_the_writer_with_their_codes() {
    let (here, mut there) = two(|_| {}).await;
    let ((mut writer, reader), mut accepted) = pair(&here, &mut there).await;
    writer.write(vec![0; 1000]).await.expect("open");
    writer.reset(StreamCode(9));
    assert_eq!(all(&mut accepted.reader).await, Err(StreamError::Reset(StreamCode(9))));
    reader.stop(StreamCode(8));
    let stopped = async {
        loop {
            if let Err(error) = accepted.writer.write(vec![0; 100_000]).await {
                return error;
            }
        }
    };
    assert_eq!(tokio::time::timeout(LONG, stopped).await, Ok(StreamError::Stopped(StreamCode(8))));
    let ((writer, reader), mut accepted) = pair(&here, &mut there).await;
    drop((writer, reader));
    assert_eq!(accepted.reader.read().await, Err(StreamError::Reset(StreamCode::DROPPED)), "dropped is not finished");
}

#[tokio::test(start_paused = true)]
async fn a_stream_beyond_the_peers_limit_is_refused_and_its_halves_say_so() {
    let (here, mut there) = two(|config| {
        config.session = Config { max_streams: 3, max_channel_streams: 2, ..Config::recommended() };
    })
    .await;
    let (mut open, mut taken) = (Vec::new(), Vec::new());
    for n in 0..3 {
        open.push(here.open_stream(CHANNEL, Lane::Normal).await.expect("as many as this end may open"));
        if n < 2 {
            taken.push(there.accept_stream().await.expect("accepted"));
        }
    }
    let refused = tokio::time::timeout(LONG, open[2].1.read()).await.expect("in time");
    assert_eq!(refused, Err(StreamError::Reset(StreamCode::TOO_MANY)));
    let limits = [(ChannelId(3), Lane::Bulk, OpenError::NoChannel), (CHANNEL, Lane::High, OpenError::Lane)];
    for (channel, lane, error) in limits {
        assert_eq!(here.open_stream(channel, lane).await.expect_err("refused"), error);
    }
    drop(open);
    tokio::time::sleep(Duration::from_secs(1)).await;
    here.open_stream(CHANNEL, Lane::Normal).await.expect("those are over");
}

#[tokio::test(start_paused = true)]
async fn what_came_whole_is_read_after_the_sessions_end_and_nothing_else() {
    let (here, mut there) = two(|_| {}).await;
    let ((mut whole, _kept), mut first) = pair(&here, &mut there).await;
    let ((mut cut, _kept_too), mut second) = pair(&here, &mut there).await;
    whole.write(pattern(10_000)).await.expect("open");
    whole.finish().expect("open");
    cut.write(pattern(10_000)).await.expect("open");
    tokio::time::sleep(Duration::from_secs(1)).await;
    here.disconnect(DisconnectReason::Quitting);
    assert_eq!(there.ended().await.reason, DisconnectReason::Quitting);
    assert!(all(&mut first.reader).await.as_ref() == Ok(&pattern(10_000)));
    assert_eq!(second.reader.read().await, Err(StreamError::SessionEnded));
    assert_eq!(second.writer.write("more").await, Err(StreamError::SessionEnded));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cut.write("more").await, Err(StreamError::SessionEnded));
    assert_eq!(here.open_stream(CHANNEL, Lane::Bulk).await.expect_err("ended"), OpenError::SessionEnded);
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_for_its_reader_and_holds_little_meanwhile() {
    let (here, mut there) = two(|_| {}).await;
    let ((mut writer, _reader), mut accepted) = pair(&here, &mut there).await;
    let mut written = 0;
    while tokio::time::timeout(Duration::from_secs(5), writer.write(vec![0; 1000])).await.is_ok() {
        written += 1000;
        assert!(written < 100_000, "nobody reads");
    }
    assert!(written >= STREAM_WINDOW as usize, "its first window at least: {written}");
    let mut read = 0;
    while read < written {
        read += accepted.reader.read().await.expect("open").expect("not ended").len();
    }
    writer.write(vec![0; 1000]).await.expect("and goes on");
}

#[tokio::test(start_paused = true)]
async fn pools_are_as_before_when_all_streams_are_over() {
    let sim = |config: &mut EndpointConfig| {
        config.clock = Clock::simulated(Duration::from_secs(1_700_000_000));
    };
    let (near, far) = (endpoint(1, sim), endpoint(2, sim));
    let (here, mut there) = joined(&near, &far, link()).await;
    let before = [near.used(), far.used()];
    for n in 0..40usize {
        let ((mut writer, reader), mut accepted) = pair(&here, &mut there).await;
        let write = async move {
            let _ = writer.write(pattern(n * 20_000)).await;
            match n % 3 {
                0 => writer.finish().unwrap_or_default(),
                1 => writer.reset(StreamCode(1)),
                _ => drop(writer),
            }
        };
        let read = async move {
            if n % 4 == 0 {
                accepted.reader.stop(StreamCode(2));
            } else {
                let _ = all(&mut accepted.reader).await;
            }
            let _ = accepted.writer.finish();
        };
        tokio::join!(write, read);
        drop(reader);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!([near.used(), far.used()], before);
}

// ---------- over real sockets ----------

async fn sockets(far: &Endpoint, near: &Endpoint) -> (Peer, Peer) {
    let transport = Transport::sockets();
    let mut listener = transport.listen(([127, 0, 0, 1], 0).into()).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (left, right) = tokio::join!(transport.connect(address), listener.accept());
    joined(near, far, (left.expect("connects"), right.expect("accepts"))).await
}

/// Streams so many bytes and says how long that took.
async fn stream(writer: StreamWriter, reader: &mut StreamReader, bytes: usize) -> Duration {
    let start = Instant::now();
    let mut writer = writer;
    let write = tokio::spawn(async move {
        let chunk = Bytes::from(vec![7; 64 << 10]);
        for _ in 0..bytes / chunk.len() {
            writer.write(chunk.clone()).await.expect("open");
        }
        writer.finish().expect("open");
    });
    let mut read = 0;
    while let Some(chunk) = reader.read().await.expect("open") {
        read += chunk.len();
    }
    write.await.expect("no panic");
    assert_eq!(read, bytes);
    start.elapsed()
}

/// The issue's own measure: a stream that is never read leaves the other its throughput, and messages their latency.
#[tokio::test]
async fn of_two_streams_one_is_never_read_and_the_other_and_messages_do_not_notice() {
    const SIZE: usize = 32 << 20;
    let (near, far) = (endpoint(1, |_| {}), endpoint(2, |_| {}));
    let (mut here, mut there) = sockets(&far, &near).await;
    let ((alone, _back), mut accepted) = pair(&here, &mut there).await;
    let without = stream(alone, &mut accepted.reader, SIZE).await;

    let ((mut unread, _unread_back), _never_read) = pair(&here, &mut there).await;
    let blocked = tokio::spawn(async move { while unread.write(vec![0; 10_000]).await.is_ok() {} });
    let ((writer, _back), mut accepted) = pair(&here, &mut there).await;
    let echo = tokio::spawn(async move {
        while let Some(message) = there.recv().await {
            let word = message.delivery.payload.clone();
            drop(message);
            there.send(ChannelId(2), Lane::High, word).await.expect("room");
        }
    });
    let streaming = tokio::spawn(async move { stream(writer, &mut accepted.reader, SIZE).await });
    let mut trips = Vec::new();
    while !streaming.is_finished() {
        let start = Instant::now();
        here.send(ChannelId(2), Lane::High, "ping").await.expect("room");
        here.recv().await.expect("the session lives");
        trips.push(start.elapsed());
    }
    let with = streaming.await.expect("no panic");
    trips.sort_unstable();
    let (median, slow) = (trips[trips.len() / 2], trips[trips.len() * 99 / 100]);
    println!(
        "{SIZE} bytes: {without:?} alone, {with:?} beside one unread; ping {median:?}, p99 {slow:?}, {}",
        trips.len()
    );
    assert!(!blocked.is_finished(), "it still waits");
    // Wide: the machine has other things to do, and this is not an optimised build.
    assert!(with < 4 * without + Duration::from_secs(1), "{with:?} and {without:?} alone");
    assert!(median < Duration::from_millis(100), "{median:?}");
    blocked.abort();
    here.disconnect(DisconnectReason::Quitting);
    echo.await.expect("no panic");
}

#[tokio::test]
async fn however_much_is_streamed_the_session_holds_a_bounded_part_of_it() {
    const MOST: usize = 1 << 20;
    // 1 GiB at full scale.
    let soak = std::env::var_os("PEERAGE_SOAK").is_some_and(|value| value == "1");
    let size = if soak { 1 << 30 } else { 64 << 20 };
    let tight = |config: &mut EndpointConfig| {
        config.session = Config { max_window: MOST, ..Config::recommended() };
        config.outbound = PoolConfig::from(16 << 20);
    };
    let (near, far) = (endpoint(1, tight), endpoint(2, tight));
    let (here, mut there) = sockets(&far, &near).await;
    let ((writer, _back), mut accepted) = pair(&here, &mut there).await;
    let windows = far.used().1.0;
    let streaming = tokio::spawn(async move { stream(writer, &mut accepted.reader, size).await });
    let mut most = (0, 0);
    while !streaming.is_finished() {
        let ((_, beyond), out) = (far.used().1, near.used().0);
        most = (most.0.max(beyond), most.1.max(out));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = streaming.await.expect("no panic");
    println!("{size} bytes in {took:?}; at most {most:?} bytes in and out");
    assert!(most.0 <= MOST && most.1 <= 512 << 10, "{most:?}");
    assert!(most.0 + most.1 > 0, "it was looked at while it ran");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(far.used(), (0, (windows, 0)));
}
