//! What the machine is told and what it asks for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Time;
use peerage_queue::{ChannelId, Recipient, SessionId};
use peerage_wire::frame::Lane;
use peerage_wire::{NodeId, Penalty, Signature, codec};
use serde::{Deserialize, Serialize};

use super::confirming::{ConfirmError, Confirmed};
use super::drops::DropReason;
use super::librarian::Found;
use super::validating::Verdict;
use crate::coded::{Admitted, Coding, Job};
use crate::config::Limits;
use crate::config::{TopicConfig, TopicConfigError};
use crate::message::{Check, Claim, Fingerprint, Message, MessageId, Policy, Topic};
use crate::score::Breakdown;
use crate::wire::{HistoryAsk, Parcel};

/// What may happen to a node's gossip.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum In {
    /// A session speaks gossip.
    PeerUp(PeerUp),
    /// A session has ended.
    PeerDown {
        /// The session.
        session: SessionId,
    },
    /// This node wants a topic. Answered with [`Out::Subscribed`].
    Subscribe {
        /// The shell's name for the question.
        token: u64,
        /// The topic.
        topic: Topic,
        /// Its policy.
        policy: Policy,
    },
    /// The same, with parameters of its own. Answered likewise.
    SubscribeWith {
        /// The shell's name for the question.
        token: u64,
        /// The topic.
        topic: Topic,
        /// Its parameters.
        config: Box<TopicConfig>,
        /// Whether its messages are judged: asked with [`Out::Validate`]. Once so, until the topic is left.
        validated: bool,
    },
    /// The answer to [`Out::Validate`].
    Verdict {
        /// The question's.
        token: u64,
        /// What the application says.
        verdict: Verdict,
    },
    /// The other answer to [`Out::Validate`]: there was no room for the question, or nobody to ask. The message is asked
    /// for again later.
    NotJudged {
        /// The question's.
        token: u64,
    },
    /// Watch until so many peers have a message that is kept here. Answered with one [`Out::Confirmed`].
    Confirm {
        /// The shell's name for the question.
        token: u64,
        /// The message.
        id: MessageId,
        /// How many different nodes must have it.
        peers: NonZeroUsize,
        /// For how long to try; at most as long as messages are kept.
        within: Duration,
    },
    /// This node no longer wants a topic.
    Unsubscribe {
        /// The topic.
        topic: Topic,
    },
    /// Something to publish, on a topic this node may or may not be subscribed to. Answered with
    /// [`Out::Published`], for a signed topic after [`Out::Sign`].
    Publish {
        /// The shell's name for the question.
        token: u64,
        /// The topic.
        topic: Topic,
        /// The topic's policy.
        policy: Policy,
        /// What to publish.
        #[serde(deserialize_with = "codec::copied")]
        payload: Bytes,
        /// Whether the node's own lanes are over half full.
        pressed: bool,
    },
    /// The answer to [`Out::Sign`].
    Signed {
        /// The question's.
        token: u64,
        /// This node's signature of the claim.
        #[serde(with = "serde_bytes")]
        signature: Signature,
    },
    /// A message of a session's gossip channel.
    Inbound {
        /// The session.
        session: SessionId,
        /// What came.
        #[serde(deserialize_with = "codec::copied")]
        payload: Bytes,
    },
    /// The answer to [`Out::Verify`].
    Verified {
        /// The question's.
        token: u64,
        /// Whether the signature holds.
        ok: bool,
    },
    /// The other answer to [`Out::Verify`]: the check panicked, and nothing but this copy with it.
    CheckPanicked {
        /// The question's.
        token: u64,
    },
    /// A push did not reach this recipient.
    SendFailed {
        /// The recipient.
        session: SessionId,
        /// The push's.
        tag: u64,
    },
    /// What an earlier life of this machine had seen and told. Before all else.
    Restore {
        /// Ids, and when they were seen, oldest first.
        seen: Vec<(MessageId, Time)>,
        /// The last sequence used.
        sequence: u64,
        /// Sessions that were told to be useful last; see [`Out::Useful`].
        useful: BTreeSet<SessionId>,
    },
    /// The answer to [`Out::Code`]; none if the work failed: what was to be coded is no code's, or a panic came of it.
    Coded {
        /// The question's.
        token: u64,
        /// What came of it.
        coding: Option<Box<Coding>>,
    },
    /// Whose messages of a topic may be coded from now on, in place of what the configuration says.
    Admit {
        /// The topic.
        topic: Topic,
        /// The publishers.
        publishers: Admitted,
    },
    /// A topic is durable: from now on its messages come as [`Out::Keep`]. Before it is subscribed to.
    Durable {
        /// The topic.
        topic: Topic,
        /// What of it is on disk and may still come again.
        ids: Vec<MessageId>,
        /// Messages of it that others may still lack, as they travel; oldest first.
        items: Vec<Bytes>,
        /// The last sequence of this node's own on it.
        sequence: u64,
        /// How long its messages are kept.
        age: Duration,
        /// What was issued at this time or before, in milliseconds since the Unix epoch, may have been handed out and
        /// forgotten since, and is not taken any more.
        floor: u64,
    },
    /// A message of a durable topic is missing: pull repair is to look for it soon, and in peers' logs.
    Missing {
        /// The topic.
        topic: Topic,
    },
    /// There was no room for these messages of durable topics, and nobody has got them: they may come again.
    Forget {
        /// Their ids.
        ids: Vec<MessageId>,
    },
    /// The answer to [`Out::History`].
    HistoryKnown {
        /// The topic.
        topic: Topic,
        /// The first publisher that this speaks of.
        first: NodeId,
        /// The last one.
        last: NodeId,
        /// Publishers in order, with the last sequence of each that went to the log; those that are not here have none.
        known: Vec<(NodeId, u64)>,
    },
    /// The answer to [`Out::ReadHistory`].
    HistoryRead {
        /// The question's.
        token: u64,
        /// What the log has; none if it failed, or is not there.
        found: Option<Found>,
    },
    /// Handling this copy of a message panicked in an earlier life.
    Refuse {
        /// The copy.
        fingerprint: Fingerprint,
    },
    /// From the root: what peers and publishers may do from now on.
    Limits(Limits),
    /// As [`In::SendFailed`], for want of something of this node's own: nothing that the peer did.
    Shed {
        /// To whom.
        session: SessionId,
        /// What the push was called.
        tag: u64,
    },
}

/// A session that speaks gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerUp {
    /// The session.
    pub session: SessionId,
    /// The peer.
    pub id: NodeId,
    /// The session's gossip channel.
    pub channel: ChannelId,
    /// The peer's address, for limits by network; none where there is none.
    pub host: Option<IpAddr>,
    /// Whether this node dialled it.
    pub outbound: bool,
}

impl PeerUp {
    /// A session with a peer of unknown address that dialled this node.
    pub fn new(session: SessionId, id: NodeId, channel: ChannelId) -> PeerUp {
        PeerUp { session, id, channel, host: None, outbound: false }
    }
}

/// What it asks of its shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// Send this.
    Push(Outgoing),
    /// The message that was pushed to this peer with this tag need not go out, if it has not begun to: the peer has it.
    /// That is not a failure.
    Cancel {
        /// The peer.
        to: Recipient,
        /// The push's.
        tag: u64,
    },
    /// Hand this to the topic's subscribers. Once for every message.
    Deliver(Message),
    /// Keep this message of a durable topic, and hand it to the topic's subscribers after that. Once for every message, in
    /// any order. Nothing else remembers its id from one life to the next.
    Keep {
        /// Its id.
        id: MessageId,
        /// The message. Its signature holds.
        parcel: Parcel,
        /// The peer it came from first; none for what this node published itself.
        from: Option<NodeId>,
        /// Whether nothing of its publisher is missing before it: the first one that this life of this node published.
        first: bool,
        /// Whether it is out of a peer's log and older than messages that are pushed: it is for readers of the log alone.
        old: bool,
    },
    /// Say how far a durable topic is, from this publisher on and for at most [`MAX_KNOWN`](crate::wire::MAX_KNOWN) of
    /// them: [`In::HistoryKnown`].
    History {
        /// The topic.
        topic: Topic,
        /// The first publisher.
        first: NodeId,
    },
    /// Read in a log what a peer lacks, and answer with [`In::HistoryRead`]. Few at a time.
    ReadHistory {
        /// The machine's name for the question.
        token: u64,
        /// What the peer has and lacks.
        ask: Box<HistoryAsk>,
        /// Most messages.
        entries: usize,
        /// Most bytes, except that there may be one message of any size.
        bytes: usize,
    },
    /// Looking for a durable topic's missing messages in peers' logs began, or ended.
    CatchUp {
        /// The topic.
        topic: Topic,
        /// Whether it goes on.
        running: bool,
        /// What was missing at that time was looked for everywhere that was to be asked.
        until: Option<Time>,
    },
    /// The answer to [`In::Subscribe`].
    Subscribed {
        /// The question's.
        token: u64,
        /// Whether the topic is now subscribed to.
        result: Result<(), SubscribeError>,
    },
    /// Is this message good? Answer with [`In::Verdict`].
    Validate {
        /// The machine's name for the question.
        token: u64,
        /// The message, which its publisher has signed if its topic is signed.
        message: Message,
    },
    /// The answer to [`In::Confirm`].
    Confirmed {
        /// The question's.
        token: u64,
        /// What came of it.
        result: Result<Confirmed, ConfirmError>,
    },
    /// The answer to [`In::Publish`].
    Published {
        /// The question's.
        token: u64,
        /// What came of it.
        result: Result<Published, PublishError>,
    },
    /// Sign this as the node, and answer with [`In::Signed`].
    Sign {
        /// The shell's name for the publication.
        token: u64,
        /// What to sign.
        claim: Claim,
        /// Remember it for [`In::Restore`].
        sequence: u64,
    },
    /// Check this, and answer with [`In::Verified`].
    Verify {
        /// The machine's name for the question.
        token: u64,
        /// The check.
        check: Check,
        /// Who had it made; whoever has many made waits for them.
        from: SessionId,
    },
    /// Do this work, which takes long, and answer with [`In::Coded`].
    Code {
        /// The machine's name for the question.
        token: u64,
        /// The work.
        job: Job,
    },
    /// A peer misbehaved.
    Report {
        /// Its session.
        session: SessionId,
        /// What it did.
        penalty: Penalty,
    },
    /// Whether this node and a peer have a topic in common, subscribed to on both ends. Told when it changes, at most
    /// once a session for each input; how often a peer can change it is bounded by its quota of topic changes. A peer
    /// begins as not useful, which is not told; one that an earlier life told to be useful is told of again, whether
    /// it still is or not, once it has said its topics. Remember it for [`In::Restore`].
    Useful {
        /// The session.
        session: SessionId,
        /// Whether there is such a topic.
        useful: bool,
    },
    /// The check of what this session sent panicked. Remember the copy for [`In::Refuse`].
    Crashed {
        /// The session. There is one such output for each that sent the copy.
        session: SessionId,
        /// The copy.
        fingerprint: Fingerprint,
    },
    /// Remember this id for [`In::Restore`].
    Remember(MessageId),
    /// Count this.
    Count(Count),
}

/// A session message for some peers: encoded once, shared by all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// To whom.
    pub to: Vec<Recipient>,
    /// How urgent.
    pub lane: Lane,
    /// The bytes.
    pub bytes: Bytes,
    /// Where a lane is full: whether the oldest messages in it give way, or this one fails.
    pub drop_oldest: bool,
    /// For [`In::SendFailed`].
    pub tag: u64,
}

/// A publication that went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The message's id.
    pub id: MessageId,
    /// How many peers it was queued for. With none, it is kept, and announced when some come. Also none if
    /// the same content was published on this anonymous topic before, by whomever.
    pub peers: usize,
}

/// Why something was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The node sends more slowly than is published.
    #[error("this node's queues are over half full; try again in {retry_after:?}")]
    Busy {
        /// When it may be worth another try.
        retry_after: Duration,
    },
    /// The payload is too large for this network, or for this topic.
    #[error("{bytes} bytes, and a message has at most {limit}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// This node is subscribed to the topic with the other policy.
    #[error("the topic's policy here is {0:?}")]
    Policy(Policy),
}

/// Why a topic was not subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// This node is subscribed to the topic with the other policy.
    #[error("the topic's policy here is {0:?}")]
    Policy(Policy),
    /// This node is subscribed to as many topics as it may.
    #[error("a node is subscribed to at most {0} topics")]
    TooMany(usize),
    /// Such parameters cannot be.
    #[error("the topic's parameters: {0}")]
    Config(#[from] TopicConfigError),
    /// Another subscriber has set other parameters.
    #[error("the topic has other parameters here; ask for the same, or leave them out")]
    Parameters,
    /// Another subscriber judges the topic's messages.
    #[error("the topic's messages are validated already; end that subscription first")]
    Validated,
}

/// Deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Announce, and forget what is old.
    Heartbeat,
    /// Some peer has not sent what it announced.
    Wants,
    /// Lazy links hear of what came.
    Lazy,
    /// Shards of a message do not come any more, or it is old.
    Coded,
    /// The application has not said in time what it thinks of a message.
    Validation,
    /// Peers that should have a message are asked again, or given up.
    Confirm,
    /// Somebody is asked for a durable topic's history, or has not answered.
    History,
}

/// Something to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// A message arrived for the first time and holds.
    Accepted,
    /// This node published.
    Published,
    /// A copy of a message that is known, or being checked.
    Duplicate,
    /// Ids announced to a peer.
    AnnouncedOut(usize),
    /// Ids announced by a peer.
    AnnouncedIn(usize),
    /// Ids asked of a peer.
    RequestedOut(usize),
    /// Ids a peer asked for.
    RequestedIn(usize),
    /// A message was sent on request.
    Served,
    /// So many peers were told that a message need not be sent.
    UnwantedOut(usize),
    /// A peer was taken into a mesh.
    Grafted,
    /// A peer took this node into its mesh.
    GraftedBy,
    /// A peer was let go from a mesh.
    Pruned(PruneReason),
    /// A peer let this node go from its mesh.
    PrunedBy,
    /// A peer was shown what is here.
    Pulled,
    /// Messages sent to a peer that showed what it has.
    Repaired(usize),
    /// A peer was asked for what its log has of a durable topic.
    HistoryAsked,
    /// Messages sent out of a log.
    HistoryServed(usize),
    /// A message that came out of a peer's log is new here.
    HistoryTaken,
    /// A shard of a coded message came; whether it was new.
    Shard(bool),
    /// Shards asked of a peer.
    ShardsAsked(usize),
    /// A message was rebuilt of its shards.
    Rebuilt,
    /// Something was not done.
    Dropped(DropReason),
}

/// What is known of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The peer.
    pub id: NodeId,
    /// How many topics it wants.
    pub topics: usize,
    /// In which of this node's meshes it is.
    pub meshes: Vec<Topic>,
    /// Its score, and what it is made of.
    pub score: Breakdown,
    /// Why it was let go from a mesh last, if it was.
    pub pruned: Option<PruneReason>,
}

/// Why a peer was let go from a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PruneReason {
    /// This node left the topic.
    Left,
    /// Its score is negative.
    LowScore,
    /// The mesh had too many.
    TooMany,
    /// A nearer peer took its place.
    Farther,
}

impl PruneReason {
    /// All reasons.
    pub const ALL: &'static [PruneReason] =
        &[PruneReason::Left, PruneReason::LowScore, PruneReason::TooMany, PruneReason::Farther];

    /// A word for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            PruneReason::Left => "left",
            PruneReason::LowScore => "low_score",
            PruneReason::TooMany => "too_many",
            PruneReason::Farther => "farther",
        }
    }
}

/// How much a machine holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Peers.
    pub peers: usize,
    /// Topics this node is subscribed to.
    pub subscriptions: usize,
    /// Ids remembered.
    pub seen: usize,
    /// Messages kept.
    pub cached: usize,
    /// Their bytes.
    pub cached_bytes: usize,
    /// Messages being checked.
    pub in_flight: usize,
    /// Messages being judged by the application.
    pub validating: usize,
    /// Messages of which it is watched how many peers have them.
    pub confirming: usize,
    /// Messages announced and not here.
    pub wanted: usize,
    /// Peers in meshes, in all topics.
    pub links: usize,
    /// Coded messages under way or lingering.
    pub coded: usize,
    /// Bytes of all their shards.
    pub coded_bytes: usize,
}
