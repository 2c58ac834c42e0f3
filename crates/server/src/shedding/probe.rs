//! Reading what the process uses.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Usage;

/// Reads what the process uses. May take a moment, as a disk may: it is asked on a thread that may block, one reading at a
/// time, and in virtual time in the root itself.
pub trait Probe: Send + Sync + 'static {
    /// What is used now; nothing for what cannot be read. The lag is the root's own to tell.
    fn read(&self) -> Usage;
}

impl fmt::Debug for dyn Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}

/// What the operating system says: memory on Linux, processor time and disk on Unix, and elsewhere nothing.
#[derive(Debug)]
pub struct SystemProbe {
    disk: Option<PathBuf>,
    /// When it was last asked, and the processor time used by then.
    last: Mutex<Option<(Instant, Duration)>>,
}

impl SystemProbe {
    /// Looks at the disk of this directory, if one is named.
    pub fn new(disk: Option<PathBuf>) -> SystemProbe {
        SystemProbe { disk, last: Mutex::new(None) }
    }

    fn cpu(&self) -> Option<u32> {
        let (now, used) = (Instant::now(), cpu_time()?);
        let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace((now, used))?;
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u128);
        let could = now.duration_since(before.0).as_nanos() * cores;
        let did = used.saturating_sub(before.1).as_nanos() * 1_000;
        // The two clocks are not read at one instant: over a short time more than everything may seem to be used.
        u32::try_from((did / could.max(1)).min(1_000)).ok()
    }
}

impl Probe for SystemProbe {
    fn read(&self) -> Usage {
        let disk = self.disk.as_ref().and_then(|path| free(path));
        Usage { memory: resident(), cpu: self.cpu(), disk, lag: None }
    }
}

/// Linux's `VmRSS`.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(unix)]
fn cpu_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

#[cfg(unix)]
fn free(path: &std::path::Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn cpu_time() -> Option<Duration> {
    None
}

#[cfg(not(unix))]
fn free(_: &std::path::Path) -> Option<u64> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_operating_system_tells_of_memory_and_disk_at_once_and_of_the_processor_from_the_second_time_on() {
        let probe = SystemProbe::new(Some(std::env::temp_dir()));
        let first = probe.read();
        assert!(first.memory > Some(1 << 20) && first.disk.is_some() && first.cpu.is_none(), "{first:?}");
        let begun = cpu_time();
        while cpu_time() < begun.map(|begun| begun + Duration::from_millis(5)) {}
        let cpu = probe.read().cpu;
        assert!(cpu.is_some_and(|cpu| (1..=1_000).contains(&cpu)), "of all processors: {cpu:?}");
        assert_eq!(SystemProbe::new(Some("/there/is/no/such/place".into())).read().disk, None);
    }
}
