//! How the table came to know a node, and who has a turn by it.
//!
//! Names cost nothing: whoever tells of many must not thereby have many asked or dialled. So whoever is told of belongs to
//! the site of the first who told of it (Bitcoin's address manager buckets by source group likewise), all who came by
//! themselves belong together, and each of these groups has one of its nodes asked or dialled in turn.

use std::collections::BTreeMap;

use peerage_machine::Rng;
use peerage_wire::address::Site;

/// How the table came to know a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// This node chose it: a bootnode, one it remembered, one of a list.
    Chosen,
    /// A node of this site told of it.
    Told(Site),
    /// It spoke to this node first.
    Came,
}

/// Puts nodes into the order in which they have their turn: one of each group, at random within it. `had` are the groups of
/// those that had a turn before. If it need not be `fair`, all are of one group.
pub(super) fn in_turn<T>(
    rng: &mut Rng,
    fair: bool,
    had: impl Iterator<Item = Origin>,
    mut nodes: Vec<(Origin, T)>,
) -> Vec<T> {
    let mut turns: BTreeMap<Origin, usize> = BTreeMap::new();
    had.filter(|_| fair).for_each(|origin| *turns.entry(origin).or_default() += 1);
    let all = nodes.len();
    rng.sample(&mut nodes, all);
    let mut in_turn: Vec<(usize, T)> = Vec::with_capacity(all);
    for (origin, node) in nodes {
        let turn = turns.entry(origin).or_default();
        in_turn.push((*turn, node));
        *turn += usize::from(fair);
    }
    in_turn.sort_by_key(|(turn, _)| *turn);
    in_turn.into_iter().map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(site: u8) -> Origin {
        Origin::Told(peerage_wire::address::site(std::net::IpAddr::from([20, 1, site, 1])))
    }

    #[test]
    fn who_tells_of_many_has_no_more_turns_than_who_tells_of_one() {
        let many = (0..50).map(|node| (told(1), node));
        let nodes: Vec<_> = many.chain([(told(2), 100), (told(3), 101), (Origin::Came, 102)]).collect();
        for seed in 0..20 {
            let order: Vec<u32> = in_turn(&mut Rng::new(seed), true, std::iter::empty(), nodes.clone());
            assert_eq!(order.len(), nodes.len());
            assert_eq!(order[..4].iter().filter(|node| **node < 50).count(), 1, "{order:?}");
        }
    }

    #[test]
    fn a_group_that_had_its_turns_waits_for_the_others() {
        let nodes = vec![(told(1), 1), (told(2), 2), (told(2), 3), (Origin::Chosen, 4)];
        let had = [told(1), told(1), told(1), Origin::Chosen];
        for seed in 0..20 {
            let order: Vec<u32> = in_turn(&mut Rng::new(seed), true, had.into_iter(), nodes.clone());
            assert_eq!(order[3], 1, "{order:?}");
        }
    }
}
