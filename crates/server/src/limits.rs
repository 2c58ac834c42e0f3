//! What of a node's configuration can be changed while it runs.

use peerage_queue::PoolConfig;
use peerage_queue::throttle::ThrottleLimits;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Reputation};
use crate::health::HealthConfig;
use crate::listener::ListenerConfig;
use crate::shedding::SheddingConfig;

/// The limits that hold now, or are to hold from now on. All of them: what is not to change is said as it was.
///
/// Lower ones end no session and take back nothing that was granted: they hold for what comes, as places, permits and
/// bytes are given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// [`Config::max_peers`]; at most [`MOST_PEERS`](Self::MOST_PEERS), or as many as the node was started with.
    pub max_peers: u32,
    /// [`Config::max_static_peers`], likewise.
    pub max_static_peers: u32,
    /// [`Config::dial_ratio`].
    pub dial_ratio: u32,
    /// [`Config::inbound_per_host`].
    pub inbound_per_host: u32,
    /// [`Config::inbound_per_site`].
    pub inbound_per_site: u32,
    /// [`Config::listener`]. How many visitors other doors may have stays as at the start.
    pub listener: ListenerConfig,
    /// [`Config::reputation`].
    pub reputation: Reputation,
    /// What peers and publishers may do in gossip.
    pub gossip: peerage_gossip::Limits,
    /// What this node asks of others' handlers.
    pub asked: peerage_router::Limits,
    /// What its own handlers are asked.
    pub served: peerage_router::Limits,
    /// Bytes of messages that wait to go out; [`peerage_queue::Config::outbound`].
    pub outbound: PoolConfig,
    /// Bytes of messages that came and were not handled; [`peerage_queue::Config::inbound`].
    pub inbound: PoolConfig,
    /// How fast peers may be; [`peerage_queue::Config::throttle`].
    pub throttle: ThrottleLimits,
    /// [`Config::health`].
    pub health: HealthConfig,
    /// [`Config::shedding`].
    pub shedding: SheddingConfig,
}

impl Limits {
    /// To how many peers, and to how many static ones, the limits can be raised while the node runs: queues are made with
    /// that in mind.
    pub const MOST_PEERS: u32 = 10_000;
    /// To how many bytes a pool can be raised.
    pub const MOST_BYTES: usize = 1 << 30;

    /// What a configuration says.
    pub fn of(config: &Config) -> Limits {
        Limits {
            max_peers: config.max_peers,
            max_static_peers: config.max_static_peers,
            dial_ratio: config.dial_ratio,
            inbound_per_host: config.inbound_per_host,
            inbound_per_site: config.inbound_per_site,
            listener: config.listener.clone(),
            reputation: config.reputation.clone(),
            gossip: peerage_gossip::Limits::of(&config.gossip),
            asked: config.router.asked,
            served: config.router.served,
            outbound: config.queue.outbound,
            inbound: config.queue.inbound,
            throttle: config.queue.throttle,
            health: config.health.clone(),
            shedding: config.shedding.clone(),
        }
    }

    /// Says them in a configuration, which is to be [checked](Config::check).
    pub fn apply(&self, config: &mut Config) {
        let limits = self.clone();
        config.max_peers = limits.max_peers;
        config.max_static_peers = limits.max_static_peers;
        config.dial_ratio = limits.dial_ratio;
        config.inbound_per_host = limits.inbound_per_host;
        config.inbound_per_site = limits.inbound_per_site;
        config.listener = limits.listener;
        config.reputation = limits.reputation;
        limits.gossip.apply(&mut config.gossip);
        (config.router.asked, config.router.served) = (limits.asked, limits.served);
        (config.queue.outbound, config.queue.inbound) = (limits.outbound, limits.inbound);
        config.queue.throttle = limits.throttle;
        (config.health, config.shedding) = (limits.health, limits.shedding);
    }

    /// The configuration of a node that was started with `first`, has `now`, and is to have these limits. All of them, or
    /// none.
    ///
    /// # Errors
    /// What does not add up, or cannot change while the node runs, in words.
    pub fn changed(&self, first: &Config, now: &Config) -> Result<Config, String> {
        for (name, asked, most) in [
            ("max_peers", self.max_peers, first.max_peers),
            ("max_static_peers", self.max_static_peers, first.max_static_peers),
        ] {
            let most = most.max(Self::MOST_PEERS);
            if asked > most {
                return Err(format!("{name} ({asked}) can be at most {most} while the node runs"));
            }
        }
        for (name, asked, first) in
            [("outbound", self.outbound, first.queue.outbound), ("inbound", self.inbound, first.queue.inbound)]
        {
            let most = first.capacity().max(Self::MOST_BYTES);
            if asked.capacity() > most {
                let all = asked.capacity();
                return Err(format!("{name}: {all} bytes in all, and there can be {most} while the node runs"));
            }
        }
        let most = peerage_router::Limits::MOST;
        for (name, asked, first) in
            [("asked", self.asked, first.router.asked), ("served", self.served, first.router.served)]
        {
            if asked.node > most.node.max(first.node) || asked.node_bytes > most.node_bytes.max(first.node_bytes) {
                return Err(format!(
                    "{name}: {} requests of {} bytes, and there can be {} of {} while the node runs",
                    asked.node, asked.node_bytes, most.node, most.node_bytes
                ));
            }
        }
        let mut config = now.clone();
        self.apply(&mut config);
        config.check()?;
        Ok(config)
    }

    /// Bytes that peers can make the node hold in its queues, whatever they do.
    pub const fn held_for_peers(&self) -> usize {
        self.outbound.capacity().saturating_mul(2).saturating_add(self.inbound.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_configuration_says_can_be_said_in_another_one() {
        let config = Config::recommended();
        let mut limits = Limits::of(&config);
        limits.max_peers = 7;
        limits.gossip.publisher_bytes += 1;
        limits.served.per_peer -= 1;
        limits.throttle.upload.node = Some(8 << 20);
        let changed = limits.changed(&config, &config).expect("it adds up");
        assert_eq!(Limits::of(&changed), limits);
        assert_eq!((changed.max_peers, changed.router.served.per_peer), (7, limits.served.per_peer));
        assert_eq!((changed.network, changed.queue.lanes), (config.network, config.queue.lanes));
    }

    #[test]
    fn what_does_not_add_up_or_was_not_provided_for_is_refused_in_words() {
        let config = Config::recommended();
        let told = |change: fn(&mut Limits)| {
            let mut limits = Limits::of(&config);
            change(&mut limits);
            limits.changed(&config, &config).expect_err("it cannot be")
        };
        assert!(told(|limits| limits.max_peers = 10_001).contains("max_peers (10001) can be at most 10000"));
        assert!(told(|limits| limits.dial_ratio = 0).contains("dial_ratio"));
        assert!(told(|limits| limits.inbound.at_large = 2 << 30).contains("inbound: "));
        assert!(told(|limits| limits.outbound.at_large = 1).contains("queue.outbound"));
        assert!(told(|limits| limits.reputation.ban_at = 1).contains("reputation.disconnect_at"));
        assert!(told(|limits| limits.listener.slots = 0).contains("listener.slots"));
        assert!(told(|limits| limits.served.node = 2 << 20).contains("served: "));
        assert!(told(|limits| limits.gossip.quota_ids = 1).contains("quota_ids"));
        assert!(told(|limits| limits.throttle.messages = Some(0)).contains("queue.throttle.messages"));
        assert!(told(|limits| limits.throttle.upload.node = Some(1_000)).contains("upload.node (1000)"));
        assert!(told(|limits| limits.health.send_failures = 1_000).contains("health.send_failures"));
        assert!(told(|limits| limits.shedding.cpu = 1_001).contains("shedding.cpu"));
    }

    #[test]
    fn a_node_that_was_started_with_more_can_have_as_much_again() {
        let mut first = Config::recommended();
        first.max_peers = 20_000;
        let mut limits = Limits::of(&first);
        limits.max_peers = 5;
        let now = limits.changed(&first, &first).expect("fewer");
        limits.max_peers = 20_000;
        assert_eq!(limits.changed(&first, &now).map(|config| config.max_peers), Ok(20_000));
    }
}
