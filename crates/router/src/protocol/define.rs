//! What a protocol is made of, and a node's protocols.

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;

use peerage_queue::SessionId;
use peerage_wire::{Capability, DisconnectReason, NodeId};
use serde_json::Value;

use super::channel::{Channel, Parts, RecvError, SendError};
use super::plan::{Plan, PlanError, Spec, Version};
use super::rules::{Agreed, DEFAULT_MAX_MESSAGE};
use super::runs::How;

/// With whom a protocol runs.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its identity.
    pub id: NodeId,
    /// Its session.
    pub session: SessionId,
    /// Its address as seen from here.
    pub address: SocketAddr,
    /// Whether this node dialled.
    pub dialled: bool,
    /// Its program and version, as it says.
    pub agent: String,
    /// What both ends speak.
    pub capabilities: Vec<Capability>,
}

/// Why a run ends, and with it its peer's session.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The session has ended already.
    #[error("the session has ended")]
    Ended,
    /// It is to end for this reason.
    #[error("{0}")]
    Disconnect(DisconnectReason),
    /// The peer broke the protocol; it is blamed.
    #[error("breach of protocol: {0}")]
    Breach(String),
    /// The run failed.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
}

impl RunError {
    /// The run failed of this.
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> RunError {
        RunError::Failed(error.into())
    }

    /// The peer broke the protocol, so.
    pub fn breach(what: impl Into<String>) -> RunError {
        RunError::Breach(what.into())
    }

    pub(super) const fn how(&self) -> How {
        match self {
            RunError::Ended => How::Ended,
            RunError::Disconnect(reason) => How::Asked(*reason),
            RunError::Breach(_) => How::Breach,
            RunError::Failed(_) => How::Failed,
        }
    }
}

impl From<DisconnectReason> for RunError {
    fn from(reason: DisconnectReason) -> RunError {
        RunError::Disconnect(reason)
    }
}

/// What the peer sent that is no message, and no value, is its breach.
impl From<RecvError> for RunError {
    fn from(error: RecvError) -> RunError {
        match error {
            RecvError::Ended => RunError::Ended,
            RecvError::Breach(_) | RecvError::Value(_) => RunError::Breach(error.to_string()),
        }
    }
}

/// What cannot be sent is this end's own failure.
impl From<SendError> for RunError {
    fn from(error: SendError) -> RunError {
        match error {
            SendError::Ended => RunError::Ended,
            error => RunError::failed(error),
        }
    }
}

pub(super) type Running = Pin<Box<dyn Future<Output = Result<(), RunError>> + Send>>;

/// A protocol that runs once for every peer that speaks it, too. Clones are the same protocol.
#[derive(Clone)]
pub struct Protocol {
    spec: Spec,
    run: Arc<dyn Fn(Peer, Parts) -> Running + Send + Sync>,
    node_info: Option<Arc<dyn Fn() -> Value + Send + Sync>>,
    peer_info: Option<Arc<dyn Fn(NodeId) -> Option<Value> + Send + Sync>>,
}

impl Protocol {
    /// A protocol of this name, at most 16 bytes, whose values travel as `codec` has them. `run` is called for each
    /// session with a peer that speaks one of its [versions](Protocol::version), and has a task of its own; when it
    /// returns, the session ends: [`How`] says why. A run that has not returned some seconds after its session's end is
    /// dropped where it waits. One that drops its channel and goes on hears nothing more: what comes is thrown away.
    pub fn new<C, F>(
        name: impl Into<String>,
        codec: C,
        run: impl Fn(Peer, Channel<C>) -> F + Send + Sync + 'static,
    ) -> Protocol
    where
        C: Clone + Send + Sync + 'static,
        F: Future<Output = Result<(), RunError>> + Send + 'static,
    {
        let spec = Spec { name: name.into(), versions: Vec::new(), max_message: DEFAULT_MAX_MESSAGE };
        let run = move |peer, parts| -> Running { Box::pin(run(peer, Channel::new(parts, codec.clone()))) };
        Protocol { spec, run: Arc::new(run), node_info: None, peer_info: None }
    }

    /// Speaks this version, whose message codes are those below `codes`. To be said once for each; with a peer, the
    /// highest that both speak is run.
    #[must_use]
    pub fn version(mut self, version: u16, codes: u16) -> Protocol {
        self.spec.versions.push(Version { version, codes });
        self
    }

    /// Largest payload of a message, in bytes; 1 MiB if nothing is said. To be the same in the whole network: a larger
    /// one is the peer's breach.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Protocol {
        self.spec.max_message = bytes;
        self
    }

    /// What the protocol has to say of this node, for people and programs that ask it. Called by whoever asks, at any
    /// time; must not wait.
    #[must_use]
    pub fn node_info(mut self, info: impl Fn() -> Value + Send + Sync + 'static) -> Protocol {
        self.node_info = Some(Arc::new(info));
        self
    }

    /// What the protocol has to say of a peer that speaks it; likewise.
    #[must_use]
    pub fn peer_info(mut self, info: impl Fn(NodeId) -> Option<Value> + Send + Sync + 'static) -> Protocol {
        self.peer_info = Some(Arc::new(info));
        self
    }

    pub(super) fn run(&self, peer: Peer, parts: Parts) -> Running {
        (self.run)(peer, parts)
    }

    pub(super) fn name(&self) -> &str {
        &self.spec.name
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Protocol").field(&self.spec).finish()
    }
}

/// The protocols of a node, its own ones' names among what it tells of. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Protocols {
    plan: Arc<Plan>,
    protocols: Arc<[Protocol]>,
}

impl Protocols {
    /// Checks that a node can speak these besides its `own`; see [`Plan::new`].
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(
        own: impl IntoIterator<Item = Capability>,
        protocols: &[Protocol],
        withheld: &[Capability],
        max_message: usize,
    ) -> Result<Protocols, PlanError> {
        let specs = protocols.iter().map(|protocol| protocol.spec.clone()).collect();
        let plan = Plan::new(own, specs, withheld, max_message)?;
        Ok(Protocols { plan: Arc::new(plan), protocols: protocols.into() })
    }

    /// What the node speaks, and what of it.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn agreed(&self, matched: &Capability) -> Option<(&Protocol, Agreed)> {
        let (place, agreed) = self.plan.agreed(matched)?;
        Some((self.protocols.get(place)?, agreed))
    }

    /// What they have to say of this node, by name.
    pub fn node_info(&self) -> BTreeMap<String, Value> {
        let told = self.protocols.iter().filter_map(|protocol| {
            let info = protocol.node_info.as_ref()?;
            Some((protocol.name().to_owned(), guarded(protocol.name(), || info())?))
        });
        told.collect()
    }

    /// What those of them that both ends speak have to say of a peer, by name.
    pub fn peer_info(&self, id: NodeId, matched: &[Capability]) -> BTreeMap<String, Value> {
        let told = matched.iter().filter_map(|capability| {
            let (protocol, _) = self.agreed(capability)?;
            let info = protocol.peer_info.as_ref()?;
            Some((protocol.name().to_owned(), guarded(protocol.name(), || info(id))??))
        });
        told.collect()
    }
}

/// Asks the application; a panic of it is an answer that is not there.
fn guarded<T>(protocol: &str, ask: impl FnOnce() -> T) -> Option<T> {
    let told: Result<T, Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(ask));
    if told.is_err() {
        tracing::warn!(protocol, "what a protocol tells of itself panicked");
    }
    told.ok()
}
