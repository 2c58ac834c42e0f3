//! A running node.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use peerage_server::ServerMailbox;
use peerage_server::mailbox::{Inlet, RecvError};
use peerage_server::wire::address;
use tokio::sync::watch;

use crate::durable::{Durable, DurableTopic, DurableTopicError};
#[cfg(feature = "journal")]
use crate::journals::{JournalError, JournalFile, JournalKeeper};
use crate::topic::{Topic, TopicError};
use crate::validation::TopicSetup;
use crate::{
    AddStaticFailed, Admission, AdmissionError, AskError, Banned, Event, ForkId, Health, Limits, LocalNode, Multiaddr,
    NodeId, NodeRecord, PeerAddress, PeerInfo, Policy, SetLimitsFailed, Standing, TopicConfig,
};

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
    #[cfg(feature = "journal")]
    journals: JournalKeeper,
}

impl Node {
    pub(crate) fn new(
        id: NodeId,
        server: ServerMailbox,
        retry_after: Duration,
        #[cfg(feature = "journal")] journals: JournalKeeper,
    ) -> Node {
        let stopped = watch::Sender::new(false);
        Node(Arc::new(Inner {
            id,
            server,
            retry_after,
            stopped,
            #[cfg(feature = "journal")]
            journals,
        }))
    }

    /// Writes what happened to the node's machines to `journals` in its data directory: of each the present life, and
    /// the last one that crashed. The oldest files there are removed. They hold what peers sent and what was published
    /// here, and no secret.
    ///
    /// # Errors
    /// There is no data directory, or it cannot be written to.
    #[cfg(feature = "journal")]
    pub async fn dump_journals(&self) -> Result<Vec<JournalFile>, JournalError> {
        self.0.journals.dump().await
    }

    #[cfg(all(test, feature = "journal"))]
    pub(crate) fn journals(&self) -> peerage_server::journal::Journals {
        self.0.journals.journals()
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
        self.0.server.peer_count().await
    }

    /// How it is, and why.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn health(&self) -> Result<Health, AskError> {
        self.0.server.health().await
    }

    /// The limits that hold now.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn limits(&self) -> Result<Limits, AskError> {
        self.0.server.limits().await
    }

    /// Changes the limits, all of them or, where they do not add up, none. Lower ones end no session and take nothing
    /// back: they hold for what comes.
    ///
    /// # Errors
    /// [`SetLimitsFailed`].
    pub async fn set_limits(&self, limits: Limits) -> Result<(), SetLimitsFailed> {
        self.0.server.set_limits(limits).await
    }

    /// Changes among its peers from now on. Some may have come already: [`peers`](Node::peers), asked after
    /// this, names them.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn events(&self) -> Result<Events, AskError> {
        Ok(Events(self.0.server.events(EVENTS).await?))
    }

    /// Keeps this peer connected from now on. One that is static already gets the new addresses.
    ///
    /// # Errors
    /// [`AddStaticFailed`].
    pub async fn add_static(&self, peer: PeerAddress) -> Result<(), AddStaticFailed> {
        self.0.server.add_static(peer).await
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

    /// The peers that are kept connected, in the order of their ids.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn statics(&self) -> Result<Vec<PeerAddress>, AskError> {
        self.0.server.statics().await
    }

    /// The nodes that limits spare, in the order of their ids.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn trusted(&self) -> Result<Vec<NodeId>, AskError> {
        self.0.server.trusted().await
    }

    /// Drops this peer if it is one. If it is static, it is dialled again.
    pub fn disconnect(&self, id: NodeId) {
        self.0.server.disconnect(id);
    }

    /// Stops to keep this peer connected, drops it, and returns when it is gone. It may come back by itself: that
    /// is for [`ban`](Node::ban).
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn remove(&self, id: NodeId) -> Result<(), AskError> {
        self.0.server.remove(id).await
    }

    /// Refuses a node, or every node of a network, for so long, and drops those that are peers. A ban that lasts
    /// longer already stays as it is.
    pub fn ban(&self, banned: Banned, time: Duration) {
        self.0.server.ban(banned, time);
    }

    /// Takes a ban back.
    pub fn unban(&self, banned: Banned) {
        self.0.server.unban(banned);
    }

    /// What is banned, and for how much longer.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn bans(&self) -> Result<Vec<(Banned, Duration)>, AskError> {
        self.0.server.bans().await
    }

    /// Who is admitted, bans aside.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn admission(&self) -> Result<Admission, AskError> {
        self.0.server.admission().await
    }

    /// Changes who is admitted; peers that are not any more are dropped.
    ///
    /// # Errors
    /// More than [`MAX_ADMISSION`](peerage_server::MAX_ADMISSION) networks.
    pub fn set_admission(&self, admission: Admission) -> Result<(), AdmissionError> {
        self.0.server.set_admission(admission)
    }

    /// Says which fork the application follows from now on, and whose nodes besides its own it still takes: peers
    /// that followed none of these when they connected are dropped.
    ///
    /// # Errors
    /// In words: more are accepted than can be.
    pub fn set_forks(&self, own: ForkId, accepted: Vec<ForkId>) -> Result<(), String> {
        self.0.server.set_forks(own, accepted)
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

    /// A topic whose messages are kept in the data directory and read from there: in the order of each publisher, none
    /// twice, and on from where this program was when it last ran. It is signed, as [`topic`](Node::topic) is. Without a
    /// data directory it lasts as long as the node.
    ///
    /// # Errors
    /// [`DurableTopicError`].
    pub async fn durable_topic(&self, name: &str, durable: Durable) -> Result<DurableTopic, DurableTopicError> {
        DurableTopic::open(self, name, durable).await
    }

    /// A topic with parameters of its own, which are set by the first to subscribe so. `.await` it, or give it a validator
    /// first:
    ///
    /// ```no_run
    /// # async fn run(node: peerage::Node) -> Result<(), peerage::TopicError> {
    /// use peerage::{TopicConfig, Verdict};
    ///
    /// let config = TopicConfig::signed().with_max_payload(64 * 1024);
    /// let blocks = node.topic_with("blocks", config).validate(|message| async move {
    ///     if message.payload.starts_with(b"block") { Verdict::Accept } else { Verdict::Reject }
    /// });
    /// let blocks = blocks.await?;
    /// # drop(blocks);
    /// # Ok(())
    /// # }
    /// ```
    pub fn topic_with(&self, name: &str, config: TopicConfig) -> TopicSetup {
        TopicSetup::new(self, name, config)
    }

    /// How each peer stands in gossip: the meshes that it is in, its score and what that is made of, and why it was let go
    /// from a mesh last.
    ///
    /// # Errors
    /// The node has stopped, or is starting its gossip again.
    pub async fn standings(&self) -> Result<Vec<Standing>, AskError> {
        self.0.server.standings().await
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
