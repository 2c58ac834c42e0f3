//! A process that is killed in the middle of writing loses the last second at most.
#![cfg(feature = "disk")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use peerage_machine::{Rng, Time};
use peerage_nodedb::{Config, NodeDb};
use peerage_wire::{NetworkId, NodeId};

/// Commits come once a second. A machine that is busy with other tests may be late with one.
const LATE: Duration = Duration::from_millis(2_500);
/// Tells a copy of this test that it is the one to be killed, and where it writes.
const VICTIM: &str = "PEERAGE_NODEDB_VICTIM";
const NAME: &str = "what_was_put_before_the_last_commit_of_a_killed_process_is_there";
const NOW: Time = Time::new(Duration::ZERO, Duration::from_secs(1_700_000_000));

fn id(n: u64) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn open(path: &Path) -> NodeDb {
    let config = Config { scores: 100_000, ..Config::recommended() };
    NodeDb::open(path, NetworkId::named("test"), config).expect("opens")
}

/// Writes without an end, and says what it has written.
fn victim(path: &Path, first: u64) -> ! {
    let db = open(path);
    let mut out = std::io::stdout();
    let mut n = first;
    loop {
        db.set_score(id(n), n, NOW.unix());
        writeln!(out, "put {n}").and_then(|()| out.flush()).expect("the parent reads");
        std::thread::sleep(Duration::from_millis(1));
        n += 1;
    }
}

#[test]
fn what_was_put_before_the_last_commit_of_a_killed_process_is_there() {
    if let Ok(told) = std::env::var(VICTIM) {
        let (first, path) = told.split_once(' ').expect("a number and a path");
        victim(Path::new(path), first.parse().expect("number"));
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("nodes.redb");
    let mut rng = Rng::new(std::process::id().into());
    let mut first = 1;
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args([NAME, "--exact", "--nocapture"])
            .env(VICTIM, format!("{first} {}", path.display()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("a copy of this test");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let reader = std::thread::spawn(move || {
            let lines = out.lines().map_while(Result::ok);
            let puts =
                lines.filter_map(|line| Some((Instant::now(), line.rsplit_once("put ")?.1.parse::<u64>().ok()?)));
            puts.collect::<Vec<_>>()
        });
        std::thread::sleep(LATE + Duration::from_millis(200 + rng.below(1_300)));
        let killed = Instant::now();
        child.kill().expect("killed by its own id");
        child.wait().expect("ended");
        let puts = reader.join().expect("read");

        let db = open(&path);
        let known = db.scores(NOW);
        let safe = puts.iter().filter(|(at, _)| *at + LATE < killed).map(|(_, n)| *n);
        let safe = safe.max().unwrap_or(first - 1);
        assert!(known.len() as u64 >= safe, "round {round}: {} of {safe} are there", known.len());
        for (place, (known, points, _)) in known.iter().enumerate() {
            let expected = place as u64 + 1;
            assert_eq!((*known, *points), (id(expected), expected), "round {round}: no hole, as commits are whole");
        }
        assert_eq!(db.stats().disk.set_aside, 0, "round {round}: the file is usable");
        first = known.len() as u64 + 1;
        db.close().expect("written");
    }
    assert!(first > 300, "the copies wrote: {first}");
}
