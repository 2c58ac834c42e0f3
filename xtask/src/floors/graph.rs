//! Rule `edges`: a package uses only packages of lower floors.

use std::fs;
use std::path::PathBuf;

use cargo_metadata::{DependencyKind, Metadata, TargetKind};

use super::plan::{self, Place};
use super::{Violation, line_of, relative};
use crate::shell::Failure;

const RULE: &str = "edges";

/// What the rules need to know of one workspace package.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// The package's folder.
    pub(crate) folder: PathBuf,
    /// Its `Cargo.toml` as text, to find lines in.
    pub(crate) manifest: String,
    pub(crate) is_library: bool,
    /// Workspace packages it uses to be built or run, optional ones included; those of its tests are not listed.
    pub(crate) uses: Vec<String>,
}

impl Package {
    pub(crate) fn floor(&self) -> Option<u8> {
        match plan::place(&self.name) {
            Place::Floor(floor) => Some(floor),
            Place::Outside | Place::Unknown => None,
        }
    }

    pub(crate) fn manifest_path(&self) -> PathBuf {
        relative(&self.folder.join("Cargo.toml"))
    }
}

/// Reads the workspace's packages out of cargo's metadata.
pub(crate) fn packages(metadata: &Metadata) -> Result<Vec<Package>, Failure> {
    let members = metadata.workspace_packages();
    let mut packages = Vec::new();
    for member in &members {
        let path = member.manifest_path.as_std_path();
        packages.push(Package {
            name: member.name.to_string(),
            folder: path.parent().map(PathBuf::from).unwrap_or_default(),
            manifest: fs::read_to_string(path).map_err(Failure::file(path))?,
            is_library: member.targets.iter().any(|target| target.kind.contains(&TargetKind::Lib)),
            uses: member
                .dependencies
                .iter()
                .filter(|used| used.kind != DependencyKind::Development)
                .filter(|used| members.iter().any(|other| *other.name == used.name))
                .map(|used| used.name.clone())
                .collect(),
        });
    }
    Ok(packages)
}

pub(crate) fn check(packages: &[Package]) -> Vec<Violation> {
    packages.iter().flat_map(|package| check_one(package, packages)).collect()
}

fn check_one(package: &Package, packages: &[Package]) -> Vec<Violation> {
    let breach = |needle: &str, why: String| Violation {
        file: package.manifest_path(),
        line: line_of(&package.manifest, needle),
        rule: RULE,
        why,
    };
    let floor = match plan::place(&package.name) {
        Place::Floor(floor) => floor,
        Place::Outside => return Vec::new(),
        Place::Unknown => {
            let why = format!("`{}` has no floor: add it to xtask/src/floors/plan.rs", package.name);
            return vec![breach("name", why)];
        }
    };
    let mut violations = Vec::new();
    for used in packages.iter().filter(|other| package.uses.contains(&other.name)) {
        let name = &package.name;
        let why = match plan::place(&used.name) {
            Place::Floor(below) if below < floor => continue,
            Place::Floor(same) if same == floor => format!(
                "sideways: `{name}` and `{}` both stand on floor {floor}; siblings are joined one floor up, by wiring",
                used.name
            ),
            Place::Floor(above) => format!(
                "upward: `{name}` (floor {floor}) uses `{}` (floor {above}); a crate may use only lower floors",
                used.name
            ),
            Place::Outside => format!("`{name}` uses `{}`, which is a tool and stands on no floor", used.name),
            Place::Unknown => continue, // Reported where that package itself is checked.
        };
        violations.push(breach(&used.name, why));
    }
    violations
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn package(name: &str, uses: &[&str]) -> Package {
        let edges: String = uses.iter().map(|used| format!("{used} = {{ workspace = true }}\n")).collect();
        Package {
            name: name.to_owned(),
            folder: PathBuf::from("crates").join(name.trim_start_matches("peerage-")),
            manifest: format!("[package]\nname = \"{name}\"\n\n[dependencies]\n{edges}"),
            is_library: true,
            uses: uses.iter().map(|used| (*used).to_owned()).collect(),
        }
    }

    fn whys(packages: &[Package]) -> Vec<String> {
        check(packages).into_iter().map(|violation| violation.to_string()).collect()
    }

    #[test]
    fn lower_floors_may_be_used() {
        let plan = [
            package("peerage-machine", &[]),
            package("peerage-queue", &["peerage-machine"]),
            package("peerage-gossip", &["peerage-queue", "peerage-machine"]),
            package("peerage-server", &["peerage-gossip"]),
            package("xtask", &["peerage-server"]),
        ];
        assert_eq!(whys(&plan), Vec::<String>::new());
    }

    #[test]
    fn an_upward_edge_is_refused_at_its_line() {
        let plan = [package("peerage-queue", &["peerage-gossip"]), package("peerage-gossip", &[])];
        let [why] = &whys(&plan)[..] else { panic!("one violation expected") };
        assert!(why.starts_with("crates/queue/Cargo.toml:5: [edges] upward"), "{why}");
    }

    #[test]
    fn a_sideways_edge_is_refused() {
        let plan = [package("peerage-gossip", &["peerage-dialer"]), package("peerage-dialer", &[])];
        let [why] = &whys(&plan)[..] else { panic!("one violation expected") };
        assert!(why.contains("[edges] sideways"), "{why}");
    }

    #[test]
    fn a_crate_may_not_use_a_tool_and_every_crate_needs_a_floor() {
        let plan = [package("node", &["xtask"]), package("xtask", &[]), package("peerage-shed", &[])];
        let whys = whys(&plan);
        assert!(whys[0].contains("stands on no floor"), "{whys:?}");
        assert!(whys[1].contains("has no floor"), "{whys:?}");
    }
}
