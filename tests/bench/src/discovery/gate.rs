//! Datagrams a second that one core judges at the gate, by what is wrong with them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use peerage_discovery::wire::Packet;
use peerage_discovery::{Config, Gate, Secrets, Verdict};
use peerage_machine::Quota;

use super::{Figures, cost, keys, network, note, now, ping};
use crate::job::Impl;

/// Hosts that a flood comes from.
const HOSTS: u32 = 1_000;

fn host(number: u32) -> SocketAddr {
    (Ipv4Addr::from(0x1400_0000 + (number << 8)), 30303).into()
}

/// Quotas that are counted and never reached, so that each kind is judged to its end.
fn config() -> Config {
    let endless = Quota::new(u32::MAX, Duration::from_secs(1));
    Config {
        exempt_local: false,
        quota_host: endless,
        quota_site: endless,
        verify_requests: endless,
        ..Config::recommended()
    }
}

pub(super) fn measure(figures: &mut Figures) {
    let secrets = Secrets::from_seed(&[4; 32]);
    let seal = |packet: &Packet| packet.seal(network(), &keys(2), keys(1).id());
    let proven = |from| {
        let cookie = secrets.cookie(keys(2).id(), from, now(), config().cookie_epoch);
        seal(&Packet { cookie, ..ping() })
    };
    let unproven = seal(&ping());
    let good: Vec<Vec<u8>> = (0..HOSTS).map(|number| proven(host(number))).collect();
    let mut forged = good.clone();
    forged.iter_mut().filter_map(|bytes| bytes.last_mut()).for_each(|byte| *byte ^= 1);
    let garbage = vec![9; unproven.len()];
    let limited = Config { quota_host: Quota::new(1, Duration::from_secs(3_600)), ..config() };
    let mut rate = |metric, config: Config, bytes: &dyn Fn(usize) -> Vec<u8>, passes: bool| {
        let datagrams: Vec<(SocketAddr, Vec<u8>)> = (0..HOSTS).map(|n| (host(n), bytes(n as usize))).collect();
        let mut gate = Gate::new(config, keys(1).id(), network(), secrets.clone());
        let mut next = datagrams.iter().cycle();
        let nanos = cost(|| {
            let verdict = next.next().map(|(from, bytes)| gate.admit(now(), *from, bytes));
            debug_assert!(matches!(verdict, Some(Verdict::Pass(_))) == passes, "{metric}: {verdict:?}");
            verdict
        });
        note(figures, Impl::Peerage, metric, 1e9 / nanos);
    };
    rate("gate_garbage_s", config(), &|_| garbage.clone(), false);
    rate("gate_unproven_s", config(), &|_| unproven.clone(), false);
    rate("gate_over_quota_s", limited, &|_| unproven.clone(), false);
    rate("gate_bad_signature_s", config(), &|n| forged[n].clone(), false);
    rate("gate_good_s", config(), &|n| good[n].clone(), true);
}
