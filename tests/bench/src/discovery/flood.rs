//! A flood of datagrams, as fast as this computer can send, while honest peers ping.

#[path = "../../../../crates/discovery/tests/support/flood.rs"]
mod attack;

use std::path::PathBuf;
use std::time::Duration;

use self::attack::Flooded;
use super::{cost, keys, network, ping, thread_cpu};
use crate::Failure;
use crate::job::Impl;
use crate::machine::{Machine, Usage};
use crate::report::Report;
use crate::stats::Summary;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds that it lasts.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Datagrams a second; as many as this computer can, if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1_000..))]
    rate: Option<u32>,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut report = Report::begin(Machine::here(), 1, false);
    let before = Usage::now();
    let flooded = attack::flood(Duration::from_secs(args.seconds), args.rate, thread_cpu);
    let Flooded { sent, lasted, asked, answered, lost, dropped, probes: [begun, ended], known } = flooded;
    let after = Usage::now();
    let mut figure = |by, metric: &str, unit, value: f64| {
        let of = Summary { median: value, min: value, max: value };
        report.figure("discovery-flood", by, metric, unit, of, None);
    };
    let all: u64 = sent.iter().sum();
    for (kind, count) in ["garbage", "unproven", "bad_signature"].into_iter().zip(sent) {
        figure(Impl::Peerage, &format!("sent.{kind}"), "1", count as f64);
    }
    figure(Impl::Peerage, "sent_s", "1/s", all as f64 / lasted.as_secs_f64());
    figure(Impl::Peerage, "lost_in_kernel", "1", lost as f64);
    figure(Impl::Peerage, "honest.asked", "1", asked as f64);
    figure(Impl::Peerage, "honest.answered", "%", 100.0 * answered as f64 / asked.max(1) as f64);
    figure(Impl::Peerage, "table_nodes", "1", known as f64);
    for (reason, count) in &dropped {
        figure(Impl::Peerage, &format!("dropped.{reason}"), "1", *count as f64);
    }
    let judged = all.saturating_sub(lost).max(1);
    let cpu = (ended - begun) as f64;
    figure(Impl::Peerage, "cpu_share", "%", cpu / lasted.as_nanos() as f64 * 100.0);
    figure(Impl::Peerage, "cpu_per_datagram_ns", "ns", cpu / judged as f64);
    let bytes = ping().seal(network(), &keys(1), keys(2).id());
    let envelope = peerage_discovery::wire::Envelope::read(&bytes).map_err(|reason| reason.label())?;
    let verify = cost(|| envelope.verify());
    figure(Impl::Ed25519, "verify_ns", "ns", verify);
    // Of what it cost, that which was no signature check, over the datagrams that were dropped without one.
    let checked = dropped.get("signature").copied().unwrap_or(0);
    let unchecked = judged.saturating_sub(checked).max(1);
    figure(Impl::Peerage, "cpu_per_drop_ns", "ns", (cpu - checked as f64 * verify).max(0.0) / unchecked as f64);
    figure(Impl::Peerage, "rss_growth_kib", "KiB", after.rss_kib - before.rss_kib);
    args.json.as_deref().map_or(Ok(()), |to| report.write(to))
}
