//! What the run loop keeps of a node's configuration: the world runs it by the ten thousand.

use std::net::IpAddr;
use std::time::Duration;

use peerage_dialer::dial_share;
use peerage_wire::address::is_local;

use crate::{Churn, Config, Limits, SharedAddress};

pub(super) struct Rules {
    pub(super) max_peers: u32,
    pub(super) inbound_per_host: u32,
    pub(super) inbound_per_site: u32,
    pub(super) max_static_peers: u32,
    pub(super) dial_share: u32,
    pub(super) dialing_on: bool,
    exempt_local: bool,
    pub(super) useless_after: Duration,
    pub(super) churn: Option<Churn>,
    pub(super) max_anchors: usize,
    pub(super) drain_timeout: Duration,
    shared_addresses: Vec<SharedAddress>,
}

impl Rules {
    pub(super) fn of(config: &Config) -> Rules {
        Rules {
            max_peers: config.max_peers,
            inbound_per_host: config.inbound_per_host,
            inbound_per_site: config.inbound_per_site,
            max_static_peers: config.max_static_peers,
            dial_share: config.dial_share(),
            dialing_on: config.dialing_on,
            exempt_local: config.exempt_local,
            useless_after: config.useless_after,
            churn: config.churn.clone(),
            max_anchors: config.max_anchors,
            drain_timeout: config.drain_timeout,
            shared_addresses: config.listener.shared_addresses.clone(),
        }
    }

    /// The limits from now on.
    pub(super) fn limit(&mut self, limits: &Limits) {
        self.max_peers = limits.max_peers;
        self.max_static_peers = limits.max_static_peers;
        self.inbound_per_host = limits.inbound_per_host;
        self.inbound_per_site = limits.inbound_per_site;
        self.dial_share = if self.dialing_on { dial_share(limits.max_peers, limits.dial_ratio) } else { 0 };
        self.shared_addresses = limits.listener.shared_addresses.clone();
    }

    /// Whether limits by address spare this one.
    pub(super) fn is_exempt(&self, ip: IpAddr) -> bool {
        self.exempt_local && is_local(ip)
    }

    /// How many times the usual number of peers this address may have.
    pub(super) fn factor(&self, ip: IpAddr) -> u32 {
        SharedAddress::factor(&self.shared_addresses, ip)
    }
}
