//! The only place that knows Peerage: makes sessions, and sends and receives messages through their public doors.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use peerage_peer_session::peerage_mailbox::Clock;
use peerage_peer_session::peerage_queue::{ChannelId, Door, Message};
use peerage_peer_session::peerage_transport::{Link, MemoryNetwork, Transport};
pub(crate) use peerage_peer_session::peerage_transport::{Listener, Stream};
use peerage_peer_session::peerage_wire::Keypair;
pub(crate) use peerage_peer_session::peerage_wire::frame::Lane;
use peerage_peer_session::peerage_wire::handshake::CipherId;
use peerage_peer_session::{Ciphers, Endpoint, EndpointConfig};

use crate::Failure;
use crate::job::Impl;

/// The one channel of a bench's sessions.
const CHANNEL: ChannelId = ChannelId(1);
const ACCEPTING: [u8; 32] = [1; 32];
const DIALLING: [u8; 32] = [2; 32];

fn ciphers(by: Impl) -> Option<Ciphers> {
    match by {
        Impl::PeerageAes => Ciphers::only(CipherId::AES_256_GCM),
        Impl::PeerageChacha => Ciphers::only(CipherId::CHACHA20_POLY1305),
        Impl::PeeragePure => Some(Ciphers::pure()),
        _ => Some(Ciphers::best()),
    }
}

/// Whether sessions can run this way here.
///
/// # Errors
/// Why not, in words.
pub(crate) fn available(by: Impl) -> Result<(), String> {
    ciphers(by).map(drop).ok_or_else(|| "this processor, or this build, has no AES-256-GCM".to_owned())
}

/// The pipe with the cipher that sessions of this kind run on.
pub(crate) fn pipe_of(by: Impl) -> Impl {
    match by {
        Impl::PeerageAes => Impl::PipeAes,
        Impl::PeerageChacha => Impl::PipeChacha,
        Impl::Peerage if crate::machine::has_aes() => Impl::PipeAes,
        Impl::Peerage => Impl::PipeChacha,
        _ => Impl::PipePure,
    }
}

/// One node: an identity and a transport.
pub(crate) struct Host {
    endpoint: Endpoint,
    transport: Transport,
}

impl Host {
    /// The node that accepts, on the computer's sockets.
    pub(crate) fn accepting(by: Impl) -> Result<Host, Failure> {
        Host::new(by, ACCEPTING, Transport::sockets(), Clock::system())
    }

    /// The node that dials it.
    pub(crate) fn dialling(by: Impl) -> Result<Host, Failure> {
        Host::new(by, DIALLING, Transport::sockets(), Clock::system())
    }

    fn new(by: Impl, seed: [u8; 32], transport: Transport, clock: Clock) -> Result<Host, Failure> {
        let ciphers = ciphers(by).ok_or("no such cipher here")?;
        let mut config = EndpointConfig { clock, ..EndpointConfig::recommended() };
        config.sessions = 10_000;
        let endpoint = Endpoint::with(&Keypair::from_seed(seed), "bench", &[("bench", 1)], config)?;
        Ok(Host { endpoint: endpoint.handshaker(|handshaker| handshaker.with_ciphers(ciphers)), transport })
    }

    pub(crate) async fn listen(&self, on: SocketAddr) -> Result<Listener, Failure> {
        Ok(self.transport.listen(on).await?)
    }

    /// Makes a session of an accepted stream.
    pub(crate) async fn accept(&self, stream: Stream) -> Result<Peer, Failure> {
        Ok(Peer::new(self.endpoint.accept(stream).await?))
    }

    /// Connects to the node that accepts and makes a session.
    pub(crate) async fn dial(&self, at: SocketAddr) -> Result<Peer, Failure> {
        let stream = self.transport.connect(at).await?;
        Ok(Peer::new(self.endpoint.dial(stream, Keypair::from_seed(ACCEPTING).id()).await?))
    }
}

/// A session.
pub(crate) struct Peer {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
}

impl Peer {
    fn new(peer: peerage_peer_session::Peer) -> Peer {
        Peer { sender: Sender(peer.door().clone()), receiver: Receiver(peer) }
    }
}

/// A session's door.
#[derive(Clone)]
pub(crate) struct Sender(Door);

impl Sender {
    /// Queues a message as soon as there is room; false when the session has ended.
    pub(crate) async fn send(&mut self, lane: Lane, payload: &Bytes) -> bool {
        self.0.offer_when_room(Message::new(CHANNEL, lane, payload.clone())).await.is_ok()
    }
}

/// Where a session's messages arrive.
pub(crate) struct Receiver(peerage_peer_session::Peer);

impl Receiver {
    /// The next message, and the lane that it travelled in; `None` when the session has ended.
    pub(crate) async fn recv(&mut self) -> Option<(Lane, Bytes)> {
        let delivery = self.0.recv().await?.delivery;
        Some((delivery.lane, delivery.payload))
    }
}

/// A link in memory.
#[derive(Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) each_way: Duration,
    pub(crate) bytes_per_second: u64,
}

const FAR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 1);

fn hosts(wire: Wire) -> (Transport, Transport) {
    let link = Link {
        latency: wire.each_way,
        jitter: Duration::ZERO,
        loss_per_mille: 0,
        bytes_per_second: Some(wire.bytes_per_second),
        // A receiver's kernel holds as much for a fast and distant peer.
        window: 16 << 20,
        ..Link::default()
    };
    let network = MemoryNetwork::new(1, link);
    (network.host([10, 0, 0, 2].into()), network.host(FAR.ip()))
}

/// Two ends of a stream over the link, the dialling one first.
pub(crate) async fn streams_over(wire: Wire) -> Result<(Stream, Stream), Failure> {
    let (near, far) = hosts(wire);
    let mut listener = far.listen(FAR).await?;
    Ok(tokio::try_join!(near.connect(FAR), listener.accept())?)
}

/// Two ends of a session over the link, the dialling one first.
pub(crate) async fn sessions_over(by: Impl, wire: Wire) -> Result<(Peer, Peer), Failure> {
    let clock = Clock::simulated(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?);
    let (near, far) = hosts(wire);
    let (near, far) = (Host::new(by, DIALLING, near, clock)?, Host::new(by, ACCEPTING, far, clock)?);
    let mut listener = far.listen(FAR).await?;
    let accepted = async { far.accept(listener.accept().await?).await };
    tokio::try_join!(near.dial(FAR), accepted)
}
