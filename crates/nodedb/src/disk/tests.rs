mod damage;

use std::fs;
use std::io::Error;
use std::sync::atomic::{AtomicBool, Ordering};

use peerage_machine::{Rng, Time};
use peerage_wire::{Keypair, NodeId, NodeRecord, RecordDraft, Verified};
use redb::backends::FileBackend;
use redb::{DatabaseError, StorageBackend, TableDefinition};
use tempfile::TempDir;

use super::*;
use crate::{Anchor, Banned, Inner, NodeDb, Stats};

const NOW: Time = Time::new(Duration::ZERO, Duration::from_secs(1_700_000_000));
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn network() -> NetworkId {
    NetworkId::named("test")
}

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn record_of(network: NetworkId, seed: u8) -> Verified<NodeRecord> {
    let address = format!("/ip4/192.0.2.{seed}/udp/30303").parse().expect("multiaddr");
    RecordDraft::new(1, network).address(address).sign(&Keypair::from_seed([seed; 32])).expect("short")
}

fn record(seed: u8) -> Verified<NodeRecord> {
    record_of(network(), seed)
}

fn ip(seed: u8) -> std::net::IpAddr {
    std::net::IpAddr::from([192, 0, 2, seed])
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a temporary directory"))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("nodes.redb")
    }

    fn open(&self) -> NodeDb {
        NodeDb::open(self.file(), network(), Config::recommended()).expect("opens")
    }

    fn aside(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).expect("folder").map(|entry| entry.expect("entry").file_name());
        let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| name.starts_with("nodes.redb.unusable-"));
        names.sort_unstable();
        names
    }
}

/// A little of everything.
fn fill(db: &NodeDb) {
    for seed in 1..=20 {
        db.put_record(&record(seed), NOW);
        db.ping_received(record(seed).id(), ip(seed), NOW);
        db.pong_received(record(seed).id(), ip(seed), NOW);
        db.set_find_failures(record(seed).id(), ip(seed), seed.into(), NOW);
        db.ban(Banned::Id(id(seed)), NOW.unix() + DAY, NOW);
        db.ban(Banned::Network(format!("10.{seed}.0.0/16").parse().expect("network")), NOW.unix() + DAY, NOW);
        db.set_score(id(seed), 1_000 * u64::from(seed), NOW.unix());
    }
    db.set_anchors(vec![Anchor { record: record(4), since: NOW.unix(), lived: DAY }]);
}

/// Everything that can be asked.
fn contents(db: &NodeDb) -> impl PartialEq + std::fmt::Debug + use<> {
    let seeds = (1..=20).map(|seed| {
        let id = record(seed).id();
        (db.record(&id), db.last_ping(&id, ip(seed), NOW), db.last_pong(&id, ip(seed), NOW))
    });
    let seeds: Vec<_> = seeds.collect();
    let failures: Vec<_> = (1..=20).map(|seed| db.find_failures(&record(seed).id(), ip(seed), NOW)).collect();
    (seeds, failures, db.bans(NOW), db.scores(NOW), db.anchors(NOW), db.stats().entries)
}

#[test]
fn everything_survives_a_restart() {
    let (folder, memory) = (Folder::new(), NodeDb::memory(Config::recommended()));
    let db = folder.open();
    fill(&db);
    fill(&memory);
    assert_eq!(contents(&db), contents(&memory));
    assert_eq!(db.close(), Ok(()));
    assert_eq!(contents(&db), contents(&memory), "a closed one is a memory");

    let again = folder.open();
    assert_eq!(contents(&again), contents(&memory));
    assert_eq!(again.seeds(30, DAY, NOW, &mut Rng::new(1)).len(), 20);
    assert_eq!(again.stats().disk, Default::default(), "what was read is not written again");
    again.unban(Banned::Id(id(3)));
    again.set_score(id(3), 0, NOW.unix());
    again.set_anchors(Vec::new());
    again.expire(NOW + DAY * 2);
    drop(again);

    let stats = folder.open().stats();
    assert_eq!((stats.entries.records, stats.entries.proofs, stats.entries.bans, stats.entries.anchors), (0, 0, 0, 0));
    assert_eq!(stats.entries.scores, 19);
    assert!(folder.aside().is_empty());
}

#[tokio::test]
async fn a_flush_is_one_commit_and_a_key_that_changed_often_is_written_once() {
    let folder = Folder::new();
    let db = folder.open();
    for n in 0..1_000 {
        db.set_score(id(1), n + 1, NOW.unix());
    }
    assert_eq!(db.flush().await, Ok(()));
    let Stats { disk, .. } = db.stats();
    assert!(disk.commits <= 2 && disk.failed_commits == 0, "{disk:?}");
    assert!((40..=50).contains(&disk.last_commit_bytes), "a key of 32 bytes and two numbers: {disk:?}");
    assert_eq!(db.flush().await, Ok(()));
    assert_eq!(db.stats().disk, disk, "nothing to write is no transaction");
    assert_eq!((db.close(), db.close()), (Ok(()), Ok(())));
    assert_eq!(db.flush().await, Err(NotWritten));
    assert_eq!(NodeDb::memory(Config::recommended()).flush().await, Ok(()));
}

#[test]
fn what_was_told_is_written_within_a_second_or_so_by_itself() {
    let folder = Folder::new();
    let db = folder.open();
    fill(&db);
    std::thread::sleep(PERIOD + Duration::from_millis(700));
    assert!(db.stats().disk.commits >= 1);
}

#[test]
fn nodes_of_another_network_are_forgotten_and_bans_are_not() {
    let folder = Folder::new();
    let db = folder.open();
    let other = record_of(NetworkId::named("other"), 1);
    db.put_record(&other, NOW);
    db.pong_received(other.id(), ip(1), NOW);
    db.put_record(&record(2), NOW);
    db.ban(Banned::Id(other.id()), NOW.unix() + DAY, NOW);
    let anchor = |record| Anchor { record, since: NOW.unix(), lived: DAY };
    db.set_anchors(vec![anchor(other), anchor(record(2))]);
    drop(db);
    for _ in 0..2 {
        let db = folder.open();
        let entries = db.stats().entries;
        assert_eq!((entries.records, entries.proofs, entries.bans, entries.anchors), (1, 0, 1, 1));
        assert_eq!(db.anchors(NOW), [anchor(record(2))]);
    }
}

#[test]
fn a_smaller_configuration_reads_a_larger_file() {
    let folder = Folder::new();
    fill(&folder.open());
    let small = Config { nodes: 5, bans_by_id: 2, bans_by_network: 1, scores: 3, anchors: 0, ..Config::recommended() };
    for _ in 0..2 {
        let db = NodeDb::open(folder.file(), network(), small.clone()).expect("opens");
        let entries = db.stats().entries;
        assert_eq!((entries.records, entries.proofs, entries.bans, entries.scores, entries.anchors), (5, 5, 3, 3, 0));
        assert_eq!(db.scores(NOW).iter().map(|(_, points, _)| *points).sum::<u64>(), 57_000, "the highest stay");
    }
}

#[test]
fn a_file_is_open_once() {
    let folder = Folder::new();
    let db = folder.open();
    let second = NodeDb::open(folder.file(), network(), Config::recommended()).expect_err("in use");
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    assert!(folder.aside().is_empty(), "a good file is not set aside");
    drop(db);
    drop(folder.open());
}

#[test]
fn a_folder_that_is_not_there_is_for_the_user_to_make() {
    let folder = Folder::new();
    let path = folder.0.path().join("missing").join("nodes.redb");
    let error = NodeDb::open(path, network(), Config::recommended()).expect_err("no folder");
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    let error = NodeDb::open(folder.0.path(), network(), Config::recommended()).expect_err("a folder is no file");
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}

#[test]
fn tables_of_another_version_are_left_alone() {
    let folder = Folder::new();
    fill(&folder.open());
    const LATER: TableDefinition<'_, &str, &str> = TableDefinition::new("later");
    let database = file::opener(&folder.file()).expect("opens");
    let write = database.begin_write().expect("begins");
    write.open_table(LATER).expect("table").insert("key", "value").expect("inserts");
    write.commit().expect("commits");
    drop(database);

    let db = folder.open();
    assert_eq!(db.stats().entries.records, 20);
    assert_eq!(db.expire(NOW + DAY * 2), 20);
    drop(db);
    assert_eq!(folder.open().stats().entries.records, 0);
    assert!(folder.aside().is_empty());
    use redb::ReadableDatabase;
    let database = file::opener(&folder.file()).expect("opens");
    let table = database.begin_read().expect("reads").open_table(LATER).expect("still there");
    assert_eq!(table.get("key").expect("reads").expect("kept").value(), "value");
}

/// Writes one entry past the rules.
fn plant<K: redb::Key + 'static, V: redb::Value + 'static>(
    folder: &Folder,
    table: TableDefinition<'_, K, V>,
    key: K::SelfType<'_>,
    value: V::SelfType<'_>,
) {
    let database = file::opener(&folder.file()).expect("opens");
    let write = database.begin_write().expect("begins");
    write.open_table(table).expect("table").insert(key, value).expect("inserts");
    write.commit().expect("commits");
}

#[test]
fn another_format_is_set_aside_and_at_most_three_such_are_kept() {
    let folder = Folder::new();
    for round in 0..5 {
        let db = folder.open();
        assert_eq!(db.stats().entries, Default::default(), "round {round} starts afresh");
        assert_eq!(db.stats().disk.set_aside, u64::from(round > 0));
        fill(&db);
        drop(db);
        assert_eq!(folder.open().stats().entries.records, 20);
        plant(&folder, TableDefinition::<&str, u64>::new("meta"), "format", [0, 2, 77, u64::MAX, 3][round]);
    }
    assert_eq!(folder.aside().len(), 3);
    // What was set aside is whole.
    let kept = folder.0.path().join(&folder.aside()[2]);
    assert!(Database::open(kept).is_ok());
}

#[test]
fn a_value_that_does_not_decode_or_a_table_of_another_kind_is_set_aside() {
    let plants: [fn(&Folder); 4] = [
        |folder| plant(folder, TableDefinition::<[u8; 32], &[u8]>::new("scores"), [1; 32], &[1, 2, 3, 4][..]),
        |folder| plant(folder, TableDefinition::<[u8; 18], &[u8]>::new("bans_by_network"), [9; 18], &[1, 2][..]),
        |folder| plant(folder, TableDefinition::<[u8; 32], &[u8]>::new("records"), [1; 32], &[255; 400][..]),
        |folder| {
            let database = file::opener(&folder.file()).expect("opens");
            let write = database.begin_write().expect("begins");
            write.delete_table(TableDefinition::<[u8; 32], &[u8]>::new("scores")).expect("deletes");
            write.open_table(TableDefinition::<u64, u64>::new("scores")).expect("table");
            write.commit().expect("commits");
        },
    ];
    for (case, plant) in plants.into_iter().enumerate() {
        let folder = Folder::new();
        fill(&folder.open());
        plant(&folder);
        assert_eq!(folder.open().stats().entries, Default::default(), "case {case}");
        assert_eq!(folder.aside().len(), 1, "case {case}");
    }
}

#[test]
fn a_record_that_its_owner_did_not_sign_is_not_handed_out() {
    let folder = Folder::new();
    fill(&folder.open());
    let mut bytes = record(1).bytes().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let forged = NodeRecord::decode(&bytes).expect("well-formed");
    let (own, ban) = (forged.id(), Banned::Id(forged.id()));
    let rows = [
        crate::book::Row::Record(own, 0, forged.clone()),
        crate::book::Row::Anchor(
            0,
            crate::book::HeldAnchor { held: crate::book::Held { record: forged, checked: false }, since: 0, lived: 0 },
        ),
    ];
    let database = file::opener(&folder.file()).expect("opens");
    file::write(&database, &crate::book::Batch { puts: rows.into(), ..Default::default() }).expect("writes");
    drop(database);

    let db = folder.open();
    db.ban(ban, NOW.unix() + DAY, NOW);
    assert_eq!(db.seeds(30, DAY, NOW, &mut Rng::new(1)).len(), 19);
    assert_eq!((db.record(&own), db.anchors(NOW)), (None, Vec::new()));
    assert_eq!((db.stats().unverified, db.stats().entries.records), (2, 19));
    assert!(db.last_pong(&own, ip(1), NOW).is_some(), "its proof is ours");
    drop(db);
    assert_eq!(folder.open().stats().entries.records, 19, "and it has gone from the disk");
}

/// A file on a disk that fails when told to.
#[derive(Debug)]
struct Failing(FileBackend);

static FULL: AtomicBool = AtomicBool::new(false);

fn full() -> Result<(), Error> {
    if FULL.load(Ordering::SeqCst) { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

impl StorageBackend for Failing {
    fn len(&self) -> Result<u64, Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        full().and_then(|()| self.0.set_len(len))
    }

    fn sync_data(&self) -> Result<(), Error> {
        full().and_then(|()| self.0.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        full().and_then(|()| self.0.write(offset, data))
    }

    fn close(&self) -> Result<(), Error> {
        self.0.close()
    }
}

fn failing(path: &Path) -> Result<Database, DatabaseError> {
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    redb::Builder::new().create_with_backend(Failing(FileBackend::new(file)?))
}

#[tokio::test]
async fn a_full_disk_costs_no_memory_and_is_written_once_there_is_room() {
    let folder = Folder::new();
    let (state, disk) = start_with(&folder.file(), network(), Config::recommended(), failing).expect("opens");
    let db = NodeDb(Arc::new(Inner { state, disk: Some(disk), logs: crate::Logs::memory() }));
    fill(&db);
    assert_eq!(db.flush().await, Ok(()));

    FULL.store(true, Ordering::SeqCst);
    let unbanned = Banned::Id(id(7));
    db.unban(unbanned);
    assert_eq!(db.flush().await, Err(NotWritten));
    db.set_score(id(99), 7_000, NOW.unix());
    for _ in 0..3 {
        assert_eq!(db.flush().await, Err(NotWritten));
    }
    assert!(db.stats().disk.failed_commits >= 4);
    assert_eq!(db.scores(NOW).len(), 21, "the node goes on from memory");

    FULL.store(false, Ordering::SeqCst);
    assert_eq!(db.flush().await, Ok(()));
    let before = format!("{:?}", contents(&db));
    assert!(db.stats().disk.commits >= 2 && db.stats().disk.set_aside == 0);
    assert_eq!(db.close(), Ok(()));
    let again = folder.open();
    assert_eq!(format!("{:?}", contents(&again)), before);
    assert!(folder.aside().is_empty(), "a full disk is no broken file");
}

/// Says how long a full database takes: `cargo test -p peerage-nodedb full_database -- --nocapture`.
#[test]
fn a_full_database_opens_within_seconds() {
    let folder = Folder::new();
    let config = Config::recommended();
    let db = folder.open();
    let count = config.nodes as u32;
    for n in 0..count {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let ip = std::net::Ipv4Addr::from(0x2000_0000 + (n << 4));
        let address = format!("/ip4/{ip}/udp/30303").parse().expect("multiaddr");
        let record = RecordDraft::new(1, network()).address(address).sign(&Keypair::from_seed(seed)).expect("short");
        db.put_record(&record, NOW);
        db.pong_received(record.id(), ip.into(), NOW);
    }
    let start = Instant::now();
    db.close().expect("written");
    let written = start.elapsed();
    let size = fs::metadata(folder.file()).expect("file").len() >> 10;
    let start = Instant::now();
    let db = folder.open();
    let opened = start.elapsed();
    assert_eq!(db.stats().entries.records as u32, count);
    println!("{count} records: written in {written:?}, {size} KiB, opened in {opened:?}");
    let start = Instant::now();
    assert_eq!(db.seeds(30, DAY, NOW, &mut Rng::new(1)).len(), 30);
    println!("30 seeds, checked: {:?}", start.elapsed());
    assert!(opened < Duration::from_secs(10));
}
