//! What is said of one attack.

use std::time::Duration;

use peerage_server::{Config, Limits};

use super::{DROPS, Facts, Fared, HOSTILE, Percentiles, REQUESTS, Spoils, victim};

/// Name, value and unit.
pub(super) type Figures = Vec<(String, f64, &'static str)>;

/// What was found out.
pub(super) struct Run {
    pub(super) time: Duration,
    pub(super) attacked: bool,
    pub(super) before: Facts,
    /// At the end of the attack.
    pub(super) during: Facts,
    /// When the honest had nothing to wait for any more.
    pub(super) after: Facts,
    pub(super) fared: Fared,
    pub(super) spoils: Spoils,
}

/// The victim's counters that say what it did not do, and why: by how they begin, and a word for them.
const TOLD: [(&str, &str, &str); 11] = [
    ("refused", "peerage_inbound_refused_total", "connections"),
    ("handshakes", "peerage_handshakes_total", "handshakes"),
    ("disconnects", "peerage_disconnects_total", "sessions"),
    ("penalties", "peerage_penalties_total", "penalties"),
    ("router", "peerage_router_events_total", "events"),
    ("gossip", DROPS, "events"),
    ("queue", "peerage_queue_refused_total", "messages"),
    ("streams_refused", "peerage_session_refused_streams_total", "streams"),
    ("throttled", "peerage_throttle_waits_total", "waits"),
    ("late_frames", "peerage_session_late_frames_total", "frames"),
    ("restarts", "peerage_restarts_total", "actors"),
];

/// Bytes that a node with this configuration may hold because of its peers, by what for: what its resident memory is to
/// stay below.
pub(super) fn bound(config: &Config) -> Vec<(&'static str, usize)> {
    let (gossip, router) = (&config.gossip, &config.router);
    /// What an id costs that is remembered; see `gossip::Config::seen_ids`.
    const ID: usize = 110;
    vec![
        ("queues", Limits::of(config).held_for_peers()),
        ("first_windows", config.first_windows()),
        ("calls", router.served.node_bytes),
        // Those that go out, and those that come in.
        ("answers", 2 * router.answers.node_bytes),
        ("gossip_cache", gossip.cache_bytes),
        // With the signature checks, and with validators.
        ("gossip_in_flight", 2 * gossip.in_flight_bytes),
        ("gossip_coded", gossip.coded.bytes),
        ("gossip_ids", gossip.seen_ids * ID),
    ]
}

pub(super) fn of(run: &Run) -> Figures {
    let Run { time, attacked, before, during, after, fared, spoils } = run;
    let percent = |us: f64| us / (time.as_secs_f64() * 1e4);
    let bound = bound(&victim::config());
    let all: usize = bound.iter().map(|(_, bytes)| bytes).sum();
    let mut figures: Figures = vec![
        ("rss_before_kib".into(), before.rss_kib, "KiB"),
        ("rss_peak_kib".into(), during.rss_peak_kib, "KiB"),
        ("rss_after_kib".into(), after.rss_kib, "KiB"),
        ("bound_kib".into(), all as f64 / 1024.0, "KiB"),
        ("cpu_percent".into(), percent(during.cpu_us - before.cpu_us), "percent_of_core"),
        ("waited_for_cpu_percent".into(), percent((during.waited_us - before.waited_us).max(0.0)), "percent_of_time"),
        ("honest_peers_lost".into(), fared.peers_lost as f64, "peers"),
        ("pings".into(), fared.pings as f64, "requests"),
        ("pings_failed".into(), fared.failed.values().sum::<u64>() as f64, "requests"),
    ];
    let latencies = |name: &str, of: &Percentiles| {
        [("p50", of.p50), ("p99", of.p99), ("max", of.most)].map(|(what, ms)| (format!("{name}_{what}_ms"), ms, "ms"))
    };
    figures.extend(latencies("ping", &fared.ping_ms));
    figures.extend(fared.failed.iter().map(|(why, count)| (format!("pings_failed.{why}"), *count as f64, "requests")));
    figures.push(("messages_published".into(), fared.published as f64, "messages"));
    figures.push(("delivery_percent".into(), fared.delivered_percent, "percent"));
    figures.extend(latencies("delivery", &fared.delivery_ms));
    for (what, counters, start) in [("gossip", &fared.dropped, DROPS), ("router", &fared.requests, REQUESTS)] {
        figures.extend(counters.iter().filter(|(_, count)| **count > 0).filter_map(|(name, count)| {
            let why = labelled(name.strip_prefix(start)?);
            Some((format!("honest_{what}{why}"), *count as f64, "events"))
        }));
    }
    match attacked {
        true => figures.extend(hostile(during, spoils, percent)),
        // The same for all attacks.
        false => figures.extend(bound.into_iter().map(|(of, bytes)| {
            let kib = bytes as f64 / 1024.0;
            (format!("bound.{of}_kib"), kib, "KiB")
        })),
    }
    for (word, start, unit) in TOLD {
        for (name, value) in &during.counters {
            let risen = value - before.counters.get(name).copied().unwrap_or_default();
            if let Some(labels) = name.strip_prefix(start).filter(|_| risen > 0) {
                figures.push((format!("{word}{}", labelled(labels)), risen as f64, unit));
            }
        }
    }
    figures
}

/// What became of the hostile, and what they took.
fn hostile(during: &Facts, spoils: &Spoils, percent: impl Fn(f64) -> f64) -> Figures {
    // Nobody asked for costly answers before.
    let spent = during.handler_us.iter().map(|(_, us)| *us);
    let (all, most) = (spent.clone().fold(0.0, |all, us| all + us), spent.fold(0.0, f64::max));
    let mut figures: Figures = vec![
        ("hostile_cpu_percent".into(), percent(spoils.cpu_us), "percent_of_core"),
        ("hostile_peers".into(), HOSTILE as f64, "peers"),
        ("hostile_alive".into(), during.alive as f64, "peers"),
        ("hostile_banned".into(), during.banned as f64, "peers"),
        ("actors_largest_millicores".into(), during.actors_most_millicores, "thousandths_of_core"),
        ("actors_target_millicores".into(), during.actors_target_millicores, "thousandths_of_core"),
        ("handler_cpu_percent".into(), percent(all), "percent_of_core"),
        ("handler_largest_cpu_percent".into(), percent(most), "percent_of_core"),
        ("handler_largest_share_percent".into(), 100.0 * most / all.max(1.0), "percent"),
    ];
    figures.extend(spoils.counted.iter().map(|(what, count)| (format!("got.{what}"), *count as f64, "times")));
    figures
}

/// The labels of a metric's full name as a part of a figure's: `{by=peer,reason=idle}` is `.peer.idle`.
fn labelled(labels: &str) -> String {
    let labels = labels.trim_matches(['{', '}']).split(',');
    labels.filter_map(|label| Some(format!(".{}", label.split_once('=')?.1))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_counter_is_told_by_the_values_of_its_labels() {
        assert_eq!(labelled("{by=peer,reason=idle}"), ".peer.idle");
        assert_eq!(labelled("{}"), "");
    }

    #[test]
    fn only_what_rose_is_told_and_the_largest_share_is_one_peers() {
        let (one, two) = (super::super::keys(1).id(), super::super::keys(2).id());
        let counters = |idle| BTreeMap::from([("peerage_disconnects_total{by=us,reason=idle}".to_owned(), idle)]);
        let before = Facts { counters: counters(2), ..Facts::default() };
        let during = Facts { counters: counters(5), handler_us: vec![(one, 1e6), (two, 3e6)], ..Facts::default() };
        let time = Duration::from_secs(10);
        let (fared, spoils, after) = (Fared::default(), Spoils::default(), Facts::default());
        let told = of(&Run { time, attacked: true, before, during, after, fared, spoils });
        let value = |name: &str| told.iter().find(|(figure, ..)| figure == name).map(|(_, value, _)| *value);
        assert_eq!(value("disconnects.us.idle"), Some(3.0));
        assert_eq!(value("handler_largest_share_percent"), Some(75.0));
        assert_eq!(value("handler_largest_cpu_percent"), Some(30.0));
        assert_eq!(value("bound.queues_kib"), None);
    }

    #[test]
    fn the_bound_is_the_sum_of_what_the_configuration_allows() {
        let mut config = Config::recommended();
        let of = |config: &Config| bound(config).iter().map(|(_, bytes)| bytes).sum::<usize>();
        let before = of(&config);
        config.router.served.node_bytes += 1;
        config.queue.inbound.at_large += 1;
        config.gossip.cache_bytes += 1;
        assert_eq!(of(&config), before + 3);
    }
}
