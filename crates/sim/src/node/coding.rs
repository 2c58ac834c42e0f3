//! What erasure coding would say: shards that stand for their bytes, without any of them.
//!
//! A shard is its index, its payload's size and a descriptor of its own, so each has a hash of its own, and shards of two
//! payloads are not taken for those of one. No code runs: whoever has enough shards has the payload.

use bytes::{BufMut, Bytes, BytesMut};
use peerage_gossip::coded::{Erasure, Pieces, Shape};

use super::Descriptor;

/// The oracle that stands for an erasure code.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Oracle;

/// Index and payload's size, before the descriptor.
const PREFIX: usize = 2 + 4;
const SHARD: usize = PREFIX + Descriptor::BYTES;

/// How many bytes a payload or a shard stands for.
pub(crate) fn weigh(bytes: &[u8]) -> usize {
    let more = Descriptor::at_end_of(bytes).map_or(0, |stands| stands.size as usize);
    bytes.len() + more.saturating_sub(Descriptor::BYTES)
}

fn shard(index: u16, payload: Descriptor, shape: Shape, to: &mut BytesMut) {
    // With what is before the descriptor it stands for exactly the shard's bytes.
    let stands = Descriptor { size: shape.shard - PREFIX as u32, ..payload };
    to.put_u16(index);
    to.put_u32(payload.size);
    to.put_slice(&stands.payload());
}

fn payload_of(index: u16, shard: &[u8]) -> Option<Descriptor> {
    let (at, rest) = shard.split_first_chunk::<2>()?;
    let (size, rest) = rest.split_first_chunk::<4>()?;
    let stands = Descriptor::at_end_of(rest).filter(|_| shard.len() == SHARD && u16::from_be_bytes(*at) == index)?;
    Some(Descriptor { size: u32::from_be_bytes(*size), ..stands })
}

impl Erasure for Oracle {
    fn encode(&self, payload: &Bytes, shape: Shape) -> Option<Pieces> {
        let what = Descriptor::at_end_of(payload)?;
        let row = |indices: std::ops::Range<u16>| {
            let mut row = BytesMut::with_capacity(SHARD * indices.len());
            indices.for_each(|index| shard(index, what, shape, &mut row));
            row.freeze()
        };
        let sound = shape.is_sound() && weigh(payload) == shape.payload as usize;
        sound.then(|| Pieces { data: row(0..shape.data), made: row(shape.data..shape.total) })
    }

    fn decode(&self, shards: &[(u16, Bytes)], shape: Shape) -> Option<Bytes> {
        let mut of = shards.iter().map(|(index, shard)| payload_of(*index, shard));
        let first = of.next()??;
        let enough = shards.len() >= usize::from(shape.data) && of.all(|other| other == Some(first));
        enough.then(|| first.payload())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_stand_for_their_bytes_and_enough_of_them_for_the_payload() {
        let what = Descriptor { number: 9, size: 1 << 20 };
        let shape = Shape::of(1 << 20, 100).expect("it can be cut");
        let pieces = Oracle.encode(&what.payload(), shape).expect("it can be coded");
        let all: Vec<(u16, Bytes)> = (0..shape.total)
            .map(|index| {
                let (row, at) = match index.checked_sub(shape.data) {
                    None => (&pieces.data, index),
                    Some(at) => (&pieces.made, at),
                };
                let at = usize::from(at) * SHARD;
                (index, row.slice(at..at + SHARD))
            })
            .collect();
        assert!(all.iter().all(|(_, shard)| weigh(shard) == shape.shard as usize));
        let enough = usize::from(shape.data);
        assert_eq!(Oracle.decode(&all[20..20 + enough], shape), Some(what.payload()));
        assert_eq!(Oracle.decode(&all[20..19 + enough], shape), None, "one too few");
        let other = Descriptor { number: 10, ..what };
        let others = Oracle.encode(&other.payload(), shape).expect("it can be coded");
        let mut mixed = all[..enough].to_vec();
        mixed[5].1 = others.data.slice(5 * SHARD..6 * SHARD);
        assert_eq!(Oracle.decode(&mixed, shape), None, "of two payloads");
        mixed[5].1 = all[6].1.clone();
        assert_eq!(Oracle.decode(&mixed, shape), None, "in the wrong place");
    }
}
