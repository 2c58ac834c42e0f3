//! `cargo xtask reuse`: each library crate, used the way a stranger would: alone, from a project of its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cargo_metadata::{Dependency, DependencyKind, Metadata, Package, TargetKind};

use crate::shell::{self, Failure};

/// How long an example may run.
const EXAMPLE_LIMIT: Duration = Duration::from_secs(60);

/// A first-lines comment of an example that says with which arguments it ends by itself.
const ARGUMENTS: &str = "//! xtask-reuse:";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this crate.
    #[arg(long = "crate", value_name = "NAME")]
    only: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let metadata = shell::metadata()?;
    let members = metadata.workspace_packages();
    let mut libraries: Vec<&Package> = members
        .into_iter()
        .filter(|package| package.manifest_path.starts_with(shell::root().join("crates")))
        .filter(|package| package.targets.iter().any(|target| target.kind.contains(&TargetKind::Lib)))
        .filter(|package| *package.name != "node")
        .filter(|package| args.only.as_ref().is_none_or(|only| *package.name == *only))
        .collect();
    libraries.sort_by_key(|package| package.name.to_string());
    if libraries.is_empty() {
        let only = args.only.as_deref().unwrap_or("any name");
        return Err(Failure::Check(format!("no library crate is called `{only}`")));
    }
    let mut failed = Vec::new();
    for package in libraries {
        let begun = Instant::now();
        match check(&metadata, package) {
            Ok(examples) => {
                let names = examples.join(", ");
                println!("{:<22} ok      ran {names} ({:.1} s)", package.name, begun.elapsed().as_secs_f64());
            }
            Err(error) => {
                println!("{:<22} FAILED  {error}", package.name);
                failed.push(package.name.to_string());
            }
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::Check(format!("these crates do not stand alone: {}", failed.join(", "))))
    }
}

/// Packs, builds and runs one crate; gives back the names of the examples that ran.
fn check(metadata: &Metadata, package: &Package) -> Result<Vec<String>, Failure> {
    let folder = package.manifest_path.as_std_path().parent().unwrap_or(Path::new("."));
    let arguments = ["package", "--list", "--allow-dirty", "--locked", "-p", &package.name];
    let listed = shell::capture(shell::cargo().args(arguments))?;
    packed(&listed, |file| folder.join(file).is_file()).map_err(Failure::Check)?;

    let project = tempfile::Builder::new().prefix("peerage-reuse-").tempdir().map_err(Failure::file("temp folder"))?;
    let examples = project.path().join("examples");
    copy(&folder.join("examples"), &examples)?;
    let names = example_names(&examples)?;
    if names.is_empty() {
        return Err(Failure::Check("has no example: add one that runs without the server".to_owned()));
    }
    let others: Vec<&Dependency> = package
        .dependencies
        .iter()
        .filter(|used| used.kind == DependencyKind::Development && used.path.is_none())
        .collect();
    let write = |name: &str, text: &str| {
        let path = project.path().join(name);
        fs::write(&path, text).map_err(Failure::file(path))
    };
    let needed =
        package.targets.iter().filter(|target| target.is_example()).flat_map(|target| &target.required_features);
    let mut needed: Vec<&str> = needed.map(String::as_str).collect();
    needed.sort_unstable();
    needed.dedup();
    write("Cargo.toml", &manifest(&package.name, folder, &needed, &others))?;
    write("lib.rs", "//! Only the examples matter here.\n")?;
    // With the same versions locked, nothing new is fetched.
    let lock = metadata.workspace_root.as_std_path().join("Cargo.lock");
    fs::copy(&lock, project.path().join("Cargo.lock")).map_err(Failure::file(lock))?;

    let target = metadata.target_directory.as_std_path().join("reuse");
    let mut build = shell::cargo();
    build
        .current_dir(project.path())
        .args(["build", "--quiet", "--offline", "--examples", "--target-dir"])
        .arg(&target);
    shell::capture(&mut build).map_err(|error| {
        let rule = "an example may use its own crate, what that re-exports, and its dev-dependencies outside Peerage";
        Failure::Check(format!("{error}\n({rule})"))
    })?;
    for name in &names {
        let source = [examples.join(format!("{name}.rs")), examples.join(name).join("main.rs")];
        let text = source.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        run_example(project.path(), &target.join("debug/examples").join(name), &arguments_of(&text))?;
    }
    Ok(names)
}

/// Checks what `cargo package` would upload: a README, a manifest, and nothing from outside the crate.
fn packed(listed: &str, is_in_crate: impl Fn(&str) -> bool) -> Result<(), String> {
    /// What cargo writes into a package itself.
    const GENERATED: [&str; 3] = [".cargo_vcs_info.json", "Cargo.lock", "Cargo.toml.orig"];
    for wanted in ["Cargo.toml", "README.md"] {
        if !listed.lines().any(|file| file == wanted) {
            return Err(format!("its package has no {wanted}"));
        }
    }
    let foreign =
        |file: &&str| !GENERATED.contains(file) && (file.split('/').any(|part| part == "..") || !is_in_crate(file));
    match listed.lines().find(foreign) {
        Some(file) => Err(format!("its package holds {file}, which is not in the crate's folder")),
        None => Ok(()),
    }
}

/// A project that knows one crate of Peerage, with the features that its examples need, and whatever else they use.
fn manifest(name: &str, folder: &Path, needed: &[&str], others: &[&Dependency]) -> String {
    let mut text = format!(
        "[package]\nname = \"reuse-{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n\
         [lib]\npath = \"lib.rs\"\n\n[workspace]\n\n[profile.dev]\ndebug = false\n\n\
         [dependencies]\n{name} = {{ path = {folder:?}, features = {needed:?} }}\n\n[dev-dependencies]\n"
    );
    for other in others {
        let (key, package) = match &other.rename {
            Some(rename) => (rename, format!(", package = {:?}", other.name)),
            None => (&other.name, String::new()),
        };
        let version = other.req.to_string();
        let (defaults, features) = (other.uses_default_features, &other.features);
        text += &format!(
            "{key} = {{ version = {version:?}, default-features = {defaults}, features = {features:?}{package} }}\n"
        );
    }
    text
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to).map_err(Failure::file(to))?;
    if !from.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(from).map_err(Failure::file(from))? {
        let entry = entry.map_err(Failure::file(from))?.path();
        let target = to.join(entry.file_name().unwrap_or_default());
        if entry.is_dir() {
            copy(&entry, &target)?;
        } else {
            fs::copy(&entry, target).map_err(Failure::file(entry))?;
        }
    }
    Ok(())
}

/// What cargo takes for examples: `examples/NAME.rs` and `examples/NAME/main.rs`.
fn example_names(folder: &Path) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Failure::file(folder))? {
        let path: PathBuf = entry.map_err(Failure::file(folder))?.path();
        let is_example = path.extension() == Some(OsStr::new("rs")) || path.join("main.rs").is_file();
        if let Some(name) = path.file_stem().filter(|_| is_example) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn arguments_of(example: &str) -> Vec<String> {
    let said = example.lines().take_while(|line| line.starts_with("//!")).find_map(|line| line.strip_prefix(ARGUMENTS));
    said.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Runs a built example with nothing to read on stdin, so that one that reads lines comes to its end.
fn run_example(project: &Path, program: &Path, arguments: &[String]) -> Result<(), Failure> {
    let log = project.join("output.log");
    let output = File::create(&log).map_err(Failure::file(&log))?;
    let errors = output.try_clone().map_err(Failure::file(&log))?;
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let spawn = |source| Failure::Spawn { program: name.clone(), source };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(project).stdin(Stdio::null()).stdout(output).stderr(errors);
    let mut child = command.spawn().map_err(spawn)?;
    let deadline = Instant::now() + EXAMPLE_LIMIT;
    let complaint = loop {
        match child.try_wait().map_err(spawn)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => break format!("example `{name}` failed ({status})"),
            None if Instant::now() >= deadline => {
                child.kill().map_err(spawn)?;
                child.wait().map_err(spawn)?;
                break format!("example `{name}` was still running after {} s", EXAMPLE_LIMIT.as_secs());
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    let said = fs::read(&log).map_err(Failure::file(&log))?;
    Err(Failure::Check(format!("{complaint}\n{}", String::from_utf8_lossy(&said).trim_end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_package_passes_and_what_is_missing_or_foreign_is_named() {
        let inside = |file: &str| file != "notes/plan.md";
        assert_eq!(packed("Cargo.toml\nCargo.toml.orig\nREADME.md\nsrc/lib.rs\n", inside), Ok(()));
        assert!(packed("Cargo.toml\nsrc/lib.rs\n", inside).is_err_and(|why| why.contains("README.md")));
        assert!(packed("Cargo.toml\nREADME.md\n../secret\n", inside).is_err_and(|why| why.contains("../secret")));
        assert!(packed("Cargo.toml\nREADME.md\nnotes/plan.md\n", inside).is_err_and(|why| why.contains("plan.md")));
    }

    #[test]
    fn an_example_says_in_its_first_lines_how_to_run_it() {
        assert_eq!(
            arguments_of("//! A chat.\n//! xtask-reuse: --for 2s --quiet\nfn main() {}\n"),
            ["--for", "2s", "--quiet"]
        );
        assert_eq!(arguments_of("//! A chat.\nfn main() {}\n// not here\n//! xtask-reuse: no\n"), [""; 0]);
    }

    #[test]
    fn the_project_knows_one_crate_and_stands_outside_every_workspace() {
        let text = manifest("peerage-wire", Path::new("/w/crates/wire"), &[], &[]);
        assert!(text.contains("[workspace]"));
        assert!(text.contains("peerage-wire = { path = \"/w/crates/wire\", features = [] }"));
    }
}
