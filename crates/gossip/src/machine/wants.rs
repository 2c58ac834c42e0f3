//! Announced messages that are not here yet: each is asked of one peer at a time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use peerage_machine::Time;
use peerage_queue::SessionId;

use crate::message::MessageId;

/// Peers noted for one message, beyond which another would not help.
const MAX_ADVERTISERS: usize = 8;
/// How often each of them is asked: a request, or its answer, may be lost.
const MAX_TRIES: u8 = 3;

#[derive(Debug)]
struct Want {
    /// The first is the one that was or will be asked. With each, how often it was asked in vain.
    advertisers: VecDeque<(SessionId, u8)>,
    asked: bool,
    due: Time,
}

impl Want {
    fn names(&self, session: SessionId) -> bool {
        self.advertisers.iter().any(|(advertiser, _)| *advertiser == session)
    }
}

/// What became of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    /// Ask this peer.
    Ask,
    /// Its turn may come later.
    Noted,
    /// This peer already owes as much as it may.
    Full,
}

#[derive(Debug)]
pub(super) struct Wants {
    by_id: BTreeMap<MessageId, Want>,
    /// Deadlines in order, as all have the same length. One that does not agree with its want is old.
    queue: VecDeque<(Time, MessageId)>,
    by_session: BTreeMap<SessionId, usize>,
    timeout: Duration,
    max_per_peer: usize,
}

/// What is to be asked of whom.
pub(super) type Asks = BTreeMap<SessionId, Vec<MessageId>>;

impl Wants {
    pub(super) fn new(timeout: Duration, max_per_peer: usize) -> Wants {
        let (by_id, queue, by_session) = (BTreeMap::new(), VecDeque::new(), BTreeMap::new());
        Wants { by_id, queue, by_session, timeout, max_per_peer }
    }

    /// A peer announced a message that is not here. A message that is being checked is not asked for yet.
    pub(super) fn announced(&mut self, now: Time, id: MessageId, session: SessionId, checked: bool) -> Announced {
        let load = self.by_session.get(&session).copied().unwrap_or_default();
        if load >= self.max_per_peer {
            return Announced::Full;
        }
        match self.by_id.get_mut(&id) {
            Some(want) => {
                if want.names(session) {
                    return Announced::Noted;
                }
                // Who was asked in vain most often makes room, and who was never asked comes next: else the first
                // few to announce a message could keep it from us by never sending it.
                let full = want.advertisers.len() >= MAX_ADVERTISERS;
                let waiting = want.advertisers.iter().enumerate().skip(usize::from(want.asked));
                let worst = waiting.max_by_key(|(_, (_, tries))| *tries).filter(|(_, (_, tries))| *tries > 0);
                let displaced = match worst {
                    Some((position, _)) if full => want.advertisers.remove(position),
                    _ if full => return Announced::Noted,
                    _ => None,
                };
                let untried = want.advertisers.iter().skip(usize::from(want.asked)).position(|(_, tries)| *tries > 0);
                let position = untried.map_or(want.advertisers.len(), |at| at + usize::from(want.asked));
                want.advertisers.insert(position, (session, 0));
                self.by_session.insert(session, load + 1);
                if let Some((displaced, _)) = displaced {
                    self.discharge(displaced);
                }
                Announced::Noted
            }
            None => {
                self.by_session.insert(session, load + 1);
                let due = now + self.timeout;
                self.by_id.insert(id, Want { advertisers: VecDeque::from([(session, 0)]), asked: !checked, due });
                self.queue.push_back((due, id));
                if checked { Announced::Noted } else { Announced::Ask }
            }
        }
    }

    /// The message is here, or is not wanted after all: who announced it.
    pub(super) fn settle(&mut self, id: &MessageId) -> Vec<SessionId> {
        let Some(want) = self.by_id.remove(id) else { return Vec::new() };
        let sessions: Vec<SessionId> = want.advertisers.into_iter().map(|(session, _)| session).collect();
        sessions.iter().for_each(|session| self.discharge(*session));
        sessions
    }

    /// The copy that came was no good, or none came: asks the next peer. Answers who had been asked.
    pub(super) fn next(&mut self, now: Time, id: MessageId, asks: &mut Asks) -> Option<SessionId> {
        let want = self.by_id.get_mut(&id)?;
        let asked = if std::mem::replace(&mut want.asked, true) { want.advertisers.pop_front() } else { None };
        let mut given_up = None;
        match asked {
            Some((session, tries)) if tries + 1 < MAX_TRIES => want.advertisers.push_back((session, tries + 1)),
            Some((session, _)) => given_up = Some(session),
            None => {}
        }
        match want.advertisers.front() {
            Some((session, _)) => {
                want.due = now + self.timeout;
                self.queue.push_back((want.due, id));
                asks.entry(*session).or_default().push(id);
            }
            None => drop(self.by_id.remove(&id)),
        }
        if let Some(session) = given_up {
            self.discharge(session);
        }
        asked.map(|(session, _)| session)
    }

    /// The messages that peers failed to send in time.
    pub(super) fn take_overdue(&mut self, now: Time) -> Vec<MessageId> {
        let mut overdue = Vec::new();
        while let Some((due, id)) = self.queue.front().copied()
            && due <= now
        {
            self.queue.pop_front();
            if self.by_id.get(&id).is_some_and(|want| want.due == due) {
                overdue.push(id);
            }
        }
        overdue
    }

    /// Gives a message more time: it is being checked.
    pub(super) fn extend(&mut self, now: Time, id: MessageId) {
        if let Some(want) = self.by_id.get_mut(&id) {
            want.due = now + self.timeout;
            self.queue.push_back((want.due, id));
        }
    }

    /// Forgets a peer, and asks others for what it was asked for.
    pub(super) fn forget(&mut self, now: Time, session: SessionId, asks: &mut Asks) {
        if self.by_session.remove(&session).is_none() {
            return;
        }
        let noted: Vec<MessageId> =
            self.by_id.iter().filter(|(_, want)| want.names(session)).map(|(id, _)| *id).collect();
        for id in noted {
            let Some(want) = self.by_id.get_mut(&id) else { continue };
            let was_asked = want.asked && want.advertisers.front().is_some_and(|(first, _)| *first == session);
            want.advertisers.retain(|(other, _)| *other != session);
            if want.advertisers.is_empty() {
                self.by_id.remove(&id);
            } else if was_asked {
                want.asked = false;
                self.next(now, id, asks);
            }
        }
    }

    /// When [`take_overdue`](Wants::take_overdue) has something to say, at the earliest.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.queue.front().map(|(due, _)| *due)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    fn discharge(&mut self, session: SessionId) {
        if let Some(load) = self.by_session.get_mut(&session) {
            *load -= 1;
            if *load == 0 {
                self.by_session.remove(&session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionId = SessionId(1);
    const TWO: SessionId = SessionId(2);

    fn id(n: u8) -> MessageId {
        MessageId([n; 32])
    }

    fn at(second: u64) -> Time {
        Time::ZERO + Duration::from_secs(second)
    }

    #[test]
    fn one_peer_is_asked_at_a_time_and_the_next_after_the_time_out() {
        let mut wants = Wants::new(Duration::from_secs(2), 10);
        assert_eq!(wants.announced(at(0), id(1), ONE, false), Announced::Ask);
        assert_eq!(wants.announced(at(1), id(1), TWO, false), Announced::Noted);
        assert_eq!(wants.announced(at(1), id(1), TWO, false), Announced::Noted);
        assert_eq!(wants.take_overdue(at(1)), []);
        assert_eq!(wants.take_overdue(at(2)), [id(1)]);
        let mut asks = Asks::new();
        wants.next(at(2), id(1), &mut asks);
        assert_eq!(asks, Asks::from([(TWO, vec![id(1)])]));
        assert_eq!(wants.deadline(), Some(at(4)));
        let mut order = Vec::new();
        for second in [4, 6, 8, 10, 12] {
            let mut asks = Asks::new();
            assert!(wants.next(at(second), id(1), &mut asks).is_some());
            order.extend(asks.into_keys());
        }
        assert_eq!(order, [ONE, TWO, ONE, TWO], "each is asked three times");
        assert!(wants.by_id.is_empty() && wants.by_session.is_empty(), "nobody is left to ask");
    }

    #[test]
    fn who_announced_during_a_check_is_asked_when_it_fails() {
        let mut wants = Wants::new(Duration::from_secs(2), 10);
        assert_eq!(wants.announced(at(0), id(1), ONE, true), Announced::Noted);
        let mut asks = Asks::new();
        assert_eq!(wants.next(at(1), id(1), &mut asks), None, "nobody had been asked");
        assert_eq!(asks, Asks::from([(ONE, vec![id(1)])]));
        assert!((1..=3).all(|n| wants.next(at(1 + 2 * n), id(1), &mut asks) == Some(ONE)));
        assert!(wants.by_id.is_empty() && wants.by_session.is_empty());
    }

    #[test]
    fn what_a_lost_peer_owed_is_asked_of_another() {
        let mut wants = Wants::new(Duration::from_secs(2), 10);
        wants.announced(at(0), id(1), ONE, false);
        wants.announced(at(0), id(1), TWO, false);
        wants.announced(at(0), id(2), ONE, false);
        wants.announced(at(0), id(3), TWO, false);
        wants.announced(at(0), id(3), ONE, false);
        let mut asks = Asks::new();
        wants.forget(at(1), ONE, &mut asks);
        assert_eq!(asks, Asks::from([(TWO, vec![id(1)])]));
        assert_eq!((wants.len(), wants.by_session.get(&TWO)), (2, Some(&2)));
        assert_eq!(wants.settle(&id(3)), [TWO]);
        wants.settle(&id(1));
        assert!(wants.by_session.is_empty());
    }

    #[test]
    fn a_peer_that_promises_everything_is_noted_so_far() {
        let mut wants = Wants::new(Duration::from_secs(2), 3);
        let asked = (0..200).filter(|n| wants.announced(at(0), id(*n), ONE, false) == Announced::Ask).count();
        assert_eq!((asked, wants.len()), (3, 3));
        assert_eq!(wants.announced(at(0), id(250), TWO, false), Announced::Ask, "others are not held up");
    }
}
