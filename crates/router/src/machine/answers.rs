//! Large answers, each on a stream of its own: those that go out, and those that are claimed to come.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_wire::NodeId;

use super::Cx;
use super::contract::{Out, Stats};
use super::places::{Part, Places};
use super::streams::{Claim, refuse};
use crate::wire::streams::{Header, codes};

/// An answer that goes out.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) session: SessionId,
    pub(super) to: NodeId,
    /// The request's.
    pub(super) id: u64,
    pub(super) payload: Bytes,
    pub(super) ends: Time,
}

/// Answers that go out. Of one peer some are on their way, and the others wait for those.
#[derive(Debug, Default)]
pub(super) struct Sendings {
    /// By the calls', so in the order of the calls.
    sending: BTreeMap<u64, Sending>,
    waiting: BTreeMap<NodeId, BTreeSet<u64>>,
    ids: BTreeMap<(SessionId, u64), u64>,
    /// On their way, and nobody wants them any more: they have their place until the shell has ended them.
    withdrawn: BTreeMap<u64, (NodeId, usize)>,
    /// Of each peer, how many are on their way.
    begun: BTreeMap<NodeId, usize>,
    places: Places,
    bytes: Places,
    due: BTreeSet<(Time, u64)>,
}

impl Sendings {
    /// Whether there is room for another answer of so many bytes to a peer.
    pub(super) fn has_room(&self, cx: &Cx<'_>, to: &NodeId, bytes: usize) -> bool {
        let (limits, part) = (&cx.config.answers, cx.part(to));
        self.places.has_room(to, 1, limits.node, part)
            && self.bytes.of(to) + bytes <= limits.per_peer_bytes
            && self.bytes.has_room(to, bytes, limits.node_bytes, part)
    }

    /// Whether an answer to this request is on its way.
    pub(super) fn has(&self, session: SessionId, id: u64) -> bool {
        self.ids.contains_key(&(session, id))
    }

    pub(super) fn begin(&mut self, cx: &mut Cx<'_>, call: u64, sending: Sending) {
        let (to, bytes) = (sending.to, sending.payload.len());
        let (limits, part) = (&cx.config.answers, cx.part(&to));
        self.places.take(to, 1, limits.node, part);
        self.bytes.take(to, bytes, limits.node_bytes, part);
        self.ids.insert((sending.session, sending.id), call);
        self.due.insert((sending.ends, call));
        self.sending.insert(call, sending);
        self.waiting.entry(to).or_default().insert(call);
        self.start(cx, to);
    }

    /// Lets those go that may.
    fn start(&mut self, cx: &mut Cx<'_>, to: NodeId) {
        let Sendings { sending, waiting, begun, .. } = self;
        let Some(calls) = waiting.get_mut(&to) else { return };
        let begun = begun.entry(to).or_default();
        while *begun < cx.config.answers.per_peer
            && let Some(call) = calls.pop_first()
        {
            let Some(Sending { session, id, payload, .. }) = sending.get(&call) else { continue };
            // Its session has not ended, or it would not be here.
            let Some(to) = cx.peers.recipient(*session) else { continue };
            *begun += 1;
            let header = Header::Answer { id: *id, length: u32::try_from(payload.len()).unwrap_or(u32::MAX) };
            cx.fx.emit(Out::SendAnswer { call, to, header, payload: payload.clone() });
        }
        if calls.is_empty() {
            waiting.remove(&to);
        }
    }

    fn give_back(&mut self, cx: &mut Cx<'_>, to: NodeId, bytes: usize, begun: bool) {
        self.places.give_back(&to, 1);
        self.bytes.give_back(&to, bytes);
        if let Some(count) = self.begun.get_mut(&to) {
            *count -= usize::from(begun);
            if *count == 0 {
                self.begun.remove(&to);
            }
        }
        self.start(cx, to);
    }

    /// The shell is done with one. What it was, if somebody still waits for it.
    pub(super) fn sent(&mut self, cx: &mut Cx<'_>, call: u64) -> Option<Sending> {
        if let Some((to, bytes)) = self.withdrawn.remove(&call) {
            self.give_back(cx, to, bytes, true);
            return None;
        }
        // One that waits was not handed out, so it cannot be done.
        if self.is_waiting(call) {
            return None;
        }
        let sending = self.sending.remove(&call)?;
        self.forget(call, &sending);
        self.give_back(cx, sending.to, sending.payload.len(), true);
        Some(sending)
    }

    fn is_waiting(&self, call: u64) -> bool {
        let to = self.sending.get(&call).map(|sending| sending.to);
        to.and_then(|to| self.waiting.get(&to)).is_some_and(|calls| calls.contains(&call))
    }

    fn forget(&mut self, call: u64, sending: &Sending) {
        self.ids.remove(&(sending.session, sending.id));
        self.due.remove(&(sending.ends, call));
    }

    /// Nobody waits for it any more.
    fn withdraw(&mut self, cx: &mut Cx<'_>, call: u64) {
        let waits = self.is_waiting(call);
        let Some(sending) = self.sending.remove(&call) else { return };
        self.forget(call, &sending);
        let (to, bytes) = (sending.to, sending.payload.len());
        if waits {
            if let Some(calls) = self.waiting.get_mut(&to) {
                calls.remove(&call);
                if calls.is_empty() {
                    self.waiting.remove(&to);
                }
            }
            self.give_back(cx, to, bytes, false);
        } else {
            self.withdrawn.insert(call, (to, bytes));
            cx.fx.emit(Out::WithdrawAnswer { call });
        }
    }

    /// The asker cancelled; false if no answer to it is on its way.
    pub(super) fn cancelled(&mut self, cx: &mut Cx<'_>, session: SessionId, id: u64) -> bool {
        let Some(call) = self.ids.get(&(session, id)).copied() else { return false };
        self.withdraw(cx, call);
        true
    }

    pub(super) fn disconnected(&mut self, cx: &mut Cx<'_>, session: SessionId) {
        let calls: Vec<u64> = self.ids.range((session, 0)..=(session, u64::MAX)).map(|(_, call)| *call).collect();
        calls.into_iter().for_each(|call| self.withdraw(cx, call));
    }

    /// Withdraws those whose time is over, and says how many.
    pub(super) fn expire(&mut self, cx: &mut Cx<'_>) -> usize {
        let mut expired = 0;
        while let Some((ends, call)) = self.due.first().copied() {
            if ends > cx.now {
                break;
            }
            self.due.pop_first();
            self.withdraw(cx, call);
            expired += 1;
        }
        expired
    }

    pub(super) fn next_expiry(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(super) fn stats(&self, stats: &mut Stats) {
        let named = self.begun.len().max(self.places.used()).max(self.ids.len());
        stats.answers_out = (self.sending.len() + self.withdrawn.len()).max(named);
        stats.answer_bytes_out = self.bytes.used();
        stats.deadlines += self.due.len();
    }
}

/// Answers that peers claim to bring on streams, for requests that are out. Those for which there is no room wait, and hold
/// up nobody: of each no more than a first window can come meanwhile.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// By the requests' ids.
    claims: BTreeMap<u64, Claim>,
    streams: BTreeMap<u64, u64>,
    /// Streams that wait, in the order in which they came.
    waiting: BTreeSet<u64>,
    /// Of those that are read.
    places: Places,
    bytes: Places,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claim({} of {} bytes)", self.id, self.length)
    }
}

impl Claims {
    pub(super) fn has(&self, id: u64) -> bool {
        self.claims.contains_key(&id)
    }

    /// The session of the stream that is to bring an answer.
    pub(super) fn session(&self, stream: u64) -> Option<SessionId> {
        Some(self.claims.get(self.streams.get(&stream)?)?.session)
    }

    pub(super) fn add(&mut self, cx: &mut Cx<'_>, claim: Claim) {
        self.streams.insert(claim.stream, claim.id);
        self.waiting.insert(claim.stream);
        self.claims.insert(claim.id, claim);
        self.start(cx);
    }

    fn start(&mut self, cx: &mut Cx<'_>) {
        let limits = &cx.config.answers;
        let Claims { claims, streams, waiting, places, bytes } = self;
        waiting.retain(|stream| {
            let Some(claim) = streams.get(stream).and_then(|id| claims.get(id)) else { return false };
            let (peer, part) = (claim.peer, cx.part(&claim.peer));
            let fits = bytes.of(&peer) + claim.length <= limits.per_peer_bytes
                && bytes.has_room(&peer, claim.length, limits.node_bytes, part)
                && places.take_one(peer, limits.per_peer, usize::MAX, Part::default());
            if fits {
                bytes.take(peer, claim.length, limits.node_bytes, part);
                cx.fx.emit(Out::ReadAnswer { stream: *stream, length: claim.length });
            }
            !fits
        });
    }

    /// Takes a claim out of all tables.
    fn take(&mut self, cx: &mut Cx<'_>, id: u64) -> Option<Claim> {
        let claim = self.claims.remove(&id)?;
        self.streams.remove(&claim.stream);
        if !self.waiting.remove(&claim.stream) {
            self.places.give_back(&claim.peer, 1);
            self.bytes.give_back(&claim.peer, claim.length);
            self.start(cx);
        }
        Some(claim)
    }

    /// The stream has brought it, or will not; none if nobody waits for it any more.
    pub(super) fn came(&mut self, cx: &mut Cx<'_>, stream: u64) -> Option<Claim> {
        let id = *self.streams.get(&stream)?;
        self.take(cx, id)
    }

    /// The request has ended: nothing more is read for it.
    pub(super) fn ended(&mut self, cx: &mut Cx<'_>, id: u64) {
        if let Some(claim) = self.take(cx, id) {
            refuse(cx, claim.stream, codes::UNWANTED);
        }
    }

    pub(super) fn stats(&self, stats: &mut Stats) {
        stats.answers_in = self.claims.len().max(self.streams.len()).max(self.places.used());
        stats.answer_bytes_in = self.bytes.used();
    }
}
