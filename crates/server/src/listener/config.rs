//! The listener's limits.

use std::net::IpAddr;
use std::time::Duration;

use peerage_machine::Quota;
use peerage_wire::IpNet;
use serde::{Deserialize, Serialize};

/// An address, or a network, behind which many honest peers live: a carrier's NAT, a venue, an office (status-go
/// issue 2146).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedAddress {
    /// Which addresses.
    pub network: IpNet,
    /// How many times the usual number of connections each of them may open.
    pub factor: u32,
}

impl SharedAddress {
    /// The largest factor of those that list this address; 1 if none does.
    pub(crate) fn factor(shared: &[SharedAddress], ip: IpAddr) -> u32 {
        let ip = ip.to_canonical();
        let matching = shared.iter().filter(|shared| shared.network.contains(&ip));
        matching.map(|shared| shared.factor).max().unwrap_or(1)
    }
}

/// How many connections may be in their set-up, and how many may come, from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerConfig {
    /// Connections that may be in their set-up at a time.
    pub slots: usize,
    /// How many of [`slots`](Self::slots) are kept for static and trusted peers' addresses.
    pub reserved: usize,
    /// Connections that one host may open: an IPv4 address, or an IPv6 /64.
    pub per_host: Quota,
    /// Connections that one site may open: an IPv4 /24, or an IPv6 /48.
    pub per_site: Quota,
    /// Addresses that many peers share. Where several match, the largest factor counts. At most 1,024.
    pub shared_addresses: Vec<SharedAddress>,
    /// Connections taken a second, from everybody together; a quarter of them may come at once. Those beyond wait
    /// in the system's backlog. Those that the limits by address refuse do not count, or one address could keep all
    /// others waiting; each costs an accept and a close, some 20 µs.
    pub accepts_per_second: u32,
    /// From the accept until the first bytes have told the protocol; for a session, until its first message is there.
    pub first_bytes_timeout: Duration,
    /// How old a set-up must be to give way to another one of the same site.
    pub evict_after: Duration,
}

impl ListenerConfig {
    /// Networks that [`shared_addresses`](Self::shared_addresses) can list: each is compared with every newcomer.
    pub const MAX_SHARED: usize = 1024;

    /// 256 slots, 16 of them reserved; a host may open 10 connections in ten seconds, a site 40; 256 accepts a second
    /// (avalanchego: 256).
    pub const fn recommended() -> ListenerConfig {
        ListenerConfig {
            slots: 256,
            reserved: 16,
            per_host: Quota::new(10, Duration::from_secs(10)),
            per_site: Quota::new(40, Duration::from_secs(10)),
            shared_addresses: Vec::new(),
            accepts_per_second: 256,
            first_bytes_timeout: Duration::from_secs(1),
            evict_after: Duration::from_secs(1),
        }
    }

    /// As [`recommended`](Self::recommended).
    pub const fn local() -> ListenerConfig {
        ListenerConfig::recommended()
    }

    /// Checks that the limits add up.
    ///
    /// # Errors
    /// The sum that fails, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.slots <= self.reserved {
            return Err(format!(
                "listener.slots ({}) must be more than listener.reserved ({}), or strangers have none",
                self.slots, self.reserved
            ));
        }
        if self.slots > 1 << 16 {
            return Err(format!("listener.slots ({}) must be at most 65536", self.slots));
        }
        for (name, quota) in [("per_host", self.per_host), ("per_site", self.per_site)] {
            if quota.burst() == 0 || quota.period().is_zero() || quota.period() > Duration::from_secs(3600) {
                return Err(format!(
                    "listener.{name} must be at least one connection in a period of at most an hour, and is {} in {:?}",
                    quota.burst(),
                    quota.period()
                ));
            }
        }
        if self.accepts_per_second == 0 || self.first_bytes_timeout.is_zero() {
            return Err("listener.accepts_per_second and listener.first_bytes_timeout must be more than nothing".into());
        }
        if self.shared_addresses.len() > Self::MAX_SHARED {
            return Err(format!(
                "listener.shared_addresses lists {} networks, and at most {} can be",
                self.shared_addresses.len(),
                Self::MAX_SHARED
            ));
        }
        match self.shared_addresses.iter().find(|shared| shared.factor == 0) {
            Some(shared) => {
                Err(format!("listener.shared_addresses: the factor of {} must be at least 1", shared.network))
            }
            None => Ok(()),
        }
    }

    /// How many times the usual number of connections this address may open.
    pub(crate) fn factor(&self, ip: IpAddr) -> u32 {
        SharedAddress::factor(&self.shared_addresses, ip)
    }
}

impl Default for ListenerConfig {
    fn default() -> Self {
        ListenerConfig::recommended()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_do_not_add_up_are_refused_with_the_sum() {
        assert_eq!(ListenerConfig::recommended().check(), Ok(()));
        assert_eq!(ListenerConfig::local().check(), Ok(()));
        let told = |change: fn(&mut ListenerConfig)| {
            let mut config = ListenerConfig::recommended();
            change(&mut config);
            config.check().expect_err("it does not add up")
        };
        assert!(told(|config| config.reserved = 256).contains("listener.reserved (256)"));
        assert!(told(|config| config.per_site = Quota::per_second(0)).contains("listener.per_site"));
        assert!(told(|config| config.per_host = Quota::new(1, Duration::from_secs(7200))).contains("7200s"));
        assert!(told(|config| config.accepts_per_second = 0).contains("listener.accepts_per_second"));
        let nat = SharedAddress { network: "10.0.0.0/8".parse().expect("network"), factor: 0 };
        let mut config = ListenerConfig { shared_addresses: vec![nat], ..ListenerConfig::recommended() };
        assert!(config.check().expect_err("no factor").contains("10.0.0.0/8"));
        config.shared_addresses = vec![SharedAddress { factor: 2, ..nat }; 1025];
        assert!(config.check().expect_err("too many").contains("1025"));
    }

    #[test]
    fn the_largest_factor_that_matches_counts() {
        let shared = |text: &str, factor| SharedAddress { network: text.parse().expect("network"), factor };
        let shared_addresses = vec![shared("192.0.2.0/24", 3), shared("192.0.2.7/32", 20)];
        let config = ListenerConfig { shared_addresses, ..ListenerConfig::recommended() };
        let factor = |ip: &str| config.factor(ip.parse().expect("address"));
        assert_eq!((factor("192.0.2.7"), factor("::ffff:192.0.2.8"), factor("192.0.3.7")), (20, 3, 1));
    }
}
