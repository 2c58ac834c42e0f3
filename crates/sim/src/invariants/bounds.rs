//! What a node holds is bounded.

use peerage_wire::frame::Lane;

use super::{Invariant, Scene, Seen, Verdict};
use crate::engine::HostId;

/// What waits in a node's lanes is at most what its peers' lanes have room for, or one message each that is larger.
pub struct QueueBytes;

impl Invariant for QueueBytes {
    fn name(&self) -> &'static str {
        "queue-bytes"
    }

    fn saw(&mut self, scene: &Scene<'_>, host: HostId, seen: &Seen) -> Verdict {
        let lane =
            scene.config.queue.lanes.bytes.max(scene.config.gossip.max_payload + peerage_gossip::wire::MAX_OVERHEAD);
        let most = seen.peers.len().saturating_mul(Lane::ALL.len()).saturating_mul(lane);
        within(host, "bytes in its lanes", seen.queued_bytes, most)
    }
}

/// What a node has begun and not ended, and what it remembers, is as its configuration says.
pub struct Pending;

impl Invariant for Pending {
    fn name(&self) -> &'static str {
        "pending"
    }

    fn saw(&mut self, scene: &Scene<'_>, host: HostId, seen: &Seen) -> Verdict {
        let (config, (requests, lookups)) = (scene.config, seen.under_way);
        within(host, "requests without an answer", requests, config.discovery.max_requests)?;
        within(host, "lookups", lookups, config.discovery.max_lookups)?;
        if let Some(dialer) = seen.dialer {
            let config = &config.dialer;
            within(host, "dials", dialer.dialing as usize, config.max_active_dials as usize)?;
            within(host, "dials of static peers", dialer.dialing_static as usize, config.max_static_dials as usize)?;
            within(host, "static peers", dialer.statics, config.max_statics)?;
            within(host, "remembered dials", dialer.remembered, config.max_remembered)?;
        }
        if let Some(gossip) = seen.gossip {
            let config = &config.gossip;
            within(host, "ids seen", gossip.seen, config.seen_ids)?;
            within(host, "messages kept", gossip.cached, config.cache_ids)?;
            within(host, "bytes of messages kept", gossip.cached_bytes, config.cache_bytes)?;
            within(host, "messages being checked", gossip.in_flight, config.in_flight)?;
            within(host, "topics", gossip.subscriptions, config.max_topics)?;
            within(host, "coded messages", gossip.coded, config.coded.sessions)?;
            within(host, "bytes of shards", gossip.coded_bytes, config.coded.bytes)?;
            let wanted = config.wants_per_peer.saturating_mul(gossip.peers);
            within(host, "messages wanted", gossip.wanted, wanted)?;
        }
        Ok(())
    }
}

fn within(host: HostId, what: &str, count: usize, most: usize) -> Verdict {
    if count <= most { Ok(()) } else { Err(format!("host {} has {count} {what}, and {most} may be", host.0)) }
}

#[cfg(test)]
mod tests {
    use peerage_dialer::Status;
    use peerage_gossip::Stats;

    use super::super::trial::{Trial, id, peer, with};
    use super::*;

    #[test]
    fn more_bytes_than_the_lanes_hold_are_noticed() {
        let trial = Trial::new();
        let room = Lane::ALL.len() * trial.config.queue.lanes.bytes;
        let queued = |bytes| Seen { queued_bytes: bytes, ..with([peer(1, true), peer(2, false)]) };
        assert_eq!(trial.saw(&mut QueueBytes, &queued(2 * room)), Ok(()));
        assert!(trial.saw(&mut QueueBytes, &queued(2 * room + 1)).is_err());
    }

    /// Passes at the bound and not beyond it.
    fn bounded(what: &str, most: usize, seen: impl Fn(usize) -> Seen) {
        let trial = Trial::new();
        assert_eq!(trial.saw(&mut Pending, &seen(most)), Ok(()), "{what}");
        assert!(trial.saw(&mut Pending, &seen(most + 1)).is_err(), "{what}");
    }

    #[test]
    fn more_under_way_than_may_be_is_noticed() {
        let config = Trial::new().config;
        let discovery = |under_way| Seen { under_way, ..Seen::nothing(id(0)) };
        bounded("requests", config.discovery.max_requests, |count| discovery((count, 0)));
        bounded("lookups", config.discovery.max_lookups, |count| discovery((0, count)));
        let idle = Status {
            enabled: true,
            wanted: 0,
            dialled_peers: 0,
            dialing: 0,
            dialing_static: 0,
            free_slots: 0,
            statics: 0,
            remembered: 0,
        };
        let dialer = |status| Seen { dialer: Some(status), ..Seen::nothing(id(0)) };
        let limits = &config.dialer;
        bounded("dials", limits.max_active_dials as usize, |n| dialer(Status { dialing: n as u32, ..idle }));
        bounded("static", limits.max_static_dials as usize, |n| dialer(Status { dialing_static: n as u32, ..idle }));
        bounded("statics", limits.max_statics, |statics| dialer(Status { statics, ..idle }));
        bounded("remembered", limits.max_remembered, |remembered| dialer(Status { remembered, ..idle }));
    }

    #[test]
    fn more_messages_than_gossip_may_hold_are_noticed() {
        let config = Trial::new().config.gossip;
        let empty = Stats {
            peers: 2,
            subscriptions: 0,
            seen: 0,
            cached: 0,
            cached_bytes: 0,
            in_flight: 0,
            wanted: 0,
            links: 0,
            coded: 0,
            coded_bytes: 0,
            validating: 0,
            confirming: 0,
        };
        let gossip = |stats| Seen { gossip: Some(stats), ..Seen::nothing(id(0)) };
        bounded("seen", config.seen_ids, |seen| gossip(Stats { seen, ..empty }));
        bounded("cached", config.cache_ids, |cached| gossip(Stats { cached, ..empty }));
        bounded("bytes", config.cache_bytes, |cached_bytes| gossip(Stats { cached_bytes, ..empty }));
        bounded("in flight", config.in_flight, |in_flight| gossip(Stats { in_flight, ..empty }));
        bounded("topics", config.max_topics, |subscriptions| gossip(Stats { subscriptions, ..empty }));
        bounded("coded", config.coded.sessions, |coded| gossip(Stats { coded, ..empty }));
        bounded("shards", config.coded.bytes, |coded_bytes| gossip(Stats { coded_bytes, ..empty }));
        bounded("wanted", 2 * config.wants_per_peer, |wanted| gossip(Stats { wanted, ..empty }));
    }
}
