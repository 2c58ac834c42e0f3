//! Large pages for worlds.
//!
//! An event touches many places in the memory of a node that no other event has touched for long, and with small
//! pages the processor looks most of them up in a table of pages that is not in its cache either: `docs/measurements.md`
//! has what that costs.

/// How glibc is told: large pages where the system gives them, and room taken in steps that hold many of them.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TUNABLES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=268435456");

/// Starts this program again with large pages for its heap, unless it was told something of its heap. glibc reads it at the
/// start only. Where that cannot be done, the program goes on with small ones.
pub(super) fn large() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::os::unix::process::CommandExt;

        if std::env::var_os(TUNABLES.0).is_none()
            && let Ok(program) = std::env::current_exe()
        {
            let arguments = std::env::args_os().skip(1);
            // It comes back only if it failed.
            let _error = std::process::Command::new(program).args(arguments).env(TUNABLES.0, TUNABLES.1).exec();
        }
    }
}
