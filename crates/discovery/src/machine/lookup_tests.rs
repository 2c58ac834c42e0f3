use std::net::SocketAddr;

use peerage_wire::{Keypair, NetworkId, RecordDraft};

use super::*;

fn contact(number: u16) -> Contact {
    let mut seed = [3; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    let addr = SocketAddr::from(([20, 0, 0, 1], 30303));
    let record = RecordDraft::new(1, NetworkId::named("test")).sign(&Keypair::from_seed(seed)).expect("small");
    Contact::new(addr, record)
}

fn target() -> Key {
    Key::of(contact(9_999).id)
}

/// Contacts from the nearest to the target to the farthest.
fn ordered(numbers: std::ops::Range<u16>) -> Vec<Contact> {
    let mut contacts: Vec<Contact> = numbers.map(contact).collect();
    contacts.sort_by_key(|contact| contact.key.distance(&target()));
    contacts
}

fn lookup(paths: usize, known: &[Contact]) -> Lookup {
    Lookup::new(contact(10_000).id, target(), Asker::Refresh, paths, known.iter().cloned())
}

/// Asks until nobody is left; each node answers with whom `tells` has it tell, or does not answer.
fn walk(lookup: &mut Lookup, mut tells: impl FnMut(NodeId) -> Option<Vec<Contact>>) {
    while !lookup.finished() || lookup.next().is_some_and(|contact| tell(lookup, &mut tells, &contact)) {}

    fn tell(lookup: &mut Lookup, tells: &mut impl FnMut(NodeId) -> Option<Vec<Contact>>, contact: &Contact) -> bool {
        let told = tells(contact.id);
        let answered = told.is_some();
        for other in told.unwrap_or_default() {
            lookup.see(other, &contact.key);
        }
        lookup.done(contact.id, answered);
        true
    }
}

#[test]
fn three_questions_are_under_way_one_on_each_path() {
    let known = ordered(0..9);
    let mut lookup = lookup(3, &known);
    let asked: Vec<NodeId> = std::iter::from_fn(|| lookup.next()).map(|contact| contact.id).collect();
    assert_eq!(asked, [known[0].id, known[1].id, known[2].id]);
    assert!(lookup.paths.iter().all(|path| path.in_flight == 1));
    assert!(!lookup.finished());
}

#[test]
fn the_nearest_sixteen_of_an_honest_network_are_found_by_one_path_and_by_three() {
    let all = ordered(0..200);
    for paths in [1, 3] {
        let mut lookup = lookup(paths, &all[150..166]);
        // Everybody tells of the sixteen nodes that are next nearer to the target than itself.
        walk(&mut lookup, |id| {
            let place = all.iter().position(|contact| contact.id == id)?;
            let from = place.saturating_sub(60);
            Some(all[from..(from + 16).min(all.len())].to_vec())
        });
        let found: Vec<NodeId> = lookup.result().iter().map(|record| record.id()).collect();
        assert_eq!(found, all[..16].iter().map(|contact| contact.id).collect::<Vec<_>>(), "{paths} paths");
        assert_eq!(lookup.hops(), 3, "{paths} paths");
        assert!(lookup.queries() <= 40, "{} questions on {paths} paths", lookup.queries());
    }
}

/// Two honest nodes are known, and a liar: whoever it is or invented tells of nobody but more of its inventions, each
/// nearer than the last, and every one of them answers. How many of the nearest honest nodes answered, and how many
/// questions went to the liar.
fn beside_a_liar(paths: usize) -> (usize, usize) {
    let all = ordered(0..900);
    let (invented, honest) = all.split_at(600);
    let known = [&honest[0], &honest[250], &honest[251]].map(Clone::clone);
    let honest = &honest[1..];
    let mut lookup = lookup(paths, &known);
    let (mut lies, mut asked) = (invented.chunks(16).rev(), 0);
    walk(&mut lookup, |id| match honest.iter().position(|contact| contact.id == id) {
        Some(place) => Some(honest[place.saturating_sub(60)..][..16].to_vec()),
        None => {
            asked += 1;
            Some(lies.next().unwrap_or_default().to_vec())
        }
    });
    let answered = |contact: &&Contact| {
        lookup.seen.get(&contact.key.distance(&target())).is_some_and(|step| step.state == State::Answered)
    };
    (honest[..16].iter().filter(answered).count(), asked)
}

#[test]
fn a_liar_who_always_knows_somebody_nearer_spoils_its_own_path_only() {
    let (reached, asked) = beside_a_liar(3);
    assert!(reached >= 6, "only {reached} of the nearest honest nodes were asked");
    assert!(asked <= MAX_QUERIES / 3, "{asked} questions went to the liar");
    assert_eq!(beside_a_liar(1).0, 0, "the only path is led away");
}

#[test]
fn a_path_of_invented_nodes_is_given_up_before_they_have_cost_much_time() {
    let all = ordered(0..900);
    let (invented, honest) = all.split_at(600);
    let known = [&honest[0], &honest[250], &honest[251]].map(Clone::clone);
    let (liar, honest) = (honest[0].id, &honest[1..]);
    let mut lookup = lookup(3, &known);
    let mut waited = 0;
    walk(&mut lookup, |id| {
        if id == liar {
            return Some(invented[..16].to_vec());
        }
        let place = honest.iter().position(|contact| contact.id == id);
        waited += usize::from(place.is_none());
        place.map(|place| honest[place.saturating_sub(60)..][..16].to_vec())
    });
    assert!(waited <= MAX_FAILURES + ALPHA, "{waited} time-outs");
    let found: Vec<NodeId> = lookup.result().iter().map(|record| record.id()).collect();
    assert!(found.contains(&liar), "it is the nearest, and answered");
    assert!(honest[..15].iter().all(|contact| found.contains(&contact.id)));
}

#[test]
fn a_node_whose_answer_was_lost_is_asked_once_more_at_the_end() {
    let all = ordered(0..16);
    let mut lookup = lookup(3, &all);
    let mut asked: BTreeMap<NodeId, u32> = BTreeMap::new();
    let (lossy, dead) = (all[2].id, all[5].id);
    let mut order = Vec::new();
    walk(&mut lookup, |id| {
        order.push(id);
        let times = asked.entry(id).or_default();
        *times += 1;
        let lost = id == lossy && *times == 1 || id == dead;
        (!lost).then(Vec::new)
    });
    assert_eq!((asked[&lossy], asked[&dead]), (2, 2));
    assert_eq!(order.len(), 18);
    assert!(order[16..].contains(&lossy) && order[16..].contains(&dead), "after everybody else");
    let found: Vec<NodeId> = lookup.result().iter().map(|record| record.id()).collect();
    assert!(found.contains(&lossy) && !found.contains(&dead));
}

#[test]
fn what_a_path_remembers_is_bounded_and_no_answer_that_is_waited_for_is_forgotten() {
    let all = ordered(0..600);
    let mut lookup = lookup(3, &all[597..]);
    let asked = [lookup.next(), lookup.next(), lookup.next()].map(|contact| contact.expect("three paths").id);
    for (nth, contact) in all[..590].iter().rev().enumerate() {
        lookup.see(contact.clone(), &Key::of(asked[nth % 3]));
    }
    assert!(lookup.seen.len() <= MAX_SEEN, "{}", lookup.seen.len());
    asked.into_iter().for_each(|id| lookup.done(id, true));
    assert_eq!(lookup.in_flight(), 0);
}

#[test]
fn a_lookup_that_asked_nobody_gives_what_it_knew() {
    let all = ordered(0..20);
    assert_eq!(lookup(3, &all).result().len(), 16);
    assert_eq!(lookup(3, &[]).result().len(), 0);
}
