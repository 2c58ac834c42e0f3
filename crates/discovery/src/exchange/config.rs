//! The numbers of the exchange.

use std::time::Duration;

use peerage_machine::Quota;
use serde::{Deserialize, Serialize};

use crate::filter::EntryRule;

/// How often peers are asked, and what they may ask.
///
/// # Warning
/// `pull_hungry` and `pulls` must agree across the network: a node that asks more often than its peers allow is not
/// answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Whether limits by address spare local addresses.
    pub exempt_local: bool,
    /// What a record must say for its owner to be handed to the dialer: discovery's own rules, which the server sets.
    pub filter: Vec<EntryRule>,
    /// One random peer is asked this often, with up to half of it as jitter (AvalancheGo: 2 s; its records change
    /// hands only so).
    pub pull_every: Duration,
    /// … and this often while the dialer wants candidates or [`few`](Config::few) nodes are known; never the same
    /// peer sooner.
    pub pull_hungry: Duration,
    /// The pause doubles with each answer without news, up to this.
    pub pull_hungry_cap: Duration,
    /// An answer that takes longer is not waited for.
    pub pull_timeout: Duration,
    /// With fewer nodes known, peers besides, a node is hungry.
    pub few: usize,
    /// How often one peer may ask.
    pub pulls: Quota,
    /// How much of what a peer should not send is overlooked: a slow line makes pulls come together and answers
    /// come late.
    pub tolerance: Quota,
    /// Nodes that are remembered.
    pub max_known: usize,
    /// … of what one peer told, so that nobody's inventions crowd out what others told.
    pub max_told: usize,
    /// … at one site (/24, /48).
    pub max_site: usize,
    /// A node is forgotten this long after it was told of.
    pub known_for: Duration,
    /// A node is not handed to the dialer again for this long; doubled by every dial that failed…
    pub handout_pause: Duration,
    /// … up to this.
    pub handout_cap: Duration,
    /// Dials in a row that failed, after which a node is forgotten.
    pub give_up: u32,
    /// Finding out whether this node can be dialled.
    pub probe: ProbeConfig,
}

/// Asking peers to dial back, and doing that for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeConfig {
    /// The first round comes this long after the start, and after a change of the node's addresses.
    pub after: Duration,
    /// Rounds come this often, with up to a fifth of it as jitter.
    pub every: Duration,
    /// … and this often while fewer than [`enough`](ProbeConfig::enough) could be asked.
    pub retry: Duration,
    /// Peers that make a round worth the name.
    pub enough: usize,
    /// Peers asked in a round, of as many sites.
    pub peers: usize,
    /// An answer that takes longer is not waited for. Longer than [`dial_timeout`](ProbeConfig::dial_timeout), with
    /// the way there and back.
    pub timeout: Duration,
    /// Connections opened for peers at a time.
    pub at_once: usize,
    /// How long one may take.
    pub dial_timeout: Duration,
    /// Connections opened for one peer…
    pub per_peer: Quota,
    /// … for all at one host (IPv4 address, IPv6 /64)…
    pub per_host: Quota,
    /// … and for everybody.
    pub total: Quota,
}

/// Why a configuration cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A number that must be more than zero.
    #[error("exchange.{0} must be more than zero")]
    Zero(&'static str),
    /// Peers could not ask as often as they do.
    #[error(
        "exchange.pulls allows {burst} pulls in {period:?}, which is less often than exchange.pull_hungry ({every:?})"
    )]
    Pulls {
        /// Of the quota.
        burst: u32,
        /// Of the quota.
        period: Duration,
        /// How often is asked.
        every: Duration,
    },
    /// No answer would be in time.
    #[error("exchange.probe.timeout ({timeout:?}) must be longer than exchange.probe.dial_timeout ({dial:?})")]
    Probe {
        /// How long is waited.
        timeout: Duration,
        /// How long a dial may take.
        dial: Duration,
    },
}

impl Config {
    /// For a node on the internet.
    pub const fn recommended() -> Config {
        Config {
            exempt_local: true,
            filter: Vec::new(),
            pull_every: Duration::from_secs(60),
            pull_hungry: Duration::from_secs(5),
            pull_hungry_cap: Duration::from_secs(30),
            pull_timeout: Duration::from_secs(10),
            few: 16,
            pulls: Quota::new(2, Duration::from_secs(10)),
            tolerance: Quota::new(8, Duration::from_secs(60)),
            max_known: 1_024,
            max_told: 128,
            max_site: 16,
            known_for: Duration::from_secs(60 * 60),
            handout_pause: Duration::from_secs(35),
            handout_cap: Duration::from_secs(60 * 60),
            give_up: 3,
            probe: ProbeConfig {
                after: Duration::from_secs(30),
                every: Duration::from_secs(15 * 60),
                retry: Duration::from_secs(60),
                enough: 3,
                peers: 5,
                timeout: Duration::from_secs(15),
                at_once: 4,
                dial_timeout: Duration::from_secs(5),
                per_peer: Quota::new(1, Duration::from_secs(10 * 60)),
                per_host: Quota::new(4, Duration::from_secs(10 * 60)),
                total: Quota::new(30, Duration::from_secs(60)),
            },
        }
    }

    /// For many nodes on one host or in one memory: who failed is dialled again sooner, as discovery does.
    pub fn local() -> Config {
        Config { handout_pause: Duration::from_secs(5), ..Config::recommended() }
    }

    /// Refuses values that cannot work together.
    ///
    /// # Errors
    /// The first sum that fails.
    pub fn check(&self) -> Result<(), ConfigError> {
        let probe = &self.probe;
        for (name, zero) in [
            ("pull_every", self.pull_every.is_zero()),
            ("pull_hungry", self.pull_hungry.is_zero()),
            ("pull_hungry_cap", self.pull_hungry_cap.is_zero()),
            ("pull_timeout", self.pull_timeout.is_zero()),
            ("max_known", self.max_known == 0),
            ("max_told", self.max_told == 0),
            ("max_site", self.max_site == 0),
            ("known_for", self.known_for.is_zero()),
            ("handout_pause", self.handout_pause.is_zero()),
            ("probe.every", probe.every.is_zero()),
            ("probe.retry", probe.retry.is_zero()),
        ] {
            if zero {
                return Err(ConfigError::Zero(name));
            }
        }
        let (burst, period, every) = (self.pulls.burst(), self.pulls.period(), self.pull_hungry);
        if burst == 0 || period > every.saturating_mul(burst) {
            return Err(ConfigError::Pulls { burst, period, every });
        }
        if probe.timeout <= probe.dial_timeout {
            return Err(ConfigError::Probe { timeout: probe.timeout, dial: probe.dial_timeout });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_given_configurations_add_up_and_a_bad_one_names_what_fails() {
        assert_eq!(Config::recommended().check(), Ok(()));
        assert_eq!(Config::local().check(), Ok(()));
        let told = |change: fn(&mut Config)| {
            let mut config = Config::recommended();
            change(&mut config);
            config.check().expect_err("it does not add up").to_string()
        };
        assert!(told(|config| config.max_told = 0).contains("exchange.max_told"));
        assert!(told(|config| config.pull_hungry = Duration::from_secs(4)).contains("less often"));
        assert!(told(|config| config.probe.timeout = Duration::from_secs(5)).contains("dial_timeout"));
    }
}
