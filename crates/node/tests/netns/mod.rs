//! A network namespace of the test's own, with one network interface that leads nowhere.

use std::process::{Command, Output};

/// A namespace; gone when dropped, with all that is in it.
pub(crate) struct Namespace {
    name: String,
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().map_err(|error| error.to_string())?;
    said(arguments, &output)
}

fn said(arguments: &str, output: &Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Namespace {
    /// A namespace whose only network is 10.77.0.0/24, on a pair of interfaces that both lie in it.
    ///
    /// # Errors
    /// In words: `ip` is not there, or may not be used.
    pub(crate) fn new(name: &str) -> Result<Namespace, String> {
        let name = format!("{name}-{}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let namespace = Namespace { name };
        for command in [
            "link set lo up",
            "link add net0 type veth peer name net1",
            "addr add 10.77.0.1/24 dev net0",
            "link set net0 up multicast on",
            "link set net1 up",
            "route add default dev net0",
        ] {
            namespace.ip(command)?;
        }
        Ok(namespace)
    }

    fn ip(&self, arguments: &str) -> Result<(), String> {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// Runs one test of this program again, within the namespace, where its `marker` is set.
    pub(crate) fn run_again(&self, test: &str, marker: &str) -> Output {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program).args(["--exact", test, "--nocapture"]);
        command.env(marker, "1").output().expect("ip was there a moment ago")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(ip(&format!("netns del {}", self.name)));
    }
}
