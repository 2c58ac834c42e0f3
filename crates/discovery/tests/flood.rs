//! A node under a flood on loopback, whose limits exempt nobody. What it measures is for `cargo xtask bench
//! discovery-flood`; here only what must hold on any machine, however busy.
#![cfg(target_os = "linux")]

mod support {
    pub(crate) mod flood;
}

use std::time::Duration;

use peerage_discovery::Config;
use peerage_machine::Quota;
use support::flood::{Flooded, HONEST, SOURCES, flood};

/// Datagrams a second: more than the limits of all its hosts, and less than what a computer drops that runs other tests
/// beside this one.
const RATE: u32 = 18_000;

/// Resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok()).expect("a number")
}

#[test]
fn honest_peers_are_answered_while_a_flood_is_dropped_at_the_gate() {
    let Flooded { sent, lasted, asked, answered, lost, dropped, probes, known, .. } =
        flood(Duration::from_secs(2), Some(RATE), resident);
    assert!(sent.iter().all(|kind| *kind > 1_000), "{sent:?}");
    // Honest pings share the kernel's buffer with the flood, and this computer with whoever runs beside.
    assert!(asked > 50 && answered * 2 > asked, "{answered} of {asked} were answered; lost {lost}, {dropped:?}");
    let of = |reason: &str| dropped.get(reason).copied().unwrap_or(0);
    assert!(of("magic") > 1_000, "{dropped:?}");
    assert!(of("no_cookie") > 0 && of("signature") > 0, "{dropped:?}");
    // What the flood can make the node do is bounded, however much it sends: by host, and in signature checks.
    let config = Config::local();
    let most = |quota: Quota| {
        let periods = (lasted + Duration::from_secs(2)).as_secs_f64() / quota.period().as_secs_f64();
        (f64::from(quota.burst()) * (periods + 1.0)) as u64
    };
    assert!(of("no_cookie") <= most(config.quota_host) * u64::from(SOURCES), "{dropped:?}");
    assert!(of("signature") <= most(config.verify_requests), "{dropped:?}");
    assert!(known >= usize::from(HONEST) / 2, "{known} honest peers are in its table");
    let [before, after] = probes;
    assert!(after < before + 16 * 1024, "from {before} KiB to {after} KiB");
}
