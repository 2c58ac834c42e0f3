//! What the scenario itself does, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_gossip::Topic;
use peerage_machine::Rng;

use super::held;
use super::people::{People, policy};
use super::{Act, RunError, Stage};
use crate::engine::{HostId, Links};
use crate::invariants::Happening;
use crate::node::{Command, Descriptor, seed_of};
use crate::scenario::{Action, Event, Scenario};

/// One thing to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A node starts for the first time.
    Start(HostId),
    /// A node starts again.
    Restart { host: HostId, keep: bool },
    /// A node crashes.
    Stop(HostId),
    /// A message is published.
    Publish(usize),
    /// Somebody asks.
    Ask(usize),
    /// A node is looked for.
    Lookup(u64),
    /// An action of the timeline; also when one repeats.
    Act(usize),
    /// A host reads again.
    Read(HostId),
    /// A host reads no more.
    Deafen(HostId),
    /// Look at everybody.
    Look,
    /// Look at what they hold.
    Hold,
    /// All have started, and nothing but themselves occupies them.
    Settled,
}

/// Steps by time; of those at one moment, in the order of their entry.
pub(super) struct Agenda {
    steps: BTreeMap<(Duration, u64), Step>,
    entered: u64,
    pub(super) rng: Rng,
}

impl Agenda {
    pub(super) fn of(scenario: &Scenario, seed: u64, people: &People) -> Agenda {
        let mut agenda = Agenda { steps: BTreeMap::new(), entered: 0, rng: Rng::new(seed_of(seed, u64::MAX, 1)) };
        for (host, person) in people.iter().filter(|(_, person)| person.starts < Duration::MAX) {
            agenda.enter(person.starts, Step::Start(host));
            if let Some(after) = person.deaf_after {
                agenda.enter(person.starts + after, Step::Deafen(host));
            }
        }
        for (index, event) in scenario.timeline.iter().enumerate() {
            agenda.enter(event.at.get(), Step::Act(index));
        }
        let mut first = scenario.duration.get();
        for (traffic, of) in scenario.traffic.iter().enumerate() {
            first = first.min(of.from.get());
            for index in 0..of.messages() {
                agenda.enter(of.moment(index), Step::Publish(traffic));
            }
        }
        for (requests, of) in scenario.requests.iter().enumerate() {
            first = first.min(of.from.get());
            for index in 0..of.requests() {
                agenda.enter(of.moment(index), Step::Ask(requests));
            }
        }
        let mut number = 0;
        for lookups in &scenario.lookups {
            let span = lookups.until.get().saturating_sub(lookups.from.get());
            for nth in 0..lookups.count {
                agenda.enter(lookups.from.get() + span * nth / lookups.count.max(1), Step::Lookup(number));
                number += 1;
            }
        }
        agenda.enter(first, Step::Settled);
        // A look at ten thousand nodes each second would cost as much as what they do, and so would a look each second of
        // a day.
        let end = scenario.duration.get();
        let hours = end.as_secs() / 3_600;
        agenda.each(Duration::from_secs(1 + people.len() as u64 / 2_000 + hours), end, Step::Look);
        if scenario.held_from.is_some() {
            agenda.each(held::every(end), end, Step::Hold);
        }
        agenda
    }

    /// The same again and again.
    fn each(&mut self, every: Duration, end: Duration, step: Step) {
        let mut at = every;
        while at < end {
            self.enter(at, step);
            at += every;
        }
    }

    pub(super) fn enter(&mut self, at: Duration, step: Step) {
        self.entered += 1;
        self.steps.insert((at, self.entered), step);
    }

    pub(super) fn next(&mut self, end: Duration) -> Option<(Duration, Step)> {
        let ((at, _), step) = self.steps.pop_first()?;
        (at < end).then_some((at, step))
    }
}

impl Stage<'_> {
    /// So many of the honest nodes that run, drawn by lot; bootnodes too.
    fn draw(&mut self, share: crate::scenario::Share) -> Vec<HostId> {
        let mut running: Vec<HostId> =
            self.people.honest().map(|(host, _)| host).filter(|host| self.world.node(*host).is_some()).collect();
        let count = share.of(running.len() as u64) as usize;
        self.agenda.rng.sample(&mut running, count).to_vec()
    }

    pub(super) fn publish(&mut self, traffic: usize) {
        let of = &self.scenario.traffic[traffic];
        let Ok(topic) = Topic::new(&of.topic) else { return };
        let publishers = of.publishers.of(u64::from(self.scenario.population.nodes)).max(1);
        // The same part of the nodes publishes all along; of them, one that runs.
        let mut running: Vec<HostId> = (0..publishers as u32).map(HostId).collect();
        running.retain(|host| self.world.node(*host).is_some());
        let Some(chosen) = self.agenda.rng.index(running.len()) else { return };
        let range = of.size.max.bytes() - of.size.min.bytes();
        let size = of.size.min.bytes() + self.agenda.rng.below(range + 1);
        let what = Descriptor {
            number: self.watch.published(&self.world, &self.people, &topic),
            size: u32::try_from(size).unwrap_or(u32::MAX),
        };
        self.watch.sized(self.world.now(), what);
        let (host, policy) = (running[chosen], policy(of.policy));
        self.did(|| Act::Publish { host: host.0, topic: topic.clone(), policy, what });
        self.world.command(host, Command::Publish { topic, policy, what });
    }

    pub(super) fn ask(&mut self, service: usize) {
        self.did(|| Act::Other("requests"));
        let of = &self.scenario.requests[service];
        let askers = of.askers.of(u64::from(self.scenario.population.nodes)).max(1);
        let mut running: Vec<HostId> = (0..askers as u32).map(HostId).collect();
        running.retain(|host| self.world.node(*host).is_some());
        let Some(chosen) = self.agenda.rng.index(running.len()) else { return };
        let asker = running[chosen];
        let size = u32::try_from(of.question.bytes()).unwrap_or(u32::MAX);
        let member = self.people.members().contains_key(&self.people[asker].id);
        let what = Descriptor { number: self.watch.requests.asks(member), size };
        self.world.command(asker, Command::Ask { service, what });
    }

    pub(super) fn look_up(&mut self, number: u64) {
        self.did(|| Act::Other("lookups"));
        let running: Vec<HostId> =
            self.people.honest().map(|(host, _)| host).filter(|host| self.world.node(*host).is_some()).collect();
        let Some(chosen) = self.agenda.rng.index(running.len()) else { return };
        let target = peerage_wire::NodeId::from_bytes(self.agenda.rng.bytes());
        let by = running[chosen];
        self.watch.asked(&self.world, &self.people, number, (by, target));
        self.world.command(by, Command::Lookup { token: number, target });
    }

    pub(super) fn act(&mut self, index: usize) -> Result<(), RunError> {
        let scenario = self.scenario;
        let event = &scenario.timeline[index];
        let now = self.world.now();
        match &event.action {
            Action::Partition { shares } => {
                let mut hosts: Vec<u32> = (0..self.world.hosts() as u32).collect();
                let all = hosts.len();
                self.agenda.rng.sample(&mut hosts, all);
                let mut sides = vec![0_u8; all];
                let mut rest = hosts.as_slice();
                for (side, share) in shares.iter().enumerate() {
                    let (group, left) = rest.split_at((share.of(all as u64) as usize).min(rest.len()));
                    group.iter().for_each(|host| sides[*host as usize] = side as u8);
                    rest = left;
                }
                self.world.partition(|host| sides[host.0 as usize]);
                self.did(|| Act::Partition(sides));
                self.watch.happened(now, Happening::Parted);
            }
            Action::Cut { from, to } => {
                let region = |name: &str| {
                    let known = Links::REGIONS.iter().position(|known| *known == name);
                    let known = known.filter(|region| *region < self.world.regions());
                    let words = || format!("there is no region `{name}`: there are {}", Links::REGIONS.join(", "));
                    known.map(|region| region as u8).ok_or_else(|| RunError::Unplayable(words()))
                };
                let pair = (region(from)?, region(to)?);
                self.did(|| Act::Other("a cut between regions"));
                self.world.cut_regions(pair);
                self.watch.happened(now, Happening::Parted);
            }
            Action::Heal => {
                self.did(|| Act::Heal);
                self.world.heal();
                self.watch.happened(now, Happening::Healed);
            }
            Action::Crash { share, restart_after, keep } => {
                let (after, keep) = (*restart_after, *keep);
                for host in self.draw(*share) {
                    self.stop(host);
                    if let Some(after) = after {
                        self.agenda.enter(now + after.get(), Step::Restart { host, keep });
                    }
                }
            }
            Action::RestartAll { within, keep } => {
                let (within, keep) = (within.get().as_nanos() as u64, *keep);
                for host in self.draw(crate::scenario::Share::ALL) {
                    let at = now + Duration::from_nanos(self.agenda.rng.below(within.max(1)));
                    self.agenda.enter(at, Step::Stop(host));
                    self.agenda.enter(at, Step::Restart { host, keep });
                }
            }
            Action::Churn { every, share, down_for, until, keep } => {
                let (every, down_for, until, keep) = (every.get(), down_for.get(), until.get(), *keep);
                for host in self.draw(*share) {
                    self.stop(host);
                    self.agenda.enter(now + down_for, Step::Restart { host, keep });
                }
                if now + every < until {
                    self.agenda.enter(now + every, Step::Act(index));
                }
            }
            Action::SlowReader { share, lasts } => {
                self.did(|| Act::Other("slow readers"));
                let until = now + lasts.get();
                for host in self.draw(*share) {
                    self.reads(host, false);
                    self.agenda.enter(until, Step::Read(host));
                }
            }
            Action::ClockStep { share, by } => {
                self.did(|| Act::Other("clock steps"));
                let millis = i64::try_from(by.by.get().as_millis()).unwrap_or(i64::MAX);
                let millis = if by.back { -millis } else { millis };
                for host in self.draw(*share) {
                    self.world.step_clock(host, millis);
                }
            }
            Action::Join { nodes, within } => {
                let before = joining(&self.scenario.timeline[..index]);
                let first = self.scenario.population.nodes + before;
                for host in (first..first + nodes).map(HostId) {
                    let late = self.agenda.rng.below((within.get().as_nanos() as u64).max(1));
                    self.agenda.enter(now + Duration::from_nanos(late), Step::Start(host));
                }
            }
        }
        Ok(())
    }
}

/// How many nodes join in these events.
pub(super) fn joining(events: &[Event]) -> u32 {
    let joins = events.iter().map(|event| match event.action {
        Action::Join { nodes, .. } => nodes,
        _ => 0,
    });
    joins.sum()
}
