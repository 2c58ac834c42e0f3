//! The benches of a session: which work, by whom, against what, in which round.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;

use crate::job::{Impl, Job, Values, Work};
use crate::machine::{self, Machine};
use crate::pairs::{self, Outcome};
use crate::report::Report;
use crate::stats::{Summary, ratios};
use crate::{Failure, names, peer};

/// What is measured of requests and streams.
#[derive(clap::Args)]
pub(crate) struct RouterArgs {
    /// Measure for half a second where it is two otherwise.
    #[arg(long)]
    quick: bool,
    /// Only these benches.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(names::ROUTER))]
    only: Vec<String>,
    /// Rounds; in each, every implementation and every reference is measured once.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pairs: u16,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure for half a second where it is two otherwise, and the memory of 1,000 sessions only.
    #[arg(long)]
    quick: bool,
    /// Only these benches.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(names::SESSION))]
    only: Vec<String>,
    /// Only these implementations, for a profiler: ratios to what is left out are not printed.
    #[arg(long, value_name = "IMPL", value_delimiter = ',')]
    by: Vec<String>,
    /// Rounds; in each, every implementation and every reference is measured once.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pairs: u16,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One bench.
struct Plan {
    work: Work,
    warm: Duration,
    run: Duration,
    one_cpu: bool,
    /// Who does it, in the order of a round, and beside which references.
    by: Vec<(Impl, Vec<Impl>)>,
    /// More rounds than this tell nothing new.
    rounds: usize,
    /// What is printed, with its unit; the first is what ratios are of.
    metrics: Vec<(&'static str, &'static str)>,
}

const MOST: usize = usize::MAX;
/// Of a stream, and of the questions on its session.
const STREAM_METRICS: [(&str, &str); 3] = [("mb_s", "MB/s"), ("ping_p50_us", "us"), ("ping_p99_us", "us")];

/// The plans of one name; memory has one for each number of sessions.
fn plans(name: &str, quick: bool) -> Vec<Plan> {
    let ms = Duration::from_millis;
    let run = if quick { ms(500) } else { ms(2000) };
    let plan = |work, by, metrics: &[(&'static str, &'static str)]| Plan {
        work,
        warm: run / 8,
        run,
        one_cpu: false,
        by,
        rounds: MOST,
        metrics: metrics.to_vec(),
    };
    let (micros, us) = ([("p50_us", "us"), ("p99_us", "us")], subject());
    let against = |reference: &[Impl]| {
        let references = reference.iter().map(|reference| (*reference, Vec::new()));
        references.chain([(us, reference.to_vec())]).collect::<Vec<_>>()
    };
    let raw = || against(&[Impl::RawTcp]);
    let small = [("msgs_s", "1/s")];
    match name {
        "bulk64k" => vec![plan(Work::Bulk { size: 64 << 10 }, every_cipher(), &[("mb_s", "MB/s")])],
        "bulk1m" => vec![plan(Work::Bulk { size: 1 << 20 }, every_cipher(), &[("mb_s", "MB/s")])],
        "small128" => vec![plan(Work::Small { size: 128 }, raw(), &small)],
        "small1k" => vec![plan(Work::Small { size: 1024 }, raw(), &small)],
        "rtt128" => vec![plan(Work::RoundTrip { size: 128 }, raw(), &micros)],
        "rtt128-1cpu" => vec![Plan { one_cpu: true, ..plan(Work::RoundTrip { size: 128 }, raw(), &micros) }],
        "request128" => vec![plan(Work::Request { size: 128 }, routed(), &micros)],
        "request128-1cpu" => vec![Plan { one_cpu: true, ..plan(Work::Request { size: 128 }, routed(), &micros) }],
        "requests-1" | "requests-16" | "requests-256" => {
            let outstanding = name.strip_prefix("requests-").and_then(|many| many.parse().ok()).unwrap_or(1);
            let metrics = [("requests_s", "1/s"), ("cpu_us", "us_per_request")];
            vec![plan(Work::Requests { size: 128, outstanding }, routed(), &metrics)]
        }
        "stream" | "stream-1cpu" => {
            let one_cpu = name == "stream-1cpu";
            vec![Plan { one_cpu, ..plan(Work::Stream { bytes: None }, streamed(), &STREAM_METRICS) }]
        }
        "stream-1gib" => {
            let bytes = Some(if quick { 1 << 26 } else { 1 << 30 });
            let metrics = STREAM_METRICS.into_iter().chain([("peak_accept", "MiB"), ("peak_dial", "MiB")]);
            let stream = plan(Work::Stream { bytes }, vec![(us, Vec::new())], &metrics.collect::<Vec<_>>());
            // However long it takes.
            vec![Plan { run: ms(60_000), ..stream }]
        }
        "priority" => vec![plan(Work::Priority, against(&[]), &micros)],
        "priority-10mbit" => {
            let metrics = [("p50_ms", "ms_above_rtt"), ("p99_ms", "ms_above_rtt")];
            let slow = plan(Work::PrioritySlowLink, against(&[]), &metrics);
            // Virtual time gives the same figures every time.
            vec![Plan { warm: ms(2000), run: run * 4, rounds: 1, ..slow }]
        }
        "wan" => {
            let wan = plan(Work::Wan, raw(), &[("percent", "percent_of_link")]);
            vec![Plan { warm: ms(2000), run: ms(3000), rounds: 1, ..wan }]
        }
        "setup" => {
            let mut by = against(&[Impl::CurveDalek, Impl::CurveAwsLc]);
            // What a connection costs without a handshake is part of both, and no measure of it.
            by.insert(0, (Impl::RawTcp, Vec::new()));
            vec![plan(Work::Setup, by, &[("cpu_us", "us"), ("handshakes_s", "1/s")])]
        }
        "mem" => {
            let sizes = if quick { &[1000][..] } else { &[1000, 5000] };
            let idle = |sessions: &usize| {
                let metrics = [("kib_accept", "KiB"), ("kib_dial", "KiB")];
                let idle = plan(Work::Idle { sessions: *sessions }, against(&[]), &metrics);
                Plan { run: ms(2000), rounds: if quick { 1 } else { 3 }, ..idle }
            };
            sizes.iter().map(idle).collect()
        }
        _ => {
            let metrics = [
                ("cpu_percent", "percent_of_core"),
                ("accept_percent", "percent_of_core"),
                ("dial_percent", "percent_of_core"),
                ("msgs_s", "1/s"),
            ];
            let load = plan(Work::Load { sessions: 500 }, raw(), &metrics);
            vec![Plan { warm: ms(500), run: if quick { ms(1000) } else { ms(5000) }, ..load }]
        }
    }
}

/// A session as a user gets it: with the cipher that it chooses, or the only one that it has.
fn subject() -> Impl {
    if peer::available(Impl::Peerage).is_ok() { Impl::Peerage } else { Impl::PeeragePure }
}

/// Each cipher's session right after its pipe.
fn every_cipher() -> Vec<(Impl, Vec<Impl>)> {
    let best = peer::pipe_of(Impl::Peerage);
    vec![
        (Impl::RawTcp, vec![]),
        (Impl::PipePure, vec![]),
        (Impl::PeeragePure, vec![Impl::PipePure, Impl::RawTcp]),
        (Impl::PipeChacha, vec![]),
        (Impl::PeerageChacha, vec![Impl::PipeChacha, Impl::RawTcp]),
        (Impl::PipeAes, vec![]),
        (Impl::PeerageAes, vec![Impl::PipeAes, Impl::RawTcp]),
        (Impl::Peerage, vec![best, Impl::RawTcp]),
    ]
}

/// Requests answered by a function and by a task, beside plain TCP.
fn routed() -> Vec<(Impl, Vec<Impl>)> {
    let raw = vec![Impl::RawTcp];
    vec![(Impl::RawTcp, Vec::new()), (subject(), raw.clone()), (Impl::PeerageTask, raw)]
}

/// A stream, alone and beside one that nobody reads; beside the bulk of a session and of plain TCP.
fn streamed() -> Vec<(Impl, Vec<Impl>)> {
    let bulk = vec![Impl::PeerageSession, Impl::RawTcp];
    vec![
        (Impl::RawTcp, Vec::new()),
        (Impl::PeerageSession, Vec::new()),
        (subject(), bulk),
        (Impl::PeerageUnread, vec![subject()]),
    ]
}

/// Measures what was asked for of requests and streams.
pub(crate) fn run_router(args: &RouterArgs) -> Result<(), Failure> {
    let RouterArgs { quick, only, pairs, json } = args;
    let args = Args { quick: *quick, only: only.clone(), by: Vec::new(), pairs: *pairs, json: json.clone() };
    run_named(&names::ROUTER, &args)
}

/// Measures what was asked for.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    run_named(&names::SESSION, args)
}

fn run_named(known: &[&'static str], args: &Args) -> Result<(), Failure> {
    let rounds = usize::from(args.pairs);
    let mut report = Report::begin(Machine::here(), rounds, args.quick);
    for name in known {
        if args.only.is_empty() || args.only.iter().any(|only| only == name) {
            for mut plan in plans(name, args.quick) {
                plan.by.retain(|(by, _)| args.by.is_empty() || args.by.iter().any(|only| only == by.name()));
                measure(name, &plan, rounds, &mut report).map_err(|error| format!("{name}: {error}"))?;
            }
        }
    }
    if let Some(to) = &args.json {
        report.write(to)?;
    }
    Ok(())
}

/// Why an implementation cannot do this work here.
fn missing(plan: &Plan, by: Impl) -> Option<String> {
    if plan.one_cpu
        // Tried on a thread of its own, which is then gone with what was set.
        && let Ok(Err(why)) = std::thread::spawn(machine::pin_to_one_cpu).join()
    {
        return Some(why);
    }
    match by {
        Impl::PipeAes if !machine::has_aes() => Some("no AES hardware".to_owned()),
        by if by.is_peerage() => peer::available(by).err(),
        _ => None,
    }
}

/// Runs the rounds of one bench and prints its lines.
fn measure(bench: &'static str, plan: &Plan, rounds: usize, report: &mut Report) -> Result<(), Failure> {
    let mut able = Vec::new();
    for (by, references) in &plan.by {
        match missing(plan, *by) {
            Some(why) => report.skipped(bench, *by, &why),
            None => able.push((*by, references)),
        }
    }
    let mut measured: BTreeMap<Impl, Vec<Values>> = BTreeMap::new();
    for _ in 0..rounds.min(plan.rounds) {
        for (by, _) in &able {
            let job = Job { work: plan.work.of(*by), by: *by, warm: plan.warm, run: plan.run, one_cpu: plan.one_cpu };
            let outcome = pairs::run(&job).map_err(|error| format!("{}: {error}", by.name()))?;
            measured.entry(*by).or_default().push(figures(&job, outcome)?);
        }
    }
    let of = |by: Impl, metric: &str| -> Vec<f64> {
        let rounds = measured.get(&by).into_iter().flatten();
        rounds.filter_map(|values| values.get(metric).copied()).collect()
    };
    let primary = plan.metrics.first().map_or("", |(metric, _)| metric);
    for (by, references) in able {
        for (metric, unit) in &plan.metrics {
            if let Some(summary) = Summary::of(&of(by, metric)) {
                report.figure(bench, by, &label(plan.work, metric, &of(by, "sessions")), unit, summary, None);
            }
        }
        for reference in references {
            if let Some(summary) = Summary::of(&ratios(&of(by, primary), &of(*reference, primary))) {
                report.figure(bench, by, "ratio", "x", summary, Some(*reference));
            }
        }
    }
    Ok(())
}

/// Memory is said for each number of sessions: those that there were, which open files may limit.
fn label(work: Work, metric: &str, sessions: &[f64]) -> String {
    match (work, sessions) {
        (Work::Idle { .. }, [sessions, ..]) => format!("{metric}_{sessions}"),
        _ => metric.to_owned(),
    }
}

/// Makes what is printed of what was counted and of what both processes used between the marks.
fn figures(job: &Job, outcome: Outcome) -> Result<Values, Failure> {
    let Outcome { mut values, marks } = outcome;
    if marks.is_empty() {
        return Ok(values);
    }
    let [before, after] = &marks[..] else { return Err(format!("{} marks instead of two", marks.len()).into()) };
    let counted = |name: &str| values.get(name).copied().ok_or_else(|| format!("no {name}"));
    let [accept, dial] = [0, 1].map(|side| after[side].cpu_us - before[side].cpu_us);
    let made = match job.work {
        Work::Setup => {
            let (count, seconds) = (counted("count")?, counted("seconds")?);
            vec![("cpu_us", (accept + dial) / count), ("handshakes_s", count / seconds)]
        }
        Work::Requests { .. } => {
            let (count, seconds) = (counted("count")?, counted("seconds")?);
            vec![("requests_s", count / seconds), ("cpu_us", (accept + dial) / count)]
        }
        Work::Stream { .. } => {
            let [accept, dial] = [0, 1].map(|side| after[side].peak_kib / 1024.0);
            vec![("peak_accept", accept), ("peak_dial", dial)]
        }
        Work::Idle { .. } => {
            if after.iter().any(|usage| usage.rss_kib == 0.0) {
                return Err("the system does not say how much memory a process has".into());
            }
            let sessions = counted("sessions")?;
            let [accept, dial] = [0, 1].map(|side| (after[side].rss_kib - before[side].rss_kib) / sessions);
            vec![("kib_accept", accept), ("kib_dial", dial)]
        }
        _ => {
            let (count, seconds) = (counted("count")?, counted("seconds")?);
            let percent = |cpu_us: f64| cpu_us / seconds / 1e4;
            vec![
                ("cpu_percent", percent(accept + dial)),
                ("accept_percent", percent(accept)),
                ("dial_percent", percent(dial)),
                ("msgs_s", count / seconds),
            ]
        }
    };
    values.extend(made.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Usage;

    #[test]
    fn every_name_has_a_plan_and_every_reference_is_measured_in_the_same_round() {
        for name in names::SESSION.into_iter().chain(names::ROUTER) {
            for plan in plans(name, true) {
                let measured: Vec<_> = plan.by.iter().map(|(by, _)| *by).collect();
                let references = plan.by.iter().flat_map(|(_, references)| references);
                assert!(references.into_iter().all(|reference| measured.contains(reference)), "{name}");
                assert!(!plan.metrics.is_empty(), "{name}");
            }
        }
    }

    #[test]
    fn a_handshake_costs_what_both_processes_spent() {
        let job =
            Job { work: Work::Setup, by: Impl::RawTcp, warm: Duration::ZERO, run: Duration::ZERO, one_cpu: false };
        let usage = |cpu_us| Usage { cpu_us, ..Usage::default() };
        let values = Values::from([("count".to_owned(), 100.0), ("seconds".to_owned(), 0.5)]);
        let marks = vec![[usage(0.0), usage(1000.0)], [usage(2000.0), usage(4000.0)]];
        let made = figures(&job, Outcome { values, marks }).expect("two marks");
        assert_eq!((made["cpu_us"], made["handshakes_s"]), (50.0, 200.0));
    }
}
