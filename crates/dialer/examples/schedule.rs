//! The dial scheduler driven by a list: it is told what happens, and prints what it decides.
//!
//! ```text
//! cargo run -p peerage-dialer --example schedule
//! ```

use std::time::Duration;

use peerage_dialer::peerage_machine::{Driver, Rng, Time};
use peerage_dialer::peerage_wire::{Keypair, NetworkId, NodeId, NodeRecord, RecordDraft, Verified};
use peerage_dialer::{Attempt, Config, Count, DialOutcome, DialerMachine, In, Out, StaticPeer};

/// Names a node by the number in its key.
fn name(id: NodeId) -> String {
    let number = (0..=255).find(|n| node(*n) == id);
    number.map_or_else(|| id.to_string(), |n| format!("node {n}"))
}

fn node(n: u8) -> NodeId {
    Keypair::from_seed([n; 32]).id()
}

fn record(n: u8) -> Result<Verified<NodeRecord>, Box<dyn std::error::Error>> {
    let address = format!("/ip4/192.0.2.{n}/tcp/30303").parse()?;
    let draft = RecordDraft::new(1_700_000_000_000, NetworkId::named("example")).address(address);
    Ok(draft.sign(&Keypair::from_seed([n; 32]))?)
}

fn show(now: Time, out: Out) {
    let decision = match out {
        Out::Want(count) => format!("wants {count} candidates"),
        Out::Resolve { attempt: Attempt(number), id } => format!("looks up {} (attempt {number})", name(id)),
        Out::Dial { attempt: Attempt(number), target } => {
            let kind = if target.is_static { "static peer" } else { "candidate" };
            format!("dials {kind} {} at {:?} (attempt {number})", name(target.id), target.addresses)
        }
        Out::Cancel(Attempt(number)) => format!("calls attempt {number} off"),
        Out::Count(Count::Dropped(refusal)) => format!("drops a candidate: {}", refusal.label()),
        Out::Count(other) => format!("counts {other:?}"),
    };
    println!("  {:>6.2} s  {decision}", now.running().as_secs_f64());
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config { max_dial_peers: 2, ..Config::recommended() };
    let mut dialer = Driver::new(DialerMachine::new(config, node(0), Rng::new(7))?);

    let friend = StaticPeer::new(node(1), ["192.0.2.1:30303".parse()?]);
    let candidates: Result<Vec<_>, _> = (2..=5).map(record).collect();
    // What happens, and at which second.
    let list: Vec<(u64, &str, In)> = vec![
        (0, "node 1 is named as a static peer", In::AddStatic(friend)),
        (0, "dialling may begin", In::Start),
        (1, "discovery finds nodes 2 to 5", In::Candidates(candidates?)),
        (2, "the static peer is unreachable", In::Done { attempt: Attempt(0), outcome: DialOutcome::ConnectFailed }),
        (3, "its newest record is the one it had", In::Resolved { attempt: Attempt(0), record: Some(record(1)?) }),
        (4, "node 2 is connected", In::PeerUp { id: node(2), dialled: true }),
        (4, "its attempt is done", In::Done { attempt: Attempt(1), outcome: DialOutcome::Connected }),
        (5, "node 3 is connected: two peers, as wanted", In::PeerUp { id: node(3), dialled: true }),
        (5, "its attempt is done", In::Done { attempt: Attempt(2), outcome: DialOutcome::Connected }),
        (6, "node 4 dials us", In::InboundPending(node(4))),
        (40, "node 2 is lost after 36 s", In::PeerDown { id: node(2), dialled: true, lived: Duration::from_secs(36) }),
        (40, "discovery finds nodes 2 and 4", In::Candidates(vec![record(2)?, record(4)?])),
    ];
    for (second, what, input) in list {
        let at = Time::ZERO + Duration::from_secs(second);
        pass_time(&mut dialer, at);
        println!("{second:>3} s  {what}");
        dialer.handle(at, input);
        dialer.drain().for_each(|out| show(at, out));
    }
    println!("and a minute of nothing:");
    pass_time(&mut dialer, Time::ZERO + Duration::from_secs(100));
    println!("at the end: {:?}", dialer.machine().status());
    Ok(())
}

/// Expires what is due on the way to `until`.
fn pass_time(dialer: &mut Driver<DialerMachine>, until: Time) {
    while let Some(at) = dialer.next_deadline().filter(|at| *at <= until) {
        dialer.expire_due(at);
        dialer.drain().for_each(|out| show(at, out));
    }
}
