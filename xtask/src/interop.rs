//! `cargo xtask interop`: the accelerated build and the pure-Rust build of a session talk to each other, both ways.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{self, Failure};

const PACKAGE: &str = "peerage-peer-session";

/// Builds the echo example twice, and lets each build dial the other.
pub(crate) fn run() -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(Failure::file("a temporary folder"))?;
    let accelerated = build(folder.path(), "accelerated", &[])?;
    let pure = build(folder.path(), "pure", &["--no-default-features", "--features", "actor"])?;
    for (listener, dialler) in [(&accelerated, &pure), (&pure, &accelerated), (&accelerated, &accelerated)] {
        // Its own deadlines end it: a handshake's five seconds, and a silent session's thirty.
        let said = shell::capture(Command::new(listener).env("ECHO_DIALLER", dialler))?;
        let Some(heard) = said.lines().find(|line| line.starts_with("dialler: reached")) else {
            return Err(Failure::Check(format!("the dialler heard nothing:\n{said}")));
        };
        let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        println!("{} dials {}: {heard}", name(dialler), name(listener));
    }
    Ok(())
}

/// One build of the example, copied to where the next does not overwrite it.
fn build(folder: &Path, name: &str, features: &[&str]) -> Result<PathBuf, Failure> {
    let words = ["build", "--quiet", "--locked", "--package", PACKAGE, "--example", "echo"];
    shell::run(shell::cargo().args(words).args(features))?;
    let built = shell::metadata()?.target_directory.join("debug").join("examples").join("echo");
    let built = built.as_std_path().with_extension(std::env::consts::EXE_EXTENSION);
    let kept = folder.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    std::fs::copy(&built, &kept).map_err(Failure::file(&built))?;
    Ok(kept)
}
