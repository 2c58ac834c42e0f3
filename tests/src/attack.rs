//! Those who are not honest: streams that do not read, and connections that go a part of the way.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use peerage_machine::Rng;
use peerage_server::mailbox::{Clock, Meter};
use peerage_server::peer_session::handshake::HandshakeError;
use peerage_server::peer_session::{ConnectError, Endpoint, EndpointConfig, Peer};
use peerage_server::transport::Stream;
use peerage_server::wire::{Keypair, NodeId};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// A stream whose owner stops to read when the switch is set, as a process that hangs.
struct Deaf {
    stream: Stream,
    deaf: Arc<AtomicBool>,
}

impl AsyncRead for Deaf {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.deaf.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The stream, which is not read any more once `deaf` is set.
pub fn deafened(stream: Stream, deaf: Arc<AtomicBool>) -> Stream {
    let remote = stream.remote_addr();
    Stream::new(Deaf { stream, deaf }, remote)
}

/// An identity that speaks gossip on the tests' network, without a node behind it.
pub fn endpoint(keys: &Keypair, clock: Clock) -> Endpoint {
    let config = EndpointConfig { clock, meter: Meter::none(), sessions: 8, ..EndpointConfig::recommended() };
    Endpoint::with(keys, &peerage_server::Config::local().network, &[("gossip", 1)], config).expect("sound names")
}

/// How far an attacker goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attack {
    /// Connects and says nothing.
    Silent,
    /// Sends bytes that mean nothing.
    Garbage,
    /// Sends the handshake's first message, and does not read the second.
    FirstMessage,
    /// Goes all the way, each time as somebody else.
    Stranger,
}

impl Attack {
    /// All of them.
    pub const ALL: [Attack; 4] = [Attack::Silent, Attack::Garbage, Attack::FirstMessage, Attack::Stranger];
}

/// How an attempt went for the attacker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Got {
    /// A connection, and no more.
    Connected,
    /// A handshake that ended in a refusal.
    Answered,
    /// It was a peer.
    Peer,
}

/// One attempt over a connection that was made, which holds on to it for as long as it is let.
pub async fn attack(what: Attack, mut stream: Stream, to: NodeId, seed: u64, clock: Clock, hold: Duration) -> Got {
    let mut rng = Rng::new(seed);
    match what {
        Attack::Silent => tokio::time::sleep(hold).await,
        Attack::Garbage => {
            let bytes: Vec<u8> = (0..1 + rng.below(4096)).map(|_| rng.next_u64() as u8).collect();
            // Who is cut off has nothing to say about it.
            drop(stream.write_all(&bytes).await);
            tokio::time::sleep(hold).await;
        }
        Attack::FirstMessage => {
            let endpoint = endpoint(&stranger(seed), clock);
            let stream = deafened(stream, Arc::new(AtomicBool::new(true)));
            drop(tokio::time::timeout(hold, endpoint.dial(stream, to)).await);
        }
        Attack::Stranger => match endpoint(&stranger(seed), clock).dial(stream, to).await {
            Ok(mut peer) => {
                drop(tokio::time::timeout(hold, peer.ended()).await);
                return Got::Peer;
            }
            Err(error) if was_answered(&error) => return Got::Answered,
            Err(_) => {}
        },
    }
    Got::Connected
}

/// Whether a dial came as far as the other end's decision.
pub fn was_answered(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Handshake(HandshakeError::RefusedByPeer(_)))
}

fn stranger(seed: u64) -> Keypair {
    let mut rng = Rng::new(seed);
    Keypair::from_seed(std::array::from_fn(|_| rng.next_u64() as u8))
}

/// An honest newcomer's first contact, over a connection that was made.
///
/// # Errors
/// Why there is no session.
pub async fn knock(stream: Stream, to: NodeId, seed: u64, clock: Clock) -> Result<Peer, ConnectError> {
    endpoint(&stranger(seed), clock).dial(stream, to).await
}
