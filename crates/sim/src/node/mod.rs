//! A whole Peerage node in the world: its machines, and between them what the actors' shells do in a real one.
//!
//! | file | what of a real node it stands for |
//! |---|---|
//! | `services` | the shells of discovery, dialer and gossip |
//! | `requests` | the router's shell, and its handlers' work |
//! | `root` | the server's shell: what the run loop decides |
//! | `setup` | listener, connector and handshake tasks, without cryptography |
//! | `sessions` | the sessions' pumps: lanes, stalls, farewells |
//! | `cast` | signatures |
//! | `coding` | erasure codes |
//! | `held` | what metrics show of how much it holds |

mod cast;
mod coding;
mod held;
mod message;
mod part;
mod requests;
mod root;
mod services;
mod sessions;
mod setup;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use peerage_dialer::{Attempt, DialerMachine, StaticPeer};
use peerage_discovery::{Bootnode, DiscoveryMachine, Families, Gate, Secrets};
use peerage_gossip::{GossipMachine, Policy, Topic};
use peerage_machine::{Driver, Rng, Time};
use peerage_nodedb::NodeDb;
use peerage_peer_session::Ended;
use peerage_peer_session::handshake::Presented;
use peerage_queue::SessionId;
use peerage_router::RouterMachine;
use peerage_server::listening::ListenerMachine;
use peerage_server::remembered;
use peerage_server::{Config, ServerMachine, Setup};
use peerage_wire::codec::{List, Text};
use peerage_wire::{Banned, Capability, DisconnectReason, Hello, Keypair, NodeId, NodeRecord, Penalty, Verified};
use rustc_hash::FxHashMap;

use crate::engine::{Conn, Event, Net, Node, mix};

pub use self::cast::Cast;
pub(crate) use self::coding::{Oracle, weigh};
pub use self::message::{Descriptor, Message, Parcel};
pub use self::part::Foreign;
use self::part::Part;
use self::requests::Requests;
pub(crate) use self::requests::RouterArgs;
pub use self::requests::Service;
use self::sessions::Session;
use self::setup::{Dial, SettingUp};

/// The capability under which gossip runs.
const GOSSIP: (&str, u16) = ("gossip", 1);
/// The capability under which requests run.
const ROUTER: (&str, u16) = ("router", 1);

/// What a node of the world is started with.
pub struct NodeArgs {
    /// What it shares with all others.
    pub cast: Rc<Cast>,
    /// Its configuration, of which the machines take what is theirs.
    pub config: Rc<Config>,
    /// Who it is.
    pub keys: Keypair,
    /// Whom it asks first.
    pub bootnodes: Vec<Bootnode>,
    /// Whom it keeps connected, in places of their own.
    pub statics: Vec<StaticPeer>,
    /// What it subscribes to from the start.
    pub topics: Vec<(Topic, Policy)>,
    /// What it remembers of earlier lives, and will of this one.
    pub db: NodeDb,
    /// Of all its decisions.
    pub seed: u64,
    /// What it can be asked, and asks; nothing if it has no router.
    pub services: Rc<[Service]>,
    /// Who has a weight among those that ask it.
    pub members: Rc<BTreeMap<NodeId, u64>>,
    /// Machines in place of its own: what makes it hostile.
    pub foreign: ForeignParts,
}

/// Machines in place of a node's own.
#[derive(Default)]
pub struct ForeignParts {
    /// In place of discovery.
    pub discovery: Option<Foreign<DiscoveryMachine>>,
    /// In place of the dialer.
    pub dialer: Option<Foreign<DialerMachine>>,
    /// In place of gossip.
    pub gossip: Option<Foreign<GossipMachine>>,
    /// In place of the run loop.
    pub server: Option<Foreign<ServerMachine>>,
    /// In place of the router.
    pub router: Option<Foreign<RouterMachine>>,
}

/// The bugs that machines have on demand, to show that the world catches them.
#[cfg(feature = "planted-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Tables count hosts where they should count sites.
    Discovery,
    /// Who was dialled is held back for a thousandth of the time.
    Dialer,
    /// A copy by a peer that is not known to have the message is delivered again.
    Gossip,
}

/// What the scenario can tell a node.
#[derive(Clone, Debug)]
pub enum Command {
    /// Publish a payload that stands for a message.
    Publish {
        /// Where.
        topic: Topic,
        /// How.
        policy: Policy,
        /// What.
        what: Descriptor,
    },
    /// Look for the nodes nearest to this one.
    Lookup {
        /// Comes back with the answer.
        token: u64,
        /// The node.
        target: NodeId,
    },
    /// Ask any peer.
    Ask {
        /// Which of the services, from 0.
        service: usize,
        /// The question.
        what: Descriptor,
    },
    /// End it in good order: peers are told.
    Shutdown,
}

/// Nodes that may be dialled, with which a node is well supplied.
pub(crate) const USABLE: usize = 25;

/// What a node tells the observer.
#[derive(Clone, Debug)]
pub enum Note {
    /// A session was added.
    PeerUp(NodeId, bool),
    /// A session ended.
    PeerDown(NodeId, DisconnectReason),
    /// The application got a message.
    Delivered(Descriptor),
    /// A publication was taken, and queued for so many peers; or it was refused.
    Published(Option<usize>),
    /// A lookup of the scenario's ended; its answer follows.
    Walked {
        /// Nodes asked one after another until the nearest found was told of.
        hops: u8,
        /// Questions asked.
        queries: u32,
    },
    /// The table holds enough nodes (25) that answered and may be dialled, for the first time.
    Usable,
    /// The answer to a lookup.
    Answer {
        /// The command's.
        token: u64,
        /// Nearest first.
        records: Vec<Verified<NodeRecord>>,
    },
    /// A node was banned.
    Banned(Banned),
    /// A node was blamed.
    Blamed(NodeId, Penalty),
    /// A dial ended.
    Dialled {
        /// Whom it was for.
        id: NodeId,
        /// Whether it became a peer.
        ok: bool,
    },
    /// A dial began.
    Dials(NodeId),
    /// A request of its own ended: with an answer after so long, or without one.
    Completed {
        /// From the request to its answer.
        took: Option<Duration>,
    },
    /// It was asked, and a handler has it.
    Called {
        /// Who asks.
        from: NodeId,
    },
}

/// What a node has counted, of this life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages that were new.
    pub accepted: u64,
    /// Copies of messages that were known.
    pub duplicates: u64,
    /// Shards of coded messages that were new.
    pub shards: u64,
    /// Shards that were known, or of messages that were here.
    pub shards_again: u64,
    /// Shards that peers were asked for.
    pub shards_asked: u64,
    /// Whole messages that peers were asked for.
    pub asked: u64,
    /// Bytes of the gossip channel sent, payloads of messages included.
    pub gossip_bytes: u64,
    /// Bytes of payloads of messages in them.
    pub payload_bytes: u64,
    /// Messages of the gossip channel that no lane took, or that gave way in it.
    pub refused: u64,
    /// Bytes of discovery's packets sent.
    pub packet_bytes: u64,
    /// Packets sent.
    pub packets: u64,
    /// Packets and records that were dropped.
    pub dropped: u64,
}

impl Tally {
    /// The sum of two.
    pub fn and(self, other: Tally) -> Tally {
        Tally {
            accepted: self.accepted + other.accepted,
            duplicates: self.duplicates + other.duplicates,
            shards: self.shards + other.shards,
            shards_again: self.shards_again + other.shards_again,
            shards_asked: self.shards_asked + other.shards_asked,
            asked: self.asked + other.asked,
            gossip_bytes: self.gossip_bytes + other.gossip_bytes,
            payload_bytes: self.payload_bytes + other.payload_bytes,
            refused: self.refused + other.refused,
            packet_bytes: self.packet_bytes + other.packet_bytes,
            packets: self.packets + other.packets,
            dropped: self.dropped + other.dropped,
        }
    }
}

/// What is for later in the same turn: what actors would send each other.
enum Todo {
    Root(peerage_server::In),
    Dialer(peerage_dialer::In),
    Discovery(peerage_discovery::In),
    Gossip(peerage_gossip::In),
    Router(peerage_router::In),
    Verdict(Setup, Result<Option<SessionId>, DisconnectReason>),
    Connected(Attempt),
}

/// What a connection is used for.
enum Use {
    Opening(Attempt, SocketAddr),
    SettingUp(Box<SettingUp>),
    Session(SessionId),
}

/// Whose deadline is due.
#[derive(Clone, Copy)]
enum Clockwork {
    Discovery,
    Dialer,
    Root,
    Gossip,
    Own,
    Router,
}

/// A whole node.
pub struct PeerageNode {
    cast: Rc<Cast>,
    config: Rc<Config>,
    id: NodeId,
    presented: Rc<Presented>,
    secrets: Secrets,
    statics: Vec<StaticPeer>,
    topics: Vec<(Topic, Policy)>,
    bootnodes: Vec<Bootnode>,
    db: NodeDb,
    gate: Gate,
    discovery: Part<DiscoveryMachine>,
    dialer: Part<DialerMachine>,
    root: Part<ServerMachine>,
    listener: Driver<ListenerMachine>,
    gossip: Part<GossipMachine>,
    /// Most scenarios have none.
    requests: Option<Box<Requests>>,
    dials: BTreeMap<Attempt, Box<Dial>>,
    /// Asked for every message, and never gone through.
    uses: FxHashMap<Conn, Use>,
    sessions: BTreeMap<SessionId, Box<Session>>,
    setups: BTreeMap<Setup, Conn>,
    accepted: BTreeMap<u64, Conn>,
    next_setup: u64,
    next_accept: u64,
    next_token: u64,
    asked: BTreeMap<u64, services::Asked>,
    /// Whether it was told that the table holds [`USABLE`] nodes.
    usable: bool,
    todo: VecDeque<Todo>,
    /// By [`Clockwork`].
    due: [Option<Time>; 6],
    queued_bytes: usize,
    tally: Tally,
}

impl PeerageNode {
    /// A node that starts at `now`, at this address.
    ///
    /// # Errors
    /// In words, what does not fit.
    pub fn new(args: NodeArgs, now: Time, address: SocketAddr) -> Result<PeerageNode, String> {
        let NodeArgs { cast, config, keys, bootnodes, statics, topics, db, seed, services, members, foreign } = args;
        let mut rng = Rng::new(seed);
        let id = keys.id();
        let record = cast.record(&keys, now.unix_millis(), address).map_err(|error| error.to_string())?;
        let hello = Hello {
            version: Hello::VERSION,
            network: cast.network(),
            fork_id: config.fork_id,
            instance: rng.next_u64(),
            agent: Text::new(config.agent.clone()).ok_or("agent is longer than 64 bytes")?,
            capabilities: List::truncated(
                [GOSSIP]
                    .into_iter()
                    .chain((!services.is_empty()).then_some(ROUTER))
                    .filter_map(|(name, version)| Capability::new(name, version)),
            ),
        };
        let accepted_forks = List::truncated(config.accepted_forks.iter().copied());
        let presented = Rc::new(Presented { record: record.clone(), hello, accepted_forks });
        let secrets = Secrets::from_seed(&rng.bytes());
        let seeds = remembered::seeds(&db, now, &mut rng);
        let (for_discovery, for_gossip, for_dialer) = (rng.next_u64(), rng.next_u64(), rng.next_u64());
        let admission = Arc::new(config.admission.clone());
        let discovery = || {
            let bootnodes = bootnodes.clone();
            DiscoveryMachine::new(config.discovery.clone(), record.clone(), Families::BOTH, bootnodes, for_discovery)
                .admitting(admission.clone())
                .seeded(seeds)
        };
        let mut dialling = config.dialer.clone();
        dialling.max_dial_peers = config.dial_share();
        dialling.max_static_peers = config.max_static_peers;
        let (router, foreign_router) = (config.router.clone(), foreign.router);
        let router = RouterArgs { config: router, services, members, seed: mix(seed), foreign: foreign_router };
        let requests = (!router.services.is_empty()).then(|| Box::new(Requests::new(router)));
        let dialer = DialerMachine::new(dialling, id, Rng::new(for_dialer)).map_err(|error| error.to_string())?;
        Ok(PeerageNode {
            gate: Gate::new(config.discovery.clone(), id, cast.network(), secrets.clone()),
            discovery: Part::new(discovery, foreign.discovery),
            dialer: Part::new(|| dialer, foreign.dialer),
            root: Part::new(|| ServerMachine::new(id, &config, rng.fork()), foreign.server),
            listener: Driver::new(ListenerMachine::new(config.listener.clone(), config.exempt_local)),
            gossip: Part::new(
                || GossipMachine::new(config.gossip.clone(), id, for_gossip).weighing(weigh),
                foreign.gossip,
            ),
            requests,
            cast,
            config,
            id,
            presented,
            secrets,
            statics,
            topics,
            bootnodes,
            db,
            dials: BTreeMap::new(),
            uses: FxHashMap::default(),
            sessions: BTreeMap::new(),
            setups: BTreeMap::new(),
            accepted: BTreeMap::new(),
            next_setup: 0,
            next_accept: 0,
            next_token: 0,
            asked: BTreeMap::new(),
            usable: false,
            todo: VecDeque::new(),
            due: [None; 6],
            queued_bytes: 0,
            tally: Tally::default(),
        })
    }

    /// Who it is.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// What it remembers beyond its life.
    pub fn db(&self) -> &NodeDb {
        &self.db
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its run loop, if it is the real one.
    pub fn root(&self) -> Option<&ServerMachine> {
        self.root.own()
    }

    /// Its discovery, if it is the real one.
    pub fn discovery(&self) -> Option<&DiscoveryMachine> {
        self.discovery.own()
    }

    /// Its dialer, if it is the real one.
    pub fn dialer(&self) -> Option<&DialerMachine> {
        self.dialer.own()
    }

    /// Its gossip, if it is the real one.
    pub fn gossip(&self) -> Option<&GossipMachine> {
        self.gossip.own()
    }

    /// Its router, if it has one and that is the real one.
    pub fn router(&self) -> Option<&RouterMachine> {
        self.requests.as_ref()?.own()
    }

    /// Its peers, and whether it dialled them.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, bool)> {
        self.sessions.values().map(|session| (session.meta.id, session.meta.dialled()))
    }

    /// How many peers it has.
    pub fn peer_count(&self) -> usize {
        self.sessions.len()
    }

    /// Bytes that wait in its lanes.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// What it has counted.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Puts a bug into its machine, if it is the real one.
    #[cfg(feature = "planted-bugs")]
    #[doc(hidden)]
    pub fn plant_bug(&mut self, bug: Bug) {
        match bug {
            Bug::Discovery => self.discovery.own_mut().into_iter().for_each(|machine| machine.plant_bug()),
            Bug::Dialer => self.dialer.own_mut().into_iter().for_each(|machine| machine.plant_bug()),
            Bug::Gossip => self.gossip.own_mut().into_iter().for_each(|machine| machine.plant_bug()),
        }
    }

    fn start(&mut self, net: &mut Net<'_, PeerageNode>) {
        let now = net.now();
        let restored = remembered::restored(&self.db, now, self.config.reputation.half_life);
        self.tell_root(now, peerage_server::In::Restore(restored), net);
        for peer in std::mem::take(&mut self.statics) {
            self.tell_root(now, peerage_server::In::AddStatic(peer.id), net);
            self.tell_dialer(now, peerage_dialer::In::AddStatic(peer), net);
        }
        for (topic, policy) in self.topics.clone() {
            let token = self.token();
            self.tell_gossip(now, peerage_gossip::In::Subscribe { token, topic, policy }, net);
        }
        self.serve(now, net);
        self.tell_discovery(now, peerage_discovery::In::Start, net);
        let bootnodes = self.bootnodes.iter().map(|boot| StaticPeer::new(boot.id, [boot.addr])).collect();
        self.tell_dialer(now, peerage_dialer::In::Bootnodes(bootnodes), net);
        let anchors = remembered::anchors(&self.db, now);
        if !anchors.is_empty() {
            self.tell_dialer(now, peerage_dialer::In::Anchors(anchors), net);
        }
        self.tell_dialer(now, peerage_dialer::In::Start, net);
        self.tell_root(now, peerage_server::In::Start, net);
    }

    fn wake(&mut self, net: &mut Net<'_, PeerageNode>) {
        let now = net.now();
        let due = |at: &Option<Time>| at.is_some_and(|at| at <= now);
        if due(&self.due[Clockwork::Discovery as usize]) {
            self.discovery.lend(&self.cast.discovery_room);
            self.discovery.expire_due(now);
            self.carry_out_discovery(now, net);
        }
        if due(&self.due[Clockwork::Dialer as usize]) {
            self.dialer.expire_due(now);
            self.carry_out_dialer(now, net);
        }
        if due(&self.due[Clockwork::Root as usize]) {
            self.root.expire_due(now);
            self.carry_out_root(now, net);
        }
        if due(&self.due[Clockwork::Gossip as usize]) {
            self.gossip.lend(&self.cast.gossip_room);
            self.gossip.expire_due(now);
            self.carry_out_gossip(now, net);
        }
        if due(&self.due[Clockwork::Router as usize]) {
            self.wake_router(now, net);
        }
        if due(&self.due[Clockwork::Own as usize]) {
            self.expire_own(now, net);
        }
    }

    fn settle(&mut self, net: &mut Net<'_, PeerageNode>) {
        let now = net.now();
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Root(input) => self.tell_root(now, input, net),
                Todo::Dialer(input) => self.tell_dialer(now, input, net),
                Todo::Discovery(input) => self.tell_discovery(now, input, net),
                Todo::Gossip(input) => self.tell_gossip(now, input, net),
                Todo::Router(input) => self.tell_router(now, input, net),
                Todo::Verdict(setup, verdict) => self.verdict(now, setup, verdict, net),
                Todo::Connected(attempt) => self.connected(now, attempt, net),
            }
        }
        // Most turns leave nothing for later, and what was once crowded here stays small.
        if self.todo.capacity() > 0 {
            self.todo = VecDeque::new();
        }
        net.wake_at(self.due.iter().copied().flatten().min());
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    fn session_ended(&mut self, session: SessionId, ended: Ended) {
        self.todo.push_back(Todo::Root(peerage_server::In::Ended(session, ended)));
    }
}

impl Node for PeerageNode {
    type Message = Message;
    type Command = Command;
    type Note = Note;

    fn handle(&mut self, event: Event<PeerageNode>, net: &mut Net<'_, PeerageNode>) {
        match event {
            Event::Start => self.start(net),
            Event::Wake => self.wake(net),
            Event::Datagram { from, message: Message::Packet(sealed) } => self.packet(from, *sealed, net),
            Event::Datagram { .. } => {}
            Event::Opened(conn) => self.opened(conn, net),
            Event::Accepted { conn, from } => self.accepted(conn, from, net),
            Event::Message { conn, message } => self.message(conn, message, net),
            Event::Writable(conn) => self.writable(conn, net),
            Event::Silent(conn) => self.broken(conn, DisconnectReason::Idle, net),
            Event::Garbled(conn) => self.broken(conn, DisconnectReason::ProtocolError, net),
            Event::Closed { conn, how } => self.closed(conn, how, net),
            Event::Command(command) => self.command(command, net),
        }
        self.settle(net);
    }
}

/// A node's seed from its world's.
pub(crate) fn seed_of(world: u64, node: u64, life: u64) -> u64 {
    mix(mix(mix(world) ^ node) ^ life)
}
