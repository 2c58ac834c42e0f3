//! Opened and closed in every way, a database leaves nothing behind. Alone in its binary: it counts threads.
#![cfg(all(feature = "disk", target_os = "linux"))]

use std::time::{Duration, Instant};

use peerage_machine::Time;
use peerage_nodedb::{Banned, Config, NodeDb, OpenError};
use peerage_wire::{NetworkId, NodeId};

const NOW: Time = Time::new(Duration::ZERO, Duration::from_secs(1_700_000_000));

fn count(folder: &str) -> usize {
    std::fs::read_dir(folder).expect("procfs").count()
}

#[tokio::test]
async fn every_end_of_a_database_ends_its_thread_and_closes_its_file() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("nodes.redb");
    let open = || NodeDb::open(&path, NetworkId::named("test"), Config::recommended());
    let before = (count("/proc/self/task"), count("/proc/self/fd"));
    for round in 0..20u8 {
        let db = open().expect("the last one let it go");
        db.ban(Banned::Id(NodeId::from_bytes([round; 32])), Duration::MAX, NOW);
        assert!(matches!(open(), Err(OpenError::InUse { .. })), "a second one leaves nothing either");
        let start = Instant::now();
        match round % 4 {
            0 => {
                assert_eq!(db.close(), Ok(()));
                let again = open().expect("a closed one lets go of its file, whoever still has a handle");
                assert_eq!(again.bans(NOW), db.bans(NOW));
            }
            1 => {
                assert_eq!(db.flush().await, Ok(()));
                drop(db);
            }
            2 => {
                let clone = db.clone();
                drop(db);
                tokio::spawn(async move { clone.flush().await });
            }
            _ => drop(db),
        }
        // The handle of another task goes when that has ended.
        while count("/proc/self/task") > before.0 {
            assert!(start.elapsed() < Duration::from_secs(5), "round {round} leaves a thread");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(open().expect("let go").bans(NOW).len(), usize::from(round) + 1, "nothing is lost");
    }
    assert_eq!((count("/proc/self/task"), count("/proc/self/fd")), before);
}
