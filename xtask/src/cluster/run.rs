//! One run from the first process to the last: start, mesh, publish, kill, account, stop.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::ChaCha8Rng};

use super::Plan;
use super::nodes::{Ended, Nodes, Note};
use super::progress::Progress;
use super::publish::{self, Gate, Step};
use super::report::{Report, Row};
use super::tally::Tally;
use crate::shell::Failure;

/// Peers a node must have to count as part of the mesh, in a cluster that has so many others.
const MESH_PEERS: usize = 4;

/// How often nodes are asked for their peers and watched for their end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waited after the last delivery: a message delivered twice would show up in this time.
const LINGER: Duration = Duration::from_secs(1);

/// Lines shown of the log of a node that failed.
const TAIL: usize = 15;

/// Nodes whose logs are shown at most.
const TAILS: usize = 3;

pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) rows: Vec<Row>,
    /// Why the run failed; empty when all is well.
    pub(crate) failures: Vec<String>,
    pub(crate) kept: Option<PathBuf>,
}

/// Why a run cannot go on, and the nodes whose logs may say more.
struct Abort {
    why: String,
    nodes: Vec<usize>,
}

impl Abort {
    fn because(why: impl Into<String>) -> Self {
        Self { why: why.into(), nodes: Vec::new() }
    }
}

impl From<Failure> for Abort {
    fn from(failure: Failure) -> Self {
        Self::because(failure.to_string())
    }
}

/// Starts a cluster of `program`, runs the plan on it, and stops all of it whatever happened.
pub(crate) fn run(plan: &Plan, program: &Path, stop: &AtomicBool) -> Result<Outcome, Failure> {
    let mut temporary = tempfile::Builder::new();
    let folder = temporary.prefix("peerage-cluster-").tempdir().map_err(Failure::file("the temp folder"))?;
    let (sender, notes) = mpsc::channel();
    let mut run = Run::new(plan, program, folder.path(), stop, sender, notes);

    let mut suspects = Vec::new();
    let mut failures = Vec::new();
    if let Err(abort) = run.work() {
        failures.push(abort.why);
        suspects = abort.nodes;
        // A node that ended by itself is the cause of whatever else was noticed first.
        if let Some((node, why)) = run.nodes.crashed().filter(|(_, why)| !failures.contains(why)) {
            failures.insert(0, why);
            suspects.insert(0, node);
        }
    }
    run.gate.close();
    run.progress.show(0, 1, "stopping".to_owned());
    run.nodes.measure_all();
    let ended = run.nodes.stop();
    run.progress.end();

    failures.extend(run.accusations());
    for (index, ended) in ended.iter().enumerate() {
        if let Some(complaint) = &ended.complaint {
            suspects.push(index);
            failures.push(complaint.clone());
        }
    }
    let mut shown = HashSet::new();
    suspects.retain(|index| shown.insert(*index));
    for index in suspects.into_iter().take(TAILS) {
        eprintln!("--- the last lines of node {}\n{}", index + 1, run.nodes.tail(index, TAIL));
    }
    let rows = run.rows(&ended);
    let report = Report::new(&plan.items, &run.tally.sums(), run.mesh_ready, &run.tally.propagation(), &rows);
    drop(run);
    let kept = plan.keep.then(|| folder.keep());
    Ok(Outcome { report, rows, failures, kept })
}

struct Run<'a> {
    plan: &'a Plan,
    stop: &'a AtomicBool,
    nodes: Nodes,
    sender: Sender<Note>,
    notes: Receiver<Note>,
    tally: Tally,
    progress: Progress,
    gate: Arc<Gate>,
    victims: Vec<usize>,
    begun: Instant,
    mesh_ready: Option<Duration>,
    looked: Instant,
    /// When something last went forward; the time limit counts from here.
    moved: Instant,
    published: usize,
    busy: usize,
}

impl<'a> Run<'a> {
    fn new(
        plan: &'a Plan,
        program: &Path,
        folder: &Path,
        stop: &'a AtomicBool,
        sender: Sender<Note>,
        notes: Receiver<Note>,
    ) -> Self {
        let hashes = plan.items.iter().map(|item| *blake3::hash(item).as_bytes()).collect();
        let victims = draw_victims(plan.nodes, plan.kill, plan.seed);
        let now = Instant::now();
        Self {
            plan,
            stop,
            nodes: Nodes::new(program, folder, sender.clone()),
            sender,
            notes,
            tally: Tally::new(hashes, plan.nodes, &victims),
            progress: Progress::new(),
            gate: Arc::new(Gate::default()),
            victims,
            begun: now,
            mesh_ready: None,
            looked: now,
            moved: now,
            published: 0,
            busy: 0,
        }
    }

    fn work(&mut self) -> Result<(), Abort> {
        self.form_mesh()?;
        self.publish()?;
        self.linger()
    }

    /// Starts the first node, then the others with its address, and waits until each has its peers.
    fn form_mesh(&mut self) -> Result<(), Abort> {
        let all = self.plan.nodes;
        self.nodes.add()?;
        self.wait_for(all, |run| usize::from(run.nodes.is_in_mesh(0, 0)), 1, "waiting for the first node")?;
        for _ in 1..all {
            self.nodes.add()?;
        }
        let wanted = mesh_peers(all);
        let in_mesh = move |run: &mut Self| (0..all).filter(|node| run.nodes.is_in_mesh(*node, wanted)).count();
        self.wait_for(all, in_mesh, all, &format!("waiting for {wanted} peers each"))?;
        let ready = self.begun.elapsed();
        self.mesh_ready = Some(ready);
        let each = format!("every one of {all} nodes has at least {wanted} peers");
        self.progress.say(&format!("mesh: {each} after {:.1} s", ready.as_secs_f64()));
        Ok(())
    }

    /// Waits until `count` reaches `wanted`; the nodes that hold it up are named when it does not.
    fn wait_for(
        &mut self,
        all: usize,
        mut count: impl FnMut(&mut Self) -> usize,
        wanted: usize,
        what: &str,
    ) -> Result<(), Abort> {
        let limit = Instant::now() + self.plan.timeout;
        loop {
            self.turn()?;
            if !self.look_is_due() {
                continue;
            }
            let done = count(self);
            self.progress.show(done, wanted, format!("{what}: {done}/{wanted} nodes"));
            if done >= wanted {
                return Ok(());
            }
            if Instant::now() >= limit {
                let missing = mesh_peers(all);
                let nodes: Vec<usize> =
                    (0..self.nodes.count()).filter(|node| !self.nodes.is_in_mesh(*node, missing)).collect();
                let said: Vec<String> =
                    nodes.iter().map(|node| format!("node {} {}", node + 1, self.nodes.situation(*node))).collect();
                let seconds = self.plan.timeout.as_secs();
                return Err(Abort { why: format!("no mesh within {seconds} s: {}", said.join(", ")), nodes });
            }
        }
    }

    /// Publishes everything, kills and restarts in the middle, and waits until the account is complete.
    fn publish(&mut self) -> Result<(), Abort> {
        let items = self.plan.items.len();
        let (half, last_part) = (items / 2, items - (items / 10).max(1));
        self.gate.open_to(if self.victims.is_empty() { items } else { half });
        self.start_publisher();
        self.moved = Instant::now();
        let mut killed = self.victims.is_empty();
        let mut all_back = self.victims.is_empty();
        loop {
            self.turn()?;
            if !killed && self.published >= half {
                killed = true;
                self.kill_and_restart()?;
                // The last tenth waits for the restarted nodes, so that there is something they must not miss.
                self.gate.open_to(last_part.max(half));
            }
            let due = self.look_is_due();
            if killed && !all_back && due {
                all_back = self.find_returned();
                if all_back {
                    self.gate.open_to(items);
                }
            }
            if due {
                self.show();
                if self.tally.is_complete() && self.published == items {
                    return Ok(());
                }
                if self.moved.elapsed() >= self.plan.timeout {
                    return Err(self.stuck());
                }
            }
        }
    }

    fn start_publisher(&self) {
        let (items, rate, seed) = (self.plan.items.clone(), self.plan.rate, self.plan.seed);
        let through: Vec<usize> = (0..self.plan.nodes).filter(|node| !self.victims.contains(node)).collect();
        let (gate, api, notes) = (Arc::clone(&self.gate), self.nodes.publisher(), self.sender.clone());
        thread::spawn(move || {
            // Notes that nobody reads any more are about a run that has ended.
            let tell = |step| drop(notes.send(Note::Publisher { step, at: Instant::now() }));
            let result = publish::publish_all(&items, &through, rate, seed, &gate, &api, tell);
            drop(notes.send(Note::PublisherEnded(result)));
        });
    }

    fn kill_and_restart(&mut self) -> Result<(), Abort> {
        let names: Vec<String> = self.victims.iter().map(|node| (node + 1).to_string()).collect();
        let what = match names.as_slice() {
            [name] => format!("node {name} after {} messages, and start it again", self.published),
            names => format!("nodes {} after {} messages, and start them again", names.join(", "), self.published),
        };
        self.progress.say(&format!("kill: {what}"));
        for node in self.victims.clone() {
            self.tally.restarted(node);
            self.nodes.restart(node)?;
        }
        self.moved = Instant::now();
        Ok(())
    }

    /// Notes which restarted nodes are in the mesh again; true when all are.
    fn find_returned(&mut self) -> bool {
        let wanted = mesh_peers(self.plan.nodes);
        for node in self.victims.clone() {
            if !self.tally.is_back(node) && self.nodes.is_in_mesh(node, wanted) {
                self.moved = Instant::now();
                self.tally.back(node, self.begun.elapsed());
                let line = format!("back: node {} has at least {wanted} peers again", node + 1);
                self.progress.say(&line);
            }
        }
        self.victims.iter().all(|node| self.tally.is_back(*node))
    }

    /// Why nothing goes forward.
    fn stuck(&mut self) -> Abort {
        let seconds = self.plan.timeout.as_secs();
        let away: Vec<usize> = self.victims.iter().copied().filter(|node| !self.tally.is_back(*node)).collect();
        if let Some(node) = away.first() {
            let (name, situation) = (node + 1, self.nodes.situation(*node));
            let why = format!("restarted node {name} was not back in the mesh within {seconds} s: it {situation}");
            return Abort { why, nodes: away };
        }
        if self.published < self.plan.items.len() {
            let why = format!("publishing stood still for {seconds} s at message {}", self.published);
            return Abort::because(why);
        }
        let behind = |node: &usize| self.tally.delivered_by(*node) < self.plan.items.len();
        let nodes: Vec<usize> =
            (0..self.plan.nodes).filter(|node| !self.victims.contains(node)).filter(behind).collect();
        Abort { why: format!("not everything was delivered within {seconds} s of the last publication"), nodes }
    }

    fn linger(&mut self) -> Result<(), Abort> {
        let end = Instant::now() + LINGER;
        while Instant::now() < end {
            self.turn()?;
            self.look_is_due();
        }
        Ok(())
    }

    /// Takes in what has been told, waiting a moment for the first of it.
    fn turn(&mut self) -> Result<(), Abort> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Abort::because("interrupted"));
        }
        match self.notes.recv_timeout(LOOK_EVERY / 4) {
            Ok(note) => self.take(note)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Abort::because("nothing is left to listen to")),
        }
        // Bounded, so that a flood of notes cannot keep the watch from its other duties.
        for _ in 0..1_000 {
            let Ok(note) = self.notes.try_recv() else { break };
            self.take(note)?;
        }
        if let Some((node, why)) = self.look_due().then(|| self.nodes.crashed()).flatten() {
            return Err(Abort { why, nodes: vec![node] });
        }
        Ok(())
    }

    fn look_due(&self) -> bool {
        self.looked.elapsed() >= LOOK_EVERY
    }

    /// Whether it is time to look at the nodes again; if so, the next time is set.
    fn look_is_due(&mut self) -> bool {
        let due = self.look_due();
        if due {
            self.looked = Instant::now();
        }
        due
    }

    fn take(&mut self, note: Note) -> Result<(), Abort> {
        let since_start = |at: Instant| at.saturating_duration_since(self.begun);
        match note {
            Note::Started { node, life, facts: Ok(facts) } => self.nodes.started(node, life, &facts),
            Note::Started { node, life, facts: Err(why) } if self.nodes.is_present_life(node, life) => {
                return Err(Abort { why: format!("node {} {why}", node + 1), nodes: vec![node] });
            }
            Note::Subscribed { node, life } => self.nodes.subscribed(node, life),
            Note::Message { node, life, id, hash, at } => {
                let at = since_start(at);
                self.tally.delivered(node, life, &id, &hash, at);
            }
            Note::Missed { node, count } => self.tally.missed(node, count),
            Note::StreamEnded { node, life, why } if self.nodes.is_present_life(node, life) => {
                let why = format!("node {}'s message stream ended early: {why}", node + 1);
                return Err(Abort { why, nodes: vec![node] });
            }
            Note::Publisher { step, at } => {
                let at = since_start(at);
                match step {
                    Step::Publishing { item, node } => self.tally.publishing(item, node, at),
                    Step::Again { item } => {
                        self.busy += 1;
                        self.tally.publishing_again(item, at);
                    }
                    Step::Published => {
                        self.published += 1;
                        self.moved = Instant::now();
                    }
                }
            }
            Note::PublisherEnded(Err(why)) => return Err(Abort::because(why)),
            // The end of a process that was killed on purpose, and the end of publishing.
            Note::Started { .. } | Note::StreamEnded { .. } | Note::PublisherEnded(Ok(())) => {}
        }
        Ok(())
    }

    fn show(&mut self) {
        let sums = self.tally.sums();
        let (published, items) = (self.tally.published(), self.plan.items.len());
        let busy = if self.busy == 0 { String::new() } else { format!(", {} times busy", self.busy) };
        let text = format!("published {published}/{items}, delivered {}/{}{busy}", sums.delivered, sums.expected);
        self.progress.show(sums.delivered, sums.expected, text);
    }

    /// What the account holds against the run.
    fn accusations(&self) -> Vec<String> {
        let sums = self.tally.sums();
        let mut accusations = Vec::new();
        let (published, items) = (self.tally.published(), self.plan.items.len());
        if published < items {
            // Else what was never sent looks as if the network had lost it.
            accusations
                .push(format!("publishing ended after {published} of {items} messages; the rest counts as lost"));
        }
        for (count, what) in [
            (sums.lost, "deliveries are missing at nodes that stayed up"),
            (sums.duplicates, "deliveries reached an application that had them already"),
            (sums.foreign, "deliveries were of something nobody published"),
        ] {
            if count > 0 {
                accusations.push(format!("{count} {what}"));
            }
        }
        if sums.missed > 0 {
            accusations.push(format!("nodes dropped {} events of their subscribers as too slow", sums.missed));
        }
        for node in &self.victims {
            let (missing, wanted) = self.tally.missing_since_back(*node);
            if missing > 0 {
                let name = node + 1;
                let missed = format!("has not got {missing} of the {wanted} messages that were to be had");
                accusations.push(format!("node {name} came back but {missed}"));
            }
        }
        accusations
    }

    fn rows(&self, ended: &[Ended]) -> Vec<Row> {
        let row = |(node, ended): (usize, &Ended)| {
            let (counters, usage) = (self.nodes.counters(node), self.nodes.usage(node));
            Row {
                peers: self.nodes.peers(node),
                delivered: self.tally.delivered_by(node),
                has: self.tally.has(node),
                duplicates: counters.duplicates,
                bytes_in: counters.bytes_in,
                bytes_out: counters.bytes_out,
                peak_rss_mib: usage.map(|usage| usage.peak_rss_mib),
                cpu_s: usage.map(|usage| usage.cpu_s),
                exit_code: ended.exit_code,
                restarted: self.nodes.was_restarted(node),
            }
        };
        ended.iter().enumerate().map(row).collect()
    }
}

/// Peers each node of so many must have.
fn mesh_peers(nodes: usize) -> usize {
    nodes.saturating_sub(1).min(MESH_PEERS)
}

/// Draws who is killed: never the first node.
fn draw_victims(nodes: usize, kill: usize, seed: u64) -> Vec<usize> {
    let mut victims: Vec<usize> = (1..nodes).collect();
    victims.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    victims.truncate(kill);
    victims.sort_unstable();
    victims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_is_never_drawn_and_nobody_twice() {
        for seed in 0..50 {
            let mut victims = draw_victims(6, 5, seed);
            victims.dedup();
            assert_eq!(victims, [1, 2, 3, 4, 5]);
            assert_eq!(draw_victims(16, 3, seed), draw_victims(16, 3, seed));
            assert!(!draw_victims(16, 3, seed).contains(&0));
        }
        assert_eq!(draw_victims(1, 0, 7), [0; 0]);
    }

    #[test]
    fn a_mesh_is_four_peers_or_all_there_are() {
        assert_eq!([1, 2, 5, 8, 50].map(mesh_peers), [0, 1, 4, 4, 4]);
    }
}
