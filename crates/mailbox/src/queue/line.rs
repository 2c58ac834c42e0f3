//! In which order items leave a queue.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt;

use super::Item;

/// What handling an item costs besides its weight, in the weight's unit: a flood of empty messages has its price.
const OVERHEAD: u64 = 128;

/// Sources that are remembered before those that owe nothing are forgotten.
const REMEMBERED: usize = 64;

/// Items one after the other, and beside them those that have a [source](Item::source), by start-time fair queueing
/// (Goyal, Vin, Cheng: "Start-time Fair Queuing", 1996): a source's next item has its turn when what the source sent
/// before has been paid for, in weight, by as much of each other source that waits. So a source alone has all of the
/// consumer, two that never stop have half each, and one that sends little waits for about an item of each other.
pub struct Line<T> {
    plain: VecDeque<T>,
    sources: BTreeMap<u64, Source<T>>,
    /// The sources whose turn may come, the next one first.
    turns: BinaryHeap<Reverse<Turn>>,
    /// Those that had nothing here before, until the consumer [calls](Line::call) them.
    newcomers: Vec<u64>,
    /// Of all sources.
    fair: usize,
    /// When the turn of the item that went last began, and when the last of all turns so far is over.
    now: u64,
    over: u64,
    /// Of turns made.
    made: u64,
    /// How many sources make it worth looking for those that need not be remembered.
    remembered: usize,
}

struct Source<T> {
    items: VecDeque<T>,
    /// When its next item's turn begins, at the earliest.
    next: u64,
    /// Which of [`Line::turns`] is its own: it may have left others behind.
    turn: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    begins: u64,
    made: u64,
    source: u64,
}

impl<T: Item> Line<T> {
    /// Without items.
    pub fn new() -> Line<T> {
        Line {
            plain: VecDeque::new(),
            sources: BTreeMap::new(),
            turns: BinaryHeap::new(),
            newcomers: Vec::new(),
            fair: 0,
            now: 0,
            over: 0,
            made: 0,
            remembered: REMEMBERED,
        }
    }

    /// Items that are here.
    pub fn len(&self) -> usize {
        self.plain.len() + self.fair
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, in no order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.plain.iter_mut().chain(self.sources.values_mut().flat_map(|source| source.items.iter_mut()))
    }

    /// Adds one. What is too much is for whoever calls to say.
    pub fn push(&mut self, item: T) {
        let Some(key) = item.source() else { return self.plain.push_back(item) };
        self.forget();
        let source = self.sources.entry(key).or_insert_with(Source::new);
        if source.items.is_empty() {
            self.newcomers.push(key);
        }
        source.items.push_back(item);
        self.fair += 1;
    }

    /// The next item; of the sources that were [called](Line::call) as long as there is one.
    pub fn pop(&mut self) -> Option<T> {
        if self.plain.is_empty() && self.fair > 0 {
            return self.pop_called().or_else(|| {
                self.call();
                self.pop_called()
            });
        }
        self.plain.pop_front()
    }

    /// Lets the sources that have come since the last call have their turns.
    pub fn call(&mut self) {
        for key in std::mem::take(&mut self.newcomers) {
            let Some(source) = self.sources.get_mut(&key) else { continue };
            if source.turn.is_none() && !source.items.is_empty() {
                let begins = source.next.max(self.now);
                self.made += 1;
                source.turn = Some(self.made);
                self.turns.push(Reverse(Turn { begins, made: self.made, source: key }));
            }
        }
    }

    /// The next item of the sources that were called.
    pub fn pop_called(&mut self) -> Option<T> {
        if !self.plain.is_empty() {
            return self.plain.pop_front();
        }
        while let Some(Reverse(turn)) = self.turns.pop() {
            let Some(source) = self.sources.get_mut(&turn.source) else { continue };
            if source.turn != Some(turn.made) {
                continue;
            }
            source.turn = None;
            let Some(item) = source.items.pop_front() else { continue };
            self.fair -= 1;
            self.now = turn.begins;
            source.next = turn.begins + OVERHEAD + item.weight() as u64;
            self.over = self.over.max(source.next);
            if source.items.is_empty() {
                source.rest();
            } else {
                self.made += 1;
                source.turn = Some(self.made);
                self.turns.push(Reverse(Turn { begins: source.next, made: self.made, source: turn.source }));
            }
            self.settle();
            return Some(item);
        }
        None
    }

    /// The next item of this source, out of turn.
    pub fn pop_of(&mut self, key: u64) -> Option<T> {
        let source = self.sources.get_mut(&key)?;
        let item = source.items.pop_front()?;
        self.fair -= 1;
        if source.items.is_empty() {
            source.turn = None;
            source.rest();
        }
        self.settle();
        Some(item)
    }

    /// Nobody waits, so nobody owes anything.
    fn settle(&mut self) {
        if self.fair == 0 {
            self.now = self.over;
            self.turns.clear();
            self.newcomers.clear();
        }
    }

    /// Forgets sources that have nothing here and owe nothing, once there are many.
    fn forget(&mut self) {
        if self.sources.len() >= self.remembered {
            let now = self.now;
            self.sources.retain(|_, source| !source.items.is_empty() || source.next > now);
            self.remembered = REMEMBERED.max(2 * self.sources.len());
        }
    }
}

impl<T: Item> Default for Line<T> {
    fn default() -> Self {
        Line::new()
    }
}

impl<T: Item> fmt::Debug for Line<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({})", self.len())
    }
}

impl<T> Source<T> {
    fn new() -> Source<T> {
        Source { items: VecDeque::new(), next: 0, turn: None }
    }

    /// Gives back what a burst took.
    fn rest(&mut self) {
        if self.items.capacity() > 16 {
            self.items = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sent where, which, and how heavy.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Sent(u64, u32, usize);

    impl Item for Sent {
        fn weight(&self) -> usize {
            self.2
        }

        fn source(&self) -> Option<u64> {
            (self.0 > 0).then_some(self.0)
        }
    }

    fn line(items: impl IntoIterator<Item = Sent>) -> Line<Sent> {
        let mut line = Line::new();
        items.into_iter().for_each(|item| line.push(item));
        line
    }

    fn left(line: &mut Line<Sent>) -> Vec<Sent> {
        std::iter::from_fn(|| line.pop()).collect()
    }

    #[test]
    fn items_of_no_source_and_of_one_leave_as_they_came() {
        for source in [0, 1] {
            let came: Vec<Sent> = (0..100).map(|which| Sent(source, which, 1_000 - which as usize)).collect();
            assert_eq!(left(&mut line(came.clone())), came);
        }
    }

    #[test]
    fn who_sends_little_waits_for_an_item_of_each_other() {
        let flood = (0..1_000).flat_map(|which| (1..=3).map(move |source| Sent(source, which, 500)));
        let mut line = line(flood);
        for _ in 0..100 {
            line.pop();
        }
        line.push(Sent(9, 0, 500));
        line.call();
        let before = (0..).take_while(|_| line.pop().is_some_and(|item| item.0 != 9)).count();
        assert!(before <= 3, "{before}");
        assert_eq!(line.len(), 3_000 - 100 - before);
    }

    #[test]
    fn heavy_items_and_many_light_ones_have_the_same_of_the_consumer() {
        let heavy = (0..100).map(|which| Sent(1, which, 100_000 - OVERHEAD as usize));
        let light = (0..100_000).map(|which| Sent(2, which, 1_000 - OVERHEAD as usize));
        let mut line = line(heavy.chain(light));
        let half = std::iter::from_fn(|| line.pop()).take(5_050);
        let of_heavy = half.filter(|item| item.0 == 1).count();
        assert!((49..=51).contains(&of_heavy), "{of_heavy} of 50");
    }

    #[test]
    fn one_item_at_a_time_gets_nobody_before_the_others() {
        let mut line = line((0..100).map(|which| Sent(1, which, 100)));
        line.push(Sent(2, 0, 100));
        let mut of_other = 0;
        for _ in 0..50 {
            // As soon as its item is taken, the next one is there.
            if line.pop().is_some_and(|item| item.0 == 2) {
                of_other += 1;
                line.push(Sent(2, of_other, 100));
                line.call();
            }
        }
        assert!((24..=26).contains(&of_other), "{of_other} of 25");
    }

    #[test]
    fn sources_that_come_after_a_call_wait_for_the_next() {
        let mut line = line([Sent(1, 0, 900), Sent(1, 1, 900)]);
        line.call();
        line.push(Sent(2, 0, 1));
        assert_eq!(line.pop_called(), Some(Sent(1, 0, 900)));
        assert_eq!(line.pop_called(), Some(Sent(1, 1, 900)));
        assert_eq!(line.pop_called(), None);
        assert_eq!(line.pop(), Some(Sent(2, 0, 1)), "who asks for any gets it");
    }

    #[test]
    fn a_source_may_be_emptied_out_of_turn_and_come_back() {
        let mut line = line((0..4).flat_map(|which| [Sent(1, which, 10), Sent(2, which, 10)]));
        line.call();
        assert_eq!(line.pop_of(7), None);
        let of_one: Vec<_> = std::iter::from_fn(|| line.pop_of(1)).map(|item| item.1).collect();
        assert_eq!(of_one, [0, 1, 2, 3]);
        line.push(Sent(1, 4, 10));
        line.push(Sent(1, 5, 10));
        line.call();
        let rest = left(&mut line);
        assert_eq!((rest.len(), line.len()), (6, 0));
        let of = |source| rest.iter().filter(|item| item.0 == source).map(|item| item.1).collect::<Vec<_>>();
        assert_eq!((of(1), of(2)), (vec![4, 5], vec![0, 1, 2, 3]), "each once, in its order");
    }

    #[test]
    fn sources_that_are_gone_are_forgotten() {
        let mut line = Line::new();
        for source in 1..100_000 {
            line.push(Sent(source, 0, 1));
            assert_eq!(line.pop(), Some(Sent(source, 0, 1)));
        }
        assert!(line.sources.len() <= REMEMBERED, "{}", line.sources.len());
        assert!(line.turns.len() <= 1 && line.newcomers.is_empty());
    }

    #[test]
    fn what_comes_and_goes_at_random_leaves_once_and_in_its_sources_order() {
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let (mut line, mut sent, mut got) = (Line::new(), [0_u32; 8], [0_u32; 8]);
        for _ in 0..100_000 {
            let source = next(8);
            let popped = match next(6) {
                0..=2 => {
                    line.push(Sent(source, sent[source as usize], next(5_000) as usize));
                    sent[source as usize] += 1;
                    None
                }
                3 => line.pop(),
                4 => {
                    line.call();
                    line.pop_called()
                }
                _ => line.pop_of(source),
            };
            if let Some(Sent(source, which, _)) = popped {
                assert_eq!(which, got[source as usize]);
                got[source as usize] += 1;
            }
            assert_eq!(line.len() as u32, sent.iter().sum::<u32>() - got.iter().sum::<u32>());
        }
        for Sent(source, which, _) in left(&mut line) {
            assert_eq!(which, got[source as usize]);
            got[source as usize] += 1;
        }
        assert_eq!(sent, got);
    }
}
