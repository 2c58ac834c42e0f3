//! The frame header: what every byte after the handshake travels under.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | kind |
//! | 1 | lane (low two bits) and flags |
//! | 2 | channel, big-endian |
//! | 1–8 | stream, LEB128 |
//! | 2 | payload length, big-endian |
//!
//! Many frames share an encrypted record and none crosses records. A frame of an unknown kind is skipped
//! by its length and counted, which is how kinds are added later.

use serde::{Deserialize, Serialize};

/// Longest payload of one frame. Longer messages travel in fragments, so that a ping or a vote overtakes
/// a 16 MiB transfer.
pub const MAX_FRAGMENT: usize = 16 * 1024;

/// Longest header.
pub const MAX_HEADER: usize = 2 + 2 + 8 + 2;

/// Largest stream id: what eight bytes of LEB128 hold.
pub const MAX_STREAM: u64 = (1 << 56) - 1;

/// What a message costs of its flow's credit besides its bytes: about what it takes of the receiver's memory while it is
/// queued, so that a window bounds empty messages, too.
pub const MESSAGE_COST: u64 = 64;

/// The credit that each flow begins with, by lane, in bytes: whoever opens a channel lets the other end send as much at
/// once, without a frame that says so.
pub const fn first_window(lane: Lane) -> u64 {
    match lane {
        Lane::Normal => 64 << 10,
        Lane::Bulk => 32 << 10,
        Lane::Control | Lane::High => 16 << 10,
    }
}

/// What one channel of a session takes of the receiver's memory at least: its four [`first_window`]s, in bytes.
pub const CHANNEL_WINDOW: usize = 128 << 10;

/// The credit that each direction of a stream begins with, in bytes: whoever opens one may send as much at once. Streams
/// count payload bytes alone.
pub const STREAM_WINDOW: u64 = 16 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A message of a channel, or a fragment of one.
    Data,
    /// Payload: an 8-byte nonce, to be answered.
    Ping,
    /// Payload: the nonce of the ping it answers.
    Pong,
    /// Payload: the reason as u16, big-endian. The sender's last frame.
    Disconnect,
    /// The accepting end has reserved a place. Its first frame, unless that is `Disconnect`.
    Accepted,
    /// Payload: a u64, big-endian. The other end may send, on this channel, stream and lane, messages that cost up to
    /// this much since the session began (their bytes, and [`MESSAGE_COST`] each). A smaller limit than before counts
    /// for nothing.
    Credit,
    /// Payload: a u64, big-endian. Asks the other end to go back to this limit, because its credit lies idle.
    Reclaim,
    /// Payload: a u64, big-endian. The answer: the limit that holds from now on.
    Reclaimed,
    /// Opens a stream of the header's channel and lane (normal or bulk), with the next id of the sender's side. No payload.
    Open,
    /// Payload: a code as u32, big-endian. The sender ends its direction of the stream, and what it sent counts for nothing.
    Reset,
    /// Payload: a code as u32, big-endian. The sender reads no more of the stream: the other end is to reset its direction.
    Stop,
    /// A kind of a later version.
    Unknown(u8),
}

impl Kind {
    /// The byte on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Kind::Data => 0,
            Kind::Ping => 1,
            Kind::Pong => 2,
            Kind::Disconnect => 3,
            Kind::Accepted => 4,
            Kind::Credit => 5,
            Kind::Reclaim => 6,
            Kind::Reclaimed => 7,
            Kind::Open => 8,
            Kind::Reset => 9,
            Kind::Stop => 10,
            Kind::Unknown(code) => code,
        }
    }

    /// The kind with this byte.
    pub const fn from_code(code: u8) -> Kind {
        match code {
            0 => Kind::Data,
            1 => Kind::Ping,
            2 => Kind::Pong,
            3 => Kind::Disconnect,
            4 => Kind::Accepted,
            5 => Kind::Credit,
            6 => Kind::Reclaim,
            7 => Kind::Reclaimed,
            8 => Kind::Open,
            9 => Kind::Reset,
            10 => Kind::Stop,
            code => Kind::Unknown(code),
        }
    }
}

/// How urgent a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// The session's own and what protocols need to stay healthy; bounded by counts.
    Control = 0,
    /// Small and urgent: votes, requests.
    High = 1,
    /// The ordinary.
    Normal = 2,
    /// Large transfers, whose senders wait.
    Bulk = 3,
}

impl Lane {
    /// All lanes, most urgent first.
    pub const ALL: [Lane; 4] = [Lane::Control, Lane::High, Lane::Normal, Lane::Bulk];

    const fn from_bits(bits: u8) -> Lane {
        match bits & 3 {
            0 => Lane::Control,
            1 => Lane::High,
            2 => Lane::Normal,
            _ => Lane::Bulk,
        }
    }

    /// A word for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Lane::Control => "control",
            Lane::High => "high",
            Lane::Normal => "normal",
            Lane::Bulk => "bulk",
        }
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// How urgent its message is; also which reassembly it belongs to.
    pub lane: Lane,
    /// More fragments of this message follow.
    pub more: bool,
    /// The payload begins with the message's total length, u32 big-endian: set on the first fragment of
    /// a message that has several.
    pub total: bool,
    /// The sender sends no more on this stream.
    pub end: bool,
    /// Flag bits of a later version, in place (the upper three bits).
    pub reserved: u8,
    /// 0: the session's own. Others: see [`match_capabilities`](crate::match_capabilities).
    pub channel: u16,
    /// 0: the channel's message flow. Others: bidirectional streams, odd from the dialling end.
    pub stream: u64,
    /// Bytes of payload, at most [`MAX_FRAGMENT`].
    pub len: u16,
}

const MORE: u8 = 1 << 2;
const TOTAL: u8 = 1 << 3;
const END: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The record ends inside the frame.
    #[error("frame cut short")]
    Short,
    /// A stream id longer than eight bytes, or padded.
    #[error("malformed stream id")]
    Stream,
    /// More than [`MAX_FRAGMENT`] bytes.
    #[error("frame of {0} bytes, and at most {MAX_FRAGMENT} are allowed")]
    TooLong(u16),
}

impl Header {
    /// A header without flags on stream 0.
    pub const fn new(kind: Kind, lane: Lane, channel: u16, len: u16) -> Header {
        Header { kind, lane, more: false, total: false, end: false, reserved: 0, channel, stream: 0, len }
    }

    /// Bytes this header takes.
    pub const fn encoded_len(&self) -> usize {
        let bits = u64::BITS - self.stream.leading_zeros();
        6 + if bits == 0 { 1 } else { bits.div_ceil(7) as usize }
    }

    /// Appends the header.
    pub fn encode(&self, to: &mut Vec<u8>) {
        debug_assert!(self.stream <= MAX_STREAM && usize::from(self.len) <= MAX_FRAGMENT);
        let mut flags = self.lane as u8 | (self.reserved & RESERVED);
        for (set, bit) in [(self.more, MORE), (self.total, TOTAL), (self.end, END)] {
            flags |= if set { bit } else { 0 };
        }
        to.extend_from_slice(&[self.kind.code(), flags]);
        to.extend_from_slice(&self.channel.to_be_bytes());
        let mut stream = self.stream;
        while stream > 0x7f {
            to.push(stream as u8 | 0x80);
            stream >>= 7;
        }
        to.push(stream as u8);
        to.extend_from_slice(&self.len.to_be_bytes());
    }

    /// Takes one frame, header and payload, off the front of a record.
    ///
    /// # Errors
    /// [`FrameError`]. A frame of an unknown kind is not an error.
    pub fn decode<'a>(record: &mut &'a [u8]) -> Result<(Header, &'a [u8]), FrameError> {
        let (&[kind, flags, c0, c1], mut rest) = record.split_first_chunk::<4>().ok_or(FrameError::Short)?;
        let mut stream = 0u64;
        for position in 0.. {
            let (&byte, after) = rest.split_first().ok_or(FrameError::Short)?;
            rest = after;
            stream |= u64::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                if byte == 0 && position > 0 {
                    return Err(FrameError::Stream);
                }
                break;
            }
            if position == 7 {
                return Err(FrameError::Stream);
            }
        }
        let (len, rest) = rest.split_first_chunk::<2>().ok_or(FrameError::Short)?;
        let len = u16::from_be_bytes(*len);
        if usize::from(len) > MAX_FRAGMENT {
            return Err(FrameError::TooLong(len));
        }
        let (payload, rest) = rest.split_at_checked(usize::from(len)).ok_or(FrameError::Short)?;
        *record = rest;
        let header = Header {
            kind: Kind::from_code(kind),
            lane: Lane::from_bits(flags),
            more: flags & MORE != 0,
            total: flags & TOTAL != 0,
            end: flags & END != 0,
            reserved: flags & RESERVED,
            channel: u16::from_be_bytes([c0, c1]),
            stream,
            len,
        };
        Ok((header, payload))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(header: Header) -> Vec<u8> {
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        assert_eq!(bytes.len(), header.encoded_len());
        bytes
    }

    #[test]
    fn the_first_windows_of_a_channel_add_up() {
        assert_eq!(Lane::ALL.map(first_window).iter().sum::<u64>(), CHANNEL_WINDOW as u64);
    }

    #[test]
    fn headers_are_these_bytes() {
        let ping = Header::new(Kind::Ping, Lane::Control, 0, 8);
        assert_eq!(encoded(ping), [1, 0, 0, 0, 0, 0, 8]);
        let kinds = [Kind::Data, Kind::Ping, Kind::Pong, Kind::Disconnect, Kind::Accepted, Kind::Credit, Kind::Reclaim];
        let later = [Kind::Reclaimed, Kind::Open, Kind::Reset, Kind::Stop, Kind::Unknown(11)];
        for (code, kind) in (0..).zip(kinds.into_iter().chain(later)) {
            assert_eq!((kind.code(), Kind::from_code(code)), (code, kind));
        }
        let credit = Header::new(Kind::Credit, Lane::Bulk, 2, 8);
        assert_eq!(encoded(credit), [5, 3, 0, 2, 0, 0, 8]);
        let open = Header { stream: 1, ..Header::new(Kind::Open, Lane::Bulk, 2, 0) };
        assert_eq!(encoded(open), [8, 3, 0, 2, 1, 0, 0]);
        let end = Header { end: true, stream: 129, ..Header::new(Kind::Data, Lane::Normal, 2, 5) };
        assert_eq!(encoded(end), [0, 0b0001_0010, 0, 2, 0x81, 1, 0, 5]);
        let fragment = Header {
            more: true,
            total: true,
            stream: 300,
            ..Header::new(Kind::Data, Lane::Bulk, 0x0102, MAX_FRAGMENT as u16)
        };
        assert_eq!(encoded(fragment), [0, 0b0000_1111, 1, 2, 0xac, 0x02, 0x40, 0x00]);
        let last = Header { end: true, stream: MAX_STREAM, ..Header::new(Kind::Data, Lane::High, 1, 0) };
        assert_eq!(encoded(last).len(), MAX_HEADER);
    }

    #[test]
    fn an_unknown_kind_is_skipped_by_its_length() {
        let mut bytes = encoded(Header { reserved: 0x80, ..Header::new(Kind::Unknown(99), Lane::High, 7, 3) });
        bytes.extend_from_slice(&[1, 2, 3]);
        bytes.extend_from_slice(&encoded(Header::new(Kind::Accepted, Lane::Control, 0, 0)));
        let mut record = &bytes[..];
        let (header, payload) = Header::decode(&mut record).expect("skippable");
        assert_eq!((header.kind, header.reserved, payload), (Kind::Unknown(99), 0x80, &[1, 2, 3][..]));
        assert_eq!(Header::decode(&mut record).expect("next").0.kind, Kind::Accepted);
        assert!(record.is_empty());
    }

    #[test]
    fn truncated_padded_and_oversized_frames_are_refused() {
        let mut whole = encoded(Header { stream: 300, ..Header::new(Kind::Data, Lane::Normal, 1, 2) });
        whole.extend_from_slice(&[1, 2]);
        for cut in 0..whole.len() {
            assert_eq!(Header::decode(&mut &whole[..cut]), Err(FrameError::Short), "cut at {cut}");
        }
        assert_eq!(Header::decode(&mut &[0, 0, 0, 0, 0x80, 0x00, 0, 0][..]), Err(FrameError::Stream));
        assert_eq!(Header::decode(&mut &[[0; 4].as_slice(), &[0xff; 9]].concat()[..]), Err(FrameError::Stream));
        assert_eq!(Header::decode(&mut &[0, 0, 0, 0, 0, 0x40, 0x01][..]), Err(FrameError::TooLong(0x4001)));
    }

    proptest! {
        #[test]
        fn a_header_comes_back(kind: u8, lane in 0u8..4, flags: (bool, bool, bool), channel: u16, stream in 0..=MAX_STREAM) {
            let header = Header {
                kind: Kind::from_code(kind), lane: Lane::from_bits(lane), more: flags.0, total: flags.1, end: flags.2,
                reserved: 0, channel, stream, len: 0,
            };
            let bytes = encoded(header);
            prop_assert_eq!(Header::decode(&mut &bytes[..]), Ok((header, &[][..])));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut record = &bytes[..];
            while Header::decode(&mut record).is_ok() && !record.is_empty() {}
        }
    }
}
