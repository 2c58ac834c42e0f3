//! Scenario files: a population, what lies between its nodes, what happens and what must come of it.

mod adversary;
mod check;
mod expect;
mod population;
mod requests;
mod timeline;
mod traffic;
mod units;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

pub use adversary::{Adversary, Kind, Number, OptionValue};
pub use expect::{Bound, Expectation, Miss};
pub use peerage_gossip::Mode;
pub use population::{Limits, Links, Members, Population, Preset, Regions, Sites, Slow};
pub use requests::Requests;
pub use timeline::{Action, Event};
pub use traffic::{Lookups, Pace, Policy, Traffic};
pub(crate) use units::decimal;
pub use units::{Rate, Share, Size, Sizes, Span, Step};

use crate::report::Report;

/// A scenario, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// Its name: its file's without the ending.
    pub name: String,
    /// One line: what it shows.
    pub about: String,
    /// It must pass with the seeds 1 to this one.
    pub seeds: u64,
    /// Whether it is part of the short run.
    pub quick: bool,
    /// How long it lasts, in virtual time.
    pub duration: Span,
    /// What nodes hold at the end is compared with what they held from then on.
    pub held_from: Option<Span>,
    /// The honest nodes.
    pub population: Population,
    /// What lies between nodes.
    pub links: Links,
    /// What is published.
    pub traffic: Vec<Traffic>,
    /// What is asked.
    pub requests: Vec<Requests>,
    /// What is looked for.
    pub lookups: Vec<Lookups>,
    /// What befalls the world, in the order of time; at one moment, in the file's order.
    pub timeline: Vec<Event>,
    /// The hostile nodes.
    pub adversaries: Vec<Adversary>,
    /// What must come of it.
    pub expect: Vec<Expectation>,
}

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file could not be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It does not say what a scenario says, or something that cannot be.
    #[error("{file}:{line}: {what}")]
    Invalid {
        /// The file, as it was named.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what would be right.
        what: String,
    },
}

/// A file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Spanned<String>,
    about: Spanned<String>,
    seeds: Spanned<u64>,
    #[serde(default)]
    quick: bool,
    duration: Spanned<Span>,
    held_from: Option<Spanned<Span>>,
    population: Spanned<Population>,
    links: Option<Spanned<population::RawLinks>>,
    #[serde(default)]
    traffic: Vec<Spanned<traffic::RawTraffic>>,
    #[serde(default)]
    requests: Vec<Spanned<requests::RawRequests>>,
    #[serde(default)]
    lookups: Vec<Spanned<Lookups>>,
    #[serde(default)]
    timeline: Vec<Spanned<timeline::RawEvent>>,
    #[serde(default)]
    adversaries: Vec<Spanned<adversary::RawAdversary>>,
    #[serde(default)]
    expect: Vec<Spanned<expect::RawExpectation>>,
}

impl Scenario {
    /// Reads a scenario from a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or as [`Scenario::parse`].
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ScenarioError::Io { path: path.to_owned(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a scenario from `text`, which errors call `file`. Its name must be the file's without the ending.
    ///
    /// # Errors
    ///
    /// When it is not a scenario, or one that cannot be: with the line, and what would be right.
    pub fn parse(file: &str, text: &str) -> Result<Self, ScenarioError> {
        Self::build(file, text).map_err(|Bad(place, what)| {
            let line = 1 + text.bytes().take(place).filter(|byte| *byte == b'\n').count();
            ScenarioError::Invalid { file: file.to_owned(), line, what }
        })
    }

    fn build(file: &str, text: &str) -> Result<Self, Bad> {
        let raw: Raw = toml::from_str(text)
            .map_err(|error| Bad(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
        let end = one(raw.duration, |end| check::duration(*end))?;
        let population = one(raw.population, |population| check::population(population, end))?;
        let nodes = population.nodes;
        let links = raw.links.map_or(Ok(Links::default()), |links| {
            let place = links.span().start;
            links.into_inner().checked().map_err(|what| Bad(place, what))
        })?;
        let traffic = each(raw.traffic, traffic::RawTraffic::checked, |traffic| check::traffic(traffic, end, nodes))?;
        let requests =
            each(raw.requests, requests::RawRequests::checked, |requests| check::requests(requests, end, nodes))?;
        let lookups = each(raw.lookups, Ok, |lookups| check::lookups(lookups, end))?;
        let mut timeline = each(raw.timeline, timeline::RawEvent::checked, |event| check::event(event, end, nodes))?;
        timeline.sort_by_key(|(_, event)| event.at);
        check::order(&timeline)?;
        let adversaries =
            each(raw.adversaries, adversary::RawAdversary::checked, |adversary| check::adversary(adversary, end))?;
        check::adversaries(&adversaries)?;
        let mut scenario = Self {
            name: one(raw.name, |name| check::name(name, file))?,
            about: one(raw.about, |about| check::about(about))?,
            seeds: one(raw.seeds, |seeds| check::seeds(*seeds))?,
            quick: raw.quick,
            duration: end,
            held_from: raw.held_from.map(|from| one(from, |from| check::held_from(*from, end))).transpose()?,
            population,
            links,
            traffic: bare(traffic),
            requests: bare(requests),
            lookups: bare(lookups),
            timeline: bare(timeline),
            adversaries: bare(adversaries),
            expect: Vec::new(),
        };
        let check = |expectation: &Expectation| check::expectation(expectation, &scenario);
        scenario.expect = bare(each(raw.expect, expect::RawExpectation::checked, check)?);
        if scenario.expect.is_empty() {
            let why = "there is no `[[expect]]`: a scenario that expects nothing passes whatever happens";
            return Err(Bad(0, why.to_owned()));
        }
        Ok(scenario)
    }

    /// Every expectation that the report does not fulfil.
    pub fn misses(&self, report: &Report) -> Vec<Miss> {
        self.expect.iter().filter_map(|expectation| expectation.judge(report).err()).collect()
    }

    /// How many hostile nodes there are of each entry of `adversaries`. Shares are of the whole population as it
    /// starts, honest and hostile; a share that is not nothing is at least one node.
    pub fn hostile(&self) -> Vec<u32> {
        let (mut counted, mut shared) = (u64::from(self.population.nodes), 0);
        for adversary in &self.adversaries {
            match adversary.number {
                Number::Count(count) => counted += u64::from(count),
                Number::Share(share) => shared += u64::from(share.ppm()),
            }
        }
        let rest = u64::from(units::WHOLE).saturating_sub(shared).max(1);
        let of = |share: Share| (counted * u64::from(share.ppm()) + rest / 2) / rest;
        let number = |adversary: &Adversary| match adversary.number {
            Number::Count(count) => count,
            Number::Share(share) => u32::try_from(of(share).max(1)).unwrap_or(u32::MAX),
        };
        self.adversaries.iter().map(number).collect()
    }
}

/// Where in the text something is wrong, and what.
struct Bad(usize, String);

impl From<(usize, String)> for Bad {
    fn from((place, what): (usize, String)) -> Self {
        Self(place, what)
    }
}

/// A value that stands for itself, checked.
fn one<T>(value: Spanned<T>, check: impl Fn(&T) -> Result<(), String>) -> Result<T, Bad> {
    let place = value.span().start;
    check(value.as_ref()).map_err(|what| Bad(place, what))?;
    Ok(value.into_inner())
}

/// Each table of a list, understood and checked, with the place where it starts.
fn each<R, T>(
    tables: Vec<Spanned<R>>,
    understand: impl Fn(R) -> Result<T, String>,
    check: impl Fn(&T) -> Result<(), String>,
) -> Result<Vec<(usize, T)>, Bad> {
    let understood = |table: Spanned<R>| {
        let place = table.span().start;
        let checked = |value: T| check(&value).map(|()| (place, value));
        understand(table.into_inner()).and_then(checked).map_err(|what| Bad(place, what))
    };
    tables.into_iter().map(understood).collect()
}

fn bare<T>(tables: Vec<(usize, T)>) -> Vec<T> {
    tables.into_iter().map(|(_, table)| table).collect()
}

#[cfg(test)]
mod tests;
