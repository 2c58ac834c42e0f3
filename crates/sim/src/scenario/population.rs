//! Who lives in the world and what lies between them.

use std::fmt;

use peerage_gossip::Mode;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use super::units::{Rate, Share, Span};

/// The honest nodes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Population {
    /// Honest nodes, bootnodes included; those that join later and hostile ones are additional.
    pub nodes: u32,
    /// The first of `nodes` that all others know. Default: 1.
    #[serde(default = "one")]
    pub bootnodes: u32,
    /// Nodes start at seeded moments spread over this long; bootnodes first, at 0. Default: all at 0.
    #[serde(default)]
    pub start: Span,
    /// Which configuration of the machines. Default: the recommended one.
    #[serde(default)]
    pub preset: Preset,
    /// Places for peers at each node. Default: the preset's.
    pub max_peers: Option<u32>,
    /// How many others each node keeps connected as static peers: the next ones of `nodes`, in a ring. Default: none.
    #[serde(default)]
    pub statics: u32,
    /// How many /24 the nodes are spread over. Default: each its own.
    #[serde(default)]
    pub sites: Sites,
    /// The part of the nodes, bootnodes aside, that sits behind a NAT without inbound. Default: none.
    #[serde(default)]
    pub nat: Share,
    /// Each node's wall clock is off by up to this, either way. Default: 0.
    #[serde(default)]
    pub skew: Span,
    /// Bandwidth of nodes upward. Default: unlimited.
    pub up: Option<Rate>,
    /// Bandwidth of nodes downward. Default: unlimited.
    pub down: Option<Rate>,
    /// Some nodes with other bandwidths. Default: none.
    pub slow: Option<Slow>,
    /// Some nodes are members, and all honest nodes know them and their weight. Default: none.
    pub members: Option<Members>,
    /// How gossip goes from node to node. Default: as the preset says.
    pub gossip: Option<Mode>,
    /// Switches of the nodes' limits.
    #[serde(default)]
    pub limits: Limits,
}

/// Nodes with a bandwidth of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// The part of the nodes, bootnodes aside.
    pub share: Share,
    /// Their bandwidth upward. Default: the others'.
    pub up: Option<Rate>,
    /// Their bandwidth downward. Default: the others'.
    pub down: Option<Rate>,
}

/// Nodes that have a weight: validators, say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Members {
    /// The part of the nodes; the first ones, so the same that ask or publish where only a part of the nodes does.
    pub share: Share,
    /// The weight of each. With 0 nothing is kept for them.
    pub weight: u64,
}

/// Which of the nodes' limits hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Whether addresses of one's own network are spared the limits by host and site. Default: no.
    pub exempt_local: bool,
    /// Whether discovery limits how many table entries a site has. Default: yes.
    pub discovery_site_limits: bool,
    /// Along how many paths a lookup goes. Default: three; one is Kademlia's plain walk.
    pub lookup_paths: u8,
    /// Whether nodes limit how much they are asked. Default: yes.
    pub requests: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { exempt_local: false, discovery_site_limits: true, lookup_paths: 3, requests: true }
    }
}

/// The machines' configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// `Config::recommended()`: an open network.
    #[default]
    Recommended,
    /// `Config::local()`: nodes of one computer.
    Local,
}

/// The networks (/24) that nodes have their addresses in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sites {
    /// Every node has one of its own.
    #[default]
    Own,
    /// The nodes are spread evenly over so many; at least 1.
    Spread(u32),
}

impl<'de> Deserialize<'de> for Sites {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = Sites;
            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("\"own\" or a number of /24 networks, at least 1")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Sites, E> {
                if text == "own" { Ok(Sites::Own) } else { Err(E::invalid_value(Unexpected::Str(text), &self)) }
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Sites, E> {
                let sites = u32::try_from(number).ok().filter(|sites| *sites > 0);
                sites.map(Sites::Spread).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }
        }
        from.deserialize_any(Words)
    }
}

/// What lies between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links {
    /// Where nodes are, and so how far apart. Default: the world.
    pub regions: Regions,
    /// Each message is late by up to this part of the latency. Default: 10 %.
    pub jitter: Share,
    /// Datagrams lost; a stream's message is late by a retransmission instead. Default: none.
    pub loss: Share,
    /// Datagrams late by up to one more latency. Default: none.
    pub reorder: Share,
    /// Datagrams that the receiver drops after a failed check; a stream's message so corrupted ends the connection.
    /// Default: none.
    pub corrupt: Share,
}

impl Default for Links {
    fn default() -> Self {
        let none = Share::NONE;
        Self { regions: Regions::World, jitter: default_jitter(), loss: none, reorder: none, corrupt: none }
    }
}

/// Where nodes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regions {
    /// Spread over the regions of a built-in table, with its latencies.
    World,
    /// All in one.
    One {
        /// One way, between any two nodes.
        latency: Span,
        /// How much nearer or farther than that a pair of nodes is for good, at most. Default: not at all.
        spread: Share,
    },
}

/// How a file names the regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RegionsName {
    #[default]
    World,
    One,
}

/// `[links]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLinks {
    #[serde(default)]
    regions: RegionsName,
    latency: Option<Span>,
    spread: Option<Share>,
    #[serde(default = "default_jitter")]
    jitter: Share,
    #[serde(default)]
    loss: Share,
    #[serde(default)]
    reorder: Share,
    #[serde(default)]
    corrupt: Share,
}

impl RawLinks {
    pub(super) fn checked(self) -> Result<Links, String> {
        let regions = match (self.regions, self.latency, self.spread) {
            (RegionsName::World, None, None) => Regions::World,
            (RegionsName::One, latency, spread) => {
                Regions::One { latency: latency.unwrap_or(DEFAULT_LATENCY), spread: spread.unwrap_or(Share::NONE) }
            }
            (RegionsName::World, ..) => {
                let why = "`latency` and `spread` are for `regions = \"one\"`: those of \"world\" have their own";
                return Err(why.to_owned());
            }
        };
        let Self { jitter, loss, reorder, corrupt, .. } = self;
        Ok(Links { regions, jitter, loss, reorder, corrupt })
    }
}

const DEFAULT_LATENCY: Span = Span(std::time::Duration::from_millis(50));

fn default_jitter() -> Share {
    Share::from_ppm(100_000)
}

fn one() -> u32 {
    1
}
