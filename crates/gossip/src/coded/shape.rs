//! How a payload is cut: how many shards of how many bytes, and how many more are made of them.

/// Most shards of a message, made ones included.
pub const MAX_SHARDS: usize = 1024;
/// Smallest shard, in bytes: one of fewer would cost more to prove than it carries.
pub const MIN_SHARD: usize = 1024;
/// Largest shard, in bytes.
pub const MAX_SHARD: usize = 1024 * 1024;
/// Shards a payload is cut into at least, so that no node's line is held by one for long.
const FEWEST: usize = 64;
/// Bytes of a shard, where that gives more shards than these and not more than [`MANY`].
const USUAL: usize = 8 * 1024;
/// A payload is cut into more only where its shards would be larger than [`LARGE`]: each is some work at every node.
const MANY: usize = 256;
/// See [`MANY`]. What a peer is sent last is mostly in vain, and the less so the smaller the shards are.
const LARGE: usize = 16 * 1024;
/// Shards are multiples of this, as the code works on blocks of so many bytes.
const BLOCK: usize = 64;

/// How a payload is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Shape {
    /// Bytes of the payload.
    pub payload: u32,
    /// Bytes of a shard; the payload is padded with zeros to a multiple of it.
    pub shard: u32,
    /// Shards the payload is cut into. As many, of all there are, are enough to have it again.
    pub data: u16,
    /// Shards there are.
    pub total: u16,
}

impl Shape {
    /// How a payload of so many bytes is cut, with `spare` per cent more shards made of it.
    pub fn of(payload: usize, spare: u32) -> Option<Shape> {
        let spare = usize::try_from(spare).ok()?;
        let most = MAX_SHARDS * 100 / (100 + spare.clamp(1, 200));
        let pieces = (payload / USUAL).clamp(FEWEST, MANY).max(payload / LARGE).min(most);
        let shard = payload.div_ceil(pieces).next_multiple_of(BLOCK).max(MIN_SHARD);
        let data = payload.div_ceil(shard).max(1);
        let made = (data * spare).div_ceil(100).clamp(1, 2 * data);
        let narrow = |count: usize| u16::try_from(count).ok();
        let shape = Shape {
            payload: u32::try_from(payload).ok()?,
            shard: u32::try_from(shard).ok()?,
            data: narrow(data)?,
            total: narrow(data + made)?,
        };
        shape.is_sound().then_some(shape)
    }

    /// Whether it adds up. A header's is whatever its sender says.
    pub fn is_sound(&self) -> bool {
        let (payload, shard) = (self.payload as usize, self.shard as usize);
        let (data, total) = (usize::from(self.data), usize::from(self.total));
        (MIN_SHARD..=MAX_SHARD).contains(&shard)
            && shard.is_multiple_of(BLOCK)
            && payload > 0
            && data == payload.div_ceil(shard)
            // More would let a small message reserve much memory.
            && data < total
            && total <= 3 * data
            && total <= MAX_SHARDS
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> usize {
        self.shard as usize * usize::from(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_of_all_sizes_are_cut_soundly() {
        for payload in [1, 1_000, 65_536, 65_537, 131_072, 1 << 20, (4 << 20) + 1, 16 << 20] {
            let shape = Shape::of(payload, 100).expect("it can be cut");
            assert!(shape.is_sound(), "{shape:?}");
            assert!(usize::from(shape.data) * shape.shard as usize >= payload);
        }
        let mebibyte = Shape::of(1 << 20, 100).expect("it can be cut");
        assert_eq!((mebibyte.shard, mebibyte.data, mebibyte.total), (8 * 1024, 128, 256));
        let largest = Shape::of(16 << 20, 100).expect("it can be cut");
        assert_eq!((largest.shard, largest.data, largest.total), (32 * 1024, 512, 1024));
        let spare = [0, 1, 33, 100, 150, 200, 1_000].map(|spare| Shape::of(16 << 20, spare).expect("it can be cut"));
        assert!(spare.iter().all(|shape| shape.is_sound() && usize::from(shape.total) <= MAX_SHARDS), "{spare:?}");
        assert!(spare.iter().all(|shape| shape.data >= 340), "{spare:?}");
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let sound = Shape::of(1 << 20, 100).expect("it can be cut");
        let cases = [
            Shape { payload: 0, data: 0, ..sound },
            Shape { payload: sound.payload + 1, ..sound },
            Shape { shard: sound.shard + 1, ..sound },
            Shape { shard: 64, data: 16_384, ..sound },
            Shape { total: sound.data, ..sound },
            Shape { total: 3 * sound.data + 1, ..sound },
            Shape { payload: u32::MAX, shard: 1 << 20, data: 4096, total: 8192 },
        ];
        for shape in cases {
            assert!(!shape.is_sound(), "{shape:?}");
        }
    }
}
