//! The bytes of one direction of an in-memory stream: held back, on the link, under way, arrived.
//!
//! It behaves as TCP with `TCP_NOTSENT_LOWAT` does. A link with a rate sends bytes one after another; those it has
//! not sent yet are *unsent*, and a writer may add while they are fewer than the limit. What is sent and not read
//! counts against the receiver's window, and with a closed window the unsent bytes are held back. No clock and no
//! waker lives here: every call says what time it is.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::Instant;

/// A link with a rate delivers in pieces of this many bytes (an Ethernet frame's TCP payload) and at the end of
/// what one write added, so that a large write does not arrive all at its end.
const SEGMENT: usize = 1448;
/// Tokio's timers tick in milliseconds: so late may a writer be that asked to be woken.
const TICK: Duration = Duration::from_millis(1);

/// Bytes a second. The clock counts nanoseconds and every write is rounded up to one: beyond 1 GB/s small writes
/// are slower than they should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate(u64);

impl Rate {
    pub(crate) fn new(bytes_per_second: u64) -> Rate {
        Rate(bytes_per_second.max(1))
    }

    fn nanos(nanos: u128) -> Duration {
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When that many bytes are through: never too early, so that `bytes_in` of it is at least as many.
    fn time_for(self, bytes: usize) -> Duration {
        Rate::nanos((bytes as u128 * 1_000_000_000).div_ceil(u128::from(self.0)))
    }

    /// The longest time in which no more than that many bytes get through.
    fn time_within(self, bytes: usize) -> Duration {
        Rate::nanos(bytes as u128 * 1_000_000_000 / u128::from(self.0))
    }

    fn bytes_in(self, time: Duration) -> usize {
        usize::try_from(time.as_nanos() * u128::from(self.0) / 1_000_000_000).unwrap_or(usize::MAX)
    }
}

/// How bytes travel in one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) latency: Duration,
    pub(crate) rate: Option<Rate>,
    pub(crate) unsent_limit: usize,
    pub(crate) window: usize,
}

impl Pace {
    /// When the first `len` bytes of a chunk are there.
    fn arrival(&self, chunk: &Chunk, len: usize) -> Instant {
        chunk.start + self.rate.map_or(Duration::ZERO, |rate| rate.time_for(len)) + self.latency
    }

    /// How many bytes of a chunk are there, read ones included.
    fn arrived(&self, chunk: &Chunk, now: Instant) -> usize {
        let len = chunk.bytes.len();
        if self.arrival(chunk, len) <= now {
            return len;
        }
        // All or nothing without a rate.
        let (Some(rate), Some(since)) = (self.rate, now.checked_duration_since(chunk.start + self.latency)) else {
            return 0;
        };
        (rate.bytes_in(since) / SEGMENT * SEGMENT).min(len)
    }
}

/// What one write added to the link.
#[derive(Debug)]
struct Chunk {
    /// When the link begins to send it.
    start: Instant,
    bytes: Vec<u8>,
    read: usize,
}

/// Whether a writer may add bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// So many, at least one.
    Bytes(usize),
    /// None until the link has sent some: it will have by then.
    At(Instant),
    /// None until the other end has read.
    AfterRead,
}

#[derive(Debug)]
pub(crate) struct Flight {
    pace: Pace,
    /// On the link, under way or waiting to be read.
    chunks: VecDeque<Chunk>,
    /// Bytes of `chunks` that nobody has read: they fill the window.
    unread: usize,
    /// Accepted, but the window is closed; empty unless it is.
    held: VecDeque<u8>,
    /// When the link will have sent all of `chunks`.
    free_at: Instant,
    /// A writer that adds until then has slept no longer than its timer made it, see [`Flight::room`].
    woken_by: Option<Instant>,
    /// The writer's own limit of unsent bytes, if that is lower.
    unsent_limit: usize,
}

impl Flight {
    pub(crate) fn new(pace: Pace, now: Instant) -> Flight {
        Flight {
            pace,
            chunks: VecDeque::new(),
            unread: 0,
            held: VecDeque::new(),
            free_at: now,
            woken_by: None,
            unsent_limit: usize::MAX,
        }
    }

    pub(crate) fn limit_unsent(&mut self, bytes: usize) {
        self.unsent_limit = bytes;
    }

    fn window_left(&self) -> usize {
        // A window of zero would never open.
        self.pace.window.max(1) - self.unread
    }

    /// Whether only a reader can make room.
    pub(crate) fn window_is_full(&self) -> bool {
        self.window_left() == 0
    }

    /// Whether no byte will ever come unless somebody writes.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bytes accepted that the link has not sent yet.
    fn unsent(&self, now: Instant) -> usize {
        let on_link = self.pace.rate.map_or(0, |rate| rate.bytes_in(self.free_at.saturating_duration_since(now)));
        self.held.len() + on_link
    }

    /// How long the link has been idle only because its writer's timer ticks in milliseconds: such a writer goes on
    /// where the link stopped. Else a fast link (1 Gbit/s sends 122 KiB in a tick) would wait for its writer.
    fn late(&self, now: Instant) -> Duration {
        let excused = self.held.is_empty() && self.woken_by.is_some_and(|by| now <= by);
        if excused { now.saturating_duration_since(self.free_at) } else { Duration::ZERO }
    }

    /// How much may be written now. The answer [`Room::At`] is a promise to come back then, which excuses being
    /// late by a tick of the timer.
    pub(crate) fn room(&mut self, now: Instant) -> Room {
        let Some(rate) = self.pace.rate else {
            let left = self.window_left();
            return if left > 0 { Room::Bytes(left) } else { Room::AfterRead };
        };
        let (limit, unsent) = (self.pace.unsent_limit.min(self.unsent_limit).max(1), self.unsent(now));
        if unsent < limit {
            let sent_meanwhile = rate.bytes_in(self.late(now)).min(self.window_left());
            return Room::Bytes((limit - unsent).saturating_add(sent_meanwhile));
        }
        if self.held.len() >= limit {
            return Room::AfterRead;
        }
        // Linux wakes when half is sent (`tcp_stream_memory_free`): fewer wake-ups, and no writes of a few bytes.
        let left = (limit / 2).max(self.held.len()) - self.held.len();
        let at = self.free_at - rate.time_within(left);
        self.woken_by = Some(at + TICK);
        Room::At(at)
    }

    /// Adds what [`Flight::room`] had room for.
    pub(crate) fn push(&mut self, now: Instant, mut bytes: Vec<u8>) {
        let start = now.max(self.free_at) - self.late(now);
        let beyond = bytes.split_off(bytes.len().min(self.window_left()));
        self.launch(start, bytes);
        self.held.extend(beyond);
    }

    fn launch(&mut self, start: Instant, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.unread += bytes.len();
        self.free_at = start + self.pace.rate.map_or(Duration::ZERO, |rate| rate.time_for(bytes.len()));
        self.chunks.push_back(Chunk { start, bytes, read: 0 });
    }

    /// Moves what has arrived into `buf`; returns how much. Reading opens the window for bytes held back.
    pub(crate) fn take(&mut self, now: Instant, buf: &mut ReadBuf<'_>) -> usize {
        let mut taken = 0;
        while let Some(chunk) = self.chunks.front_mut() {
            let len = (self.pace.arrived(chunk, now) - chunk.read).min(buf.remaining());
            if len == 0 {
                break;
            }
            buf.put_slice(&chunk.bytes[chunk.read..chunk.read + len]);
            chunk.read += len;
            taken += len;
            if chunk.read == chunk.bytes.len() {
                self.chunks.pop_front();
            }
        }
        self.unread -= taken;
        let freed = self.window_left().min(self.held.len());
        if freed > 0 {
            let (front, back) = self.held.as_slices();
            let mut bytes = Vec::with_capacity(freed);
            bytes.extend_from_slice(&front[..freed.min(front.len())]);
            bytes.extend_from_slice(&back[..freed - bytes.len()]);
            self.held.drain(..freed);
            self.launch(now.max(self.free_at), bytes);
        }
        taken
    }

    /// When more bytes will have arrived than now; `None` if none are under way.
    pub(crate) fn next_arrival(&self, now: Instant) -> Option<Instant> {
        let chunk = self.chunks.front()?;
        let next = match self.pace.rate {
            Some(_) => (self.pace.arrived(chunk, now) + SEGMENT).min(chunk.bytes.len()),
            None => chunk.bytes.len(),
        };
        Some(self.pace.arrival(chunk, next))
    }

    /// Loses everything.
    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use peerage_machine::Rng;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pace(bytes_per_second: u64, unsent_limit: usize, window: usize) -> Pace {
        Pace { latency: 10 * MS, rate: Some(Rate::new(bytes_per_second)), unsent_limit, window }
    }

    fn read(flight: &mut Flight, now: Instant, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most];
        let mut buf = ReadBuf::new(&mut bytes);
        let len = flight.take(now, &mut buf);
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn a_writer_waits_for_half_of_the_unsent_bytes_to_leave() {
        let start = Instant::now();
        let mut flight = Flight::new(pace(1_000_000, 10_000, 100_000), start);
        assert_eq!(flight.room(start), Room::Bytes(10_000));
        flight.push(start, vec![0; 10_000]);
        assert_eq!(flight.room(start), Room::At(start + 5 * MS));
        assert_eq!(flight.room(start + MS), Room::Bytes(1000));
        assert_eq!(flight.room(start + 5 * MS), Room::Bytes(5000));
    }

    #[test]
    fn a_writer_that_its_timer_woke_late_goes_on_where_the_link_stopped_and_an_idle_one_does_not() {
        let start = Instant::now();
        for (comes, gains, last_byte) in [(MS, 900, 10 * MS + MS + MS / 10), (3 * MS, 0, 10 * MS + 3 * MS + MS / 10)] {
            // A hundred bytes every 0.1 ms.
            let mut flight = Flight::new(pace(1_000_000, 100, 100_000), start);
            flight.push(start, vec![0; 100]);
            assert_eq!(flight.room(start), Room::At(start + MS / 20));
            let room = 100 + gains;
            assert_eq!(flight.room(start + comes), Room::Bytes(room));
            flight.push(start + comes, vec![0; room]);
            assert_eq!(flight.unsent(start + comes), 100);
            assert_eq!(read(&mut flight, start + last_byte, 5000).len(), 100 + room);
        }
    }

    #[test]
    fn a_large_write_arrives_segment_by_segment() {
        let start = Instant::now();
        let mut flight = Flight::new(pace(1_448_000, 1 << 20, 1 << 20), start);
        flight.push(start, vec![7; 2000]);
        assert_eq!(flight.next_arrival(start), Some(start + 11 * MS));
        assert_eq!(read(&mut flight, start + 11 * MS - MS / 100, 5000), []);
        assert_eq!(read(&mut flight, start + 11 * MS, 5000), [7; 1448]);
        let last = flight.next_arrival(start + 11 * MS).expect("a rest");
        assert!(last > start + 11 * MS && last < start + 12 * MS);
        assert_eq!(read(&mut flight, last, 5000), [7; 552]);
        assert_eq!(flight.next_arrival(last), None);
    }

    #[test]
    fn nobody_reading_stops_the_writer_at_the_window_and_the_unsent_limit() {
        let start = Instant::now();
        let mut flight = Flight::new(pace(1_000_000, 1000, 5000), start);
        let (mut now, mut wrote) = (start, 0);
        loop {
            match flight.room(now) {
                Room::Bytes(room) => {
                    wrote += room;
                    flight.push(now, vec![0; room]);
                }
                Room::At(at) => now = at,
                Room::AfterRead => break,
            }
        }
        assert_eq!(wrote, 6000);
        // Room comes as the reader makes it, byte by byte.
        now += 50 * MS;
        assert_eq!(read(&mut flight, now, 300).len(), 300);
        assert_eq!((flight.held.len(), flight.unsent(now)), (700, 1000));
        assert_eq!(flight.room(now + MS), Room::Bytes(300));
    }

    #[test]
    fn whatever_the_pace_bytes_keep_their_order_and_both_limits_hold() {
        let mut rng = Rng::new(3);
        for _ in 0..300 {
            let mut below = |bound: u64| rng.below(bound) as usize;
            let (limit, window) = (below(3000), below(9000));
            let rate = [1, 900, 1_250_000, 1_000_000_000, 3_000_000_000_000][below(5)];
            let mut flight = Flight::new(pace(rate, limit, window), Instant::now());
            let mut now = flight.free_at;
            let (mut wrote, mut got) = (0usize, 0usize);
            for _ in 0..200 {
                match (flight.room(now), below(3)) {
                    (Room::Bytes(room), 0) => {
                        let len = room.min(1 + below(2000));
                        flight.push(now, (wrote..wrote + len).map(|n| n as u8).collect());
                        wrote += len;
                    }
                    (Room::At(at), 0) => {
                        assert!(at > now);
                        now = at + TICK * below(2) as u32;
                        assert!(matches!(flight.room(now), Room::Bytes(_)), "a kept promise finds room");
                    }
                    (_, 1) => {
                        let bytes = read(&mut flight, now, 1 + below(2000));
                        assert!(bytes.iter().enumerate().all(|(n, byte)| *byte == (got + n) as u8));
                        got += bytes.len();
                    }
                    _ => now += Duration::from_micros(below(5000) as u64),
                }
                assert!(flight.unread <= window.max(1));
                // One more for the byte that is half sent.
                assert!(rate > 1_000_000_000 || flight.unsent(now) <= limit.max(1) + 1);
                assert!(flight.held.is_empty() || flight.window_is_full());
                assert_eq!(flight.unread + flight.held.len(), wrote - got);
            }
            while let Some(at) = flight.next_arrival(now) {
                now = now.max(at);
                let bytes = read(&mut flight, now, 5000);
                assert!(!bytes.is_empty(), "an arrival brings bytes");
                got += bytes.len();
            }
            assert_eq!(got, wrote);
        }
    }
}
