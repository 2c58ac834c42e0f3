//! The program's lines on standard output, written by a thread of their own: whoever reads them slowly, or
//! not at all, does not hold up the node.

use std::io::{Write, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that may wait for the reader; later ones are dropped, and counted.
const WAITING: usize = 4096;

/// Where lines go. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    lines: SyncSender<String>,
    dropped: Arc<AtomicU64>,
}

/// Ends when every [`Output`] is gone and everything is written.
#[derive(Debug)]
pub(crate) struct Written(Receiver<()>);

impl Output {
    /// Standard output.
    pub(crate) fn stdout() -> std::io::Result<(Output, Written)> {
        Output::to(stdout())
    }

    fn to(mut sink: impl Write + Send + 'static) -> std::io::Result<(Output, Written)> {
        let (lines, queue) = sync_channel::<String>(WAITING);
        let (done, written) = sync_channel::<()>(0);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = dropped.clone();
        std::thread::Builder::new().name("output".into()).spawn(move || {
            let _done = done;
            while let Ok(line) = queue.recv() {
                // A reader that has gone away is no reason to stop: the node is there for its peers.
                drop(sink.write_all(line.as_bytes()).and_then(|()| sink.flush()));
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    tracing::warn!(lines = lost, "not printed: standard output is not read");
                }
            }
        })?;
        Ok((Output { lines, dropped }, Written(written)))
    }

    /// Prints a line.
    pub(crate) fn line(&self, line: impl std::fmt::Display) {
        if self.lines.try_send(format!("{line}\n")).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Written {
    /// Waits until everything is written, but not longer than `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        let _ = self.0.recv_timeout(limit);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_is_written_in_order_before_the_end() {
        let kept = Kept::default();
        let (output, written) = Output::to(kept.clone()).expect("a thread");
        (0..100).for_each(|n| output.line(n));
        drop(output);
        written.wait(Duration::from_secs(5));
        let expected: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(*kept.0.lock().expect("no panic"), expected.as_bytes());
    }

    #[test]
    fn a_reader_that_is_stuck_or_gone_holds_up_nobody() {
        let (unstick, stuck) = sync_channel(0);
        let (output, written) = Output::to(Stuck(stuck)).expect("a thread");
        (0..2 * WAITING).for_each(|n| output.line(n));
        assert!(output.dropped.load(Ordering::Relaxed) >= WAITING as u64 - 1);
        written.wait(Duration::from_millis(10));
        drop(unstick);
        drop(output);
        written.wait(Duration::from_secs(5));
    }
}
