//! One of the processes that do a job: it takes orders on stdin, answers on stdout, and ends when stdin does.

use std::io::BufRead;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::job::{Impl, Job, Values, Work};
use crate::machine::{self, Usage};
use crate::{Failure, curve, link, pipe, rawtcp, requests, sessions};

/// Which process of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    Accept,
    Dial,
    /// Both in one, or neither.
    Alone,
}

/// What a process says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    /// Where it listens.
    Port(u16),
    /// Take the usage of both processes now and say go.
    Mark,
    Usage(Usage),
    /// The figures.
    Done(Values),
}

/// What a process is told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    Go,
    Usage,
}

/// A process's way to the one that started it.
pub(crate) struct Console(UnboundedReceiver<()>);

impl Console {
    /// Listens to stdin on a thread of its own, so that a busy process answers too. Without a parent there is nobody
    /// left to measure for, and nothing to clean up.
    fn open() -> Console {
        let (go, gone) = unbounded_channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(Told::Go) => drop(go.send(())),
                    Ok(Told::Usage) => say(&Said::Usage(Usage::now())),
                    Err(_) => break,
                }
            }
            std::process::exit(0);
        });
        Console(gone)
    }

    /// Has the usage of both processes noted at this point.
    pub(crate) async fn mark(&mut self) -> Result<(), Failure> {
        say(&Said::Mark);
        self.0.recv().await.ok_or_else(|| "nobody is there to go on".into())
    }

    /// Tells the dialling process where to go.
    pub(crate) fn listening(&self, at: SocketAddr) {
        say(&Said::Port(at.port()));
    }
}

fn say(what: &Said) {
    // All that is said is made of numbers and names.
    println!("{}", serde_json::to_string(what).unwrap_or_default());
}

/// Does this process's part of a job and then waits to be ended.
pub(crate) fn main(side: Side, job: &str, port: u16) -> Result<(), Failure> {
    let job: Job = serde_json::from_str(job)?;
    // Before any other thread is there, so that all of them stay on it.
    if job.one_cpu {
        machine::pin_to_one_cpu()?;
    }
    let mut console = Console::open();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let values = runtime
        .enable_all()
        // A job in virtual time sleeps and computes, and nothing else.
        .start_paused(side == Side::Alone && matches!(job.work, Work::Wan | Work::PrioritySlowLink))
        .build()?
        .block_on(part(side, job, at, &mut console))?;
    if let Some(values) = values {
        say(&Said::Done(values));
    }
    // The other process may still have to say something; stdin ends this one.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

async fn part(side: Side, job: Job, at: SocketAddr, console: &mut Console) -> Result<Option<Values>, Failure> {
    match (side, job.by) {
        (Side::Alone, Impl::CurveDalek | Impl::CurveAwsLc) => curve::run(job).map(Some),
        (Side::Alone, _) => link::run(job).await.map(Some),
        (Side::Accept, Impl::RawTcp) => rawtcp::accept(job, console).await,
        (Side::Dial, Impl::RawTcp) => rawtcp::dial(job, at, console).await,
        (Side::Accept, _) if job.work.is_routed() => requests::accept(job, console).await,
        (Side::Dial, _) if job.work.is_routed() => requests::dial(job, at, console).await,
        (Side::Accept, by) if by.is_peerage() => sessions::accept(job, console).await,
        (Side::Dial, by) if by.is_peerage() => sessions::dial(job, at, console).await,
        (Side::Accept, _) => pipe::accept(job, console).await.map(Some),
        (Side::Dial, _) => pipe::dial(job, at).await.map(|()| None),
    }
}
