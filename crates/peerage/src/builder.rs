//! Building a node: what it is made of, in any order, and then its start.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics::Recorder;
use peerage_nodedb::NodeDb;
#[cfg(feature = "dns")]
use peerage_server::discovery::sources::dns::EntryError;
use peerage_server::discovery::sources::{Resolve, Sources};
use peerage_server::discovery::{EntryRule, Foreign};
use peerage_server::mailbox::{Meter, Outlet};
use peerage_server::router::protocol::Protocol;
use peerage_server::router::resilience::Membership;
use peerage_server::shedding::SystemProbe;
use peerage_server::wire::NetworkId;
use peerage_server::wire::address::AddressError;
use peerage_server::{Args, Listen, PeerAddressError};

use crate::data_dir::{DataDir, DataDirError};
#[cfg(feature = "journal")]
use crate::journals::JournalKeeper;
use crate::keeper;
use crate::node::Node;
use crate::{
    AskError, Capability, Churn, Clock, Config, Door, ForkId, IpNet, Keypair, Nat, NetworkSecret, NodeId, PeerAddress,
    SharedAddress, StaticAddressError, ThrottleLimits, ToListenAddress, ToPeerAddress, Transport,
};

/// Why a node did not start. Nothing is left running, and nothing that was not there before is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address to listen at cannot be used.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// An external address cannot be used.
    #[error(transparent)]
    External(#[from] StaticAddressError),
    /// Text does not name a node.
    #[error(transparent)]
    Peer(#[from] PeerAddressError),
    /// Text does not name a list of nodes.
    #[cfg(feature = "dns")]
    #[error("`{link}` names no list of nodes: {error}")]
    DnsList {
        /// The text.
        link: String,
        /// Why.
        error: EntryError,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The operating system has no randomness to give.
    #[error("the operating system gives no randomness: {0}")]
    Randomness(getrandom::Error),
    /// Somebody else listens there.
    #[error(
        "{address} ({protocol}) is in use by another program; stop it, or listen on another port (0 takes a free one)"
    )]
    Taken {
        /// Where.
        address: SocketAddr,
        /// TCP or UDP.
        protocol: &'static str,
    },
    /// The node below refused to start.
    #[error(transparent)]
    Server(peerage_server::StartError),
    /// It started and stopped at once.
    #[error("the node stopped while it was starting: {0}")]
    Stopped(#[from] AskError),
}

impl From<peerage_server::StartError> for StartError {
    fn from(error: peerage_server::StartError) -> StartError {
        match error {
            peerage_server::StartError::Listen { address, protocol, source }
                if source.kind() == io::ErrorKind::AddrInUse =>
            {
                StartError::Taken { address, protocol }
            }
            error => StartError::Server(error),
        }
    }
}

/// Makes a [`Node`]. What is not said has a default.
#[derive(Debug)]
pub struct Builder {
    config: Config,
    keys: Option<Keypair>,
    data_dir: Option<PathBuf>,
    listen: Vec<SocketAddr>,
    default_listen: Listen,
    bootnodes: Vec<PeerAddress>,
    sources: Sources,
    resolver: Option<Arc<dyn Resolve>>,
    statics: Vec<PeerAddress>,
    trusted: Vec<NodeId>,
    transport: Transport,
    clock: Option<Clock>,
    meter: Meter,
    seed: Option<u64>,
    secret: Option<NetworkSecret>,
    doors: Vec<Door>,
    protocols: Vec<Protocol>,
    membership: Option<Arc<dyn Membership>>,
    foreign: Option<Outlet<Foreign>>,
    #[cfg(feature = "journal")]
    journal_bytes: usize,
    /// The first thing that was wrong. Told at the start, so that calls can be chained.
    problem: Option<StartError>,
}

impl Builder {
    /// A node on the internet: [`Config::recommended`], listening on every address at port 30303 or the
    /// next free one, and looking for others on the local network too.
    pub fn recommended() -> Builder {
        let builder = Builder::new(Config::recommended(), Listen::Default);
        #[cfg(feature = "mdns")]
        let builder = builder.mdns(true);
        builder
    }

    /// A node for its own machine: [`Config::local`], listening on 127.0.0.1 at a free port.
    pub fn local() -> Builder {
        Builder::new(Config::local(), Listen::At(vec![(Ipv4Addr::LOCALHOST, 0).into()]))
    }

    fn new(config: Config, default_listen: Listen) -> Builder {
        Builder {
            config,
            keys: None,
            data_dir: None,
            listen: Vec::new(),
            default_listen,
            bootnodes: Vec::new(),
            sources: Sources::default(),
            resolver: None,
            statics: Vec::new(),
            trusted: Vec::new(),
            transport: Transport::sockets(),
            clock: None,
            meter: Meter::none(),
            seed: None,
            secret: None,
            doors: Vec::new(),
            protocols: Vec::new(),
            membership: None,
            foreign: None,
            #[cfg(feature = "journal")]
            journal_bytes: crate::journals::DEFAULT_BYTES,
            problem: None,
        }
    }

    /// The network's name. Nodes of different networks refuse each other.
    pub fn network(self, name: impl Into<String>) -> Builder {
        self.configure(|config| config.network = name.into())
    }

    /// Listens here, for TCP and UDP, instead of at the default. May be said more than once. Port 0 takes
    /// a free one.
    pub fn listen(mut self, address: impl ToListenAddress) -> Builder {
        match address.to_listen_address() {
            Ok(socket) => self.listen.push(socket),
            Err(error) => self.problem(error.into()),
        }
        self
    }

    /// The address at which others reach the node: an IP, or a multiaddr of one with or without a port. Nothing else is
    /// told of its family then, neither what others see nor what the gateway grants. Once for IPv4, once for IPv6.
    pub fn external(mut self, address: impl AsRef<str>) -> Builder {
        match address.as_ref().parse() {
            Ok(address) => self.config.external.push(address),
            Err(error) => self.problem(StartError::External(error)),
        }
        self
    }

    /// By which protocols the gateway is asked to let others in. A node on loopback only asks nobody.
    pub fn nat(self, nat: Nat) -> Builder {
        self.configure(|config| config.nat = nat)
    }

    /// Who the node is. Without this and without a data directory, it is somebody new at each start.
    pub fn identity(mut self, keys: Keypair) -> Builder {
        self.keys = Some(keys);
        self
    }

    /// Keeps the node's identity, and what it remembers of others, in this directory, which is made if there is none:
    /// `key` holds the secret, `nodes.redb` the nodes, bans and scores. One node at a time may use it.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Builder {
        self.data_dir = Some(path.into());
        self
    }

    /// A node to ask for others: its printed address or record. May be said more than once.
    pub fn bootnode(mut self, node: impl ToPeerAddress) -> Builder {
        match node.to_peer_address() {
            Ok(peer) => self.bootnodes.push(peer),
            Err(error) => self.problem(error.into()),
        }
        self
    }

    /// A file of nodes to connect to, one a line: a record or an address, and comments after `#`. It is read again when
    /// it changes.
    pub fn nodes_file(mut self, path: impl Into<PathBuf>) -> Builder {
        self.sources.nodes_file = Some(path.into());
        self
    }

    /// A signed list of nodes in the DNS, as who publishes it gives it: `pnrtree://KEY@nodes.example.org`. May be said
    /// more than once.
    #[cfg(feature = "dns")]
    pub fn dns_list(mut self, link: &str) -> Builder {
        match link.parse() {
            Ok(link) => self.sources.dns_lists.push(link),
            Err(error) => self.problem(StartError::DnsList { link: link.to_owned(), error }),
        }
        self
    }

    /// The name server to ask for such lists and for names of hosts; the computer's if nothing is said.
    #[cfg(feature = "dns")]
    pub fn dns_server(mut self, server: SocketAddr) -> Builder {
        self.sources.dns_server = Some(server);
        self
    }

    /// Whether to look for nodes on the local network, and to be seen there. Not done without discovery, by a node that
    /// listens on loopback only, over an in-memory network, or in virtual time.
    #[cfg(feature = "mdns")]
    pub fn mdns(mut self, on: bool) -> Builder {
        self.sources.mdns = on;
        self
    }

    /// Who resolves names of hosts; the computer if nothing is said, and in virtual time nobody.
    pub fn resolver(mut self, resolver: Arc<dyn Resolve>) -> Builder {
        self.resolver = Some(resolver);
        self
    }

    /// A node to keep connected. May be said more than once.
    pub fn static_peer(mut self, node: impl ToPeerAddress) -> Builder {
        match node.to_peer_address() {
            Ok(peer) => self.statics.push(peer),
            Err(error) => self.problem(error.into()),
        }
        self
    }

    /// A node that limits spare. May be said more than once.
    pub fn trusted(mut self, id: NodeId) -> Builder {
        self.trusted.push(id);
        self
    }

    /// Most peers at a time.
    pub fn max_peers(self, count: u32) -> Builder {
        self.configure(|config| config.max_peers = count)
    }

    /// How fast peers may be: messages in processing, bandwidth of each and of the node, and time of handlers.
    pub fn throttle(self, limits: ThrottleLimits) -> Builder {
        self.configure(|config| config.queue.throttle = limits)
    }

    /// Bytes a second that the node reads from all its peers, and writes to them, at most; none for no limit.
    pub fn bandwidth(self, download: Option<u64>, upload: Option<u64>) -> Builder {
        self.configure(|config| {
            config.queue.throttle.download.node = download;
            config.queue.throttle.upload.node = upload;
        })
    }

    /// The same for each peer.
    pub fn peer_bandwidth(self, download: Option<u64>, upload: Option<u64>) -> Builder {
        self.configure(|config| {
            config.queue.throttle.download.peer = download;
            config.queue.throttle.upload.peer = upload;
        })
    }

    /// Most static peers connected at a time; they take none of the other places.
    pub fn max_static_peers(self, count: u32) -> Builder {
        self.configure(|config| config.max_static_peers = count)
    }

    /// One in so many peers is dialled by this node; the other places are for those that dial it.
    pub fn dial_ratio(self, ratio: u32) -> Builder {
        self.configure(|config| config.dial_ratio = ratio)
    }

    /// Inbound connections that may be in their set-up at a time; at most an eighth of them are kept for static and
    /// trusted peers.
    pub fn max_pending(self, count: usize) -> Builder {
        self.configure(|config| {
            config.listener.slots = count;
            config.listener.reserved = config.listener.reserved.min(count / 8);
        })
    }

    /// Addresses that many peers share, as behind a carrier's NAT: the limits by host and site are so many times higher
    /// for them. Said more than once, all that were named are.
    pub fn shared_addresses(self, shared: impl IntoIterator<Item = SharedAddress>) -> Builder {
        self.configure(|config| config.listener.shared_addresses.extend(shared))
    }

    /// Whether to look for nodes over UDP. If not, no UDP port is bound, and the node knows only whom it and its peers
    /// tell it of and who dials it.
    pub fn discovery(self, on: bool) -> Builder {
        self.configure(|config| config.discovery_on = on)
    }

    /// Whether to exchange peers with peers over their sessions: how others are found where UDP does not pass, and how
    /// the node finds out whether it can be dialled from outside. If not, the node asks no peer for others and tells
    /// none.
    pub fn exchange(self, on: bool) -> Builder {
        self.configure(|config| config.exchange_on = on)
    }

    /// Whether to dial nodes. If not, the node waits to be dialled, by its static peers too.
    pub fn dialing(self, on: bool) -> Builder {
        self.configure(|config| config.dialing_on = on)
    }

    /// Whether to take connections. If not, no TCP port is bound, and the addresses to listen at are for discovery
    /// alone.
    pub fn listening(self, on: bool) -> Builder {
        self.configure(|config| config.listening_on = on)
    }

    /// The program and its version, as peers are told; at most 64 bytes.
    pub fn agent(self, agent: impl Into<String>) -> Builder {
        self.configure(|config| config.agent = agent.into())
    }

    /// Says something of the node in its record, for others to ask for before they dial it
    /// ([`require_entry`](Builder::require_entry)): at most eight entries, 96 bytes in all.
    pub fn record_entry(self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Builder {
        self.configure(|config| drop(config.record_entries.insert(key.into(), value.into())))
    }

    /// Dials only found nodes whose records say this; static peers are no matter of it. Said more than once, all of it.
    pub fn require_entry(self, rule: EntryRule) -> Builder {
        self.configure(|config| config.discovery.filter.push(rule))
    }

    /// The fork that the application follows, compared byte for byte. Nodes of different forks refuse each other.
    pub fn fork_id(self, id: ForkId) -> Builder {
        self.configure(|config| config.fork_id = id)
    }

    /// Forks besides its own whose nodes are admitted, while a network moves from one to the next. Said more than once,
    /// all that were named are.
    pub fn accept_forks(self, ids: impl IntoIterator<Item = ForkId>) -> Builder {
        self.configure(|config| config.accepted_forks.extend(ids))
    }

    /// The secret of a private network: nodes without it are refused at their first bytes, and told nothing.
    pub fn network_secret(mut self, secret: NetworkSecret) -> Builder {
        self.secret = Some(secret);
        self
    }

    /// Another protocol on the port at which the node listens, told by its first bytes. May be said more than once.
    pub fn door(mut self, door: Door) -> Builder {
        self.doors.push(door);
        self
    }

    /// A protocol that runs once for each peer that speaks it, too. May be said more than once.
    pub fn protocol(mut self, protocol: Protocol) -> Builder {
        self.protocols.push(protocol);
        self
    }

    /// Versions of protocols that the node could speak and keeps to itself, its own protocols' included. Said more than
    /// once, all that were named are.
    pub fn withhold(self, versions: impl IntoIterator<Item = Capability>) -> Builder {
        self.configure(|config| config.withheld.extend(versions))
    }

    /// Who knows the members of the network: asked when the node starts, and when requests and handlers for members use a
    /// set that is old. A function that returns a future is one.
    pub fn membership(mut self, membership: impl Membership) -> Builder {
        self.membership = Some(Arc::new(membership));
        self
    }

    /// Another protocol on the UDP port: its handler takes, from the other end of
    /// [`Foreign::queue`], the datagrams that are not discovery's, and
    /// answers from the socket that they came to. Said again, it replaces the one before.
    pub fn datagrams(mut self, outlet: Outlet<Foreign>) -> Builder {
        self.foreign = Some(outlet);
        self
    }

    /// Has to do with the addresses of this network, and with others only if they are allowed too. May be said more
    /// than once. Static and trusted peers are no exception, here and in the next two.
    pub fn allow_network(self, network: IpNet) -> Builder {
        self.configure(|config| config.admission.allowed.push(network))
    }

    /// Has nothing to do with the addresses of this network, whatever is allowed. May be said more than once.
    pub fn deny_network(self, network: IpNet) -> Builder {
        self.configure(|config| config.admission.denied.push(network))
    }

    /// A permissioned node: it has these peers, and no others. Said more than once, all that were named are
    /// admitted.
    pub fn only_peers(self, ids: impl IntoIterator<Item = NodeId>) -> Builder {
        self.configure(|config| config.admission.only.get_or_insert_default().extend(ids))
    }

    /// Whether a full node lets a peer go every few minutes ([`Churn::recommended`]), so that newcomers find places.
    pub fn churn(self, on: bool) -> Builder {
        self.configure(|config| config.churn = on.then(Churn::recommended))
    }

    /// Whether each message of a session is told to those who ask for [`events`](Node::events), at some cost.
    pub fn message_events(self, on: bool) -> Builder {
        self.configure(|config| config.message_events = on)
    }

    /// Replaces the whole configuration, switches included.
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// Changes the configuration.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Builder {
        change(&mut self.config);
        self
    }

    /// Where connections and datagrams go; the computer's sockets if nothing is said.
    pub fn transport(mut self, transport: Transport) -> Builder {
        self.transport = transport;
        self
    }

    /// The node's clock; the computer's if nothing is said.
    pub fn clock(mut self, clock: Clock) -> Builder {
        self.clock = Some(clock);
        self
    }

    /// Who gets the node's metrics; nobody if nothing is said. Never the process's global recorder, so that
    /// many nodes in one process do not mix.
    pub fn recorder(mut self, recorder: Arc<dyn Recorder + Send + Sync>) -> Builder {
        self.meter = Meter::new(recorder);
        self
    }

    /// The seed of all decisions that are not secrets; random if nothing is said. It is logged either way.
    pub fn seed(mut self, seed: u64) -> Builder {
        self.seed = Some(seed);
        self
    }

    /// Bytes kept of each life of a machine, 32 MiB if nothing is said; two lives are kept of each of five machines. What
    /// does not fit is lost from the beginning, and with it the replay of a life from its start.
    #[cfg(feature = "journal")]
    pub fn journal_bytes(mut self, bytes: usize) -> Builder {
        self.journal_bytes = bytes;
        self
    }

    fn problem(&mut self, error: StartError) {
        self.problem.get_or_insert(error);
    }

    /// Starts the node, in the current tokio runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(mut self) -> Result<Node, StartError> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        // Before anything is made.
        self.config.check().map_err(peerage_server::StartError::Config)?;
        let mut data_dir = self.data_dir.take().map(|path| DataDir::open(&path)).transpose()?;
        let started = self.start_on(data_dir.as_mut()).await;
        match started {
            Ok((node, db)) => keeper::keep(node, data_dir, db).await,
            Err(error) => {
                if let Some(data_dir) = data_dir {
                    data_dir.undo();
                }
                Err(error)
            }
        }
    }

    async fn start_on(self, mut data_dir: Option<&mut DataDir>) -> Result<(Node, NodeDb), StartError> {
        let keys = match (self.keys, &mut data_dir) {
            (Some(keys), _) => keys,
            (None, Some(data_dir)) => data_dir.key(|| Keypair::generate().map_err(io::Error::other))?,
            (None, None) => Keypair::generate().map_err(StartError::Randomness)?,
        };
        let min_record_seq = match &data_dir {
            Some(data_dir) => data_dir.record_seq()?.unwrap_or(0),
            None => 0,
        };
        let db = match &mut data_dir {
            Some(data_dir) => data_dir.database(NetworkId::named(&self.config.network)).await?,
            None => NodeDb::memory(peerage_nodedb::Config::recommended()),
        };
        let clock = self.clock.unwrap_or_else(Clock::system);
        let ahead = Duration::from_millis(min_record_seq.saturating_sub(clock.now().unix_millis()));
        if ahead > self.config.session.max_clock_skew {
            tracing::warn!(
                ?ahead,
                "the clock is behind this node's last record, so peers will refuse its next one; set it"
            );
        }
        let seed = match self.seed {
            Some(seed) => seed,
            None => getrandom::u64().map_err(StartError::Randomness)?,
        };
        tracing::info!(id = %keys.id(), seed, network = self.config.network, "starting");
        #[cfg(feature = "journal")]
        let journals = JournalKeeper::new(self.journal_bytes, data_dir.as_deref().map(DataDir::path), clock);
        #[cfg_attr(not(feature = "mdns"), allow(unused_mut))]
        let mut sources = self.sources;
        #[cfg(feature = "mdns")]
        {
            // Whom nobody but this computer can reach is nobody's neighbour.
            let hidden = !self.listen.is_empty() && self.listen.iter().all(|socket| socket.ip().is_loopback());
            sources.mdns &= !clock.is_simulated() && self.transport.is_sockets() && !hidden;
        }
        let (id, retry_after) = (keys.id(), self.config.gossip.retry_after);
        let server = peerage_server::start(Args {
            config: self.config,
            keys,
            listen: if self.listen.is_empty() { self.default_listen } else { Listen::At(self.listen) },
            bootnodes: self.bootnodes,
            sources,
            resolver: self.resolver,
            statics: self.statics,
            trusted: self.trusted,
            transport: self.transport,
            clock,
            meter: self.meter,
            #[cfg(feature = "journal")]
            journals: journals.journals(),
            #[cfg(not(feature = "journal"))]
            journals: peerage_server::journal::Journals::off(),
            seed,
            min_record_seq,
            secret: self.secret,
            db: db.clone(),
            doors: self.doors,
            protocols: self.protocols,
            membership: self.membership,
            foreign: self.foreign,
        })
        .await?;
        if !clock.is_simulated() {
            server.probe(Arc::new(SystemProbe::new(data_dir.as_deref().map(|dir| dir.path().to_owned()))));
        }
        let node = Node::new(
            id,
            server,
            retry_after,
            #[cfg(feature = "journal")]
            journals,
        );
        match (node.record().await, data_dir) {
            (Ok(record), Some(data_dir)) => {
                if let Err(error) = data_dir.remember_record_seq(record.seq()) {
                    node.server().shutdown().await;
                    return Err(error.into());
                }
            }
            (Ok(_), None) => {}
            (Err(error), _) => return Err(error.into()),
        }
        Ok((node, db))
    }
}
