//! The file: opened, read whole, written a batch at a time, and set aside when it is of no use.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableHandle};

use super::format::{self, FORMAT, IdKey, NetworkKey, PlaceKey, ProofKey, StoredKey};
use crate::OpenError;
use crate::book::{Batch, Row};

type Values<K> = TableDefinition<'static, K, &'static [u8]>;

const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const RECORDS: Values<IdKey> = TableDefinition::new("records");
const PROOFS: Values<ProofKey> = TableDefinition::new("proofs");
const BANS_BY_ID: Values<IdKey> = TableDefinition::new("bans_by_id");
const BANS_BY_NETWORK: Values<NetworkKey> = TableDefinition::new("bans_by_network");
const SCORES: Values<IdKey> = TableDefinition::new("scores");
const ANCHORS: Values<PlaceKey> = TableDefinition::new("anchors");

/// Everything is in memory already, so redb needs no more than the pages of one commit.
const CACHE: usize = 4 << 20;

/// Files that are of no use and kept beside the good one, for whoever wants to know why.
const KEPT_ASIDE: usize = 3;

/// How the file is opened. Tests open one whose disk fails.
pub(crate) type Opener = fn(&Path) -> Result<Database, DatabaseError>;

pub(crate) fn opener(path: &Path) -> Result<Database, DatabaseError> {
    redb::Builder::new().set_cache_size(CACHE).create(path)
}

/// An open file, and what was in it.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) rows: Vec<Row>,
    /// Whether a file was set aside for it.
    pub(super) set_aside: bool,
}

/// Why a file did not open.
#[derive(Debug)]
enum Failure {
    /// The file can be of no use to anybody.
    Unusable(String),
    /// Somebody has to do something about it.
    Open(OpenError),
}

/// Opens the file, or a fresh one in its place.
pub(super) fn open(path: &Path, opener: Opener) -> Result<Opened, OpenError> {
    let why = match read(path, opener) {
        Ok((database, rows)) => return Ok(Opened { database, rows, set_aside: false }),
        Err(Failure::Open(error)) => return Err(error),
        Err(Failure::Unusable(why)) => why,
    };
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let aside = set_aside(path).map_err(io)?;
    tracing::warn!(
        file = %path.display(), kept = %aside.display(), why,
        "the node database cannot be used: it is set aside, and a fresh one is started",
    );
    match read(path, opener) {
        Ok((database, rows)) => Ok(Opened { database, rows, set_aside: true }),
        Err(Failure::Open(error)) => Err(error),
        Err(Failure::Unusable(why)) => Err(io(std::io::Error::other(why))),
    }
}

/// Opens another file than the nodes' and checks all of it, `prepare` included, which answers what is wrong with it. One
/// that is of no use is set aside if that `may` be, and a fresh one is started.
pub(crate) fn open_checked(
    path: &Path,
    opener: Opener,
    may: bool,
    prepare: fn(&Database) -> Result<Option<String>, redb::Error>,
) -> Result<Database, redb::Error> {
    let attempt = || {
        let checked = catch_unwind(AssertUnwindSafe(|| {
            let mut database = opener(path).map_err(|error| classify(path, error))?;
            database.check_integrity().map_err(|error| classify(path, error))?;
            match prepare(&database) {
                Ok(None) => Ok(database),
                Ok(Some(why)) => Err(Failure::Unusable(why)),
                Err(redb::Error::Io(error)) => Err(classify(path, error.into())),
                Err(error) => Err(Failure::Unusable(error.to_string())),
            }
        }));
        checked.unwrap_or_else(|_| Err(Failure::Unusable("reading it panics".into())))
    };
    let io = |failure| match failure {
        Failure::Open(OpenError::Io { source, .. }) => redb::Error::Io(source),
        Failure::Open(error) => redb::Error::Io(std::io::Error::other(error.to_string())),
        Failure::Unusable(why) => redb::Error::Io(std::io::Error::other(why)),
    };
    match attempt() {
        Err(Failure::Unusable(why)) if may => {
            let aside = set_aside(path)?;
            tracing::warn!(
                file = %path.display(), kept = %aside.display(), why,
                "the logs of topics cannot be used: they are set aside, and fresh ones are started",
            );
            attempt().map_err(io)
        }
        opened => opened.map_err(io),
    }
}

/// redb checks what it reads, and panics over some files all the same.
fn read(path: &Path, opener: Opener) -> Result<(Database, Vec<Row>), Failure> {
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let mut database = opener(path).map_err(|error| classify(path, error))?;
        // Pages are checked when they are repaired only, and one flipped bit is another ban.
        database.check_integrity().map_err(|error| classify(path, error))?;
        let rows = rows(&database).map_err(|error| match error {
            redb::Error::Io(error) => classify(path, error.into()),
            error => Failure::Unusable(error.to_string()),
        })??;
        Ok((database, rows))
    }));
    attempt.unwrap_or_else(|_| Err(Failure::Unusable("reading it panics".into())))
}

fn classify(path: &Path, error: DatabaseError) -> Failure {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => Failure::Open(OpenError::InUse { path }),
        DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
            // What reading past the end, at impossible offsets or something else than redb's comes to.
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::InvalidInput => {
                Failure::Unusable(source.to_string())
            }
            _ => Failure::Open(OpenError::Io { path, source }),
        },
        error => Failure::Unusable(error.to_string()),
    }
}

/// Everything in the file; makes the tables of a new one.
fn rows(database: &Database) -> Result<Result<Vec<Row>, Failure>, redb::Error> {
    let read = database.begin_read()?;
    let tables: Vec<String> = read.list_tables()?.map(|table| table.name().to_owned()).collect();
    if tables.is_empty() {
        drop(read);
        let write = database.begin_write()?;
        write.open_table(META)?.insert("format", FORMAT)?;
        write.commit()?;
        return Ok(Ok(Vec::new()));
    }
    let format = if tables.iter().any(|name| name == META.name()) {
        read.open_table(META)?.get("format")?.map(|format| format.value())
    } else {
        None
    };
    if format != Some(FORMAT) {
        let found = format.map_or("no format".to_owned(), |format| format!("format {format}"));
        return Ok(Err(Failure::Unusable(format!("it is of {found}, and this program reads format {FORMAT}"))));
    }
    let mut rows = Vec::new();
    let mut malformed = None;
    let mut parse = |key: StoredKey, value: &[u8]| match format::parse(&key, value) {
        Ok(row) => rows.push(row),
        Err(error) => malformed = Some(error),
    };
    macro_rules! read_table {
        ($table:ident, $key:ident) => {
            // A table that was never written to is not there; tables of later versions are left alone.
            if tables.iter().any(|name| name == $table.name()) {
                for entry in read.open_table($table)?.iter()? {
                    let (key, value) = entry?;
                    parse(StoredKey::$key(key.value()), value.value());
                }
            }
        };
    }
    read_table!(RECORDS, Record);
    read_table!(PROOFS, Proof);
    read_table!(BANS_BY_ID, BanById);
    read_table!(BANS_BY_NETWORK, BanByNetwork);
    read_table!(SCORES, Score);
    read_table!(ANCHORS, Anchor);
    Ok(match malformed {
        Some(error) => Err(Failure::Unusable(error.to_string())),
        None => Ok(rows),
    })
}

/// Writes a batch in one transaction: all of it or nothing is there afterwards. Answers the bytes of keys and values.
pub(super) fn write(database: &Database, batch: &Batch) -> Result<u64, redb::Error> {
    let write = database.begin_write()?;
    if batch.all {
        for table in [RECORDS, BANS_BY_ID, SCORES] {
            write.delete_table(table)?;
        }
        write.delete_table(PROOFS)?;
        write.delete_table(BANS_BY_NETWORK)?;
        write.delete_table(ANCHORS)?;
    }
    let mut bytes = 0;
    {
        let mut records = write.open_table(RECORDS)?;
        let mut proofs = write.open_table(PROOFS)?;
        let mut bans_by_id = write.open_table(BANS_BY_ID)?;
        let mut bans_by_network = write.open_table(BANS_BY_NETWORK)?;
        let mut scores = write.open_table(SCORES)?;
        let mut anchors = write.open_table(ANCHORS)?;
        let rows = batch.puts.iter().map(format::row);
        let puts = rows.map(|(key, value)| (key, Some(value)));
        for (key, value) in puts.chain(batch.deletes.iter().map(|key| (format::key(key), None))) {
            macro_rules! change {
                ($table:ident, $key:ident) => {{
                    bytes += ($key.len() + value.as_ref().map_or(0, Vec::len)) as u64;
                    match value {
                        Some(value) => $table.insert($key, &value[..])?.is_some(),
                        None => $table.remove($key)?.is_some(),
                    };
                }};
            }
            match key {
                StoredKey::Record(key) => change!(records, key),
                StoredKey::Proof(key) => change!(proofs, key),
                StoredKey::BanById(key) => change!(bans_by_id, key),
                StoredKey::BanByNetwork(key) => change!(bans_by_network, key),
                StoredKey::Score(key) => change!(scores, key),
                StoredKey::Anchor(key) => change!(anchors, key),
            }
        }
    }
    write.commit()?;
    Ok(bytes)
}

/// Renames the file so that it is out of the way, and removes the oldest of those that already are.
fn set_aside(path: &Path) -> Result<PathBuf, std::io::Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let prefix = format!("{name}.unusable-");
    let mut seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |unix| unix.as_secs());
    let aside = loop {
        let aside = path.with_file_name(format!("{prefix}{seconds}"));
        if !aside.try_exists()? {
            break aside;
        }
        seconds += 1;
    };
    std::fs::rename(path, &aside)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut kept: Vec<(u64, PathBuf)> = std::fs::read_dir(folder)?
        .flatten()
        .filter_map(|entry| {
            let seconds = entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()?;
            Some((seconds, entry.path()))
        })
        .collect();
    kept.sort_unstable();
    let too_many = kept.len().saturating_sub(KEPT_ASIDE);
    for (_, old) in kept.drain(..too_many) {
        // One that stays is no reason not to start.
        let _ = std::fs::remove_file(old);
    }
    Ok(aside)
}
