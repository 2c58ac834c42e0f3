//! The limits of tables.

use std::collections::BTreeMap;

use peerage_discovery::{BUCKETS, Key};
use peerage_wire::NodeId;
use peerage_wire::address::{Site, is_local, site};

use super::{Invariant, Scene, Seen, Verdict};
use crate::engine::HostId;

/// Places in a bucket (Kademlia's k).
const BUCKET_SIZE: usize = 16;

/// No table has more nodes of one site than its configuration says, neither in a bucket nor altogether, and no bucket more
/// than it has places. Those that wait for a place cannot be seen and are not counted.
pub struct TableLimits;

impl Invariant for TableLimits {
    fn name(&self) -> &'static str {
        "table-limits"
    }

    fn saw(&mut self, scene: &Scene<'_>, host: HostId, seen: &Seen) -> Verdict {
        let config = &scene.config.discovery;
        if let Some(full) = seen.buckets.iter().find(|size| **size > BUCKET_SIZE) {
            return Err(format!("a bucket of host {}'s table has {full} nodes and {BUCKET_SIZE} places", host.0));
        }
        let mut sites = BTreeMap::<Site, Vec<NodeId>>::new();
        for (id, ip) in &seen.table {
            if !(config.exempt_local && is_local(*ip)) {
                sites.entry(site(*ip)).or_default().push(*id);
            }
        }
        let own = Key::of(seen.id);
        // Where a node is in Kademlia's space is worked out for those only that could be too many.
        for (site, ids) in sites.into_iter().filter(|(_, ids)| ids.len() > config.site_per_bucket) {
            let (all, most) = (ids.len(), config.site_per_table);
            if all > most {
                return Err(format!("host {}'s table has {all} nodes of {site:?}, and {most} may be in it", host.0));
            }
            let mut buckets = [0; BUCKETS];
            ids.iter().for_each(|id| buckets[own.distance(&Key::of(*id)).bucket()] += 1);
            let (fullest, most) = (buckets.into_iter().max().unwrap_or(0), config.site_per_bucket);
            if fullest > most {
                return Err(format!(
                    "a bucket of host {}'s table has {fullest} nodes of {site:?}: {most} may be",
                    host.0
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{Trial, id, ip};
    use super::*;

    fn of_table(table: impl IntoIterator<Item = (NodeId, std::net::IpAddr)>) -> Verdict {
        let seen = Seen { table: table.into_iter().collect(), ..Seen::nothing(id(0)) };
        Trial::new().saw(&mut TableLimits, &seen)
    }

    /// Nodes by the bucket of the first one's table that they belong to.
    fn nodes_of(bucket: usize) -> impl Iterator<Item = NodeId> {
        let own = Key::of(id(0));
        (1..=255).map(id).filter(move |id| own.distance(&Key::of(*id)).bucket() == bucket)
    }

    #[test]
    fn a_site_has_its_places_in_a_bucket_and_no_more() {
        let config = Trial::new().config.discovery;
        let last = || nodes_of(BUCKETS - 1);
        let own = |(nth, id): (usize, NodeId)| (id, ip(nth as u8, 1));
        assert_eq!(of_table(last().take(16).enumerate().map(own)), Ok(()), "each of a site of its own");
        assert_eq!(of_table(last().take(config.site_per_bucket).map(|id| (id, ip(9, 1)))), Ok(()));
        assert!(of_table(last().take(config.site_per_bucket + 1).map(|id| (id, ip(9, 1)))).is_err());
    }

    #[test]
    fn a_site_has_its_places_in_the_table_and_no_more() {
        let config = Trial::new().config.discovery;
        let spread = || (0..BUCKETS).rev().flat_map(|bucket| nodes_of(bucket).take(config.site_per_bucket));
        let table = |count| spread().take(count).map(|id| (id, ip(9, 1)));
        assert_eq!(table(config.site_per_table + 1).count(), config.site_per_table + 1, "so many buckets have nodes");
        assert_eq!(of_table(table(config.site_per_table)), Ok(()));
        assert!(of_table(table(config.site_per_table + 1)).is_err());
    }

    #[test]
    fn a_bucket_has_sixteen_places() {
        let seen = |size| Seen { buckets: vec![0, size], ..Seen::nothing(id(0)) };
        assert_eq!(Trial::new().saw(&mut TableLimits, &seen(BUCKET_SIZE)), Ok(()));
        assert!(Trial::new().saw(&mut TableLimits, &seen(BUCKET_SIZE + 1)).is_err());
    }
}
