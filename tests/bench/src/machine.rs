//! What the machine is and what this process takes of it.

use std::fmt::Write as _;
use std::fs;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Facts that figures cannot be read without.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    aes: bool,
    /// Runnable processes before the start: others on the machine make figures worse.
    load: String,
}

impl Machine {
    pub(crate) fn here() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let uname = rustix::system::uname();
        let loads = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Machine {
            cpu: model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            aes: has_aes(),
            load: loads.split_whitespace().next().unwrap_or("unknown").to_owned(),
        }
    }

    pub(crate) fn line(&self) -> String {
        let mut line = String::from("machine");
        let Machine { cpu, cores, kernel, aes, load } = self;
        // Writing to a string does not fail.
        let _ = write!(line, " cpu=\"{cpu}\" cores={cores} kernel=\"{kernel}\" aes={aes} load={load}");
        line
    }
}

/// Whether AES and the multiplication of its mode run in hardware.
pub(crate) fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// What a process has used so far and holds now.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// User and system time of all its threads.
    pub(crate) cpu_us: f64,
    /// Resident memory; zero where the system does not say.
    pub(crate) rss_kib: f64,
    /// The most that ever was resident; likewise.
    pub(crate) peak_kib: f64,
}

impl Usage {
    pub(crate) fn now() -> Usage {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or_default()
        };
        let cpu_us = cpu.tv_sec as f64 * 1e6 + cpu.tv_nsec as f64 / 1e3;
        Usage { cpu_us, rss_kib: kib("VmRSS:"), peak_kib: kib("VmHWM:") }
    }
}

/// How long threads of this process, those that have ended left out, could have run and had no processor, in µs; zero
/// where the system does not say.
pub(crate) fn waited_us() -> f64 {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let waited = |text: String| text.split_whitespace().nth(1)?.parse::<f64>().ok();
    let each = threads.filter_map(|thread| waited(fs::read_to_string(thread.path().join("schedstat")).ok()?));
    each.sum::<f64>() / 1e3
}

/// Lets others have the processors first, by so many steps of `nice`.
pub(crate) fn give_way(steps: u8) -> Result<(), String> {
    match steps {
        0 => Ok(()),
        steps => rustix::process::setpriority_process(None, steps.into()).map_err(|error| format!("nice: {error}")),
    }
}

/// Allows as many open files as the system lets this process have, and says how many that is.
pub(crate) fn raise_open_files() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, the old limit stays and is what counts below.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// Keeps the calling thread, and what it starts, on the first processor it may use: the same for two processes.
#[cfg(target_os = "linux")]
pub(crate) fn pin_to_one_cpu() -> Result<(), String> {
    pin(|nth| nth == 0)
}

/// Keeps the calling thread, and what it starts, off that processor.
#[cfg(target_os = "linux")]
pub(crate) fn pin_to_other_cpus() -> Result<(), String> {
    pin(|nth| nth > 0)
}

#[cfg(target_os = "linux")]
fn pin(wanted: impl Fn(usize) -> bool) -> Result<(), String> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None).map_err(|error| format!("no CPU affinity: {error}"))?;
    let mut some = CpuSet::new();
    let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    cpus.enumerate().filter(|(nth, _)| wanted(*nth)).for_each(|(_, cpu)| some.set(cpu));
    if some.count() == 0 {
        return Err("no CPU affinity: there are too few processors".to_owned());
    }
    sched_setaffinity(None, &some).map_err(|error| format!("no CPU affinity: {error}"))
}

/// Only Linux lets a process choose.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pin_to_one_cpu() -> Result<(), String> {
    Err("no CPU affinity on this system".to_owned())
}

/// Likewise.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pin_to_other_cpus() -> Result<(), String> {
    pin_to_one_cpu()
}
