//! Logs in memory, and the same ones on disk.

use std::sync::mpsc;

use super::*;

const BOUNDS: LogBounds =
    LogBounds { bytes: 1_000, age: Duration::from_secs(100), heads_for: Duration::from_secs(300), heads: 50 };
const ALL: ReadLimit = ReadLimit { entries: usize::MAX, bytes: usize::MAX };
const START: Duration = Duration::from_secs(1_700_000_000);

fn entry(position: u64, len: usize, now: Duration) -> LogEntry {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&position.to_be_bytes());
    let publisher = NodeId::from_bytes([position as u8 % 3; 32]);
    let at = now.as_millis() as u64;
    let head = Head { position, publisher, sequence: 10 * position, id, at, len: len as u32 };
    LogEntry { head, body: Bytes::from(vec![position as u8; len]) }
}

fn answer<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Result<T, LogError> {
    let (sender, receiver) = mpsc::channel();
    call(Box::new(move |result| drop(sender.send(result))));
    receiver.recv_timeout(Duration::from_secs(30)).expect("every job is answered")
}

fn open(logs: &Logs, now: Duration) -> OpenedLog {
    answer(|done| logs.open("t", BOUNDS, now, done)).expect("opens")
}

fn append(logs: &Logs, entries: Vec<LogEntry>, now: Duration) -> Result<Appended, LogError> {
    answer(|done| logs.append("t", entries, now, done))
}

fn read(logs: &Logs, after: u64, limit: ReadLimit) -> Vec<LogEntry> {
    answer(|done| logs.read("t", after, limit, done)).expect("reads")
}

/// Of those whose position is a multiple of `modulus`.
fn select(logs: &Logs, after: u64, modulus: u64, limit: SelectLimit) -> Selected {
    let wanted: Wanted = Box::new(move |head| head.position.is_multiple_of(modulus));
    answer(|done| logs.select("t", after, wanted, limit, done)).expect("selects")
}

fn cursor(logs: &Logs, name: &str, position: u64) -> Result<(), LogError> {
    answer(|done| logs.set_cursor("t", name, position, done))
}

#[test]
fn the_oldest_bodies_go_by_bytes_and_age_and_their_heads_later() {
    let logs = Logs::memory();
    assert_eq!(open(&logs, START), OpenedLog { oldest: 1, next: 1, ..OpenedLog::default() });
    let appended = append(&logs, (1..=5).map(|n| entry(n, 300, START)).collect(), START).expect("appended");
    assert_eq!(appended, Appended { oldest: 3, bytes: 900, dropped: 2 }, "bytes");
    let later = START + Duration::from_secs(101);
    let appended = append(&logs, vec![entry(6, 5_000, later)], later).expect("appended");
    assert_eq!(appended, Appended { oldest: 6, bytes: 5_000, dropped: 3 }, "age, and the newest always stays");
    assert_eq!(open(&logs, later).heads.len(), 6);
    let appended = append(&logs, Vec::new(), START + Duration::from_secs(301)).expect("trimmed");
    assert_eq!((appended.oldest, appended.bytes), (7, 0));
    let opened = open(&logs, START + Duration::from_secs(301));
    assert_eq!((opened.heads.len(), opened.next), (1, 7), "no position is used twice");
    let many: Vec<_> = (7..107).map(|n| entry(n, 1, later)).collect();
    assert_eq!(append(&logs, many, later).expect("appended").oldest, 57, "heads are bounded, and bodies with them");
    assert_eq!(open(&logs, later).heads.len(), 50);
}

#[test]
fn an_append_that_is_repeated_is_there_once_and_another_in_its_place_is_refused() {
    let logs = Logs::memory();
    assert_eq!(append(&logs, vec![entry(1, 1, START)], START), Err(LogError::NotOpen));
    open(&logs, START);
    let both = vec![entry(1, 1, START), entry(2, 1, START)];
    append(&logs, both[..1].to_vec(), START).expect("appended");
    append(&logs, both, START).expect("the first one is there");
    assert_eq!(read(&logs, 0, ALL).len(), 2);
    let other = LogEntry { head: Head { position: 2, ..entry(9, 1, START).head }, ..entry(9, 1, START) };
    assert_eq!(append(&logs, vec![other], START), Err(LogError::Position { expected: 3, found: 2 }));
    assert_eq!(append(&logs, vec![entry(4, 1, START)], START), Err(LogError::Position { expected: 3, found: 4 }));
    assert_eq!(read(&logs, 0, ReadLimit { entries: 1, bytes: 0 }).len(), 1, "one of any size");
    assert_eq!(read(&logs, 2, ALL), []);
}

#[test]
fn cursors_go_forward_and_are_bounded() {
    let logs = Logs::memory();
    open(&logs, START);
    for n in 0..MAX_CURSORS {
        assert_eq!(cursor(&logs, &n.to_string(), 5), Ok(()));
    }
    assert_eq!(cursor(&logs, "one more", 5), Err(LogError::Cursor));
    assert_eq!(cursor(&logs, &"x".repeat(65), 5), Err(LogError::Cursor));
    assert_eq!((cursor(&logs, "0", 3), cursor(&logs, "1", 8)), (Ok(()), Ok(())));
    let cursors = open(&logs, START).cursors;
    assert_eq!((cursors["0"], cursors["1"], cursors.len()), (5, 8, MAX_CURSORS));
}

#[test]
fn a_selection_goes_on_where_it_ended_and_looks_at_so_many_heads() {
    let logs = Logs::memory();
    open(&logs, START);
    append(&logs, (1..=50).map(|n| entry(n, 10, START)).collect(), START).expect("appended");
    let positions = |selected: &Selected| selected.entries.iter().map(|entry| entry.head.position).collect::<Vec<_>>();
    let limit = SelectLimit { heads: 12, read: ReadLimit { entries: 2, bytes: 1_000 } };
    let (mut after, mut got, mut rounds) = (0, Vec::new(), 0);
    loop {
        let part = select(&logs, after, 5, limit);
        assert!(part.entries.len() <= 2 && part.after <= after + 12 && part.after > after);
        got.extend(positions(&part));
        (after, rounds) = (part.after, rounds + 1);
        if !part.more {
            break;
        }
    }
    assert_eq!((got, after), ((1..=10).map(|n| 5 * n).collect::<Vec<_>>(), 50));
    assert!(rounds >= 5);
    let none = SelectLimit { heads: 50, read: ReadLimit { entries: 0, bytes: 0 } };
    assert_eq!(positions(&select(&logs, 49, 1, none)), [50], "one of any size");
    assert_eq!(select(&logs, u64::MAX, 1, limit), Selected { entries: Vec::new(), after: 50, more: false });
    append(&logs, (51..=150).map(|n| entry(n, 10, START)).collect(), START).expect("appended");
    assert_eq!(positions(&select(&logs, 0, 1, limit)), [101, 102], "from the oldest that is there");
}

#[cfg(feature = "disk")]
mod on_disk {
    use std::fs;
    use std::io::{Error, ErrorKind};
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use peerage_machine::Rng;
    use redb::backends::FileBackend;
    use redb::{Database, DatabaseError, StorageBackend};

    use super::*;

    #[test]
    fn a_disk_does_what_a_memory_does_through_any_number_of_lives() {
        for seed in 0..8 {
            let folder = tempfile::tempdir().expect("a temporary directory");
            let path = folder.path().join("logs.redb");
            let (memory, mut disk, mut rng) = (Logs::memory(), Logs::at(&path), Rng::new(seed));
            let (mut now, mut next) = (START, 1);
            assert_eq!(open(&memory, now), open(&disk, now));
            for step in 0..60 {
                now += Duration::from_secs(rng.below(20));
                match rng.below(5) {
                    0 => {
                        disk.close();
                        assert_eq!(append(&disk, Vec::new(), now), Err(LogError::Closed));
                        disk = Logs::at(&path);
                        assert_eq!(open(&memory, now), open(&disk, now), "seed {seed} step {step}");
                    }
                    1 => {
                        let (name, position) = (rng.below(70).to_string(), rng.below(100));
                        assert_eq!(cursor(&memory, &name, position), cursor(&disk, &name, position));
                    }
                    _ => {
                        let count = rng.below(6);
                        let entries: Vec<_> =
                            (next..next + count).map(|n| entry(n, rng.below(200) as usize, now)).collect();
                        next += count;
                        assert_eq!(append(&memory, entries.clone(), now), append(&disk, entries, now));
                    }
                }
                let (after, entries) = (next.saturating_sub(rng.below(40)), rng.below(10) as usize);
                let limit = ReadLimit { entries, bytes: 500 };
                assert_eq!(read(&memory, after, limit), read(&disk, after, limit), "seed {seed} step {step}");
                let (modulus, heads) = (1 + rng.below(3), 1 + rng.below(30) as usize);
                let both =
                    [&memory, &disk].map(|logs| select(logs, after, modulus, SelectLimit { heads, read: limit }));
                assert_eq!(both[0], both[1], "seed {seed} step {step}");
            }
            disk.close();
        }
    }

    #[test]
    fn a_file_that_is_damaged_is_set_aside_and_another_started() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("logs.redb");
        let logs = Logs::at(&path);
        open(&logs, START);
        append(&logs, vec![entry(1, 100, START)], START).expect("appended");
        logs.close();
        let mut bytes = fs::read(&path).expect("a file");
        bytes.truncate(bytes.len() / 2);
        fs::write(&path, bytes).expect("writes");
        let logs = Logs::at(&path);
        assert_eq!(open(&logs, START).next, 1, "from the beginning");
        append(&logs, vec![entry(1, 100, START)], START).expect("and usable");
        logs.close();
        let names = fs::read_dir(folder.path()).expect("a folder").flatten().map(|file| file.file_name());
        assert_eq!(names.filter(|name| name.to_string_lossy().contains("unusable")).count(), 1);
    }

    #[test]
    fn a_log_that_nobody_opens_goes_when_all_of_it_is_too_old_and_its_positions_stay() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("logs.redb");
        let logs = Logs::at(&path);
        open(&logs, START);
        append(&logs, vec![entry(1, 100, START), entry(2, 100, START)], START).expect("appended");
        assert_eq!(cursor(&logs, "c", 2), Ok(()));
        logs.close();
        let other = |seconds| {
            let (logs, now) = (Logs::at(&path), START + Duration::from_secs(seconds));
            answer(|done| logs.open("another", BOUNDS, now, done)).expect("opens");
            logs.close();
        };
        let rows = || {
            let database = Database::open(&path).expect("opens");
            let read = redb::ReadableDatabase::begin_read(&database).expect("reads");
            let table = |name| redb::TableDefinition::<(&str, u64), &[u8]>::new(name);
            ["heads", "bodies"].map(|name| {
                redb::ReadableTableMetadata::len(&read.open_table(table(name)).expect("a table")).expect("a length")
            })
        };
        other(200);
        assert_eq!(rows(), [2, 2], "its messages are too old, and its heads not yet");
        other(301);
        assert_eq!(rows(), [0, 0]);
        let again = open(&Logs::at(&path), START + Duration::from_secs(302));
        assert_eq!((again.heads.len(), again.next, again.cursors["c"]), (0, 3, 2));
    }

    static FULL: AtomicBool = AtomicBool::new(false);

    #[derive(Debug)]
    struct Filling(FileBackend);

    impl StorageBackend for Filling {
        fn len(&self) -> Result<u64, Error> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> Result<(), Error> {
            self.0.set_len(len)
        }

        fn sync_data(&self) -> Result<(), Error> {
            if FULL.load(Ordering::SeqCst) { Err(ErrorKind::StorageFull.into()) } else { self.0.sync_data() }
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
            if FULL.load(Ordering::SeqCst) { Err(ErrorKind::StorageFull.into()) } else { self.0.write(offset, data) }
        }
    }

    fn filling(path: &Path) -> Result<Database, DatabaseError> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        redb::Builder::new().create_with_backend(Filling(FileBackend::new(file)?))
    }

    #[test]
    fn a_full_disk_is_told_and_what_is_tried_again_is_written_when_there_is_room() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("logs.redb");
        let thread = disk::LogDisk::start_with(path.clone(), filling).expect("a thread");
        let logs = Logs(Arc::new(Mutex::new(Place::Disk { path: path.clone(), thread: Some(thread) })));
        open(&logs, START);
        append(&logs, vec![entry(1, 100, START)], START).expect("appended");
        FULL.store(true, Ordering::SeqCst);
        let told = append(&logs, vec![entry(2, 100, START)], START);
        assert!(matches!(told, Err(LogError::Full | LogError::Disk(_))), "{told:?}");
        assert!(cursor(&logs, "c", 1).is_err());
        FULL.store(false, Ordering::SeqCst);
        let appended = append(&logs, vec![entry(2, 100, START)], START).expect("the file is opened anew");
        assert_eq!((appended.oldest, appended.bytes), (1, 200));
        assert_eq!(read(&logs, 0, ALL).len(), 2);
        logs.close();
        assert_eq!(open(&Logs::at(&path), START).next, 3);
    }
}
