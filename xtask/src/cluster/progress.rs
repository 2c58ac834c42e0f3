//! Live progress: a bar on a terminal, plain lines anywhere else.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a plain line is printed at most.
const LINE_EVERY: Duration = Duration::from_secs(2);

pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    last: Option<(Instant, String)>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stdout());
            if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Self { bar, last: None }
    }

    /// Something happened once and is worth a line of its own.
    pub(crate) fn say(&mut self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    /// How far the present phase is.
    pub(crate) fn show(&mut self, done: usize, all: usize, text: String) {
        if let Some(bar) = &self.bar {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            bar.set_message(text);
            return;
        }
        let due = self.last.as_ref().is_none_or(|(at, last)| at.elapsed() >= LINE_EVERY && *last != text);
        if due {
            println!("{text}");
            self.last = Some((Instant::now(), text));
        }
    }

    /// Clears the bar: what follows is the result.
    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
