//! What honest nodes do: publish, and look for nodes.

use std::time::Duration;

use serde::Deserialize;

use super::units::{Share, Sizes, Span};

/// Messages on one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// The topic's name.
    pub topic: String,
    /// Whether messages are signed by who publishes them. Default: they are.
    pub policy: Policy,
    /// The part of the honest nodes that subscribes. Default: all.
    pub subscribers: Share,
    /// The part of the honest nodes that messages are published at. Default: all.
    pub publishers: Share,
    /// Whether large messages are coded: everybody on the topic is admitted. Default: they are not.
    pub coded: bool,
    /// How often a message is published, in the whole network.
    pub pace: Pace,
    /// Bytes of each payload.
    pub size: Sizes,
    /// The first message is published now.
    pub from: Span,
    /// The last one before now. All of them are accounted for at the end.
    pub until: Span,
}

impl Traffic {
    /// How many messages it is.
    pub fn messages(&self) -> u64 {
        self.pace.count(self.until.get().saturating_sub(self.from.get()))
    }

    /// When message `index` (from 0) is published.
    pub fn moment(&self, index: u64) -> Duration {
        self.from.get().saturating_add(self.pace.offset(index))
    }
}

/// Who answers for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Its publisher, who signs it.
    #[default]
    Signed,
    /// Nobody.
    Anonymous,
}

/// How often something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// So many times a second; at least 1.
    PerSecond(u32),
    /// Once in this long; more than 0.
    Every(Span),
}

impl Pace {
    /// How long after the first the one with this index (from 0) comes.
    pub fn offset(self, index: u64) -> Duration {
        let nanos = match self {
            Self::PerSecond(rate) => u128::from(index) * 1_000_000_000 / u128::from(rate.max(1)),
            Self::Every(span) => u128::from(index).saturating_mul(span.get().as_nanos()),
        };
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many come in `span`, its first moment included and its last not.
    pub fn count(self, span: Duration) -> u64 {
        let nanos = span.as_nanos();
        let count = match self {
            Self::PerSecond(rate) => (nanos * u128::from(rate)).div_ceil(1_000_000_000),
            Self::Every(every) => nanos.div_ceil(every.get().as_nanos().max(1)),
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

/// Lookups of random targets by random nodes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lookups {
    /// How many, evenly spread over the time.
    pub count: u32,
    /// The first one starts now.
    pub from: Span,
    /// The last one before now.
    pub until: Span,
}

/// `[[traffic]]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTraffic {
    topic: String,
    #[serde(default)]
    policy: Policy,
    #[serde(default = "all")]
    subscribers: Share,
    #[serde(default = "all")]
    publishers: Share,
    #[serde(default)]
    coded: bool,
    rate: Option<u32>,
    every: Option<Span>,
    size: Sizes,
    from: Span,
    until: Span,
}

impl RawTraffic {
    pub(super) fn checked(self) -> Result<Traffic, String> {
        let pace = pace(self.rate, self.every, "message would ever be published")?;
        let Self { topic, policy, subscribers, publishers, coded, size, from, until, .. } = self;
        Ok(Traffic { topic, policy, subscribers, publishers, coded, pace, size, from, until })
    }
}

/// How often, as a file says it.
pub(super) fn pace(rate: Option<u32>, every: Option<Span>, never: &str) -> Result<Pace, String> {
    match (rate, every) {
        (Some(rate), None) if rate > 0 => Ok(Pace::PerSecond(rate)),
        (None, Some(every)) if every > Span::default() => Ok(Pace::Every(every)),
        (None, None) => Err("how often? say `rate = 10` (a second) or `every = \"4s\"`".to_owned()),
        (Some(_), Some(_)) => Err("`rate` and `every` say the same thing: keep one".to_owned()),
        _ => Err(format!("no {never}: `rate` and `every` are more than 0")),
    }
}

fn all() -> Share {
    Share::ALL
}
