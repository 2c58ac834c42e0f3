//! A memory is what a simulated node's disk is.

use std::net::IpAddr;
use std::time::Duration;

use peerage_machine::{Rng, Time};
use peerage_nodedb::{Banned, Config, NodeDb};
use peerage_wire::{Keypair, NetworkId, NodeId, NodeRecord, RecordDraft, Verified};

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A node's life: it hears of others, and ends.
fn life(db: NodeDb, seed: u64) -> Vec<Verified<NodeRecord>> {
    let mut rng = Rng::new(seed);
    let mut now = Time::ZERO + DAY;
    for n in 0..50u8 {
        let ip = IpAddr::from([192, 0, n, 1]);
        let address = format!("/ip4/{ip}/udp/30303").parse().expect("multiaddr");
        let draft = RecordDraft::new(now.unix_millis(), NetworkId::named("test")).address(address);
        let record = draft.sign(&Keypair::from_seed([n; 32])).expect("short");
        db.put_record(&record, now);
        if rng.below(3) > 0 {
            db.pong_received(record.id(), ip, now);
        }
        db.ban(Banned::Id(NodeId::from_bytes(rng.bytes())), now.unix() + DAY, now);
        now += Duration::from_secs(rng.below(600));
    }
    db.seeds(10, DAY, now, &mut rng)
}

#[test]
fn a_memory_outlives_a_crash_by_a_clone_and_equal_calls_have_equal_results() {
    let (disk, twin) = (NodeDb::memory(Config::recommended()), NodeDb::memory(Config::recommended()));
    let (seeds, same) = (life(disk.clone(), 5), life(twin.clone(), 5));
    assert_eq!((seeds.len(), &seeds), (10, &same));
    assert_ne!(seeds, life(NodeDb::memory(Config::recommended()), 6));

    let now = Time::ZERO + DAY + Duration::from_secs(3_600);
    assert_eq!(disk.stats(), twin.stats());
    assert_eq!(disk.bans(now), twin.bans(now));
    assert_eq!(disk.bans(now).len(), 50, "what the node that ended knew");
    assert!(seeds.iter().all(|seed| disk.record(&seed.id()).as_ref() == Some(seed)));
    assert_eq!((disk.close(), disk.bans(now).len()), (Ok(()), 50), "a memory has nothing to close");
}
