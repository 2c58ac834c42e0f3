//! What nodes of the world say to each other.

use std::rc::Rc;

use bytes::Bytes;
use peerage_discovery::wire::{Message as Body, Packet, Sealed};
use peerage_peer_session::handshake::Presented;
use peerage_wire::DisconnectReason;
use peerage_wire::frame::Lane;

use crate::engine::{Payload, mix};

/// What goes from node to node: packets, the set-up of a session without its cryptography, and what sessions carry.
#[derive(Clone, Debug)]
pub enum Message {
    /// A discovery packet.
    Packet(Box<Sealed>),
    /// The handshake's first message, which says nothing.
    Asks,
    /// Its second: who answers.
    Answers(Rc<Presented>),
    /// Its third: who asks.
    Shows(Rc<Presented>),
    /// Its last: this end has a place for the other.
    Accepted,
    /// The connection or session is over.
    Bye(DisconnectReason),
    /// A message of the gossip channel.
    Gossip(Parcel),
    /// A message of the router's channel.
    Request(Parcel),
    /// A fragment of a message that comes whole with its last one.
    Fragment(u32),
}

/// A message of a session's channel.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Its bytes; a payload in it is a [`Descriptor`].
    pub bytes: Bytes,
    /// How urgent.
    pub lane: Lane,
    /// Its bytes on the wire, or those of its last fragment.
    pub size: u32,
    /// For the digest.
    pub mark: u64,
}

/// Headers of TCP and IP around what is sent at once.
const SEGMENT: usize = 52;
/// Headers of UDP and IP around a packet.
const DATAGRAM: usize = 28;
/// A record's header and tag, and a frame's header.
pub(super) const FRAME: usize = 2 + 16 + 7;
/// Handshake messages without record and greeting: keys, tags, lengths.
const SHAKE: usize = 120;

fn presented(presented: &Presented) -> usize {
    let capabilities = presented.hello.capabilities.len();
    SHAKE + presented.record.bytes().len() + 48 + presented.hello.agent.len() + 8 * capabilities
}

impl Payload for Message {
    fn size(&self) -> usize {
        match self {
            Message::Packet(sealed) => DATAGRAM + sealed.packet.encoded_len(),
            Message::Asks => SEGMENT + 36,
            Message::Answers(ours) | Message::Shows(ours) => SEGMENT + presented(ours),
            Message::Accepted | Message::Bye(_) => SEGMENT + FRAME + 2,
            Message::Gossip(parcel) | Message::Request(parcel) => SEGMENT + FRAME + parcel.size as usize,
            Message::Fragment(size) => SEGMENT + FRAME + *size as usize,
        }
    }

    fn mark(&self) -> u64 {
        match self {
            Message::Packet(sealed) => packet_mark(&sealed.packet),
            Message::Asks => 1,
            Message::Answers(ours) => mix(2 ^ ours.hello.instance),
            Message::Shows(ours) => mix(3 ^ ours.hello.instance),
            Message::Accepted => 4,
            Message::Bye(reason) => mix(5 + u64::from(reason.code())),
            Message::Gossip(parcel) => parcel.mark,
            Message::Request(parcel) => mix(parcel.mark ^ 6),
            Message::Fragment(size) => mix(u64::from(*size)),
        }
    }
}

fn packet_mark(packet: &Packet) -> u64 {
    let body = match &packet.message {
        Body::Neighbors { index, records, .. } => records.iter().fold(u64::from(*index), |mark, record| {
            let id = record.id();
            mix(mark ^ head(id.as_bytes()) ^ record.seq())
        }),
        Body::FindNode { target } => head(target.as_bytes()),
        Body::Ping { record_seq } | Body::Pong { record_seq, .. } => *record_seq,
        Body::RecordRequest | Body::Cookie => 0,
        Body::RecordResponse { record } => record.seq(),
    };
    mix(mix(body) ^ packet.nonce.counter ^ u64::from(packet.message.kind().code()) << 56)
}

fn head(bytes: &[u8; 32]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |head| u64::from_le_bytes(*head))
}

/// What a payload of the world is: a number, and how many bytes it stands for. So a message of a mebibyte costs the
/// world 20 bytes, and its hash what theirs costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Which message of the run.
    pub number: u64,
    /// The payload's bytes as the network would carry them.
    pub size: u32,
}

impl Descriptor {
    /// Bytes of the descriptor itself, and so of the smallest payload.
    pub const BYTES: usize = 20;
    const MAGIC: [u8; 8] = *b"\xf0payload";
    /// In the numbers of what hostile nodes publish.
    pub(crate) const HOSTILE: u64 = 1 << 63;
    /// In the numbers of what nobody published, though somebody's name is on it.
    pub(crate) const FORGED: u64 = 1 << 62;

    /// The payload that stands for it.
    pub fn payload(self) -> Bytes {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&Self::MAGIC);
        bytes[8..16].copy_from_slice(&self.number.to_be_bytes());
        bytes[16..].copy_from_slice(&self.size.to_be_bytes());
        Bytes::copy_from_slice(&bytes)
    }

    /// What a payload, or a message that ends with one, stands for.
    pub fn at_end_of(bytes: &[u8]) -> Option<Descriptor> {
        let descriptor = bytes.last_chunk::<{ Self::BYTES }>()?;
        let (magic, rest) = descriptor.split_first_chunk::<8>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let size = rest.first_chunk::<4>()?;
        (*magic == Self::MAGIC)
            .then(|| Descriptor { number: u64::from_be_bytes(*number), size: u32::from_be_bytes(*size) })
    }
}

impl Parcel {
    /// A message of a channel, with the size that it would have.
    pub fn new(bytes: Bytes, lane: Lane) -> Parcel {
        let more =
            Descriptor::at_end_of(&bytes).map_or(0, |stands| (stands.size as usize).saturating_sub(Descriptor::BYTES));
        // Its head and its end say which one it is: between them, if anything, is what they were signed for.
        let ends = bytes.chunks(64).next().into_iter().chain(bytes.rchunks(64).next());
        let mut mark = bytes.len() as u64;
        for chunk in ends.flat_map(|end| end.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mark = mix(mark ^ u64::from_le_bytes(word));
        }
        let size = u32::try_from(bytes.len() + more).unwrap_or(u32::MAX);
        Parcel { bytes, lane, size, mark }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_stands_for_its_size_wherever_it_travels() {
        let stands = Descriptor { number: 7, size: 1 << 20 };
        let payload = stands.payload();
        assert_eq!(Descriptor::at_end_of(&payload), Some(stands));
        let item = Bytes::from([b"header".as_slice(), &payload].concat());
        let parcel = Parcel::new(item.clone(), Lane::Normal);
        assert_eq!(parcel.size as usize, 6 + (1 << 20));
        assert_ne!(parcel.mark, Parcel::new(payload, Lane::Normal).mark);
        assert_eq!(Parcel::new(Bytes::from_static(b"control"), Lane::Control).size, 7);
        assert_eq!(Descriptor::at_end_of(b"short"), None);
        let small = Parcel::new(Descriptor { number: 1, size: 3 }.payload(), Lane::Normal);
        assert_eq!(small.size as usize, Descriptor::BYTES, "no payload is smaller than its descriptor");
    }
}
