//! From what was watched to what is reported.

use std::collections::BTreeMap;

use peerage_discovery::BUCKETS;

use super::measure::{Histogram, ratio, share};
use super::people::People;
use super::watch::{Bits, Watch, components};
use crate::engine::World;
use crate::node::{PeerageNode, Tally};
use crate::report::{Curve, Metric, Unit};

pub(super) type Metrics = BTreeMap<String, Metric>;
pub(super) type Curves = BTreeMap<String, Curve>;

pub(super) fn add(metrics: &mut Metrics, name: &str, unit: Unit, value: u64) {
    metrics.insert(name.to_owned(), Metric { unit, value });
}

pub(super) fn curve(curves: &mut Curves, name: &str, x: &str, y: &str, points: Vec<(u64, u64)>) {
    if !points.is_empty() {
        curves.insert(name.to_owned(), Curve { x: x.to_owned(), y: y.to_owned(), points });
    }
}

impl Watch {
    /// Everything that a run has shown.
    pub(super) fn results(&self, world: &World<PeerageNode>, people: &People) -> (Metrics, Curves) {
        let (mut metrics, mut curves) = (Metrics::new(), Curves::new());
        self.network(world, people, &mut metrics, &mut curves);
        self.gossip(world, people, &mut metrics, &mut curves);
        self.requests.results(!people.members().is_empty(), &mut metrics, &mut curves);
        self.hostile(world, people, &mut metrics);
        self.carried(world, &mut metrics);
        (metrics, curves)
    }

    fn network(&self, world: &World<PeerageNode>, people: &People, metrics: &mut Metrics, curves: &mut Curves) {
        let running = || people.honest().filter(|(host, _)| world.node(*host).is_some());
        let settled = running().filter(|(host, _)| self.lives[host.0 as usize].settled.is_some()).count();
        add(metrics, "bootstrapped", Unit::Share, share(settled as u64, running().count() as u64));
        if self.settling.count() > 0 {
            add(metrics, "bootstrap.p50", Unit::Time, self.settling.percentile(50));
            add(metrics, "bootstrap.p99", Unit::Time, self.settling.percentile(99));
            add(metrics, "bootstrap.last", Unit::Time, self.settling.max());
            add(metrics, "supplied.p50", Unit::Time, self.supplied.percentile(50));
            add(metrics, "supplied.p99", Unit::Time, self.supplied.percentile(99));
            add(metrics, "first-peer.p50", Unit::Time, self.first_peer.percentile(50));
            add(metrics, "first-peer.p99", Unit::Time, self.first_peer.percentile(99));
        }
        let mut peers = Histogram::default();
        let mut degree = BTreeMap::<u64, u64>::new();
        let mut least = u64::MAX;
        let mut fill = [0_u64; BUCKETS];
        let (mut tables, mut entries) = (0_u64, Histogram::default());
        for (host, _) in running() {
            let Some(node) = world.node(host) else { continue };
            let count = node.peer_count() as u64;
            peers.add(count);
            least = least.min(count);
            *degree.entry(count).or_default() += 1;
            if let Some(discovery) = node.discovery() {
                tables += 1;
                let sizes = discovery.table_sizes();
                entries.add(sizes.iter().sum::<usize>() as u64);
                fill.iter_mut().zip(sizes).for_each(|(sum, size)| *sum += size as u64);
            }
        }
        if peers.count() > 0 {
            add(metrics, "peers.min", Unit::Count, least);
            add(metrics, "peers.mean", Unit::Ratio, peers.mean());
            add(metrics, "peers.max", Unit::Count, peers.max());
        }
        if tables > 0 {
            add(metrics, "table.mean", Unit::Ratio, entries.mean());
            let points = fill.iter().enumerate().map(|(bucket, sum)| (bucket as u64, ratio(*sum, tables))).collect();
            curve(curves, "table-fill", "bucket", "entries, thousandths", points);
        }
        let (parts, ..) = components(world, people, self.hosts_by_id());
        add(metrics, "components", Unit::Count, parts);
        curve(curves, "degree", "peers", "nodes", degree.into_iter().collect());
        curve(curves, "partition", "ms", "online nodes in the largest component, ppm", self.together.clone());
        if self.answered + self.lookups.len() as u64 > 0 {
            let asked = self.answered + self.lookups.len() as u64;
            add(metrics, "lookup.answered", Unit::Share, share(self.answered, asked));
            add(metrics, "lookup.exact", Unit::Share, share(self.found_all, asked));
            add(metrics, "lookup.nearest", Unit::Share, share(self.found_nearest, asked));
            add(metrics, "lookup.hops.p50", Unit::Count, self.hops.percentile(50));
            add(metrics, "lookup.hops.max", Unit::Count, self.hops.max());
            add(metrics, "lookup.queries", Unit::Ratio, self.queries.mean());
        }
        add(metrics, "sessions.begun", Unit::Count, self.peer_ups);
        add(metrics, "sessions.ended", Unit::Count, self.peer_downs);
        add(metrics, "dials", Unit::Count, self.dials);
        add(metrics, "dials.failed", Unit::Count, self.dials_failed);
        add(metrics, "bans.honest", Unit::Count, self.honest_bans);
        add(metrics, "bans", Unit::Count, self.hostile_bans);
        add(metrics, "bans.networks", Unit::Count, self.network_bans);
        add(metrics, "blames", Unit::Count, self.blames);
        add(metrics, "blames.honest", Unit::Count, self.honest_blames);
    }

    fn gossip(&self, world: &World<PeerageNode>, people: &People, metrics: &mut Metrics, curves: &mut Curves) {
        if self.messages.is_empty() {
            return;
        }
        let owed: u64 = self.messages.iter().map(|message| message.owed.len()).sum();
        let missing =
            |owed: &Bits, got: &Bits| people.honest().filter(|(host, _)| owed.has(*host) && !got.has(*host)).count();
        let missed: u64 = self.messages.iter().map(|message| missing(&message.owed, &message.got) as u64).sum();
        add(metrics, "messages.published", Unit::Count, self.messages.len() as u64);
        add(metrics, "messages.refused", Unit::Count, self.refused);
        add(metrics, "delivered", Unit::Share, share(owed - missed, owed));
        add(metrics, "missed", Unit::Count, missed);
        add(metrics, "duplicates-delivered", Unit::Count, self.duplicates_delivered);
        if self.delivery.count() > 0 {
            add(metrics, "delivery.p50", Unit::Time, self.delivery.percentile(50));
            add(metrics, "delivery.p99", Unit::Time, self.delivery.percentile(99));
            add(metrics, "delivery.max", Unit::Time, self.delivery.max());
            for (name, delivery) in [("slow", &self.slow_delivery), ("fast", &self.fast_delivery)] {
                if delivery.count() > 0 {
                    add(metrics, &format!("delivery.{name}.p50"), Unit::Time, delivery.percentile(50));
                    add(metrics, &format!("delivery.{name}.p99"), Unit::Time, delivery.percentile(99));
                }
            }
            curve(curves, "delivery-cdf", "µs", "deliveries, ppm", self.delivery.shares());
        }
        let tally = self.tally(world, people);
        let copies = tally.accepted + tally.duplicates;
        add(metrics, "copies", Unit::Ratio, ratio(copies, tally.accepted));
        let needed: u64 = self.messages.iter().map(|message| message.size * message.owed.len().saturating_sub(1)).sum();
        add(metrics, "bytes", Unit::Ratio, ratio(tally.gossip_bytes, needed));
        if tally.shards > 0 {
            let all = tally.shards + tally.shards_again;
            add(metrics, "shards.copies", Unit::Ratio, ratio(all, tally.shards));
            add(metrics, "shards.asked", Unit::Count, tally.shards_asked);
        }
        add(metrics, "messages.asked", Unit::Count, tally.asked);
        add(metrics, "messages.queue-refused", Unit::Count, tally.refused);
    }

    /// What honest nodes have counted.
    pub(super) fn tally(&self, world: &World<PeerageNode>, people: &People) -> Tally {
        let running = people.honest().filter_map(|(host, _)| world.node(host));
        running.fold(self.past, |sum, node| sum.and(node.tally()))
    }

    fn hostile(&self, world: &World<PeerageNode>, people: &People, metrics: &mut Metrics) {
        if people.iter().all(|(_, person)| person.hostile.is_none()) {
            return;
        }
        let is_hostile = |id| self.hosts_by_id().get(&id).is_none_or(|host| people[*host].hostile.is_some());
        let (mut table, mut slots) = ((0, 0), (0, 0));
        let mut worst = 0;
        for (host, _) in people.honest() {
            let Some(node) = world.node(host) else { continue };
            let mut own = (0, 0);
            for record in node.discovery().into_iter().flat_map(|discovery| discovery.table_records()) {
                own.0 += u64::from(is_hostile(record.id()));
                own.1 += 1;
            }
            worst = worst.max(share(own.0, own.1.max(1)));
            table = (table.0 + own.0, table.1 + own.1);
            for (peer, _) in node.peers() {
                slots.0 += u64::from(is_hostile(peer));
                slots.1 += 1;
            }
        }
        add(metrics, "hostile.table", Unit::Share, share(table.0, table.1.max(1)));
        add(metrics, "hostile.table.worst", Unit::Share, worst);
        add(metrics, "hostile.slots", Unit::Share, share(slots.0, slots.1.max(1)));
        add(metrics, "hostile.delivered", Unit::Count, self.hostile_got.values().map(Bits::len).sum());
        let Some(victim) = people.victim().and_then(|host| world.node(host)) else { return };
        let records: Vec<bool> = victim
            .discovery()
            .into_iter()
            .flat_map(|discovery| discovery.table_records())
            .map(|r| is_hostile(r.id()))
            .collect();
        let of_table = records.iter().filter(|hostile| **hostile).count() as u64;
        add(metrics, "victim.table", Unit::Share, share(of_table, records.len().max(1) as u64));
        let of_peers = victim.peers().filter(|(peer, _)| is_hostile(*peer)).count() as u64;
        add(metrics, "victim.slots", Unit::Share, share(of_peers, victim.peer_count().max(1) as u64));
        let dialled: Vec<bool> =
            victim.peers().filter(|(_, dialled)| *dialled).map(|(peer, _)| is_hostile(peer)).collect();
        let of_dialled = dialled.iter().filter(|hostile| **hostile).count() as u64;
        add(metrics, "victim.dialled", Unit::Share, share(of_dialled, dialled.len().max(1) as u64));
        add(metrics, "victim.peers", Unit::Count, victim.peer_count() as u64);
    }

    fn carried(&self, world: &World<PeerageNode>, metrics: &mut Metrics) {
        let counts = world.counts();
        add(metrics, "datagrams", Unit::Count, counts.datagrams);
        add(metrics, "datagrams.lost", Unit::Count, counts.datagrams_lost);
        add(metrics, "datagrams.bytes", Unit::Bytes, counts.datagram_bytes);
        add(metrics, "streams.messages", Unit::Count, counts.messages);
        add(metrics, "streams.bytes", Unit::Bytes, counts.message_bytes);
        add(metrics, "connections.tried", Unit::Count, counts.dials);
    }
}
