//! The door of the discovery actor: what it may be told, and by whom.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use peerage_mailbox::Reply;
use peerage_wire::{Admission, NodeId, NodeRecord, Verified};
use ractor::ActorRef;

use crate::external::Prediction;
use crate::filter::EntryRule;
use crate::key::BUCKETS;
use crate::machine::{Bootnode, Found};
use crate::source::Source;

/// What the actor tells the wiring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoveryOut {
    /// Nodes to dial, no more than the last [`DiscoveryMailbox::want`] asked for.
    Candidates(Vec<Found>),
    /// The end of a [`DiscoveryMailbox::resolve_for`].
    Resolved {
        /// Its attempt.
        attempt: u64,
        /// The newest record found.
        record: Option<Verified<NodeRecord>>,
    },
    /// This node answers reliably: worth remembering beyond this process, and giving as a [seed](crate::Args::seeds)
    /// to the next. Once an hour for each node of the table at most, or when its record became newer.
    Alive(Verified<NodeRecord>),
    /// Where others see this node, which is not what was told last. A life of the actor begins with nothing told.
    Predicted(Prediction),
}

/// Records in answer to a question, nearest first where there is a target.
pub type Records = Vec<Verified<NodeRecord>>;

/// Where an answer goes.
#[derive(Debug)]
pub(crate) enum Asked {
    Records(Reply<Records>),
    Record(Reply<Option<Verified<NodeRecord>>>),
    Attempt(u64),
}

/// Control messages. The wiring sends a bounded number of them: the dialer's follow its slots, callers hold API
/// permits, and `Wake` and `Tick` are coalesced.
#[derive(Debug)]
pub(crate) enum Msg {
    // From the dialer.
    Want(usize),
    Outcome {
        id: NodeId,
        ok: bool,
    },
    ResolveFor {
        attempt: u64,
        id: NodeId,
    },
    // From the root.
    LocalChanged(Verified<NodeRecord>),
    Admission(Arc<Admission>),
    /// At most one for each change of a file or of a name.
    Bootnodes {
        source: Source,
        nodes: Vec<Bootnode>,
    },
    Filter(Vec<EntryRule>),
    // From sources of nodes. Each waits for the answer before it offers again.
    Offer {
        source: Source,
        records: Records,
        reply: Reply<()>,
    },
    // From callers. More of them than the actor keeps waiting are dropped unanswered, which is an answer.
    Lookup {
        target: NodeId,
        reply: Reply<Records>,
    },
    Resolve {
        id: NodeId,
        reply: Reply<Option<Verified<NodeRecord>>>,
    },
    Random {
        count: usize,
        reply: Reply<Records>,
    },
    Closest {
        target: NodeId,
        count: usize,
        reply: Reply<Records>,
    },
    Local(Reply<Verified<NodeRecord>>),
    TableSizes(Reply<[usize; BUCKETS]>),
    // From its own bell, alarm and readers; a reader ends once.
    Wake,
    Tick,
    ReaderEnded,
    // From tests of supervision.
    #[cfg(feature = "fault-injection")]
    Panic,
}

/// Speaks to a discovery actor. What is said to one that has ended is lost; questions are then answered with
/// [`peerage_mailbox::AskError::Dropped`].
#[derive(Clone)]
pub struct DiscoveryMailbox {
    actor: ActorRef<Msg>,
    table: TableGauge,
}

/// How many nodes the table of one life of the actor holds, and how far the clock is ahead of theirs.
#[derive(Clone, Default)]
pub(crate) struct TableGauge(Arc<(AtomicUsize, AtomicI64)>);

impl TableGauge {
    pub(crate) fn set(&self, nodes: usize) {
        self.0.0.store(nodes, Ordering::Relaxed);
    }

    pub(crate) fn set_drift(&self, seconds: i64) {
        self.0.1.store(seconds, Ordering::Relaxed);
    }
}

impl DiscoveryMailbox {
    pub(crate) fn new(actor: ActorRef<Msg>, table: TableGauge) -> DiscoveryMailbox {
        DiscoveryMailbox { actor, table }
    }

    fn tell(&self, message: Msg) {
        drop(self.actor.cast(message));
    }

    /// Asks for records to dial, which come as [`DiscoveryOut::Candidates`]: at once as far as there are any, the
    /// rest as nodes are found. Replaces what is left of an earlier call; 0 ends it.
    pub fn want(&self, count: usize) {
        self.tell(Msg::Want(count));
    }

    /// Says how a dial ended, so that nodes which cannot be reached are offered less often.
    pub fn outcome(&self, id: NodeId, ok: bool) {
        self.tell(Msg::Outcome { id, ok });
    }

    /// Finds the newest record of a node; the answer is a [`DiscoveryOut::Resolved`] with the same attempt.
    pub fn resolve_for(&self, attempt: u64, id: NodeId) {
        self.tell(Msg::ResolveFor { attempt, id });
    }

    /// Tells it the node's new record, signed with a higher sequence.
    pub fn local_changed(&self, record: Verified<NodeRecord>) {
        self.tell(Msg::LocalChanged(record));
    }

    /// Tells whom to begin with besides [`Args::bootnodes`](crate::Args::bootnodes), which becomes known later, and
    /// instead of those that this source told of before: where a host's name leads, or what a file says. An actor that
    /// is started anew has to be told again.
    pub fn bootnodes(&self, source: Source, nodes: Vec<Bootnode>) {
        self.tell(Msg::Bootnodes { source, nodes });
    }

    /// Offers nodes that were learnt of elsewhere: the dialer gets them beside those of the table, and they are asked
    /// for a sign of life to enter it. Of one offer at most [`MAX_OFFER`](crate::MAX_OFFER) are taken. The reply comes
    /// once they are; a source offers again only after that, so that offers cannot pile up.
    pub fn offer(&self, source: Source, records: Records, reply: Reply<()>) {
        self.tell(Msg::Offer { source, records, reply });
    }

    /// Asks the network for the nodes nearest to a node. Takes a few round trips, or time-outs of them.
    pub fn lookup(&self, target: NodeId, reply: Reply<Records>) {
        self.tell(Msg::Lookup { target, reply });
    }

    /// Asks a node, or else the network, for the node's newest record.
    pub fn resolve(&self, id: NodeId, reply: Reply<Option<Verified<NodeRecord>>>) {
        self.tell(Msg::Resolve { id, reply });
    }

    /// Asks for the node's own record.
    pub fn local(&self, reply: Reply<Verified<NodeRecord>>) {
        self.tell(Msg::Local(reply));
    }

    /// Asks for random live nodes of the table, distinct and spread over its buckets. There are none before the first
    /// refresh has ended.
    pub fn random(&self, count: usize, reply: Reply<Records>) {
        self.tell(Msg::Random { count, reply });
    }

    /// Asks for the nodes of the table nearest to a node.
    pub fn closest(&self, target: NodeId, count: usize, reply: Reply<Records>) {
        self.tell(Msg::Closest { target, count, reply });
    }

    /// Says whom the node has to do with from now on: bootnodes, neighbours and members of the table that are not
    /// admitted are dropped, and their packets at the gate. An actor that is started anew begins with
    /// [`Args::admission`](crate::Args::admission), which the root keeps up to date.
    pub fn admission(&self, admission: Arc<Admission>) {
        self.tell(Msg::Admission(admission));
    }

    /// Says what records must say from now on for their owners to be handed to the dialer; all of it. An actor that is
    /// started anew begins with [`Config::filter`](crate::Config::filter).
    pub fn filter(&self, rules: Vec<EntryRule>) {
        self.tell(Msg::Filter(rules));
    }

    /// How many nodes the table held when the actor last paused. A gauge: it is read without asking the actor.
    pub fn table_len(&self) -> usize {
        self.table.0.0.load(Ordering::Relaxed)
    }

    /// By how many seconds this computer's clock is ahead of its peers' (behind, if negative); 0 as long as fewer than
    /// five sites told theirs. Beyond [`MAX_DRIFT`](crate::MAX_DRIFT) packets will soon be refused on both sides. A
    /// gauge: it is read without asking the actor.
    pub fn clock_drift(&self) -> i64 {
        self.table.0.1.load(Ordering::Relaxed)
    }

    /// Asks how many nodes each bucket holds.
    pub fn table_sizes(&self, reply: Reply<[usize; BUCKETS]>) {
        self.tell(Msg::TableSizes(reply));
    }

    /// Makes the actor panic at its next message.
    #[doc(hidden)]
    #[cfg(feature = "fault-injection")]
    pub fn inject_panic(&self) {
        self.tell(Msg::Panic);
    }
}

impl fmt::Debug for DiscoveryMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiscoveryMailbox")
    }
}
