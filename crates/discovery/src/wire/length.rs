//! How long a packet is on the wire, without making its bytes.

use super::{COOKIE_PACKET, HEADER, MAX_NEIGHBORS, Message, Packet, SIGNATURE};

/// Bytes of a number in a body, as the codec writes it.
const fn number(value: u64) -> usize {
    match value {
        0..=250 => 1,
        251..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Bytes of a string of bytes in a body: its length, and itself.
const fn string(len: usize) -> usize {
    number(len as u64) + len
}

impl Message {
    fn body_len(&self) -> usize {
        match self {
            Message::Ping { record_seq } => number(*record_seq),
            Message::Pong { record_seq, observed } => {
                let ip = if observed.is_ipv4() { 4 } else { 16 };
                number(*record_seq) + string(ip) + number(observed.port().into())
            }
            Message::FindNode { .. } => 32,
            Message::Neighbors { records, .. } => {
                let records = records.get(..MAX_NEIGHBORS).unwrap_or(records);
                // Index and total take a byte each.
                2 + number(records.len() as u64)
                    + records.iter().map(|record| string(record.bytes().len())).sum::<usize>()
            }
            Message::RecordRequest | Message::Cookie => 0,
            Message::RecordResponse { record } => string(record.bytes().len()),
        }
    }
}

impl Packet {
    /// How many bytes [`seal`](Packet::seal) makes of it. Allocates nothing.
    pub fn encoded_len(&self) -> usize {
        match &self.message {
            Message::Cookie => COOKIE_PACKET,
            message => HEADER + message.body_len() + SIGNATURE,
        }
    }
}
