//! Who holds how many bytes of a pool, and who waits for more: a machine without lock, clock or task.

use std::collections::BTreeSet;

use crate::PoolConfig;

/// A holder's place in its [`Budget`]. One that has left is known by its generation, and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HolderId {
    pub(crate) index: usize,
    pub(crate) generation: u64,
}

impl HolderId {
    /// The number of its place, small, and taken over by another when it has left.
    #[cfg(feature = "actor")]
    pub(crate) fn index(self) -> usize {
        self.index
    }
}

#[derive(Debug, Default)]
struct Holder {
    generation: u64,
    weight: u64,
    at_large: usize,
    share: usize,
    aside: usize,
    /// Bytes it still waits for; zero when it does not wait.
    wanted: usize,
    /// When its wait began: lower is older.
    ticket: u64,
}

impl Holder {
    fn held(&self) -> usize {
        self.at_large + self.share + self.aside
    }
}

/// Waiters from the oldest, by ticket and index.
type Line = BTreeSet<(u64, usize)>;

/// The part of the pool that bytes are granted from.
#[derive(Clone, Copy)]
enum Part {
    AtLarge,
    Share,
    Aside,
}

/// By part, what is still to come back after it was made smaller.
#[derive(Clone, Copy, Debug, Default)]
struct Owed {
    at_large: usize,
    shared: usize,
    aside: usize,
}

/// Gives bytes back to a part: what it owes first.
fn give(free: &mut usize, owed: &mut usize, bytes: usize) {
    let pays = bytes.min(*owed);
    *owed -= pays;
    *free += bytes - pays;
}

/// Makes a part of `before` bytes one of `after`.
fn resize(free: &mut usize, owed: &mut usize, before: usize, after: usize) {
    let used = before + *owed - *free;
    (*free, *owed) = (after.saturating_sub(used), used.saturating_sub(after));
}

/// The bytes of a pool.
///
/// A holder takes *at large* first, up to its cap, then of its *share*, which is its weight's part of the shared
/// bytes; it gives back in the opposite order, so that its reserve is there again first, for when the bytes at large,
/// for which everybody competes, are gone (`avalanchego network/throttling`).
///
/// Bytes that come free at large go to the oldest waiter that is under its cap, bytes of a share to its owner's
/// waiter. That alone can deadlock: every holder waits with a part of its message and nobody has anything to give
/// back. So some bytes are kept *aside*, on which only the oldest waiter of all may draw, and which are given back
/// before anything else. A waiter that is the oldest stays so until it is served, so nobody else waits with bytes
/// from there; hence a message of at most [`aside`](PoolConfig::aside) bytes is completed as soon as the messages
/// that were completed before it are given back.
///
/// Between any two calls nothing is left that a waiter could have: free bytes at large mean that every waiter is at
/// its cap, and free bytes aside mean that nobody waits.
///
/// Calls that can set bytes free add to `granted` which waiters got how many of them.
#[derive(Debug)]
pub struct Budget {
    config: PoolConfig,
    at_large_free: usize,
    shared_free: usize,
    aside_free: usize,
    /// Bytes that are held beyond a part that was made smaller: what comes back pays for them first.
    owed: Owed,
    /// Bytes at large taken without a holder.
    anonymous: usize,
    total_weight: u128,
    holders: Vec<Holder>,
    vacant: Vec<usize>,
    next_ticket: u64,
    waiters: Line,
    /// Waiters under their cap. Only these are looked at when bytes at large come free: a thousand waiters at their
    /// cap cost nothing.
    under_cap: Line,
    /// Waiters that hold less than their share. They are short of it only as long as another holds more than its
    /// own because weights have changed.
    under_share: Line,
}

impl Budget {
    /// A pool of which nothing is taken.
    pub fn new(config: PoolConfig) -> Budget {
        Budget {
            config,
            at_large_free: config.at_large,
            shared_free: config.shared,
            aside_free: config.aside,
            owed: Owed::default(),
            anonymous: 0,
            total_weight: 0,
            holders: Vec::new(),
            vacant: Vec::new(),
            next_ticket: 0,
            waiters: Line::new(),
            under_cap: Line::new(),
            under_share: Line::new(),
        }
    }

    /// Adds a holder. One without weight has no share.
    pub fn join(&mut self, weight: u64) -> HolderId {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.holders.push(Holder::default());
            self.holders.len() - 1
        });
        self.holders[index].weight = weight;
        self.total_weight += u128::from(weight);
        if weight > 0 {
            self.reweigh();
        }
        HolderId { index, generation: self.holders[index].generation }
    }

    /// Changes a holder's weight, and with it everybody's share. Who holds more than its share by then keeps it, but
    /// cannot take more of it.
    pub fn set_weight(&mut self, holder: HolderId, weight: u64, granted: &mut Vec<(HolderId, usize)>) {
        let Some(index) = self.find(holder) else { return };
        let before = std::mem::replace(&mut self.holders[index].weight, weight);
        if before != weight {
            self.total_weight = self.total_weight - u128::from(before) + u128::from(weight);
            self.place(index);
            self.reweigh();
            self.settle(granted);
        }
    }

    /// Removes a holder. Its wait ends, and all it holds is given back.
    pub fn leave(&mut self, holder: HolderId, granted: &mut Vec<(HolderId, usize)>) {
        let Some(index) = self.find(holder) else { return };
        self.stop_waiting(index);
        let gone = std::mem::take(&mut self.holders[index]);
        self.holders[index].generation = gone.generation + 1;
        self.vacant.push(index);
        self.give_parts(gone.at_large, gone.share, gone.aside);
        self.total_weight -= u128::from(gone.weight);
        if gone.weight > 0 {
            self.reweigh();
        }
        self.settle(granted);
    }

    /// Takes all of `bytes` or nothing, and never waits. Waiters are not overtaken: there is nothing here that they
    /// could have.
    #[must_use]
    pub fn take_all(&mut self, holder: HolderId, bytes: usize) -> bool {
        let Some(index) = self.find(holder) else { return false };
        let at_large = bytes.min(self.room_at_large(index));
        let share = bytes - at_large;
        if share > 0 && share > self.room_in_share(index) {
            return false;
        }
        self.hold(index, at_large, share);
        true
    }

    /// Takes what there is of `bytes` now and says how much; the holder waits for the rest.
    ///
    /// A holder waits for one message at a time, of at most [`aside`](PoolConfig::aside) bytes, and gives back those
    /// it has finished while it waits. A second call before the first was served is the caller's mistake; its bytes
    /// are added to the same wait.
    #[must_use]
    pub fn take(&mut self, holder: HolderId, bytes: usize) -> usize {
        let Some(index) = self.find(holder) else { return 0 };
        if self.holders[index].wanted > 0 {
            self.holders[index].wanted = self.holders[index].wanted.saturating_add(bytes);
            return 0;
        }
        let at_large = bytes.min(self.room_at_large(index));
        let share = (bytes - at_large).min(self.room_in_share(index));
        self.hold(index, at_large, share);
        let rest = bytes - at_large - share;
        if rest == 0 {
            return bytes;
        }
        self.holders[index].wanted = rest;
        self.holders[index].ticket = self.next_ticket;
        self.next_ticket += 1;
        self.place(index);
        // Free bytes aside mean that nobody else waits, so this is the oldest waiter.
        let aside = rest.min(self.aside_free);
        self.grant(index, Part::Aside, aside);
        at_large + share + aside
    }

    /// Stops waiting and says how much was still wanted. What was granted of the message is held until it is given
    /// back, which the caller does at once if it gives the message up. Nobody gets anything by this alone: what the
    /// next waiter could have was free before.
    pub fn cancel(&mut self, holder: HolderId) -> usize {
        self.find(holder).map_or(0, |index| self.stop_waiting(index))
    }

    /// Gives `bytes` back: what was drawn from aside first, then the share, then what was taken at large. More than
    /// the holder has counts as all it has.
    pub fn give_back(&mut self, holder: HolderId, bytes: usize, granted: &mut Vec<(HolderId, usize)>) {
        let Some(index) = self.find(holder) else { return };
        let holder = &mut self.holders[index];
        let aside = bytes.min(holder.aside);
        let share = (bytes - aside).min(holder.share);
        let at_large = (bytes - aside - share).min(holder.at_large);
        holder.aside -= aside;
        holder.share -= share;
        holder.at_large -= at_large;
        let waits = holder.wanted > 0;
        self.give_parts(at_large, share, aside);
        if waits {
            self.place(index);
        }
        self.settle(granted);
    }

    /// Takes all of `bytes` at large or nothing, for a buffer that is nobody's in particular.
    #[must_use]
    pub fn take_at_large(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.at_large_free;
        if fits {
            self.at_large_free -= bytes;
            self.anonymous += bytes;
        }
        fits
    }

    /// Gives back what was [taken at large](Budget::take_at_large).
    pub fn give_at_large(&mut self, bytes: usize, granted: &mut Vec<(HolderId, usize)>) {
        let bytes = bytes.min(self.anonymous);
        self.anonymous -= bytes;
        self.give_parts(bytes, 0, 0);
        self.settle(granted);
    }

    /// Makes the pool larger or smaller. What it grows by is there at once, for those who wait first. What it shrinks by
    /// is taken of what nobody has; the rest when it comes back, and until then nobody gets more of that part.
    pub fn set_config(&mut self, config: PoolConfig, granted: &mut Vec<(HolderId, usize)>) {
        let before = std::mem::replace(&mut self.config, config);
        resize(&mut self.at_large_free, &mut self.owed.at_large, before.at_large, config.at_large);
        resize(&mut self.shared_free, &mut self.owed.shared, before.shared, config.shared);
        resize(&mut self.aside_free, &mut self.owed.aside, before.aside, config.aside);
        let waiters: Vec<usize> = self.waiters.iter().map(|(_, index)| *index).collect();
        waiters.into_iter().for_each(|index| self.place(index));
        self.settle(granted);
    }

    /// What the pool was made with, or last set to.
    pub fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// Bytes that a holder has.
    pub fn held(&self, holder: HolderId) -> usize {
        self.find(holder).map_or(0, |index| self.holders[index].held())
    }

    /// Bytes that a holder still waits for.
    pub fn wanted(&self, holder: HolderId) -> usize {
        self.find(holder).map_or(0, |index| self.holders[index].wanted)
    }

    /// Bytes taken now, of all parts together.
    pub fn used(&self) -> usize {
        let Owed { at_large, shared, aside } = self.owed;
        let owed = at_large.saturating_add(shared).saturating_add(aside);
        self.config.capacity().saturating_add(owed).saturating_sub(self.free())
    }

    /// Bytes at large taken now.
    pub fn used_at_large(&self) -> usize {
        self.config.at_large + self.owed.at_large - self.at_large_free
    }

    /// Bytes nobody has, of all parts together.
    pub fn free(&self) -> usize {
        self.at_large_free.saturating_add(self.shared_free).saturating_add(self.aside_free)
    }

    /// Holders that wait.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    fn find(&self, holder: HolderId) -> Option<usize> {
        let there = self.holders.get(holder.index)?;
        (there.generation == holder.generation).then_some(holder.index)
    }

    fn room_at_large(&self, index: usize) -> usize {
        self.config.holder_max.saturating_sub(self.holders[index].at_large).min(self.at_large_free)
    }

    fn room_in_share(&self, index: usize) -> usize {
        self.share(index).saturating_sub(self.holders[index].share).min(self.shared_free)
    }

    /// A holder's part of the shared bytes.
    fn share(&self, index: usize) -> usize {
        let weight = u128::from(self.holders[index].weight);
        if weight == 0 {
            return 0;
        }
        // The product of two u64 fits, and the quotient is at most `shared`.
        usize::try_from(self.config.shared as u128 * weight / self.total_weight).unwrap_or(self.config.shared)
    }

    fn give_parts(&mut self, at_large: usize, share: usize, aside: usize) {
        give(&mut self.at_large_free, &mut self.owed.at_large, at_large);
        give(&mut self.shared_free, &mut self.owed.shared, share);
        give(&mut self.aside_free, &mut self.owed.aside, aside);
    }

    fn hold(&mut self, index: usize, at_large: usize, share: usize) {
        self.at_large_free -= at_large;
        self.shared_free -= share;
        self.holders[index].at_large += at_large;
        self.holders[index].share += share;
    }

    /// Puts a holder into the lines where it belongs now. Called whenever it begins or ceases to wait, and when what
    /// a waiter may take has changed.
    fn place(&mut self, index: usize) {
        let holder = &self.holders[index];
        let (waiter, waits) = ((holder.ticket, index), holder.wanted > 0);
        let under_cap = waits && holder.at_large < self.config.holder_max;
        let under_share = waits && holder.share < self.share(index);
        for (line, belongs) in
            [(&mut self.waiters, waits), (&mut self.under_cap, under_cap), (&mut self.under_share, under_share)]
        {
            if belongs {
                line.insert(waiter);
            } else {
                line.remove(&waiter);
            }
        }
    }

    /// Looks again at every waiter that has a share, because shares have changed.
    fn reweigh(&mut self) {
        if self.config.shared > 0 {
            let weighted = |(_, index): &(u64, usize)| (self.holders[*index].weight > 0).then_some(*index);
            let waiters: Vec<usize> = self.waiters.iter().filter_map(weighted).collect();
            waiters.into_iter().for_each(|index| self.place(index));
        }
    }

    fn stop_waiting(&mut self, index: usize) -> usize {
        let wanted = std::mem::take(&mut self.holders[index].wanted);
        if wanted > 0 {
            self.place(index);
        }
        wanted
    }

    /// Gives a waiter bytes that are free.
    fn grant(&mut self, index: usize, part: Part, bytes: usize) {
        let holder = &mut self.holders[index];
        let (held, free) = match part {
            Part::AtLarge => (&mut holder.at_large, &mut self.at_large_free),
            Part::Share => (&mut holder.share, &mut self.shared_free),
            Part::Aside => (&mut holder.aside, &mut self.aside_free),
        };
        *held += bytes;
        *free -= bytes;
        holder.wanted -= bytes;
        self.place(index);
    }

    /// Grants what is free to who waits for it. Every turn serves a waiter, brings it to its bound, or uses up the
    /// part, so this costs no more than the waits it ends.
    fn settle(&mut self, granted: &mut Vec<(HolderId, usize)>) {
        while let Some((index, part, bytes)) = self.next_grant() {
            self.grant(index, part, bytes);
            granted.push((HolderId { index, generation: self.holders[index].generation }, bytes));
        }
    }

    /// The order matters: what is aside goes only to a waiter for whom nothing else is left.
    fn next_grant(&self) -> Option<(usize, Part, usize)> {
        let first = |line: &Line, free: usize| if free > 0 { line.first().map(|(_, index)| *index) } else { None };
        let (index, part, room) = if let Some(index) = first(&self.under_cap, self.at_large_free) {
            (index, Part::AtLarge, self.room_at_large(index))
        } else if let Some(index) = first(&self.under_share, self.shared_free) {
            (index, Part::Share, self.room_in_share(index))
        } else {
            (first(&self.waiters, self.aside_free)?, Part::Aside, self.aside_free)
        };
        Some((index, part, self.holders[index].wanted.min(room)))
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod resizing;
#[cfg(test)]
mod tests;
