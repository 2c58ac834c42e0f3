//! A node's data directory: its key, the sequence of its last record, and the lock that keeps others out.
//!
//! `key` holds the 32-byte secret as 64 hexadecimal digits and a newline, and belongs to its owner alone.
//! `record-seq` holds a decimal number. Both are written whole or not at all. `nodes.redb` is the node database's.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use peerage_nodedb::{NodeDb, OpenError};
use peerage_server::wire::{Keypair, NetworkId};
use zeroize::Zeroizing;

const KEY: &str = "key";
const RECORD_SEQ: &str = "record-seq";
const LOCK: &str = "lock";
const NODES: &str = "nodes.redb";
/// Longer than any file here, so that a wrong file is not read whole.
const MAX_FILE: u64 = 1024;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Something could not be read, made or written.
    #[error("cannot {what} {}: {source}; check the directory and its permissions, or use another data directory", path.display())]
    Io {
        /// A verb.
        what: &'static str,
        /// What with.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What the node remembers cannot be used.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// Another node runs on it.
    #[error("another node is running on {}; stop it, or use another data directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The key file holds something else.
    #[error("{} does not hold a key (64 hexadecimal digits); restore it from a backup, or move it away to start as a new node", path.display())]
    MalformedKey {
        /// The key file.
        path: PathBuf,
    },
    /// Others may read the key.
    #[error("{} can be read by other users (mode {mode:04o}); run `chmod 600 {}` and consider whether the key is still secret", path.display(), path.display())]
    ExposedKey {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// A data directory that no other process uses.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: File,
    /// What was made here, in order.
    made: Vec<PathBuf>,
}

impl DataDir {
    /// Opens the directory, makes it if there is none, and locks it.
    pub(crate) fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let mut made = Vec::new();
        let opened = make_dirs(path, &mut made).and_then(|()| open_lock(&path.join(LOCK), &mut made));
        let lock = match opened {
            Ok(lock) => lock,
            Err(error) => {
                remove(&made);
                return Err(error);
            }
        };
        match lock.try_lock() {
            Ok(()) => Ok(DataDir { path: path.to_owned(), lock, made }),
            // What is in use is not removed: whoever locked it needs it.
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => {
                remove(&made);
                Err(DataDirError::Io { what: "lock", path: path.join(LOCK), source })
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The key in the directory, or a new one that is in the directory from now on.
    pub(crate) fn key(&mut self, generate: impl FnOnce() -> io::Result<Keypair>) -> Result<Keypair, DataDirError> {
        let path = self.path.join(KEY);
        match File::open(&path) {
            Ok(file) => read_key(&path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let failed = |source| DataDirError::Io { what: "make", path: path.clone(), source };
                let keys = generate().map_err(failed)?;
                let mut text = Zeroizing::new(HEXLOWER.encode(&*keys.to_seed()));
                text.push('\n');
                write_whole(&path, text.as_bytes()).map_err(failed)?;
                self.made.push(path);
                Ok(keys)
            }
            Err(source) => Err(DataDirError::Io { what: "read", path, source }),
        }
    }

    /// The sequence of the last record that was published from here, if any is known.
    pub(crate) fn record_seq(&self) -> Result<Option<u64>, DataDirError> {
        let path = self.path.join(RECORD_SEQ);
        let text = match File::open(&path).and_then(read_text) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DataDirError::Io { what: "read", path, source }),
        };
        // The greatest number has none above it.
        let seq = text.trim().parse().ok().filter(|seq| *seq < u64::MAX);
        if seq.is_none() {
            // The clock makes sequences rise as well, so this loses nothing unless it was set back.
            tracing::warn!(path = %path.display(), "does not hold a number and is ignored");
        }
        Ok(seq)
    }

    /// Remembers the sequence of the record that is published now.
    pub(crate) fn remember_record_seq(&mut self, seq: u64) -> Result<(), DataDirError> {
        let path = self.path.join(RECORD_SEQ);
        let is_new = !path.exists();
        write_whole(&path, format!("{seq}\n").as_bytes()).map_err(|source| DataDirError::Io {
            what: "write",
            path: path.clone(),
            source,
        })?;
        if is_new {
            self.made.push(path);
        }
        Ok(())
    }

    /// What the node remembers: the database in the directory, or a new one that is there from now on.
    pub(crate) async fn database(&mut self, network: NetworkId) -> Result<NodeDb, DataDirError> {
        let path = self.path.join(NODES);
        // Its owner's alone, as everything here; the database fills an empty file.
        let is_new = private().create_new(true).open(&path).is_ok();
        let file = path.clone();
        let opening = move || NodeDb::open(file, network, peerage_nodedb::Config::recommended());
        // It reads everything, which takes a moment.
        let opened = tokio::task::spawn_blocking(opening).await;
        if is_new {
            self.made.push(path.clone());
        }
        opened
            .map_err(|error| DataDirError::Io { what: "open", path, source: io::Error::other(error) })?
            .map_err(Into::into)
    }

    /// Removes what was made since [`open`](DataDir::open): for a start that failed.
    pub(crate) fn undo(self) {
        remove(&self.made);
    }

    /// Lets others in.
    pub(crate) fn unlock(&self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(path = %self.path.display(), %error, "cannot unlock the data directory");
        }
    }
}

fn remove(made: &[PathBuf]) {
    for path in made.iter().rev() {
        // A directory that somebody else put something into stays.
        let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        if let Err(error) = removed {
            tracing::debug!(path = %path.display(), %error, "left behind");
        }
    }
}

fn make_dirs(path: &Path, made: &mut Vec<PathBuf>) -> Result<(), DataDirError> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    for path in missing.into_iter().rev() {
        match make_dir(path) {
            Ok(()) => made.push(path.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(DataDirError::Io { what: "make", path: path.to_owned(), source }),
        }
    }
    Ok(())
}

pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn open_lock(path: &Path, made: &mut Vec<PathBuf>) -> Result<File, DataDirError> {
    let failed = |source| DataDirError::Io { what: "open", path: path.to_owned(), source };
    match private().create_new(true).open(path) {
        Ok(file) => {
            made.push(path.to_owned());
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().write(true).open(path).map_err(failed)
        }
        Err(source) => Err(failed(source)),
    }
}

/// Options for a file that its owner alone may read, from its first moment on.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Writes a file whole or not at all, under the directory's lock.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    // Of an earlier life that ended within this function.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = private().create_new(true).open(&unfinished).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    });
    if written.is_err() {
        drop(fs::remove_file(&unfinished));
    }
    written
}

fn read_text(file: File) -> io::Result<Zeroizing<String>> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize));
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    // Text of another encoding is no number and no key, which the reader says better.
    Ok(Zeroizing::new(std::str::from_utf8(&bytes).unwrap_or_default().to_owned()))
}

fn read_key(path: &Path, file: File) -> Result<Keypair, DataDirError> {
    let failed = |source| DataDirError::Io { what: "read", path: path.to_owned(), source };
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().map_err(failed)?.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            return Err(DataDirError::ExposedKey { path: path.to_owned(), mode });
        }
    }
    let text = read_text(file).map_err(failed)?;
    let malformed = || DataDirError::MalformedKey { path: path.to_owned() };
    let seed = Zeroizing::new(HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).map_err(|_| malformed())?);
    let seed: [u8; 32] = seed.as_slice().try_into().map_err(|_| malformed())?;
    Ok(Keypair::from_seed(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> io::Result<Keypair> {
        Ok(Keypair::from_seed([7; 32]))
    }

    fn never() -> io::Result<Keypair> {
        panic!("there is a key")
    }

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let root = tempfile::tempdir().expect("directory");
        let path = root.path().join("a/b");
        let made = DataDir::open(&path).expect("open").key(keys).expect("made").id();
        assert_eq!(DataDir::open(&path).expect("open").key(never).expect("found").id(), made);
        assert!(!path.join("key.new").exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_key_is_its_owners_alone_and_an_exposed_one_is_refused_with_the_remedy() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().expect("directory");
        let path = root.path().join("data");
        let mut dir = DataDir::open(&path).expect("open");
        dir.key(keys).expect("made");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(KEY))), (0o700, 0o600));
        fs::set_permissions(path.join(KEY), fs::Permissions::from_mode(0o640)).expect("chmod");
        let error = dir.key(never).expect_err("exposed").to_string();
        assert!(error.contains("mode 0640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_malformed_key_is_refused_and_left_as_it_is() {
        let root = tempfile::tempdir().expect("directory");
        let mut dir = DataDir::open(root.path()).expect("open");
        for text in ["", "hello", &"0".repeat(63), &"0".repeat(66), "\u{ff}\u{fe}"] {
            let path = root.path().join(KEY);
            drop(fs::remove_file(&path));
            private().create_new(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes())).expect("write");
            let error = dir.key(never).expect_err(text);
            assert!(matches!(error, DataDirError::MalformedKey { .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("read"), text);
        }
    }

    #[test]
    fn a_key_that_is_a_directory_is_refused() {
        let root = tempfile::tempdir().expect("directory");
        let mut dir = DataDir::open(root.path()).expect("open");
        make_dir(&root.path().join(KEY)).expect("directory");
        let error = dir.key(never).expect_err("not a file").to_string();
        assert!(error.contains("not a file"), "{error}");
    }

    #[test]
    fn a_second_user_is_kept_out_until_the_first_is_done() {
        let root = tempfile::tempdir().expect("directory");
        let first = DataDir::open(root.path()).expect("open");
        let error = DataDir::open(root.path()).expect_err("locked").to_string();
        assert!(error.contains("another node is running"), "{error}");
        assert!(root.path().join(LOCK).exists(), "the refused one removes nothing");
        first.unlock();
        assert!(DataDir::open(root.path()).is_ok());
    }

    #[test]
    fn a_start_that_failed_leaves_nothing_of_its_own_behind() {
        let root = tempfile::tempdir().expect("directory");
        let path = root.path().join("a/b");
        let mut dir = DataDir::open(&path).expect("open");
        dir.key(keys).expect("made");
        dir.remember_record_seq(1).expect("written");
        dir.undo();
        assert!(!root.path().join("a").exists());

        let mut dir = DataDir::open(&path).expect("open");
        dir.key(keys).expect("made");
        drop(dir);
        DataDir::open(&path).expect("open").undo();
        assert!(path.join(KEY).exists(), "what was there before stays");
    }

    #[test]
    fn the_last_sequence_is_found_again_and_nonsense_is_none() {
        let root = tempfile::tempdir().expect("directory");
        let mut dir = DataDir::open(root.path()).expect("open");
        assert_eq!(dir.record_seq().expect("read"), None);
        dir.remember_record_seq(41).expect("written");
        dir.remember_record_seq(42).expect("written");
        assert_eq!(dir.record_seq().expect("read"), Some(42));
        for nonsense in ["many", "", "-1", "18446744073709551615"] {
            fs::write(root.path().join(RECORD_SEQ), nonsense).expect("write");
            assert_eq!(dir.record_seq().expect("read"), None, "{nonsense}");
        }
    }
}
