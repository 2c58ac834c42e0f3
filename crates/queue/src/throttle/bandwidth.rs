//! Bytes a second of each holder and of all together: a machine for one direction.

use std::collections::BTreeSet;
use std::time::Duration;

use peerage_machine::Time;

use super::bucket::{Bucket, SCALE, due, inflow};
use super::limits::BandwidthLimits;
use super::slots::Slots;
use super::{Take, Throttle};
use crate::HolderId;

/// What one turn gets while others wait; and the least that is worth a turn.
const PIECE: u64 = 16 << 10;
/// For one with a reserve that holds little.
const LEAST_PIECE: u64 = 1 << 10;
/// Nobody is told to come later than this.
const LONGEST: Duration = Duration::from_secs(5);
/// Nor sooner than this.
const SHORTEST: Duration = Duration::from_millis(1);

/// A burst is as long as this.
const fn burst(rate: u64) -> u64 {
    let quarter = rate / 4;
    if quarter > 2 * PIECE { quarter } else { 2 * PIECE }
}

#[derive(Debug)]
struct Holder {
    weight: u64,
    own: Bucket,
    /// Its part of what the node keeps for those with weight.
    reserve: Bucket,
    /// What was taken and may come back.
    taken: u64,
    /// Its place in the line.
    ticket: Option<u64>,
}

/// A node's bandwidth in one direction.
///
/// A holder takes of its *own* bucket, and as much of the node's: of its *reserve* first, which fills by its weight and
/// runs over to all, then *at large*. While others wait, each has one piece in turn, so that who is busiest gets no more
/// than who comes now and then. Whatever comes when it was told to finds its piece, also if one before it does not come:
/// nobody is waited for.
#[derive(Debug)]
pub struct Bandwidth {
    limits: BandwidthLimits,
    holders: Slots<Holder>,
    total_weight: u128,
    at_large: Bucket,
    at: Time,
    line: BTreeSet<u64>,
    next_ticket: u64,
}

impl Bandwidth {
    /// Full buckets.
    pub fn new(now: Time, limits: BandwidthLimits) -> Bandwidth {
        let mut bandwidth = Bandwidth {
            limits,
            holders: Slots::new(),
            total_weight: 0,
            at_large: Bucket::empty(),
            at: now,
            line: BTreeSet::new(),
            next_ticket: 0,
        };
        bandwidth.at_large = Bucket::full(limits.node.map_or(0, burst));
        bandwidth
    }

    /// Other limits from now on. Tokens that are there stay, as far as they fit.
    pub fn set_limits(&mut self, now: Time, limits: BandwidthLimits) {
        self.refill(now);
        let before = std::mem::replace(&mut self.limits, limits);
        if before.node.is_none() {
            self.at_large = Bucket::full(limits.node.map_or(0, burst));
        }
        for holder in self.holders.iter_mut() {
            holder.own = match (before.peer, limits.peer) {
                (None, Some(rate)) => Bucket::full(burst(rate)),
                (_, None) => Bucket::empty(),
                (Some(_), Some(rate)) => {
                    let mut own = holder.own;
                    own.resize(i128::from(burst(rate)) * SCALE);
                    own
                }
            };
        }
        if limits.node.is_none() {
            // There is no line any more: whoever stood in it, and does not come again, would stand in the next one.
            self.line.clear();
            self.holders.iter_mut().for_each(|holder| holder.ticket = None);
        }
        self.reweigh();
    }

    /// What holds now.
    pub const fn limits(&self) -> &BandwidthLimits {
        &self.limits
    }

    /// Bytes at large that could go now; none without a limit of the node.
    pub fn tokens(&mut self, now: Time) -> Option<u64> {
        self.refill(now);
        self.limits.node.map(|_| self.at_large.bytes())
    }

    /// Charges for what went on without being asked for, into debt.
    pub fn charge(&mut self, now: Time, holder: HolderId, bytes: u64) {
        self.refill(now);
        if let Some(holder) = self.holders.get_mut(holder) {
            if self.limits.peer.is_some() {
                holder.own.take(bytes);
            }
            if self.limits.node.is_some() {
                self.at_large.take(bytes);
            }
        }
    }

    /// The part of the node's rate that is kept for those with weight, in bytes a second.
    fn reserved_rate(&self) -> u64 {
        match self.limits.node {
            Some(rate) if self.total_weight > 0 => rate / 100 * u64::from(self.limits.reserved),
            _ => 0,
        }
    }

    /// Lets the tokens in that have come since the last call. None is lost and none made: what rounding leaves, and what
    /// full reserves do not hold, is at large.
    fn refill(&mut self, now: Time) {
        let elapsed = now.since(self.at);
        if elapsed.is_zero() {
            return;
        }
        self.at = now;
        let reserved = inflow(self.reserved_rate(), elapsed);
        let (own, total) = (self.limits.peer.map(|rate| inflow(rate, elapsed)), self.total_weight.max(1));
        let mut spilled = self.limits.node.map_or(0, |rate| inflow(rate, elapsed));
        for holder in self.holders.iter_mut() {
            if let Some(own) = own {
                holder.own.pour(own);
            }
            if reserved > 0 && holder.weight > 0 {
                let part = part(reserved, holder.weight, total);
                spilled -= part;
                spilled += holder.reserve.pour(part);
            }
        }
        if self.limits.node.is_some() {
            self.at_large.pour(spilled);
        }
    }

    /// Shares out what bursts may hold: together never more than the node's.
    fn reweigh(&mut self) {
        let Some(rate) = self.limits.node else {
            self.holders.iter_mut().for_each(|holder| holder.reserve = Bucket::empty());
            return;
        };
        let all = i128::from(burst(rate)) * SCALE;
        let reserved = if self.total_weight > 0 { all / 100 * i128::from(self.limits.reserved) } else { 0 };
        let mut spilled = 0;
        for holder in self.holders.iter_mut() {
            spilled += holder.reserve.resize(part(reserved, holder.weight, self.total_weight.max(1)));
        }
        // What nobody at large may hold never leaves those with weight without a turn: a reserve of nothing at large
        // still lets one piece collect.
        let at_large = (all - reserved).max(i128::from(PIECE) * SCALE);
        self.at_large.resize(at_large);
        self.at_large.pour(spilled);
    }

    fn leave_line(&mut self, holder: HolderId) {
        if let Some(ticket) = self.holders.get_mut(holder).and_then(|holder| holder.ticket.take()) {
            self.line.remove(&ticket);
        }
    }

    /// Waits for what is missing at large, or for what is missing of its reserve alone, whichever is there first.
    fn wait_for_node(&mut self, now: Time, id: HolderId, (at_large, own): (i128, i128), node: u64) -> Take {
        let reserved = self.reserved_rate();
        // As if nobody used what is reserved: who comes too early is told again.
        let mut until = due(now, at_large, node).max(now + SHORTEST).min(now + LONGEST);
        if let Some(holder) = self.holders.get_mut(id) {
            let part = u128::from(reserved) * u128::from(holder.weight) / self.total_weight.max(1);
            if part > 0 {
                until = until.min(due(now, own, u64::try_from(part).unwrap_or(u64::MAX)).max(now + SHORTEST));
            }
            if holder.ticket.is_none() {
                holder.ticket = Some(self.next_ticket);
                self.line.insert(self.next_ticket);
                self.next_ticket += 1;
            }
        }
        Take::Later(Some(until))
    }

    #[cfg(test)]
    pub(super) fn scaled_levels(&self) -> (i128, i128) {
        (self.at_large.level(), self.holders.iter().map(|holder| holder.reserve.level()).sum())
    }
}

fn part(of: i128, weight: u64, total: u128) -> i128 {
    // At most 2⁶⁴ bytes a second for some seconds, scaled, and a part of the weight: in floating steps of 2²⁰.
    let share = (u128::from(weight) << 20) / total.max(1);
    i128::try_from(share).map_or(0, |share| (of >> 20) * share)
}

impl Throttle for Bandwidth {
    fn join(&mut self, now: Time, weight: u64) -> HolderId {
        self.refill(now);
        self.total_weight += u128::from(weight);
        let own = self.limits.peer.map_or(Bucket::empty(), |rate| Bucket::full(burst(rate)));
        let id = self.holders.join(Holder { weight, own, reserve: Bucket::empty(), taken: 0, ticket: None });
        if weight > 0 {
            self.reweigh();
        }
        id
    }

    fn set_weight(&mut self, now: Time, holder: HolderId, weight: u64) {
        self.refill(now);
        let Some(holder) = self.holders.get_mut(holder) else { return };
        let before = std::mem::replace(&mut holder.weight, weight);
        if before != weight {
            self.total_weight = self.total_weight - u128::from(before) + u128::from(weight);
            self.reweigh();
        }
    }

    fn leave(&mut self, now: Time, holder: HolderId) {
        self.refill(now);
        self.leave_line(holder);
        let Some(mut gone) = self.holders.leave(holder) else { return };
        self.total_weight -= u128::from(gone.weight);
        let left = gone.reserve.drain();
        if gone.weight > 0 {
            self.reweigh();
        }
        if self.limits.node.is_some() {
            self.at_large.pour(left);
        }
    }

    fn take(&mut self, now: Time, id: HolderId, wanted: u64) -> Take {
        self.refill(now);
        let Some(holder) = self.holders.get(id) else { return Take::Later(None) };
        let mut needed = wanted.clamp(1, PIECE);
        if self.limits.node.is_some() && holder.weight > 0 {
            // One with a small reserve has it in small pieces: what it cannot collect would run over.
            needed = needed.min((holder.reserve.capacity() / 2).max(LEAST_PIECE));
        }
        let mut most = wanted.max(1);
        if let Some(rate) = self.limits.peer {
            if holder.own.bytes() < needed {
                let missing = holder.own.missing(needed);
                // It has no use for the node's meanwhile.
                self.leave_line(id);
                return Take::Later(Some(due(now, missing, rate).min(now + LONGEST)));
            }
            most = most.min(holder.own.bytes());
        }
        let mut reserve = 0;
        if let Some(node) = self.limits.node {
            let ahead = match holder.ticket {
                Some(ticket) => self.line.range(..ticket).count(),
                None => self.line.len(),
            };
            let others = self.line.len() > usize::from(holder.ticket.is_some());
            let before = PIECE.saturating_mul(ahead as u64);
            // Once all there can be is there, nobody takes it who was before: more of them than it has pieces, and nobody
            // behind them would ever have one.
            let kept = before.min(self.at_large.capacity().saturating_sub(needed));
            let free = self.at_large.bytes().saturating_sub(kept);
            reserve = holder.reserve.bytes();
            if reserve.saturating_add(free) < needed {
                let missing = self.at_large.missing(before.saturating_add(needed.saturating_sub(reserve)));
                let own = holder.reserve.missing(needed);
                return self.wait_for_node(now, id, (missing, own), node);
            }
            let at_large = if others { free.min(PIECE) } else { free };
            most = most.min(reserve.saturating_add(at_large));
            reserve = reserve.min(most);
        }
        self.leave_line(id);
        if let Some(holder) = self.holders.get_mut(id) {
            holder.taken = holder.taken.saturating_add(most);
            if self.limits.peer.is_some() {
                holder.own.take(most);
            }
            if self.limits.node.is_some() {
                holder.reserve.take(reserve);
                self.at_large.take(most - reserve);
            }
        }
        Take::Now(most)
    }

    fn give_back(&mut self, now: Time, holder: HolderId, count: u64) {
        self.refill(now);
        let Some(holder) = self.holders.get_mut(holder) else { return };
        let scaled = i128::from(count.min(holder.taken)) * SCALE;
        holder.taken = 0;
        if self.limits.peer.is_some() {
            holder.own.pour(scaled);
        }
        if self.limits.node.is_some() {
            // To the reserve first, as the pools do.
            let spilled = holder.reserve.pour(scaled);
            self.at_large.pour(spilled);
        }
    }

    fn cancel(&mut self, holder: HolderId) {
        self.leave_line(holder);
    }

    fn waiting(&self) -> usize {
        self.line.len()
    }
}

#[cfg(test)]
mod tests;
