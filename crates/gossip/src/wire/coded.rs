//! The items of coded messages.
//!
//! | kind | item | body |
//! |---|---|---|
//! | 16 | [`Header`](Item::Header) | topic ‖ publisher 32 ‖ sequence u64 ‖ issued u64 ‖ message's signature 64 ‖ id 32 ‖ payload's bytes u32 ‖ shard's bytes u32 ‖ data shards u16 ‖ all shards u16 ‖ root 32 ‖ expires u64 (unix ms) ‖ signature 64 |
//! | 17 | [`Shard`](Item::Shard) | key 16 ‖ index u16 ‖ what the sender has: length u8, bits ‖ proof: count u8, hashes of 32 ‖ shard |
//! | 18 | [`CodedStatus`](Item::CodedStatus) | key 16 ‖ status u8 (0 has these, 1 has enough, 2 takes none) ‖ bits |
//! | 19 | [`CodedNeed`](Item::CodedNeed) | key 16 ‖ bits |

use bytes::{BufMut, Bytes, BytesMut};
use peerage_wire::NodeId;

use super::{Item, Reader, WireError, begin, control, finish, kind, put_topic};
use crate::coded::{Bits, Hash, Header, Key, MAX_SHARD, Shape};
use crate::message::MessageId;

/// Most hashes in a proof: of a tree of 1,024 leaves.
const MAX_PROOF: usize = 10;

/// One shard of a coded message. Nothing in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Of which message.
    pub key: Key,
    /// Which one.
    pub index: u16,
    /// Those that the sender has, so that it is not sent them.
    pub has: Bits,
    /// Its proof.
    pub proof: Vec<Hash>,
    /// Its bytes.
    pub bytes: Bytes,
}

/// What a peer says of a coded message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CodedStatus {
    /// It has these shards.
    Has,
    /// It has shards enough, or the message: send it no more, and ask it for what is missing.
    Have,
    /// It takes no shards of this message: send it the whole one.
    Refused,
    /// Something of a later version.
    Unknown(u8),
}

impl CodedStatus {
    fn code(self) -> u8 {
        match self {
            CodedStatus::Has => 0,
            CodedStatus::Have => 1,
            CodedStatus::Refused => 2,
            CodedStatus::Unknown(code) => code,
        }
    }

    fn from_code(code: u8) -> CodedStatus {
        match code {
            0 => CodedStatus::Has,
            1 => CodedStatus::Have,
            2 => CodedStatus::Refused,
            code => CodedStatus::Unknown(code),
        }
    }
}

/// A header.
pub fn header(header: &Header) -> Bytes {
    control(kind::HEADER, |to| {
        put_topic(to, &header.topic);
        to.put_slice(header.publisher.as_bytes());
        to.put_u64(header.sequence);
        to.put_u64(header.issued);
        to.put_slice(&header.message_signature);
        to.put_slice(&header.id.0);
        to.put_u32(header.shape.payload);
        to.put_u32(header.shape.shard);
        to.put_u16(header.shape.data);
        to.put_u16(header.shape.total);
        to.put_slice(&header.root);
        to.put_u64(header.expires);
        to.put_slice(&header.signature);
    })
}

/// A shard, after the header for who has not got it: one message of the session.
pub fn shard(header: Option<&[u8]>, shard: &Shard) -> Bytes {
    let has = shard.has.to_bytes();
    let room = header.map_or(0, <[u8]>::len) + 64 + has.len() + 32 * shard.proof.len() + shard.bytes.len();
    let mut bytes = BytesMut::with_capacity(room);
    bytes.put_slice(header.unwrap_or_default());
    let body = begin(&mut bytes, kind::SHARD);
    bytes.put_slice(&shard.key.0);
    bytes.put_u16(shard.index);
    // Both are bounded far below 256 where they are made.
    bytes.put_u8(has.len() as u8);
    bytes.put_slice(&has);
    bytes.put_u8(shard.proof.len() as u8);
    shard.proof.iter().for_each(|hash| bytes.put_slice(hash));
    bytes.put_slice(&shard.bytes);
    finish(&mut bytes, body);
    bytes.freeze()
}

/// What this node says of a message.
pub fn status(key: Key, status: CodedStatus) -> Bytes {
    has(key, status, &Bits::default())
}

/// The same, with the shards that this node has.
pub fn has(key: Key, status: CodedStatus, shards: &Bits) -> Bytes {
    control(kind::CODED_STATUS, |to| {
        to.put_slice(&key.0);
        to.put_u8(status.code());
        to.put_slice(&shards.to_bytes());
    })
}

/// Asks for shards.
pub fn need(key: Key, shards: &Bits) -> Bytes {
    control(kind::CODED_NEED, |to| {
        to.put_slice(&key.0);
        to.put_slice(&shards.to_bytes());
    })
}

impl Reader<'_> {
    pub(super) fn header(&mut self) -> Result<Header, WireError> {
        Ok(Header {
            topic: self.topic()?,
            publisher: NodeId::from_bytes(self.array()?),
            sequence: u64::from_be_bytes(self.array()?),
            issued: u64::from_be_bytes(self.array()?),
            message_signature: self.array()?,
            id: MessageId(self.array()?),
            shape: Shape {
                payload: u32::from_be_bytes(self.array()?),
                shard: u32::from_be_bytes(self.array()?),
                data: u16::from_be_bytes(self.array()?),
                total: u16::from_be_bytes(self.array()?),
            },
            root: self.array()?,
            expires: u64::from_be_bytes(self.array()?),
            signature: self.array()?,
        })
    }

    pub(super) fn shard(&mut self, item: &Bytes) -> Result<Shard, WireError> {
        let key = Key(self.array()?);
        let index = u16::from_be_bytes(self.array()?);
        let len = usize::from(self.u8()?);
        let (has, rest) = self.0.split_at_checked(len).ok_or(WireError::Short)?;
        let has = Bits::from_bytes(has).ok_or(WireError::TooMany)?;
        self.0 = rest;
        let hashes = usize::from(self.u8()?);
        if hashes > MAX_PROOF {
            return Err(WireError::TooMany);
        }
        let proof = (0..hashes).map(|_| self.array()).collect::<Result<Vec<Hash>, _>>()?;
        if self.0.len() > MAX_SHARD {
            return Err(WireError::TooLarge(self.0.len()));
        }
        let bytes = item.slice_ref(self.0);
        self.0 = &[];
        Ok(Shard { key, index, has, proof, bytes })
    }

    pub(super) fn status(&mut self) -> Result<Item, WireError> {
        let key = Key(self.array()?);
        let status = CodedStatus::from_code(self.u8()?);
        let shards = Bits::from_bytes(self.0).ok_or(WireError::TooMany)?;
        self.0 = &[];
        Ok(Item::CodedStatus { key, status, shards })
    }

    pub(super) fn need(&mut self) -> Result<Item, WireError> {
        let key = Key(self.array()?);
        let shards = Bits::from_bytes(self.0).ok_or(WireError::TooMany)?;
        self.0 = &[];
        Ok(Item::CodedNeed { key, shards })
    }
}

#[cfg(test)]
mod tests;
