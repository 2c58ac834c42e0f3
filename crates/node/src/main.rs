//! A Peerage node to run: it finds peers, gossips on topics, and is watched and used over HTTP on loopback.

mod api;
mod cli;
mod http;
mod limits;
mod metrics;
mod output;
mod run;

use std::io::{IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;
use std::time::Duration;

use cli::NoRun;
use output::Output;
use run::Failure;

/// How long the last lines may take to be read.
const LAST_LINES: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let settings = match cli::parse(std::env::args_os()) {
        Ok(settings) => settings,
        Err(NoRun::Asked(text)) => {
            let text = if stdout().is_terminal() { text.ansi().to_string() } else { text.to_string() };
            // Nobody is left to tell if nobody reads it; so below.
            drop(stdout().write_all(text.as_bytes()));
            return ExitCode::SUCCESS;
        }
        Err(NoRun::Wrong(sentence)) => return refuse(&sentence),
    };
    match cli::log_filter(&settings.log) {
        Ok(filter) => tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(stderr)
            .with_ansi(stderr().is_terminal())
            // It would say so on stderr, and panic if that is what failed.
            .log_internal_errors(false)
            .init(),
        Err(sentence) => return refuse(&sentence),
    }
    let started = Output::stdout().and_then(|output| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok((output, runtime))
    });
    let ((output, written), runtime) = match started {
        Ok(started) => started,
        Err(error) => return fail(&format!("the operating system gives no threads: {error}")),
    };
    let ended = runtime.block_on(run::run(settings, output));
    // Nothing that still runs may hold up the end.
    runtime.shutdown_background();
    written.wait(LAST_LINES);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Start(sentence)) => refuse(&sentence),
        Err(Failure::Later(sentence)) => fail(&sentence),
    }
}

/// What the user has to change.
fn refuse(sentence: &str) -> ExitCode {
    drop(writeln!(stderr(), "node: {sentence}"));
    ExitCode::from(2)
}

/// What went wrong by itself.
fn fail(sentence: &str) -> ExitCode {
    drop(writeln!(stderr(), "node: {sentence}"));
    ExitCode::from(1)
}
