//! Who makes room for whom.

use super::super::tests::{check_sites, config, contact, contact_at, far, me, table};
use super::*;
use crate::config::Config;
use crate::key::BUCKETS;
use crate::machine::table::{Contact, Placed};

const LAST: usize = BUCKETS - 1;

/// Nodes of one site that belong into the last bucket.
fn of_site(third: u8, count: usize) -> Vec<Contact> {
    let at = |n: u32| contact_at(50_000 + n, SocketAddr::from(([66, 6, third, n as u8], 30303)), 1);
    (0..250).map(at).filter(|contact| table().index(contact.id) == LAST).take(count).collect()
}

/// A node of the last bucket and of the same site as this one.
fn sibling(of: &Contact) -> Contact {
    let at = |n: u8| {
        let IpAddr::V4(ip) = of.addr.ip() else { unreachable!("the test's nodes are of IPv4") };
        let [a, b, c, _] = ip.octets();
        contact_at(90_000 + u32::from(n), SocketAddr::from(([a, b, c, n], 30303)), 1)
    };
    (0..250).map(at).find(|contact| table().index(contact.id) == LAST).expect("half of all")
}

fn meet(table: &mut Table, contact: &Contact) -> Placed {
    table.proved(contact.clone(), Origin::Came)
}

/// A table whose last bucket is full: two live nodes of one site, and others each of a site of its own.
fn crowded(config: &Config) -> (Table, Vec<Contact>, Vec<Contact>) {
    let mut table = Table::new(me(), config);
    let (two, others) = (of_site(1, 2), far(20));
    for contact in two.iter().chain(&others[..BUCKET_SIZE - 2]) {
        assert_eq!(meet(&mut table, contact), Placed::Added);
    }
    (table, two, others[BUCKET_SIZE - 2..].to_vec())
}

fn places(table: &Table, contacts: &[Contact]) -> usize {
    contacts.iter().filter(|contact| table.get(contact.id).is_some()).count()
}

#[test]
fn a_node_that_answers_takes_a_place_of_a_site_that_has_two() {
    let (mut table, two, strangers) = crowded(&config());
    assert_eq!(meet(&mut table, &strangers[0]), Placed::Inherited);
    assert_eq!((places(&table, &two), table.len()), (1, BUCKET_SIZE));
    assert!(table.get(strangers[0].id).is_some_and(|entry| entry.live && entry.checks == 1));
    check_sites(&table);
    assert_eq!(meet(&mut table, &strangers[1]), Placed::Replacement, "every site has one now");
    assert!(two.iter().all(|contact| meet(&mut table, contact) != Placed::Inherited));
    assert_eq!(places(&table, &two), 1, "nobody comes back by it");
    check_sites(&table);
}

#[test]
fn a_node_that_is_only_heard_of_takes_no_place_until_it_answers() {
    let (mut table, two, strangers) = crowded(&config());
    let stranger = &strangers[0];
    assert_eq!(table.heard_of(stranger.clone(), Origin::Came), Placed::Replacement);
    assert_eq!(places(&table, &two), 2);
    assert_eq!(table.rivals(), [(Origin::Came, (stranger.id, stranger.addr))]);
    table.asked(stranger.id);
    assert_eq!(table.rivals(), [], "it is asked once");
    let elsewhere = SocketAddr::from(([9, 9, 9, 9], 9));
    assert_eq!(table.alive(stranger.id, elsewhere), Placed::Refused, "it has to answer where it is said to be");
    assert_eq!(table.alive(stranger.id, stranger.addr), Placed::Inherited);
    assert_eq!(places(&table, &two), 1);
    check_sites(&table);
}

#[test]
fn one_that_waits_and_does_not_answer_is_forgotten() {
    let (mut table, two, strangers) = crowded(&config());
    table.heard_of(strangers[0].clone(), Origin::Came);
    assert!(!table.check_missed(strangers[0].id, strangers[0].addr));
    assert_eq!(table.alive(strangers[0].id, strangers[0].addr), Placed::Refused);
    assert_eq!((places(&table, &two), table.buckets[LAST].replacements.len()), (2, 0));
    check_sites(&table);
}

#[test]
fn invented_names_make_no_site_look_crowded() {
    let mut table = table();
    let honest = of_site(1, 2);
    meet(&mut table, &honest[0]);
    // A liar tells of another name at the honest node's site.
    table.heard_of(honest[1].clone(), Origin::Came);
    let others = far(20);
    others[..BUCKET_SIZE - 2].iter().for_each(|contact| assert_eq!(meet(&mut table, contact), Placed::Added));
    assert_eq!(meet(&mut table, &others[19]), Placed::Replacement);
    assert!(table.get(honest[0].id).is_some() && table.rivals().is_empty());
}

#[test]
fn a_site_that_has_a_place_elsewhere_does_not_take_a_second_one() {
    let (mut table, two, _) = crowded(&config());
    let other = (0..).map(contact).find(|contact| table.index(contact.id) < LAST).expect("half of all");
    assert_eq!(meet(&mut table, &other), Placed::Added);
    let sibling = sibling(&other);
    assert_eq!(meet(&mut table, &sibling), Placed::Replacement, "two sites of two would take it in turns");
    assert_eq!(places(&table, &two), 2);
}

#[test]
fn local_nodes_give_and_take_no_place_and_neither_does_anybody_who_need_not_be_fair() {
    let spared = Config { exempt_local: true, ..config() };
    let mut table = Table::new(me(), &spared);
    for (port, contact) in (5000..).zip(far(BUCKET_SIZE)) {
        meet(&mut table, &Contact { addr: SocketAddr::from(([192, 168, 1, 1], port)), ..contact });
    }
    assert_eq!(meet(&mut table, &of_site(1, 1)[0]), Placed::Replacement);
    let (mut unfair, two, strangers) = crowded(&Config { fair_shares: false, ..config() });
    assert_eq!(meet(&mut unfair, &strangers[0]), Placed::Replacement);
    assert_eq!(places(&unfair, &two), 2);
}

#[test]
fn a_free_place_goes_to_one_of_the_sites_with_the_fewest() {
    for seed in 0..10 {
        let mut table = table();
        let all = far(20);
        all[..BUCKET_SIZE].iter().for_each(|contact| assert_eq!(meet(&mut table, contact), Placed::Added));
        let (sibling, stranger) = (sibling(&all[1]), all[17].clone());
        table.heard_of(sibling.clone(), Origin::Came);
        table.heard_of(stranger.clone(), Origin::Came);
        table.remove(all[0].id, &mut Rng::new(seed));
        assert!(table.get(stranger.id).is_some() && table.get(sibling.id).is_none());
        check_sites(&table);
    }
}

#[test]
fn a_swarm_of_one_site_that_came_first_is_left_with_one_place_of_each_full_bucket_at_most() {
    let mut table = table();
    for number in 0..400 {
        let swarm = contact_at(number, SocketAddr::from(([1, 2, 3, number as u8], 5000)), 1);
        meet(&mut table, &swarm);
    }
    let site_of_swarm = site([1, 2, 3, 0].into());
    assert!(table.sites[&site_of_swarm].live >= 8);
    for number in 1_000..4_000 {
        meet(&mut table, &contact(number));
        check_sites(&table);
    }
    let in_full = table.buckets.iter().filter(|bucket| bucket.entries.len() == BUCKET_SIZE);
    let most = in_full.clone().map(|bucket| bucket.of_site(site_of_swarm)).sum::<usize>();
    assert!(most <= 1 && in_full.count() > 5, "{most} in full buckets");
    assert!(usize::from(table.sites[&site_of_swarm].live) * 100 <= table.len() * 8, "no more than 8 % of the table");
}

#[test]
fn who_speaks_all_the_time_does_not_push_out_who_waits() {
    let mine = table();
    let (mut table, two, strangers) = crowded(&config());
    // Each site of the swarm has two places elsewhere, and one more name that wants one here.
    let one_of = |third: u8, bucket: usize| {
        let at = SocketAddr::from(([66, 6, third, bucket as u8], 30303));
        let mut names = (u32::from(third) * 10_000..).map(|number| contact_at(number, at, 1));
        names.find(|one| mine.index(one.id) == bucket).expect("there are enough names")
    };
    for (third, bucket) in (2..22).flat_map(|third| [(third, LAST - 1), (third, LAST - 2)]) {
        meet(&mut table, &one_of(third, bucket));
    }
    let swarm: Vec<Contact> = (2..10).map(|third| one_of(third, LAST)).collect();
    let more: Vec<Contact> = (10..18).map(|third| one_of(third, LAST)).collect();
    for one in &swarm {
        table.heard_of(one.clone(), Origin::Came);
    }
    table.heard_of(strangers[0].clone(), Origin::Came);
    for one in more.iter().chain(&swarm).cycle().take(100) {
        table.heard_of(one.clone(), Origin::Came);
        check_sites(&table);
    }
    assert!(table.rivals().iter().any(|(_, (id, _))| *id == strangers[0].id), "it waits still");
    meet(&mut table, &strangers[0]);
    assert!(table.get(strangers[0].id).is_some() && places(&table, &two) == 1);
}

#[test]
fn a_bucket_that_few_sites_fill_is_crowded_and_one_of_many_sites_is_not() {
    let mut table = table();
    far(BUCKET_SIZE).iter().for_each(|contact| assert_eq!(meet(&mut table, contact), Placed::Added));
    assert_eq!(table.crowded_buckets(), []);
    let mut table = Table::new(me(), &config());
    for (number, third) in (1..=16u32).zip((1..=8).cycle()) {
        let at = SocketAddr::from(([66, 6, third, number as u8], 30303));
        let mut names = (0..).map(|n| contact_at(300_000 + 1_000 * number + n, at, 1));
        let one = names.find(|one| table.index(one.id) == LAST).expect("half of all");
        assert_eq!(meet(&mut table, &one), Placed::Added);
    }
    assert_eq!(table.crowded_buckets(), [LAST]);
    let point = table.point_in(LAST, &mut Rng::new(1));
    assert_eq!(table.index_of(&point), LAST);
    let unfair = Table::new(me(), &Config { fair_shares: false, ..config() });
    assert_eq!(unfair.crowded_buckets(), []);
}
