//! A node as a process: its lines, its API and its end.

// Each file of tests uses what it needs of this.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const LIMIT: Duration = Duration::from_secs(20);

/// A running node; killed when dropped.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    stderr: Option<thread::JoinHandle<String>>,
    seen: Vec<String>,
}

/// The program, on loopback and free ports unless `more` says otherwise.
pub(crate) fn command(data_dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
    command.arg("--data-dir").arg(data_dir).args(more);
    for (flag, value) in [("--listen", "/ip4/127.0.0.1/tcp/0"), ("--api", "127.0.0.1:0"), ("--metrics", "127.0.0.1:0")]
    {
        // What binds nothing has nowhere to listen.
        let nowhere = flag == "--listen" && more.contains(&"--no-listen") && more.contains(&"--no-discovery");
        if !more.contains(&flag) && !nowhere {
            command.args([flag, value]);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Process {
    pub(crate) fn start(data_dir: &Path, more: &[&str]) -> Process {
        Process::of(&mut command(data_dir, more))
    }

    /// The program with no more than these arguments, as a user starts it.
    pub(crate) fn plain(data_dir: &Path, more: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
        command.arg("--data-dir").arg(data_dir).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::of(&mut command);
        process.line("ready");
        process
    }

    fn of(command: &mut Command) -> Process {
        let mut child = command.spawn().expect("starts");
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (send, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            BufReader::new(stderr).read_to_string(&mut text).expect("text");
            text
        });
        Process { child, lines, stderr: Some(stderr), seen: Vec::new() }
    }

    /// As [`start`](Process::start), and waits until it says that it is ready.
    pub(crate) fn ready(data_dir: &Path, more: &[&str]) -> Process {
        let mut process = Process::start(data_dir, more);
        process.line("ready");
        process
    }

    /// Waits for a line that begins so, and returns it.
    pub(crate) fn line(&mut self, start: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.starts_with(start) {
                        return line;
                    }
                }
                Err(error) => panic!("no line begins with {start:?}: {error}; seen: {:#?}", self.seen),
            }
        }
    }

    /// What it printed after `name: ` so far.
    pub(crate) fn fact(&self, name: &str) -> String {
        let value = |line: &String| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned());
        self.seen.iter().find_map(value).unwrap_or_else(|| panic!("{name} is not among {:#?}", self.seen))
    }

    /// Whether a line that begins so was printed so far.
    pub(crate) fn printed(&self, start: &str) -> bool {
        self.seen.iter().any(|line| line.starts_with(start))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for its end, and returns what it said on stderr too.
    pub(crate) fn end(&mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(5));
        };
        (status, self.stderr.take().map(|text| text.join().expect("no panic")).unwrap_or_default())
    }

    /// Ends it by SIGINT, and checks that it does so in time and in order.
    pub(crate) fn interrupt(self) {
        assert_eq!(self.interrupt_and_hear(), "");
    }

    /// Likewise one that has something to say on stderr, and returns that.
    pub(crate) fn interrupt_and_hear(mut self) -> String {
        let begun = Instant::now();
        self.signal(Signal::INT);
        let (status, said) = self.end();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(status.code(), Some(0), "{said}");
        said
    }

    pub(crate) fn get(&self, path: &str) -> serde_json::Value {
        let text = get(&format!("{}{path}", self.fact("api")));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended, most likely.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn get(url: &str) -> String {
    ureq::get(url).call().expect("an answer").body_mut().read_to_string().expect("text")
}

/// Server-sent events, as they come.
pub(crate) struct Stream(BufReader<ureq::BodyReader<'static>>);

impl Stream {
    pub(crate) fn open(url: &str) -> Stream {
        let answer = ureq::get(url).call().expect("an answer");
        Stream(BufReader::new(answer.into_body().into_reader()))
    }

    /// The data of the next event of this name.
    pub(crate) fn next(&mut self, name: &str) -> serde_json::Value {
        let mut current = String::new();
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).expect("reads") > 0, "the stream ended before {name}");
            if let Some(name) = line.strip_prefix("event: ") {
                name.trim_end().clone_into(&mut current);
            } else if let Some(data) = line.strip_prefix("data: ")
                && current == name
            {
                return serde_json::from_str(data).expect("JSON");
            }
        }
    }
}
