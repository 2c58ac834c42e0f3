//! Messages whose signature is being checked: one check an id, the other copies wait for its outcome.

use std::collections::{BTreeMap, VecDeque};

use peerage_queue::SessionId;
use peerage_wire::NodeId;

use crate::message::{Fingerprint, MessageId};
use crate::wire::Parcel;

/// Copies with one id and different bytes that wait behind the one being checked. All but one of them are
/// forged; a true copy that finds no place is fetched again later, as its id is not marked as seen.
const MAX_WAITING: usize = 8;

/// One copy of a message, and who sent exactly these bytes.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) parcel: Parcel,
    pub(super) fingerprint: Fingerprint,
    /// The node it came from first.
    pub(super) from: NodeId,
    /// The first of these is charged for the room it takes.
    pub(super) senders: Vec<SessionId>,
    /// Whether it is out of a peer's log.
    pub(super) logged: bool,
}

#[derive(Debug)]
struct Flight {
    checking: Candidate,
    waiting: VecDeque<Candidate>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    copies: usize,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct Flights {
    by_id: BTreeMap<MessageId, Flight>,
    by_token: BTreeMap<u64, MessageId>,
    total: Load,
    by_session: BTreeMap<SessionId, Load>,
    next_token: u64,
    max: Load,
}

/// What became of a copy of a message in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// These very bytes are being checked or wait already.
    Known,
    /// It waits for its turn.
    Waits,
    /// There is no room for it.
    Full,
}

impl Flights {
    /// At most so many copies and bytes; a quarter of each for one session, and once half of either is taken no more than
    /// an equal part of it, or a few that send as fast as they can would keep out all others.
    pub(super) fn new(copies: usize, bytes: usize) -> Flights {
        Flights {
            by_id: BTreeMap::new(),
            by_token: BTreeMap::new(),
            total: Load::default(),
            by_session: BTreeMap::new(),
            next_token: 0,
            max: Load { copies, bytes },
        }
    }

    pub(super) fn contains(&self, id: &MessageId) -> bool {
        self.by_id.contains_key(id)
    }

    /// What is being checked.
    pub(super) fn ids(&self) -> impl Iterator<Item = &MessageId> {
        self.by_id.keys()
    }

    /// Starts the check of a message that is not in flight: the token of the check, or nothing if there is
    /// no room.
    pub(super) fn start(&mut self, id: MessageId, candidate: Candidate) -> Option<u64> {
        self.charge(&candidate).then(|| self.check(id, candidate, VecDeque::new()))
    }

    /// Adds a copy of a message that is in flight.
    pub(super) fn join(&mut self, id: &MessageId, candidate: Candidate) -> Joined {
        let Some(flight) = self.by_id.get_mut(id) else { return Joined::Full };
        let copies = std::iter::once(&mut flight.checking).chain(&mut flight.waiting);
        for copy in copies {
            if copy.fingerprint == candidate.fingerprint {
                for sender in candidate.senders {
                    if !copy.senders.contains(&sender) {
                        copy.senders.push(sender);
                    }
                }
                return Joined::Known;
            }
        }
        // One place a peer, or a forger could take them all and keep the true copy out.
        let has_place = flight.waiting.iter().any(|copy| copy.senders.first() == candidate.senders.first());
        if has_place || flight.waiting.len() >= MAX_WAITING || !self.charge(&candidate) {
            return Joined::Full;
        }
        if let Some(flight) = self.by_id.get_mut(id) {
            flight.waiting.push_back(candidate);
        }
        Joined::Waits
    }

    /// The check of this token is done: the message and the copy that was checked. If it failed, the next
    /// copy is to be checked, with the token that comes third.
    pub(super) fn checked(&mut self, token: u64, ok: bool) -> Option<(MessageId, Candidate, Option<u64>)> {
        let id = self.by_token.remove(&token)?;
        let mut flight = self.by_id.remove(&id)?;
        self.discharge(&flight.checking);
        if ok {
            flight.waiting.drain(..).for_each(|copy| self.discharge(&copy));
        }
        let next = flight.waiting.pop_front().map(|next| self.check(id, next, flight.waiting));
        Some((id, flight.checking, next))
    }

    /// The copy being checked under a token.
    pub(super) fn checking(&self, token: u64) -> Option<(&MessageId, &Candidate)> {
        let id = self.by_token.get(&token)?;
        self.by_id.get(id).map(|flight| (id, &flight.checking))
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    fn check(&mut self, id: MessageId, checking: Candidate, waiting: VecDeque<Candidate>) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.by_token.insert(token, id);
        self.by_id.insert(id, Flight { checking, waiting });
        token
    }

    fn charge(&mut self, candidate: &Candidate) -> bool {
        let Some(session) = candidate.senders.first() else { return false };
        let bytes = candidate.parcel.bytes.len();
        let load = self.by_session.get(session).copied().unwrap_or_default();
        let fits = self.total.copies < self.max.copies
            && self.total.bytes + bytes <= self.max.bytes
            && load.copies < self.max.copies / 4
            && load.bytes + bytes <= self.max.bytes / 4
            && self.is_fair(load, bytes);
        if fits {
            self.by_session.insert(*session, Load { copies: load.copies + 1, bytes: load.bytes + bytes });
            self.total.copies += 1;
            self.total.bytes += bytes;
        }
        fits
    }

    /// Whether a session with this load may have a copy of so many bytes besides. One that has none may have one, however
    /// large, as far as there is room.
    fn is_fair(&self, load: Load, bytes: usize) -> bool {
        let scarce = self.total.copies >= self.max.copies / 2 || self.total.bytes + bytes > self.max.bytes / 2;
        // And one that may come.
        let sessions = self.by_session.len() + 1;
        !scarce
            || load.copies == 0
            || (load.copies < self.max.copies / sessions && load.bytes + bytes <= self.max.bytes / sessions)
    }

    fn discharge(&mut self, candidate: &Candidate) {
        let bytes = candidate.parcel.bytes.len();
        self.total.copies -= 1;
        self.total.bytes -= bytes;
        if let Some(session) = candidate.senders.first()
            && let Some(load) = self.by_session.get_mut(session)
        {
            load.copies -= 1;
            load.bytes -= bytes;
            if load.copies == 0 {
                self.by_session.remove(session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Topic;

    fn candidate(session: u64, fingerprint: u8, len: usize) -> Candidate {
        Candidate {
            parcel: Parcel::new(Topic::new("t").expect("short"), None, &vec![0; len]),
            fingerprint: Fingerprint([fingerprint; 32]),
            from: NodeId::from_bytes([0; 32]),
            senders: vec![SessionId(session)],
            logged: false,
        }
    }

    fn id(n: u8) -> MessageId {
        MessageId([n; 32])
    }

    fn assert_empty(flights: &Flights) {
        assert!(flights.by_id.is_empty() && flights.by_token.is_empty() && flights.by_session.is_empty());
        assert_eq!((flights.total.copies, flights.total.bytes), (0, 0));
    }

    #[test]
    fn copies_are_checked_one_after_the_other_until_one_holds() {
        let mut flights = Flights::new(100, 10_000);
        let first = flights.start(id(1), candidate(1, 1, 9)).expect("room");
        assert_eq!(flights.join(&id(1), candidate(2, 1, 9)), Joined::Known);
        assert_eq!(flights.join(&id(1), candidate(3, 2, 9)), Joined::Waits);
        assert_eq!(flights.join(&id(1), candidate(4, 3, 9)), Joined::Waits);
        let (_, failed, next) = flights.checked(first, false).expect("in flight");
        assert_eq!(failed.senders, [SessionId(1), SessionId(2)]);
        assert!(flights.checked(first, true).is_none(), "a token is good for one answer");
        let (_, held, next) = flights.checked(next.expect("two wait"), true).expect("in flight");
        assert_eq!((held.fingerprint, next), (Fingerprint([2; 32]), None));
        assert_empty(&flights);
    }

    #[test]
    fn one_session_gets_a_quarter_of_the_copies_and_of_the_bytes() {
        let mut flights = Flights::new(8, 4_000);
        let tokens: Vec<_> = (0..4).filter_map(|n| flights.start(id(n), candidate(1, n, 1))).collect();
        assert_eq!(tokens.len(), 2);
        assert!(flights.start(id(9), candidate(2, 9, 1_000)).is_none(), "over a quarter of the bytes");
        assert!(flights.start(id(9), candidate(2, 9, 900)).is_some());
        for token in 0..3 {
            flights.checked(token, true);
        }
        assert_empty(&flights);
    }

    #[test]
    fn many_that_send_as_fast_as_they_can_leave_room_for_one_that_sends_little() {
        for (len, most) in [(1, 64), (900, 8)] {
            let mut flights = Flights::new(64, 8_000);
            let mut started: Vec<u64> = Vec::new();
            for n in 0..30 {
                for session in 1..=8 {
                    started.extend(flights.start(id(8 * n + session as u8), candidate(session, n, len)));
                }
                assert!(started.len() <= most);
                // The honest one has a message under way now and then, and no two.
                let token = flights.start(id(255), candidate(9, n, 1));
                flights.checked(token.expect("room, however many the others send"), true);
                let first = started.remove(0);
                flights.checked(first, true);
            }
            for token in started {
                flights.checked(token, true);
            }
            assert_empty(&flights);
        }
    }

    #[test]
    fn a_forger_takes_one_place_of_those_that_wait() {
        let mut flights = Flights::new(1_000, 100_000);
        flights.start(id(1), candidate(1, 0, 9)).expect("room");
        assert_eq!(flights.join(&id(1), candidate(1, 1, 9)), Joined::Waits);
        for n in 2..50 {
            assert_eq!(flights.join(&id(1), candidate(1, n, 9)), Joined::Full);
        }
        assert_eq!(flights.join(&id(1), candidate(2, 99, 9)), Joined::Waits, "the true copy of another peer");
    }
}
