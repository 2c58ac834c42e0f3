//! What a log has told to be appended is there after the process was killed.
#![cfg(feature = "disk")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use peerage_machine::Rng;
use peerage_nodedb::{Appended, Done, Head, LogBounds, LogEntry, LogError, Logs, OpenedLog, ReadLimit};
use peerage_wire::NodeId;

/// Tells a copy of this test that it is the one to be killed, and where it writes.
const VICTIM: &str = "PEERAGE_LOG_VICTIM";
const NAME: &str = "what_was_appended_is_there_after_the_process_was_killed";
const NOW: Duration = Duration::from_secs(1_700_000_000);
const BOUNDS: LogBounds = LogBounds {
    bytes: 1 << 30,
    age: Duration::from_secs(3_600),
    heads_for: Duration::from_secs(3_600),
    heads: 1_000_000,
};

fn entry(position: u64) -> LogEntry {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&position.to_be_bytes());
    let (publisher, at) = (NodeId::from_bytes([1; 32]), NOW.as_millis() as u64);
    let head = Head { position, publisher, sequence: position, id, at, len: 64 };
    LogEntry { head, body: vec![position as u8; 64].into() }
}

fn answer<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Result<T, LogError> {
    let (sender, receiver) = mpsc::channel();
    call(Box::new(move |result| drop(sender.send(result))));
    receiver.recv_timeout(Duration::from_secs(60)).expect("answered")
}

fn open(logs: &Logs) -> OpenedLog {
    answer(|done| logs.open("t", BOUNDS, NOW, done)).expect("opens")
}

/// Appends without an end, a few at a time, and says what is appended.
fn victim(path: &Path) -> ! {
    let logs = Logs::at(path);
    let mut next = open(&logs).next;
    let mut out = std::io::stdout();
    loop {
        let entries: Vec<LogEntry> = (next..next + 3).map(entry).collect();
        next += 3;
        let appended: Appended = answer(|done| logs.append("t", entries, NOW, done)).expect("appended");
        assert_eq!(appended.oldest, 1);
        writeln!(out, "appended {}", next - 1).and_then(|()| out.flush()).expect("the parent reads");
    }
}

#[test]
fn what_was_appended_is_there_after_the_process_was_killed() {
    if let Ok(path) = std::env::var(VICTIM) {
        victim(Path::new(&path));
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("logs.redb");
    let mut rng = Rng::new(std::process::id().into());
    let mut most = 0;
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args([NAME, "--exact", "--nocapture"])
            .env(VICTIM, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a copy of this test");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let reader = std::thread::spawn(move || {
            let lines = out.lines().map_while(Result::ok);
            lines.filter_map(|line| line.rsplit_once("appended ")?.1.parse::<u64>().ok()).last()
        });
        std::thread::sleep(Duration::from_millis(500 + rng.below(500)));
        child.kill().expect("killed by its own id");
        child.wait().expect("ended");
        let told = reader.join().expect("read").expect("it appended something");

        let logs = Logs::at(&path);
        let opened = open(&logs);
        assert!(opened.next > told, "round {round}: {told} was told, and {} is next", opened.next);
        assert_eq!((opened.oldest, opened.heads.len() as u64), (1, opened.next - 1), "round {round}: no hole");
        assert_eq!((opened.next - 1) % 3, 0, "round {round}: batches are whole");
        let limit = ReadLimit { entries: usize::MAX, bytes: usize::MAX };
        let entries = answer(|done| logs.read("t", most, limit, done)).expect("reads");
        assert!(entries.iter().zip(most + 1..).all(|(found, position)| *found == entry(position)), "round {round}");
        most = opened.next - 1;
        logs.close();
    }
    assert!(most > 30, "the copies appended: {most}");
}
