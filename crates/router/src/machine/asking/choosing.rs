//! Whom a request is sent to, and when.

use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_wire::NodeId;

use super::{Asking, Due, Operation, Waits};
use crate::machine::Cx;
use crate::machine::contract::{Count, RequestError, Target};

impl Asking {
    /// Whom to ask now, or why nobody: the peer at which a place was waited for, if there is any sense in asking it still.
    pub(super) fn choose(
        &self,
        cx: &mut Cx<'_>,
        operation: &Operation,
        place: Option<NodeId>,
    ) -> Result<(NodeId, SessionId), RequestError> {
        let handler = operation.request.handler;
        let id = match &operation.request.target {
            Target::Peer(id) => *id,
            Target::Any(pool) => {
                let may = |id: &&NodeId| pool.has(id, &cx.peers.members);
                let all: Vec<NodeId> = cx.peers.sampler.peers().iter().filter(may).copied().collect();
                if all.is_empty() {
                    return Err(RequestError::NoPeers);
                }
                let well = |id: &&NodeId| self.breaker.admits(cx.now, id, handler);
                let roomy =
                    |id: &&NodeId| self.attempts.has_room(&cx.config.asked, id, operation.request.payload.len());
                let well: Vec<NodeId> = all.iter().filter(well).copied().collect();
                if well.is_empty() {
                    return Err(RequestError::CircuitOpen);
                }
                let well: Vec<NodeId> = well.iter().filter(roomy).copied().collect();
                if well.is_empty() {
                    return Err(RequestError::Busy);
                }
                // Another one might have no place but a later one, and so on until the time is over.
                let well: Vec<NodeId> = match place.filter(|id| well.contains(id)) {
                    Some(waited) => vec![waited],
                    None => well,
                };
                let ready = |id: &&NodeId| self.pacer.as_ref().is_none_or(|it| it.is_ready(cx.now, id, handler));
                let at_once: Vec<NodeId> = well.iter().filter(ready).copied().collect();
                let well = if at_once.is_empty() { well } else { at_once };
                let new: Vec<NodeId> = well.iter().filter(|id| !operation.tried.contains(id)).copied().collect();
                let among = if new.is_empty() { &well } else { &new };
                let chosen = match self.books.get(&handler) {
                    Some(book) => book.tracker.choose(among, cx.rng),
                    None => cx.rng.index(among.len()).and_then(|at| among.get(at).copied()),
                };
                chosen.ok_or(RequestError::NoPeers)?
            }
        };
        let session = cx.peers.session(&id).ok_or(RequestError::NotConnected)?;
        Ok((id, session))
    }

    /// The peer is asked no faster than it lets itself be: this one has its place then.
    pub(super) fn wait_its_turn(&mut self, cx: &mut Cx<'_>, token: u64, peer: NodeId, at: Time) {
        let Some(operation) = self.operations.get_mut(&token) else { return };
        operation.paced = Some(peer);
        operation.waits = Waits::ForRetry(at);
        self.due.insert((at, Due::Retry(token)));
        cx.count(Count::Paced);
    }
}
