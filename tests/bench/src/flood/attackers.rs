//! Those who attack, from fifty addresses: some say nothing, some send garbage, some begin a handshake, and some finish
//! one, as somebody else each time.

use std::net::SocketAddr;
use std::time::Duration;

use peerage_server::mailbox::Clock;
use peerage_server::wire::NodeId;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::attack::{Attack, attack};
use super::{ATTACKERS, HOLD, Spoils, attacker, connect};
use crate::Failure;

pub(super) async fn run(
    at: SocketAddr,
    to: NodeId,
    attempts: u32,
    time: Duration,
    spread: bool,
) -> Result<Spoils, Failure> {
    // A short flood is not waited for longer than it takes.
    let hold = HOLD.min(time);
    let clock = Clock::system();
    let start = Instant::now();
    let mut flooding = JoinSet::new();
    for number in 0..attempts {
        tokio::time::sleep_until(start + time * number / attempts).await;
        let from = attacker(spread, number as usize % ATTACKERS);
        // Each address does everything in turn.
        let what = Attack::ALL[(number as usize / ATTACKERS) % Attack::ALL.len()];
        flooding.spawn(async move {
            match tokio::time::timeout(hold, connect(from, at)).await {
                Ok(Ok(stream)) => {
                    let got = attack(what, stream, to, u64::from(number), clock, hold).await;
                    format!("{what:?}.{got:?}").to_lowercase()
                }
                _ => format!("{what:?}.unconnected").to_lowercase(),
            }
        });
    }
    let mut spoils = Spoils::new();
    while let Some(ended) = flooding.join_next().await {
        *spoils.entry(ended?).or_default() += 1;
    }
    Ok(spoils)
}
