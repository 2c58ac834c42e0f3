//! The session's own frames that wait to be sealed, bounded whatever the peer asks.

use std::collections::{BTreeMap, VecDeque};

use peerage_queue::Flow;
use peerage_wire::frame::{Header, Kind, Lane, MAX_HEADER};

use crate::machine::PINGS;

/// The longest frame of a session's own: a header and eight bytes.
pub(crate) const MAX_OWN: usize = MAX_HEADER + 8;

/// Frames about a flow's credit: the newest of each kind counts.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    credit: Option<u64>,
    reclaim: Option<u64>,
    reclaimed: Option<u64>,
}

/// Pings of ours (one a timer), answers to pings (at most [`PINGS`]), one farewell, and three frames a flow; of each
/// stream its beginning, a reset and a stop, of which the rules of streams let a peer cause so many in a time.
#[derive(Debug, Default)]
pub(crate) struct OwnFrames {
    frames: VecDeque<(Kind, Vec<u8>)>,
    /// Beginnings and ends of streams, in order.
    streams: VecDeque<(Header, Vec<u8>)>,
    limits: BTreeMap<Flow, Limits>,
}

impl OwnFrames {
    /// Queues a frame. Of a flood of pings the newest are answered; false if an older answer made room.
    pub(crate) fn push(&mut self, kind: Kind, payload: Vec<u8>) -> bool {
        let pongs = self.frames.iter().filter(|(kind, _)| *kind == Kind::Pong).count();
        let crowded = kind == Kind::Pong && pongs >= PINGS;
        if crowded && let Some(oldest) = self.frames.iter().position(|(kind, _)| *kind == Kind::Pong) {
            self.frames.remove(oldest);
        }
        self.frames.push_back((kind, payload));
        !crowded
    }

    pub(crate) fn credit(&mut self, flow: Flow, limit: u64) {
        self.limits.entry(flow).or_default().credit = Some(limit);
    }

    pub(crate) fn reclaim(&mut self, flow: Flow, limit: u64) {
        self.limits.entry(flow).or_default().reclaim = Some(limit);
    }

    pub(crate) fn reclaimed(&mut self, flow: Flow, limit: u64) {
        self.limits.entry(flow).or_default().reclaimed = Some(limit);
    }

    /// A stream begins. This goes out before any byte of it.
    pub(crate) fn open(&mut self, flow: Flow) {
        let header = Header { stream: flow.stream, ..Header::new(Kind::Open, flow.lane, flow.channel.0, 0) };
        self.streams.push_back((header, Vec::new()));
    }

    /// A direction of a stream ends with a code.
    pub(crate) fn end_stream(&mut self, kind: Kind, flow: Flow, code: u32) {
        let header = Header { stream: flow.stream, ..Header::new(kind, flow.lane, flow.channel.0, 4) };
        self.streams.push_back((header, code.to_be_bytes().to_vec()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.streams.is_empty() && self.limits.is_empty()
    }

    /// Takes the next frame: of one flow, credit first, because a later request for it back must not overtake it.
    pub(crate) fn pop(&mut self) -> Option<(Header, Vec<u8>)> {
        if let Some((kind, payload)) = self.frames.pop_front() {
            return Some((Header::new(kind, Lane::Control, 0, payload.len() as u16), payload));
        }
        if let Some(frame) = self.streams.pop_front() {
            return Some(frame);
        }
        loop {
            let Some(mut entry) = self.limits.first_entry() else {
                // An empty map keeps a node's memory, and most sessions are idle.
                self.limits = BTreeMap::new();
                self.streams = VecDeque::new();
                return None;
            };
            let (flow, limits) = (*entry.key(), entry.get_mut());
            let slots = [
                (Kind::Credit, &mut limits.credit),
                (Kind::Reclaim, &mut limits.reclaim),
                (Kind::Reclaimed, &mut limits.reclaimed),
            ];
            let frame = slots.into_iter().find_map(|(kind, limit)| Some((kind, limit.take()?)));
            let Some((kind, limit)) = frame else {
                entry.remove();
                continue;
            };
            let header = Header { stream: flow.stream, ..Header::new(kind, flow.lane, flow.channel.0, 8) };
            return Some((header, limit.to_be_bytes().to_vec()));
        }
    }

    /// Takes the farewell, if there is one, and leaves nothing.
    pub(crate) fn farewell(&mut self) -> Option<Vec<u8>> {
        let frames = std::mem::take(self).frames;
        frames.into_iter().find(|(kind, _)| *kind == Kind::Disconnect).map(|(_, payload)| payload)
    }
}

#[cfg(test)]
mod tests {
    use peerage_queue::ChannelId;

    use super::*;

    #[test]
    fn a_flood_of_pings_keeps_only_the_newest_answers_and_the_farewell() {
        let mut own = OwnFrames::default();
        assert!(own.push(Kind::Ping, vec![0]));
        for n in 0..1000u16 {
            assert_eq!(own.push(Kind::Pong, n.to_be_bytes().to_vec()), usize::from(n) < PINGS);
        }
        assert!(own.push(Kind::Disconnect, vec![0, 2]));
        let mut pop = || own.pop().map(|(header, payload)| (header.kind, payload));
        assert_eq!(pop(), Some((Kind::Ping, vec![0])));
        assert_eq!(pop(), Some((Kind::Pong, (1000 - PINGS as u16).to_be_bytes().to_vec())));
        assert_eq!(own.frames.len(), PINGS);
        assert_eq!(own.farewell(), Some(vec![0, 2]));
        assert!(own.pop().is_none() && own.is_empty());
    }

    #[test]
    fn of_many_limits_of_a_flow_the_newest_goes_out_before_any_is_asked_back() {
        let mut own = OwnFrames::default();
        let flow = |lane| Flow { channel: ChannelId(2), stream: 0, lane };
        own.reclaim(flow(Lane::High), 5);
        for limit in 0..1000 {
            own.credit(flow(Lane::High), limit);
            own.credit(flow(Lane::Bulk), limit);
        }
        own.reclaimed(flow(Lane::High), 7);
        let mut sent = Vec::new();
        while let Some((header, payload)) = own.pop() {
            assert!(header.encoded_len() + payload.len() <= MAX_OWN && header.channel == 2);
            sent.push((header.kind, header.lane, payload[6..].to_vec()));
        }
        assert_eq!(
            sent,
            [
                (Kind::Credit, Lane::High, vec![3, 231]),
                (Kind::Reclaim, Lane::High, vec![0, 5]),
                (Kind::Reclaimed, Lane::High, vec![0, 7]),
                (Kind::Credit, Lane::Bulk, vec![3, 231]),
            ]
        );
        assert!(own.is_empty());
    }
}
