//! Every number of discovery, and what it was derived from.

use std::net::IpAddr;
use std::time::Duration;

use peerage_machine::{Backoff, Quota};
use peerage_wire::address::is_local;
use serde::{Deserialize, Serialize};

use crate::filter::EntryRule;
use crate::gate::GateConfig;

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A limit that must admit something admits nothing.
    #[error("`{0}` must not be zero")]
    Zero(&'static str),
    /// A packet would be expired before its answer may come.
    #[error("packet_lifetime {lifetime:?} must be at least request_timeout {timeout:?}")]
    Lifetime {
        /// `packet_lifetime`.
        lifetime: Duration,
        /// `request_timeout`.
        timeout: Duration,
    },
    /// Cookies would be thrown away by their maker before a request can return with them.
    #[error("cookie_epoch {epoch:?} must be at least twice request_timeout {timeout:?}")]
    Epoch {
        /// `cookie_epoch`.
        epoch: Duration,
        /// `request_timeout`.
        timeout: Duration,
    },
}

/// What the machine and the gate are told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Local addresses (loopback, private, link-local) are under no per-address limit. Networks on one host
    /// need it; a test of a limit must switch it off.
    pub exempt_local: bool,
    /// Nodes of one site (/24 or /48) in one bucket, replacements counted.
    pub site_per_bucket: usize,
    /// Nodes of one site in the table, replacements counted.
    pub site_per_table: usize,
    /// Whether a place of a site that has many goes to a node of one that has fewer, and whether nodes are asked and handed
    /// out by who told of them, one of each in turn. Without it first come is first served, as in geth; to compare.
    pub fair_shares: bool,
    /// What records must say for their owners to be dialled; all of it.
    pub filter: Vec<EntryRule>,
    /// How long an answer may take.
    pub request_timeout: Duration,
    /// How many requests may be unanswered at once. A request over this is not sent, and counted.
    pub max_requests: usize,
    /// How many lookups may run at once. One over this is answered from the table.
    pub max_lookups: usize,
    /// Along how many paths without a common node a lookup goes (S/Kademlia's d). With one, a single liar can spoil it.
    pub lookup_paths: usize,
    /// Of how many peers a cookie is remembered.
    pub max_cookies: usize,
    /// A member of the fast list is pinged every half of this on average (geth: 3 s).
    pub revalidate_fast: Duration,
    /// A member of the slow list is pinged every half of this on average (geth: 9 s).
    pub revalidate_slow: Duration,
    /// A refresh comes after a time drawn from half of this up to all of it (geth: 30 min).
    pub refresh: Duration,
    /// First pause between refreshes of a table that is large enough; it doubles with every refresh up to
    /// [`refresh`](Config::refresh).
    pub refresh_settling: Duration,
    /// First pause between refreshes while the table is small or candidates are wanted; it doubles with every
    /// refresh that found nobody new, up to [`refresh`](Config::refresh).
    pub refresh_hungry: Duration,
    /// The longest pause between refreshes while candidates are wanted.
    pub refresh_wanted: Duration,
    /// Pauses between attempts at the bootnodes while the table is empty.
    pub bootstrap: Backoff,
    /// A node is not handed to the dialer again for this long; doubled by every dial that failed, up to
    /// [`handout_cap`](Config::handout_cap).
    pub handout_pause: Duration,
    /// The longest such pause.
    pub handout_cap: Duration,
    /// A node that talks to us and did not answer when asked for its record is asked again after this.
    pub learn_pause: Duration,
    /// How long a packet is good for after it is signed.
    ///
    /// # Warning
    /// Must agree across the network: a receiver refuses packets that claim to live longer.
    pub packet_lifetime: Duration,
    /// How far a sender's clock may be from ours.
    pub clock_skew: Duration,
    /// Cookies change this often, and are accepted for one more epoch.
    pub cookie_epoch: Duration,
    /// Packets from one host.
    pub quota_host: Quota,
    /// Packets from one site (/24 or /48).
    pub quota_site: Quota,
    /// How many hosts and how many sites are remembered for these.
    pub quota_capacity: usize,
    /// Signature checks for requests (about 50 µs each) of senders that are not in the table, and of those in it
    /// beyond [their own](GateConfig::verify_known).
    pub verify_requests: Quota,
    /// Signature checks for answers to what we asked, so that a flood of requests cannot starve them.
    pub verify_answers: Quota,
    /// The gate's own numbers.
    pub gate: GateConfig,
    /// Packets that wait between the socket task and the machine, at most [`crate::wire::MAX_PACKET`] bytes each.
    pub queue_packets: usize,
    /// How many queued packets the actor handles in one turn.
    pub turn: usize,
}

impl Config {
    /// For a node on the internet.
    pub fn recommended() -> Config {
        Config {
            exempt_local: true,
            site_per_bucket: 2,
            site_per_table: 10,
            fair_shares: true,
            filter: Vec::new(),
            request_timeout: Duration::from_millis(500),
            max_requests: 512,
            max_lookups: 8,
            lookup_paths: 3,
            max_cookies: 1024,
            revalidate_fast: Duration::from_secs(3),
            revalidate_slow: Duration::from_secs(9),
            refresh: Duration::from_secs(30 * 60),
            refresh_settling: Duration::from_secs(10),
            refresh_hungry: Duration::from_secs(1),
            refresh_wanted: Duration::from_secs(30),
            bootstrap: Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(60) },
            handout_pause: Duration::from_secs(35),
            handout_cap: Duration::from_secs(60 * 60),
            learn_pause: Duration::from_secs(10),
            packet_lifetime: Duration::from_secs(20),
            clock_skew: Duration::from_secs(60),
            cookie_epoch: Duration::from_secs(10 * 60),
            quota_host: Quota::new(200, Duration::from_secs(2)),
            quota_site: Quota::new(1_000, Duration::from_secs(2)),
            quota_capacity: 4_096,
            verify_requests: Quota::per_second(2_000),
            verify_answers: Quota::per_second(2_000),
            gate: GateConfig::recommended(),
            queue_packets: 1_024,
            turn: 64,
        }
    }

    /// For many nodes on one host or in one memory: nothing is far, so waiting is shorter.
    pub fn local() -> Config {
        Config {
            bootstrap: Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(2) },
            handout_pause: Duration::from_secs(5),
            learn_pause: Duration::from_secs(1),
            ..Config::recommended()
        }
    }

    /// Whether an address is under no limit by site.
    pub(crate) fn exempt(&self, ip: IpAddr) -> bool {
        self.exempt_local && is_local(ip)
    }

    /// Refuses values that cannot work together.
    ///
    /// # Errors
    /// The first sum that fails.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (name, value) in [
            ("site_per_bucket", self.site_per_bucket),
            ("site_per_table", self.site_per_table),
            ("max_requests", self.max_requests),
            ("max_lookups", self.max_lookups),
            ("lookup_paths", self.lookup_paths),
            ("max_cookies", self.max_cookies),
            ("quota_capacity", self.quota_capacity),
            ("queue_packets", self.queue_packets),
            ("turn", self.turn),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero(name));
            }
        }
        for (name, value) in [
            ("request_timeout", self.request_timeout),
            ("revalidate_fast", self.revalidate_fast),
            ("revalidate_slow", self.revalidate_slow),
            ("refresh", self.refresh),
            ("refresh_settling", self.refresh_settling),
            ("refresh_hungry", self.refresh_hungry),
            ("refresh_wanted", self.refresh_wanted),
            ("bootstrap.base", self.bootstrap.base),
            ("handout_pause", self.handout_pause),
        ] {
            if value.is_zero() {
                return Err(ConfigError::Zero(name));
            }
        }
        let timeout = self.request_timeout;
        if self.packet_lifetime < timeout {
            return Err(ConfigError::Lifetime { lifetime: self.packet_lifetime, timeout });
        }
        if self.cookie_epoch < timeout * 2 {
            return Err(ConfigError::Epoch { epoch: self.cookie_epoch, timeout });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_given_configurations_add_up() {
        assert_eq!(Config::recommended().check(), Ok(()));
        assert_eq!(Config::local().check(), Ok(()));
    }

    #[test]
    fn a_configuration_that_cannot_work_names_what_fails() {
        let zero = Config { max_requests: 0, ..Config::local() };
        assert_eq!(zero.check(), Err(ConfigError::Zero("max_requests")));
        let brief = Config { packet_lifetime: Duration::from_millis(1), ..Config::local() };
        assert!(matches!(brief.check(), Err(ConfigError::Lifetime { .. })));
        let hasty = Config { cookie_epoch: Duration::from_millis(600), ..Config::local() };
        assert!(matches!(hasty.check(), Err(ConfigError::Epoch { .. })));
    }
}
