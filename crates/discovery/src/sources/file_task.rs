//! Reads the file of nodes at the start and whenever it changes.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use peerage_wire::NetworkId;

use super::count::SourceEvent;
use super::file::{MAX_FILE, MAX_LINES, NodesFile};
use super::tasks::Shell;
use crate::source::Source;

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(10);
/// How often it is offered again while the table is empty.
const AGAIN: Duration = Duration::from_secs(60);

/// What tells one state of a file from another without reading it.
type Stamp = (SystemTime, u64);

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = std::fs::metadata(path)?;
    // Nothing that is not a file has an end.
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    Ok((metadata.modified()?, metadata.len()))
}

fn read(path: &Path, network: NetworkId) -> io::Result<NodesFile> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 1 MiB"));
    }
    Ok(NodesFile::read(&String::from_utf8_lossy(&bytes), network))
}

/// Checking a thousand signatures takes a while, and is done beside the runtime where there are threads for it.
async fn read_elsewhere(path: &Path, shell: &Shell) -> io::Result<NodesFile> {
    let (path, network) = (path.to_owned(), shell.network);
    if shell.clock.is_simulated() {
        return read(&path, network);
    }
    tokio::task::spawn_blocking(move || read(&path, network)).await.map_err(io::Error::other)?
}

/// Runs until it is dropped.
pub(super) async fn run(path: PathBuf, shell: Shell) {
    let (mut last, mut offered) = (None, None);
    let mut file = NodesFile::default();
    loop {
        let seen = stamp(&path).map_err(|error| error.to_string());
        let changed = last.as_ref() != Some(&seen);
        if changed {
            // Once for each change: a file that cannot be read, or is gone, stays what it was.
            let file_read = match &seen {
                Ok(_) => read_elsewhere(&path, &shell).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.clone()),
            };
            match file_read {
                Ok(read) => {
                    told(&path, &read, &shell);
                    file = read;
                }
                Err(error) => {
                    shell.counters.count(SourceEvent::FileUnreadable);
                    tracing::warn!("the file of nodes {} cannot be read: {error}", path.display());
                }
            }
            last = Some(seen);
        }
        let now = shell.clock.now();
        let starving = shell.mailbox.table_len() == 0 && offered.is_none_or(|at| now.since(at) >= AGAIN);
        if changed || starving {
            shell.mailbox.bootnodes(Source::File, file.nodes.clone());
            shell.offer(Source::File, &file.records).await;
            offered = Some(now);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn told(path: &Path, file: &NodesFile, shell: &Shell) {
    shell.counters.count(SourceEvent::FileRead);
    let path = path.display();
    for bad in &file.bad {
        shell.counters.count(SourceEvent::FileLine);
        tracing::warn!("{path}, line {}: {}", bad.number, bad.error);
    }
    if file.bad_lines > file.bad.len() {
        tracing::warn!("{path}: {} lines name no node", file.bad_lines);
    }
    if file.too_long {
        tracing::warn!("{path}: only its first {MAX_LINES} nodes are used");
    }
    tracing::info!(records = file.records.len(), addresses = file.nodes.len(), "read the file of nodes {path}");
}
