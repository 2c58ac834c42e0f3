//! The sixteen nearest of a table: bucket by bucket, as the table finds them, beside a scan of all and two ways that keep
//! the table sorted by its keys.

use std::collections::BTreeMap;

use peerage_discovery::{Distance, Key};

use super::table::blake;
use super::{Figures, cost, note};
use crate::Failure;
use crate::job::Impl;

const COUNT: usize = 16;

/// As the table: no more buckets than have sixteen, sorted.
fn buckets(own: &Key, buckets: &[Vec<(Key, usize)>], target: &Key) -> Vec<(Distance, usize)> {
    let mut nodes = Vec::with_capacity(2 * COUNT);
    for index in own.distance(target).buckets() {
        if nodes.len() >= COUNT {
            break;
        }
        nodes.extend(buckets[index].iter().map(|(key, at)| (key.distance(target), *at)));
    }
    nearest(nodes)
}

/// Of few.
fn nearest(mut nodes: Vec<(Distance, usize)>) -> Vec<(Distance, usize)> {
    nodes.sort_unstable_by_key(|(distance, _)| *distance);
    nodes.truncate(COUNT);
    nodes
}

/// Distances of all, the nearest picked out, and these sorted.
fn scan(keys: &[Key], target: &Key) -> Vec<(Distance, usize)> {
    let mut nodes: Vec<(Distance, usize)> = keys.iter().zip(0..).map(|(key, at)| (key.distance(target), at)).collect();
    if COUNT < nodes.len() {
        nodes.select_nth_unstable_by_key(COUNT, |(distance, _)| *distance);
        nodes.truncate(COUNT);
    }
    nearest(nodes)
}

/// How many bits two keys have in common at their beginning.
fn common(a: &Key, b: &Key) -> u32 {
    256 - a.distance(b).log2()
}

/// Of keys in ascending order, those with as long a common beginning with the target as leaves sixteen of them: they
/// lie side by side, and nobody outside is nearer.
fn prefixes(sorted: &[Key], target: &Key) -> Vec<(Distance, usize)> {
    let at = sorted.partition_point(|key| key < target);
    let (mut low, mut high) = (at, at);
    // Widen by whole subtrees: all that share as much with the target as the nearest one outside does.
    while high - low < COUNT && (low > 0 || high < sorted.len()) {
        let below = low.checked_sub(1).map(|at| common(&sorted[at], target));
        let above = sorted.get(high).map(|key| common(key, target));
        let bits = below.max(above).unwrap_or(0);
        while low > 0 && common(&sorted[low - 1], target) >= bits {
            low -= 1;
        }
        while high < sorted.len() && common(&sorted[high], target) >= bits {
            high += 1;
        }
    }
    nearest((low..high).map(|at| (sorted[at].distance(target), at)).collect())
}

/// The same over a tree that is cheap to change.
fn tree(keys: &BTreeMap<Key, usize>, target: &Key) -> Vec<(Distance, usize)> {
    let mut below = keys.range(..*target).rev().peekable();
    let mut above = keys.range(*target..).peekable();
    let mut nodes = Vec::with_capacity(2 * COUNT);
    while nodes.len() < COUNT && (below.peek().is_some() || above.peek().is_some()) {
        let bits_below = below.peek().map(|(key, _)| common(key, target));
        let bits = bits_below.max(above.peek().map(|(key, _)| common(key, target))).unwrap_or(0);
        while let Some((key, at)) = below.next_if(|(key, _)| common(key, target) >= bits) {
            nodes.push((key.distance(target), *at));
        }
        while let Some((key, at)) = above.next_if(|(key, _)| common(key, target) >= bits) {
            nodes.push((key.distance(target), *at));
        }
    }
    nearest(nodes)
}

pub(super) fn measure(figures: &mut Figures) -> Result<(), Failure> {
    // A full table of 17 buckets of 16, its keys spread as a real one's: half of them in the farthest bucket's half
    // only if that held them all, so by bucket.
    let own = blake(0);
    let mut held = [0; peerage_discovery::BUCKETS];
    let mut keys = Vec::new();
    for number in 1..2_000_000 {
        let key = blake(number);
        let held = &mut held[key.distance(&own).bucket()];
        if *held < COUNT {
            *held += 1;
            keys.push(key);
        }
        if keys.len() == 200 {
            break;
        }
    }
    keys.sort_unstable();
    let by_key: BTreeMap<Key, usize> = keys.iter().copied().zip(0..).collect();
    let mut by_bucket = vec![Vec::new(); peerage_discovery::BUCKETS];
    by_key.iter().for_each(|(key, at)| by_bucket[key.distance(&own).bucket()].push((*key, *at)));
    let mut number = 1 << 40;
    let mut target = || {
        number += 1;
        blake(number)
    };
    for _ in 0..1_000 {
        let target = target();
        let others = [buckets(&own, &by_bucket, &target), prefixes(&keys, &target), tree(&by_key, &target)];
        if others.iter().any(|other| *other != scan(&keys, &target)) {
            return Err("two ways to find the nearest disagree".into());
        }
    }
    // Without what the target itself costs.
    let targets: Vec<Key> = (0..1_024).map(|_| target()).collect();
    let mut next = targets.iter().cycle();
    let mut each = |by, find: &dyn Fn(&Key) -> Vec<(Distance, usize)>| {
        note(figures, by, "closest16_ns", cost(|| next.next().map(find)));
    };
    each(Impl::Buckets, &|target| buckets(&own, &by_bucket, target));
    each(Impl::Scan, &|target| scan(&keys, target));
    each(Impl::SortedPrefixes, &|target| prefixes(&keys, target));
    each(Impl::Tree, &|target| tree(&by_key, target));
    Ok(())
}
