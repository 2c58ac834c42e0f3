//! A process that this program starts of itself, and what the two say to each other: one line of JSON each.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Failure;

/// It ends with its input.
pub(crate) struct Process {
    _child: Child,
    stdin: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Has `program` do one part of a bench.
    pub(crate) fn start(program: &Path, command: &str, part: &impl Serialize) -> Result<Process, Failure> {
        let mut child = Command::new(program)
            .args([command, &serde_json::to_string(part)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().ok_or("a process without an input")?;
        let stdout = child.stdout.take().ok_or("a process without an output")?;
        Ok(Process { _child: child, stdin, said: BufReader::new(stdout).lines() })
    }

    /// What it says next.
    pub(crate) async fn hear<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, Failure> {
        let line = tokio::time::timeout(within, self.said.next_line()).await.map_err(|_| "a process is silent")??;
        Ok(serde_json::from_str(&line.ok_or("a process ended before its time")?)?)
    }

    /// Asks it how it stands; an empty line is the only question there is.
    pub(crate) async fn ask<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        self.ask_within(Duration::from_secs(10)).await
    }

    /// The same, of one that may take longer to answer.
    pub(crate) async fn ask_within<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, Failure> {
        self.stdin.write_all(b"\n").await?;
        self.hear(within).await
    }
}
