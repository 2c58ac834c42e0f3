//! Which links get a message at once: those whose peer mostly gets such messages from nobody else.
//!
//! A message that came from one neighbour reaches certain others sooner by this node, and the rest sooner by somebody
//! else; which ones depends little on the message and much on the way it came. So each link keeps, for each neighbour
//! that messages come from, the share of those that were the first of their kind at its peer. The peer says which were
//! first ([`Item::Firsts`](crate::wire::Item)): one short name a message in the whole network, as each has one first
//! sender at each node. Where the share is small the link is *lazy* for that way: the message is announced a moment
//! later, and asked for by a peer that still lacks it. The mesh keeps its degree, and with it what makes it hard to cut.
//!
//! Who says that nothing was new gets less, late, and hurts itself; who says that all was new gets what any peer of
//! gossipsub gets.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::time::Duration;

use super::cache::Slots;
use crate::message::Topic;

/// Shares are in parts of this.
const WHOLE: u16 = u16::MAX;
/// From this share on a link is eager. A model of 1,000 nodes that keep half of 8 links to near peers: at 10 % 2.5 copies of
/// each message, at 15 % 2.1 and 4 % more time to all but one in a hundred, at 20 % 1.8 and another 6 %.
const EAGER: u16 = (WHOLE as u32 * 30 / 100) as u16;
/// What is taken for the share of a way that nothing is known of, at least: one copy that is not needed, and it is lazy. At
/// most it is what the link is worth for all ways together.
const UNKNOWN: u16 = (WHOLE as u32 * 34 / 100) as u16;
/// A link that is worth less than this for all ways together is not tried for one more…
const POOR: u16 = (WHOLE as u32 * 14 / 100) as u16;
/// …but eager for it from the first message on that would have been right.
const UNTRIED: u16 = (WHOLE as u32 * 28 / 100) as u16;
/// Messages of one peer after which it is told of them, if that is before the heartbeat.
const REPORT: usize = 16;
/// Messages whose first sender is not told yet, remembered for each peer.
const MAX_PENDING: usize = 1024;
/// Copies that come within this time of each other are as good as each other.
pub(super) const CLOSE: Duration = Duration::from_millis(10);
/// What a message may wait in queues and for its check.
const SLACK: Duration = Duration::from_millis(100);
/// The round trip to a peer that has not been measured.
pub(super) const FAR: Duration = Duration::from_millis(400);
/// A peer that has not told by then does not.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a message came from: a peer's slot, or nobody's for a node's own.
pub(super) type Way = Option<usize>;
/// The way of what came from its publisher itself, whichever peer that is, or from a peer that is gone. A publisher sends
/// to all of its peers, and they all get it at once; what is learnt of one such message holds for those of others, and
/// each publishes too seldom to learn from.
pub(super) const FIRST_HOP: Way = Some(usize::MAX);

/// The shares of one link, by where messages come from.
#[derive(Clone, Debug)]
pub(super) struct Ways {
    /// By slot; there are many, so they are small.
    by_way: Vec<(u32, u16)>,
    /// Of all ways together.
    all: u16,
}

impl Default for Ways {
    fn default() -> Ways {
        Ways { by_way: Vec::new(), all: UNKNOWN }
    }
}

impl Ways {
    /// Whether messages that come this way are for this link at once.
    pub(super) fn eager(&self, way: Way) -> bool {
        self.share(way) >= EAGER
    }

    fn share(&self, way: Way) -> u16 {
        let known = self.by_way.iter().find(|(known, _)| *known == short(way));
        let unknown = if self.all < POOR { UNTRIED } else { self.all.max(UNKNOWN) };
        known.map_or(unknown, |(_, share)| *share)
    }

    /// A message that came this way was, or was not, the first of its kind at the link's peer.
    pub(super) fn learn(&mut self, way: Way, first: bool) {
        // An eighth of the way there: one first of eight makes a link eager again that never was of use.
        let share = towards(self.share(way), first, 8);
        self.all = towards(self.all, first, 16);
        self.set(way, share);
    }

    /// All messages that come this way go out at once from now on, or none do.
    pub(super) fn decide(&mut self, way: Way, eager: bool) {
        self.set(way, if eager { WHOLE } else { 0 });
    }

    fn set(&mut self, way: Way, share: u16) {
        match self.by_way.iter_mut().find(|(known, _)| *known == short(way)) {
            Some((_, known)) => *known = share,
            None => self.by_way.push((short(way), share)),
        }
    }

    /// The peer of a slot is gone, and another one may get it.
    pub(super) fn forget(&mut self, slot: usize) {
        self.by_way.retain(|(way, _)| *way != short(Some(slot)));
    }
}

/// A slot as it is kept. No node has four billion peers; [`FIRST_HOP`] has the last number.
fn short(way: Way) -> u32 {
    way.and_then(|slot| u32::try_from(slot).ok()).unwrap_or(u32::MAX)
}

fn towards(share: u16, first: bool, part: u16) -> u16 {
    if first { share + (WHOLE - share) / part } else { share - share.div_ceil(part) }
}

/// A message that a peer was sent.
#[derive(Debug)]
struct Pushed {
    at: Duration,
    head: u64,
    way: Way,
    topic: Topic,
}

/// Whether what a peer was sent was the first of its kind there.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) topic: Topic,
    pub(super) way: Way,
    pub(super) first: bool,
}

/// What is told, both ways, of which messages were first.
#[derive(Debug, Default)]
pub(super) struct Firsts {
    /// Sent to the peer, oldest first.
    pending: VecDeque<Pushed>,
    /// When it told last.
    told_at: Option<Duration>,
    /// Heads of the messages that came from it first, to be told.
    owed: Vec<u64>,
    /// Messages that came from it since it was told last, first or not.
    came: usize,
    /// How many were first of late; see [`CLOSE`].
    credit: u32,
}

impl Firsts {
    /// The peer was sent a message.
    pub(super) fn pushed(&mut self, at: Duration, head: u64, way: Way, topic: Topic) {
        if self.pending.len() == MAX_PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back(Pushed { at, head, way, topic });
    }

    /// The peer sent a message. Answers whether it is worth telling it now; else it is told at the heartbeat.
    pub(super) fn came(&mut self, head: u64, first: bool) -> bool {
        self.came += 1;
        if first {
            self.credit(head);
        }
        self.came >= REPORT
    }

    fn credit(&mut self, head: u64) {
        if self.owed.len() < crate::wire::MAX_IDS {
            self.owed.push(head);
        }
        self.credit = self.credit.saturating_add(16);
    }

    /// The peer's copy came a moment after that of `first`, which most messages come from later: who was first is taken
    /// for the one that mostly is, so that of two that are equally good one becomes lazy.
    pub(super) fn overtakes(&mut self, first: &mut Firsts, head: u64) {
        if self.credit > first.credit
            && let Some(at) = first.owed.iter().rposition(|owed| *owed == head)
        {
            first.owed.swap_remove(at);
            first.credit = first.credit.saturating_sub(16);
            self.credit(head);
        }
    }

    /// A heartbeat has passed.
    pub(super) fn fade(&mut self) {
        self.credit -= self.credit / 8;
    }

    /// Whether it is to be told something, if only that nothing was first.
    pub(super) fn owes(&self) -> bool {
        self.came > 0
    }

    /// What the peer is to be told now, if anything.
    pub(super) fn take_owed(&mut self) -> Option<Vec<u64>> {
        (std::mem::take(&mut self.came) > 0).then(|| std::mem::take(&mut self.owed))
    }

    /// The peer told which were first. What it has not named was not, if it must have had it when it wrote this: if it was
    /// sent to it a round trip ago, and before it told last.
    pub(super) fn told(&mut self, now: Duration, heads: &[u64], round_trip: Duration) -> Vec<Told> {
        let before = self.told_at.replace(now).unwrap_or_default().min(now.saturating_sub(round_trip + SLACK));
        let named: BTreeSet<u64> = heads.iter().copied().collect();
        self.settle(|pushed| match named.contains(&pushed.head) {
            true => Some(true),
            false => (pushed.at <= before).then_some(false),
        })
    }

    /// What the peer should have told of by now: as if none had been first.
    pub(super) fn overdue(&mut self, now: Duration) -> Vec<Told> {
        let late = |pushed: &Pushed| now.saturating_sub(pushed.at) > PATIENCE;
        if self.pending.front().is_none_or(|oldest| !late(oldest)) {
            return Vec::new();
        }
        self.settle(|pushed| late(pushed).then_some(false))
    }

    fn settle(&mut self, verdict: impl Fn(&Pushed) -> Option<bool>) -> Vec<Told> {
        let mut settled = Vec::new();
        self.pending.retain(|pushed| match verdict(pushed) {
            Some(first) => {
                settled.push(Told { topic: pushed.topic.clone(), way: pushed.way, first });
                false
            }
            None => true,
        });
        // Most peers are sent little: what they do not need is not kept for them.
        if self.pending.is_empty() {
            self.pending = VecDeque::new();
        }
        settled
    }
}

/// Who gets a message, and how.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// At once.
    pub(super) to: Vec<peerage_queue::SessionId>,
    /// Their slots.
    pub(super) told: Slots,
    /// Others are to be told of it in a moment.
    pub(super) lazy: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAY: Way = Some(3);

    fn topic() -> Topic {
        Topic::new("t").expect("short")
    }

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_link_turns_lazy_for_a_way_and_not_for_others_and_back() {
        let mut ways = Ways::default();
        assert!(ways.eager(WAY), "a new link is worth a try");
        (0..9).for_each(|_| ways.learn(WAY, true));
        let copies = (1..100).find(|_| {
            ways.learn(WAY, false);
            !ways.eager(WAY)
        });
        assert_eq!(copies, Some(8));
        assert!(ways.eager(Some(4)) && ways.eager(None), "other ways");
        ways.learn(Some(5), false);
        ways.learn(Some(5), false);
        assert!(!ways.eager(Some(5)), "a way that is tried first need not fail often");
        let firsts = (1..100).find(|_| {
            ways.learn(WAY, true);
            ways.eager(WAY)
        });
        assert_eq!(firsts, Some(1));
        (0..100).for_each(|_| ways.learn(WAY, false));
        let firsts = (1..100).find(|_| {
            ways.learn(WAY, true);
            ways.eager(WAY)
        });
        assert_eq!(firsts, Some(3));
        (0..100).for_each(|_| ways.learn(WAY, false));
        ways.decide(None, true);
        assert!(!ways.eager(WAY) && ways.eager(None));
    }

    #[test]
    fn a_link_that_is_good_for_nothing_is_not_tried_for_every_way() {
        let (mut ways, mut fresh) = (Ways::default(), Ways::default());
        let tried = (0..100).filter(|way| {
            let eager = ways.eager(Some(*way));
            ways.learn(Some(*way), false);
            eager
        });
        assert_eq!(tried.count(), 14);
        ways.learn(Some(200), true);
        assert!(ways.eager(Some(200)) && !ways.eager(Some(201)), "once it would have been right it is right");
        fresh.learn(WAY, false);
        assert!(!fresh.eager(WAY));
        fresh.forget(3);
        assert!(fresh.eager(WAY), "another peer's slot now");
    }

    #[test]
    fn what_was_not_named_twice_was_not_first() {
        let mut firsts = Firsts::default();
        firsts.pushed(second(1), 1, WAY, topic());
        firsts.pushed(second(1), 2, None, topic());
        let told = firsts.told(second(2), &[2, 99], second(0));
        assert_eq!(told.len(), 1, "the other one may be under way");
        assert!(told[0].first && told[0].way.is_none());
        firsts.pushed(second(3), 3, WAY, topic());
        let told = firsts.told(second(4), &[], second(0));
        assert_eq!(told.len(), 1);
        assert!(!told[0].first && told[0].way == WAY);
        assert_eq!(firsts.told(second(5), &[], second(2)).len(), 0, "the peer is too far to have had it");
        assert_eq!(firsts.overdue(second(8)).len(), 0);
        assert_eq!(firsts.overdue(second(9)).len(), 1, "who never tells is not sent more for it");
        assert!(firsts.pending.is_empty());
    }

    #[test]
    fn of_two_that_are_equally_good_one_is_credited() {
        let (mut one, mut other) = (Firsts::default(), Firsts::default());
        for head in 0..3 {
            one.came(head, true);
        }
        other.came(9, true);
        one.came(9, false);
        one.overtakes(&mut other, 9);
        assert_eq!((one.take_owed(), other.take_owed()), (Some(vec![0, 1, 2, 9]), Some(vec![])));
        one.came(10, true);
        other.came(10, false);
        other.overtakes(&mut one, 10);
        assert_eq!(one.take_owed(), Some(vec![10]), "the one that mostly is first stays so");
        other.came(11, true);
        assert_eq!(other.take_owed(), Some(vec![11]));
        one.overtakes(&mut other, 11);
        assert_eq!(one.take_owed(), None, "what was told is told");
        (0..100).for_each(|_| one.fade());
        assert!(one.credit < 8);
    }

    #[test]
    fn a_peer_is_told_when_it_sent_something_and_never_too_much_is_kept() {
        let mut firsts = Firsts::default();
        assert_eq!(firsts.take_owed(), None);
        assert!(!firsts.came(1, false));
        assert_eq!(firsts.take_owed(), Some(vec![]));
        let told = (0..10_000).filter(|head| firsts.came(*head, true)).count();
        assert_eq!(told, 10_000 - (REPORT - 1));
        assert_eq!(firsts.take_owed().map(|owed| owed.len()), Some(crate::wire::MAX_IDS));
        assert_eq!(firsts.take_owed(), None);
        (0..10_000).for_each(|head| firsts.pushed(second(1), head, WAY, topic()));
        assert_eq!(firsts.pending.len(), MAX_PENDING);
    }
}
