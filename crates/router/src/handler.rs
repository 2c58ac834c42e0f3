//! Handlers: their ids on the wire, and what they may use.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use serde::{Deserialize, Serialize};

static NAMES: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context("peerage 2026-11 router handler name"));

/// Longest name of a handler, in bytes.
pub const MAX_NAME: usize = 128;

/// A handler as it is called on the wire: the first eight bytes of a keyed hash of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HandlerId(pub u64);

impl HandlerId {
    /// The id of the handler with this name, on every node and in every version. Names of which two have one id do not
    /// occur by chance; [`AddError::Clash`] says so where they do.
    pub fn of(name: &str) -> HandlerId {
        let hash = blake3::Hasher::new_from_context_key(&NAMES).update(name.as_bytes()).finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&hash.as_bytes()[..8]);
        HandlerId(u64::from_be_bytes(id))
    }
}

/// The id of this [name](HandlerId::of). Whoever asks often computes it once.
impl From<&str> for HandlerId {
    fn from(name: &str) -> HandlerId {
        HandlerId::of(name)
    }
}

/// The id of this [name](HandlerId::of).
impl From<&String> for HandlerId {
    fn from(name: &String) -> HandlerId {
        HandlerId::of(name)
    }
}

impl fmt::Display for HandlerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How a handler works on what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// One call after the other, as they came; so many at one instant at most, then others have their turn.
    InOrder {
        /// Calls at one instant.
        budget: u32,
    },
    /// Calls at the same time, as many as there is room for.
    Concurrent,
}

/// At most so many calls of one peer in a sliding window; those that are refused count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Calls.
    pub calls: u32,
    /// The window.
    pub period: Duration,
}

/// What a handler may use, and who may call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerConfig {
    /// One after the other, or at the same time.
    pub order: Order,
    /// Calls of one peer at work or waiting. The others are told that they are throttled.
    pub per_peer: usize,
    /// Calls of all peers at work or waiting, of which some are kept for members
    /// ([`kept_for_members`](crate::Config::kept_for_members)).
    pub total: usize,
    /// How often one peer may call.
    pub rate: Option<Rate>,
    /// Whether the rate is what all members together may call, if each calls nodes at random: then a peer's limit is
    /// [its fair part](crate::resilience::fair_limit), and follows the number of members. Without members nobody may call.
    pub fair: bool,
    /// Whether only members may call; see [`In::Members`](crate::In::Members).
    pub members_only: bool,
}

impl HandlerConfig {
    /// Calls at the same time, 64 of one peer and 1,024 of all.
    pub const fn concurrent() -> HandlerConfig {
        HandlerConfig {
            order: Order::Concurrent,
            per_peer: 64,
            total: 1024,
            rate: None,
            fair: false,
            members_only: false,
        }
    }

    /// Calls in order, 32 at an instant, with as many waiting as [`concurrent`](HandlerConfig::concurrent) ones.
    pub const fn in_order() -> HandlerConfig {
        HandlerConfig { order: Order::InOrder { budget: 32 }, ..HandlerConfig::concurrent() }
    }
}

impl HandlerConfig {
    /// Whether a handler of this name may have these limits, and the id that it has then.
    ///
    /// # Errors
    /// [`AddError::Name`] and [`AddError::Limits`].
    pub fn check(&self, name: &str) -> Result<HandlerId, AddError> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(AddError::Name(name.len()));
        }
        let no_turn = matches!(self.order, Order::InOrder { budget: 0 });
        let no_period = self.rate.is_some_and(|rate| rate.period.is_zero());
        if self.per_peer == 0 || self.total == 0 || no_turn || no_period {
            return Err(AddError::Limits);
        }
        Ok(HandlerId::of(name))
    }
}

/// What a handler of streams may use, and who may open streams to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHandlerConfig {
    /// Streams of one peer at a time. The others are refused.
    pub per_peer: usize,
    /// Streams of all peers at a time, of which some are [kept for members](crate::Config::kept_for_members).
    pub total: usize,
    /// How often one peer may open one.
    pub rate: Option<Rate>,
    /// Whether the rate is what all members together may open, as [for calls](HandlerConfig::fair).
    pub fair: bool,
    /// Whether only members may; see [`In::Members`](crate::In::Members).
    pub members_only: bool,
}

impl StreamHandlerConfig {
    /// 16 of one peer and 1,024 of all.
    pub const fn recommended() -> StreamHandlerConfig {
        StreamHandlerConfig { per_peer: 16, total: 1024, rate: None, fair: false, members_only: false }
    }

    /// Whether a handler of this name may have these limits, and the id that it has then.
    ///
    /// # Errors
    /// [`AddError::Name`] and [`AddError::Limits`].
    pub fn check(&self, name: &str) -> Result<HandlerId, AddError> {
        let StreamHandlerConfig { per_peer, total, rate, fair, members_only } = *self;
        HandlerConfig { order: Order::Concurrent, per_peer, total, rate, fair, members_only }.check(name)
    }
}

/// Why a handler was not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Another handler has this name.
    #[error("there is a handler {0:?} already; remove it first, or choose another name")]
    Taken(String),
    /// Another handler's name has the same id.
    #[error("{name:?} has the same id on the wire as {other:?}; choose another name")]
    Clash {
        /// The name.
        name: String,
        /// The name that was there before.
        other: String,
    },
    /// The name is empty or too long.
    #[error("a handler's name has 1 to {MAX_NAME} bytes, and this one {0}")]
    Name(usize),
    /// As many handlers as there may be.
    #[error("there are {0} handlers, and more there may not be")]
    TooMany(usize),
    /// A limit of zero, with which nothing could ever be called.
    #[error("per_peer, total, a budget and a rate's period must be above zero")]
    Limits,
}

impl AddError {
    /// Whether one more handler may have this name, of at most so many: `there` is the name of the one that has its id.
    ///
    /// # Errors
    /// [`AddError::Taken`], [`AddError::Clash`] and [`AddError::TooMany`].
    pub fn unless_free(name: &str, there: Option<&str>, handlers: usize, most: usize) -> Result<(), AddError> {
        match there {
            Some(there) if there == name => Err(AddError::Taken(name.to_owned())),
            Some(there) => Err(AddError::Clash { name: name.to_owned(), other: there.to_owned() }),
            None if handlers >= most => Err(AddError::TooMany(most)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_frozen_id() {
        assert_eq!(HandlerId::of("height/1").to_string(), FROZEN);
        assert_ne!(HandlerId::of("height/2"), HandlerId::of("height/1"));
    }

    /// Frozen: a change here cuts every network in two.
    const FROZEN: &str = "59181abe4f2b0f0a";
}
