//! The way of a connection to a session, for both directions: the handshake task, its two checkpoints, and
//! the guard that gives its place back.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use peerage_mailbox::{AskError, Port, Reply, ask};
use peerage_peer_session::handshake::{Direction, HandshakeError, Presented, Remote};
use peerage_peer_session::{Established, Handshaker};
use peerage_transport::Stream;
use peerage_wire::{DisconnectReason, NodeId};
use tokio::sync::watch;

use crate::machine::{Meta, Setup};

/// How long the root may take to answer a checkpoint. It never waits, so this is for a root that is gone; the set-up's
/// own deadline holds besides.
const ANSWER: Duration = Duration::from_secs(5);

/// What a set-up asks of the root. At most four of each a slot or dial.
#[derive(Debug)]
pub(crate) enum SetupMsg {
    Identified { setup: Setup, meta: Meta, reply: Reply<Result<(), DisconnectReason>> },
    Established { setup: Setup, established: Box<Established>, reply: Reply<Result<(), DisconnectReason>> },
    Released(Setup),
}

/// What handshake tasks need. Cheap to clone; survives the actors that start them.
#[derive(Clone)]
pub(crate) struct SetupContext {
    pub(crate) handshaker: Handshaker,
    /// What this node says of itself, as it changes.
    pub(crate) presented: watch::Receiver<Presented>,
    pub(crate) root: Port<SetupMsg>,
    pub(crate) timeout: Duration,
    /// Numbers set-ups through the whole process.
    pub(crate) next: Arc<AtomicU64>,
}

/// Why a connection that was made elsewhere did not become a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupFailed {
    /// An outbound connection without an identity that must answer: the handshake cannot begin.
    #[error("an outbound connection must say whose identity is expected to answer")]
    NobodyExpected,
    /// An inbound connection with an identity: who dials shows itself, and is admitted or not for who it is.
    #[error("an inbound connection cannot say that {0} is expected: who dials shows itself")]
    Expected(NodeId),
    /// The node did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The handshake failed, or one of the ends refused.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl fmt::Debug for SetupContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetupContext")
    }
}

/// Tells the root that a set-up is over, however it ends.
struct Released<'a>(&'a Port<SetupMsg>, Setup);

impl Drop for Released<'_> {
    fn drop(&mut self) {
        self.0.send(SetupMsg::Released(self.1));
    }
}

impl SetupContext {
    async fn identified(
        &self,
        setup: Setup,
        direction: Direction,
        ip: IpAddr,
        remote: Remote,
    ) -> Result<(), DisconnectReason> {
        let meta = Meta::of(&remote, direction, ip);
        answered(ask(ANSWER, |reply| self.root.send(SetupMsg::Identified { setup, meta, reply })).await)
    }

    /// Makes a session of a connection that this end dialled (`expected`) or accepted.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn run(&self, stream: Stream, expected: Option<NodeId>) -> Result<NodeId, HandshakeError> {
        self.run_noting(stream, expected, || {}).await
    }

    /// The same, and calls `identified` when the first checkpoint is passed.
    pub(crate) async fn run_noting(
        &self,
        stream: Stream,
        expected: Option<NodeId>,
        identified: impl Fn(),
    ) -> Result<NodeId, HandshakeError> {
        // One deadline up to "peer added".
        let added = tokio::time::timeout(self.timeout, self.run_unbounded(stream, expected, identified)).await;
        added.unwrap_or(Err(HandshakeError::TimedOut))
    }

    async fn run_unbounded(
        &self,
        stream: Stream,
        expected: Option<NodeId>,
        identified: impl Fn(),
    ) -> Result<NodeId, HandshakeError> {
        let setup = Setup(self.next.fetch_add(1, Ordering::Relaxed));
        let _released = Released(&self.root, setup);
        let ip = stream.remote_addr().ip();
        let presented = self.presented.borrow().clone();
        let established = match expected {
            Some(expected) => {
                let checkpoint = |remote| self.identified(setup, Direction::Outbound, ip, remote);
                self.handshaker.dial(stream, &presented, expected, checkpoint).await
            }
            None => {
                let checkpoint = async |remote| {
                    self.identified(setup, Direction::Inbound, ip, remote).await?;
                    identified();
                    Ok(())
                };
                self.handshaker.accept(stream, &presented, checkpoint).await
            }
        }?;
        let id = established.remote.id();
        let established = Box::new(established);
        let asked = ask(ANSWER, |reply| self.root.send(SetupMsg::Established { setup, established, reply })).await;
        answered(asked).map_err(HandshakeError::Refused)?;
        Ok(id)
    }
}

/// A root that does not answer is shutting down.
fn answered(asked: Result<Result<(), DisconnectReason>, AskError>) -> Result<(), DisconnectReason> {
    asked.unwrap_or(Err(DisconnectReason::Quitting))
}
