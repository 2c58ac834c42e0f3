//! The table's rules, from geth `discover/table_test.go` and `table_reval_test.go` as far as they fit.

use std::collections::BTreeMap;

use peerage_machine::Rng;
use peerage_wire::{Keypair, NetworkId, RecordDraft, address};
use proptest::prelude::*;

use super::*;

pub(super) fn config() -> Config {
    Config { exempt_local: false, ..Config::recommended() }
}

pub(super) fn me() -> NodeId {
    Keypair::from_seed([1; 32]).id()
}

pub(super) fn table() -> Table {
    Table::new(me(), &config())
}

pub(super) fn contact_at(number: u32, addr: SocketAddr, seq: u64) -> Contact {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let keys = Keypair::from_seed(seed);
    let draft = RecordDraft::new(seq, NetworkId::named("test")).address(address::from_udp(addr));
    let record = draft.sign(&keys).expect("small");
    Contact::new(addr, record)
}

/// A node in a site of its own.
pub(super) fn contact(number: u32) -> Contact {
    let [_, a, b, c] = number.to_be_bytes();
    contact_at(number, SocketAddr::from(([20 + a, b, c, 1], 30303)), 1)
}

/// The first nodes that belong into the last bucket, which half of all do.
pub(super) fn far(count: usize) -> Vec<Contact> {
    (0..).map(contact).filter(|contact| table().index(contact.id) == BUCKETS - 1).take(count).collect()
}

/// The counted sites are those of the nodes with a place or waiting for one, and no limit is passed.
pub(super) fn check_sites(table: &Table) {
    let mut sites: LiteMap<Site, Held> = LiteMap::new();
    for bucket in &table.buckets {
        let mut of_bucket: BTreeMap<Site, u16> = BTreeMap::new();
        let waiting = bucket.replacements.iter().map(|waiting| &waiting.contact);
        for contact in bucket.entries.iter().map(|entry| &entry.contact).chain(waiting) {
            *of_bucket.entry(site(contact.addr.ip())).or_default() += 1;
        }
        assert!(of_bucket.values().all(|count| usize::from(*count) <= table.site_per_bucket));
        assert!(bucket.entries.len() <= BUCKET_SIZE && bucket.replacements.len() <= MAX_REPLACEMENTS);
        assert!(bucket.replacements.is_empty() || bucket.entries.len() == BUCKET_SIZE);
        for (prefix, count) in of_bucket {
            sites.entry(prefix).or_default().all += count;
        }
    }
    for entry in table.entries().filter(|entry| entry.live) {
        sites.entry(site(entry.contact.addr.ip())).or_default().live += 1;
    }
    assert!(sites.values().all(|held| usize::from(held.all) <= table.site_per_table));
    assert_eq!(table.crowded, sites.values().filter(|held| held.is_crowded()).count());
    assert_eq!(table.sites, sites);
}

#[test]
fn the_planted_bug_lets_one_site_have_more_places_than_it_may() {
    let places = |mut table: Table| {
        for n in 0..100 {
            table.proved(contact_at(n.into(), SocketAddr::from(([20, 1, 1, n], 30303)), 1), Origin::Chosen);
        }
        table.len()
    };
    assert!(places(table()) <= config().site_per_table);
    let mut bad = table();
    bad.plant_bug();
    assert!(places(bad) > 2 * config().site_per_table);
}

#[test]
fn a_site_has_ten_places_in_the_table_and_two_in_a_bucket() {
    let mut table = table();
    let mut in_last = 0;
    for number in 0..400 {
        let contact = contact_at(number, SocketAddr::from(([1, 2, 3, number as u8], 5000)), 1);
        let last = table.index(contact.id) == BUCKETS - 1;
        let added = table.proved(contact, Origin::Chosen) == Placed::Added;
        in_last += usize::from(last && added);
    }
    check_sites(&table);
    assert_eq!(in_last, 2);
    assert!(table.len() <= 10, "{}", table.len());
    assert!(table.len() >= 8, "several buckets take two each");
}

#[test]
fn a_site_of_ipv6_is_48_bits() {
    let mut table = table();
    for number in 0..100u16 {
        let addr = SocketAddr::from(([0x2001, 0xdb8, 7, number, 0, 0, 0, 1], 5000));
        table.heard_of(contact_at(number.into(), addr, 1), Origin::Chosen);
    }
    check_sites(&table);
    assert!(table.len() <= 10);
}

#[test]
fn local_addresses_are_exempt_only_if_configured() {
    for (exempt_local, expected) in [(true, 16), (false, 2)] {
        let mut table = Table::new(me(), &Config { exempt_local, ..config() });
        for (port, contact) in (5000..).zip(far(20)) {
            table.heard_of(Contact { addr: SocketAddr::from(([127, 0, 0, 1], port)), ..contact }, Origin::Chosen);
        }
        assert_eq!(table.len(), expected);
    }
}

#[test]
fn a_full_bucket_lets_ten_wait_and_the_oldest_of_them_goes() {
    let mut table = table();
    let nodes = far(30);
    for contact in &nodes {
        table.heard_of(contact.clone(), Origin::Chosen);
    }
    check_sites(&table);
    let bucket = &table.buckets[BUCKETS - 1];
    let waiting: Vec<_> = bucket.replacements.iter().map(|waiting| waiting.contact.id).collect();
    let expected: Vec<_> = nodes[20..].iter().rev().map(|contact| contact.id).collect();
    assert_eq!((bucket.entries.len(), waiting), (BUCKET_SIZE, expected));
    assert_eq!(table.heard_of(nodes[25].clone(), Origin::Chosen), Placed::Replacement);
    assert_eq!(table.buckets[BUCKETS - 1].replacements.len(), MAX_REPLACEMENTS, "nobody waits twice");
}

#[test]
fn a_removed_node_is_replaced_by_one_that_waited() {
    let (mut table, mut rng) = (table(), Rng::new(1));
    let nodes = far(18);
    for contact in &nodes {
        table.proved(contact.clone(), Origin::Chosen);
    }
    table.remove(nodes[3].id, &mut rng);
    check_sites(&table);
    assert_eq!(table.len(), BUCKET_SIZE);
    assert!(table.get(nodes[3].id).is_none());
    let heir = nodes[16..].iter().find_map(|contact| table.get(contact.id)).expect("one of the two that waited");
    assert!(!heir.live, "an heir has proved nothing here yet");
    table.remove(me(), &mut rng);
    assert_eq!(table.len(), BUCKET_SIZE, "removing a stranger changes nothing");
}

#[test]
fn ourselves_and_nodes_without_an_address_are_refused() {
    let mut table = table();
    let mine = RecordDraft::new(1, NetworkId::named("test")).sign(&Keypair::from_seed([1; 32])).expect("small");
    let addr = SocketAddr::from(([20, 1, 1, 1], 5000));
    assert_eq!(table.proved(Contact::new(addr, mine), Origin::Chosen), Placed::Refused);
    let nowhere = contact_at(1, SocketAddr::from(([0, 0, 0, 0], 5000)), 1);
    assert_eq!(table.heard_of(nowhere, Origin::Chosen), Placed::Refused);
    assert!(table.is_empty());
}

#[test]
fn hearsay_changes_a_node_only_by_a_newer_record() {
    let mut table = table();
    let (here, there) = (SocketAddr::from(([20, 1, 1, 1], 5000)), SocketAddr::from(([20, 1, 2, 1], 5000)));
    table.proved(contact_at(1, here, 5), Origin::Chosen);
    for seq in [4, 5] {
        assert_eq!(table.heard_of(contact_at(1, there, seq), Origin::Chosen), Placed::Known);
    }
    let id = contact_at(1, here, 5).id;
    assert_eq!(table.get(id).map(|entry| (entry.contact.addr, entry.live)), Some((here, true)));
    assert_eq!(table.heard_of(contact_at(1, there, 6), Origin::Chosen), Placed::Updated);
    let moved = table.get(id).map(|entry| (entry.contact.addr, entry.live, entry.list));
    assert_eq!(moved, Some((there, false, List::Fast)), "at the new address it has proved nothing");
    check_sites(&table);
}

#[test]
fn a_node_that_proves_itself_may_say_anything_of_itself() {
    let mut table = table();
    let (here, there) = (SocketAddr::from(([20, 1, 1, 1], 5000)), SocketAddr::from(([20, 1, 2, 1], 5000)));
    table.proved(contact_at(1, here, 5), Origin::Chosen);
    assert_eq!(table.proved(contact_at(1, here, 5), Origin::Chosen), Placed::Known);
    assert_eq!(table.proved(contact_at(1, there, 3), Origin::Chosen), Placed::Updated, "it may have lost its state");
    let entry = table.get(contact_at(1, there, 3).id).expect("known");
    assert_eq!((entry.contact.addr, entry.contact.record.seq(), entry.live), (there, 3, true));
    check_sites(&table);
}

#[test]
fn a_node_cannot_move_into_a_full_site() {
    let mut table = Table::new(me(), &Config { site_per_table: 2, ..config() });
    let crowded = |host| SocketAddr::from(([1, 1, 1, host], 5000));
    for number in 0..2 {
        table.proved(contact_at(number, crowded(number as u8), 1), Origin::Chosen);
    }
    let home = SocketAddr::from(([20, 1, 1, 1], 5000));
    assert_eq!(table.proved(contact_at(7, home, 1), Origin::Chosen), Placed::Added);
    assert_eq!(table.proved(contact_at(7, crowded(9), 2), Origin::Chosen), Placed::Refused);
    let kept = table.get(contact_at(7, home, 1).id).map(|entry| entry.contact.addr);
    assert_eq!(kept, Some(home), "the old place and record stay");
    check_sites(&table);
}

#[test]
fn checks_decay_by_three_and_a_node_that_answered_often_survives_a_miss() {
    let mut table = table();
    let nodes = far(6);
    for contact in &nodes {
        table.proved(contact.clone(), Origin::Chosen);
    }
    let ((veteran, home), newcomer) = ((nodes[0].id, nodes[0].addr), &nodes[1]);
    for _ in 0..6 {
        table.check_passed(Time::ZERO, veteran, home);
    }
    assert_eq!(table.get(veteran).map(|entry| entry.list), Some(List::Slow));
    assert!(table.check_missed(newcomer.id, newcomer.addr), "with others left, one miss ends a newcomer");
    assert!(!table.check_missed(veteran, home));
    let entry = table.get(veteran).expect("kept");
    assert_eq!((entry.checks, entry.list, entry.live), (2, List::Fast, true));
    assert!(table.check_missed(veteran, home));
}

#[test]
fn a_lone_node_survives_a_missed_check_and_not_every_one() {
    let mut table = table();
    let lone = contact(1);
    table.proved(lone.clone(), Origin::Chosen);
    let misses = (1..100).find(|_| table.check_missed(lone.id, lone.addr));
    assert_eq!(misses, Some(MAX_MISSES), "go-ethereum issue 20630");
}

#[test]
fn empty_answers_remove_a_node_only_from_a_crowd() {
    let mut crowd = table();
    let nodes = far(4);
    for contact in &nodes {
        crowd.proved(contact.clone(), Origin::Chosen);
    }
    let results: Vec<_> = (0..5).map(|_| crowd.find_result(nodes[0].id, false)).collect();
    assert_eq!(results, [false, false, false, false, true]);
    assert!(!crowd.find_result(nodes[0].id, true), "one good answer clears it");
    let mut few = table();
    few.proved(nodes[0].clone(), Origin::Chosen);
    assert!((0..20).all(|_| !few.find_result(nodes[0].id, false)));
}

#[test]
fn only_live_nodes_are_told_unless_there_are_none() {
    let mut table = table();
    let target = Key::from_bytes([3; 32]);
    let nodes = far(5);
    for contact in &nodes {
        table.heard_of(contact.clone(), Origin::Chosen);
    }
    assert_eq!(table.closest(&target, 16, true).len(), 5);
    table.alive(nodes[2].id, nodes[2].addr);
    let told: Vec<_> = table.closest(&target, 16, true).iter().map(|entry| entry.contact.id).collect();
    assert_eq!(told, [nodes[2].id]);
    assert_eq!(table.closest(&target, 16, false).len(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_closest_are_sorted_and_leave_no_closer_one_out(target: [u8; 32], count in 0usize..40) {
        let mut table = table();
        for number in 0..60 {
            table.proved(contact(number), Origin::Chosen);
        }
        let target = Key::from_bytes(target);
        let distance = |entry: &Entry| Key::of(entry.contact.id).distance(&target);
        let closest: Vec<_> = table.closest(&target, count, true).into_iter().map(distance).collect();
        prop_assert_eq!(closest.len(), count.min(table.len()));
        prop_assert!(closest.is_sorted_by(|a, b| a < b));
        let mut all: Vec<_> = table.entries().map(distance).collect();
        all.sort();
        prop_assert_eq!(&all[..closest.len()], &closest[..]);
    }

    #[test]
    fn the_sites_are_those_of_the_contents_whatever_happens(steps in proptest::collection::vec((0u8..4, 0u32..40, 0u8..6, 0u64..4), 0..120)) {
        let (mut table, mut rng) = (table(), Rng::new(2));
        for (step, number, place, seq) in steps {
            let contact = contact_at(number, SocketAddr::from(([20, 1, place, number as u8], 5000)), seq);
            match step {
                0 => { table.heard_of(contact, Origin::Chosen); }
                1 => { table.proved(contact, Origin::Chosen); }
                2 => { let _ = table.check_missed(contact.id, contact.addr); }
                _ => { table.remove(contact.id, &mut rng); }
            }
            check_sites(&table);
        }
    }
}

#[test]
fn a_dead_node_of_a_full_bucket_is_replaced_and_a_live_one_is_not() {
    // geth TestTable_pingReplace: whether the old one answers, and whether somebody waits.
    for (answers, somebody_waits) in [(true, true), (true, false), (false, true), (false, false)] {
        let (mut table, mut rng) = (table(), Rng::new(3));
        let nodes = far(BUCKET_SIZE + 1);
        nodes[..BUCKET_SIZE]
            .iter()
            .for_each(|contact| assert_eq!(table.proved(contact.clone(), Origin::Chosen), Placed::Added));
        if somebody_waits {
            assert_eq!(table.proved(nodes[BUCKET_SIZE].clone(), Origin::Chosen), Placed::Replacement);
        }
        let old = &nodes[5];
        if answers {
            table.check_passed(Time::ZERO, old.id, old.addr);
        } else if table.check_missed(old.id, old.addr) {
            table.remove(old.id, &mut rng);
        }
        assert_eq!(table.get(old.id).is_some(), answers);
        assert_eq!(table.get(nodes[BUCKET_SIZE].id).is_some(), !answers && somebody_waits);
        assert_eq!(table.len(), if answers || somebody_waits { BUCKET_SIZE } else { BUCKET_SIZE - 1 });
        check_sites(&table);
    }
}
