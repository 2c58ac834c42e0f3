//! Plays a scenario: builds its world, lets things happen, watches, and reports.

mod agenda;
mod asking;
mod held;
mod measure;
mod people;
mod record;
mod results;
mod watch;

use std::time::{Duration, Instant};

use crate::engine::World;
use crate::invariants::{Happening, Invariant};
#[cfg(feature = "planted-bugs")]
use crate::node::Bug;
use crate::node::PeerageNode;
use crate::report::{Cost, Report};
use crate::scenario::Scenario;
use crate::{HostId, resident_bytes};

use self::agenda::{Agenda, Step};
pub use self::people::{People, Person, config};
pub use self::record::{Account, Act, Player, Recording, record};
use self::watch::Watch;

/// Why a scenario cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something in it has no room: too many nodes for the addresses, an agent that is too long.
    #[error("the scenario cannot be played: {0}")]
    Unplayable(String),
}

/// Plays a scenario once. Everything in the report but its cost is a function of the scenario and the seed.
///
/// # Errors
/// [`RunError`].
pub fn run(scenario: &Scenario, seed: u64) -> Result<Report, RunError> {
    run_with(scenario, seed, Options::default())
}

/// What is special about one run.
///
/// ```
/// use std::time::Duration;
/// use peerage_sim::HostId;
/// use peerage_sim::invariants::{Invariant, Scene, Seen, Verdict};
/// use peerage_sim::run::{Options, run_with};
/// use peerage_sim::scenario::Scenario;
///
/// /// After half a minute nobody is alone.
/// struct Company;
///
/// impl Invariant for Company {
///     fn name(&self) -> &'static str { "company" }
///
///     fn saw(&mut self, scene: &Scene<'_>, host: HostId, seen: &Seen) -> Verdict {
///         let alone = seen.peers.is_empty() && scene.now > Duration::from_secs(30);
///         if alone { Err(format!("host {} is alone", host.0)) } else { Ok(()) }
///     }
/// }
///
/// let text = r#"
///     name = "ten"
///     about = "Ten nodes find each other."
///     seeds = 1
///     duration = "40s"
///     [population]
///     nodes = 10
///     [[expect]]
///     metric = "components"
///     equals = 1
/// "#;
/// let scenario = Scenario::parse("ten.toml", text)?;
/// let report = run_with(&scenario, 1, Options::default().held_to(Company))?;
/// assert!(report.violations.is_empty(), "{:?}", report.violations);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct Options {
    invariants: Vec<Box<dyn Invariant>>,
    #[cfg(feature = "planted-bugs")]
    bug: Option<Bug>,
}

impl Options {
    /// The run is held to this, besides what [every run](crate::invariants::all) is held to.
    #[must_use]
    pub fn held_to(mut self, invariant: impl Invariant + 'static) -> Options {
        self.invariants.push(Box::new(invariant));
        self
    }

    /// Honest nodes have this bug.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub fn planted(mut self, bug: Bug) -> Options {
        self.bug = Some(bug);
        self
    }
}

/// Plays a scenario once, with something special about it.
///
/// # Errors
/// [`RunError`].
pub fn run_with(scenario: &Scenario, seed: u64, options: Options) -> Result<Report, RunError> {
    let mut stage = Stage::new(scenario, seed, options)?;
    stage.play()?;
    Ok(stage.report())
}

/// Plays a scenario twice, and if the two runs differ, says which event was the first to: both times, as it was.
/// `None` if they do not differ.
///
/// # Errors
/// [`RunError`].
pub fn first_difference(scenario: &Scenario, seed: u64) -> Result<Option<String>, RunError> {
    difference(|| Stage::new(scenario, seed, Options::default()))
}

/// The same of any two stages that should play alike, and are set up as often as it takes.
fn difference<'a>(mut stage: impl FnMut() -> Result<Stage<'a>, RunError>) -> Result<Option<String>, RunError> {
    let mut play = |window: Option<std::ops::Range<u64>>| -> Result<Stage<'a>, RunError> {
        let mut stage = stage()?;
        if let Some(window) = window {
            stage.world.watch(window);
        }
        stage.play()?;
        Ok(stage)
    };
    let trails = [play(None)?.world.trail().clone(), play(None)?.world.trail().clone()];
    let Some(window) = trails[0].parts_from(&trails[1]) else { return Ok(None) };
    // What differs may differ otherwise the next time: it is looked for again in the same block.
    let [one, other] = [play(Some(window.clone()))?, play(Some(window.clone()))?];
    let (one, other) = (one.world.trail().watched(), other.world.trail().watched());
    let differs = (0..one.len().max(other.len())).find(|line| one.get(*line) != other.get(*line));
    let nothing = "nothing more happened".to_owned();
    Ok(Some(match differs {
        Some(line) => {
            let said = |lines: &[String]| lines.get(line).cloned().unwrap_or_else(|| nothing.clone());
            format!("first run:  {}\nsecond run: {}", said(one), said(other))
        }
        None => format!("the runs differ among the events {window:?}, and did not when they were played again"),
    }))
}

/// A scenario that is being played.
pub(crate) struct Stage<'a> {
    scenario: &'a Scenario,
    seed: u64,
    world: World<PeerageNode>,
    people: People,
    agenda: Agenda,
    watch: Watch,
    #[cfg(feature = "planted-bugs")]
    bug: Option<Bug>,
    began: Instant,
    /// What it did to the world, if somebody wants to know.
    acts: Option<Vec<(Duration, Act)>>,
    /// Of the process, before the world was there and when all had started.
    resident: (Option<u64>, Option<u64>),
    /// And when what nodes hold was first looked at to be compared.
    resident_early: Option<u64>,
}

impl<'a> Stage<'a> {
    fn new(scenario: &'a Scenario, seed: u64, options: Options) -> Result<Stage<'a>, RunError> {
        let began = Instant::now();
        let before = resident_bytes();
        let (world, people) = people::populate(scenario, seed)?;
        let agenda = Agenda::of(scenario, seed, &people);
        let watch = Watch::new(&people, options.invariants);
        Ok(Stage {
            scenario,
            seed,
            world,
            people,
            agenda,
            watch,
            #[cfg(feature = "planted-bugs")]
            bug: options.bug,
            began,
            acts: None,
            resident: (before, None),
            resident_early: None,
        })
    }

    fn play(&mut self) -> Result<(), RunError> {
        let end = self.scenario.duration.get();
        while let Some((at, step)) = self.agenda.next(end) {
            self.run_until(at);
            self.step(step)?;
        }
        self.run_until(end);
        self.watch.look(&self.world, &self.people);
        if self.scenario.held_from.is_some() {
            self.hold();
        }
        Ok(())
    }

    fn run_until(&mut self, at: Duration) {
        let (watch, people) = (&mut self.watch, &self.people);
        self.world.run_until(at, |at, host, note| watch.noted(at, &people[host], host, note));
    }

    fn step(&mut self, step: Step) -> Result<(), RunError> {
        match step {
            Step::Start(host) => self.start(host, true)?,
            Step::Restart { host, keep } => self.start(host, keep)?,
            Step::Stop(host) => self.stop(host),
            Step::Publish(traffic) => self.publish(traffic),
            Step::Ask(service) => self.ask(service),
            Step::Lookup(number) => self.look_up(number),
            Step::Act(index) => self.act(index)?,
            Step::Read(host) => self.reads(host, true),
            Step::Deafen(host) => self.reads(host, false),
            Step::Look => self.watch.look(&self.world, &self.people),
            Step::Hold => self.hold(),
            Step::Settled => self.resident.1 = resident_bytes(),
        }
        Ok(())
    }

    fn start(&mut self, host: HostId, keep: bool) -> Result<(), RunError> {
        if self.world.node(host).is_some() {
            return Ok(());
        }
        let now = (self.world.time_at(host), self.world.now());
        #[cfg_attr(not(feature = "planted-bugs"), expect(unused_mut, reason = "only a bug is put into it"))]
        let mut node = self.people.node(host, keep, now, self.seed).map_err(RunError::Unplayable)?;
        #[cfg(feature = "planted-bugs")]
        if let Some(bug) = self.bug.filter(|_| self.people[host].hostile.is_none()) {
            node.plant_bug(bug);
        }
        self.did(|| Act::Start { host: host.0, keep });
        self.watch.started(self.world.now(), host);
        self.world.start(host, node);
        Ok(())
    }

    /// Looks at what honest nodes hold.
    fn hold(&mut self) {
        if self.resident_early.is_none() && self.scenario.held_from.is_some_and(|from| from.get() <= self.world.now()) {
            self.resident_early = resident_bytes();
        }
        let nodes = self.people.honest().filter_map(|(host, _)| self.world.node(host));
        self.watch.held.look(self.world.now(), nodes.map(PeerageNode::held));
    }

    fn reads(&mut self, host: HostId, reads: bool) {
        self.world.set_reading(host, reads);
        self.watch.happened(self.world.now(), Happening::Reads(host, reads));
    }

    fn stop(&mut self, host: HostId) {
        if let Some(node) = self.world.crash(host) {
            self.did(|| Act::Stop(host.0));
            if self.people[host].hostile.is_none() {
                self.watch.past = self.watch.past.and(node.tally());
            }
            self.people.keep(host, node.db().clone());
            self.watch.stopped(self.world.now(), host);
        }
    }

    fn report(self) -> Report {
        let wall = self.began.elapsed();
        let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        let events = self.world.events();
        let per_node = |bytes: u64| bytes / self.world.hosts().max(1) as u64;
        let since_before = |after: u64| self.resident.0.map(|before| per_node(after.saturating_sub(before)));
        let idle = self.resident.1.and_then(since_before);
        let early = self.resident_early.and_then(since_before);
        let both = early.zip(self.resident_early.and(resident_bytes()).and_then(since_before));
        let (mut metrics, mut curves) = self.watch.results(&self.world, &self.people);
        if let Some(from) = self.scenario.held_from {
            self.watch.held.results(from.get(), &mut metrics, &mut curves);
        }
        Report {
            scenario: self.scenario.name.clone(),
            seed: self.seed,
            nodes: self.world.hosts() as u64,
            digest: self.world.digest().to_string(),
            events,
            virtual_ms: u64::try_from(self.world.now().as_millis()).unwrap_or(u64::MAX),
            metrics,
            curves,
            violations: self.watch.violations,
            cost: Cost {
                wall_ms,
                events_per_second: events * 1000 / wall_ms.max(1),
                bytes_per_idle_node: idle,
                bytes_per_node: both,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        name = "ten"
        about = "Ten nodes find each other."
        seeds = 1
        duration = "30s"
        [population]
        nodes = 10
        [[expect]]
        metric = "components"
        equals = 1
    "#;

    #[test]
    fn runs_that_play_alike_do_not_differ() {
        let scenario = Scenario::parse("ten.toml", TEXT).expect("a scenario");
        assert_eq!(first_difference(&scenario, 1).expect("played"), None);
    }

    #[test]
    fn of_runs_that_do_not_play_alike_the_first_event_that_differs_is_said() {
        let scenario = Scenario::parse("ten.toml", TEXT).expect("a scenario");
        // What no seed decides: every other run, the fourth node is asked to look for somebody after 20 s.
        let mut turn = 0;
        let said = difference(|| {
            turn += 1;
            let mut stage = Stage::new(&scenario, 1, Options::default())?;
            if turn % 2 == 0 {
                stage.agenda.enter(Duration::from_secs(20), Step::Lookup(0));
            }
            Ok(stage)
        });
        let said = said.expect("played").expect("they differ");
        let (one, other) = said.split_once('\n').expect("two lines");
        assert!(!one.contains("Lookup") && other.contains("command Lookup"), "{said}");
        assert!(other.contains(" t+20s "), "it says when: {said}");
        assert_eq!(turn, 4, "two runs to find where, and two to write it down");
    }
}
