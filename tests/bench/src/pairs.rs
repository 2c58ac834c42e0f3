//! Starts the processes of a job, notes what they use when they say so, and takes their figures.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::Failure;
use crate::job::{Job, Values};
use crate::machine::Usage;
use crate::role::{Said, Side, Told};

/// How long a process may take to end once its stdin has.
const GOODBYE: Duration = Duration::from_secs(5);

/// What a job gave.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) values: Values,
    /// The usage of the accepting and of the dialling process at each mark.
    pub(crate) marks: Vec<[Usage; 2]>,
}

/// One process. Dropping it ends it.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
}

/// A line of a process; `None` when it has ended.
type Heard = (Side, Option<String>);

impl Process {
    fn start(side: Side, job: &str, port: u16, heard: &Sender<Heard>) -> Result<Process, Failure> {
        let name = side.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let mut child = Command::new(std::env::current_exe()?)
            .args(["role", &name, job, &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let heard = heard.clone();
        std::thread::spawn(move || {
            let lines = stdout.map(|stdout| BufReader::new(stdout).lines().map_while(Result::ok));
            for line in lines.into_iter().flatten() {
                if heard.send((side, Some(line))).is_err() {
                    return;
                }
            }
            // Nobody listens any more once the job is done.
            let _ = heard.send((side, None));
        });
        Ok(Process { child, stdin })
    }

    fn tell(&mut self, what: Told) -> Result<(), Failure> {
        let stdin = self.stdin.as_mut().ok_or("the process is being ended")?;
        writeln!(stdin, "{}", serde_json::to_string(&what)?)?;
        Ok(stdin.flush()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let deadline = Instant::now() + GOODBYE;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // It has had its time; what cannot be killed is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does a job and gives its figures.
pub(crate) fn run(job: &Job) -> Result<Outcome, Failure> {
    let text = serde_json::to_string(job)?;
    let (heard, lines) = channel();
    let deadline = Instant::now() + job.limit();
    let mut talk = Talk { lines, deadline, processes: Vec::new(), outcome: Outcome::default() };
    if job.alone() {
        talk.processes.push((Side::Alone, Process::start(Side::Alone, &text, 0, &heard)?));
    } else {
        talk.processes.push((Side::Accept, Process::start(Side::Accept, &text, 0, &heard)?));
        let (_, said) = talk.next()?;
        let Said::Port(port) = said else { return Err(format!("the accepting process said {said:?} first").into()) };
        talk.processes.push((Side::Dial, Process::start(Side::Dial, &text, port, &heard)?));
    }
    talk.until_done()
}

struct Talk {
    lines: Receiver<Heard>,
    deadline: Instant,
    processes: Vec<(Side, Process)>,
    outcome: Outcome,
}

impl Talk {
    fn next(&mut self) -> Result<(Side, Said), Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok((side, Some(line))) => Ok((side, serde_json::from_str(&line)?)),
            Ok((side, None)) => Err(format!("the {side:?} process ended before the figures were there").into()),
            Err(_) => Err("no figures within the time limit".into()),
        }
    }

    fn until_done(mut self) -> Result<Outcome, Failure> {
        loop {
            match self.next()? {
                (side, Said::Mark) => {
                    let both = self.usage()?;
                    self.outcome.marks.push(both);
                    self.tell(Told::Go, |other| other == side)?;
                }
                (_, Said::Done(values)) => {
                    self.outcome.values = values;
                    return Ok(std::mem::take(&mut self.outcome));
                }
                (side, said) => return Err(format!("the {side:?} process said {said:?} out of turn").into()),
            }
        }
    }

    fn tell(&mut self, what: Told, whom: impl Fn(Side) -> bool) -> Result<(), Failure> {
        self.processes.iter_mut().filter(|(side, _)| whom(*side)).try_for_each(|(_, process)| process.tell(what))
    }

    fn usage(&mut self) -> Result<[Usage; 2], Failure> {
        self.tell(Told::Usage, |_| true)?;
        let mut both = [Usage::default(); 2];
        for _ in 0..self.processes.len() {
            let (side, said) = self.next()?;
            let Said::Usage(usage) = said else { return Err(format!("{side:?} said {said:?}, not its usage").into()) };
            both[usize::from(side == Side::Dial)] = usage;
        }
        Ok(both)
    }
}
