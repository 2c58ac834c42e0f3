//! Pull repair on the wire: what a node has, as a filter, and what came of it.
//!
//! The body of kind 12 is one of
//!
//! | first byte | rest |
//! |---|---|
//! | 0: a filter | salt 16 ‖ slice bits u8 ‖ slice u16 ‖ probes u8 ‖ bits, 8 to 16 Ki bytes |
//! | 1: the end of an answer | messages u32 ‖ more u8 (0 or 1) |
//! | 2: what follows in the session message is part of an answer | – |
//!
//! Others are skipped, as unknown kinds are.

use bytes::{BufMut, Bytes, BytesMut};
use peerage_machine::Bloom;

use super::{ITEM_HEADER, Item, Reader, WireError, begin, control, finish, kind};
use crate::message::MessageId;

/// Most bytes of a filter's bits.
pub const MAX_FILTER: usize = 16 * 1024;
/// Ids that fit a filter at ten bits each.
pub const FILTER_IDS: usize = MAX_FILTER * 8 / 10;
/// Most bits that name a slice.
pub const MAX_SLICE_BITS: u8 = 8;
/// Most probes of a filter: each costs the answerer work for every message that it keeps, and senders use seven.
pub const MAX_FILTER_PROBES: u8 = 8;

const FILTER: u8 = 0;
const ANSWERED: u8 = 1;
const REPAIR: u8 = 2;

/// A part of all ids: those whose bits 128 to 143 end with the lowest `bits` bits of `index`. Where there are more ids
/// than fit a filter, each filter is of another slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// How many bits count; none for all ids.
    pub bits: u8,
    /// Which slice: less than 2^`bits`.
    pub index: u16,
}

impl Slice {
    /// The slice of these bits that a count, which may go on for ever, stands for.
    pub fn nth(bits: u8, count: u16) -> Slice {
        let bits = bits.min(MAX_SLICE_BITS);
        Slice { bits, index: count & mask(bits) }
    }

    /// Whether an id is in it.
    pub fn contains(&self, id: &MessageId) -> bool {
        let [high, low] = [id.0[16], id.0[17]];
        u16::from_be_bytes([high, low]) & mask(self.bits) == self.index
    }
}

fn mask(bits: u8) -> u16 {
    (1 << bits.min(MAX_SLICE_BITS)) - 1
}

/// The ids of a slice that a node has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Random, and another one in each filter.
    pub salt: [u8; 16],
    /// Of which ids it speaks.
    pub slice: Slice,
    /// Those that are here.
    pub known: Bloom,
}

impl Filter {
    /// The filter of these ids, all of the slice.
    pub fn new(salt: [u8; 16], slice: Slice, ids: &[MessageId]) -> Filter {
        let mut known = Bloom::sized(ids.len(), MAX_FILTER);
        ids.iter().for_each(|id| known.insert(place(&salt, id)));
        Filter { salt, slice, known }
    }

    /// Whether it says that the sender lacks a message.
    pub fn lacks(&self, id: &MessageId) -> bool {
        self.slice.contains(id) && !self.known.contains(place(&self.salt, id))
    }
}

/// Where an id is in a filter. An id is a hash already, and the filter mixes what it is given, so that the salt, which
/// nobody knows beforehand, only has to differ: to hide a message in every filter, one needs another whose id has the
/// same 128 bits.
fn place(salt: &[u8; 16], id: &MessageId) -> [u64; 2] {
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..).and_then(<[u8]>::first_chunk::<8>).map_or(0, |chunk| u64::from_be_bytes(*chunk))
    };
    [word(&id.0, 0) ^ word(salt, 0), word(&id.0, 8) ^ word(salt, 8)]
}

pub(super) fn decode(body: &mut Reader<'_>) -> Result<Item, WireError> {
    match body.u8()? {
        FILTER => {
            let salt = body.array()?;
            let [bits] = body.array()?;
            let index = u16::from_be_bytes(body.array()?);
            let probes = body.u8()?;
            let filter = std::mem::take(&mut body.0);
            if bits > MAX_SLICE_BITS || index > mask(bits) || filter.len() > MAX_FILTER || probes > MAX_FILTER_PROBES {
                return Err(WireError::Filter);
            }
            let known = Bloom::from_parts(filter.to_vec(), probes).map_err(|_| WireError::Filter)?;
            Ok(Item::Filter(Filter { salt, slice: Slice { bits, index }, known }))
        }
        ANSWERED => {
            let sent = u32::from_be_bytes(body.array()?);
            Ok(Item::Answered { sent, more: body.u8()? != 0 })
        }
        REPAIR => Ok(Item::Repair),
        _ => {
            body.0 = &[];
            Ok(Item::Unknown(kind::RECONCILE))
        }
    }
}

/// A filter.
pub fn filter(filter: &Filter) -> Bytes {
    control(kind::RECONCILE, |to| {
        to.put_u8(FILTER);
        to.put_slice(&filter.salt);
        to.put_u8(filter.slice.bits);
        to.put_u16(filter.slice.index);
        to.put_u8(filter.known.probes());
        to.put_slice(filter.known.bits());
    })
}

/// A message as part of an answer, so that whoever gets it does not push it on.
pub fn repair(message: &Bytes) -> Bytes {
    let mut bytes = BytesMut::with_capacity(ITEM_HEADER + 1 + message.len());
    let body = begin(&mut bytes, kind::RECONCILE);
    bytes.put_u8(REPAIR);
    finish(&mut bytes, body);
    bytes.put_slice(message);
    bytes.freeze()
}

/// The end of an answer: how many messages were sent, and whether there are more.
pub fn answered(sent: u32, more: bool) -> Bytes {
    control(kind::RECONCILE, |to| {
        to.put_u8(ANSWERED);
        to.put_u32(sent);
        to.put_u8(u8::from(more));
    })
}

#[cfg(test)]
mod tests {
    use peerage_machine::Rng;

    use super::super::items;
    use super::*;

    fn ids(rng: &mut Rng, count: usize) -> Vec<MessageId> {
        (0..count).map(|_| MessageId(rng.bytes())).collect()
    }

    fn only(bytes: Bytes) -> Result<Item, WireError> {
        let mut decoded: Vec<_> = items(bytes, 0).collect();
        assert_eq!(decoded.len(), 1);
        decoded.remove(0)
    }

    fn raw(bits: u8, index: u16, probes: u8, len: usize) -> Bytes {
        control(kind::RECONCILE, |to| {
            to.put_u8(FILTER);
            to.put_slice(&[0xaa; 16]);
            to.put_u8(bits);
            to.put_u16(index);
            to.put_u8(probes);
            to.put_slice(&vec![0xff; len]);
        })
    }

    #[test]
    fn filters_and_ends_are_these_bytes_and_come_back() {
        let hex = |bytes: &Bytes| data_encoding::HEXLOWER.encode(bytes);
        let sent = Filter::new([0xaa; 16], Slice { bits: 3, index: 5 }, &[]);
        let bytes = filter(&sent);
        assert_eq!(hex(&bytes), format!("0c0000001d00{}03000507{}", "aa".repeat(16), "00".repeat(8)));
        assert_eq!(only(bytes), Ok(Item::Filter(sent)));
        assert_eq!(hex(&answered(258, true)), "0c00000006010000010201");
        assert_eq!(only(answered(258, true)), Ok(Item::Answered { sent: 258, more: true }));
        assert_eq!(only(answered(0, false)), Ok(Item::Answered { sent: 0, more: false }));
        assert_eq!(only(control(kind::RECONCILE, |to| to.put_slice(&[3, 3, 4]))), Ok(Item::Unknown(12)));
        let repair = repair(&answered(0, false));
        assert_eq!(hex(&repair), "0c0000000102".to_owned() + &hex(&answered(0, false)));
        let both = [Ok(Item::Repair), Ok(Item::Answered { sent: 0, more: false })];
        assert_eq!(items(repair, 0).collect::<Vec<_>>(), both);
    }

    #[test]
    fn filters_of_senseless_shape_are_refused() {
        assert!(only(raw(8, 255, 8, MAX_FILTER)).is_ok(), "the largest");
        for bytes in [
            raw(9, 0, 7, 8),
            raw(2, 4, 7, 8),
            raw(0, 1, 7, 8),
            raw(0, 0, 0, 8),
            raw(0, 0, 9, 8),
            raw(0, 0, 7, 7),
            raw(0, 0, 7, MAX_FILTER + 1),
        ] {
            assert_eq!(only(bytes), Err(WireError::Filter));
        }
        assert_eq!(only(control(kind::RECONCILE, |to| to.put_u8(FILTER))), Err(WireError::Short));
        assert_eq!(only(control(kind::RECONCILE, |_| {})), Err(WireError::Short));
    }

    #[test]
    fn each_id_is_in_one_slice() {
        let mut rng = Rng::new(1);
        for id in ids(&mut rng, 1_000) {
            for bits in 0..=MAX_SLICE_BITS {
                let slices = (0..1 << bits).filter(|index| Slice { bits, index: *index }.contains(&id)).count();
                assert_eq!(slices, 1);
            }
        }
        assert_eq!(Slice::nth(2, 7), Slice { bits: 2, index: 3 });
        assert_eq!(Slice::nth(200, u16::MAX), Slice { bits: MAX_SLICE_BITS, index: 255 });
    }

    #[test]
    fn a_filter_hides_one_in_a_hundred_and_another_one_the_next_time() {
        let mut rng = Rng::new(2);
        let (known, lacked) = (ids(&mut rng, FILTER_IDS), ids(&mut rng, 10_000));
        let all = Slice { bits: 0, index: 0 };
        let (first, second) = (Filter::new(rng.bytes(), all, &known), Filter::new(rng.bytes(), all, &known));
        assert!(known.iter().all(|id| !first.lacks(id)));
        let hidden =
            |filters: &[&Filter]| lacked.iter().filter(|id| filters.iter().all(|filter| !filter.lacks(id))).count();
        assert!((40..160).contains(&hidden(&[&first])), "{}", hidden(&[&first]));
        assert!(hidden(&[&first, &second]) < 10);
    }

    /// Whose ids have half of the bits in common with a message's does not hide it.
    #[test]
    fn similar_ids_are_not_at_the_same_place() {
        let mut rng = Rng::new(3);
        let victim = MessageId(rng.bytes());
        let similar: Vec<MessageId> = (0..1_000)
            .map(|n| {
                let (mut id, noise) = (victim, rng.bytes::<32>());
                let range = if n % 2 == 0 { 0..8 } else { 8..16 };
                id.0[range.clone()].copy_from_slice(&noise[range]);
                id
            })
            .collect();
        let hidden = (0..1_000)
            .filter(|_| !Filter::new(rng.bytes(), Slice { bits: 0, index: 0 }, &similar).lacks(&victim))
            .count();
        assert!(hidden < 40, "{hidden} of a thousand, and 8 is chance");
    }
}
