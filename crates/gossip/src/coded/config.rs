//! What coded broadcast may use.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::publishers::Admitted;
use crate::message::Topic;

/// Limits and intervals of coded broadcast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodedConfig {
    /// Whether this node takes and sends shards at all.
    pub enabled: bool,
    /// Whose messages of which topic may be coded; of a topic that is not named, nobody's.
    pub admitted: BTreeMap<Topic, Admitted>,
    /// Smallest payload that is coded, in bytes.
    pub from: usize,
    /// Shards made besides those the payload is cut into, per cent of these. 1 to 200.
    pub spare: u32,
    /// Peers that shards of a message are sent to, at most.
    pub links: usize,
    /// How often a node sends each shard, at most, unasked.
    pub copies: usize,
    /// Bytes of shards of a message of 1 MiB or more under way to a peer at 100 ms there and back, at most: sent, and not
    /// known to be there. In proportion for smaller ones, and for longer ways up to four times; at least one shard, and
    /// two of 1 MiB or more.
    pub window: usize,
    /// The same two of the publisher: nobody else has its shards at first, so it sends them as fast as it can.
    pub first_copies: usize,
    /// See [`first_copies`](CodedConfig::first_copies).
    pub first_window: usize,
    /// Most coded messages under way or lingering.
    pub sessions: usize,
    /// Most bytes of all their shards. One publisher may use a quarter, or one message.
    pub bytes: usize,
    /// Most bytes of payloads of one publisher in each [`quota_period`](CodedConfig::quota_period).
    pub publisher_bytes: usize,
    /// See [`publisher_bytes`](CodedConfig::publisher_bytes).
    pub quota_period: Duration,
    /// After so long without a new shard, peers are asked for those that are missing.
    pub patience: Duration,
    /// How often they are asked before they are asked for the whole message.
    pub asks: u8,
    /// How long a publisher's shards are passed on, and a message waited for.
    ///
    /// # Warning
    /// Nodes of a network should agree: a header that is valid for longer than twice this is refused.
    pub lifetime: Duration,
    /// How long shards of a message that is here are kept for peers that lack some.
    pub linger: Duration,
}

const MIB: usize = 1024 * 1024;

impl CodedConfig {
    /// For a node on the internet: room for all shards of four messages of 16 MiB. Copies and windows are those with
    /// which the world passes 1 MiB on fastest at less than 2.6 bytes sent for each byte needed.
    pub fn recommended() -> CodedConfig {
        CodedConfig {
            enabled: true,
            admitted: BTreeMap::new(),
            from: 64 * 1024,
            spare: 100,
            links: 32,
            copies: 5,
            window: 20 * 1024,
            first_copies: 1,
            first_window: 512 * 1024,
            sessions: 64,
            bytes: 128 * MIB,
            publisher_bytes: 64 * MIB,
            quota_period: Duration::from_secs(10),
            patience: Duration::from_millis(200),
            asks: 5,
            lifetime: Duration::from_secs(30),
            linger: Duration::from_secs(20),
        }
    }
}
