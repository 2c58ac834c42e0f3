//! Following lists: whole ones, changing ones, and those of whoever means harm.

use std::time::Duration;

use peerage_machine::Driver;
use peerage_wire::{Keypair, RecordDraft};

use super::super::tree::SignedList;
use super::*;

fn network() -> NetworkId {
    NetworkId::named("test")
}

fn keys(n: u8) -> Keypair {
    Keypair::from_seed([n; 32])
}

fn record_of(n: u16, network: NetworkId) -> Verified<NodeRecord> {
    let mut seed = [9; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    RecordDraft::new(1, network).sign(&Keypair::from_seed(seed)).expect("small")
}

fn records(from: u16, to: u16) -> Vec<Verified<NodeRecord>> {
    (from..to).map(|n| record_of(n, network())).collect()
}

fn link(n: u8, domain: &str) -> ListLink {
    ListLink::new(keys(n).id(), domain).expect("a name")
}

/// Name servers of a few lists, and a client of them; time passes only when there is nothing else to do.
struct World {
    driver: Driver<ListMachine>,
    now: Time,
    texts: BTreeMap<String, Vec<String>>,
    asked: Vec<String>,
    /// When each was asked.
    times: Vec<Time>,
    found: Vec<Verified<NodeRecord>>,
    refused: Vec<Refusal>,
    accepted: Vec<u64>,
    most_open: usize,
}

impl World {
    fn new(config: ListConfig, named: &[ListLink]) -> World {
        World {
            driver: Driver::new(ListMachine::new(config, network(), named.to_vec(), 7)),
            now: Time::ZERO,
            texts: BTreeMap::new(),
            asked: Vec::new(),
            times: Vec::new(),
            found: Vec::new(),
            refused: Vec::new(),
            accepted: Vec::new(),
            most_open: 0,
        }
    }

    fn following(lists: &[&SignedList]) -> World {
        let mut world = World::new(ListConfig::recommended(), &[lists[0].link().clone()]);
        lists.iter().for_each(|list| world.serve(list));
        world.start();
        world
    }

    fn start(&mut self) {
        self.driver.handle(self.now, In::Start);
    }

    fn serve(&mut self, list: &SignedList) {
        for (name, text) in list.texts() {
            self.say(name, &[text]);
        }
    }

    fn say(&mut self, name: &str, texts: &[&str]) {
        self.texts.insert(name.to_owned(), texts.iter().map(|text| (*text).to_owned()).collect());
    }

    /// Answers what is asked, and lets time pass until `limit`.
    fn run(&mut self, limit: Time) {
        loop {
            let mut queries = Vec::new();
            for out in self.driver.drain() {
                match out {
                    Out::Query { token, name } => queries.push((token, name)),
                    Out::Found(records) => self.found.extend(records),
                    Out::Accepted { seq, .. } => self.accepted.push(seq),
                    Out::Refused { why, .. } => self.refused.push(why),
                    Out::Failed { .. } => {}
                }
            }
            self.most_open = self.most_open.max(queries.len());
            let quiet = queries.is_empty();
            for (token, name) in queries {
                self.times.push(self.now);
                let input = match self.texts.get(&name) {
                    Some(texts) => In::Answer { token, texts: texts.clone() },
                    None => In::Failed { token },
                };
                self.asked.push(name);
                self.driver.handle(self.now, input);
            }
            if quiet {
                match self.driver.next_deadline().filter(|due| *due <= limit) {
                    Some(due) => {
                        self.now = due;
                        self.driver.expire_due(due);
                    }
                    None => {
                        self.now = limit;
                        return;
                    }
                }
            }
        }
    }

    fn seconds(&mut self, seconds: u64) {
        self.run(self.now + Duration::from_secs(seconds));
    }

    fn want(&mut self, count: usize) {
        self.driver.handle(self.now, In::Want(count));
    }

    fn ids(&self) -> BTreeSet<peerage_wire::NodeId> {
        self.found.iter().map(|record| record.id()).collect()
    }
}

fn list(n: u8, domain: &str, seq: u64, records: &[Verified<NodeRecord>], links: &[ListLink]) -> SignedList {
    SignedList::build(&keys(n), domain, seq, records, links).expect("a name")
}

#[test]
fn all_nodes_of_a_list_are_found_and_each_entry_is_looked_up_once() {
    let list = list(1, "nodes.example", 1, &records(0, 100), &[]);
    let mut world = World::following(&[&list]);
    world.want(100);
    world.seconds(60);
    assert_eq!((world.ids().len(), world.found.len()), (100, 100));
    assert_eq!((world.accepted.as_slice(), world.refused.as_slice()), (&[1][..], &[][..]));
    let unique: BTreeSet<&String> = world.asked.iter().collect();
    assert_eq!(unique.len(), world.asked.len(), "none twice");
    let gaps = world.times.windows(2).map(|pair| pair[1].since(pair[0]));
    assert!(gaps.min() >= Some(ListConfig::recommended().pace), "paced");
}

#[test]
fn no_more_is_looked_up_than_is_wanted_and_what_is_known_is_given_again() {
    let list = list(1, "nodes.example", 1, &records(0, 60), &[]);
    let mut world = World::following(&[&list]);
    world.seconds(60);
    assert_eq!(world.asked, ["nodes.example"], "nobody wants nodes");
    world.want(3);
    world.seconds(60);
    assert_eq!(world.found.len(), 3);
    let asked = world.asked.len();
    assert!(asked <= 1 + 4 + 3 + ListConfig::recommended().at_once, "{asked}");
    world.want(57);
    world.seconds(60);
    assert_eq!(world.ids().len(), 60);
    let asked = world.asked.len();
    world.want(10);
    world.seconds(60);
    assert_eq!((world.found.len(), world.asked.len()), (70, asked), "from memory");
    let mut other = World::following(&[&list]);
    other.driver = Driver::new(ListMachine::new(ListConfig::recommended(), network(), vec![list.link().clone()], 8));
    other.start();
    other.want(3);
    other.seconds(60);
    assert_ne!(other.ids(), world.found[..3].iter().map(|r| r.id()).collect(), "another client begins elsewhere");
}

#[test]
fn a_new_version_is_found_at_the_next_look_and_what_it_shares_is_not_looked_up_again() {
    let old = list(1, "nodes.example", 1, &records(0, 40), &[]);
    let mut world = World::following(&[&old]);
    world.want(64);
    world.seconds(60);
    world.asked.clear();
    world.found.clear();
    world.serve(&list(1, "nodes.example", 2, &records(0, 41), &[]));
    world.seconds(1_800);
    for _ in 0..3 {
        world.want(64);
        world.seconds(60);
    }
    assert_eq!((world.accepted.as_slice(), world.ids().len()), (&[1, 2][..], 41));
    assert!(world.asked.len() <= 8, "the root, changed branches and one node: {}", world.asked.len());
}

#[test]
fn an_older_root_is_refused_and_so_is_another_of_the_same_number() {
    let new = list(1, "nodes.example", 5, &records(0, 2), &[]);
    let mut world = World::following(&[&new]);
    world.want(2);
    world.seconds(10);
    for (seq, from) in [(4, 10), (5, 20)] {
        world.serve(&list(1, "nodes.example", seq, &records(from, from + 2), &[]));
        world.want(64);
        world.seconds(3_600);
        assert_eq!((world.accepted.as_slice(), world.refused.last()), (&[5][..], Some(&Refusal::OldRoot)));
    }
    assert_eq!(world.ids().len(), 2, "those of the refused ones are unknown");
}

#[test]
fn a_root_of_another_key_is_refused_whatever_is_beside_it() {
    let (ours, theirs) =
        (list(1, "nodes.example", 1, &records(0, 2), &[]), list(2, "nodes.example", 9, &records(5, 9), &[]));
    let text = |list: &SignedList| {
        list.texts().find(|(name, _)| *name == "nodes.example").map(|(_, text)| text.to_owned()).expect("a root")
    };
    let (root, forged) = (text(&ours), text(&theirs));
    let mut world = World::following(&[&ours]);
    world.say("nodes.example", &["v=spf1 -all", &forged, &"x".repeat(9_000), "pnr-root:v1 "]);
    world.want(9);
    world.seconds(3);
    assert_eq!((world.refused.as_slice(), world.accepted.len()), (&[Refusal::NoRoot][..], 0));
    world.say("nodes.example", &["v=spf1 -all", &forged, &root]);
    world.seconds(60);
    assert_eq!(
        (world.accepted.as_slice(), world.ids().len()),
        (&[1][..], 2),
        "it is tried again, and found among others"
    );
}

#[test]
fn a_text_with_another_hash_is_refused_before_it_is_read_and_tried_three_times() {
    let list = list(1, "nodes.example", 1, &records(0, 2), &[]);
    let mut world = World::following(&[&list]);
    let name =
        list.texts().find(|(_, text)| text.starts_with("pnr:")).map(|(name, _)| name.to_owned()).expect("a node");
    let other = record_of(77, network()).to_string();
    world.say(&name, &[&other, "\u{0}garbage", ""]);
    world.want(9);
    world.seconds(60);
    assert_eq!(world.refused, [Refusal::Hash; 3]);
    assert_eq!(world.asked.iter().filter(|asked| **asked == name).count(), 3);
    assert_eq!(world.ids().len(), 1);
    world.serve(&list);
    world.seconds(1_800);
    world.want(9);
    world.seconds(60);
    assert_eq!(world.ids().len(), 2, "it is tried again with the next look at the root");
}

/// A list whose entries are these texts, one below the top of each tree.
fn handmade(world: &mut World, n: u8, domain: &str, nodes: &[String], links: &[String]) {
    let at = link(n, domain);
    let mut tops = Vec::new();
    for texts in [nodes, links] {
        let branch = Entry::Branch(texts.iter().map(|text| Hash::of(text)).collect()).to_string();
        texts.iter().chain([&branch]).for_each(|text| world.say(&at.name_of(Hash::of(text)), &[text]));
        tops.push(Hash::of(&branch));
    }
    let root = Root { nodes: tops[0], links: tops[1], seq: 1 }.sign(&keys(n));
    world.say(domain, &[&root]);
}

#[test]
fn entries_that_do_not_belong_there_are_refused_by_name_and_looked_up_once() {
    let mut world = World::new(ListConfig::recommended(), &[link(1, "nodes.example")]);
    let good = record_of(1, network()).to_string();
    let foreign = record_of(2, NetworkId::named("other")).to_string();
    let mut forged = record_of(3, network()).to_string();
    forged.replace_range(forged.len() - 4.., "AAAA");
    let other = link(2, "other.example").to_string();
    let nodes = [good.clone(), foreign, forged, other, "garbage".to_owned()];
    handmade(&mut world, 1, "nodes.example", &nodes, &[good, "pnrtree://nobody".to_owned()]);
    world.start();
    world.want(64);
    world.seconds(60);
    assert_eq!(world.ids().len(), 1);
    world.refused.sort_unstable();
    let expected = [Refusal::Entry, Refusal::Entry, Refusal::Entry, Refusal::Kind, Refusal::Kind, Refusal::Network];
    assert_eq!(world.refused, expected);
    // The root, a branch of each tree, and six entries, of which one may be asked for as of both trees.
    assert!((9..=10).contains(&world.asked.len()), "{:?}", world.asked);
}

#[test]
fn rings_of_branches_end_as_no_text_can_hold_its_own_hash() {
    // The server answers every name with a branch that points back to the top: none has the hash it was asked for by.
    let list = list(1, "nodes.example", 1, &records(0, 50), &[]);
    let mut world = World::following(&[&list]);
    let top = list.texts().filter(|(_, text)| text.starts_with("pnr-branch:")).map(|(_, text)| Hash::of(text));
    let ring = Entry::Branch(top.collect()).to_string();
    let names: Vec<String> = world.texts.keys().filter(|name| *name != "nodes.example").cloned().collect();
    names.iter().for_each(|name| world.say(name, &[&ring]));
    world.want(64);
    world.seconds(3_600);
    assert!(world.asked.len() < 20, "{}", world.asked.len());
    assert!(world.refused.iter().all(|why| *why == Refusal::Hash) && world.found.is_empty());
}

#[test]
fn lists_that_link_in_a_ring_are_each_followed_once() {
    let (a, b, c) = (link(1, "a.example"), link(2, "b.example"), link(3, "c.example"));
    let lists = [
        list(1, "a.example", 1, &records(0, 5), std::slice::from_ref(&b)),
        list(2, "b.example", 1, &records(5, 10), &[c.clone(), a.clone()]),
        list(3, "c.example", 1, &records(10, 15), &[a, b, c]),
    ];
    let mut world = World::following(&lists.iter().collect::<Vec<_>>());
    world.want(64);
    world.seconds(60);
    assert_eq!((world.ids().len(), world.driver.machine().size().0), (15, 3));
    assert_eq!(world.refused, []);
}

#[test]
fn links_are_followed_four_steps_far_and_not_beyond_what_may_be() {
    let names: Vec<String> = (0..8).map(|n| format!("n{n}.example")).collect();
    let lists: Vec<SignedList> = (0..8u8)
        .map(|n| {
            let next = names.get(usize::from(n) + 1).map(|name| link(n + 1, name));
            let n16 = u16::from(n);
            list(n, &names[usize::from(n)], 1, &records(n16, n16 + 1), &next.into_iter().collect::<Vec<_>>())
        })
        .collect();
    let mut world = World::following(&lists.iter().collect::<Vec<_>>());
    world.want(64);
    world.seconds(60);
    assert_eq!((world.ids().len(), world.driver.machine().size().0), (5, 5), "the first, and four steps");
    assert_eq!(world.refused, [Refusal::TooManyLinks]);
}

#[test]
fn one_list_cannot_take_the_places_of_others() {
    let many: Vec<ListLink> = (0..100).map(|n| link(9, &format!("n{n}.example"))).collect();
    let lists = [list(1, "a.example", 1, &[], &many), list(2, "b.example", 1, &[], &[link(3, "c.example")])];
    let mut world = World::new(ListConfig::recommended(), &[lists[0].link().clone(), lists[1].link().clone()]);
    lists.iter().for_each(|list| world.serve(list));
    world.serve(&list(3, "c.example", 1, &records(0, 1), &[]));
    world.start();
    world.want(64);
    world.seconds(600);
    assert_eq!(world.driver.machine().size().0, 2 + 16 + 1);
    assert_eq!(world.ids().len(), 1, "the other's link is followed");
    assert!(world.refused.contains(&Refusal::TooManyLinks));
}

#[test]
fn a_list_that_is_not_linked_to_any_more_is_forgotten() {
    let (a, b) = ("a.example", link(2, "b.example"));
    let mut world = World::following(&[
        &list(1, a, 1, &records(0, 1), std::slice::from_ref(&b)),
        &list(2, "b.example", 1, &records(1, 2), &[]),
    ]);
    world.want(64);
    world.seconds(60);
    assert_eq!(world.driver.machine().size().0, 2);
    world.serve(&list(1, a, 2, &records(0, 1), &[]));
    world.seconds(1_800);
    world.want(64);
    world.seconds(60);
    assert_eq!(world.driver.machine().size().0, 1);
    world.asked.clear();
    world.seconds(7_200);
    assert!(world.asked.iter().all(|name| !name.contains("b.example")), "{:?}", world.asked);
}

#[test]
fn a_huge_list_is_read_as_far_as_its_nodes_are_kept() {
    let config = ListConfig { max_nodes: 50, max_entries: 400, ..ListConfig::recommended() };
    let huge = list(1, "nodes.example", 1, &records(0, 300), &[]);
    let mut world = World::new(config, &[huge.link().clone()]);
    world.serve(&huge);
    world.start();
    for _ in 0..10 {
        world.want(64);
        world.seconds(60);
    }
    assert!((50..60).contains(&world.ids().len()), "{}", world.ids().len());
    assert!(world.refused.contains(&Refusal::TooLarge));

    let config = ListConfig { max_entries: 60, ..ListConfig::recommended() };
    let mut world = World::new(config, &[huge.link().clone()]);
    world.serve(&huge);
    world.start();
    for _ in 0..10 {
        world.want(64);
        world.seconds(60);
        assert!(world.driver.machine().size().1 <= 60);
    }
    assert!(world.refused.contains(&Refusal::TooLarge));
}

#[test]
fn a_lookup_that_nobody_answers_is_given_up_and_does_not_hold_the_others_up() {
    let list = list(1, "nodes.example", 1, &records(0, 1), &[]);
    let silent = link(2, "silent.example");
    let config = ListConfig { at_once: 1, ..ListConfig::recommended() };
    let mut driver = Driver::new(ListMachine::new(config, network(), vec![silent, list.link().clone()], 7));
    let (mut now, mut found) = (Time::ZERO, 0);
    driver.handle(now, In::Start);
    driver.handle(now, In::Want(9));
    while found == 0 && now < Time::ZERO + Duration::from_secs(60) {
        for out in driver.take_outs() {
            match out {
                Out::Query { token, name } if !name.contains("silent") => {
                    let text = list.texts().find(|(at, _)| *at == name).map(|(_, text)| text.to_owned());
                    driver.handle(now, In::Answer { token, texts: text.into_iter().collect() });
                }
                Out::Found(records) => found += records.len(),
                _ => {}
            }
        }
        now += Duration::from_millis(50);
        driver.expire_due(now);
    }
    assert_eq!(found, 1);
}

#[test]
fn a_late_answer_and_an_answer_of_many_texts_are_harmless() {
    let list = list(1, "nodes.example", 1, &records(0, 1), &[]);
    let mut world = World::following(&[&list]);
    world.driver.handle(world.now, In::Answer { token: 999, texts: vec!["x".into(); 10] });
    let texts: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    world.texts.insert("nodes.example".into(), texts);
    world.seconds(3);
    assert_eq!(world.refused, [Refusal::NoRoot]);
}
