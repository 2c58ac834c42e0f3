//! One direction of an in-memory stream as its two ends see it: who waits for bytes, who for room.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::flight::{Flight, Pace, Room};

struct State {
    flight: Flight,
    closed: bool,
    broken: bool,
    /// The network is parted: nothing arrives, not even the news of an end.
    parted: bool,
    /// The reader has gone since.
    left: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

pub(crate) struct Pipe(Mutex<State>);

impl Pipe {
    pub(crate) fn new(pace: Pace) -> Pipe {
        let flight = Flight::new(pace, Instant::now());
        Pipe(Mutex::new(State {
            flight,
            closed: false,
            broken: false,
            parted: false,
            left: false,
            reader: None,
            writer: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(mut state: MutexGuard<'_, State>) {
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// No more bytes will come; those under way still arrive.
    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        Pipe::wake(state);
    }

    /// Nobody reads any more. The writer hears of it, once the network is not parted.
    fn leave(&self) {
        let mut state = self.lock();
        state.left = true;
        if !state.parted {
            drop(state);
            self.cut();
        }
    }

    /// Lets nothing arrive until it is called with `false`.
    pub(crate) fn part(&self, parted: bool) {
        let mut state = self.lock();
        state.parted = parted;
        let left = state.left;
        Pipe::wake(state);
        if left && !parted {
            self.cut();
        }
    }

    /// Nobody reads any more, or the link was cut: what is under way is lost.
    pub(crate) fn cut(&self) {
        let mut state = self.lock();
        state.broken = true;
        state.flight.clear();
        Pipe::wake(state);
    }
}

/// A timer that is kept, so that waiting does not allocate every time.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}

/// One end of an in-memory stream.
pub(crate) struct PipeEnd {
    into: Arc<Pipe>,
    out: Arc<Pipe>,
    arrival: Timer,
    room: Timer,
}

impl PipeEnd {
    pub(crate) fn new(into: Arc<Pipe>, out: Arc<Pipe>) -> PipeEnd {
        PipeEnd { into, out, arrival: Timer::default(), room: Timer::default() }
    }

    pub(crate) fn limit_unsent(&self, bytes: usize) {
        self.out.lock().flight.limit_unsent(bytes);
    }
}

impl AsyncRead for PipeEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let mut state = this.into.lock();
            if state.broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if state.parted {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let now = Instant::now();
            // A writer with room left, or with a timer, needs no word from the reader.
            let writer_waits = state.flight.window_is_full();
            if state.flight.take(now, buf) > 0 {
                let writer = if writer_waits { state.writer.take() } else { None };
                drop(state);
                writer.into_iter().for_each(Waker::wake);
                return Poll::Ready(Ok(()));
            }
            let arrival = state.flight.next_arrival(now);
            if arrival.is_none() && state.closed {
                return Poll::Ready(Ok(()));
            }
            // Left before the lock is, also beside the timer: a cut must wake a reader that sleeps, too.
            state.reader = Some(cx.waker().clone());
            drop(state);
            match arrival {
                Some(at) if this.arrival.poll(at, cx).is_ready() => {}
                _ => return Poll::Pending,
            }
        }
    }
}

impl PipeEnd {
    fn poll_send(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let offered = parts.iter().map(|part| part.len()).sum::<usize>();
        if offered == 0 {
            return Poll::Ready(Ok(0));
        }
        loop {
            let mut state = self.out.lock();
            if state.broken || state.closed {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let now = Instant::now();
            let room = state.flight.room(now);
            if let Room::Bytes(room) = room {
                let len = offered.min(room);
                let mut bytes = Vec::with_capacity(len);
                for part in parts {
                    bytes.extend_from_slice(&part[..part.len().min(len - bytes.len())]);
                }
                // A reader that sleeps until bytes arrive has its own timer.
                let reader = if state.flight.is_empty() { state.reader.take() } else { None };
                state.flight.push(now, bytes);
                drop(state);
                reader.into_iter().for_each(Waker::wake);
                return Poll::Ready(Ok(len));
            }
            state.writer = Some(cx.waker().clone());
            drop(state);
            match room {
                Room::At(at) if self.room.poll(at, cx).is_ready() => {}
                _ => return Poll::Pending,
            }
        }
    }
}

impl AsyncWrite for PipeEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        self.out.close();
        self.into.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;
    use crate::flight::Rate;

    const MS: Duration = Duration::from_millis(1);
    const GIGABIT: u64 = 125_000_000;
    const TEN_MEGABIT: u64 = 1_250_000;

    fn joined(latency: Duration, bytes_per_second: u64, unsent_limit: usize, window: usize) -> (PipeEnd, PipeEnd) {
        let pace = Pace { latency, rate: Some(Rate::new(bytes_per_second)), unsent_limit, window };
        let (there, back) = (Arc::new(Pipe::new(pace)), Arc::new(Pipe::new(pace)));
        (PipeEnd::new(back.clone(), there.clone()), PipeEnd::new(there, back))
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_fat_link_is_filled() {
        let (mut out, mut into) = joined(60 * MS, GIGABIT, 16 << 10, 16 << 20);
        let writer = tokio::spawn(async move {
            let turn = vec![0; 64 << 10];
            while out.write_all(&turn).await.is_ok() {}
        });
        let start = Instant::now();
        let mut buf = vec![0; 1 << 20];
        let mut read = 0;
        while start.elapsed() < 560 * MS {
            read += into.read(&mut buf).await.expect("open") as u64;
        }
        drop(into);
        writer.await.expect("ends as the reader does");
        let share = read * 100 / (GIGABIT / 2);
        assert!((95..=100).contains(&share), "{share} %");
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_message_behind_bulk_waits_for_the_unsent_limit_only() {
        let unsent_limit = 16 << 10;
        let (mut out, mut into) = joined(30 * MS, TEN_MEGABIT, unsent_limit, 16 << 20);
        let writer = tokio::spawn(async move {
            let start = Instant::now();
            while start.elapsed() < 1000 * MS {
                out.write_all(&[0; 4096]).await.expect("open");
            }
            out.write_all(b"urgent").await.expect("open");
            Instant::now()
        });
        let mut got = Vec::new();
        into.read_to_end(&mut got).await.expect("whole");
        assert!(got.ends_with(b"urgent"));
        let took = writer.await.expect("done").elapsed();
        let serialised = Duration::from_secs(1) * unsent_limit as u32 / TEN_MEGABIT as u32;
        assert!(took > 30 * MS && took <= 30 * MS + serialised + 2 * MS, "{took:?}");
        let share = (got.len() as u64 * 100) / TEN_MEGABIT;
        assert!((99..=102).contains(&share), "{share} % of the rate");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_never_reads_stops_the_writer_at_window_and_unsent_limit() {
        let (mut out, mut into) = joined(5 * MS, TEN_MEGABIT, 10_000, 50_000);
        let mut wrote = 0;
        while let Ok(len) = timeout(Duration::from_secs(1), out.write(&[0; 777])).await {
            wrote += len.expect("open");
        }
        assert_eq!(wrote, 60_000);
        // What is held back still comes when the writer is gone, at the link's pace.
        drop(out);
        let start = Instant::now();
        let mut rest = Vec::new();
        into.read_to_end(&mut rest).await.expect("ends");
        assert_eq!(rest.len(), 60_000);
        assert!(start.elapsed() >= 13 * MS && start.elapsed() < 16 * MS, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_wakes_a_writer_that_waits_for_the_link_and_a_shut_end_still_reads() {
        let (mut out, mut into) = joined(MS, 1, 10, 100);
        out.write_all(&[0; 10]).await.expect("room");
        let pipe = out.out.clone();
        let (wrote, ()) = tokio::join!(out.write_all(b"more"), async { pipe.cut() });
        assert_eq!(wrote.expect_err("cut").kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(into.read_u8().await.expect_err("cut").kind(), io::ErrorKind::ConnectionReset);

        let (mut out, mut into) = joined(MS, TEN_MEGABIT, 100, 100);
        out.shutdown().await.expect("never fails");
        assert!(out.write_all(b"x").await.is_err());
        assert_eq!(into.read(&mut [0; 8]).await.expect("ended"), 0);
        into.write_all(b"still").await.expect("the other direction");
        let mut still = [0; 5];
        out.read_exact(&mut still).await.expect("the other direction");
    }

    #[tokio::test(start_paused = true)]
    async fn one_read_takes_all_that_has_arrived_and_one_write_all_its_parts() {
        let (mut out, mut into) = joined(MS, GIGABIT, 1 << 20, 1 << 20);
        let parts = [IoSlice::new(b"one "), IoSlice::new(b"two ")];
        assert_eq!(out.write_vectored(&parts).await.expect("room"), 8);
        out.write_all(b"three").await.expect("room");
        tokio::time::sleep(5 * MS).await;
        let mut buf = [0; 64];
        let len = into.read(&mut buf).await.expect("there");
        assert_eq!(&buf[..len], b"one two three");
    }
}
