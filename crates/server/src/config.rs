//! A node's configuration, and whether it adds up.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_discovery::external::{Nat, StaticAddress};
use peerage_peer_session::handshake::MAX_FORKS;
use peerage_wire::{Admission, Capability, ForkId, MAX_ENTRIES, MAX_ENTRY_KEY, Penalty};
use serde::{Deserialize, Serialize};

use crate::health::HealthConfig;
use crate::listener::ListenerConfig;
use crate::shedding::SheddingConfig;

/// What misbehaviour costs, how it is forgotten, and when it is enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reputation {
    /// Points for a message that does not decode.
    pub malformed_message: u32,
    /// Points for a message whose signature is not its publisher's.
    pub invalid_message: u32,
    /// Points for more control messages than the protocol allows. Few: a slow reader of ours can make a correct
    /// peer's bursts look like a flood.
    pub control_flood: u32,
    /// Points for a session that had to be ended for a breach of protocol.
    pub broken_protocol: u32,
    /// Points for a message that made an actor or a session fail.
    pub crash: u32,
    /// Points are forgotten by half every so often.
    pub half_life: Duration,
    /// Points at which a peer is dropped. It may come back.
    pub disconnect_at: u32,
    /// Points at which a node is banned. Trusted nodes never get there.
    pub ban_at: u32,
    /// How long a ban lasts.
    pub ban_time: Duration,
    /// When so many identities of one host (an IPv4 address, an IPv6 /64) were banned within `ban_time`, the host
    /// is. 0 for never; hosts from which a static or trusted peer is connected are spared, and local ones where
    /// `exempt_local` says so.
    pub host_ban_after: u32,
}

impl Reputation {
    /// What no correct node does bans at the second time, if that comes within some three minutes: points fade. What
    /// crashes bans at the first.
    pub const fn recommended() -> Reputation {
        Reputation {
            malformed_message: 50,
            invalid_message: 50,
            control_flood: 2,
            broken_protocol: 50,
            crash: 100,
            half_life: Duration::from_secs(600),
            disconnect_at: 75,
            ban_at: 90,
            ban_time: Duration::from_secs(300),
            host_ban_after: 4,
        }
    }

    /// The points of a penalty.
    pub const fn weight(&self, penalty: Penalty) -> u32 {
        match penalty {
            Penalty::MalformedMessage => self.malformed_message,
            Penalty::InvalidMessage => self.invalid_message,
            Penalty::ControlFlood => self.control_flood,
            Penalty::BrokenProtocol => self.broken_protocol,
            Penalty::Crash => self.crash,
        }
    }
}

/// Letting a peer of a full node go now and then, so that newcomers find places, a large network is used evenly, and two
/// halves of a network that could not reach each other for a while become one again: where all places are taken nobody
/// looks across.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Churn {
    /// Shortest time between two goodbyes.
    pub shortest: Duration,
    /// Longest time between two goodbyes.
    pub longest: Duration,
    /// Younger peers stay.
    pub min_age: Duration,
}

impl Churn {
    /// geth's (eth/dropper.go): one every 3 to 7 minutes, none younger than 10.
    pub const fn recommended() -> Churn {
        Churn {
            shortest: Duration::from_secs(180),
            longest: Duration::from_secs(420),
            min_age: Duration::from_secs(600),
        }
    }
}

/// Everything about a node that is not an address, a key or a file.
///
/// # Warning
/// `network` and `fork_id` must agree across the network: nodes that differ refuse each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// The network's name.
    pub network: String,
    /// The application's idea of which fork it follows, compared byte for byte.
    pub fork_id: ForkId,
    /// Forks besides its own whose nodes are admitted, while a network moves from one to the next.
    pub accepted_forks: Vec<ForkId>,
    /// Program and version, shown to peers; at most 64 bytes.
    pub agent: String,
    /// Most peers at a time, static ones not counted. Trusted peers may exceed it.
    pub max_peers: u32,
    /// Most peers that came from one host (an IPv4 address, an IPv6 /64), static and trusted ones not counted; as many
    /// times more where [`ListenerConfig::shared_addresses`] says that many share it. Local hosts are exempt if
    /// `exempt_local` says so.
    pub inbound_per_host: u32,
    /// Most peers that came from one site (an IPv4 /24, an IPv6 /48), likewise.
    pub inbound_per_site: u32,
    /// Most static peers connected at a time. They take none of the other places.
    pub max_static_peers: u32,
    /// One in so many peers is dialled by this node, the others may dial it (geth: 3).
    pub dial_ratio: u32,
    /// Whether limits by address spare local addresses. A test of a limit must switch it off.
    pub exempt_local: bool,
    /// Whether to look for nodes over UDP.
    pub discovery_on: bool,
    /// Whether to exchange peers with peers over their sessions, and to find out with them whether this node can be
    /// dialled from outside.
    pub exchange_on: bool,
    /// Whether to dial nodes. Without it the node waits to be dialled, by static peers too.
    pub dialing_on: bool,
    /// Whether to take connections.
    pub listening_on: bool,
    /// The addresses at which others reach this node, where its user knows better than it could: one a family.
    pub external: Vec<StaticAddress>,
    /// By which protocols the gateway is asked to let others in; never in virtual time, in memory, or on loopback only.
    pub nat: Nat,
    /// Who is admitted at all: asked at the listener, the dialer, bootnodes and neighbours.
    pub admission: Admission,
    /// Who is blamed for what.
    pub reputation: Reputation,
    /// A peer that had nothing in common with this node for so long may be dropped while more than half of the
    /// places are taken.
    pub useless_after: Duration,
    /// What the application says of this node in its record, by key: others can ask for it before they dial
    /// ([`EntryRule`](peerage_discovery::EntryRule)). [`MAX_ENTRIES`] of them, with keys of at most [`MAX_ENTRY_KEY`]
    /// bytes, and [`MAX_ENTRY_BYTES`] in all.
    pub record_entries: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether, and how, a full node lets a peer go now and then.
    pub churn: Option<Churn>,
    /// Long-lived peers that are remembered and dialled first after a restart; at most
    /// [`MAX_ANCHORS`](peerage_dialer::MAX_ANCHORS).
    pub max_anchors: usize,
    /// Whether each message of a session is told to subscribers of events (geth's `EnableMsgEvents`): for a closer
    /// look, at some cost.
    pub message_events: bool,
    /// How long a shutdown may take before what is left is cut off.
    pub drain_timeout: Duration,
    /// How often the node's record is signed anew.
    pub resign_every: Duration,
    /// Whose connections are accepted, and how many.
    pub listener: ListenerConfig,
    /// Sessions.
    pub session: peerage_peer_session::Config,
    /// Outbound queues.
    pub queue: peerage_queue::Config,
    /// Whom to dial. Its `max_dial_peers` follows from `max_peers` and `dial_ratio`, and `dialing`, `candidates` and
    /// `max_static_peers` from the switches and bounds here.
    pub dialer: peerage_dialer::Config,
    /// Finding nodes.
    pub discovery: peerage_discovery::Config,
    /// Peers' peers.
    pub exchange: peerage_discovery::exchange::Config,
    /// Topics.
    pub gossip: peerage_gossip::Config,
    /// Whether to speak `router/1`: without it the node neither asks nor serves.
    pub router_on: bool,
    /// Requests.
    pub router: peerage_router::Config,
    /// Versions of protocols that this node could speak and keeps to itself, its own protocols' included.
    pub withheld: Vec<Capability>,
    /// When the node is well.
    pub health: HealthConfig,
    /// How much it may use before it does less.
    pub shedding: SheddingConfig,
}

/// Networks that the admission policy may list; bans add 512 at most. Each is compared with every address.
pub const MAX_ADMISSION: usize = 512;

/// Bytes of the entries of the application's own in a record, keys and values with two more for each: what leaves room for
/// an address in the record's 300 bytes.
pub const MAX_ENTRY_BYTES: usize = 96;

impl Config {
    /// For a node on the internet: 50 peers, a third of them dialled, as geth.
    pub fn recommended() -> Config {
        Config {
            network: "peerage".into(),
            fork_id: ForkId::default(),
            accepted_forks: Vec::new(),
            agent: concat!("peerage/", env!("CARGO_PKG_VERSION")).into(),
            max_peers: 50,
            inbound_per_host: 4,
            inbound_per_site: 8,
            max_static_peers: 32,
            dial_ratio: 3,
            exempt_local: true,
            discovery_on: true,
            exchange_on: true,
            dialing_on: true,
            listening_on: true,
            external: Vec::new(),
            nat: Nat::Auto,
            admission: Admission::open(),
            reputation: Reputation::recommended(),
            useless_after: Duration::from_secs(120),
            record_entries: BTreeMap::new(),
            churn: Some(Churn::recommended()),
            max_anchors: 8,
            message_events: false,
            drain_timeout: Duration::from_secs(3),
            resign_every: Duration::from_secs(24 * 3600),
            listener: ListenerConfig::recommended(),
            session: peerage_peer_session::Config::recommended(),
            queue: peerage_queue::Config::recommended(),
            dialer: peerage_dialer::Config::recommended(),
            discovery: peerage_discovery::Config::recommended(),
            exchange: peerage_discovery::exchange::Config::recommended(),
            gossip: peerage_gossip::Config::recommended(),
            router_on: true,
            router: peerage_router::Config::recommended(),
            withheld: Vec::new(),
            health: HealthConfig::recommended(),
            shedding: SheddingConfig::recommended(),
        }
    }

    /// For nodes on one machine: quick to dial again, and to be dialled by.
    pub fn local() -> Config {
        Config {
            nat: Nat::None,
            listener: ListenerConfig::local(),
            session: peerage_peer_session::Config::local(),
            queue: peerage_queue::Config::local(),
            dialer: peerage_dialer::Config::local(),
            discovery: peerage_discovery::Config::local(),
            exchange: peerage_discovery::exchange::Config::local(),
            gossip: peerage_gossip::Config::local(),
            router: peerage_router::Config::local(),
            shedding: SheddingConfig::off(),
            ..Config::recommended()
        }
    }

    /// Peers this node dials itself.
    pub fn dial_share(&self) -> u32 {
        if self.dialing_on { peerage_dialer::dial_share(self.max_peers, self.dial_ratio) } else { 0 }
    }

    pub(crate) fn check_forks(accepted: &[ForkId]) -> Result<(), String> {
        if accepted.len() > MAX_FORKS {
            return Err(format!("{} forks are accepted, and at most {MAX_FORKS} can be", accepted.len()));
        }
        Ok(())
    }

    fn check_throttle(&self) -> Result<(), String> {
        let most = u64::from(self.max_peers) + u64::from(self.max_static_peers);
        self.queue.throttle.check(self.session.slowest_rate as u64, most)
    }

    /// Checks that everything adds up.
    ///
    /// # Errors
    /// The sum that fails, in words.
    pub fn check(&self) -> Result<(), String> {
        Config::check_forks(&self.accepted_forks)?;
        let bytes: usize = self.record_entries.iter().map(|(key, value)| key.len() + value.len() + 2).sum();
        let long = self.record_entries.keys().find(|key| key.is_empty() || key.len() > MAX_ENTRY_KEY);
        if self.record_entries.len() > MAX_ENTRIES || bytes > MAX_ENTRY_BYTES || long.is_some() {
            return Err(format!(
                "record_entries: {} entries of {bytes} bytes, and there may be {MAX_ENTRIES} of {MAX_ENTRY_BYTES}, with \
                 keys of 1 to {MAX_ENTRY_KEY} bytes",
                self.record_entries.len()
            ));
        }
        self.admission.check(MAX_ADMISSION).map_err(|error| error.to_string())?;
        for (family, v4) in [("IPv4", true), ("IPv6", false)] {
            let named = self.external.iter().filter(|external| external.ip.is_ipv4() == v4).count();
            if named > 1 {
                return Err(format!("{named} external {family} addresses are named, and others can be told of one"));
            }
        }
        let Reputation { disconnect_at, ban_at, .. } = self.reputation;
        if disconnect_at == 0 || disconnect_at > ban_at {
            return Err(format!("reputation.disconnect_at ({disconnect_at}) must be from 1 to ban_at ({ban_at})"));
        }
        if self.reputation.half_life.is_zero() || self.reputation.ban_time.is_zero() {
            return Err(
                "reputation.half_life and reputation.ban_time must be longer than zero, or nobody is banned".into()
            );
        }
        if self.resign_every.is_zero() {
            return Err("resign_every must be longer than zero, or the node does nothing else".into());
        }
        if self.max_anchors > peerage_dialer::MAX_ANCHORS {
            return Err(format!(
                "max_anchors ({}) must be at most {}, as many as the dialer takes",
                self.max_anchors,
                peerage_dialer::MAX_ANCHORS
            ));
        }
        // What is left of a dial is for opening connections.
        if self.dialer.dial_timeout <= self.session.handshake_timeout {
            return Err(format!(
                "dialer.dial_timeout ({:?}) must be longer than session.handshake_timeout ({:?}), or no dial can succeed",
                self.dialer.dial_timeout, self.session.handshake_timeout
            ));
        }
        if let Some(Churn { shortest, longest, .. }) = self.churn
            && (shortest.is_zero() || shortest > longest)
        {
            return Err(format!("churn.shortest ({shortest:?}) must be from above zero to longest ({longest:?})"));
        }
        if self.agent.len() > 64 {
            return Err(format!("agent has {} bytes, and at most 64 fit", self.agent.len()));
        }
        if self.dial_ratio == 0 {
            return Err("dial_ratio must be at least 1".into());
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
        let largest = self.router.max_payload + peerage_router::wire::MAX_OVERHEAD;
        if largest > self.session.max_message {
            return Err(format!(
                "router.max_payload ({}) and {} bytes of header are more than session.max_message ({})",
                self.router.max_payload,
                peerage_router::wire::MAX_OVERHEAD,
                self.session.max_message
            ));
        }
        let of_one = self.router.streams.opened_per_peer + self.router.answers.per_peer;
        if of_one > self.session.max_channel_streams {
            return Err(format!(
                "router.streams.opened_per_peer ({}) and router.answers.per_peer ({}) are more than \
                 session.max_channel_streams ({}), beyond which peers refuse streams",
                self.router.streams.opened_per_peer, self.router.answers.per_peer, self.session.max_channel_streams
            ));
        }
        self.router.validate().map_err(|error| error.to_string())?;
        self.health.check()?;
        self.shedding.check()?;
        self.listener.check()?;
        self.session.check()?;
        self.queue.check(self.session.max_message)?;
        self.check_throttle()?;
        self.dialer.check().map_err(|error| error.to_string())?;
        self.discovery.check().map_err(|error| error.to_string())?;
        self.exchange.check().map_err(|error| error.to_string())?;
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
        let told = |change: fn(&mut Config)| {
            let mut config = Config::recommended();
            change(&mut config);
            config.check().expect_err("it does not add up")
        };
        assert!(told(|config| config.session.max_message = 1 << 20).contains("session.max_message (1048576)"));
        assert!(told(|config| config.max_anchors = 17).contains("at most 16"));
        assert!(
            told(|config| config.dialer.dial_timeout = Duration::from_secs(5)).contains("dialer.dial_timeout (5s)")
        );
        assert!(told(|config| config.reputation.ban_time = Duration::ZERO).contains("reputation.ban_time"));
        assert!(told(|config| config.queue.throttle.upload.node = Some(1_000)).contains("upload.node (1000)"));
        assert!(told(|config| config.resign_every = Duration::ZERO).contains("resign_every"));
    }
}
