//! What runs of a scenario gave when somebody last looked, kept beside the code: a change shows as a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::report::{Metric, Report, Unit, Written};

const HEAD: &str = "# Written by `cargo xtask sim compare --write`: what each seed gave.\n";

/// What runs of one scenario gave: of each seed what tells runs apart, and of the first seed all that was measured,
/// which says in words what a change has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Baseline {
    /// The scenario's name.
    pub scenario: String,
    /// What each seed gave.
    pub runs: BTreeMap<u64, Run>,
    /// What was measured with the first of the seeds, by name.
    pub metrics: BTreeMap<String, Metric>,
}

/// What one seed gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The digest of every event.
    pub digest: String,
    /// How many events there were.
    pub events: u64,
}

/// Something that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The seed of the run.
    pub seed: u64,
    /// What differs: `digest`, `events` or a metric's name.
    pub what: String,
    /// What it was, for people. `None`: it was not there.
    pub old: Option<String>,
    /// What it is. `None`: it is not there.
    pub new: Option<String>,
}

/// Why a baseline cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// The file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a baseline.
    #[error("{path}: {what}; `cargo xtask sim compare --write` makes a new one", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// The file: each run as its digest and its number of events.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    scenario: String,
    #[serde(default)]
    runs: BTreeMap<String, String>,
    #[serde(default)]
    metrics: BTreeMap<String, Written>,
}

impl Baseline {
    /// One without any run.
    pub fn new(scenario: &str) -> Self {
        Self { scenario: scenario.to_owned(), ..Self::default() }
    }

    /// Reads what [`Baseline::write`] wrote.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is not a baseline.
    pub fn read(path: &Path) -> Result<Self, BaselineError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| BaselineError::Io { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|what| BaselineError::Invalid { path: path.to_owned(), what })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let File { scenario, runs, metrics } = toml::from_str(text).map_err(|error| error.to_string())?;
        let run = |(seed, run): (String, String)| {
            let (digest, events) = run.split_once(' ')?;
            Some((seed.parse().ok()?, Run { digest: digest.to_owned(), events: events.parse().ok()? }))
        };
        let malformed = |seed: &str| format!("seed {seed}: not a digest and a number of events");
        let runs = runs.into_iter().map(|(seed, text)| run((seed.clone(), text)).ok_or_else(|| malformed(&seed)));
        let metrics = metrics.into_iter().map(|(name, Written(metric))| (name, metric)).collect();
        Ok(Self { scenario, runs: runs.collect::<Result<_, _>>()?, metrics })
    }

    /// Writes the file anew: the same runs always give the same text, in the order of seeds and names.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), BaselineError> {
        let text = self.text().map_err(|what| BaselineError::Invalid { path: path.to_owned(), what })?;
        std::fs::write(path, text).map_err(|source| BaselineError::Io { path: path.to_owned(), source })
    }

    fn text(&self) -> Result<String, String> {
        let run = |(seed, run): (&u64, &Run)| (format!("{seed:02}"), format!("{} {}", run.digest, run.events));
        let metric = |(name, metric): (&String, &Metric)| (name.clone(), Written(*metric));
        let file = File {
            scenario: self.scenario.clone(),
            runs: self.runs.iter().map(run).collect(),
            metrics: self.metrics.iter().map(metric).collect(),
        };
        let text = toml::to_string(&file).map_err(|error| error.to_string())?;
        Ok(format!("{HEAD}{text}"))
    }

    /// Takes a report's figures for what its seed gives.
    pub fn put(&mut self, report: &Report) {
        self.runs.insert(report.seed, Run { digest: report.digest.clone(), events: report.events });
        if self.is_first(report.seed) {
            self.metrics = report.metrics.clone();
        }
    }

    fn is_first(&self, seed: u64) -> bool {
        self.runs.keys().next() == Some(&seed)
    }

    /// What differs between a report and what its seed gave before; nothing if all is as it was. Curves and cost are
    /// not compared, and metrics with the first seed only. A seed that was never written differs in its digest and events.
    pub fn compare(&self, report: &Report) -> Vec<Difference> {
        let seed = report.seed;
        let old = self.runs.get(&seed);
        let mut differences = Vec::new();
        let mut compare = |what: &str, old: Option<String>, new: Option<String>| {
            differences.push(Difference { seed, what: what.to_owned(), old, new });
        };
        if old.is_none_or(|old| old.digest != report.digest) {
            compare("digest", old.map(|old| old.digest.clone()), Some(report.digest.clone()));
        }
        let events = |value: u64| Metric { unit: Unit::Count, value }.to_string();
        if old.is_none_or(|old| old.events != report.events) {
            compare("events", old.map(|old| events(old.events)), Some(events(report.events)));
        }
        if !self.is_first(seed) {
            return differences;
        }
        let names: BTreeSet<&String> = self.metrics.keys().chain(report.metrics.keys()).collect();
        for name in names {
            let (old, new) = (self.metrics.get(name), report.metrics.get(name));
            if old != new {
                compare(name, old.map(shown), new.map(shown));
            }
        }
        differences
    }
}

/// Exactly, where people's form is rounded.
fn shown(metric: &Metric) -> String {
    match metric.unit {
        Unit::Bytes if metric.value >= 1_024 => format!("{metric} ({} B)", metric.value),
        _ => metric.to_string(),
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |side: &Option<String>| side.clone().unwrap_or_else(|| "none".to_owned());
        write!(to, "seed {}: {}: {} → {}", self.seed, self.what, or_none(&self.old), or_none(&self.new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Cost;

    fn report(seed: u64) -> Report {
        let metrics = [
            ("delivered", Unit::Share, 999_700),
            ("delivery.p99", Unit::Time, 412_345),
            ("copies", Unit::Ratio, 2_310),
            ("bans", Unit::Count, 0),
            ("queued", Unit::Bytes, 3_355_444),
        ];
        Report {
            scenario: "small".into(),
            seed,
            nodes: 10,
            digest: format!("ab{seed}"),
            events: 1_000 + seed,
            virtual_ms: 1,
            metrics: metrics.map(|(name, unit, value)| (name.to_owned(), Metric { unit, value })).into(),
            curves: [].into(),
            violations: Vec::new(),
            cost: Cost::default(),
        }
    }

    fn baseline() -> Baseline {
        let mut baseline = Baseline::new("small");
        baseline.put(&report(10));
        baseline.put(&report(2));
        baseline
    }

    #[test]
    fn a_baseline_is_read_back_as_it_was_written() {
        let text = baseline().text().expect("it can be written");
        assert_eq!(Baseline::parse(&text), Ok(baseline()));
    }

    #[test]
    fn the_file_is_in_the_order_of_seeds_and_names_with_a_line_a_figure() {
        let text = baseline().text().expect("it can be written");
        let expected = "\
# Written by `cargo xtask sim compare --write`: what each seed gave.
scenario = \"small\"

[runs]
02 = \"ab2 1002\"
10 = \"ab10 1010\"

[metrics]
bans = 0
copies = \"2.310\"
delivered = \"99.97%\"
\"delivery.p99\" = \"412345us\"
queued = \"3355444B\"
";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_same_run_differs_in_nothing() {
        assert_eq!(baseline().compare(&report(2)), []);
        let costly = Report { cost: Cost { wall_ms: 5, ..Cost::default() }, ..report(2) };
        assert_eq!(baseline().compare(&costly), [], "what it cost is not compared");
    }

    #[test]
    fn every_difference_says_what_was_and_what_is() {
        let mut changed = report(2);
        changed.digest = "cd".into();
        changed.metrics.insert("delivered".into(), Metric { unit: Unit::Share, value: 1_000_000 });
        changed.metrics.insert("components".into(), Metric { unit: Unit::Count, value: 1 });
        changed.metrics.insert("queued".into(), Metric { unit: Unit::Bytes, value: 3_355_445 });
        changed.metrics.remove("bans");
        let lines: Vec<String> = baseline().compare(&changed).iter().map(Difference::to_string).collect();
        let expected = [
            "seed 2: digest: ab2 → cd",
            "seed 2: bans: 0 → none",
            "seed 2: components: none → 1",
            "seed 2: delivered: 99.97 % → 100 %",
            "seed 2: queued: 3.2 MiB (3355444 B) → 3.2 MiB (3355445 B)",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn another_unit_is_a_difference() {
        let mut changed = report(2);
        changed.metrics.insert("bans".into(), Metric { unit: Unit::Time, value: 0 });
        assert_eq!(baseline().compare(&changed).len(), 1);
    }

    #[test]
    fn a_seed_without_a_baseline_differs_and_a_later_one_in_what_tells_runs_apart() {
        let differences = baseline().compare(&report(3));
        assert_eq!(differences.len(), 2);
        assert!(differences.iter().all(|difference| difference.old.is_none()));
    }

    #[test]
    fn a_file_that_is_no_baseline_is_refused() {
        let folder = std::env::temp_dir();
        let error = Baseline::read(&folder.join("no-such-baseline.toml")).expect_err("it is not there");
        assert!(matches!(error, BaselineError::Io { .. }), "{error}");
        assert!(Baseline::parse("scenario = 5").is_err());
        let short = "scenario = \"a\"\n[runs]\n01 = \"ab\"\n";
        let expected = "seed 01: not a digest and a number of events";
        assert_eq!(Baseline::parse(short), Err(expected.to_owned()));
    }
}
