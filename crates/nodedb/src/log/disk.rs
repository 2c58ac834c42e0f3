//! The thread that owns the file of the logs: it does the jobs that wait together in one commit.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format` | u64: [`FORMAT`] |
//! | `meta` | `expires/` log | u64: when all that a log has is too old, in milliseconds since the Unix epoch |
//! | `logs` | log | u64: the position of its next entry |
//! | `heads` | log, position | publisher, 32 ‖ sequence, 8 ‖ id, 32 ‖ at, 8 ‖ length of the body, 4; big-endian |
//! | `bodies` | log, position | the body |
//! | `cursors` | log, name | u64: position |

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use peerage_wire::NodeId;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};

use super::index::Index;
use super::{
    Appended, Done, Head, Job, LogBounds, LogEntry, LogError, MAX_CURSORS, OpenedLog, ReadLimit, SelectLimit, Selected,
    Wanted, cursor_fits,
};
use crate::disk::file::{self, Opener};

/// The version of everything here.
const FORMAT: u64 = 1;
const HEAD: usize = 84;

const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const LOGS: TableDefinition<'static, &str, u64> = TableDefinition::new("logs");
const HEADS: TableDefinition<'static, (&str, u64), &[u8]> = TableDefinition::new("heads");
const BODIES: TableDefinition<'static, (&str, u64), &[u8]> = TableDefinition::new("bodies");
const CURSORS: TableDefinition<'static, (&str, &str), u64> = TableDefinition::new("cursors");

const EXPIRES: &str = "expires/";

/// Jobs that wait for the thread. Who submits them has a few under way for each log.
const JOBS: usize = 4_096;
/// Jobs done in one commit.
const TOGETHER: usize = 256;

enum Command {
    Job(Job),
    Close,
}

/// The way to the thread.
pub(super) struct LogDisk {
    commands: SyncSender<Command>,
    thread: JoinHandle<()>,
}

impl LogDisk {
    pub(super) fn start(path: PathBuf) -> Result<LogDisk, String> {
        LogDisk::start_with(path, file::opener)
    }

    pub(super) fn start_with(path: PathBuf, opener: Opener) -> Result<LogDisk, String> {
        let (commands, received) = mpsc::sync_channel(JOBS);
        let mut writer =
            Writer { path, opener, database: None, fresh: true, bounds: BTreeMap::new(), logs: BTreeMap::new() };
        let thread = std::thread::Builder::new()
            .name("peerage-logs".into())
            .spawn(move || writer.run(&received))
            .map_err(|error| format!("no thread for the logs: {error}"))?;
        Ok(LogDisk { commands, thread })
    }

    /// Gives the job back if there is no room for it, or no thread.
    pub(super) fn submit(&self, job: Job) -> Result<(), Job> {
        self.commands.try_send(Command::Job(job)).map_err(|refused| match refused {
            mpsc::TrySendError::Full(Command::Job(job)) | mpsc::TrySendError::Disconnected(Command::Job(job)) => job,
            _ => unreachable!("only a job was sent"),
        })
    }

    pub(super) fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Waits until all that was submitted is done.
    pub(super) fn close(self) {
        if self.commands.send(Command::Close).is_ok() {
            // How it ended was told to those who waited.
            let _ = self.thread.join();
        }
    }
}

struct Writer {
    path: PathBuf,
    opener: Opener,
    /// None after it failed: redb must then be opened anew.
    database: Option<Database>,
    /// Whether it was not opened yet: only then may a damaged file be set aside, as positions would begin anew.
    fresh: bool,
    bounds: BTreeMap<String, LogBounds>,
    /// As they are on disk; read again after a failure.
    logs: BTreeMap<String, (Index, BTreeMap<String, u64>)>,
}

impl Writer {
    fn run(&mut self, commands: &Receiver<Command>) {
        loop {
            let Ok(first) = commands.recv() else { return };
            let mut jobs = Vec::new();
            let mut close = false;
            for command in std::iter::once(first).chain(std::iter::from_fn(|| commands.try_recv().ok())) {
                match command {
                    Command::Job(job) => jobs.push(job),
                    Command::Close => close = true,
                }
                if close || jobs.len() >= TOGETHER {
                    break;
                }
            }
            self.together(jobs);
            if close {
                self.forget();
                return;
            }
        }
    }

    /// Writes in one commit and then reads, as nobody reads what was not told to be written; but a log is opened with what
    /// was to be written before.
    fn together(&mut self, jobs: Vec<Job>) {
        let (mut appends, mut cursors, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Open { log, bounds, now, done } => {
                    self.write(std::mem::take(&mut appends), std::mem::take(&mut cursors));
                    let opened = self.guarded(|writer| writer.open(&log, bounds, now));
                    done(opened);
                }
                Job::Append { log, entries, now, done } => appends.push((log, entries, now, done)),
                Job::Cursor { log, name, position, done } => cursors.push((log, name, position, done)),
                Job::Read { .. } | Job::Select { .. } => reads.push(job),
            }
        }
        self.write(appends, cursors);
        for job in reads {
            match job {
                Job::Read { log, after, limit, done } => {
                    let read = self.guarded(|writer| writer.read(&log, after, limit));
                    done(read);
                }
                Job::Select { log, after, wanted, limit, done } => {
                    let selected = self.guarded(|writer| writer.select(&log, after, &wanted, limit));
                    done(selected);
                }
                _ => {}
            }
        }
    }

    #[allow(clippy::type_complexity, reason = "the fields of two kinds of job")]
    fn write(
        &mut self,
        appends: Vec<(String, Vec<LogEntry>, Duration, Done<Appended>)>,
        cursors: Vec<(String, String, u64, Done<()>)>,
    ) {
        if appends.is_empty() && cursors.is_empty() {
            return;
        }
        let (mut jobs, mut dones, mut moves, mut moved) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (log, entries, now, done) in appends {
            jobs.push((log, entries, now));
            dones.push(done);
        }
        for (log, name, position, done) in cursors {
            moves.push((log, name, position));
            moved.push(done);
        }
        let written = self.guarded(|writer| {
            for log in jobs.iter().map(|job| &job.0).chain(moves.iter().map(|job| &job.0)) {
                writer.load(log)?;
            }
            let transaction = writer.database()?.begin_write().map_err(broken)?;
            let mut results = Vec::new();
            for (log, entries, now) in jobs {
                results.push(writer.append(&transaction, &log, entries, now)?);
            }
            let mut cursors = Vec::new();
            for (log, name, position) in &moves {
                cursors.push(writer.cursor(&transaction, log, name, *position)?);
            }
            transaction.commit().map_err(broken)?;
            Ok((results, cursors))
        });
        match written {
            Ok((results, cursors)) => {
                dones.into_iter().zip(results).for_each(|(done, result)| done(result));
                moved.into_iter().zip(cursors).for_each(|(done, result)| done(result));
            }
            Err(error) => {
                dones.into_iter().for_each(|done| done(Err(error.clone())));
                moved.into_iter().for_each(|done| done(Err(error.clone())));
            }
        }
    }

    /// Lets go of the file, and of what is known of it, if a call fails or panics.
    fn guarded<T>(&mut self, call: impl FnOnce(&mut Writer) -> Result<T, LogError>) -> Result<T, LogError> {
        let result = catch_unwind(AssertUnwindSafe(|| call(self)))
            .unwrap_or_else(|_| Err(LogError::Disk("the database panicked".to_owned())));
        if let Err(LogError::Full | LogError::Disk(_)) = &result {
            self.forget();
        }
        result
    }

    fn forget(&mut self) {
        self.logs.clear();
        let database = self.database.take();
        if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
            tracing::debug!(file = %self.path.display(), "closing the logs panicked");
        }
    }

    fn database(&mut self) -> Result<&Database, LogError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => {
                make_private(&self.path);
                let opened = file::open_checked(&self.path, self.opener, self.fresh, prepare).map_err(broken)?;
                self.fresh = false;
                opened
            }
        };
        Ok(self.database.insert(database))
    }

    fn open(&mut self, log: &str, bounds: LogBounds, now: Duration) -> Result<OpenedLog, LogError> {
        self.bounds.insert(log.to_owned(), bounds);
        self.load(log)?;
        if let Some((index, _)) = self.logs.get_mut(log) {
            index.bounds = bounds;
        }
        let transaction = self.database()?.begin_write().map_err(broken)?;
        self.append(&transaction, log, Vec::new(), now)??;
        self.sweep(&transaction, now)?;
        transaction.commit().map_err(broken)?;
        let (index, cursors) = self.logs.get(log).ok_or(LogError::NotOpen)?;
        let Appended { oldest, bytes, .. } = index.appended(0);
        let heads = index.heads().copied().collect();
        Ok(OpenedLog { heads, oldest, next: index.next(), bytes, cursors: cursors.clone() })
    }

    /// Reads the heads and cursors of a log, unless they are known.
    fn load(&mut self, log: &str) -> Result<(), LogError> {
        // Whoever has not opened it is told so when its job is done.
        let Some(bounds) = self.bounds.get(log).copied().filter(|_| !self.logs.contains_key(log)) else {
            return Ok(());
        };
        let transaction = self.database()?.begin_read().map_err(broken)?;
        let mut heads: Vec<Head> = Vec::new();
        for row in transaction.open_table(HEADS).map_err(broken)?.range((log, 0)..=(log, u64::MAX)).map_err(broken)? {
            let (key, value) = row.map_err(broken)?;
            let position = key.value().1;
            let head = parse(position, value.value());
            let follows = heads.last().is_none_or(|last| last.position + 1 == position);
            heads.push(head.filter(|_| follows).ok_or_else(|| malformed(log, position))?);
        }
        let next =
            transaction.open_table(LOGS).map_err(broken)?.get(log).map_err(broken)?.map_or(1, |next| next.value());
        if heads.last().is_some_and(|last| last.position + 1 != next) {
            return Err(malformed(log, next));
        }
        let bodies = transaction.open_table(BODIES).map_err(broken)?;
        let oldest = bodies.range((log, 0)..=(log, u64::MAX)).map_err(broken)?.next();
        let oldest = oldest.transpose().map_err(broken)?.map_or(next, |(key, _)| key.value().1);
        let mut cursors = BTreeMap::new();
        for row in
            transaction.open_table(CURSORS).map_err(broken)?.range((log, "")..).map_err(broken)?.take(MAX_CURSORS)
        {
            let (key, value) = row.map_err(broken)?;
            let (of, name) = key.value();
            if of != log {
                break;
            }
            cursors.insert(name.to_owned(), value.value());
        }
        self.logs.insert(log.to_owned(), (Index::new(bounds, heads, oldest, next), cursors));
        Ok(())
    }

    /// What is wrong with the job alone is in the inner result, and nothing was written of it then.
    fn append(
        &mut self,
        transaction: &WriteTransaction,
        log: &str,
        entries: Vec<LogEntry>,
        now: Duration,
    ) -> Result<Result<Appended, LogError>, LogError> {
        let Some((index, _)) = self.logs.get_mut(log) else { return Ok(Err(LogError::NotOpen)) };
        let entries = match index.new_of(entries) {
            Ok(entries) => entries,
            Err(error) => return Ok(Err(error)),
        };
        let mut heads = transaction.open_table(HEADS).map_err(broken)?;
        let mut bodies = transaction.open_table(BODIES).map_err(broken)?;
        let trim = index.take(&entries, now);
        for entry in &entries {
            let key = (log, entry.head.position);
            heads.insert(key, &encode(&entry.head)[..]).map_err(broken)?;
            bodies.insert(key, &entry.body[..]).map_err(broken)?;
        }
        let dropped = trim.bodies.end - trim.bodies.start;
        for position in trim.bodies {
            bodies.remove((log, position)).map_err(broken)?;
        }
        for position in trim.heads {
            heads.remove((log, position)).map_err(broken)?;
        }
        transaction.open_table(LOGS).map_err(broken)?.insert(log, index.next()).map_err(broken)?;
        let expires = millis(now.saturating_add(index.bounds.heads_for));
        let mut meta = transaction.open_table(META).map_err(broken)?;
        meta.insert(&*format!("{EXPIRES}{log}"), expires).map_err(broken)?;
        Ok(Ok(index.appended(dropped)))
    }

    fn cursor(
        &mut self,
        transaction: &WriteTransaction,
        log: &str,
        name: &str,
        position: u64,
    ) -> Result<Result<(), LogError>, LogError> {
        let Some((_, cursors)) = self.logs.get_mut(log) else { return Ok(Err(LogError::NotOpen)) };
        if !cursor_fits(cursors, name) {
            return Ok(Err(LogError::Cursor));
        }
        let cursor = cursors.entry(name.to_owned()).or_default();
        *cursor = position.max(*cursor);
        transaction.open_table(CURSORS).map_err(broken)?.insert((log, name), *cursor).map_err(broken)?;
        Ok(Ok(()))
    }

    fn read(&mut self, log: &str, after: u64, limit: ReadLimit) -> Result<Vec<LogEntry>, LogError> {
        let transaction = self.database()?.begin_read().map_err(broken)?;
        let heads = transaction.open_table(HEADS).map_err(broken)?;
        let bodies = transaction.open_table(BODIES).map_err(broken)?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for row in bodies.range((log, after.saturating_add(1))..=(log, u64::MAX)).map_err(broken)? {
            let (key, body) = row.map_err(broken)?;
            let (position, body) = (key.value().1, body.value());
            bytes += body.len();
            if entries.len() >= limit.entries || (bytes > limit.bytes && !entries.is_empty()) {
                break;
            }
            let head = heads.get((log, position)).map_err(broken)?.and_then(|head| parse(position, head.value()));
            let head = head.ok_or_else(|| malformed(log, position))?;
            entries.push(LogEntry { head, body: Bytes::copy_from_slice(body) });
        }
        Ok(entries)
    }
}

impl Writer {
    /// Lets go of what logs have that nobody opens any more, once all of it is too old. Their positions and cursors stay.
    fn sweep(&self, transaction: &WriteTransaction, now: Duration) -> Result<(), LogError> {
        let mut meta = transaction.open_table(META).map_err(broken)?;
        let mut expired = Vec::new();
        for row in meta.range(EXPIRES..).map_err(broken)? {
            let (key, at) = row.map_err(broken)?;
            let Some(log) = key.value().strip_prefix(EXPIRES) else { break };
            if at.value() < millis(now) && !self.bounds.contains_key(log) {
                expired.push(log.to_owned());
            }
        }
        for log in expired {
            let all = (&*log, 0)..=(&*log, u64::MAX);
            transaction.open_table(HEADS).map_err(broken)?.retain_in(all.clone(), |_, _| false).map_err(broken)?;
            transaction.open_table(BODIES).map_err(broken)?.retain_in(all, |_, _| false).map_err(broken)?;
            meta.remove(&*format!("{EXPIRES}{log}")).map_err(broken)?;
        }
        Ok(())
    }

    fn select(&mut self, log: &str, after: u64, wanted: &Wanted, limit: SelectLimit) -> Result<Selected, LogError> {
        self.load(log)?;
        let (index, _) = self.logs.get(log).ok_or(LogError::NotOpen)?;
        let (heads, after, more) = index.select(after, wanted, limit);
        if heads.is_empty() {
            return Ok(Selected { entries: Vec::new(), after, more });
        }
        let transaction = self.database()?.begin_read().map_err(broken)?;
        let bodies = transaction.open_table(BODIES).map_err(broken)?;
        let mut entries = Vec::with_capacity(heads.len());
        for head in heads {
            let body = bodies.get((log, head.position)).map_err(broken)?;
            let body = body.ok_or_else(|| malformed(log, head.position))?;
            entries.push(LogEntry { head, body: Bytes::copy_from_slice(body.value()) });
        }
        Ok(Selected { entries, after, more })
    }
}

/// Makes the tables of a new file, and checks the version of an old one. Says what is wrong with it.
fn prepare(database: &Database) -> Result<Option<String>, redb::Error> {
    let read = database.begin_read()?;
    let format = match read.open_table(META) {
        Ok(meta) => meta.get("format")?.map(|format| format.value()),
        Err(TableError::TableDoesNotExist(_)) => {
            drop(read);
            let write = database.begin_write()?;
            write.open_table(META)?.insert("format", FORMAT)?;
            write.open_table(LOGS)?;
            write.open_table(HEADS)?;
            write.open_table(BODIES)?;
            write.open_table(CURSORS)?;
            write.commit()?;
            Some(FORMAT)
        }
        Err(error) => return Err(error.into()),
    };
    Ok((format != Some(FORMAT)).then(|| format!("its format is {format:?}, and this program reads {FORMAT}")))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Its owner's alone, as everything in a data directory; redb fills an empty file.
fn make_private(path: &std::path::Path) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // One that is there, or cannot be made, is for redb to open, or to say why not.
    drop(options.open(path));
}

fn broken(error: impl Into<redb::Error>) -> LogError {
    match error.into() {
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => LogError::Full,
        error => LogError::Disk(error.to_string()),
    }
}

fn malformed(log: &str, position: u64) -> LogError {
    LogError::Disk(format!("entry {position} of `{log}` is not what was written"))
}

fn encode(head: &Head) -> [u8; HEAD] {
    let mut bytes = [0; HEAD];
    bytes[..32].copy_from_slice(head.publisher.as_bytes());
    bytes[32..40].copy_from_slice(&head.sequence.to_be_bytes());
    bytes[40..72].copy_from_slice(&head.id);
    bytes[72..80].copy_from_slice(&head.at.to_be_bytes());
    bytes[80..].copy_from_slice(&head.len.to_be_bytes());
    bytes
}

fn parse(position: u64, bytes: &[u8]) -> Option<Head> {
    let (publisher, rest) = bytes.split_first_chunk::<32>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (id, rest) = rest.split_first_chunk::<32>()?;
    let (at, len) = rest.split_first_chunk::<8>()?;
    Some(Head {
        position,
        publisher: NodeId::from_bytes(*publisher),
        sequence: u64::from_be_bytes(*sequence),
        id: *id,
        at: u64::from_be_bytes(*at),
        len: u32::from_be_bytes(len.try_into().ok()?),
    })
}
