//! Nodes that other sources told of, for the dialer and for the table.
//!
//! The dialer is served by all sources in turn, one node of each, so that neither a long list nor a flood of one source
//! keeps the others out (geth `FairMix`). The table is one of them. What another source told waits here, bounded, the
//! oldest out first; and each is also offered to the table, where it has to answer like any other.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use peerage_machine::Time;
use peerage_wire::address::site;
use peerage_wire::{Admission, NodeId, NodeRecord, Verified};

use super::origin::Origin;
use super::table::Contact;
use super::{DiscoveryMachine, Found, Fx, Out};
use crate::config::Config;
use crate::count::DropReason;
use crate::filter::EntryRule;
use crate::net::{OPEN_NETWORK, is_usable};
use crate::source::{MAX_OFFER, Source};

/// Nodes of one source that wait for the dialer.
const MAX_WAITING: usize = 128;
/// Dials of a node in a row that failed, after which its source has to tell of it again.
const MAX_FAILURES: u32 = 5;

/// A node that a source told of.
struct Waiting {
    record: Verified<NodeRecord>,
    /// When it may be handed to the dialer again; `None` if it never was.
    until: Option<Time>,
    failures: u32,
}

/// What sources other than the table told, and whose turn it is.
pub(super) struct Mix {
    /// In the order of [`Source::ALL`]; that of the table stays empty.
    waiting: [VecDeque<Waiting>; Source::ALL.len()],
    /// The source that is served next.
    turn: usize,
}

impl Mix {
    pub(super) fn new() -> Mix {
        Mix { waiting: Default::default(), turn: 0 }
    }

    /// How many wait, of all sources.
    pub(super) fn len(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// The sources in the order in which they are to be asked for one node each.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = Source> + use<> {
        let turn = self.turn;
        (0..Source::ALL.len()).map(move |step| Source::ALL[(turn + step) % Source::ALL.len()])
    }

    /// This source gave a node: the next one is served first.
    pub(super) fn served(&mut self, source: Source) {
        self.turn = (source as usize + 1) % Source::ALL.len();
    }

    /// Lets a record wait; a newer one of the same node takes the place of the older.
    fn push(&mut self, source: Source, record: Verified<NodeRecord>) {
        let queue = &mut self.waiting[source as usize];
        match queue.iter_mut().find(|known| known.record.id() == record.id()) {
            Some(known) if known.record.seq() < record.seq() => known.record = record,
            Some(_) => {}
            None => {
                if queue.len() >= MAX_WAITING {
                    queue.pop_front();
                }
                queue.push_back(Waiting { record, until: None, failures: 0 });
            }
        }
    }

    /// The node of a source that may be handed out now: one that never was, or else the one that was longest ago.
    pub(super) fn next(&self, now: Time, source: Source, rule: &Rule<'_>) -> Option<Found> {
        let fit = self.waiting[source as usize].iter().filter(|node| node.until.is_none_or(|until| until <= now));
        let first =
            fit.filter(|node| rule.sockets(source, &node.record).next().is_some()).min_by_key(|node| node.until);
        first.map(|node| (node.record.clone(), rule.sockets(source, &node.record).collect()))
    }

    /// When the next node that was handed out may be again.
    pub(super) fn next_at(&self, rule: &Rule<'_>) -> Option<Time> {
        let sources = Source::ALL.into_iter().zip(&self.waiting);
        let nodes = sources.flat_map(|(source, queue)| queue.iter().map(move |node| (source, node)));
        nodes
            .filter(|(source, node)| rule.sockets(*source, &node.record).next().is_some())
            .filter_map(|(_, n)| n.until)
            .min()
    }

    /// Notes that a node was handed out, by whichever source.
    pub(super) fn handed(&mut self, now: Time, id: NodeId, config: &Config) {
        for node in self.waiting.iter_mut().flatten().filter(|node| node.record.id() == id) {
            node.until = Some(now + pause(config, node.failures));
        }
    }

    /// Notes how the dial of a node ended. One that failed again and again is forgotten.
    pub(super) fn outcome(&mut self, id: NodeId, ok: bool) {
        for queue in &mut self.waiting {
            if let Some(at) = queue.iter().position(|node| node.record.id() == id) {
                queue[at].failures = if ok { 0 } else { queue[at].failures + 1 };
                if queue[at].failures >= MAX_FAILURES {
                    queue.remove(at);
                }
            }
        }
    }

    /// Forgets who is not admitted any more.
    pub(super) fn retain(&mut self, admission: &Admission) {
        self.waiting.iter_mut().for_each(|queue| queue.retain(|node| admission.permits_id(&node.record.id())));
    }
}

/// How long a node is not handed out again whose dials failed so often.
pub(super) fn pause(config: &Config, failures: u32) -> Duration {
    config.handout_pause.saturating_mul(1 << failures.min(16)).min(config.handout_cap)
}

/// Where a node that did not answer us may be dialled all the same.
pub(super) struct Rule<'a> {
    pub(super) admission: &'a Admission,
    pub(super) filter: &'a [EntryRule],
    /// Nobody in the table answers: UDP may be blocked here, and what peers tell is then all there is.
    pub(super) blind: bool,
}

impl Rule<'_> {
    fn sockets<'a>(&'a self, source: Source, record: &'a NodeRecord) -> impl Iterator<Item = SocketAddr> + 'a {
        let fits = EntryRule::all_hold(self.filter, record);
        let sockets = if fits { record.tcp_sockets() } else { &[] };
        sockets.iter().copied().filter(move |tcp| {
            let believed = source.vouches_for(tcp.ip())
                || source == Source::Exchange && self.blind && !peerage_wire::address::is_local(tcp.ip());
            tcp.port() != 0 && is_usable(tcp.ip()) && believed && self.admission.permits_ip(tcp.ip())
        })
    }
}

impl DiscoveryMachine {
    /// Nodes that a source told of.
    pub(super) fn offered(&mut self, now: Time, source: Source, records: Vec<Verified<NodeRecord>>, fx: &mut Fx) {
        for _ in MAX_OFFER..records.len() {
            fx.emit(Out::Drop(DropReason::Excess));
        }
        for record in records.into_iter().take(MAX_OFFER) {
            if record.id() == self.me || source == Source::Kademlia {
                continue;
            }
            if record.network() != self.local.network() {
                fx.emit(Out::Drop(DropReason::ForeignRecord));
                continue;
            }
            if !self.admission.permits_id(&record.id()) {
                fx.emit(Out::Drop(DropReason::NotAdmitted));
                continue;
            }
            self.mix.push(source, record.clone());
            self.supply_changed = true;
            // What the user chose to believe may tell of any address, as this node itself may.
            let teller = if source == Source::Exchange { OPEN_NETWORK } else { Ipv4Addr::LOCALHOST.into() };
            match self.endpoint(&record, teller) {
                Ok(addr) => {
                    // Peers tell what they like; the exchange does not say which of them told.
                    let origin = if source == Source::Exchange { Origin::Told(site(teller)) } else { Origin::Chosen };
                    let placed = self.table.heard_of(Contact::new(addr, record), origin);
                    self.admitted(now, placed, fx);
                }
                // It has no UDP socket, or none that this node can reach.
                Err(reason) => fx.emit(Out::Drop(reason)),
            }
        }
    }
}
