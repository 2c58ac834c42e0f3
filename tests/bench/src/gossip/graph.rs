//! Who is connected with whom: a random graph in which everybody has as many links, the same in every run.

use peerage_machine::Rng;

/// Tries of one ring before its seed is given up.
const TRIES: usize = 100_000;

/// Edges of a random graph of `nodes` with `degree` links each, a union of rings in random order without a common
/// edge. The first of an edge dials, so that each dials as many as dial it.
///
/// `None` for a degree that is odd, or too high for so few.
pub(super) fn regular(nodes: usize, degree: usize, seed: u64) -> Option<Vec<(usize, usize)>> {
    if degree % 2 == 1 || degree == 0 || degree >= nodes {
        return None;
    }
    let mut rng = Rng::new(seed);
    let mut edges: Vec<(usize, usize)> = Vec::with_capacity(nodes * degree / 2);
    for _ in 0..degree / 2 {
        let ring = (0..TRIES).find_map(|_| {
            let mut order: Vec<usize> = (0..nodes).collect();
            rng.sample(&mut order, nodes);
            let ring: Vec<_> = (0..nodes).map(|at| (order[at], order[(at + 1) % nodes])).collect();
            let taken = ring.iter().any(|(a, b)| edges.contains(&(*a, *b)) || edges.contains(&(*b, *a)));
            (!taken).then_some(ring)
        })?;
        edges.extend(ring);
    }
    Some(edges)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everybody_has_as_many_links_and_no_link_is_there_twice() {
        for seed in 0..20 {
            let edges = regular(20, 8, seed).expect("such a graph");
            let ends = |node| edges.iter().filter(|(a, b)| *a == node || *b == node).count();
            let dials = |node| edges.iter().filter(|(a, _)| *a == node).count();
            assert!((0..20).all(|node| ends(node) == 8 && dials(node) == 4));
            let pairs: BTreeSet<_> = edges.iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
            assert_eq!(pairs.len(), 80);
            assert!(edges.iter().all(|(a, b)| a != b));
        }
        assert_eq!(regular(20, 8, 7), regular(20, 8, 7));
        assert_eq!((regular(20, 7, 1), regular(8, 8, 1)), (None, None));
    }
}
