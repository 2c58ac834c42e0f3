//! Which runs there are, and which end of a run ends its peer's session: the first, and none after it.

use std::collections::{BTreeMap, BTreeSet};

use peerage_queue::SessionId;
use peerage_wire::DisconnectReason;
use serde::{Deserialize, Serialize};

/// A run of a protocol with a peer. Ids rise and are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub u64);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// It returned, as it has nothing more to say.
    Returned,
    /// It asked for the end, for this reason.
    Asked(DisconnectReason),
    /// The peer broke the protocol.
    Breach,
    /// It failed.
    Failed,
    /// It panicked.
    Panicked,
    /// Its session ended first.
    Ended,
    /// Its session had ended, and it did not.
    Abandoned,
}

impl How {
    /// All of them, for metrics; one reason stands for all.
    pub const ALL: [How; 7] = [
        How::Returned,
        How::Asked(DisconnectReason::Requested),
        How::Breach,
        How::Failed,
        How::Panicked,
        How::Ended,
        How::Abandoned,
    ];

    /// A word for metrics and people.
    pub const fn label(self) -> &'static str {
        match self {
            How::Returned => "returned",
            How::Asked(_) => "asked",
            How::Breach => "breach",
            How::Failed => "failed",
            How::Panicked => "panicked",
            How::Ended => "ended",
            How::Abandoned => "abandoned",
        }
    }

    /// Why the session ends then (geth p2p/peer_error.go `discReasonForError`).
    pub const fn reason(self) -> DisconnectReason {
        match self {
            How::Returned | How::Ended | How::Abandoned => DisconnectReason::Quitting,
            How::Asked(reason) => reason,
            How::Breach => DisconnectReason::ProtocolError,
            How::Failed => DisconnectReason::Subprotocol,
            // Most likely of what the peer sent.
            How::Panicked => DisconnectReason::Crashed,
        }
    }
}

/// The runs of all sessions. As many as sessions times protocols, and those whose sessions ended while they did not.
#[derive(Debug, Default)]
pub struct Runs {
    next: u64,
    sessions: BTreeMap<SessionId, Lives>,
}

#[derive(Debug, Default)]
struct Lives {
    runs: BTreeSet<RunId>,
    /// Nothing is asked of it any more: it is ending, or has ended.
    ending: bool,
}

impl Runs {
    /// A run begins.
    pub fn begin(&mut self, session: SessionId) -> RunId {
        let id = RunId(self.next);
        self.next += 1;
        self.sessions.entry(session).or_default().runs.insert(id);
        id
    }

    /// The peer broke a protocol, whether or not its run ends of it. Why its session is to end, if nothing else said so
    /// before.
    pub fn breach(&mut self, session: SessionId, run: RunId) -> Option<DisconnectReason> {
        let lives = self.sessions.get_mut(&session).filter(|lives| lives.runs.contains(&run))?;
        (!std::mem::replace(&mut lives.ending, true)).then(|| How::Breach.reason())
    }

    /// A run has ended. Why its session is to end, if nothing else said so before.
    pub fn ended(&mut self, session: SessionId, run: RunId, how: How) -> Option<DisconnectReason> {
        let lives = self.sessions.get_mut(&session)?;
        if !lives.runs.remove(&run) {
            return None;
        }
        let first = !std::mem::replace(&mut lives.ending, true);
        if lives.runs.is_empty() {
            self.sessions.remove(&session);
        }
        first.then(|| how.reason())
    }

    /// The session has ended; its runs will.
    pub fn peer_down(&mut self, session: SessionId) {
        if let Some(lives) = self.sessions.get_mut(&session) {
            lives.ending = true;
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.values().map(|lives| lives.runs.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);

    #[test]
    fn the_first_end_of_a_run_ends_the_session_and_the_others_follow() {
        let mut runs = Runs::default();
        let [one, two, three] = [A, A, B].map(|session| runs.begin(session));
        assert_eq!(runs.ended(A, one, How::Failed), Some(DisconnectReason::Subprotocol));
        assert_eq!(runs.ended(A, one, How::Failed), None, "told twice");
        assert_eq!(runs.ended(A, two, How::Ended), None, "it ends because the session does");
        assert_eq!(runs.len(), 1);
        runs.peer_down(A);
        assert_eq!(runs.ended(B, one, How::Returned), None, "another session's");
        assert_eq!(runs.ended(B, three, How::Returned), Some(DisconnectReason::Quitting));
        assert!(runs.is_empty());
    }

    #[test]
    fn a_breach_ends_the_session_although_the_run_goes_on() {
        let mut runs = Runs::default();
        let run = runs.begin(A);
        assert_eq!(runs.breach(A, run), Some(DisconnectReason::ProtocolError));
        assert_eq!((runs.breach(A, run), runs.ended(A, run, How::Returned)), (None, None));
        assert_eq!(runs.breach(A, run), None, "it is over");
        assert!(runs.is_empty());
    }

    #[test]
    fn a_run_that_outlives_its_session_ends_nothing() {
        let mut runs = Runs::default();
        let run = runs.begin(A);
        runs.peer_down(A);
        assert_eq!((runs.len(), runs.ended(A, run, How::Abandoned)), (1, None));
        assert!(runs.is_empty());
    }

    #[test]
    fn each_end_has_its_reason() {
        let reasons = How::ALL.map(|how| how.reason().label());
        let expected = ["quitting", "requested", "protocol_error", "subprotocol", "crashed", "quitting", "quitting"];
        assert_eq!(reasons, expected);
    }

    proptest! {
        /// Whatever comes in whatever order: at most one reason a session, and nothing is kept.
        #[test]
        fn a_session_is_ended_at_most_once_and_nothing_is_left_of_it(steps in prop::collection::vec((0..4u8, 0..3u64, 0..8usize), 0..200)) {
            let mut runs = Runs::default();
            let mut begun: Vec<(SessionId, RunId)> = Vec::new();
            let mut told: BTreeMap<SessionId, u32> = BTreeMap::new();
            let mut down: BTreeSet<SessionId> = BTreeSet::new();
            let mut next = [0; 3];
            for (step, slot, which) in steps {
                let session = SessionId(slot + 3 * next[slot as usize]);
                let reason = match (step, begun.get(which).copied()) {
                    (0, _) => {
                        begun.push((session, runs.begin(session)));
                        None
                    }
                    (1, Some((session, run))) => runs.ended(session, run, How::Failed).map(|_| session),
                    (2, Some((session, run))) => runs.breach(session, run).map(|_| session),
                    (3, _) => {
                        // No run begins in a session that has ended.
                        runs.peer_down(session);
                        down.insert(session);
                        next[slot as usize] += 1;
                        None
                    }
                    _ => None,
                };
                if let Some(session) = reason {
                    prop_assert!(!down.contains(&session), "ended after its end");
                    *told.entry(session).or_default() += 1;
                    // The root ends it, and no run begins in it any more.
                    next[(session.0 % 3) as usize] = session.0 / 3 + 1;
                }
            }
            prop_assert!(told.values().all(|times| *times == 1));
            for (session, run) in begun {
                runs.ended(session, run, How::Ended);
            }
            prop_assert!(runs.is_empty());
        }
    }
}
