//! Journals of whole nodes, replayed: the machines do what they did in the node, up to a crash.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Rng;
use peerage_server::gossip::poison;
use peerage_server::journal::{Dump, Snapshot};
use peerage_server::{Banned, Service};
use peerage_sim::replay::{Outcome, ReplayError, replay};
use peerage_tests::{World, config, virtually};

const NODES: usize = 6;

async fn world(seed: u64, bytes: usize) -> World {
    let mut world = World::new(seed, config(20));
    world.recorded = Some(bytes);
    for n in 0..NODES {
        world.join(peerage_tests::keys(seed, n)).await;
    }
    world.until_peers(NODES - 1, Duration::from_secs(60)).await;
    world
}

/// Half a minute of a network in which much happens.
async fn eventful(seed: u64, bytes: usize) -> World {
    let mut world = world(seed, bytes).await;
    for round in 0..20 {
        world.publish(round % NODES, format!("round {round}")).await;
        match round {
            3 => world.crash_and_restart(2).await,
            6 => world.nodes[0].server.ban(Banned::Id(world.nodes[4].id), Duration::from_secs(5)),
            9 => world.nodes[1].server.inject_panic(Service::Dialer),
            10 => world.nodes[1].server.inject_panic(Service::Discovery),
            11 => world.nodes[1].server.inject_panic(Service::Listener),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        world.collect().await;
    }
    world
}

fn snapshots(world: &World) -> Vec<Snapshot> {
    world.nodes.iter().flat_map(|node| node.journals.snapshots()).collect()
}

fn replayed(bytes: &[u8]) -> Outcome {
    replay(bytes, false, &mut |_| {}).expect("a dump of this build")
}

#[test]
fn every_machine_of_a_network_does_the_same_again() {
    let kept = virtually(async {
        let world = eventful(5, 64 << 20).await;
        let kept = snapshots(&world);
        world.finish().await;
        kept
    });
    let (mut fed, mut crashed) = (0, BTreeSet::new());
    for snapshot in &kept {
        let mut shown = 0;
        let outcome = replay(&snapshot.to_bytes(), false, &mut |_| shown += 1).expect("a dump of this build");
        assert!(outcome.is_same(), "{outcome:?}");
        assert_eq!((outcome.same, outcome.fed, shown), (snapshot.len() as u64, outcome.same, outcome.same));
        assert_eq!((outcome.lost, outcome.damage, outcome.unfinished), (0, None, None));
        fed += outcome.fed;
        if snapshot.has_crashed() {
            crashed.insert(snapshot.machine());
        }
    }
    let machines: BTreeSet<_> = kept.iter().filter(|kept| kept.len() > 10).map(Snapshot::machine).collect();
    assert_eq!(machines, BTreeSet::from(["dialer", "discovery", "exchange", "gossip", "listener", "server"]));
    assert_eq!(crashed, BTreeSet::from(["dialer", "discovery", "listener"]), "faults in the shell, kept beside");
    assert!(fed > 3_000, "{fed} entries");
}

async fn poisoned(payload: &'static [u8]) -> Vec<Snapshot> {
    let mut world = world(61, 64 << 20).await;
    world.publish(NODES - 1, Bytes::from_static(payload)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.collect().await;
    let kept = snapshots(&world);
    world.finish().await;
    kept
}

#[test]
fn a_message_that_made_gossip_panic_does_so_again_at_the_same_entry() {
    for (stage, payload) in
        [("decoding", poison::DECODE), ("unchecked", poison::UNCHECKED), ("checked", poison::CHECKED)]
    {
        let kept = virtually(poisoned(payload));
        let crashed: Vec<_> = kept.iter().filter(|kept| kept.has_crashed()).collect();
        assert_eq!(crashed.len(), NODES - 1, "{stage}: every node but the source");
        for snapshot in crashed {
            let outcome = replayed(&snapshot.to_bytes());
            let panicked = outcome.panicked.as_ref().expect("the same panic");
            assert_eq!(panicked.entry, snapshot.len() as u64 - 1, "{stage}: the last entry");
            assert!(panicked.as_in_the_node && panicked.message.contains("injected"), "{stage}: {panicked:?}");
            assert!(outcome.is_same() && outcome.same == panicked.entry, "{stage}");
        }
        for snapshot in kept.iter().filter(|kept| !kept.has_crashed()) {
            assert!(replayed(&snapshot.to_bytes()).is_same(), "{stage}: the life after it");
        }
    }
}

#[test]
fn a_panic_of_the_shell_is_none_of_the_machines() {
    let kept = virtually(poisoned(poison::DELIVERY));
    let crashed: Vec<_> = kept.iter().filter(|kept| kept.has_crashed()).collect();
    assert_eq!(crashed.len(), NODES - 1);
    for snapshot in crashed {
        let outcome = replayed(&snapshot.to_bytes());
        assert!(outcome.is_same() && outcome.crashed && outcome.panicked.is_none() && outcome.unfinished.is_none());
    }
}

/// Where the bodies of a dump's frames are: the header's, then each entry's.
fn frames(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut at, mut frames) = (10, Vec::new());
    while at < bytes.len() {
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
        frames.push(at + 8..at + 8 + len);
        at += 8 + len;
    }
    frames
}

/// Changes a byte of a frame, as somebody would who wants it to look whole.
fn forge(bytes: &mut [u8], frame: &std::ops::Range<usize>, at: usize, by: u8) {
    bytes[frame.start + at] ^= by;
    let check = blake3::hash(&bytes[frame.clone()]);
    bytes[frame.start - 4..frame.start].copy_from_slice(&check.as_bytes()[..4]);
}

fn of(kept: &[Snapshot], machine: &str) -> Vec<u8> {
    kept.iter().find(|kept| kept.machine() == machine).expect("every node has one").to_bytes()
}

fn quiet() -> Vec<Snapshot> {
    virtually(async {
        let mut world = world(8, 64 << 20).await;
        world.publish(0, "something").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let kept = snapshots(&world);
        world.finish().await;
        kept
    })
}

#[test]
fn the_first_entry_with_other_effects_is_found() {
    let kept = quiet();
    for machine in ["discovery", "exchange", "dialer", "gossip", "server", "listener"] {
        let whole = of(&kept, machine);
        let frames = frames(&whole);
        let last = frames.len() - 2;
        for entry in [0, last / 2, last] {
            let mut bytes = whole.clone();
            // What (1), time (24), a flag (1): then the hash.
            forge(&mut bytes, &frames[entry + 1], 26, 1);
            let outcome = replayed(&bytes);
            let difference = outcome.difference.as_ref().expect("other effects");
            assert_eq!((difference.entry, outcome.is_same()), (entry as u64, false), "{machine}");
            assert_eq!(outcome.same, outcome.fed - 1, "{machine}: all others are the same");
        }
    }
}

#[test]
fn a_machine_that_is_made_of_something_else_does_something_else() {
    let mut bytes = of(&quiet(), "gossip");
    let header = frames(&bytes)[0].clone();
    // The seed comes last.
    forge(&mut bytes, &header, header.len() - 1, 1);
    assert!(!replayed(&bytes).is_same());
}

#[test]
fn a_journal_that_lost_its_beginning_is_replayed_only_in_part_and_only_when_told_to() {
    let kept = virtually(async {
        let world = eventful(7, 32 << 10).await;
        let kept = snapshots(&world);
        world.finish().await;
        kept
    });
    let gossip = kept.iter().find(|kept| kept.machine() == "gossip").expect("every node has one");
    let bytes = gossip.to_bytes();
    let lost = Dump::read(&bytes).expect("whole").first();
    assert!(lost > 0);
    let refused = replay(&bytes, false, &mut |_| {}).expect_err("no state");
    assert_eq!(refused, ReplayError::BeginningLost { lost });
    assert!(refused.to_string().contains("--partial"));
    let outcome = replay(&bytes, true, &mut |_| {}).expect("what is there");
    assert_eq!((outcome.lost, outcome.fed), (lost, gossip.len() as u64));
    let difference = outcome.difference.as_ref().expect("it does not know its peers");
    assert!(!outcome.is_same() && difference.entry >= lost);
}

#[test]
fn a_torn_dump_is_replayed_as_far_as_it_goes() {
    let whole = of(&quiet(), "dialer");
    let outcome = replayed(&whole[..whole.len() - 3]);
    let all = replayed(&whole);
    assert!(outcome.is_same() && outcome.damage.is_some() && outcome.fed == all.fed - 1);
}

#[test]
fn no_forged_dump_makes_a_replay_panic() {
    let kept = quiet();
    let mut rng = Rng::new(3);
    for machine in ["discovery", "exchange", "dialer", "gossip", "server", "listener"] {
        let whole = of(&kept, machine);
        let frames = frames(&whole);
        for _ in 0..150 {
            let mut bytes = whole.clone();
            // The header is one of very many frames, and holds most of what can be wrong.
            let frame = if rng.below(3) == 0 { 0 } else { rng.below(frames.len() as u64) as usize };
            for _ in 0..=rng.below(3) {
                let at = rng.below(frames[frame].len() as u64) as usize;
                forge(&mut bytes, &frames[frame], at, rng.below(255) as u8 + 1);
            }
            let partial = rng.below(2) == 0;
            let outcome = catch_unwind(AssertUnwindSafe(|| replay(&bytes, partial, &mut |_| {}).map(drop)));
            assert!(outcome.is_ok(), "{machine}");
        }
    }
    assert!(replay(b"", true, &mut |_| {}).is_err());
}
