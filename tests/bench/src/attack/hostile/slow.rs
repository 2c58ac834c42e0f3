//! Slow readers: large answers and streams without an end are asked for, and the socket, or what came by it, is not read.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use peerage_server::peer_session::Peer;
use peerage_server::queue::{ChannelId, Message};
use peerage_server::router::HandlerId;
use peerage_server::router::wire;
use peerage_server::transport::Stream;
use peerage_server::wire::frame::Lane;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::{Foe, streams};
use crate::attack::LARGE;

/// Answers of a MiB each that are asked for at first: as many as wait for one peer.
const ANSWERS: u64 = 32;
/// Answers asked for each second after that: so many may be refused without blame.
const AGAIN: u64 = 8;
/// As many as the handler lets one peer have.
const STREAMS: usize = 16;
/// How long somebody who reads nothing is borne, and a little: then it comes back.
const HOLD: Duration = Duration::from_secs(22);
const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(60);

/// How the socket of the nth slow reader is read while it is slow.
pub(super) const fn pace(number: usize) -> Pace {
    match number % 4 {
        0 => Pace::Never,
        1 => Pace::ByteASecond,
        _ => Pace::Usual,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As a process that hangs.
    Never,
    ByteASecond,
    /// The socket is; the streams are not.
    Usual,
}

/// A stream that is read at its pace as soon as the switch is set.
struct Slowed {
    stream: Stream,
    slow: Arc<AtomicBool>,
    pace: Pace,
    next: Pin<Box<Sleep>>,
}

/// The stream, which is read so as soon as the switch is set.
pub(super) fn slowed(stream: Stream, slow: Arc<AtomicBool>, pace: Pace) -> Stream {
    let remote = stream.remote_addr();
    Stream::new(Slowed { stream, slow, pace, next: Box::pin(tokio::time::sleep(Duration::ZERO)) }, remote)
}

impl AsyncRead for Slowed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let slow = self.slow.load(Ordering::Acquire);
        match self.pace {
            Pace::Never if slow => Poll::Pending,
            Pace::ByteASecond if slow && buf.remaining() > 0 => {
                ready!(self.next.as_mut().poll(cx));
                let mut byte = [0];
                let mut one = ReadBuf::new(&mut byte);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut one))?;
                buf.put_slice(one.filled());
                self.next.as_mut().reset(Instant::now() + SECOND);
                Poll::Ready(Ok(()))
            }
            _ => Pin::new(&mut self.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Slowed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Asks for answers of a MiB each, from this id on.
async fn ask(foe: &Foe, peer: &Peer, channel: ChannelId, ids: std::ops::Range<u64>) -> Option<()> {
    let (mut message, count) = (BytesMut::new(), ids.end - ids.start);
    for id in ids {
        message.extend_from_slice(&wire::request(id, HandlerId::of(LARGE), DEADLINE, &[]));
    }
    foe.counted.add("asked", count);
    peer.door().offer_when_room(Message::new(channel, Lane::High, message.freeze())).await.ok()
}

pub(super) async fn attack(foe: &Foe, peer: &mut Peer, asleep: &AtomicBool) {
    let Some(channel) = peer.channel("router") else { return };
    let mut held = Vec::new();
    for _ in 0..STREAMS {
        let Some(opened) = streams::opened(peer, channel).await else { return };
        held.push(opened);
    }
    foe.counted.add("opened", STREAMS as u64);
    if ask(foe, peer, channel, 0..ANSWERS).await.is_none() {
        return;
    }
    let (mut next, mut answers) = (ANSWERS, Vec::new());
    // It goes out before nothing is read any more.
    tokio::time::sleep(SECOND / 10).await;
    asleep.store(true, Ordering::Release);
    if pace(foe.number) != Pace::Usual {
        return tokio::time::sleep(HOLD).await;
    }
    // The answers come by streams, of which one in two slow readers reads none, and the other a piece a second.
    let reads = foe.number % 4 == 2;
    loop {
        tokio::time::sleep(SECOND).await;
        while let Ok(Some(answer)) = tokio::time::timeout(Duration::ZERO, peer.accept_stream()).await {
            answers.push(answer);
        }
        // What came by messages is neither read nor given back.
        for (_, reader) in held.iter_mut().filter(|_| reads) {
            if let Ok(Ok(Some(piece))) = tokio::time::timeout(Duration::ZERO, reader.read()).await {
                foe.counted.add("stream_bytes", piece.len() as u64);
            }
        }
        if ask(foe, peer, channel, next..next + AGAIN).await.is_none() {
            return;
        }
        next += AGAIN;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_stream_gives_a_byte_a_second_and_one_that_hangs_none() {
        let from = ([127, 0, 0, 1], 1).into();
        for (pace, later) in [(Pace::Never, 0), (Pace::ByteASecond, 5), (Pace::Usual, 995)] {
            let (mut far, near) = duplex(1_000);
            let slow = Arc::new(AtomicBool::new(false));
            let mut near = slowed(Stream::new(near, from), slow.clone(), pace);
            far.write_all(&[7; 1_000]).await.expect("room");
            let mut bytes = [0; 1_000];
            near.read_exact(&mut bytes[..5]).await.expect("as usual");
            slow.store(true, Ordering::Release);
            let (until, mut read) = (Instant::now() + SECOND * 9 / 2, 0);
            while let Ok(Ok(some)) = tokio::time::timeout_at(until, near.read(&mut bytes)).await {
                read += some;
            }
            assert_eq!(read, later, "{pace:?}");
        }
    }
}
