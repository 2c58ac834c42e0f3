//! Network namespaces of a test: made by root, joined by cables, left behind by nobody.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network of its own on this computer; gone when dropped, with the cables that end in it.
pub(crate) struct Namespace(String);

/// Runs a command; the error says what it said.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim())),
    }
}

impl Namespace {
    /// A new one, in which nothing but loopback is up.
    ///
    /// # Errors
    /// What is missing: the right to make one, or the program `ip`.
    pub(crate) fn new(name: &str) -> Result<Namespace, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace(format!("pg-{}-{number}-{name}", std::process::id()));
        run("ip", &["netns", "add", &namespace.0])?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// `ip` with these words, within.
    pub(crate) fn ip(&self, words: &str) -> Result<(), String> {
        let words: Vec<&str> = ["-n", &self.0].into_iter().chain(words.split_whitespace()).collect();
        run("ip", &words)
    }

    /// Any command, within.
    pub(crate) fn run(&self, command: &str) -> Result<(), String> {
        run("ip", &["netns", "exec", &self.0, "sh", "-c", command])
    }

    /// Lays a cable to `other`; each end has the name of the other's place and this address.
    pub(crate) fn cable(&self, other: &Namespace, ends: [(&str, &str); 2]) -> Result<(), String> {
        let [(here, at), (there, other_at)] = ends;
        let words = format!("link add {here} type veth peer name {there} netns {}", other.0);
        self.ip(&words)?;
        for (namespace, end, address) in [(self, here, at), (other, there, other_at)] {
            namespace.ip(&format!("addr add {address} dev {end}"))?;
            namespace.ip(&format!("link set {end} up"))?;
        }
        Ok(())
    }

    /// Does something in a thread whose sockets, and whose child processes, are within.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let path = format!("/var/run/netns/{}", self.0);
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = File::open(&path).expect("it is there");
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("allowed");
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // One that was never made is not there.
        drop(run("ip", &["netns", "del", &self.0]));
    }
}
