//! One node as a process: started, listened to, measured, stopped, and never left behind.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

/// What a node prints of itself before `ready`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) id: String,
    /// Where others can dial it, in the order it printed them.
    pub(crate) listening: Vec<String>,
    pub(crate) api: String,
    pub(crate) metrics: String,
}

impl Facts {
    /// Takes one line of a node's output; true when it was the last one of the start.
    fn read(&mut self, line: &str) -> bool {
        match line.split_once(": ") {
            Some(("id", value)) => value.clone_into(&mut self.id),
            Some(("listening", value)) => self.listening.push(value.to_owned()),
            Some(("api", value)) => value.clone_into(&mut self.api),
            Some(("metrics", value)) => value.clone_into(&mut self.metrics),
            _ => return line == "ready",
        }
        false
    }

    /// Refuses addresses that lead away from this machine.
    fn check(&self) -> Result<(), String> {
        for url in [&self.api, &self.metrics] {
            let address = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
            if !address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback()) {
                return Err(format!("printed {url:?} where an http:// address on loopback belongs"));
            }
        }
        if self.listening.is_empty() { Err("printed no listening address".to_owned()) } else { Ok(()) }
    }
}

/// What the operating system says a process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) peak_rss_mib: f64,
    pub(crate) cpu_s: f64,
}

/// A running node. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl NodeProcess {
    /// Starts `program` on its own data folder; `started` hears the facts it prints, or why there are none.
    pub(crate) fn start(
        program: &Path,
        folder: &Path,
        bootnode: Option<&str>,
        started: impl FnOnce(Result<Facts, String>) + Send + 'static,
    ) -> io::Result<Self> {
        let log = folder.with_extension("log");
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = Command::new(program);
        command.arg("--data-dir").arg(folder);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
        if let Some(address) = bootnode {
            command.args(["--bootnode", address]);
        }
        // A group of its own: Ctrl-C in a terminal reaches only this program, which then stops the nodes in order.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file.try_clone()?);
        let mut child = command.spawn()?;
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || listen(stdout, file, started));
        }
        Ok(Self { child, log, ended: None })
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Asks the node to drain and end, as Ctrl-C would.
    pub(crate) fn interrupt(&mut self) -> io::Result<()> {
        if self.ended()?.is_none() {
            kill_process(self.pid(), Signal::INT)?;
        }
        Ok(())
    }

    /// Ends the node at once and collects it.
    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.child.kill()?;
        let status = self.child.wait()?;
        self.ended = Some(status);
        Ok(status)
    }

    /// How the node ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// What it has used so far; nothing once it has ended.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let read = |name| std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).ok();
        let peak_rss_mib = read_peak_rss(&read("status")?)?;
        let cpu_s = read_cpu_ticks(&read("stat")?)? as f64 / rustix::param::clock_ticks_per_second() as f64;
        Some(Usage { peak_rss_mib, cpu_s })
    }

    /// The last lines of what it printed.
    pub(crate) fn tail(&self, lines: usize) -> String {
        const MOST: u64 = 16 << 10;
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // Nothing is left to tell if this fails: the process is gone already.
        let _ = self.kill();
    }
}

/// Reads a node's output to its end, so that the node never waits for a reader, and keeps it in the log.
fn listen(stdout: ChildStdout, mut log: File, started: impl FnOnce(Result<Facts, String>)) {
    let mut facts = Facts::default();
    let mut started = Some(started);
    for line in BufReader::new(stdout).split(b'\n') {
        let Ok(mut line) = line else { break };
        line.push(b'\n');
        // A full disk costs the log, not the run.
        let _ = log.write_all(&line);
        if started.is_some() && facts.read(String::from_utf8_lossy(&line).trim_end()) {
            let checked = facts.check().map(|()| facts.clone());
            if let Some(started) = started.take() {
                started(checked);
            }
        }
    }
    if let Some(started) = started {
        started(Err("ended before it was ready".to_owned()));
    }
}

/// `VmHWM:     1234 kB` of `/proc/PID/status`, in MiB.
fn read_peak_rss(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// User and system time of `/proc/PID/stat`, in clock ticks. The name in brackets may itself hold brackets and spaces.
fn read_cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(lines: &[&str]) -> Option<Facts> {
        let mut facts = Facts::default();
        lines.iter().any(|line| facts.read(line)).then_some(facts)
    }

    #[test]
    fn a_nodes_start_is_read_up_to_ready() {
        let lines = [
            "id: 12D3KooWx",
            "listening: /ip4/127.0.0.1/tcp/4001/p2p/12D3KooWx",
            "listening: /ip4/127.0.0.1/tcp/4002/p2p/12D3KooWx",
            "record: pnr:abc",
            "api: http://127.0.0.1:5001",
            "metrics: http://127.0.0.1:6001/metrics",
        ];
        assert_eq!(facts(&lines), None);
        let ready = facts(&[&lines[..], &["ready", "listening: later"]].concat()).expect("it said ready");
        assert_eq!(ready.listening.len(), 2);
        assert_eq!((ready.id.as_str(), ready.api.as_str()), ("12D3KooWx", "http://127.0.0.1:5001"));
        assert_eq!(ready.check(), Ok(()));
    }

    #[test]
    fn a_node_that_hides_its_addresses_or_leads_elsewhere_is_refused() {
        let listening = vec!["/ip4/127.0.0.1/tcp/1/p2p/x".to_owned()];
        let metrics = "http://127.0.0.1:2/metrics".to_owned();
        let away = Facts { api: "http://192.0.2.1:80".to_owned(), listening, metrics, ..Facts::default() };
        assert!(away.check().is_err_and(|why| why.contains("192.0.2.1")));
        let mute = Facts { api: "http://[::1]:1".to_owned(), listening: Vec::new(), ..away };
        assert!(mute.check().is_err_and(|why| why.contains("no listening address")));
    }

    #[test]
    fn usage_is_read_from_what_the_kernel_says() {
        assert_eq!(read_peak_rss("Name:\tnode\nVmPeak:\t 9 kB\nVmHWM:\t   20480 kB\n"), Some(20.0));
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 70 30 0 0 20 0 5 0 12345 1000 200";
        assert_eq!(read_cpu_ticks(stat), Some(100));
        assert_eq!(read_cpu_ticks("nonsense"), None);
    }
}
