//! What the dialer can be told: how many, how often, how long.

use std::time::Duration;

use peerage_machine::Backoff;
use serde::{Deserialize, Serialize};

/// The dialer's bounds and intervals. Nothing here needs to agree across a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Whether anybody is dialled at all. If not, static peers are only remembered and no candidates asked for.
    pub dialing: bool,
    /// Whether there is somebody who can be asked for candidates. If not, none are asked for: static peers are
    /// dialled, anchors, and bootnodes while there is no peer.
    pub candidates: bool,
    /// How many peers it wants to have dialled itself. Static peers are not among them.
    pub max_dial_peers: u32,
    /// Static peers connected or being dialled at once: as many as the node has places for. Others wait.
    pub max_static_peers: u32,
    /// Dials in flight at once, static ones not counted. geth: `MaxPendingPeers`, 50.
    pub max_active_dials: u32,
    /// Static peers being dialled or resolved at once.
    pub max_static_dials: u32,
    /// Static peers remembered; more are refused.
    pub max_statics: usize,
    /// How long after a dial began the same node is not dialled again. geth: 35 s, the 30 s for which a
    /// listener throttles an address and 5 s to spare.
    pub history: Duration,
    /// How long a node is left alone after failures in a row. A session that ended before
    /// [`stable_after`](Config::stable_after) is a failure too, and one that ended for a reason that will not pass.
    pub backoff: Backoff,
    /// The same for static peers, which somebody wants back.
    pub static_backoff: Backoff,
    /// A session that lived this long clears its node's failures, and its end begins the wait for a bootnode anew.
    pub stable_after: Duration,
    /// How long failures are remembered after they have stopped to hold a node back.
    pub forget_after: Duration,
    /// Nodes whose dials and failures are remembered. While all of them are held back, no new node is
    /// dialled (static peers are).
    pub max_remembered: usize,
    /// The pause between two asks for candidates, longer while they lead to no dial.
    pub ask: Backoff,
    /// The pause between two resolutions of one static peer, longer while nothing is found. geth: 60 s to 1 h.
    pub resolve: Backoff,
    /// When an unanswered resolution counts as not found.
    pub resolve_timeout: Duration,
    /// When an unanswered dial is cancelled. The connector has its own, shorter deadlines; this one keeps
    /// a lost answer from occupying a slot for ever.
    pub dial_timeout: Duration,
    /// How often every static peer is looked at, so that no missed event can lose one. An inbound set-up of
    /// which nothing was heard for [`dial_timeout`](Config::dial_timeout) is forgotten then, too.
    pub sweep: Duration,
    /// How soon a peer that is named a static one may be dialled, if its history is longer than that. geth makes
    /// it wait for the history, its 2018 version for nothing.
    pub readd_after: Duration,
    /// How long there is neither a dialled nor a static peer before a bootnode is dialled directly, and then the next
    /// one: who only came may be all of one mind. Peers that leave before [`stable_after`](Config::stable_after) do not make it longer. As geth did before it relied on
    /// discovery alone, which leaves hosts without UDP without peers.
    pub lonely_after: Duration,
    /// How often it is said why there are fewer peers than wanted. geth: 10 s.
    pub report_every: Duration,
}

/// A configuration that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Peers are wanted, and none may be dialled.
    #[error("max_dial_peers is {max_dial_peers} and max_active_dials is 0: no peer could be dialled")]
    NoActiveDials {
        /// Peers wanted.
        max_dial_peers: u32,
    },
    /// The dials in flight alone are more than can be remembered.
    #[error(
        "max_active_dials {active} + max_static_dials {statics} = {} > max_remembered {remembered}",
        u64::from(*active) + u64::from(*statics)
    )]
    Remembered {
        /// `max_active_dials`.
        active: u32,
        /// `max_static_dials`.
        statics: u32,
        /// `max_remembered`.
        remembered: usize,
    },
    /// An interval that must pass is zero.
    #[error("{0} must be longer than zero")]
    Zero(&'static str),
}

impl Config {
    /// For the open internet: geth's constants where geth has one. Its default of 50 peers at a dial
    /// ratio of 3 makes 16 dialled ones.
    pub fn recommended() -> Config {
        Config {
            dialing: true,
            candidates: true,
            max_dial_peers: dial_share(50, 3),
            max_static_peers: 32,
            max_active_dials: 50,
            max_static_dials: 16,
            max_statics: 4_096,
            history: Duration::from_secs(35),
            backoff: Backoff { base: Duration::from_secs(30), cap: Duration::from_secs(30 * 60) },
            static_backoff: Backoff { base: Duration::from_secs(30), cap: Duration::from_secs(2 * 60) },
            stable_after: Duration::from_secs(60),
            forget_after: Duration::from_secs(10 * 60),
            max_remembered: 8_192,
            ask: Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(10) },
            resolve: Backoff { base: Duration::from_secs(60), cap: Duration::from_secs(60 * 60) },
            resolve_timeout: Duration::from_secs(30),
            dial_timeout: Duration::from_secs(30),
            sweep: Duration::from_secs(60),
            readd_after: Duration::from_secs(5),
            lonely_after: Duration::from_secs(20),
            report_every: Duration::from_secs(10),
        }
    }

    /// For nodes on one machine or in one rack: a lost peer is dialled again after a second or two.
    pub fn local() -> Config {
        Config {
            history: Duration::from_secs(1),
            backoff: Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(2) },
            static_backoff: Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(2) },
            stable_after: Duration::from_secs(5),
            forget_after: Duration::from_secs(30),
            ask: Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(1) },
            resolve: Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(10) },
            resolve_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(10),
            sweep: Duration::from_secs(2),
            readd_after: Duration::from_millis(500),
            lonely_after: Duration::from_secs(3),
            ..Config::recommended()
        }
    }

    /// Checks that the numbers can work together.
    ///
    /// # Errors
    /// [`ConfigError`], with the sum that failed.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.max_dial_peers > 0 && self.max_active_dials == 0 {
            return Err(ConfigError::NoActiveDials { max_dial_peers: self.max_dial_peers });
        }
        let in_flight = u64::from(self.max_active_dials) + u64::from(self.max_static_dials);
        if u64::try_from(self.max_remembered).is_ok_and(|remembered| in_flight > remembered) {
            return Err(ConfigError::Remembered {
                active: self.max_active_dials,
                statics: self.max_static_dials,
                remembered: self.max_remembered,
            });
        }
        // Each of these is the only thing between one event and the same event again.
        for (name, duration) in [
            ("history", self.history),
            ("ask.base", self.ask.base),
            ("ask.cap", self.ask.cap),
            ("resolve.base", self.resolve.base),
            ("resolve.cap", self.resolve.cap),
            ("resolve_timeout", self.resolve_timeout),
            ("dial_timeout", self.dial_timeout),
            ("sweep", self.sweep),
            ("readd_after", self.readd_after),
            ("lonely_after", self.lonely_after),
            ("report_every", self.report_every),
        ] {
            if duration.is_zero() {
                return Err(ConfigError::Zero(name));
            }
        }
        Ok(())
    }
}

/// How many of `max_peers` a node dials itself when it dials one in `ratio`: at least one, unless it
/// wants no peers at all. geth: `MaxPeers / DialRatio`, 3 by default.
pub fn dial_share(max_peers: u32, ratio: u32) -> u32 {
    if max_peers == 0 { 0 } else { (max_peers / ratio.max(1)).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_work() {
        assert_eq!(Config::recommended().check(), Ok(()));
        assert_eq!(Config::local().check(), Ok(()));
    }

    #[test]
    fn a_bad_value_is_refused_with_the_sum_that_failed() {
        let config = Config { max_remembered: 10, ..Config::recommended() };
        let error = config.check().expect_err("66 > 10").to_string();
        assert_eq!(error, "max_active_dials 50 + max_static_dials 16 = 66 > max_remembered 10");
        let config = Config { max_active_dials: 0, ..Config::recommended() };
        assert_eq!(config.check(), Err(ConfigError::NoActiveDials { max_dial_peers: 16 }));
        let config = Config { history: Duration::ZERO, ..Config::recommended() };
        assert_eq!(config.check(), Err(ConfigError::Zero("history")));
    }

    #[test]
    fn a_node_that_wants_peers_dials_at_least_one() {
        assert_eq!([0, 1, 2, 3, 50].map(|max| dial_share(max, 3)), [0, 1, 1, 1, 16]);
        assert_eq!(dial_share(5, 0), 5);
    }
}
