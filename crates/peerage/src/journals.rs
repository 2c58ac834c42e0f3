//! Where a node's journals are written: a few files in its data directory.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use peerage_server::journal::{Journals, Snapshot};
use peerage_server::mailbox::Clock;

use crate::data_dir::{make_dir, private};

/// Bytes kept of each life of a machine, if nothing is said. The present life is kept and the last one that
/// crashed, of five machines: 320 MiB at most.
pub(crate) const DEFAULT_BYTES: usize = 32 << 20;
/// Files of crashes that are kept.
const MAX_CRASHES: usize = 16;
/// Files that somebody asked for that are kept: two of each machine, twice.
const MAX_ASKED: usize = 20;

const DIRECTORY: &str = "journals";
const CRASH: &str = "-crash.journal";
const ASKED: &str = ".journal";

/// A journal that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalFile {
    /// The machine's name.
    pub machine: &'static str,
    /// Which life of it, counted from 1.
    pub life: u32,
    /// Whether that life ended in a crash.
    pub crashed: bool,
    /// Entries in it.
    pub entries: usize,
    /// Where it is. `cargo xtask sim replay` takes it.
    pub path: PathBuf,
}

/// Why journals were not written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is no place for them.
    #[error("the node has no data directory to write journals to; start it with one")]
    NoDataDir,
    /// A file could not be written.
    #[error("cannot write {}: {source}; check the data directory and its room", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The node is ending.
    #[error("the node is ending: {0}")]
    Ending(#[from] tokio::task::JoinError),
}

/// A node's journals, and where they are written. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct JournalKeeper {
    journals: Journals,
    place: Option<Arc<Place>>,
    clock: Clock,
}

#[derive(Debug)]
struct Place {
    directory: PathBuf,
    /// One at a time writes and removes.
    turn: Mutex<()>,
}

impl JournalKeeper {
    /// Journals of a new node, of so many bytes a life. Those of crashes are written as they happen.
    pub(crate) fn new(bytes: usize, data_dir: Option<&Path>, clock: Clock) -> JournalKeeper {
        let directory = data_dir.map(|path| path.join(DIRECTORY));
        let place = directory.map(|directory| Arc::new(Place { directory, turn: Mutex::default() }));
        let journals = match place.clone() {
            None => Journals::recording(bytes, |_| {}),
            Some(place) => Journals::recording(bytes, move |snapshot| {
                let (place, millis) = (place.clone(), clock.now().unix_millis());
                // Of the root it is the last that happens in this process. In virtual time there is one thread.
                if clock.is_simulated() || snapshot.machine() == "server" {
                    return place.crashed(&snapshot, millis);
                }
                let name = format!("journal of {}", snapshot.machine());
                let writing = std::thread::Builder::new().name(name).spawn(move || place.crashed(&snapshot, millis));
                if let Err(error) = writing {
                    tracing::warn!(%error, "the journal of a crashed machine was not written");
                }
            }),
        };
        JournalKeeper { journals, place, clock }
    }

    pub(crate) fn journals(&self) -> Journals {
        self.journals.clone()
    }

    /// Writes all that is kept now.
    pub(crate) async fn dump(&self) -> Result<Vec<JournalFile>, JournalError> {
        let place = self.place.clone().ok_or(JournalError::NoDataDir)?;
        let (journals, millis) = (self.journals.clone(), self.clock.now().unix_millis());
        let writing = move || {
            let write =
                |snapshot: &Snapshot| place.write(snapshot, millis, if snapshot.has_crashed() { "-last" } else { "" });
            journals.snapshots().iter().map(write).collect()
        };
        if self.clock.is_simulated() { writing() } else { tokio::task::spawn_blocking(writing).await? }
    }
}

impl Place {
    fn crashed(&self, snapshot: &Snapshot, millis: u64) {
        match self.write(snapshot, millis, "-crash") {
            Ok(JournalFile { machine, path, entries, .. }) => tracing::warn!(
                machine,
                entries,
                path = %path.display(),
                "the journal of a machine that crashed was written; `cargo xtask sim replay` takes it"
            ),
            Err(error) => {
                tracing::warn!(machine = snapshot.machine(), %error, "the journal of a crash was not written")
            }
        }
    }

    fn write(&self, snapshot: &Snapshot, millis: u64, kind: &str) -> Result<JournalFile, JournalError> {
        // Nothing is half done between two turns.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.directory.join(format!("{}-{millis}{kind}{ASKED}", snapshot.machine()));
        let failed = |source| JournalError::Io { path: path.clone(), source };
        match make_dir(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let mut file = private().create(true).truncate(true).open(&path).map_err(failed)?;
        file.write_all(&snapshot.to_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        self.remove_oldest();
        Ok(JournalFile {
            machine: snapshot.machine(),
            life: snapshot.life(),
            crashed: snapshot.has_crashed(),
            entries: snapshot.len(),
            path,
        })
    }

    /// Keeps the newest files of each kind. Others than ours are left alone.
    fn remove_oldest(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let (mut crashes, mut asked) = (Vec::new(), Vec::new());
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Some(millis) = name.split('-').nth(1).and_then(|rest| rest.split('.').next()?.parse::<u64>().ok())
            else {
                continue;
            };
            if name.ends_with(CRASH) {
                crashes.push((millis, path));
            } else if name.ends_with(ASKED) {
                asked.push((millis, path));
            }
        }
        for (mut files, most) in [(crashes, MAX_CRASHES), (asked, MAX_ASKED)] {
            files.sort();
            for (_, path) in files.iter().take(files.len().saturating_sub(most)) {
                if let Err(error) = fs::remove_file(path) {
                    tracing::warn!(path = %path.display(), %error, "an old journal was not removed");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("made");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("read").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_files_of_each_kind_stay_and_other_files_are_left_alone() {
        let root = tempfile::tempdir().expect("directory");
        let directory = root.path().to_owned();
        let place = Place { directory: directory.clone(), turn: Mutex::default() };
        for n in 100..200 {
            for kind in ["-crash", "", "-last"] {
                fs::write(directory.join(format!("gossip-{n}{kind}.journal")), "").expect("written");
            }
        }
        fs::write(directory.join("notes-of-mine.journal"), "").expect("written");
        place.remove_oldest();
        let names = names(&directory);
        let crashes = names.iter().filter(|name| name.ends_with(CRASH)).count();
        assert_eq!((crashes, names.len()), (MAX_CRASHES, MAX_CRASHES + MAX_ASKED + 1));
        assert!(
            names.contains(&"gossip-199-crash.journal".to_owned()) && names.contains(&"gossip-199.journal".to_owned())
        );
        assert!(names.contains(&"notes-of-mine.journal".to_owned()));
    }

    #[tokio::test]
    async fn a_node_writes_a_journal_of_each_of_its_machines_when_asked() {
        let root = tempfile::tempdir().expect("directory");
        let node = crate::Builder::local().data_dir(root.path()).start().await.expect("starts");
        let files = node.dump_journals().await.expect("written");
        let machines: Vec<_> = files.iter().map(|file| file.machine).collect();
        assert_eq!(machines, ["dialer", "discovery", "exchange", "gossip", "listener", "router", "server"]);
        for file in files {
            let bytes = fs::read(&file.path).expect("there");
            let dump = peerage_server::journal::Dump::read(&bytes).expect("a dump");
            assert_eq!((dump.header.machine, dump.entries.len(), dump.damage), (file.machine, file.entries, None));
            assert!(file.path.starts_with(root.path().join(DIRECTORY)) && !file.crashed && file.life == 1);
        }
        // As the root says it when one of its actors has died.
        node.journals().crashed("gossip");
        let written = async {
            while !names(&root.path().join(DIRECTORY)).iter().any(|name| name.ends_with(CRASH)) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), written).await.expect("the journal of the crash");
        node.shutdown().await;

        let homeless = crate::Builder::local().start().await.expect("starts");
        let refused = homeless.dump_journals().await.expect_err("no place").to_string();
        assert!(refused.contains("no data directory"), "{refused}");
        homeless.shutdown().await;
    }
}
