//! Where scenarios and their baselines are.

use std::fs;
use std::path::{Path, PathBuf};

use peerage_sim::baseline::Baseline;
use peerage_sim::scenario::Scenario;

use crate::shell::{self, Failure};

/// The shipped scenarios, from the workspace's root.
const SCENARIOS: &str = "crates/sim/scenarios";

/// A scenario and where it was found.
pub(super) struct Found {
    pub(super) scenario: Scenario,
    path: PathBuf,
    /// What a user types to name it.
    pub(super) word: String,
}

impl Found {
    fn read(path: PathBuf) -> Result<Self, Failure> {
        let scenario = Scenario::read(&path).map_err(|error| Failure::Check(error.to_string()))?;
        let shipped = path.parent().is_some_and(|folder| same(folder, &folder_of_all()));
        let word = if shipped { scenario.name.clone() } else { path.display().to_string() };
        Ok(Self { scenario, path, word })
    }

    /// The file of its baselines: in the folder `baselines` beside the one that the scenario is in.
    pub(super) fn baseline(&self) -> PathBuf {
        baselines(self.path.parent().unwrap_or(Path::new("."))).join(format!("{}.toml", self.scenario.name))
    }

    /// Its baselines; none if they were never written.
    pub(super) fn read_baseline(&self) -> Result<Baseline, Failure> {
        let path = self.baseline();
        if !path.exists() {
            return Ok(Baseline::new(&self.scenario.name));
        }
        let baseline = Baseline::read(&path).map_err(|error| Failure::Check(error.to_string()))?;
        if baseline.scenario == self.scenario.name {
            return Ok(baseline);
        }
        let (path, other) = (path.display(), baseline.scenario);
        Err(Failure::Check(format!(
            "{path} is of the scenario `{other}`; `cargo xtask sim compare --write` makes it anew"
        )))
    }

    /// How to run one seed of it again.
    pub(super) fn again(&self, seed: u64) -> String {
        format!("cargo xtask sim run {} --seed {seed}", self.word)
    }
}

fn same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

fn folder_of_all() -> PathBuf {
    shell::root().join(SCENARIOS)
}

fn baselines(scenarios: &Path) -> PathBuf {
    scenarios.join("../baselines")
}

/// The scenario that a user's word names: a file, or a shipped scenario.
pub(super) fn find(word: &str) -> Result<Found, Failure> {
    let path = PathBuf::from(word);
    if path.is_file() {
        return Found::read(path);
    }
    let shipped = folder_of_all().join(format!("{word}.toml"));
    if shipped.is_file() {
        return Found::read(shipped);
    }
    let names = stems(&folder_of_all())?.join(", ");
    Err(Failure::Check(format!("`{word}` is no file and no scenario of {SCENARIOS}; there are: {names}")))
}

/// Those named, or all that are shipped.
pub(super) fn find_all(words: &[String]) -> Result<Vec<Found>, Failure> {
    if words.is_empty() { all() } else { words.iter().map(|word| find(word)).collect() }
}

/// Every shipped scenario, by name.
pub(super) fn all() -> Result<Vec<Found>, Failure> {
    let folder = folder_of_all();
    stems(&folder)?.iter().map(|stem| Found::read(folder.join(format!("{stem}.toml")))).collect()
}

/// Baselines of scenarios that are not shipped any more.
pub(super) fn orphans() -> Result<Vec<String>, Failure> {
    let (scenarios, folder) = (stems(&folder_of_all())?, baselines(&folder_of_all()));
    if !folder.exists() {
        return Ok(Vec::new());
    }
    Ok(stems(&folder)?.into_iter().filter(|stem| !scenarios.contains(stem)).collect())
}

/// The names of a folder's TOML files without their ending, in order.
fn stems(folder: &Path) -> Result<Vec<String>, Failure> {
    let mut stems = Vec::new();
    for entry in fs::read_dir(folder).map_err(Failure::file(folder))? {
        let path = entry.map_err(Failure::file(folder))?.path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            stems.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    stems.sort();
    Ok(stems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shipped_scenario_is_found_by_its_name_and_its_path() {
        let by_name = find("bootstrap-100").expect("it is shipped");
        let path = folder_of_all().join("bootstrap-100.toml");
        let by_path = find(&path.display().to_string()).expect("it is a file");
        assert_eq!((by_name.scenario.name.as_str(), by_path.word.as_str()), ("bootstrap-100", "bootstrap-100"));
        assert_eq!(by_path.again(7), "cargo xtask sim run bootstrap-100 --seed 7");
    }

    #[test]
    fn a_word_that_names_nothing_is_answered_with_the_names() {
        let why = find("bootstrap-7").err().expect("there is none").to_string();
        assert!(why.contains("bootstrap-100"), "{why}");
    }
}
