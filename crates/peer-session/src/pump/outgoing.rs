//! What goes out: from the lanes through frames and records to the socket, a turn at a time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use peerage_machine::Time;
use peerage_wire::frame::{Header, Kind, Lane, MAX_HEADER};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Pump;
use crate::machine::{In, Writing};
use crate::own::MAX_OWN;
use crate::records::MAX_PLAIN;

/// A turn is what the socket takes in about this long: what is urgent waits behind that much at most.
const TURN_TIME: Duration = Duration::from_millis(5);
/// Bounds of a turn, in bytes.
const SMALLEST: usize = 4 * 1024;
const LARGEST: usize = 1 << 20;
const FIRST: usize = 32 * 1024;

/// What is sealed and waits for the socket.
pub(super) struct Turn {
    bytes: Vec<u8>,
    written: usize,
    /// Whether the socket had no room for some of it.
    blocked: bool,
    /// Whether the lanes had nothing beyond it when it was sealed, in this poll, and wake the task when they have.
    last: bool,
    /// How large the next may be.
    size: usize,
    /// When the socket was full last, and what it took since: between two such instants it took what it sent.
    full_at: Option<Time>,
    since_full: usize,
    /// What the system was told to let wait, beside the turn.
    unsent_limit: usize,
}

impl Default for Turn {
    fn default() -> Self {
        Turn {
            bytes: Vec::new(),
            written: 0,
            blocked: false,
            last: false,
            size: FIRST,
            full_at: None,
            since_full: 0,
            unsent_limit: LARGEST,
        }
    }
}

impl Turn {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn wrote(&mut self, len: usize) {
        self.written += len;
        self.since_full += len;
    }

    /// The socket is full: sizes the turns to come by what it sent since it was so last.
    fn full(&mut self, now: Time) {
        if let Some(took) = self.full_at.map(|at| now.since(at)).filter(|took| *took > Duration::ZERO) {
            let fitting = self.since_full as u128 * TURN_TIME.as_nanos() / took.as_nanos();
            let fitting = usize::try_from(fitting).unwrap_or(LARGEST).clamp(SMALLEST, LARGEST);
            self.size = self.size.midpoint(fitting);
        }
        self.full_at = Some(now);
        self.since_full = 0;
        self.blocked = true;
    }

    /// The limit that the system should be told, when it is far from the one it was: as much as a turn.
    fn new_limit(&mut self) -> Option<usize> {
        let far = self.size < self.unsent_limit / 2 || self.size > self.unsent_limit.saturating_mul(2);
        far.then(|| {
            self.unsent_limit = self.size;
            self.size
        })
    }

    /// The socket took all of it. One that is not full however much it gets can have more at a time.
    fn taken(&mut self) {
        if self.since_full >= 8 * self.size {
            self.size = (self.size * 2).min(LARGEST);
            self.since_full = 0;
            self.full_at = None;
        }
        self.written = 0;
        self.blocked = false;
    }
}

impl Pump {
    /// Writes what waits, and what the lanes have. Returns how many bytes the socket took.
    pub(super) fn poll_write(&mut self, now: Time, cx: &mut Context<'_>) -> usize {
        let mut moved = 0;
        // What was offered since the task was woken found its waker, and left none for the next.
        self.turn.last = false;
        while self.ended.is_none() && moved < super::BUDGET / 2 {
            if self.turn.is_empty() {
                self.seal(now, cx);
                if self.turn.is_empty() {
                    break;
                }
            }
            match Pin::new(&mut self.stream).poll_write(cx, &self.turn.bytes[self.turn.written..]) {
                Poll::Ready(Ok(len @ 1..)) => {
                    moved += len;
                    self.counters.sent(len);
                    self.turn.wrote(len);
                    if self.turn.written == self.turn.bytes.len() {
                        self.turn_done(cx);
                        if self.turn.last && self.own.is_empty() {
                            break;
                        }
                    }
                }
                Poll::Ready(_) => self.input(now, In::Broken),
                Poll::Pending => {
                    if !self.turn.blocked {
                        self.turn.full(now);
                        if let Some(limit) = self.turn.new_limit() {
                            self.stream.limit_unsent(limit);
                        }
                        self.input(now, In::Writing(Writing::Waiting));
                    }
                    break;
                }
            }
        }
        moved
    }

    fn turn_done(&mut self, cx: &mut Context<'_>) {
        // A stream of somebody else's may keep what it took until it is told to send it.
        let _ = Pin::new(&mut self.stream).poll_flush(cx);
        if self.turn.blocked {
            self.input(self.clock.now(), In::Writing(Writing::Done));
        }
        self.turn.taken();
        self.buffers.give_write(std::mem::take(&mut self.turn.bytes));
    }

    /// Seals the session's own frames and then as much of the lanes as a turn takes, many frames a record.
    fn seal(&mut self, now: Time, cx: &mut Context<'_>) {
        let mut out = self.buffers.write();
        let Pump { keys, own, lanes, metrics, tap, batch, turn, throttle, .. } = self;
        turn.last = false;
        // Own frames go in any case, and are paid for later; who has nothing else to send asks for nothing.
        let idle = throttle.limits_upload() && lanes.is_empty();
        let size = if idle {
            // What it waited to write was dropped meanwhile.
            throttle.writes_nothing(now);
            turn.size
        } else {
            throttle.may_write(now, turn.size)
        };
        let mut ends = Vec::new();
        loop {
            let start = keys.sealer.begin(&mut out);
            let text = out.len();
            while out.len() - text + MAX_OWN <= MAX_PLAIN
                && let Some((header, payload)) = own.pop()
            {
                header.encode(&mut out);
                out.extend_from_slice(&payload);
            }
            // Own frames come first and do not count: a turn of them alone would never reach the lanes.
            let room = (MAX_PLAIN - (out.len() - text)).min(size.saturating_sub(text).max(SMALLEST / 2));
            // Who waits for bandwidth has its alarm.
            turn.last = size == 0 || !lanes.pop_batch(now, room, cx, batch);
            if let Some(tap) = tap {
                batch.iter().for_each(|fragment| tap.sealed(fragment));
            }
            for fragment in batch.drain(..) {
                let total = fragment.total.map(u32::to_be_bytes);
                let len = fragment.payload.len() + total.map_or(0, |total| total.len());
                let header = Header {
                    more: fragment.more,
                    total: total.is_some(),
                    end: fragment.end,
                    stream: fragment.flow.stream,
                    ..Header::new(Kind::Data, fragment.flow.lane, fragment.flow.channel.0, len as u16)
                };
                header.encode(&mut out);
                out.extend_from_slice(total.as_ref().map_or(&[], |total| &total[..]));
                out.extend_from_slice(&fragment.payload);
                let whole = !fragment.more && fragment.flow.stream == 0;
                metrics.sent(fragment.flow.channel, fragment.payload.len(), whole);
                ends.extend(fragment.end.then_some(fragment.flow.stream));
            }
            let nothing = out.len() == text;
            keys.sealer.finish(&mut out, start);
            if nothing || (turn.last && own.is_empty()) || out.len() >= size {
                break;
            }
        }
        throttle.have_written(now, out.len());
        if out.is_empty() {
            return self.buffers.give_write(out);
        }
        self.turn.bytes = out;
        if self.own.is_empty() {
            self.stream_ends_said(now);
        }
        self.stream_ends_sent(now, ends);
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        let written = std::mem::take(&mut self.turn.written);
        let bytes = std::mem::take(&mut self.turn.bytes);
        self.stream.write_all(&bytes[written..]).await
    }

    /// Sends what is sealed and the session's last frame, within its time.
    pub(super) async fn farewell(&mut self) {
        let farewell = self.own.farewell();
        let mut last = Vec::new();
        let start = self.keys.sealer.begin(&mut last);
        if let Some(payload) = farewell {
            Header::new(Kind::Disconnect, Lane::Control, 0, payload.len() as u16).encode(&mut last);
            last.extend_from_slice(&payload);
        }
        self.keys.sealer.finish(&mut last, start);
        let limit = self.disconnect_timeout;
        let goodbye = async {
            if self.flush().await.is_ok()
                && self.stream.write_all(&last).await.is_ok()
                && self.stream.shutdown().await.is_ok()
            {
                linger(&mut self.stream).await;
            }
        };
        let _ = tokio::time::timeout(limit, goodbye).await;
    }
}

/// Reads and forgets what the peer still sends, until it has closed its end. A socket that is closed with
/// unread bytes resets the connection, and the peer's kernel then drops the farewell that it has not read yet.
pub(crate) async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let mut forgotten = [0; 4096];
    while let Ok(1..) = stream.read(&mut forgotten).await {}
}

const _: () = assert!(MAX_OWN >= MAX_HEADER + 8);
