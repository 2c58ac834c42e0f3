//! What no single value shows: sums and moments of a scenario that cannot be, each with what would be right.

use std::path::Path;

use super::units::{Share, Span, WHOLE};
use super::{Action, Adversary, Event, Expectation, Lookups, Number, Population, Requests, Scenario, Traffic};
use crate::report::{Metric, Unit};

/// More nodes than that fit no computer's memory.
const MOST_NODES: u32 = 1_000_000;

/// The name, the text about it, seeds and duration.
pub(super) fn name(name: &str, file: &str) -> Result<(), String> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if name.is_empty() || !plain {
        return Err(format!("`name = \"{name}\"`: a name is lower-case letters, digits and dashes"));
    }
    let stem = Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
    if stem == name { Ok(()) } else { Err(format!("`name = \"{name}\"`, but the file is called `{stem}`")) }
}

pub(super) fn about(about: &str) -> Result<(), String> {
    if about.is_empty() || about.contains('\n') {
        return Err("`about` is one line that says what the scenario shows".to_owned());
    }
    Ok(())
}

pub(super) fn seeds(seeds: u64) -> Result<(), String> {
    if (1..=10_000).contains(&seeds) { Ok(()) } else { Err("`seeds` is from 1 to 10000".to_owned()) }
}

pub(super) fn duration(duration: Span) -> Result<(), String> {
    if duration > Span::default() { Ok(()) } else { Err("`duration` is more than 0".to_owned()) }
}

/// There is time for a leak to show between what is compared.
pub(super) fn held_from(from: Span, end: Span) -> Result<(), String> {
    if from.get().saturating_mul(2) <= end.get() {
        return Ok(());
    }
    Err("`held_from` is in the first half of the run: what was held then is compared with the end".to_owned())
}

pub(super) fn population(population: &Population, end: Span) -> Result<(), String> {
    let Population { nodes, bootnodes, start, max_peers, statics, .. } = population;
    if !(1..=MOST_NODES).contains(nodes) {
        return Err(format!("`nodes` is from 1 to {MOST_NODES}"));
    }
    if !(1..=*nodes).contains(bootnodes) {
        return Err(format!("`bootnodes = {bootnodes}`: at least 1, and at most the {nodes} nodes that there are"));
    }
    if *start >= end {
        return Err("`start` is as long as the run or longer: some nodes would never start".to_owned());
    }
    if *max_peers == Some(0) {
        return Err("`max_peers` is at least 1".to_owned());
    }
    if *statics >= *nodes {
        return Err(format!("`statics = {statics}`: there are {} others for a node to keep connected", nodes - 1));
    }
    if let Some(members) = population.members {
        some("members", members.share, *nodes)?;
    }
    match population.slow {
        Some(slow) if slow.up.is_none() && slow.down.is_none() => {
            Err("`slow` needs `up`, `down` or both: the bandwidths of the slow nodes".to_owned())
        }
        _ => Ok(()),
    }
}

/// `from` and `until` of something that goes on for a while.
fn period(from: Span, until: Span, end: Span) -> Result<(), String> {
    if until <= from {
        return Err("`until` is not after `from`".to_owned());
    }
    if until > end { Err("`until` is after the run's end".to_owned()) } else { Ok(()) }
}

pub(super) fn traffic(traffic: &Traffic, end: Span, nodes: u32) -> Result<(), String> {
    period(traffic.from, traffic.until, end)?;
    if traffic.topic.is_empty() {
        return Err("`topic` needs a name".to_owned());
    }
    some("subscribers", traffic.subscribers, nodes)?;
    some("publishers", traffic.publishers, nodes)
}

pub(super) fn requests(requests: &Requests, end: Span, nodes: u32) -> Result<(), String> {
    period(requests.from, requests.until, end)?;
    if requests.handler.is_empty() || requests.handler.len() > peerage_router::MAX_NAME {
        return Err(format!("`handler` needs a name of at most {} bytes", peerage_router::MAX_NAME));
    }
    if requests.deadline == Span::default() {
        return Err("`deadline` is more than 0".to_owned());
    }
    if requests.allowance == Some(0) {
        return Err("`allowance` is at least 1: with none, nobody could ask".to_owned());
    }
    if requests.places == Some(0) {
        return Err("`places` is at least 1: with none, nobody could ask".to_owned());
    }
    some("askers", requests.askers, nodes)
}

pub(super) fn lookups(lookups: &Lookups, end: Span) -> Result<(), String> {
    period(lookups.from, lookups.until, end)?;
    if lookups.count == 0 { Err("`count` is at least 1".to_owned()) } else { Ok(()) }
}

/// A share that comes to at least one node.
fn some(key: &str, share: Share, nodes: u32) -> Result<(), String> {
    if share.of(u64::from(nodes)) > 0 {
        return Ok(());
    }
    let percent = Metric { unit: Unit::Share, value: u64::from(share.ppm()) };
    Err(format!("`{key}`: {percent} of {nodes} nodes is none"))
}

/// What goes on for `span` from `at` is over when the run is.
fn over(key: &str, at: Span, span: Span, end: Span) -> Result<(), String> {
    let until = at.get().checked_add(span.get());
    if until.is_some_and(|until| until <= end.get()) {
        return Ok(());
    }
    Err(format!("`at` and `{key}` together are after the run's end"))
}

pub(super) fn event(event: &Event, end: Span, nodes: u32) -> Result<(), String> {
    let at = event.at;
    if at >= end {
        return Err("`at` is not before the run's end: nobody would notice".to_owned());
    }
    match &event.action {
        Action::Partition { shares } => partition(shares, nodes),
        Action::Heal => Ok(()),
        Action::Crash { share, restart_after, .. } => {
            some("share", *share, nodes)?;
            restart_after.map_or(Ok(()), |after| over("restart_after", at, after, end))
        }
        Action::RestartAll { within, .. } => over("within", at, *within, end),
        Action::Churn { every, share, down_for, until, .. } => {
            some("share", *share, nodes)?;
            if *every == Span::default() || *down_for == Span::default() {
                return Err("`every` and `down_for` are more than 0".to_owned());
            }
            period(at, *until, end).map_err(|why| why.replace("`from`", "`at`"))
        }
        Action::SlowReader { share, lasts } => {
            some("share", *share, nodes)?;
            over("for", at, *lasts, end)
        }
        Action::ClockStep { share, .. } => some("share", *share, nodes),
        Action::Join { nodes: 0, .. } => Err("`nodes` is at least 1".to_owned()),
        Action::Join { within, .. } => over("within", at, *within, end),
        Action::Cut { from, to } if from == to => {
            Err("`from` and `to` are the same region: nodes of one region stay together".to_owned())
        }
        Action::Cut { .. } => Ok(()),
    }
}

fn partition(shares: &[Share], nodes: u32) -> Result<(), String> {
    if shares.len() < 2 {
        return Err("`shares` names at least two groups".to_owned());
    }
    shares.iter().try_for_each(|share| some("shares", *share, nodes))?;
    let sum: u64 = shares.iter().map(|share| u64::from(share.ppm())).sum();
    if sum == u64::from(WHOLE) {
        return Ok(());
    }
    let sum = Metric { unit: Unit::Share, value: sum };
    Err(format!("`shares` are {sum} together: every node is in one group, so they must be 100 %"))
}

/// What only entries together show. Events are in the order of time; the index is that of the bad one.
pub(super) fn order(events: &[(usize, Event)]) -> Result<(), (usize, String)> {
    let mut split = false;
    for (place, event) in events {
        match event.action {
            Action::Partition { .. } | Action::Cut { .. } => split = true,
            Action::Heal if !split => {
                return Err((
                    *place,
                    "`heal` with nothing to heal: no `partition` or `cut` comes before it".to_owned(),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn adversary(adversary: &Adversary, end: Span) -> Result<(), String> {
    match adversary.at {
        Some(at) if at >= end => Err("`at` is not before the run's end: they would never start".to_owned()),
        _ => Ok(()),
    }
}

/// Hostile nodes are a part of the whole, and the honest ones are the rest.
pub(super) fn adversaries(adversaries: &[(usize, Adversary)]) -> Result<(), (usize, String)> {
    let mut sum = 0;
    for (place, adversary) in adversaries {
        if let Number::Share(share) = adversary.number {
            sum += u64::from(share.ppm());
        }
        if sum >= u64::from(WHOLE) {
            let sum = Metric { unit: Unit::Share, value: sum };
            return Err((*place, format!("hostile nodes are {sum} of the whole: no honest node would be left")));
        }
    }
    Ok(())
}

/// A metric that this scenario's runs can have.
pub(super) fn expectation(expectation: &Expectation, scenario: &Scenario) -> Result<(), String> {
    let metric = expectation.metric.as_str();
    let family = metric.split('.').next().unwrap_or_default();
    let missing = match family {
        "delivered" | "duplicates-delivered" | "delivery" | "copies" | "bytes" if scenario.traffic.is_empty() => {
            "[[traffic]]"
        }
        "requests" if scenario.requests.is_empty() => "[[requests]]",
        "requests" if metric.starts_with("requests.members.") && scenario.population.members.is_none() => {
            return Err(format!("nothing to measure `{metric}` on: the scenario has no `members` in its [population]"));
        }
        "held" if scenario.held_from.is_none() => "held_from",
        "lookup" if scenario.lookups.is_empty() => "[[lookups]]",
        "hostile" | "victim" if scenario.adversaries.is_empty() => "[[adversaries]]",
        // Bans of hostile nodes; those of honest ones, `bans.honest`, every report has.
        "bans" if metric == "bans" && scenario.adversaries.is_empty() => "[[adversaries]]",
        _ => return Ok(()),
    };
    Err(format!("nothing to measure `{metric}` on: the scenario has no `{missing}`"))
}
