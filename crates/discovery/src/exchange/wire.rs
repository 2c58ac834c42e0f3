//! What travels on the channel `peers/1`: items of kind ‖ length ‖ body, several to a session message.
//!
//! | kind | item | body |
//! |---|---|---|
//! | 1 | [`Pull`](Item::Pull) | salt 16, probes u8, bits of the filter (8 to 2,048 bytes) |
//! | 2 | [`Records`](Item::Records) | up to 16 whole signed records |
//! | 3 | [`Probe`](Item::Probe) | nonce u64, TCP port u16 |
//! | 4 | [`ProbeResult`](Item::ProbeResult) | nonce u64, outcome u16 |
//! | 5 | [`Observed`](Item::Observed) | the 4 or 16 bytes of an IP address, port u16 |
//!
//! Kind is a u16 and length a u32, big-endian; bodies are [`codec`]'s and decode exactly. Items of other kinds are
//! skipped by their length, which is how kinds are added later.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use peerage_machine::Bloom;
use peerage_wire::codec::{self, Blob, List};
use peerage_wire::{MAX_RECORD, NodeId, NodeRecord};
use serde::{Deserialize, Serialize};

/// Most records in one answer.
pub const MAX_RECORDS: usize = 16;
/// Longest filter, in bytes: 1,638 ids at 0.8 % mistakes.
pub const MAX_BLOOM: usize = 2_048;
/// Longest session message: the longest answer, and room for kinds of later versions.
pub const MAX_MESSAGE: usize = 8 * 1024;
/// Most items in a session message.
pub const MAX_ITEMS: usize = 8;

const ITEM_HEADER: usize = 2 + 4;
/// Longest body that this version reads.
const MAX_BODY: usize = 3 + MAX_RECORDS * (3 + MAX_RECORD);

mod kind {
    pub(super) const PULL: u16 = 1;
    pub(super) const RECORDS: u16 = 2;
    pub(super) const PROBE: u16 = 3;
    pub(super) const PROBE_RESULT: u16 = 4;
    pub(super) const OBSERVED: u16 = 5;
}

/// What was fresh when a filter was made, so that no two of them make the same mistakes.
pub type Salt = [u8; 16];

/// Where a node is in a filter of this salt.
pub fn place(salt: &Salt, id: &NodeId) -> [u64; 2] {
    let mut hasher = blake3::Hasher::new_derive_key("peerage 2026-11 place of an id in a peer filter");
    hasher.update(salt).update(id.as_bytes());
    let (mut a, mut b) = ([0; 8], [0; 8]);
    let mut reader = hasher.finalize_xof();
    reader.fill(&mut a);
    reader.fill(&mut b);
    [u64::from_le_bytes(a), u64::from_le_bytes(b)]
}

/// How a dial-back ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The port took no connection.
    Unreached,
    /// It took one.
    Reached,
    /// None was tried: the responder has no time, or does not dial there. Says nothing of the asker.
    Declined,
    /// An outcome of a later version, which says nothing here either.
    Unknown(u16),
}

impl Outcome {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Outcome::Unreached => 0,
            Outcome::Reached => 1,
            Outcome::Declined => 2,
            Outcome::Unknown(code) => code,
        }
    }

    /// The outcome with this number.
    pub const fn from_code(code: u16) -> Outcome {
        match code {
            0 => Outcome::Unreached,
            1 => Outcome::Reached,
            2 => Outcome::Declined,
            code => Outcome::Unknown(code),
        }
    }
}

/// One thing a peer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Show me peers of yours that are not in this filter.
    Pull {
        /// Of the filter.
        salt: Salt,
        /// Whom the asker knows.
        known: Bloom,
    },
    /// The answer to a pull.
    Records(Vec<NodeRecord>),
    /// Connect to this TCP port of mine, where you see me, and say whether that worked.
    Probe {
        /// Comes back with the answer.
        nonce: u64,
        /// Where I listen.
        port: u16,
    },
    /// The answer to a probe.
    ProbeResult {
        /// Of the probe.
        nonce: u64,
        /// How it went.
        outcome: Outcome,
    },
    /// This is where I see you.
    Observed(SocketAddr),
    /// An item of a later version.
    Unknown(u16),
}

#[derive(Serialize, Deserialize)]
struct PullBody {
    salt: Salt,
    probes: u8,
    bits: Blob<MAX_BLOOM>,
}

/// Why bytes are no exchange of peers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A message, or an item that this version knows, is longer than it may be.
    #[error("{0} bytes are too long")]
    TooLong(usize),
    /// An item is longer than what is left.
    #[error("cut short")]
    Short,
    /// More than [`MAX_ITEMS`] items.
    #[error("more than {MAX_ITEMS} items")]
    TooManyItems,
    /// A body does not decode.
    #[error("body: {0}")]
    Body(#[from] codec::CodecError),
    /// The filter is none.
    #[error(transparent)]
    Bloom(#[from] peerage_machine::BloomError),
    /// An address of neither 4 nor 16 bytes.
    #[error("an address of {0} bytes")]
    Address(usize),
}

/// The items of a session message.
///
/// # Errors
/// [`WireError`]. A message is taken whole or not at all.
pub fn items(message: &[u8]) -> Result<Vec<Item>, WireError> {
    if message.len() > MAX_MESSAGE {
        return Err(WireError::TooLong(message.len()));
    }
    let mut items = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        if items.len() == MAX_ITEMS {
            return Err(WireError::TooManyItems);
        }
        let (kind, after) = rest.split_first_chunk::<2>().ok_or(WireError::Short)?;
        let (len, after) = after.split_first_chunk::<4>().ok_or(WireError::Short)?;
        let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| WireError::Short)?;
        let (body, after) = after.split_at_checked(len).ok_or(WireError::Short)?;
        items.push(decode(u16::from_be_bytes(*kind), body)?);
        rest = after;
    }
    Ok(items)
}

fn decode(kind: u16, body: &[u8]) -> Result<Item, WireError> {
    Ok(match kind {
        kind::PULL => {
            let PullBody { salt, probes, bits } = codec::decode_exact(body, MAX_BODY)?;
            Item::Pull { salt, known: Bloom::from_parts(bits.to_vec(), probes)? }
        }
        kind::RECORDS => {
            let records: List<NodeRecord, MAX_RECORDS> = codec::decode_exact(body, MAX_BODY)?;
            Item::Records(records.into_vec())
        }
        kind::PROBE => {
            let (nonce, port) = codec::decode_exact(body, MAX_BODY)?;
            Item::Probe { nonce, port }
        }
        kind::PROBE_RESULT => {
            let (nonce, code) = codec::decode_exact(body, MAX_BODY)?;
            Item::ProbeResult { nonce, outcome: Outcome::from_code(code) }
        }
        kind::OBSERVED => {
            let (ip, port): (Blob<16>, u16) = codec::decode_exact(body, MAX_BODY)?;
            let ip = if let Ok(v4) = <[u8; 4]>::try_from(&*ip) {
                IpAddr::V4(Ipv4Addr::from(v4))
            } else if let Ok(v6) = <[u8; 16]>::try_from(&*ip) {
                IpAddr::V6(Ipv6Addr::from(v6)).to_canonical()
            } else {
                return Err(WireError::Address(ip.len()));
            };
            Item::Observed(SocketAddr::new(ip, port))
        }
        kind => Item::Unknown(kind),
    })
}

impl Item {
    /// Its bytes. Of a [`Item::Records`] the first [`MAX_RECORDS`]; an [`Item::Unknown`] has no body.
    pub fn encode(&self) -> Bytes {
        let (kind, body) = match self {
            Item::Pull { salt, known } => {
                let bits = known.bits().get(..MAX_BLOOM).unwrap_or(known.bits());
                let bits = Blob::new(bits).unwrap_or_default();
                (kind::PULL, codec::encode(&PullBody { salt: *salt, probes: known.probes(), bits }))
            }
            Item::Records(records) => {
                let records: List<NodeRecord, MAX_RECORDS> = List::truncated(records.iter().cloned());
                (kind::RECORDS, codec::encode(&records))
            }
            Item::Probe { nonce, port } => (kind::PROBE, codec::encode(&(nonce, port))),
            Item::ProbeResult { nonce, outcome } => (kind::PROBE_RESULT, codec::encode(&(nonce, outcome.code()))),
            Item::Observed(socket) => {
                let ip: Vec<u8> = match socket.ip().to_canonical() {
                    IpAddr::V4(ip) => ip.octets().into(),
                    IpAddr::V6(ip) => ip.octets().into(),
                };
                let ip: Blob<16> = Blob::new(ip).unwrap_or_default();
                (kind::OBSERVED, codec::encode(&(ip, socket.port())))
            }
            Item::Unknown(kind) => (*kind, Vec::new()),
        };
        let mut bytes = Vec::with_capacity(ITEM_HEADER + body.len());
        bytes.extend_from_slice(&kind.to_be_bytes());
        // Bodies are bounded by their types far below 4 GiB.
        bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&body);
        Bytes::from(bytes)
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
