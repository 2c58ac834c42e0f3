//! `cargo xtask sim replay`: a journal of a real node, once more.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use peerage_sim::replay::{Outcome, Step, replay};

use crate::shell::Failure;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A journal, as a node built with `--features journal` writes it to `journals` in its data directory
    file: PathBuf,
    /// Feeds what is there even if the journal lost its beginning; its effects will differ sooner or later
    #[arg(long)]
    partial: bool,
    /// Prints so many of the last entries with their effects; `all` prints every one
    #[arg(long, default_value = "3", value_parser = show)]
    show: usize,
}

fn show(text: &str) -> Result<usize, String> {
    if text == "all" { Ok(usize::MAX) } else { text.parse().map_err(|_| "a number, or `all`".to_owned()) }
}

/// Longest text of one value that is printed: a message can have megabytes.
const MAX_SHOWN: usize = 2_000;

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let bytes = fs::read(&args.file).map_err(Failure::file(&args.file))?;
    let mut last = VecDeque::new();
    let outcome = replay(&bytes, args.partial, &mut |step| {
        if args.show == usize::MAX {
            println!("{}", text(step));
        } else if args.show > 0 {
            if last.len() == args.show {
                last.pop_front();
            }
            last.push_back(text(step));
        }
    })
    .map_err(|error| Failure::Check(error.to_string()))?;
    last.iter().for_each(|step| println!("{step}"));
    tell(&outcome).iter().for_each(|line| println!("{line}"));
    let differs = || Failure::Check("the machine did not do what it did in the node".to_owned());
    if outcome.is_same() { Ok(()) } else { Err(differs()) }
}

fn text(step: &Step<'_>) -> String {
    let mut text = format!("entry {} at {:?}: ", step.entry, step.at);
    match step.input {
        Some(input) => text.push_str(&cut(input)),
        None => text.push_str("timers that are due"),
    }
    for effect in step.effects {
        text.push_str("\n    ");
        text.push_str(&cut(effect));
    }
    text
}

fn cut(value: &dyn Debug) -> String {
    shorten(format!("{value:?}"))
}

fn shorten(mut text: String) -> String {
    if text.len() > MAX_SHOWN {
        let end = (0..=MAX_SHOWN).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        let more = text.len() - end;
        text.truncate(end);
        text.push_str(&format!("… ({more} bytes more)"));
    }
    text
}

/// What came of it, in sentences.
fn tell(outcome: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    let Outcome { machine, life, build, lost, fed, same, .. } = outcome;
    let ended = if outcome.crashed { "which ended in a crash" } else { "which went on" };
    lines.push(format!("{machine}, life {life}, {ended}; recorded by Peerage {build}: {fed} entries fed"));
    if *lost > 0 {
        lines.push(format!("the first {lost} entries are lost: the machine began without what they did to it"));
    }
    if let Some(damage) = outcome.damage {
        lines.push(format!(
            "the file is damaged or was cut short at its entry {}; {} bytes from there on were not read",
            damage.entry, damage.bytes
        ));
    }
    if let Some(difference) = &outcome.difference {
        lines.push(format!(
            "entry {} had other effects than in the node: {}",
            difference.entry,
            shorten(difference.input.clone())
        ));
        match difference.effects.as_slice() {
            [] => lines.push("    now: none, or timers only".to_owned()),
            effects => lines.extend(effects.iter().map(|effect| format!("    now: {}", shorten(effect.clone())))),
        }
    }
    if let Some(panicked) = &outcome.panicked {
        let alike = if panicked.as_in_the_node { "as it did in the node" } else { "which it did not in the node" };
        lines.push(format!("the machine panicked at entry {}, {alike}: {}", panicked.entry, panicked.message));
        lines.push(format!("    over: {}", shorten(panicked.input.clone())));
    }
    match (outcome.crashed, &outcome.panicked, outcome.unfinished) {
        (true, None, Some(entry)) => {
            lines.push(format!("in the node it did not come back from entry {entry}, and now it did"))
        }
        (true, None, None) => lines.push(
            "the machine did not panic in the node either: the crash was its shell's, after the last entry".to_owned(),
        ),
        (false, None, Some(entry)) => {
            lines.push(format!(
                "entry {entry} was under way in the node when the journal was written; it is not compared"
            ));
        }
        _ => {}
    }
    let verdict = if outcome.difference.is_none() { "the same" } else { "not the same" };
    lines.push(format!("effects: {verdict} as in the node ({same} of {fed} entries)"));
    lines
}

#[cfg(test)]
mod tests {
    use peerage_sim::replay::{Difference, Panicked};

    use super::*;

    fn outcome() -> Outcome {
        Outcome {
            machine: "gossip",
            life: 2,
            crashed: false,
            build: "0.1.0".into(),
            lost: 0,
            fed: 9,
            same: 9,
            difference: None,
            panicked: None,
            unfinished: None,
            damage: None,
        }
    }

    #[test]
    fn what_came_of_a_replay_is_told_in_sentences() {
        let told = |outcome: Outcome| tell(&outcome).join("\n");
        assert!(told(outcome()).ends_with("effects: the same as in the node (9 of 9 entries)"));
        let crashed = Outcome { crashed: true, ..outcome() };
        assert!(told(crashed.clone()).contains("did not panic in the node either"));
        let panicked = |as_in_the_node| {
            Some(Panicked { entry: 8, input: "Inbound".into(), message: "injected".into(), as_in_the_node })
        };
        let again = Outcome { panicked: panicked(true), ..crashed.clone() };
        assert!(again.is_same() && told(again).contains("panicked at entry 8, as it did in the node: injected"));
        let new = Outcome { panicked: panicked(false), ..outcome() };
        assert!(!new.is_same() && told(new).contains("which it did not"));
        let gone = Outcome { unfinished: Some(8), ..crashed };
        assert!(!gone.is_same() && told(gone).contains("did not come back from entry 8, and now it did"));
        let differs = Difference { entry: 3, input: "Start".into(), effects: vec!["Want(2)".into()] };
        let other = Outcome { difference: Some(differs), same: 8, ..outcome() };
        assert!(told(other.clone()).contains("entry 3 had other effects") && told(other).contains("now: Want(2)"));
    }

    #[test]
    fn a_long_value_is_cut_at_a_character() {
        let long = shorten("é".repeat(5_000));
        assert!(long.len() < MAX_SHOWN + 100 && long.ends_with("bytes more)"), "{}", long.len());
        assert_eq!(shorten("short".into()), "short");
    }
}
