//! Sessions without a server: for programs that have a connection and want messages.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use peerage_mailbox::{Capacity, Clock, Inlet, Meter, Port, SpawnError, Supervisor, data_queue};
use peerage_queue::stream::{AcceptedStream, OpenError, StreamReader, StreamWriter};
use peerage_queue::throttle::{ThrottleLimits, Throttles};
use peerage_queue::{
    ChannelId, Door, Inbound, InboundPool, LanesConfig, Message, Pool, PoolConfig, Refusal, SessionId, lanes,
};
use peerage_transport::Stream;
use peerage_wire::codec::{List, Text};
use peerage_wire::frame::{CHANNEL_WINDOW, Lane};
use peerage_wire::handshake::CipherId;
use peerage_wire::{
    Capability, DisconnectReason, ForkId, Hello, Keypair, MatchedCapability, NetworkId, NodeId, RecordDraft,
};
use tokio::sync::oneshot;

use crate::actor::{Args, spawn};
use crate::buffers::Buffers;
use crate::handshake::{HandshakeError, Presented, Remote};
use crate::handshaker::{Established, Handshaker};
use crate::ingress::SessionMailbox;
use crate::stats::SessionStats;
use crate::streams::STREAM_ALLOWANCE;
use crate::traffic::Traffic;
use crate::{Config, Ended};

/// What an endpoint is made of, for those who want more than [`Endpoint::new`] gives.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Times and sizes of sessions.
    pub session: Config,
    /// Each peer's lanes.
    pub lanes: LanesConfig,
    /// What waits to be sent, to all peers together.
    pub outbound: PoolConfig,
    /// What came in and is not handled yet, of all peers together, beyond the first windows.
    pub inbound: PoolConfig,
    /// How fast peers may be.
    pub throttle: ThrottleLimits,
    /// Most sessions at a time: each begins with [`CHANNEL_WINDOW`] of memory promised for each of its channels.
    pub sessions: usize,
    /// Told of every message of every session, if anybody watches; must not wait, or panic.
    pub traffic: Option<Port<Traffic>>,
    /// The clock; a simulated one in tests.
    pub clock: Clock,
    /// Where to count.
    pub meter: Meter,
}

impl EndpointConfig {
    /// As a node has it, on the computer's clock, counting nowhere.
    pub fn recommended() -> EndpointConfig {
        EndpointConfig {
            session: Config::recommended(),
            lanes: LanesConfig::recommended(),
            outbound: PoolConfig::outbound(),
            inbound: PoolConfig::inbound(),
            throttle: ThrottleLimits::recommended(),
            sessions: 1000,
            traffic: None,
            clock: Clock::system(),
            meter: Meter::none(),
        }
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// There are as many sessions as the endpoint may have.
    #[error("as many sessions as there may be")]
    TooManySessions,
    /// The session's actor did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// Makes sessions of connections, in the name of one key, without a server: every peer is welcome. Cheap to clone; clones
/// share pools and buffers.
#[derive(Clone, Debug)]
pub struct Endpoint {
    handshaker: Handshaker,
    presented: Arc<Presented>,
    config: Arc<EndpointConfig>,
    outbound: Pool,
    inbound: InboundPool,
    throttles: Throttles,
    buffers: Buffers,
    sessions: Arc<AtomicU64>,
}

impl Endpoint {
    /// An endpoint of `keys` that speaks `protocols` (name and version) on `network`. Both ends must be of one network,
    /// and share at least one protocol.
    ///
    /// # Errors
    /// What is wrong with a name, in words.
    pub fn new(keys: &Keypair, network: &str, protocols: &[(&str, u16)]) -> Result<Endpoint, String> {
        Endpoint::with(keys, network, protocols, EndpointConfig::recommended())
    }

    /// As [`new`](Endpoint::new), with a configuration of its own.
    ///
    /// # Errors
    /// What is wrong with a name or the configuration, in words.
    pub fn with(
        keys: &Keypair,
        network: &str,
        protocols: &[(&str, u16)],
        config: EndpointConfig,
    ) -> Result<Endpoint, String> {
        config.session.check()?;
        let EndpointConfig { lanes, outbound, inbound, throttle, .. } = config;
        let queues =
            peerage_queue::Config { lanes, outbound, inbound, throttle, ..peerage_queue::Config::recommended() };
        queues.check(config.session.max_message)?;
        throttle.check(config.session.slowest_rate as u64, 1)?;
        let network = NetworkId::named(network);
        let now = config.clock.now().unix_millis();
        let capability = |&(name, version): &(&str, u16)| {
            Capability::new(name, version).ok_or_else(|| format!("{name:?} is no name of a protocol"))
        };
        let capabilities = protocols.iter().map(capability).collect::<Result<Vec<_>, _>>()?;
        let hello = Hello {
            version: Hello::VERSION,
            network,
            fork_id: ForkId::default(),
            instance: now,
            agent: Text::new(concat!("peerage-peer-session/", env!("CARGO_PKG_VERSION"))).unwrap_or_default(),
            capabilities: List::new(capabilities).ok_or("more protocols than a greeting holds")?,
        };
        let record = RecordDraft::new(now, network).sign(keys).map_err(|error| error.to_string())?;
        Ok(Endpoint {
            handshaker: Handshaker::new(config.session, keys.clone(), config.clock),
            presented: Arc::new(Presented { record, hello, accepted_forks: List::default() }),
            outbound: Pool::new(config.outbound),
            inbound: InboundPool::new(config.sessions * windows(protocols.len()), config.inbound),
            throttles: Throttles::new(config.clock, config.throttle),
            config: Arc::new(config),
            buffers: Buffers::new(),
            sessions: Arc::default(),
        })
    }

    /// Bytes that its sessions hold now: what waits to be sent; and of what comes in, first windows and what is granted
    /// beyond them.
    pub fn used(&self) -> (usize, (usize, usize)) {
        (self.outbound.used(), self.inbound.used())
    }

    /// The throttles of its sessions, whose limits can be changed at any time.
    pub const fn throttles(&self) -> &Throttles {
        &self.throttles
    }

    /// The same endpoint with other throttles: where handlers are to be timed by something else than the clock.
    pub fn throttled(mut self, throttles: Throttles) -> Endpoint {
        self.throttles = throttles;
        self
    }

    /// The same endpoint with another handshaker, for its ciphers.
    pub fn handshaker(mut self, change: impl FnOnce(Handshaker) -> Handshaker) -> Endpoint {
        self.handshaker = change(self.handshaker);
        self
    }

    /// Makes a session of a connection that this end opened to `expected`.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn dial(&self, stream: Stream, expected: NodeId) -> Result<Peer, ConnectError> {
        let checkpoint = |_| async { Ok(()) };
        // Boxed, as below: the caller's task may last as long as the session, and the handshake's state is large.
        let dialled = Box::pin(self.handshaker.dial(stream, &self.presented, expected, checkpoint)).await?;
        Box::pin(self.start(dialled)).await
    }

    /// Makes a session of a connection that this end accepted.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn accept(&self, stream: Stream) -> Result<Peer, ConnectError> {
        let checkpoint = |_| async { Ok(()) };
        let accepted = Box::pin(self.handshaker.accept(stream, &self.presented, checkpoint)).await?;
        Box::pin(self.start(accepted)).await
    }

    /// Makes a session of a connection whose handshake is done.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn start(&self, established: Established) -> Result<Peer, ConnectError> {
        let config = &*self.config;
        let (remote, cipher) = (established.remote.clone(), established.keys.cipher);
        let Some(inbound) = self.inbound.admit(windows(remote.channels.len()), 0) else {
            established.refuse(DisconnectReason::TooManyPeers, config.session.disconnect_timeout).await;
            return Err(ConnectError::TooManySessions);
        };
        let (door, lane_end) = lanes(config.lanes, &self.outbound, 0);
        // Credit bounds what waits here, in bytes and in number: this never has no room.
        let (outlet, inlet) = data_queue(Capacity { items: usize::MAX, weight: usize::MAX });
        let (accept, accepted) = data_queue(Capacity { items: config.session.max_streams, weight: usize::MAX });
        let (ended_to, ended) = oneshot::channel();
        let ended_to = std::sync::Mutex::new(Some(ended_to));
        let args = Args {
            session: SessionId(self.sessions.fetch_add(1, Ordering::Relaxed)),
            config: config.session,
            established,
            lanes: lane_end,
            inbound,
            throttle: self.throttles.peer(config.clock.now(), 0),
            routes: remote
                .channels
                .iter()
                .map(|matched| (ChannelId(matched.channel), outlet.clone()))
                .collect::<BTreeMap<_, _>>(),
            accept: remote.channels.iter().map(|matched| (ChannelId(matched.channel), accept.clone())).collect(),
            buffers: self.buffers.clone(),
            traffic: config.traffic.clone(),
            ended: Port::from_fn(move |ended| {
                if let Some(to) = ended_to.lock().ok().and_then(|mut to| to.take()) {
                    let _ = to.send(ended);
                }
            }),
            clock: config.clock,
            meter: config.meter.clone(),
        };
        let (session, _) = spawn(args, &Supervisor::none()).await?;
        Ok(Peer { session, door, inlet, accepted, received: VecDeque::new(), ended, remote, cipher })
    }
}

/// What a session with so many channels reserves of the inbound pool.
const fn windows(channels: usize) -> usize {
    channels * CHANNEL_WINDOW + STREAM_ALLOWANCE
}

/// Messages taken from a session at a time.
const RECEIVED: usize = 256;

/// A session: what one sends to a peer with, and hears from it.
#[derive(Debug)]
pub struct Peer {
    session: SessionMailbox,
    door: Door,
    inlet: Inlet<Inbound>,
    accepted: Inlet<AcceptedStream>,
    /// Taken from the inlet, and not asked for yet.
    received: VecDeque<Inbound>,
    ended: oneshot::Receiver<Ended>,
    remote: Remote,
    cipher: CipherId,
}

impl Peer {
    /// What its records are sealed with.
    pub const fn cipher(&self) -> CipherId {
        self.cipher
    }

    /// Who the other end is.
    pub const fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The channel of a protocol that both ends speak.
    pub fn channel(&self, protocol: &str) -> Option<ChannelId> {
        let named = |matched: &&MatchedCapability| &*matched.capability.name == protocol;
        self.remote.channels.iter().find(named).map(|matched| ChannelId(matched.channel))
    }

    /// Queues a message, and waits for room.
    ///
    /// # Errors
    /// [`Refusal::SessionEnded`], or [`Refusal::PoolFull`] for a message larger than the pool.
    pub async fn send(&self, channel: ChannelId, lane: Lane, bytes: impl Into<Bytes>) -> Result<(), Refusal> {
        self.door.offer_when_room(Message::new(channel, lane, bytes.into())).await
    }

    /// Queues a message, if there is room.
    ///
    /// # Errors
    /// Why it was not queued.
    pub fn try_send(&self, channel: ChannelId, lane: Lane, bytes: impl Into<Bytes>) -> Result<(), Refusal> {
        self.door.offer(Message::new(channel, lane, bytes.into()))
    }

    /// The door of this peer's lanes: for messages with a deadline, a report, or a place in many peers' lanes.
    pub const fn door(&self) -> &Door {
        &self.door
    }

    /// The next message; `None` when the session has ended. The peer may send as much again once the message's permit is
    /// dropped.
    pub async fn recv(&mut self) -> Option<Inbound> {
        if self.received.is_empty() {
            self.received = self.inlet.recv_many(RECEIVED).await.ok()?;
        }
        self.received.pop_front()
    }

    /// Opens a stream of a channel, on the normal or the bulk lane. The peer may refuse it: then the halves fail.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_stream(&self, channel: ChannelId, lane: Lane) -> Result<(StreamWriter, StreamReader), OpenError> {
        self.session.streams().open(channel, lane).await
    }

    /// The next stream that the peer opened; `None` when the session has ended. Those that nobody accepts are refused
    /// when as many wait as a peer may have open.
    pub async fn accept_stream(&mut self) -> Option<AcceptedStream> {
        self.accepted.recv().await.ok()
    }

    /// The session's readings.
    pub fn stats(&self) -> SessionStats {
        self.session.stats()
    }

    /// Lets the session end; what is queued goes first, if the peer takes it in time.
    pub fn disconnect(&self, reason: DisconnectReason) {
        self.session.disconnect(reason);
    }

    /// Waits for the session's end.
    pub async fn ended(&mut self) -> Ended {
        let crashed = Ended { reason: DisconnectReason::Crashed, by: crate::EndedBy::Us };
        (&mut self.ended).await.unwrap_or(crashed)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.session.disconnect(DisconnectReason::Quitting);
    }
}
