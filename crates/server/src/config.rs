//! A node's configuration, and whether it adds up.

use std::time::Duration;

/// Everything about a node that is not an address, a key or a file.
///
/// # Warning
/// `network` and `fork_id` must agree across the network: nodes that differ refuse each other.
#[derive(Clone, Debug)]
pub struct Config {
    /// The network's name.
    pub network: String,
    /// The application's idea of which fork it follows, compared byte for byte; at most 32 bytes.
    pub fork_id: Vec<u8>,
    /// Program and version, shown to peers; at most 64 bytes.
    pub agent: String,
    /// Most peers at a time. Trusted peers may exceed it.
    pub max_peers: u32,
    /// One in so many peers is dialled by this node, the others may dial it (geth: 3).
    pub dial_ratio: u32,
    /// Inbound connections that may be in their set-up at a time.
    pub max_pending: usize,
    /// Connections one host may open in ten seconds before it is refused; local hosts are exempt if
    /// `exempt_local` says so.
    pub accepts_per_host: u32,
    /// Whether limits by address spare local addresses. A test of a limit must switch it off.
    pub exempt_local: bool,
    /// Whether to look for nodes over UDP.
    pub discovery_on: bool,
    /// How long a misbehaving node is refused.
    pub ban_time: Duration,
    /// Penalty points at which a peer is dropped and banned.
    pub penalty_limit: u32,
    /// How long a shutdown may take before what is left is cut off.
    pub drain_timeout: Duration,
    /// How often the node's record is signed anew.
    pub resign_every: Duration,
    /// Sessions.
    pub session: peerage_peer_session::Config,
    /// Outbound queues.
    pub queue: peerage_queue::Config,
    /// Whom to dial. Its `max_dial_peers` follows from `max_peers` and `dial_ratio`.
    pub dialer: peerage_dialer::Config,
    /// Finding nodes.
    pub discovery: peerage_discovery::Config,
    /// Topics.
    pub gossip: peerage_gossip::Config,
}

impl Config {
    /// For a node on the internet: 50 peers, a third of them dialled, as geth.
    pub fn recommended() -> Config {
        Config {
            network: "peerage".into(),
            fork_id: Vec::new(),
            agent: concat!("peerage/", env!("CARGO_PKG_VERSION")).into(),
            max_peers: 50,
            dial_ratio: 3,
            max_pending: 256,
            accepts_per_host: 10,
            exempt_local: true,
            discovery_on: true,
            ban_time: Duration::from_secs(300),
            penalty_limit: 100,
            drain_timeout: Duration::from_secs(3),
            resign_every: Duration::from_secs(24 * 3600),
            session: peerage_peer_session::Config::recommended(),
            queue: peerage_queue::Config::recommended(),
            dialer: peerage_dialer::Config::recommended(),
            discovery: peerage_discovery::Config::recommended(),
            gossip: peerage_gossip::Config::recommended(),
        }
    }

    /// For nodes on one machine: quick to dial again, and to be dialled by.
    pub fn local() -> Config {
        Config {
            session: peerage_peer_session::Config::local(),
            queue: peerage_queue::Config::local(),
            dialer: peerage_dialer::Config::local(),
            discovery: peerage_discovery::Config::local(),
            gossip: peerage_gossip::Config::local(),
            ..Config::recommended()
        }
    }

    /// Peers this node dials itself.
    pub fn dial_share(&self) -> u32 {
        peerage_dialer::dial_share(self.max_peers, self.dial_ratio)
    }

    /// Checks that everything adds up.
    ///
    /// # Errors
    /// The sum that fails, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.fork_id.len() > 32 {
            return Err(format!("fork_id has {} bytes, and at most 32 fit", self.fork_id.len()));
        }
        if self.agent.len() > 64 {
            return Err(format!("agent has {} bytes, and at most 64 fit", self.agent.len()));
        }
        if self.dial_ratio == 0 || self.max_pending == 0 || self.accepts_per_host == 0 || self.penalty_limit == 0 {
            return Err("dial_ratio, max_pending, accepts_per_host and penalty_limit must be at least 1".into());
        }
        // A message of gossip is its payload and a header, and must pass a session whole.
        let largest = self.gossip.max_payload + peerage_gossip::wire::MAX_OVERHEAD;
        if largest > self.session.max_message {
            return Err(format!(
                "gossip.max_payload ({}) and {} bytes of header are more than session.max_message ({})",
                self.gossip.max_payload,
                peerage_gossip::wire::MAX_OVERHEAD,
                self.session.max_message
            ));
        }
        self.session.check()?;
        self.queue.check(self.session.max_message)?;
        self.dialer.check().map_err(|error| error.to_string())?;
        self.discovery.check().map_err(|error| error.to_string())?;
        self.gossip.validate().map_err(|error| error.to_string())
    }
}

impl Default for Config {
    fn default() -> Self {
        Config::recommended()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_configurations_add_up_and_a_bad_one_says_which_sum_fails() {
        assert_eq!(Config::recommended().check(), Ok(()));
        assert_eq!(Config::local().check(), Ok(()));
        let mut config = Config::recommended();
        config.session.max_message = 1 << 20;
        let error = config.check().expect_err("gossip's messages would end sessions");
        assert!(error.contains("session.max_message (1048576)"), "{error}");
    }
}
