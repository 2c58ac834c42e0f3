//! What of a session's streams goes out next: deficit round robin among those that have bytes and credit.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use peerage_wire::frame::{Lane, MAX_FRAGMENT, MAX_HEADER, STREAM_WINDOW};

use crate::{Flow, Fragment};

/// Bytes a stream may have waiting while its peer lets it send as many: enough that its task is not woken for every
/// record.
const BUFFER: u64 = 256 << 10;
/// Bytes it may have waiting without credit. Little, so that streams that their peer never reads leave the peer's part of
/// the pool to its messages.
const BUFFER_WITHOUT_CREDIT: u64 = 16 << 10;
/// Bytes a stream may send in its turn (as much as one fragment of a message flow).
const QUANTUM: i64 = MAX_FRAGMENT as i64;
/// With less credit or room than this a longer write waits: fragments of a few bytes cost more than they carry.
const SLIVER: u64 = 1024;

#[derive(Debug)]
struct Out {
    flow: Flow,
    chunks: VecDeque<Bytes>,
    bytes: u64,
    /// Its writer has finished.
    end: bool,
    sent: u64,
    limit: u64,
    /// What is left of its turn, or what the last fragment took beyond it.
    deficit: i64,
    /// It stands in its lane's ring: it can send.
    in_ring: bool,
    /// Its writer waits for room.
    awaited: bool,
}

impl Out {
    /// Whether at least half of the room that it may have is there.
    fn roomy(&self) -> bool {
        self.room() >= self.bytes
    }

    const fn credit(&self) -> u64 {
        self.limit.saturating_sub(self.sent)
    }

    fn sendable(&self) -> bool {
        if self.bytes == 0 { self.end } else { self.credit() >= self.bytes.min(SLIVER) }
    }

    fn room(&self) -> u64 {
        self.credit().clamp(BUFFER_WITHOUT_CREDIT, BUFFER).saturating_sub(self.bytes)
    }
}

/// Where each lane's ring is.
const fn ring(lane: Lane) -> Option<usize> {
    match lane {
        Lane::Normal => Some(0),
        Lane::Bulk => Some(1),
        Lane::Control | Lane::High => None,
    }
}

/// The outgoing directions of a session's streams. Each holds at most 256 KiB, and 16 KiB while its peer gives it no
/// credit.
#[derive(Debug, Default)]
pub struct Outgoing {
    streams: BTreeMap<u64, Out>,
    /// Streams that can send, in their order, by lane.
    rings: [VecDeque<u64>; 2],
    /// Streams whose writers waited and have room now.
    roomy: Vec<u64>,
    /// Bytes queued, and bytes that went out since that was asked.
    bytes: usize,
    popped: usize,
}

impl Outgoing {
    /// Adds a stream, which may send the first window at once. Nothing for the lanes that have no streams.
    pub fn open(&mut self, flow: Flow) {
        if ring(flow.lane).is_some() {
            self.streams.entry(flow.stream).or_insert(Out {
                flow,
                chunks: VecDeque::new(),
                bytes: 0,
                end: false,
                sent: 0,
                limit: STREAM_WINDOW,
                deficit: 0,
                in_ring: false,
                awaited: false,
            });
        }
    }

    /// How many bytes of a write of `len` there is room for now; 0 if that is too little to be worth it. `None` if the
    /// stream is not open.
    pub fn room(&self, stream: u64, len: usize) -> Option<usize> {
        let out = self.streams.get(&stream).filter(|out| !out.end)?;
        let room = out.room();
        Some(if room < SLIVER.min(len as u64) { 0 } else { (room as usize).min(len) })
    }

    /// Queues bytes, for which there [is room](Outgoing::room).
    pub fn push(&mut self, stream: u64, bytes: Bytes) {
        if let Some(out) = self.streams.get_mut(&stream).filter(|out| !out.end && !bytes.is_empty()) {
            out.bytes += bytes.len() as u64;
            self.bytes += bytes.len();
            out.chunks.push_back(bytes);
            self.settle(stream);
        }
    }

    /// Its writer has finished: what is queued goes out, and then the end. False if the stream is not open.
    pub fn finish(&mut self, stream: u64) -> bool {
        let Some(out) = self.streams.get_mut(&stream).filter(|out| !out.end) else { return false };
        out.end = true;
        self.settle(stream);
        true
    }

    /// The peer takes up to `limit` bytes since the stream was opened. A lower limit than before counts for nothing.
    pub fn grant(&mut self, stream: u64, limit: u64) {
        if let Some(out) = self.streams.get_mut(&stream) {
            out.limit = out.limit.max(limit);
            self.settle(stream);
        }
    }

    /// Goes back to `limit` if no more than that was sent, and says which limit holds now.
    pub fn reclaim(&mut self, stream: u64, limit: u64) -> u64 {
        let Some(out) = self.streams.get_mut(&stream) else { return limit };
        out.limit = out.limit.min(limit.max(out.sent));
        let limit = out.limit;
        self.settle(stream);
        limit
    }

    /// Forgets a stream; how many bytes of it were queued.
    pub fn remove(&mut self, stream: u64) -> usize {
        let Some(out) = self.streams.remove(&stream) else { return 0 };
        if let Some(ring) = ring(out.flow.lane).filter(|_| out.in_ring) {
            self.rings[ring].retain(|known| *known != stream);
        }
        self.bytes -= out.bytes as usize;
        out.bytes as usize
    }

    /// Puts a stream that can send into its ring, and takes one out that cannot; tells a writer that there is room.
    fn settle(&mut self, stream: u64) {
        let Some(out) = self.streams.get_mut(&stream) else { return };
        if let Some(ring) = ring(out.flow.lane)
            && out.in_ring != out.sendable()
        {
            out.in_ring = !out.in_ring;
            if out.in_ring {
                self.rings[ring].push_back(stream);
            } else {
                self.rings[ring].retain(|known| *known != stream);
            }
        }
        if out.awaited && out.roomy() {
            out.awaited = false;
            self.roomy.push(stream);
        }
    }

    /// Its writer waits for room: it will be among the [roomy](Outgoing::take_roomy), once.
    pub fn wait(&mut self, stream: u64) {
        if let Some(out) = self.streams.get_mut(&stream) {
            out.awaited = true;
        }
    }

    /// The streams whose writers waited, and for which there is room now.
    pub fn take_roomy(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.roomy)
    }

    /// Bytes that went out since this was called last.
    pub const fn take_popped(&mut self) -> usize {
        std::mem::replace(&mut self.popped, 0)
    }

    /// Whether a stream of the lane can send.
    pub fn ready(&self, lane: Lane) -> bool {
        ring(lane).is_some_and(|ring| !self.rings[ring].is_empty())
    }

    /// Takes the next fragment of a lane's streams, of at most `room` bytes. With its [end](Fragment::end), the stream is
    /// forgotten.
    pub fn pop(&mut self, lane: Lane, room: usize) -> Option<Fragment> {
        let line = &mut self.rings[ring(lane)?];
        let stream = *line.front()?;
        let out = self.streams.get_mut(&stream)?;
        if out.deficit <= 0 {
            out.deficit += QUANTUM;
        }
        let mut payload = Bytes::new();
        let most = room.clamp(1, MAX_FRAGMENT).min(usize::try_from(out.credit()).unwrap_or(usize::MAX));
        if let Some(first) = out.chunks.front_mut() {
            payload = first.split_to(most.min(first.len()));
            if first.is_empty() {
                out.chunks.pop_front();
            }
        }
        let len = payload.len() as u64;
        (out.bytes, out.sent) = (out.bytes - len, out.sent + len);
        (self.bytes, self.popped) = (self.bytes - payload.len(), self.popped + payload.len());
        // The header counts, or a stream of single bytes would cost its turn little.
        out.deficit -= (payload.len() + MAX_HEADER) as i64;
        let end = out.end && out.bytes == 0;
        let fragment = Fragment { flow: out.flow, total: None, more: false, end, payload };
        let goes_on = !end && out.sendable();
        if !goes_on || out.deficit <= 0 {
            line.pop_front();
            out.in_ring = goes_on;
            if goes_on {
                line.push_back(stream);
            } else {
                // Nothing is saved up while a stream has nothing to send.
                out.deficit = out.deficit.min(0);
            }
        }
        if end {
            self.streams.remove(&stream);
        } else if out.awaited && out.roomy() {
            out.awaited = false;
            self.roomy.push(stream);
        }
        Some(fragment)
    }

    /// Bytes queued, of all streams.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no stream can send: those that wait for credit do not hold up a session's friendly end.
    pub fn is_idle(&self) -> bool {
        self.rings.iter().all(VecDeque::is_empty)
    }

    /// Forgets everything; how many bytes were queued.
    pub fn clear(&mut self) -> usize {
        std::mem::take(self).bytes
    }

    /// Gives back the memory of what is empty.
    pub fn rest(&mut self) {
        self.rings.iter_mut().filter(|ring| ring.is_empty()).for_each(|ring| *ring = VecDeque::new());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::ChannelId;

    fn flow(stream: u64) -> Flow {
        Flow { channel: ChannelId(1), stream, lane: Lane::Bulk }
    }

    fn with(streams: impl IntoIterator<Item = u64>) -> Outgoing {
        let mut outgoing = Outgoing::default();
        streams.into_iter().for_each(|stream| outgoing.open(flow(stream)));
        outgoing
    }

    fn pop(outgoing: &mut Outgoing) -> Option<(u64, usize, bool)> {
        let fragment = outgoing.pop(Lane::Bulk, usize::MAX)?;
        Some((fragment.flow.stream, fragment.payload.len(), fragment.end))
    }

    #[test]
    fn a_stream_sends_what_it_has_credit_for_and_its_end_needs_none() {
        let mut outgoing = with([1]);
        assert_eq!(outgoing.room(1, 100_000), Some(BUFFER_WITHOUT_CREDIT as usize));
        outgoing.push(1, Bytes::from(vec![0; STREAM_WINDOW as usize]));
        assert_eq!((outgoing.room(1, 100), outgoing.is_idle()), (Some(0), false));
        assert_eq!(pop(&mut outgoing), Some((1, STREAM_WINDOW as usize, false)));
        assert_eq!(pop(&mut outgoing), None);
        outgoing.push(1, Bytes::from_static(b"rest"));
        assert!(pop(&mut outgoing).is_none() && outgoing.is_idle(), "no credit");
        assert!(outgoing.finish(1) && !outgoing.finish(1));
        outgoing.grant(1, STREAM_WINDOW + 4);
        assert_eq!(pop(&mut outgoing), Some((1, 4, true)));
        assert_eq!((outgoing.room(1, 1), outgoing.bytes()), (None, 0), "and is forgotten");
        let mut outgoing = with([3]);
        assert!(outgoing.finish(3));
        assert_eq!(pop(&mut outgoing), Some((3, 0, true)));
    }

    #[test]
    fn streams_share_by_bytes_however_they_cut_their_writes_and_a_blocked_one_is_passed_over() {
        let mut outgoing = with([1, 3, 5]);
        let mut sent = BTreeMap::<u64, usize>::new();
        outgoing.grant(1, 1 << 30);
        outgoing.grant(3, 1 << 30);
        for _ in 0..2000 {
            for (stream, len) in [(1, 16_000), (3, 500), (5, 8000)] {
                while outgoing.room(stream, len).is_some_and(|room| room >= len) {
                    outgoing.push(stream, Bytes::from(vec![0; len]));
                }
            }
            let (stream, len, _) = pop(&mut outgoing).expect("two have credit");
            *sent.entry(stream).or_default() += len;
        }
        assert_eq!(sent[&5], 16_000, "the peer does not read it, and the rest of its window is not worth a frame");
        let (large, small) = (sent[&1], sent[&3]);
        assert!(large.abs_diff(small) < large / 20 + QUANTUM as usize, "{large} and {small}");
    }

    #[test]
    fn credit_that_was_taken_back_is_not_sent() {
        let mut outgoing = with([1]);
        outgoing.push(1, Bytes::from(vec![0; 10_000]));
        assert_eq!(outgoing.reclaim(1, 100), 100);
        assert_eq!((pop(&mut outgoing), outgoing.is_idle()), (None, true));
        outgoing.grant(1, 20_000);
        assert_eq!(pop(&mut outgoing), Some((1, 10_000, false)));
        assert_eq!(outgoing.reclaim(1, 100), 10_000, "what was sent was sent");
    }

    proptest! {
        #[test]
        fn every_byte_goes_out_once_in_order_and_never_beyond_the_credit(
            ops in proptest::collection::vec((0u8..5, 0u64..4, 1usize..40_000), 1..300),
        ) {
            let mut outgoing = with(0..4);
            let (mut written, mut sent, mut limits) = ([0u64; 4], [0u64; 4], [STREAM_WINDOW; 4]);
            let (mut finished, mut ended) = (BTreeSet::new(), BTreeSet::new());
            for (op, stream, n) in ops {
                let at = stream as usize;
                match op {
                    0 | 1 => {
                        let room = outgoing.room(stream, n).unwrap_or(0);
                        let bytes = (0..room as u64).map(|i| (written[at] + i) as u8).collect::<Vec<_>>();
                        outgoing.push(stream, bytes.into());
                        written[at] += room as u64;
                    }
                    2 => {
                        limits[at] += n as u64;
                        outgoing.grant(stream, limits[at]);
                    }
                    3 if n < 2000 && outgoing.finish(stream) => { finished.insert(stream); }
                    _ => {
                        if let Some(fragment) = outgoing.pop(Lane::Bulk, n) {
                            let at = fragment.flow.stream as usize;
                            for byte in &fragment.payload {
                                prop_assert_eq!(*byte, sent[at] as u8);
                                sent[at] += 1;
                            }
                            prop_assert!(sent[at] <= limits[at]);
                            if fragment.end {
                                prop_assert_eq!(sent[at], written[at]);
                                prop_assert!(ended.insert(fragment.flow.stream));
                            }
                        }
                    }
                }
                let waiting: u64 = (0..4).map(|at| written[at] - sent[at]).sum();
                prop_assert_eq!(outgoing.bytes() as u64, waiting);
            }
            for stream in 0..4u64 {
                outgoing.grant(stream, u64::MAX);
            }
            while let Some(fragment) = outgoing.pop(Lane::Bulk, usize::MAX) {
                sent[fragment.flow.stream as usize] += fragment.payload.len() as u64;
                if fragment.end {
                    ended.insert(fragment.flow.stream);
                }
            }
            prop_assert_eq!(sent, written);
            prop_assert_eq!(ended, finished);
        }
    }
}
