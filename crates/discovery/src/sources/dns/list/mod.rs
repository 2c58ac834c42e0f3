//! Following lists: which entry is looked up when, what of an answer is believed, and what is bounded.
//!
//! An answer is worth nothing by itself: a root must be signed by its list's key and never be older than the last one,
//! every other text must have the hash that it was asked for by. So whoever stands between can withhold, and nothing
//! else. A list's own publisher is bounded in what it makes this node look up and keep ([`ListConfig`]).
//!
//! Entries are looked up at random, so that the nodes of a large list share the work of newcomers, and only as far as
//! nodes are wanted. Lists that a list links to are followed like it, each with the same say.

mod messages;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use peerage_machine::{Effects, Machine, Rng, Time};
use peerage_wire::{NetworkId, NodeRecord, Verified};

use super::entry::{Entry, Hash, ListLink, Root};
use crate::source::MAX_OFFER;
pub use messages::{In, ListConfig, Out, Refusal, Timer};
use tree::{Known, Part, Tree};

/// Texts of one answer that are looked at: there may be others at a domain's name, as of mail.
const MAX_TEXTS: usize = 32;
/// Roots among them whose signatures are checked.
const MAX_ROOTS: usize = 4;
/// Lookups of an entry that may fail before it is left for the next version of the list.
const MAX_FAILURES: u8 = 3;

/// What a lookup is for.
enum Asked {
    Root,
    Entry(Part, Hash),
}

type Fx = Effects<Out, Timer>;

/// See the module. Hashes and signatures of what is looked up are checked inline: there are ten a second at most.
pub struct ListMachine {
    config: ListConfig,
    network: NetworkId,
    /// Those that the user named.
    named: Vec<ListLink>,
    rng: Rng,
    trees: BTreeMap<ListLink, Tree>,
    open: BTreeMap<u64, (ListLink, Asked)>,
    next_token: u64,
    wanted: usize,
    /// When the next lookup may be made.
    free_at: Time,
}

impl ListMachine {
    /// Follows these lists for nodes of `network`. `seed` decides the order of lookups.
    pub fn new(config: ListConfig, network: NetworkId, mut named: Vec<ListLink>, seed: u64) -> ListMachine {
        named.truncate(config.max_lists);
        ListMachine {
            config,
            network,
            named,
            rng: Rng::new(seed),
            trees: BTreeMap::new(),
            open: BTreeMap::new(),
            next_token: 0,
            wanted: 0,
            free_at: Time::ZERO,
        }
    }

    /// How many lists are followed, and how many entries of them are kept or about to be.
    pub fn size(&self) -> (usize, usize) {
        (self.trees.len(), self.trees.values().map(Tree::len).sum())
    }

    fn add(&mut self, now: Time, link: ListLink, depth: usize, fx: &mut Fx) {
        fx.arm(Timer::Root(link.clone()), now);
        self.trees.insert(link, Tree::new(depth));
    }

    fn query(&mut self, now: Time, link: ListLink, asked: Asked, fx: &mut Fx) {
        let name = match &asked {
            Asked::Root => link.domain().to_owned(),
            Asked::Entry(_, hash) => link.name_of(*hash),
        };
        self.next_token += 1;
        self.open.insert(self.next_token, (link, asked));
        self.free_at = now + self.config.pace;
        fx.arm(Timer::Query(self.next_token), now + self.config.timeout);
        fx.emit(Out::Query { token: self.next_token, name });
    }

    /// Looks up what is due, as far as lookups are free; roots before entries.
    fn go_on(&mut self, now: Time, fx: &mut Fx) {
        while self.open.len() < self.config.at_once {
            if now < self.free_at {
                return fx.arm(Timer::Pace, self.free_at);
            }
            let due: Vec<&ListLink> = self.trees.iter().filter(|(_, t)| t.root_due).map(|(link, _)| link).collect();
            if let Some(link) = self.rng.index(due.len()).map(|at| due[at].clone()) {
                self.trees.entry(link.clone()).and_modify(|tree| tree.root_due = false);
                self.query(now, link, Asked::Root, fx);
                continue;
            }
            if self.wanted == 0 {
                return;
            }
            // Each list has the same say, however large it is.
            let open: Vec<&ListLink> =
                self.trees.iter().filter(|(_, t)| !t.missing.is_empty()).map(|(link, _)| link).collect();
            let Some(link) = self.rng.index(open.len()).map(|at| open[at].clone()) else { return self.repeat(fx) };
            let Some(tree) = self.trees.get_mut(&link) else { return };
            let Some(at) = self.rng.index(tree.missing.len()) else { return };
            let (part, hash) = tree.missing.swap_remove(at);
            // It may have come meanwhile, as a part of the other tree.
            match tree.known.get(&hash).cloned() {
                Some(known) => self.learnt(now, &link, part, known, fx),
                None => self.query(now, link, Asked::Entry(part, hash), fx),
            }
        }
    }

    /// All that there is has been looked up: who still wants nodes gets some of them again.
    fn repeat(&mut self, fx: &mut Fx) {
        if !self.open.is_empty() {
            return;
        }
        let mut nodes: Vec<&Verified<NodeRecord>> = self.trees.values().flat_map(Tree::nodes).collect();
        let found: Vec<_> = self.rng.sample(&mut nodes, self.wanted.min(MAX_OFFER)).iter().copied().cloned().collect();
        // Who waits for the first ones goes on waiting.
        if !found.is_empty() {
            self.wanted = 0;
            fx.emit(Out::Found(found));
        }
    }

    fn answered(&mut self, now: Time, token: u64, mut texts: Vec<String>, fx: &mut Fx) {
        let Some((link, asked)) = self.open.remove(&token) else { return };
        fx.disarm(Timer::Query(token));
        texts.truncate(MAX_TEXTS);
        match asked {
            Asked::Root => self.root(now, &link, &texts, fx),
            Asked::Entry(part, hash) => match texts.iter().find(|text| Hash::of(text) == hash) {
                Some(text) => self.entry(now, &link, part, hash, text, fx),
                None => {
                    fx.emit(Out::Refused { link: link.clone(), why: Refusal::Hash });
                    self.missed(&link, part, hash);
                }
            },
        }
        self.tidy(&link, fx);
    }

    fn failed(&mut self, now: Time, token: u64, fx: &mut Fx) {
        let Some((link, asked)) = self.open.remove(&token) else { return };
        fx.disarm(Timer::Query(token));
        fx.emit(Out::Failed { link: link.clone(), root: matches!(asked, Asked::Root) });
        match asked {
            Asked::Root => self.no_root(now, &link, fx),
            Asked::Entry(part, hash) => self.missed(&link, part, hash),
        }
        self.tidy(&link, fx);
    }

    fn root(&mut self, now: Time, link: &ListLink, texts: &[String], fx: &mut Fx) {
        let Some(tree) = self.trees.get_mut(link) else { return };
        let roots = texts.iter().filter(|text| Root::is_root(text)).take(MAX_ROOTS);
        let newest = roots.filter_map(|text| Root::verify(text, &link.key).ok()).max_by_key(|root| root.seq);
        let Some(newest) = newest else {
            fx.emit(Out::Refused { link: link.clone(), why: Refusal::NoRoot });
            return self.no_root(now, link, fx);
        };
        if tree.root.as_ref().is_some_and(|root| newest.seq < root.seq || newest.seq == root.seq && newest != *root) {
            fx.emit(Out::Refused { link: link.clone(), why: Refusal::OldRoot });
            return self.no_root(now, link, fx);
        }
        tree.root_failures = 0;
        fx.arm(Timer::Root(link.clone()), now + self.config.recheck);
        if tree.root.as_ref() != Some(&newest) {
            fx.emit(Out::Accepted { link: link.clone(), seq: newest.seq });
        } else if !tree.gave_up {
            return;
        }
        tree.begin(newest.clone());
        self.visit(now, link, Part::Nodes, newest.nodes, fx);
        self.visit(now, link, Part::Links, newest.links, fx);
    }

    fn no_root(&mut self, now: Time, link: &ListLink, fx: &mut Fx) {
        let Some(tree) = self.trees.get_mut(link) else { return };
        tree.root_failures = tree.root_failures.saturating_add(1);
        let pause = self.config.retry.delay(tree.root_failures, &mut self.rng);
        fx.arm(Timer::Root(link.clone()), now + pause);
    }

    /// An entry was not to be had now. It may be of a version that is not everywhere yet.
    fn missed(&mut self, link: &ListLink, part: Part, hash: Hash) {
        let Some(tree) = self.trees.get_mut(link) else { return };
        let failures = tree.failures.entry(hash).or_default();
        *failures += 1;
        if *failures < MAX_FAILURES {
            tree.missing.push((part, hash));
        } else {
            tree.gave_up = true;
        }
    }

    /// A text that has the hash it was asked for by: what it says is what the list says.
    fn entry(&mut self, now: Time, link: &ListLink, part: Part, hash: Hash, text: &str, fx: &mut Fx) {
        // What it is does not depend on where it is asked for: it may be an entry of both trees.
        let known = match text.parse::<Entry>() {
            Ok(Entry::Branch(children)) => Ok(Known::Branch(children)),
            Ok(Entry::Node(record)) => match record.verify() {
                Ok(record) if record.network() == self.network => Ok(Known::Node(record)),
                Ok(_) => Err(Refusal::Network),
                Err(_) => Err(Refusal::Entry),
            },
            Ok(Entry::Link(other)) => Ok(Known::Link(other)),
            Err(_) => Err(Refusal::Entry),
        };
        let known = known.unwrap_or_else(|why| {
            fx.emit(Out::Refused { link: link.clone(), why });
            Known::Refused
        });
        let Some(tree) = self.trees.get_mut(link) else { return };
        // The list may have a new version since it was asked for, of which this is no part.
        if tree.is_part(part, hash) {
            tree.known.insert(hash, known.clone());
            self.learnt(now, link, part, known, fx);
        }
    }

    fn learnt(&mut self, now: Time, link: &ListLink, part: Part, known: Known, fx: &mut Fx) {
        match (known, part) {
            (Known::Branch(children), _) => {
                for child in children {
                    self.visit(now, link, part, child, fx);
                }
            }
            (Known::Node(record), Part::Nodes) => {
                let Some(tree) = self.trees.get_mut(link) else { return };
                tree.node_count += 1;
                if tree.node_count >= self.config.max_nodes {
                    tree.missing.retain(|(part, _)| *part != Part::Nodes);
                    fx.emit(Out::Refused { link: link.clone(), why: Refusal::TooLarge });
                }
                if self.wanted > 0 {
                    self.wanted -= 1;
                    fx.emit(Out::Found(vec![record]));
                }
            }
            (Known::Link(other), Part::Links) => self.follow(now, link, other, fx),
            (Known::Node(_), Part::Links) | (Known::Link(_), Part::Nodes) => {
                fx.emit(Out::Refused { link: link.clone(), why: Refusal::Kind });
            }
            (Known::Refused, _) => {}
        }
    }

    /// Goes on at an entry that is part of the list, and where what is known of it leads.
    fn visit(&mut self, now: Time, link: &ListLink, part: Part, hash: Hash, fx: &mut Fx) {
        let mut waiting = vec![hash];
        while let Some(hash) = waiting.pop() {
            let room = self.config.max_entries > self.trees.values().map(Tree::len).sum();
            let Some(tree) = self.trees.get_mut(link) else { return };
            // A part that was reached before is not walked again: neither rings nor many ways to one entry cost more.
            if tree.is_part(part, hash) {
                continue;
            }
            if !room || part == Part::Nodes && tree.node_count >= self.config.max_nodes {
                return fx.emit(Out::Refused { link: link.clone(), why: Refusal::TooLarge });
            }
            match tree.reach(part, hash) {
                None => tree.missing.push((part, hash)),
                Some(Known::Branch(children)) => waiting.extend(children),
                // It was found in an earlier version.
                Some(Known::Node(_)) if part == Part::Nodes => tree.node_count += 1,
                Some(known) => self.learnt(now, link, part, known, fx),
            }
        }
    }

    fn follow(&mut self, now: Time, from: &ListLink, to: ListLink, fx: &mut Fx) {
        let Some(tree) = self.trees.get_mut(from) else { return };
        let depth = tree.depth + 1;
        if tree.links.len() >= self.config.max_links && !tree.links.contains(&to) {
            return fx.emit(Out::Refused { link: from.clone(), why: Refusal::TooManyLinks });
        }
        tree.links.insert(to.clone());
        if self.trees.contains_key(&to) {
            return;
        }
        if depth > self.config.max_depth || self.trees.len() >= self.config.max_lists {
            return fx.emit(Out::Refused { link: from.clone(), why: Refusal::TooManyLinks });
        }
        self.add(now, to, depth, fx);
    }

    /// Once all of a list has been looked up, lists that nothing links to any more are forgotten.
    fn tidy(&mut self, link: &ListLink, fx: &mut Fx) {
        let complete = |tree: &Tree| tree.root.is_some() && tree.missing.is_empty();
        if self.open.values().any(|(of, _)| of == link) || !self.trees.get(link).is_some_and(complete) {
            return;
        }
        if let Some(tree) = self.trees.get_mut(link) {
            tree.finish();
        }
        let mut reached: BTreeSet<ListLink> = self.named.iter().cloned().collect();
        let mut waiting: Vec<ListLink> = self.named.clone();
        while let Some(link) = waiting.pop() {
            let links = self.trees.get(&link).into_iter().flat_map(|tree| tree.links.union(&tree.old_links));
            waiting.extend(links.filter(|link| reached.insert((*link).clone())).cloned());
        }
        self.trees.retain(|link, _| {
            let kept = reached.contains(link);
            if !kept {
                fx.disarm(Timer::Root(link.clone()));
            }
            kept
        });
    }
}

impl Machine for ListMachine {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Fx) {
        match input {
            In::Start => {
                self.free_at = now;
                for link in self.named.clone() {
                    self.add(now, link, 0, fx);
                }
            }
            In::Want(count) => self.wanted = count,
            In::Answer { token, texts } => self.answered(now, token, texts, fx),
            In::Failed { token } => self.failed(now, token, fx),
        }
        self.go_on(now, fx);
    }

    fn expire(&mut self, now: Time, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Query(token) => self.failed(now, token, fx),
            Timer::Pace => {}
            Timer::Root(link) => {
                if let Some(tree) = self.trees.get_mut(&link) {
                    tree.root_due = true;
                }
            }
        }
        self.go_on(now, fx);
    }
}

#[cfg(test)]
mod tests;
