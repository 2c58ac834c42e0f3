//! `cargo xtask sim`: scenarios of the simulated world, run, compared with what they gave before, and drawn.

mod compare;
mod files;
mod pages;
mod play;
mod plot;
mod replay;
mod run;
mod summary;

use std::io::Write;

use peerage_sim::report::{Metric, Unit};

use crate::shell::Failure;
use play::World;

/// What a shell says of a program that a closed pipe has ended (128 and the number of SIGPIPE).
const NOBODY_READS: i32 = 141;

/// What to do with scenarios. FILE is a path, or the name of a scenario in `crates/sim/scenarios`.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Runs scenarios and says whether their expectations and invariants hold.
    Run(run::Args),
    /// Runs scenarios and says what differs from the committed baselines.
    Compare(compare::Args),
    /// Names the scenarios that there are.
    List,
    /// Draws what `run --json` wrote, as SVG files.
    Plot(plot::Args),
    /// Feeds what a node recorded of a machine to the same machine again.
    Replay(replay::Args),
}

pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    if let Command::Run(_) | Command::Compare(_) = command {
        pages::large();
    }
    let mut say = |line: &str| {
        // Whoever reads may have seen enough: `cargo xtask sim list | head`.
        if writeln!(std::io::stdout(), "{line}").is_err() {
            std::process::exit(NOBODY_READS);
        }
    };
    match command {
        Command::Run(args) => run::run(args, &World, &mut say),
        Command::Compare(args) => compare::run(args, &World, &mut say),
        Command::List => list(&mut say),
        Command::Plot(args) => plot::run(args, &mut say),
        Command::Replay(args) => replay::run(args),
    }
}

/// A line for each shipped scenario.
fn list(say: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let found = files::all()?;
    let rows: Vec<[String; 5]> = found
        .iter()
        .map(|found| {
            let scenario = &found.scenario;
            let hostile: u64 = scenario.hostile().into_iter().map(u64::from).sum();
            let nodes = count(u64::from(scenario.population.nodes));
            let nodes = if hostile == 0 { nodes } else { format!("{nodes} + {}", count(hostile)) };
            let seconds = Metric { unit: Unit::Time, value: micros(scenario.duration.get()) };
            let quick = if scenario.quick { "quick" } else { "" };
            [scenario.name.clone(), nodes, seconds.to_string(), quick.to_owned(), scenario.about.clone()]
        })
        .collect();
    let head = ["scenario", "nodes + hostile", "lasts", "", "what it shows"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let [names, nodes, lasts, quick] = [0, 1, 2, 3].map(width);
    for [name, size, time, short, about] in &rows {
        say(&format!("{name:<names$}  {size:>nodes$}  {time:>lasts$}  {short:<quick$}  {about}"));
    }
    Ok(())
}

/// A number as people read it.
fn count(value: u64) -> String {
    Metric { unit: Unit::Count, value }.to_string()
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_a_line_for_every_shipped_scenario() {
        let mut lines = Vec::new();
        list(&mut |line| lines.push(line.to_owned())).expect("every shipped scenario can be read");
        assert_eq!(lines.len(), files::all().expect("they can be read").len() + 1);
        assert!(lines.iter().any(|line| line.starts_with("bootstrap-100 ")), "{lines:?}");
    }
}
