//! The thread that owns the file: it writes what has changed, once a second.

pub(crate) mod file;
mod format;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use peerage_wire::NetworkId;
use redb::Database;
use tokio::sync::oneshot;

use crate::book::Book;
use crate::{Config, NotWritten, OpenError, State, locked};
use file::Opener;

/// How often changes are written: what a killed process loses at most.
const PERIOD: Duration = Duration::from_secs(1);

/// The longest pause between attempts to write to a disk that fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long closing waits for the last commit.
const CLOSE: Duration = Duration::from_secs(5);

/// How long dropping the last handle waits for it.
const DROP: Duration = Duration::from_secs(1);

enum Command {
    Flush(oneshot::Sender<bool>),
    Close(Sender<bool>),
}

/// The way to the thread.
#[derive(Debug)]
pub(crate) struct Disk {
    /// Each flush waits for its answer, so there are as many commands as callers at most.
    commands: Sender<Command>,
    /// `None` once it was told to end.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Opens the file and starts its thread. Waits until everything is read.
pub(crate) fn start(path: &Path, network: NetworkId, config: Config) -> Result<(Arc<Mutex<State>>, Disk), OpenError> {
    start_with(path, network, config, file::opener)
}

fn start_with(
    path: &Path,
    network: NetworkId,
    config: Config,
    opener: Opener,
) -> Result<(Arc<Mutex<State>>, Disk), OpenError> {
    let (commands, received) = mpsc::channel();
    let (opened, first) = mpsc::channel();
    let path = path.to_owned();
    let thread = std::thread::Builder::new().name("peerage-nodedb".into()).spawn(move || {
        let file = match file::open(&path, opener) {
            Ok(file) => file,
            Err(error) => {
                // Nobody else is there to hear of it.
                let _ = opened.send(Err(error));
                return;
            }
        };
        let mut state = State::new(Book::load(config, file.rows, network));
        state.disk.set_aside = u64::from(file.set_aside);
        let state = Arc::new(Mutex::new(state));
        let mut writer = Writer { state: state.clone(), path, opener, database: Some(file.database), pause: None };
        if opened.send(Ok(state)).is_ok() {
            writer.run(&received);
        }
    });
    let thread = thread.map_err(|source| OpenError::Thread { source })?;
    match first.recv() {
        Ok(Ok(state)) => Ok((state, Disk { commands, thread: Mutex::new(Some(thread)) })),
        Ok(Err(error)) => {
            join(thread);
            Err(error)
        }
        Err(mpsc::RecvError) => {
            join(thread);
            Err(OpenError::Thread { source: std::io::Error::other("it panicked while it read the file") })
        }
    }
}

/// Waits for a thread that has nothing left to do. How it ended was told already.
fn join(thread: JoinHandle<()>) {
    let _ = thread.join();
}

impl Disk {
    pub(crate) async fn flush(&self) -> Result<(), NotWritten> {
        let (reply, written) = oneshot::channel();
        self.commands.send(Command::Flush(reply)).map_err(|_| NotWritten)?;
        if written.await.unwrap_or(false) { Ok(()) } else { Err(NotWritten) }
    }

    pub(crate) fn close(&self) -> Result<(), NotWritten> {
        self.close_within(CLOSE)
    }

    fn close_within(&self, longest: Duration) -> Result<(), NotWritten> {
        let Some(thread) = locked(&self.thread).take() else { return Ok(()) };
        let (reply, written) = mpsc::channel();
        let sent = self.commands.send(Command::Close(reply)).is_ok();
        match written.recv_timeout(longest) {
            Err(RecvTimeoutError::Timeout) if sent => {
                tracing::warn!("the node database is still being written; its thread is left to end by itself");
                Err(NotWritten)
            }
            outcome => {
                join(thread);
                if outcome.unwrap_or(false) { Ok(()) } else { Err(NotWritten) }
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever wants to know closes it.
        let _ = self.close_within(DROP);
    }
}

struct Writer {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    opener: Opener,
    /// `None` after it failed: redb must then be opened anew.
    database: Option<Database>,
    /// How long it waited before the last attempt, while the disk fails.
    pause: Option<Duration>,
}

impl Writer {
    fn run(&mut self, commands: &Receiver<Command>) {
        let mut next = Instant::now() + PERIOD;
        loop {
            let reply = match commands.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Command::Flush(reply)) => Some(reply),
                Err(RecvTimeoutError::Timeout) => None,
                Ok(Command::Close(reply)) => {
                    let written = self.commit();
                    locked(&self.state).book.leave_disk();
                    self.forget_database();
                    // Who asked may have given up waiting.
                    let _ = reply.send(written);
                    return;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let written = self.commit();
            next = Instant::now() + self.pause.unwrap_or(PERIOD);
            if let Some(reply) = reply {
                // Who asked may have given up waiting.
                let _ = reply.send(written);
            }
        }
    }

    /// Writes what has changed. Whether all of it is on disk now.
    fn commit(&mut self) -> bool {
        let Some(batch) = locked(&self.state).book.batch() else { return true };
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            let database = match self.database.take() {
                Some(database) => database,
                None => {
                    let opened = file::open(&self.path, self.opener).map_err(|error| error.to_string())?;
                    locked(&self.state).disk.set_aside += u64::from(opened.set_aside);
                    opened.database
                }
            };
            let written = file::write(&database, &batch).map_err(|error| error.to_string());
            self.database = Some(database);
            written
        }));
        let error = match attempt {
            Ok(Ok(bytes)) => {
                let mut state = locked(&self.state);
                state.disk.commits += 1;
                state.disk.last_commit_bytes = bytes;
                if self.pause.take().is_some() {
                    tracing::info!(file = %self.path.display(), "the node database is written again");
                }
                return true;
            }
            Ok(Err(error)) => error,
            Err(_) => "writing it panicked".to_owned(),
        };
        self.forget_database();
        let mut state = locked(&self.state);
        state.disk.failed_commits += 1;
        state.book.write_all_again();
        drop(state);
        if self.pause.is_none() {
            tracing::warn!(
                file = %self.path.display(), error,
                "the node database cannot be written: the node goes on from memory, and tries again",
            );
        }
        self.pause = Some(self.pause.map_or(PERIOD, |pause| (pause * 2).min(LONGEST_PAUSE)));
        false
    }

    /// Closes the file. redb may write, and fail, even then.
    fn forget_database(&mut self) {
        let database = self.database.take();
        if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
            tracing::debug!(file = %self.path.display(), "closing the node database panicked");
        }
    }
}
