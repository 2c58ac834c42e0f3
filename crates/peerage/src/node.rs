//! A running node.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use peerage_server::ServerMailbox;
use peerage_server::mailbox::{Inlet, RecvError};
use peerage_server::wire::address;
use tokio::sync::watch;

use crate::topic::{Topic, TopicError};
use crate::{AskError, Event, Health, LocalNode, Multiaddr, NodeId, NodeRecord, PeerAddress, PeerInfo, Policy};

/// Changes among the peers that may wait for who asked to be told of them.
const EVENTS: usize = 1024;
/// How long the keeper may take to let go of the data directory once everything else has stopped.
const RELEASE: Duration = Duration::from_secs(1);

/// A running node. Cheap to clone; clones are the same node.
///
/// Dropping all clones does not stop it; [`shutdown`](Node::shutdown) does.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    id: NodeId,
    server: ServerMailbox,
    /// What a publisher is told to wait if the node cannot even be asked.
    retry_after: Duration,
    stopped: watch::Sender<bool>,
}

impl Node {
    pub(crate) fn new(id: NodeId, server: ServerMailbox, retry_after: Duration) -> Node {
        Node(Arc::new(Inner { id, server, retry_after, stopped: watch::Sender::new(false) }))
    }

    pub(crate) fn stopped_sender(&self) -> watch::Sender<bool> {
        self.0.stopped.clone()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.0.stopped.borrow()
    }

    pub(crate) fn retry_after(&self) -> Duration {
        self.0.retry_after
    }

    /// The node below, for what this door does not offer.
    pub fn server(&self) -> &ServerMailbox {
        &self.0.server
    }

    /// Who it is.
    pub fn id(&self) -> NodeId {
        self.0.id
    }

    /// What it is to others.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn local(&self) -> Result<LocalNode, AskError> {
        self.0.server.local().await
    }

    /// Its current record. Its text form can be given to others as a bootnode.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn record(&self) -> Result<NodeRecord, AskError> {
        Ok(self.local().await?.record.into_inner())
    }

    /// Where it can be dialled, with `/p2p/` and its id: what others take as a bootnode. A wildcard is given
    /// as the addresses it stands for.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn addresses(&self) -> Result<Vec<Multiaddr>, AskError> {
        Ok(self.local().await?.addresses.iter().map(|bare| address::with_id(bare, self.0.id)).collect())
    }

    /// Its peers, in the order of their ids.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, AskError> {
        self.0.server.peers().await
    }

    /// How many peers it has.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn peer_count(&self) -> Result<usize, AskError> {
        Ok(self.peers().await?.len())
    }

    /// How it is, and why.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn health(&self) -> Result<Health, AskError> {
        self.0.server.health().await
    }

    /// Changes among its peers from now on. Some may have come already: [`peers`](Node::peers), asked after
    /// this, names them.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn events(&self) -> Result<Events, AskError> {
        Ok(Events(self.0.server.events(EVENTS).await?))
    }

    /// Keeps this peer connected from now on.
    pub fn add_static(&self, peer: PeerAddress) {
        self.0.server.add_static(peer);
    }

    /// Stops to care whether this peer is connected; a live session stays.
    pub fn remove_static(&self, id: NodeId) {
        self.0.server.remove_static(id);
    }

    /// Lets limits spare this node.
    pub fn add_trusted(&self, id: NodeId) {
        self.0.server.add_trusted(id);
    }

    /// Lets limits apply to this node again; a live session stays.
    pub fn remove_trusted(&self, id: NodeId) {
        self.0.server.remove_trusted(id);
    }

    /// Drops this peer if it is one.
    pub fn disconnect(&self, id: NodeId) {
        self.0.server.disconnect(id);
    }

    /// A topic whose messages are signed by who publishes them: the same content published twice arrives
    /// twice. All nodes of a network must agree on this.
    ///
    /// # Errors
    /// [`TopicError`].
    pub async fn topic(&self, name: &str) -> Result<Topic, TopicError> {
        Topic::subscribe(self, name, Policy::Signed).await
    }

    /// A topic whose messages are their content and do not say who published them: the same content
    /// published twice arrives once. All nodes of a network must agree on this.
    ///
    /// # Errors
    /// [`TopicError`].
    pub async fn anonymous_topic(&self, name: &str) -> Result<Topic, TopicError> {
        Topic::subscribe(self, name, Policy::Anonymous).await
    }

    /// Ends everything: peers are told that the node is quitting, and what is left after the configured
    /// time is cut off. Returns when all has stopped.
    pub async fn shutdown(&self) {
        self.0.server.shutdown().await;
        if tokio::time::timeout(RELEASE, self.stopped()).await.is_err() {
            tracing::warn!("the node has not stopped in time");
        }
    }

    /// Returns when the node has stopped, by [`shutdown`](Node::shutdown) or because it failed.
    pub async fn stopped(&self) {
        let mut stopped = self.0.stopped.subscribe();
        // The sender is in this node, so it is not gone.
        drop(stopped.wait_for(|stopped| *stopped).await);
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.0.id)
    }
}

/// Changes among a node's peers. Who is more than 1,024 of them behind loses the oldest.
#[derive(Debug)]
pub struct Events(Inlet<Event>);

impl Events {
    /// The next change; `None` when the node has stopped. What was lost is passed over, with a warning in
    /// the log.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "peer events were lost: too slow"),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The next change, or how many were lost before it.
    ///
    /// # Errors
    /// [`RecvError::Lagged`] once for every gap, [`RecvError::Closed`] when the node has stopped.
    pub async fn recv(&mut self) -> Result<Event, RecvError> {
        self.0.recv().await
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.0.close();
    }
}
