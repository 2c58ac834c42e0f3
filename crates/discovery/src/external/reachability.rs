//! Whether others can connect to this node: what they say who tried, and who came by themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use peerage_machine::Time;
use peerage_wire::address::{Site, is_local, site};
use serde::{Deserialize, Serialize};

/// Sites whose newest vote is remembered.
const VOTES: usize = 16;
/// The newest votes that decide.
const JURY: usize = 7;
/// Fewer decide nothing: two sites are one operator's too easily.
const QUORUM: usize = 3;
/// A vote is worth nothing after this time.
const VOTE_WINDOW: Duration = Duration::from_secs(30 * 60);
/// A connection that came from outside proves the way for so long.
const INBOUND_WINDOW: Duration = Duration::from_secs(60 * 60);

/// Whether a node can be dialled from outside its own network, as far as it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Reachable {
    /// Too few have said.
    #[default]
    Unknown,
    /// It can.
    Yes,
    /// It cannot.
    No,
}

impl Reachable {
    /// A word for people and programs.
    pub const fn label(self) -> &'static str {
        match self {
            Reachable::Unknown => "unknown",
            Reachable::Yes => "reachable",
            Reachable::No => "unreachable",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Vote {
    at: Time,
    dialable: bool,
}

/// Counts who could dial this node and who could not. Nobody decides it alone: one vote counts for each site (IPv4
/// /24, IPv6 /48), and those of the node's own networks count for nothing, as they need not come through its gateway.
#[derive(Clone, Debug, Default)]
pub struct Reachability {
    /// At most [`VOTES`].
    votes: BTreeMap<Site, Vote>,
    /// When somebody last came from outside.
    inbound: Option<Time>,
}

impl Reachability {
    /// Nothing is known.
    pub fn new() -> Reachability {
        Reachability::default()
    }

    /// The node at `by` tried to dial this one, having been asked to, and says how that went.
    pub fn vote(&mut self, now: Time, by: IpAddr, dialable: bool) {
        if is_local(by) {
            return;
        }
        self.votes.retain(|_, vote| now.since(vote.at) < VOTE_WINDOW);
        let site = site(by);
        if !self.votes.contains_key(&site) && self.votes.len() >= VOTES {
            let oldest = self.votes.iter().min_by_key(|(_, vote)| vote.at).map(|(site, _)| *site);
            oldest.map(|site| self.votes.remove(&site));
        }
        self.votes.insert(site, Vote { at: now, dialable });
    }

    /// A connection from `by` was accepted and became a peer: proof, if it came from outside.
    pub fn inbound(&mut self, now: Time, by: IpAddr) {
        if !is_local(by) {
            self.inbound = Some(now);
        }
    }

    /// The node has another address: what was said was said of the old one.
    pub fn forget(&mut self) {
        *self = Reachability::default();
    }

    /// What is known now: that somebody came is believed before what anybody says; else the majority of the newest
    /// votes, if they are enough.
    pub fn state(&self, now: Time) -> Reachable {
        if self.inbound.is_some_and(|at| now.since(at) < INBOUND_WINDOW) {
            return Reachable::Yes;
        }
        let mut votes: Vec<&Vote> = self.votes.values().filter(|vote| now.since(vote.at) < VOTE_WINDOW).collect();
        votes.sort_by_key(|vote| std::cmp::Reverse(vote.at));
        votes.truncate(JURY);
        let yes = votes.iter().filter(|vote| vote.dialable).count();
        let no = votes.len() - yes;
        match yes.cmp(&no) {
            _ if votes.len() < QUORUM => Reachable::Unknown,
            std::cmp::Ordering::Greater => Reachable::Yes,
            std::cmp::Ordering::Less => Reachable::No,
            std::cmp::Ordering::Equal => Reachable::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn site_number(number: u8) -> IpAddr {
        [20, 0, number, 1].into()
    }

    #[test]
    fn the_majority_of_distinct_sites_decides_once_there_are_three() {
        let mut reachability = Reachability::new();
        for number in 0..2 {
            reachability.vote(at(0), site_number(number), false);
            assert_eq!(reachability.state(at(0)), Reachable::Unknown);
        }
        reachability.vote(at(0), site_number(2), false);
        assert_eq!(reachability.state(at(0)), Reachable::No);
        for number in 3..7 {
            reachability.vote(at(1), site_number(number), true);
        }
        assert_eq!(reachability.state(at(1)), Reachable::Yes, "four of seven");
    }

    #[test]
    fn one_site_has_one_vote_however_many_of_its_hosts_speak() {
        let mut reachability = Reachability::new();
        for number in 0..3 {
            reachability.vote(at(0), site_number(number), true);
        }
        for host in 0..=255 {
            reachability.vote(at(1), [20, 0, 9, host].into(), false);
        }
        assert_eq!(reachability.state(at(1)), Reachable::Yes);
        assert_eq!(reachability.votes.len(), 4);
    }

    #[test]
    fn memory_is_bounded_without_being_read_and_the_newest_votes_count() {
        let mut reachability = Reachability::new();
        for number in 0..=255 {
            reachability.vote(at(number.into()), site_number(number), false);
            assert!(reachability.votes.len() <= VOTES);
        }
        for number in 0..4 {
            reachability.vote(at(300), site_number(number), true);
        }
        assert_eq!(reachability.state(at(300)), Reachable::Yes, "four of the last seven");
    }

    #[test]
    fn who_came_from_outside_is_believed_before_who_says_that_nobody_can() {
        let mut reachability = Reachability::new();
        for number in 0..7 {
            reachability.vote(at(0), site_number(number), false);
        }
        reachability.inbound(at(0), [192, 168, 0, 7].into());
        assert_eq!(reachability.state(at(0)), Reachable::No, "a neighbour proves nothing");
        reachability.inbound(at(1), [20, 0, 0, 1].into());
        assert_eq!(reachability.state(at(1)), Reachable::Yes);
    }

    #[test]
    fn what_is_old_or_of_another_address_is_forgotten_and_neighbours_have_no_vote() {
        let mut reachability = Reachability::new();
        for number in 0..5 {
            reachability.vote(at(0), site_number(number), true);
            reachability.vote(at(0), [192, 168, number, 1].into(), false);
        }
        assert_eq!(reachability.state(at(0)), Reachable::Yes);
        assert_eq!(reachability.state(at(30 * 60)), Reachable::Unknown);
        reachability.inbound(at(0), site_number(0));
        assert_eq!(reachability.state(at(30 * 60)), Reachable::Yes);
        assert_eq!(reachability.state(at(60 * 60)), Reachable::Unknown);
        reachability.forget();
        assert_eq!(reachability.state(at(0)), Reachable::Unknown);
    }
}
