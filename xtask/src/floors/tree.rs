//! Rule `runtime`: no tokio and no ractor under the crates that must run without them.
//!
//! The answer is read from `cargo tree -p X -e normal`, one package at a time: the metadata of a workspace unifies
//! features over all its members and would show a runtime where a user of the single crate gets none.

use super::graph::Package;
use super::{Violation, line_of, plan};

const RULE: &str = "runtime";

/// One way of looking at a package's dependencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// As a user gets it by default.
    DefaultFeatures,
    /// Its machines alone.
    NoFeatures,
}

impl Question {
    pub(crate) fn arguments<'a>(&self, package: &'a str) -> Vec<&'a str> {
        let mut arguments = vec!["tree", "--locked", "-p", package, "-e", "normal", "--prefix", "depth"];
        if *self == Self::NoFeatures {
            arguments.push("--no-default-features");
        }
        arguments
    }

    fn in_words(&self) -> &'static str {
        match self {
            Self::DefaultFeatures => "must run without a runtime",
            Self::NoFeatures => "must compile its machines without a runtime (`--no-default-features`)",
        }
    }
}

pub(crate) fn questions(package: &str) -> Vec<Question> {
    let mut questions = Vec::new();
    if plan::is_pure(package) {
        questions.push(Question::DefaultFeatures);
    }
    if plan::has_machine_without_shell(package) {
        questions.push(Question::NoFeatures);
    }
    questions
}

/// Whether a crate brings a runtime in.
fn is_runtime(name: &str) -> bool {
    ["tokio", "ractor"]
        .iter()
        .any(|runtime| name.strip_prefix(runtime).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_'])))
}

/// Reads `cargo tree --prefix depth` and reports every way from the package to a runtime.
pub(crate) fn check(package: &Package, question: &Question, tree: &str) -> Vec<Violation> {
    let mut path: Vec<&str> = Vec::new();
    let mut violations = Vec::new();
    for line in tree.lines() {
        let digits = line.bytes().take_while(u8::is_ascii_digit).count();
        let Ok(depth) = line[..digits].parse::<usize>() else { continue };
        let Some(name) = line[digits..].split_whitespace().next() else { continue };
        path.truncate(depth);
        path.push(name);
        // Below a runtime everything else of it would be reported again.
        if is_runtime(name) && !path[..path.len() - 1].iter().any(|above| is_runtime(above)) {
            let first = path.get(1).copied().unwrap_or(name);
            violations.push(Violation {
                file: package.manifest_path(),
                line: line_of(&package.manifest, first),
                rule: RULE,
                why: format!("`{}` {}, but: {}", package.name, question.in_words(), path.join(" → ")),
            });
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::package;
    use super::*;

    #[test]
    fn a_tree_without_a_runtime_passes() {
        let wire = package("peerage-wire", &[]);
        let tree =
            "0peerage-wire v0.1.0 (/w/crates/wire)\n1bytes v1.12.0\n1serde v1.0.2\n2serde_derive v1.0.2 (proc-macro)\n";
        assert_eq!(check(&wire, &Question::DefaultFeatures, tree), []);
    }

    #[test]
    fn tokio_below_wire_is_refused_with_the_way_it_came_in() {
        let wire = package("peerage-wire", &["helper"]);
        let tree = "0peerage-wire v0.1.0 (/w/crates/wire)\n1bytes v1.12.0\n1helper v0.2.0\n2tokio v1.54.0\n3tokio-macros v2.7.0 (proc-macro)\n";
        let [violation] = &check(&wire, &Question::DefaultFeatures, tree)[..] else { panic!("one violation expected") };
        assert_eq!(violation.line, 5);
        assert!(violation.why.contains("peerage-wire → helper → tokio"), "{violation}");
    }

    #[test]
    fn ractor_in_an_actor_crate_without_features_is_refused() {
        let gossip = package("peerage-gossip", &["ractor"]);
        let tree = "0peerage-gossip v0.1.0 (/w/crates/gossip)\n1ractor v0.16.5\n";
        let [violation] = &check(&gossip, &Question::NoFeatures, tree)[..] else { panic!("one violation expected") };
        assert!(violation.why.contains("--no-default-features"), "{violation}");
    }

    #[test]
    fn pure_crates_are_asked_as_they_come_and_actor_crates_without_their_shell() {
        assert_eq!(questions("peerage-sim"), [Question::DefaultFeatures]);
        assert_eq!(questions("peerage-router"), [Question::NoFeatures]);
        assert_eq!(questions("peerage-server"), [Question::NoFeatures]);
        assert_eq!(questions("peerage-mailbox"), []);
        assert!(Question::NoFeatures.arguments("peerage-queue").contains(&"--no-default-features"));
        assert!(!is_runtime("tokionic") && is_runtime("tokio-util") && is_runtime("ractor"));
    }
}
