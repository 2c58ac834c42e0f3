//! The code of real nodes: Reed–Solomon over 16-bit symbols.

use bytes::{Bytes, BytesMut};
use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

use super::code::{Erasure, Pieces};
use super::shape::Shape;

/// Reed–Solomon, as `reed-solomon-simd` has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReedSolomon;

fn counts(shape: Shape) -> Option<(usize, usize, usize)> {
    let made = shape.total.checked_sub(shape.data)?;
    shape.is_sound().then_some((usize::from(shape.data), usize::from(made), shape.shard as usize))
}

impl Erasure for ReedSolomon {
    fn encode(&self, payload: &Bytes, shape: Shape) -> Option<Pieces> {
        let (data, made, shard) = counts(shape)?;
        if payload.len() != shape.payload as usize {
            return None;
        }
        let mut padded = BytesMut::with_capacity(data * shard);
        padded.extend_from_slice(payload);
        padded.resize(data * shard, 0);
        let padded = padded.freeze();
        let mut encoder = ReedSolomonEncoder::new(data, made, shard).ok()?;
        for piece in padded.chunks(shard) {
            encoder.add_original_shard(piece).ok()?;
        }
        let result = encoder.encode().ok()?;
        let mut more = BytesMut::with_capacity(made * shard);
        result.recovery_iter().for_each(|piece| more.extend_from_slice(piece));
        Some(Pieces { data: padded, made: more.freeze() })
    }

    fn decode(&self, shards: &[(u16, Bytes)], shape: Shape) -> Option<Bytes> {
        let (data, made, shard) = counts(shape)?;
        let mut decoder = ReedSolomonDecoder::new(data, made, shard).ok()?;
        let mut padded = BytesMut::zeroed(data * shard);
        for (index, bytes) in shards {
            let index = usize::from(*index);
            match index.checked_sub(data) {
                None => {
                    decoder.add_original_shard(index, bytes).ok()?;
                    padded.get_mut(index * shard..(index + 1) * shard)?.copy_from_slice(bytes);
                }
                Some(of_made) => decoder.add_recovery_shard(of_made, bytes).ok()?,
            }
        }
        let restored = decoder.decode().ok()?;
        for (index, bytes) in restored.restored_original_iter() {
            padded.get_mut(index * shard..(index + 1) * shard)?.copy_from_slice(bytes);
        }
        padded.truncate(shape.payload as usize);
        Some(padded.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coded::code::Coding;

    fn payload(len: usize) -> Bytes {
        (0..len).map(|n| (n * n / 7) as u8).collect::<Vec<u8>>().into()
    }

    #[test]
    fn any_shards_are_enough_if_there_are_as_many_as_the_payload_was_cut_into() {
        for len in [65_536, 100_001, 1 << 20] {
            let (payload, shape) = (payload(len), Shape::of(len, 100).expect("it can be cut"));
            let coding = Coding::of(payload.clone(), shape, &ReedSolomon).expect("it can be coded");
            let of = |indices: &mut dyn Iterator<Item = u16>| -> Vec<(u16, Bytes)> {
                indices.map(|index| (index, coding.shard(index.into()).expect("a shard"))).collect()
            };
            for step in [1, 2, 3, 5] {
                let mut indices = (0..shape.total).map(|nth| nth * step % shape.total).take(shape.data.into());
                let mut shards = of(&mut indices);
                shards.dedup_by_key(|(index, _)| *index);
                if shards.iter().map(|(index, _)| index).collect::<std::collections::BTreeSet<_>>().len()
                    == usize::from(shape.data)
                {
                    assert_eq!(ReedSolomon.decode(&shards, shape), Some(payload.clone()), "every {step}th");
                }
            }
            let made = of(&mut (shape.data..shape.total));
            assert_eq!(ReedSolomon.decode(&made, shape), Some(payload.clone()), "made ones only");
            assert_eq!(ReedSolomon.decode(&made[1..], shape), None, "one too few");
        }
    }

    #[test]
    fn shards_of_the_wrong_length_or_place_are_no_payload() {
        let shape = Shape::of(65_536, 100).expect("it can be cut");
        let coding = Coding::of(payload(65_536), shape, &ReedSolomon).expect("it can be coded");
        let mut shards: Vec<_> = (0..shape.data).map(|n| (n, coding.shard(n.into()).expect("a shard"))).collect();
        shards[3].1 = shards[3].1.slice(1..);
        assert_eq!(ReedSolomon.decode(&shards, shape), None);
        shards[3] = (shape.total, coding.shard(3).expect("a shard"));
        assert_eq!(ReedSolomon.decode(&shards, shape), None);
        assert_eq!(ReedSolomon.encode(&payload(65_535), shape), None, "not the payload's length");
    }
}
