//! `cargo xtask floors`: the floor plan of the design, enforced.
//!
//! Every rule is a pure function over parsed input, so that a planted violation is its test.

mod graph;
mod plan;
mod scan;
mod signatures;
mod sources;
mod tree;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::shell::{self, Failure};

/// One breach of a rule, at the line that commits it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    pub(crate) rule: &'static str,
    pub(crate) why: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: [{}] {}", self.file.display(), self.line, self.rule, self.why)
    }
}

/// Checks every rule and prints every violation, so that one run shows the whole bill.
pub(crate) fn run() -> Result<(), Failure> {
    let metadata = shell::metadata()?;
    let packages = graph::packages(&metadata)?;
    let mut violations = graph::check(&packages);

    for package in &packages {
        for question in tree::questions(&package.name) {
            let text = shell::capture(shell::cargo().args(question.arguments(&package.name)))?;
            violations.extend(tree::check(package, &question, &text));
        }
    }

    let mut warnings = Vec::new();
    let mut files = 0;
    for package in packages.iter().filter(|package| package.floor().is_some()) {
        for source in sources::of(shell::root(), &package.folder)? {
            files += 1;
            if package.is_library {
                warnings.extend(scan::length(&source));
            }
            let parsed = match sources::parse(&source) {
                Ok(parsed) => parsed,
                Err(violation) => {
                    violations.push(violation);
                    continue;
                }
            };
            violations.extend(scan::raw_messages(package, &source, &parsed));
            if plan::is_actor_crate(&package.name) && source.is_library_code {
                violations.extend(signatures::check(&source, &parsed));
            }
        }
    }

    for warning in &warnings {
        println!("warning: {warning}");
    }
    violations.sort();
    violations.dedup();
    for violation in &violations {
        eprintln!("{violation}");
    }
    if violations.is_empty() {
        println!("floors: {} packages and {files} files keep the plan", packages.len());
        Ok(())
    } else {
        Err(Failure::Check(format!("the floor plan is broken in {} place(s), listed above", violations.len())))
    }
}

/// The line of a manifest that names a dependency (or another key), counted from 1; 1 when none does.
fn line_of(manifest: &str, key: &str) -> usize {
    let names_it = |line: &str| {
        let line = line.trim_start();
        let header = line.strip_prefix('[').and_then(|header| header.split_once('.')).map(|(_, name)| name);
        [Some(line), header]
            .into_iter()
            .flatten()
            .any(|text| text.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['=', '.', ']'])))
    };
    manifest.lines().position(names_it).map_or(1, |index| index + 1)
}

/// `path` as seen from the workspace root, for messages.
fn relative(path: &Path) -> PathBuf {
    path.strip_prefix(shell::root()).unwrap_or(path).to_path_buf()
}
