//! The packets, byte for byte.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | magic `PD` |
//! | 2 | 1 | version, 1 |
//! | 3 | 1 | type |
//! | 4 | 8 | network |
//! | 12 | 32 | sender's id |
//! | 44 | 32 | recipient's id |
//! | 76 | 16 | nonce: counter (u64, big-endian) and 8 bytes of keyed hash; answers echo the request's |
//! | 92 | 16 | cookie: what the recipient gave the sender, zero if none; in a `Cookie`, what it gives |
//! | 108 | 8 | expiry, Unix seconds, big-endian; in a `Cookie`, what its sender's clock says |
//! | 116 | … | body; bytes after what this version knows are ignored |
//! | end − 64 | 64 | signature over everything before it |
//!
//! A `Cookie` packet ends there, at byte 116, and is not signed: it is sent before anything was checked, must cost
//! nothing, and is shorter than any request so that it amplifies nothing. It is given to whoever shows none, expired or
//! not; so it is all that a node whose clock is wrong gets from others, and tells it theirs.

mod envelope;
mod length;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peerage_machine::Time;
use peerage_wire::codec::{self, Blob, List};
use peerage_wire::{Domain, Keypair, MAX_RECORD, NetworkId, NodeId, NodeRecord};
use serde::{Deserialize, Serialize};

pub use self::envelope::{Envelope, Header, Sealed};
use crate::count::DropReason;
use crate::key::Key;

/// Longest packet in bytes: what every path carries unfragmented (the least MTU of IPv6).
pub const MAX_PACKET: usize = 1_280;
/// Bytes of a `Cookie` packet.
pub const COOKIE_PACKET: usize = HEADER;
/// The most records that answer a `FindNode`, over all its packets: a bucket's worth.
pub const MAX_NEIGHBORS: usize = 16;
/// The most packets that answer a `FindNode`.
pub const MAX_NEIGHBOR_PACKETS: usize = 16;

const MAGIC: [u8; 2] = *b"PD";
const VERSION: u8 = 1;
const HEADER: usize = 116;
const SIGNATURE: usize = 64;
/// Shortest signed packet, and so the shortest request.
const MIN_SIGNED: usize = HEADER + SIGNATURE;
const MAX_BODY: usize = MAX_PACKET - MIN_SIGNED;
const DOMAIN: Domain = Domain::new("peerage discovery 1");

const _: () = assert!(COOKIE_PACKET < MIN_SIGNED, "a cookie must be smaller than the request it answers");

/// The type of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Kind {
    /// "Are you there?"
    Ping,
    /// "I am."
    Pong,
    /// "Whom do you know near this point?"
    FindNode,
    /// "These."
    Neighbors,
    /// "What is your record?"
    RecordRequest,
    /// "This."
    RecordResponse,
    /// "Ask again with this cookie."
    Cookie,
}

/// Whether a datagram begins as discovery's do. What does not may be another protocol's.
pub fn is_ours(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

impl Kind {
    /// Every type, in the order of its code.
    pub const ALL: [Kind; 7] = [
        Kind::Ping,
        Kind::Pong,
        Kind::FindNode,
        Kind::Neighbors,
        Kind::RecordRequest,
        Kind::RecordResponse,
        Kind::Cookie,
    ];

    /// The byte on the wire.
    pub const fn code(self) -> u8 {
        self as u8 + 1
    }

    /// The type with this byte.
    pub fn from_code(code: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Whether it asks for an answer, and so needs a cookie.
    pub const fn is_request(self) -> bool {
        matches!(self, Kind::Ping | Kind::FindNode | Kind::RecordRequest)
    }

    /// The type that answers it.
    pub const fn answer(self) -> Option<Kind> {
        match self {
            Kind::Ping => Some(Kind::Pong),
            Kind::FindNode => Some(Kind::Neighbors),
            Kind::RecordRequest => Some(Kind::RecordResponse),
            _ => None,
        }
    }

    /// A word for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Kind::Ping => "ping",
            Kind::Pong => "pong",
            Kind::FindNode => "find_node",
            Kind::Neighbors => "neighbors",
            Kind::RecordRequest => "record_request",
            Kind::RecordResponse => "record_response",
            Kind::Cookie => "cookie",
        }
    }
}

/// Ties an answer to its request: only who received the request can echo it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nonce {
    /// Which request of its sender, and when it was sent by its sender's own clock; means nothing to others.
    pub counter: u64,
    /// The sender's keyed hash of recipient, address, port and counter. Machines leave it zero; the shell fills
    /// it in, and the gate checks it.
    pub mac: [u8; 8],
}

impl Nonce {
    /// Requests of one millisecond have counters of their own as long as there are fewer than 2^20 of them.
    const COUNTERS_PER_MILLI: u32 = 20;

    /// The least counter of a request sent at `now`: the milliseconds of running time, and 20 bits to count in.
    pub fn first_counter(now: Time) -> u64 {
        u64::try_from(now.running().as_millis()).unwrap_or(u64::MAX) << Nonce::COUNTERS_PER_MILLI
    }

    /// How long ago the request with this nonce was sent, to the millisecond; only its sender's clock can tell.
    pub fn age(self, now: Time) -> Duration {
        let sent = Duration::from_millis(self.counter >> Nonce::COUNTERS_PER_MILLI);
        now.running().saturating_sub(sent)
    }
}

/// What a node gives out to be shown again: proof that the sender receives at its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cookie(pub [u8; 16]);

impl Cookie {
    /// No cookie yet.
    pub const NONE: Cookie = Cookie([0; 16]);
}

/// What a packet says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Asks for a sign of life.
    Ping {
        /// Sequence of the sender's record, so that the recipient can ask for it if it has an older one.
        record_seq: u64,
    },
    /// Answers a `Ping`.
    Pong {
        /// Sequence of the sender's record.
        record_seq: u64,
        /// The address that the ping came from.
        observed: SocketAddr,
    },
    /// Asks for the nodes nearest to a point.
    FindNode {
        /// The point.
        target: Key,
    },
    /// Answers a `FindNode`.
    Neighbors {
        /// Which packet of the answer this is, from 0.
        index: u8,
        /// How many packets the answer has, at least 1.
        total: u8,
        /// Whole records, signatures unchecked.
        records: Vec<NodeRecord>,
    },
    /// Asks for the recipient's record.
    RecordRequest,
    /// Answers a `RecordRequest`.
    RecordResponse {
        /// The sender's record, signature unchecked.
        record: NodeRecord,
    },
    /// Answers a request that had no valid cookie. The cookie is the packet's.
    Cookie,
}

#[derive(Serialize, Deserialize)]
struct PongBody {
    record_seq: u64,
    ip: Blob<16>,
    port: u16,
}

#[derive(Serialize, Deserialize)]
struct NeighborsBody {
    index: u8,
    total: u8,
    records: List<Blob<MAX_RECORD>, MAX_NEIGHBORS>,
}

fn ip_bytes(ip: IpAddr) -> Blob<16> {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    Blob::new(bytes).expect("an address has 4 or 16 bytes")
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| IpAddr::from(bytes).to_canonical()))
        .ok()
}

fn record_bytes(record: &NodeRecord) -> Blob<MAX_RECORD> {
    Blob::new(record.bytes()).expect("no record is longer than MAX_RECORD")
}

impl Message {
    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Message::Ping { .. } => Kind::Ping,
            Message::Pong { .. } => Kind::Pong,
            Message::FindNode { .. } => Kind::FindNode,
            Message::Neighbors { .. } => Kind::Neighbors,
            Message::RecordRequest => Kind::RecordRequest,
            Message::RecordResponse { .. } => Kind::RecordResponse,
            Message::Cookie => Kind::Cookie,
        }
    }

    fn body(&self) -> Vec<u8> {
        match self {
            Message::Ping { record_seq } => codec::encode(record_seq),
            Message::Pong { record_seq, observed } => {
                codec::encode(&PongBody { record_seq: *record_seq, ip: ip_bytes(observed.ip()), port: observed.port() })
            }
            Message::FindNode { target } => codec::encode(target),
            Message::Neighbors { index, total, records } => codec::encode(&NeighborsBody {
                index: *index,
                total: *total,
                records: List::truncated(records.iter().map(record_bytes)),
            }),
            Message::RecordRequest | Message::Cookie => Vec::new(),
            Message::RecordResponse { record } => codec::encode(&record_bytes(record)),
        }
    }

    /// Reads a body. Records of a version that is not known here are left out of a `Neighbors`.
    fn from_body(kind: Kind, body: &[u8]) -> Result<Message, DropReason> {
        fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, DropReason> {
            codec::decode_prefix(body, MAX_BODY).map(|(value, _)| value).map_err(|_| DropReason::Body)
        }
        let message = match kind {
            Kind::Ping => Message::Ping { record_seq: read(body)? },
            Kind::Pong => {
                let pong: PongBody = read(body)?;
                let ip = ip_of(&pong.ip).ok_or(DropReason::Body)?;
                Message::Pong { record_seq: pong.record_seq, observed: SocketAddr::new(ip, pong.port) }
            }
            Kind::FindNode => Message::FindNode { target: read(body)? },
            Kind::Neighbors => {
                let NeighborsBody { index, total, records } = read(body)?;
                let records = records.iter().filter_map(|bytes| NodeRecord::decode(bytes).ok()).collect();
                Message::Neighbors { index, total, records }
            }
            Kind::RecordRequest => Message::RecordRequest,
            Kind::RecordResponse => {
                let bytes: Blob<MAX_RECORD> = read(body)?;
                Message::RecordResponse { record: NodeRecord::decode(&bytes).map_err(|_| DropReason::BadRecord)? }
            }
            Kind::Cookie => Message::Cookie,
        };
        message.check()?;
        Ok(message)
    }

    /// Checks what a body can hold and none may say.
    pub(crate) fn check(&self) -> Result<(), DropReason> {
        match self {
            Message::Neighbors { index, total, records }
                if index >= total || usize::from(*total) > MAX_NEIGHBOR_PACKETS || records.len() > MAX_NEIGHBORS =>
            {
                Err(DropReason::Body)
            }
            _ => Ok(()),
        }
    }
}

/// Splits the answer to a `FindNode` into messages that fit a packet each; at least one, even if empty, so that
/// the asker need not wait for its time-out.
pub fn neighbors<'a>(records: impl IntoIterator<Item = &'a NodeRecord>) -> Vec<Message> {
    // Index, total and count take one byte each.
    const FIXED: usize = 3;
    let mut packets: Vec<Vec<NodeRecord>> = vec![Vec::new()];
    let mut room = MAX_BODY - FIXED;
    for record in records.into_iter().take(MAX_NEIGHBORS) {
        // A length takes one byte up to 250 and three above.
        let size = record.bytes().len() + 3;
        if size > room {
            packets.push(Vec::new());
            room = MAX_BODY - FIXED;
        }
        room -= size;
        if let Some(packet) = packets.last_mut() {
            packet.push(record.clone());
        }
    }
    let total = packets.len() as u8;
    (0..).zip(packets).map(|(index, records)| Message::Neighbors { index, total, records }).collect()
}

/// A packet without the parts that only a shell knows: sender, network and signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// The request's nonce; an answer echoes it.
    pub nonce: Nonce,
    /// What the recipient gave us, in a request; what we give it, in a `Cookie`.
    pub cookie: Cookie,
    /// Unix seconds after which it is worth nothing; in a `Cookie`, its sender's clock, or zero if that is not told.
    pub expiry: u64,
    /// What it says.
    pub message: Message,
}

impl Packet {
    fn start(&self, network: &[u8; 8], from: NodeId, to: NodeId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        bytes.push(self.message.kind().code());
        bytes.extend_from_slice(network);
        bytes.extend_from_slice(from.as_bytes());
        bytes.extend_from_slice(to.as_bytes());
        bytes.extend_from_slice(&self.nonce.counter.to_be_bytes());
        bytes.extend_from_slice(&self.nonce.mac);
        bytes.extend_from_slice(&self.cookie.0);
        bytes.extend_from_slice(&self.expiry.to_be_bytes());
        bytes
    }

    /// The packet's bytes, signed by `keys` for `to` only. A `Cookie` is left unsigned.
    pub fn seal(&self, network: NetworkId, keys: &Keypair, to: NodeId) -> Vec<u8> {
        let mut bytes = self.start(network.as_bytes(), keys.id(), to);
        if self.message.kind() == Kind::Cookie {
            return bytes;
        }
        bytes.extend_from_slice(&self.message.body());
        let signature = keys.sign(DOMAIN, &bytes);
        bytes.extend_from_slice(&signature);
        debug_assert!(bytes.len() <= MAX_PACKET, "a packet of {} bytes", bytes.len());
        bytes
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
