//! Hostile nodes: which kind, how many, from where.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use super::population::Sites;
use super::units::{Share, Span};

/// Hostile nodes of one kind. They are additional to the population's honest ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adversary {
    /// What they do.
    pub kind: Kind,
    /// How many.
    pub number: Number,
    /// How many /24 they come from.
    pub sites: Sites,
    /// When they start. Default: with the others, over the population's `start`.
    pub at: Option<Span>,
    /// What else their kind wants to know.
    pub options: BTreeMap<String, OptionValue>,
}

/// How many nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// This part of the whole population, honest and hostile.
    Share(Share),
    /// So many.
    Count(u32),
}

/// What hostile nodes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Tells of nodes that are not there and hands out false records.
    Liar,
    /// Floods one victim's table and places.
    Eclipser,
    /// Publishes as much as it can.
    Spammer,
    /// Connects and then answers late or never.
    Staller,
    /// Says different things to different peers.
    Equivocator,
    /// Connects and leaves, again and again.
    Flapper,
    /// Receives and never forwards.
    FreeRider,
    /// Sends messages whose signatures are wrong.
    InvalidSignatures,
    /// Asks to be grafted again and again.
    GraftFlood,
    /// Announces messages that it does not have.
    #[serde(rename = "ihave-flood")]
    IHaveFlood,
    /// Asks for the same messages again and again.
    #[serde(rename = "iwant-flood")]
    IWantFlood,
    /// A swarm that is there before the honest nodes start.
    ColdBoot,
    /// A swarm that behaves well until all of it turns at once.
    CovertFlash,
    /// Damages the shards of coded messages that it is sent, and sends them on.
    ShardPollution,
    /// Signs shards that are those of no payload.
    NonCodeword,
    /// Asks every peer more than it may.
    RequestFlood,
    /// Answers what it is asked at a byte a second.
    SlowAnswers,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Liar,
        Self::Eclipser,
        Self::Spammer,
        Self::Staller,
        Self::Equivocator,
        Self::Flapper,
        Self::FreeRider,
        Self::InvalidSignatures,
        Self::GraftFlood,
        Self::IHaveFlood,
        Self::IWantFlood,
        Self::ColdBoot,
        Self::CovertFlash,
        Self::ShardPollution,
        Self::NonCodeword,
        Self::RequestFlood,
        Self::SlowAnswers,
    ];

    /// Its name in a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Liar => "liar",
            Self::Eclipser => "eclipser",
            Self::Spammer => "spammer",
            Self::Staller => "staller",
            Self::Equivocator => "equivocator",
            Self::Flapper => "flapper",
            Self::FreeRider => "free-rider",
            Self::InvalidSignatures => "invalid-signatures",
            Self::GraftFlood => "graft-flood",
            Self::IHaveFlood => "ihave-flood",
            Self::IWantFlood => "iwant-flood",
            Self::ColdBoot => "cold-boot",
            Self::CovertFlash => "covert-flash",
            Self::ShardPollution => "shard-pollution",
            Self::NonCodeword => "non-codeword",
            Self::RequestFlood => "request-flood",
            Self::SlowAnswers => "slow-answers",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionValue {
    /// Words; the kind reads them, with their unit if they have one.
    Text(String),
    /// A number.
    Number(i64),
}

impl<'de> Deserialize<'de> for OptionValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = OptionValue;
            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a string or an integer")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<OptionValue, E> {
                Ok(OptionValue::Text(text.to_owned()))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<OptionValue, E> {
                Ok(OptionValue::Number(number))
            }
        }
        from.deserialize_any(Words)
    }
}

/// `[[adversaries]]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAdversary {
    kind: Kind,
    share: Option<Share>,
    count: Option<u32>,
    sites: Option<Sites>,
    at: Option<Span>,
    #[serde(default)]
    options: BTreeMap<String, OptionValue>,
}

impl RawAdversary {
    pub(super) fn checked(self) -> Result<Adversary, String> {
        let number = match (self.share, self.count) {
            (Some(share), None) if share > Share::NONE => Number::Share(share),
            (None, Some(count)) if count > 0 => Number::Count(count),
            (None, None) => return Err("how many? say `share = \"20%\"` or `count = 20`".to_owned()),
            (Some(_), Some(_)) => return Err("`share` and `count` both say how many: keep one".to_owned()),
            _ => return Err("there would be none of them: `share` and `count` are more than 0".to_owned()),
        };
        let Some(sites) = self.sites else {
            let why = "where do they come from? say `sites = 20` (that many /24) or `sites = \"own\"` (each its own)";
            return Err(why.to_owned());
        };
        Ok(Adversary { kind: self.kind, number, sites, at: self.at, options: self.options })
    }
}
