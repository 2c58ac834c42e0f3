//! What the process uses.

/// The memory of this whole process that is in use now, in bytes: its resident set, as Linux says in
/// `/proc/self/status`; `None` elsewhere.
///
/// The difference before and after a world is built, over its nodes, is what a node costs: with everything that the
/// allocator keeps, and to the page. It differs from run to run, so nothing that is compared may depend on it.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    resident(&status)
}

/// The file counts in units of 1024 bytes, whatever it calls them and however large a page is.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_read_from_what_linux_says() {
        assert_eq!(resident("VmPeak:\t  200 kB\nVmRSS:\t   1234 kB\nThreads:\t1\n"), Some(1234 * 1024));
        assert_eq!(resident("VmPeak:\t  200 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_allocated_and_written_is_seen() {
        let before = resident_bytes().expect("on Linux");
        let used = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = resident_bytes().expect("on Linux");
        assert!(after >= before + (32 << 20), "{before} {after}");
        drop(used);
    }
}
