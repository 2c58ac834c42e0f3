//! The work of coding, which burns CPU: it is done where the shell finds it best, and answered by token.

use bytes::Bytes;
use peerage_wire::codec;
use serde::{Deserialize, Serialize};

use super::header::Header;
use super::merkle::{Hash, Tree, leaf};
use super::shape::Shape;
use crate::message::MessageId;

/// An erasure code: shards of which any `data` are enough.
pub trait Erasure {
    /// All shards of a payload: the padded payload's first, the made ones after them, each in one piece of memory.
    fn encode(&self, payload: &Bytes, shape: Shape) -> Option<Pieces>;

    /// The payload of which these are shards, by index, if there is one: at least `data` of them.
    fn decode(&self, shards: &[(u16, Bytes)], shape: Shape) -> Option<Bytes>;
}

/// All shards of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Those that the payload is cut into, one after the other.
    pub data: Bytes,
    /// Those made of them, one after the other.
    pub made: Bytes,
}

impl Pieces {
    /// Shard `index` of so many.
    fn shard(&self, index: usize, shape: Shape) -> Option<Bytes> {
        cut(&self.data, &self.made, index, shape)
    }
}

/// A shard of its row.
fn cut(data: &Bytes, made: &Bytes, index: usize, shape: Shape) -> Option<Bytes> {
    let first_made = usize::from(shape.data);
    let (row, count, at) = match index.checked_sub(first_made) {
        None => (data, first_made, index),
        Some(at) => (made, usize::from(shape.total).checked_sub(first_made)?, at),
    };
    // What is cut stands for as many bytes as it has, or, in a simulation, for more.
    let stride = row.len().checked_div(count)?;
    (at < count).then(|| row.slice(at * stride..(at + 1) * stride))
}

/// A payload with its shards and their tree's leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coding {
    /// How it is cut.
    pub shape: Shape,
    /// The payload.
    #[serde(deserialize_with = "codec::copied")]
    pub payload: Bytes,
    #[serde(deserialize_with = "codec::copied")]
    data: Bytes,
    #[serde(deserialize_with = "codec::copied")]
    made: Bytes,
    leaves: Vec<Hash>,
}

impl Coding {
    /// Of a payload.
    pub fn of(payload: Bytes, shape: Shape, code: &impl Erasure) -> Option<Coding> {
        let pieces = code.encode(&payload, shape)?;
        let shards = (0..usize::from(shape.total)).map(|index| pieces.shard(index, shape));
        let leaves = shards.map(|shard| shard.map(|shard| leaf(&shard))).collect::<Option<Vec<Hash>>>()?;
        let Pieces { data, made } = pieces;
        Some(Coding { shape, payload, data, made, leaves })
    }

    /// A shard.
    pub fn shard(&self, index: usize) -> Option<Bytes> {
        cut(&self.data, &self.made, index, self.shape)
    }

    /// The tree over the shards.
    pub fn tree(&self) -> Tree {
        Tree::over(self.leaves.clone())
    }
}

/// Something to be coded; see [`Out::Code`](crate::Out::Code).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Makes the shards of a payload.
    Encode {
        /// The payload.
        payload: Bytes,
        /// How it is to be cut.
        shape: Shape,
    },
    /// Makes a payload of shards, and its shards of the payload again: those whose header was signed without being a
    /// code's are found out so.
    Rebuild {
        /// What was signed.
        header: Box<Header>,
        /// The shards, by index.
        shards: Vec<(u16, Bytes)>,
    },
}

impl Job {
    /// Does it. `None` if the shards are not those of one payload, or the payload is not the one that was signed.
    pub fn run(self, code: &impl Erasure) -> Option<Coding> {
        match self {
            Job::Encode { payload, shape } => Coding::of(payload, shape, code),
            Job::Rebuild { header, shards } => {
                let payload = code.decode(&shards, header.shape)?;
                let id = MessageId::signed(&header.topic, &header.publisher, header.sequence, &payload);
                let coding = Coding::of(payload, header.shape, code)?;
                (id == header.id && coding.tree().root() == header.root).then_some(coding)
            }
        }
    }
}
